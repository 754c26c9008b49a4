/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The used ring, and interrupts.
 *
 * An interrupt costs more than many a request. While more chains are known to wait, and
 * requests follow each other closely, one is sent for several: n_owed counts those that
 * the guest may sleep on. A worker that has pushed one is about to pop, and the pop that
 * leaves nothing behind settles; a ring that may not be popped from any more has been
 * settled by whoever held it back. What a worker that is kept leaves owing, the one that
 * relieves it settles.
 */
#include <time.h>
#include <unistd.h>

#include "virtiofsd/vhost/ring-internal.h"

enum {
    OWED_MOST = 8,
    QUICK_NS = 20000 /* from one push to the next */
};

/* The guest's wish, behind the avail entries: interrupt when used_index passes this. */
static uint16_t used_event(const VuRing *ring)
{
    return vu_ring_load16(&ring->avail->ring[ring->size]);
}

/* Does the guest want to hear of the entries up to used_index? */
static bool wants_interrupt(VuRing *ring)
{
    if (!ring->event_idx) {
        return (vu_ring_load16(&ring->avail->flags) & VRING_AVAIL_F_NO_INTERRUPT) == 0;
    }
    uint16_t before = ring->signalled;
    bool known = ring->signalled_valid;
    ring->signalled = ring->used_index;
    ring->signalled_valid = true;
    return !known || vring_need_event(used_event(ring), ring->used_index, before);
}

/* Return: what to interrupt the guest by, or NULL. */
static VuCall *settle(VuRing *ring)
{
    atomic_store_explicit(&ring->n_owed, 0, memory_order_relaxed);
    return wants_interrupt(ring) ? vu_call_ref(ring->call) : NULL;
}

VuCall *vu_ring_settle_owed(VuRing *ring)
{
    if (atomic_load_explicit(&ring->n_owed, memory_order_relaxed) == 0) {
        return NULL;
    }
    VuCall *call = settle(ring);
    if (call != NULL) {
        atomic_fetch_add(&ring->in_flight, 1);
    }
    return call;
}

void vu_ring_interrupt(VuRing *ring, VuCall *call_take)
{
    while (call_take != NULL && !vu_call_signal_unref(call_take)) {
        pthread_mutex_lock(&ring->lock);
        call_take = vu_call_ref(ring->call);
        pthread_mutex_unlock(&ring->lock);
    }
}

void vu_ring_tell_held(VuRing *ring)
{
    if (atomic_load(&ring->held)) {
        uint64_t one = 1;
        /* Ours and non-blocking; if it is full, a wake-up is certainly pending. */
        ssize_t written = write(ring->idle_fd, &one, sizeof(one));
        (void)written;
    }
}

static void end_flight(VuRing *ring)
{
    unsigned int left = atomic_fetch_sub(&ring->in_flight, 1) - 1;

    if (left <= atomic_load(&ring->n_parked)) {
        vu_ring_tell_held(ring);
    }
}

void vu_ring_pay(VuRing *ring, VuCall *owed_take)
{
    if (owed_take != NULL) {
        vu_ring_interrupt(ring, owed_take);
        end_flight(ring);
    }
}

/* ---- push -------------------------------------------------------------------------- */

static void put_used(VuRing *ring, uint16_t head, uint32_t length)
{
    vring_used_elem_t *used = &ring->used->ring[ring->used_index & (ring->size - 1)];

    __atomic_store_n(&used->id, htole32(head), __ATOMIC_RELAXED);
    __atomic_store_n(&used->len, htole32(length), __ATOMIC_RELAXED);
    ring->used_index++;
    vu_ring_store16(&ring->used->idx, ring->used_index);
}

static uint64_t now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* May the guest be told of what was just put later, with others? */
static bool may_owe(VuRing *ring)
{
    if (ring->known_avail == ring->next_avail || !ring->runnable) {
        return false;
    }
    uint64_t now = now_ns();
    if (ring->pushed_ns != 0) {
        ring->is_quick = now - ring->pushed_ns < QUICK_NS;
    }
    ring->pushed_ns = now;
    return ring->is_quick &&
           atomic_load_explicit(&ring->n_owed, memory_order_relaxed) < OWED_MOST;
}

static void push(VuRing *ring, VuChain *chain, uint32_t length, bool more)
{
    VuCall *call = NULL;

    pthread_mutex_lock(&ring->lock);
    if (ring->used != NULL) {
        put_used(ring, chain->head, length);
        if (more && may_owe(ring)) {
            atomic_fetch_add_explicit(&ring->n_owed, 1, memory_order_relaxed);
        } else {
            call = settle(ring);
        }
    }
    pthread_mutex_unlock(&ring->lock);

    vu_ring_interrupt(ring, call);
    vu_memory_unref(chain->memory);
    chain->memory = NULL;
    chain->n_in = 0;
    chain->n_out = 0;
    end_flight(ring);
}

void vu_ring_push(VuRing *ring, VuChain *chain, uint32_t length)
{
    push(ring, chain, length, false);
}

void vu_ring_push_more(VuRing *ring, VuChain *chain, uint32_t length)
{
    push(ring, chain, length, true);
}

void vu_ring_settle(VuRing *ring)
{
    VuCall *owed = NULL;

    if (atomic_load_explicit(&ring->n_owed, memory_order_relaxed) == 0) {
        return;
    }
    pthread_mutex_lock(&ring->lock);
    if (ring->runnable) {
        owed = vu_ring_settle_owed(ring);
    }
    pthread_mutex_unlock(&ring->lock);
    vu_ring_pay(ring, owed);
}
