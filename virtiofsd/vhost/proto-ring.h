/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_VHOST_PROTO_RING_H
#define VIRTIOFSD_VHOST_PROTO_RING_H

#include <stddef.h>
#include <stdint.h>

/*
 * What messages about one ring carry; a part of proto.h.
 */

/* Payload of SET_VRING_KICK, CALL and ERR. */
#define VU_VRING_INDEX_MASK 0xffull
#define VU_VRING_NOFD (1ull << 8)

/* Flags of a ring's addresses. */
#define VU_VRING_F_LOG 1u /* the used ring is dirty-logged */

struct vu_vring_state {
    uint32_t index;
    uint32_t num;
};

struct vu_vring_addr {
    uint32_t index;
    uint32_t flags;
    uint64_t desc; /* this and the next two in the VMM's address space */
    uint64_t used;
    uint64_t avail;
    uint64_t log; /* guest physical address of the used ring, for the log */
};

_Static_assert(sizeof(struct vu_vring_state) == 8, "vring state");
_Static_assert(sizeof(struct vu_vring_addr) == 40, "vring addresses");
_Static_assert(offsetof(struct vu_vring_addr, avail) == 24, "desc, used, avail");

#endif
