/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_VHOST_PACKED_H
#define TESTS_UNIT_VHOST_PACKED_H

#include "tests/unit/vhost-guest.h"

/*
 * The same guest with a packed ring. The driver's event area is where a split ring has
 * its avail ring, the device's where it has the used ring. GuestDesc.next is the id.
 */

#define PACKED_WRAP 0x8000u
#define PACKED_AVAIL (1u << VRING_PACKED_DESC_F_AVAIL)
#define PACKED_USED (1u << VRING_PACKED_DESC_F_USED)

static inline void packed_init(Guest *guest)
{
    guest->packed = true;
    guest->offered = guest->reaped = PACKED_WRAP;
}

static inline uint16_t packed_step(const Guest *guest, uint16_t position, uint32_t n)
{
    uint32_t place = (position & (PACKED_WRAP - 1)) + n;
    uint32_t wrap = position & PACKED_WRAP;

    return (uint16_t)(place < guest->queue_size
                          ? place | wrap
                          : (place - guest->queue_size) | (wrap ^ PACKED_WRAP));
}

static inline uint32_t packed_at(uint16_t position)
{
    return GUEST_DESC + 16 * (position & (PACKED_WRAP - 1u));
}

/* Flags by which the guest offers what is at @position. */
static inline uint16_t packed_offers(uint16_t position)
{
    return (position & PACKED_WRAP) != 0 ? PACKED_AVAIL : PACKED_USED;
}

/* All but the flags. */
static inline void packed_desc(Guest *guest, uint16_t position, GuestDesc desc)
{
    uint8_t *at = guest->memory + packed_at(position);

    __atomic_store_n((uint64_t *)(void *)at, desc.gpa, __ATOMIC_RELAXED);
    __atomic_store_n((uint32_t *)(void *)(at + 8), desc.length, __ATOMIC_RELAXED);
    __atomic_store_n((uint16_t *)(void *)(at + 12), desc.next, __ATOMIC_RELAXED);
}

static inline void packed_flags(Guest *guest, uint16_t position, uint16_t flags)
{
    guest_store16(guest, packed_at(position) + 14, flags);
}

/* Offer a chain as it is; the first descriptor's flags come last. */
static inline void packed_offer(Guest *guest, const GuestDesc *descs, uint32_t n)
{
    uint16_t position = guest->offered;

    for (uint32_t i = 0; i < n; i++) {
        packed_desc(guest, position, descs[i]);
        if (i > 0) {
            packed_flags(guest, position, descs[i].flags | packed_offers(position));
        }
        position = packed_step(guest, position, 1);
    }
    packed_flags(guest, guest->offered, descs[0].flags | packed_offers(guest->offered));
    guest->offered = position;
}

/* What is told at the next place, where a chain of @n places has been given back.
 * Return: whether there is anything. */
static inline gboolean packed_reap(Guest *guest, uint32_t n, uint32_t *ret_id,
                                   uint32_t *ret_length)
{
    uint32_t at = packed_at(guest->reaped);
    uint16_t wrap = (guest->reaped & PACKED_WRAP) != 0 ? PACKED_AVAIL | PACKED_USED : 0;
    uint16_t flags = guest_load16(guest, at + 14);

    if ((flags & (PACKED_AVAIL | PACKED_USED)) != wrap) {
        return FALSE;
    }
    *ret_id = guest_load16(guest, at + 12);
    *ret_length = guest_load32(guest, at + 8);
    g_assert_cmpuint(flags & ~wrap, ==, *ret_length > 0 ? VRING_DESC_F_WRITE : 0);
    guest->reaped = packed_step(guest, guest->reaped, n);
    return TRUE;
}

/* When the guest wants an interrupt: VRING_PACKED_EVENT_FLAG_*. */
static inline void packed_set_driver_event(Guest *guest, uint16_t position,
                                           uint16_t flags)
{
    guest_store16(guest, GUEST_AVAIL, position);
    guest_store16(guest, GUEST_AVAIL + 2, flags);
}

/* When the device wants a kick: the position, and above it the flags. */
static inline uint32_t packed_device_event(Guest *guest)
{
    return guest_load32(guest, GUEST_USED);
}

#endif
