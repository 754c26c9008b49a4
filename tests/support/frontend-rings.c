/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings and memory of a device: start, stop, reset, plugging memory, in the order in
 * which QEMU sends them. Regions are told once and kept over stop and start; only what is
 * new is sent later.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/support/frontend-private.h"

#define MAX_TABLE_REGIONS 8

/* Payloads, as on the wire. */
struct vring_state {
    uint32_t index;
    uint32_t num;
};

struct vring_address {
    uint32_t index;
    uint32_t flags;
    uint64_t desc;
    uint64_t used;
    uint64_t avail;
    uint64_t log;
};

struct memory_region {
    uint64_t gpa;
    uint64_t size;
    uint64_t uva;
    uint64_t offset;
};

struct memory_table {
    uint32_t n_regions;
    uint32_t padding;
    struct memory_region regions[MAX_TABLE_REGIONS];
};

struct single_region {
    uint64_t padding;
    struct memory_region region;
};

static struct memory_region describe(const GuestRegion *region)
{
    return (struct memory_region){
        .gpa = region->gpa,
        .size = region->size,
        .uva = region->uva,
        .offset = region->offset,
    };
}

static int set_state(Frontend *frontend, uint32_t request, unsigned int queue,
                     uint32_t num)
{
    struct vring_state state = {.index = queue, .num = num};
    FrontendRequest message = {
        .request = request, .payload = &state, .size = sizeof(state)};
    bool acknowledged = request == VHOST_SET_VRING_ENABLE;
    return acknowledged ? frontend_ack(frontend, &message)
                        : frontend_send(frontend, &message);
}

int frontend_set_fd(Frontend *frontend, uint32_t request, unsigned int queue, int fd)
{
    uint64_t index = queue;
    return frontend_ack(frontend, &(FrontendRequest){.request = request,
                                                     .payload = &index,
                                                     .size = sizeof(index),
                                                     .fds = &fd,
                                                     .n_fds = 1});
}

/* ---- memory ----------------------------------------------------------------- */

static bool has_slots(const Frontend *frontend)
{
    return (frontend->protocol_agreed & FRONTEND_PROTOCOL_CONFIGURE_MEM_SLOTS) != 0;
}

static int send_table(Frontend *frontend)
{
    struct memory_table table = {0};
    int fds[MAX_TABLE_REGIONS];
    unsigned int n = guest_memory_n_regions(frontend->memory);
    for (unsigned int i = 0; i < n; i++) {
        const GuestRegion *region = guest_memory_region(frontend->memory, i);
        if (region->size == 0) {
            continue;
        }
        if (table.n_regions == MAX_TABLE_REGIONS) {
            return frontend_fail(frontend, -E2BIG,
                                 "more than 8 regions in SET_MEM_TABLE");
        }
        fds[table.n_regions] = region->fd;
        table.regions[table.n_regions++] = describe(region);
    }
    size_t size = 8 + table.n_regions * sizeof(struct memory_region);
    return frontend_ack(frontend, &(FrontendRequest){.request = VHOST_SET_MEM_TABLE,
                                                     .payload = &table,
                                                     .size = (uint32_t)size,
                                                     .fds = fds,
                                                     .n_fds = table.n_regions});
}

static int send_region(Frontend *frontend, uint32_t request, const GuestRegion *region)
{
    struct single_region payload = {.region = describe(region)};
    unsigned int n_fds = request == VHOST_ADD_MEM_REG ? 1 : 0;
    return frontend_ack(frontend, &(FrontendRequest){.request = request,
                                                     .payload = &payload,
                                                     .size = sizeof(payload),
                                                     .fds = &region->fd,
                                                     .n_fds = n_fds});
}

int frontend_set_memory(Frontend *frontend)
{
    unsigned int n = guest_memory_n_regions(frontend->memory);
    unsigned int first = frontend->n_known_regions;
    int rc = 0;
    if (first == n) {
        return 0;
    }
    if (!has_slots(frontend)) {
        rc = send_table(frontend);
    }
    for (unsigned int i = first; has_slots(frontend) && rc == 0 && i < n; i++) {
        const GuestRegion *region = guest_memory_region(frontend->memory, i);
        rc = region->size == 0 ? 0 : send_region(frontend, VHOST_ADD_MEM_REG, region);
    }
    if (rc == 0) {
        frontend->n_known_regions = n;
    }
    return rc;
}

int frontend_add_region(Frontend *frontend, size_t size)
{
    int index = guest_memory_add(frontend->memory, size);
    if (index < 0) {
        return frontend_fail(frontend, index, "cannot make a region");
    }
    int rc = frontend_set_memory(frontend);
    return rc < 0 ? rc : index;
}

int frontend_remove_region(Frontend *frontend, unsigned int index)
{
    const GuestRegion *region = guest_memory_region(frontend->memory, index);
    if (region == NULL || region->size == 0) {
        return frontend_fail(frontend, -ENOENT, "no region %u", index);
    }
    GuestRegion gone = *region;
    int rc = 0;
    if (has_slots(frontend)) {
        rc = send_region(frontend, VHOST_REM_MEM_REG, &gone);
        guest_memory_remove(frontend->memory, index);
    } else {
        guest_memory_remove(frontend->memory, index);
        rc = send_table(frontend);
    }
    return rc;
}

/* ---- rings ------------------------------------------------------------------ */

static int set_addresses(Frontend *frontend, unsigned int queue)
{
    VirtqueueLayout ring = virtqueue_layout(frontend->queues[queue].ring);
    struct vring_address address = {
        .index = queue,
        .desc = guest_memory_uva(frontend->memory, ring.desc),
        .used = guest_memory_uva(frontend->memory, ring.used),
        .avail = guest_memory_uva(frontend->memory, ring.avail),
    };
    return frontend_send(frontend, &(FrontendRequest){.request = VHOST_SET_VRING_ADDR,
                                                      .payload = &address,
                                                      .size = sizeof(address)});
}

int frontend_set_ring(Frontend *frontend, unsigned int queue)
{
    FrontendQueue *q = &frontend->queues[queue];
    int rc = set_state(frontend, VHOST_SET_VRING_NUM, queue, frontend->config.queue_size);
    if (rc == 0) {
        rc = set_state(frontend, VHOST_SET_VRING_BASE, queue, q->base);
    }
    if (rc == 0) {
        rc = set_addresses(frontend, queue);
    }
    if (rc == 0) {
        rc = frontend_set_fd(frontend, VHOST_SET_VRING_KICK, queue, q->kick_fd);
    }
    return rc < 0 ? rc
                  : frontend_set_fd(frontend, VHOST_SET_VRING_CALL, queue, q->call_fd);
}

int frontend_enable_ring(Frontend *frontend, unsigned int queue, bool enable)
{
    /* Without protocol features rings are enabled by starting them. */
    if ((frontend->agreed & FRONTEND_F_PROTOCOL_FEATURES) == 0) {
        return 0;
    }
    return set_state(frontend, VHOST_SET_VRING_ENABLE, queue, enable);
}

int frontend_get_base(Frontend *frontend, unsigned int queue, uint32_t *ret_base)
{
    struct vring_state state = {.index = queue};
    VhostReply reply;
    int rc = frontend_get(frontend,
                          &(FrontendRequest){.request = VHOST_GET_VRING_BASE,
                                             .payload = &state,
                                             .size = sizeof(state)},
                          &reply);
    if (rc < 0) {
        return rc;
    }
    vhost_reply_clear(&reply);
    memcpy(&state, reply.payload, sizeof(state));
    bool packed = (frontend->agreed & FRONTEND_F_RING_PACKED) != 0;
    if (reply.header.size != sizeof(state) || state.index != queue ||
        (state.num > UINT16_MAX && !packed)) {
        return frontend_fail(frontend, -EPROTO, "base of queue %u: %u bytes, %u of %u",
                             queue, reply.header.size, state.num, state.index);
    }
    frontend->queues[queue].base = state.num;
    *ret_base = state.num;
    return 0;
}

int frontend_start(Frontend *frontend)
{
    int rc = frontend_set_u64(frontend, VHOST_SET_FEATURES, frontend->agreed);
    if (rc == 0) {
        rc = frontend_set_memory(frontend);
    }
    for (unsigned int i = 0; rc == 0 && i < frontend->n_queues; i++) {
        rc = frontend_set_ring(frontend, i);
    }
    for (unsigned int i = 0; rc == 0 && i < frontend->n_queues; i++) {
        rc = frontend_enable_ring(frontend, i, true);
    }
    return rc;
}

int frontend_stop(Frontend *frontend)
{
    int rc = 0;
    for (unsigned int i = 0; rc == 0 && i < frontend->n_queues; i++) {
        rc = frontend_enable_ring(frontend, i, false);
    }
    for (unsigned int i = 0; rc >= 0 && i < frontend->n_queues; i++) {
        uint32_t base;
        rc = frontend_get_base(frontend, i, &base);
    }
    return rc < 0 ? rc : 0;
}

int frontend_reset(Frontend *frontend)
{
    int rc = 0;
    if (frontend->protocol_agreed & FRONTEND_PROTOCOL_RESET_DEVICE) {
        rc = frontend_send(frontend, &(FrontendRequest){.request = VHOST_RESET_DEVICE});
    }
    for (unsigned int i = 0; i < frontend->n_queues; i++) {
        virtqueue_reset(frontend->queues[i].ring);
        frontend->queues[i].base = virtqueue_base(frontend->queues[i].ring);
    }
    return rc;
}

int frontend_swap_call(Frontend *frontend, unsigned int queue)
{
    FrontendQueue *q = &frontend->queues[queue];
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int old = fcntl(q->call_fd, F_DUPFD_CLOEXEC, 0);
    int rc = fd < 0 || old < 0 ? -errno : 0;
    if (rc == 0) {
        rc = frontend_set_fd(frontend, VHOST_SET_VRING_CALL, queue, fd);
    }
    if (rc == 0 && dup3(fd, q->call_fd, O_CLOEXEC) < 0) {
        rc = -errno;
    }
    if (old >= 0) {
        /* Who sleeps on the old one looks at the ring, then sleeps on the new one. */
        uint64_t one = 1;
        (void)!write(old, &one, sizeof(one));
        (void)close(old); /* only a copy */
    }
    if (fd >= 0) {
        (void)close(fd); /* q->call_fd is a copy of it now */
    }
    return rc < 0 ? frontend_fail(frontend, rc, "new call descriptor") : 0;
}

int frontend_get_config(Frontend *frontend, uint32_t offset, uint32_t size, void *bytes)
{
    uint8_t payload[12 + 256] = {0};
    uint32_t words[3] = {offset, size, 0};
    VhostReply reply;
    if (size > 256) {
        return frontend_fail(frontend, -EINVAL, "%u bytes of configuration", size);
    }
    memcpy(payload, words, sizeof(words));
    int rc = frontend_get(frontend,
                          &(FrontendRequest){.request = VHOST_GET_CONFIG,
                                             .payload = payload,
                                             .size = 12 + size},
                          &reply);
    if (rc < 0) {
        return rc;
    }
    vhost_reply_clear(&reply);
    if (reply.header.size != 12 + size) {
        return frontend_fail(frontend, -EPROTO, "configuration of %u bytes",
                             reply.header.size);
    }
    memcpy(bytes, reply.payload + 12, size);
    return 0;
}
