/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_VHOST_RING_INTERNAL_H
#define VIRTIOFSD_VHOST_RING_INTERNAL_H

#include <linux/virtio_ring.h>
#include <pthread.h>
#include <stdatomic.h>

#include "virtiofsd/vhost/call.h"
#include "virtiofsd/vhost/ring-layout.h"
#include "virtiofsd/vhost/ring.h"

/*
 * What the ring's files share: ring.c (workers), ring-control.c (control thread), and the
 * two layouts of its memory, ring-split.c and ring-packed.c.
 */

/** enum VuKicks - whether the guest was told to kick. */
typedef enum VuKicks {
    VU_KICKS_UNKNOWN, /* just started: the ring's memory may say anything */
    VU_KICKS_ON,
    VU_KICKS_OFF,
} VuKicks;

/** Most chains of a ring that are put aside at a time; any number would be right. */
#define VU_ASIDE_MAX 256u

struct VuRing {
    unsigned int index;
    int idle_fd;

    /* Up under the lock, down without it; a ring that is held back has them go down
     * only. Each of the two is stored before the other is loaded (vu_ring_pop, stop). */
    _Atomic unsigned int in_flight;
    _Atomic unsigned int n_parked; /* of in_flight; up only, while paused */
    _Atomic unsigned int n_aside;  /* of in_flight; changes under the lock */
    _Atomic bool held;             /* stopped or paused; written under the lock */

    pthread_mutex_t lock;

    /* All below: written under the lock. The control thread, being the only one that
     * writes the settings, reads those without it. */

    /* Settings, by the control thread. */
    bool started;
    bool enabled;
    bool paused;
    bool event_idx;
    _Atomic bool indirect; /* which vu_ring_may_park() reads without it */
    bool has_addresses;
    VuRingAddresses addresses;
    const VuRingLayout *layout;
    uint32_t size; /* 0: not set */
    VuMemory *memory;
    VuCall *call;
    VuCall *error;
    VuDirtyLog *log;  /* NULL: what is written is not logged */
    VuCall *log_call; /* only with a log */

    /* Guest memory, translated from the addresses; all NULL if that is not possible. */
    union {
        struct vring_desc *desc;
        struct vring_packed_desc *packed;
    };
    union {
        struct vring_avail *avail;
        struct vring_packed_desc_event *driver_event;
    };
    union {
        struct vring_used *used;
        struct vring_packed_desc_event *device_event;
    };

    /* A packed ring's: @size of each, made by the control thread while nothing is in
     * flight. An entry of @chains is that of the chain whose copies begin there. */
    struct vring_desc *copies; /* of descriptors in flight, and a list of free ones */
    VuPackedChain *chains;
    uint16_t free_copy;
    uint32_t n_free;

    /* Progress, by workers. */
    bool runnable; /* all of the above allow pops, and the ring is not broken */
    bool broken;
    bool synced; /* sync_used() was called since it started */
    bool signalled_valid;
    VuKicks kicks;
    uint16_t armed; /* next_avail at which kicks are ON */
    /* Split: free-running indices. Packed: the place in the ring, and in bit 15 the wrap
     * counter there. */
    uint16_t next_avail;  /* next entry to take */
    uint16_t known_avail; /* split: the guest's index when last read and checked */
    uint16_t used_index;  /* next entry to write */
    uint16_t signalled;   /* used_index when an interrupt was last considered */

    /* Heads of the n_aside chains that are put aside, oldest first. */
    uint16_t aside[VU_ASIDE_MAX];
    uint16_t first_aside; /* modulo VU_ASIDE_MAX */
    uint16_t n_overtook;  /* chains given out since the last of these was */
};

/* ---- ring-log.c: what is written to guest memory, all with the lock held -------------
 */

/** vu_ring_log_write() - mark @size bytes of the ring's own memory. There is a log. */
void vu_ring_log_write(const VuRing *ring, const void *at, size_t size);

/** vu_ring_log_reply() - mark the first @length bytes of a chain's. There is a log.
 * Return: whom to signal, outside the lock; or NULL. */
VuCall *vu_ring_log_reply(const VuRing *ring, const VuChain *chain, uint32_t length);

/** vu_ring_wrote() - so many bytes of the ring's own memory were written. */
static inline void vu_ring_wrote(const VuRing *ring, const void *at, size_t size)
{
    if (G_UNLIKELY(ring->log != NULL)) {
        vu_ring_log_write(ring, at, size);
    }
}

#endif
