/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The opcode table: one row per FUSE operation with its sizes and facts, and the generic
 * code that decodes and checks by them. Operations find their arguments copied, bounded
 * and complete; a request that is cut, stretched or answered nowhere never reaches one.
 */
#include "virtiofsd/fuse/dispatch.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "virtiofsd/fuse/op-dax.h"
#include "virtiofsd/fuse/op-lock.h"

#define IN(member) sizeof(((OpIn *)NULL)->member)
#define ENTRY sizeof(struct fuse_entry_out)
#define ATTR sizeof(struct fuse_attr_out)
#define OPENED sizeof(struct fuse_open_out)

/* clang-format off */
static const Op ops[ABI_OPCODES] = {
    /* opcode                name        run             in, out, tail, flags */
    [FUSE_LOOKUP]        = {"LOOKUP", op_lookup, 0, ENTRY, OP_TAIL_NAME, 0},
    [FUSE_FORGET]        = {"FORGET", op_forget, IN(forget), 0, OP_TAIL_NONE,
                            OP_NO_REPLY | OP_NO_WAIT},
    [FUSE_GETATTR]       = {"GETATTR", op_getattr, IN(getattr), ATTR, OP_TAIL_NONE, 0},
    [FUSE_SETATTR]       = {"SETATTR", op_setattr, IN(setattr), ATTR, OP_TAIL_NONE,
                            OP_MODIFIES},
    [FUSE_READLINK]      = {"READLINK", op_readlink, 0, 0, OP_TAIL_NONE, 0},
    [FUSE_SYMLINK]       = {"SYMLINK", op_symlink, 0, ENTRY, OP_TAIL_NAME_TARGET,
                            OP_MODIFIES | OP_CREATES},
    [FUSE_MKNOD]         = {"MKNOD", op_mknod, IN(mknod), ENTRY, OP_TAIL_NAME,
                            OP_MODIFIES | OP_CREATES},
    [FUSE_MKDIR]         = {"MKDIR", op_mkdir, IN(mkdir), ENTRY, OP_TAIL_NAME,
                            OP_MODIFIES | OP_CREATES},
    [FUSE_UNLINK]        = {"UNLINK", op_unlink, 0, 0, OP_TAIL_NAME, OP_MODIFIES},
    [FUSE_RMDIR]         = {"RMDIR", op_rmdir, 0, 0, OP_TAIL_NAME, OP_MODIFIES},
    [FUSE_RENAME]        = {"RENAME", op_rename, IN(rename), 0, OP_TAIL_TWO_NAMES,
                            OP_MODIFIES},
    [FUSE_LINK]          = {"LINK", op_link, IN(link), ENTRY, OP_TAIL_NAME, OP_MODIFIES},
    [FUSE_OPEN]          = {"OPEN", op_open, IN(open), OPENED, OP_TAIL_NONE, 0},
    [FUSE_READ]          = {"READ", op_read, IN(read), 0, OP_TAIL_NONE, 0},
    [FUSE_WRITE]         = {"WRITE", op_write, IN(write), sizeof(struct fuse_write_out),
                            OP_TAIL_BYTES, OP_MODIFIES},
    [FUSE_STATFS]        = {"STATFS", op_statfs, 0, sizeof(struct fuse_statfs_out),
                            OP_TAIL_NONE, 0},
    [FUSE_RELEASE]       = {"RELEASE", op_release, IN(release), 0, OP_TAIL_NONE, 0},
    [FUSE_FSYNC]         = {"FSYNC", op_fsync, IN(fsync), 0, OP_TAIL_NONE,
                            OP_LONG},
    /* The short form of SETXATTR; op_setxattr reads the rest of the long one. */
    [FUSE_SETXATTR]      = {"SETXATTR", op_setxattr, FUSE_COMPAT_SETXATTR_IN_SIZE, 0,
                            OP_TAIL_BYTES, OP_MODIFIES},
    [FUSE_GETXATTR]      = {"GETXATTR", op_getxattr, IN(getxattr), 0, OP_TAIL_NAME, 0},
    [FUSE_LISTXATTR]     = {"LISTXATTR", op_listxattr, IN(getxattr), 0,
                            OP_TAIL_NONE, 0},
    [FUSE_REMOVEXATTR]   = {"REMOVEXATTR", op_removexattr, 0, 0, OP_TAIL_NAME,
                            OP_MODIFIES},
    [FUSE_FLUSH]         = {"FLUSH", op_flush, IN(flush), 0, OP_TAIL_NONE, 0},
    /* The part of INIT that the oldest guests send; op_init reads the rest. */
    [FUSE_INIT]          = {"INIT", op_init, ABI_COMPAT_INIT_IN_SIZE,
                            sizeof(struct fuse_init_out), OP_TAIL_BYTES,
                            OP_BEFORE_INIT | OP_ALONE},
    [FUSE_OPENDIR]       = {"OPENDIR", op_opendir, IN(open), OPENED, OP_TAIL_NONE, 0},
    [FUSE_READDIR]       = {"READDIR", op_readdir, IN(read), 0, OP_TAIL_NONE, 0},
    [FUSE_RELEASEDIR]    = {"RELEASEDIR", op_releasedir, IN(release), 0, OP_TAIL_NONE, 0},
    [FUSE_FSYNCDIR]      = {"FSYNCDIR", op_fsyncdir, IN(fsync), 0, OP_TAIL_NONE,
                            OP_LONG},
    [FUSE_GETLK]         = {"GETLK", op_getlk, IN(lk),
                            sizeof(struct fuse_lk_out), OP_TAIL_NONE, 0},
    [FUSE_SETLK]         = {"SETLK", op_setlk, IN(lk), 0, OP_TAIL_NONE, 0},
    [FUSE_SETLKW]        = {"SETLKW", op_setlkw, IN(lk), 0, OP_TAIL_NONE, 0},
    /* The guest's kernel judges permissions itself, by attributes: none is sent. */
    [FUSE_ACCESS]        = {"ACCESS", NULL, sizeof(struct fuse_access_in), 0,
                            OP_TAIL_NONE, 0},
    /* In a read-only share pt_create() opens what exists. */
    [FUSE_CREATE]        = {"CREATE", op_create, IN(create), ENTRY + OPENED, OP_TAIL_NAME,
                            OP_CREATES},
    [FUSE_INTERRUPT]     = {"INTERRUPT", op_interrupt, IN(interrupt), 0, OP_TAIL_NONE,
                            OP_NO_REPLY | OP_NO_WAIT},
    /* There is no device that the guest could find a block on. */
    [FUSE_BMAP]          = {"BMAP", NULL, sizeof(struct fuse_bmap_in),
                            sizeof(struct fuse_bmap_out), OP_TAIL_NONE, 0},
    [FUSE_DESTROY]       = {"DESTROY", op_destroy, 0, 0, OP_TAIL_NONE, OP_ALONE},
    [FUSE_IOCTL]         = {"IOCTL", op_ioctl, IN(ioctl),
                            sizeof(struct fuse_ioctl_out), OP_TAIL_BYTES, 0},
    /* Nothing here is ever not ready. */
    [FUSE_POLL]          = {"POLL", NULL, sizeof(struct fuse_poll_in),
                            sizeof(struct fuse_poll_out), OP_TAIL_NONE, 0},
    [FUSE_NOTIFY_REPLY]  = {"NOTIFY_REPLY", NULL,
                            sizeof(struct fuse_notify_retrieve_in), 0, OP_TAIL_BYTES, 0},
    [FUSE_BATCH_FORGET]  = {"BATCH_FORGET", op_batch_forget, IN(batch_forget), 0,
                            OP_TAIL_BYTES, OP_NO_REPLY | OP_NO_WAIT},
    [FUSE_FALLOCATE]     = {"FALLOCATE", op_fallocate, IN(fallocate), 0, OP_TAIL_NONE,
                            OP_MODIFIES | OP_LONG},
    [FUSE_READDIRPLUS]   = {"READDIRPLUS", op_readdirplus, IN(read), 0, OP_TAIL_NONE, 0},
    [FUSE_RENAME2]       = {"RENAME2", op_rename2, IN(rename2), 0, OP_TAIL_TWO_NAMES,
                            OP_MODIFIES},
    [FUSE_LSEEK]         = {"LSEEK", op_lseek, IN(lseek), sizeof(struct fuse_lseek_out),
                            OP_TAIL_NONE, 0},
    [FUSE_COPY_FILE_RANGE] = {"COPY_FILE_RANGE", op_copy_file_range,
                            IN(copy_file_range),
                            sizeof(struct fuse_write_out), OP_TAIL_NONE,
                            OP_MODIFIES | OP_LONG},
    [FUSE_SETUPMAPPING]  = {"SETUPMAPPING", op_setupmapping, IN(setupmapping), 0,
                            OP_TAIL_NONE, OP_LONG},
    [FUSE_REMOVEMAPPING] = {"REMOVEMAPPING", op_removemapping, IN(removemapping), 0,
                            OP_TAIL_BYTES, OP_LONG},
    [FUSE_SYNCFS]        = {"SYNCFS", op_syncfs, sizeof(struct fuse_syncfs_in), 0,
                            OP_TAIL_NONE, OP_LONG},
    [FUSE_TMPFILE]       = {"TMPFILE", op_tmpfile, IN(create), ENTRY + OPENED,
                            OP_TAIL_NAME, OP_MODIFIES | OP_CREATES},
    [ABI_STATX]          = {"STATX", op_statx, IN(statx), sizeof(struct abi_statx_out),
                            OP_TAIL_NONE, 0},
    [ABI_COPY_FILE_RANGE_64] = {"COPY_FILE_RANGE_64", op_copy_file_range_64,
                            IN(copy_file_range), sizeof(uint64_t), OP_TAIL_NONE,
                            OP_MODIFIES | OP_LONG},
};
/* clang-format on */

const Op *dispatch_find(uint32_t opcode)
{
    return opcode < ABI_OPCODES && ops[opcode].name != NULL ? &ops[opcode] : NULL;
}

/* What is left behind the names: labels, from a guest that does not say how long they
 * are, because its kernel is older than the field that does. */
static int decode_rest(const Op *op, Request *request, const char *rest, size_t size)
{
    if (size == 0) {
        return 0;
    }
    if ((op->flags & OP_CREATES) == 0 || request->header.total_extlen != 0 ||
        size > OP_EXTENSION_SIZE) {
        return op_malformed(request, "bytes behind the name");
    }
    memcpy(request->scratch->extension, rest, size);
    request->extension_size = size;
    return 0;
}

/* Cut @n strings out of the tail, which must hold them and nothing else. */
static int decode_names(const Op *op, Request *request, size_t n, size_t second_max)
{
    char *at = request->scratch->text;
    size_t left = request->tail;
    size_t more = (op->flags & OP_CREATES) != 0 ? OP_EXTENSION_SIZE : 0;

    if (left > OP_TEXT_SIZE + more) {
        return -ENAMETOOLONG;
    }
    (void)iov_read(&request->reader, at, left); /* the tail was measured by the reader */
    request->tail = 0;
    for (size_t i = 0; i < n; i++) {
        const char *end = memchr(at, '\0', left);
        if (end == NULL) {
            return op_malformed(request, "a name does not end");
        }
        size_t length = (size_t)(end - at);
        if (length > (i == 0 ? PT_NAME_MAX : second_max)) {
            return -ENAMETOOLONG;
        }
        request->names[i] = at;
        at += length + 1;
        left -= length + 1;
    }
    return decode_rest(op, request, at, left);
}

static int decode_tail(const Op *op, Request *request)
{
    switch ((OpTail)op->tail) {
    case OP_TAIL_NONE:
        return request->tail == 0 ? 0 : op_malformed(request, "too long");
    case OP_TAIL_NAME:
        return decode_names(op, request, 1, 0);
    case OP_TAIL_TWO_NAMES:
        return decode_names(op, request, 2, PT_NAME_MAX);
    case OP_TAIL_NAME_TARGET:
        return decode_names(op, request, 2, PATH_MAX - 1);
    case OP_TAIL_BYTES:
        break;
    }
    return 0;
}

/* Copy everything but a tail of bytes out of guest memory. */
static int decode(const Op *op, Request *request)
{
    size_t size = iov_reader_left(&request->reader);
    size_t extensions = (size_t)request->header.total_extlen * 8;

    if (extensions > size || (extensions > 0 && (op->flags & OP_CREATES) == 0)) {
        return op_malformed(request, "extensions where none can be");
    }
    size -= extensions;
    if (size < op->in) {
        return op_malformed(request, "too short");
    }
    (void)iov_read(&request->reader, &request->in, op->in); /* measured above */
    request->tail = size - op->in;
    int result = decode_tail(op, request);
    if (result < 0) {
        return result;
    }
    if (extensions > OP_EXTENSION_SIZE) {
        return op_malformed(request, "extensions too long");
    }
    if (extensions > 0) {
        (void)iov_read(&request->reader, request->scratch->extension, extensions);
        request->extension_size = extensions;
    }
    return 0;
}

bool dispatch_readonly(const Request *request)
{
    uint32_t opcode = request->header.opcode;
    bool copies = opcode == FUSE_COPY_FILE_RANGE || opcode == ABI_COPY_FILE_RANGE_64;
    uint64_t changed =
        copies ? request->in.copy_file_range.nodeid_out : request->header.nodeid;

    return request->session->config.readonly || pt_node_readonly(request->fs, changed);
}

/* What the operation must not even begin without. */
static int check(const Op *op, Request *request)
{
    if ((op->flags & OP_MODIFIES) != 0 && dispatch_readonly(request)) {
        return -EROFS;
    }
    if (op->run == NULL) {
        return -ENOSYS;
    }
    if ((op->flags & OP_NO_REPLY) == 0 && iov_writer_room(&request->writer) < op->out) {
        return op_malformed(request, "too little room for the reply");
    }
    return 0;
}

static int run_in_session(const Op *op, Request *request)
{
    if ((op->flags & OP_BEFORE_INIT) == 0 && !session_is_initialised(request->session)) {
        return -EIO;
    }
    int result = check(op, request);
    return result < 0 ? result : op->run(request);
}

static int run_alone(const Op *op, Request *request, Gate *gate)
{
    gate_enter_alone(gate);
    int result = run_in_session(op, request);
    gate_leave_alone(gate);
    return result;
}

/* FORGET must never be behind a request, so not behind an INIT that waits for one either.
 * It need not: with the session all that it could forget ends. */
static bool enter(const Op *op, Gate *gate, GateSlot *slot)
{
    if ((op->flags & OP_NO_WAIT) != 0) {
        return gate_try_enter(gate, slot);
    }
    gate_enter(gate, slot);
    return true;
}

int dispatch_run(const Op *op, Request *request, GateSlot *slot)
{
    Gate *gate = &request->session->gate;
    int result = decode(op, request);

    if (result < 0) {
        return result;
    }
    if ((op->flags & OP_ALONE) != 0) {
        return run_alone(op, request, gate);
    }
    if (!enter(op, gate, slot)) {
        return -EAGAIN;
    }
    result = run_in_session(op, request);
    gate_leave(gate, slot);
    return result;
}
