/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_SLOT_H
#define PASSTHROUGH_SLOT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Numbered slots: what stands behind every id that the guest holds. An id is a 32-bit
 * index and the generation of the slot at the time it was given out; it is checked in
 * O(1), without a lock, however old or invented it is.
 *
 * A slot is free, or owned by the thread that took it from the free list (no references
 * yet), or live (references > 0), or dying (references just reached 0, owned by the
 * thread that dropped the last one). Only a live slot can be referenced anew, so what its
 * owner wrote before pt_slot_publish() is seen by everybody who holds a reference.
 */

/** typedef PtSlot - first member of whatever is kept in slots. */
typedef struct PtSlot {
    _Atomic uint64_t state; /* generation << 32 | references */
    _Atomic uint32_t next;  /* in the free list; the owner's to use while not free */
    uint32_t index;         /* its own, fixed */
} PtSlot;

/* Slots lie in chunks of so many. */
enum { PT_CHUNK_SHIFT = 12, PT_CHUNK_SLOTS = 1 << PT_CHUNK_SHIFT };

/** typedef PtSlots - a table of slots of one size. Its memory is never unmapped or moved
 * before pt_slots_clear(), so a stale index can always be looked at. */
typedef struct PtSlots {
    size_t slot_size;
    _Atomic(char *) *chunks;
    _Atomic uint64_t free;     /* head of the free list: tag << 32 | index, 0 for none */
    _Atomic uint32_t next_new; /* lowest index that was never used */
    _Atomic uint32_t n_in_use; /* taken and not free again */
} PtSlots;

/** pt_slots_init() - an empty table; index 0 is never given out.
 * Return: 0 or -ENOMEM. */
int pt_slots_init(PtSlots *slots, size_t slot_size);
/** pt_slots_clear() - unmap all. Context: nobody uses the table. */
void pt_slots_clear(PtSlots *slots);

/**
 * pt_slots_take() - a slot for the caller alone; everything behind the PtSlot is stale.
 *
 * Return: it, with no reference, or NULL when memory is short.
 */
PtSlot *pt_slots_take(PtSlots *slots);
/** pt_slots_give() - free a slot that has no references; its old id is dead for ever. */
void pt_slots_give(PtSlots *slots, PtSlot *slot);

/** pt_slot_publish() - make a taken slot live, with one reference: the caller's. */
void pt_slot_publish(PtSlot *slot);
/** pt_slots_get() - Return: the live slot with this id, referenced, or NULL. */
PtSlot *pt_slots_get(PtSlots *slots, uint64_t id);
/** pt_slot_ref_live() - reference a slot that may be dying. Return: whether it is live.
 */
bool pt_slot_ref_live(PtSlot *slot);
/** pt_slot_unref() - Return: whether that was the last: the caller owns it now. */
bool pt_slot_unref(PtSlot *slot);
/** pt_slot_id() - the id under which pt_slots_get() finds the slot. */
uint64_t pt_slot_id(const PtSlot *slot);

/** pt_slots_at() - Return: the slot at @index, in whatever state, or NULL where there was
 * never one. */
PtSlot *pt_slots_at(const PtSlots *slots, uint32_t index);
/** pt_slots_given() - Return: the slot at an @index that has been given out, in whatever
 * state. */
static inline PtSlot *pt_slots_given(const PtSlots *slots, uint32_t index)
{
    char *chunk = atomic_load_explicit(&slots->chunks[index >> PT_CHUNK_SHIFT],
                                       memory_order_acquire);
    size_t offset = (index & (PT_CHUNK_SLOTS - 1)) * slots->slot_size;
    return (PtSlot *)(void *)(chunk + offset);
}

/** pt_slots_end() - Return: one more than the highest index ever given out. */
uint32_t pt_slots_end(const PtSlots *slots);

#endif
