/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/differential/run.h"

/*
 * Opening, and what is common to all operations.
 */

int run_fd(const Side *side, const Op *op, int i)
{
    return side->slots[(size_t)op->arg[i] % SIDE_SLOTS].fd;
}

int run_at(const Side *side, const Op *op, int i)
{
    return op->arg[i] < 0 ? AT_FDCWD : run_fd(side, op, i);
}

void run_names_changed(Side *side)
{
    side->last_change = side->index;
}

void run_fill(Side *side, int64_t seed, size_t size)
{
    Rng rng = {(uint64_t)seed};
    uint64_t *words = (uint64_t *)(void *)side->buffer;
    for (size_t i = 0; i * 8 < size; i++) {
        words[i] = rng_next(&rng);
    }
}

/* Without a request: what the guest knows since it was opened. */
static bool is_directory(int fd)
{
    struct statx stx = {0};
    return fd >= 0 &&
           statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &stx) == 0 &&
           S_ISDIR(stx.stx_mode);
}

bool run_is_directory(const Side *side, int fd)
{
    for (int i = 0; i < SIDE_SLOTS; i++) {
        if (side->slots[i].fd == fd) {
            return side->slots[i].directory;
        }
    }
    return false;
}

static void put(Side *side, int64_t slot_number, int fd)
{
    Slot *slot = &side->slots[(size_t)slot_number % SIDE_SLOTS];
    if (slot->fd >= 0) {
        (void)close(slot->fd);
    }
    free(slot->entries);
    *slot = (Slot){.fd = fd, .since = side->index, .directory = is_directory(fd)};
}

/* What no program can tell from outside; the rest of the flags is compared. */
static void tell_flags(Side *side, int fd)
{
    out_number(&side->out, FIELD_FLAGS, fcntl(fd, F_GETFL) & ~O_DIRECT);
}

/* FIFOs must not block. Without --allow-direct-io the guest's kernel takes any alignment,
 * so the native side opens without O_DIRECT, which would want its own. */
static int flags_of(const Side *side, const Op *op)
{
    int flags = op_int(op, 2) | O_NONBLOCK | O_CLOEXEC;
    if (!side->mode->direct && !side->mount) {
        flags &= ~O_DIRECT;
    }
    if (!side->mode->noatime) {
        flags &= ~O_NOATIME;
    }
    if (!side->mode->tmpfile) {
        flags &= ~(O_TMPFILE & ~O_DIRECTORY);
    }
    return flags;
}

/* open(2) with O_TRUNC moves the times of a file that is empty already, truncate(2) does
 * not; and a guest that leaves killpriv to itself sends the same SETATTR for both. */
static bool is_empty(int at, const char *path)
{
    struct stat st;
    return fstatat(at, path, &st, 0) == 0 && S_ISREG(st.st_mode) && st.st_size == 0;
}

/* On overlayfs, opening for writing makes a copy: another time of change, fewer links.
 * Linux goes on telling what it keeps of the file until that is too old. */
static void look_at_copy(const Side *side, int fd, int flags)
{
    if (side->mode->overlay && (flags & O_ACCMODE) != O_RDONLY) {
        run_refresh(side, fd);
    }
}

void run_open(Side *side, const Op *op)
{
    char path[PATH_ROOM];
    int at = run_at(side, op, 0), flags = flags_of(side, op);
    path_decode(op->arg[1], path);
    run_names_changed(side);
    if ((flags & O_TRUNC) != 0 && is_empty(at, path)) {
        flags &= ~O_TRUNC;
    }
    int fd = openat(at, path, flags, run_mode(op, 3));
    out_return(&side->out, fd < 0 ? -1 : 0);
    if (fd >= 0) {
        look_at_copy(side, fd, flags);
        put(side, op->arg[4], fd);
        tell_flags(side, fd);
    }
}

void run_close(Side *side, const Op *op)
{
    out_number(&side->out, FIELD_NUMBER, run_fd(side, op, 0) < 0);
    put(side, op->arg[0], -1);
}

void run_dup(Side *side, const Op *op)
{
    int fd = fcntl(run_fd(side, op, 0), F_DUPFD_CLOEXEC, 3);
    out_return(&side->out, fd < 0 ? -1 : 0);
    if (fd >= 0) {
        bool toggled = side->slots[(size_t)op->arg[0] % SIDE_SLOTS].toggled;
        put(side, op->arg[1], fd);
        side->slots[(size_t)op->arg[1] % SIDE_SLOTS].toggled = toggled;
    }
}

static bool is_same_file(int a, int b)
{
    struct stat st[2];
    return fstat(a, &st[0]) == 0 && fstat(b, &st[1]) == 0 && st[0].st_ino == st[1].st_ino;
}

void run_written_back(Side *side, int fd)
{
    for (int i = 0; i < SIDE_SLOTS; i++) {
        int flags = fcntl(side->slots[i].fd, F_GETFL);
        if (flags >= 0 && (flags & O_DIRECT) != 0 &&
            is_same_file(fd, side->slots[i].fd)) {
            side->slots[i].toggled = true;
        }
    }
}

static void note_toggled(Side *side, int fd)
{
    for (int i = 0; i < SIDE_SLOTS; i++) {
        if (is_same_file(fd, side->slots[i].fd)) {
            side->slots[i].toggled = true;
        }
    }
}

void run_setfl(Side *side, const Op *op)
{
    int fd = run_fd(side, op, 0), flags = op_int(op, 1) | O_NONBLOCK;
    int before = fcntl(fd, F_GETFL);
    if (!side->mode->noatime) {
        flags &= ~O_NOATIME;
    }
    if (!side->mode->direct && !side->mount) {
        flags &= ~O_DIRECT;
    }
    int r = fcntl(fd, F_SETFL, flags);
    out_return(&side->out, r);
    if (r == 0 && ((before ^ op_int(op, 1)) & O_DIRECT) != 0) {
        note_toggled(side, fd);
    }
    if (fd >= 0) {
        tell_flags(side, fd);
    }
}

void run_flock(Side *side, const Op *op)
{
    out_return(&side->out, flock(run_fd(side, op, 0), op_int(op, 1)));
}

/* slot, command, type, start, length. */
void run_lock(Side *side, const Op *op)
{
    struct flock lock = {.l_type = (short)op->arg[2],
                         .l_whence = SEEK_SET,
                         .l_start = op->arg[3],
                         .l_len = op->arg[4]};
    int r = fcntl(run_fd(side, op, 0), op_int(op, 1), &lock);
    out_return(&side->out, r);
    if (r == 0) {
        OutLock told = {lock.l_type, lock.l_whence, lock.l_start, lock.l_len};
        out_field(&side->out, FIELD_LOCK, &told, sizeof(told));
    }
}
