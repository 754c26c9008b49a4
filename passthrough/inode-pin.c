/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/inode-pin.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "passthrough/cred.h"
#include "passthrough/file-handle.h"
#include "passthrough/handle.h"
#include "passthrough/inode-hold.h"
#include "passthrough/inode-known.h"
#include "passthrough/inode-place.h"
#include "passthrough/internal.h"

/*
 * Opening what is held by name. The way begins at the nearest directory above that has a
 * descriptor and goes down by one name at a time; each step opens, and then compares what
 * it found with what the inode is known to be. Another file there is ESTALE: the host has
 * replaced it.
 *
 * If the guest itself renames or removes something on the way, the step fails too, but
 * not for good: the stamp of the directory tells, and the way is gone again.
 *
 * However long the way is, no more than two descriptors are in use at once, and of the
 * inodes on it only the uppermost ones are remembered: those below are found again when
 * these have been passed. What is only passed by evicts nothing: the one evicted could be
 * higher up on this very way, and to ask the host about it would be a way again.
 */

enum {
    WAY = 32,          /* steps of a way that are remembered */
    DEPTH_MAX = 65536, /* steps of any way */
    TRIES = 20,        /* while the guest changes names */
    TRIES_AT_ONCE = 4, /* before each of the others, sleep for a millisecond */
};

typedef struct Way {
    PtInode *inodes[WAY]; /* a ring of references, the uppermost last */
    unsigned int end;
    unsigned int n;
} Way;

static void push(PtFs *fs, Way *way, PtInode *inode_take)
{
    if (way->n == WAY) {
        pt_inode_put(fs, way->inodes[way->end % WAY]);
        way->n--;
    }
    way->inodes[way->end++ % WAY] = inode_take;
    way->n++;
}

static PtInode *pop(Way *way)
{
    if (way->n == 0) {
        return NULL;
    }
    way->n--;
    return way->inodes[--way->end % WAY];
}

bool pt_node_pin_open(PtNode *node)
{
    if (node->inode->held == PT_HELD_OPEN) {
        node->fd = pt_hold_fd(node->inode);
        return true;
    }
    node->fd = pt_hold_pin(node->inode);
    node->whose = node->fd < 0 ? PT_NODE_FD_BORROWED : PT_NODE_FD_PINNED;
    return node->fd >= 0;
}

static bool is_it(const PtNode *node, const struct statx *seen)
{
    PtIdentity found = pt_identity(seen);
    PtIdentity known = pt_index_identity(node->fs, node->inode);
    return pt_identity_equal(&found, &known);
}

/* Whether a descriptor is of the node's file, which the node's owner is told about. */
static bool is_of(const PtNode *node, int fd)
{
    struct statx mine;
    struct statx *seen = node->seen == NULL ? &mine : node->seen;
    if (pt_stat(node->fs, fd, "", seen) == 0 && is_it(node, seen)) {
        return true;
    }
    seen->stx_mask = 0;
    return false;
}

/* Return: whether an inode may keep a descriptor that was opened for it. */
static bool reserve(PtFs *fs, PtPin pin, PtFd *ret_room)
{
    switch (pin) {
    case PT_PIN_KEEP:
        return pt_fd_reserve_idle(fs, ret_room) == 0;
    case PT_PIN_SPARE:
        return pt_fd_reserve_spare(fs, ret_room) == 0;
    case PT_PIN_BRIEFLY:
    default:
        return false;
    }
}

/* Give the node a descriptor that was opened for it. */
static void take_fd(PtNode *node, int fd_take, PtPin pin)
{
    PtFs *fs = node->fs;
    g_auto(PtFd) room = {.fd = -1};
    node->fd = fd_take;
    node->whose = PT_NODE_FD_OWN;
    if (reserve(fs, pin, &room) && pt_home_install(fs, node->inode, fd_take)) {
        room.fd = fd_take;
        (void)pt_fd_steal(&room); /* the inode has it already */
        node->whose = PT_NODE_FD_PINNED;
    }
}

/* One step down, to an inode that is in @base. */
static int step(const PtNode *base, PtNode *next, PtPin pin)
{
    PtFs *fs = base->fs;
    char name[PT_NAME_MAX + 1];
    if (pt_node_pin_open(next)) {
        return 0;
    }
    PtStamp stamp = pt_stamp(fs, base->inode);
    if (!pt_home_name(fs, next->inode, base->inode, name)) {
        return -EAGAIN;
    }
    int fd = pt_open_beneath(base->fd, name, O_PATH, 0);
    if (fd >= 0 && is_of(next, fd)) {
        take_fd(next, fd, pin);
        return 0;
    }
    if (fd >= 0) {
        (void)close(fd); /* only looked at */
    } else if (fd != -ENOENT && fd != -ENOTDIR) {
        return fd;
    }
    if (!pt_stamp_holds(fs, &stamp)) {
        return -EAGAIN;
    }
    pt_place_replaced(fs, base->inode);
    return -ESTALE;
}

/* Find the way from a directory with a descriptor down to @inode; @base, if set, is one
 * that was reached before. */
static int climb(PtFs *fs, PtInode *inode, PtNode *base, Way *way)
{
    pt_inode_ref(inode);
    push(fs, way, inode);
    for (int depth = 0; depth < DEPTH_MAX; depth++) {
        PtInode *parent = pt_home_parent(fs, inode);
        PtNode up = {.fs = fs, .inode = parent, .fd = -1};
        if (parent == NULL) {
            return -ESTALE;
        }
        if (parent == base->inode) {
            pt_inode_put(fs, parent);
            return 0;
        }
        if (pt_node_pin_open(&up)) {
            pt_node_clear(base);
            *base = up;
            return 0;
        }
        push(fs, way, parent);
        inode = parent;
    }
    return -ESTALE;
}

/* Go down, to @target, or to the end of what is remembered. */
static int descend(PtNode *target, PtNode *base, Way *way, PtPin pin)
{
    PtPin pin_passed = pin == PT_PIN_KEEP ? PT_PIN_SPARE : pin;
    for (PtInode *inode = pop(way); inode != NULL; inode = pop(way)) {
        bool last = inode == target->inode;
        PtNode next = {.fs = target->fs, .inode = inode, .fd = -1};
        next.seen = last ? target->seen : NULL;
        int r = step(base, &next, last ? pin : pin_passed);
        if (r == 0 && last) {
            target->fd = next.fd;
            target->whose = next.whose;
            pt_inode_put(target->fs, inode); /* @target has a reference itself */
            return 0;
        }
        if (r < 0) {
            pt_node_clear(&next);
            return r;
        }
        pt_node_clear(base);
        *base = next;
    }
    return 0;
}

static int go(PtNode *target, PtPin pin)
{
    PtFs *fs = target->fs;
    g_auto(PtNode) base = {.fd = -1};
    for (int passes = 0; passes < DEPTH_MAX / WAY; passes++) {
        Way way = {.n = 0};
        int r = climb(fs, target->inode, &base, &way);
        if (r == 0) {
            r = descend(target, &base, &way, pin);
        }
        for (PtInode *left = pop(&way); left != NULL; left = pop(&way)) {
            pt_inode_put(fs, left);
        }
        if (r < 0 || target->fd >= 0) {
            return r;
        }
    }
    return -ESTALE;
}

static int pin_by_name(PtNode *node, PtPin pin)
{
    int r = -EAGAIN;
    for (int i = 0; i < TRIES && r == -EAGAIN; i++) {
        if (i >= TRIES_AT_ONCE) {
            (void)poll(NULL, 0, 1); /* interrupted: sooner, then */
        }
        if (pt_node_pin_open(node)) {
            return 0;
        }
        r = go(node, pin);
    }
    return r == -EAGAIN ? -ESTALE : r;
}

/* The descriptor is closed with the node. The handle has told a file from one that has
 * its number now; whether it tells everything is the file system's matter. */
static int pin_by_handle(PtNode *node)
{
    PtFs *fs = node->fs;
    struct statx now;
    int fd = pt_file_handle_open(pt_mount_at(&fs->mounts, node->inode->mount),
                                 node->inode->handle);
    if (fd < 0) {
        return fd;
    }
    node->fd = fd;
    node->whose = PT_NODE_FD_OWN;
    int r = pt_stat(fs, fd, "", &now);
    if (r < 0) {
        return r;
    }
    PtIdentity found = pt_identity(&now);
    PtIdentity known = pt_index_identity(fs, node->inode);
    found.btime = known.btime; /* a copy-up changes it */
    return pt_identity_equal(&found, &known) ? 0 : -ESTALE;
}

int pt_node_pin(PtNode *node, PtPin pin)
{
    if (pt_node_pin_open(node)) {
        return 0;
    }
    bool by_handle = node->inode->held == PT_HELD_HANDLE;
    int r = by_handle ? pin_by_handle(node) : pin_by_name(node, pin);
    if (r != -ESTALE || pt_node_pin_open(node)) {
        return r == -ESTALE ? 0 : r;
    }
    /* What the guest has open is there, whatever has become of its name. */
    int fd = pt_handle_reopen(node->fs, pt_slot_id(&node->inode->slot));
    if (fd >= 0) {
        take_fd(node, fd, pin);
    }
    return fd < 0 ? -ESTALE : 0;
}

static bool guest_has(PtInode *inode)
{
    return atomic_load_explicit(&inode->nlookup, memory_order_relaxed) > 0;
}

/* A reference to the inode behind an id, without a descriptor. */
static int get(PtFs *fs, uint64_t nodeid, PtNode *ret_node)
{
    *ret_node = (PtNode){.fd = -1};
    if (!pt_thread_usable()) {
        return -EIO;
    }
    PtInode *inode = (PtInode *)(void *)pt_slots_get(&fs->inodes, nodeid);
    if (inode == NULL) {
        return -ESTALE;
    }
    *ret_node = (PtNode){.fs = fs, .inode = inode, .fd = -1};
    if (!guest_has(inode)) {
        pt_node_clear(ret_node);
        return -ESTALE;
    }
    return 0;
}

int pt_node_get_seen(PtFs *fs, uint64_t nodeid, PtNode *ret_node, struct statx *seen)
{
    int r = get(fs, nodeid, ret_node);
    if (r < 0) {
        return r;
    }
    ret_node->seen = seen;
    r = pt_node_pin(ret_node, PT_PIN_KEEP);
    if (r < 0) {
        pt_node_clear(ret_node);
    }
    return r;
}

int pt_node_get(PtFs *fs, uint64_t nodeid, PtNode *ret_node)
{
    return pt_node_get_seen(fs, nodeid, ret_node, NULL);
}

/* Whether an inode can do without a descriptor: it is rarely used, or there is no room.
 */
static bool may_stay_closed(PtFs *fs, PtInode *inode)
{
    return inode->held == PT_HELD_NAME &&
           (!pt_hold_note_use(inode) || !pt_fd_has_spare(fs));
}

/* Whether what is at the inode's place is the inode. */
static bool is_at_home(const PtNode *node, struct statx *ret_seen)
{
    g_auto(PtHome) home = {0};
    if (!pt_home_get(node->fs, node->inode, &home)) {
        return false;
    }
    pt_inode_ref(home.parent);
    g_auto(PtNode) parent = {.fs = node->fs, .inode = home.parent, .fd = -1};
    return pt_node_pin_open(&parent) &&
           pt_stat(node->fs, parent.fd, home.name, ret_seen) == 0 &&
           is_it(node, ret_seen);
}

int pt_node_stat(PtFs *fs, uint64_t nodeid, struct statx *ret_seen)
{
    g_auto(PtNode) node = {.fd = -1};
    int r = get(fs, nodeid, &node);
    if (r < 0) {
        return r;
    }
    if (!pt_node_pin_open(&node) && may_stay_closed(fs, node.inode) &&
        is_at_home(&node, ret_seen)) {
        return 0;
    }
    ret_seen->stx_mask = 0;
    node.seen = ret_seen;
    r = pt_node_pin(&node, PT_PIN_KEEP);
    return r < 0 || ret_seen->stx_mask != 0 ? r : pt_stat(fs, node.fd, "", ret_seen);
}

/* What was done by a descriptor of its own may have changed what the inode is told by:
 * overlayfs has then copied the file up. */
static void note_identity(PtFs *fs, PtInode *inode, int fd)
{
    struct statx now;
    if (inode->mount_class != PT_MOUNT_OVERLAY || pt_stat(fs, fd, "", &now) < 0) {
        return;
    }
    PtIdentity found = pt_identity(&now);
    PtIdentity known = pt_index_identity(fs, inode);
    if (found.btime != known.btime) {
        pt_index_set_btime(fs, inode, found.btime);
    }
}

void pt_node_clear(PtNode *node)
{
    if (node->whose == PT_NODE_FD_PINNED) {
        pt_hold_unpin(node->inode);
    }
    if (node->whose == PT_NODE_FD_OWN) {
        note_identity(node->fs, node->inode, node->fd);
        int saved = errno;
        (void)close(node->fd); /* O_PATH: nothing was written by it */
        errno = saved;
    }
    if (node->inode != NULL) {
        pt_inode_put(node->fs, node->inode);
    }
    *node = (PtNode){.fd = -1};
}

/* ---- what is about to be moved or removed -------------------------------------------
 */

static void pin_at(const PtPlace *place, PtNode *node)
{
    if (node->inode->held != PT_HELD_NAME || pt_node_pin_open(node)) {
        return;
    }
    int fd = pt_open_beneath(place->dir_fd, place->name, O_PATH, 0);
    if (fd >= 0 && is_of(node, fd)) {
        take_fd(node, fd, PT_PIN_KEEP);
    } else if (fd >= 0) {
        (void)close(fd); /* only looked at */
    }
}

void pt_node_at(PtFs *fs, const PtPlace *place, bool any, PtNode *ret_node)
{
    struct statx seen;
    *ret_node = (PtNode){.fd = -1};
    if (!any && !pt_place_is_named(fs, place)) {
        return;
    }
    if (pt_stat(fs, place->dir_fd, place->name, &seen) < 0) {
        return;
    }
    PtInode *inode = pt_inode_seen(fs, &seen);
    if (inode != NULL) {
        *ret_node = (PtNode){.fs = fs, .inode = inode, .fd = -1};
        pin_at(place, ret_node);
    }
}
