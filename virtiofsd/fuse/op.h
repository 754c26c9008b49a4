/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_FUSE_OP_H
#define VIRTIOFSD_FUSE_OP_H

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#include "passthrough/passthrough.h"
#include "virtiofsd/fuse/abi.h"
#include "virtiofsd/fuse/iov.h"
#include "virtiofsd/fuse/session-private.h"

/*
 * One request on its way down: what was decoded, where the answer goes, and the
 * operations that join the two.
 */

/** Room for the longest pair of strings, with NULs: a name and a link's target. */
#define OP_TEXT_SIZE (PT_NAME_MAX + 1 + PATH_MAX)
/** The most extension bytes that a request may bring. */
#define OP_EXTENSION_SIZE 4096
/** Room for the name and the value of an extended attribute. */
#define OP_XATTR_SIZE (PT_NAME_MAX + 1 + PT_XATTR_MAX)

/** union OpIn - the fixed part of a request, copied from the guest. */
typedef union OpIn {
    struct fuse_forget_in forget;
    struct fuse_batch_forget_in batch_forget;
    struct fuse_getattr_in getattr;
    struct fuse_setattr_in setattr;
    struct fuse_mknod_in mknod;
    struct fuse_mkdir_in mkdir;
    struct fuse_rename_in rename;
    struct fuse_rename2_in rename2;
    struct fuse_link_in link;
    struct fuse_open_in open;
    struct fuse_create_in create;
    struct fuse_read_in read;
    struct fuse_write_in write;
    struct fuse_release_in release;
    struct fuse_flush_in flush;
    struct fuse_fsync_in fsync;
    struct fuse_fallocate_in fallocate;
    struct fuse_lseek_in lseek;
    struct fuse_setxattr_in setxattr;
    struct fuse_getxattr_in getxattr;
    struct fuse_copy_file_range_in copy_file_range;
    struct abi_statx_in statx;
    struct fuse_ioctl_in ioctl;
    struct fuse_lk_in lk;
    struct fuse_interrupt_in interrupt;
    struct fuse_setupmapping_in setupmapping;
    struct fuse_removemapping_in removemapping;
    struct fuse_init_in init;
} OpIn;

/** struct OpScratch - a worker's buffers; what is in them lasts for one request. */
typedef struct OpScratch {
    struct iovec segments[IOV_MAX];
    char text[OP_TEXT_SIZE + OP_EXTENSION_SIZE]; /* names of the request */
    char answer[PATH_MAX]; /* READLINK's target, or records of a directory */
    char xattr[OP_XATTR_SIZE];
    _Alignas(uint64_t) unsigned char extension[OP_EXTENSION_SIZE];
} OpScratch;

/** struct Request - one request. All of it is private memory but the segments. */
typedef struct Request {
    Session *session;
    PtFs *fs;
    OpScratch *scratch;
    struct fuse_in_header header;
    OpIn in;
    const char *names[2];  /* in @scratch */
    size_t extension_size; /* bytes in scratch->extension */
    size_t tail;           /* bytes behind the fixed part that are no name */
    IovReader reader;      /* stands at the tail */
    IovWriter writer;      /* stands behind the reply's header */
    size_t n_records;      /* bytes of records in scratch->answer, to follow */
    const char *malformed; /* why it did not decode, else NULL */
    int64_t start_us;      /* 0: nobody wants to know */
    bool may_wait;         /* for a lock: SETLKW */
    bool only_short;       /* what may take long is left alone */
    bool is_long;          /* it was, whatever the operation returned */
    Wait *wait;            /* it does: no reply yet, whatever the operation returned */
} Request;

/** op_malformed() - remember why a request cannot be decoded. @reason: a literal.
 * Return: -EINVAL. */
static inline int op_malformed(Request *request, const char *reason)
{
    request->malformed = reason;
    return -EINVAL;
}

/*
 * The operations, in the order of their files. Each finds @request decoded and its
 * reply's room checked, writes the reply's body, and returns >= 0 or a negative errno.
 * Context: a worker; inside the gate as the operation's row says.
 */

int op_init(Request *request);
int op_destroy(Request *request);

int op_lookup(Request *request);
int op_forget(Request *request);
int op_batch_forget(Request *request);
int op_readlink(Request *request);
int op_symlink(Request *request);
int op_mknod(Request *request);
int op_mkdir(Request *request);
int op_create(Request *request);
int op_tmpfile(Request *request);
int op_unlink(Request *request);
int op_rmdir(Request *request);
int op_rename(Request *request);
int op_rename2(Request *request);
int op_link(Request *request);

int op_getattr(Request *request);
int op_statx(Request *request);
int op_setattr(Request *request);
int op_statfs(Request *request);

int op_setxattr(Request *request);
int op_getxattr(Request *request);
int op_listxattr(Request *request);
int op_removexattr(Request *request);

int op_open(Request *request);
int op_read(Request *request);
int op_write(Request *request);
int op_flush(Request *request);
int op_fsync(Request *request);
int op_release(Request *request);
int op_fallocate(Request *request);
int op_lseek(Request *request);
int op_copy_file_range(Request *request);
int op_copy_file_range_64(Request *request);
int op_ioctl(Request *request);
int op_syncfs(Request *request);

int op_opendir(Request *request);
int op_readdir(Request *request);
int op_readdirplus(Request *request);
int op_releasedir(Request *request);
int op_fsyncdir(Request *request);

#endif
