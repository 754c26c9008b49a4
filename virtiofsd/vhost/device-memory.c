/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests about guest memory. A region that is added is seen by the next request; before
 * one is taken away, the request table has all rings paused and drained.
 */
#include <errno.h>

#include "virtiofsd/log.h"
#include "virtiofsd/vhost/device-requests.h"
#include "virtiofsd/vhost/guard.h"

VuMemoryRange vu_device_range(const struct vu_mem_region *region)
{
    return (VuMemoryRange){.gpa = region->gpa,
                           .size = region->size,
                           .uva = region->uva,
                           .mmap_offset = region->mmap_offset};
}

/* All regions of the message in a table of their own. */
static int map_table(VuMessage *message, VuMemory **ret_memory)
{
    const struct vu_mem_table *wire = &message->payload.table;
    g_autoptr(VuMemory) table = vu_memory_new();

    if (table == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < wire->count; i++) {
        VuMemoryRange range = vu_device_range(&wire->regions[i]);
        VuMemory *larger = NULL;
        int fd = vu_message_steal_fd(message, i);
        int result = vu_memory_add(table, &range, fd, &larger);
        if (result < 0) {
            return result;
        }
        vu_memory_unref(table);
        table = larger;
    }
    *ret_memory = g_steal_pointer(&table);
    return 0;
}

int vu_on_set_mem_table(VuDevice *device, VuMessage *message)
{
    const struct vu_mem_table *wire = &message->payload.table;
    VuMemory *memory = NULL;

    if (wire->count > VU_MEM_TABLE_MAX || message->n_fds != wire->count ||
        message->header.size != offsetof(struct vu_mem_table, regions) +
                                    wire->count * sizeof(struct vu_mem_region)) {
        return -EPROTO;
    }
    int result = map_table(message, &memory);
    if (result == 0) {
        vu_device_use_memory_take(device, memory);
        vu_guard_clear();
    }
    return result;
}

int vu_on_get_max_mem_slots(VuDevice *device, VuMessage *message)
{
    return vu_reply_u64(message, VU_MEMORY_MAX_REGIONS);
}

int vu_on_add_mem_reg(VuDevice *device, VuMessage *message)
{
    VuMemoryRange range = vu_device_range(&message->payload.single.region);
    VuMemory *memory = NULL;

    int result = vu_device_add_page(device, &range, message->fds[0]);
    if (result != 0) {
        return result < 0 ? result : 0;
    }
    int fd = vu_message_steal_fd(message, 0);
    result = vu_memory_add(device->memory, &range, fd, &memory);
    if (result == 0) {
        vu_device_use_memory_take(device, memory);
        /* A ring that was started before its memory was there can be served now. */
        vu_device_wake_started(device);
    }
    return result;
}

int vu_on_rem_mem_reg(VuDevice *device, VuMessage *message)
{
    VuMemoryRange range = vu_device_range(&message->payload.single.region);
    VuMemory *memory = NULL;

    if (vu_device_remove_page(device, &range)) {
        return 0;
    }
    int result = vu_memory_remove(device->memory, &range, &memory);
    if (result == 0) {
        vu_device_use_memory_take(device, memory);
    }
    return result;
}
