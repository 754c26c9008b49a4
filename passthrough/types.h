/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_TYPES_H
#define PASSTHROUGH_TYPES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

/*
 * What the calls of passthrough.h take and give. Others include that, not this.
 */

typedef struct PtFs PtFs;
/** typedef PtXattrMap - rules by which extended attributes are renamed; see --xattrmap.
 */
typedef struct PtXattrMap PtXattrMap;
/** typedef PtTranslation - what ids the guest has for the host's, and the other way
 * round; see --translate-uid. */
typedef struct PtTranslation PtTranslation;

/** The node id of the share's root, FUSE_ROOT_ID. Never forgotten. */
#define PT_ROOT_ID UINT64_C(1)
/** "No file handle given", where a handle is optional. */
#define PT_NO_HANDLE UINT64_MAX
/** The most supplementary groups that a request may bring. */
#define PT_GROUPS_MAX 32
/** What files are mapped in, in bytes: Linux's FUSE_DAX_SZ. */
#define PT_DAX_SIZE (UINT64_C(2) << 20)
/** Longest name of one path component, without its NUL. */
#define PT_NAME_MAX 255

/** enum PtCache - the --cache option; decides the PT_OPEN_* answers. */
typedef enum PtCache {
    PT_CACHE_AUTO,
    PT_CACHE_ALWAYS,
    PT_CACHE_NEVER,
    PT_CACHE_METADATA,
} PtCache;

/** enum PtInodeHandles - the --inode-file-handles option. */
typedef enum PtInodeHandles {
    PT_INODE_HANDLES_NEVER,
    PT_INODE_HANDLES_PREFER,    /* where the file system has them */
    PT_INODE_HANDLES_MANDATORY, /* what has none cannot be looked up */
} PtInodeHandles;

/** struct PtConfig - what the command line decides about the file system. */
typedef struct PtConfig {
    PtCache cache;
    bool announce_submounts;      /* tell directories where another mount begins */
    bool allow_direct_io;         /* honour O_DIRECT of OPEN and CREATE, else strip it */
    bool preserve_noatime;        /* honour O_NOATIME, else strip it */
    bool readonly;                /* leave no trace; but for CREATE the caller refuses */
    bool landlock;                /* may refuse what is not in the share any more */
    PtInodeHandles inode_handles; /* hold inodes by file handle */
    const PtXattrMap *xattr_map;  /* NULL: names are the same; borrowed */
    const PtTranslation *uids;    /* NULL: user ids are the same; borrowed */
    const PtTranslation *gids;    /* likewise of groups */
    uint32_t max_descriptors;     /* most descriptors that the guest may keep open here */
} PtConfig;

/** struct PtAgreed - what INIT negotiated, as far as the file system must know. */
typedef struct PtAgreed {
    bool writeback;   /* WRITEBACK_CACHE: O_WRONLY opens become O_RDWR, no O_APPEND */
    bool supp_groups; /* CREATE_SUPP_GROUP: the caller's groups come with the request */
    bool posix_acl;   /* POSIX_ACL: access control lists are served */
    bool posix_locks; /* POSIX_LOCKS: record locks come here, and end at FLUSH */
} PtAgreed;

/** struct PtCaller - who asks, for requests that create something: the guest's ids. */
typedef struct PtCaller {
    uint32_t uid;
    uint32_t gid;
    uint32_t umask;  /* to be applied here; 0 when the guest's kernel has applied it */
    bool is_checked; /* permissions are the guest's kernel's business alone */
    uint32_t n_groups;
    uint32_t groups[PT_GROUPS_MAX];
} PtCaller;

/** PtAttr.flags: another mount begins at this directory. */
#define PT_ATTR_SUBMOUNT 1u

/** struct PtAttr - attributes as statx(2) gives them: the host's ids, which are the
 * guest's to see only as pt_attr_owner() has them. */
typedef struct PtAttr {
    struct statx stx;
    uint32_t flags; /* PT_ATTR_* */
} PtAttr;

/** struct PtEntry - a name looked up or made; counts as one lookup of @nodeid. */
typedef struct PtEntry {
    uint64_t nodeid;
    PtAttr attr;
} PtEntry;

/** The most labels that a new file is given; Linux sends one. */
#define PT_LABELS_MAX 4

/** struct PtLabel - an extended attribute of a new file. */
typedef struct PtLabel {
    const char *name;
    const void *value;
    size_t size;
} PtLabel;

/** struct PtLabels - all of a new file's labels. */
typedef struct PtLabels {
    uint32_t n;
    PtLabel label[PT_LABELS_MAX];
} PtLabels;

/** struct PtMake - what MKNOD, MKDIR, SYMLINK and CREATE make. */
typedef struct PtMake {
    const PtCaller *caller;
    const PtLabels *labels; /* NULL for none */
    uint64_t parent;
    const char *name;
    const char *target; /* symlink: where it leads */
    uint32_t mode; /* type and permissions; the type is ignored by mkdir and create */
    uint32_t rdev; /* mknod: device number in the kernel's 32-bit encoding */
    uint32_t open_flags; /* create: O_* */
    bool kill_suidgid;   /* create: OPEN_KILL_SUIDGID */
} PtMake;

/** struct PtRename - RENAME and RENAME2. */
typedef struct PtRename {
    uint64_t parent;
    const char *name;
    uint64_t new_parent;
    const char *new_name;
    uint32_t flags; /* RENAME_NOREPLACE, _EXCHANGE, _WHITEOUT; others are -EINVAL */
    const PtCaller *caller; /* whose the whiteout is; else not looked at */
} PtRename;

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
/** Alone: drop set-id bits and capabilities as chown(2) does, if @uid asks, who is root
 * or the file's owner; nothing for others. */
#define PT_SET_KILL_FOR_UID 512u
/** Whoever asks sees to set-id bits or capabilities himself, and wants those kept that he
 * does not mention, where chown(2) or truncate(2) would take them away. */
#define PT_SET_KEEP_SUIDGID 1024u
#define PT_SET_KEEP_CAPABILITY 2048u

/** The file has changed, now: no other time of change can be set. */
#define PT_SET_CTIME 4096u

/** struct PtStatx - what STATX asks for. */
typedef struct PtStatx {
    uint64_t handle; /* PT_NO_HANDLE, or the open file to act on */
    uint32_t mask;   /* STATX_*; the answer may have more or less */
    uint32_t flags;  /* AT_STATX_*; others are -EINVAL */
} PtStatx;

/** struct PtSetattr - a change of attributes; times in seconds and nanoseconds, the
 * guest's ids. */
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

/** The longest value of an extended attribute, and the longest list of names, in bytes.
 */
#define PT_XATTR_MAX 65536

/** struct PtSetxattr - an extended attribute to be set. */
typedef struct PtSetxattr {
    const char *name;
    const void *value;
    size_t size;        /* bytes at @value */
    uint32_t flags;     /* XATTR_CREATE, XATTR_REPLACE; others are -EINVAL */
    bool acl_kill_sgid; /* with an access control list: clear the set-group-ID bit */
} PtSetxattr;

/** How PtIo.flags changes a read or write. */
#define PT_IO_CACHED 1u       /* write-back of the guest's page cache: ignore O_APPEND */
#define PT_IO_KILL_SUIDGID 2u /* drop set-id bits and capabilities */
#define PT_IO_NOWAIT 4u       /* a read that would wait for the disk is -EAGAIN */

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

/** struct PtCopy - a copy from one open file to another, or within one. */
typedef struct PtCopy {
    uint64_t nodeid;
    uint64_t handle;
    uint64_t offset;
    uint64_t to_nodeid;
    uint64_t to_handle;
    uint64_t to_offset;
    uint64_t length;
    uint32_t flags;    /* none is known: others than 0 are -EINVAL */
    bool kill_suidgid; /* drop set-id bits and capabilities of the copy's target */
} PtCopy;

/** struct PtFlagsOf - whose flags are asked for or set. */
typedef struct PtFlagsOf {
    uint64_t nodeid;
    uint64_t handle;
    bool is_directory; /* of which kind the handle has to be */
    bool kill_suidgid; /* let the file system drop set-id bits, as xfs does */
} PtFlagsOf;

/** struct PtAllocate - FALLOCATE. */
typedef struct PtAllocate {
    uint64_t nodeid;
    uint64_t handle;
    uint32_t mode; /* FALLOC_FL_* */
    uint64_t offset;
    uint64_t length;
    bool kill_suidgid; /* drop set-id bits and capabilities */
} PtAllocate;

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

/** struct PtLock - a record lock on an open file, or one on all of it. */
typedef struct PtLock {
    uint64_t nodeid;
    uint64_t handle;
    uint64_t owner; /* the guest's process; without meaning where all is locked */
    uint64_t start; /* first byte, at most INT64_MAX */
    uint64_t end;   /* last byte; INT64_MAX: however long the file grows */
    uint32_t type;  /* F_RDLCK, F_WRLCK, F_UNLCK */
    uint32_t pid;   /* in the guest; 0: nobody there */
} PtLock;

/** struct PtStats - for the statistics line. */
typedef struct PtStats {
    uint64_t inodes;
    uint64_t handles;
    uint64_t descriptors;
} PtStats;

#endif
