/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "passthrough/inode-evict.h"
#include "passthrough/inode.h"
#include "passthrough/internal.h"
#include "passthrough/mount.h"

/*
 * Descriptors and their budget. Nothing here calls open(2) or openat(2): once the process
 * is sealed only openat2(2) works, and every way to open a file is in this one place.
 */

enum {
    KEPT_FREE = 8, /* one in so many descriptors is kept free of inodes that are idle */
    ATTEMPTS_FEW = 8,
    BATCH = 4,  /* what one opening makes room for */
    TRIES = 16, /* while others take what was made free */
    WAITS = 8,  /* of these, after waiting for what cannot be closed yet */
};

int pt_error(void)
{
    return errno == EMFILE ? -ENFILE : -errno;
}

static int reserve(PtFs *fs, uint32_t limit, PtFd *ret_fd)
{
    *ret_fd = (PtFd){.fd = -1};
    uint32_t before =
        atomic_fetch_add_explicit(&fs->n_descriptors, 1, memory_order_relaxed);
    if (before >= limit) {
        atomic_fetch_sub_explicit(&fs->n_descriptors, 1, memory_order_relaxed);
        return -ENFILE;
    }
    ret_fd->fs = fs;
    return 0;
}

static uint32_t spare_limit(const PtFs *fs)
{
    uint32_t most = fs->config.max_descriptors;
    return most - most / KEPT_FREE;
}

int pt_fd_reserve_spare(PtFs *fs, PtFd *ret_fd)
{
    return reserve(fs, spare_limit(fs), ret_fd);
}

bool pt_fd_has_spare(const PtFs *fs)
{
    return atomic_load_explicit(&fs->n_descriptors, memory_order_relaxed) <
           spare_limit(fs);
}

int pt_fd_reserve_idle(PtFs *fs, PtFd *ret_fd)
{
    int r = pt_fd_reserve_spare(fs, ret_fd);
    if (r < 0) {
        PtEviction eviction = {.wanted = 1, .attempts = ATTEMPTS_FEW};
        pt_evict(fs, &eviction);
        r = eviction.closed > 0 ? reserve(fs, fs->config.max_descriptors, ret_fd) : r;
    }
    return r;
}

void pt_fd_reserve_briefly(PtFs *fs, PtFd *ret_fd)
{
    (void)reserve(fs, UINT32_MAX, ret_fd); /* cannot fail: there are never so many */
}

int pt_fd_reserve(PtFs *fs, PtFd *ret_fd)
{
    int waits = 0;
    int r = reserve(fs, fs->config.max_descriptors, ret_fd);
    for (int i = 0; i < TRIES && r < 0; i++) {
        PtEviction eviction = {.wanted = BATCH, .attempts = UINT32_MAX, .all = true};
        pt_evict(fs, &eviction);
        if (eviction.closed == 0 && (!eviction.later || waits++ == WAITS)) {
            return r;
        }
        if (eviction.closed == 0) {
            pt_place_wait();
        }
        r = reserve(fs, fs->config.max_descriptors, ret_fd);
    }
    return r;
}

void pt_fd_close(PtFs *fs, int fd)
{
    if (fd >= 0) {
        int saved = errno;
        /* The descriptor is gone either way. Errors of written data are FLUSH's and
         * FSYNC's to tell. */
        (void)close(fd);
        errno = saved;
    }
    atomic_fetch_sub_explicit(&fs->n_descriptors, 1, memory_order_relaxed);
}

void pt_fd_clear(PtFd *fd)
{
    if (fd->fs != NULL) {
        pt_fd_close(fd->fs, fd->fd);
    }
    *fd = (PtFd){.fd = -1};
}

int pt_fd_steal(PtFd *fd)
{
    int taken = fd->fd;
    *fd = (PtFd){.fd = -1};
    return taken;
}

static int open_how(int dir_fd, const char *name, const struct open_how *how)
{
    long fd = syscall(SYS_openat2, dir_fd, name, how, sizeof(*how));
    if (fd < 0 && errno == EPERM && (how->flags & O_NOATIME)) {
        /* The owner's privilege. The guest's kernel has asked for it; where the host's
         * does not give it to us, a time of access is not worth refusing the file. */
        struct open_how plain = *how;
        plain.flags &= ~(uint64_t)O_NOATIME;
        fd = syscall(SYS_openat2, dir_fd, name, &plain, sizeof(plain));
    }
    return fd < 0 ? pt_error() : (int)fd;
}

int pt_open_beneath(int dir_fd, const char *name, uint32_t flags, uint32_t mode)
{
    struct open_how how = {
        .flags = flags | O_CLOEXEC | O_NOFOLLOW,
        .mode = mode,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    };
    return open_how(dir_fd, name, &how);
}

PtFdName pt_fd_name(int fd)
{
    PtFdName name = {{0}};
    size_t length = 1;
    for (int rest = fd; rest >= 10; rest /= 10) {
        length++;
    }
    for (int rest = fd; length > 0; rest /= 10) {
        name.text[--length] = (char)('0' + rest % 10);
    }
    return name;
}

int pt_denied(const PtFs *fs, int r, int fd, int mode)
{
    /* A server may refuse what the bits of the mode allow. */
    if (r != -EACCES || !fs->config.landlock || pt_mount_is_remote(fd)) {
        return r;
    }
    long allowed = syscall(SYS_faccessat2, fd, "", mode, AT_EMPTY_PATH | AT_EACCESS);
    return allowed == 0 ? -ESTALE : r;
}

static int access_mode(uint32_t flags)
{
    bool reads = (flags & O_ACCMODE) != O_WRONLY;
    bool writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
    return (reads ? R_OK : 0) | (writes ? W_OK : 0);
}

int pt_reopen(const PtFs *fs, int fd, uint32_t flags)
{
    struct open_how how = {.flags = flags | O_CLOEXEC};
    int again = open_how(fs->procfd, pt_fd_name(fd).text, &how);
    return pt_denied(fs, again, fd, access_mode(flags));
}

int pt_reopen_dir(const PtFs *fs, int fd, uint32_t flags)
{
    struct open_how how = {.flags = flags | O_DIRECTORY | O_CLOEXEC};
    int again = open_how(fd, ".", &how);
    /* Looking up "." wants search permission, which reading a directory does not. */
    return again == -EACCES ? pt_reopen(fs, fd, flags | O_DIRECTORY) : again;
}

int pt_stat(const PtFs *fs, int dir_fd, const char *name, struct statx *ret_stx)
{
    int flags = AT_NO_AUTOMOUNT | (name[0] == '\0' ? AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW);
    return statx(dir_fd, name, flags, fs->statx_mask, ret_stx) < 0 ? pt_error() : 0;
}
