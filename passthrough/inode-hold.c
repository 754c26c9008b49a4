/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/inode-hold.h"

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>

#include "passthrough/internal.h"

/*
 * The word, from its lowest bit: the descriptor plus one, or 0 for none; how many have it
 * pinned; whether it was used since eviction looked last, or since it has none; the tag
 * of the thread that is about to close it.
 *
 * That thread may only close it if the word is still what it left: a pin, even one that
 * has ended, removed the tag. A tag comes again after 65,535 attempts; a thread would
 * have to sleep through all of them, each having met and left this very inode.
 */

#define FD_MASK UINT64_C(0xffffffff)
#define PIN (UINT64_C(1) << 32)
#define PINS_MASK (UINT64_C(0x7fff) << 32)
#define USED (UINT64_C(1) << 47)
#define TAG_SHIFT 48
#define TAG_MASK (UINT64_C(0xffff) << TAG_SHIFT)

static int fd_of(uint64_t word)
{
    return (int)(uint32_t)(word & FD_MASK) - 1;
}

static uint64_t word_of(int fd)
{
    return (uint32_t)(fd + 1);
}

/* ---- owners ------------------------------------------------------------------------ */

int pt_owners_init(PtOwners *owners, uint32_t n)
{
    void *memory = mmap(NULL, n * sizeof(owners->slots[0]), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        return -ENOMEM;
    }
    *owners = (PtOwners){.slots = memory, .n = n};
    return 0;
}

void pt_owners_clear(PtOwners *owners)
{
    if (owners->slots != NULL) {
        /* Fails only for a range that was never mapped. */
        (void)munmap((void *)owners->slots, owners->n * sizeof(owners->slots[0]));
    }
    *owners = (PtOwners){0};
}

uint32_t pt_owners_at(const PtOwners *owners, uint32_t fd)
{
    if (fd >= owners->n) {
        return 0;
    }
    return atomic_load_explicit(&owners->slots[fd], memory_order_relaxed);
}

static void enter(PtFs *fs, int fd, uint32_t index)
{
    PtOwners *owners = &fs->owners;
    uint32_t number = (uint32_t)fd;
    if (fd < 0 || number >= owners->n) {
        return;
    }
    atomic_store_explicit(&owners->slots[number], index, memory_order_relaxed);
    uint32_t end = atomic_load_explicit(&owners->end, memory_order_relaxed);
    while (index != 0 && number >= end &&
           !atomic_compare_exchange_weak_explicit(&owners->end, &end, number + 1,
                                                  memory_order_relaxed,
                                                  memory_order_relaxed)) {
    }
}

void pt_hold_leave(PtFs *fs, int fd)
{
    enter(fs, fd, 0);
}

/* ---- the word ---------------------------------------------------------------------- */

void pt_hold_start(PtInode *inode, int fd)
{
    atomic_store_explicit(&inode->hold, fd < 0 ? 0 : word_of(fd) | USED,
                          memory_order_relaxed);
}

void pt_hold_enter(PtFs *fs, PtInode *inode)
{
    if (inode->held == PT_HELD_NAME) {
        enter(fs, pt_hold_fd(inode), inode->slot.index);
    }
}

int pt_hold_end(PtFs *fs, PtInode *inode)
{
    int fd = pt_hold_fd(inode);
    if (inode->held == PT_HELD_NAME) {
        pt_hold_leave(fs, fd);
    }
    atomic_store_explicit(&inode->hold, 0, memory_order_relaxed);
    return fd;
}

int pt_hold_fd(PtInode *inode)
{
    return fd_of(atomic_load_explicit(&inode->hold, memory_order_relaxed));
}

int pt_hold_pin(PtInode *inode)
{
    uint64_t word = atomic_load_explicit(&inode->hold, memory_order_relaxed);
    uint64_t after;
    do {
        if (fd_of(word) < 0) {
            return -1;
        }
        after = ((word & ~TAG_MASK) | USED) + PIN;
    } while (!atomic_compare_exchange_weak_explicit(
        &inode->hold, &word, after, memory_order_acquire, memory_order_relaxed));
    return fd_of(word);
}

void pt_hold_unpin(PtInode *inode)
{
    atomic_fetch_sub_explicit(&inode->hold, PIN, memory_order_release);
}

bool pt_hold_note_use(PtInode *inode)
{
    uint64_t none = 0;
    return !atomic_compare_exchange_strong_explicit(
        &inode->hold, &none, USED, memory_order_relaxed, memory_order_relaxed);
}

bool pt_hold_install(PtFs *fs, PtInode *inode, int fd)
{
    uint64_t word = atomic_load_explicit(&inode->hold, memory_order_relaxed);
    do {
        if (fd_of(word) >= 0) {
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(
        &inode->hold, &word, (word_of(fd) | USED) + PIN, memory_order_acq_rel,
        memory_order_relaxed));
    enter(fs, fd, inode->slot.index);
    return true;
}

uint64_t pt_hold_close_begin(PtInode *inode, uint16_t tag)
{
    uint64_t word = atomic_load_explicit(&inode->hold, memory_order_relaxed);
    if (word & USED) {
        atomic_fetch_and_explicit(&inode->hold, ~USED, memory_order_relaxed);
        return 0;
    }
    if (fd_of(word) < 0 || (word & (PINS_MASK | TAG_MASK))) {
        return 0;
    }
    uint64_t tagged = word | (uint64_t)tag << TAG_SHIFT;
    return atomic_compare_exchange_strong_explicit(
               &inode->hold, &word, tagged, memory_order_acquire, memory_order_relaxed)
               ? tagged
               : 0;
}

bool pt_hold_close_commit(PtInode *inode, uint64_t word)
{
    return atomic_compare_exchange_strong_explicit(
        &inode->hold, &word, 0, memory_order_acq_rel, memory_order_relaxed);
}

bool pt_hold_close_cancel(PtInode *inode, uint64_t word)
{
    return atomic_compare_exchange_strong_explicit(&inode->hold, &word, word & ~TAG_MASK,
                                                   memory_order_release,
                                                   memory_order_relaxed);
}
