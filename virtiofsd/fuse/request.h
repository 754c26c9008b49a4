/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_FUSE_REQUEST_H
#define VIRTIOFSD_FUSE_REQUEST_H

#include <glib.h>
#include <stddef.h>
#include <sys/uio.h>

#include "virtiofsd/fuse/session.h"

/*
 * One FUSE request, from header to reply.
 */

/** typedef RequestWorker - what one thread needs to run requests: all buffers, counters.
 */
typedef struct RequestWorker RequestWorker;

/**
 * request_worker_new() - allocate a thread's buffers. Made before the threads serve.
 *
 * Return: it, or NULL when memory is short.
 */
RequestWorker *request_worker_new(Session *session);
void request_worker_free(RequestWorker *worker);

/** struct RequestBuffers - a request's segments of guest memory. The guest may change any
 * byte at any time; segments may have any length, 0 too. */
typedef struct RequestBuffers {
    const struct iovec *in; /* guest -> us */
    size_t n_in;
    const struct iovec *out; /* us -> guest */
    size_t n_out;
} RequestBuffers;

/**
 * request_run() - serve one request.
 *
 * Whatever the bytes say, this returns, and the out segments hold a well-formed reply or
 * nothing.
 * Context: the thread that owns @worker, after pt_thread_enter(). May block in the host's
 * file system; holds no lock then.
 * Return: bytes written to the out segments, 0 for a request that gets no reply.
 */
size_t request_run(RequestWorker *worker, const RequestBuffers *buffers);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(RequestWorker, request_worker_free)

#endif
