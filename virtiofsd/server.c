/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main thread's loop, and the glue between vhost/ and fuse/, which never see each
 * other: the device tells here which queues start, stop and are reset, and here that
 * becomes work for the threads and the session.
 */
#include "virtiofsd/server.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "virtiofsd/autofd.h"
#include "virtiofsd/fuse/waits.h"
#include "virtiofsd/log.h"
#include "virtiofsd/vhost/device.h"
#include "virtiofsd/waiter.h"
#include "virtiofsd/workers.h"

/* The end is to come within a second, on a busy host, even if its file system hangs. */
#define DRAIN_TIMEOUT_MS 400

struct Server {
    ServerConfig config;
    AutoFd end_fd;    /* signalfd: SIGTERM, SIGINT, SIGHUP */
    AutoFd stats_fd;  /* signalfd: SIGUSR1 */
    AutoFd attend_fd; /* epoll: what can be done while the VMM waits for an answer */
    VuDevice *device;
    Workers *workers;
    Waits *waits; /* NULL if nothing can wait, as is: */
    Waiter *waiter;
    bool is_lost; /* nobody is left to serve requests */
};

static void signal_sets(sigset_t *ret_end, sigset_t *ret_stats)
{
    sigemptyset(ret_end);
    sigaddset(ret_end, SIGTERM);
    sigaddset(ret_end, SIGINT);
    sigaddset(ret_end, SIGHUP);
    sigemptyset(ret_stats);
    sigaddset(ret_stats, SIGUSR1);
}

void server_block_signals(void)
{
    sigset_t end, stats;

    signal_sets(&end, &stats);
    /* Fails only for an invalid first argument. */
    (void)sigprocmask(SIG_BLOCK, &end, NULL);
    (void)sigprocmask(SIG_BLOCK, &stats, NULL);
}

/* ---- what the device tells (VuQueueHandler) ------------------------------------------
 */

static void queue_start(void *opaque, unsigned int queue, int kick_fd)
{
    Server *server = opaque;
    VuRing *ring = vu_device_ring(server->device, queue);

    if (server->waits != NULL) {
        waits_open(server->waits, queue);
    }
    int result = workers_watch(server->workers, queue, ring, kick_fd);

    if (result < 0) {
        log_error("queue %u: cannot wait for its kicks: %s", queue,
                  strerrordesc_np(-result));
    } else {
        log_debug("queue %u started", queue);
    }
}

static void queue_stop(void *opaque, unsigned int queue)
{
    Server *server = opaque;

    workers_unwatch(server->workers, queue);
    log_debug("queue %u stopped", queue);
}

static void queue_settle(void *opaque, unsigned int queue)
{
    Server *server = opaque;

    if (server->waits != NULL) {
        waits_settle(server->waits, queue);
    }
}

static void queue_wake(void *opaque, unsigned int queue)
{
    Server *server = opaque;

    workers_wake(server->workers, queue);
}

/* ---- what the guest maps (DaxWindow) ------------------------------------------------
 */

static bool window_is_ready(void *opaque)
{
    return vu_window_is_ready(opaque);
}

static int window_map(void *opaque, const DaxMap *map)
{
    const VuWindowMap wanted = {
        .offset = map->offset, .file_offset = map->file_offset, .fd = map->fd};

    return vu_window_map(opaque, &wanted);
}

static int window_unmap(void *opaque, uint64_t offset, uint64_t length)
{
    return vu_window_unmap(opaque, offset, length);
}

static void window_unmap_all(void *opaque)
{
    vu_window_unmap_all(opaque);
}

static void join_window(const Server *server)
{
    VuWindow *window = vu_device_window(server->device);

    if (window != NULL) {
        session_set_window(server->config.session,
                           &(DaxWindow){.opaque = window,
                                        .is_ready = window_is_ready,
                                        .map = window_map,
                                        .unmap = window_unmap,
                                        .unmap_all = window_unmap_all});
    }
}

/* ---- what the device tells, of all queues -------------------------------------------
 */

static void device_reset(void *opaque)
{
    Server *server = opaque;

    session_reset(server->config.session);
    log_debug("device reset");
}

/* ---- what needs attention ------------------------------------------------------- */

static void log_statistics(Server *server)
{
    struct signalfd_siginfo info;
    SessionStats session;
    PtStats fs;

    if (read(server->stats_fd, &info, sizeof(info)) != (ssize_t)sizeof(info)) {
        return;
    }
    session_stats(server->config.session, &session);
    pt_fs_stats(server->config.fs, &fs);
    log_info("statistics: %" PRIu64 " requests, %" PRIu64 " errors, %" PRIu64
             " malformed; %" PRIu64 " inodes, %" PRIu64 " handles, %" PRIu64
             " descriptors",
             session.requests, session.errors, session.malformed, fs.inodes, fs.handles,
             fs.descriptors);
}

/* One VMM at a time: the first is served, later ones are turned away at once. */
static void accept_connection(Server *server)
{
    int fd = socket_accept(server->config.socket);

    if (fd < 0) {
        if (fd != -EAGAIN && fd != -ECONNABORTED && fd != -EINTR) {
            static LogLimit limit;
            log_write_limited(&limit, LOG_LEVEL_WARN, "cannot accept a connection: %s",
                              strerrordesc_np(-fd));
        }
        return;
    }
    if (vu_device_fd(server->device) >= 0) {
        static LogLimit limit;
        log_write_limited(&limit, LOG_LEVEL_WARN,
                          "a second client connected: refused, one VMM is being served");
        (void)close(fd);
        return;
    }
    log_info("VMM connected");
    vu_device_connect_take(server->device, fd);
}

/* Also while the device waits for requests in flight, which may take long. */
static void attend(void *opaque)
{
    Server *server = opaque;
    struct pollfd fds[] = {
        {.fd = server->stats_fd, .events = POLLIN},
        {.fd = socket_fd(server->config.socket), .events = POLLIN},
    };

    /* Whoever polls a table of mounts has taken the event: it may have been the epoll. */
    pt_fs_mounts_changed(server->config.fs);
    if (poll(fds, G_N_ELEMENTS(fds), 0) <= 0) {
        return;
    }
    if (fds[0].revents != 0) {
        log_statistics(server);
    }
    if (fds[1].revents != 0) {
        accept_connection(server);
    }
}

/* ---- set-up
 * ----------------------------------------------------------------------------- */

static bool open_signals(Server *server, GError **error)
{
    sigset_t end, stats;

    signal_sets(&end, &stats);
    server->end_fd = signalfd(-1, &end, SFD_CLOEXEC | SFD_NONBLOCK);
    server->stats_fd = signalfd(-1, &stats, SFD_CLOEXEC | SFD_NONBLOCK);
    if (server->end_fd < 0 || server->stats_fd < 0) {
        g_set_error(error, G_FILE_ERROR, (gint)g_file_error_from_errno(errno),
                    "cannot receive signals: %s", strerrordesc_np(errno));
        return false;
    }
    return true;
}

static bool open_attend(Server *server, GError **error)
{
    const int fds[] = {server->stats_fd, socket_fd(server->config.socket),
                       pt_fs_mounts_fd(server->config.fs)};

    server->attend_fd = epoll_create1(EPOLL_CLOEXEC);
    for (size_t i = 0; i < G_N_ELEMENTS(fds); i++) {
        /* A table of mounts can always be read: POLLPRI tells that it has changed. */
        struct epoll_event event = {.events = i < 2 ? EPOLLIN : EPOLLPRI};
        if (fds[i] >= 0 &&
            epoll_ctl(server->attend_fd, EPOLL_CTL_ADD, fds[i], &event) < 0) {
            g_set_error(error, G_FILE_ERROR, (gint)g_file_error_from_errno(errno),
                        "cannot wait for a VMM: %s", strerrordesc_np(errno));
            return false;
        }
    }
    return true;
}

/* All threads there will be. */
static bool make_threads(Server *server, GError **error)
{
    const ServerConfig *config = &server->config;
    const WorkersConfig workers_config = {
        .fs = config->fs,
        .session = config->session,
        .n_queues = config->n_request_queues + 1,
        .n_request_workers = config->n_request_workers,
        .poll_us = config->poll_us,
    };
    const WaiterConfig waiter_config = {
        .fs = config->fs,
        .session = config->session,
        .device = server->device,
    };

    server->workers = workers_new(&workers_config, error);
    if (server->workers == NULL) {
        return false;
    }
    server->waits = session_waits(config->session);
    if (server->waits != NULL) {
        server->waiter = waiter_new(&waiter_config, error);
    }
    return server->waits == NULL || server->waiter != NULL;
}

Server *server_new(const ServerConfig *config, GError **error)
{
    g_autoptr(Server) server = g_new0(Server, 1);

    server->config = *config;
    server->end_fd = server->stats_fd = server->attend_fd = -1;
    if (!open_signals(server, error) || !open_attend(server, error)) {
        return NULL;
    }
    const VuDeviceConfig device_config = {
        .n_queues = config->n_request_queues + 1,
        .tag = config->tag,
        .window_size = config->window_size,
        .window_protocol = config->window_protocol,
        .interrupt_fd = server->end_fd,
        .attend_fd = server->attend_fd,
        .handler = {.opaque = server,
                    .start = queue_start,
                    .stop = queue_stop,
                    .settle = queue_settle,
                    .wake = queue_wake,
                    .reset = device_reset,
                    .attend = attend},
    };
    server->device = vu_device_new(&device_config, error);
    if (server->device == NULL) {
        return NULL;
    }
    join_window(server);
    if (!make_threads(server, error)) {
        return NULL;
    }
    return g_steal_pointer(&server);
}

void server_free(Server *server)
{
    if (server == NULL) {
        return;
    }
    /* server_run() has seen all requests end, or none was ever served. */
    (void)workers_stop(server->workers, -1);
    waiter_free(server->waiter);
    vu_device_free(server->device);
    autofd_clear(&server->end_fd);
    autofd_clear(&server->stats_fd);
    autofd_clear(&server->attend_fd);
    g_free(server);
}

/* ---- the loop
 * ------------------------------------------------------------------------------ */

enum { POLL_END, POLL_LOST, POLL_ATTEND, POLL_VMM, POLL_COUNT };

/* Return: false when serving is over. */
static bool serve_once(Server *server)
{
    struct pollfd fds[POLL_COUNT] = {
        [POLL_END] = {.fd = server->end_fd, .events = POLLIN},
        [POLL_LOST] = {.fd = workers_lost_fd(server->workers), .events = POLLIN},
        [POLL_ATTEND] = {.fd = server->attend_fd, .events = POLLIN},
        [POLL_VMM] = {.fd = vu_device_fd(server->device), .events = POLLIN},
    };

    if (poll(fds, POLL_COUNT, -1) < 0) {
        return errno == EINTR;
    }
    if (fds[POLL_END].revents != 0) {
        log_info("asked to end by a signal");
        return false;
    }
    if (fds[POLL_LOST].revents != 0) {
        log_error("no worker is left to serve requests: ending");
        server->is_lost = true;
        return false;
    }
    if (fds[POLL_ATTEND].revents != 0) {
        attend(server);
    }
    if (fds[POLL_VMM].fd >= 0 && fds[POLL_VMM].revents != 0) {
        VuStatus status = vu_device_handle(server->device);
        if (status == VU_CLOSED) {
            log_info("VMM disconnected");
        }
        return status == VU_OK;
    }
    return true;
}

bool server_run(Server *server, bool *ret_lost)
{
    while (serve_once(server)) {
    }
    *ret_lost = server->is_lost;
    bool drained = vu_device_disconnect(server->device, DRAIN_TIMEOUT_MS);
    if (!drained) {
        log_warn("ending with requests that the host's file system has not answered");
    }
    return drained;
}
