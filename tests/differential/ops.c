/* SPDX-License-Identifier: Apache-2.0 */
#include <glib.h>
#include <string.h>

#include "tests/differential/run.h"

/*
 * The table of operations.
 */

#define AT KIND_AT
#define PATH KIND_PATH
#define DIR_PATH KIND_DIR_PATH
#define SLOT KIND_SLOT
#define DIR_SLOT KIND_DIR_SLOT

/* clang-format off */
const OpRow ops_rows[] = {
    /* name          function         weight, needs, kinds of arguments */
    {"open",         run_open,         100, 0, {AT, PATH, KIND_OPEN, KIND_MODE, SLOT}},
    {"close",        run_close,          8, 0, {SLOT}},
    {"dup",          run_dup,            4, 0, {SLOT, SLOT}},
    {"setfl",        run_setfl,          4, 0, {SLOT, KIND_STATUS}},
    {"read",         run_read,          16, 0, {SLOT, KIND_LENGTH}},
    {"pread",        run_pread,         16, 0, {SLOT, KIND_LENGTH, KIND_OFFSET,
                                                KIND_RWF}},
    {"write",        run_write,         24, 0, {SLOT, KIND_LENGTH, KIND_SEED}},
    {"pwrite",       run_pwrite,        24, 0, {SLOT, KIND_LENGTH, KIND_OFFSET, KIND_RWF,
                                                KIND_SEED}},
    {"lseek",        run_lseek,         16, 0, {SLOT, KIND_OFFSET, KIND_WHENCE}},
    {"ftruncate",    run_ftruncate,      8, 0, {SLOT, KIND_OFFSET}},
    {"truncate",     run_truncate,       8, 0, {PATH, KIND_OFFSET}},
    {"fallocate",    run_fallocate,     12, 0, {SLOT, KIND_FALLOCATE, KIND_OFFSET,
                                                KIND_LENGTH}},
    {"copy",         run_copy,          10, 0, {SLOT, SLOT, KIND_OFFSET, KIND_OFFSET,
                                                KIND_LENGTH, KIND_ODD}},
    {"sendfile",     run_sendfile,       5, 0, {SLOT, SLOT, KIND_OFFSET, KIND_LENGTH}},
    {"splice",       run_splice,         5, 0, {SLOT, SLOT, KIND_OFFSET, KIND_LENGTH}},
    {"sync",         run_sync,           3, 0, {SLOT, KIND_SYNC}},
    {"advise",       run_advise,         3, 0, {SLOT, KIND_OFFSET, KIND_LENGTH,
                                                KIND_ADVICE}},
    {"map",          run_map,           10, 0, {SLOT, KIND_PROT, SLOT, KIND_LENGTH,
                                                KIND_SEED, KIND_MSYNC}},
    {"mkdir",        run_mkdir,         36, 0, {AT, DIR_PATH, KIND_MODE}},
    {"mknod",        run_mknod,         20, 0, {AT, PATH, KIND_TYPE, KIND_MODE,
                                                KIND_DEVICE}},
    {"symlink",      run_symlink,       20, 0, {KIND_TARGET, AT, PATH}},
    {"link",         run_link,          24, 0, {AT, PATH, AT, PATH, KIND_LINK}},
    {"link_open",    run_link_open,      8, 0, {SLOT, PATH, KIND_BOOL}},
    {"unlink",       run_unlink,        40, 0, {AT, PATH, KIND_REMOVE}},
    {"rename",       run_rename,        36, 0, {AT, PATH, AT, PATH, KIND_RENAME}},
    {"readlink",     run_readlink,      10, 0, {AT, PATH, KIND_ROOM}},
    {"chmod",        run_chmod,         20, 0, {AT, PATH, KIND_MODE, KIND_NOFOLLOW}},
    {"fchmod",       run_fchmod,         8, 0, {SLOT, KIND_MODE}},
    {"chown",        run_chown,         20, 0, {AT, PATH, KIND_UID, KIND_GID,
                                                KIND_NOFOLLOW}},
    {"fchown",       run_fchown,         8, 0, {SLOT, KIND_UID, KIND_GID}},
    {"utimens",      run_utimens,       14, 0, {AT, PATH, KIND_TIME, KIND_TIME,
                                                KIND_NOFOLLOW}},
    {"futimens",     run_futimens,       6, 0, {SLOT, KIND_TIME, KIND_TIME}},
    {"access",       run_access,        16, 0, {AT, PATH, KIND_ACCESS,
                                                KIND_ACCESS_FLAGS}},
    {"statx",        run_statx,         40, 0, {AT, PATH, KIND_STAT_FLAGS,
                                                KIND_STATX_MASK}},
    {"fstat",        run_fstat,         16, 0, {SLOT}},
    {"statfs",       run_statfs,         3, 0, {PATH, SLOT}},
    {"umask",        run_umask,          3, 0, {KIND_UMASK}},
    {"list",         run_list,          12, 0, {AT, DIR_PATH, KIND_ROOM}},
    {"readdir",      run_readdir,       14, 0, {DIR_SLOT, KIND_COUNT, KIND_ROOM}},
    {"rewind",       run_rewind,         6, 0, {DIR_SLOT}},
    {"telldir",      run_telldir,        6, 0, {DIR_SLOT, KIND_REGISTER}},
    {"seekdir",      run_seekdir,        6, 0, {DIR_SLOT, KIND_REGISTER}},
    {"setxattr",     run_setxattr,      24, OP_NEEDS_XATTR,
                     {PATH, KIND_BOOL, KIND_XATTR, KIND_SEED, KIND_XATTR_SIZE,
                      KIND_XATTR_FLAGS}},
    {"getxattr",     run_getxattr,      12, OP_NEEDS_XATTR,
                     {PATH, KIND_BOOL, KIND_XATTR, KIND_XATTR_SIZE}},
    {"listxattr",    run_listxattr,     10, OP_NEEDS_XATTR,
                     {PATH, KIND_BOOL, KIND_XATTR_SIZE}},
    {"removexattr",  run_removexattr,    8, OP_NEEDS_XATTR, {PATH, KIND_BOOL,
                                                KIND_XATTR}},
    {"fsetxattr",    run_fsetxattr,     10, OP_NEEDS_XATTR,
                     {SLOT, KIND_XATTR, KIND_SEED, KIND_XATTR_SIZE, KIND_XATTR_FLAGS}},
    {"fgetxattr",    run_fgetxattr,     10, OP_NEEDS_XATTR,
                     {SLOT, KIND_XATTR, KIND_XATTR_SIZE}},
    {"setacl",       run_setacl,        16, OP_NEEDS_ACL, {PATH, KIND_BOOL, KIND_SEED,
                                                           KIND_BOOL}},
    {"getacl",       run_getacl,         8, OP_NEEDS_ACL, {PATH, KIND_BOOL,
                                                           KIND_XATTR_SIZE}},
    {"ioctl",        run_ioctl,          6, OP_NEEDS_IOCTL, {SLOT, KIND_IOCTL}},
    {"setflags",     run_setflags,       4, OP_NEEDS_IOCTL, {SLOT, KIND_FILE_FLAGS,
                                                             KIND_BOOL}},
    {"flock",        run_flock,          6, 0, {SLOT, KIND_FLOCK}},
    {"lock",         run_lock,          10, 0, {SLOT, KIND_LOCK_COMMAND, KIND_LOCK,
                                                KIND_OFFSET, KIND_LENGTH}},
    {"walk",         run_walk,           0, 0, {KIND_BOOL}},
};
/* clang-format on */

const size_t ops_n_rows = G_N_ELEMENTS(ops_rows);

int ops_find(const char *name)
{
    for (size_t i = 0; i < ops_n_rows; i++) {
        if (strcmp(ops_rows[i].name, name) == 0) {
            return (int)i;
        }
    }
    return -1;
}
