/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SETUPMAPPING and REMOVEMAPPING: the guest wants parts of files in its DAX window, or
 * there no more.
 *
 * Whatever the flags say, what is mapped can be written: VMMs map no other way, and the
 * guest's own kernel is all that would heed the difference. So in a read-only share
 * nothing is mapped.
 */
#include "virtiofsd/fuse/op-dax.h"

#include <errno.h>

#include "virtiofsd/fuse/dax-window.h"
#include "virtiofsd/fuse/dispatch.h"

#define KNOWN_FLAGS (FUSE_SETUPMAPPING_FLAG_READ | FUSE_SETUPMAPPING_FLAG_WRITE)

/* The file belongs to @fd only while the VMM is asked: it has a descriptor of its own. */
static int map(Request *request, int fd)
{
    const struct fuse_setupmapping_in *in = &request->in.setupmapping;
    const DaxWindow *window = &request->session->window;
    const DaxMap wanted = {.offset = in->moffset, .file_offset = in->foffset, .fd = fd};

    return window->map(window->opaque, &wanted);
}

int op_setupmapping(Request *request)
{
    const struct fuse_setupmapping_in *in = &request->in.setupmapping;
    bool writes = (in->flags & FUSE_SETUPMAPPING_FLAG_WRITE) != 0;

    if (!request->session->agreed.dax) {
        return -ENOSYS;
    }
    if (in->len != PT_DAX_SIZE || in->flags == 0 || (in->flags & ~KNOWN_FLAGS) != 0 ||
        in->foffset % PT_DAX_SIZE != 0 || in->moffset % PT_DAX_SIZE != 0) {
        return -EINVAL;
    }
    if (dispatch_readonly(request)) {
        return -EROFS;
    }
    int fd = pt_dax_open(request->fs, request->header.nodeid, in->fh, writes);
    if (fd < 0) {
        return fd;
    }
    int result = map(request, fd);
    pt_dax_close(request->fs, fd);
    return result;
}

int op_removemapping(Request *request)
{
    const DaxWindow *window = &request->session->window;
    uint32_t count = request->in.removemapping.count;
    struct fuse_removemapping_one one;
    int result = 0;

    if (!request->session->agreed.dax) {
        return -ENOSYS;
    }
    if (request->tail != (uint64_t)count * sizeof(one)) {
        return op_malformed(request, "count is not what follows");
    }
    for (uint32_t i = 0; i < count && result == 0; i++) {
        (void)iov_read(&request->reader, &one, sizeof(one)); /* measured above */
        result = window->unmap(window->opaque, one.moffset, one.len);
    }
    return result;
}
