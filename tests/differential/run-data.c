/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <linux/falloc.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/differential/run.h"

/*
 * Data: reading, writing, moving, room and what is on disk.
 */

#ifndef RWF_NOAPPEND
#define RWF_NOAPPEND 0x20
#endif

static size_t length_of(const Op *op, int i)
{
    return (size_t)op->arg[i] % SIDE_BUFFER;
}

/* In a directory offsets are cookies, which are the file system's own. */
static void tell_offset(Side *side, int fd)
{
    if (!run_is_directory(side, fd)) {
        out_number(&side->out, FIELD_OFFSET, lseek(fd, 0, SEEK_CUR));
    }
}

static void tell_data(Side *side, ssize_t r)
{
    out_return(&side->out, r);
    if (r > 0) {
        out_data(&side->out, side->buffer, (size_t)r);
    }
}

static bool is_direct(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & O_DIRECT) != 0;
}

/* A direct read asks the host, which has not heard how large the file is while a part of
 * it is to be written back. */
static void before_read(const Side *side, int fd)
{
    if (side->mode->writeback && is_direct(fd)) {
        (void)fdatasync(fd);
    }
}

/* A direct read of a hole need not be aligned, and a store through a mapping fills a hole
 * of the folio, which natively may be larger. */
static bool is_odd_after_map(const Side *side, int fd, off_t offset, size_t length)
{
    return side->mapped && (((size_t)offset | length) & 511) != 0 && is_direct(fd);
}

/* slot, length */
void run_read(Side *side, const Op *op)
{
    int fd = run_fd(side, op, 0);
    if (is_odd_after_map(side, fd, lseek(fd, 0, SEEK_CUR), length_of(op, 1))) {
        return;
    }
    before_read(side, fd);
    tell_data(side, read(fd, side->buffer, length_of(op, 1)));
    tell_offset(side, fd);
}

/* FUSE files lack FMODE_NOWAIT, so the kernel refuses the flag by itself. With O_APPEND a
 * WRITE appends, and none tells that this one is not to. */
static bool is_impossible(const Op *op, int flags)
{
    return (op->arg[flags] & (RWF_NOWAIT | RWF_NOAPPEND)) != 0;
}

/* The buffer in two. The bridge joins the parts, so natively they are aligned as well for
 * O_DIRECT, where the whole is. */
static void split(const Side *side, size_t length, size_t first, struct iovec iov[2])
{
    if (length % 512 == 0) {
        first &= ~(size_t)4095;
    }
    iov[0] = (struct iovec){side->buffer, first};
    iov[1] = (struct iovec){side->buffer + first, length - first};
}

/* slot, length, offset, flags */
void run_pread(Side *side, const Op *op)
{
    int fd = run_fd(side, op, 0);
    if (is_impossible(op, 3) ||
        is_odd_after_map(side, fd, op->arg[2], length_of(op, 1))) {
        return;
    }
    struct iovec iov[2];
    before_read(side, fd);
    split(side, length_of(op, 1), length_of(op, 1) / 2, iov);
    tell_data(side, preadv2(fd, iov, 2, op->arg[2], op_int(op, 3)));
}

enum { ANYWHERE = 1 }; /* an offset that is not aligned */

/* Direct writing that is not aligned xfs refuses before it does anything, also where it
 * is to append. FUSE's client takes set-id bits away first, writes where the file ends,
 * and cuts the file to its old size when that fails. */
static bool is_refused_early(const Side *side, int fd, int64_t offset, size_t length)
{
    int flags = fcntl(fd, F_GETFL);
    return side->mode->xfs && flags >= 0 && (flags & O_DIRECT) != 0 &&
           ((flags & O_APPEND) != 0 || (((uint64_t)offset | length) & 511) != 0);
}

static OutFile file_of(const Side *side, int fd)
{
    struct statx stx;
    OutFile file = {0};
    if (!side->mount &&
        statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &stx) == 0) {
        file.ino = stx.stx_ino;
        file.handle = run_handle(side, fd, "", AT_EMPTY_PATH);
        file.btime = (OutTime){stx.stx_btime.tv_sec, stx.stx_btime.tv_nsec};
    }
    return file;
}

static void tell_file(Side *side, FieldTag tag, int fd)
{
    OutFile file = file_of(side, fd);
    out_field(&side->out, tag, &file, sizeof(file));
}

/* What is written too far the guest takes into its pages, and is refused later. A direct
 * write it has refused at once, but then cuts the file to its size, which moves times. */
static bool is_too_far_to_write(const Side *side, int to, int64_t offset)
{
    return (side->mode->writeback || is_direct(to)) && !run_is_directory(side, to) &&
           offset > side->mode->far - (int64_t)SIDE_BUFFER;
}

/* Direct writing whose last part is not aligned may have written the others before it
 * fails, on the host too. */
static bool is_torn(int fd, size_t length)
{
    return length > 512 && length % 512 != 0 && is_direct(fd);
}

/* Direct writing makes room first, and then sees that it cannot write all. FUSE's client
 * then cuts the file off at its size, which frees all room behind it. */
static void tell_written(Side *side, int fd, ssize_t r, size_t length)
{
    out_return(&side->out, r);
    if (r != (ssize_t)length && is_direct(fd)) {
        tell_file(side, FIELD_ROOM, fd);
        tell_file(side, FIELD_CUT, fd);
    }
}

static void tell_moved(Side *side, int to, ssize_t r)
{
    tell_written(side, to, r, (size_t)MAX(r, 0));
}

/* slot, length, seed */
void run_write(Side *side, const Op *op)
{
    int fd = run_fd(side, op, 0);
    /* On btrfs a seek changes what an open directory shows. */
    off_t offset = run_is_directory(side, fd) ? 0 : lseek(fd, 0, SEEK_CUR);
    if (is_refused_early(side, fd, offset, length_of(op, 1)) ||
        is_too_far_to_write(side, fd, offset) || is_torn(fd, length_of(op, 1))) {
        return;
    }
    run_fill(side, op->arg[2], length_of(op, 1));
    ssize_t r = write(fd, side->buffer, length_of(op, 1));
    tell_written(side, fd, r, length_of(op, 1));
    tell_offset(side, fd);
}

/* slot, length, offset, flags, seed */
void run_pwrite(Side *side, const Op *op)
{
    int fd = run_fd(side, op, 0);
    int64_t at = (op->arg[3] & RWF_APPEND) != 0 ? ANYWHERE : op->arg[2];
    if (is_impossible(op, 3) || is_refused_early(side, fd, at, length_of(op, 1)) ||
        is_too_far_to_write(side, fd, op->arg[2]) || is_torn(fd, length_of(op, 1))) {
        return;
    }
    struct iovec iov[2];
    split(side, length_of(op, 1), length_of(op, 1) / 3, iov);
    run_fill(side, op->arg[4], length_of(op, 1));
    ssize_t r = pwritev2(fd, iov, 2, op->arg[2], op_int(op, 3));
    tell_written(side, fd, r, length_of(op, 1));
    tell_offset(side, fd);
}

bool run_ends_too_far(const Side *side, int fd)
{
    struct stat st;
    return (side->mode->xfs || side->mode->btrfs) && fstat(fd, &st) == 0 &&
           st.st_size > side->mode->far - SIDE_BUFFER;
}

/* tmpfs takes room for a hole that a mapping reads, but not for one that a READ does; xfs
 * takes for data what it has made room for and what somebody has in memory. And what the
 * guest has not written back, its client does not write back for SEEK_HOLE. */
bool run_holes_are_same(const Side *side, int fd)
{
    if (run_ends_too_far(side, fd)) {
        return false;
    }
    if (side->mode->writeback) {
        (void)fdatasync(fd);
    }
    return !side->mapped || !(side->mode->memory || side->mode->xfs) ||
           side->mode->control;
}

void run_hole(Side *side, int fd, int64_t value)
{
    OutHole hole = {file_of(side, fd), value};
    out_field(&side->out, FIELD_HOLE, &hole, sizeof(hole));
}

/* The offset stays where it was: where it would go may differ. */
static void seek_hole(Side *side, const Op *op)
{
    int fd = run_fd(side, op, 0);
    off_t before = lseek(fd, 0, SEEK_CUR);
    if (side->mode->btrfs && op->arg[1] < 0) {
        return; /* the beginning or nothing, as its data lies just now */
    }
    if (run_holes_are_same(side, fd)) {
        off_t found = lseek(fd, op->arg[1], op_int(op, 2));
        run_hole(side, fd, found < 0 ? -errno : found);
        out_number(&side->out, FIELD_NUMBER,
                   lseek(fd, 0, SEEK_CUR) == (found < 0 ? before : found));
        out_number(&side->out, FIELD_OFFSET, lseek(fd, before, SEEK_SET));
    }
}

/* How far a file can go, FUSE's client asks nobody: it lets offsets be what they want. */
static bool is_too_far(const Side *side, const Op *op)
{
    int fd = run_fd(side, op, 0);
    struct stat st = {0};
    off_t from = op->arg[2] == SEEK_CUR                          ? lseek(fd, 0, SEEK_CUR)
                 : op->arg[2] == SEEK_END && fstat(fd, &st) == 0 ? st.st_size
                                                                 : 0;
    return op->arg[1] > 0 && from >= 0 && op->arg[1] > side->mode->far - from;
}

/* slot, offset, whence: FUSE's client moves a directory's offset by itself, and by the
 * rules for files, so only the beginning is common. See run_seekdir(). */
void run_lseek(Side *side, const Op *op)
{
    int fd = run_fd(side, op, 0);
    if (run_is_directory(side, fd)) {
        return;
    }
    if (op->arg[2] == SEEK_DATA || op->arg[2] == SEEK_HOLE) {
        seek_hole(side, op);
    } else if (!is_too_far(side, op)) {
        out_return(&side->out, lseek(fd, op->arg[1], op_int(op, 2)));
    }
}

bool run_has_set_id(const struct stat *st)
{
    const mode_t group = S_ISGID | S_IXGRP;
    return (st->st_mode & S_ISUID) != 0 || (st->st_mode & group) == group;
}

/* Whether the file has what a change of it takes away. */
static bool is_privileged(const struct stat *st, ssize_t capabilities)
{
    return run_has_set_id(st) || capabilities > 0;
}

/* With --killpriv-v2 the host drops what root may keep, because no request names root.
 * Else the guest does by itself, also where the host then refuses what is too far; and
 * with writeback it moves times as early. */
static bool is_stripped(const Side *side, int fd, bool is_far)
{
    struct stat st;
    return (is_far || (side->mode->killpriv && geteuid() == 0)) && fstat(fd, &st) == 0 &&
           is_privileged(&st, fgetxattr(fd, "security.capability", NULL, 0));
}

/* With writeback the times are the guest's, and it moves none where the size stays. */
static bool moves_no_times(const Side *side, const struct stat *st, int64_t size)
{
    return side->mode->writeback && st->st_size == size;
}

void run_ftruncate(Side *side, const Op *op)
{
    int fd = run_fd(side, op, 0);
    struct stat st;
    if ((fstat(fd, &st) == 0 && moves_no_times(side, &st, op->arg[1])) ||
        is_stripped(side, fd, op->arg[1] > side->mode->far)) {
        return;
    }
    out_return(&side->out, ftruncate(fd, op->arg[1]));
}

/* What the guest takes away before it moves the time of change, also where the size stays
 * or is refused. */
void run_truncate(Side *side, const Op *op)
{
    char path[PATH_ROOM];
    struct stat st;
    path_decode(op->arg[0], path);
    if (stat(path, &st) == 0 &&
        (moves_no_times(side, &st, op->arg[1]) ||
         ((op->arg[1] == st.st_size || op->arg[1] > side->mode->far) &&
          is_privileged(&st, getxattr(path, "security.capability", NULL, 0))))) {
        return;
    }
    out_return(&side->out, truncate(path, op->arg[1]));
}

/* Where there is nothing to punch, btrfs leaves set-id bits, file capabilities and times
 * alone, and FUSE's client has changed them before. */
static bool is_punched_for_nothing(const Side *side, const Op *op)
{
    int fd = run_fd(side, op, 0);
    struct stat st;
    if (!side->mode->btrfs || (op->arg[1] & FALLOC_FL_PUNCH_HOLE) == 0 ||
        fstat(fd, &st) < 0) {
        return false;
    }
    return side->mode->writeback || (geteuid() != 0 && run_has_set_id(&st)) ||
           fgetxattr(fd, "security.capability", NULL, 0) >= 0;
}

/* slot, mode, offset, length: of the modes FUSE's client passes three on, and refuses the
 * others, which are therefore not tried natively. tmpfs refuses to zero a range; the
 * guest takes file capabilities away before it knows. */
void run_fallocate(Side *side, const Op *op)
{
    bool is_far = op->arg[2] > side->mode->far - (op->arg[3] & 0xfffff);
    if ((side->mode->memory && (op->arg[1] & FALLOC_FL_ZERO_RANGE) != 0) ||
        is_punched_for_nothing(side, op) || (is_far && side->mode->writeback) ||
        is_stripped(side, run_fd(side, op, 0), is_far)) {
        return;
    }
    const int possible =
        FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;
    int fd = run_fd(side, op, 0);
    off_t length = (op->arg[3] & 0xfffff);
    if ((op->arg[1] & ~possible) != 0) {
        bool refused =
            !side->mount || fallocate(fd, op_int(op, 1), op->arg[2], length) < 0;
        out_number(&side->out, FIELD_REFUSED, refused);
        return;
    }
    int r = fallocate(fd, op_int(op, 1), op->arg[2], length);
    out_return(&side->out, r);
    if (r == 0 && (op->arg[1] & FALLOC_FL_PUNCH_HOLE) == 0) {
        tell_file(side, FIELD_ROOM, fd);
    }
}

/* A copy of nothing, because the source ends before, is done with in FUSE's client, which
 * does not know that the offset to copy to is too far. */
static bool copies_nothing_far(const Side *side, const Op *op)
{
    int from = run_fd(side, op, 0), to = run_fd(side, op, 1);
    struct stat st = {0};
    off_t in = op->arg[2] != -1 ? op->arg[2] : lseek(from, 0, SEEK_CUR);
    off_t out = op->arg[3] != -1 ? op->arg[3] : lseek(to, 0, SEEK_CUR);
    return fstat(from, &st) == 0 && out >= side->mode->far &&
           (in >= st.st_size || length_of(op, 4) == 0);
}

/* A request to copy tells no flags: it meets O_DIRECT as the last transfer had it. */
static bool is_toggled(const Side *side, const Op *op, int i)
{
    return side->slots[(size_t)op->arg[i] % SIDE_SLOTS].toggled;
}

/* slot, slot, offset, offset, length, flags: offset -1 is the file's own. */
void run_copy(Side *side, const Op *op)
{
    loff_t in = op->arg[2], out = op->arg[3];
    int from = run_fd(side, op, 0), to = run_fd(side, op, 1);
    if (copies_nothing_far(side, op) || is_stripped(side, to, false) ||
        is_toggled(side, op, 0) || is_toggled(side, op, 1) ||
        (side->mode->xfs && is_direct(to))) { /* as is_refused_early() */
        return;
    }
    ssize_t r = copy_file_range(from, in == -1 ? NULL : &in, to, out == -1 ? NULL : &out,
                                length_of(op, 4), (unsigned)op->arg[5]);
    tell_moved(side, to, r);
    if (r < 0) {
        run_refresh(side, to);
    } else {
        run_refresh(side, from); /* the time of access, too, moves unseen */
    }
    out_number(&side->out, FIELD_NUMBER, in);
    out_number(&side->out, FIELD_NUMBER, out);
    tell_offset(side, from);
    tell_offset(side, to);
}

void run_forget_holes(Side *side, int fd)
{
    tell_file(side, FIELD_ROOM, fd);
}

void run_forget_access(Side *side, int fd)
{
    tell_file(side, FIELD_SPLICED, fd);
}

/* Pages that move within a file are overwritten while they move, if they are kept;
 * without a page cache they are copies. */
static bool is_same_file(int a, int b)
{
    struct statx stx[2] = {0};
    for (int i = 0; i < 2; i++) {
        if (statx(i == 0 ? a : b, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO,
                  &stx[i]) < 0) {
            return false;
        }
    }
    return stx[0].stx_ino == stx[1].stx_ino;
}

static bool is_pipe(int fd)
{
    struct statx stx = {0};
    return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &stx) == 0 &&
           S_ISFIFO(stx.stx_mode);
}

/* A direct write wants aligned memory, and pages that were moved are that; the daemon's
 * is always aligned. Behind what is too far, FUSE's client finds the end of the file. And
 * what is in a pipe is a page of the file, where later writes show, or a copy. */
static bool is_movable(const Side *side, int from, int to, off_t offset)
{
    off_t at = offset != -1 ? offset : lseek(from, 0, SEEK_CUR);
    return !run_is_directory(side, from) && !is_same_file(to, from) && !is_pipe(to) &&
           !is_direct(to) && at < side->mode->far - SIDE_BUFFER;
}

/* slot to, slot from, offset, length: a directory is refused, but tmpfs notes the access
 * before. */
void run_sendfile(Side *side, const Op *op)
{
    off_t at = op->arg[2];
    int to = run_fd(side, op, 0), from = run_fd(side, op, 1);
    if (!is_movable(side, from, to, at) ||
        is_too_far_to_write(side, to, lseek(to, 0, SEEK_CUR))) {
        return;
    }
    tell_moved(side, to, sendfile(to, from, at == -1 ? NULL : &at, length_of(op, 3)));
    run_forget_access(side, from);
    out_number(&side->out, FIELD_NUMBER, at);
    tell_offset(side, to);
    tell_offset(side, from);
}

/* slot from, slot to, offset, length */
void run_splice(Side *side, const Op *op)
{
    int ends[2];
    loff_t at = op->arg[2];
    if (!is_movable(side, run_fd(side, op, 0), run_fd(side, op, 1), at) ||
        is_too_far_to_write(side, run_fd(side, op, 1), at)) {
        return;
    }
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) {
        out_return(&side->out, -1);
        return;
    }
    size_t length = length_of(op, 3) % 32768;
    ssize_t r =
        splice(run_fd(side, op, 0), &at, ends[1], NULL, length, SPLICE_F_NONBLOCK);
    out_return(&side->out, r);
    if (r > 0) {
        at = op->arg[2];
        r = splice(ends[0], NULL, run_fd(side, op, 1), &at, (size_t)r, SPLICE_F_NONBLOCK);
        tell_moved(side, run_fd(side, op, 1), r);
    }
    run_forget_access(side, run_fd(side, op, 0));
    (void)close(ends[0]);
    (void)close(ends[1]);
}

/* The times of a file without a name, and its links, the guest writes back late. If no
 * layer but the lower one has the file, overlayfs then refuses to copy it up. */
static bool is_left_below(const Side *side)
{
    return errno == EEXIST && side->mount && side->mode->overlay && side->mode->writeback;
}

/* slot, which */
void run_sync(Side *side, const Op *op)
{
    int fd = run_fd(side, op, 0);
    int r = 0;
    switch (op->arg[1]) {
    case 0:
        r = fsync(fd);
        break;
    case 1:
        r = fdatasync(fd);
        break;
    case 2:
        r = syncfs(fd);
        break;
    default:
        r = sync_file_range(fd, 0, 8192, op->arg[1] == 3 ? 7 : 0x80);
        break;
    }
    out_return(&side->out, r < 0 && is_left_below(side) ? 0 : r);
}

/* slot, offset, length, advice: what is read ahead is an access to the host. */
void run_advise(Side *side, const Op *op)
{
    int r = posix_fadvise(run_fd(side, op, 0), op->arg[1], op->arg[2], op_int(op, 3));
    if (op->arg[3] == POSIX_FADV_WILLNEED) {
        run_forget_access(side, run_fd(side, op, 0));
    }
    out_number(&side->out, FIELD_NUMBER, r);
}
