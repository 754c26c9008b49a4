/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * A virtqueue is memory that guest and device share. In a split one (ring-split.c) these
 * are three arrays: descriptors, the avail ring (heads of chains, written by the guest)
 * and the used ring (heads that are done, written by us). In a packed one (ring-packed.c)
 * descriptors lie in the order in which they are offered, and we write over them what is
 * done. Both sides run freely, and give each other hints at when to notify. What both
 * layouts have in common is here; what differs is a VuRingLayout, chosen by the features
 * that the guest acknowledged.
 *
 * Trust. The guest writes all of it at any time. What says that there is a chain is
 * loaded once per look, with acquire semantics, and checked before it is used. If it
 * cannot be true (an avail index too far ahead, a head outside the queue, more
 * descriptors than the queue has), the ring is broken: no entry of it can be believed, so
 * it is stopped, once, with a log line outside the lock. A chain that is merely malformed
 * is retired with length 0. Loads and stores of ring memory are atomic ones, so that
 * neither compiler nor sanitizer may see two where one is written.
 *
 * Locking. The mutex covers the indices. It is held for a few loads and stores: the walk
 * along the chain, the request and the interrupt all happen without it. (Only a packed
 * ring's chain is copied under it: see there.) A pop takes a
 * snapshot of what the walk needs and a reference on the memory table; both stay valid
 * because in_flight was raised under the same lock.
 *
 * Quiescing. Pops need `runnable`, which stop and pause clear under the lock, so when
 * they return, in_flight can only fall. It falls last of all in a push, after the used
 * entry, the interrupt and the reference on memory: when it is 0, no worker will write
 * guest memory, notify, or hold memory mapped. The worker that brings it to 0 on a ring
 * that is held back writes idle_fd; both sides store before they load, sequentially
 * consistent, so one of them sees the other and no wake-up is lost.
 *
 * Parking. A request that waits for something outside gives its VuChain and its reference
 * on memory back and leaves only its head behind. It is in flight still, so a ring that
 * is stopped waits for it; a ring that is paused does not, for memory may come and go
 * meanwhile: its chain is walked again when it is answered, and not during a pause.
 *
 * Overtaking. A chain of many bytes that is found while others wait is put aside, its
 * head in a list, so that what is short overtakes it: a small read does not wait for
 * sixty writes of a megabyte. It is taken up as soon as nothing else waits, or when
 * enough have overtaken it; its descriptors are read anew then. Like a parked one it is
 * in flight and holds no memory; unlike it, it needs nobody: the worker that put it aside
 * pops until there is nothing left. So a ring that is stopped still gives out what is
 * aside, and one that is paused does not wait for it.
 *
 * Kicks. With EVENT_IDX the guest kicks when it offers the entry that we name; naming the
 * next one arms it, and leaving it alone suppresses kicks. Without, a flag does. Whoever
 * arms looks at the ring again afterwards, so a chain that came between is either seen or
 * kicked for. Interrupts mirror this: what is used is stored before the guest's wish is
 * loaded. Stores and loads on these edges are sequentially consistent rather than fenced,
 * because ThreadSanitizer does not understand fences.
 */
#include "virtiofsd/vhost/ring.h"

#include <stdlib.h>
#include <unistd.h>

#include "virtiofsd/log.h"
#include "virtiofsd/vhost/guard.h"
#include "virtiofsd/vhost/ring-internal.h"
#include "virtiofsd/vhost/ring-walk.h"

enum {
    BAD_AT_ONCE = 16,  /* malformed chains that one pop retires */
    OVERTAKE_MAX = 16, /* chains that overtake the ones aside before one of those */
};

/* Bytes from which on a chain is overtaken by shorter ones. */
#define BULK 32768u

/* What a look at the ring finds. */
typedef enum Found {
    FOUND_NOTHING,
    FOUND_NEW,
    FOUND_ASIDE, /* put aside before */
} Found;

/* ---- chains ------------------------------------------------------------------------ */

VuChain *vu_chain_new(void)
{
    VuChain *chain =
        calloc(1, sizeof(*chain) + 2 * VU_CHAIN_MAX_SEGMENTS * sizeof(struct iovec));

    if (chain != NULL) {
        chain->in = (struct iovec *)(void *)(chain + 1);
        chain->out = chain->in + VU_CHAIN_MAX_SEGMENTS;
    }
    return chain;
}

void vu_chain_free(VuChain *chain)
{
    free(chain);
}

/* ---- looking at the ring (all with the lock held) ---------------------------------- */

void vu_ring_break(VuRing *ring, const char *what, VuFault *fault)
{
    ring->broken = true;
    ring->runnable = false;
    fault->what = what;
    fault->error = vu_call_ref(ring->error);
}

/* Make the guest kick for the next chain. Return: whether one may have come before. */
static bool enable_kicks(VuRing *ring)
{
    if (ring->kicks == VU_KICKS_ON &&
        (!ring->event_idx || ring->armed == ring->next_avail)) {
        return false;
    }
    ring->layout->want_kicks(ring);
    ring->kicks = VU_KICKS_ON;
    ring->armed = ring->next_avail;
    return true;
}

/* With EVENT_IDX, not to name another entry is enough. */
static void suppress_kicks(VuRing *ring)
{
    if (!ring->event_idx && ring->kicks != VU_KICKS_OFF) {
        ring->layout->refuse_kicks(ring);
        ring->kicks = VU_KICKS_OFF;
    }
}

/* What is done with @chain needs the memory; its walk, the view. */
static void hold_memory(VuRing *ring, VuChain *chain, VuRingView *view)
{
    bool packed = ring->layout == &vu_packed_layout; /* its chains have been copied */

    chain->memory = vu_memory_ref(ring->memory);
    *view = (VuRingView){.desc = packed && ring->desc != NULL ? ring->copies : ring->desc,
                         .memory = ring->memory,
                         .size = ring->size,
                         .indirect = ring->indirect,
                         .packed = packed};
}

/* Take the next head, and what the walk needs. The ring is runnable. */
static bool take_head(VuRing *ring, VuChain *chain, VuRingView *view, VuFault *fault)
{
    const VuRingLayout *layout = ring->layout;

    if (!layout->take(ring, &chain->head, fault) &&
        (fault->what != NULL || vu_guard_is_hit() || !enable_kicks(ring) ||
         !layout->take(ring, &chain->head, fault))) {
        return false;
    }
    atomic_fetch_add(&ring->in_flight, 1);
    hold_memory(ring, chain, view);
    suppress_kicks(ring);
    return true;
}

/* Is it the turn of a chain that was put aside? */
static bool is_turn_of_aside(VuRing *ring, VuFault *fault)
{
    if (atomic_load(&ring->n_aside) == 0 || ring->paused) {
        return false;
    }
    return !ring->runnable || ring->n_overtook >= OVERTAKE_MAX ||
           !ring->layout->is_waiting(ring, fault);
}

static void take_aside(VuRing *ring, VuChain *chain, VuRingView *view)
{
    chain->head = ring->aside[ring->first_aside++ % VU_ASIDE_MAX];
    atomic_fetch_sub(&ring->n_aside, 1);
    ring->n_overtook = 0;
    hold_memory(ring, chain, view);
}

static Found look(VuRing *ring, VuChain *chain, VuRingView *view, VuFault *fault)
{
    Found found = FOUND_NOTHING;

    pthread_mutex_lock(&ring->lock);
    if (is_turn_of_aside(ring, fault)) {
        take_aside(ring, chain, view);
        found = FOUND_ASIDE;
    } else if (ring->runnable) {
        found = take_head(ring, chain, view, fault) ? FOUND_NEW : FOUND_NOTHING;
        if (found == FOUND_NEW && atomic_load(&ring->n_aside) > 0) {
            ring->n_overtook++;
        }
        if (vu_guard_is_hit() && fault->what == NULL) {
            vu_ring_break(ring, "guest memory is gone", fault);
        }
    }
    pthread_mutex_unlock(&ring->lock);
    return found;
}

/* ---- pop --------------------------------------------------------------------------- */

static void tell_fault(const VuRing *ring, const VuFault *fault)
{
    static LogLimit limit;

    if (fault->what == NULL) {
        return;
    }
    log_write_limited(&limit, LOG_LEVEL_ERROR, "queue %u is stopped: %s", ring->index,
                      fault->what);
    if (fault->error != NULL) {
        /* A successor is of no interest: it learns of the next fault. */
        (void)vu_call_signal_unref(fault->error);
    }
}

/* A chain that cannot be walked has no segments. Return: whether it has. */
static bool walk(const VuRing *ring, const VuRingView *view, VuChain *chain)
{
    /* Without descriptors the ring's own memory is gone: nobody is there to answer. */
    const char *wrong = view->desc != NULL ? vu_ring_walk(view, chain) : "no ring";

    if (wrong != NULL) {
        log_debug("queue %u: malformed chain: %s", ring->index, wrong);
        chain->n_in = 0;
        chain->n_out = 0;
    }
    return wrong == NULL;
}

/* The chain is used no more, or not now. */
static void drop_memory(VuChain *chain)
{
    vu_memory_unref(chain->memory);
    chain->memory = NULL;
    chain->n_in = 0;
    chain->n_out = 0;
}

/* Put a chain aside if others wait that may be shorter. Return: whether it was. */
static bool put_aside(VuRing *ring, VuChain *chain)
{
    VuFault fault = {0};

    pthread_mutex_lock(&ring->lock);
    unsigned int n = atomic_load(&ring->n_aside);
    bool is_put = ring->runnable && n < VU_ASIDE_MAX &&
                  (n > 0 || ring->layout->is_waiting(ring, &fault));
    if (is_put) {
        ring->aside[(ring->first_aside + n) % VU_ASIDE_MAX] = chain->head;
        atomic_fetch_add(&ring->n_aside, 1);
        if (ring->n_overtook > 0) {
            ring->n_overtook--; /* this one did not */
        }
    }
    pthread_mutex_unlock(&ring->lock);
    tell_fault(ring, &fault);
    if (is_put) {
        drop_memory(chain);
    }
    return is_put;
}

bool vu_ring_pop(VuRing *ring, VuChain *chain)
{
    for (uint32_t bad = 0;;) {
        VuRingView view;
        VuFault fault = {0};
        Found found = look(ring, chain, &view, &fault);

        tell_fault(ring, &fault);
        if (found == FOUND_NOTHING) {
            return false;
        }
        if (walk(ring, &view, chain)) {
            if (found == FOUND_ASIDE || chain->n_bytes < BULK ||
                !put_aside(ring, chain)) {
                return true;
            }
        } else if (bad++ == BAD_AT_ONCE) {
            return true; /* to whoever looks after other rings, too */
        } else {
            vu_ring_push(ring, chain, 0);
        }
    }
}

/* Without EVENT_IDX, as suppress_kicks(); with it, what was armed already is taken back.
 */
static void disarm_kicks(VuRing *ring)
{
    suppress_kicks(ring);
    if (ring->event_idx && ring->kicks == VU_KICKS_ON) {
        ring->layout->refuse_kicks(ring);
        ring->kicks = VU_KICKS_OFF;
    }
}

bool vu_ring_poll(VuRing *ring)
{
    VuFault fault = {0};
    bool found = false;

    pthread_mutex_lock(&ring->lock);
    if (ring->runnable) {
        disarm_kicks(ring);
        found = ring->layout->is_waiting(ring, &fault);
        if (vu_guard_is_hit() && fault.what == NULL) {
            vu_ring_break(ring, "guest memory is gone", &fault);
        }
    }
    pthread_mutex_unlock(&ring->lock);
    tell_fault(ring, &fault);
    return found;
}

/* ---- push -------------------------------------------------------------------------- */

/* Write to the call descriptor, and to each one that replaces it meanwhile. */
static void interrupt(VuRing *ring, VuCall *call)
{
    while (call != NULL && !vu_call_signal_unref(call)) {
        pthread_mutex_lock(&ring->lock);
        call = vu_call_ref(ring->call);
        pthread_mutex_unlock(&ring->lock);
    }
}

/* Whoever holds the ring back is to look at it again. */
static void tell_held(VuRing *ring)
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

    if (left <= atomic_load(&ring->n_parked) + atomic_load(&ring->n_aside)) {
        tell_held(ring);
    }
}

void vu_ring_push(VuRing *ring, VuChain *chain, uint32_t length)
{
    VuCall *call = NULL, *log_call = NULL;

    pthread_mutex_lock(&ring->lock);
    if (ring->used != NULL) {
        ring->layout->put_used(ring, chain->head, length);
        if (ring->layout->wants_interrupt(ring)) {
            call = vu_call_ref(ring->call);
        }
    }
    if (G_UNLIKELY(ring->log != NULL)) {
        log_call = vu_ring_log_reply(ring, chain, length);
    }
    pthread_mutex_unlock(&ring->lock);

    interrupt(ring, call);
    if (log_call != NULL) {
        (void)vu_call_signal_unref(log_call); /* a successor hears of the next mark */
    }
    drop_memory(chain);
    end_flight(ring);
}

/* ---- park -------------------------------------------------------------------------- */

uint16_t vu_ring_park(VuRing *ring, VuChain *chain)
{
    drop_memory(chain);
    atomic_fetch_add(&ring->n_parked, 1);
    tell_held(ring);
    return chain->head;
}

bool vu_ring_may_park(const VuRing *ring)
{
    /* A chain takes one descriptor if it is indirect, and else about four: header, fixed
     * part, reply. The size does not change while a request is in flight. */
    uint32_t most = ring->indirect ? ring->size / 2 : ring->size / 8;
    return atomic_load(&ring->n_parked) < most;
}

/* Return: whether the chain may be taken up; then it holds memory. */
static bool take_parked(VuRing *ring, VuChain *chain, VuRingView *view)
{
    if (ring->paused) {
        return false;
    }
    atomic_fetch_sub(&ring->n_parked, 1);
    hold_memory(ring, chain, view);
    return true;
}

bool vu_ring_unpark(VuRing *ring, uint16_t head, VuChain *chain)
{
    VuRingView view;

    pthread_mutex_lock(&ring->lock);
    bool is_taken = take_parked(ring, chain, &view);
    pthread_mutex_unlock(&ring->lock);
    if (!is_taken) {
        return false;
    }
    chain->head = head;
    (void)walk(ring, &view, chain); /* answered all the same */
    return true;
}
