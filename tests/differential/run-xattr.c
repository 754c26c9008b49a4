/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/posix_acl_xattr.h>
#include <linux/xattr.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/differential/run.h"

/*
 * Extended attributes, access control lists, and the attributes that ioctl(2) knows.
 */

#define ACL_ENTRIES 6

/* A list of names is compared sorted: their order is the file system's own. */
static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static const char *name_of(int64_t which, char long_name[300])
{
    static const char *const names[] = {"user.a",
                                        "user.b",
                                        "trusted.a",
                                        "security.a",
                                        "security.capability",
                                        "user.",
                                        NULL,
                                        NULL,
                                        "none",
                                        "system.a",
                                        "",
                                        "trusted.overlay.x",
                                        "user.\xff",
                                        "security.selinux"};
    size_t i = (size_t)which % G_N_ELEMENTS(names);
    if (names[i] != NULL) {
        return names[i];
    }
    size_t length = i == 6 ? 255 : 256;
    memset(long_name, 'x', length);
    memcpy(long_name, "user.", 5);
    long_name[length] = '\0';
    return long_name;
}

/* Capabilities must be well-formed to be taken. */
static void fill_value(Side *side, int64_t name, int64_t seed, size_t size)
{
    run_fill(side, seed, size);
    if (name == 4 && size == XATTR_CAPS_SZ_2) {
        struct vfs_cap_data caps = {.magic_etc = GUINT32_TO_LE(VFS_CAP_REVISION_2 | 1)};
        caps.data[0].permitted = GUINT32_TO_LE((uint32_t)seed);
        memcpy(side->buffer, &caps, XATTR_CAPS_SZ_2);
    }
}

/* To the host it is a write when the guest writes back, and that takes them away. What is
 * closed is written back; and syncfs(2) does not wait for FUSE. */
static void before_capabilities(const Side *side, int64_t name)
{
    if (side->mount && side->mode->writeback && name == 4) {
        for (int i = 0; i < SIDE_SLOTS; i++) {
            (void)fdatasync(side->slots[i].fd);
        }
    }
}

/* path, nofollow, name, seed, size, flags */
void run_setxattr(Side *side, const Op *op)
{
    char path[PATH_ROOM], long_name[300];
    path_decode(op->arg[0], path);
    const char *name = name_of(op->arg[2], long_name);
    size_t size = (size_t)op->arg[4];
    fill_value(side, op->arg[2], op->arg[3], size);
    before_capabilities(side, op->arg[2]);
    int r = op->arg[1] != 0 ? lsetxattr(path, name, side->buffer, size, op_int(op, 5))
                            : setxattr(path, name, side->buffer, size, op_int(op, 5));
    out_return(&side->out, r);
}

static void tell_value(Side *side, ssize_t r, size_t size)
{
    out_return(&side->out, r);
    if (r > 0 && size > 0) {
        out_data(&side->out, side->buffer, (size_t)r);
    }
}

/* path, nofollow, name, size */
void run_getxattr(Side *side, const Op *op)
{
    char path[PATH_ROOM], long_name[300];
    path_decode(op->arg[0], path);
    const char *name = name_of(op->arg[2], long_name);
    size_t size = (size_t)op->arg[3];
    ssize_t r = op->arg[1] != 0 ? lgetxattr(path, name, side->buffer, size)
                                : getxattr(path, name, side->buffer, size);
    tell_value(side, r, size);
}

/* Names of trusted.* are listed to everybody in the guest, on the host to root alone:
 * only root compares sizes, and the others have room for all and compare what remains. */
static size_t list_room(int64_t size)
{
    return geteuid() == 0 ? (size_t)size : 65536;
}

static void tell_list(Side *side, ssize_t r, size_t size)
{
    const char *sorted[256];
    size_t n = 0;
    bool is_root = geteuid() == 0;
    out_return(&side->out, is_root || r < 0 ? r : 0);
    if (size == 0 || r <= 0) {
        return;
    }
    const char *list = (const char *)side->buffer;
    for (const char *at = list; at < list + r && n < 256; at += strlen(at) + 1) {
        if (is_root || strncmp(at, "trusted.", 8) != 0) {
            sorted[n++] = at;
        }
    }
    qsort(sorted, n, sizeof(*sorted), by_name);
    for (size_t i = 0; i < n; i++) {
        out_field(&side->out, FIELD_XATTR, sorted[i], strlen(sorted[i]));
    }
}

/* path, nofollow, size */
void run_listxattr(Side *side, const Op *op)
{
    char path[PATH_ROOM];
    path_decode(op->arg[0], path);
    size_t size = list_room(op->arg[2]);
    char *buffer = (char *)side->buffer;
    ssize_t r =
        op->arg[1] != 0 ? llistxattr(path, buffer, size) : listxattr(path, buffer, size);
    tell_list(side, r, size);
}

/* path, nofollow, name */
void run_removexattr(Side *side, const Op *op)
{
    char path[PATH_ROOM], long_name[300];
    path_decode(op->arg[0], path);
    const char *name = name_of(op->arg[2], long_name);
    out_return(&side->out,
               op->arg[1] != 0 ? lremovexattr(path, name) : removexattr(path, name));
}

/* slot, name, seed, size, flags: flags 4 removes. */
void run_fsetxattr(Side *side, const Op *op)
{
    char long_name[300];
    const char *name = name_of(op->arg[1], long_name);
    size_t size = (size_t)op->arg[3];
    int fd = run_fd(side, op, 0);
    if (op->arg[4] == 4) {
        out_return(&side->out, fremovexattr(fd, name));
        return;
    }
    fill_value(side, op->arg[1], op->arg[2], size);
    before_capabilities(side, op->arg[1]);
    out_return(&side->out, fsetxattr(fd, name, side->buffer, size, op_int(op, 4)));
}

/* slot, name, size; the empty name lists. */
void run_fgetxattr(Side *side, const Op *op)
{
    char long_name[300];
    const char *name = name_of(op->arg[1], long_name);
    size_t size = (size_t)op->arg[2];
    int fd = run_fd(side, op, 0);
    if (name[0] == '\0') {
        size = list_room(op->arg[2]);
        tell_list(side, flistxattr(fd, (char *)side->buffer, size), size);
        return;
    }
    tell_value(side, fgetxattr(fd, name, side->buffer, size), size);
}

/* ---- access control lists --------------------------------------------------------- */

static const char *acl_name(int64_t is_default)
{
    return is_default != 0 ? XATTR_NAME_POSIX_ACL_DEFAULT : XATTR_NAME_POSIX_ACL_ACCESS;
}

/* Mostly a right list: owner, perhaps a user and a group by id, group, mask, others. */
static size_t fill_acl(Side *side, int64_t seed)
{
    Rng rng = {(uint64_t)seed};
    struct posix_acl_xattr_header *header = (void *)side->buffer;
    struct posix_acl_xattr_entry *entries = (void *)(header + 1);
    static const uint32_t ids[] = {0, 1000, 1001, 2000, 65534};
    static const uint16_t tags[ACL_ENTRIES] = {0x01, 0x02, 0x04, 0x08, 0x10, 0x20};
    size_t n = 0;
    uint32_t extended = rng_below(&rng, 8), odd = rng_below(&rng, 16);
    header->a_version = GUINT32_TO_LE(odd == 0 ? 3 : POSIX_ACL_XATTR_VERSION);
    for (size_t i = 0; i < ACL_ENTRIES; i++) {
        bool by_id = tags[i] == 0x02 || tags[i] == 0x08;
        bool wanted = by_id           ? (extended & tags[i] & 0xa) != 0 || extended > 5
                      : tags[i] == 16 ? extended > 1 || odd == 1
                                      : odd != 2 || i != 0;
        if (wanted) {
            entries[n].e_tag = GUINT16_TO_LE(tags[i]);
            entries[n].e_perm = GUINT16_TO_LE((uint16_t)rng_below(&rng, 8));
            entries[n].e_id = GUINT32_TO_LE(by_id ? ids[rng_below(&rng, 5)] : UINT32_MAX);
            n++;
        }
    }
    return sizeof(*header) + n * sizeof(*entries) - (odd == 3 ? 1 : 0);
}

/* Whether an old lock mark may have survived (except.c), which group execute that comes
 * by a list would make a set-group-ID bit. */
static bool has_mark(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & S_IXGRP) == 0;
}

static void clear_mark(const char *path)
{
    struct stat st;
    if (stat(path, &st) == 0) {
        (void)chmod(path, st.st_mode & 07777 & ~(mode_t)S_ISGID);
    }
}

/* path, default, seed, whether to remove it */
void run_setacl(Side *side, const Op *op)
{
    char path[PATH_ROOM];
    path_decode(op->arg[0], path);
    const char *name = acl_name(op->arg[1]);
    if (op->arg[3] != 0 && op->arg[2] % 4 == 0) {
        out_return(&side->out, removexattr(path, name));
        return;
    }
    run_refresh_path(side, path);
    size_t size = fill_acl(side, op->arg[2]);
    bool mark = has_mark(path);
    int r = setxattr(path, name, side->buffer, size, 0);
    out_return(&side->out, r);
    if (mark && r == 0) {
        clear_mark(path);
    }
}

/* path, default, size */
void run_getacl(Side *side, const Op *op)
{
    char path[PATH_ROOM];
    path_decode(op->arg[0], path);
    size_t size = (size_t)op->arg[2];
    tell_value(side, getxattr(path, acl_name(op->arg[1]), side->buffer, size), size);
}

/* ---- ioctl ------------------------------------------------------------------------ */

/* FUSE's client answers the ioctls of devices, pipes and sockets by itself. */
static bool is_plain(int fd)
{
    struct statx stx = {0};
    return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &stx) == 0 &&
           (S_ISREG(stx.stx_mode) || S_ISDIR(stx.stx_mode));
}

/* slot, which */
void run_ioctl(Side *side, const Op *op)
{
    int fd = run_fd(side, op, 0), flags = 0, r = 0;
    struct fsxattr attr = {0};
    if (!is_plain(fd)) {
        return;
    }
    switch (op->arg[1]) {
    case 0:
        r = ioctl(fd, FS_IOC_GETFLAGS, &flags);
        out_return(&side->out, r);
        out_number(&side->out, FIELD_NUMBER, r == 0 ? flags : 0);
        return;
    case 1:
        r = ioctl(fd, FS_IOC_FSGETXATTR, &attr);
        attr.fsx_nextents = 0; /* depends on what is written back */
        break;
    case 2:
        r = ioctl(fd, 0xdead, &flags);
        break;
    case 3:
        r = ioctl(fd, 0x5401, side->buffer);
        break;
    default:
        r = ioctl(fd, 0x541b, &flags);
        out_number(&side->out, FIELD_NUMBER, flags);
        break;
    }
    out_return(&side->out, r);
    if (op->arg[1] == 1 && r == 0) {
        out_data(&side->out, &attr, sizeof(attr));
    }
}

/* xfs takes set-id bits from who sets attributes without being privileged; the guest's
 * kernel does not tell who that is. */
static bool is_losing_bits(const Side *side, int fd)
{
    struct stat st;
    return side->mode->xfs && geteuid() != 0 && fstat(fd, &st) == 0 &&
           run_has_set_id(&st);
}

/* slot, flags, whether by FSSETXATTR: keeps what else is set. */
static void set_flags(Side *side, const Op *op)
{
    const int ours = 0x40 | 0x80 | 0x8 | 0x10000;
    int fd = run_fd(side, op, 0), flags = 0;
    struct fsxattr attr = {0};
    if (op->arg[2] != 0) {
        if (!is_losing_bits(side, fd) && ioctl(fd, FS_IOC_FSGETXATTR, &attr) == 0) {
            attr.fsx_xflags ^= FS_XFLAG_NODUMP;
            out_return(&side->out, ioctl(fd, FS_IOC_FSSETXATTR, &attr));
        }
        return;
    }
    if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0) {
        flags = (flags & ~ours) | op_int(op, 1);
        out_return(&side->out, ioctl(fd, FS_IOC_SETFLAGS, &flags));
    }
}

void run_setflags(Side *side, const Op *op)
{
    if (!is_plain(run_fd(side, op, 0))) {
        return;
    }
    set_flags(side, op);
    run_refresh(side, run_fd(side, op, 0));
}
