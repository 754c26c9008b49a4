/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory. A table is never changed once it is seen by a second thread: the control
 * thread copies it with one region more or less, and the rings are given the copy.
 * Tables share mappings by count. Regions are sorted by guest physical address; look-ups
 * in the VMM's address space are rare (ring addresses) and linear.
 */
#include "virtiofsd/vhost/memory.h"

#include <errno.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "virtiofsd/autofd.h"
#include "virtiofsd/vhost/mapping.h"

#define CACHE_LINE 64

typedef struct Region {
    VuMemoryRange range;
    uint8_t *host; /* of the region's first byte */
    VuMapping *mapping;
} Region;

struct VuMemory {
    /* Alone in its cache line: it is written for every request, the rest only read. */
    alignas(CACHE_LINE) _Atomic unsigned int refs;
    alignas(CACHE_LINE) size_t n;
    Region regions[];
};

/* ---- tables ------------------------------------------------------------------------ */

static VuMemory *memory_alloc(size_t n)
{
    size_t size = sizeof(VuMemory) + n * sizeof(Region);
    size = (size + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    VuMemory *memory = aligned_alloc(CACHE_LINE, size);

    if (memory != NULL) {
        memset(memory, 0, size);
        memory->refs = 1;
        memory->n = n;
    }
    return memory;
}

VuMemory *vu_memory_new(void)
{
    return memory_alloc(0);
}

VuMemory *vu_memory_ref(VuMemory *memory)
{
    atomic_fetch_add_explicit(&memory->refs, 1, memory_order_relaxed);
    return memory;
}

void vu_memory_unref(VuMemory *memory)
{
    if (memory == NULL || atomic_fetch_sub(&memory->refs, 1) != 1) {
        return;
    }
    for (size_t i = 0; i < memory->n; i++) {
        vu_mapping_unref(memory->regions[i].mapping);
    }
    free(memory);
}

static bool overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
    return a < b + b_size && b < a + a_size; /* neither wraps */
}

/* Is this a range that the table could take? */
static int check_range(const VuMemory *memory, const VuMemoryRange *range)
{
    uint64_t end;

    if (range->size == 0 || __builtin_add_overflow(range->gpa, range->size, &end) ||
        __builtin_add_overflow(range->uva, range->size, &end)) {
        return -EINVAL;
    }
    if (memory->n >= VU_MEMORY_MAX_REGIONS) {
        return -ENOSPC;
    }
    for (size_t i = 0; i < memory->n; i++) {
        const VuMemoryRange *other = &memory->regions[i].range;
        if (overlap(range->gpa, range->size, other->gpa, other->size) ||
            overlap(range->uva, range->size, other->uva, other->size)) {
            return -EEXIST;
        }
    }
    return 0;
}

static void copy_regions(Region *to, const Region *from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        to[i] = from[i];
        vu_mapping_ref(to[i].mapping);
    }
}

int vu_memory_add(const VuMemory *memory, const VuMemoryRange *range, int fd_take,
                  VuMemory **ret_memory)
{
    g_auto(AutoFd) fd = fd_take;
    g_autoptr(VuMemory) table = NULL;
    VuMapping *mapping = NULL;
    size_t at = 0;

    int result = check_range(memory, range);
    if (result < 0) {
        return result;
    }
    result = vu_mapping_new(fd, range->mmap_offset, range->size, &mapping);
    if (result < 0) {
        return result;
    }
    table = memory_alloc(memory->n + 1);
    if (table == NULL) {
        vu_mapping_unref(mapping);
        return -ENOMEM;
    }
    while (at < memory->n && memory->regions[at].range.gpa < range->gpa) {
        at++;
    }
    copy_regions(table->regions, memory->regions, at);
    table->regions[at] = (Region){
        .range = *range,
        .host = vu_mapping_host(mapping),
        .mapping = mapping,
    };
    copy_regions(table->regions + at + 1, memory->regions + at, memory->n - at);
    *ret_memory = g_steal_pointer(&table);
    return 0;
}

int vu_memory_remove(const VuMemory *memory, const VuMemoryRange *range,
                     VuMemory **ret_memory)
{
    for (size_t i = 0; i < memory->n; i++) {
        if (!vu_memory_is_same(&memory->regions[i].range, range)) {
            continue;
        }
        VuMemory *table = memory_alloc(memory->n - 1);
        if (table == NULL) {
            return -ENOMEM;
        }
        copy_regions(table->regions, memory->regions, i);
        copy_regions(table->regions + i, memory->regions + i + 1, table->n - i);
        *ret_memory = table;
        return 0;
    }
    return -ENOENT;
}

size_t vu_memory_count(const VuMemory *memory)
{
    return memory->n;
}

/* ---- translation ------------------------------------------------------------------- */

static bool holds(const Region *region, uint64_t gpa)
{
    return gpa >= region->range.gpa && gpa - region->range.gpa < region->range.size;
}

static const Region *find_gpa(const VuMemory *memory, uint64_t gpa)
{
    size_t low = 0;
    size_t high = memory->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (memory->regions[middle].range.gpa <= gpa) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == 0 || !holds(&memory->regions[low - 1], gpa)) {
        return NULL;
    }
    return &memory->regions[low - 1];
}

bool vu_memory_window(const VuMemory *memory, uint64_t gpa, VuMemoryWindow *ret_window)
{
    const Region *region = find_gpa(memory, gpa);

    if (region == NULL) {
        return false;
    }
    *ret_window = (VuMemoryWindow){region->range.gpa, region->range.size, region->host};
    return true;
}

static bool is_in(const VuMemoryWindow *window, const uint8_t *host)
{
    return (uintptr_t)host - (uintptr_t)window->host < window->size;
}

bool vu_memory_window_at(const VuMemory *memory, const uint8_t *host,
                         VuMemoryWindow *ret_window)
{
    for (size_t i = 0; i < memory->n && !is_in(ret_window, host); i++) {
        const Region *region = &memory->regions[i];
        *ret_window =
            (VuMemoryWindow){region->range.gpa, region->range.size, region->host};
    }
    return is_in(ret_window, host);
}

void *vu_memory_at_gpa(const VuMemory *memory, uint64_t gpa, uint64_t *length)
{
    VuMemoryWindow window;

    if (*length == 0 || !vu_memory_window(memory, gpa, &window)) {
        return NULL;
    }
    uint64_t offset = gpa - window.gpa;
    *length = MIN(*length, window.size - offset);
    return window.host + offset;
}

void *vu_memory_at_uva(const VuMemory *memory, uint64_t uva, uint64_t length)
{
    for (size_t i = 0; i < memory->n; i++) {
        const Region *region = &memory->regions[i];
        uint64_t offset = uva - region->range.uva;
        if (uva >= region->range.uva && offset < region->range.size &&
            length <= region->range.size - offset) {
            return region->host + offset;
        }
    }
    return NULL;
}
