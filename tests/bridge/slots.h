/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_BRIDGE_SLOTS_H
#define TESTS_BRIDGE_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/support/guest-memory.h"

/* Buffers of guest memory, each for one request of any size and its answer. */

/** Largest payload of a WRITE or a READ. */
#define SLOTS_DATA_SIZE (1u << 20)
/** What a buffer holds besides: arguments and names. */
#define SLOTS_EXTRA_SIZE 12288u

/** struct Slot - one request from its reading to the writing of its answer. */
typedef struct Slot Slot;
typedef struct Slots Slots;
struct Slot {
    uint8_t *in;
    uint8_t *out;
    uint64_t unique;
    uint32_t opcode;
    size_t out_size;
    int fuse_fd; /* where it was read, and where the answer must go */
    Slots *owner;
    Slot *next;
};

/** slots_memory_size() - Return: guest memory for @n slots. */
size_t slots_memory_size(unsigned int n);
/** slots_in_room() - Return: bytes at Slot.in. */
size_t slots_in_room(void);
/** slots_out_room() - Return: bytes at Slot.out. */
size_t slots_out_room(void);

Slots *slots_new(GuestMemory *memory, unsigned int n);
void slots_free(Slots *slots);

/** slots_take() - wait for a free slot, the one used last. Return: NULL once closed. */
Slot *slots_take(Slots *slots);
/** slots_put() - give it back to its pool. */
void slots_put(Slot *slot);
/** slots_close() - nobody gets a slot any more; who waits returns. */
void slots_close(Slots *slots);
/** slots_open() - the contrary. */
void slots_open(Slots *slots);
/** slots_wait_idle() - wait until all slots are free. Return: whether they are. */
bool slots_wait_idle(Slots *slots, int timeout_ms);

#endif
