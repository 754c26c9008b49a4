/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdlib.h>
#include <unistd.h>

#include "passthrough/fd.h"
#include "passthrough/handle.h"
#include "passthrough/inode-index.h"
#include "passthrough/inode-pin.h"
#include "passthrough/internal.h"
#include "virtiofsd/autofd.h"

/*
 * Syncing. To a guest that was told of submounts each is a file system of its own, which
 * it asks to sync by itself. To any other, the root stands for all of them: the mounts on
 * which an inode is held are those that the guest can have written to.
 */

static int sync_node(PtFs *fs, const PtNode *node)
{
    g_auto(AutoFd) fd = -1;
    switch (pt_inode_type(node->inode)) {
    case S_IFDIR:
        fd = pt_reopen_dir(fs, node->fd, O_RDONLY);
        break;
    case S_IFREG:
        fd = pt_reopen(fs, node->fd, O_RDONLY);
        break;
    default: /* nothing else is opened */
        return -EINVAL;
    }
    if (fd < 0) {
        return fd;
    }
    return syncfs(fd) < 0 ? pt_error() : 0;
}

/* ---- all that there is in the share -------------------------------------------------
 */

/** typedef MountSet - mounts by index; how many there are, the host decides. */
typedef struct MountSet {
    uint8_t *bits;
    uint32_t n;
} MountSet;

static void mount_set_clear(MountSet *set)
{
    free(set->bits);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(MountSet, mount_set_clear)

/* A mount that was met for the first time after the set was made is not counted: nothing
 * that was written before the guest asked is on it. */
static bool has(const MountSet *set, uint32_t mount)
{
    return mount >= set->n || set->bits[mount / 8] & 1u << mount % 8;
}

static void add(MountSet *set, uint32_t mount)
{
    set->bits[mount / 8] |= (uint8_t)(1u << mount % 8);
}

/* An inode that cannot be had, or that nothing opens, leaves its mount to the next one.
 */
static int sync_other(PtFs *fs, PtInode *inode_take, MountSet *synced)
{
    g_auto(PtNode) node = {.fs = fs, .inode = inode_take, .fd = -1};
    uint32_t mount = pt_index_mount(fs, node.inode);
    if (has(synced, mount) || pt_node_pin(&node, PT_PIN_BRIEFLY) < 0) {
        return 0;
    }
    int r = sync_node(fs, &node);
    if (r == -EINVAL || r == -ESTALE) {
        return 0;
    }
    add(synced, mount);
    return r;
}

/* All are synced, whatever comes of one of them; the first error is the answer. */
static int sync_others(PtFs *fs, uint32_t own_mount)
{
    uint32_t n = pt_slots_end(&fs->mounts.slots);
    g_auto(MountSet) synced = {calloc(n / 8 + 1, 1), n};
    if (synced.bits == NULL) {
        return -ENOMEM;
    }
    add(&synced, own_mount);
    int result = 0;
    for (uint32_t i = 1; i < pt_slots_end(&fs->inodes); i++) {
        PtInode *inode = pt_inode_at(fs, i);
        if (inode != NULL && pt_slot_ref_live(&inode->slot)) {
            int r = sync_other(fs, inode, &synced);
            result = result < 0 ? result : r;
        }
    }
    return result;
}

int pt_syncfs(PtFs *fs, uint64_t nodeid)
{
    g_auto(PtNode) node = {0};
    int r = pt_node_get(fs, nodeid, &node);
    if (r < 0) {
        return r;
    }
    bool is_all = nodeid == PT_ROOT_ID && !fs->config.announce_submounts;
    int others = is_all ? sync_others(fs, pt_index_mount(fs, node.inode)) : 0;
    r = sync_node(fs, &node);
    return r < 0 ? r : others;
}
