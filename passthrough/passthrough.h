/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_PASSTHROUGH_H
#define PASSTHROUGH_PASSTHROUGH_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/statvfs.h>
#include <sys/types.h>

#include "passthrough/types.h"

/*
 * The one door to the file system. Requests return a negative errno, and >= 0 for
 * success; start-up returns GError. Every call is safe from any number of threads, each
 * of which has been through pt_thread_enter(). Names and ids come from the guest and are
 * checked here: a name is one path component, an id is a slot and its generation. No call
 * aborts, and none holds a lock across a system call. What the calls take and give is in
 * types.h.
 *
 * A node id or file handle that was never given out, or was given back, is -ESTALE (node)
 * or -EBADF (handle, or a handle of another node).
 */

struct fsxattr;

/* ---- life cycle ------------------------------------------------------------------- */

/**
 * pt_fs_new() - make the file system; probes once what the host supports.
 * @root_fd_take: directory, opened with O_PATH or O_RDONLY, that the share is. Owned now,
 *                also on error.
 * @procfd_take: directory in which the name "N" leads to descriptor N of this process
 *               (a cloned /proc/self/fd). Owned now, also on error.
 *
 * Return: the file system, to be freed with pt_fs_free(), or NULL with @error set.
 */
PtFs *pt_fs_new(const PtConfig *config, int root_fd_take, int procfd_take,
                GError **error);

/** pt_fs_free() - close everything. Context: no request is running. NULL is fine. */
void pt_fs_free(PtFs *fs);

/** pt_fs_reset() - forget all nodes but the root and close all handles (INIT, DESTROY,
 * reset). */
void pt_fs_reset(PtFs *fs);

/** pt_fs_agree() - take over what INIT negotiated. Context: no request is running. */
void pt_fs_agree(PtFs *fs, const PtAgreed *agreed);

/**
 * pt_fs_watch_mounts() - what the host mounts read-only, or makes so later, no request
 * changes, even if it is writable in this process's own mount namespace.
 * @own_table_take: /proc/self/mountinfo, as seen from the share as the root.
 * @host_table_take: the host's, likewise.
 *
 * Context: before requests.
 */
void pt_fs_watch_mounts(PtFs *fs, int own_table_take, int host_table_take);

/** pt_fs_mounts_fd() - Return: what has POLLPRI when the host's mounts have changed, for
 * pt_fs_mounts_changed(); or -1. Borrowed. */
int pt_fs_mounts_fd(const PtFs *fs);
/** pt_fs_mounts_changed() - look at the host's mounts again. Context: one thread. */
void pt_fs_mounts_changed(PtFs *fs);

/** pt_node_readonly() - Return: whether a node is on a mount that the host has made
 * read-only: a request that would change it is EROFS. Context: any thread; no system
 * call. */
bool pt_node_readonly(PtFs *fs, uint64_t nodeid);

/** pt_fs_stats() - counts as of now; may be off by what is in flight. */
void pt_fs_stats(PtFs *fs, PtStats *ret_stats);

/**
 * pt_thread_enter() - prepare the calling thread for requests.
 *
 * Gives the thread its own fs_struct (unshare(CLONE_FS)), the procfd as working directory
 * and umask 0. Must run before the seccomp filter is loaded.
 *
 * Return: 0 or a negative errno.
 */
int pt_thread_enter(PtFs *fs);

/**
 * pt_thread_usable() - Return: whether the calling thread has been prepared and is nobody
 * but itself. Once it could not take back its identity after a request, it is not, and
 * must serve no other: whatever it did would be done as somebody else.
 */
bool pt_thread_usable(void);

/* ---- the map of attribute names (xattr-map.c) ------------------------------------- */

/**
 * pt_xattr_map_parse() - parse what --xattrmap says.
 *
 * Return: the map, to be freed with pt_xattr_map_free(), or NULL with @error set to where
 * and what is wrong.
 */
PtXattrMap *pt_xattr_map_parse(const char *rules, GError **error);
void pt_xattr_map_free(PtXattrMap *map);
/** pt_xattr_map_keeps() - Return: whether guest and host have the same name for it. */
bool pt_xattr_map_keeps(const PtXattrMap *map, const char *name);

/* ---- translation of ids (translate.c) ---------------------------------------------- */

/**
 * pt_translation_add() - add a rule, as --translate-uid has them.
 * @translation: NULL at first; to be freed with pt_translation_free(), whatever is
 *               returned.
 *
 * Return: false with @error set to where and what is wrong.
 */
bool pt_translation_add(PtTranslation **translation, const char *rule, GError **error);
void pt_translation_free(PtTranslation *translation);
/** pt_attr_owner() - whose file it is for the guest. */
void pt_attr_owner(const PtFs *fs, const PtAttr *attr, uint32_t *ret_uid,
                   uint32_t *ret_gid);

/* ---- names (name*.c) -------------------------------------------------------------- */

/** pt_lookup() - find @name in directory @parent; "." and ".." are -EINVAL. */
int pt_lookup(PtFs *fs, uint64_t parent, const char *name, PtEntry *ret_entry);
/** pt_forget() - give back @nlookup lookups; more than were given out counts as all. */
void pt_forget(PtFs *fs, uint64_t nodeid, uint64_t nlookup);
/** pt_readlink() - Return: length of the target at @buffer, not NUL-terminated. */
ssize_t pt_readlink(PtFs *fs, uint64_t nodeid, char *buffer, size_t size);

int pt_symlink(PtFs *fs, const PtMake *make, PtEntry *ret_entry);
int pt_mknod(PtFs *fs, const PtMake *make, PtEntry *ret_entry);
int pt_mkdir(PtFs *fs, const PtMake *make, PtEntry *ret_entry);
/** pt_create() - create and open; opens an existing regular file unless O_EXCL is set. */
int pt_create(PtFs *fs, const PtMake *make, PtEntry *ret_entry, PtOpened *ret_opened);
/** pt_tmpfile() - create a regular file without a name, and open it. make->name is not
 * looked at; unless O_EXCL is set, pt_link() can give it one. */
int pt_tmpfile(PtFs *fs, const PtMake *make, PtEntry *ret_entry, PtOpened *ret_opened);
int pt_unlink(PtFs *fs, uint64_t parent, const char *name);
int pt_rmdir(PtFs *fs, uint64_t parent, const char *name);

int pt_rename(PtFs *fs, const PtRename *rename);
int pt_link(PtFs *fs, uint64_t nodeid, uint64_t new_parent, const char *new_name,
            PtEntry *ret_entry);

/* ---- attributes (attr.c) ---------------------------------------------------------- */

/** pt_getattr() - attributes of a node; @handle may be PT_NO_HANDLE. */
int pt_getattr(PtFs *fs, uint64_t nodeid, uint64_t handle, PtAttr *ret_attr);
/** pt_statx() - the same, of what @want names; ret_attr->stx.stx_mask says what is set.
 */
int pt_statx(PtFs *fs, uint64_t nodeid, const PtStatx *want, PtAttr *ret_attr);
int pt_setattr(PtFs *fs, uint64_t nodeid, const PtSetattr *set, PtAttr *ret_attr);
int pt_statfs(PtFs *fs, uint64_t nodeid, struct statvfs *ret_statvfs);

/* ---- extended attributes (xattr.c) ------------------------------------------------ */

/** pt_getxattr() - Return: length of the value at @buffer; with @size 0 that of the value
 * as it is. A value that is longer than @size is -ERANGE. */
ssize_t pt_getxattr(PtFs *fs, uint64_t nodeid, const char *name, void *buffer,
                    size_t size);
/** pt_listxattr() - names, each with its NUL. Return: length of all; longer than @size is
 * -ERANGE, unless that is 0. @list: may be written beyond @size. */
ssize_t pt_listxattr(PtFs *fs, uint64_t nodeid, char list[PT_XATTR_MAX], size_t size);
int pt_setxattr(PtFs *fs, uint64_t nodeid, const PtSetxattr *set);
int pt_removexattr(PtFs *fs, uint64_t nodeid, const char *name);

/* ---- files (file.c) --------------------------------------------------------------- */

/** pt_open() - open a regular file; any other type is refused without being opened. */
int pt_open(PtFs *fs, uint64_t nodeid, uint32_t open_flags, bool kill_suidgid,
            PtOpened *ret_opened);
/** pt_read() - Return: bytes read into @io->iov, short at the end of the file; -EAGAIN
 * with PT_IO_NOWAIT, whatever is in @io->iov then. */
ssize_t pt_read(PtFs *fs, const PtIo *io);
/** pt_write() - Return: bytes written from @io->iov. */
ssize_t pt_write(PtFs *fs, const PtIo *io);
int pt_flush(PtFs *fs, uint64_t nodeid, uint64_t handle);
int pt_fsync(PtFs *fs, uint64_t nodeid, uint64_t handle, bool datasync);
int pt_release(PtFs *fs, uint64_t nodeid, uint64_t handle);
int pt_fallocate(PtFs *fs, const PtAllocate *allocate);
/** pt_lseek() - SEEK_DATA and SEEK_HOLE (and the rest) on an open file. */
int pt_lseek(PtFs *fs, uint64_t nodeid, uint64_t handle, uint64_t offset, uint32_t whence,
             uint64_t *ret_offset);
/** pt_copy() - copy on the host. Return: bytes copied, of a long copy the first part. */
ssize_t pt_copy(PtFs *fs, const PtCopy *copy);
/** pt_flags() - get or set the FS_*_FL of chattr(1); EOPNOTSUPP or ENOTTY where the file
 * system has none. */
int pt_flags(PtFs *fs, const PtFlagsOf *of, bool set, uint32_t *flags);
/** pt_xflags() - the same with what FS_IOC_FSGETXATTR knows besides. */
int pt_xflags(PtFs *fs, const PtFlagsOf *of, bool set, struct fsxattr *attr);
/** pt_syncfs() - sync the file system that holds @nodeid; with the root, and unless
 * submounts are announced, all in the share on which an inode is held. */
int pt_syncfs(PtFs *fs, uint64_t nodeid);

/* ---- files that are mapped into the guest (dax.c) ---------------------------------- */

/** pt_dax_suits() - Return: whether the guest is to map this file: a regular one, whose
 * size is a multiple of PT_DAX_SIZE and not 0, on a local file system, that may be
 * written.
 * @stx: its attributes now. */
bool pt_dax_suits(PtFs *fs, uint64_t nodeid, const struct statx *stx);
/**
 * pt_dax_open() - a descriptor to map a file by, for reading and writing.
 * @handle: PT_NO_HANDLE, or an open file, which must permit it if the guest @writes.
 *
 * Return: it, to be given to pt_dax_close(); or -EROFS in a read-only share; -EACCES;
 * -EOPNOTSUPP for one that is not on a local file system; or another negative errno.
 */
int pt_dax_open(PtFs *fs, uint64_t nodeid, uint64_t handle, bool writes);
void pt_dax_close(PtFs *fs, int fd);

/* ---- locks (lock.c): none waits ---------------------------------------------------- */

/**
 * pt_lock_set() - take or release a record lock.
 *
 * Return: 0; -EAGAIN if somebody, in the guest or on the host, holds one that conflicts;
 * -EBADF if the handle is not open in that way; -ENOLCK if there are too many, or the
 * host will not open the file once more; -EINVAL for a range or type that there is not.
 */
int pt_lock_set(PtFs *fs, const PtLock *lock);
/** pt_lock_get() - what keeps @lock from being had? @lock becomes that lock, or F_UNLCK.
 * Its pid is 0 unless the holder is a process of the guest. */
int pt_lock_get(PtFs *fs, PtLock *lock);
/** pt_lock_close() - the process has closed the file: its record locks on it end. */
void pt_lock_close(PtFs *fs, uint64_t nodeid, uint64_t owner);
/** pt_lock_holder() - Return: whether another owner in the guest holds what keeps @lock
 * from being had; then one such at @ret_owner. */
bool pt_lock_holder(PtFs *fs, const PtLock *lock, uint64_t *ret_owner);
/** pt_flock() - lock or unlock the whole file, as flock(2). Return: as pt_lock_set(). */
int pt_flock(PtFs *fs, const PtLock *lock);

/* ---- directories (dir.c) ---------------------------------------------------------- */

int pt_opendir(PtFs *fs, uint64_t nodeid, uint32_t open_flags, PtOpened *ret_opened);
int pt_releasedir(PtFs *fs, uint64_t nodeid, uint64_t handle);
int pt_fsyncdir(PtFs *fs, uint64_t nodeid, uint64_t handle, bool datasync);

/**
 * pt_dir_begin() - start or resume a walk at a cookie.
 * @offset: 0, or PtDirent.offset of an entry of this directory. A wrong one is no error
 *          beyond what the host's file system says.
 * @ret_cursor: to be ended with pt_dir_end() (g_auto does), whatever is returned.
 *
 * A second walk of the same handle at the same time disturbs neither.
 */
int pt_dir_begin(PtFs *fs, uint64_t nodeid, uint64_t handle, uint64_t offset,
                 PtDirCursor *ret_cursor);
/** pt_dir_follow() - @open_flags are what the open directory has now: O_NOATIME. */
void pt_dir_follow(PtDirCursor *cursor, uint32_t open_flags);
/** pt_dir_next() - Return: 1 with @ret_dirent set, 0 at the end of the walk, which is
 * that of the directory if it was given nothing, or a negative errno. */
int pt_dir_next(PtDirCursor *cursor, PtDirent *ret_dirent);
/** pt_dir_unread() - put @dirent, the one just read, back: it did not fit the reply. */
void pt_dir_unread(PtDirCursor *cursor, const PtDirent *dirent);
/** pt_dir_lookup() - look up the entry just read (READDIRPLUS); "." and ".." give 0 as
 * node id. If the entry is not sent after all, forget it and pt_dir_unread(). */
int pt_dir_lookup(PtDirCursor *cursor, const PtDirent *dirent, PtEntry *ret_entry);
void pt_dir_end(PtDirCursor *cursor);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(PtFs, pt_fs_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(PtXattrMap, pt_xattr_map_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(PtTranslation, pt_translation_free)
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(PtDirCursor, pt_dir_end)

#endif
