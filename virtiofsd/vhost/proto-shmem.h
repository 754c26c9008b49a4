/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_VHOST_PROTO_SHMEM_H
#define VIRTIOFSD_VHOST_PROTO_SHMEM_H

#include <stdint.h>

/*
 * vhost-user on the wire: shared memory regions, and our own requests on the back-end's
 * channel that map files there (QEMU, docs/interop/vhost-user.rst, "Shared memory").
 */

/** Largest number of shared memory regions of a device. */
#define VU_SHMEM_MAX 256
/** The region that is the DAX window (Virtio 1.2, 5.11.5). */
#define VU_SHMEM_WINDOW 0

/**
 * enum vu_backend_number - requests of ours.
 *
 * FS_MAP and FS_UNMAP are of the time before there was a standard. Their numbers have
 * been given to other requests since.
 */
enum vu_backend_number {
    VU_BACKEND_FS_MAP = 6,
    VU_BACKEND_FS_UNMAP = 7,
    VU_BACKEND_SHMEM_MAP = 9,
    VU_BACKEND_SHMEM_UNMAP = 10,
};

/** Flag of SHMEM_MAP: the guest may write. */
#define VU_SHMEM_WRITABLE 1u
/** Flags of FS_MAP: the guest may read, and may write. */
#define VU_FS_READABLE 1u
#define VU_FS_WRITABLE 2u
/** Entries of FS_MAP and FS_UNMAP; in the first layout one of length 0 is none. */
#define VU_FS_ENTRIES 8

struct vu_shmem_config {
    uint32_t count; /* of sizes that are not 0 */
    uint32_t padding;
    uint64_t sizes[VU_SHMEM_MAX];
};

struct vu_shmem_map {
    uint8_t id;
    uint8_t padding[7];
    uint64_t file_offset;
    uint64_t offset; /* in the region */
    uint64_t length;
    uint64_t flags;
};

/* FS_MAP and FS_UNMAP in their first layout: entry i is the i-th of each. */
struct vu_fs_arrays {
    uint64_t file_offset[VU_FS_ENTRIES];
    uint64_t offset[VU_FS_ENTRIES];
    uint64_t length[VU_FS_ENTRIES];
    uint64_t flags[VU_FS_ENTRIES];
};

struct vu_fs_entry {
    uint64_t file_offset;
    uint64_t offset;
    uint64_t length;
    uint64_t flags;
};

/* The same in the later one: as many entries as there are. Ours is one. */
struct vu_fs_entries {
    uint32_t flags;
    uint16_t count;
    uint16_t padding;
    struct vu_fs_entry entries[1];
};

/* The payload of a request of ours. */
union vu_backend_payload {
    struct vu_shmem_map shmem;
    struct vu_fs_arrays arrays;
    struct vu_fs_entries entries;
};

_Static_assert(sizeof(struct vu_shmem_config) == 2056, "shared memory regions");
_Static_assert(sizeof(struct vu_shmem_map) == 40, "map and unmap");
_Static_assert(sizeof(struct vu_fs_arrays) == 256, "map and unmap, arrays");
_Static_assert(sizeof(struct vu_fs_entries) == 40, "map and unmap, entries");

#endif
