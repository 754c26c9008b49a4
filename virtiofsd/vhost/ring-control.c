/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control thread's side of a ring: settings, translation of addresses, start and
 * stop. What workers may see changes under the lock only, and what a chain in flight
 * relies on (size, addresses, base) does not change while there is one.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>

#include "virtiofsd/log.h"
#include "virtiofsd/vhost/proto.h"
#include "virtiofsd/vhost/ring-internal.h"

VuRing *vu_ring_new(unsigned int index, int idle_fd)
{
    VuRing *ring = calloc(1, sizeof(*ring));

    if (ring == NULL) {
        return NULL;
    }
    ring->memory = vu_memory_new();
    if (ring->memory == NULL) {
        free(ring);
        return NULL;
    }
    pthread_mutex_init(&ring->lock, NULL); /* the default kind cannot fail */
    ring->index = index;
    ring->idle_fd = idle_fd;
    ring->held = true;
    ring->layout = &vu_split_layout;
    return ring;
}

void vu_ring_free(VuRing *ring)
{
    if (ring == NULL) {
        return;
    }
    vu_call_unref(ring->call);
    vu_call_unref(ring->error);
    vu_call_unref(ring->log_call);
    vu_memory_unref(ring->memory);
    free(ring->copies);
    free(ring->chains);
    pthread_mutex_destroy(&ring->lock);
    free(ring);
}

/* ---- translation ------------------------------------------------------------------- */

/* @align: a power of two. Return: the host address, or NULL. */
static void *translate(const VuRing *ring, uint64_t uva, uint64_t length, uintptr_t align)
{
    void *host = vu_memory_at_uva(ring->memory, uva, length);

    /* A region that begins in the middle of a page may shift an aligned address. */
    return ((uintptr_t)host & (align - 1)) == 0 ? host : NULL;
}

static bool overlap(const void *a, size_t a_size, const void *b, size_t b_size)
{
    return (uintptr_t)a < (uintptr_t)b + b_size && (uintptr_t)b < (uintptr_t)a + a_size;
}

/* Point into guest memory if all three parts lie in it, and none in another: what is
 * written to the used ring would offer more work in the avail ring, for ever. */
static bool translate_all(VuRing *ring)
{
    const VuRingLayout *layout = ring->layout;
    size_t n = ring->size, desc_size = 16 * n,
           avail_size = layout->avail_size + layout->avail_entry * n,
           used_size = layout->used_size + layout->used_entry * n;

    ring->desc = NULL;
    ring->avail = NULL;
    ring->used = NULL;
    if (!ring->has_addresses || n == 0) {
        return false;
    }
    const VuRingAddresses *at = &ring->addresses;
    void *desc = translate(ring, at->desc, desc_size, VRING_DESC_ALIGN_SIZE);
    void *avail = translate(ring, at->avail, avail_size, layout->avail_align);
    void *used = translate(ring, at->used, used_size, layout->used_align);
    if (desc == NULL || avail == NULL || used == NULL ||
        overlap(desc, desc_size, avail, avail_size) ||
        overlap(desc, desc_size, used, used_size) ||
        overlap(avail, avail_size, used, used_size)) {
        return false;
    }
    ring->desc = desc;
    ring->avail = avail;
    ring->used = used;
    return true;
}

/* To be called with the lock held after any change. */
static void update(VuRing *ring)
{
    atomic_store(&ring->held, !ring->started || ring->paused);
    ring->runnable = ring->started && ring->enabled && !ring->paused && !ring->broken &&
                     ring->desc != NULL;
    if (ring->runnable && !ring->synced) {
        ring->layout->sync_used(ring);
        ring->synced = true;
    }
}

/* ---- settings ---------------------------------------------------------------------- */

/* Would a change of its layout pull the ground from under a request? */
static bool is_busy(const VuRing *ring)
{
    return ring->started || atomic_load(&ring->in_flight) > 0;
}

int vu_ring_set_size(VuRing *ring, uint32_t size)
{
    bool valid = size > 0 && size <= VU_RING_MAX_SIZE &&
                 (ring->layout->any_size || (size & (size - 1)) == 0);

    if (is_busy(ring)) {
        return -EBUSY;
    }
    pthread_mutex_lock(&ring->lock);
    ring->size = valid ? size : 0;
    (void)translate_all(ring); /* start() says if it could not be done */
    update(ring);
    pthread_mutex_unlock(&ring->lock);
    return valid ? 0 : -EINVAL;
}

int vu_ring_set_base(VuRing *ring, uint32_t base)
{
    if (is_busy(ring)) {
        return -EBUSY;
    }
    pthread_mutex_lock(&ring->lock);
    int result = ring->layout->set_base(ring, base);
    pthread_mutex_unlock(&ring->lock);
    return result;
}

uint32_t vu_ring_base(const VuRing *ring)
{
    return ring->layout->base(ring);
}

static bool same_addresses(const VuRingAddresses *a, const VuRingAddresses *b)
{
    return a->desc == b->desc && a->avail == b->avail && a->used == b->used;
}

static bool is_aligned(const VuRingLayout *layout, const VuRingAddresses *addresses)
{
    return addresses->desc % VRING_DESC_ALIGN_SIZE == 0 &&
           addresses->avail % layout->avail_align == 0 &&
           addresses->used % layout->used_align == 0;
}

/* The VMM begins and ends to log while rings run: it sends their addresses again. */
static int set_logged(VuRing *ring, const VuRingAddresses *addresses)
{
    if (!ring->has_addresses || !same_addresses(addresses, &ring->addresses)) {
        return -EBUSY;
    }
    pthread_mutex_lock(&ring->lock);
    ring->addresses = *addresses;
    pthread_mutex_unlock(&ring->lock);
    return 0;
}

int vu_ring_set_addresses(VuRing *ring, const VuRingAddresses *addresses)
{
    int result = 0;

    if (is_busy(ring)) {
        return set_logged(ring, addresses);
    }
    pthread_mutex_lock(&ring->lock);
    ring->addresses = *addresses;
    ring->has_addresses = is_aligned(ring->layout, addresses);
    if (!ring->has_addresses) {
        result = -EINVAL;
    }
    bool translated = translate_all(ring);
    if (result == 0 && !translated && ring->size != 0 &&
        vu_memory_count(ring->memory) > 0) {
        ring->has_addresses = false;
        result = -EFAULT;
    }
    update(ring);
    pthread_mutex_unlock(&ring->lock);
    return result;
}

/* With the lock held. What was set before meant something else. */
static void set_layout(VuRing *ring, const VuRingLayout *layout)
{
    ring->layout = layout;
    ring->has_addresses = false;
    ring->size = 0;
    (void)layout->set_base(ring, layout->initial_base); /* which is sound */
    (void)translate_all(ring); /* without addresses it only clears the pointers */
    update(ring);
}

int vu_ring_set_features(VuRing *ring, uint64_t features)
{
    const VuRingLayout *layout =
        (features & VU_F_RING_PACKED) != 0 ? &vu_packed_layout : &vu_split_layout;

    if (layout != ring->layout && is_busy(ring)) {
        return -EBUSY;
    }
    pthread_mutex_lock(&ring->lock);
    ring->event_idx = (features & VU_F_EVENT_IDX) != 0;
    ring->indirect = (features & VU_F_INDIRECT_DESC) != 0;
    ring->kicks = VU_KICKS_UNKNOWN;
    if (layout != ring->layout) {
        set_layout(ring, layout);
    }
    pthread_mutex_unlock(&ring->lock);
    return 0;
}

void vu_ring_set_memory(VuRing *ring, VuMemory *memory)
{
    pthread_mutex_lock(&ring->lock);
    bool was_translated = ring->desc != NULL;
    VuMemory *old = ring->memory;
    ring->memory = vu_memory_ref(memory);
    bool lost = !translate_all(ring) && was_translated && ring->started;
    update(ring);
    pthread_mutex_unlock(&ring->lock);
    vu_memory_unref(old);
    if (lost) {
        log_error("queue %u is stopped: the VMM removed the memory that it lies in",
                  ring->index);
    }
}

void vu_ring_set_log(VuRing *ring, VuDirtyLog *log, VuCall *call)
{
    pthread_mutex_lock(&ring->lock);
    VuCall *old = ring->log_call;
    ring->log = log;
    ring->log_call = vu_call_ref(call);
    pthread_mutex_unlock(&ring->lock);
    vu_call_unref(old);
}

/* Put @fd in place of what is at @where. */
static int set_call(VuRing *ring, VuCall **where, int fd)
{
    VuCall *call = fd >= 0 ? vu_call_new_take(fd) : NULL;

    pthread_mutex_lock(&ring->lock);
    VuCall *old = *where;
    *where = call;
    pthread_mutex_unlock(&ring->lock);
    vu_call_retire(old);
    return fd >= 0 && call == NULL ? -ENOMEM : 0;
}

int vu_ring_set_call_take(VuRing *ring, int fd_take)
{
    return set_call(ring, &ring->call, fd_take);
}

int vu_ring_set_error_take(VuRing *ring, int fd_take)
{
    return set_call(ring, &ring->error, fd_take);
}

/* ---- states ------------------------------------------------------------------------ */

/* With the lock held. Return: 0; -EINVAL or -EFAULT as vu_ring_start(). */
static int check_start(VuRing *ring)
{
    if (ring->size == 0 || !ring->has_addresses) {
        return -EINVAL;
    }
    return !translate_all(ring) && vu_memory_count(ring->memory) > 0 ? -EFAULT : 0;
}

/* With the lock held. What is in flight still, since before the ring was stopped, stays
 * as it is. */
static int begin(VuRing *ring)
{
    int result = atomic_load(&ring->in_flight) == 0 ? ring->layout->prepare(ring) : 0;

    if (result < 0) {
        return result;
    }
    ring->started = true;
    ring->broken = false;
    ring->synced = false;
    ring->signalled_valid = false;
    ring->kicks = VU_KICKS_UNKNOWN;
    return 0;
}

int vu_ring_start(VuRing *ring)
{
    pthread_mutex_lock(&ring->lock);
    int result = check_start(ring);
    if (result == 0 && !ring->started) {
        result = begin(ring);
    }
    update(ring);
    pthread_mutex_unlock(&ring->lock);
    return result;
}

void vu_ring_stop(VuRing *ring)
{
    pthread_mutex_lock(&ring->lock);
    ring->started = false;
    update(ring);
    pthread_mutex_unlock(&ring->lock);
}

void vu_ring_reset(VuRing *ring)
{
    pthread_mutex_lock(&ring->lock);
    ring->started = false;
    ring->enabled = false;
    ring->has_addresses = false;
    ring->size = 0;
    (void)ring->layout->set_base(ring, ring->layout->initial_base); /* which is sound */
    (void)translate_all(ring); /* without addresses it only clears the pointers */
    update(ring);
    pthread_mutex_unlock(&ring->lock);
}

void vu_ring_set_enabled(VuRing *ring, bool enabled)
{
    pthread_mutex_lock(&ring->lock);
    ring->enabled = enabled;
    update(ring);
    pthread_mutex_unlock(&ring->lock);
}

static void set_paused(VuRing *ring, bool paused)
{
    pthread_mutex_lock(&ring->lock);
    ring->paused = paused;
    update(ring);
    pthread_mutex_unlock(&ring->lock);
}

void vu_ring_pause(VuRing *ring)
{
    set_paused(ring, true);
}

void vu_ring_resume(VuRing *ring)
{
    set_paused(ring, false);
}

bool vu_ring_is_started(const VuRing *ring)
{
    return ring->started;
}

unsigned int vu_ring_in_flight(const VuRing *ring)
{
    return atomic_load(&ring->in_flight);
}

unsigned int vu_ring_running(const VuRing *ring)
{
    /* In this order, 0 is the truth while the ring is paused: then the first two do not
     * fall and the third does not grow. */
    unsigned int at_rest = atomic_load(&ring->n_parked) + atomic_load(&ring->n_aside);
    return atomic_load(&ring->in_flight) - at_rest;
}
