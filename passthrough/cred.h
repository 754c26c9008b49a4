/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_CRED_H
#define PASSTHROUGH_CRED_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "passthrough/passthrough.h"

/*
 * Who this thread is, and what it borrows for one request. Everything borrowed is a
 * scoped value. A thread that could not give something back is not usable any more
 * (pt_thread_usable() in passthrough.h).
 */

/** typedef PtCred - an identity borrowed by a scope. */
typedef struct PtCred {
    bool uid, gid, groups, umask, capabilities; /* what has to be given back */
} PtCred;

/** pt_cred_check() - Return: 0, or -EINVAL for ids that no caller can have. */
int pt_cred_check(const PtCaller *caller);

/**
 * pt_cred_enter() - be the caller: ids, groups, umask, and their permissions.
 *
 * Where the caller's groups are not known whole, permission checks are left to the
 * guest's kernel, which has made them. A caller with uid 0 keeps this thread's
 * capabilities, and its ids where they are not 0.
 * Context: one at a time on a thread.
 * Return: 0 or a negative errno; then nothing is borrowed. -EOVERFLOW: an id that this
 * user namespace does not have. -EPERM: one that the guest is forbidden to use.
 */
int pt_cred_enter(const PtFs *fs, const PtCaller *caller, PtCred *ret_cred);
/** pt_cred_strict() - leave no permission check to the guest's kernel from here on.
 * Return: 0 or a negative errno. */
int pt_cred_strict(PtCred *cred);
/** pt_cred_leave() - be oneself again. Nothing to do for a zeroed one. */
void pt_cred_leave(PtCred *cred);

/** typedef PtPrivileges - given up by a scope. */
typedef struct PtPrivileges {
    bool dropped;
} PtPrivileges;

/**
 * pt_privileges_drop() - do without CAP_FSETID, so that the kernel clears set-id bits.
 * @wanted: if false, do nothing.
 *
 * Return: 0 or a negative errno; then nothing has changed.
 */
int pt_privileges_drop(bool wanted, PtPrivileges *ret_privileges);
void pt_privileges_restore(PtPrivileges *privileges);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(PtCred, pt_cred_leave)
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(PtPrivileges, pt_privileges_restore)

#endif
