/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_VHOST_RING_WALK_H
#define VIRTIOFSD_VHOST_RING_WALK_H

#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stdint.h>

#include "virtiofsd/vhost/ring.h"

/*
 * From the head of a descriptor chain to host segments. Works on a snapshot of the ring,
 * so no lock is held.
 */

/** struct VuRingView - what a walk needs of a ring. */
typedef struct VuRingView {
    const struct vring_desc *desc; /* of the ring, or copied from it: @size, aligned */
    const VuMemory *memory;
    uint32_t size;
    bool indirect; /* VIRTIO_F_INDIRECT_DESC was agreed */
    bool packed;   /* so are the indirect tables */
} VuRingView;

/**
 * vu_ring_walk() - fill @chain's segments from the chain that begins at @chain->head.
 *
 * Each descriptor is read once. Reads at most view->size descriptors of the ring and as
 * many of one indirect table.
 * Return: NULL, or in a few words what is wrong with the chain.
 */
const char *vu_ring_walk(const VuRingView *view, VuChain *chain);

#endif
