/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_VHOST_RING_LAYOUT_H
#define VIRTIOFSD_VHOST_RING_LAYOUT_H

#include <endian.h>
#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stdint.h>

#include "virtiofsd/vhost/call.h"
#include "virtiofsd/vhost/ring.h"

/*
 * What differs between split and packed rings.
 */

/** struct VuFault - a look at the ring found it broken; said outside the lock. */
typedef struct VuFault {
    const char *what; /* NULL: none */
    VuCall *error;
} VuFault;

/**
 * struct VuRingLayout - how a ring lies in guest memory: facts, and what is done there.
 * Functions are called with the lock held; all but @prepare and the bases while the
 * ring's memory is translated.
 */
typedef struct VuRingLayout {
    /* Bytes of the two parts beside the descriptors: so many, and so many for each. */
    uint8_t avail_size, avail_entry, avail_align;
    uint8_t used_size, used_entry, used_align;
    bool any_size;         /* not powers of two only */
    uint32_t initial_base; /* as SET_VRING_BASE has it */

    /** prepare() - before a start, when nothing is in flight. Return: 0, -EINVAL (a base
     * outside the ring) or -ENOMEM. */
    int (*prepare)(VuRing *ring);
    /** sync_used() - the ring's memory is there for the first time since the start. */
    void (*sync_used)(VuRing *ring);
    /** set_base() - Return: 0 or -EINVAL. */
    int (*set_base)(VuRing *ring, uint32_t base);
    uint32_t (*base)(const VuRing *ring);

    /** is_waiting() - Return: whether there is a chain to take; not if @fault is set. */
    bool (*is_waiting)(VuRing *ring, VuFault *fault);
    /** take() - take the next chain, if there is one and no @fault. @ret_head: where
     * the walk begins, and what put_used() knows the chain by. */
    bool (*take)(VuRing *ring, uint16_t *ret_head, VuFault *fault);
    /** put_used() - give a chain back to the guest. */
    void (*put_used)(VuRing *ring, uint16_t head, uint32_t length);
    /** wants_interrupt() - Return: whether the guest is to be told of the last one. */
    bool (*wants_interrupt)(VuRing *ring);
    /** want_kicks() - have the guest kick, with EVENT_IDX for the next chain. */
    void (*want_kicks)(VuRing *ring);
    /** refuse_kicks() - have it not kick. */
    void (*refuse_kicks)(VuRing *ring);
} VuRingLayout;

extern const VuRingLayout vu_split_layout;
extern const VuRingLayout vu_packed_layout;

/** struct VuPackedChain - a chain of a packed ring that is in flight. */
typedef struct VuPackedChain {
    uint16_t id;       /* the guest's; given back to it, and of no meaning to us */
    uint16_t n_places; /* in the ring, and of VuRing.copies */
} VuPackedChain;

/** vu_ring_break() - stop the ring, and leave in @fault why. */
void vu_ring_break(VuRing *ring, const char *what, VuFault *fault);

/** vu_ring_load16() - a field of ring memory. Loads and stores are sequentially
 * consistent: see the theory of operation. */
static inline uint16_t vu_ring_load16(const __virtio16 *from)
{
    return le16toh(__atomic_load_n(from, __ATOMIC_SEQ_CST));
}

static inline void vu_ring_store16(__virtio16 *to, uint16_t value)
{
    __atomic_store_n(to, htole16(value), __ATOMIC_SEQ_CST);
}

#endif
