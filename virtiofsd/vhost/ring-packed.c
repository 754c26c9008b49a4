/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The packed layout (Virtio 1.2, 2.8): one ring of descriptors, in the order in which the
 * guest offers them. A chain lies in consecutive places. Two bits in a descriptor's flags
 * say whose it is; their meaning turns round whenever a side passes the end of the ring,
 * which its wrap counter counts. A chain that is done is told by one descriptor, at the
 * next place behind the one told before, and takes up as many places as the chain had.
 *
 * Copies. Chains end in any order, so what tells of one is written over the descriptors
 * of another that still runs; and the guest, seeing it there, may offer new ones in that
 * place. So each chain is copied when it is taken, under the lock, into a table of our
 * own that has the split layout's form: the walk, and one more after parking, go through
 * the copies. The table has as many entries as the ring. A guest that offers more than
 * that, or a chain that does not end, has broken the ring.
 *
 * The guest knows a chain by the id in its last descriptor. It is given back as it came,
 * and is no index to anything.
 */
#include <errno.h>
#include <stdlib.h>

#include "virtiofsd/vhost/ring-internal.h"

#define WRAP 0x8000u /* of a position */
#define DESC_AVAIL (1u << VRING_PACKED_DESC_F_AVAIL)
#define DESC_USED (1u << VRING_PACKED_DESC_F_USED)
#define EVENT_FLAGS 3u /* the others are reserved */

_Static_assert(sizeof(struct vring_packed_desc) == sizeof(struct vring_desc), "size");
_Static_assert(sizeof(struct vring_packed_desc_event) == 4, "size");

/* ---- positions --------------------------------------------------------------------- */

static uint32_t place_of(uint16_t position)
{
    return position & (WRAP - 1);
}

/* @n: at most the ring's size. */
static uint16_t advance(const VuRing *ring, uint16_t position, uint32_t n)
{
    uint32_t place = place_of(position) + n;
    uint32_t wrap = position & WRAP;

    if (place >= ring->size) {
        place -= ring->size;
        wrap ^= WRAP;
    }
    return (uint16_t)(place | wrap);
}

static int set_base(VuRing *ring, uint32_t base)
{
    ring->next_avail = (uint16_t)base;
    ring->used_index = (uint16_t)(base >> 16);
    return 0;
}

static uint32_t base_of(const VuRing *ring)
{
    return ring->next_avail | (uint32_t)ring->used_index << 16;
}

/* ---- copies ------------------------------------------------------------------------ */

/* All copies are free, and there are as many as the ring has descriptors. */
static int prepare(VuRing *ring)
{
    if (place_of(ring->next_avail) >= ring->size ||
        place_of(ring->used_index) >= ring->size) {
        return -EINVAL;
    }
    free(ring->copies);
    free(ring->chains);
    ring->copies = calloc(ring->size, sizeof(*ring->copies));
    ring->chains = calloc(ring->size, sizeof(*ring->chains));
    ring->n_free = 0;
    if (ring->copies == NULL || ring->chains == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < ring->size; i++) {
        ring->copies[i].next = htole16((uint16_t)(i + 1));
    }
    ring->free_copy = 0;
    ring->n_free = ring->size;
    return 0;
}

static uint16_t next_copy(const VuRing *ring, uint16_t i)
{
    return le16toh(ring->copies[i].next);
}

static void free_copies(VuRing *ring, uint16_t head)
{
    uint16_t last = head;

    for (uint32_t n = 1; n < ring->chains[head].n_places; n++) {
        last = next_copy(ring, last);
    }
    ring->copies[last].next = htole16(ring->free_copy);
    ring->free_copy = head;
    ring->n_free += ring->chains[head].n_places;
}

/* ---- taking ------------------------------------------------------------------------ */

/* The flags of the next descriptor. Return: whether the guest has offered it. */
static bool look(const VuRing *ring, uint16_t *ret_flags)
{
    uint16_t flags = vu_ring_load16(&ring->packed[place_of(ring->next_avail)].flags);
    bool wrap = (ring->next_avail & WRAP) != 0;

    *ret_flags = flags;
    return ((flags & DESC_AVAIL) != 0) == wrap && ((flags & DESC_USED) != 0) != wrap;
}

static bool is_waiting(VuRing *ring, VuFault *fault)
{
    uint16_t flags;

    return look(ring, &flags);
}

/* Copy the descriptor at @position, whose flags were loaded, to @i. Return: its id. */
static uint16_t copy(VuRing *ring, uint16_t i, uint16_t position, uint16_t flags)
{
    const struct vring_packed_desc *from = &ring->packed[place_of(position)];
    struct vring_desc *to = &ring->copies[i];

    to->addr = __atomic_load_n(&from->addr, __ATOMIC_RELAXED);
    to->len = __atomic_load_n(&from->len, __ATOMIC_RELAXED);
    to->flags = htole16(flags);
    return le16toh(__atomic_load_n(&from->id, __ATOMIC_RELAXED));
}

/* The descriptors behind the first are sound once that one is offered: the guest writes
 * its flags last. Free copies are linked already, in whatever order. */
static bool take(VuRing *ring, uint16_t *ret_head, VuFault *fault)
{
    uint16_t flags, id;
    uint16_t position = ring->next_avail, head = ring->free_copy, i = head;
    uint32_t n = 0;

    if (!look(ring, &flags)) {
        return false;
    }
    for (;;) {
        if (n == ring->n_free) {
            vu_ring_break(ring, "more descriptors are offered than the queue has", fault);
            return false;
        }
        id = copy(ring, i, position, flags);
        i = next_copy(ring, i);
        position = advance(ring, position, 1);
        n++;
        if ((flags & VRING_DESC_F_NEXT) == 0) {
            break;
        }
        flags = vu_ring_load16(&ring->packed[place_of(position)].flags);
    }
    ring->chains[head] = (VuPackedChain){.id = id, .n_places = (uint16_t)n};
    ring->free_copy = i;
    ring->n_free -= n;
    ring->next_avail = position;
    *ret_head = head;
    return true;
}

/* ---- giving back ------------------------------------------------------------------- */

/* The flags last, for they make the rest valid. */
static void put_used(VuRing *ring, uint16_t head, uint32_t length)
{
    struct vring_packed_desc *used = &ring->packed[place_of(ring->used_index)];
    const VuPackedChain *chain = &ring->chains[head];
    uint16_t flags = (ring->used_index & WRAP) != 0 ? DESC_AVAIL | DESC_USED : 0;

    __atomic_store_n(&used->id, htole16(chain->id), __ATOMIC_RELAXED);
    __atomic_store_n(&used->len, htole32(length), __ATOMIC_RELAXED);
    vu_ring_store16(&used->flags, flags | (length > 0 ? VRING_DESC_F_WRITE : 0));
    vu_ring_wrote(ring, used, sizeof(*used));
    ring->used_index = advance(ring, ring->used_index, chain->n_places);
    free_copies(ring, head);
}

/* A place relative to the lap that @now is in; less than 0 in the lap before. */
static uint16_t relative(const VuRing *ring, uint16_t position, uint16_t now)
{
    bool same = ((position ^ now) & WRAP) == 0;

    return (uint16_t)(place_of(position) - (same ? 0 : ring->size));
}

/* Does the guest want to hear of what was written before used_index? Its wish is read
 * whole. */
static bool wants_interrupt(VuRing *ring)
{
    const uint32_t *word = (const void *)ring->driver_event;
    uint32_t wish = le32toh(__atomic_load_n(word, __ATOMIC_SEQ_CST));
    uint32_t flags = wish >> 16 & EVENT_FLAGS;
    uint16_t now = ring->used_index, before = ring->signalled;
    bool known = ring->signalled_valid;

    ring->signalled = now;
    ring->signalled_valid = true;
    if (flags != VRING_PACKED_EVENT_FLAG_DESC || !ring->event_idx) {
        return flags != VRING_PACKED_EVENT_FLAG_DISABLE;
    }
    return !known ||
           vring_need_event(relative(ring, (uint16_t)wish, now), (uint16_t)place_of(now),
                            relative(ring, before, now));
}

/* ---- kicks ------------------------------------------------------------------------- */

/* Our wish, written whole: the guest may read it at any time. */
static void store_event(VuRing *ring, uint16_t position, uint32_t flags)
{
    uint32_t *word = (void *)ring->device_event;

    __atomic_store_n(word, htole32(position | flags << 16), __ATOMIC_SEQ_CST);
    vu_ring_wrote(ring, word, sizeof(*word));
}

static void want_kicks(VuRing *ring)
{
    if (ring->event_idx) {
        store_event(ring, ring->next_avail, VRING_PACKED_EVENT_FLAG_DESC);
    } else {
        store_event(ring, 0, VRING_PACKED_EVENT_FLAG_ENABLE);
    }
}

static void refuse_kicks(VuRing *ring)
{
    store_event(ring, 0, VRING_PACKED_EVENT_FLAG_DISABLE);
}

/* The base has said it. */
static void sync_used(VuRing *ring)
{
}

const VuRingLayout vu_packed_layout = {
    .avail_size = sizeof(struct vring_packed_desc_event),
    .avail_align = 4,
    .used_size = sizeof(struct vring_packed_desc_event),
    .used_align = 4,
    .any_size = true,
    .initial_base = WRAP << 16 | WRAP,
    .prepare = prepare,
    .sync_used = sync_used,
    .set_base = set_base,
    .base = base_of,
    .is_waiting = is_waiting,
    .take = take,
    .put_used = put_used,
    .wants_interrupt = wants_interrupt,
    .want_kicks = want_kicks,
    .refuse_kicks = refuse_kicks,
};
