/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on files. Data goes straight between the guest's segments and the file; what
 * is handed down is cut to exactly the size that the guest named.
 */
#include <errno.h>
#include <fcntl.h>

#include "virtiofsd/fuse/dispatch.h"
#include "virtiofsd/fuse/op-lock.h"
#include "virtiofsd/fuse/op.h"
#include "virtiofsd/fuse/reply.h"

/* The most that max_pages lets a guest ask for, were its pages 64 KiB. */
#define MAX_READ (UINT32_C(256) * 64 * 1024)

/* Opening a read-only share for reading is all that is allowed there. */
static bool wants_write(uint32_t open_flags)
{
    return (open_flags & O_ACCMODE) != O_RDONLY || (open_flags & O_TRUNC) != 0;
}

/* Does what the caller changes lose its set-id bits, where the request does not tell? The
 * caller without a name is taken for unprivileged, unless the guest's kernel sees to it
 * itself. */
static bool is_unprivileged(const Request *request)
{
    uint32_t uid = request->header.uid;

    return uid == UINT32_MAX ? request->session->agreed.killpriv : uid != 0;
}

/* Without HANDLE_KILLPRIV_V2, Linux forgets to do it itself when it opens to truncate. */
static bool open_kills(const Request *request)
{
    const struct fuse_open_in *in = &request->in.open;

    return (in->open_flags & FUSE_OPEN_KILL_SUIDGID) != 0 ||
           (!request->session->agreed.killpriv && is_unprivileged(request));
}

int op_open(Request *request)
{
    const struct fuse_open_in *in = &request->in.open;
    bool kill_suidgid = open_kills(request);
    PtOpened opened;

    if (wants_write(in->flags) && dispatch_readonly(request)) {
        return -EROFS;
    }
    int result =
        pt_open(request->fs, request->header.nodeid, in->flags, kill_suidgid, &opened);
    if (result < 0) {
        return result;
    }
    result = reply_open(request, &opened);
    if (result < 0) {
        /* The guest never hears of the handle. */
        (void)pt_release(request->fs, request->header.nodeid, opened.handle);
    }
    return result;
}

/* After one piece of a transfer: is it over? @moved is what the file system said. */
static bool is_over(ssize_t moved, size_t piece)
{
    return moved < 0 || (size_t)moved < piece;
}

int op_read(Request *request)
{
    const struct fuse_read_in *in = &request->in.read;
    PtIo io = {
        .nodeid = request->header.nodeid,
        .handle = in->fh,
        .iov = request->scratch->segments,
        .offset = in->offset,
        .open_flags = in->flags,
        .flags = request->only_short ? PT_IO_NOWAIT : 0,
    };
    size_t left = in->size;

    if (in->offset > INT64_MAX) {
        return -EINVAL;
    }
    /* A read that is cut short by its reply would look like the end of the file. */
    if (left > MAX_READ || left > iov_writer_room(&request->writer)) {
        return op_malformed(request, "too little room for the data");
    }
    /* One round, unless there are more segments than one system call takes. */
    for (;;) {
        size_t n;
        size_t piece = iov_writer_slice(&request->writer, left,
                                        request->scratch->segments, IOV_MAX, &n);
        io.n_iov = (int)n;
        ssize_t moved = pt_read(request->fs, &io);
        request->is_long = request->only_short && moved == -EAGAIN;
        if (moved < 0 && left == in->size) {
            return (int)moved;
        }
        if (moved > 0 && !iov_writer_commit(&request->writer, (size_t)moved)) {
            return -EIO;
        }
        if (is_over(moved, piece) || piece == left) {
            return 0;
        }
        left -= piece;
        io.offset += piece;
    }
}

int op_write(Request *request)
{
    const struct fuse_write_in *in = &request->in.write;
    PtIo io = {
        .nodeid = request->header.nodeid,
        .handle = in->fh,
        .iov = request->scratch->segments,
        .offset = in->offset,
        .open_flags = in->flags,
    };
    struct fuse_write_out out = {0};
    size_t left = in->size;

    if (in->offset > INT64_MAX) {
        return -EINVAL;
    }
    if (left > SESSION_MAX_WRITE || left > request->tail) {
        return op_malformed(request, "more to write than data");
    }
    if ((in->write_flags & FUSE_WRITE_CACHE) != 0) {
        io.flags |= PT_IO_CACHED;
    }
    if ((in->write_flags & FUSE_WRITE_KILL_SUIDGID) != 0) {
        io.flags |= PT_IO_KILL_SUIDGID;
    }
    for (;;) {
        size_t n;
        size_t piece = iov_reader_slice(&request->reader, left,
                                        request->scratch->segments, IOV_MAX, &n);
        io.n_iov = (int)n;
        ssize_t moved = pt_write(request->fs, &io);
        if (moved < 0 && left == in->size) {
            return (int)moved;
        }
        if (moved > 0) {
            out.size += (uint32_t)moved;
        }
        if (is_over(moved, piece) || piece == left) {
            return reply_bytes(request, &out, sizeof(out));
        }
        left -= piece;
        io.offset += piece;
    }
}

int op_flush(Request *request)
{
    op_lock_flushed(request);
    return pt_flush(request->fs, request->header.nodeid, request->in.flush.fh);
}

int op_fsync(Request *request)
{
    const struct fuse_fsync_in *in = &request->in.fsync;
    bool datasync = (in->fsync_flags & FUSE_FSYNC_FDATASYNC) != 0;

    return pt_fsync(request->fs, request->header.nodeid, in->fh, datasync);
}

int op_release(Request *request)
{
    int result = pt_release(request->fs, request->header.nodeid, request->in.release.fh);

    if (result >= 0) {
        op_lock_released(request);
    }
    return result;
}

int op_fallocate(Request *request)
{
    const struct fuse_fallocate_in *in = &request->in.fallocate;
    const PtAllocate allocate = {
        .nodeid = request->header.nodeid,
        .handle = in->fh,
        .mode = in->mode,
        .offset = in->offset,
        .length = in->length,
        .kill_suidgid = is_unprivileged(request),
    };

    return pt_fallocate(request->fs, &allocate);
}

int op_lseek(Request *request)
{
    const struct fuse_lseek_in *in = &request->in.lseek;
    struct fuse_lseek_out out = {0};
    int result = pt_lseek(request->fs, request->header.nodeid, in->fh, in->offset,
                          in->whence, &out.offset);

    return result < 0 ? result : reply_bytes(request, &out, sizeof(out));
}

static ssize_t copy(Request *request)
{
    const struct fuse_copy_file_range_in *in = &request->in.copy_file_range;
    const PtCopy copy = {
        .nodeid = request->header.nodeid,
        .handle = in->fh_in,
        .offset = in->off_in,
        .to_nodeid = in->nodeid_out,
        .to_handle = in->fh_out,
        .to_offset = in->off_out,
        .length = in->len,
        .flags = (uint32_t)in->flags,
        .kill_suidgid = is_unprivileged(request),
    };

    return in->flags > UINT32_MAX ? -EINVAL : pt_copy(request->fs, &copy);
}

/* What is copied at once is less than 2 GiB, so that both replies can tell it. */
int op_copy_file_range(Request *request)
{
    ssize_t result = copy(request);
    const struct fuse_write_out out = {.size = (uint32_t)result};

    return result < 0 ? (int)result : reply_bytes(request, &out, sizeof(out));
}

int op_copy_file_range_64(Request *request)
{
    ssize_t result = copy(request);
    const uint64_t out = (uint64_t)result; /* struct fuse_copy_file_range_out */

    return result < 0 ? (int)result : reply_bytes(request, &out, sizeof(out));
}

int op_syncfs(Request *request)
{
    return pt_syncfs(request->fs, request->header.nodeid);
}
