/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/handle.h"

#include <errno.h>
#include <fcntl.h>

#include "passthrough/cred.h"
#include "passthrough/dir-stream.h"
#include "passthrough/internal.h"
#include "passthrough/open-flags.h"
#include "passthrough/pages.h"

/*
 * The table of handles. A read or write needs nothing but its handle: one atomic
 * increment finds it, checks that it is alive, of this node and of the right kind, and
 * keeps its descriptor open. RELEASE takes away the guest's reference, once; a request
 * that is still running keeps its own.
 */

PtInode *pt_handle_inode(const PtFs *fs, const PtHandle *handle)
{
    return (PtInode *)(void *)pt_slots_at(&fs->inodes, (uint32_t)handle->nodeid);
}

static void put(PtFs *fs, PtHandle *handle)
{
    if (!pt_slot_unref(&handle->slot)) {
        return;
    }
    PtInode *inode = pt_handle_inode(fs, handle);
    PtDirStream *stream = handle->stream;
    int fd = handle->fd;
    pt_slots_give(&fs->handles, &handle->slot);
    pt_dir_stream_free(fs, stream);
    pt_fd_close(fs, fd);
    pt_inode_put(fs, inode);
}

static bool is_open(PtHandle *handle)
{
    return atomic_load_explicit(&handle->open, memory_order_relaxed);
}

/* Without a look at the thread: what only gives back works on any. */
static int get(PtFs *fs, uint64_t nodeid, uint64_t handle, PtHandleKind kind,
               PtOpenFile *ret_file)
{
    *ret_file = (PtOpenFile){0};
    PtHandle *found = (PtHandle *)(void *)pt_slots_get(&fs->handles, handle);
    if (found == NULL) {
        return -EBADF;
    }
    *ret_file = (PtOpenFile){fs, found};
    bool right_kind = kind == PT_HANDLE_ANY || found->kind == kind;
    if (found->nodeid != nodeid || !right_kind || !is_open(found)) {
        pt_open_file_clear(ret_file);
        return -EBADF;
    }
    return 0;
}

int pt_open_file_get(PtFs *fs, uint64_t nodeid, uint64_t handle, PtHandleKind kind,
                     PtOpenFile *ret_file)
{
    *ret_file = (PtOpenFile){0};
    return pt_thread_usable() ? get(fs, nodeid, handle, kind, ret_file) : -EIO;
}

void pt_open_file_clear(PtOpenFile *file)
{
    if (file->handle != NULL) {
        put(file->fs, file->handle);
    }
    *file = (PtOpenFile){0};
}

int pt_handle_new(PtFs *fs, const PtHandleMake *make, uint64_t *ret_id)
{
    PtHandle *handle = (PtHandle *)(void *)pt_slots_take(&fs->handles);
    if (handle == NULL) {
        return -ENOMEM;
    }
    pt_inode_ref(make->inode);
    handle->nodeid = pt_slot_id(&make->inode->slot);
    handle->stream = NULL;
    handle->fd = pt_fd_steal(make->fd);
    handle->kind = (uint8_t)make->kind;
    handle->nowait = pt_mount_at(&fs->mounts, pt_index_mount(fs, make->inode))->nowait;
    handle->writable = pt_opened_for_writing(make->flags);
    atomic_store_explicit(&handle->pages, make->pages, memory_order_relaxed);
    atomic_store_explicit(&handle->status, make->flags & (O_DIRECT | O_NOATIME),
                          memory_order_relaxed);
    atomic_store_explicit(&handle->open, true, memory_order_relaxed);
    atomic_store_explicit(&handle->walking, false, memory_order_relaxed);
    *ret_id = pt_slot_id(&handle->slot);
    pt_slot_publish(&handle->slot);
    return 0;
}

static int release(PtFs *fs, PtHandle *handle)
{
    if (!atomic_exchange_explicit(&handle->open, false, memory_order_relaxed)) {
        return -EBADF; /* another thread was first */
    }
    if (fs->agreed.posix_locks) {
        pt_locks_drop_handle(fs, handle);
    }
    put(fs, handle);
    return 0;
}

int pt_handle_release(PtFs *fs, uint64_t nodeid, uint64_t handle, PtHandleKind kind)
{
    g_auto(PtOpenFile) file = {0};
    int r = get(fs, nodeid, handle, kind, &file);
    if (r < 0) {
        return r;
    }
    pt_pages_known(fs, file.handle);
    return release(fs, file.handle);
}

int pt_handle_reopen(PtFs *fs, uint64_t nodeid)
{
    /* The budget of descriptors bounds this. */
    for (uint32_t i = 1; i < pt_slots_end(&fs->handles); i++) {
        PtHandle *handle = (PtHandle *)(void *)pt_slots_at(&fs->handles, i);
        if (!pt_slot_ref_live(&handle->slot)) {
            continue;
        }
        bool is_it = handle->nodeid == nodeid;
        int fd = is_it ? pt_reopen(fs, handle->fd, O_PATH) : -1;
        put(fs, handle);
        if (is_it) {
            return fd;
        }
    }
    return -EBADF;
}

void pt_handle_drop_all(PtFs *fs)
{
    for (uint32_t i = 1; i < pt_slots_end(&fs->handles); i++) {
        PtHandle *handle = (PtHandle *)(void *)pt_slots_at(&fs->handles, i);
        if (pt_slot_ref_live(&handle->slot)) {
            (void)release(fs, handle); /* -EBADF: it was released already */
            put(fs, handle);
        }
    }
}
