/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SUPPORT_GUEST_MEMORY_H
#define TESTS_SUPPORT_GUEST_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A guest's memory as a VMM lays it out: regions of memfd, each at a guest-physical
 * address (gpa) and at an address in the VMM (uva). Neither equals the other, nor the
 * address at which this process maps the region, so that a device which confuses two of
 * them is found out.
 */

/** Most regions that a memory holds, those taken away again included. */
#define GUEST_MEMORY_MAX_REGIONS 1024

typedef struct GuestMemory GuestMemory;

/** struct GuestRegion - one piece of guest memory, as SET_MEM_TABLE describes it. */
typedef struct GuestRegion {
    uint64_t gpa;
    uint64_t size; /* 0: taken away */
    uint64_t uva;
    uint64_t offset; /* into @fd */
    int fd;          /* borrowed from the memory */
    uint8_t *host;   /* where this process maps it */
} GuestRegion;

/** struct GuestMemoryLayout - what guest_memory_new() makes. */
typedef struct GuestMemoryLayout {
    unsigned int n_regions; /* more than one: the first is 640 KiB, as on a PC */
    size_t size;            /* of all regions together */
    bool separate_files;    /* a memfd for each region, not one for all */
} GuestMemoryLayout;

/** guest_memory_new() - Return: the memory, or NULL with errno set. */
GuestMemory *guest_memory_new(const GuestMemoryLayout *layout);
void guest_memory_free(GuestMemory *memory);

unsigned int guest_memory_n_regions(const GuestMemory *memory);
/** guest_memory_region() - Return: region @index, borrowed; its size is 0 if removed. */
const GuestRegion *guest_memory_region(const GuestMemory *memory, unsigned int index);

/**
 * guest_memory_add() - plug in a region with a file of its own, above all others.
 *
 * Context: no other thread may plug at the same time; translations may go on.
 * Return: the region's index, or negative errno.
 */
int guest_memory_add(GuestMemory *memory, size_t size);
/** guest_memory_remove() - unmap a region; nobody may use its addresses any more. */
void guest_memory_remove(GuestMemory *memory, unsigned int index);

/**
 * guest_memory_alloc() - take zeroed bytes that lie in one region, for ever.
 * @align: power of two.
 *
 * Context: one thread at a time.
 * Return: this process's address, or NULL if no region has so much room left.
 */
void *guest_memory_alloc(GuestMemory *memory, size_t size, size_t align);
/** guest_memory_alloc_in() - the same, from region @index. */
void *guest_memory_alloc_in(GuestMemory *memory, unsigned int index, size_t size,
                            size_t align);

/** guest_memory_gpa() - Return: the guest's address of ours, or UINT64_MAX. */
uint64_t guest_memory_gpa(const GuestMemory *memory, const void *host);
/** guest_memory_uva() - Return: the VMM's address of ours, or UINT64_MAX. */
uint64_t guest_memory_uva(const GuestMemory *memory, const void *host);
/** guest_memory_host() - Return: our address of @size bytes at @gpa, or NULL. */
void *guest_memory_host(const GuestMemory *memory, uint64_t gpa, size_t size);

#endif
