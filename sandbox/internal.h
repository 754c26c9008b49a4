/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SANDBOX_INTERNAL_H
#define SANDBOX_INTERNAL_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "sandbox/sandbox.h"

/*
 * The stages of sandbox_enter(), for sandbox.c and the unit tests. What each must do, and
 * must not do yet, is in sandbox.c. All run on the only thread of the process.
 */

/**
 * sandbox_fail() - set @error to "what: the system's words; mend".
 * @code: the errno.
 * @mend: what the user can do about it, or NULL.
 *
 * Opens no file: may be called after the pivot.
 * Return: false, always.
 */
bool sandbox_fail(GError **error, int code, const char *what, const char *mend);

/* ---- limits.c ---------------------------------------------------------------------- */

/** sandbox_limit_core() - no core file: it would hold the guest's memory. */
void sandbox_limit_core(void);

/**
 * sandbox_limit_files() - set RLIMIT_NOFILE.
 * @wanted: as SandboxConfig.rlimit_nofile.
 * @ret_limit: the soft limit in force afterwards.
 *
 * The default rule falls back to the hard limit, with a warning; an explicit value that
 * cannot be set is an error.
 */
bool sandbox_limit_files(uint64_t wanted, uint64_t *ret_limit, GError **error);

/* ---- namespace.c ------------------------------------------------------------------- */

/** sandbox_unshare() - new mount, network, IPC and UTS namespaces; mounts are slaves. */
bool sandbox_unshare(GError **error);

/* ---- root.c ------------------------------------------------------------------------ */

/** sandbox_root_pivot() - the share, cloned with all its mounts, becomes the root. */
bool sandbox_root_pivot(const char *shared_dir, SandboxView *ret_view, GError **error);

/** sandbox_root_chroot() - the share becomes the root, in the host's mount namespace. */
bool sandbox_root_chroot(const char *shared_dir, SandboxView *ret_view, GError **error);

/** sandbox_root_none() - the root stays; only the view's descriptors are opened. */
bool sandbox_root_none(const char *shared_dir, SandboxView *ret_view, GError **error);

/* ---- caps.c ------------------------------------------------------------------------ */

/** sandbox_drop_groups() - no supplementary groups. Needs CAP_SETGID if there are any. */
bool sandbox_drop_groups(GError **error);

/**
 * sandbox_drop_caps() - keep what serving files as other users takes, and no more.
 * @modcaps: NULL, or changes to what is kept.
 *
 * Empties the bounding, inheritable and ambient sets; secure bits stay as they are.
 * Opens no file.
 */
bool sandbox_drop_caps(const char *modcaps, GError **error);

/** sandbox_no_new_privs() - no exec, ever, gives this thread more than it has. */
bool sandbox_no_new_privs(GError **error);

#endif
