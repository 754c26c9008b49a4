/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/entry.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "passthrough/inode-known.h"
#include "passthrough/inode-place.h"
#include "passthrough/internal.h"

/*
 * Looking up. A name costs one system call, statx by name: either the index knows the
 * inode, or the file is remembered by where and what it is, and opened when it is used.
 *
 * Some cannot be remembered so (see pt_inode_may_be_named()), or not at this moment,
 * because they are too young, or the guest is changing names beside them, or the host has
 * just replaced one; directories that are not merely listed shall not be, unless
 * descriptors are short. These are opened, and everything about them is then taken from
 * the descriptor: whoever exchanges the file in between changes only which file is found.
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

/* A look at a name, and what was so before it: the clock and the directory. */
typedef struct Look {
    uint64_t now;
    PtStamp stamp;
} Look;

static bool is_known(PtFs *fs, const PtPlace *place, PtEntry *entry)
{
    PtInode *inode = pt_inode_known(fs, place, &entry->attr.stx);
    if (inode == NULL) {
        return false;
    }
    pt_entry_give(fs, place, inode, entry);
    return true;
}

/* See what is there. This is all that a known name costs.
 * Return: 0; 1: and it is known, so that the entry is complete; or a negative errno. */
static int look(PtFs *fs, const PtPlace *place, Look *ret_look, PtEntry *ret_entry)
{
    ret_look->now = pt_birth_now();
    ret_look->stamp = pt_stamp(fs, place->parent);
    int r = pt_stat(fs, place->dir_fd, place->name, &ret_entry->attr.stx);
    return r < 0 ? r : is_known(fs, place, ret_entry);
}

/* Remember what is not known by what was seen of it. With PATIENCE_LAST, who moves the
 * name at this very moment makes it ESTALE later. */
static int remember(PtFs *fs, const PtPlace *place, Patience patience, const Look *look,
                    PtEntry *entry)
{
    const struct statx *seen = &entry->attr.stx;
    PtInode *inode = NULL;
    if (!pt_inode_may_be_named(fs, place, seen)) {
        return -EOPNOTSUPP;
    }
    bool anyway = patience == PATIENCE_LAST;
    if (!(look->stamp.quiet || anyway) ||
        !pt_birth_settled(look->now, pt_identity(seen).btime)) {
        return -EAGAIN;
    }
    int r = pt_inode_list(fs, place, seen, &inode);
    if (r < 0) {
        return r;
    }
    if (!anyway && !pt_stamp_holds(fs, &look->stamp)) {
        pt_inode_put(fs, inode);
        return -EAGAIN;
    }
    pt_entry_give(fs, place, inode, entry);
    return 0;
}

static int list_once(PtFs *fs, const PtPlace *place, Patience patience,
                     PtEntry *ret_entry)
{
    Look seen;
    int r = look(fs, place, &seen, ret_entry);
    if (r != 0) {
        return r < 0 ? r : 0;
    }
    return remember(fs, place, patience, &seen, ret_entry);
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
    int r = -EAGAIN;
    for (int i = 0; i < TRIES && r == -EAGAIN; i++) {
        r = list_once(fs, place, PATIENCE_NONE, ret_entry);
    }
    if (r == -EAGAIN && patience != PATIENCE_NONE) {
        r = list_patiently(fs, place, ret_entry);
    }
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

/* @spare: rather than at the cost of another, it is not looked up at all. */
static int list_opened(PtFs *fs, const PtPlace *place, bool spare, PtEntry *ret_entry)
{
    g_auto(PtFd) fd = {.fd = -1};
    int r = spare ? pt_fd_reserve_spare(fs, &fd) : pt_fd_reserve(fs, &fd);
    return r < 0 ? r : pt_entry_open(fs, place, &fd, ret_entry);
}

int pt_entry_list(PtFs *fs, const PtPlace *place, PtEntry *ret_entry)
{
    if (pt_inode_by_handle(fs, place->parent)) {
        return look_up_by_handle(fs, place, ret_entry);
    }
    int r = list(fs, place, PATIENCE_NONE, ret_entry);
    return needs_opening(r) ? list_opened(fs, place, r == -EAGAIN, ret_entry) : r;
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

/* Directories are opened: what is in them is looked up by their descriptors. */
static bool may_be_remembered(PtFs *fs, const PtPlace *place, const struct statx *seen)
{
    return !S_ISDIR(seen->stx_mode) && !pt_inode_by_handle(fs, place->parent);
}

int pt_entry_look_up(PtFs *fs, const PtPlace *place, PtEntry *ret_entry)
{
    Look seen;
    if (is_loose(place) || pt_place_is_unsure(fs, place->parent)) {
        return look_up_unknown(fs, place, ret_entry);
    }
    int r = look(fs, place, &seen, ret_entry);
    if (r != 0) {
        return r < 0 ? r : 0;
    }
    r = may_be_remembered(fs, place, &ret_entry->attr.stx)
            ? remember(fs, place, PATIENCE_NONE, &seen, ret_entry)
            : -EOPNOTSUPP;
    return needs_opening(r) ? look_up_unknown(fs, place, ret_entry) : r;
}
