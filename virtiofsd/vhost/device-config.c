/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests about the device as a whole: what it offers, what was agreed, its
 * configuration space, its reset.
 */
#include <errno.h>
#include <string.h>

#include "virtiofsd/log.h"
#include "virtiofsd/vhost/device-requests.h"

#define OFFERED_FEATURES                                                                 \
    (VU_F_LOG_ALL | VU_F_INDIRECT_DESC | VU_F_EVENT_IDX | VU_F_PROTOCOL_FEATURES |       \
     VU_F_VERSION_1 | VU_F_RING_PACKED)

#define OFFERED_PROTOCOL_FEATURES                                                        \
    (VU_PROTOCOL_F_MQ | VU_PROTOCOL_F_LOG_SHMFD | VU_PROTOCOL_F_REPLY_ACK |              \
     VU_PROTOCOL_F_BACKEND_REQ | VU_PROTOCOL_F_BACKEND_SEND_FD |                         \
     VU_PROTOCOL_F_RESET_DEVICE | VU_PROTOCOL_F_CONFIGURE_MEM_SLOTS)

static uint64_t offered_protocol_features(const VuDevice *device)
{
    return OFFERED_PROTOCOL_FEATURES | (device->has_tag ? VU_PROTOCOL_F_CONFIG : 0) |
           (device->window != NULL ? vu_window_rules(device->window)->offers : 0);
}

int vu_on_get_features(VuDevice *device, VuMessage *message)
{
    return vu_reply_u64(message, OFFERED_FEATURES);
}

/* Without the protocol features bit there is no SET_VRING_ENABLE: rings are enabled from
 * now on. With it they are as they were, disabled at first. */
int vu_on_set_features(VuDevice *device, VuMessage *message)
{
    uint64_t features = message->payload.u64;

    if ((features & ~OFFERED_FEATURES) != 0) {
        return -EPROTO;
    }
    for (unsigned int i = 0; i < device->n_queues; i++) {
        int result = vu_ring_set_features(device->queues[i].ring, features);
        if (result < 0) {
            return result; /* another layout, in the middle of the old one */
        }
        if ((features & VU_F_PROTOCOL_FEATURES) == 0) {
            vu_ring_set_enabled(device->queues[i].ring, true);
        }
    }
    device->logs = (features & VU_F_LOG_ALL) != 0;
    vu_device_update_log(device);
    vu_device_wake_started(device);
    return 0;
}

/* SET_OWNER begins a session, which the connection does for us; RESET_OWNER is obsolete
 * and to be ignored. */
int vu_on_owner(VuDevice *device, VuMessage *message)
{
    return 0;
}

int vu_on_get_protocol_features(VuDevice *device, VuMessage *message)
{
    return vu_reply_u64(message, offered_protocol_features(device));
}

int vu_on_set_protocol_features(VuDevice *device, VuMessage *message)
{
    if ((message->payload.u64 & ~offered_protocol_features(device)) != 0) {
        return -EPROTO;
    }
    device->protocol_features = message->payload.u64;
    vu_device_update_channel(device);
    return 0;
}

int vu_on_get_queue_num(VuDevice *device, VuMessage *message)
{
    return vu_reply_u64(message, device->n_queues);
}

int vu_on_set_backend_req_fd(VuDevice *device, VuMessage *message)
{
    int fd = vu_message_steal_fd(message, 0);

    return vu_backend_connect_take(&device->backend, fd) < 0 ? -EPROTO : 0;
}

/* Return: whether the payload is as long as it says it is. */
static bool is_whole(const VuMessage *message)
{
    const struct vu_config *wire = &message->payload.config;

    return message->header.size == offsetof(struct vu_config, bytes) + wire->size;
}

/* An answer with no bytes tells the VMM that the range is not in the space. */
int vu_on_get_config(VuDevice *device, VuMessage *message)
{
    struct vu_config *wire = &message->payload.config;
    size_t end = (size_t)wire->offset + wire->size;

    if (!is_whole(message)) {
        return -EPROTO;
    }
    if (wire->size == 0 || end > sizeof(device->config)) {
        message->header.size = 0;
        return 0;
    }
    memcpy(wire->bytes, (const char *)&device->config + wire->offset, wire->size);
    return 0;
}

/* It is read-only. The guest can make the VMM send this. */
int vu_on_set_config(VuDevice *device, VuMessage *message)
{
    return is_whole(message) ? -EROFS : -EPROTO;
}

int vu_on_reset_device(VuDevice *device, VuMessage *message)
{
    for (unsigned int i = 0; i < device->n_queues; i++) {
        vu_device_stop_queue(device, i);
    }
    int result = vu_device_drain(device, VU_ALL_QUEUES);
    if (result < 0) {
        return result;
    }
    for (unsigned int i = 0; i < device->n_queues; i++) {
        vu_ring_reset(device->queues[i].ring);
        device->queues[i].is_enabled = false;
    }
    vu_device_window_lost(device, false);
    device->handler.reset(device->handler.opaque);
    return 0;
}
