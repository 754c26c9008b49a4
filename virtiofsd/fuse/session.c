/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The session: which INIT capabilities are offered, what was agreed, who takes part, and
 * its statistics. INIT and DESTROY themselves are decoded in op-session.c.
 */
#include "virtiofsd/fuse/session-private.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "virtiofsd/fuse/abi.h"

static bool when_always(const SessionConfig *config)
{
    return true;
}

static bool when_readdirplus(const SessionConfig *config)
{
    return config->readdirplus && config->cache != PT_CACHE_NEVER;
}

/* With cache=always the guest's pages are right by decree. */
static bool when_not_always(const SessionConfig *config)
{
    return config->cache != PT_CACHE_ALWAYS;
}

static bool when_cache_always(const SessionConfig *config)
{
    return config->cache == PT_CACHE_ALWAYS;
}

static bool when_submounts(const SessionConfig *config)
{
    return config->announce_submounts;
}

static bool when_writeback(const SessionConfig *config)
{
    return config->writeback;
}

static bool when_killpriv(const SessionConfig *config)
{
    return config->killpriv_v2;
}

static bool when_allow_mmap(const SessionConfig *config)
{
    return config->allow_mmap;
}

static bool when_posix_acl(const SessionConfig *config)
{
    return config->posix_acl != SESSION_NEVER;
}

static bool when_security_label(const SessionConfig *config)
{
    return config->security_label != SESSION_NEVER;
}

static bool when_posix_lock(const SessionConfig *config)
{
    return config->posix_lock;
}

static bool when_flock(const SessionConfig *config)
{
    return config->flock;
}

/* What is mapped may be written: see op-dax.c. */
static bool when_dax(const SessionConfig *config)
{
    return config->dax && !config->readonly;
}

/* A capability sets nothing in SessionAgreed. */
#define NOTHING SIZE_MAX
#define AGREED(member) offsetof(SessionAgreed, member)

/*
 * The capabilities that are ever agreed. Not here, on purpose: SPLICE (no device),
 * EXPORT_SUPPORT ("." and ".." are not looked up), HAS_IOCTL_DIR, NO_OPEN(DIR)_SUPPORT,
 * HAS_EXPIRE_ONLY and HAS_RESEND (the guest tells, nothing is answered),
 * EXPLICIT_INVAL_DATA (there are no notifications), REQUEST_TIMEOUT (it frees requests
 * that the device still owns).
 */
static const struct Capability {
    uint64_t flag;
    bool (*is_offered)(const SessionConfig *config);
    size_t sets; /* offset of a bool in SessionAgreed, or NOTHING */
} capabilities[] = {
    {FUSE_ASYNC_READ, when_always, NOTHING},
    {FUSE_POSIX_LOCKS, when_posix_lock, AGREED(posix_locks)},
    {FUSE_ATOMIC_O_TRUNC, when_always, NOTHING},
    {FUSE_BIG_WRITES, when_always, NOTHING},
    {FUSE_AUTO_INVAL_DATA, when_not_always, NOTHING},
    {FUSE_FLOCK_LOCKS, when_flock, AGREED(flocks)},
    {FUSE_DO_READDIRPLUS, when_readdirplus, NOTHING},
    {FUSE_READDIRPLUS_AUTO, when_readdirplus, NOTHING},
    {FUSE_DONT_MASK, when_posix_acl, AGREED(dont_mask)},
    {FUSE_ASYNC_DIO, when_always, NOTHING},
    {FUSE_WRITEBACK_CACHE, when_writeback, AGREED(writeback)},
    {FUSE_PARALLEL_DIROPS, when_always, NOTHING},
    {FUSE_POSIX_ACL, when_posix_acl, AGREED(posix_acl)},
    {FUSE_MAX_PAGES, when_always, NOTHING},
    {FUSE_CACHE_SYMLINKS, when_cache_always, NOTHING},
    {FUSE_MAP_ALIGNMENT, when_dax, AGREED(dax)},
    {FUSE_SUBMOUNTS, when_submounts, AGREED(submounts)},
    {FUSE_HANDLE_KILLPRIV_V2, when_killpriv, AGREED(killpriv)},
    {FUSE_SETXATTR_EXT, when_posix_acl, AGREED(setxattr_ext)},
    {FUSE_INIT_EXT, when_always, NOTHING},
    {FUSE_SECURITY_CTX, when_security_label, AGREED(security_ctx)},
    {FUSE_HAS_INODE_DAX, when_dax, NOTHING},
    {FUSE_CREATE_SUPP_GROUP, when_always, AGREED(supp_groups)},
    {FUSE_DIRECT_IO_ALLOW_MMAP, when_allow_mmap, NOTHING},
    {FUSE_NO_EXPORT_SUPPORT, when_always, NOTHING},
    {FUSE_ALLOW_IDMAP, when_always, NOTHING}, /* see caller_of() */
};

/* ACLs take three capabilities: without DONT_MASK the guest's umask would cut what a
 * default ACL gives, without SETXATTR_EXT nobody would tell when set-group-ID has to go.
 */
#define ACL_FLAGS (FUSE_POSIX_ACL | FUSE_DONT_MASK | FUSE_SETXATTR_EXT)

/* A guest that wants no file mapped offers neither; one that wants all mapped, whether
 * they suit or not, only the first. */
#define DAX_FLAGS (FUSE_MAP_ALIGNMENT | FUSE_HAS_INODE_DAX)

static bool has_window(const Session *session)
{
    const DaxWindow *window = &session->window;

    return window->is_ready != NULL && window->is_ready(window->opaque);
}

/* What has to be had whole goes otherwise, or is missed. */
static int keep_whole(Session *session, uint64_t flags, SessionMode mode,
                      const char *option, uint64_t *offered)
{
    if ((*offered & flags) == flags) {
        return 0;
    }
    if (mode == SESSION_ALWAYS) {
        log_write_limited(&session->refused_limit, LOG_LEVEL_ERROR,
                          "the guest's kernel lacks what %s=always demands", option);
        return -EPROTO;
    }
    *offered &= ~flags;
    return 0;
}

static uint64_t settle(const SessionConfig *config, uint64_t offered,
                       SessionAgreed *ret_agreed)
{
    uint64_t flags = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(capabilities); i++) {
        const struct Capability *capability = &capabilities[i];
        if ((offered & capability->flag) != 0 && capability->is_offered(config)) {
            flags |= capability->flag;
            if (capability->sets != NOTHING) {
                *(bool *)((char *)ret_agreed + capability->sets) = true;
            }
        }
    }
    /* Linux forgets the set-id bits when it opens a file to truncate it and they are not
     * ours to drop, and does not tell who opens it: then truncating has to be a request
     * of its own. */
    if ((flags & FUSE_ALLOW_IDMAP) != 0 && !ret_agreed->killpriv) {
        flags &= ~(uint64_t)FUSE_ATOMIC_O_TRUNC;
    }
    return flags;
}

/* What the guest had ends, and with it whatever waits for a lock on that. */
static void forget_all(Session *session)
{
    if (session->waits != NULL) {
        waits_end_all(session->waits, -ENOLCK);
    }
    pt_fs_reset(session->fs);
}

int session_agree(Session *session, uint64_t offered, uint64_t *ret_flags)
{
    const SessionConfig *config = &session->config;
    SessionAgreed agreed = {0};

    if (keep_whole(session, ACL_FLAGS, config->posix_acl, "--posix-acl", &offered) < 0 ||
        keep_whole(session, FUSE_SECURITY_CTX, config->security_label, "--security-label",
                   &offered) < 0) {
        return -EPROTO;
    }
    if ((offered & FUSE_MAP_ALIGNMENT) == 0 || !has_window(session)) {
        offered &= ~DAX_FLAGS;
    }
    *ret_flags = settle(config, offered, &agreed);
    forget_all(session);
    pt_fs_agree(session->fs, &(PtAgreed){.writeback = agreed.writeback,
                                         .supp_groups = agreed.supp_groups,
                                         .posix_acl = agreed.posix_acl,
                                         .posix_locks = agreed.posix_locks});
    session->agreed = agreed;
    atomic_store_explicit(&session->initialised, true, memory_order_release);
    return 0;
}

void session_end(Session *session)
{
    atomic_store_explicit(&session->initialised, false, memory_order_release);
    session->agreed = (SessionAgreed){0};
    forget_all(session);
}

Session *session_new(const SessionConfig *config, PtFs *fs)
{
    Session *session = aligned_alloc(GATE_LINE, sizeof(*session));

    if (session == NULL) {
        return NULL;
    }
    memset(session, 0, sizeof(*session));
    gate_init(&session->gate);
    pthread_mutex_init(&session->lock, NULL);
    session->config = *config;
    session->fs = fs;
    if (config->posix_lock || config->flock) {
        session->waits = waits_new();
        if (session->waits == NULL) {
            session_free(session);
            return NULL;
        }
    }
    return session;
}

void session_set_window(Session *session, const DaxWindow *window)
{
    session->window = *window;
}

void session_unmap_all(Session *session)
{
    const DaxWindow *window = &session->window;

    if (window->unmap_all != NULL) {
        window->unmap_all(window->opaque);
    }
}

Waits *session_waits(Session *session)
{
    return session->waits;
}

void session_free(Session *session)
{
    if (session != NULL) {
        waits_free(session->waits);
        pthread_mutex_destroy(&session->lock);
        gate_clear(&session->gate);
        free(session);
    }
}

void session_reset(Session *session)
{
    gate_enter_alone(&session->gate);
    session_end(session);
    gate_leave_alone(&session->gate);
}

void session_join(Session *session, SessionMember *member)
{
    pthread_mutex_lock(&session->lock);
    member->next = session->members;
    session->members = member;
    pthread_mutex_unlock(&session->lock);
    gate_add(&session->gate, &member->slot);
}

static void add_member(SessionStats *sum, const SessionMember *member)
{
    sum->requests += atomic_load_explicit(&member->requests, memory_order_relaxed);
    sum->errors += atomic_load_explicit(&member->errors, memory_order_relaxed);
    sum->malformed += atomic_load_explicit(&member->malformed, memory_order_relaxed);
}

void session_leave(Session *session, SessionMember *member)
{
    gate_remove(&session->gate, &member->slot);
    pthread_mutex_lock(&session->lock);
    for (SessionMember **at = &session->members; *at != NULL; at = &(*at)->next) {
        if (*at == member) {
            *at = member->next;
            add_member(&session->gone, member);
            break;
        }
    }
    pthread_mutex_unlock(&session->lock);
}

void session_stats(Session *session, SessionStats *ret_stats)
{
    pthread_mutex_lock(&session->lock);
    *ret_stats = session->gone;
    for (const SessionMember *member = session->members; member != NULL;
         member = member->next) {
        add_member(ret_stats, member);
    }
    pthread_mutex_unlock(&session->lock);
}
