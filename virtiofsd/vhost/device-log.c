/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests about the dirty log. There is one for all rings; they mark in it while it is
 * there and LOG_ALL is acknowledged, in whatever order the two came. SET_LOG_BASE may
 * come again and again while rings run: once it is answered, the log before is the VMM's
 * alone, which reads it then for the last time.
 *
 * RESET_OWNER and RESET_DEVICE leave the log alone: the VMM, which migrates the guest,
 * has not asked for its end, and a mark too many costs it a page.
 */
#include <errno.h>

#include "virtiofsd/vhost/device-requests.h"

void vu_device_update_log(VuDevice *device)
{
    for (unsigned int i = 0; i < device->n_queues; i++) {
        vu_ring_set_log(device->queues[i].ring, device->logs ? device->log : NULL,
                        device->log_call);
    }
}

void vu_device_forget_log(VuDevice *device)
{
    VuDirtyLog *log = g_steal_pointer(&device->log);
    VuCall *call = g_steal_pointer(&device->log_call);

    device->logs = false;
    vu_device_update_log(device);
    vu_dirty_log_free(log);
    vu_call_unref(call);
}

int vu_on_set_log_base(VuDevice *device, VuMessage *message)
{
    const struct vu_log *wire = &message->payload.log;
    VuDirtyLog *log = NULL;
    g_auto(AutoFd) fd = vu_message_steal_fd(message, 0);

    int result = vu_dirty_log_new(fd, wire->mmap_offset, wire->mmap_size, &log);
    if (result < 0) {
        return result;
    }
    VuDirtyLog *old = device->log;
    device->log = log;
    vu_device_update_log(device);
    vu_dirty_log_free(old);
    return vu_reply_u64(message, 0);
}

int vu_on_set_log_fd(VuDevice *device, VuMessage *message)
{
    int fd = -1;
    int result = vu_signal_fd_of(message, &fd);

    if (result < 0) {
        return result;
    }
    VuCall *call = vu_call_new_take(fd);
    if (call == NULL) {
        return -ENOMEM;
    }
    vu_call_unref(device->log_call);
    device->log_call = call;
    vu_device_update_log(device);
    return 0;
}
