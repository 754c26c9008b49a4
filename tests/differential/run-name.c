/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "tests/differential/run.h"

/*
 * Names: making, linking, renaming, removing.
 */

/* at, path, mode */
void run_mkdir(Side *side, const Op *op)
{
    char path[PATH_ROOM];
    path_decode(op->arg[1], path);
    run_names_changed(side);
    out_return(&side->out, mkdirat(run_at(side, op, 0), path, (mode_t)op->arg[2]));
}

/* at, path, type, mode, device */
void run_mknod(Side *side, const Op *op)
{
    char path[PATH_ROOM];
    mode_t mode = (mode_t)op->arg[2] | (run_mode(op, 3) & 07777);
    unsigned d = (unsigned)op->arg[4];
    dev_t device = makedev((d & 0xfff00) >> 8, (d & 0xff) | ((d >> 12) & 0xfff00));
    path_decode(op->arg[1], path);
    run_names_changed(side);
    out_return(&side->out, mknodat(run_at(side, op, 0), path, mode, device));
}

/* target, at, path */
void run_symlink(Side *side, const Op *op)
{
    char target[PATH_ROOM], path[PATH_ROOM];
    path_decode(op->arg[0], target);
    path_decode(op->arg[2], path);
    run_names_changed(side);
    out_return(&side->out, symlinkat(target, run_at(side, op, 1), path));
}

/* at, path, at, path, flags */
void run_link(Side *side, const Op *op)
{
    char from[PATH_ROOM], to[PATH_ROOM];
    path_decode(op->arg[1], from);
    path_decode(op->arg[3], to);
    run_names_changed(side);
    out_return(&side->out,
               linkat(run_at(side, op, 0), from, run_at(side, op, 2), to, op_int(op, 4)));
}

/* slot, path, whether through /proc: gives a name to an open file. */
void run_link_open(Side *side, const Op *op)
{
    char name[16], to[PATH_ROOM];
    int fd = run_fd(side, op, 0);
    path_decode(op->arg[1], to);
    run_names_changed(side);
    run_refresh(side, fd); /* a write may have taken set-id bits, which matter here */
    if (op->arg[2] == 0) {
        out_return(&side->out, linkat(fd, "", AT_FDCWD, to, AT_EMPTY_PATH));
        return;
    }
    (void)snprintf(name, sizeof(name), "%d", fd);
    out_return(&side->out, linkat(side->proc_fd, name, AT_FDCWD, to, AT_SYMLINK_FOLLOW));
}

/* at, path, flags */
void run_unlink(Side *side, const Op *op)
{
    char path[PATH_ROOM];
    path_decode(op->arg[1], path);
    run_names_changed(side);
    if (side->mode->broken && op->who != 0 && op->arg[2] == 0) {
        out_return(&side->out, 0); /* the error that the mutation run must find */
        return;
    }
    out_return(&side->out, unlinkat(run_at(side, op, 0), path, op_int(op, 2)));
}

/* at, path, at, path, flags */
void run_rename(Side *side, const Op *op)
{
    char from[PATH_ROOM], to[PATH_ROOM];
    path_decode(op->arg[1], from);
    path_decode(op->arg[3], to);
    run_names_changed(side);
    out_return(&side->out, syscall(SYS_renameat2, run_at(side, op, 0), from,
                                   run_at(side, op, 2), to, (unsigned)op->arg[4]));
}

/* at, path, room */
void run_readlink(Side *side, const Op *op)
{
    char path[PATH_ROOM];
    path_decode(op->arg[1], path);
    ssize_t length =
        readlinkat(run_at(side, op, 0), path, (char *)side->buffer, (size_t)op->arg[2]);
    out_return(&side->out, length);
    if (length >= 0) {
        out_field(&side->out, FIELD_TARGET, side->buffer, (size_t)length);
    }
}
