/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SUPPORT_FUSE_OPS_H
#define TESTS_SUPPORT_FUSE_OPS_H

#include "tests/support/fuse-client.h"

/*
 * One function for each FUSE operation, over client_call(). Every one returns 0 (or,
 * where said, a count) or what client_call() returns as error. Node ids and handles are
 * passed as they are, so wrong ones can be tried.
 */

/** client_init() - INIT 7.38 with @flags. @ret_out: the answer; may be NULL. */
int client_init(Client *client, uint64_t flags, struct fuse_init_out *ret_out);
/** client_init_default() - INIT with the flags that Linux 6.1's virtiofs sends. */
int client_init_default(Client *client);
int client_destroy(Client *client);

int client_lookup(Client *client, uint64_t parent, const char *name,
                  struct fuse_entry_out *ret_entry);
/** client_forget() - on hiprio, or as @client's requests go; waits for its completion. */
int client_forget(Client *client, uint64_t nodeid, uint64_t nlookup);
int client_batch_forget(Client *client, const struct fuse_forget_one *nodes, uint32_t n);
/** client_getattr() - @fh: NULL or the handle to use. */
int client_getattr(Client *client, uint64_t nodeid, const uint64_t *fh,
                   struct fuse_attr_out *ret_attr);
int client_setattr(Client *client, uint64_t nodeid, const struct fuse_setattr_in *in,
                   struct fuse_attr_out *ret_attr);
int client_statfs(Client *client, uint64_t nodeid, struct fuse_kstatfs *ret_statfs);
int client_access(Client *client, uint64_t nodeid, uint32_t mask);

/** client_readlink() - Return: length; not terminated. */
int client_readlink(Client *client, uint64_t nodeid, char *target, size_t size);
int client_symlink(Client *client, uint64_t parent, const char *name, const char *target,
                   struct fuse_entry_out *ret_entry);
/** struct ClientMknod - what MKNOD makes. */
typedef struct ClientMknod {
    const char *name;
    uint32_t mode;
    uint32_t rdev;
    uint32_t umask;
} ClientMknod;
int client_mknod(Client *client, uint64_t parent, const ClientMknod *node,
                 struct fuse_entry_out *ret_entry);
int client_mkdir(Client *client, uint64_t parent, const char *name, uint32_t mode,
                 struct fuse_entry_out *ret_entry);
int client_link(Client *client, uint64_t nodeid, uint64_t parent, const char *name,
                struct fuse_entry_out *ret_entry);
int client_unlink(Client *client, uint64_t parent, const char *name);
int client_rmdir(Client *client, uint64_t parent, const char *name);
/** struct ClientRename - both directories and names. */
typedef struct ClientRename {
    uint64_t parent;
    const char *name;
    uint64_t new_parent;
    const char *new_name;
    uint32_t flags; /* RENAME_* for client_rename2() */
} ClientRename;
int client_rename(Client *client, const ClientRename *rename);
int client_rename2(Client *client, const ClientRename *rename);

int client_open(Client *client, uint64_t nodeid, uint32_t flags, uint64_t *ret_fh);
int client_opendir(Client *client, uint64_t nodeid, uint64_t *ret_fh);
/** struct ClientCreated - answer to CREATE and TMPFILE. */
typedef struct ClientCreated {
    struct fuse_entry_out entry;
    struct fuse_open_out open;
} ClientCreated;
int client_create(Client *client, uint64_t parent, const char *name, uint32_t flags,
                  uint32_t mode, ClientCreated *ret_created);
int client_tmpfile(Client *client, uint64_t parent, uint32_t flags, uint32_t mode,
                   ClientCreated *ret_created);

/** struct ClientIo - what to read or write, and where. */
typedef struct ClientIo {
    uint64_t nodeid;
    uint64_t fh;
    uint64_t offset;
    uint32_t size;
    uint32_t flags;    /* open flags, as Linux passes them along */
    uint32_t io_flags; /* FUSE_READ_* or FUSE_WRITE_* */
} ClientIo;
/** client_read() - Return: bytes read into @bytes. */
int client_read(Client *client, const ClientIo *io, void *bytes);
/** client_write() - Return: bytes written. @bytes NULL: whatever the slot holds. */
int client_write(Client *client, const ClientIo *io, const void *bytes);
/** client_readdir() - Return: bytes of struct fuse_dirent; io->offset is the cookie. */
int client_readdir(Client *client, const ClientIo *io, void *bytes);
/** client_readdirplus() - Return: bytes of struct fuse_direntplus. */
int client_readdirplus(Client *client, const ClientIo *io, void *bytes);
int client_flush(Client *client, uint64_t nodeid, uint64_t fh);
int client_fsync(Client *client, uint64_t nodeid, uint64_t fh, bool data_only);
int client_fsyncdir(Client *client, uint64_t nodeid, uint64_t fh, bool data_only);
int client_release_file(Client *client, uint64_t nodeid, uint64_t fh, uint32_t flags);
int client_release_dir(Client *client, uint64_t nodeid, uint64_t fh);
int client_fallocate(Client *client, uint64_t nodeid, const struct fuse_fallocate_in *in);
/** client_lseek() - @whence: SEEK_DATA or SEEK_HOLE. */
int client_lseek(Client *client, uint64_t nodeid, const struct fuse_lseek_in *in,
                 uint64_t *ret_offset);
/** client_copy_file_range() - Return: bytes copied. */
int client_copy_file_range(Client *client, uint64_t nodeid,
                           const struct fuse_copy_file_range_in *in);
int client_syncfs(Client *client, uint64_t nodeid);

/** client_getxattr() - Return: length of the value; with @size 0 the length needed. */
int client_getxattr(Client *client, uint64_t nodeid, const char *name, void *value,
                    uint32_t size);
int client_listxattr(Client *client, uint64_t nodeid, char *names, uint32_t size);
/** struct ClientXattr - what SETXATTR sets. */
typedef struct ClientXattr {
    const char *name;
    const void *value;
    uint32_t size;
    uint32_t flags;          /* XATTR_CREATE, XATTR_REPLACE */
    bool extended;           /* SETXATTR_EXT was agreed */
    uint32_t setxattr_flags; /* only sent if so */
} ClientXattr;
int client_setxattr(Client *client, uint64_t nodeid, const ClientXattr *xattr);
int client_removexattr(Client *client, uint64_t nodeid, const char *name);

#endif
