/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parts of files, mapped. The VMM chooses descriptor, offset and size, so all three are
 * checked; that the file is not made smaller later cannot be checked, and is the guard's
 * business.
 */
#include "virtiofsd/vhost/mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "virtiofsd/vhost/guard.h"

#ifndef FUSE_SUPER_MAGIC /* <linux/magic.h> has it since Linux 5.14 */
#define FUSE_SUPER_MAGIC 0x65735546
#endif

struct VuMapping {
    _Atomic unsigned int refs;
    int guard_slot;
    void *base;
    size_t length;
    size_t lead; /* bytes before the first one that was asked for, to a page's start */
};

/* May @fd back so many bytes? Also finds the unit in which it can be mapped. */
static int check_descriptor(int fd, uint64_t end, uint64_t *ret_granule)
{
    struct statx st;
    struct statfs fs;

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

static int map(VuMapping *mapping, int fd, off_t start, size_t granule)
{
    size_t length = mapping->length;
    void *base =
        mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, start);

    if (base == MAP_FAILED) {
        return -errno;
    }
    int result = madvise(base, length, MADV_DONTDUMP) < 0
                     ? -errno
                     : vu_guard_add(base, length, granule);
    if (result < 0) {
        (void)munmap(base, length); /* as it was mapped: cannot fail */
        return result;
    }
    mapping->guard_slot = result;
    mapping->base = base;
    return 0;
}

/* Map from the page in which the range begins to the one in which it ends. */
int vu_mapping_new(int fd, uint64_t offset, uint64_t size, VuMapping **ret_mapping)
{
    uint64_t granule = 1;
    uint64_t end;

    if (size == 0 || __builtin_add_overflow(offset, size, &end) || end > INT64_MAX) {
        return -EINVAL;
    }
    int result = check_descriptor(fd, end, &granule);
    if (result < 0) {
        return result;
    }
    uint64_t start = offset - offset % granule;
    uint64_t length = (end - start + granule - 1) / granule * granule;
    if (length > PTRDIFF_MAX) {
        return -EINVAL;
    }
    VuMapping *mapping = calloc(1, sizeof(*mapping));
    if (mapping == NULL) {
        return -ENOMEM;
    }
    mapping->refs = 1;
    mapping->length = (size_t)length;
    mapping->lead = (size_t)(offset - start);
    result = map(mapping, fd, (off_t)start, (size_t)granule);
    if (result < 0) {
        free(mapping);
        return result;
    }
    *ret_mapping = mapping;
    return 0;
}

VuMapping *vu_mapping_ref(VuMapping *mapping)
{
    atomic_fetch_add_explicit(&mapping->refs, 1, memory_order_relaxed);
    return mapping;
}

void vu_mapping_unref(VuMapping *mapping)
{
    if (mapping != NULL && atomic_fetch_sub(&mapping->refs, 1) == 1) {
        vu_guard_remove(mapping->guard_slot);
        /* Base and length are as mmap() gave them, so this cannot fail. */
        (void)munmap(mapping->base, mapping->length);
        free(mapping);
    }
}

uint8_t *vu_mapping_host(const VuMapping *mapping)
{
    return (uint8_t *)mapping->base + mapping->lead;
}
