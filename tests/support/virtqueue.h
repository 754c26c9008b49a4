/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SUPPORT_VIRTQUEUE_H
#define TESTS_SUPPORT_VIRTQUEUE_H

#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/support/guest-memory.h"

/*
 * One virtqueue, driver side (Virtio 1.2, 2.7 and 2.8), with indirect tables, EVENT_IDX
 * and the packed layout where asked for. Every call is safe from any thread, except that
 * one thread at a time may be in virtqueue_wait().
 *
 * Well-formed use: virtqueue_submit(), then virtqueue_poll() or virtqueue_wait().
 * Hostile use: virtqueue_reserve() descriptors, write anything into their plans and into
 * the ring through virtqueue_layout(), then virtqueue_post().
 */

typedef struct Virtqueue Virtqueue;

/** struct VirtqueueSegment - one descriptor's worth; the address is not checked. */
typedef struct VirtqueueSegment {
    uint64_t gpa;
    uint32_t size;
} VirtqueueSegment;

/** struct VirtqueueConfig - constant over the queue's life. */
typedef struct VirtqueueConfig {
    unsigned int size; /* power of two; packed: any */
    bool indirect;
    bool event_idx;
    bool packed;
    unsigned int table_size; /* entries of each indirect table; 0: min(@size, 512) */
} VirtqueueConfig;

/** struct VirtqueueFeatures - what driver and device have agreed on. */
typedef struct VirtqueueFeatures {
    bool indirect;
    bool event_idx;
    bool packed;
} VirtqueueFeatures;

/** struct VirtqueueRequest - buffers of one request. */
typedef struct VirtqueueRequest {
    const VirtqueueSegment *in; /* the device reads these */
    unsigned int n_in;
    const VirtqueueSegment *out; /* the device writes these */
    unsigned int n_out;
    void *tag;    /* given back with the completion */
    bool no_kick; /* publish only; virtqueue_kick() follows */
} VirtqueueRequest;

/** struct VirtqueueCompletion - one used element. */
typedef struct VirtqueueCompletion {
    void *tag;
    uint32_t length; /* bytes written, as the device says */
    uint32_t head;
} VirtqueueCompletion;

/** struct VirtqueueCounters - since the queue was made. */
typedef struct VirtqueueCounters {
    uint64_t submitted;
    uint64_t completed;
    uint64_t kicks;            /* written to the kick descriptor */
    uint64_t kicks_suppressed; /* not written because the device asked for none */
    uint64_t interrupts;       /* the device's writes to the call descriptor */
} VirtqueueCounters;

/** struct VirtqueueLayout - the ring's memory, for tests that write it themselves. In a
 * packed queue @desc is the ring, and @avail and @used are the event areas. */
typedef struct VirtqueueLayout {
    unsigned int size;
    struct vring_desc *desc;
    struct vring_avail *avail; /* with used_event behind the ring */
    struct vring_used *used;   /* with avail_event behind the ring */
    struct vring_desc *tables; /* indirect table of head i begins at i * table_size */
    unsigned int table_size;
    struct vring_desc *plan; /* what virtqueue_post() offers; in a split queue, @desc */
} VirtqueueLayout;

/** virtqueue_memory_size() - Return: guest memory that such a queue takes. */
size_t virtqueue_memory_size(const VirtqueueConfig *config);

/** virtqueue_new() - Return: an empty queue, or NULL with errno set. */
Virtqueue *virtqueue_new(GuestMemory *memory, const VirtqueueConfig *config);
void virtqueue_free(Virtqueue *queue);

/** virtqueue_set_fds() - eventfds to kick and to be called with; borrowed. */
void virtqueue_set_fds(Virtqueue *queue, int kick_fd, int call_fd);
/** virtqueue_call_fd() - Return: the descriptor to poll for interrupts; non-blocking. */
int virtqueue_call_fd(const Virtqueue *queue);
int virtqueue_kick_fd(const Virtqueue *queue);

/** virtqueue_set_features() - what was agreed; the queue is reset. */
void virtqueue_set_features(Virtqueue *queue, const VirtqueueFeatures *features);

/** virtqueue_reset() - as after a reset of the device: all requests are forgotten. */
void virtqueue_reset(Virtqueue *queue);

/**
 * virtqueue_submit() - publish a request and kick if the device wants it.
 *
 * Return: the head descriptor; -ENOSPC if the queue is full; -EMSGSIZE if the request
 * has more segments than a table or the queue holds; -EINVAL without segments.
 */
int virtqueue_submit(Virtqueue *queue, const VirtqueueRequest *request);

/** virtqueue_kick() - kick if the device wants it for what was published so far. */
void virtqueue_kick(Virtqueue *queue);
/** virtqueue_kick_always() - kick whether the device wants it or not. */
void virtqueue_kick_always(Virtqueue *queue);

/**
 * virtqueue_poll() - take one completion if there is one.
 *
 * Return: 1, 0 for none, -EPROTO if the device broke the rules (used index beyond what
 * was published, an id that is not in flight, more bytes than the buffers have).
 */
int virtqueue_poll(Virtqueue *queue, VirtqueueCompletion *completion);

/** virtqueue_wait() - the same, sleeping up to @timeout_ms. Return: or -ETIMEDOUT. */
int virtqueue_wait(Virtqueue *queue, VirtqueueCompletion *completion, int timeout_ms);

/**
 * virtqueue_arm() - ask for an interrupt for the next completion.
 *
 * Return: true if completions are there already (no interrupt may follow for them).
 */
bool virtqueue_arm(Virtqueue *queue);
/** virtqueue_acknowledge() - count and clear pending interrupts. */
void virtqueue_acknowledge(Virtqueue *queue);

/** virtqueue_reserve() - take descriptors out of use. Return: 0 or -ENOSPC. */
int virtqueue_reserve(Virtqueue *queue, unsigned int n, uint16_t *heads);
/** virtqueue_release() - give reserved descriptors back. */
void virtqueue_release(Virtqueue *queue, unsigned int n, const uint16_t *heads);
/** virtqueue_post() - make @head (any number) available and kick always. */
void virtqueue_post(Virtqueue *queue, uint16_t head, void *tag);

VirtqueueLayout virtqueue_layout(const Virtqueue *queue);
VirtqueueCounters virtqueue_counters(Virtqueue *queue);
/** virtqueue_in_flight() - Return: requests published and not yet taken back. */
unsigned int virtqueue_in_flight(Virtqueue *queue);
/** virtqueue_waiting() - Return: completions that wait to be taken. */
unsigned int virtqueue_waiting(Virtqueue *queue);
/** virtqueue_avail_index() - Return: the index behind the last published request. */
uint16_t virtqueue_avail_index(Virtqueue *queue);
/** virtqueue_base() - Return: what GET_VRING_BASE is to answer once all that was
 * published has been given back. */
uint32_t virtqueue_base(Virtqueue *queue);

#endif
