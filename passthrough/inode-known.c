/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "passthrough/inode-hold.h"
#include "passthrough/inode-index.h"
#include "passthrough/inode-known.h"
#include "passthrough/inode-pin.h"
#include "passthrough/inode-place.h"
#include "passthrough/inode.h"
#include "passthrough/internal.h"

/*
 * Recognising files: whether what was seen at a name, or opened, is an inode already.
 * What makes them out is told in inode.c.
 */

bool pt_inode_on_mount(PtFs *fs, const PtInode *directory, const PtIdentity *id)
{
    const PtMount *mount = pt_mount_at(&fs->mounts, directory->mount);
    return mount->mount_id == id->mount_id && mount->dev == id->dev;
}

bool pt_inode_crosses_mount(PtFs *fs, const PtInode *parent, const struct statx *seen)
{
    PtIdentity id = pt_identity(seen);
    return !pt_inode_on_mount(fs, parent, &id);
}

/* The tag of an inode known by name. The name is one component, checked before. */
uint64_t pt_place_tag(PtFs *fs, const PtPlace *place)
{
    char bytes[sizeof(uint64_t) + PT_NAME_MAX];
    uint64_t parent = pt_slot_id(&place->parent->slot);
    size_t length = strnlen(place->name, PT_NAME_MAX);
    memcpy(bytes, &parent, sizeof(parent));
    memcpy(bytes + sizeof(parent), place->name, length);
    return pt_hash(&fs->hash_key, bytes, sizeof(parent) + length);
}

/* Whether the inode has a descriptor, and that says that it is this file. */
static bool held_is(PtFs *fs, PtInode *inode, const PtIdentity *id)
{
    struct statx now;
    pt_inode_ref(inode);
    g_auto(PtNode) node = {.fs = fs, .inode = inode, .fd = -1};
    if (!pt_node_pin_open(&node) || pt_stat(fs, node.fd, "", &now) < 0) {
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
    if (pt_mount_reuses(inode->mount_class)) {
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
    int r = pt_mount_get(&fs->mounts, id->mount_id, id->dev, pt_hold_fd(inode), &mount);
    if (r == 0) {
        pt_index_rekey(fs, inode, key, mount);
    }
}

static PtInode *known_by_name(PtFs *fs, const PtPlace *place, const PtIdentity *id)
{
    if (place->name == NULL ||
        atomic_load_explicit(&fs->n_linked, memory_order_relaxed) == 0) {
        return NULL;
    }
    PtKey key = {*id, pt_place_tag(fs, place), PT_KEY_NAME};
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

/* Where an inode is seen, that is where it will be looked for. */
static void note_place(PtFs *fs, PtInode *inode, const PtPlace *place)
{
    struct statx again;
    if (inode->held != PT_HELD_NAME || place->name == NULL ||
        pt_home_is(fs, inode, place)) {
        return;
    }
    PtStamp stamp = pt_stamp(fs, place->parent);
    if (!stamp.quiet || pt_stat(fs, place->dir_fd, place->name, &again) < 0) {
        return;
    }
    PtIdentity seen = pt_identity(&again);
    PtIdentity known = pt_index_identity(fs, inode);
    if (pt_identity_equal(&seen, &known)) {
        pt_home_set(fs, inode, place, strdup(place->name), &stamp);
    }
}

PtInode *pt_inode_find(PtFs *fs, const PtPlace *place, const PtKey *key, bool opened)
{
    PtInode *inode = known_by_number(fs, key, opened);
    if (inode == NULL) {
        return known_by_name(fs, place, &key->identity);
    }
    note_place(fs, inode, place);
    return inode;
}

PtInode *pt_inode_known(PtFs *fs, const PtPlace *place, const struct statx *seen)
{
    PtKey key = {pt_identity(seen), 0, PT_KEY_NUMBER};
    return pt_inode_find(fs, place, &key, false);
}

PtInode *pt_inode_seen(PtFs *fs, const struct statx *seen)
{
    PtKey key = {pt_identity(seen), 0, PT_KEY_NUMBER};
    bool exact = false;
    PtInode *inode = pt_index_find(fs, &key, &exact);
    if (inode != NULL && !exact) {
        pt_inode_put(fs, inode);
        inode = NULL;
    }
    return inode;
}

PtInode *pt_inode_linked_at(PtFs *fs, const PtPlace *place)
{
    if (atomic_load_explicit(&fs->n_linked, memory_order_relaxed) == 0) {
        return NULL;
    }
    const PtMount *mount = pt_mount_at(&fs->mounts, place->parent->mount);
    PtIdentity id = {.mount_id = mount->mount_id};
    PtKey key = {id, pt_place_tag(fs, place), PT_KEY_NAME};
    bool exact = false;
    return pt_index_find(fs, &key, &exact);
}

void pt_inode_settle(PtFs *fs, PtInode *inode)
{
    struct statx now;
    if (inode->held != PT_HELD_OPEN) {
        return; /* it is known by its number already */
    }
    if (pt_stat(fs, pt_hold_fd(inode), "", &now) == 0) {
        PtKey key = {pt_identity(&now), 0, PT_KEY_NUMBER};
        rekey(fs, inode, &key);
    }
}
