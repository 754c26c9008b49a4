/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_FUSE_WAITS_H
#define VIRTIOFSD_FUSE_WAITS_H

#include <stdbool.h>
#include <stdint.h>

#include "passthrough/passthrough.h"

/*
 * Requests that wait for a lock: a bounded table, and when each is to be tried again.
 * What comes of it is decided here; who tries and answers is the waiter, one thread.
 */

/** So many requests may wait at once; one more is ENOLCK. */
#define WAITS_MAX 1024u
/** Milliseconds after which a lock that somebody on the host holds is tried again: at
 * first, and at most. */
#define WAITS_PAUSE_MIN_MS 1
#define WAITS_PAUSE_MAX_MS 100

typedef struct Waits Waits;

/** struct WaitRequest - what has to be known of a request to go on with it later. */
typedef struct WaitRequest {
    PtLock lock;
    bool whole; /* flock(2): not a record lock */
    uint32_t opcode;
    uint64_t unique;
    int64_t start_us;
} WaitRequest;

/** struct Wait - one request in the table. Its members are fixed while it is in there,
 * but for what waits.c keeps under its lock. */
typedef struct Wait Wait;

Waits *waits_new(void);
void waits_free(Waits *waits);

/* ---- whoever serves requests ---------------------------------------------------------
 */

/** waits_take() - a place for a request that has to wait, in order of arrival. It is not
 * tried before waits_park(). Return: it, or NULL when all are taken. */
Wait *waits_take(Waits *waits, const WaitRequest *request);
/** waits_give() - the request needs its place no more: it was answered, or never parked.
 */
void waits_give(Waits *waits, Wait *wait);
/** waits_park() - it may be tried, and answered as chain @head of @queue, from now on. */
void waits_park(Waits *waits, Wait *wait, uint32_t queue, uint16_t head);

/** waits_kick() - a lock on this node may have become free. */
void waits_kick(Waits *waits, uint64_t nodeid);
/** waits_interrupt() - what waits under @unique ends with EINTR; what comes to wait under
 * it shortly, too, for the two may have overtaken each other. */
void waits_interrupt(Waits *waits, uint64_t unique);
/** waits_end_handle() - the open file is closed: what waits on it ends with EBADF.
 * @owner: whose waits; NULL: everybody's. */
void waits_end_handle(Waits *waits, uint64_t handle, const uint64_t *owner);
/** waits_of_owner() - Return: whether an owner waits for a record lock, and was parked;
 * then @ret_lock. */
bool waits_of_owner(Waits *waits, uint64_t owner, PtLock *ret_lock);

/* ---- whoever ends them ---------------------------------------------------------------
 */

/** waits_end_all() - all there are end with @result. */
void waits_end_all(Waits *waits, int result);
/** waits_settle() - those of @queue end, and who comes to wait there, at once, until
 * waits_open(). */
void waits_settle(Waits *waits, uint32_t queue);
void waits_open(Waits *waits, uint32_t queue);
/** waits_stop() - waits_next() returns NULL from now on. */
void waits_stop(Waits *waits);

/* ---- the waiter ----------------------------------------------------------------------
 */

/** waits_next() - sleep until one is to be tried or has ended, and claim it. There is no
 * wake-up while none waits.
 * Return: it, to be passed on to waits_tried(); NULL after waits_stop(). */
Wait *waits_next(Waits *waits);
/** waits_is_over() - Return: whether it has ended, and need not be tried. */
bool waits_is_over(Waits *waits, const Wait *wait);
/** waits_tried() - @result: of the attempt; -EAGAIN: it goes on waiting, unless it is
 * over. Return: whether it has ended; it is the caller's then. */
bool waits_tried(Waits *waits, Wait *wait, int result);
/** waits_put_back() - it has ended, but cannot be answered just now. */
void waits_put_back(Waits *waits, Wait *wait);

/** struct WaitAnswer - one that has ended. */
typedef struct WaitAnswer {
    const WaitRequest *request;
    uint32_t queue;
    uint16_t head;
    int result;
} WaitAnswer;

/** waits_answer() - Context: @wait is the caller's. */
WaitAnswer waits_answer(const Wait *wait);
/** waits_request() - what is to be tried. Context: @wait is claimed. */
const WaitRequest *waits_request(const Wait *wait);

#endif
