/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/uio.h>
#include <unistd.h>

#include "passthrough/cred.h"
#include "passthrough/fd.h"
#include "passthrough/file-status.h"
#include "passthrough/handle.h"
#include "passthrough/inode.h"
#include "passthrough/internal.h"
#include "passthrough/open-flags.h"
#include "passthrough/pages.h"
#include "passthrough/passthrough.h"
#include "passthrough/xattr.h"
#include "virtiofsd/autofd.h"

/*
 * Open files. Data moves between the guest's memory and the host's file in one system
 * call; nothing is copied here, and a short count is answered as such: at the end of a
 * file it is the answer.
 */

static int open_node(PtFs *fs, const PtNode *node, uint32_t flags, bool kill_suidgid)
{
    g_auto(PtPrivileges) privileges = {0};
    int r = pt_open_type_check(pt_inode_type(node->inode));
    if (r < 0) {
        return r;
    }
    bool truncates = flags & O_TRUNC;
    r = truncates ? pt_capability_drop(fs, node->fd, S_IFREG) : 0;
    if (r < 0) {
        return r;
    }
    r = pt_privileges_drop(kill_suidgid && truncates, &privileges);
    return r < 0 ? r : pt_reopen(fs, node->fd, flags);
}

int pt_open(PtFs *fs, uint64_t nodeid, uint32_t open_flags, bool kill_suidgid,
            PtOpened *ret_opened)
{
    g_auto(PtNode) node = {0};
    g_auto(PtFd) fd = {.fd = -1};
    struct statx seen;
    uint32_t flags = 0;
    seen.stx_mask = 0;
    int r = pt_open_flags(fs, open_flags, &flags);
    if (r < 0) {
        return r;
    }
    r = pt_node_get_seen(fs, nodeid, &node, &seen);
    if (r < 0) {
        return r;
    }
    r = pt_fd_reserve(fs, &fd);
    if (r < 0) {
        return r;
    }
    fd.fd = open_node(fs, &node, flags, kill_suidgid);
    if (fd.fd < 0) {
        return fd.fd;
    }
    ret_opened->flags = pt_opened_file(fs, node.inode, flags);
    PtHandleMake make = {node.inode, &fd, PT_HANDLE_FILE, flags, 0};
    if (pt_open_may_keep(fs, flags) &&
        pt_pages_opened(fs, node.inode, fd.fd, &seen, &make.pages)) {
        ret_opened->flags |= PT_OPEN_KEEP_CACHE;
    }
    return pt_handle_new(fs, &make, &ret_opened->handle);
}

/* ---- data ------------------------------------------------------------------------- */

enum { TRANSFER_TRIES = 8, PAGE_LEAST = 4096 };

typedef ssize_t (*Transfer)(int fd, const struct iovec *iov, int n_iov, off_t offset,
                            int flags);

static size_t total(const struct iovec *iov, int n_iov)
{
    size_t sum = 0;
    for (int i = 0; i < n_iov; i++) {
        sum += iov[i].iov_len;
    }
    return sum;
}

/* One system call for any sane request. The kernel takes no more than IOV_MAX segments at
 * once; a guest that sends more gets its data in several. */
static ssize_t transfer(Transfer call, int fd, const PtIo *io, int flags)
{
    const struct iovec *iov = io->iov;
    int left = io->n_iov;
    uint64_t done = 0;
    while (io->offset + done <= INT64_MAX) {
        int n = left < IOV_MAX ? left : IOV_MAX;
        ssize_t moved = call(fd, iov, n, (off_t)(io->offset + done), flags);
        if (moved < 0) {
            return done > 0 ? (ssize_t)done : pt_error();
        }
        done += (uint64_t)moved;
        left -= n;
        if (left == 0 || (size_t)moved < total(iov, n)) {
            return (ssize_t)done;
        }
        iov += n;
    }
    return done > 0 ? (ssize_t)done : -EINVAL;
}

/* Alignment is a direct transfer's duty: one that is not direct gets no EINVAL because
 * another has made the file direct just now. */
static ssize_t transfer_as_asked(const PtOpenFile *file, Transfer call, const PtIo *io,
                                 int flags)
{
    PtHandle *handle = file->handle;
    ssize_t r = -EINVAL;
    for (int i = 0; i < TRANSFER_TRIES; i++) {
        uint32_t wanted = pt_status_wanted(file->fs, handle, io);
        pt_status_set(handle, wanted);
        r = transfer(call, handle->fd, io, flags);
        if (r != -EINVAL || !pt_status_lost(handle, wanted)) {
            break;
        }
    }
    return r;
}

/* Reading stops where the next page is not in memory; where a file ends, too, but that is
 * seldom the end of a page. */
static ssize_t read_at_once(const PtOpenFile *file, const PtIo *io)
{
    if (pt_status_wanted(file->fs, file->handle, io) & O_DIRECT) {
        return -EAGAIN;
    }
    ssize_t r = transfer_as_asked(file, preadv2, io, RWF_NOWAIT);
    if (r == -EOPNOTSUPP) { /* ext2, by its own driver, passes for ext4 */
        return transfer_as_asked(file, preadv2, io, 0);
    }
    bool may_be_more = r > 0 && (io->offset + (uint64_t)r) % PAGE_LEAST == 0 &&
                       (size_t)r < total(io->iov, io->n_iov);
    return may_be_more ? -EAGAIN : r;
}

ssize_t pt_read(PtFs *fs, const PtIo *io)
{
    g_auto(PtOpenFile) file = {0};
    int r = pt_open_file_get(fs, io->nodeid, io->handle, PT_HANDLE_FILE, &file);
    if (r < 0) {
        return r;
    }
    pt_pages_known(fs, file.handle);
    if ((io->flags & PT_IO_NOWAIT) && file.handle->nowait && io->n_iov <= IOV_MAX) {
        return read_at_once(&file, io);
    }
    return transfer_as_asked(&file, preadv2, io, 0);
}

int pt_file_changes(const PtFs *fs, const PtOpenFile *file)
{
    /* One that cannot be written is about to be refused. */
    return file->handle->writable ? pt_capability_drop(fs, file->handle->fd, S_IFREG) : 0;
}

ssize_t pt_write(PtFs *fs, const PtIo *io)
{
    g_auto(PtOpenFile) file = {0};
    g_auto(PtPrivileges) privileges = {0};
    int r = pt_open_file_get(fs, io->nodeid, io->handle, PT_HANDLE_FILE, &file);
    if (r < 0) {
        return r;
    }
    r = pt_file_changes(fs, &file);
    if (r < 0) {
        return r;
    }
    r = pt_privileges_drop(io->flags & PT_IO_KILL_SUIDGID, &privileges);
    if (r < 0) {
        return r;
    }
    /* With write-back the guest alone knows where the file ends. */
    bool append = (io->open_flags & O_APPEND) && !(io->flags & PT_IO_CACHED) &&
                  !fs->agreed.writeback;
    return transfer_as_asked(&file, pwritev2, io, append ? RWF_APPEND : 0);
}

/* ---- the rest --------------------------------------------------------------------- */

int pt_flush(PtFs *fs, uint64_t nodeid, uint64_t handle)
{
    g_auto(PtOpenFile) file = {0};
    int r = pt_open_file_get(fs, nodeid, handle, PT_HANDLE_FILE, &file);
    if (r < 0) {
        return r;
    }
    /* On a local file system close(2) has nothing to write and no error to tell, so FLUSH
     * is no system call there. On a remote one it has both: a copy of the descriptor is
     * closed. */
    bool remote = pt_handle_inode(fs, file.handle)->mount_class == PT_MOUNT_REMOTE;
    if (!remote || !file.handle->writable) {
        return 0;
    }
    int copy = fcntl(file.handle->fd, F_DUPFD_CLOEXEC, 0);
    return copy < 0 || close(copy) < 0 ? pt_error() : 0;
}

int pt_release(PtFs *fs, uint64_t nodeid, uint64_t handle)
{
    return pt_handle_release(fs, nodeid, handle, PT_HANDLE_FILE);
}

int pt_fsync(PtFs *fs, uint64_t nodeid, uint64_t handle, bool datasync)
{
    g_auto(PtOpenFile) file = {0};
    int r = pt_open_file_get(fs, nodeid, handle, PT_HANDLE_FILE, &file);
    if (r < 0) {
        return r;
    }
    r = datasync ? fdatasync(file.handle->fd) : fsync(file.handle->fd);
    return r < 0 ? pt_error() : 0;
}

int pt_fallocate(PtFs *fs, const PtAllocate *allocate)
{
    g_auto(PtOpenFile) file = {0};
    g_auto(PtPrivileges) privileges = {0};
    uint64_t offset = allocate->offset;
    uint64_t length = allocate->length;
    if (offset > INT64_MAX || length > INT64_MAX || length == 0) {
        return -EINVAL;
    }
    if (offset + length > INT64_MAX) {
        return -EFBIG;
    }
    int r =
        pt_open_file_get(fs, allocate->nodeid, allocate->handle, PT_HANDLE_FILE, &file);
    if (r == 0) {
        r = pt_privileges_drop(allocate->kill_suidgid, &privileges);
    }
    if (r < 0) {
        return r;
    }
    r = pt_file_changes(fs, &file);
    if (r < 0) {
        return r;
    }
    r = fallocate(file.handle->fd, (int)allocate->mode, (off_t)offset, (off_t)length);
    return r < 0 ? pt_error() : 0;
}

int pt_lseek(PtFs *fs, uint64_t nodeid, uint64_t handle, uint64_t offset, uint32_t whence,
             uint64_t *ret_offset)
{
    g_auto(PtOpenFile) file = {0};
    int r = pt_open_file_get(fs, nodeid, handle, PT_HANDLE_FILE, &file);
    if (r < 0) {
        return r;
    }
    /* Reads and writes name their offset, so nobody is disturbed. The kernel refuses
     * offsets and whences that it does not know. On btrfs, the end of the last page of
     * all is a number that no off_t holds, and no error. */
    errno = EOVERFLOW;
    off_t found = lseek(file.handle->fd, (off_t)offset, (int)whence);
    if (found < 0) {
        return pt_error();
    }
    *ret_offset = (uint64_t)found;
    return 0;
}
