/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker that is woken serves the request: there is no second queue and no hand-over.
 *
 * Workers are in two groups, each waiting on an epoll of its own: one thread for hiprio
 * (FORGET is never behind a request) and N for all request queues. Kick eventfds are
 * watched edge-triggered and never read: one write wakes one waiter, and writes that come
 * while all workers are busy stay pending. Nothing is lost, because every worker looks at
 * every ring of its group before it waits.
 *
 * While a request runs, the next one must find somebody. If another worker waits, kicks
 * stay enabled during the request, and it is woken at once when the ring already holds
 * more. If none waits, kicks are suppressed (they would wake nobody). The two sides meet
 * in n_waiting: a worker counts itself there before its last look at the rings, and a
 * server that suppressed kicks reads it again afterwards; the ring's mutex orders the
 * two, so either the look re-enables kicks or the server sees the waiter and wakes it.
 *
 * A ring that never runs empty gets no more than a burst before the other rings of the
 * group get their turn: else a guest could flood one queue and starve the others.
 *
 * A worker that could not take back its own identity answers that request and leaves: the
 * next one would be done as somebody else. The others of its group go on; when the last
 * one leaves, lost_fd tells the main thread.
 *
 * POSIX threads rather than GLib's: GThread ends a thread through code that may load a
 * library, and ThreadSanitizer sees pthread calls only.
 */
#include "virtiofsd/workers.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "virtiofsd/autofd.h"
#include "virtiofsd/fuse/request.h"
#include "virtiofsd/fuse/waits.h"
#include "virtiofsd/log.h"
#include "virtiofsd/polling.h"

#define HIPRIO_QUEUE 0u
#define WORKER_STACK_SIZE ((size_t)256 * 1024)
/* Requests of one ring before another's turn. */
#define BURST 4u

/* epoll_data.u32 beyond all queue numbers. */
#define EVENT_WAKE UINT32_MAX
#define EVENT_STOP (UINT32_MAX - 1)

typedef struct Group {
    AutoFd epoll_fd;
    AutoFd wake_fd; /* edge-triggered: one write makes one waiter look at all rings */
    unsigned int first_queue;
    unsigned int n_queues;
    _Atomic unsigned int n_waiting;
    _Atomic unsigned int n_serving; /* workers that have not left */
    _Atomic bool is_polled;         /* see polling_init() */
} Group;

typedef struct Queue {
    _Atomic(VuRing *) ring; /* NULL until first watched; then for good */
    int kick_fd;            /* control thread only; -1 when not watched */
} Queue;

typedef struct Worker {
    pthread_t thread;
    Workers *workers;
    Group *group;
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

static void signal_event(int event_fd)
{
    uint64_t one = 1;

    /* Fails only when 2^64-2 events are pending: then one is certainly pending. */
    ssize_t written = write(event_fd, &one, sizeof(one));
    (void)written;
}

static Group *group_of(Workers *workers, unsigned int queue)
{
    return queue == HIPRIO_QUEUE ? &workers->hiprio : &workers->requests;
}

static void set_waiting(Worker *self, bool waiting)
{
    if (self->is_waiting != waiting) {
        self->is_waiting = waiting;
        atomic_fetch_add(&self->group->n_waiting, waiting ? 1u : UINT32_MAX);
    }
}

static bool others_wait(const Worker *self)
{
    return atomic_load(&self->group->n_waiting) > (self->is_waiting ? 1u : 0u);
}

/* What this thread leaves in the rings is for the others: one is made to look. */
static void leave(Worker *self)
{
    Group *group = self->group;

    self->has_left = true;
    if (atomic_fetch_sub(&group->n_serving, 1) == 1) {
        signal_event(self->workers->lost_fd);
    } else {
        signal_event(group->wake_fd);
    }
}

/* Run the chain's request; a request that waits is the waiter's from here on. */
static void run(Worker *self, unsigned int queue, VuRing *ring)
{
    const RequestBuffers buffers = {
        .in = self->chain->in,
        .n_in = self->chain->n_in,
        .out = self->chain->out,
        .n_out = self->chain->n_out,
        .may_wait = queue != HIPRIO_QUEUE && vu_ring_may_park(ring),
    };
    size_t length = request_run(self->request, &buffers);

    if (length != REQUEST_WAITS) {
        vu_ring_push(ring, self->chain, (uint32_t)length);
        return;
    }
    uint16_t head = vu_ring_park(ring, self->chain);
    waits_park(self->workers->waits, request_waiting(self->request), queue, head);
}

/* Serve @ring until it is empty, another's turn has come, or this worker cannot go on. A
 * worker that finds something is not waiting any more. */
static void drain(Worker *self, unsigned int queue)
{
    VuRing *ring = atomic_load(&self->workers->queues[queue].ring);

    for (unsigned int n = 0; ring != NULL && !self->has_left; n++) {
        if (n == BURST && self->group->n_queues > 1) {
            self->has_more = true;
            return;
        }
        bool kicks_stay = others_wait(self);
        VuPopResult popped = vu_ring_pop(ring, self->chain, kicks_stay);
        if (popped == VU_POP_EMPTY) {
            return;
        }
        set_waiting(self, false);
        if ((popped == VU_POP_MORE || !kicks_stay) && others_wait(self)) {
            signal_event(self->group->wake_fd);
        }
        run(self, queue, ring);
        if (!pt_thread_usable()) {
            leave(self);
        }
    }
}

static void drain_group(Worker *self)
{
    const Group *group = self->group;

    for (unsigned int i = 0; i < group->n_queues; i++) {
        drain(self, group->first_queue + i);
    }
}

static bool has_work(void *worker)
{
    const Worker *self = worker;
    const Queue *queues = &self->workers->queues[self->group->first_queue];
    bool found = false;

    for (unsigned int i = 0; i < self->group->n_queues && !found; i++) {
        VuRing *ring = atomic_load(&queues[i].ring);
        found = ring != NULL && vu_ring_poll(ring);
    }
    return found;
}

/* Sleep until there is an event; or not at all, if work comes soon: then it is 0. */
static int sleep_or_poll(Worker *self, struct epoll_event *event)
{
    PollingResult looked = polling_look(&self->polling, has_work, self);

    if (looked == POLLING_IN_VAIN) {
        drain_group(self); /* which wants kicks again */
    }
    if (looked == POLLING_FOUND || !self->is_waiting) {
        return 0;
    }
    int n = epoll_wait(self->group->epoll_fd, event, 1, -1);

    polling_slept(&self->polling, looked);
    return n;
}

/* Wait for one event of the group, having found all its rings empty since being counted.
 * A worker that leaves meanwhile stops. */
static uint32_t wait_event(Worker *self)
{
    struct epoll_event event;
    int n = 0;

    do {
        if (!self->has_more) {
            set_waiting(self, true);
        }
        self->has_more = false;
        drain_group(self);
        if (self->is_waiting) {
            n = sleep_or_poll(self, &event);
        }
    } while (n < 1 && !self->has_left);
    set_waiting(self, false);
    return self->has_left ? EVENT_STOP : event.data.u32;
}

static void serve(Worker *self)
{
    while (!self->has_left) {
        uint32_t event = wait_event(self);
        if (event == EVENT_STOP) {
            return;
        }
        if (event != EVENT_WAKE) {
            drain(self, event);
        }
    }
}

static void *worker_main(void *worker)
{
    Worker *self = worker;
    Workers *workers = self->workers;
    int entered = pt_thread_enter(workers->fs);

    pthread_mutex_lock(&workers->lock);
    workers->n_ready++;
    if (entered < 0 && workers->enter_error == 0) {
        workers->enter_error = entered;
    }
    pthread_cond_broadcast(&workers->changed);
    pthread_mutex_unlock(&workers->lock);

    if (entered == 0) {
        serve(self);
    }

    pthread_mutex_lock(&workers->lock);
    workers->n_ended++;
    pthread_cond_broadcast(&workers->changed);
    pthread_mutex_unlock(&workers->lock);
    return NULL;
}

/* ---- set-up and end ---------------------------------------------------------------- */

static bool group_init(const Workers *workers, Group *group, GError **error)
{
    struct epoll_event wake = {.events = EPOLLIN | EPOLLET, .data.u32 = EVENT_WAKE};
    struct epoll_event stop = {.events = EPOLLIN, .data.u32 = EVENT_STOP};

    group->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    group->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (group->epoll_fd < 0 || group->wake_fd < 0 || workers->lost_fd < 0 ||
        epoll_ctl(group->epoll_fd, EPOLL_CTL_ADD, group->wake_fd, &wake) < 0 ||
        epoll_ctl(group->epoll_fd, EPOLL_CTL_ADD, workers->stop_fd, &stop) < 0) {
        g_set_error(error, G_FILE_ERROR, (gint)g_file_error_from_errno(errno),
                    "cannot set up waiting for requests: %s", strerrordesc_np(errno));
        return false;
    }
    return true;
}

static bool worker_make(Workers *workers, unsigned int index, Session *session,
                        GError **error)
{
    Worker *self = &workers->threads[index];
    pthread_attr_t attributes;

    self->workers = workers;
    self->group = index == 0 ? &workers->hiprio : &workers->requests;
    polling_init(&self->polling, index == 0 ? 0 : workers->poll_us,
                 &self->group->is_polled);
    self->request = request_worker_new(session);
    self->chain = vu_chain_new();
    if (self->request == NULL || self->chain == NULL) {
        g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_NOMEM,
                    "not enough memory for %u workers: lower --thread-pool-size",
                    workers->n_threads);
        return false;
    }
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, WORKER_STACK_SIZE);
    int result = pthread_create(&self->thread, &attributes, worker_main, self);
    pthread_attr_destroy(&attributes);
    if (result != 0) {
        g_set_error(error, G_FILE_ERROR, (gint)g_file_error_from_errno(result),
                    "cannot start %u worker threads: %s; lower --thread-pool-size",
                    workers->n_threads, strerrordesc_np(result));
        return false;
    }
    workers->n_made++;
    return true;
}

/* Wait until all threads have been through pt_thread_enter(). */
static bool wait_ready(Workers *workers, GError **error)
{
    pthread_mutex_lock(&workers->lock);
    while (workers->n_ready < workers->n_made) {
        pthread_cond_wait(&workers->changed, &workers->lock);
    }
    int result = workers->enter_error;
    pthread_mutex_unlock(&workers->lock);
    if (result < 0) {
        g_set_error(error, G_FILE_ERROR, (gint)g_file_error_from_errno(-result),
                    "cannot prepare a worker thread: %s", strerrordesc_np(-result));
        return false;
    }
    return true;
}

static Workers *workers_alloc(const WorkersConfig *config)
{
    Workers *workers = g_new0(Workers, 1);
    pthread_condattr_t monotonic;

    workers->fs = config->fs;
    workers->waits = session_waits(config->session);
    workers->n_queues = config->n_queues;
    workers->poll_us = config->poll_us;
    workers->queues = g_new0(Queue, config->n_queues);
    for (unsigned int i = 0; i < config->n_queues; i++) {
        workers->queues[i].kick_fd = -1;
    }
    workers->hiprio.epoll_fd = workers->hiprio.wake_fd = -1;
    workers->hiprio.first_queue = HIPRIO_QUEUE;
    workers->hiprio.n_queues = 1;
    workers->requests.epoll_fd = workers->requests.wake_fd = -1;
    workers->requests.first_queue = HIPRIO_QUEUE + 1;
    workers->requests.n_queues = config->n_queues - 1;
    workers->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    workers->lost_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    workers->n_threads = config->n_request_workers + 1;
    workers->hiprio.n_serving = 1;
    workers->requests.n_serving = config->n_request_workers;
    workers->threads = g_new0(Worker, workers->n_threads);

    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&workers->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&workers->lock, NULL);
    return workers;
}

Workers *workers_new(const WorkersConfig *config, GError **error)
{
    Workers *workers = workers_alloc(config);
    bool made = group_init(workers, &workers->hiprio, error) &&
                group_init(workers, &workers->requests, error);

    for (unsigned int i = 0; made && i < workers->n_threads; i++) {
        made = worker_make(workers, i, config->session, error);
    }
    /* The threads that were made are waited for in any case: they use what is freed
     * below. */
    GError **ready_error = made ? error : NULL;
    if (!wait_ready(workers, ready_error) || !made) {
        (void)workers_stop(workers, -1);
        return NULL;
    }
    return workers;
}

int workers_watch(Workers *workers, unsigned int queue, VuRing *ring, int kick_fd)
{
    struct epoll_event kick = {.events = EPOLLIN | EPOLLET, .data.u32 = queue};

    workers_unwatch(workers, queue);
    atomic_store(&workers->queues[queue].ring, ring);
    if (kick_fd >= 0) {
        if (epoll_ctl(group_of(workers, queue)->epoll_fd, EPOLL_CTL_ADD, kick_fd, &kick) <
            0) {
            return -errno;
        }
        workers->queues[queue].kick_fd = kick_fd;
    }
    workers_wake(workers, queue);
    return 0;
}

void workers_unwatch(Workers *workers, unsigned int queue)
{
    int kick_fd = workers->queues[queue].kick_fd;

    if (kick_fd >= 0) {
        /* It was added above and is still open, so this cannot fail. */
        (void)epoll_ctl(group_of(workers, queue)->epoll_fd, EPOLL_CTL_DEL, kick_fd, NULL);
        workers->queues[queue].kick_fd = -1;
    }
}

void workers_wake(Workers *workers, unsigned int queue)
{
    signal_event(group_of(workers, queue)->wake_fd);
}

int workers_lost_fd(const Workers *workers)
{
    return workers->lost_fd;
}

/* Wait for all made threads to leave worker_main(); a negative timeout waits for ever. */
static bool wait_ended(Workers *workers, int timeout_ms)
{
    struct timespec until;
    int result = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&workers->lock);
    while (workers->n_ended < workers->n_made && result == 0) {
        result = timeout_ms < 0
                     ? pthread_cond_wait(&workers->changed, &workers->lock)
                     : pthread_cond_timedwait(&workers->changed, &workers->lock, &until);
    }
    bool ended = workers->n_ended == workers->n_made;
    pthread_mutex_unlock(&workers->lock);
    return ended;
}

bool workers_stop(Workers *workers, int timeout_ms)
{
    if (workers == NULL) {
        return true;
    }
    signal_event(workers->stop_fd);
    if (!wait_ended(workers, timeout_ms)) {
        return false;
    }
    for (unsigned int i = 0; i < workers->n_made; i++) {
        pthread_join(workers->threads[i].thread, NULL);
    }
    for (unsigned int i = 0; i < workers->n_threads; i++) {
        request_worker_free(workers->threads[i].request);
        vu_chain_free(workers->threads[i].chain);
    }
    autofd_clear(&workers->hiprio.epoll_fd);
    autofd_clear(&workers->hiprio.wake_fd);
    autofd_clear(&workers->requests.epoll_fd);
    autofd_clear(&workers->requests.wake_fd);
    autofd_clear(&workers->stop_fd);
    autofd_clear(&workers->lost_fd);
    pthread_cond_destroy(&workers->changed);
    pthread_mutex_destroy(&workers->lock);
    g_free(workers->threads);
    g_free(workers->queues);
    g_free(workers);
    return true;
}
