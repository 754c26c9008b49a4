/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>

#include "passthrough/fd.h"
#include "passthrough/handle.h"
#include "passthrough/internal.h"
#include "passthrough/lock-table.h"

/*
 * The guest's locks on the host.
 *
 * A record lock belongs to a process of the guest, and on the host to an open file
 * description (fcntl(2), "Open file description locks"): each owner gets a descriptor of
 * its own for each file. It is opened as the guest's handle is, not for more: to open for
 * writing copies a file up on overlayfs, and breaks leases. If the owner later wants a
 * write lock through another handle, a second descriptor takes over: all that the first
 * one can hold are read locks, which the second may share before the first lets go, so
 * that nobody else comes between.
 *
 * A flock(2) lock belongs to the guest's open file, which is one handle and one open file
 * description here.
 *
 * Nothing waits here: a lock that cannot be had at once is -EAGAIN.
 */

/* How often a request begins anew because another thread of its process replaced the
 * descriptor that it was using. */
enum { TRIES = 8 };

/* A reference to an owner, owned by a scope. */
typedef struct OwnerRef {
    PtFs *fs;
    PtLockOwner *owner; /* NULL: none */
} OwnerRef;

static void owner_ref_clear(OwnerRef *ref)
{
    if (ref->owner != NULL) {
        pt_locks_put(ref->fs, ref->owner);
    }
    ref->owner = NULL;
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(OwnerRef, owner_ref_clear)

/* ---- the host's side --------------------------------------------------------------- */

/* As the kernel says it: length 0 is to the end, however far that moves. */
static struct flock flock_of(const PtLockRange *range)
{
    bool to_the_end = range->end == INT64_MAX;
    return (struct flock){
        .l_type = (short)range->type,
        .l_whence = SEEK_SET,
        .l_start = (off_t)range->start,
        .l_len = to_the_end ? 0 : (off_t)(range->end - range->start + 1),
    };
}

static int set_range(int fd, const PtLockRange *range)
{
    struct flock host = flock_of(range);
    if (fcntl(fd, F_OFD_SETLK, &host) == 0) {
        return 0;
    }
    return errno == EACCES ? -EAGAIN : pt_error(); /* POSIX allows either */
}

static PtLockRange range_of(const PtLock *lock)
{
    return (PtLockRange){lock->start, lock->end, lock->type};
}

static bool is_range(const PtLock *lock)
{
    return lock->end <= INT64_MAX && lock->start <= lock->end &&
           (lock->type == F_RDLCK || lock->type == F_WRLCK || lock->type == F_UNLCK);
}

/* May the guest's open file be locked so? fcntl(2): EBADF. */
static int check_handle(const PtHandle *handle, uint32_t type)
{
    int flags = fcntl(handle->fd, F_GETFL);
    if (flags < 0) {
        return pt_error();
    }
    int refused = type == F_WRLCK ? O_RDONLY : O_WRONLY;
    return type != F_UNLCK && (flags & O_ACCMODE) == refused ? -EBADF : 0;
}

/* ---- an owner's descriptor --------------------------------------------------------- */

static bool is_enough(const PtLockOwner *owner, uint32_t type)
{
    return type == F_UNLCK || (type == F_WRLCK ? owner->writable : owner->readable);
}

/* O_NONBLOCK: not to wait until somebody gives up a lease. */
static int open_as(const PtFs *fs, const PtHandle *handle, int accmode)
{
    return pt_reopen(fs, handle->fd, (uint32_t)accmode | O_NONBLOCK | O_NOCTTY);
}

/* A descriptor of the file that is good for a lock of @type, and for more if the guest's
 * handle is. Whoever was let in once may be refused now, by mode bits or a running
 * program: then there is no lock to be had. */
static int open_for(const PtFs *fs, const PtHandle *handle, uint32_t type, PtFd *fd)
{
    int accmode = O_RDWR;
    fd->fd = -EACCES;
    if (handle->writable) {
        fd->fd = open_as(fs, handle, accmode);
    }
    if (fd->fd < 0) {
        accmode = type == F_WRLCK ? O_WRONLY : O_RDONLY;
        fd->fd = open_as(fs, handle, accmode);
    }
    return fd->fd < 0 ? -ENOLCK : accmode;
}

static int make_owner(const PtOpenFile *file, const PtLock *lock, OwnerRef *ret_new)
{
    g_auto(PtFd) fd = {.fd = -1};
    if (pt_fd_reserve(file->fs, &fd) < 0) {
        return -ENOLCK;
    }
    int accmode = open_for(file->fs, file->handle, lock->type, &fd);
    if (accmode < 0) {
        return accmode;
    }
    PtLockOwner *owner = pt_lock_owner_new(lock, &fd, accmode);
    *ret_new = (OwnerRef){file->fs, owner};
    return owner != NULL ? 0 : -ENOLCK;
}

/* Give @successor all locks of @owner, which are read locks. */
static int share_locks(PtFs *fs, const PtLockOwner *owner, const PtLockOwner *successor,
                       uint32_t *ret_n_changes)
{
    const PtLockRange all = {0, INT64_MAX, F_UNLCK};
    PtLockRanges ranges;
    *ret_n_changes = pt_locks_copy(fs, owner, &ranges);
    int r = ranges.unknown ? -ENOLCK : set_range(successor->fd, &all);
    for (uint32_t i = 0; i < ranges.n && r == 0; i++) {
        r = set_range(successor->fd, &ranges.items[i]);
    }
    return r;
}

/* Put an owner with a better descriptor in the place of @ref's. */
static int replace_owner(const PtOpenFile *file, const PtLock *lock, OwnerRef *ref)
{
    const PtLockRange all = {0, INT64_MAX, F_UNLCK};
    g_auto(OwnerRef) successor = {0};
    int r = make_owner(file, lock, &successor);
    if (r < 0) {
        return r;
    }
    uint32_t n_changes = 0;
    r = share_locks(file->fs, ref->owner, successor.owner, &n_changes);
    if (r < 0) {
        return r;
    }
    if (!pt_locks_replace(file->fs, ref->owner, successor.owner, n_changes)) {
        return -ESTALE;
    }
    /* A thread that uses it still must not keep its locks. */
    (void)set_range(ref->owner->fd, &all);
    return 0;
}

/* The owner of @lock, with a descriptor that is good for it; made if there is none. */
static int get_owner(const PtOpenFile *file, const PtLock *lock, OwnerRef *ret_ref)
{
    for (int i = 0; i < TRIES; i++) {
        g_auto(OwnerRef) ref = {file->fs, pt_locks_get(file->fs, lock)};
        if (ref.owner == NULL) {
            g_auto(OwnerRef) made = {0};
            int r = make_owner(file, lock, &made);
            if (r == 0) {
                r = pt_locks_add(file->fs, file->handle, made.owner, &ref.owner);
            }
            if (r < 0) {
                return r;
            }
        }
        if (is_enough(ref.owner, lock->type)) {
            *ret_ref = ref;
            ref.owner = NULL;
            return 0;
        }
        int r = replace_owner(file, lock, &ref);
        if (r < 0 && r != -ESTALE) {
            return r;
        }
    }
    return -ENOLCK;
}

/* ---- record locks ------------------------------------------------------------------ */

static int unlock(const PtOpenFile *file, const PtLock *lock)
{
    const PtLockRange range = range_of(lock);
    for (int i = 0; i < TRIES; i++) {
        g_auto(OwnerRef) ref = {file->fs, pt_locks_get(file->fs, lock)};
        if (ref.owner == NULL) {
            return 0;
        }
        int r = set_range(ref.owner->fd, &range);
        if (r < 0 || pt_locks_note(file->fs, ref.owner, lock)) {
            return r;
        }
    }
    return -ENOLCK;
}

static int take(const PtOpenFile *file, const PtLock *lock)
{
    const PtLockRange range = range_of(lock);
    for (int i = 0; i < TRIES; i++) {
        g_auto(OwnerRef) ref = {0};
        int r = get_owner(file, lock, &ref);
        if (r < 0) {
            return r;
        }
        r = set_range(ref.owner->fd, &range);
        if (r < 0 || pt_locks_note(file->fs, ref.owner, lock)) {
            return r;
        }
    }
    return -ENOLCK;
}

int pt_lock_set(PtFs *fs, const PtLock *lock)
{
    g_auto(PtOpenFile) file = {0};
    if (!is_range(lock)) {
        return -EINVAL;
    }
    int r = pt_open_file_get(fs, lock->nodeid, lock->handle, PT_HANDLE_FILE, &file);
    if (r < 0) {
        return r;
    }
    if (lock->type == F_UNLCK) {
        return unlock(&file, lock);
    }
    r = check_handle(file.handle, lock->type);
    return r < 0 ? r : take(&file, lock);
}

/* What the kernel found in the way of @lock. */
static void tell(PtFs *fs, const struct flock *found, PtLock *lock)
{
    PtLockHolder holder = {0};
    PtLock in_the_way = *lock;
    in_the_way.start = (uint64_t)found->l_start;
    in_the_way.end = found->l_len == 0 ? (uint64_t)INT64_MAX
                                       : (uint64_t)(found->l_start + found->l_len - 1);
    /* Whoever holds it in the guest is known by a name that means something there. A
     * process of the host is not: its id would be another's. */
    if (found->l_pid == -1) {
        (void)pt_locks_holder(fs, &in_the_way, &holder);
    }
    lock->start = in_the_way.start;
    lock->end = in_the_way.end;
    lock->type = (uint32_t)found->l_type;
    lock->pid = holder.pid;
}

int pt_lock_get(PtFs *fs, PtLock *lock)
{
    g_auto(PtOpenFile) file = {0};
    if (!is_range(lock) || lock->type == F_UNLCK) {
        return -EINVAL;
    }
    int r = pt_open_file_get(fs, lock->nodeid, lock->handle, PT_HANDLE_FILE, &file);
    if (r < 0) {
        return r;
    }
    /* Its own locks are in nobody's way, so it is asked through its own descriptor. Who
     * has none has no locks, and then any descriptor will do that has none either. */
    g_auto(OwnerRef) ref = {fs, pt_locks_get(fs, lock)};
    const PtLockRange range = range_of(lock);
    struct flock host = flock_of(&range);
    int fd = ref.owner != NULL ? ref.owner->fd : file.handle->fd;
    if (fcntl(fd, F_OFD_GETLK, &host) < 0) {
        return pt_error();
    }
    if (host.l_type == F_UNLCK) {
        lock->type = F_UNLCK;
        return 0;
    }
    tell(fs, &host, lock);
    return 0;
}

void pt_lock_close(PtFs *fs, uint64_t nodeid, uint64_t owner)
{
    pt_locks_drop_owner(fs, nodeid, owner);
}

bool pt_lock_holder(PtFs *fs, const PtLock *lock, uint64_t *ret_owner)
{
    PtLockHolder holder = {0};
    bool is_found = pt_locks_holder(fs, lock, &holder);
    *ret_owner = holder.owner;
    return is_found;
}

/* ---- whole files ------------------------------------------------------------------- */

int pt_flock(PtFs *fs, const PtLock *lock)
{
    g_auto(PtOpenFile) file = {0};
    int operation;
    switch (lock->type) {
    case F_RDLCK:
        operation = LOCK_SH;
        break;
    case F_WRLCK:
        operation = LOCK_EX;
        break;
    case F_UNLCK:
        operation = LOCK_UN;
        break;
    default:
        return -EINVAL;
    }
    int r = pt_open_file_get(fs, lock->nodeid, lock->handle, PT_HANDLE_FILE, &file);
    if (r < 0) {
        return r;
    }
    return flock(file.handle->fd, operation | LOCK_NB) < 0 ? pt_error() : 0;
}
