/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on extended attributes. Values and lists pass through the worker's buffer,
 * whatever size the guest names. Without --xattr all are ENOSYS, which a guest's kernel
 * remembers: it asks once.
 */
#include <errno.h>
#include <string.h>

#include "virtiofsd/fuse/op.h"
#include "virtiofsd/fuse/reply.h"

static bool is_off(const Request *request)
{
    return !request->session->config.xattr;
}

/* The table row has copied what both forms have; the long one goes on. */
static int read_rest(Request *request)
{
    struct fuse_setxattr_in *in = &request->in.setxattr;
    const size_t rest = sizeof(*in) - FUSE_COMPAT_SETXATTR_IN_SIZE;

    if (!request->session->agreed.setxattr_ext) {
        return 0;
    }
    if (request->tail < rest) {
        return op_malformed(request, "too short");
    }
    (void)iov_read(&request->reader, (char *)in + FUSE_COMPAT_SETXATTR_IN_SIZE, rest);
    request->tail -= rest;
    return 0;
}

/* A name, and behind it exactly the value. */
static int read_attribute(Request *request, PtSetxattr *set)
{
    char *at = request->scratch->xattr;
    size_t size = request->in.setxattr.size;

    if (size > PT_XATTR_MAX) {
        return -E2BIG;
    }
    if (request->tail > OP_XATTR_SIZE) {
        return op_malformed(request, "more than a name and a value");
    }
    (void)iov_read(&request->reader, at, request->tail); /* measured above */
    const char *end = memchr(at, '\0', request->tail);
    if (end == NULL) {
        return op_malformed(request, "a name does not end");
    }
    size_t length = (size_t)(end - at);
    if (length > PT_NAME_MAX) {
        return -ERANGE;
    }
    if (request->tail - length - 1 != size) {
        return op_malformed(request, "the value is not as long as it says");
    }
    set->name = at;
    set->value = end + 1;
    set->size = size;
    return 0;
}

int op_setxattr(Request *request)
{
    const struct fuse_setxattr_in *in = &request->in.setxattr;
    PtSetxattr set = {0};

    if (is_off(request)) {
        return -ENOSYS;
    }
    int result = read_rest(request);
    if (result == 0) {
        result = read_attribute(request, &set);
    }
    if (result < 0) {
        return result;
    }
    /* The short form has left these at 0. */
    set.acl_kill_sgid = (in->setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID) != 0;
    set.flags = in->flags;
    return pt_setxattr(request->fs, request->header.nodeid, &set);
}

/* How much the guest takes: 0 asks for the length alone. */
static int take_size(Request *request, size_t *ret_size)
{
    size_t size = request->in.getxattr.size;
    size_t needed = size > 0 ? size : sizeof(struct fuse_getxattr_out);

    if (iov_writer_room(&request->writer) < needed) {
        return op_malformed(request, "too little room for the reply");
    }
    *ret_size = size < PT_XATTR_MAX ? size : PT_XATTR_MAX;
    return 0;
}

/* @length: what the file system said. */
static int answer(Request *request, ssize_t length)
{
    if (length < 0) {
        return (int)length;
    }
    if (request->in.getxattr.size > 0) {
        return reply_bytes(request, request->scratch->xattr, (size_t)length);
    }
    struct fuse_getxattr_out out = {.size = (uint32_t)length};
    return reply_bytes(request, &out, sizeof(out));
}

int op_getxattr(Request *request)
{
    size_t size;

    if (is_off(request)) {
        return -ENOSYS;
    }
    int result = take_size(request, &size);
    if (result < 0) {
        return result;
    }
    return answer(request, pt_getxattr(request->fs, request->header.nodeid,
                                       request->names[0], request->scratch->xattr, size));
}

int op_listxattr(Request *request)
{
    size_t size;

    if (is_off(request)) {
        return -ENOSYS;
    }
    int result = take_size(request, &size);
    if (result < 0) {
        return result;
    }
    return answer(request, pt_listxattr(request->fs, request->header.nodeid,
                                        request->scratch->xattr, size));
}

int op_removexattr(Request *request)
{
    if (is_off(request)) {
        return -ENOSYS;
    }
    return pt_removexattr(request->fs, request->header.nodeid, request->names[0]);
}
