/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FUSE operations: each fills in a request and has client_call() do the rest.
 */
#include "tests/support/fuse-ops.h"

#include <errno.h>

/* What Linux 6.1 offers over virtio-fs, without a DAX window. */
#define LINUX_FLAGS                                                                      \
    (FUSE_ASYNC_READ | FUSE_POSIX_LOCKS | FUSE_ATOMIC_O_TRUNC | FUSE_EXPORT_SUPPORT |    \
     FUSE_BIG_WRITES | FUSE_DONT_MASK | FUSE_SPLICE_WRITE | FUSE_SPLICE_MOVE |           \
     FUSE_SPLICE_READ | FUSE_FLOCK_LOCKS | FUSE_HAS_IOCTL_DIR | FUSE_AUTO_INVAL_DATA |   \
     FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO |                      \
     FUSE_WRITEBACK_CACHE | FUSE_NO_OPEN_SUPPORT | FUSE_PARALLEL_DIROPS |                \
     FUSE_HANDLE_KILLPRIV | FUSE_POSIX_ACL | FUSE_ABORT_ERROR | FUSE_MAX_PAGES |         \
     FUSE_CACHE_SYMLINKS | FUSE_NO_OPENDIR_SUPPORT | FUSE_EXPLICIT_INVAL_DATA |          \
     FUSE_SUBMOUNTS | FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT | FUSE_INIT_EXT |      \
     FUSE_SECURITY_CTX | FUSE_HAS_EXPIRE_ONLY)

/* A call whose answer has just the size of @out, or is empty without one. */
static int call_fixed(Client *client, const ClientRequest *request, void *out,
                      size_t size)
{
    int rc = client_call(client, request, out, size);
    if (rc < 0) {
        return rc;
    }
    return (size_t)rc == size ? 0 : -EPROTO;
}

static int call_name(Client *client, uint32_t opcode, uint64_t nodeid, const char *name)
{
    return call_fixed(client,
                      &(ClientRequest){.opcode = opcode, .nodeid = nodeid, .name = name},
                      NULL, 0);
}

static int call_args(Client *client, uint32_t opcode, uint64_t nodeid, const void *args,
                     size_t size)
{
    return call_fixed(
        client,
        &(ClientRequest){
            .opcode = opcode, .nodeid = nodeid, .args = args, .args_size = size},
        NULL, 0);
}

int client_init(Client *client, uint64_t flags, struct fuse_init_out *ret_out)
{
    struct fuse_init_out out;
    struct fuse_init_in in = {
        .major = FUSE_KERNEL_VERSION,
        .minor = 38,
        .max_readahead = 128 << 10,
        .flags = (uint32_t)flags,
        .flags2 = (uint32_t)(flags >> 32),
    };
    return call_fixed(
        client,
        &(ClientRequest){.opcode = FUSE_INIT, .args = &in, .args_size = sizeof(in)},
        ret_out != NULL ? ret_out : &out, sizeof(out));
}

int client_init_default(Client *client)
{
    return client_init(client, LINUX_FLAGS, NULL);
}

int client_destroy(Client *client)
{
    return call_args(client, FUSE_DESTROY, 0, NULL, 0);
}

int client_lookup(Client *client, uint64_t parent, const char *name,
                  struct fuse_entry_out *ret_entry)
{
    return call_fixed(
        client, &(ClientRequest){.opcode = FUSE_LOOKUP, .nodeid = parent, .name = name},
        ret_entry, sizeof(*ret_entry));
}

int client_forget(Client *client, uint64_t nodeid, uint64_t nlookup)
{
    struct fuse_forget_in in = {.nlookup = nlookup};
    return call_args(client, FUSE_FORGET, nodeid, &in, sizeof(in));
}

int client_batch_forget(Client *client, const struct fuse_forget_one *nodes, uint32_t n)
{
    struct fuse_batch_forget_in in = {.count = n};
    return call_fixed(client,
                      &(ClientRequest){.opcode = FUSE_BATCH_FORGET,
                                       .args = &in,
                                       .args_size = sizeof(in),
                                       .data = nodes,
                                       .data_size = n * sizeof(*nodes)},
                      NULL, 0);
}

int client_getattr(Client *client, uint64_t nodeid, const uint64_t *fh,
                   struct fuse_attr_out *ret_attr)
{
    struct fuse_getattr_in in = {
        .getattr_flags = fh != NULL ? FUSE_GETATTR_FH : 0,
        .fh = fh != NULL ? *fh : 0,
    };
    return call_fixed(client,
                      &(ClientRequest){.opcode = FUSE_GETATTR,
                                       .nodeid = nodeid,
                                       .args = &in,
                                       .args_size = sizeof(in)},
                      ret_attr, sizeof(*ret_attr));
}

int client_setattr(Client *client, uint64_t nodeid, const struct fuse_setattr_in *in,
                   struct fuse_attr_out *ret_attr)
{
    struct fuse_attr_out attr;
    return call_fixed(client,
                      &(ClientRequest){.opcode = FUSE_SETATTR,
                                       .nodeid = nodeid,
                                       .args = in,
                                       .args_size = sizeof(*in)},
                      ret_attr != NULL ? ret_attr : &attr, sizeof(attr));
}

int client_statfs(Client *client, uint64_t nodeid, struct fuse_kstatfs *ret_statfs)
{
    return call_fixed(client, &(ClientRequest){.opcode = FUSE_STATFS, .nodeid = nodeid},
                      ret_statfs, sizeof(*ret_statfs));
}

int client_access(Client *client, uint64_t nodeid, uint32_t mask)
{
    struct fuse_access_in in = {.mask = mask};
    return call_args(client, FUSE_ACCESS, nodeid, &in, sizeof(in));
}

/* ---- names ------------------------------------------------------------------ */

int client_readlink(Client *client, uint64_t nodeid, char *target, size_t size)
{
    return client_call(client,
                       &(ClientRequest){.opcode = FUSE_READLINK, .nodeid = nodeid},
                       target, size);
}

int client_symlink(Client *client, uint64_t parent, const char *name, const char *target,
                   struct fuse_entry_out *ret_entry)
{
    return call_fixed(
        client,
        &(ClientRequest){
            .opcode = FUSE_SYMLINK, .nodeid = parent, .name = name, .name2 = target},
        ret_entry, sizeof(*ret_entry));
}

/* A request with arguments and one name that makes an entry. */
static int call_make(Client *client, const ClientRequest *request,
                     struct fuse_entry_out *ret_entry)
{
    struct fuse_entry_out entry;
    return call_fixed(client, request, ret_entry != NULL ? ret_entry : &entry,
                      sizeof(entry));
}

int client_mknod(Client *client, uint64_t parent, const ClientMknod *node,
                 struct fuse_entry_out *ret_entry)
{
    struct fuse_mknod_in in = {
        .mode = node->mode, .rdev = node->rdev, .umask = node->umask};
    return call_make(client,
                     &(ClientRequest){.opcode = FUSE_MKNOD,
                                      .nodeid = parent,
                                      .args = &in,
                                      .args_size = sizeof(in),
                                      .name = node->name},
                     ret_entry);
}

int client_mkdir(Client *client, uint64_t parent, const char *name, uint32_t mode,
                 struct fuse_entry_out *ret_entry)
{
    struct fuse_mkdir_in in = {.mode = mode};
    return call_make(client,
                     &(ClientRequest){.opcode = FUSE_MKDIR,
                                      .nodeid = parent,
                                      .args = &in,
                                      .args_size = sizeof(in),
                                      .name = name},
                     ret_entry);
}

int client_link(Client *client, uint64_t nodeid, uint64_t parent, const char *name,
                struct fuse_entry_out *ret_entry)
{
    struct fuse_link_in in = {.oldnodeid = nodeid};
    return call_make(client,
                     &(ClientRequest){.opcode = FUSE_LINK,
                                      .nodeid = parent,
                                      .args = &in,
                                      .args_size = sizeof(in),
                                      .name = name},
                     ret_entry);
}

int client_unlink(Client *client, uint64_t parent, const char *name)
{
    return call_name(client, FUSE_UNLINK, parent, name);
}

int client_rmdir(Client *client, uint64_t parent, const char *name)
{
    return call_name(client, FUSE_RMDIR, parent, name);
}

static int rename_with(Client *client, uint32_t opcode, const ClientRename *rename,
                       const void *args, size_t size)
{
    return call_fixed(client,
                      &(ClientRequest){.opcode = opcode,
                                       .nodeid = rename->parent,
                                       .args = args,
                                       .args_size = size,
                                       .name = rename->name,
                                       .name2 = rename->new_name},
                      NULL, 0);
}

int client_rename(Client *client, const ClientRename *rename)
{
    struct fuse_rename_in in = {.newdir = rename->new_parent};
    return rename_with(client, FUSE_RENAME, rename, &in, sizeof(in));
}

int client_rename2(Client *client, const ClientRename *rename)
{
    struct fuse_rename2_in in = {.newdir = rename->new_parent, .flags = rename->flags};
    return rename_with(client, FUSE_RENAME2, rename, &in, sizeof(in));
}

/* ---- files and directories -------------------------------------------------- */

static int open_with(Client *client, uint32_t opcode, uint64_t nodeid, uint32_t flags,
                     uint64_t *ret_fh)
{
    struct fuse_open_in in = {.flags = flags};
    struct fuse_open_out out = {0};
    int rc = call_fixed(
        client,
        &(ClientRequest){
            .opcode = opcode, .nodeid = nodeid, .args = &in, .args_size = sizeof(in)},
        &out, sizeof(out));
    *ret_fh = out.fh;
    return rc;
}

int client_open(Client *client, uint64_t nodeid, uint32_t flags, uint64_t *ret_fh)
{
    return open_with(client, FUSE_OPEN, nodeid, flags, ret_fh);
}

int client_opendir(Client *client, uint64_t nodeid, uint64_t *ret_fh)
{
    return open_with(client, FUSE_OPENDIR, nodeid, 0, ret_fh);
}

static int create_with(Client *client, const ClientRequest *request, uint32_t flags,
                       uint32_t mode, ClientCreated *ret_created)
{
    struct fuse_create_in in = {.flags = flags, .mode = mode};
    ClientCreated created;
    ClientRequest whole = *request;
    whole.args = &in;
    whole.args_size = sizeof(in);
    return call_fixed(client, &whole, ret_created != NULL ? ret_created : &created,
                      sizeof(created));
}

int client_create(Client *client, uint64_t parent, const char *name, uint32_t flags,
                  uint32_t mode, ClientCreated *ret_created)
{
    return create_with(
        client, &(ClientRequest){.opcode = FUSE_CREATE, .nodeid = parent, .name = name},
        flags, mode, ret_created);
}

int client_tmpfile(Client *client, uint64_t parent, uint32_t flags, uint32_t mode,
                   ClientCreated *ret_created)
{
    return create_with(
        client, &(ClientRequest){.opcode = FUSE_TMPFILE, .nodeid = parent, .name = "/"},
        flags, mode, ret_created);
}

static int read_with(Client *client, uint32_t opcode, const ClientIo *io, void *bytes)
{
    struct fuse_read_in in = {
        .fh = io->fh,
        .offset = io->offset,
        .size = io->size,
        .flags = io->flags,
        .read_flags = io->io_flags,
    };
    return client_call(
        client,
        &(ClientRequest){
            .opcode = opcode, .nodeid = io->nodeid, .args = &in, .args_size = sizeof(in)},
        bytes, io->size);
}

int client_read(Client *client, const ClientIo *io, void *bytes)
{
    return read_with(client, FUSE_READ, io, bytes);
}

int client_readdir(Client *client, const ClientIo *io, void *bytes)
{
    return read_with(client, FUSE_READDIR, io, bytes);
}

int client_readdirplus(Client *client, const ClientIo *io, void *bytes)
{
    return read_with(client, FUSE_READDIRPLUS, io, bytes);
}

int client_write(Client *client, const ClientIo *io, const void *bytes)
{
    struct fuse_write_in in = {
        .fh = io->fh,
        .offset = io->offset,
        .size = io->size,
        .flags = io->flags,
        .write_flags = io->io_flags,
    };
    struct fuse_write_out out;
    int rc = call_fixed(client,
                        &(ClientRequest){.opcode = FUSE_WRITE,
                                         .nodeid = io->nodeid,
                                         .args = &in,
                                         .args_size = sizeof(in),
                                         .data = bytes,
                                         .data_size = io->size},
                        &out, sizeof(out));
    return rc < 0 ? rc : (int)out.size;
}

int client_flush(Client *client, uint64_t nodeid, uint64_t fh)
{
    struct fuse_flush_in in = {.fh = fh};
    return call_args(client, FUSE_FLUSH, nodeid, &in, sizeof(in));
}

static int fsync_with(Client *client, uint32_t opcode, uint64_t nodeid,
                      const struct fuse_fsync_in *in)
{
    return call_args(client, opcode, nodeid, in, sizeof(*in));
}

int client_fsync(Client *client, uint64_t nodeid, uint64_t fh, bool data_only)
{
    struct fuse_fsync_in in = {.fh = fh, .fsync_flags = data_only};
    return fsync_with(client, FUSE_FSYNC, nodeid, &in);
}

int client_fsyncdir(Client *client, uint64_t nodeid, uint64_t fh, bool data_only)
{
    struct fuse_fsync_in in = {.fh = fh, .fsync_flags = data_only};
    return fsync_with(client, FUSE_FSYNCDIR, nodeid, &in);
}

int client_release_file(Client *client, uint64_t nodeid, uint64_t fh, uint32_t flags)
{
    struct fuse_release_in in = {.fh = fh, .flags = flags};
    return call_args(client, FUSE_RELEASE, nodeid, &in, sizeof(in));
}

int client_release_dir(Client *client, uint64_t nodeid, uint64_t fh)
{
    struct fuse_release_in in = {.fh = fh};
    return call_args(client, FUSE_RELEASEDIR, nodeid, &in, sizeof(in));
}

int client_fallocate(Client *client, uint64_t nodeid, const struct fuse_fallocate_in *in)
{
    return call_args(client, FUSE_FALLOCATE, nodeid, in, sizeof(*in));
}

int client_lseek(Client *client, uint64_t nodeid, const struct fuse_lseek_in *in,
                 uint64_t *ret_offset)
{
    struct fuse_lseek_out out = {0};
    int rc = call_fixed(
        client,
        &(ClientRequest){
            .opcode = FUSE_LSEEK, .nodeid = nodeid, .args = in, .args_size = sizeof(*in)},
        &out, sizeof(out));
    *ret_offset = out.offset;
    return rc;
}

int client_copy_file_range(Client *client, uint64_t nodeid,
                           const struct fuse_copy_file_range_in *in)
{
    struct fuse_write_out out;
    int rc = call_fixed(client,
                        &(ClientRequest){.opcode = FUSE_COPY_FILE_RANGE,
                                         .nodeid = nodeid,
                                         .args = in,
                                         .args_size = sizeof(*in)},
                        &out, sizeof(out));
    return rc < 0 ? rc : (int)out.size;
}

int client_syncfs(Client *client, uint64_t nodeid)
{
    struct fuse_syncfs_in in = {0};
    return call_args(client, FUSE_SYNCFS, nodeid, &in, sizeof(in));
}

/* ---- extended attributes ---------------------------------------------------- */

/* The answer is the value, or with size 0 the length that it needs. */
static int xattr_with(Client *client, const ClientRequest *request, void *value,
                      uint32_t size)
{
    struct fuse_getxattr_in in = {.size = size};
    struct fuse_getxattr_out out;
    ClientRequest whole = *request;
    whole.args = &in;
    whole.args_size = sizeof(in);
    if (size > 0) {
        return client_call(client, &whole, value, size);
    }
    int rc = call_fixed(client, &whole, &out, sizeof(out));
    return rc < 0 ? rc : (int)out.size;
}

int client_getxattr(Client *client, uint64_t nodeid, const char *name, void *value,
                    uint32_t size)
{
    return xattr_with(
        client, &(ClientRequest){.opcode = FUSE_GETXATTR, .nodeid = nodeid, .name = name},
        value, size);
}

int client_listxattr(Client *client, uint64_t nodeid, char *names, uint32_t size)
{
    return xattr_with(client,
                      &(ClientRequest){.opcode = FUSE_LISTXATTR, .nodeid = nodeid}, names,
                      size);
}

int client_setxattr(Client *client, uint64_t nodeid, const ClientXattr *xattr)
{
    struct fuse_setxattr_in in = {
        .size = xattr->size,
        .flags = xattr->flags,
        .setxattr_flags = xattr->setxattr_flags,
    };
    return call_fixed(
        client,
        &(ClientRequest){
            .opcode = FUSE_SETXATTR,
            .nodeid = nodeid,
            .args = &in,
            .args_size = xattr->extended ? sizeof(in) : FUSE_COMPAT_SETXATTR_IN_SIZE,
            .name = xattr->name,
            .data = xattr->value,
            .data_size = xattr->size,
        },
        NULL, 0);
}

int client_removexattr(Client *client, uint64_t nodeid, const char *name)
{
    return call_name(client, FUSE_REMOVEXATTR, nodeid, name);
}
