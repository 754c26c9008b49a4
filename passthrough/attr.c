/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "passthrough/cred.h"
#include "passthrough/fd.h"
#include "passthrough/handle.h"
#include "passthrough/inode.h"
#include "passthrough/internal.h"
#include "passthrough/passthrough.h"
#include "passthrough/translate.h"
#include "passthrough/xattr.h"

/*
 * Attributes. They are read and changed on the inode's O_PATH descriptor, or on the open
 * file that the guest names. Where Linux has no call for an O_PATH descriptor, the file
 * is named by its number in the procfd, which is each thread's working directory; a
 * symbolic link is then itself the end of the path, and is not followed.
 */

#define NS_PER_S 1000000000

/* What a request acts on: a node, or one of its open files. */
typedef struct Target {
    PtNode node;
    PtOpenFile file;
    const PtInode *inode; /* either way */
    int fd;
} Target;

static void target_clear(Target *target)
{
    pt_open_file_clear(&target->file);
    pt_node_clear(&target->node);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Target, target_clear)

static int target_get(PtFs *fs, uint64_t nodeid, uint64_t handle, Target *target)
{
    if (handle == PT_NO_HANDLE) {
        int r = pt_node_get(fs, nodeid, &target->node);
        if (r == 0) {
            target->inode = target->node.inode;
            target->fd = target->node.fd;
        }
        return r;
    }
    int r = pt_open_file_get(fs, nodeid, handle, PT_HANDLE_ANY, &target->file);
    if (r == 0) {
        target->inode = pt_handle_inode(fs, target->file.handle);
        target->fd = target->file.handle->fd;
    }
    return r;
}

static int get_attr(PtFs *fs, const Target *target, PtAttr *ret_attr)
{
    ret_attr->flags = 0;
    return pt_stat(fs, target->fd, "", &ret_attr->stx);
}

int pt_getattr(PtFs *fs, uint64_t nodeid, uint64_t handle, PtAttr *ret_attr)
{
    if (handle == PT_NO_HANDLE) {
        ret_attr->flags = 0;
        return pt_node_stat(fs, nodeid, &ret_attr->stx);
    }
    g_auto(Target) target = {0};
    int r = target_get(fs, nodeid, handle, &target);
    return r < 0 ? r : get_attr(fs, &target, ret_attr);
}

int pt_statx(PtFs *fs, uint64_t nodeid, const PtStatx *want, PtAttr *ret_attr)
{
    const uint32_t known = AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC;
    g_auto(Target) target = {0};
    if ((want->flags & ~known) || want->flags == known ||
        (want->mask & STATX__RESERVED)) {
        return -EINVAL;
    }
    int r = target_get(fs, nodeid, want->handle, &target);
    if (r < 0) {
        return r;
    }
    ret_attr->flags = 0;
    r = statx(target.fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT | (int)want->flags,
              want->mask, &ret_attr->stx);
    return r < 0 ? pt_error() : 0;
}

/* ---- setting ---------------------------------------------------------------------- */

static int change_owner(const PtFs *fs, const Target *target, const PtSetattr *set)
{
    const uint32_t same = UINT32_MAX;
    bool uid = set->valid & PT_SET_UID;
    bool gid = set->valid & PT_SET_GID;
    if ((uid && set->uid == same) || (gid && set->gid == same)) {
        return -EINVAL;
    }
    uint32_t host_uid = same;
    uint32_t host_gid = same;
    int r = uid ? pt_translate_to_host(fs->config.uids, set->uid, &host_uid) : 0;
    if (r == 0 && gid) {
        r = pt_translate_to_host(fs->config.gids, set->gid, &host_gid);
    }
    if (r == 0) {
        r = pt_capability_drop(fs, target->fd, pt_inode_type(target->inode));
    }
    if (r < 0) {
        return r;
    }
    r = fchownat(target->fd, "", host_uid, host_gid, AT_EMPTY_PATH);
    return r < 0 ? pt_error() : 0;
}

static int set_mode(PtFs *fs, const Target *target, mode_t mode)
{
    if (S_ISLNK(pt_inode_type(target->inode))) {
        return -EOPNOTSUPP;
    }
    int r = target->file.handle != NULL
                ? fchmod(target->fd, mode & 07777)
                : fchmodat(fs->procfd, pt_fd_name(target->fd).text, mode & 07777, 0);
    return r < 0 ? pt_error() : 0;
}

/* Set-id bits that chown(2) takes from a file; set-group-ID that lets nobody be of a
 * group is none of them. */
static mode_t set_id_bits(mode_t mode)
{
    mode_t sgid = mode & S_IXGRP ? S_ISGID : 0;
    return S_ISREG(mode) ? mode & (S_ISUID | sgid) : 0;
}

/* chown(2) takes set-id bits. Unless that is ours to do, the guest's kernel has seen to
 * it for its programs; but it has more callers: overlayfs copies a file up that way, and
 * means to keep them. */
static int set_owner(PtFs *fs, const Target *target, const PtSetattr *set)
{
    struct statx before = {0};
    bool keeps = (set->valid & PT_SET_KEEP_SUIDGID) && !(set->valid & PT_SET_MODE);
    int r = keeps ? pt_stat(fs, target->fd, "", &before) : 0;
    if (r == 0) {
        r = change_owner(fs, target, set);
    }
    if (r == 0 && set_id_bits(before.stx_mode) != 0) {
        r = set_mode(fs, target, before.stx_mode);
    }
    return r;
}

static int set_size(const PtFs *fs, const Target *target, const PtSetattr *set)
{
    g_auto(PtPrivileges) privileges = {0};
    if (!S_ISREG(pt_inode_type(target->inode))) {
        return S_ISDIR(pt_inode_type(target->inode)) ? -EISDIR : -EINVAL;
    }
    if (set->size > INT64_MAX) {
        return -EINVAL;
    }
    int r = pt_capability_drop(fs, target->fd, S_IFREG);
    if (r < 0) {
        return r;
    }
    r = pt_privileges_drop(set->valid & PT_SET_KILL_SUIDGID, &privileges);
    if (r < 0) {
        return r;
    }
    bool opened = target->file.handle != NULL && target->file.handle->writable;
    r = opened ? ftruncate(target->fd, (off_t)set->size)
               : truncate(pt_fd_name(target->fd).text, (off_t)set->size);
    return r < 0 ? pt_denied(fs, pt_error(), target->fd, W_OK) : 0;
}

/* Linux asks for no more than this when it has nothing else to change: a chown(2) that
 * names no id. The host's own does the same, to files alone, whoever calls it; here the
 * guest's kernel has not checked that the caller may. */
static int kill_for(PtFs *fs, const Target *target, uint32_t uid)
{
    struct statx now;
    int r = uid == 0 ? 0 : pt_stat(fs, target->fd, "", &now);
    if (r < 0 ||
        (uid != 0 && pt_translate_to_guest(fs->config.uids, now.stx_uid) != uid)) {
        return r;
    }
    r = pt_capability_drop(fs, target->fd, pt_inode_type(target->inode));
    if (r < 0) {
        return r;
    }
    r = fchownat(target->fd, "", UINT32_MAX, UINT32_MAX, AT_EMPTY_PATH);
    return r < 0 ? pt_error() : 0;
}

static struct timespec time_to_set(const struct timespec *time, bool set, bool now)
{
    if (now) {
        return (struct timespec){.tv_nsec = UTIME_NOW};
    }
    return set ? *time : (struct timespec){.tv_nsec = UTIME_OMIT};
}

static bool time_is_valid(const struct timespec *time)
{
    /* Some values beyond mean something else to utimensat(2). */
    return time->tv_nsec >= 0 && time->tv_nsec < NS_PER_S;
}

static int set_times(const Target *target, const PtSetattr *set)
{
    uint32_t valid = set->valid;
    if (((valid & PT_SET_ATIME) && !time_is_valid(&set->atime)) ||
        ((valid & PT_SET_MTIME) && !time_is_valid(&set->mtime))) {
        return -EINVAL;
    }
    struct timespec times[2] = {
        time_to_set(&set->atime, valid & PT_SET_ATIME, valid & PT_SET_ATIME_NOW),
        time_to_set(&set->mtime, valid & PT_SET_MTIME, valid & PT_SET_MTIME_NOW),
    };
    return utimensat(target->fd, "", times, AT_EMPTY_PATH) < 0 ? pt_error() : 0;
}

/* Only the host's kernel sets a time of change, to now, when something else changes. The
 * time of access may change to what it is; if a read comes in between, little is lost. */
static int set_changed(PtFs *fs, const Target *target)
{
    struct statx now;
    int r = pt_stat(fs, target->fd, "", &now);
    if (r < 0) {
        return r;
    }
    struct timespec times[2] = {
        {.tv_sec = now.stx_atime.tv_sec, .tv_nsec = now.stx_atime.tv_nsec},
        {.tv_nsec = UTIME_OMIT},
    };
    return utimensat(target->fd, "", times, AT_EMPTY_PATH) < 0 ? pt_error() : 0;
}

/* The owner comes first, because a change of it clears set-id bits that the mode may set;
 * times come last, because a change of size moves them. */
static int apply(PtFs *fs, const Target *target, const PtSetattr *set)
{
    const uint32_t times =
        PT_SET_ATIME | PT_SET_MTIME | PT_SET_ATIME_NOW | PT_SET_MTIME_NOW;
    PtCapability capability = {0};
    int r = 0;
    if (set->valid == PT_SET_KILL_FOR_UID) {
        return kill_for(fs, target, set->uid);
    }
    if (set->valid & PT_SET_KEEP_CAPABILITY) {
        pt_capability_save(fs, target->fd, &capability);
    }
    if (set->valid & (PT_SET_UID | PT_SET_GID)) {
        r = set_owner(fs, target, set);
    }
    if (r == 0 && (set->valid & PT_SET_MODE)) {
        r = set_mode(fs, target, set->mode);
    }
    if (r == 0 && (set->valid & PT_SET_SIZE)) {
        r = set_size(fs, target, set);
    }
    if (r == 0 && (set->valid & times)) {
        r = set_times(target, set);
    }
    bool moved = set->valid & (PT_SET_UID | PT_SET_GID | PT_SET_MODE | times);
    if (r == 0 && (set->valid & PT_SET_CTIME) && !moved) {
        r = set_changed(fs, target);
    }
    return r < 0 ? r : pt_capability_restore(fs, target->fd, &capability);
}

int pt_setattr(PtFs *fs, uint64_t nodeid, const PtSetattr *set, PtAttr *ret_attr)
{
    g_auto(Target) target = {0};
    int r = target_get(fs, nodeid, set->handle, &target);
    if (r < 0) {
        return r;
    }
    r = apply(fs, &target, set);
    return r < 0 ? r : get_attr(fs, &target, ret_attr);
}

int pt_statfs(PtFs *fs, uint64_t nodeid, struct statvfs *ret_statvfs)
{
    g_auto(PtNode) node = {0};
    int r = pt_node_get(fs, nodeid, &node);
    if (r < 0) {
        return r;
    }
    return fstatvfs(node.fd, ret_statvfs) < 0 ? pt_error() : 0;
}
