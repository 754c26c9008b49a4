/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_FUSE_SESSION_H
#define VIRTIOFSD_FUSE_SESSION_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "passthrough/passthrough.h"
#include "virtiofsd/fuse/dax-window.h"

/*
 * The FUSE session: what INIT agreed, and the gate that lets INIT and DESTROY run alone.
 */

typedef struct Session Session;
typedef struct Waits Waits;

/** enum SessionMode - how much a feature is wanted that the guest may not have. */
typedef enum SessionMode {
    SESSION_NEVER,
    SESSION_AUTO,   /* if the guest has it */
    SESSION_ALWAYS, /* INIT fails unless it has */
} SessionMode;

/** struct SessionConfig - what the command line decides about FUSE. Times in nanoseconds.
 */
typedef struct SessionConfig {
    uint64_t attr_timeout_ns;
    uint64_t entry_timeout_ns;
    uint64_t negative_timeout_ns; /* 0: ENOENT is an error, not a negative entry */
    PtCache cache;
    bool readdirplus;
    bool announce_submounts;
    bool writeback;
    bool killpriv_v2;
    bool allow_mmap;
    bool xattr;                 /* else all four operations are ENOSYS */
    SessionMode posix_acl;      /* access control lists; needs xattr */
    SessionMode security_label; /* labels of new files; needs xattr */
    bool posix_lock;            /* record locks are the host's */
    bool flock;                 /* so are locks on whole files */
    bool dax;                   /* with a window, files that suit are mapped in it */
    bool readonly;              /* every opcode marked MODIFIES is EROFS */
} SessionConfig;

/** session_new() - a session before INIT. @fs is borrowed. Return: it, or NULL. */
Session *session_new(const SessionConfig *config, PtFs *fs);
void session_free(Session *session);

/** session_reset() - as if INIT had never been: no nodes, no handles.
 * Context: no request is running. */
void session_reset(Session *session);

/** session_set_window() - map files through @window. Context: before requests. */
void session_set_window(Session *session, const DaxWindow *window);

/** session_waits() - Return: the requests that wait for locks, borrowed; NULL if there
 * can be none. */
Waits *session_waits(Session *session);

/** struct SessionStats - for the statistics line. */
typedef struct SessionStats {
    uint64_t requests;
    uint64_t errors;    /* answered with an errno */
    uint64_t malformed; /* did not decode */
} SessionStats;

void session_stats(Session *session, SessionStats *ret_stats);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Session, session_free)

#endif
