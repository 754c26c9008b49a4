/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_VHOST_DEVICE_REQUESTS_H
#define VIRTIOFSD_VHOST_DEVICE_REQUESTS_H

#include "virtiofsd/vhost/device-internal.h"

/*
 * The functions of the device's request table. Control thread only.
 *
 * The message has the row's size and descriptors, and its queue index is sound. A
 * function that owns its reply leaves it in the message.
 *
 * Return: 0; -EPROTO if the message breaks the protocol; -EINTR if a wait was given up;
 * any other negative errno if it is sound but could not be obeyed.
 */

/* device-config.c */
int vu_on_get_features(VuDevice *device, VuMessage *message);
int vu_on_set_features(VuDevice *device, VuMessage *message);
int vu_on_owner(VuDevice *device, VuMessage *message);
int vu_on_get_protocol_features(VuDevice *device, VuMessage *message);
int vu_on_set_protocol_features(VuDevice *device, VuMessage *message);
int vu_on_get_queue_num(VuDevice *device, VuMessage *message);
int vu_on_set_backend_req_fd(VuDevice *device, VuMessage *message);
int vu_on_get_config(VuDevice *device, VuMessage *message);
int vu_on_set_config(VuDevice *device, VuMessage *message);
int vu_on_reset_device(VuDevice *device, VuMessage *message);

/* device-shmem.c */
int vu_on_get_shmem_config(VuDevice *device, VuMessage *message);

/* device-log.c */
int vu_on_set_log_base(VuDevice *device, VuMessage *message);
int vu_on_set_log_fd(VuDevice *device, VuMessage *message);

/* device-memory.c */
int vu_on_set_mem_table(VuDevice *device, VuMessage *message);
int vu_on_get_max_mem_slots(VuDevice *device, VuMessage *message);
int vu_on_add_mem_reg(VuDevice *device, VuMessage *message);
int vu_on_rem_mem_reg(VuDevice *device, VuMessage *message);

/* device-ring.c */
int vu_on_set_vring_num(VuDevice *device, VuMessage *message);
int vu_on_set_vring_addr(VuDevice *device, VuMessage *message);
int vu_on_set_vring_base(VuDevice *device, VuMessage *message);
int vu_on_get_vring_base(VuDevice *device, VuMessage *message);
int vu_on_set_vring_kick(VuDevice *device, VuMessage *message);
int vu_on_set_vring_call(VuDevice *device, VuMessage *message);
int vu_on_set_vring_err(VuDevice *device, VuMessage *message);
int vu_on_set_vring_enable(VuDevice *device, VuMessage *message);

/** vu_signal_fd_of() - take the message's descriptor, to be written to; -1 with NOFD.
 * Only anonymous inodes pass: a write to an eventfd neither blocks nor reaches a file.
 * Return: 0 or negative errno. */
int vu_signal_fd_of(VuMessage *message, int *ret_fd);

/** vu_reply_u64() - leave @value as the reply. Return: 0. */
static inline int vu_reply_u64(VuMessage *message, uint64_t value)
{
    message->header.size = sizeof(value);
    message->payload.u64 = value;
    return 0;
}

#endif
