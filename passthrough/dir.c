/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "passthrough/dir-stream.h"
#include "passthrough/entry.h"
#include "passthrough/fd.h"
#include "passthrough/file-status.h"
#include "passthrough/handle.h"
#include "passthrough/inode.h"
#include "passthrough/internal.h"
#include "passthrough/open-flags.h"
#include "passthrough/passthrough.h"

/*
 * Open directories. A walk has the stream of its handle to itself. Guests walk an open
 * directory with one request at a time; where one does not, the second walk neither waits
 * nor disturbs the first, but gets a stream and a descriptor for itself.
 */

int pt_opendir(PtFs *fs, uint64_t nodeid, uint32_t open_flags, PtOpened *ret_opened)
{
    g_auto(PtNode) node = {0};
    g_auto(PtFd) fd = {.fd = -1};
    int r = pt_node_get(fs, nodeid, &node);
    if (r < 0) {
        return r;
    }
    if (!S_ISDIR(pt_inode_type(node.inode))) {
        return -ENOTDIR;
    }
    r = pt_fd_reserve(fs, &fd);
    if (r < 0) {
        return r;
    }
    uint32_t flags = pt_open_dir_flags(fs, open_flags);
    fd.fd = pt_reopen_dir(fs, node.fd, flags);
    if (fd.fd < 0) {
        return fd.fd;
    }
    ret_opened->flags = pt_opened_dir(fs);
    PtHandleMake make = {node.inode, &fd, PT_HANDLE_DIR, flags, 0};
    return pt_handle_new(fs, &make, &ret_opened->handle);
}

int pt_releasedir(PtFs *fs, uint64_t nodeid, uint64_t handle)
{
    return pt_handle_release(fs, nodeid, handle, PT_HANDLE_DIR);
}

int pt_fsyncdir(PtFs *fs, uint64_t nodeid, uint64_t handle, bool datasync)
{
    g_auto(PtOpenFile) file = {0};
    int r = pt_open_file_get(fs, nodeid, handle, PT_HANDLE_DIR, &file);
    if (r < 0) {
        return r;
    }
    r = datasync ? fdatasync(file.handle->fd) : fsync(file.handle->fd);
    return r < 0 ? pt_error() : 0;
}

/* ---- walking ---------------------------------------------------------------------- */

static int second_stream(PtFs *fs, const PtHandle *handle, PtDirStream **ret_stream)
{
    g_auto(PtFd) fd = {.fd = -1};
    int r = pt_fd_reserve(fs, &fd);
    if (r < 0) {
        return r;
    }
    fd.fd = pt_reopen_dir(fs, handle->fd, O_RDONLY);
    if (fd.fd < 0) {
        return fd.fd;
    }
    *ret_stream = pt_dir_stream_new(fd.fd, true);
    if (*ret_stream == NULL) {
        return -ENOMEM;
    }
    (void)pt_fd_steal(&fd); /* the stream has it already */
    return 0;
}

static int get_stream(PtFs *fs, PtHandle *handle, PtDirCursor *cursor)
{
    PtDirStream *stream = NULL;
    if (atomic_exchange_explicit(&handle->walking, true, memory_order_acquire)) {
        int r = second_stream(fs, handle, &stream);
        cursor->stream = stream;
        return r;
    }
    cursor->first = true;
    if (handle->stream == NULL) {
        handle->stream = pt_dir_stream_new(handle->fd, false);
    }
    cursor->stream = handle->stream;
    return handle->stream == NULL ? -ENOMEM : 0;
}

int pt_dir_begin(PtFs *fs, uint64_t nodeid, uint64_t handle, uint64_t offset,
                 PtDirCursor *ret_cursor)
{
    PtOpenFile file = {0};
    *ret_cursor = (PtDirCursor){0};
    int r = pt_open_file_get(fs, nodeid, handle, PT_HANDLE_DIR, &file);
    if (r < 0) {
        return r;
    }
    /* From here on pt_dir_end() gives everything back. */
    ret_cursor->fs = fs;
    ret_cursor->handle = file.handle;
    r = get_stream(fs, file.handle, ret_cursor);
    if (r < 0) {
        return r;
    }
    /* What the guest caches, it shows to who opens the directory later. */
    return offset == 0 && pt_opened_dir(fs) != 0
               ? pt_dir_stream_rewind(ret_cursor->stream)
               : pt_dir_stream_seek(ret_cursor->stream, offset);
}

void pt_dir_follow(PtDirCursor *cursor, uint32_t open_flags)
{
    const PtIo io = {.open_flags = open_flags & ~(uint32_t)O_DIRECT};
    if (cursor->first) {
        pt_status_set(cursor->handle, pt_status_wanted(cursor->fs, cursor->handle, &io));
    }
}

void pt_dir_end(PtDirCursor *cursor)
{
    PtOpenFile file = {cursor->fs, cursor->handle};
    if (file.handle == NULL) {
        return;
    }
    if (!cursor->first) {
        pt_dir_stream_free(cursor->fs, cursor->stream);
    } else {
        if (cursor->stream != NULL) {
            pt_dir_stream_rest(cursor->fs, cursor->stream);
        }
        atomic_store_explicit(&file.handle->walking, false, memory_order_release);
    }
    pt_open_file_clear(&file);
    *cursor = (PtDirCursor){0};
}

int pt_dir_next(PtDirCursor *cursor, PtDirent *ret_dirent)
{
    return pt_dir_stream_next(cursor->stream, ret_dirent);
}

void pt_dir_unread(PtDirCursor *cursor, const PtDirent *dirent)
{
    pt_dir_stream_unread(cursor->stream);
}

static bool is_dots(const char *name)
{
    return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

int pt_dir_lookup(PtDirCursor *cursor, const PtDirent *dirent, PtEntry *ret_entry)
{
    PtFs *fs = cursor->fs;
    const PtHandle *handle = cursor->handle;
    PtPlace place = {pt_handle_inode(fs, handle), handle->fd, dirent->name};
    if (is_dots(dirent->name)) {
        memset(ret_entry, 0, sizeof(*ret_entry));
        return 0;
    }
    return pt_entry_list(fs, &place, ret_entry);
}
