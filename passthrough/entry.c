/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/entry.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "passthrough/internal.h"

/*
 * Looking up. A known name costs one system call: statx by name, and the index knows the
 * inode. An unknown one is opened, and everything about it is then taken from the
 * descriptor: whoever exchanges the file in between changes only which file is found.
 *
 * No call crosses a directory, follows a link, or is stopped by a mount point: volumes
 * are mounted into the share while it is in use.
 */

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

int pt_entry_look_up(PtFs *fs, const PtPlace *place, bool seems_new, PtEntry *ret_entry)
{
    struct statx *seen = &ret_entry->attr.stx;
    if (!seems_new && place->parent->mount_class != PT_MOUNT_REMOTE) {
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
    g_auto(PtFd) fd = {.fd = -1};
    int r = pt_fd_reserve(fs, &fd);
    return r < 0 ? r : pt_entry_open(fs, place, &fd, ret_entry);
}
