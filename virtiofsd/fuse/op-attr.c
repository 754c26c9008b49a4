/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on attributes.
 */
#include <errno.h>

#include "virtiofsd/fuse/op.h"
#include "virtiofsd/fuse/reply.h"

#define NS_PER_S 1000000000u
#define MODE_BITS 07777u

int op_getattr(Request *request)
{
    const struct fuse_getattr_in *in = &request->in.getattr;
    uint64_t handle = (in->getattr_flags & FUSE_GETATTR_FH) != 0 ? in->fh : PT_NO_HANDLE;
    PtAttr attr;
    int result = pt_getattr(request->fs, request->header.nodeid, handle, &attr);

    return result < 0 ? result : reply_attr(request, &attr);
}

int op_statx(Request *request)
{
    const struct abi_statx_in *in = &request->in.statx;
    const PtStatx want = {
        .handle = (in->getattr_flags & FUSE_GETATTR_FH) != 0 ? in->fh : PT_NO_HANDLE,
        .mask = in->sx_mask,
        .flags = in->sx_flags,
    };
    PtAttr attr;
    int result = pt_statx(request->fs, request->header.nodeid, &want, &attr);

    return result < 0 ? result : reply_statx(request, &attr);
}

static const struct {
    uint32_t theirs;
    uint32_t ours;
} set_flags[] = {
    {FATTR_MODE, PT_SET_MODE},
    {FATTR_UID, PT_SET_UID},
    {FATTR_GID, PT_SET_GID},
    {FATTR_SIZE, PT_SET_SIZE},
    {FATTR_ATIME, PT_SET_ATIME},
    {FATTR_MTIME, PT_SET_MTIME},
    {FATTR_ATIME_NOW, PT_SET_ATIME_NOW},
    {FATTR_MTIME_NOW, PT_SET_MTIME_NOW},
    {FATTR_CTIME, PT_SET_CTIME},
    {FATTR_KILL_SUIDGID, PT_SET_KILL_SUIDGID},
};

/* Values that system calls would take for something else: (uid_t)-1 for "leave it", and
 * utimensat's UTIME_NOW and UTIME_OMIT, which are nanoseconds beyond a second. */
static bool is_valid(const struct fuse_setattr_in *in)
{
    return ((in->valid & FATTR_UID) == 0 || in->uid != UINT32_MAX) &&
           ((in->valid & FATTR_GID) == 0 || in->gid != UINT32_MAX) &&
           ((in->valid & FATTR_SIZE) == 0 || in->size <= INT64_MAX) &&
           ((in->valid & FATTR_ATIME) == 0 || in->atimensec < NS_PER_S) &&
           ((in->valid & FATTR_MTIME) == 0 || in->mtimensec < NS_PER_S);
}

/* Where set-id bits are ours to drop (HANDLE_KILLPRIV_V2), Linux leaves them out of what
 * it wants changed, and sends what is left even if that is nothing. */
static bool wants_kill_alone(const Request *request, const PtSetattr *set)
{
    return (set->valid & ~PT_SET_CTIME) == 0 && request->session->agreed.killpriv &&
           request->header.uid != UINT32_MAX;
}

/* Where they are not, Linux sends along what its programs lose by chown(2) and
 * truncate(2): a mode, and REMOVEXATTR if it knows of attributes. What it does not
 * mention is to stay.
 */
static uint32_t kept(const Request *request, uint32_t valid)
{
    const uint32_t taking = PT_SET_UID | PT_SET_GID | PT_SET_SIZE;

    if (request->session->agreed.killpriv || (valid & taking) == 0) {
        return 0;
    }
    return PT_SET_KEEP_SUIDGID |
           (request->session->config.xattr ? PT_SET_KEEP_CAPABILITY : 0);
}

int op_setattr(Request *request)
{
    const struct fuse_setattr_in *in = &request->in.setattr;
    PtAttr attr;

    if (!is_valid(in)) {
        return -EINVAL;
    }
    PtSetattr set = {
        .handle = (in->valid & FATTR_FH) != 0 ? in->fh : PT_NO_HANDLE,
        .mode = in->mode & MODE_BITS,
        .uid = in->uid,
        .gid = in->gid,
        .size = in->size,
        .atime = {.tv_sec = (time_t)in->atime, .tv_nsec = (long)in->atimensec},
        .mtime = {.tv_sec = (time_t)in->mtime, .tv_nsec = (long)in->mtimensec},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(set_flags); i++) {
        if ((in->valid & set_flags[i].theirs) != 0) {
            set.valid |= set_flags[i].ours;
        }
    }
    set.valid |= kept(request, set.valid);
    if (wants_kill_alone(request, &set)) {
        set.valid = PT_SET_KILL_FOR_UID;
        set.uid = request->header.uid;
    }
    int result = pt_setattr(request->fs, request->header.nodeid, &set, &attr);
    return result < 0 ? result : reply_attr(request, &attr);
}

int op_statfs(Request *request)
{
    struct statvfs statvfs;
    int result = pt_statfs(request->fs, request->header.nodeid, &statvfs);

    return result < 0 ? result : reply_statfs(request, &statvfs);
}
