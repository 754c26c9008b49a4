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
 * One worker that serves all that comes is the cheapest: kicks are suppressed while it
 * does, and it finds the next request itself. epoll wakes the one that began to wait
 * last, so as long as it gets on, the others sleep. A request that may take long says so
 * before it begins (REQUEST_LONG), and another worker is made to look; for one that is
 * kept without a word there is a timer (relief.c). Whoever looks and finds nothing has
 * enabled kicks, so from then on the next request wakes him.
 *
 * The two sides meet in n_waiting: a worker counts itself there before its last look at
 * the rings, and a server that suppressed kicks reads it afterwards; the ring's mutex
 * orders the two, so either the look re-enables kicks or the server sees the waiter and
 * starts the timer. The timer wakes hiprio's worker, who wakes one of the others if help
 * is wanted: they sleep on as long as it is not.
 *
 * A ring that never runs empty gets no more than a burst before the other rings of the
 * group get their turn: else a guest could flood one queue and starve the others.
 *
 * A worker that could not take back its own identity answers that request and leaves: the
 * next one would be done as somebody else. The others of its group go on; when the last
 * one leaves, lost_fd tells the main thread.
 */
#include "virtiofsd/workers.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/epoll.h>

#include "virtiofsd/workers-internal.h"

/* Requests of one ring before another's turn. */
#define BURST 4u

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
        workers_signal(self->workers->lost_fd);
    } else {
        workers_signal(group->wake_fd);
    }
}

/* Run the chain's request; a request that waits is the waiter's from here on. */
static void run(Worker *self, unsigned int queue, VuRing *ring)
{
    RequestBuffers buffers = {
        .in = self->chain->in,
        .n_in = self->chain->n_in,
        .out = self->chain->out,
        .n_out = self->chain->n_out,
        .may_wait = queue != HIPRIO_QUEUE && vu_ring_may_park(ring),
        .only_short = others_wait(self),
    };
    size_t length = request_run(self->request, &buffers);

    if (length == REQUEST_LONG) {
        workers_signal(self->group->wake_fd);
        buffers.only_short = false;
        length = request_run(self->request, &buffers);
    }
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
        if (!vu_ring_pop(ring, self->chain)) {
            return;
        }
        set_waiting(self, false);
        relief_begin(&self->group->relief, self->index, others_wait(self));
        run(self, queue, ring);
        relief_end(&self->group->relief, self->index);
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

/* hiprio's worker looks after the others' timer. One of them would be woken only to see
 * that nothing is wrong, and would then be the one that serves, with cold caches. */
static bool is_for_others(Worker *self, const struct epoll_event *event)
{
    Group *requests = &self->workers->requests;

    if (event->data.u32 != EVENT_RELIEF) {
        return false;
    }
    if (relief_is_due(&requests->relief)) {
        workers_signal(requests->wake_fd);
    }
    return true;
}

static int sleep_until(Worker *self, struct epoll_event *event)
{
    int n;

    do {
        n = epoll_wait(self->group->epoll_fd, event, 1, -1);
    } while (n == 1 && is_for_others(self, event));
    return n;
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
    int n = sleep_until(self, event);

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
            relief_rest(&self->group->relief);
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
        if (event < EVENT_RELIEF) {
            drain(self, event);
        }
    }
}

void *workers_main(void *worker)
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

/* ---- queues that come and go (control thread) -----------------------------------------
 */

static Group *group_of(Workers *workers, unsigned int queue)
{
    return queue == HIPRIO_QUEUE ? &workers->hiprio : &workers->requests;
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
    workers_signal(group_of(workers, queue)->wake_fd);
}

int workers_lost_fd(const Workers *workers)
{
    return workers->lost_fd;
}
