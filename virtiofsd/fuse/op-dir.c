/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on directories. Entries are encoded one after another; the one that does not
 * fit is put back for the next request.
 */
#include <errno.h>

#include "virtiofsd/fuse/op.h"
#include "virtiofsd/fuse/reply.h"

int op_opendir(Request *request)
{
    uint64_t nodeid = request->header.nodeid;
    PtOpened opened;
    int result = pt_opendir(request->fs, nodeid, request->in.open.flags, &opened);

    if (result < 0) {
        return result;
    }
    result = reply_open(request, &opened);
    if (result < 0) {
        /* The guest never hears of the handle. */
        (void)pt_releasedir(request->fs, nodeid, opened.handle);
    }
    return result;
}

/* One entry with its attributes; its room has been checked before the lookup. A name that
 * cannot be looked up (it may be gone by now) is listed without, and looked up again by
 * the guest if it matters. */
static int answer_plus(Request *request, PtDirCursor *cursor, const PtDirent *dirent)
{
    PtEntry entry;

    if (pt_dir_lookup(cursor, dirent, &entry) < 0) {
        entry.nodeid = 0;
    }
    int result = reply_direntplus(request, dirent, &entry);
    if (result < 0 && entry.nodeid != 0) {
        pt_forget(request->fs, entry.nodeid, 1);
        pt_dir_unread(cursor, dirent);
    }
    return result;
}

/* Return: 1 to go on, 0 at the end, or a negative errno, also when the reply is full. */
static int answer_next(Request *request, PtDirCursor *cursor, bool plus)
{
    PtDirent dirent;
    int result = pt_dir_next(cursor, &dirent);

    if (result <= 0) {
        return result;
    }
    if (reply_dirent_size(dirent.name_length, plus) > reply_dirent_room(request)) {
        pt_dir_unread(cursor, &dirent);
        return -EINVAL; /* if there is none before it: that would mean the end */
    }
    result =
        plus ? answer_plus(request, cursor, &dirent) : reply_dirent(request, &dirent);
    return result < 0 ? result : 1;
}

static int read_directory(Request *request, bool plus)
{
    const struct fuse_read_in *in = &request->in.read;
    g_auto(PtDirCursor) cursor = {0};
    int result =
        pt_dir_begin(request->fs, request->header.nodeid, in->fh, in->offset, &cursor);

    if (result < 0) {
        return result;
    }
    pt_dir_follow(&cursor, in->flags);
    size_t size = in->size < SESSION_MAX_WRITE ? in->size : SESSION_MAX_WRITE;
    iov_writer_limit(&request->writer, size);
    do {
        result = answer_next(request, &cursor, plus);
    } while (result > 0);
    /* What was found before an error is told; the next request meets the error itself. */
    return reply_dirents_end(request) ? 0 : result;
}

int op_readdir(Request *request)
{
    return read_directory(request, false);
}

int op_readdirplus(Request *request)
{
    return read_directory(request, true);
}

int op_releasedir(Request *request)
{
    return pt_releasedir(request->fs, request->header.nodeid, request->in.release.fh);
}

int op_fsyncdir(Request *request)
{
    const struct fuse_fsync_in *in = &request->in.fsync;
    bool datasync = (in->fsync_flags & FUSE_FSYNC_FDATASYNC) != 0;

    return pt_fsyncdir(request->fs, request->header.nodeid, in->fh, datasync);
}
