/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_LOCK_TABLE_H
#define PASSTHROUGH_LOCK_TABLE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "passthrough/fd.h"
#include "passthrough/handle.h"
#include "passthrough/lock-ranges.h"
#include "passthrough/passthrough.h"

/*
 * Who in the guest holds record locks on what. Each owner has a descriptor of its own per
 * file: the host sees one open file description where the guest sees one process.
 */

/** A guest has at most so many owners, and so many of one file; then it has ENOLCK. */
#define PT_LOCK_OWNERS_MAX 65536u
#define PT_LOCK_OWNERS_OF_FILE_MAX 4096u
#define PT_LOCK_BUCKETS 1024u

/** typedef PtLockOwner - one process' locks on one file. */
typedef struct PtLockOwner {
    struct PtLockOwner *next; /* chain of its bucket, under PtLocks.lock, as are: */
    uint32_t references;      /* the table's own included */
    uint32_t pid;             /* in the guest, as last told */
    uint32_t n_changes;       /* of @ranges */
    bool replaced;            /* by one whose descriptor may do more */
    PtLockRanges ranges;

    /* Fixed. */
    uint64_t nodeid;
    uint64_t owner;
    uint64_t handle; /* that it was made through, and ends with */
    int fd;          /* nothing but locks is done with it */
    bool readable;
    bool writable;
} PtLockOwner;

/** typedef PtLocks - the table. */
typedef struct PtLocks {
    pthread_mutex_t lock;
    uint32_t n;                            /* under lock */
    PtLockOwner *buckets[PT_LOCK_BUCKETS]; /* by node id; under lock */
} PtLocks;

void pt_locks_init(PtLocks *locks);
/** pt_locks_clear() - Context: all handles are gone, and with them all owners. */
void pt_locks_clear(PtLocks *locks);

/** pt_lock_owner_new() - one that is in no table yet, with one reference.
 * @fd: taken on success; opened with @accmode.
 * Return: it, or NULL when memory is short. */
PtLockOwner *pt_lock_owner_new(const PtLock *lock, PtFd *fd, int accmode);

/** pt_locks_get() - Return: the owner of @lock on its file, referenced, or NULL. */
PtLockOwner *pt_locks_get(PtFs *fs, const PtLock *lock);
void pt_locks_put(PtFs *fs, PtLockOwner *owner);

/**
 * pt_locks_add() - enter an owner, unless another thread was first.
 * @handle: that @owner was made through.
 * @ret_owner: the one in the table, referenced: @owner or that other one.
 *
 * Return: 0, -EBADF if the handle was released meanwhile, -ENOLCK if there are too many.
 */
int pt_locks_add(PtFs *fs, PtHandle *handle, PtLockOwner *owner, PtLockOwner **ret_owner);

/** pt_locks_note() - remember what was just done with @owner's descriptor.
 * Return: false if @owner was replaced: it was done in vain. */
bool pt_locks_note(PtFs *fs, PtLockOwner *owner, const PtLock *lock);

/** pt_locks_copy() - Return: how often the ranges have changed, for pt_locks_replace().
 */
uint32_t pt_locks_copy(PtFs *fs, const PtLockOwner *owner, PtLockRanges *ret_ranges);

/** pt_locks_replace() - put @successor, which holds the same locks, in @owner's place.
 * Return: false if @owner's ranges have changed since @n_changes, or it is gone. */
bool pt_locks_replace(PtFs *fs, PtLockOwner *owner, PtLockOwner *successor,
                      uint32_t n_changes);

/** pt_locks_drop_owner() - the process has closed the file: its locks on it end. */
void pt_locks_drop_owner(PtFs *fs, uint64_t nodeid, uint64_t owner);
/** pt_locks_drop_handle() - the open file is gone, and with it whoever came by it. */
void pt_locks_drop_handle(PtFs *fs, const PtHandle *handle);

/** struct PtLockHolder - somebody in the guest. */
typedef struct PtLockHolder {
    uint64_t owner;
    uint32_t pid;
} PtLockHolder;

/** pt_locks_holder() - who else in the guest holds what keeps @lock from being had?
 * Return: whether somebody was found. */
bool pt_locks_holder(PtFs *fs, const PtLock *lock, PtLockHolder *ret_holder);

#endif
