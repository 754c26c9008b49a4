/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_FUSE_REQUEST_H
#define VIRTIOFSD_FUSE_REQUEST_H

#include <glib.h>
#include <stddef.h>
#include <sys/uio.h>

#include "virtiofsd/fuse/session.h"
#include "virtiofsd/fuse/waits.h"

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
    bool may_wait;   /* it may be put aside and answered later */
    bool only_short; /* it is not begun if it may take long */
} RequestBuffers;

/** What request_run() returns for a request that is to be answered later. */
#define REQUEST_WAITS SIZE_MAX
/** What it returns if nothing was done, because it may take long. */
#define REQUEST_LONG (SIZE_MAX - 1)

/**
 * request_run() - serve one request.
 *
 * Whatever the bytes say, this returns, and the out segments hold a well-formed reply or
 * nothing.
 * Context: the thread that owns @worker, after pt_thread_enter(). May block in the host's
 * file system; holds no lock then.
 * Return: bytes written to the out segments, 0 for a request that gets no reply, or
 * REQUEST_WAITS: then request_waiting() is to be passed on to waits_park(); or
 * REQUEST_LONG: then it is to be called again, with no more than that changed.
 */
size_t request_run(RequestWorker *worker, const RequestBuffers *buffers);

/** request_waiting() - Return: what request_run() has just put aside. */
Wait *request_waiting(const RequestWorker *worker);

/**
 * request_retry() - try once more what waits, unless it is over.
 *
 * Context: as request_run(); @wait is from waits_next().
 * Return: whether it has ended and is to be answered.
 */
bool request_retry(RequestWorker *worker, Wait *wait);

/** request_answer() - as request_run(), of a request that has waited. @wait is given
 * back.
 */
size_t request_answer(RequestWorker *worker, Wait *wait, const RequestBuffers *buffers);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(RequestWorker, request_worker_free)

#endif
