/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/inode.h"

#include <errno.h>
#include <string.h>

#include "passthrough/cred.h"
#include "passthrough/inode-index.h"
#include "passthrough/internal.h"

/*
 * Theory of operation.
 *
 * An inode lives in a slot while somebody holds a reference: all lookups of the guest
 * together hold one, each open handle holds one, each running request on it holds one. It
 * holds an O_PATH descriptor, which reads and writes nothing, follows a rename, and keeps
 * the host's file system from giving the inode number to another file.
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

mode_t pt_inode_type(const PtInode *inode)
{
    return (mode_t)inode->type << 12;
}

void pt_inode_ref(PtInode *inode)
{
    /* Cannot fail: the caller holds a reference, and holders are far fewer than 2^31. */
    (void)pt_slot_ref_live(&inode->slot);
}

void pt_inode_put(PtFs *fs, PtInode *inode)
{
    if (!pt_slot_unref(&inode->slot)) {
        return;
    }
    if (inode->key_kind != PT_KEY_NONE) {
        pt_index_remove(fs, inode);
    }
    PtMount *mount = pt_mount_at(&fs->mounts, inode->mount);
    int fd = inode->fd;
    pt_slots_give(&fs->inodes, &inode->slot);
    pt_fd_close(fs, fd);
    pt_mount_put(&fs->mounts, mount);
}

static uint64_t n_lookups(PtInode *inode)
{
    return atomic_load_explicit(&inode->nlookup, memory_order_relaxed);
}

int pt_node_get(PtFs *fs, uint64_t nodeid, PtNode *ret_node)
{
    *ret_node = (PtNode){.fd = -1};
    if (!pt_thread_usable()) {
        return -EIO;
    }
    PtInode *inode = (PtInode *)(void *)pt_slots_get(&fs->inodes, nodeid);
    if (inode == NULL) {
        return -ESTALE;
    }
    *ret_node = (PtNode){fs, inode, inode->fd};
    if (n_lookups(inode) == 0) {
        pt_node_clear(ret_node);
        return -ESTALE;
    }
    return 0;
}

void pt_node_clear(PtNode *node)
{
    if (node->inode != NULL) {
        pt_inode_put(node->fs, node->inode);
    }
    *node = (PtNode){.fd = -1};
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
        PtInode *inode = (PtInode *)(void *)pt_slots_at(&fs->inodes, i);
        bool is_root = pt_slot_id(&inode->slot) == PT_ROOT_ID;
        if ((!is_root || root) && pt_slot_ref_live(&inode->slot)) {
            forget(fs, inode, UINT64_MAX);
            pt_inode_put(fs, inode);
        }
    }
}

/* ---- new inodes ------------------------------------------------------------------- */

static PtInode *take_inode(PtFs *fs, const PtMount *mount, const struct statx *seen)
{
    PtInode *inode = (PtInode *)(void *)pt_slots_take(&fs->inodes);
    if (inode != NULL) {
        atomic_store_explicit(&inode->nlookup, 0, memory_order_relaxed);
        inode->mount = mount->slot.index;
        inode->mount_class = (uint8_t)mount->class;
        inode->type = (uint8_t)(seen->stx_mode >> 12);
        inode->held = PT_HELD_BY_DESCRIPTOR;
        inode->key_kind = PT_KEY_NONE;
    }
    return inode;
}

int pt_inode_set_root(PtFs *fs, int fd_take)
{
    g_auto(PtFd) fd = {.fd = -1};
    struct statx seen;
    PtMount *mount = NULL;
    int r = pt_fd_reserve(fs, &fd);
    if (r < 0) {
        (void)close(fd_take); /* never read or written */
        return r;
    }
    fd.fd = fd_take;
    r = pt_stat(fs, fd.fd, "", &seen);
    if (r < 0) {
        return r;
    }
    PtIdentity id = pt_identity(&seen);
    r = pt_mount_get(&fs->mounts, id.mount_id, id.dev, fd.fd, &mount);
    if (r < 0) {
        return r;
    }
    PtInode *inode = take_inode(fs, mount, &seen);
    if (inode == NULL) {
        pt_mount_put(&fs->mounts, mount);
        return -ENOMEM;
    }
    inode->fd = pt_fd_steal(&fd);
    atomic_store_explicit(&inode->nlookup, 1, memory_order_relaxed);
    pt_slot_publish(&inode->slot);
    return 0;
}

static bool same_mount(PtFs *fs, const PtInode *directory, const PtIdentity *id)
{
    const PtMount *mount = pt_mount_at(&fs->mounts, directory->mount);
    return mount->mount_id == id->mount_id && mount->dev == id->dev;
}

bool pt_inode_crosses_mount(PtFs *fs, const PtInode *parent, const struct statx *seen)
{
    PtIdentity id = pt_identity(seen);
    return !same_mount(fs, parent, &id);
}

static int get_mount(PtFs *fs, const PtPlace *place, const PtIdentity *id, int fd,
                     PtMount **ret_mount)
{
    if (same_mount(fs, place->parent, id)) {
        *ret_mount = pt_mount_at(&fs->mounts, place->parent->mount);
        pt_mount_ref(*ret_mount);
        return 0;
    }
    return pt_mount_get(&fs->mounts, id->mount_id, id->dev, fd, ret_mount);
}

/* ---- recognising files ------------------------------------------------------------ */

/* The tag of an inode known by name. The name is one component, checked before. */
static uint64_t place_tag(PtFs *fs, const PtPlace *place)
{
    char bytes[sizeof(uint64_t) + PT_NAME_MAX];
    uint64_t parent = pt_slot_id(&place->parent->slot);
    size_t length = strnlen(place->name, PT_NAME_MAX);
    memcpy(bytes, &parent, sizeof(parent));
    memcpy(bytes + sizeof(parent), place->name, length);
    return pt_hash(&fs->hash_key, bytes, sizeof(parent) + length);
}

static bool held_is(PtFs *fs, PtInode *inode, const PtIdentity *id)
{
    struct statx now;
    if (pt_stat(fs, inode->fd, "", &now) < 0) {
        return false;
    }
    PtIdentity held = pt_identity(&now);
    return pt_identity_equal(&held, id);
}

static PtInode *known_by_number(PtFs *fs, const PtKey *key, bool opened)
{
    bool exact = false;
    PtInode *inode = pt_index_find(fs, key, &exact);
    if (inode == NULL) {
        return NULL;
    }
    bool is_it = exact;
    if (inode->mount_class == PT_MOUNT_REMOTE) {
        is_it = opened && (key->tag != 0 || held_is(fs, inode, &key->identity));
    } else if (!exact) {
        is_it = held_is(fs, inode, &key->identity);
    }
    if (!is_it) {
        pt_inode_put(fs, inode);
        return NULL;
    }
    if (!exact) {
        pt_index_set_btime(fs, inode, key->identity.btime);
    }
    return inode;
}

static void rekey(PtFs *fs, PtInode *inode, const PtKey *key)
{
    PtMount *mount = NULL;
    const PtIdentity *id = &key->identity;
    int r = pt_mount_get(&fs->mounts, id->mount_id, id->dev, inode->fd, &mount);
    if (r == 0) {
        pt_index_rekey(fs, inode, key, mount);
    }
}

static PtInode *known_by_name(PtFs *fs, const PtPlace *place, const PtIdentity *id)
{
    if (atomic_load_explicit(&fs->n_linked, memory_order_relaxed) == 0) {
        return NULL;
    }
    PtKey key = {*id, place_tag(fs, place), PT_KEY_NAME};
    bool exact = false;
    PtInode *inode = pt_index_find(fs, &key, &exact);
    if (inode == NULL || exact) {
        return inode;
    }
    if (!held_is(fs, inode, id)) {
        pt_inode_put(fs, inode);
        return NULL;
    }
    /* It was copied up. */
    key = (PtKey){*id, 0, PT_KEY_NUMBER};
    rekey(fs, inode, &key);
    return inode;
}

static PtInode *known(PtFs *fs, const PtPlace *place, const PtKey *key, bool opened)
{
    PtInode *inode = known_by_number(fs, key, opened);
    return inode != NULL ? inode : known_by_name(fs, place, &key->identity);
}

PtInode *pt_inode_known(PtFs *fs, const PtPlace *place, const struct statx *seen)
{
    PtKey key = {pt_identity(seen), 0, PT_KEY_NUMBER};
    return known(fs, place, &key, false);
}

static int insert_new(PtFs *fs, PtKey *key, PtFd *fd, PtInode *inode, PtInode **ret_inode)
{
    inode->fd = fd->fd;
    int r = pt_index_insert(fs, inode, key, ret_inode);
    if (r < 0 || *ret_inode != NULL) {
        return r;
    }
    (void)pt_fd_steal(fd); /* the inode has it already */
    *ret_inode = inode;
    return 0;
}

/* @mount is consumed. */
static int add_new(PtFs *fs, PtKey *key, PtFd *fd, const struct statx *seen,
                   PtMount *mount, PtInode **ret_inode)
{
    PtInode *inode = take_inode(fs, mount, seen);
    if (inode == NULL) {
        pt_mount_put(&fs->mounts, mount);
        return -ENOMEM;
    }
    int r = insert_new(fs, key, fd, inode, ret_inode);
    if (r < 0 || *ret_inode != inode) {
        pt_slots_give(&fs->inodes, &inode->slot);
        pt_mount_put(&fs->mounts, mount);
    }
    return r;
}

int pt_inode_adopt(PtFs *fs, const PtPlace *place, PtFd *fd, struct statx *ret_seen,
                   PtInode **ret_inode)
{
    PtMount *mount = NULL;
    int r = pt_stat(fs, fd->fd, "", ret_seen);
    if (r < 0) {
        return r;
    }
    PtKey key = {pt_identity(ret_seen), 0, PT_KEY_NUMBER};
    r = get_mount(fs, place, &key.identity, fd->fd, &mount);
    if (r < 0) {
        return r;
    }
    if (mount->class == PT_MOUNT_REMOTE) {
        key.tag = pt_handle_hash(fs, fd->fd);
    }
    *ret_inode = known(fs, place, &key, true);
    if (*ret_inode != NULL) {
        pt_mount_put(&fs->mounts, mount);
        return 0;
    }
    if (mount->class == PT_MOUNT_OVERLAY && S_ISREG(ret_seen->stx_mode) &&
        ret_seen->stx_nlink > 1) {
        key.tag = place_tag(fs, place);
        key.kind = PT_KEY_NAME;
    }
    return add_new(fs, &key, fd, ret_seen, mount, ret_inode);
}

PtInode *pt_inode_linked_at(PtFs *fs, const PtPlace *place)
{
    if (atomic_load_explicit(&fs->n_linked, memory_order_relaxed) == 0) {
        return NULL;
    }
    const PtMount *mount = pt_mount_at(&fs->mounts, place->parent->mount);
    PtIdentity id = {.mount_id = mount->mount_id};
    PtKey key = {id, place_tag(fs, place), PT_KEY_NAME};
    bool exact = false;
    return pt_index_find(fs, &key, &exact);
}

void pt_inode_settle(PtFs *fs, PtInode *inode)
{
    struct statx now;
    if (pt_stat(fs, inode->fd, "", &now) == 0) {
        PtKey key = {pt_identity(&now), 0, PT_KEY_NUMBER};
        rekey(fs, inode, &key);
    }
}
