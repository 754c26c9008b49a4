/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_VHOST_RING_INTERNAL_H
#define VIRTIOFSD_VHOST_RING_INTERNAL_H

#include <linux/virtio_ring.h>
#include <pthread.h>
#include <stdatomic.h>

#include "virtiofsd/vhost/call.h"
#include "virtiofsd/vhost/ring.h"

/*
 * What ring.c (workers) and ring-control.c (control thread) share.
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
    uint32_t size; /* 0: not set */
    VuMemory *memory;
    VuCall *call;
    VuCall *error;

    /* Guest memory, translated from the addresses; all NULL if that is not possible. */
    struct vring_desc *desc;
    struct vring_avail *avail;
    struct vring_used *used;

    /* Progress, by workers. */
    bool runnable; /* all of the above allow pops, and the ring is not broken */
    bool broken;
    bool synced; /* used_index was read from the ring since it started */
    bool signalled_valid;
    VuKicks kicks;
    uint16_t armed;       /* avail index at which kicks are ON */
    uint16_t next_avail;  /* next entry to take */
    uint16_t known_avail; /* the guest's index when last read and checked */
    uint16_t used_index;  /* next entry to write */
    uint16_t signalled;   /* used_index when an interrupt was last considered */

    /* Heads of the n_aside chains that are put aside, oldest first. */
    uint16_t aside[VU_ASIDE_MAX];
    uint16_t first_aside; /* modulo VU_ASIDE_MAX */
    uint16_t n_overtook;  /* chains given out since the last of these was */
};

#endif
