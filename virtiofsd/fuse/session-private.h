/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_FUSE_SESSION_PRIVATE_H
#define VIRTIOFSD_FUSE_SESSION_PRIVATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "virtiofsd/fuse/gate.h"
#include "virtiofsd/fuse/session.h"
#include "virtiofsd/fuse/waits.h"
#include "virtiofsd/log.h"

/*
 * What the files of fuse/ know about the session beyond its contract.
 */

/** The largest WRITE, and with it the largest request. */
#define SESSION_MAX_WRITE (1024u * 1024u)

/** struct SessionMember - one worker's part of the session, on its own cache line. The
 * counters are written by that worker only. */
typedef struct SessionMember {
    GateSlot slot;
    _Atomic uint64_t requests;
    _Atomic uint64_t errors;
    _Atomic uint64_t malformed;
    struct SessionMember *next; /* under Session.lock */
} SessionMember;

/** struct SessionAgreed - what INIT negotiated, as far as replies and decoding depend on
 * it. Read inside the gate, written alone. */
typedef struct SessionAgreed {
    bool submounts;
    bool supp_groups;
    bool writeback;
    bool killpriv; /* HANDLE_KILLPRIV_V2: set-id bits are ours to drop */
    bool posix_acl;
    bool dont_mask;    /* the umask comes along and is ours to apply */
    bool setxattr_ext; /* SETXATTR in its long form */
    bool security_ctx; /* labels come with what is to be made */
    bool posix_locks;  /* record locks come here */
    bool flocks;       /* so do locks on whole files */
    bool dax;          /* files that suit are mapped */
} SessionAgreed;

struct Session {
    Gate gate;
    SessionConfig config;
    PtFs *fs;
    Waits *waits;     /* NULL unless locks are served */
    DaxWindow window; /* fixed; all NULL: there is none */
    SessionAgreed agreed;
    _Atomic bool initialised;
    LogLimit malformed_limit;
    LogLimit refused_limit;

    pthread_mutex_t lock;
    SessionMember *members; /* under lock */
    SessionStats gone;      /* under lock; counted by members that left */
};

/** session_join() - let a worker take part; @member lives until session_leave(). */
void session_join(Session *session, SessionMember *member);
void session_leave(Session *session, SessionMember *member);

/** session_count() - add one to a counter of the calling worker. */
static inline void session_count(_Atomic uint64_t *counter)
{
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, value + 1, memory_order_relaxed);
}

/** session_is_initialised() - has INIT been, and DESTROY not? */
static inline bool session_is_initialised(const Session *session)
{
    return atomic_load_explicit(&session->initialised, memory_order_acquire);
}

/**
 * session_agree() - begin a session anew: forget all nodes and handles, and settle what
 * the guest and we both want.
 * @offered: the guest's INIT flags, flags2 in the upper half.
 * @ret_flags: the flags to answer.
 *
 * Context: alone in the gate.
 * Return: 0, or -EPROTO with nothing changed: the guest lacks what it must have.
 */
int session_agree(Session *session, uint64_t offered, uint64_t *ret_flags);

/** session_unmap_all() - what the guest has left in the window. Context: alone in the
 * gate, of a request. */
void session_unmap_all(Session *session);

/** session_end() - as if INIT had never been. Context: alone in the gate. */
void session_end(Session *session);

#endif
