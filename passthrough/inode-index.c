/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/inode-index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "passthrough/internal.h"

/*
 * Chained hash tables of slot indices. The hash is keyed with a secret: a guest that
 * chooses which files exist cannot make their chains long. An inode whose last reference
 * is gone may still be found in its chain for a moment; it cannot be referenced, so it is
 * passed over.
 *
 * Chains may hold several inodes of one number: where a server used a number again, and
 * files with hard links on overlayfs.
 */

enum { FIRST_HEADS = 8 };

static PtInode *inode_at(const PtFs *fs, uint32_t index)
{
    return (PtInode *)(void *)pt_slots_given(&fs->inodes, index);
}

static uint32_t next_of(PtInode *inode)
{
    return atomic_load_explicit(&inode->slot.next, memory_order_relaxed);
}

static void set_next(PtInode *inode, uint32_t next)
{
    atomic_store_explicit(&inode->slot.next, next, memory_order_relaxed);
}

static uint32_t hash_of(PtInode *inode)
{
    return atomic_load_explicit(&inode->hash, memory_order_relaxed);
}

static uint32_t hash_key(const PtFs *fs, const PtKey *key)
{
    const PtIdentity *id = &key->identity;
    uint64_t words[3] = {id->mount_id, id->dev, id->ino};
    if (key->kind == PT_KEY_NAME) {
        /* A copy-up changes device and number, and leaves mount and name. */
        words[1] = key->tag;
        words[2] = 0;
    }
    return (uint32_t)pt_hash(&fs->hash_key, words, sizeof(words));
}

static PtShard *shard_of(PtFs *fs, uint32_t hash)
{
    return &fs->index.shards[hash % PT_SHARDS];
}

static uint32_t *head_of(PtShard *shard, uint32_t hash)
{
    return &shard->heads[hash / PT_SHARDS & (shard->n_heads - 1)];
}

/* Neither can fail: the locks are plain ones, and not held by this thread. */
static void lock(PtShard *shard)
{
    (void)pthread_mutex_lock(&shard->lock);
}

static void unlock(PtShard *shard)
{
    (void)pthread_mutex_unlock(&shard->lock);
}

int pt_index_init(PtIndex *index)
{
    memset(index, 0, sizeof(*index));
    for (size_t i = 0; i < PT_SHARDS; i++) {
        int error = pthread_mutex_init(&index->shards[i].lock, NULL);
        if (error != 0) {
            return -error;
        }
    }
    return 0;
}

void pt_index_clear(PtIndex *index)
{
    for (size_t i = 0; i < PT_SHARDS; i++) {
        PtShard *shard = &index->shards[i];
        free(shard->heads);
        shard->heads = NULL;
        shard->n_heads = 0;
        shard->n_inodes = 0;
    }
}

/* ---- Context of all in this part: the shard is locked ------------------------------ */

static bool key_matches(const PtFs *fs, const PtInode *inode, const PtKey *key,
                        bool exact)
{
    const PtIdentity *id = &key->identity;
    const PtMount *mount = pt_mount_at(&fs->mounts, inode->mount);
    bool same_number = inode->ino == id->ino && mount->dev == id->dev;
    if (inode->key_kind != key->kind || inode->tag != key->tag ||
        mount->mount_id != id->mount_id) {
        return false;
    }
    if (exact) {
        return same_number && inode->btime == id->btime;
    }
    return same_number || key->kind == PT_KEY_NAME;
}

static PtInode *find_in(PtFs *fs, PtShard *shard, uint32_t hash, const PtKey *key,
                        bool exact)
{
    if (shard->n_heads == 0) {
        return NULL;
    }
    uint32_t index = *head_of(shard, hash);
    while (index != 0) {
        PtInode *inode = inode_at(fs, index);
        if (hash_of(inode) == hash && key_matches(fs, inode, key, exact) &&
            pt_slot_ref_live(&inode->slot)) {
            return inode;
        }
        index = next_of(inode);
    }
    return NULL;
}

static void link_in(PtShard *shard, PtInode *inode, uint32_t hash)
{
    uint32_t *head = head_of(shard, hash);
    set_next(inode, *head);
    *head = inode->slot.index;
    shard->n_inodes++;
}

static void unlink_from(PtFs *fs, PtShard *shard, PtInode *inode, uint32_t hash)
{
    uint32_t *head = head_of(shard, hash);
    shard->n_inodes--;
    if (*head == inode->slot.index) {
        *head = next_of(inode);
        return;
    }
    for (uint32_t index = *head; index != 0;) {
        PtInode *before = inode_at(fs, index);
        index = next_of(before);
        if (index == inode->slot.index) {
            set_next(before, next_of(inode));
            return;
        }
    }
}

static void set_key(PtFs *fs, PtInode *inode, const PtKey *key, uint32_t hash)
{
    if (key->kind == PT_KEY_NAME) {
        atomic_fetch_add_explicit(&fs->n_linked, 1, memory_order_relaxed);
    }
    inode->ino = key->identity.ino;
    inode->btime = key->identity.btime;
    inode->tag = key->tag;
    inode->key_kind = (uint8_t)key->kind;
    atomic_store_explicit(&inode->hash, hash, memory_order_relaxed);
}

static void forget_key(PtFs *fs, PtInode *inode)
{
    if (inode->key_kind == PT_KEY_NAME) {
        atomic_fetch_sub_explicit(&fs->n_linked, 1, memory_order_relaxed);
    }
}

static void rehash(PtFs *fs, PtShard *shard, uint32_t *heads, uint32_t n_heads)
{
    uint32_t *old = shard->heads;
    uint32_t n_old = shard->n_heads;
    shard->heads = heads;
    shard->n_heads = n_heads;
    shard->n_inodes = 0;
    for (uint32_t i = 0; i < n_old; i++) {
        for (uint32_t index = old[i]; index != 0;) {
            PtInode *inode = inode_at(fs, index);
            index = next_of(inode);
            link_in(shard, inode, hash_of(inode));
        }
    }
}

/* ---- end of: the shard is locked --------------------------------------------------- */

/* Make room for one more. Only a shard without any room fails. */
static bool make_room(PtFs *fs, PtShard *shard)
{
    lock(shard);
    uint32_t n_heads = shard->n_heads;
    bool full = shard->n_inodes >= n_heads;
    unlock(shard);
    if (!full || n_heads >= UINT32_MAX / PT_SHARDS) {
        return true;
    }
    uint32_t more = n_heads == 0 ? FIRST_HEADS : n_heads * 2;
    uint32_t *heads = calloc(more, sizeof(*heads));
    if (heads == NULL) {
        return n_heads != 0; /* longer chains, then */
    }
    uint32_t *unused = heads;
    lock(shard);
    if (shard->n_heads == n_heads) {
        unused = shard->heads;
        rehash(fs, shard, heads, more);
    }
    unlock(shard);
    free(unused);
    return true;
}

PtInode *pt_index_find(PtFs *fs, const PtKey *key, bool *ret_exact)
{
    uint32_t hash = hash_key(fs, key);
    PtShard *shard = shard_of(fs, hash);
    lock(shard);
    PtInode *inode = find_in(fs, shard, hash, key, true);
    *ret_exact = inode != NULL;
    if (inode == NULL) {
        inode = find_in(fs, shard, hash, key, false);
    }
    unlock(shard);
    return inode;
}

int pt_index_insert(PtFs *fs, PtInode *inode, const PtKey *key, PtInode **ret_other)
{
    uint32_t hash = hash_key(fs, key);
    PtShard *shard = shard_of(fs, hash);
    *ret_other = NULL;
    if (!make_room(fs, shard)) {
        return -ENOMEM;
    }
    lock(shard);
    /* Without a file handle nothing here tells a used-again number from a known one. */
    bool comparable = !pt_mount_reuses(inode->mount_class) || key->tag != 0;
    PtInode *other = comparable ? find_in(fs, shard, hash, key, true) : NULL;
    if (other == NULL) {
        set_key(fs, inode, key, hash);
        link_in(shard, inode, hash);
        pt_slot_publish(&inode->slot);
    }
    unlock(shard);
    *ret_other = other;
    return 0;
}

void pt_index_remove(PtFs *fs, PtInode *inode)
{
    uint32_t hash = hash_of(inode); /* no references: nobody changes it any more */
    PtShard *shard = shard_of(fs, hash);
    lock(shard);
    unlink_from(fs, shard, inode, hash);
    forget_key(fs, inode);
    unlock(shard);
}

static void lock_both(PtShard *a, PtShard *b)
{
    lock(a < b ? a : b);
    if (a != b) {
        lock(a < b ? b : a);
    }
}

static void unlock_both(PtShard *a, PtShard *b)
{
    unlock(a);
    if (a != b) {
        unlock(b);
    }
}

void pt_index_rekey(PtFs *fs, PtInode *inode, const PtKey *key, PtMount *mount)
{
    uint32_t to_hash = hash_key(fs, key);
    PtShard *to = shard_of(fs, to_hash);
    PtMount *unused = mount;
    if (make_room(fs, to)) {
        uint32_t hash = hash_of(inode);
        PtShard *from = shard_of(fs, hash);
        lock_both(from, to);
        while (hash_of(inode) != hash) { /* another thread was first */
            unlock_both(from, to);
            hash = hash_of(inode);
            from = shard_of(fs, hash);
            lock_both(from, to);
        }
        if (inode->key_kind == PT_KEY_NAME) {
            unlink_from(fs, from, inode, hash);
            forget_key(fs, inode);
            unused = pt_mount_at(&fs->mounts, inode->mount);
            inode->mount = mount->slot.index;
            set_key(fs, inode, key, to_hash);
            link_in(to, inode, to_hash);
        }
        unlock_both(from, to);
    }
    pt_mount_put(&fs->mounts, unused);
}

/* Lock the shard that the inode is in. */
static PtShard *lock_shard_of(PtFs *fs, PtInode *inode)
{
    for (;;) {
        uint32_t hash = hash_of(inode);
        PtShard *shard = shard_of(fs, hash);
        lock(shard);
        if (hash_of(inode) == hash) {
            return shard;
        }
        unlock(shard);
    }
}

PtIdentity pt_index_identity(PtFs *fs, PtInode *inode)
{
    PtShard *shard = lock_shard_of(fs, inode);
    const PtMount *mount = pt_mount_at(&fs->mounts, inode->mount);
    PtIdentity id = {mount->mount_id, mount->dev, inode->ino, inode->btime};
    unlock(shard);
    return id;
}

uint32_t pt_index_mount(PtFs *fs, PtInode *inode)
{
    PtShard *shard = lock_shard_of(fs, inode);
    uint32_t mount = inode->mount;
    unlock(shard);
    return mount;
}

void pt_index_set_btime(PtFs *fs, PtInode *inode, uint64_t btime)
{
    PtShard *shard = lock_shard_of(fs, inode);
    inode->btime = btime;
    unlock(shard);
}
