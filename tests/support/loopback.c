/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simplest device side of a split virtqueue: one thread, one request at a time.
 */
#include "tests/support/loopback.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUFFER_SIZE (2u << 20)

struct Loopback {
    LoopbackConfig config;
    VirtqueueLayout ring;
    int kick_fd;
    int call_fd;
    pthread_t thread;
    int stopping; /* atomic */
    uint16_t next;
    uint16_t used;
    uint8_t *in;
    uint8_t *out;
};

typedef struct Walk {
    Loopback *device;
    size_t in_size;
    size_t room;
    size_t out_done; /* bytes of the answer already placed */
    size_t out_size; /* bytes of the answer; only in the second pass */
    bool scatter;
} Walk;

static void visit(Walk *walk, const struct vring_desc *desc)
{
    Loopback *device = walk->device;
    uint8_t *host = guest_memory_host(device->config.memory, desc->addr, desc->len);
    if (host == NULL) {
        abort();
    }
    if ((desc->flags & VRING_DESC_F_WRITE) == 0) {
        if (!walk->scatter) {
            memcpy(device->in + walk->in_size, host, desc->len);
            walk->in_size += desc->len;
        }
        return;
    }
    walk->room += desc->len;
    if (walk->scatter && walk->out_done < walk->out_size) {
        size_t left = walk->out_size - walk->out_done;
        size_t n = left < desc->len ? left : desc->len;
        memcpy(host, device->out + walk->out_done, n);
        walk->out_done += n;
    }
}

static void walk_chain(Walk *walk, const struct vring_desc *table, uint16_t index)
{
    for (;;) {
        const struct vring_desc *desc = &table[index];
        if (desc->flags & VRING_DESC_F_INDIRECT) {
            walk_chain(
                walk,
                guest_memory_host(walk->device->config.memory, desc->addr, desc->len), 0);
        } else {
            visit(walk, desc);
        }
        if ((desc->flags & VRING_DESC_F_NEXT) == 0) {
            return;
        }
        index = desc->next;
    }
}

static bool interrupt_is_wanted(const Loopback *device)
{
    if (device->config.event_idx) {
        uint16_t event = __atomic_load_n(&device->ring.avail->ring[device->ring.size],
                                         __ATOMIC_SEQ_CST);
        return (uint16_t)(device->used - event - 1) < 1;
    }
    uint16_t flags = __atomic_load_n(&device->ring.avail->flags, __ATOMIC_SEQ_CST);
    return (flags & VRING_AVAIL_F_NO_INTERRUPT) == 0;
}

static void serve(Loopback *device)
{
    unsigned int size = device->ring.size;
    uint16_t head =
        __atomic_load_n(&device->ring.avail->ring[device->next % size], __ATOMIC_RELAXED);
    device->next++;
    Walk walk = {.device = device};
    walk_chain(&walk, device->ring.desc, head);
    uint32_t n = device->config.handler(device->config.opaque, device->in, walk.in_size,
                                        device->out, walk.room);
    walk = (Walk){.device = device, .scatter = true, .out_size = n};
    walk_chain(&walk, device->ring.desc, head);

    struct vring_used_elem *elem = &device->ring.used->ring[device->used % size];
    __atomic_store_n(&elem->id, head, __ATOMIC_RELAXED);
    __atomic_store_n(&elem->len, n, __ATOMIC_RELAXED);
    device->used++;
    __atomic_store_n(&device->ring.used->idx, device->used, __ATOMIC_SEQ_CST);
    if (interrupt_is_wanted(device)) {
        uint64_t one = 1;
        (void)!write(device->call_fd, &one, sizeof(one)); /* full: already signalled */
    }
}

static bool has_work(const Loopback *device)
{
    return __atomic_load_n(&device->ring.avail->idx, __ATOMIC_SEQ_CST) != device->next;
}

/* Ask for a kick at the next request, or for none at all. */
static void set_kicks(Loopback *device, bool wanted)
{
    struct vring_used *used = device->ring.used;
    if (device->config.event_idx) {
        uint16_t *event = (uint16_t *)(void *)&used->ring[device->ring.size];
        uint16_t at = wanted ? device->next : (uint16_t)(device->next - 1);
        __atomic_store_n(event, at, __ATOMIC_SEQ_CST);
    } else {
        __atomic_store_n(&used->flags, wanted ? 0 : VRING_USED_F_NO_NOTIFY,
                         __ATOMIC_SEQ_CST);
    }
}

static void *run(void *opaque)
{
    Loopback *device = opaque;
    for (;;) {
        set_kicks(device, false);
        while (has_work(device)) {
            serve(device);
        }
        if (__atomic_load_n(&device->stopping, __ATOMIC_ACQUIRE)) {
            return NULL;
        }
        if (device->config.silent_kicks) {
            (void)usleep(100); /* only a pause */
            continue;
        }
        set_kicks(device, true);
        if (has_work(device)) {
            continue;
        }
        struct pollfd pfd = {.fd = device->kick_fd, .events = POLLIN};
        if (poll(&pfd, 1, -1) > 0) {
            uint64_t n;
            (void)!read(device->kick_fd, &n, sizeof(n)); /* only empties it */
        }
    }
}

Loopback *loopback_start(const LoopbackConfig *config)
{
    Loopback *device = calloc(1, sizeof(*device));
    if (device == NULL) {
        return NULL;
    }
    device->config = *config;
    device->ring = virtqueue_layout(config->queue);
    device->kick_fd = virtqueue_kick_fd(config->queue);
    device->call_fd = virtqueue_call_fd(config->queue);
    device->in = malloc(BUFFER_SIZE);
    device->out = malloc(BUFFER_SIZE);
    if (device->in == NULL || device->out == NULL ||
        pthread_create(&device->thread, NULL, run, device) != 0) {
        free(device->in);
        free(device->out);
        free(device);
        return NULL;
    }
    return device;
}

void loopback_stop(Loopback *device)
{
    uint64_t one = 1;
    __atomic_store_n(&device->stopping, 1, __ATOMIC_RELEASE);
    (void)!write(device->kick_fd, &one, sizeof(one)); /* full: awake already */
    (void)pthread_join(device->thread, NULL);         /* it does end */
    free(device->in);
    free(device->out);
    free(device);
}
