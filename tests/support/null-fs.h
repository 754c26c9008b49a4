/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SUPPORT_NULL_FS_H
#define TESTS_SUPPORT_NULL_FS_H

#include <stdbool.h>
#include <stdint.h>

#include "passthrough/passthrough.h"

/*
 * A file system that does nothing, behind the door of passthrough.h: it lets the FUSE
 * half be tested and fuzzed without a host file system. It remembers what it was asked,
 * and keeps account of what it gave out.
 *
 * Nodes: the root, a directory; and one for every name, a regular file, numbered by the
 * name's length and last character. A name that begins with "absent" is not there.
 * A lock is on all of a file, whatever its range, and exclusive.
 * A file that is opened to be mapped is another, empty one.
 * Handles: a node's number plus NULL_FS_HANDLE_BASE; whether it is open is not asked.
 */

/** Nodes are 1 to this. */
#define NULL_FS_NODES UINT64_C(4096)
#define NULL_FS_HANDLE_BASE UINT64_C(0x100000)
/** Files are this long; reads end here. */
#define NULL_FS_FILE_SIZE UINT64_C(0x200000)
/** No copy is longer. */
#define NULL_FS_COPY_MOST UINT64_C(0x7ffff000)
/** chattr(1) flags of every file. */
#define NULL_FS_FLAGS 0x80100u
/** What every byte of a file is. */
#define NULL_FS_BYTE 0xa5
/** Extended attributes: all names are there but those that begin so. Their values are as
 * long as the names, of NULL_FS_BYTE; this one's is the longest that can be. */
#define NULL_FS_XATTR_ABSENT "user.absent"
#define NULL_FS_XATTR_LONG "user.long"
/** The list of names. */
#define NULL_FS_XATTR_NAMES "user.a\0security.b"
/** Entries of the root: ".", "..", then names of growing length, the last of them 255
 * bytes; the one at NULL_FS_DIR_ABSENT cannot be looked up. */
#define NULL_FS_DIR_ENTRIES 64u
#define NULL_FS_DIR_ABSENT 5u

/** struct NullFsStats - what happened. */
typedef struct NullFsStats {
    uint64_t calls;
    uint64_t lookups; /* given out */
    uint64_t forgets; /* calls of pt_forget() */
    uint64_t opens;
    uint64_t releases;
    uint64_t resets;
    uint64_t dirents;    /* read and not put back */
    uint64_t violations; /* calls that overlapped a reset */
} NullFsStats;

/** struct NullFsCall - the last call, if null_fs_record() is on. */
typedef struct NullFsCall {
    const char *function;
    uint64_t nodeid; /* or parent */
    uint64_t handle;
    uint64_t other; /* new parent, whence, nlookup, length */
    uint64_t offset;
    const char *name;   /* copied; NULL: had none */
    const char *second; /* new name or target */
    PtCaller caller;
    uint32_t mode;
    uint32_t rdev;
    uint32_t flags;      /* open, rename, io: as given */
    uint32_t open_flags; /* io: the opener's */
    bool flag;           /* datasync, kill_suidgid, acl_kill_sgid */
    PtSetattr set;
    PtCopy copy;
    PtLabels labels; /* point into the worker's buffers: good until the next request */
    uint64_t bytes;  /* of all segments; of an attribute */
    int n_iov;
} NullFsCall;

PtFs *null_fs_new(void);
void null_fs_stats(PtFs *fs, NullFsStats *ret_stats);
/** null_fs_record() - remember calls. Context: one thread only makes calls then. */
void null_fs_record(PtFs *fs, bool on);
const NullFsCall *null_fs_last(const PtFs *fs);
/** null_fs_agreed() - what pt_fs_agree() said. */
PtAgreed null_fs_agreed(const PtFs *fs);
/** null_fs_fail() - the next call that can fail returns @result. */
void null_fs_fail(PtFs *fs, int result);
/** null_fs_fail_entry() - reading the root's entry @index is -EIO; 0: none. */
void null_fs_fail_entry(PtFs *fs, size_t index);
/** null_fs_linger() - calls take a little longer, so that they overlap. */
void null_fs_linger(PtFs *fs, bool on);
/** null_fs_shift_owner() - the guest sees user ids @by, group ids twice @by higher. */
void null_fs_shift_owner(PtFs *fs, uint32_t by);
/** null_fs_mark_submounts() - every attribute says that it is one. */
void null_fs_mark_submounts(PtFs *fs, bool on);

#endif
