/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/inode.h"

#include "passthrough/inode-hold.h"
#include "passthrough/inode-index.h"
#include "passthrough/inode-place.h"
#include "passthrough/internal.h"

/*
 * Theory of operation.
 *
 * An inode lives in a slot while somebody holds a reference: all lookups of the guest
 * together hold one, each open handle holds one, each running request on it holds one,
 * and each inode that has its place in it. It is held in one of three ways:
 *
 * - by an O_PATH descriptor, which reads and writes nothing, follows a rename, and keeps
 *   the host's file system from giving the inode number to another file;
 *
 * - by its place, a directory and a name (inode-place.c), and a descriptor only once it
 *   was used and while there is room (inode-hold.c): it is opened and compared then
 *   (inode-pin.c), and closed again when it is idle (inode-evict.c). So are held all
 *   files that number and time of birth tell from any other, now or later;
 *
 * - by its file handle (file-handle.c), if the command line says so.
 *
 * A file is recognised by mount id, device, inode number and time of birth. The number is
 * enough while the inode is held; the time of birth tells, where it agrees, that no
 * second look is needed. If it differs, the held descriptor is asked: overlayfs changes
 * it when it copies a file up.
 *
 * Two kinds of file system need more:
 *
 * - Remote ones (and any of which nothing is known) may use a number again although it is
 *   held. There every file is opened and its file handle must agree as well.
 *
 * - overlayfs without index: hard links in a lower layer show one number and are
 * different files, because a write copies only one of them up. Such a file, seen first
 * with more than one link, is known by (parent, name). Once it is copied up it has a
 * number of its own and is known by that. A file first seen with one link owns its number
 * from the start: links that it gets later are true ones, made in the upper layer.
 */

PtIdentity pt_identity(const struct statx *stx)
{
    return (PtIdentity){
        .mount_id = stx->stx_mnt_id,
        .dev = (uint64_t)stx->stx_dev_major << 32 | stx->stx_dev_minor,
        .ino = stx->stx_ino,
        .btime = (uint64_t)stx->stx_btime.tv_sec * 1000000000 + stx->stx_btime.tv_nsec,
    };
}

bool pt_identity_equal(const PtIdentity *a, const PtIdentity *b)
{
    return a->mount_id == b->mount_id && a->dev == b->dev && a->ino == b->ino &&
           a->btime == b->btime;
}

/* ---- references ------------------------------------------------------------------- */

PtInode *pt_inode_at(const PtFs *fs, uint32_t index)
{
    return (PtInode *)(void *)pt_slots_given(&fs->inodes, index);
}

mode_t pt_inode_type(const PtInode *inode)
{
    return (mode_t)inode->type << 12;
}

void pt_inode_ref(PtInode *inode)
{
    /* Cannot fail: the caller holds a reference, and holders are far fewer than 2^31. */
    (void)pt_slot_ref_live(&inode->slot);
}

/* Give up what an inode without references has. Return: the directory of its place, of
 * which it had a reference, or NULL. */
static PtInode *end(PtFs *fs, PtInode *inode)
{
    PtMount *mount = pt_mount_at(&fs->mounts, inode->mount);
    PtInode *parent = pt_home_end(fs, inode);
    int fd = pt_hold_end(fs, inode);
    pt_slots_give(&fs->inodes, &inode->slot);
    if (fd >= 0) {
        pt_fd_close(fs, fd);
    }
    pt_mount_put(&fs->mounts, mount);
    return parent;
}

/* A directory may have been kept by nothing but what is in it, and so on upwards. */
void pt_inode_put(PtFs *fs, PtInode *inode)
{
    while (inode != NULL && pt_slot_unref(&inode->slot)) {
        if (inode->key_kind != PT_KEY_NONE) {
            pt_index_remove(fs, inode);
        }
        inode = end(fs, inode);
    }
}

static uint64_t n_lookups(PtInode *inode)
{
    return atomic_load_explicit(&inode->nlookup, memory_order_relaxed);
}

uint64_t pt_inode_count_lookup(PtFs *fs, PtInode *inode_take)
{
    uint64_t nodeid = pt_slot_id(&inode_take->slot);
    uint64_t before =
        atomic_fetch_add_explicit(&inode_take->nlookup, 1, memory_order_relaxed);
    if (before > 0) {
        pt_inode_put(fs, inode_take);
    }
    return nodeid;
}

static void forget(PtFs *fs, PtInode *inode, uint64_t n)
{
    uint64_t before = n_lookups(inode);
    uint64_t after;
    do {
        after = before > n ? before - n : 0;
    } while (!atomic_compare_exchange_weak_explicit(
        &inode->nlookup, &before, after, memory_order_relaxed, memory_order_relaxed));
    if (before > 0 && after == 0) {
        pt_inode_put(fs, inode);
    }
}

void pt_forget(PtFs *fs, uint64_t nodeid, uint64_t nlookup)
{
    if (nodeid == PT_ROOT_ID || nlookup == 0) {
        return;
    }
    PtInode *inode = (PtInode *)(void *)pt_slots_get(&fs->inodes, nodeid);
    if (inode != NULL) {
        forget(fs, inode, nlookup);
        pt_inode_put(fs, inode);
    }
}

void pt_inode_drop_all(PtFs *fs, bool root)
{
    for (uint32_t i = 1; i < pt_slots_end(&fs->inodes); i++) {
        PtInode *inode = pt_inode_at(fs, i);
        bool is_root = pt_slot_id(&inode->slot) == PT_ROOT_ID;
        if ((!is_root || root) && pt_slot_ref_live(&inode->slot)) {
            forget(fs, inode, UINT64_MAX);
            pt_inode_put(fs, inode);
        }
    }
}
