/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory: a table of mapped memfd regions and a bump allocator in each of them.
 *
 * The table has a fixed place for every region there will ever be and its count only
 * grows, so that threads may translate addresses while another one plugs in a region.
 */
#include "tests/support/guest-memory.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096u
#define PC_LOW_MEMORY 0xa0000u
#define PC_HIGH_MEMORY 0x100000u
/* Addresses in the VMM that no process of ours has, another distance for each region. */
#define UVA_BASE 0x600000000000u
#define UVA_STEP_SHIFT 36
/* Empty space between regions, so that running over an end is noticed. */
#define GAP 0x40000000u

struct GuestMemory {
    GuestRegion regions[GUEST_MEMORY_MAX_REGIONS];
    size_t taken[GUEST_MEMORY_MAX_REGIONS];
    bool owns_fd[GUEST_MEMORY_MAX_REGIONS];
    unsigned int n_regions; /* atomic */
};

static size_t round_up(size_t value, size_t align)
{
    return (value + align - 1) & ~(align - 1);
}

static int new_file(size_t size)
{
    int fd = memfd_create("guest-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd >= 0 && ftruncate(fd, (off_t)size) < 0) {
        int saved = errno;
        (void)close(fd); /* the error of ftruncate is the one that counts */
        errno = saved;
        return -1;
    }
    return fd;
}

/* The lowest guest address for a new region. */
static uint64_t next_gpa(const GuestMemory *memory)
{
    unsigned int n = guest_memory_n_regions(memory);
    if (n == 0) {
        return 0;
    }
    const GuestRegion *last = &memory->regions[n - 1];
    if (n == 1 && last->size <= PC_LOW_MEMORY) {
        return PC_HIGH_MEMORY;
    }
    return round_up(last->gpa + last->size, GAP) + GAP;
}

static int map_region(GuestMemory *memory, int fd, uint64_t offset, size_t size)
{
    unsigned int n = memory->n_regions;
    if (n == GUEST_MEMORY_MAX_REGIONS) {
        return -ENOSPC;
    }
    void *host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
    if (host == MAP_FAILED) {
        return -errno;
    }
    uint64_t gpa = next_gpa(memory);
    memory->regions[n] = (GuestRegion){
        .gpa = gpa,
        .size = size,
        .uva = UVA_BASE + ((uint64_t)(n + 1) << UVA_STEP_SHIFT) + gpa,
        .offset = offset,
        .fd = fd,
        .host = host,
    };
    /* A guest keeps its first page to itself; a null address is never a buffer. */
    memory->taken[n] = n == 0 ? PAGE : 0;
    __atomic_store_n(&memory->n_regions, n + 1, __ATOMIC_RELEASE);
    return (int)n;
}

int guest_memory_add(GuestMemory *memory, size_t size)
{
    size = round_up(size, PAGE);
    int fd = new_file(size);
    if (fd < 0) {
        return -errno;
    }
    int index = map_region(memory, fd, 0, size);
    if (index < 0) {
        (void)close(fd); /* unused */
        return index;
    }
    memory->owns_fd[index] = true;
    return index;
}

static int add_all(GuestMemory *memory, const size_t *sizes, unsigned int n,
                   bool separate)
{
    size_t total = 0;
    for (unsigned int i = 0; i < n; i++) {
        total += sizes[i];
    }
    int fd = separate ? -1 : new_file(total);
    if (!separate && fd < 0) {
        return -errno;
    }
    uint64_t offset = 0;
    for (unsigned int i = 0; i < n; i++) {
        int rc = separate ? guest_memory_add(memory, sizes[i])
                          : map_region(memory, fd, offset, sizes[i]);
        if (rc < 0) {
            return rc;
        }
        offset += sizes[i];
    }
    if (!separate) {
        memory->owns_fd[0] = true;
    }
    return 0;
}

GuestMemory *guest_memory_new(const GuestMemoryLayout *layout)
{
    unsigned int n = layout->n_regions > 0 ? layout->n_regions : 1;
    size_t sizes[64];
    if (n > sizeof(sizes) / sizeof(sizes[0])) {
        errno = EINVAL;
        return NULL;
    }
    size_t size = round_up(layout->size, PAGE);
    if (n == 1) {
        sizes[0] = size;
    } else {
        sizes[0] = PC_LOW_MEMORY;
        for (unsigned int i = 1; i < n; i++) {
            sizes[i] = round_up(size / (n - 1), PAGE);
        }
    }

    GuestMemory *memory = calloc(1, sizeof(*memory));
    if (memory == NULL) {
        return NULL;
    }
    int rc = add_all(memory, sizes, n, layout->separate_files);
    if (rc < 0) {
        guest_memory_free(memory);
        errno = -rc;
        return NULL;
    }
    return memory;
}

void guest_memory_remove(GuestMemory *memory, unsigned int index)
{
    GuestRegion *region = &memory->regions[index];
    if (region->size == 0) {
        return;
    }
    size_t size = region->size;
    __atomic_store_n(&region->size, 0, __ATOMIC_RELEASE);
    (void)munmap(region->host, size); /* cannot fail for our own mapping */
    if (memory->owns_fd[index]) {
        (void)close(region->fd); /* nothing to do about a failure */
    }
    region->fd = -1;
    region->host = NULL;
}

void guest_memory_free(GuestMemory *memory)
{
    if (memory == NULL) {
        return;
    }
    for (unsigned int i = memory->n_regions; i > 0; i--) {
        guest_memory_remove(memory, i - 1);
    }
    free(memory);
}

unsigned int guest_memory_n_regions(const GuestMemory *memory)
{
    return __atomic_load_n(&memory->n_regions, __ATOMIC_ACQUIRE);
}

const GuestRegion *guest_memory_region(const GuestMemory *memory, unsigned int index)
{
    return index < guest_memory_n_regions(memory) ? &memory->regions[index] : NULL;
}

void *guest_memory_alloc_in(GuestMemory *memory, unsigned int index, size_t size,
                            size_t align)
{
    GuestRegion *region = &memory->regions[index];
    size_t start = round_up(memory->taken[index], align);
    if (start > region->size || size > region->size - start) {
        return NULL;
    }
    memory->taken[index] = start + size;
    return region->host + start;
}

void *guest_memory_alloc(GuestMemory *memory, size_t size, size_t align)
{
    for (unsigned int i = 0; i < memory->n_regions; i++) {
        void *host = guest_memory_alloc_in(memory, i, size, align);
        if (host != NULL) {
            return host;
        }
    }
    return NULL;
}

static const GuestRegion *find_host(const GuestMemory *memory, const void *host)
{
    unsigned int n = guest_memory_n_regions(memory);
    for (unsigned int i = 0; i < n; i++) {
        const GuestRegion *region = &memory->regions[i];
        uintptr_t base = (uintptr_t)region->host;
        uint64_t size = __atomic_load_n(&region->size, __ATOMIC_ACQUIRE);
        if ((uintptr_t)host >= base && (uintptr_t)host - base < size) {
            return region;
        }
    }
    return NULL;
}

uint64_t guest_memory_gpa(const GuestMemory *memory, const void *host)
{
    const GuestRegion *region = find_host(memory, host);
    return region == NULL
               ? UINT64_MAX
               : region->gpa + (uint64_t)((const uint8_t *)host - region->host);
}

uint64_t guest_memory_uva(const GuestMemory *memory, const void *host)
{
    const GuestRegion *region = find_host(memory, host);
    return region == NULL
               ? UINT64_MAX
               : region->uva + (uint64_t)((const uint8_t *)host - region->host);
}

void *guest_memory_host(const GuestMemory *memory, uint64_t gpa, size_t size)
{
    unsigned int n = guest_memory_n_regions(memory);
    for (unsigned int i = 0; i < n; i++) {
        const GuestRegion *region = &memory->regions[i];
        uint64_t region_size = __atomic_load_n(&region->size, __ATOMIC_ACQUIRE);
        if (gpa >= region->gpa && gpa - region->gpa < region_size) {
            uint64_t start = gpa - region->gpa;
            return size <= region_size - start ? region->host + start : NULL;
        }
    }
    return NULL;
}
