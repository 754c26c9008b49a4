/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon itself, linked once more so that it writes down every request and its reply:
 * in $VIRTIOFSD_RECORDINGS, a file for each process. It does so in its sandbox, whoever
 * the guest is. For tests/fuzz/record.
 */
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sandbox/sandbox.h"
#include "tests/bridge/recorder.h"
#include "virtiofsd/fuse/request.h"

void __real_sandbox_scrub(int keep_fd);
void __wrap_sandbox_scrub(int keep_fd);
size_t __real_request_run(RequestWorker *worker, const RequestBuffers *buffers);
size_t __wrap_request_run(RequestWorker *worker, const RequestBuffers *buffers);

static Recorder *recorder;

/* The file is opened behind what closes all descriptors, and before the sandbox. */
void __wrap_sandbox_scrub(int keep_fd)
{
    g_autofree char *directory = g_strdup(g_getenv("VIRTIOFSD_RECORDINGS"));

    __real_sandbox_scrub(keep_fd);
    if (directory != NULL) {
        g_autofree char *path = g_strdup_printf("%s/%ld", directory, (long)getpid());
        recorder = recorder_new(path);
        g_assert_nonnull(recorder);
    }
}

static size_t size_of(const struct iovec *segments, size_t n)
{
    size_t size = 0;

    for (size_t i = 0; i < n; i++) {
        size += segments[i].iov_len;
    }
    return size;
}

size_t __wrap_request_run(RequestWorker *worker, const RequestBuffers *buffers)
{
    if (recorder == NULL) {
        return __real_request_run(worker, buffers);
    }
    recorder_add(recorder, RECORDER_REQUEST, buffers->in, buffers->n_in,
                 size_of(buffers->in, buffers->n_in),
                 size_of(buffers->out, buffers->n_out));
    size_t length = __real_request_run(worker, buffers);
    if (length > 0 && length != REQUEST_WAITS) {
        recorder_add(recorder, RECORDER_REPLY, buffers->out, buffers->n_out, length, 0);
    }
    return length;
}
