/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_VHOST_GUARD_H
#define VIRTIOFSD_VHOST_GUARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/*
 * Guest memory that goes away under us. The VMM can truncate a mapping's file at any
 * time, or its file system can be full; the next access then raises SIGBUS. The guard
 * puts a zeroed page in the place and remembers that it did: the thread goes on with a
 * malformed request, and all rings stop.
 */

/** Mappings that can be guarded at once: two full tables. */
#define VU_GUARD_SLOTS 1024

/* Read through vu_guard_is_hit() only. */
extern _Atomic bool vu_guard_hit;

/**
 * vu_guard_install() - handle SIGBUS from now on, in all threads.
 *
 * A SIGBUS that is not about a guarded mapping ends the process as if this handler did
 * not exist.
 * Return: 0 or a negative errno. Context: at start; again is harmless.
 */
int vu_guard_install(void);

/**
 * vu_guard_add() - guard a mapping.
 * @granule: its page size, which @base and @length are multiples of.
 *
 * Return: a slot for vu_guard_remove(), or -ENOSPC.
 */
int vu_guard_add(void *base, size_t length, size_t granule);

/** vu_guard_remove() - no longer guard it; called before it is unmapped. */
void vu_guard_remove(int slot);

/** vu_guard_clear() - all memory was mapped anew: forget what was missing. */
void vu_guard_clear(void);

/** vu_guard_is_hit() - Return: whether memory was found missing. Context: any thread. */
static inline bool vu_guard_is_hit(void)
{
    return atomic_load_explicit(&vu_guard_hit, memory_order_relaxed);
}

#endif
