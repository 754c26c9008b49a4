/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "tests/differential/run.h"

/*
 * Attributes: looking at them, and changing them.
 */

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif

static OutTime time_of(struct statx_timestamp t)
{
    return (OutTime){t.tv_sec, t.tv_nsec};
}

static void tell(Side *side, const struct statx *stx, unsigned mask, uint64_t handle)
{
    OutStat told = {
        .ino = stx->stx_ino,
        .size = stx->stx_size,
        .blocks = stx->stx_blocks,
        .mask = stx->stx_mask & (STATX_BASIC_STATS | STATX_BTIME),
        .blksize = stx->stx_blksize,
        .mode = stx->stx_mode,
        .nlink = stx->stx_nlink,
        .uid = stx->stx_uid,
        .gid = stx->stx_gid,
        .rdev_major = stx->stx_rdev_major,
        .rdev_minor = stx->stx_rdev_minor,
        .same_device = makedev(stx->stx_dev_major, stx->stx_dev_minor) == side->device,
        .settled = side->settled && !(side->mapped && side->mode->memory),
        .wanted = mask & (STATX_BASIC_STATS | STATX_BTIME),
        .atime = time_of(stx->stx_atime),
        .mtime = time_of(stx->stx_mtime),
        .ctime = time_of(stx->stx_ctime),
        .btime = time_of(stx->stx_btime),
        .handle = handle,
    };
    out_field(&side->out, FIELD_STAT, &told, sizeof(told));
}

uint64_t run_handle(const Side *side, int fd, const char *path, int flags)
{
    struct {
        struct file_handle head;
        uint8_t bytes[MAX_HANDLE_SZ];
    } handle = {{.handle_bytes = MAX_HANDLE_SZ}, {0}};
    int mount, follow = (flags & AT_SYMLINK_NOFOLLOW) != 0 ? 0 : AT_SYMLINK_FOLLOW;
    if (side->mount || name_to_handle_at(fd, path, &handle.head, &mount,
                                         follow | (flags & AT_EMPTY_PATH)) < 0) {
        return 0;
    }
    return out_hash(0, handle.bytes, handle.head.handle_bytes);
}

long run_stat(Side *side, int fd, const char *path, int flags, unsigned mask)
{
    struct statx stx;
    memset(&stx, 0, sizeof(stx));
    if (side->mount && side->mode->overlay) {
        flags |= AT_STATX_FORCE_SYNC; /* whatever copies a file up changes its links */
    }
    /* The birth time tells native files apart; on the mount it costs a request. */
    int r = statx(fd, path, flags, side->mount ? mask : mask | STATX_BTIME, &stx);
    if (r == 0) {
        tell(side, &stx, mask, run_handle(side, fd, path, flags));
    } else {
        out_return(&side->out, r);
    }
    return r;
}

static void refresh(const Side *side, int fd, const char *path, int flags)
{
    struct statx stx;
    if (side->mount && side->mode->cached_names) {
        (void)statx(fd, path, flags | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &stx);
    }
}

void run_refresh(const Side *side, int fd)
{
    refresh(side, fd, "", AT_EMPTY_PATH);
}

void run_refresh_path(const Side *side, const char *path)
{
    if (side->mode->overlay) {
        refresh(side, AT_FDCWD, path, 0);
    }
}

/* A set-group-ID bit without group execute may outlive a write or not: see except.c. */
mode_t run_mode(const Op *op, int i)
{
    mode_t mode = (mode_t)op->arg[i];
    return (mode & S_IXGRP) != 0 ? mode : mode & ~(mode_t)S_ISGID;
}

/* at, path, flags, mask */
void run_statx(Side *side, const Op *op)
{
    char path[PATH_ROOM];
    path_decode(op->arg[1], path);
    unsigned mask = (unsigned)op->arg[3];
    if (!side->mode->statx) {
        mask &= ~STATX_BTIME;
    }
    (void)run_stat(side, run_at(side, op, 0), path, op_int(op, 2), mask);
}

void run_fstat(Side *side, const Op *op)
{
    int fd = run_fd(side, op, 0);
    (void)run_stat(side, fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS);
}

/* path, or the slot of an open file */
void run_statfs(Side *side, const Op *op)
{
    char path[PATH_ROOM];
    struct statfs st;
    path_decode(op->arg[0], path);
    int r = op->arg[1] > 2 ? fstatfs(run_fd(side, op, 1), &st) : statfs(path, &st);
    out_return(&side->out, r);
    if (r == 0) {
        OutStatfs told = {(uint64_t)st.f_bsize, (uint64_t)st.f_frsize, st.f_blocks,
                          st.f_files, (uint64_t)st.f_namelen};
        out_field(&side->out, FIELD_STATFS, &told, sizeof(told));
    }
}

/* at, path, mode, flags */
void run_chmod(Side *side, const Op *op)
{
    char path[PATH_ROOM];
    path_decode(op->arg[1], path);
    int at = run_at(side, op, 0);
    mode_t mode = run_mode(op, 2);
    long r = op->arg[3] == 0 ? fchmodat(at, path, mode, 0)
                             : syscall(SYS_fchmodat2, at, path, mode, op_int(op, 3));
    out_return(&side->out, r);
}

void run_fchmod(Side *side, const Op *op)
{
    out_return(&side->out, fchmod(run_fd(side, op, 0), run_mode(op, 1)));
}

/* No change of owner moves the time of change natively, whoever asks. FUSE's client sends
 * a SETATTR that names nothing at all. */
static bool is_no_change(const Op *op, int uid)
{
    return (uid_t)op->arg[uid] == (uid_t)-1 && (gid_t)op->arg[uid + 1] == (gid_t)-1;
}

/* at, path, uid, gid, flags */
void run_chown(Side *side, const Op *op)
{
    char path[PATH_ROOM];
    if (is_no_change(op, 2)) {
        return;
    }
    path_decode(op->arg[1], path);
    out_return(&side->out, fchownat(run_at(side, op, 0), path, (uid_t)op->arg[2],
                                    (gid_t)op->arg[3], op_int(op, 4)));
}

void run_fchown(Side *side, const Op *op)
{
    if (is_no_change(op, 1)) {
        return;
    }
    out_return(&side->out,
               fchown(run_fd(side, op, 0), (uid_t)op->arg[1], (gid_t)op->arg[2]));
}

/* The values of KIND_TIME. */
static struct timespec chosen_time(int64_t which)
{
    static const struct timespec times[] = {
        {0, UTIME_NOW},
        {0, UTIME_OMIT},
        {0, 0},
        {1, 1},
        {-1, 500000000},
        {1000000000, 999999999},
        {INT64_C(1) << 31, 0},
        {(INT64_C(1) << 33) + 7, 0},
        {INT64_C(1000000000000), 0},
        {5, 1000000000},
        {-(INT64_C(1) << 40), 0},
        {1234567890, 123456789},
        {5, -1},
    };
    return times[(size_t)which % (sizeof(times) / sizeof(times[0]))];
}

/* at, path, atime, mtime, flags */
void run_utimens(Side *side, const Op *op)
{
    char path[PATH_ROOM];
    const struct timespec times[2] = {chosen_time(op->arg[2]), chosen_time(op->arg[3])};
    path_decode(op->arg[1], path);
    out_return(&side->out, utimensat(run_at(side, op, 0), path, times, op_int(op, 4)));
}

void run_futimens(Side *side, const Op *op)
{
    const struct timespec times[2] = {chosen_time(op->arg[1]), chosen_time(op->arg[2])};
    out_return(&side->out, futimens(run_fd(side, op, 0), times));
}

/* at, path, mode, flags */
void run_access(Side *side, const Op *op)
{
    char path[PATH_ROOM];
    path_decode(op->arg[1], path);
    out_return(&side->out, syscall(SYS_faccessat2, run_at(side, op, 0), path,
                                   op_int(op, 2), op_int(op, 3)));
}

void run_umask(Side *side, const Op *op)
{
    out_number(&side->out, FIELD_NUMBER, umask((mode_t)op->arg[0]));
}
