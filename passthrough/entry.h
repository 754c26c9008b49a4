/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_ENTRY_H
#define PASSTHROUGH_ENTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "passthrough/fd.h"
#include "passthrough/inode.h"
#include "passthrough/passthrough.h"

/*
 * From a name in a directory to the entry that the guest is given.
 */

/** pt_name_check() - Return: 0; -EINVAL unless @name is one component, and neither "."
 * nor ".."; -ENAMETOOLONG. */
int pt_name_check(const char *name);

/**
 * pt_place_get() - a place that the guest names.
 * @node: receives the reference to the directory; has to outlive @ret_place.
 * @name: borrowed.
 *
 * Return: 0, as pt_name_check(), as pt_node_get(), or -ENOTDIR.
 */
int pt_place_get(PtFs *fs, uint64_t parent, const char *name, PtNode *node,
                 PtPlace *ret_place);

/** pt_entry_look_up() - find what is there; counts as one lookup.
 * Return: 0 or a negative errno. */
int pt_entry_look_up(PtFs *fs, const PtPlace *place, PtEntry *ret_entry);
/** pt_entry_list() - the same for what may never be used: it is not opened, if that can
 * be avoided, and nothing is given up for it. */
int pt_entry_list(PtFs *fs, const PtPlace *place, PtEntry *ret_entry);

/** pt_entry_open() - the entry of what was just made at @place; counts as one lookup.
 * @fd: reserved, not open. Return: 0 or a negative errno. */
int pt_entry_open(PtFs *fs, const PtPlace *place, PtFd *fd, PtEntry *ret_entry);

/** pt_entry_made() - the same; if @fd is not reserved, it is not opened. */
int pt_entry_made(PtFs *fs, const PtPlace *place, PtFd *fd, PtEntry *ret_entry);

/** pt_entry_give() - fill in the entry of an inode; counts as one lookup.
 * @inode_take: the caller's reference, consumed. @entry: .attr.stx is set already. */
void pt_entry_give(PtFs *fs, const PtPlace *place, PtInode *inode_take, PtEntry *entry);

#endif
