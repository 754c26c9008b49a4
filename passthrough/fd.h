/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_FD_H
#define PASSTHROUGH_FD_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "passthrough/passthrough.h"

/*
 * Descriptors that the guest causes to be open, and the few ways to open one. A guest's
 * budget is taken before the descriptor is opened and given back after it is closed.
 */

/** typedef PtFd - a place in the budget and, once opened, the descriptor in it. */
typedef struct PtFd {
    PtFs *fs; /* NULL: owns nothing */
    int fd;   /* -1: reserved, not opened */
} PtFd;

/** pt_fd_reserve() - take a place, that of an idle inode if need be.
 * Return: 0, or -ENFILE when the guest has all open. */
int pt_fd_reserve(PtFs *fs, PtFd *ret_fd);
/** pt_fd_reserve_spare() - the same for an inode that can do without: takes it from
 * nobody, and leaves some for what cannot. */
int pt_fd_reserve_spare(PtFs *fs, PtFd *ret_fd);
/** pt_fd_has_spare() - Return: whether that would do. */
bool pt_fd_has_spare(const PtFs *fs);
/** pt_fd_reserve_idle() - the same, or in exchange for an inode that is idle and quickly
 * found. */
int pt_fd_reserve_idle(PtFs *fs, PtFd *ret_fd);
/** pt_fd_reserve_briefly() - take a place beyond the limit, for no longer than this
 * request. */
void pt_fd_reserve_briefly(PtFs *fs, PtFd *ret_fd);
/** pt_fd_clear() - close and give the place back. errno is kept. */
void pt_fd_clear(PtFd *fd);
/** pt_fd_steal() - Return: the descriptor; the caller ends it by pt_fd_close(). */
int pt_fd_steal(PtFd *fd);
/** pt_fd_close() - close a stolen descriptor and give its place back. */
void pt_fd_close(PtFs *fs, int fd);

/** pt_error() - Return: -errno; a full descriptor table is the request's ENFILE. */
int pt_error(void);

/**
 * pt_open_beneath() - openat2(2) of one name; follows no link and leaves no directory.
 * @dir_fd: the directory.
 * @flags: O_*; O_CLOEXEC and O_NOFOLLOW are added.
 * @mode: permissions with O_CREAT, else 0.
 *
 * Return: a descriptor, or a negative errno.
 */
int pt_open_beneath(int dir_fd, const char *name, uint32_t flags, uint32_t mode);

/**
 * pt_reopen() - another descriptor of the same file, whatever its name is now.
 * @fd: any descriptor of it. Unless @flags has O_PATH, the caller has made sure that it
 * is a regular file or a directory: to open anything else has effects.
 * @flags: O_*; O_CLOEXEC is added.
 *
 * Return: a descriptor, or a negative errno.
 */
int pt_reopen(const PtFs *fs, int fd, uint32_t flags);
/** pt_reopen_dir() - pt_reopen() for a directory; cheaper. */
int pt_reopen_dir(const PtFs *fs, int fd, uint32_t flags);

/**
 * pt_denied() - what the answer is of an opening, or of a change of a directory.
 * @r: what the host said: a descriptor, 0 or a negative errno.
 * @fd: the file, or the directory.
 * @mode: R_OK, W_OK, X_OK: what it took.
 *
 * Context: the identity of the call. Return: @r, or -ESTALE where Landlock has refused
 * what the host's permissions allow: the host has unmounted the file since, or moved it
 * out of the share. Then the guest's kernel looks for it again by its name.
 */
int pt_denied(const PtFs *fs, int r, int fd, int mode);

/** pt_stat() - statx(2) of @name in @dir_fd, which is not followed, or of @dir_fd itself
 * with "". Return: 0 or a negative errno. */
int pt_stat(const PtFs *fs, int dir_fd, const char *name, struct statx *ret_stx);

/** typedef PtFdName - the name of a descriptor in the procfd. */
typedef struct PtFdName {
    char text[12];
} PtFdName;

PtFdName pt_fd_name(int fd);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(PtFd, pt_fd_clear)

#endif
