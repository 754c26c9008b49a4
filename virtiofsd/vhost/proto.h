/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_VHOST_PROTO_H
#define VIRTIOFSD_VHOST_PROTO_H

#include <stddef.h>
#include <stdint.h>

#include "virtiofsd/vhost/proto-ring.h"
#include "virtiofsd/vhost/proto-shmem.h"

/*
 * vhost-user on the wire (QEMU, docs/interop/vhost-user.rst): what the VMM may send us
 * and what we answer. Native byte order; everything here is untrusted when received.
 */

/** Most regions in one SET_MEM_TABLE: QEMU sends 8, Cloud Hypervisor up to 32. */
#define VU_MEM_TABLE_MAX 32
/** Largest number of descriptors beside one message: one for each of these. */
#define VU_MAX_FDS VU_MEM_TABLE_MAX
#define VU_CONFIG_MAX 256 /* bytes of configuration space that GET_CONFIG may ask for */

/* Header flags. */
#define VU_FLAG_VERSION_MASK 0x3u
#define VU_FLAG_VERSION 0x1u
#define VU_FLAG_REPLY 0x4u
#define VU_FLAG_NEED_REPLY 0x8u

/** enum vu_request - messages of the front-end that we know. */
enum vu_request {
    VU_GET_FEATURES = 1,
    VU_SET_FEATURES = 2,
    VU_SET_OWNER = 3,
    VU_RESET_OWNER = 4,
    VU_SET_MEM_TABLE = 5,
    VU_SET_LOG_BASE = 6,
    VU_SET_LOG_FD = 7,
    VU_SET_VRING_NUM = 8,
    VU_SET_VRING_ADDR = 9,
    VU_SET_VRING_BASE = 10,
    VU_GET_VRING_BASE = 11,
    VU_SET_VRING_KICK = 12,
    VU_SET_VRING_CALL = 13,
    VU_SET_VRING_ERR = 14,
    VU_GET_PROTOCOL_FEATURES = 15,
    VU_SET_PROTOCOL_FEATURES = 16,
    VU_GET_QUEUE_NUM = 17,
    VU_SET_VRING_ENABLE = 18,
    VU_SET_BACKEND_REQ_FD = 21,
    VU_GET_CONFIG = 24,
    VU_SET_CONFIG = 25,
    VU_RESET_DEVICE = 34,
    VU_GET_MAX_MEM_SLOTS = 36,
    VU_ADD_MEM_REG = 37,
    VU_REM_MEM_REG = 38,
    VU_GET_SHMEM_CONFIG = 44,
    VU_REQUEST_COUNT,
};

/* Bits of the virtio feature word. The first two belong to vhost-user itself. */
#define VU_F_PROTOCOL_FEATURES (1ull << 30)
#define VU_F_LOG_ALL (1ull << 26)
#define VU_F_INDIRECT_DESC (1ull << 28)
#define VU_F_EVENT_IDX (1ull << 29)
#define VU_F_VERSION_1 (1ull << 32)
#define VU_F_RING_PACKED (1ull << 34)

/* Bits of the protocol feature word. */
#define VU_PROTOCOL_F_MQ (1ull << 0)
#define VU_PROTOCOL_F_LOG_SHMFD (1ull << 1)
#define VU_PROTOCOL_F_REPLY_ACK (1ull << 3)
#define VU_PROTOCOL_F_BACKEND_REQ (1ull << 5)
#define VU_PROTOCOL_F_CONFIG (1ull << 9)
#define VU_PROTOCOL_F_BACKEND_SEND_FD (1ull << 10)
#define VU_PROTOCOL_F_RESET_DEVICE (1ull << 13)
#define VU_PROTOCOL_F_CONFIGURE_MEM_SLOTS (1ull << 15)
#define VU_PROTOCOL_F_SHMEM (1ull << 22)

struct vu_msg_header {
    uint32_t request;
    uint32_t flags;
    uint32_t size; /* of the payload, in bytes */
};

struct vu_mem_region {
    uint64_t gpa;
    uint64_t size;
    uint64_t uva;
    uint64_t mmap_offset;
};

struct vu_mem_table {
    uint32_t count;
    uint32_t padding;
    struct vu_mem_region regions[VU_MEM_TABLE_MAX];
};

struct vu_mem_single {
    uint64_t padding;
    struct vu_mem_region region;
};

struct vu_log {
    uint64_t mmap_size;
    uint64_t mmap_offset;
};

struct vu_config {
    uint32_t offset;
    uint32_t size;
    uint32_t flags;
    uint8_t bytes[VU_CONFIG_MAX];
};

union vu_payload {
    uint64_t u64;
    struct vu_vring_state state;
    struct vu_vring_addr addr;
    struct vu_mem_table table;
    struct vu_mem_single single;
    struct vu_log log;
    struct vu_config config;
    struct vu_shmem_config shmem; /* is only sent */
};
/** The largest payload that we receive. */
#define VU_PAYLOAD_MAX sizeof(struct vu_mem_table)

/* The device's configuration space (Virtio 1.2, 5.11.4); little-endian. */
struct vu_fs_config {
    char tag[36];
    uint32_t num_request_queues;
};

_Static_assert(sizeof(struct vu_msg_header) == 12, "vhost-user header");
_Static_assert(sizeof(struct vu_mem_region) == 32, "memory region");
_Static_assert(sizeof(struct vu_mem_table) == 8 + 32 * VU_MEM_TABLE_MAX, "memory table");
_Static_assert(sizeof(struct vu_mem_single) == 40, "single memory region");
_Static_assert(sizeof(struct vu_log) == 16, "dirty log");
_Static_assert(sizeof(struct vu_config) == 12 + VU_CONFIG_MAX, "config message");
_Static_assert(sizeof(struct vu_fs_config) == 40, "virtio-fs configuration space");

#endif
