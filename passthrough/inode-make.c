/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "passthrough/file-handle.h"
#include "passthrough/inode-hold.h"
#include "passthrough/inode-index.h"
#include "passthrough/inode-known.h"
#include "passthrough/inode-place.h"
#include "passthrough/inode.h"
#include "passthrough/internal.h"

/*
 * Making inodes, of files that were opened and of those that were only seen.
 */

/* What a new inode is made of. */
typedef struct Making {
    PtKey key;
    const PtPlace *place;
    const struct statx *seen;
    PtMount *mount; /* a reference */
    PtHeld held;
    int fd;                     /* or -1 */
    struct file_handle *handle; /* PT_HELD_HANDLE; used up either way, as mount */
    bool is_new;                /* out: it was made of this */
} Making;

static PtInode *take_inode(PtFs *fs, const Making *making)
{
    PtInode *inode = (PtInode *)(void *)pt_slots_take(&fs->inodes);
    if (inode == NULL) {
        return NULL;
    }
    atomic_store_explicit(&inode->nlookup, 0, memory_order_relaxed);
    atomic_store_explicit(&inode->pages, 0, memory_order_relaxed);
    inode->mount = making->mount->slot.index;
    inode->mount_class = (uint8_t)making->mount->class;
    inode->type = (uint8_t)(making->seen->stx_mode >> 12);
    inode->held = (uint8_t)making->held;
    inode->key_kind = PT_KEY_NONE;
    pt_hold_start(inode, making->fd);
    if (making->held == PT_HELD_NAME) {
        pt_home_start(fs, inode, making->place);
    } else {
        pt_home_start(fs, inode, NULL);
    }
    if (making->held == PT_HELD_HANDLE) {
        inode->handle = making->handle;
    }
    return inode;
}

/* Nobody has seen it. */
static void discard(PtFs *fs, PtInode *inode)
{
    PtInode *parent = pt_home_end(fs, inode);
    pt_slots_give(&fs->inodes, &inode->slot);
    if (parent != NULL) {
        pt_inode_put(fs, parent);
    }
}

/* Return: 0 with an inode, referenced: a new one, or one that came first; the mount's
 * reference is used up either way. */
static int make(PtFs *fs, Making *making, PtInode **ret_inode)
{
    PtInode *other = NULL;
    int r = -ENOMEM;
    PtInode *inode = take_inode(fs, making);
    if (inode != NULL) {
        r = pt_index_insert(fs, inode, &making->key, &other);
        if (r == 0 && other == NULL) {
            making->is_new = true;
            *ret_inode = inode;
            return 0;
        }
        discard(fs, inode);
    } else {
        free(making->handle);
    }
    pt_mount_put(&fs->mounts, making->mount);
    *ret_inode = other;
    return r;
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
    Making making = {.seen = &seen, .mount = mount, .held = PT_HELD_OPEN, .fd = fd.fd};
    PtInode *inode = take_inode(fs, &making);
    if (inode == NULL) {
        pt_mount_put(&fs->mounts, mount);
        return -ENOMEM;
    }
    (void)pt_fd_steal(&fd); /* the inode has it already */
    atomic_store_explicit(&inode->nlookup, 1, memory_order_relaxed);
    pt_slot_publish(&inode->slot);
    return 0;
}

static int get_mount(PtFs *fs, const PtPlace *place, const PtIdentity *id, int fd,
                     PtMount **ret_mount)
{
    if (pt_inode_on_mount(fs, place->parent, id)) {
        *ret_mount = pt_mount_at(&fs->mounts, place->parent->mount);
        pt_mount_ref(*ret_mount);
        return 0;
    }
    return pt_mount_get(&fs->mounts, id->mount_id, id->dev, fd, ret_mount);
}

bool pt_inode_by_handle(PtFs *fs, const PtInode *directory)
{
    return pt_mount_at(&fs->mounts, directory->mount)->fd.fd >= 0;
}

bool pt_inode_spares_fd(PtFs *fs, const PtInode *directory)
{
    return pt_mount_at(&fs->mounts, directory->mount)->births ||
           pt_inode_by_handle(fs, directory);
}

bool pt_inode_may_be_named(PtFs *fs, const PtPlace *place, const struct statx *seen)
{
    PtIdentity id = pt_identity(seen);
    const PtMount *mount = pt_mount_at(&fs->mounts, place->parent->mount);
    /* Where a mount begins stays open: that keeps its ids from being given away. */
    return mount->births && id.btime != 0 && pt_inode_on_mount(fs, place->parent, &id) &&
           !pt_mount_shares_number(mount->class, seen);
}

int pt_inode_list(PtFs *fs, const PtPlace *place, const struct statx *seen,
                  PtInode **ret_inode)
{
    Making making = {
        .key = {pt_identity(seen), 0, PT_KEY_NUMBER},
        .place = place,
        .seen = seen,
        .mount = pt_mount_at(&fs->mounts, place->parent->mount),
        .held = PT_HELD_NAME,
        .fd = -1,
    };
    pt_mount_ref(making.mount);
    return make(fs, &making, ret_inode);
}

/* Give a descriptor to a known inode that has none. */
static void keep_open(PtFs *fs, PtInode *inode, PtFd *fd)
{
    if (inode->held == PT_HELD_NAME && pt_home_install(fs, inode, fd->fd)) {
        (void)pt_fd_steal(fd); /* the inode has it already */
        pt_hold_unpin(inode);
    }
}

static int add_opened(PtFs *fs, Making *making, PtFd *fd, PtInode **ret_inode)
{
    if (pt_mount_shares_number(making->mount->class, making->seen) &&
        making->place->name != NULL) {
        making->key.tag = pt_place_tag(fs, making->place);
        making->key.kind = PT_KEY_NAME;
    }
    if (pt_inode_may_be_named(fs, making->place, making->seen)) {
        making->held = PT_HELD_NAME;
    }
    making->fd = fd->fd;
    int r = make(fs, making, ret_inode);
    if (making->is_new) {
        (void)pt_fd_steal(fd); /* the inode has it already */
        pt_hold_enter(fs, *ret_inode);
    } else if (r == 0) {
        keep_open(fs, *ret_inode, fd);
    }
    return r;
}

/* @fd stays the caller's. */
static int add_by_handle(PtFs *fs, Making *making, const PtFileHandle *handle,
                         PtInode **ret_inode)
{
    making->held = PT_HELD_HANDLE;
    making->fd = -1;
    making->handle = pt_file_handle_copy(handle);
    if (making->handle == NULL) {
        pt_mount_put(&fs->mounts, making->mount);
        return -ENOMEM;
    }
    return make(fs, making, ret_inode);
}

/* Return: whether there is a handle, or a negative errno. */
static int get_handle(PtFs *fs, const PtMount *mount, int fd, PtFileHandle *ret_handle)
{
    bool wanted = mount->fd.fd >= 0;
    if (!wanted && mount->class != PT_MOUNT_REMOTE) {
        return false;
    }
    int r = pt_file_handle_get(fd, ret_handle);
    bool needed = wanted && fs->config.inode_handles == PT_INODE_HANDLES_MANDATORY;
    return r < 0 && needed ? r : r == 0;
}

/* The inode of a file that has been opened; the mount's reference is used up. */
static int find_or_add(PtFs *fs, Making *making, PtFd *fd, PtInode **ret_inode)
{
    PtFileHandle handle;
    int has_handle = get_handle(fs, making->mount, fd->fd, &handle);
    if (has_handle < 0) {
        pt_mount_put(&fs->mounts, making->mount);
        return has_handle;
    }
    making->key.tag = has_handle ? pt_file_handle_hash(fs, &handle) : 0;
    *ret_inode = pt_inode_find(fs, making->place, &making->key, true);
    if (*ret_inode != NULL) {
        keep_open(fs, *ret_inode, fd);
        pt_mount_put(&fs->mounts, making->mount);
        return 0;
    }
    return has_handle && making->mount->fd.fd >= 0
               ? add_by_handle(fs, making, &handle, ret_inode)
               : add_opened(fs, making, fd, ret_inode);
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
    Making making = {.key = key, .place = place, .seen = ret_seen, .mount = mount};
    return find_or_add(fs, &making, fd, ret_inode);
}
