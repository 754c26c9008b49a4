/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Driver side of a packed virtqueue (Virtio 1.2, 2.8): what differs from the split one. A
 * request's id is the head that virtqueue.c chose for it; it takes as many descriptors
 * from the free list as it takes places in the ring, so that what is free is counted as
 * in a split queue.
 */
#include <string.h>

#include "tests/support/virtqueue-private.h"

#define WRAP 0x8000u
#define DESC_AVAIL (1u << VRING_PACKED_DESC_F_AVAIL)
#define DESC_USED (1u << VRING_PACKED_DESC_F_USED)

static unsigned int place_of(uint16_t position)
{
    return position & (WRAP - 1);
}

static uint16_t advance(const Virtqueue *queue, uint16_t position, unsigned int n)
{
    unsigned int place = place_of(position) + n;
    unsigned int wrap = position & WRAP;
    return (uint16_t)(place < queue->config.size
                          ? place | wrap
                          : (place - queue->config.size) | (wrap ^ WRAP));
}

static struct vring_packed_desc *desc_at(const Virtqueue *queue, uint16_t position)
{
    return (struct vring_packed_desc *)(void *)queue->desc + place_of(position);
}

static void set_driver_event(Virtqueue *queue, uint16_t position, unsigned int flags)
{
    __atomic_store_n((uint32_t *)(void *)queue->avail, position | flags << 16,
                     __ATOMIC_SEQ_CST);
}

void virtqueue_packed_reset(Virtqueue *queue)
{
    set_driver_event(queue, 0, VRING_PACKED_EVENT_FLAG_DISABLE);
    queue->avail_at = WRAP;
    queue->kicked_at = WRAP;
    queue->used_at = WRAP;
}

/* ---- offering --------------------------------------------------------------- */

/* Write one descriptor; but for the first one of a chain, which would offer the chain,
 * with its flags. Return: these. */
static uint16_t put(Virtqueue *queue, uint16_t position, struct vring_packed_desc desc,
                    bool is_first)
{
    struct vring_packed_desc *to = desc_at(queue, position);
    uint16_t flags = (uint16_t)((desc.flags & ~(DESC_AVAIL | DESC_USED)) |
                                ((position & WRAP) != 0 ? DESC_AVAIL : DESC_USED));
    __atomic_store_n(&to->addr, desc.addr, __ATOMIC_RELAXED);
    __atomic_store_n(&to->len, desc.len, __ATOMIC_RELAXED);
    __atomic_store_n(&to->id, desc.id, __ATOMIC_RELAXED);
    if (!is_first) {
        __atomic_store_n(&to->flags, flags, __ATOMIC_RELAXED);
    }
    return flags;
}

static void offer(Virtqueue *queue, uint16_t flags, unsigned int n)
{
    __atomic_store_n(&desc_at(queue, queue->avail_at)->flags, flags, __ATOMIC_SEQ_CST);
    queue->avail_at = advance(queue, queue->avail_at, n);
}

static struct vring_packed_desc describe(const VirtqueueRequest *request, unsigned int i)
{
    const VirtqueueSegment *segment = virtqueue_segment(request, i);
    return (struct vring_packed_desc){
        .addr = segment->gpa,
        .len = segment->size,
        .flags = i >= request->n_in ? VRING_DESC_F_WRITE : 0,
    };
}

static uint16_t fill_table(Virtqueue *queue, const VirtqueueRequest *request)
{
    unsigned int n = request->n_in + request->n_out;
    uint16_t head = virtqueue_take(queue);
    struct vring_desc *table = queue->tables + (size_t)head * queue->config.table_size;
    for (unsigned int i = 0; i < n; i++) {
        struct vring_packed_desc desc = describe(request, i);
        memcpy(&table[i], &desc, sizeof(desc));
    }
    queue->heads[head].length = 1;
    struct vring_packed_desc desc = {
        .addr = guest_memory_gpa(queue->memory, table),
        .len = (uint32_t)(n * sizeof(struct vring_packed_desc)),
        .id = head,
        .flags = VRING_DESC_F_INDIRECT,
    };
    offer(queue, put(queue, queue->avail_at, desc, true), 1);
    return head;
}

static uint16_t fill_chain(Virtqueue *queue, const VirtqueueRequest *request)
{
    unsigned int n = request->n_in + request->n_out;
    uint16_t head = queue->free_head;
    uint16_t first = 0;
    for (unsigned int i = 0; i < n; i++) {
        struct vring_packed_desc desc = describe(request, i);
        (void)virtqueue_take(queue); /* it stays linked to the next one */
        desc.id = head;
        desc.flags |= i + 1 < n ? VRING_DESC_F_NEXT : 0;
        uint16_t flags = put(queue, advance(queue, queue->avail_at, i), desc, i == 0);
        first = i == 0 ? flags : first;
    }
    queue->heads[head].length = (uint16_t)n;
    offer(queue, first, n);
    return head;
}

uint16_t virtqueue_packed_fill(Virtqueue *queue, const VirtqueueRequest *request,
                               bool table)
{
    return table ? fill_table(queue, request) : fill_chain(queue, request);
}

/* Links that lead nowhere, or round in a circle, cannot be said in this layout: there the
 * chain ends. */
void virtqueue_packed_post(Virtqueue *queue, uint16_t head)
{
    unsigned int size = queue->config.size;
    uint16_t id = head, first = 0;
    unsigned int n = 0;
    for (bool more = true; more; n++) {
        struct vring_desc desc = {0};
        if (head < size) {
            desc = queue->plan[head];
        }
        more = (desc.flags & VRING_DESC_F_NEXT) != 0 && desc.next < size && n + 1 < size;
        struct vring_packed_desc packed = {
            .addr = desc.addr, .len = desc.len, .id = id, .flags = desc.flags};
        packed.flags =
            (uint16_t)(more ? packed.flags : packed.flags & ~VRING_DESC_F_NEXT);
        uint16_t flags = put(queue, advance(queue, queue->avail_at, n), packed, n == 0);
        first = n == 0 ? flags : first;
        head = desc.next;
    }
    if (id < size) {
        queue->heads[id].length = (uint16_t)n;
    }
    offer(queue, first, n);
}

bool virtqueue_packed_wants_kick(const Virtqueue *queue)
{
    uint32_t wish = __atomic_load_n((uint32_t *)(void *)queue->used, __ATOMIC_SEQ_CST);
    unsigned int size = queue->config.size;
    if (wish >> 16 != VRING_PACKED_EVENT_FLAG_DESC) {
        return wish >> 16 != VRING_PACKED_EVENT_FLAG_DISABLE;
    }
    uint16_t now = queue->avail_at, event = (uint16_t)wish, before = queue->kicked_at;
    unsigned int event_lap = ((event ^ now) & WRAP) != 0 ? size : 0;
    unsigned int before_lap = ((before ^ now) & WRAP) != 0 ? size : 0;
    return vring_need_event((uint16_t)(place_of(event) - event_lap),
                            (uint16_t)place_of(now),
                            (uint16_t)(place_of(before) - before_lap));
}

/* ---- taking back ------------------------------------------------------------ */

static bool look_at(const Virtqueue *queue, uint16_t position,
                    VirtqueueCompletion *completion)
{
    const struct vring_packed_desc *desc = desc_at(queue, position);
    uint16_t flags = __atomic_load_n(&desc->flags, __ATOMIC_SEQ_CST);
    bool wrap = (position & WRAP) != 0;
    if (((flags & DESC_AVAIL) != 0) != wrap || ((flags & DESC_USED) != 0) != wrap) {
        return false;
    }
    *completion = (VirtqueueCompletion){
        .head = __atomic_load_n(&desc->id, __ATOMIC_RELAXED),
        .length = __atomic_load_n(&desc->len, __ATOMIC_RELAXED),
    };
    return true;
}

bool virtqueue_packed_look(const Virtqueue *queue, VirtqueueCompletion *completion)
{
    return look_at(queue, queue->used_at, completion);
}

unsigned int virtqueue_packed_waiting(const Virtqueue *queue)
{
    uint16_t position = queue->used_at;
    VirtqueueCompletion completion;
    unsigned int n = 0;
    while (n < queue->n_in_flight && look_at(queue, position, &completion) &&
           completion.head < queue->config.size) {
        position = advance(queue, position, queue->heads[completion.head].length);
        n++;
    }
    return n;
}

void virtqueue_packed_step(Virtqueue *queue, unsigned int n)
{
    queue->used_at = advance(queue, queue->used_at, n);
}

void virtqueue_packed_arm(Virtqueue *queue, bool arm)
{
    if (!arm) {
        set_driver_event(queue, 0, VRING_PACKED_EVENT_FLAG_DISABLE);
    } else if (queue->config.event_idx) {
        set_driver_event(queue, queue->used_at, VRING_PACKED_EVENT_FLAG_DESC);
    } else {
        set_driver_event(queue, 0, VRING_PACKED_EVENT_FLAG_ENABLE);
    }
}
