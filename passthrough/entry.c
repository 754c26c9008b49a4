/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/entry.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "passthrough/inode-known.h"
#include "passthrough/inode-place.h"
#include "passthrough/internal.h"

/*
 * Looking up. A known name costs one system call: statx by name, and the index knows the
 * inode. An unknown one is opened, and everything about it is then taken from the
 * descriptor: whoever exchanges the file in between changes only which file is found.
 * What is merely listed, and all when descriptors are short, is not opened but remembered
 * by where and what it is.
 *
 * No call crosses a directory, follows a link, or is stopped by a mount point: volumes
 * are mounted into the share while it is in use.
 */

/* Looks at a name while the guest moves others about, or until a new file is old enough.
 */
enum { TRIES = 4, TRIES_PATIENT = 10 };

/* How much is done for an entry that is not opened. */
typedef enum Patience {
    PATIENCE_NONE, /* it can be opened instead */
    PATIENCE_WAIT, /* wait for what hinders it */
    PATIENCE_LAST, /* a busy directory does not */
} Patience;

int pt_name_check(const char *name)
{
    size_t length = strnlen(name, PT_NAME_MAX + 1);
    if (length > PT_NAME_MAX) {
        return -ENAMETOOLONG;
    }
    if (length == 0 || memchr(name, '/', length) != NULL || strcmp(name, ".") == 0 ||
        strcmp(name, "..") == 0) {
        return -EINVAL;
    }
    return 0;
}

int pt_place_get(PtFs *fs, uint64_t parent, const char *name, PtNode *node,
                 PtPlace *ret_place)
{
    int r = pt_name_check(name);
    if (r < 0) {
        return r;
    }
    r = pt_node_get(fs, parent, node);
    if (r < 0) {
        return r;
    }
    *ret_place = (PtPlace){node->inode, node->fd, name};
    return S_ISDIR(pt_inode_type(node->inode)) ? 0 : -ENOTDIR;
}

void pt_entry_give(PtFs *fs, const PtPlace *place, PtInode *inode_take, PtEntry *entry)
{
    const struct statx *seen = &entry->attr.stx;
    bool submount = fs->config.announce_submounts && S_ISDIR(seen->stx_mode) &&
                    pt_inode_crosses_mount(fs, place->parent, seen);
    entry->attr.flags = submount ? PT_ATTR_SUBMOUNT : 0;
    entry->nodeid = pt_inode_count_lookup(fs, inode_take);
}

int pt_entry_open(PtFs *fs, const PtPlace *place, PtFd *fd, PtEntry *ret_entry)
{
    PtInode *inode = NULL;
    fd->fd = pt_open_beneath(place->dir_fd, place->name, O_PATH, 0);
    if (fd->fd < 0) {
        return fd->fd;
    }
    int r = pt_inode_adopt(fs, place, fd, &ret_entry->attr.stx, &inode);
    if (r == 0) {
        pt_entry_give(fs, place, inode, ret_entry);
    }
    return r;
}

/* Whether every file has to be opened to be recognised. */
static bool is_loose(const PtPlace *place)
{
    return pt_mount_reuses(place->parent->mount_class);
}

/* ---- without opening --------------------------------------------------------------- */

/* With PATIENCE_LAST, who moves the name at this very moment makes it ESTALE later. */
static int list_once(PtFs *fs, const PtPlace *place, Patience patience,
                     PtEntry *ret_entry)
{
    struct statx *seen = &ret_entry->attr.stx;
    uint64_t now = pt_birth_now();
    PtStamp stamp = pt_stamp(fs, place->parent);
    int r = pt_stat(fs, place->dir_fd, place->name, seen);
    if (r < 0) {
        return r;
    }
    PtInode *inode = pt_inode_known(fs, place, seen);
    if (inode != NULL) {
        pt_entry_give(fs, place, inode, ret_entry);
        return 0;
    }
    if (!pt_inode_may_be_named(fs, place, seen)) {
        return -EOPNOTSUPP;
    }
    bool anyway = patience == PATIENCE_LAST;
    if (!(stamp.quiet || anyway) || !pt_birth_settled(now, pt_identity(seen).btime)) {
        return -EAGAIN;
    }
    r = pt_inode_list(fs, place, seen, &inode);
    if (r < 0) {
        return r;
    }
    if (!anyway && !pt_stamp_holds(fs, &stamp)) {
        pt_inode_put(fs, inode);
        return -EAGAIN;
    }
    pt_entry_give(fs, place, inode, ret_entry);
    return 0;
}

static int list_patiently(PtFs *fs, const PtPlace *place, PtEntry *ret_entry)
{
    int r = -EAGAIN;
    for (int i = 1; i < TRIES_PATIENT && r == -EAGAIN; i++) {
        pt_place_wait();
        r = list_once(fs, place, PATIENCE_WAIT, ret_entry);
    }
    return r == -EAGAIN ? list_once(fs, place, PATIENCE_LAST, ret_entry) : r;
}

/* The entry of a file that is not opened.
 * Return: 0 or a negative errno; -EOPNOTSUPP, never; -EAGAIN, not now. */
static int list(PtFs *fs, const PtPlace *place, Patience patience, PtEntry *ret_entry)
{
    if (is_loose(place)) {
        return -EOPNOTSUPP;
    }
    /* Announced before anything is looked at: see pt_change_begin(). */
    atomic_fetch_add(&fs->n_by_name, 1);
    int r = -EAGAIN;
    for (int i = 0; i < TRIES && r == -EAGAIN; i++) {
        r = list_once(fs, place, PATIENCE_NONE, ret_entry);
    }
    if (r == -EAGAIN && patience != PATIENCE_NONE) {
        r = list_patiently(fs, place, ret_entry);
    }
    atomic_fetch_sub(&fs->n_by_name, 1);
    return r;
}

static bool needs_opening(int r)
{
    return r == -EOPNOTSUPP || r == -EAGAIN;
}

static int look_up_by_handle(PtFs *fs, const PtPlace *place, PtEntry *ret_entry)
{
    g_auto(PtFd) fd = {.fd = -1};
    pt_fd_reserve_briefly(fs, &fd); /* no inode keeps it */
    return pt_entry_open(fs, place, &fd, ret_entry);
}

int pt_entry_list(PtFs *fs, const PtPlace *place, PtEntry *ret_entry)
{
    g_auto(PtFd) fd = {.fd = -1};
    if (pt_inode_by_handle(fs, place->parent)) {
        return look_up_by_handle(fs, place, ret_entry);
    }
    int r = list(fs, place, PATIENCE_NONE, ret_entry);
    if (!needs_opening(r)) {
        return r;
    }
    /* Rather than at the cost of another, it is not looked up at all. */
    r = r == -EAGAIN ? pt_fd_reserve_spare(fs, &fd) : pt_fd_reserve(fs, &fd);
    return r < 0 ? r : pt_entry_open(fs, place, &fd, ret_entry);
}

/* ---- by all means ------------------------------------------------------------------ */

int pt_entry_made(PtFs *fs, const PtPlace *place, PtFd *fd, PtEntry *ret_entry)
{
    if (fd->fs != NULL) {
        return pt_entry_open(fs, place, fd, ret_entry);
    }
    if (pt_inode_by_handle(fs, place->parent)) {
        return look_up_by_handle(fs, place, ret_entry);
    }
    int r = list(fs, place, PATIENCE_WAIT, ret_entry);
    return r == -EOPNOTSUPP ? -ENFILE : r == -EAGAIN ? -ESTALE : r;
}

static int look_up_unknown(PtFs *fs, const PtPlace *place, PtEntry *ret_entry)
{
    g_auto(PtFd) fd = {.fd = -1};
    if (pt_inode_by_handle(fs, place->parent)) {
        return look_up_by_handle(fs, place, ret_entry);
    }
    if (pt_fd_reserve_spare(fs, &fd) < 0) {
        int r = list(fs, place, PATIENCE_NONE, ret_entry);
        if (!needs_opening(r)) {
            return r;
        }
        (void)pt_fd_reserve(fs, &fd); /* if not, there is another way */
    }
    return pt_entry_made(fs, place, &fd, ret_entry);
}

int pt_entry_look_up(PtFs *fs, const PtPlace *place, PtEntry *ret_entry)
{
    struct statx *seen = &ret_entry->attr.stx;
    if (!is_loose(place)) {
        int r = pt_stat(fs, place->dir_fd, place->name, seen);
        if (r < 0) {
            return r;
        }
        PtInode *inode = pt_inode_known(fs, place, seen);
        if (inode != NULL) {
            pt_entry_give(fs, place, inode, ret_entry);
            return 0;
        }
    }
    return look_up_unknown(fs, place, ret_entry);
}
