/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_INODE_CHANGE_H
#define PASSTHROUGH_INODE_CHANGE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "passthrough/inode.h"
#include "passthrough/passthrough.h"

/*
 * Changes of names: what one request has to know of another, and of the host.
 *
 * What the guest itself does to names is counted by directory: who looks at a name and
 * then relies on what he saw asks before and afterwards whether a name of the directory
 * was being moved or removed.
 */

/* ---- changes of names by the guest --------------------------------------------------
 */

/** typedef PtChange - the guest's removing or renaming in a directory, owned by a scope.
 * Begun before anything is looked at. */
typedef struct PtChange {
    PtFs *fs;
    const PtInode *parent;
} PtChange;

PtChange pt_change_begin(PtFs *fs, const PtInode *parent);
void pt_change_end(PtChange *change);

/** typedef PtStamp - a moment in a directory's history. */
typedef struct PtStamp {
    const PtInode *parent;
    uint64_t value;
    bool quiet; /* no change was under way */
} PtStamp;

PtStamp pt_stamp(PtFs *fs, const PtInode *parent);
/** pt_stamp_holds() - Return: whether nothing has changed since, nor was changing. */
bool pt_stamp_holds(PtFs *fs, const PtStamp *stamp);

/* ---- named places -------------------------------------------------------------------
 */

/** pt_place_name() - an inode may from now on be held by nothing but this place: who
 * changes it looks for one. Inodes count their own places; this is for who is about to
 * close the descriptor of one. */
void pt_place_name(PtFs *fs, const PtPlace *place);
void pt_place_unname(PtFs *fs, const PtPlace *place);
/** pt_place_is_named() - Return: whether there may be such an inode; of others that share
 * the count, too. Context: a change of the directory has been begun. */
bool pt_place_is_named(PtFs *fs, const PtPlace *place);

/* ---- changes of names by the host ---------------------------------------------------
 */

/** pt_place_replaced() - something in a directory turned out to be another file. */
void pt_place_replaced(PtFs *fs, const PtInode *parent);
/**
 * pt_place_is_unsure() - Return: whether that was a short while ago.
 *
 * A guest that is told ESTALE looks the name up again, but once only. So what it finds
 * then is to be opened at once, however often the host goes on to replace it.
 */
bool pt_place_is_unsure(PtFs *fs, const PtInode *parent);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(PtChange, pt_change_end)

#endif
