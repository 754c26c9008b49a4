/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The split layout (Virtio 1.2, 2.7): a table of descriptors, the avail ring and the used
 * ring. Both rings are counted by free-running 16-bit indices.
 */
#include <errno.h>

#include "virtiofsd/vhost/ring-internal.h"

/* The guest's wish, behind the avail entries: interrupt when used_index passes this. */
static uint16_t used_event(const VuRing *ring)
{
    return vu_ring_load16(&ring->avail->ring[ring->size]);
}

/* Our wish, behind the used entries: kick when the avail index passes this. */
static __virtio16 *avail_event(const VuRing *ring)
{
    return (__virtio16 *)(void *)&ring->used->ring[ring->size];
}

/* ---- states ------------------------------------------------------------------------ */

/* Nothing is remembered of a chain but its head. */
static int prepare(VuRing *ring)
{
    return 0;
}

static void sync_used(VuRing *ring)
{
    ring->known_avail = ring->next_avail;
    ring->used_index = le16toh(__atomic_load_n(&ring->used->idx, __ATOMIC_RELAXED));
}

static int set_base(VuRing *ring, uint32_t base)
{
    if (base > UINT16_MAX) {
        return -EINVAL;
    }
    ring->next_avail = (uint16_t)base;
    ring->known_avail = (uint16_t)base;
    return 0;
}

static uint32_t base_of(const VuRing *ring)
{
    return ring->next_avail;
}

/* ---- the avail ring ---------------------------------------------------------------- */

/* How many chains wait. The guest's index is read when fewer than two are known. */
static unsigned int count_waiting(VuRing *ring, VuFault *fault)
{
    uint16_t known = (uint16_t)(ring->known_avail - ring->next_avail);

    if (known >= 2) {
        return known;
    }
    uint16_t index = vu_ring_load16(&ring->avail->idx);
    uint16_t waiting = (uint16_t)(index - ring->next_avail);
    if (waiting > ring->size) {
        vu_ring_break(ring, "avail index is more than the queue size ahead", fault);
        return 0;
    }
    ring->known_avail = index;
    return waiting;
}

static bool is_waiting(VuRing *ring, VuFault *fault)
{
    return count_waiting(ring, fault) > 0;
}

static bool take(VuRing *ring, uint16_t *ret_head, VuFault *fault)
{
    if (count_waiting(ring, fault) == 0) {
        return false;
    }
    uint16_t head =
        vu_ring_load16(&ring->avail->ring[ring->next_avail & (ring->size - 1)]);
    if (head >= ring->size) {
        vu_ring_break(ring, "head of a chain is outside the queue", fault);
        return false;
    }
    ring->next_avail++;
    *ret_head = head;
    return true;
}

/* Tell the guest a wish. */
static void put16(const VuRing *ring, __virtio16 *to, uint16_t value)
{
    vu_ring_store16(to, value);
    vu_ring_wrote(ring, to, sizeof(*to));
}

static void want_kicks(VuRing *ring)
{
    if (ring->kicks != VU_KICKS_ON) {
        /* also with EVENT_IDX: Virtio 1.2, 2.7.10.1 */
        put16(ring, &ring->used->flags, 0);
    }
    if (ring->event_idx) {
        put16(ring, avail_event(ring), ring->next_avail);
    }
}

static void refuse_kicks(VuRing *ring)
{
    if (ring->event_idx) {
        put16(ring, avail_event(ring), (uint16_t)(ring->next_avail - 1));
    } else {
        put16(ring, &ring->used->flags, VRING_USED_F_NO_NOTIFY);
    }
}

/* ---- the used ring ----------------------------------------------------------------- */

static void put_used(VuRing *ring, uint16_t head, uint32_t length)
{
    vring_used_elem_t *used = &ring->used->ring[ring->used_index & (ring->size - 1)];

    __atomic_store_n(&used->id, htole32(head), __ATOMIC_RELAXED);
    __atomic_store_n(&used->len, htole32(length), __ATOMIC_RELAXED);
    ring->used_index++;
    vu_ring_store16(&ring->used->idx, ring->used_index);
    vu_ring_wrote(ring, used, sizeof(*used));
    vu_ring_wrote(ring, &ring->used->idx, sizeof(ring->used->idx));
}

/* Does the guest want to hear of the entries up to used_index? */
static bool wants_interrupt(VuRing *ring)
{
    if (!ring->event_idx) {
        return (vu_ring_load16(&ring->avail->flags) & VRING_AVAIL_F_NO_INTERRUPT) == 0;
    }
    uint16_t before = ring->signalled;
    bool known = ring->signalled_valid;
    ring->signalled = ring->used_index;
    ring->signalled_valid = true;
    return !known || vring_need_event(used_event(ring), ring->used_index, before);
}

/* The event words are counted in whether or not they were agreed upon: every driver
 * allots them. */
const VuRingLayout vu_split_layout = {
    .avail_size = 6,
    .avail_entry = 2,
    .avail_align = VRING_AVAIL_ALIGN_SIZE,
    .used_size = 6,
    .used_entry = 8,
    .used_align = VRING_USED_ALIGN_SIZE,
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
