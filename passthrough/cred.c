/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/cred.h"

#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "passthrough/internal.h"
#include "passthrough/translate.h"
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
 * Who is root in the guest has root's rights there, whoever that is on the host: all
 * capabilities stay, and supplementary groups would add nothing, so they are not taken.
 * Who is not root in the guest has none, even where a translation makes it the host's
 * root.
 *
 * When the guest does not tell the caller's groups, a directory that is writable by one
 * of them would refuse the caller here; and where access control lists are served, one of
 * its groups that the guest does not tell may be named in one. The guest's kernel has
 * checked the permission, so CAP_DAC_OVERRIDE is made effective again, alone. A request
 * that never tells groups keeps all capabilities: only whose the file is comes from it.
 *
 * If a step back fails, the thread is somebody else for good. It says so in the log,
 * answers that request with EIO, and is given no other: see pt_thread_usable().
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

/* What is left of the thread's own effective capabilities. */
typedef enum Rights {
    RIGHTS_OWN, /* all */
    RIGHTS_OVERRIDE,
    RIGHTS_NONE,
} Rights;

/** struct Thread - the identity that this thread was given by the sandbox. */
static _Thread_local struct Thread {
    bool entered;
    bool poisoned;
    Rights rights; /* now */
    uid_t uid;
    gid_t gid;
    Capabilities own;
} thread;

bool pt_thread_usable(void)
{
    return thread.entered && !thread.poisoned;
}

static void poison(const char *what, int result)
{
    if (!thread.poisoned) {
        thread.poisoned = true;
        log_error("a worker could not take back its %s (%s) and serves no more requests",
                  what, strerrorname_np(-result));
    }
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

/* The guest's root makes files as this thread is: where it is uid 0, it is gid 0 too, as
 * long as there is such a group here. */
static void be_root_group(void)
{
    if (geteuid() == 0 && getegid() != 0) {
        (void)set_gid(0);
    }
}

int pt_thread_enter(PtFs *fs)
{
    thread.entered = false;
    if (unshare(CLONE_FS) < 0 || fchdir(fs->procfd) < 0) {
        return -errno;
    }
    (void)umask(0);
    be_root_group();
    int r = drop_groups();
    if (r == 0) {
        r = get_capabilities(&thread.own);
    }
    thread.uid = geteuid();
    thread.gid = getegid();
    thread.rights = RIGHTS_OWN;
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

/* Make @rights effective; what is permitted stays, for the way back. */
static int set_rights(Rights rights)
{
    Capabilities limited = thread.own;
    if (rights != RIGHTS_OWN) {
        for (size_t i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
            limited.word[i].effective = 0;
        }
    }
    if (rights == RIGHTS_OVERRIDE && has(&thread.own, CAP_DAC_OVERRIDE)) {
        limited.word[CAP_TO_INDEX(CAP_DAC_OVERRIDE)].effective =
            CAP_TO_MASK(CAP_DAC_OVERRIDE);
    }
    return set_capabilities(&limited);
}

static bool is_powerless(void)
{
    for (size_t i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
        if (thread.own.word[i].permitted != 0) {
            return false;
        }
    }
    return true;
}

/* The kernel has emptied the effective capabilities if uid 0 was left, has filled them if
 * it was taken, and has kept them otherwise. */
static int borrow_rights(Rights rights, PtCred *cred)
{
    bool emptied = cred->uid && thread.uid == 0;
    bool kept = !cred->uid;
    bool done = emptied ? rights == RIGHTS_NONE : kept && rights == RIGHTS_OWN;
    if (!done && !is_powerless()) {
        int r = set_rights(rights);
        if (r < 0) {
            return r;
        }
        cred->capabilities = true;
    }
    thread.rights = rights;
    return 0;
}

int pt_cred_strict(PtCred *cred)
{
    if (thread.rights != RIGHTS_OVERRIDE) {
        return 0;
    }
    thread.rights = RIGHTS_NONE;
    return cred->capabilities ? set_rights(RIGHTS_NONE) : 0;
}

/* An id that means nothing in this user namespace: Linux calls that EOVERFLOW where it
 * keeps a file from being made. */
static int id_error(int result)
{
    return result == -EINVAL ? -EOVERFLOW : result;
}

static int borrow_ids(const PtCaller *host, bool groups, PtCred *cred)
{
    int r = 0;
    /* Who may not take groups can be nobody else either: what there is to grant, the
     * host grants to this thread as it is. */
    if (groups && host->n_groups > 0 && has(&thread.own, CAP_SETGID)) {
        r = set_groups(host->n_groups, host->groups);
        cred->groups = r == 0;
    }
    /* If group 0 is not this thread's, there is none: see be_root_group(). */
    if (r == 0 && host->gid != thread.gid && host->gid != 0) {
        r = set_gid(host->gid);
        cred->gid = r == 0;
    }
    if (r == 0 && host->uid != thread.uid && host->uid != 0) {
        r = set_uid(host->uid);
        cred->uid = r == 0;
    }
    return id_error(r);
}

static Rights rights_of(const PtFs *fs, const PtCaller *caller)
{
    if (caller->uid == 0 || caller->is_checked) {
        return RIGHTS_OWN;
    }
    bool told_all = fs->agreed.supp_groups && !fs->agreed.posix_acl;
    return told_all ? RIGHTS_NONE : RIGHTS_OVERRIDE;
}

int pt_cred_enter(const PtFs *fs, const PtCaller *caller, PtCred *ret_cred)
{
    *ret_cred = (PtCred){0};
    if (!pt_thread_usable()) {
        return -EIO;
    }
    PtCaller host;
    int r = pt_cred_check(caller);
    if (r == 0) {
        r = pt_translate_caller(fs, caller, &host);
    }
    if (r < 0) {
        return r;
    }
    Rights rights = rights_of(fs, caller);
    r = borrow_ids(&host, rights != RIGHTS_OWN, ret_cred);
    if (r == 0) {
        r = borrow_rights(rights, ret_cred);
    }
    if (r < 0) {
        pt_cred_leave(ret_cred);
        return r;
    }
    if (caller->umask != 0) {
        (void)umask((mode_t)caller->umask & 0777);
        ret_cred->umask = true;
    }
    return 0;
}

/* Returning to uid 0 makes all permitted capabilities effective; the sandbox may have
 * left fewer. */
static bool has_all_permitted(void)
{
    for (size_t i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
        if (thread.own.word[i].effective != thread.own.word[i].permitted) {
            return false;
        }
    }
    return true;
}

static void check(int result, const char *what)
{
    if (result < 0) {
        poison(what, result);
    }
}

void pt_cred_leave(PtCred *cred)
{
    int saved = errno;
    bool refilled = cred->uid && thread.uid == 0;
    if (cred->umask) {
        (void)umask(0);
    }
    if (cred->uid) {
        check(set_uid(thread.uid), "user id");
    }
    if (refilled ? !has_all_permitted() : cred->capabilities) {
        check(set_capabilities(&thread.own), "capabilities");
    }
    if (cred->gid) {
        check(set_gid(thread.gid), "group id");
    }
    if (cred->groups) {
        check(set_groups(0, NULL), "groups");
    }
    *cred = (PtCred){0};
    thread.rights = RIGHTS_OWN;
    errno = saved;
}

/* ---- set-id bits ------------------------------------------------------------------ */

int pt_privileges_drop(bool wanted, PtPrivileges *ret_privileges)
{
    *ret_privileges = (PtPrivileges){0};
    if (!wanted || thread.rights != RIGHTS_OWN || !has(&thread.own, CAP_FSETID)) {
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
