/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device's part of the DAX window: what is offered, when the VMM may be asked for
 * mappings, and what it does with our memory when it maps and unmaps.
 *
 * QEMU (11.1) dies of a request that comes before the rings run or after they were
 * stopped, and waits for ever for one that comes while it waits for us. So nothing is
 * sent but while every ring that was started is enabled, and none has been stopped.
 *
 * What is mapped in the window is memory of the guest, so the VMM adds it to ours, too.
 * It is a file of the share, that anybody may truncate at any time, so it is not mapped
 * here, and no buffer of a request may lie in it. As it is never used, it can be taken
 * away while requests run: one of them may be waiting for the VMM.
 */
#include <errno.h>
#include <string.h>

#include "virtiofsd/vhost/device-requests.h"

int vu_on_get_shmem_config(VuDevice *device, VuMessage *message)
{
    struct vu_shmem_config *wire = &message->payload.shmem;

    memset(wire, 0, sizeof(*wire));
    wire->count = 1;
    wire->sizes[VU_SHMEM_WINDOW] = vu_window_size(device->window);
    message->header.size = sizeof(*wire);
    return 0;
}

VuWindow *vu_device_window(VuDevice *device)
{
    return device->window;
}

static bool rings_run(const VuDevice *device)
{
    bool some = false;

    for (unsigned int i = 0; i < device->n_queues; i++) {
        const VuQueue *queue = &device->queues[i];
        if (vu_ring_is_started(queue->ring)) {
            if (!queue->is_enabled) {
                return false;
            }
            some = true;
        }
    }
    return some && !device->is_stopping;
}

void vu_device_update_channel(VuDevice *device)
{
    if (device->window != NULL) {
        uint64_t missing =
            vu_window_rules(device->window)->needs & ~device->protocol_features;
        vu_backend_set_open(&device->backend, missing == 0, rings_run(device));
    }
}

void vu_device_window_lost(VuDevice *device, bool has_left)
{
    if (device->window != NULL) {
        vu_window_forget(device->window, has_left);
        device->n_pages = has_left ? 0 : device->n_pages;
    }
}

/* ---- memory that is files -----------------------------------------------------------
 */

/* Return: its index, or n_pages. */
static size_t find_page(const VuDevice *device, const VuMemoryRange *range)
{
    size_t i = 0;

    while (i < device->n_pages && !vu_memory_is_same(&device->pages[i], range)) {
        i++;
    }
    return i;
}

int vu_device_add_page(VuDevice *device, const VuMemoryRange *range, int fd)
{
    if (device->window == NULL ||
        !vu_window_has(device->window, fd, range->mmap_offset, range->size)) {
        return 0;
    }
    if (device->n_pages == VU_MEMORY_MAX_REGIONS) {
        return -ENOSPC;
    }
    device->pages[device->n_pages++] = *range;
    return 1;
}

bool vu_device_has_page(const VuDevice *device, const VuMessage *message)
{
    const VuMemoryRange range = vu_device_range(&message->payload.single.region);

    return find_page(device, &range) < device->n_pages;
}

bool vu_device_remove_page(VuDevice *device, const VuMemoryRange *range)
{
    size_t i = find_page(device, range);

    if (i == device->n_pages) {
        return false;
    }
    device->pages[i] = device->pages[--device->n_pages];
    return true;
}
