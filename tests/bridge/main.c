/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bridge: what is started in which order, what ends it, and with which status.
 *
 * The main thread never touches the mount and never waits for a request: it sleeps in
 * poll(2) on signals, on the forwarder and on the daemon's connection, so it can always
 * give up. Giving up is closing /dev/fuse, upon which the kernel fails every request.
 */
#include <errno.h>
#include <glib.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bridge/forwarder.h"
#include "tests/bridge/mount.h"
#include "tests/bridge/options.h"
#include "tests/bridge/recorder.h"
#include "tests/support/frontend.h"

#define DRAIN_MS 10000
#define UNMOUNT_MS 30000

enum {
    EXIT_UNMOUNTED = 0,
    EXIT_NOT_STARTED = 1,
    EXIT_USAGE = 2,
    EXIT_DAEMON_GONE = 3,
    EXIT_MALFORMED = 4,
    EXIT_GAVE_UP = 5,
};

typedef struct Bridge {
    const Options *options;
    char *directory; /* absolute */
    Frontend *frontend;
    Forwarder *forwarder;
    Recorder *recorder;
    int *fuse_fds;
    unsigned int n_fuse_fds;
    bool mounted;
    int signal_fd;
    int event_fd;

    bool announced;
    bool unmounting;
    pid_t unmounter; /* child, or 0 */
    gint64 deadline; /* for the unmounting; 0: none */
} Bridge;

static int complain(int rc, const char *what)
{
    (void)fprintf(stderr, "bridge: %s: %s\n", what, strerrordesc_np(-rc));
    return rc;
}

/* ---- start ------------------------------------------------------------------ */

static void ignore_signal(int number)
{
    (void)number; /* it only ends a read(2) */
}

static int prepare_signals(Bridge *bridge)
{
    sigset_t set;
    struct sigaction interrupt = {.sa_handler = ignore_signal}; /* no SA_RESTART */
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    (void)sigemptyset(&set); /* these cannot fail with valid numbers */
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGHUP);
    (void)sigaddset(&set, SIGUSR2);
    (void)sigaddset(&set, SIGCHLD);
    (void)sigaction(SIGUSR1, &interrupt, NULL);
    (void)sigaction(SIGPIPE, &ignore, NULL);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    bridge->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    bridge->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return bridge->signal_fd < 0 || bridge->event_fd < 0 ? -errno : 0;
}

/* Without indirect tables a request takes up to four descriptors of the ring itself. */
static unsigned int n_slots(const Options *options, bool indirect)
{
    int most = indirect ? options->queue_size : options->queue_size / 4;
    int n = MAX(options->n_slots, options->n_queues);
    return (unsigned int)MIN(n, most);
}

static int connect_daemon(Bridge *bridge)
{
    const Options *options = bridge->options;
    FrontendConfig config;
    frontend_config_init(&config);
    config.n_request_queues = (unsigned int)options->n_queues;
    config.queue_size = (unsigned int)options->queue_size;
    config.n_regions = (unsigned int)options->n_regions;
    config.memory_size = forwarder_memory_size(n_slots(options, true)) +
                         (unsigned int)options->n_regions * (4u << 20);
    if (options->no_indirect) {
        config.features &= ~FRONTEND_F_INDIRECT_DESC;
    }
    if (options->no_event_idx) {
        config.features &= ~FRONTEND_F_EVENT_IDX;
    }
    if (options->mem_table) {
        config.protocol_features &= ~FRONTEND_PROTOCOL_CONFIGURE_MEM_SLOTS;
    }
    bridge->frontend = frontend_new(&config);
    if (bridge->frontend == NULL) {
        return complain(-errno, "guest memory");
    }
    int rc = 0;
    if (options->fd >= 0) {
        frontend_attach_take(bridge->frontend, options->fd);
    } else {
        rc = frontend_connect(bridge->frontend, options->socket);
    }
    if (rc == 0) {
        rc = frontend_negotiate(bridge->frontend);
    }
    if (rc == 0) {
        rc = frontend_start(bridge->frontend);
    }
    if (rc < 0) {
        (void)fprintf(stderr, "bridge: %s\n", frontend_error(bridge->frontend));
    }
    return rc;
}

static int mount_share(Bridge *bridge)
{
    const Options *options = bridge->options;
    bridge->fuse_fds = g_new0(int, options->n_threads);
    int fd = mount_open_device();
    if (fd < 0) {
        return complain(fd, "cannot open /dev/fuse");
    }
    bridge->fuse_fds[bridge->n_fuse_fds++] = fd;
    MountConfig config = {
        .source = options->source != NULL ? options->source : "virtiofsd",
        .directory = bridge->directory,
        .options = options->mount_options,
        .read_only = options->read_only,
    };
    int rc = mount_attach(fd, &config);
    if (rc < 0) {
        return complain(rc, "cannot mount");
    }
    bridge->mounted = true;
    while (bridge->n_fuse_fds < (unsigned int)options->n_threads) {
        int clone = mount_clone_device(fd);
        if (clone < 0) {
            return complain(clone, "cannot clone /dev/fuse");
        }
        bridge->fuse_fds[bridge->n_fuse_fds++] = clone;
    }
    return 0;
}

static int start_forwarder(Bridge *bridge)
{
    const Options *options = bridge->options;
    bool indirect =
        (frontend_agreed(bridge->frontend, false) & FRONTEND_F_INDIRECT_DESC) != 0;
    ForwarderConfig config = {
        .frontend = bridge->frontend,
        .fuse_fds = bridge->fuse_fds,
        .n_readers = bridge->n_fuse_fds,
        .n_slots = n_slots(options, indirect),
        .split = options->whole || !indirect ? SEGMENTS_WHOLE : SEGMENTS_LINUX,
        .interrupts = options->interrupts,
        .recorder = bridge->recorder,
        .event_fd = bridge->event_fd,
    };
    bridge->forwarder = forwarder_new(&config);
    if (bridge->forwarder == NULL) {
        return complain(-ENOMEM, "slots");
    }
    int rc = forwarder_start(bridge->forwarder);
    return rc < 0 ? complain(rc, "cannot start a thread") : 0;
}

static int start(Bridge *bridge)
{
    bridge->directory = realpath(bridge->options->directory, NULL);
    if (bridge->directory == NULL) {
        return complain(-errno, bridge->options->directory);
    }
    if (bridge->options->record != NULL) {
        bridge->recorder = recorder_new(bridge->options->record);
        if (bridge->recorder == NULL) {
            return complain(-errno, bridge->options->record);
        }
    }
    int rc = prepare_signals(bridge);
    if (rc == 0) {
        rc = connect_daemon(bridge);
    }
    if (rc == 0) {
        rc = mount_share(bridge);
    }
    return rc == 0 ? start_forwarder(bridge) : rc;
}

/* ---- unmounting ------------------------------------------------------------- */

static void start_unmount(Bridge *bridge, bool lazy)
{
    bridge->unmounter = mount_start_unmount(bridge->directory, lazy);
    if (bridge->unmounter < 0) {
        (void)complain(bridge->unmounter, "cannot unmount");
        bridge->unmounter = 0;
    }
}

/* The child has ended; if the mount was busy, detach it and serve who still uses it. */
static void reap_unmount(Bridge *bridge)
{
    int status;
    if (bridge->unmounter == 0 || waitpid(bridge->unmounter, &status, WNOHANG) <= 0) {
        return;
    }
    bridge->unmounter = 0;
    int rc = WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
    if (rc == EBUSY) {
        (void)fprintf(stderr,
                      "bridge: the mount is busy; detached, waiting for its users\n");
        start_unmount(bridge, true);
    } else if (rc != 0) {
        (void)complain(-rc, "cannot unmount");
    }
}

/* Detach what is left of the mount; the connection is closed, so nothing can wait. */
static void detach(Bridge *bridge)
{
    int status;
    pid_t child = mount_start_unmount(bridge->directory, true);
    if (child > 0) {
        (void)waitpid(child, &status, 0); /* not mounted any more is fine as well */
    }
}

/* ---- serving ---------------------------------------------------------------- */

/* A line of opcodes, each with the number of its requests so far. */
static void tell_requests(const Bridge *bridge)
{
    ForwarderCounters counters = forwarder_counters(bridge->forwarder);
    (void)printf("requests");
    for (unsigned int i = 0; i < FORWARDER_OPCODES; i++) {
        if (counters.by_opcode[i] > 0) {
            (void)printf(" %u:%" G_GUINT64_FORMAT, i, (guint64)counters.by_opcode[i]);
        }
    }
    (void)printf("\n");
    (void)fflush(stdout); /* who does not listen does not need it */
}

/* Return: an exit status, or -1 to go on. */
static int handle_signals(Bridge *bridge)
{
    struct signalfd_siginfo info;
    while (read(bridge->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo == SIGCHLD) {
            reap_unmount(bridge);
        } else if (info.ssi_signo == SIGUSR2) {
            tell_requests(bridge);
        } else if (bridge->unmounting) {
            return EXIT_GAVE_UP;
        } else {
            bridge->unmounting = true;
            bridge->deadline =
                g_get_monotonic_time() + UNMOUNT_MS * G_TIME_SPAN_MILLISECOND;
            start_unmount(bridge, false);
        }
    }
    return -1;
}

static int handle_event(Bridge *bridge)
{
    uint64_t n;
    (void)!read(bridge->event_fd, &n, sizeof(n)); /* only empties it */
    switch (forwarder_state(bridge->forwarder)) {
    case FORWARDER_STARTING:
        break;
    case FORWARDER_SERVING:
        if (!bridge->announced) {
            bridge->announced = true;
            (void)printf("mounted %s\n", bridge->directory);
            (void)fflush(stdout); /* who does not listen does not need it */
        }
        break;
    case FORWARDER_ENDED:
        return EXIT_UNMOUNTED;
    case FORWARDER_FAILED:
        (void)fprintf(stderr, "bridge: %s\n", forwarder_error(bridge->forwarder));
        return bridge->announced ? EXIT_MALFORMED : EXIT_NOT_STARTED;
    }
    return -1;
}

static int time_left_ms(const Bridge *bridge)
{
    if (bridge->deadline == 0) {
        return -1;
    }
    gint64 left = (bridge->deadline - g_get_monotonic_time()) / G_TIME_SPAN_MILLISECOND;
    return left > 0 ? (int)left + 1 : 0;
}

/* Return: the exit status. */
static int serve(Bridge *bridge)
{
    struct pollfd fds[] = {
        {.fd = bridge->signal_fd, .events = POLLIN},
        {.fd = bridge->event_fd, .events = POLLIN},
        {.fd = frontend_socket(bridge->frontend), .events = POLLRDHUP},
    };
    for (;;) {
        int status = -1;
        int left = time_left_ms(bridge);
        if (poll(fds, G_N_ELEMENTS(fds), left) == 0 && left >= 0) {
            (void)fprintf(stderr, "bridge: unmounting took too long\n");
            return EXIT_GAVE_UP;
        }
        if (fds[0].revents != 0) {
            status = handle_signals(bridge);
        }
        if (status < 0 && fds[1].revents != 0) {
            status = handle_event(bridge);
        }
        if (status < 0 && fds[2].revents != 0) {
            (void)fprintf(stderr, "bridge: the daemon closed the connection\n");
            status = bridge->announced ? EXIT_DAEMON_GONE : EXIT_NOT_STARTED;
        }
        if (status >= 0) {
            return status;
        }
    }
}

/* ---- end -------------------------------------------------------------------- */

/* The mount is gone in an orderly way: end the session as a guest does. */
static int finish_session(Bridge *bridge)
{
    int rc = forwarder_destroy_session(bridge->forwarder, DRAIN_MS);
    if (rc < 0) {
        (void)complain(rc, "DESTROY");
        return EXIT_GAVE_UP;
    }
    if (frontend_stop(bridge->frontend) < 0) {
        (void)fprintf(stderr, "bridge: %s\n", frontend_error(bridge->frontend));
        return EXIT_DAEMON_GONE;
    }
    return EXIT_UNMOUNTED;
}

static void close_device(Bridge *bridge)
{
    for (unsigned int i = 0; i < bridge->n_fuse_fds; i++) {
        (void)close(bridge->fuse_fds[i]); /* its requests fail from now on */
    }
    bridge->n_fuse_fds = 0;
}

static int finish(Bridge *bridge, int status)
{
    bool drained =
        forwarder_stop(bridge->forwarder, status == EXIT_UNMOUNTED ? DRAIN_MS : 0);
    if (status == EXIT_UNMOUNTED) {
        status = drained ? finish_session(bridge) : EXIT_GAVE_UP;
    }
    close_device(bridge);
    if (bridge->unmounter > 0) {
        int ignored;
        (void)waitpid(bridge->unmounter, &ignored, 0); /* the closing has freed it */
    }
    if (status == EXIT_GAVE_UP || status == EXIT_NOT_STARTED) {
        detach(bridge);
    }
    ForwarderCounters counters = forwarder_counters(bridge->forwarder);
    (void)fprintf(stderr,
                  "bridge: %" G_GUINT64_FORMAT " requests, %" G_GUINT64_FORMAT
                  " malformed answers\n",
                  (guint64)counters.requests, (guint64)counters.malformed);
    return status == EXIT_UNMOUNTED && counters.malformed > 0 ? EXIT_MALFORMED : status;
}

static int run(Bridge *bridge)
{
    int status = EXIT_NOT_STARTED;
    if (start(bridge) == 0) {
        status = finish(bridge, serve(bridge));
    } else if (bridge->mounted) {
        if (bridge->forwarder != NULL) {
            (void)forwarder_stop(bridge->forwarder, 0);
        }
        close_device(bridge);
        detach(bridge);
    }
    forwarder_free(bridge->forwarder);
    frontend_free(bridge->frontend);
    int rc = recorder_free(bridge->recorder);
    if (rc < 0) {
        (void)complain(rc, "writing the corpus");
    }
    close_device(bridge);
    g_free(bridge->fuse_fds);
    free(bridge->directory);
    return status;
}

int main(int argc, char **argv)
{
    g_auto(Options) options = {0};
    g_autoptr(GError) error = NULL;
    if (!options_parse(&options, &argc, &argv, &error)) {
        (void)fprintf(stderr, "bridge: %s\n", error->message);
        return EXIT_USAGE;
    }
    Bridge bridge = {.options = &options, .signal_fd = -1, .event_fd = -1};
    return run(&bridge);
}
