/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "passthrough/cred.h"
#include "passthrough/entry.h"
#include "passthrough/fd.h"
#include "passthrough/inode-known.h"
#include "passthrough/inode-pin.h"
#include "passthrough/inode-place.h"
#include "passthrough/inode.h"
#include "passthrough/internal.h"
#include "passthrough/passthrough.h"

/*
 * Names: looking up, removing, renaming, linking. What makes something new is in
 * name-make.c and name-create.c, FORGET in inode.c.
 */

int pt_lookup(PtFs *fs, uint64_t parent, const char *name, PtEntry *ret_entry)
{
    g_auto(PtNode) node = {0};
    PtPlace place;
    int r = pt_place_get(fs, parent, name, &node, &place);
    return r < 0 ? r : pt_entry_look_up(fs, &place, ret_entry);
}

ssize_t pt_readlink(PtFs *fs, uint64_t nodeid, char *buffer, size_t size)
{
    g_auto(PtNode) node = {0};
    int r = pt_node_get(fs, nodeid, &node);
    if (r < 0) {
        return r;
    }
    if (!S_ISLNK(pt_inode_type(node.inode))) {
        return -EINVAL;
    }
    ssize_t length = readlinkat(node.fd, "", buffer, size);
    return length < 0 ? pt_error() : length;
}

static int remove_name(PtFs *fs, uint64_t parent, const char *name, int flags)
{
    g_auto(PtNode) node = {0};
    PtPlace place;
    int r = pt_place_get(fs, parent, name, &node, &place);
    if (r < 0) {
        return r;
    }
    /* What the guest still uses when it has no name any more stays open. */
    g_auto(PtChange) G_GNUC_UNUSED change = pt_change_begin(fs, node.inode);
    g_auto(PtNode) removed = {0};
    pt_node_at(fs, &place, false, &removed);
    r = unlinkat(node.fd, name, flags) < 0 ? pt_error() : 0;
    return pt_denied(fs, r, node.fd, W_OK | X_OK);
}

int pt_unlink(PtFs *fs, uint64_t parent, const char *name)
{
    return remove_name(fs, parent, name, 0);
}

int pt_rmdir(PtFs *fs, uint64_t parent, const char *name)
{
    return remove_name(fs, parent, name, AT_REMOVEDIR);
}

/* What is at one of the two names of a RENAME. */
typedef struct Renamed {
    PtFs *fs;
    PtNode known;
    PtInode *linked; /* the same, if it is known by this very name */
} Renamed;

static void renamed_clear(Renamed *renamed)
{
    pt_node_clear(&renamed->known);
    if (renamed->linked != NULL) {
        pt_inode_put(renamed->fs, renamed->linked);
    }
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Renamed, renamed_clear)

static void find_renamed(PtFs *fs, const PtPlace *at, bool stays, Renamed *ret_renamed)
{
    pt_node_at(fs, at, stays, &ret_renamed->known);
    if (stays) {
        ret_renamed->linked = pt_inode_linked_at(fs, at);
    }
}

static void note_renamed(PtFs *fs, const Renamed *renamed, const PtPlace *to)
{
    if (renamed->linked != NULL) {
        pt_inode_settle(fs, renamed->linked);
    }
    if (renamed->known.inode != NULL) {
        /* NULL: memory is short. It stays open for as long as nobody sees it there. */
        pt_home_set(fs, renamed->known.inode, to, strdup(to->name), NULL);
    }
}

/* What is left behind at the old name is its caller's. */
static int call_rename(PtFs *fs, const PtPlace *from, const PtPlace *to,
                       const PtRename *rename)
{
    g_auto(PtCred) cred = {0};
    if (rename->flags & RENAME_WHITEOUT) {
        int r = pt_cred_enter(fs, rename->caller, &cred);
        if (r < 0) {
            return r;
        }
    }
    /* Not renameat2(3), which makes another system call when there are no flags. */
    long r = syscall(SYS_renameat2, from->dir_fd, from->name, to->dir_fd, to->name,
                     rename->flags);
    /* Whoever moves a folder elsewhere writes to it, too: then it may be its own mode
     * that forbids it. */
    int result = r < 0 ? pt_error() : 0;
    return from->parent != to->parent ? result
                                      : pt_denied(fs, result, from->dir_fd, W_OK | X_OK);
}

static int rename_places(PtFs *fs, const PtPlace *from, const PtPlace *to,
                         const PtRename *rename)
{
    bool exchange = rename->flags & RENAME_EXCHANGE;
    g_auto(PtChange) G_GNUC_UNUSED leaving = pt_change_begin(fs, from->parent);
    g_auto(PtChange) G_GNUC_UNUSED arriving = pt_change_begin(fs, to->parent);
    /* In use until they are known to be where they are then. */
    g_auto(Renamed) moved = {.fs = fs};
    g_auto(Renamed) other = {.fs = fs};
    find_renamed(fs, from, true, &moved);
    find_renamed(fs, to, exchange, &other);
    int r = call_rename(fs, from, to, rename);
    if (r < 0) {
        return r;
    }
    note_renamed(fs, &moved, to);
    if (exchange) {
        note_renamed(fs, &other, from);
    }
    return pt_thread_usable() ? 0 : -EIO;
}

int pt_rename(PtFs *fs, const PtRename *rename)
{
    g_auto(PtNode) from_node = {0};
    g_auto(PtNode) to_node = {0};
    PtPlace from, to;
    if (rename->flags &
        ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)) {
        return -EINVAL;
    }
    int r = pt_place_get(fs, rename->parent, rename->name, &from_node, &from);
    if (r < 0) {
        return r;
    }
    r = pt_place_get(fs, rename->new_parent, rename->new_name, &to_node, &to);
    return r < 0 ? r : rename_places(fs, &from, &to, rename);
}

int pt_link(PtFs *fs, uint64_t nodeid, uint64_t new_parent, const char *new_name,
            PtEntry *ret_entry)
{
    g_auto(PtNode) directory = {0};
    g_auto(PtNode) node = {0};
    PtPlace place;
    int r = pt_place_get(fs, new_parent, new_name, &directory, &place);
    if (r < 0) {
        return r;
    }
    r = pt_node_get(fs, nodeid, &node);
    if (r < 0) {
        return r;
    }
    PtFdName name = pt_fd_name(node.fd);
    if (linkat(fs->procfd, name.text, directory.fd, new_name, AT_SYMLINK_FOLLOW) < 0) {
        return pt_denied(fs, pt_error(), directory.fd, W_OK | X_OK);
    }
    if (node.inode->mount_class == PT_MOUNT_OVERLAY) {
        pt_inode_settle(fs, node.inode);
    }
    return pt_entry_look_up(fs, &place, ret_entry);
}
