/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SUPPORT_NULL_FS_PRIVATE_H
#define TESTS_SUPPORT_NULL_FS_PRIVATE_H

#include <stdatomic.h>

#include "tests/support/null-fs.h"

/*
 * What the files of the file system that does nothing share.
 */

/** struct NullFsLocks - who holds what, plus one; 0: nobody. */
typedef struct NullFsLocks {
    _Atomic uint64_t owners[NULL_FS_NODES + 1];  /* of record locks */
    _Atomic uint64_t handles[NULL_FS_NODES + 1]; /* of whole files */
    _Atomic bool is_used;                        /* else nobody holds any */
} NullFsLocks;

NullFsLocks *null_fs_locks(PtFs *fs);
/** null_fs_locks_reset() - as pt_fs_reset() does. */
void null_fs_locks_reset(PtFs *fs);

/** null_fs_begin() - begin a call on a node. Return: 0, or why it fails at once. */
int null_fs_begin(PtFs *fs, uint64_t nodeid);
/** null_fs_end() - end it. Return: @result. */
int null_fs_end(PtFs *fs, int result);
/** null_fs_note() - remember a call, if calls are recorded. */
void null_fs_note(PtFs *fs, const NullFsCall *call, const char *name, const char *second);

#endif
