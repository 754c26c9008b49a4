/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_INTERNAL_H
#define PASSTHROUGH_INTERNAL_H

#include <stdatomic.h>
#include <stdint.h>

#include "passthrough/hash.h"
#include "passthrough/inode-hold.h"
#include "passthrough/inode-index.h"
#include "passthrough/inode-place.h"
#include "passthrough/lock-table.h"
#include "passthrough/mount.h"
#include "passthrough/passthrough.h"
#include "passthrough/slot.h"
#include "passthrough/xattr-map.h"

/*
 * The share.
 *
 * Lock order, outermost first; no thread waits for an earlier one while it holds a later:
 *   1. PtPlaces.tree
 *   2. PtPlaces.locks, one of them
 *   3. PtMounts.lock
 *   4. PtShard.lock; two of them only in pt_index_rekey(), lower address first
 *   5. PtLocks.lock
 * In fact only 2 is taken while another kind, 1, is held. Under a lock nothing is called
 * that may block, allocate or close: no system call at all. References are counts in the
 * slots and need no lock; what a last reference frees, it frees after unlocking.
 *
 * An open directory's stream belongs to the walk that set PtHandle.walking, which is no
 * lock: a second walk does not wait but gets a stream of its own.
 */

/** struct PtFs - all that requests share. */
struct PtFs {
    PtConfig config;        /* fixed */
    PtAgreed agreed;        /* changes while no request runs */
    int procfd;             /* fixed */
    uint32_t statx_mask;    /* fixed; what is asked of every file */
    PtHashKey hash_key;     /* fixed */
    PtXattrName capability; /* fixed; what security.capability is renamed to, or "" */
    PtSlots inodes;
    PtSlots handles;
    PtMounts mounts;
    PtIndex index;
    PtLocks locks;
    PtPlaces places;
    PtOwners owners;
    _Atomic uint32_t n_descriptors; /* reserved or open, of config.max_descriptors */
    _Atomic uint32_t n_linked;      /* inodes known by PT_KEY_NAME */
    _Atomic uint32_t hand;          /* of the clock of eviction */
    _Atomic uint32_t n_evictions;   /* tried */
    _Atomic uint32_t n_dir_buffers; /* kept with open directories between walks */
};

/** pt_probe() - Return: the statx(2) mask to use, or 0 with @error telling what this
 * kernel lacks. */
uint32_t pt_probe(int root_fd, int procfd, GError **error);

#endif
