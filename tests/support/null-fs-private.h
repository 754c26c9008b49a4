/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SUPPORT_NULL_FS_PRIVATE_H
#define TESTS_SUPPORT_NULL_FS_PRIVATE_H

#include "tests/support/null-fs.h"

/*
 * What the files of the file system that does nothing share.
 */

/** null_fs_begin() - begin a call on a node. Return: 0, or why it fails at once. */
int null_fs_begin(PtFs *fs, uint64_t nodeid);
/** null_fs_end() - end it. Return: @result. */
int null_fs_end(PtFs *fs, int result);
/** null_fs_note() - remember a call, if calls are recorded. */
void null_fs_note(PtFs *fs, const NullFsCall *call, const char *name, const char *second);

#endif
