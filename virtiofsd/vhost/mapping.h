/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_VHOST_MAPPING_H
#define VIRTIOFSD_VHOST_MAPPING_H

#include <stdint.h>

/*
 * A part of a file of the VMM's, mapped and guarded (see guard.h): a region of guest
 * memory, or the dirty log.
 */

typedef struct VuMapping VuMapping;

/**
 * vu_mapping_new() - map @size bytes of @fd, from @offset on.
 * @ret_mapping: the mapping, reference count 1.
 *
 * It is excluded from core dumps, not populated and not accounted. When the VMM shrinks
 * the file later, what is missing reads as zeros.
 * Return: 0; -EINVAL for size 0 or wrap-around, a descriptor that is no regular file
 * (memfd, tmpfs, hugetlbfs, a disk's file) or is smaller than the range, or on FUSE,
 * where a page fault is at the mercy of whoever serves it; or mmap's errno.
 * Context: the control thread only.
 */
int vu_mapping_new(int fd, uint64_t offset, uint64_t size, VuMapping **ret_mapping);
VuMapping *vu_mapping_ref(VuMapping *mapping);
/** vu_mapping_unref() - drop a reference; the last one unmaps it. NULL is NULL. */
void vu_mapping_unref(VuMapping *mapping);

/** vu_mapping_host() - Return: where the first of its bytes is mapped. */
uint8_t *vu_mapping_host(const VuMapping *mapping);

#endif
