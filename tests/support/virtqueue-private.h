/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SUPPORT_VIRTQUEUE_PRIVATE_H
#define TESTS_SUPPORT_VIRTQUEUE_PRIVATE_H

#include <pthread.h>

#include "tests/support/virtqueue.h"

/* Shared by the queue's files only. */

/* What the driver remembers of one head descriptor. */
typedef struct Head {
    void *tag;
    uint64_t room; /* writable bytes */
    uint16_t next; /* free list, or next descriptor of a chain without table */
    uint16_t length;
    uint16_t in_flight; /* more than 1: posted again by a test */
    bool reserved;
} Head;

struct Virtqueue {
    GuestMemory *memory; /* borrowed */
    VirtqueueConfig config;
    struct vring_desc *desc;   /* packed: the ring */
    struct vring_avail *avail; /* packed: the driver's event area */
    struct vring_used *used;   /* packed: the device's event area */
    struct vring_desc *tables;
    struct vring_desc *plan; /* packed: what tests write to be posted; ours alone */
    int kick_fd;
    int call_fd;

    pthread_mutex_t lock; /* guards all below */
    Head *heads;
    uint16_t free_head;
    unsigned int n_free;
    unsigned int n_in_flight;
    uint16_t avail_index;  /* requests published */
    uint16_t kicked_index; /* avail_index when the device was last asked about kicks */
    uint16_t used_index;   /* requests taken back */
    /* Packed: places in the ring, with the wrap counter in bit 15. */
    uint16_t avail_at;
    uint16_t kicked_at;
    uint16_t used_at;
    VirtqueueCounters counters;
};

/* ---- virtqueue.c, under the lock ----------------------------------------------------
 */

/** virtqueue_take() - take one descriptor out of the free list, which is not empty. */
uint16_t virtqueue_take(Virtqueue *queue);
/** virtqueue_segment() - Return: segment @i of the request, readable ones first. */
const VirtqueueSegment *virtqueue_segment(const VirtqueueRequest *request,
                                          unsigned int i);

/* ---- virtqueue-packed.c, under the lock ---------------------------------------------
 */

/** virtqueue_packed_reset() - an empty ring, and no interrupts. */
void virtqueue_packed_reset(Virtqueue *queue);
/** virtqueue_packed_fill() - offer the request, for which there is room, with a table or
 * without. Return: its id. */
uint16_t virtqueue_packed_fill(Virtqueue *queue, const VirtqueueRequest *request,
                               bool table);
/** virtqueue_packed_post() - offer what was planned at @head, whose id that becomes. */
void virtqueue_packed_post(Virtqueue *queue, uint16_t head);
/** virtqueue_packed_wants_kick() - for what was offered since kicked_at? */
bool virtqueue_packed_wants_kick(const Virtqueue *queue);
/** virtqueue_packed_look() - Return: whether there is a completion; it is left where it
 * is. */
bool virtqueue_packed_look(const Virtqueue *queue, VirtqueueCompletion *completion);
/** virtqueue_packed_waiting() - Return: completions that wait to be taken. */
unsigned int virtqueue_packed_waiting(const Virtqueue *queue);
/** virtqueue_packed_step() - leave a completion of @n descriptors behind. */
void virtqueue_packed_step(Virtqueue *queue, unsigned int n);
/** virtqueue_packed_arm() - want an interrupt for the next completion, or none. */
void virtqueue_packed_arm(Virtqueue *queue, bool arm);

#endif
