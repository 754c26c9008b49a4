/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_WORKERS_INTERNAL_H
#define VIRTIOFSD_WORKERS_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>

#include "virtiofsd/autofd.h"
#include "virtiofsd/fuse/request.h"
#include "virtiofsd/fuse/waits.h"
#include "virtiofsd/polling.h"
#include "virtiofsd/relief.h"
#include "virtiofsd/workers.h"

/*
 * What the workers' code has in common: workers.c serves, workers-life.c makes and ends.
 */

#define HIPRIO_QUEUE 0u
/* epoll_data.u32 beyond all queue numbers. */
#define EVENT_WAKE UINT32_MAX
#define EVENT_STOP (UINT32_MAX - 1)
#define EVENT_RELIEF (UINT32_MAX - 2)

typedef struct Group {
    AutoFd epoll_fd;
    AutoFd wake_fd; /* edge-triggered: one write makes one waiter look at all rings */
    unsigned int first_queue;
    unsigned int n_queues;
    _Atomic unsigned int n_waiting;
    _Atomic unsigned int n_serving; /* workers that have not left */
    Relief relief;
    _Atomic bool is_polled; /* see polling_init() */
} Group;

typedef struct Queue {
    _Atomic(VuRing *) ring; /* NULL until first watched; then for good */
    int kick_fd;            /* control thread only; -1 when not watched */
} Queue;

typedef struct Worker {
    pthread_t thread;
    Workers *workers;
    Group *group;
    unsigned int index; /* in the group */
    RequestWorker *request;
    VuChain *chain;
    bool is_waiting; /* counted in group->n_waiting */
    bool has_left;   /* not counted in group->n_serving any more */
    bool has_more;   /* a ring was left at the end of a burst */
    Polling polling;
} Worker;

struct Workers {
    PtFs *fs;
    Waits *waits;
    Group hiprio;
    Group requests;
    AutoFd stop_fd; /* level-triggered in both epolls, never read */
    AutoFd lost_fd; /* written when a group has no worker left */
    Queue *queues;
    unsigned int n_queues;
    unsigned int poll_us; /* fixed */
    Worker *threads;
    unsigned int n_threads;
    unsigned int n_made; /* how many of the threads were created */

    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned int n_ready; /* under lock */
    unsigned int n_ended; /* under lock */
    int enter_error;      /* under lock: first pt_thread_enter() failure */
};

/** workers_signal() - write an eventfd of ours. Context: any thread. */
static inline void workers_signal(int event_fd)
{
    uint64_t one = 1;

    /* Fails only when 2^64-2 events are pending: then one is certainly pending. */
    ssize_t written = write(event_fd, &one, sizeof(one));
    (void)written;
}

/** workers_main() - serve until told to stop. @worker: the thread's. */
void *workers_main(void *worker);

#endif
