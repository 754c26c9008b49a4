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

/** struct SandboxConfig - what the command line decides. Strings are borrowed. */
typedef struct SandboxConfig {
    SandboxMode mode;
    SandboxSeccomp seccomp;
    const char *shared_dir;
    const char
        *modcaps; /* NULL, or the --modcaps list; checked by sandbox_check_modcaps */
    uint64_t rlimit_nofile; /* 0: leave it; UINT64_MAX: the default rule */
} SandboxConfig;

/** struct SandboxView - what is left of the host. Descriptors are the caller's. */
typedef struct SandboxView {
    int root_fd; /* O_PATH descriptor of the share's root */
    int procfd;  /* directory in which "N" leads to descriptor N of this process */
    uint64_t descriptors; /* RLIMIT_NOFILE in force */
} SandboxView;

/** sandbox_check_modcaps() - Return: whether @list parses; @error names the wrong part.
 */
bool sandbox_check_modcaps(const char *list, GError **error);

/**
 * sandbox_scrub() - first act of the process: clear the environment (PATH, NO_COLOR and
 * LSAN/ASAN/UBSAN/TSAN_OPTIONS apart), close every descriptor but 0-2 and @keep_fd (-1
 * for none), open /dev/null for any of 0-2 that is closed, ignore SIGPIPE and SIGXFSZ, no
 * core.
 */
void sandbox_scrub(int keep_fd);

/**
 * sandbox_enter() - limits, namespaces, root, capabilities, no_new_privs.
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
