/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/lock-table.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "passthrough/internal.h"

/*
 * One mutex guards it all; what is done under it is a walk along one bucket. An owner
 * ends when its process closes the file (FLUSH) or, were that never said, with the handle
 * that it was made through. A request that is using its descriptor then keeps it open a
 * little longer.
 */

void pt_locks_init(PtLocks *locks)
{
    pthread_mutex_init(&locks->lock, NULL); /* the default kind cannot fail */
}

void pt_locks_clear(PtLocks *locks)
{
    pthread_mutex_destroy(&locks->lock);
}

PtLockOwner *pt_lock_owner_new(const PtLock *lock, PtFd *fd, int accmode)
{
    PtLockOwner *owner = calloc(1, sizeof(*owner));
    if (owner != NULL) {
        owner->references = 1;
        owner->nodeid = lock->nodeid;
        owner->owner = lock->owner;
        owner->handle = lock->handle;
        owner->fd = pt_fd_steal(fd);
        owner->readable = accmode != O_WRONLY;
        owner->writable = accmode != O_RDONLY;
    }
    return owner;
}

static PtLockOwner **bucket_of(PtFs *fs, uint64_t nodeid)
{
    uint64_t hash = pt_hash(&fs->hash_key, &nodeid, sizeof(nodeid));
    return &fs->locks.buckets[hash % PT_LOCK_BUCKETS];
}

/* Free a chain of owners without references. Context: no lock is held. */
static void free_all(PtFs *fs, PtLockOwner *owner)
{
    while (owner != NULL) {
        PtLockOwner *next = owner->next;
        pt_fd_close(fs, owner->fd);
        free(owner);
        owner = next;
    }
}

/* Context: the lock is held, as for all that are called *_locked. */
static PtLockOwner *find_locked(PtFs *fs, uint64_t nodeid, uint64_t owner,
                                uint32_t *ret_n_of_file)
{
    uint32_t n = 0;
    PtLockOwner *found = NULL;
    for (PtLockOwner *at = *bucket_of(fs, nodeid); at != NULL; at = at->next) {
        if (at->nodeid == nodeid) {
            n++;
            found = at->owner == owner ? at : found;
        }
    }
    *ret_n_of_file = n;
    return found;
}

/* Take what is at @where out of the table. Return: it if it is to be freed, chained to
 * @gone; else @gone. */
static PtLockOwner *remove_locked(PtFs *fs, PtLockOwner **where, PtLockOwner *gone)
{
    PtLockOwner *owner = *where;
    *where = owner->next;
    fs->locks.n--;
    if (--owner->references > 0) {
        owner->next = NULL;
        return gone;
    }
    owner->next = gone;
    return owner;
}

PtLockOwner *pt_locks_get(PtFs *fs, const PtLock *lock)
{
    uint32_t n;
    pthread_mutex_lock(&fs->locks.lock);
    PtLockOwner *found = find_locked(fs, lock->nodeid, lock->owner, &n);
    if (found != NULL) {
        found->references++;
    }
    pthread_mutex_unlock(&fs->locks.lock);
    return found;
}

void pt_locks_put(PtFs *fs, PtLockOwner *owner)
{
    pthread_mutex_lock(&fs->locks.lock);
    bool is_last = --owner->references == 0;
    pthread_mutex_unlock(&fs->locks.lock);
    if (is_last) {
        owner->next = NULL;
        free_all(fs, owner);
    }
}

static int add_locked(PtFs *fs, PtHandle *handle, PtLockOwner *owner,
                      PtLockOwner **ret_owner)
{
    uint32_t n_of_file;
    PtLockOwner *found = find_locked(fs, owner->nodeid, owner->owner, &n_of_file);
    if (found == NULL) {
        if (!atomic_load_explicit(&handle->open, memory_order_relaxed)) {
            return -EBADF; /* pt_locks_drop_handle() has been, or will be */
        }
        if (n_of_file >= PT_LOCK_OWNERS_OF_FILE_MAX ||
            fs->locks.n >= PT_LOCK_OWNERS_MAX) {
            return -ENOLCK;
        }
        PtLockOwner **bucket = bucket_of(fs, owner->nodeid);
        owner->next = *bucket;
        *bucket = owner;
        owner->references++;
        fs->locks.n++;
        found = owner;
    }
    found->references++;
    *ret_owner = found;
    return 0;
}

int pt_locks_add(PtFs *fs, PtHandle *handle, PtLockOwner *owner, PtLockOwner **ret_owner)
{
    pthread_mutex_lock(&fs->locks.lock);
    int r = add_locked(fs, handle, owner, ret_owner);
    pthread_mutex_unlock(&fs->locks.lock);
    return r;
}

bool pt_locks_note(PtFs *fs, PtLockOwner *owner, const PtLock *lock)
{
    const PtLockRange range = {lock->start, lock->end, lock->type};
    pthread_mutex_lock(&fs->locks.lock);
    pt_lock_ranges_set(&owner->ranges, &range);
    owner->n_changes++;
    owner->pid = lock->pid;
    bool is_replaced = owner->replaced;
    pthread_mutex_unlock(&fs->locks.lock);
    return !is_replaced;
}

uint32_t pt_locks_copy(PtFs *fs, const PtLockOwner *owner, PtLockRanges *ret_ranges)
{
    pthread_mutex_lock(&fs->locks.lock);
    *ret_ranges = owner->ranges;
    uint32_t n_changes = owner->n_changes;
    pthread_mutex_unlock(&fs->locks.lock);
    return n_changes;
}

static bool replace_locked(PtFs *fs, PtLockOwner *owner, PtLockOwner *successor,
                           uint32_t n_changes)
{
    PtLockOwner **at = bucket_of(fs, owner->nodeid);
    while (*at != NULL && *at != owner) {
        at = &(*at)->next;
    }
    if (*at == NULL || owner->n_changes != n_changes) {
        return false;
    }
    successor->next = owner->next;
    successor->ranges = owner->ranges;
    successor->pid = owner->pid;
    successor->references++;
    *at = successor;
    owner->next = NULL;
    owner->replaced = true;
    owner->references--; /* the caller has another one */
    return true;
}

bool pt_locks_replace(PtFs *fs, PtLockOwner *owner, PtLockOwner *successor,
                      uint32_t n_changes)
{
    pthread_mutex_lock(&fs->locks.lock);
    bool is_replaced = replace_locked(fs, owner, successor, n_changes);
    pthread_mutex_unlock(&fs->locks.lock);
    return is_replaced;
}

void pt_locks_drop_owner(PtFs *fs, uint64_t nodeid, uint64_t owner)
{
    PtLockOwner *gone = NULL;
    pthread_mutex_lock(&fs->locks.lock);
    PtLockOwner **at = bucket_of(fs, nodeid);
    while (*at != NULL && ((*at)->nodeid != nodeid || (*at)->owner != owner)) {
        at = &(*at)->next;
    }
    if (*at != NULL) {
        gone = remove_locked(fs, at, NULL);
    }
    pthread_mutex_unlock(&fs->locks.lock);
    free_all(fs, gone);
}

void pt_locks_drop_handle(PtFs *fs, const PtHandle *handle)
{
    uint64_t id = pt_slot_id(&handle->slot);
    PtLockOwner *gone = NULL;
    pthread_mutex_lock(&fs->locks.lock);
    PtLockOwner **at = bucket_of(fs, handle->nodeid);
    while (*at != NULL) {
        if ((*at)->handle == id) {
            gone = remove_locked(fs, at, gone);
        } else {
            at = &(*at)->next;
        }
    }
    pthread_mutex_unlock(&fs->locks.lock);
    free_all(fs, gone);
}

bool pt_locks_holder(PtFs *fs, const PtLock *lock, PtLockHolder *ret_holder)
{
    const PtLockRange range = {lock->start, lock->end, lock->type};
    bool is_found = false;
    pthread_mutex_lock(&fs->locks.lock);
    for (const PtLockOwner *at = *bucket_of(fs, lock->nodeid); at != NULL && !is_found;
         at = at->next) {
        if (at->nodeid == lock->nodeid && at->owner != lock->owner &&
            pt_lock_ranges_conflict(&at->ranges, &range)) {
            *ret_holder = (PtLockHolder){at->owner, at->pid};
            is_found = true;
        }
    }
    pthread_mutex_unlock(&fs->locks.lock);
    return is_found;
}
