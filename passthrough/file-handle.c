/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/file-handle.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "passthrough/fd.h"
#include "passthrough/hash.h"
#include "passthrough/internal.h"
#include "passthrough/mount.h"
#include "virtiofsd/autofd.h"
#include "virtiofsd/log.h"

/*
 * Opening by handle takes CAP_DAC_READ_SEARCH, because it asks no directory on the way,
 * and a descriptor of any file on the mount that reads: that of the first inode seen
 * there, which is where the mount begins. It keeps the mount busy for as long as the
 * guest knows an inode of it.
 *
 * A handle may lead to what is not in the share any more: a file that was moved out of
 * it. So does a descriptor; the guest had the file.
 */

int pt_file_handle_get(int fd, PtFileHandle *ret_handle)
{
    int mount_id = 0;
    memset(ret_handle, 0, sizeof(*ret_handle));
    ret_handle->head.handle_bytes = MAX_HANDLE_SZ;
    if (name_to_handle_at(fd, "", &ret_handle->head, &mount_id, AT_EMPTY_PATH) == 0) {
        return 0;
    }
    return errno == EOVERFLOW ? -EOPNOTSUPP : pt_error();
}

static size_t size_of(const PtFileHandle *handle)
{
    return sizeof(handle->head) + handle->head.handle_bytes;
}

uint64_t pt_file_handle_hash(const PtFs *fs, const PtFileHandle *handle)
{
    return pt_hash(&fs->hash_key, handle, size_of(handle)) | 1;
}

struct file_handle *pt_file_handle_copy(const PtFileHandle *handle)
{
    struct file_handle *copy = malloc(size_of(handle));
    if (copy != NULL) {
        memcpy(copy, handle, size_of(handle));
    }
    return copy;
}

static int open_by_handle(int mount_fd, const struct file_handle *handle)
{
    PtFileHandle room; /* the C library's prototype does not promise to leave it alone */
    memcpy(&room, handle, sizeof(*handle) + handle->handle_bytes);
    int fd = open_by_handle_at(mount_fd, &room.head, O_PATH | O_CLOEXEC);
    return fd < 0 ? pt_error() : fd;
}

/* While a file is being made that gets the number of one that is gone, the kernel says
 * of the latter that memory is short; a moment later, that it is gone. */
enum { TRIES = 5 };

int pt_file_handle_open(const PtMount *mount, const struct file_handle *handle)
{
    int fd = open_by_handle(mount->fd.fd, handle);
    for (int i = 1; i < TRIES && fd == -ENOMEM; i++) {
        (void)poll(NULL, 0, 1); /* interrupted: sooner, then */
        fd = open_by_handle(mount->fd.fd, handle);
    }
    /* What some file systems say of a file that is gone. */
    return fd == -ENOENT ? -ESTALE : fd;
}

/* Return: a descriptor of @fd's file that opens by handle, or a negative errno. */
static int open_mount(const PtFs *fs, int fd)
{
    struct statx seen;
    PtFileHandle handle;
    int r = pt_stat(fs, fd, "", &seen);
    if (r < 0) {
        return r;
    }
    /* To open anything else might do something. */
    if (!S_ISDIR(seen.stx_mode) && !S_ISREG(seen.stx_mode)) {
        return -EOPNOTSUPP;
    }
    r = pt_file_handle_get(fd, &handle);
    if (r < 0) {
        return r;
    }
    g_auto(AutoFd) opened = pt_reopen(fs, fd, O_RDONLY | O_NONBLOCK);
    if (opened < 0) {
        return opened;
    }
    g_auto(AutoFd) again = open_by_handle(opened, &handle.head);
    return again < 0 ? again : autofd_steal(&opened);
}

int pt_file_handle_mount(PtFs *fs, PtMount *mount, int fd)
{
    if (fs->config.inode_handles == PT_INODE_HANDLES_NEVER) {
        return 0;
    }
    g_auto(PtFd) kept = {.fd = -1};
    int r = pt_fd_reserve(fs, &kept);
    if (r == 0) {
        kept.fd = r = open_mount(fs, fd);
    }
    if (r < 0) {
        return fs->config.inode_handles == PT_INODE_HANDLES_MANDATORY ? r : 0;
    }
    mount->fd = kept;
    kept = (PtFd){.fd = -1};
    return 0;
}

bool pt_file_handle_check(PtFs *fs, int root_fd, GError **error)
{
    if (fs->config.inode_handles == PT_INODE_HANDLES_NEVER) {
        return true;
    }
    g_auto(AutoFd) opened = open_mount(fs, root_fd);
    if (opened >= 0) {
        return true;
    }
    const char *name = strerrorname_np(-opened);
    if (fs->config.inode_handles == PT_INODE_HANDLES_MANDATORY) {
        g_set_error(error, G_FILE_ERROR, (gint)g_file_error_from_errno(-opened),
                    "inodes of the share cannot be held by file handle (%s): %s", name,
                    opened == -EPERM ? "start with CAP_DAC_READ_SEARCH"
                                     : "its file system does not open files by handle");
        return false;
    }
    log_warn("inodes of the share cannot be held by file handle (%s):"
             " holding them by descriptor",
             name);
    fs->config.inode_handles = PT_INODE_HANDLES_NEVER;
    return true;
}
