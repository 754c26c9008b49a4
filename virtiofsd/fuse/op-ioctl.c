/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IOCTL: chattr(1) and its like, and nothing else. Guests send what the kernel calls file
 * attributes in this form; any other number is ENOTTY and goes no further.
 */
#include <errno.h>
#include <linux/fs.h>

#include "virtiofsd/fuse/dispatch.h"
#include "virtiofsd/fuse/op.h"
#include "virtiofsd/fuse/reply.h"

/* Programs of 32 bits are served by the same kernel; UNRESTRICTED is for CUSE. */
#define KNOWN_FLAGS                                                                      \
    (FUSE_IOCTL_COMPAT | FUSE_IOCTL_32BIT | FUSE_IOCTL_DIR | FUSE_IOCTL_COMPAT_X32)

typedef union Argument {
    uint32_t flags;
    struct fsxattr attr;
} Argument;

static int run_flags(PtFs *fs, const PtFlagsOf *of, bool set, Argument *argument)
{
    return pt_flags(fs, of, set, &argument->flags);
}

static int run_attr(PtFs *fs, const PtFlagsOf *of, bool set, Argument *argument)
{
    return pt_xflags(fs, of, set, &argument->attr);
}

/* The numbers say long or int, and mean an int: guests before 5.8 send a long. */
static const struct Ioctl {
    uint32_t number;
    bool set;
    size_t size;
    int (*run)(PtFs *fs, const PtFlagsOf *of, bool set, Argument *argument);
} ioctls[] = {
    {FS_IOC_GETFLAGS, false, sizeof(uint32_t), run_flags},
    {FS_IOC_SETFLAGS, true, sizeof(uint32_t), run_flags},
    {FS_IOC32_GETFLAGS, false, sizeof(uint32_t), run_flags},
    {FS_IOC32_SETFLAGS, true, sizeof(uint32_t), run_flags},
    {FS_IOC_FSGETXATTR, false, sizeof(struct fsxattr), run_attr},
    {FS_IOC_FSSETXATTR, true, sizeof(struct fsxattr), run_attr},
};

static const struct Ioctl *find(uint32_t number)
{
    for (size_t i = 0; i < G_N_ELEMENTS(ioctls); i++) {
        if (ioctls[i].number == number) {
            return &ioctls[i];
        }
    }
    return NULL;
}

static int reply(Request *request, const struct Ioctl *ioctl, const Argument *argument)
{
    const struct fuse_ioctl_out out = {0}; /* .result: what ioctl(2) returns */
    int result = reply_bytes(request, &out, sizeof(out));

    return result < 0 || ioctl->set ? result
                                    : reply_bytes(request, argument, ioctl->size);
}

/* Only changes bring an argument, only queries want one back. */
static bool has_room(const Request *request, const struct Ioctl *ioctl)
{
    const struct fuse_ioctl_in *in = &request->in.ioctl;
    size_t room = iov_writer_room(&request->writer);

    if (ioctl->set) {
        return in->in_size >= ioctl->size;
    }
    return in->out_size >= ioctl->size &&
           room >= sizeof(struct fuse_ioctl_out) + ioctl->size;
}

/* A caller without a name may be root, who would be taken by surprise. */
static bool is_surely_unprivileged(const Request *request)
{
    return request->header.uid != 0 && request->header.uid != UINT32_MAX;
}

int op_ioctl(Request *request)
{
    const struct fuse_ioctl_in *in = &request->in.ioctl;
    const struct Ioctl *ioctl = find(in->cmd);
    Argument argument = {0};

    if (in->in_size != request->tail) {
        return op_malformed(request, "its argument is not as long as it says");
    }
    if ((in->flags & ~(uint32_t)KNOWN_FLAGS) != 0) {
        return -EINVAL;
    }
    if (ioctl == NULL) {
        return -ENOTTY;
    }
    if (ioctl->set && dispatch_readonly(request)) {
        return -EROFS;
    }
    if (!has_room(request, ioctl)) {
        return -EINVAL;
    }
    if (ioctl->set) {
        (void)iov_read(&request->reader, &argument, ioctl->size); /* measured above */
    }
    const PtFlagsOf of = {.nodeid = request->header.nodeid,
                          .handle = in->fh,
                          .is_directory = (in->flags & FUSE_IOCTL_DIR) != 0,
                          .kill_suidgid = is_surely_unprivileged(request)};
    int result = ioctl->run(request->fs, &of, ioctl->set, &argument);
    return result < 0 ? result : reply(request, ioctl, &argument);
}
