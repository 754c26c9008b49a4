/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests about one ring. Sizes and addresses are the guest's choice and only handed on
 * by the VMM: wrong ones leave that ring unusable and do not end the connection (see the
 * request table).
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "virtiofsd/log.h"
#include "virtiofsd/vhost/device-requests.h"

static VuQueue *queue_of(VuDevice *device, uint64_t index)
{
    return &device->queues[index];
}

int vu_on_set_vring_num(VuDevice *device, VuMessage *message)
{
    const struct vu_vring_state *state = &message->payload.state;

    return vu_ring_set_size(queue_of(device, state->index)->ring, state->num);
}

int vu_on_set_vring_addr(VuDevice *device, VuMessage *message)
{
    const struct vu_vring_addr *wire = &message->payload.addr;
    const VuRingAddresses addresses = {
        .desc = wire->desc,
        .avail = wire->avail,
        .used = wire->used,
        .is_logged = (wire->flags & VU_VRING_F_LOG) != 0,
        .log_gpa = wire->log,
    };

    if (vu_memory_count(device->memory) == 0 && !device->told_unshared) {
        device->told_unshared = true;
        log_error("guest memory is not shared with virtiofsd, the guest will hang: start "
                  "QEMU with -object memory-backend-memfd,share=on,... (or "
                  "memory-backend-file) as the machine's memory");
    }
    return vu_ring_set_addresses(queue_of(device, wire->index)->ring, &addresses);
}

int vu_on_set_vring_base(VuDevice *device, VuMessage *message)
{
    const struct vu_vring_state *state = &message->payload.state;

    return vu_ring_set_base(queue_of(device, state->index)->ring, state->num);
}

int vu_on_get_vring_base(VuDevice *device, VuMessage *message)
{
    struct vu_vring_state *state = &message->payload.state;

    vu_device_stop_queue(device, state->index);
    int result = vu_device_drain(device, state->index);
    if (result == 0) {
        state->num = vu_ring_base(queue_of(device, state->index)->ring);
        message->header.size = sizeof(*state);
    }
    return result;
}

int vu_on_set_vring_enable(VuDevice *device, VuMessage *message)
{
    const struct vu_vring_state *state = &message->payload.state;
    VuRing *ring = queue_of(device, state->index)->ring;

    if (state->num > 1) {
        return -EPROTO;
    }
    vu_ring_set_enabled(ring, state->num == 1);
    queue_of(device, state->index)->is_enabled = state->num == 1;
    vu_device_update_channel(device);
    if (state->num == 1 && vu_ring_is_started(ring)) {
        device->handler.wake(device->handler.opaque, state->index);
    }
    return 0;
}

/* ---- descriptors ------------------------------------------------------------------- */

/* The descriptor that the message brings; -1 with NOFD. Only anonymous inodes pass: a
 * write to an eventfd neither blocks nor reaches a file. */
static int event_fd_of(VuMessage *message, int *ret_fd)
{
    struct statx st;

    if ((message->payload.u64 & VU_VRING_NOFD) != 0) {
        *ret_fd = -1;
        return 0;
    }
    if (statx(message->fds[0], "", AT_EMPTY_PATH, STATX_TYPE, &st) < 0 ||
        (st.stx_mode & S_IFMT) != 0) {
        return -EPROTO;
    }
    *ret_fd = vu_message_steal_fd(message, 0);
    return 0;
}

/* The same, for one that we write to. */
int vu_signal_fd_of(VuMessage *message, int *ret_fd)
{
    int result = event_fd_of(message, ret_fd);

    if (result == 0 && *ret_fd >= 0) {
        int flags = fcntl(*ret_fd, F_GETFL);
        if (flags < 0 || fcntl(*ret_fd, F_SETFL, flags | O_NONBLOCK) < 0) {
            result = -errno;
            autofd_clear(ret_fd);
        }
    }
    return result;
}

int vu_on_set_vring_kick(VuDevice *device, VuMessage *message)
{
    unsigned int index = (unsigned int)(message->payload.u64 & VU_VRING_INDEX_MASK);
    VuQueue *queue = queue_of(device, index);
    g_auto(AutoFd) kick_fd = -1;

    int result = event_fd_of(message, &kick_fd);
    if (result < 0) {
        return result;
    }
    bool was_started = vu_ring_is_started(queue->ring);
    result = vu_ring_start(queue->ring);
    if (result < 0) {
        return result;
    }
    if (was_started) {
        device->handler.stop(device->handler.opaque, index);
    }
    autofd_clear(&queue->kick_fd);
    queue->kick_fd = autofd_steal(&kick_fd);
    device->is_stopping = false;
    vu_device_update_channel(device);
    device->handler.start(device->handler.opaque, index, queue->kick_fd);
    return 0;
}

int vu_on_set_vring_call(VuDevice *device, VuMessage *message)
{
    VuQueue *queue = queue_of(device, message->payload.u64 & VU_VRING_INDEX_MASK);
    int fd = -1;
    int result = vu_signal_fd_of(message, &fd);

    return result < 0 ? result : vu_ring_set_call_take(queue->ring, fd);
}

int vu_on_set_vring_err(VuDevice *device, VuMessage *message)
{
    VuQueue *queue = queue_of(device, message->payload.u64 & VU_VRING_INDEX_MASK);
    int fd = -1;
    int result = vu_signal_fd_of(message, &fd);

    return result < 0 ? result : vu_ring_set_error_take(queue->ring, fd);
}
