/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SANDBOX_INTERNAL_H
#define SANDBOX_INTERNAL_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "sandbox/sandbox.h"
#include "virtiofsd/autofd.h"

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
 * sandbox_limit_processes() - no more processes and threads.
 *
 * The limit counts what the user has on the whole host, so before all threads exist there
 * is no number that is right. It does not bind root outside of a user namespace.
 */
void sandbox_limit_processes(void);

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

/** struct SandboxIds - who to be in a user namespace. */
typedef struct SandboxIds {
    uid_t uid;
    gid_t gid;
} SandboxIds;

/**
 * sandbox_unshare_user() - a user namespace of our own with the maps of @config.
 * @ret_ids: ids that it has; we are who we were until sandbox_take_ids().
 *
 * All capabilities are ours afterwards, over what belongs to the namespace; supplementary
 * groups have gone, if it lets them. No child is left. Context: reads and writes /proc.
 */
bool sandbox_unshare_user(const SandboxConfig *config, SandboxIds *ret_ids,
                          GError **error);

/** sandbox_take_ids() - be these, with all capabilities. */
bool sandbox_take_ids(const SandboxIds *ids, GError **error);

/** sandbox_unshare() - new mount, network, IPC, UTS and cgroup namespaces; mounts are
 * slaves. */
bool sandbox_unshare(GError **error);

/* ---- root.c ------------------------------------------------------------------------ */

/** struct SandboxTree - the share, cloned and not yet in its place. */
typedef struct SandboxTree {
    AutoFd procfd;
    AutoFd share; /* the original */
    AutoFd tree;
    bool is_file;
} SandboxTree;

#define SANDBOX_NO_TREE                                                                  \
    {                                                                                    \
        -1, -1, -1, false                                                                \
    }

/** sandbox_root_clone() - the share with all its mounts, and the view's procfd; these are
 * the last paths of the host that are looked at. */
bool sandbox_root_clone(const SandboxConfig *config, SandboxTree *ret_tree,
                        GError **error);

/** sandbox_root_pivot() - the clone becomes the root, or what the root holds. */
bool sandbox_root_pivot(SandboxTree *tree, SandboxView *ret_view, GError **error);

void sandbox_tree_clear(SandboxTree *tree);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(SandboxTree, sandbox_tree_clear)

/** sandbox_root_chroot() - the share becomes the root, in the host's mount namespace. */
bool sandbox_root_chroot(const char *shared_dir, SandboxView *ret_view, GError **error);

/** sandbox_root_none() - the root stays; only the view's descriptors are opened. */
bool sandbox_root_none(const char *shared_dir, SandboxView *ret_view, GError **error);

/* ---- root-file.c ------------------------------------------------------------------- */

/** sandbox_room_for_file() - a read-only file system with nothing but @file_fd, the clone
 * of a file's mount, mounted in it. Lies over the root directory; is the working
 * directory. */
bool sandbox_room_for_file(int file_fd, AutoFd *ret_room, GError **error);

/** sandbox_room_empty() - a read-only file system with nothing in it, mounted nowhere. */
bool sandbox_room_empty(AutoFd *ret_room, GError **error);

/* ---- caps.c ------------------------------------------------------------------------ */

/** sandbox_drop_groups() - no supplementary groups. Needs CAP_SETGID if there are any. */
bool sandbox_drop_groups(GError **error);

/**
 * sandbox_drop_caps() - keep what serving files as other users takes, and no more.
 * @config: .modcaps and .file_handles change what is kept.
 *
 * Empties the bounding, inheritable and ambient sets; secure bits stay as they are.
 * Opens no file.
 */
bool sandbox_drop_caps(const SandboxConfig *config, GError **error);

/** sandbox_no_new_privs() - no exec, ever, gives this thread more than it has. */
bool sandbox_no_new_privs(GError **error);

/* ---- landlock.c -------------------------------------------------------------------- */

/**
 * sandbox_landlock() - refuse this thread all other files, and other processes.
 * @config: .no_landlock, .mode and .file_handles decide whether; .readonly how much.
 * @share: a descriptor of it.
 * @folder: -1, or that of a folder in which files are removed.
 * @ret_is_on: whether it is so now; without it things go on, and a debug line says why.
 *
 * Needs no_new_privs. After it there is no mounting any more. Opens no file.
 */
bool sandbox_landlock(const SandboxConfig *config, int share, int folder, bool *ret_is_on,
                      GError **error);

#endif
