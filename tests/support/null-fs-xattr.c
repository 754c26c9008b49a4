/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extended attributes of the file system that does nothing: see null-fs.h.
 */
#include <errno.h>
#include <string.h>

#include "tests/support/null-fs-private.h"

static ssize_t give(PtFs *fs, int result, const void *bytes, size_t length, size_t size)
{
    if (result == 0 && size != 0 && length > size) {
        result = -ERANGE;
    }
    return null_fs_end(fs, result == 0 ? (int)length : result);
}

ssize_t pt_getxattr(PtFs *fs, uint64_t nodeid, const char *name, void *buffer,
                    size_t size)
{
    int result = null_fs_begin(fs, nodeid);

    null_fs_note(fs, &(NullFsCall){.function = __func__, .nodeid = nodeid, .bytes = size},
                 name, NULL);
    if (result == 0 && strncmp(name, NULL_FS_XATTR_ABSENT, 11) == 0) {
        result = -ENODATA;
    }
    size_t length = strcmp(name, NULL_FS_XATTR_LONG) == 0 ? PT_XATTR_MAX : strlen(name);
    if (result == 0) {
        memset(buffer, NULL_FS_BYTE, length < size ? length : size);
    }
    return give(fs, result, buffer, length, size);
}

ssize_t pt_listxattr(PtFs *fs, uint64_t nodeid, char list[PT_XATTR_MAX], size_t size)
{
    static const char names[] = NULL_FS_XATTR_NAMES;
    int result = null_fs_begin(fs, nodeid);

    null_fs_note(fs, &(NullFsCall){.function = __func__, .nodeid = nodeid, .bytes = size},
                 NULL, NULL);
    memset(list, 'x', PT_XATTR_MAX); /* all of it is ours to write */
    memcpy(list, names, sizeof(names));
    return give(fs, result, list, sizeof(names), size);
}

int pt_setxattr(PtFs *fs, uint64_t nodeid, const PtSetxattr *set)
{
    char value[64] = "";
    int result = null_fs_begin(fs, nodeid);

    memcpy(value, set->value, MIN(set->size, sizeof(value) - 1));
    null_fs_note(fs,
                 &(NullFsCall){.function = __func__,
                               .nodeid = nodeid,
                               .bytes = set->size,
                               .flags = set->flags,
                               .flag = set->acl_kill_sgid},
                 set->name, value);
    return null_fs_end(fs, result);
}

int pt_removexattr(PtFs *fs, uint64_t nodeid, const char *name)
{
    int result = null_fs_begin(fs, nodeid);

    null_fs_note(fs, &(NullFsCall){.function = __func__, .nodeid = nodeid}, name, NULL);
    return null_fs_end(fs, result);
}
