/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_FUSE_ABI_STATX_H
#define VIRTIOFSD_FUSE_ABI_STATX_H

#include <stdint.h>

/*
 * STATX (7.39), which the host's <linux/fuse.h> may lack. Others include abi.h.
 */

/** struct abi_statx_in - what is asked for. */
struct abi_statx_in {
    uint32_t getattr_flags;
    uint32_t reserved;
    uint64_t fh;
    uint32_t sx_flags;
    uint32_t sx_mask;
};

/** struct abi_sx_time - a point in time. */
struct abi_sx_time {
    int64_t tv_sec;
    uint32_t tv_nsec;
    int32_t reserved;
};

/** struct abi_statx - what is known. */
struct abi_statx {
    uint32_t mask;
    uint32_t blksize;
    uint64_t attributes;
    uint32_t nlink;
    uint32_t uid;
    uint32_t gid;
    uint16_t mode;
    uint16_t spare0;
    uint64_t ino;
    uint64_t size;
    uint64_t blocks;
    uint64_t attributes_mask;
    struct abi_sx_time atime;
    struct abi_sx_time btime;
    struct abi_sx_time ctime;
    struct abi_sx_time mtime;
    uint32_t rdev_major;
    uint32_t rdev_minor;
    uint32_t dev_major;
    uint32_t dev_minor;
    uint64_t spare2[14];
};

/** struct abi_statx_out - the reply. */
struct abi_statx_out {
    uint64_t attr_valid;
    uint32_t attr_valid_nsec;
    uint32_t flags;
    uint64_t spare[2];
    struct abi_statx stat;
};

_Static_assert(sizeof(struct abi_statx_in) == 24, "FUSE ABI");
_Static_assert(sizeof(struct abi_statx) == 256, "FUSE ABI");
_Static_assert(sizeof(struct abi_statx_out) == 288, "FUSE ABI");

#endif
