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

/** enum vu_backend_number - requests of ours. */
enum vu_backend_number {
    VU_BACKEND_SHMEM_MAP = 9,
    VU_BACKEND_SHMEM_UNMAP = 10,
};

/** Flag of SHMEM_MAP: the guest may write. */
#define VU_SHMEM_WRITABLE 1u

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

_Static_assert(sizeof(struct vu_shmem_config) == 2056, "shared memory regions");
_Static_assert(sizeof(struct vu_shmem_map) == 40, "map and unmap");

#endif
