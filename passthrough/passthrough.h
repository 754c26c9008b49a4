/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_PASSTHROUGH_H
#define PASSTHROUGH_PASSTHROUGH_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <sys/uio.h>

/*
 * The one door to the file system. Requests return a negative errno, and >= 0 for
 * success; start-up returns GError. Every call is safe from any number of threads, each
 * of which has been through pt_thread_enter(). Names and ids come from the guest and are
 * checked here: a name is one path component, an id is a slot and its generation. No call
 * aborts, and none holds a lock across a system call.
 *
 * A node id or file handle that was never given out, or was given back, is -ESTALE (node)
 * or -EBADF (handle, or a handle of another node).
 */

typedef struct PtFs PtFs;

/** The node id of the share's root, FUSE_ROOT_ID. Never forgotten. */
#define PT_ROOT_ID UINT64_C(1)
/** "No file handle given", where a handle is optional. */
#define PT_NO_HANDLE UINT64_MAX
/** The most supplementary groups that a request may bring. */
#define PT_GROUPS_MAX 32
/** Longest name of one path component, without its NUL. */
#define PT_NAME_MAX 255

/** enum PtCache - the --cache option; decides the PT_OPEN_* answers. */
typedef enum PtCache {
    PT_CACHE_AUTO,
    PT_CACHE_ALWAYS,
    PT_CACHE_NEVER,
    PT_CACHE_METADATA,
} PtCache;

/** struct PtConfig - what the command line decides about the file system. */
typedef struct PtConfig {
    PtCache cache;
    bool announce_submounts;  /* tell directories where another mount begins */
    bool allow_direct_io;     /* honour O_DIRECT of OPEN and CREATE, else strip it */
    bool preserve_noatime;    /* honour O_NOATIME, else strip it */
    uint32_t max_descriptors; /* most descriptors that the guest may keep open here */
} PtConfig;

/** struct PtAgreed - what INIT negotiated, as far as the file system must know. */
typedef struct PtAgreed {
    bool writeback;   /* WRITEBACK_CACHE: O_WRONLY opens become O_RDWR, no O_APPEND */
    bool supp_groups; /* CREATE_SUPP_GROUP: the caller's groups come with the request */
    bool posix_acl;   /* POSIX_ACL: access control lists are served */
} PtAgreed;

/** struct PtCaller - who asks, for requests that create something. */
typedef struct PtCaller {
    uint32_t uid;
    uint32_t gid;
    uint32_t umask; /* to be applied here; 0 when the guest's kernel has applied it */
    uint32_t n_groups;
    uint32_t groups[PT_GROUPS_MAX];
} PtCaller;

/** PtAttr.flags: another mount begins at this directory. */
#define PT_ATTR_SUBMOUNT 1u

/** struct PtAttr - attributes as statx(2) gives them. */
typedef struct PtAttr {
    struct statx stx;
    uint32_t flags; /* PT_ATTR_* */
} PtAttr;

/** struct PtEntry - a name looked up or made; counts as one lookup of @nodeid. */
typedef struct PtEntry {
    uint64_t nodeid;
    PtAttr attr;
} PtEntry;

/** What the guest may do with an open file's pages: PtOpened.flags. */
#define PT_OPEN_DIRECT_IO 1u  /* no page cache for this open */
#define PT_OPEN_KEEP_CACHE 2u /* pages of earlier opens are still right */
#define PT_OPEN_CACHE_DIR 4u  /* directory entries may be cached */
#define PT_OPEN_NOFLUSH 8u    /* no FLUSH at close */
#define PT_OPEN_PARALLEL_DIRECT_WRITES 16u

/** struct PtOpened - an open file or directory. */
typedef struct PtOpened {
    uint64_t handle;
    uint32_t flags; /* PT_OPEN_* */
} PtOpened;

/** Which members of PtSetattr are to be set. */
#define PT_SET_MODE 1u
#define PT_SET_UID 2u
#define PT_SET_GID 4u
#define PT_SET_SIZE 8u
#define PT_SET_ATIME 16u
#define PT_SET_MTIME 32u
#define PT_SET_ATIME_NOW 64u
#define PT_SET_MTIME_NOW 128u
#define PT_SET_KILL_SUIDGID 256u /* with SIZE: drop set-id bits and capabilities */

/** struct PtSetattr - a change of attributes; times in seconds and nanoseconds. */
typedef struct PtSetattr {
    uint32_t valid;  /* PT_SET_* */
    uint64_t handle; /* PT_NO_HANDLE, or the open file to act on */
    uint32_t mode;
    uint32_t uid;
    uint32_t gid;
    uint64_t size;
    struct timespec atime;
    struct timespec mtime;
} PtSetattr;

/** How PtIo.flags changes a read or write. */
#define PT_IO_CACHED 1u       /* write-back of the guest's page cache: ignore O_APPEND */
#define PT_IO_KILL_SUIDGID 2u /* drop set-id bits and capabilities */

/** struct PtIo - one read or write between segments and a file. */
typedef struct PtIo {
    uint64_t nodeid;
    uint64_t handle;
    const struct iovec *iov; /* guest memory; contents may change at any time */
    int n_iov;
    uint64_t offset; /* bytes; beyond INT64_MAX is -EINVAL */
    uint32_t
        open_flags; /* the opener's O_* flags as of this request (O_APPEND, O_DIRECT) */
    uint32_t flags; /* PT_IO_* */
} PtIo;

/** struct PtDirent - one name in a directory; @name is NUL-terminated, valid until the
 * next. */
typedef struct PtDirent {
    uint64_t ino;
    uint64_t offset; /* cookie of the entry after this one */
    uint32_t type;   /* DT_* */
    uint32_t name_length;
    const char *name;
} PtDirent;

/** struct PtDirCursor - a walk through an open directory; on the stack, private. */
typedef struct PtDirCursor {
    PtFs *fs;
    void *handle; /* referenced */
    void *stream;
    bool first; /* the stream is the handle's own */
} PtDirCursor;

/** struct PtStats - for the statistics line. */
typedef struct PtStats {
    uint64_t inodes;
    uint64_t handles;
    uint64_t descriptors;
} PtStats;

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

/* ---- names (name*.c) -------------------------------------------------------------- */

/** pt_lookup() - find @name in directory @parent; "." and ".." are -EINVAL. */
int pt_lookup(PtFs *fs, uint64_t parent, const char *name, PtEntry *ret_entry);
/** pt_forget() - give back @nlookup lookups; more than were given out counts as all. */
void pt_forget(PtFs *fs, uint64_t nodeid, uint64_t nlookup);
/** pt_readlink() - Return: length of the target at @buffer, not NUL-terminated. */
ssize_t pt_readlink(PtFs *fs, uint64_t nodeid, char *buffer, size_t size);
int pt_symlink(PtFs *fs, const PtCaller *caller, uint64_t parent, const char *name,
               const char *target, PtEntry *ret_entry);

/** struct PtMake - what MKNOD, MKDIR and CREATE make. */
typedef struct PtMake {
    const PtCaller *caller;
    uint64_t parent;
    const char *name;
    uint32_t mode; /* type and permissions; the type is ignored by mkdir and create */
    uint32_t rdev; /* mknod: device number in the kernel's 32-bit encoding */
    uint32_t open_flags; /* create: O_* */
    bool kill_suidgid;   /* create: OPEN_KILL_SUIDGID */
} PtMake;

int pt_mknod(PtFs *fs, const PtMake *make, PtEntry *ret_entry);
int pt_mkdir(PtFs *fs, const PtMake *make, PtEntry *ret_entry);
/** pt_create() - create and open; opens an existing regular file unless O_EXCL is set. */
int pt_create(PtFs *fs, const PtMake *make, PtEntry *ret_entry, PtOpened *ret_opened);
int pt_unlink(PtFs *fs, uint64_t parent, const char *name);
int pt_rmdir(PtFs *fs, uint64_t parent, const char *name);

/** struct PtRename - RENAME and RENAME2. */
typedef struct PtRename {
    uint64_t parent;
    const char *name;
    uint64_t new_parent;
    const char *new_name;
    uint32_t flags; /* RENAME_NOREPLACE, _EXCHANGE, _WHITEOUT; others are -EINVAL */
} PtRename;

int pt_rename(PtFs *fs, const PtRename *rename);
int pt_link(PtFs *fs, uint64_t nodeid, uint64_t new_parent, const char *new_name,
            PtEntry *ret_entry);

/* ---- attributes (attr.c) ---------------------------------------------------------- */

/** pt_getattr() - attributes of a node; @handle may be PT_NO_HANDLE. */
int pt_getattr(PtFs *fs, uint64_t nodeid, uint64_t handle, PtAttr *ret_attr);
int pt_setattr(PtFs *fs, uint64_t nodeid, const PtSetattr *set, PtAttr *ret_attr);
int pt_statfs(PtFs *fs, uint64_t nodeid, struct statvfs *ret_statvfs);

/* ---- files (file.c) --------------------------------------------------------------- */

/** pt_open() - open a regular file; any other type is refused without being opened. */
int pt_open(PtFs *fs, uint64_t nodeid, uint32_t open_flags, bool kill_suidgid,
            PtOpened *ret_opened);
/** pt_read() - Return: bytes read into @io->iov, short at the end of the file. */
ssize_t pt_read(PtFs *fs, const PtIo *io);
/** pt_write() - Return: bytes written from @io->iov. */
ssize_t pt_write(PtFs *fs, const PtIo *io);
int pt_flush(PtFs *fs, uint64_t nodeid, uint64_t handle);
int pt_fsync(PtFs *fs, uint64_t nodeid, uint64_t handle, bool datasync);
int pt_release(PtFs *fs, uint64_t nodeid, uint64_t handle);
int pt_fallocate(PtFs *fs, uint64_t nodeid, uint64_t handle, uint32_t mode,
                 uint64_t offset, uint64_t length);
/** pt_lseek() - SEEK_DATA and SEEK_HOLE (and the rest) on an open file. */
int pt_lseek(PtFs *fs, uint64_t nodeid, uint64_t handle, uint64_t offset, uint32_t whence,
             uint64_t *ret_offset);
/** pt_syncfs() - sync the file system that holds @nodeid. */
int pt_syncfs(PtFs *fs, uint64_t nodeid);

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
/** pt_dir_next() - Return: 1 with @ret_dirent set, 0 at the end, or a negative errno. */
int pt_dir_next(PtDirCursor *cursor, PtDirent *ret_dirent);
/** pt_dir_unread() - put @dirent, the one just read, back: it did not fit the reply. */
void pt_dir_unread(PtDirCursor *cursor, const PtDirent *dirent);
/** pt_dir_lookup() - look up the entry just read (READDIRPLUS); "." and ".." give 0 as
 * node id. If the entry is not sent after all, forget it and pt_dir_unread(). */
int pt_dir_lookup(PtDirCursor *cursor, const PtDirent *dirent, PtEntry *ret_entry);
void pt_dir_end(PtDirCursor *cursor);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(PtFs, pt_fs_free)
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(PtDirCursor, pt_dir_end)

#endif
