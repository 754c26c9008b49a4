/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_DIFFERENTIAL_RUN_H
#define TESTS_DIFFERENTIAL_RUN_H

#include "tests/differential/path.h"
#include "tests/differential/side.h"

/*
 * One function for each operation; the arguments are those of its row in ops.c.
 */

/** run_fd() - the descriptor in slot @i of @op's arguments. */
int run_fd(const Side *side, const Op *op, int i);
/** run_at() - the directory that a path begins at: argument @i. */
int run_at(const Side *side, const Op *op, int i);
/** run_mode() - argument @i as mode, but for an old mark of mandatory locking. */
mode_t run_mode(const Op *op, int i);
/** run_stat() - statx and FIELD_STAT, or FIELD_RETURN for an error. */
long run_stat(Side *side, int fd, const char *path, int flags, unsigned mask);
/** run_handle() - tells a native file from another that has its inode number later. */
uint64_t run_handle(const Side *side, int fd, const char *path, int flags);
/**
 * run_refresh() - have the guest ask for the attributes of @fd.
 *
 * What it keeps of them is old after FS_IOC_SETFLAGS, and after a copy_file_range(2) that
 * fails late: neither makes it ask anew by itself.
 */
void run_refresh(const Side *side, int fd);
/** run_refresh_path() - the same on overlayfs, where a file that is copied up becomes
 * another one, before the guest asks whose it is. */
void run_refresh_path(const Side *side, const char *path);
/** run_is_directory() - whether the slot that holds @fd holds a directory. */
bool run_is_directory(const Side *side, int fd);
/**
 * run_forget_access() - do not compare the access time of the file behind @fd any more.
 *
 * What of a splice or a mapping is read ahead, and what is answered from pages that were,
 * is the guest kernel's affair: its host may hear of an access or of none.
 */
void run_forget_access(Side *side, int fd);
/**
 * run_forget_holes() - do not compare where the file behind @fd has holes any more.
 *
 * What a mapping stores in makes no hole of the whole folio, which natively may be large,
 * but the guest writes the page back.
 */
void run_forget_holes(Side *side, int fd);
/**
 * run_written_back() - some of the file behind @fd is written back, which is never
 * direct.
 *
 * A copy then meets a file that was opened with O_DIRECT as one that was not.
 */
void run_written_back(Side *side, int fd);
/** run_has_set_id() - whether set-id bits count for anything. Those that do not may be
 * on one side only: see except.c. */
bool run_has_set_id(const struct stat *st);
/**
 * run_ends_too_far() - whether nobody can be asked what the file holds.
 *
 * In the last page of all, xfs and btrfs miscount where data and holes begin while the
 * page is not written back yet; FUSE's client asks when it is.
 */
bool run_ends_too_far(const Side *side, int fd);
/** run_holes_are_same() - whether both sides have holes at the same places. */
bool run_holes_are_same(const Side *side, int fd);
/** run_hole() - FIELD_HOLE: @value says where @fd has holes. */
void run_hole(Side *side, int fd, int64_t value);
/** run_names_changed() - remember that this operation may change names. */
void run_names_changed(Side *side);
/** run_fill() - @size bytes that @seed decides, in the side's buffer. */
void run_fill(Side *side, int64_t seed, size_t size);

void run_open(Side *side, const Op *op);
void run_close(Side *side, const Op *op);
void run_dup(Side *side, const Op *op);
void run_setfl(Side *side, const Op *op);

void run_read(Side *side, const Op *op);
void run_pread(Side *side, const Op *op);
void run_write(Side *side, const Op *op);
void run_pwrite(Side *side, const Op *op);
void run_lseek(Side *side, const Op *op);
void run_ftruncate(Side *side, const Op *op);
void run_truncate(Side *side, const Op *op);
void run_fallocate(Side *side, const Op *op);
void run_copy(Side *side, const Op *op);
void run_sendfile(Side *side, const Op *op);
void run_splice(Side *side, const Op *op);
void run_sync(Side *side, const Op *op);
void run_advise(Side *side, const Op *op);
void run_map(Side *side, const Op *op);

void run_mkdir(Side *side, const Op *op);
void run_mknod(Side *side, const Op *op);
void run_symlink(Side *side, const Op *op);
void run_link(Side *side, const Op *op);
void run_link_open(Side *side, const Op *op);
void run_unlink(Side *side, const Op *op);
void run_rename(Side *side, const Op *op);
void run_readlink(Side *side, const Op *op);

void run_chmod(Side *side, const Op *op);
void run_fchmod(Side *side, const Op *op);
void run_chown(Side *side, const Op *op);
void run_fchown(Side *side, const Op *op);
void run_utimens(Side *side, const Op *op);
void run_futimens(Side *side, const Op *op);
void run_access(Side *side, const Op *op);
void run_statx(Side *side, const Op *op);
void run_fstat(Side *side, const Op *op);
void run_statfs(Side *side, const Op *op);
void run_umask(Side *side, const Op *op);

void run_list(Side *side, const Op *op);
void run_readdir(Side *side, const Op *op);
void run_rewind(Side *side, const Op *op);
void run_telldir(Side *side, const Op *op);
void run_seekdir(Side *side, const Op *op);
/** run_walk() - the whole tree: attributes, contents, attributes by name, listings. */
void run_walk(Side *side, const Op *op);

void run_setxattr(Side *side, const Op *op);
void run_getxattr(Side *side, const Op *op);
void run_listxattr(Side *side, const Op *op);
void run_removexattr(Side *side, const Op *op);
void run_fsetxattr(Side *side, const Op *op);
void run_fgetxattr(Side *side, const Op *op);
void run_setacl(Side *side, const Op *op);
void run_getacl(Side *side, const Op *op);

void run_ioctl(Side *side, const Op *op);
void run_setflags(Side *side, const Op *op);
void run_flock(Side *side, const Op *op);
void run_lock(Side *side, const Op *op);

#endif
