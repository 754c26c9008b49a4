/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is started, in which order. The order is a matter of security: everything that
 * opens a path comes before sandbox_enter(), everything that makes a thread before
 * sandbox_seal(), and nothing is read from the VMM before both are done.
 *
 * exit(3) and the exit status are decided here and nowhere else.
 */
#include <glib.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "passthrough/passthrough.h"
#include "sandbox/sandbox.h"
#include "virtiofsd/fuse/session.h"
#include "virtiofsd/log.h"
#include "virtiofsd/options.h"
#include "virtiofsd/server.h"
#include "virtiofsd/socket.h"

/* Of malloc(3). Told how many there may be, glibc does not ask the kernel for the number
 * of processors, which the sealed process may not do. */
enum { HEAPS_MOST = 4 };

enum { STATUS_OK = 0, STATUS_FAILED = 1, STATUS_USAGE = 2 };

/* Descriptors that the daemon itself may need at once: threads, queues, the moments in
 * which a request holds more than it will keep. */
#define DESCRIPTORS_RESERVED 64u
#define DESCRIPTORS_PER_THREAD 8u
#define DESCRIPTORS_PER_QUEUE 4u
/* With fewer than this for the guest, not even a directory tree can be walked. */
#define DESCRIPTORS_LEAST 16u

static uint32_t guest_descriptors(const Options *options, uint64_t limit)
{
    uint64_t ours = DESCRIPTORS_RESERVED +
                    (uint64_t)(options->thread_pool_size + 3) * DESCRIPTORS_PER_THREAD +
                    (uint64_t)(options->n_request_queues + 1) * DESCRIPTORS_PER_QUEUE;

    if (limit <= ours) {
        return 0;
    }
    return (uint32_t)MIN(limit - ours, (uint64_t)INT32_MAX);
}

static int keep_folder(void *socket)
{
    return socket_keep_folder(socket);
}

/* Everything between the sandbox's two doors. */
static Server *start(Options *options, Socket *socket, PtFs **ret_fs,
                     Session **ret_session, GError **error)
{
    SandboxView view;

    options->sandbox.last_paths = keep_folder;
    options->sandbox.last_paths_data = socket;
    if (!sandbox_enter(&options->sandbox, &view, error)) {
        return NULL;
    }
    options->fs.landlock = view.landlock;
    options->fs.max_descriptors = guest_descriptors(options, view.descriptors);
    *ret_fs = pt_fs_new(&options->fs, view.root_fd, view.procfd, error);
    if (*ret_fs == NULL) {
        return NULL;
    }
    pt_fs_watch_mounts(*ret_fs, view.own_mounts, view.host_mounts);
    if (options->fs.max_descriptors < DESCRIPTORS_LEAST) {
        g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_MFILE,
                    "the limit of %" G_GUINT64_FORMAT
                    " open files leaves none for the guest:"
                    " raise --rlimit-nofile",
                    view.descriptors);
        return NULL;
    }
    *ret_session = session_new(&options->session, *ret_fs);
    if (*ret_session == NULL) {
        g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_NOMEM,
                    "not enough memory to start");
        return NULL;
    }
    const ServerConfig config = {
        .fs = *ret_fs,
        .session = *ret_session,
        .socket = socket,
        .tag = options->tag,
        .window_size = options->window_size,
        .window_protocol = options->window_protocol,
        .n_request_queues = options->n_request_queues,
        .n_request_workers = options->thread_pool_size + 1,
        .poll_us = options->poll_us,
    };
    g_autoptr(Server) server = server_new(&config, error);
    if (server == NULL || !sandbox_seal(&options->sandbox, error)) {
        return NULL;
    }
    return g_steal_pointer(&server);
}

static int fail(const GError *error)
{
    /* At every --log-level: a failed start is never silent. */
    log_write(LOG_LEVEL_ERROR, "%s", error->message);
    return STATUS_FAILED;
}

static int serve(Options *options)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Socket) socket = socket_open(&options->socket, &error);
    if (socket == NULL) {
        return fail(error);
    }
    g_autoptr(PtFs) fs = NULL;
    g_autoptr(Session) session = NULL;
    g_autoptr(Server) server = start(options, socket, &fs, &session, &error);
    if (server == NULL) {
        return fail(error);
    }
    log_ready();
    bool is_lost = false;
    bool is_clean = server_run(server, &is_lost);
    int status = is_lost ? STATUS_FAILED : STATUS_OK;
    if (!is_clean) {
        /* A thread is still in the host's file system and uses what would be freed. */
        socket_close(g_steal_pointer(&socket));
        _exit(status);
    }
    return status;
}

/* Whoever asks for the system log may have closed stderr, as Kata's Go runtime does. */
static int usage(const GError *error, char **argv)
{
    if (g_strv_contains((const char *const *)argv, "--syslog")) {
        log_open(LOG_LEVEL_OFF, true);
        if (log_descriptor() >= 0) {
            log_write(LOG_LEVEL_ERROR, "%s", error->message);
        }
    }
    (void)fprintf(stderr, "virtiofsd: %s\n", error->message);
    return STATUS_USAGE;
}

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;

#ifdef M_ARENA_MAX
    (void)mallopt(M_ARENA_MAX, HEAPS_MOST);
#endif
    sandbox_scrub(options_find_fd(argc, argv));
    g_autoptr(Options) options = options_parse(argc, argv, &error);
    if (options == NULL) {
        return usage(error, argv);
    }
    if (options->action != OPTIONS_SERVE) {
        options_print(options->action);
        return STATUS_OK;
    }
    server_block_signals();
    log_open(options->log_level, options->use_syslog);
    for (guint i = 0; i < options->warnings->len; i++) {
        log_warn("%s", (const char *)g_ptr_array_index(options->warnings, i));
    }
    return serve(options);
}
