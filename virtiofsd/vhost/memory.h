/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_VHOST_MEMORY_H
#define VIRTIOFSD_VHOST_MEMORY_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Guest memory: an immutable table of mapped regions, swapped as a whole when the VMM
 * adds or removes one. A table is referenced by each ring and by each request in flight,
 * so a region is unmapped only when its last user is done.
 */

/** Most regions, and what GET_MAX_MEM_SLOTS answers. */
#define VU_MEMORY_MAX_REGIONS 509

typedef struct VuMemory VuMemory;

/** struct VuMemoryRange - a region as the VMM describes it; all in bytes. */
typedef struct VuMemoryRange {
    uint64_t gpa; /* guest physical address of its first byte */
    uint64_t size;
    uint64_t uva;         /* the VMM's own address of it; ring addresses are in these */
    uint64_t mmap_offset; /* where it begins in the descriptor */
} VuMemoryRange;

/** vu_memory_is_same() - Return: whether two ranges are one region, wherever it begins in
 * its descriptor: the message that removes it does not tell. */
static inline bool vu_memory_is_same(const VuMemoryRange *a, const VuMemoryRange *b)
{
    return a->gpa == b->gpa && a->uva == b->uva && a->size == b->size;
}

/** vu_memory_new() - Return: a table without regions, reference count 1, or NULL. */
VuMemory *vu_memory_new(void);
VuMemory *vu_memory_ref(VuMemory *memory);
/** vu_memory_unref() - drop a reference; the last one unmaps what no other table shares.
 */
void vu_memory_unref(VuMemory *memory);

/**
 * vu_memory_add() - a copy of the table with one more region mapped.
 * @fd_take: descriptor of the region's memory; owned now, closed once it is mapped.
 * @ret_memory: the new table, reference count 1.
 *
 * The mapping is excluded from core dumps, not populated and not accounted. When the VMM
 * shrinks the memory later, what is missing reads as zeros (see guard.h).
 * Return: 0; -EINVAL for size 0 or wrap-around, a descriptor that is no regular file
 * (memfd, tmpfs, hugetlbfs, a disk's file) or is smaller than the range, or on FUSE,
 * where a page fault is at the mercy of whoever serves it; -EEXIST if it overlaps a
 * region in either address space; -ENOSPC for too many regions; or mmap's errno.
 * Context: the control thread only.
 */
int vu_memory_add(const VuMemory *memory, const VuMemoryRange *range, int fd_take,
                  VuMemory **ret_memory);

/**
 * vu_memory_remove() - a copy of the table without the region of this gpa, uva and size.
 *
 * Return: 0, -ENOENT when there is none such, or -ENOMEM.
 */
int vu_memory_remove(const VuMemory *memory, const VuMemoryRange *range,
                     VuMemory **ret_memory);

/** struct VuMemoryWindow - a region as it is mapped here. */
typedef struct VuMemoryWindow {
    uint64_t gpa;
    uint64_t size;
    uint8_t *host; /* valid while the table is referenced */
} VuMemoryWindow;

/** vu_memory_window() - the region that @gpa is in. Return: whether there is one.
 * Context: any thread holding a reference. */
bool vu_memory_window(const VuMemory *memory, uint64_t gpa, VuMemoryWindow *ret_window);

/** vu_memory_window_at() - the region that our own address @host is in; @ret_window: in:
 * of another address, or all 0: it is tried first. Return: whether there is one. */
bool vu_memory_window_at(const VuMemory *memory, const uint8_t *host,
                         VuMemoryWindow *ret_window);

/**
 * vu_memory_at_gpa() - host address of guest physical memory.
 * @length: in: bytes wanted; out: how many are contiguous there, at least 1.
 *
 * Return: the host address, valid while the table is referenced, or NULL if @gpa is in no
 * region or no byte is wanted. Context: any thread holding a reference.
 */
void *vu_memory_at_gpa(const VuMemory *memory, uint64_t gpa, uint64_t *length);

/** vu_memory_at_uva() - the same for an address in the VMM's own address space; all of
 * @length must lie in one region, else NULL. */
void *vu_memory_at_uva(const VuMemory *memory, uint64_t uva, uint64_t length);

/** vu_memory_count() - Return: how many regions the table has. */
size_t vu_memory_count(const VuMemory *memory);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VuMemory, vu_memory_unref)

#endif
