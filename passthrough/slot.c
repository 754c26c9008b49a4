/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/slot.h"

#include <errno.h>
#include <sys/mman.h>

/*
 * The slot tables. Slots lie in chunks, found through a directory of chunk pointers that
 * is reserved whole and touched only as far as it is used. The free list is a lock-free
 * stack of indices: its head carries a tag that every change increments, and a slot's
 * memory stays readable for ever, so a thread that was overtaken notices and retries.
 *
 * A generation is used once: a slot that has had all of them is not used again.
 */

enum { N_CHUNKS = 1 << 16 };

#define REFERENCES UINT64_C(0xffffffff)
/* Far above what threads, handles and children can hold; an overflow would free a slot
 * that is in use. */
#define REFERENCES_MAX UINT64_C(0x7fffffff)

/* All memory of slots comes from here. Zeroed: no reference, generation 0. */
static void *map_memory(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static void unmap_memory(void *memory, size_t size)
{
    /* Fails only for a range that was never mapped. */
    (void)munmap(memory, size);
}

static uint32_t index_of(uint64_t id)
{
    return (uint32_t)id;
}

static uint64_t generation_of(uint64_t id)
{
    return id >> 32;
}

int pt_slots_init(PtSlots *slots, size_t slot_size)
{
    *slots = (PtSlots){.slot_size = slot_size};
    atomic_store_explicit(&slots->next_new, 1, memory_order_relaxed);
    slots->chunks = map_memory(N_CHUNKS * sizeof(slots->chunks[0]));
    return slots->chunks == NULL ? -ENOMEM : 0;
}

void pt_slots_clear(PtSlots *slots)
{
    if (slots->chunks == NULL) {
        return;
    }
    for (uint32_t i = 0; i < N_CHUNKS; i++) {
        char *chunk = atomic_load_explicit(&slots->chunks[i], memory_order_relaxed);
        if (chunk == NULL) {
            break;
        }
        unmap_memory(chunk, PT_CHUNK_SLOTS * slots->slot_size);
    }
    unmap_memory((void *)slots->chunks, N_CHUNKS * sizeof(slots->chunks[0]));
    *slots = (PtSlots){0};
}

PtSlot *pt_slots_at(const PtSlots *slots, uint32_t index)
{
    uint32_t n = index >> PT_CHUNK_SHIFT;
    if (n >= N_CHUNKS ||
        atomic_load_explicit(&slots->chunks[n], memory_order_acquire) == NULL) {
        return NULL;
    }
    return pt_slots_given(slots, index);
}

uint32_t pt_slots_end(const PtSlots *slots)
{
    return atomic_load_explicit(&slots->next_new, memory_order_acquire);
}

static bool ensure_chunk(PtSlots *slots, uint32_t n)
{
    if (n >= N_CHUNKS) {
        return false;
    }
    if (atomic_load_explicit(&slots->chunks[n], memory_order_acquire) != NULL) {
        return true;
    }
    size_t size = PT_CHUNK_SLOTS * slots->slot_size;
    char *chunk = map_memory(size);
    if (chunk == NULL) {
        return false;
    }
    char *none = NULL;
    if (!atomic_compare_exchange_strong_explicit(&slots->chunks[n], &none, chunk,
                                                 memory_order_acq_rel,
                                                 memory_order_acquire)) {
        unmap_memory(chunk, size); /* another thread was first */
    }
    return true;
}

static PtSlot *take_new(PtSlots *slots)
{
    uint32_t index = atomic_load_explicit(&slots->next_new, memory_order_relaxed);
    do {
        if (!ensure_chunk(slots, index >> PT_CHUNK_SHIFT)) {
            return NULL;
        }
    } while (!atomic_compare_exchange_weak_explicit(
        &slots->next_new, &index, index + 1, memory_order_acq_rel, memory_order_relaxed));
    PtSlot *slot = pt_slots_given(slots, index);
    slot->index = index;
    return slot;
}

static PtSlot *take_free(PtSlots *slots)
{
    uint64_t head = atomic_load_explicit(&slots->free, memory_order_acquire);
    uint64_t after;
    PtSlot *slot;
    do {
        if (index_of(head) == 0) {
            return NULL;
        }
        slot = pt_slots_given(slots, index_of(head));
        after = (generation_of(head) + 1) << 32 |
                atomic_load_explicit(&slot->next, memory_order_relaxed);
    } while (!atomic_compare_exchange_weak_explicit(
        &slots->free, &head, after, memory_order_acquire, memory_order_acquire));
    return slot;
}

PtSlot *pt_slots_take(PtSlots *slots)
{
    PtSlot *slot = take_free(slots);
    if (slot == NULL) {
        slot = take_new(slots);
    }
    if (slot != NULL) {
        atomic_fetch_add_explicit(&slots->n_in_use, 1, memory_order_relaxed);
    }
    return slot;
}

void pt_slots_give(PtSlots *slots, PtSlot *slot)
{
    uint64_t state = atomic_load_explicit(&slot->state, memory_order_relaxed);
    uint64_t next_life = (generation_of(state) + 1) << 32;
    atomic_fetch_sub_explicit(&slots->n_in_use, 1, memory_order_relaxed);
    if (next_life == 0) {
        return;
    }
    atomic_store_explicit(&slot->state, next_life, memory_order_relaxed);
    uint64_t head = atomic_load_explicit(&slots->free, memory_order_relaxed);
    uint64_t after;
    do {
        atomic_store_explicit(&slot->next, index_of(head), memory_order_relaxed);
        after = (generation_of(head) + 1) << 32 | slot->index;
    } while (!atomic_compare_exchange_weak_explicit(
        &slots->free, &head, after, memory_order_release, memory_order_relaxed));
}

void pt_slot_publish(PtSlot *slot)
{
    uint64_t state = atomic_load_explicit(&slot->state, memory_order_relaxed);
    atomic_store_explicit(&slot->state, state + 1, memory_order_release);
}

/* Add a reference if the slot is live, and, unless @id is 0, if it still has that id. */
static bool ref_if(PtSlot *slot, uint64_t id)
{
    uint64_t state = atomic_load_explicit(&slot->state, memory_order_relaxed);
    do {
        uint64_t references = state & REFERENCES;
        if (references == 0 || references >= REFERENCES_MAX) {
            return false;
        }
        if (id != 0 && generation_of(state) != generation_of(id)) {
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(
        &slot->state, &state, state + 1, memory_order_acquire, memory_order_relaxed));
    return true;
}

PtSlot *pt_slots_get(PtSlots *slots, uint64_t id)
{
    if (index_of(id) == 0) {
        return NULL;
    }
    PtSlot *slot = pt_slots_at(slots, index_of(id));
    return slot != NULL && ref_if(slot, id) ? slot : NULL;
}

bool pt_slot_ref_live(PtSlot *slot)
{
    return ref_if(slot, 0);
}

bool pt_slot_unref(PtSlot *slot)
{
    uint64_t before = atomic_fetch_sub_explicit(&slot->state, 1, memory_order_acq_rel);
    return (before & REFERENCES) == 1;
}

uint64_t pt_slot_id(const PtSlot *slot)
{
    uint64_t state = atomic_load_explicit(&slot->state, memory_order_relaxed);
    return (state & ~REFERENCES) | slot->index;
}
