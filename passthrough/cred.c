/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/cred.h"

#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "passthrough/internal.h"
#include "virtiofsd/log.h"

/*
 * Theory of operation.
 *
 * In Linux an identity belongs to a thread; it is the C library that makes setuid()
 * change all of them. Here the raw system calls are used, so that each worker may be
 * somebody else. Only the effective ids change: the real and saved ones stay the
 * daemon's, which is what permits the way back. Leaving uid 0 empties the effective
 * capabilities, so the kernel judges the request as the caller's own: which group a file
 * in a set-group-ID directory gets, and whether it may keep the bit itself. Returning to
 * uid 0 fills them again.
 *
 * The order: groups and gid while CAP_SETGID is still effective, then uid; back in
 * reverse.
 *
 * When the guest does not tell the caller's groups, a directory that is writable by one
 * of them would refuse the caller here. The guest's kernel has checked the permission, so
 * CAP_DAC_OVERRIDE is made effective again, alone.
 *
 * If a step back fails, the thread is somebody else for good. It says so in the log, and
 * answers every later request with EIO.
 */

#ifdef SYS_setresuid32
enum {
    NR_SETRESUID = SYS_setresuid32,
    NR_SETRESGID = SYS_setresgid32,
    NR_SETGROUPS = SYS_setgroups32,
    NR_GETGROUPS = SYS_getgroups32,
};
#else
enum {
    NR_SETRESUID = SYS_setresuid,
    NR_SETRESGID = SYS_setresgid,
    NR_SETGROUPS = SYS_setgroups,
    NR_GETGROUPS = SYS_getgroups,
};
#endif

enum { NO_ID = -1 };

typedef struct Capabilities {
    struct __user_cap_data_struct word[_LINUX_CAPABILITY_U32S_3];
} Capabilities;

/** struct Thread - the identity that this thread was given by the sandbox. */
static _Thread_local struct Thread {
    bool entered;
    bool poisoned;
    bool borrows; /* an identity, now */
    uid_t uid;
    gid_t gid;
    Capabilities own;
} thread;

bool pt_thread_usable(void)
{
    return thread.entered && !thread.poisoned;
}

static void poison(const char *what)
{
    static LogLimit limit;
    thread.poisoned = true;
    /* errno is what the request is answered with. */
    int saved = errno;
    if (log_enabled(LOG_LEVEL_ERROR)) {
        log_write_limited(&limit, LOG_LEVEL_ERROR,
                          "a worker could not take back its %s (errno %d) and serves no "
                          "more requests; restart the daemon",
                          what, saved);
    }
    errno = saved;
}

/* ---- system calls, for this thread alone ------------------------------------------ */

static int get_capabilities(Capabilities *ret_capabilities)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    return syscall(SYS_capget, &head, ret_capabilities->word) < 0 ? -errno : 0;
}

static int set_capabilities(const Capabilities *capabilities)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    return syscall(SYS_capset, &head, capabilities->word) < 0 ? -errno : 0;
}

static int set_uid(uid_t uid)
{
    return syscall(NR_SETRESUID, NO_ID, uid, NO_ID) < 0 ? -errno : 0;
}

static int set_gid(gid_t gid)
{
    return syscall(NR_SETRESGID, NO_ID, gid, NO_ID) < 0 ? -errno : 0;
}

static int set_groups(size_t n, const uint32_t *groups)
{
    return syscall(NR_SETGROUPS, n, groups) < 0 ? -errno : 0;
}

/* ---- the thread ------------------------------------------------------------------- */

/* A file made in a set-group-ID directory would keep a bit that it may not have, if this
 * thread were in the directory's group. */
static int drop_groups(void)
{
    if (syscall(NR_GETGROUPS, 0, NULL) <= 0) {
        return 0;
    }
    int r = set_groups(0, NULL);
    /* Without the privilege no other identity can be borrowed either. */
    return r == -EPERM ? 0 : r;
}

int pt_thread_enter(PtFs *fs)
{
    thread.entered = false;
    if (unshare(CLONE_FS) < 0 || fchdir(fs->procfd) < 0) {
        return -errno;
    }
    (void)umask(0);
    int r = drop_groups();
    if (r == 0) {
        r = get_capabilities(&thread.own);
    }
    thread.uid = geteuid();
    thread.gid = getegid();
    thread.entered = r == 0;
    return r;
}

static bool has(const Capabilities *capabilities, unsigned capability)
{
    return capabilities->word[CAP_TO_INDEX(capability)].effective &
           CAP_TO_MASK(capability);
}

/* ---- identity --------------------------------------------------------------------- */

int pt_cred_check(const PtCaller *caller)
{
    if (caller->uid == (uint32_t)NO_ID || caller->gid == (uint32_t)NO_ID ||
        caller->n_groups > PT_GROUPS_MAX) {
        return -EINVAL;
    }
    for (uint32_t i = 0; i < caller->n_groups; i++) {
        if (caller->groups[i] == (uint32_t)NO_ID) {
            return -EINVAL;
        }
    }
    return 0;
}

/* Leave no capability effective, or only one; what is permitted stays, for the way back.
 */
static int limit_capabilities(bool override, PtCred *cred)
{
    Capabilities limited = thread.own;
    for (size_t i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
        limited.word[i].effective = 0;
    }
    if (override && has(&thread.own, CAP_DAC_OVERRIDE)) {
        limited.word[CAP_TO_INDEX(CAP_DAC_OVERRIDE)].effective =
            CAP_TO_MASK(CAP_DAC_OVERRIDE);
    }
    int r = set_capabilities(&limited);
    cred->capabilities = cred->capabilities || r == 0;
    return r;
}

int pt_cred_strict(PtCred *cred)
{
    return cred->capabilities ? limit_capabilities(false, cred) : 0;
}

static int borrow(const PtCaller *caller, bool supp_groups, PtCred *cred)
{
    if (caller->n_groups > 0) {
        int r = set_groups(caller->n_groups, caller->groups);
        if (r < 0) {
            return r;
        }
        cred->groups = true;
    }
    if (caller->gid != 0 && caller->gid != thread.gid) {
        int r = set_gid(caller->gid);
        if (r < 0) {
            return r;
        }
        cred->gid = true;
    }
    if (caller->uid != 0 && caller->uid != thread.uid) {
        int r = set_uid(caller->uid);
        if (r < 0) {
            return r;
        }
        cred->uid = true;
        /* The kernel empties them by itself when uid 0 is left: see the top. */
        if (thread.uid != 0 || !supp_groups) {
            return limit_capabilities(!supp_groups, cred);
        }
    }
    return 0;
}

int pt_cred_enter(const PtCaller *caller, bool supp_groups, PtCred *ret_cred)
{
    *ret_cred = (PtCred){0};
    if (!pt_thread_usable()) {
        return -EIO;
    }
    int r = pt_cred_check(caller);
    if (r < 0) {
        return r;
    }
    r = borrow(caller, supp_groups, ret_cred);
    if (r < 0) {
        pt_cred_leave(ret_cred);
        return r;
    }
    if (caller->umask != 0) {
        (void)umask((mode_t)caller->umask & 0777);
        ret_cred->umask = true;
    }
    thread.borrows = ret_cred->uid;
    return 0;
}

/* Returning to uid 0 makes all permitted capabilities effective; the sandbox may have
 * left fewer. */
static bool needs_own_capabilities(void)
{
    for (size_t i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
        if (thread.own.word[i].effective != thread.own.word[i].permitted) {
            return true;
        }
    }
    return thread.uid != 0;
}

static void check(int result, const char *what)
{
    if (result < 0) {
        errno = -result;
        poison(what);
    }
}

void pt_cred_leave(PtCred *cred)
{
    int saved = errno;
    if (cred->umask) {
        (void)umask(0);
    }
    if (cred->uid) {
        check(set_uid(thread.uid), "user id");
    }
    if (cred->capabilities || (cred->uid && needs_own_capabilities())) {
        check(set_capabilities(&thread.own), "capabilities");
    }
    if (cred->gid) {
        check(set_gid(thread.gid), "group id");
    }
    if (cred->groups) {
        check(set_groups(0, NULL), "groups");
    }
    *cred = (PtCred){0};
    thread.borrows = false;
    errno = saved;
}

/* ---- set-id bits ------------------------------------------------------------------ */

int pt_privileges_drop(bool wanted, PtPrivileges *ret_privileges)
{
    *ret_privileges = (PtPrivileges){0};
    /* A borrowed identity never has the capability. */
    if (!wanted || thread.borrows || !has(&thread.own, CAP_FSETID)) {
        return 0;
    }
    Capabilities limited = thread.own;
    limited.word[CAP_TO_INDEX(CAP_FSETID)].effective &= ~CAP_TO_MASK(CAP_FSETID);
    int r = set_capabilities(&limited);
    ret_privileges->dropped = r == 0;
    return r;
}

void pt_privileges_restore(PtPrivileges *privileges)
{
    if (privileges->dropped) {
        int saved = errno;
        check(set_capabilities(&thread.own), "capabilities");
        errno = saved;
    }
    privileges->dropped = false;
}
