/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FUSE requests as bytes, run against a file system. What an honest guest sends is
 * spelled out here once more, apart from the daemon's own table, from fs/fuse/ of the
 * kernel.
 */
#include "tests/support/fuse-harness.h"

#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>

#include "virtiofsd/log.h"

#define HANDLE_OF(nodeid) ((nodeid) + NULL_FS_HANDLE_BASE)
#define A_FILE UINT64_C(7)

/* Newer than the oldest <linux/fuse.h>. */
#define STATX 52u
#define COPY_FILE_RANGE_64 53u

SessionConfig harness_config(void)
{
    return (SessionConfig){
        .attr_timeout_ns = UINT64_C(1000000000),
        .entry_timeout_ns = UINT64_C(1000000000),
        .cache = PT_CACHE_AUTO,
        .readdirplus = true,
        .announce_submounts = true,
        .killpriv_v2 = true,
    };
}

SessionConfig harness_config_of(uint16_t modes)
{
    SessionConfig config = harness_config();

    config.readonly = (modes & 1) != 0;
    config.writeback = (modes & 2) != 0;
    config.xattr = (modes & 4) != 0;
    config.announce_submounts = (modes & 0x800) == 0;
    SessionMode wanted = config.announce_submounts ? SESSION_AUTO : SESSION_ALWAYS;
    config.posix_acl = config.xattr && (modes & 8) != 0 ? wanted : SESSION_NEVER;
    config.security_label = config.xattr && (modes & 16) != 0 ? wanted : SESSION_NEVER;
    config.killpriv_v2 = (modes & 32) == 0;
    config.cache = modes >> 6 & 3;
    config.posix_lock = (modes & 0x100) != 0;
    config.flock = (modes & 0x200) != 0;
    config.allow_mmap = (modes & 0x400) != 0;
    config.dax = (modes & HARNESS_WINDOW) != 0;
    config.negative_timeout_ns = config.cache == PT_CACHE_ALWAYS ? 1 : 0;
    return config;
}

Harness *harness_new_on(const SessionConfig *config, PtFs *fs_take)
{
    Harness *harness = g_new0(Harness, 1);
    SessionConfig defaults = harness_config();

    /* Thousands of malformed requests would each have its line. */
    atomic_store(&log_threshold, LOG_LEVEL_OFF);
    harness->fs = fs_take;
    harness->session = session_new(config != NULL ? config : &defaults, harness->fs);
    g_assert_nonnull(harness->session);
    harness->worker = request_worker_new(harness->session);
    g_assert_nonnull(harness->worker);
    return harness;
}

void harness_free(Harness *harness)
{
    request_worker_free(harness->worker);
    session_free(harness->session);
    pt_fs_free(harness->fs);
    g_free(harness);
}

/* ---- messages ---------------------------------------------------------------------- */

void message_begin(Message *message, uint32_t opcode)
{
    memset(message, 0, sizeof(*message));
    message->header.opcode = opcode;
    message->header.nodeid = PT_ROOT_ID;
    message->header.uid = 1000;
    message->header.gid = 1000;
    message->header.pid = 1;
    message->size = sizeof(message->header);
}

void message_add(Message *message, const void *bytes, size_t size)
{
    g_assert_cmpuint(size, <=, sizeof(message->bytes) - message->size);
    memcpy(message->bytes + message->size, bytes, size);
    message->size += size;
}

void message_add_name(Message *message, const char *name)
{
    message_add(message, name, strlen(name) + 1);
}

#define ADD(message, type, ...)                                                          \
    message_add((message), &(struct type){__VA_ARGS__}, sizeof(struct type))

static void add_opcode_of_name(Message *message, uint32_t opcode)
{
    switch (opcode) {
    case FUSE_SYMLINK:
        message_add_name(message, "link");
        message_add_name(message, "to/some/where");
        break;
    case FUSE_MKNOD:
        ADD(message, fuse_mknod_in, .mode = 0100644);
        message_add_name(message, "node");
        break;
    case FUSE_MKDIR:
        ADD(message, fuse_mkdir_in, .mode = 0755);
        message_add_name(message, "directory");
        break;
    case FUSE_RENAME:
        ADD(message, fuse_rename_in, .newdir = 1);
        message_add_name(message, "old");
        message_add_name(message, "new");
        break;
    case FUSE_RENAME2:
        ADD(message, fuse_rename2_in, .newdir = 1, .flags = 1);
        message_add_name(message, "old");
        message_add_name(message, "new");
        break;
    case FUSE_LINK:
        ADD(message, fuse_link_in, .oldnodeid = A_FILE);
        message_add_name(message, "linked");
        break;
    case FUSE_CREATE:
        ADD(message, fuse_create_in, .flags = 0102, .mode = 0100644);
        message_add_name(message, "created");
        break;
    case FUSE_TMPFILE:
        ADD(message, fuse_create_in, .flags = 2, .mode = 0100644);
        message_add_name(message, "/");
        break;
    default:
        message_add_name(message, "name");
        break;
    }
}

static void add_opcode_of_file(Message *message, uint32_t opcode)
{
    message->header.nodeid = A_FILE;
    switch (opcode) {
    case FUSE_OPEN:
        ADD(message, fuse_open_in, .flags = 2);
        break;
    case FUSE_READ:
        ADD(message, fuse_read_in, .fh = HANDLE_OF(A_FILE), .size = 64);
        break;
    case FUSE_WRITE:
        ADD(message, fuse_write_in, .fh = HANDLE_OF(A_FILE), .size = 10);
        message_add(message, "0123456789", 10);
        break;
    case FUSE_RELEASE:
        ADD(message, fuse_release_in, .fh = HANDLE_OF(A_FILE));
        break;
    case FUSE_FSYNC:
        ADD(message, fuse_fsync_in, .fh = HANDLE_OF(A_FILE));
        break;
    case FUSE_FLUSH:
        ADD(message, fuse_flush_in, .fh = HANDLE_OF(A_FILE));
        break;
    case FUSE_FALLOCATE:
        ADD(message, fuse_fallocate_in, .fh = HANDLE_OF(A_FILE), .length = 4096);
        break;
    case FUSE_LSEEK:
        ADD(message, fuse_lseek_in, .fh = HANDLE_OF(A_FILE), .whence = 3);
        break;
    case FUSE_SETATTR:
        ADD(message, fuse_setattr_in, .valid = FATTR_MODE, .mode = 0100600);
        break;
    case FUSE_COPY_FILE_RANGE:
    case COPY_FILE_RANGE_64:
        ADD(message, fuse_copy_file_range_in, .fh_in = HANDLE_OF(A_FILE),
            .nodeid_out = A_FILE + 1, .fh_out = HANDLE_OF(A_FILE + 1), .len = 4096);
        break;
    case FUSE_IOCTL:
        ADD(message, fuse_ioctl_in, .fh = HANDLE_OF(A_FILE), .cmd = FS_IOC_SETFLAGS,
            .in_size = 4);
        message_add(message, "\0\1\0\0", 4);
        break;
    case STATX:
        /* No handle; what statx(1) asks for. */
        message_add(message, (uint32_t[6]){[5] = 0xfff}, 24);
        break;
    default:
        break;
    }
}

static void add_opcode_of_root(Message *message, uint32_t opcode)
{
    switch (opcode) {
    case FUSE_FORGET:
        ADD(message, fuse_forget_in, .nlookup = 1);
        break;
    case FUSE_BATCH_FORGET:
        ADD(message, fuse_batch_forget_in, .count = 2);
        ADD(message, fuse_forget_one, .nodeid = 7, .nlookup = 1);
        ADD(message, fuse_forget_one, .nodeid = 8, .nlookup = 2);
        break;
    case FUSE_GETATTR:
        ADD(message, fuse_getattr_in, .getattr_flags = 0);
        break;
    case FUSE_OPENDIR:
        ADD(message, fuse_open_in, .flags = 0200000);
        break;
    case FUSE_READDIR:
    case FUSE_READDIRPLUS:
        ADD(message, fuse_read_in, .fh = HANDLE_OF(PT_ROOT_ID), .size = 4096);
        break;
    case FUSE_RELEASEDIR:
        ADD(message, fuse_release_in, .fh = HANDLE_OF(PT_ROOT_ID));
        break;
    case FUSE_FSYNCDIR:
        ADD(message, fuse_fsync_in, .fh = HANDLE_OF(PT_ROOT_ID));
        break;
    case FUSE_SYNCFS:
        ADD(message, fuse_syncfs_in, .padding = 0);
        break;
    case FUSE_INTERRUPT:
        ADD(message, fuse_interrupt_in, .unique = 5);
        break;
    case FUSE_INIT:
        ADD(message, fuse_init_in, .major = 7, .minor = 38, .flags = UINT32_MAX);
        break;
    default:
        break;
    }
}

/* Opcodes whose operations do not exist: {opcode, fixed part, tail}. */
static const struct {
    uint32_t opcode;
    size_t fixed;
    const char *name;
} later[] = {
    {FUSE_SETXATTR, 8, "user.x"},  {FUSE_GETXATTR, 8, "user.x"},
    {FUSE_LISTXATTR, 8, NULL},     {FUSE_REMOVEXATTR, 0, "user.x"},
    {FUSE_GETLK, 48, NULL},        {FUSE_SETLK, 48, NULL},
    {FUSE_SETLKW, 48, NULL},       {FUSE_ACCESS, 8, NULL},
    {FUSE_BMAP, 16, NULL},         {FUSE_POLL, 24, NULL},
    {FUSE_NOTIFY_REPLY, 40, NULL}, {FUSE_SETUPMAPPING, 40, NULL},
    {FUSE_REMOVEMAPPING, 4, NULL},
};

static bool add_opcode_of_later(Message *message, uint32_t opcode)
{
    static const unsigned char zeros[64];

    for (size_t i = 0; i < G_N_ELEMENTS(later); i++) {
        if (later[i].opcode == opcode) {
            message_add(message, zeros, later[i].fixed);
            if (later[i].name != NULL) {
                message_add_name(message, later[i].name);
            }
            return true;
        }
    }
    return false;
}

bool message_honest(Message *message, uint32_t opcode)
{
    message_begin(message, opcode);
    switch (opcode) {
    case FUSE_LOOKUP:
    case FUSE_UNLINK:
    case FUSE_RMDIR:
    case FUSE_SYMLINK:
    case FUSE_MKNOD:
    case FUSE_MKDIR:
    case FUSE_RENAME:
    case FUSE_RENAME2:
    case FUSE_LINK:
    case FUSE_CREATE:
    case FUSE_TMPFILE:
        add_opcode_of_name(message, opcode);
        return true;
    case FUSE_READLINK:
    case FUSE_OPEN:
    case FUSE_READ:
    case FUSE_WRITE:
    case FUSE_RELEASE:
    case FUSE_FSYNC:
    case FUSE_FLUSH:
    case FUSE_FALLOCATE:
    case FUSE_LSEEK:
    case FUSE_SETATTR:
    case FUSE_COPY_FILE_RANGE:
    case COPY_FILE_RANGE_64:
    case STATX:
    case FUSE_IOCTL:
        add_opcode_of_file(message, opcode);
        return true;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_GETATTR:
    case FUSE_STATFS:
    case FUSE_OPENDIR:
    case FUSE_READDIR:
    case FUSE_READDIRPLUS:
    case FUSE_RELEASEDIR:
    case FUSE_FSYNCDIR:
    case FUSE_SYNCFS:
    case FUSE_INTERRUPT:
    case FUSE_INIT:
    case FUSE_DESTROY:
        add_opcode_of_root(message, opcode);
        return true;
    default:
        return add_opcode_of_later(message, opcode);
    }
}

/* ---- running ----------------------------------------------------------------------- */

typedef struct Segments {
    struct iovec *iov;
    size_t n;
} Segments;

/* Each segment is an allocation of its own, as long as it says. */
static Segments segments_new(size_t size, unsigned int split)
{
    size_t piece = split == 0 || split == 2 ? MAX(size, 1) : split;
    Segments segments = {.iov = g_new0(struct iovec, 2 * (size / piece) + 3)};

    for (size_t at = 0; at < size; at += segments.iov[segments.n - 1].iov_len) {
        if (split >= 2) {
            segments.iov[segments.n++] = (struct iovec){malloc(1), 0};
        }
        size_t length = MIN(piece, size - at);
        segments.iov[segments.n++] = (struct iovec){malloc(length), length};
    }
    if (split >= 2) {
        segments.iov[segments.n++] = (struct iovec){NULL, 0};
    }
    return segments;
}

static void segments_free(Segments *segments)
{
    for (size_t i = 0; i < segments->n; i++) {
        free(segments->iov[i].iov_base);
    }
    g_free(segments->iov);
}

static void segments_fill(const Segments *segments, const unsigned char *bytes)
{
    for (size_t i = 0; i < segments->n; i++) {
        size_t length = segments->iov[i].iov_len;
        if (length > 0) {
            memcpy(segments->iov[i].iov_base, bytes, length);
        }
        bytes += length;
    }
}

static void segments_gather(const Segments *segments, unsigned char *bytes, size_t size)
{
    for (size_t i = 0; i < segments->n && size > 0; i++) {
        size_t length = MIN(segments->iov[i].iov_len, size);
        if (length > 0) {
            memcpy(bytes, segments->iov[i].iov_base, length);
        }
        bytes += length;
        size -= length;
    }
}

static int check_reply(const Harness *harness, const Message *message, size_t room)
{
    const struct fuse_out_header *out = &harness->reply.out;

    g_assert_cmpuint(harness->length, <=, room);
    if (harness->length == 0) {
        return 1;
    }
    g_assert_cmpuint(harness->length, >=, sizeof(*out));
    g_assert_cmpuint(out->len, ==, harness->length);
    g_assert_cmpuint(out->unique, ==, message->header.unique);
    g_assert_cmpint(out->error, <=, 0);
    g_assert_cmpint(out->error, >, -512);
    if (out->error != 0) {
        g_assert_cmpuint(harness->length, ==, sizeof(*out));
    }
    return out->error;
}

int harness_run(Harness *harness, Message *message, size_t room, bool fix_length)
{
    g_assert_cmpuint(room, <=, sizeof(harness->reply));
    if (fix_length) {
        message->header.len = (uint32_t)message->size;
        message->header.unique = ++harness->unique;
    }
    Segments in = segments_new(message->size, harness->split);
    Segments out = segments_new(room, harness->split);
    segments_fill(&in, message->bytes);

    const RequestBuffers buffers = {.in = in.iov,
                                    .n_in = in.n,
                                    .out = out.iov,
                                    .n_out = out.n,
                                    .may_wait = harness->may_wait};
    harness->length = request_run(harness->worker, &buffers);
    if (harness->length == REQUEST_WAITS) {
        harness->length = 0;
        segments_free(&in);
        segments_free(&out);
        return HARNESS_WAITS;
    }
    segments_gather(&out, harness->reply.bytes, MIN(harness->length, room));
    segments_free(&in);
    segments_free(&out);
    return check_reply(harness, message, room);
}

int harness_call(Harness *harness, Message *message)
{
    return harness_run(harness, message, HARNESS_OUT_SIZE, true);
}

const void *harness_body(const Harness *harness)
{
    return harness->reply.bytes + sizeof(struct fuse_out_header);
}

size_t harness_body_size(const Harness *harness)
{
    return harness->length - sizeof(struct fuse_out_header);
}

void harness_init(Harness *harness, uint64_t flags)
{
    Message message;

    message_begin(&message, FUSE_INIT);
    ADD(&message, fuse_init_in, .major = 7, .minor = 45, .max_readahead = 131072,
        .flags = (uint32_t)flags | FUSE_INIT_EXT, .flags2 = (uint32_t)(flags >> 32));
    g_assert_cmpint(harness_run(harness, &message, 80, true), ==, 0);
}

void harness_check_alive(Harness *harness)
{
    unsigned int split = harness->split;
    Message message;

    harness->split = 0;
    g_assert_true(message_honest(&message, FUSE_GETATTR));
    g_assert_cmpint(harness_run(harness, &message, 120, true), ==, 0);
    g_assert_cmpuint(harness->length, ==, 16 + sizeof(struct fuse_attr_out));
    harness->split = split;
}
