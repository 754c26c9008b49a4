/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks. What cannot be had at once, and may wait, goes to the table of waits and is
 * tried again from there; the worker goes on to other requests.
 *
 * The host does not look for processes that wait for each other: to it each of them is an
 * open file description. Guests do not either where locks are remote, and what waits
 * there cannot be killed, since Linux sends no INTERRUPT over virtio. So it is done here.
 */
#include "virtiofsd/fuse/op-lock.h"

#include <errno.h>
#include <fcntl.h>

#include "virtiofsd/fuse/reply.h"

/* So many owners in a row are looked at, as in Linux. */
#define DEADLOCK_CHAIN_MAX 10

static PtLock lock_of(const Request *request)
{
    const struct fuse_lk_in *in = &request->in.lk;

    return (PtLock){
        .nodeid = request->header.nodeid,
        .handle = in->fh,
        .owner = in->owner,
        .start = in->lk.start,
        .end = in->lk.end,
        .type = in->lk.type,
        .pid = in->lk.pid,
    };
}

int op_getlk(Request *request)
{
    PtLock lock = lock_of(request);

    if (!request->session->agreed.posix_locks) {
        return -ENOSYS;
    }
    int result = pt_lock_get(request->fs, &lock);
    if (result < 0) {
        return result;
    }
    const struct fuse_lk_out out = {
        .lk = {.start = lock.start, .end = lock.end, .type = lock.type, .pid = lock.pid}};
    return reply_bytes(request, &out, sizeof(out));
}

/* Try it, and if it may have made room for others, have them tried. */
static int try_lock(Session *session, const WaitRequest *wanted)
{
    const PtLock *lock = &wanted->lock;
    int result =
        wanted->whole ? pt_flock(session->fs, lock) : pt_lock_set(session->fs, lock);

    if (result == 0 && lock->type != F_WRLCK) {
        waits_kick(session->waits, lock->nodeid);
    }
    return result;
}

/* Does somebody wait, in the end, for what @lock's owner holds, who has what it wants? */
static bool is_deadlock(Session *session, const PtLock *lock)
{
    PtLock at = *lock;

    for (int i = 0; i < DEADLOCK_CHAIN_MAX; i++) {
        uint64_t holder;
        if (!pt_lock_holder(session->fs, &at, &holder)) {
            return false;
        }
        if (holder == lock->owner) {
            return true;
        }
        if (!waits_of_owner(session->waits, holder, &at)) {
            return false;
        }
    }
    return false;
}

/* What cannot be had at once waits, unless it would for ever. */
static int wait_for(Request *request, const WaitRequest *wanted)
{
    Session *session = request->session;

    /* Whoever comes last to a deadlock is who hears of it; of several who come at once
     * op_lock_retry() picks one. */
    if (!wanted->whole && is_deadlock(session, &wanted->lock)) {
        return -EDEADLK;
    }
    request->wait = request->may_wait ? waits_take(session->waits, wanted) : NULL;
    return request->wait != NULL ? 0 : -ENOLCK;
}

static int set_lock(Request *request, bool may_wait)
{
    Session *session = request->session;
    const WaitRequest wanted = {
        .lock = lock_of(request),
        .whole = (request->in.lk.lk_flags & FUSE_LK_FLOCK) != 0,
        .opcode = request->header.opcode,
        .unique = request->header.unique,
        .start_us = request->start_us,
    };

    if (!(wanted.whole ? session->agreed.flocks : session->agreed.posix_locks)) {
        return -ENOSYS;
    }
    int result = try_lock(session, &wanted);
    if (result != -EAGAIN) {
        return result;
    }
    /* flock(2) has given up the shared lock that was to become an exclusive one. */
    if (wanted.whole) {
        waits_kick(session->waits, wanted.lock.nodeid);
    }
    return may_wait ? wait_for(request, &wanted) : result;
}

int op_setlk(Request *request)
{
    return set_lock(request, false);
}

int op_setlkw(Request *request)
{
    return set_lock(request, true);
}

int op_lock_retry(Session *session, const WaitRequest *wanted)
{
    int result = try_lock(session, wanted);

    if (result == -EAGAIN && !wanted->whole && is_deadlock(session, &wanted->lock)) {
        return -EDEADLK;
    }
    return result;
}

void op_lock_flushed(Request *request)
{
    const struct fuse_flush_in *in = &request->in.flush;
    Session *session = request->session;

    if (session->agreed.posix_locks) {
        pt_lock_close(session->fs, request->header.nodeid, in->lock_owner);
        waits_end_handle(session->waits, in->fh, &in->lock_owner);
        waits_kick(session->waits, request->header.nodeid);
    }
}

void op_lock_released(Request *request)
{
    Session *session = request->session;

    if (session->waits != NULL) {
        waits_end_handle(session->waits, request->in.release.fh, NULL);
        waits_kick(session->waits, request->header.nodeid);
    }
}

int op_interrupt(Request *request)
{
    if (request->session->waits != NULL) {
        waits_interrupt(request->session->waits, request->in.interrupt.unique);
    }
    return 0;
}
