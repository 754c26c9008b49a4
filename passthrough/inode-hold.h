/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_INODE_HOLD_H
#define PASSTHROUGH_INODE_HOLD_H

#include <stdbool.h>
#include <stdint.h>

#include "passthrough/inode.h"
#include "passthrough/passthrough.h"

/*
 * PtInode.hold: the inode's descriptor, how many requests use it, and who is about to
 * close it, in one word, so that each of the three is seen together with the others.
 */

/** typedef PtOwners - which inode a descriptor belongs to, by its number: what the clock
 * of eviction goes round on. Descriptors beyond the table are never evicted. */
typedef struct PtOwners {
    _Atomic uint32_t *slots; /* index of the inode's slot, or 0; n of them */
    uint32_t n;              /* fixed */
    _Atomic uint32_t end;    /* one more than the highest number ever entered */
} PtOwners;

/** pt_owners_init() - for descriptors below @n. Return: 0 or -ENOMEM. */
int pt_owners_init(PtOwners *owners, uint32_t n);
void pt_owners_clear(PtOwners *owners);
/** pt_owners_at() - Return: index of the inode that has descriptor @fd, or 0; a hint. */
uint32_t pt_owners_at(const PtOwners *owners, uint32_t fd);

/** pt_hold_start() - give a new inode, which nobody knows, its descriptor; -1 for none.
 */
void pt_hold_start(PtInode *inode, int fd);
/** pt_hold_enter() - let eviction find a new inode's descriptor. */
void pt_hold_enter(PtFs *fs, PtInode *inode);
/** pt_hold_end() - take the descriptor from an inode that has no references.
 * Return: it, or -1. */
int pt_hold_end(PtFs *fs, PtInode *inode);

/** pt_hold_fd() - Return: the descriptor, or -1. A hint, unless it is PT_HELD_OPEN. */
int pt_hold_fd(PtInode *inode);
/** pt_hold_pin() - keep the descriptor open, and whoever is about to close it from it.
 * Return: it, or -1 if there is none. Every success is ended by pt_hold_unpin(). */
int pt_hold_pin(PtInode *inode);
void pt_hold_unpin(PtInode *inode);
/** pt_hold_note_use() - an inode without descriptor was used, and did without.
 * Return: whether it was before, since it last had one. */
bool pt_hold_note_use(PtInode *inode);
/** pt_hold_install() - give an inode that has none a descriptor, pinned.
 * Return: whether it had none; else nothing has changed. */
bool pt_hold_install(PtFs *fs, PtInode *inode, int fd);

/**
 * pt_hold_close_begin() - be the one who may close the descriptor.
 * @tag: not 0; differs from that of others that may be at it.
 *
 * Whoever pins the descriptor from now on takes that away again.
 * Return: what pt_hold_close_commit() or _cancel() has to be given, or 0: it is in use,
 * was used since the last time that it was asked for, or there is none.
 */
uint64_t pt_hold_close_begin(PtInode *inode, uint16_t tag);
/** pt_hold_close_commit() - Return: whether nobody has used it meanwhile. The descriptor
 * is the caller's now. */
bool pt_hold_close_commit(PtInode *inode, uint64_t word);
/** pt_hold_close_cancel() - the descriptor stays. Return: as commit. */
bool pt_hold_close_cancel(PtInode *inode, uint64_t word);
/** pt_hold_leave() - eviction shall not find the descriptor any more. */
void pt_hold_leave(PtFs *fs, int fd);

#endif
