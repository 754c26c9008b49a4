/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SANDBOX_SANDBOX_H
#define SANDBOX_SANDBOX_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * What the process may no longer do. Two doors: sandbox_enter() before any thread exists,
 * sandbox_seal() when all of them do. The order of the steps is in sandbox.c.
 */

/** enum SandboxMode - the --sandbox option. */
typedef enum SandboxMode {
    SANDBOX_NAMESPACE,
    SANDBOX_CHROOT,
    SANDBOX_NONE,
} SandboxMode;

/** enum SandboxSeccomp - the --seccomp option: what a refused system call does. */
typedef enum SandboxSeccomp {
    SANDBOX_SECCOMP_KILL,
    SANDBOX_SECCOMP_LOG,
    SANDBOX_SECCOMP_TRAP,
    SANDBOX_SECCOMP_NONE,
} SandboxSeccomp;

/* As many as the kernel takes. */
#define SANDBOX_ID_RANGES_MAX 340

/** struct SandboxIdRange - @count ids from @inside on stand for those from @outside on.
 */
typedef struct SandboxIdRange {
    uint32_t inside;
    uint32_t outside;
    uint32_t count;
} SandboxIdRange;

/** struct SandboxIdMap - the ids of a user namespace. */
typedef struct SandboxIdMap {
    unsigned int n;
    SandboxIdRange ranges[SANDBOX_ID_RANGES_MAX];
} SandboxIdMap;

/** struct SandboxConfig - what the command line decides. What is pointed to is borrowed.
 */
typedef struct SandboxConfig {
    SandboxMode mode;
    SandboxSeccomp seccomp;
    const char *shared_dir; /* a directory or a regular file */
    bool readonly;     /* with SANDBOX_NAMESPACE the kernel refuses every change of it */
    bool file_handles; /* files are to be opened by their handles */
    bool no_landlock;
    const char
        *modcaps; /* NULL, or the --modcaps list; checked by sandbox_check_modcaps */
    const SandboxIdMap *uid_map; /* NULL: of an ordinary user, the own id alone */
    const SandboxIdMap *gid_map; /* likewise */
    uint64_t rlimit_nofile;      /* 0: leave it; UINT64_MAX: the default rule */
    /* NULL, or called when the mount namespace is the last one and paths still lead to
     * the host: an ordinary user may clone mounts from here on. Returns a descriptor of
     * the folder in which the process will remove files of its own, which is ours then,
     * or -1. */
    int (*last_paths)(void *data);
    void *last_paths_data;
} SandboxConfig;

/** struct SandboxView - what is left of the host. Descriptors are the caller's. */
typedef struct SandboxView {
    int root_fd; /* O_PATH descriptor of the share: its root, or the file that it is */
    int procfd;  /* directory in which "N" leads to descriptor N of this process */
    bool
        landlock; /* in force: EACCES may mean that a file is not in the share any more */
    /* mountinfo of the host's mount namespace and of ours, as far as the share reaches;
     * -1 where there is but one namespace, or no directory to look from. */
    int host_mounts;
    int own_mounts;
    uint64_t descriptors; /* RLIMIT_NOFILE in force */
} SandboxView;

/** sandbox_check_modcaps() - Return: whether @list parses; @error names the wrong part.
 */
bool sandbox_check_modcaps(const char *list, GError **error);

/**
 * sandbox_id_map_add() - add one more range to a map, zeroed at first.
 * @text: ":INSIDE:OUTSIDE:COUNT:", or with another mark that is no letter or digit.
 *
 * Return: whether it parses and fits; @error tells what is wrong with it.
 */
bool sandbox_id_map_add(SandboxIdMap *map, const char *text, GError **error);

/** sandbox_check_maps() - Return: whether this user, in this mode, can have maps, if
 * there are any; @error says what can be had instead. */
bool sandbox_check_maps(const SandboxConfig *config, GError **error);

/**
 * sandbox_scrub() - first act of the process: clear the environment (PATH, NO_COLOR and
 * LSAN/ASAN/UBSAN/TSAN_OPTIONS apart), close every descriptor but 0-2 and @keep_fd (-1
 * for none), open /dev/null for any of 0-2 that is closed, ignore SIGPIPE and SIGXFSZ, no
 * core.
 */
void sandbox_scrub(int keep_fd);

/**
 * sandbox_enter() - limits, namespaces, root, capabilities, no_new_privs, Landlock.
 *
 * Context: the process has one thread. Return: true, or false with @error set; then the
 * process is to exit, half-isolated as it is.
 */
bool sandbox_enter(const SandboxConfig *config, SandboxView *ret_view, GError **error);

/**
 * sandbox_seal() - load the seccomp filter into all threads. After it: no clone, no exec.
 *
 * Context: every thread has begun to run; the first calls that the C library makes in a
 * new one are refused. Return: true, or false with @error set.
 */
bool sandbox_seal(const SandboxConfig *config, GError **error);

#endif
