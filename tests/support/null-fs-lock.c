/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks of the file system that does nothing: see null-fs.h.
 */
#include <errno.h>
#include <fcntl.h>

#include "tests/support/null-fs-private.h"

static int set(PtFs *fs, _Atomic uint64_t *place, uint64_t owner, uint32_t type)
{
    uint64_t now = 0;
    uint64_t ours = owner + 1;

    if (type == F_UNLCK) {
        now = ours;
        (void)atomic_compare_exchange_strong_explicit(
            place, &now, 0, memory_order_relaxed, memory_order_relaxed);
        return 0;
    }
    atomic_store_explicit(&null_fs_locks(fs)->is_used, true, memory_order_relaxed);
    bool is_taken = atomic_compare_exchange_strong_explicit(
        place, &now, ours, memory_order_relaxed, memory_order_relaxed);
    return is_taken || now == ours ? 0 : -EAGAIN;
}

static void note(PtFs *fs, const char *function, const PtLock *lock)
{
    null_fs_note(fs,
                 &(NullFsCall){.function = function,
                               .nodeid = lock->nodeid,
                               .handle = lock->handle,
                               .other = lock->owner,
                               .offset = lock->start,
                               .bytes = lock->end,
                               .flags = lock->type,
                               .mode = lock->pid},
                 NULL, NULL);
}

int pt_lock_set(PtFs *fs, const PtLock *lock)
{
    int result = null_fs_begin(fs, lock->nodeid);

    note(fs, __func__, lock);
    if (result == 0) {
        result =
            set(fs, &null_fs_locks(fs)->owners[lock->nodeid], lock->owner, lock->type);
    }
    return null_fs_end(fs, result);
}

int pt_flock(PtFs *fs, const PtLock *lock)
{
    int result = null_fs_begin(fs, lock->nodeid);

    note(fs, __func__, lock);
    if (result == 0) {
        result =
            set(fs, &null_fs_locks(fs)->handles[lock->nodeid], lock->handle, lock->type);
    }
    return null_fs_end(fs, result);
}

bool pt_lock_holder(PtFs *fs, const PtLock *lock, uint64_t *ret_owner)
{
    uint64_t now = atomic_load_explicit(&null_fs_locks(fs)->owners[lock->nodeid],
                                        memory_order_relaxed);

    *ret_owner = now - 1;
    return now != 0 && now != lock->owner + 1;
}

int pt_lock_get(PtFs *fs, PtLock *lock)
{
    int result = null_fs_begin(fs, lock->nodeid);
    uint64_t owner;

    note(fs, __func__, lock);
    if (result == 0 && pt_lock_holder(fs, lock, &owner)) {
        lock->type = F_WRLCK;
        lock->pid = (uint32_t)owner;
    } else {
        lock->type = F_UNLCK;
    }
    return null_fs_end(fs, result);
}

void pt_lock_close(PtFs *fs, uint64_t nodeid, uint64_t owner)
{
    if (null_fs_begin(fs, nodeid) == 0) {
        (void)set(fs, &null_fs_locks(fs)->owners[nodeid], owner, F_UNLCK);
    }
    (void)null_fs_end(fs, 0);
}

void null_fs_locks_reset(PtFs *fs)
{
    NullFsLocks *locks = null_fs_locks(fs);

    if (!atomic_exchange_explicit(&locks->is_used, false, memory_order_relaxed)) {
        return;
    }
    for (size_t i = 0; i <= NULL_FS_NODES; i++) {
        atomic_store_explicit(&locks->owners[i], 0, memory_order_relaxed);
        atomic_store_explicit(&locks->handles[i], 0, memory_order_relaxed);
    }
}
