/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_WORKERS_H
#define VIRTIOFSD_WORKERS_H

#include <glib.h>
#include <stdbool.h>

#include "passthrough/passthrough.h"
#include "virtiofsd/fuse/session.h"
#include "virtiofsd/vhost/ring.h"

/*
 * The threads that serve the queues. All are made by workers_new(), before the seccomp
 * filter, and live until workers_stop().
 */

typedef struct Workers Workers;

/** struct WorkersConfig - everything is borrowed and outlives the workers. */
typedef struct WorkersConfig {
    PtFs *fs;
    Session *session;
    unsigned int n_queues;          /* hiprio (queue 0) and request queues together */
    unsigned int n_request_workers; /* at least 1; queue 0 has one more of its own */
    unsigned int poll_us;           /* for which they look for work before they sleep */
} WorkersConfig;

/**
 * workers_new() - make the threads and wait until each is ready to serve.
 *
 * Context: the main thread, signals to be kept from the workers are blocked.
 * Return: the workers, or NULL with @error set and no thread left.
 */
Workers *workers_new(const WorkersConfig *config, GError **error);

/**
 * workers_watch() - serve @ring whenever @kick_fd is written, and look at it once now.
 * @kick_fd: an eventfd, borrowed until workers_unwatch(); -1 for none.
 *
 * Context: the control thread. Return: 0 or a negative errno.
 */
int workers_watch(Workers *workers, unsigned int queue, VuRing *ring, int kick_fd);

/** workers_unwatch() - forget the kick descriptor. A worker may still be in the ring. */
void workers_unwatch(Workers *workers, unsigned int queue);

/** workers_wake() - make a worker look at @queue's ring. Context: any thread. */
void workers_wake(Workers *workers, unsigned int queue);

/** workers_lost_fd() - Return: a descriptor, borrowed, that becomes readable when hiprio
 * or the request queues have no worker left, because none was itself any more. */
int workers_lost_fd(const Workers *workers);

/**
 * workers_stop() - end the threads and free everything.
 * @timeout_ms: how long to wait for requests in flight.
 *
 * Return: true; or false if a request would not end: then nothing is freed, and the
 * process must end with the thread still in the host's file system.
 */
bool workers_stop(Workers *workers, int timeout_ms);

#endif
