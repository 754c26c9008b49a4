/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_INODE_INDEX_H
#define PASSTHROUGH_INODE_INDEX_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "passthrough/inode.h"
#include "passthrough/passthrough.h"

/*
 * The second way to an inode: by what the host says that a file is. Sharded, so that
 * requests on different files do not meet; each shard grows by itself.
 */

enum { PT_SHARDS = 128 };

/** typedef PtShard - one part of the table: chains of slot indices. */
typedef struct PtShard {
    pthread_mutex_t lock;
    uint32_t *heads;   /* under lock; NULL until first used */
    uint32_t n_heads;  /* under lock; a power of two, or 0 */
    uint32_t n_inodes; /* under lock */
} PtShard;

typedef struct PtIndex {
    PtShard shards[PT_SHARDS];
} PtIndex;

/** typedef PtKey - what an inode is found by. */
typedef struct PtKey {
    PtIdentity identity;
    uint64_t tag; /* has to agree, too; see PtInode.tag */
    PtKeyKind kind;
} PtKey;

/** pt_index_init() - Return: 0 or a negative errno. */
int pt_index_init(PtIndex *index);
/** pt_index_clear() - Context: no request is running. */
void pt_index_clear(PtIndex *index);

/**
 * pt_index_find() - a live inode that may be the file.
 * @ret_exact: whether all of the identity agrees. If not, only the key does (by number:
 *             mount, device, number and tag; by name: mount and tag), and the caller has
 *             to make sure.
 *
 * Return: the inode, referenced, or NULL. An exact one is preferred.
 */
PtInode *pt_index_find(PtFs *fs, const PtKey *key, bool *ret_exact);

/** pt_index_identity() - Return: what the inode is known to be.
 * Context: the caller holds a reference to @inode. */
PtIdentity pt_index_identity(PtFs *fs, PtInode *inode);
/** pt_index_mount() - Return: index of the mount that it is on. Context: as above. */
uint32_t pt_index_mount(PtFs *fs, PtInode *inode);

/**
 * pt_index_insert() - make a new inode live and findable, unless another is the file.
 * @inode: taken from the slots, filled in, not yet published.
 * @ret_other: the live inode that agrees exactly, referenced, or NULL: @inode is in.
 *
 * Return: 0 or -ENOMEM.
 */
int pt_index_insert(PtFs *fs, PtInode *inode, const PtKey *key, PtInode **ret_other);

/** pt_index_remove() - take out an inode that has no references. */
void pt_index_remove(PtFs *fs, PtInode *inode);

/**
 * pt_index_rekey() - an inode that was found by name is found by something else now.
 * @mount: of @key; a reference to it is consumed.
 *
 * Context: the caller holds a reference to @inode. Where memory is short, and where
 * another thread was first, the key stays.
 */
void pt_index_rekey(PtFs *fs, PtInode *inode, const PtKey *key, PtMount *mount);

/** pt_place_tag() - Return: PtKey.tag of an inode known by name. */
uint64_t pt_place_tag(PtFs *fs, const PtPlace *place);

/**
 * pt_inode_find() - the inode that a file is, if any.
 * @key: by number.
 * @opened: the key was taken from a descriptor.
 *
 * Return: the inode, referenced, or NULL.
 */
PtInode *pt_inode_find(PtFs *fs, const PtPlace *place, const PtKey *key, bool opened);

/** pt_inode_on_mount() - Return: whether a file is on the mount of a directory. */
bool pt_inode_on_mount(PtFs *fs, const PtInode *directory, const PtIdentity *id);

/** pt_index_set_btime() - record a time of birth that changed (overlayfs: copied up). */
void pt_index_set_btime(PtFs *fs, PtInode *inode, uint64_t btime);

#endif
