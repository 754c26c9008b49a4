/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory. A table is never changed once it is seen by a second thread: the control
 * thread copies it with one region more or less, and the rings are given the copy.
 * Tables share mappings by count. Regions are sorted by guest physical address; look-ups
 * in the VMM's address space are rare (ring addresses) and linear.
 */
#include "virtiofsd/vhost/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "virtiofsd/autofd.h"
#include "virtiofsd/vhost/guard.h"

#ifndef FUSE_SUPER_MAGIC /* <linux/magic.h> has it since Linux 5.14 */
#define FUSE_SUPER_MAGIC 0x65735546
#endif

#define CACHE_LINE 64

typedef struct Mapping {
    _Atomic unsigned int refs;
    int guard_slot;
    void *base;
    size_t length;
    size_t lead; /* bytes before the region's first one, to reach a page's start */
} Mapping;

typedef struct Region {
    VuMemoryRange range;
    uint8_t *host; /* of the region's first byte */
    Mapping *mapping;
} Region;

struct VuMemory {
    /* Alone in its cache line: it is written for every request, the rest only read. */
    alignas(CACHE_LINE) _Atomic unsigned int refs;
    alignas(CACHE_LINE) size_t n;
    Region regions[];
};

/* ---- mappings ---------------------------------------------------------------------- */

static Mapping *mapping_ref(Mapping *mapping)
{
    atomic_fetch_add_explicit(&mapping->refs, 1, memory_order_relaxed);
    return mapping;
}

static void mapping_unref(Mapping *mapping)
{
    if (atomic_fetch_sub(&mapping->refs, 1) == 1) {
        vu_guard_remove(mapping->guard_slot);
        /* Base and length are as mmap() gave them, so this cannot fail. */
        (void)munmap(mapping->base, mapping->length);
        free(mapping);
    }
}

/* May @fd back the range? Also finds the unit in which it can be mapped. */
static int check_descriptor(int fd, const VuMemoryRange *range, uint64_t *ret_granule)
{
    struct statx st;
    struct statfs fs;
    uint64_t end = range->mmap_offset + range->size; /* checked not to wrap */

    if (statx(fd, "", AT_EMPTY_PATH, STATX_TYPE | STATX_SIZE, &st) < 0 ||
        fstatfs(fd, &fs) < 0) {
        return -errno;
    }
    if (!S_ISREG(st.stx_mode) || st.stx_size < end) {
        return -EINVAL;
    }
    if (fs.f_type == FUSE_SUPER_MAGIC) {
        return -EINVAL;
    }
    *ret_granule =
        (uint64_t)(fs.f_type == HUGETLBFS_MAGIC ? fs.f_bsize : sysconf(_SC_PAGESIZE));
    return 0;
}

/* Map from the page in which the range begins to the one in which it ends. */
static int mapping_new(int fd, const VuMemoryRange *range, Mapping **ret_mapping)
{
    uint64_t granule = 1;
    int result = check_descriptor(fd, range, &granule);

    if (result < 0) {
        return result;
    }
    uint64_t start = range->mmap_offset - range->mmap_offset % granule;
    uint64_t end = range->mmap_offset + range->size;
    uint64_t length = (end - start + granule - 1) / granule * granule;
    if (length > PTRDIFF_MAX) {
        return -EINVAL;
    }
    Mapping *mapping = calloc(1, sizeof(*mapping));
    if (mapping == NULL) {
        return -ENOMEM;
    }
    void *base = mmap(NULL, (size_t)length, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_NORESERVE, fd, (off_t)start);
    if (base == MAP_FAILED) {
        result = -errno;
        goto fail_mapping;
    }
    if (madvise(base, (size_t)length, MADV_DONTDUMP) < 0) {
        result = -errno;
        goto fail_map;
    }
    result = vu_guard_add(base, (size_t)length, (size_t)granule);
    if (result < 0) {
        goto fail_map;
    }
    mapping->refs = 1;
    mapping->guard_slot = result;
    mapping->base = base;
    mapping->length = (size_t)length;
    mapping->lead = (size_t)(range->mmap_offset - start);
    *ret_mapping = mapping;
    return 0;

fail_map:
    (void)munmap(base, (size_t)length); /* as it was mapped: cannot fail */
fail_mapping:
    free(mapping);
    return result;
}

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
        mapping_unref(memory->regions[i].mapping);
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
        __builtin_add_overflow(range->uva, range->size, &end) ||
        __builtin_add_overflow(range->mmap_offset, range->size, &end) ||
        end > INT64_MAX) {
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
        mapping_ref(to[i].mapping);
    }
}

int vu_memory_add(const VuMemory *memory, const VuMemoryRange *range, int fd_take,
                  VuMemory **ret_memory)
{
    g_auto(AutoFd) fd = fd_take;
    g_autoptr(VuMemory) table = NULL;
    Mapping *mapping = NULL;
    size_t at = 0;

    int result = check_range(memory, range);
    if (result < 0) {
        return result;
    }
    result = mapping_new(fd, range, &mapping);
    if (result < 0) {
        return result;
    }
    table = memory_alloc(memory->n + 1);
    if (table == NULL) {
        mapping_unref(mapping);
        return -ENOMEM;
    }
    while (at < memory->n && memory->regions[at].range.gpa < range->gpa) {
        at++;
    }
    copy_regions(table->regions, memory->regions, at);
    table->regions[at] = (Region){
        .range = *range,
        .host = (uint8_t *)mapping->base + mapping->lead,
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
