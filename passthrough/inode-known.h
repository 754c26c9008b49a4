/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_INODE_KNOWN_H
#define PASSTHROUGH_INODE_KNOWN_H

#include <stdbool.h>
#include <sys/stat.h>

#include "passthrough/inode.h"
#include "passthrough/passthrough.h"

/*
 * From a file on the host to its inode: found if it is known, made if it is not.
 */

/**
 * pt_inode_known() - the inode of a file that was just seen by name.
 * @place: where; its parent is a directory.
 * @seen: statx of it.
 *
 * Return: the inode, referenced, or NULL: not known, or not without opening it.
 */
PtInode *pt_inode_known(PtFs *fs, const PtPlace *place, const struct statx *seen);

/**
 * pt_inode_adopt() - the inode of an open descriptor, made if it is new.
 * @place: where it was opened; its parent is a directory. Its name may be NULL: the file
 *         has none.
 * @fd: O_PATH descriptor; given to the inode if it is new or has none, else left.
 * @ret_seen: statx of @fd.
 * @ret_inode: the inode, referenced.
 *
 * Return: 0 or a negative errno.
 */
int pt_inode_adopt(PtFs *fs, const PtPlace *place, PtFd *fd, struct statx *ret_seen,
                   PtInode **ret_inode);

/** pt_inode_spares_fd() - Return: whether a file that is made in a directory can be known
 * without a descriptor: by number and birth, or by its handle. */
bool pt_inode_spares_fd(PtFs *fs, const PtInode *directory);
/** pt_inode_by_handle() - Return: whether files in a directory are held by handle. */
bool pt_inode_by_handle(PtFs *fs, const PtInode *directory);
/** pt_inode_may_be_named() - Return: whether a file just seen at @place can be known by
 * nothing but its place: nothing else than the guest is to give its number away. */
bool pt_inode_may_be_named(PtFs *fs, const PtPlace *place, const struct statx *seen);
/**
 * pt_inode_list() - the inode of a file that was seen by name and is not opened.
 * @seen: statx of it, for which pt_inode_may_be_named(), and settled: see inode-place.h.
 *
 * The caller makes sure that the guest has not changed the directory meanwhile.
 * Return: 0 with the inode, referenced, or -ENOMEM.
 */
int pt_inode_list(PtFs *fs, const PtPlace *place, const struct statx *seen,
                  PtInode **ret_inode);

/** pt_inode_seen() - Return: the inode that agrees exactly with what was just seen at
 * some name, referenced, or NULL. */
PtInode *pt_inode_seen(PtFs *fs, const struct statx *seen);
/** pt_inode_linked_at() - the inode known by this very name, referenced, or NULL. */
PtInode *pt_inode_linked_at(PtFs *fs, const PtPlace *place);
/** pt_inode_settle() - a file known by name was renamed or linked, and so has a number of
 * its own from now on. No harm for any other. */
void pt_inode_settle(PtFs *fs, PtInode *inode);
/** pt_inode_crosses_mount() - Return: whether @seen is on another mount than @parent. */
bool pt_inode_crosses_mount(PtFs *fs, const PtInode *parent, const struct statx *seen);

#endif
