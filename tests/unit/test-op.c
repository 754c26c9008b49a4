/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operations: what a request says arrives at the file system's door as it was meant,
 * and what the door says arrives at the guest.
 */
#include "virtiofsd/fuse/op.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <string.h>

#include "tests/support/fuse-harness.h"

#define FILE_NODE UINT64_C(7)
#define FILE_HANDLE (FILE_NODE + NULL_FS_HANDLE_BASE)
#define ROOT_HANDLE (PT_ROOT_ID + NULL_FS_HANDLE_BASE)
#define CREATE_SUPP_GROUP (UINT64_C(1) << 34)

#define ADD(message, type, ...)                                                          \
    message_add((message), &(struct type){__VA_ARGS__}, sizeof(struct type))

typedef struct Fixture {
    Harness *harness;
    const NullFsCall *last;
    Message message;
} Fixture;

static void setup(Fixture *fixture, gconstpointer config)
{
    fixture->harness = harness_new(config);
    harness_init(fixture->harness, UINT64_MAX);
    null_fs_record(fixture->harness->fs, true);
    fixture->last = null_fs_last(fixture->harness->fs);
}

static void teardown(Fixture *fixture, gconstpointer config)
{
    harness_free(fixture->harness);
}

static void begin(Fixture *fixture, uint32_t opcode, uint64_t nodeid)
{
    message_begin(&fixture->message, opcode);
    fixture->message.header.nodeid = nodeid;
}

static int call(Fixture *fixture)
{
    return harness_call(fixture->harness, &fixture->message);
}

static void check_called(const Fixture *fixture, const char *function, uint64_t nodeid)
{
    g_assert_cmpstr(fixture->last->function, ==, function);
    g_assert_cmpuint(fixture->last->nodeid, ==, nodeid);
}

static void check_body(const Fixture *fixture, size_t size)
{
    g_assert_cmpuint(harness_body_size(fixture->harness), ==, size);
}

static void test_lookup(Fixture *fixture, gconstpointer config)
{
    begin(fixture, FUSE_LOOKUP, 5);
    message_add_name(&fixture->message, "a name");
    g_assert_cmpint(call(fixture), ==, 0);
    check_called(fixture, "pt_lookup", 5);
    g_assert_cmpstr(fixture->last->name, ==, "a name");
    check_body(fixture, sizeof(struct fuse_entry_out));

    begin(fixture, FUSE_LOOKUP, 5);
    message_add_name(&fixture->message, "absent");
    g_assert_cmpint(call(fixture), ==, -ENOENT);
}

static const SessionConfig negative_config = {.negative_timeout_ns = 5};

static void test_lookup_negative(Fixture *fixture, gconstpointer config)
{
    begin(fixture, FUSE_LOOKUP, 5);
    message_add_name(&fixture->message, "absent");
    g_assert_cmpint(call(fixture), ==, 0);
    check_body(fixture, sizeof(struct fuse_entry_out));
    const struct fuse_entry_out *out = harness_body(fixture->harness);
    g_assert_cmpuint(out->nodeid, ==, 0);
    g_assert_cmpuint(out->entry_valid_nsec, ==, 5);

    begin(fixture, FUSE_LOOKUP, 0);
    message_add_name(&fixture->message, "absent");
    g_assert_cmpint(call(fixture), ==, -ESTALE);
}

/* Longer than any file system's names: never cut to a name that exists. */
static void test_name_lengths(Fixture *fixture, gconstpointer config)
{
    char name[4500];

    for (size_t length = 250; length < sizeof(name); length += length < 260 ? 1 : 97) {
        memset(name, 'n', length);
        name[length] = '\0';
        begin(fixture, FUSE_LOOKUP, 1);
        message_add_name(&fixture->message, name);
        g_assert_cmpint(call(fixture), ==, length <= 255 ? 0 : -ENAMETOOLONG);

        begin(fixture, FUSE_SYMLINK, 1);
        message_add_name(&fixture->message, "link");
        message_add_name(&fixture->message, name);
        g_assert_cmpint(call(fixture), ==, length <= 4095 ? 0 : -ENAMETOOLONG);
        if (length <= 4095) {
            g_assert_cmpstr(fixture->last->second, ==, name);
        }

        begin(fixture, FUSE_RENAME, 1);
        ADD(&fixture->message, fuse_rename_in, .newdir = 1);
        message_add_name(&fixture->message, "old");
        message_add_name(&fixture->message, name);
        g_assert_cmpint(call(fixture), ==, length <= 255 ? 0 : -ENAMETOOLONG);
    }
}

static void test_names(Fixture *fixture, gconstpointer config)
{
    static const struct {
        const char *bytes;
        size_t size;
        int result;
    } cases[] = {
        {"", 0, -EINVAL},      {"a", 1, -EINVAL},      {"a\0", 2, 0},
        {"a\0b", 3, -EINVAL},  {"a\0b\0", 4, -EINVAL}, {"a\0\0", 3, -EINVAL},
        {"\0", 1, -ENOENT},    {".\0", 2, -EINVAL},    {"..\0", 3, -EINVAL},
        {"a/b\0", 4, -EINVAL}, {"/etc\0", 5, -EINVAL},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        begin(fixture, FUSE_UNLINK, 1);
        message_add(&fixture->message, cases[i].bytes, cases[i].size);
        g_assert_cmpint(call(fixture), ==, cases[i].result);
    }
}

static void test_remove(Fixture *fixture, gconstpointer config)
{
    begin(fixture, FUSE_UNLINK, 3);
    message_add_name(&fixture->message, "one");
    g_assert_cmpint(call(fixture), ==, 0);
    check_called(fixture, "pt_unlink", 3);
    g_assert_cmpstr(fixture->last->name, ==, "one");
    check_body(fixture, 0);
    begin(fixture, FUSE_RMDIR, 4);
    message_add_name(&fixture->message, "two");
    g_assert_cmpint(call(fixture), ==, 0);
    check_called(fixture, "pt_rmdir", 4);
    g_assert_cmpstr(fixture->last->name, ==, "two");
}

static void test_rename(Fixture *fixture, gconstpointer config)
{
    begin(fixture, FUSE_RENAME, 3);
    ADD(&fixture->message, fuse_rename_in, .newdir = 9);
    message_add_name(&fixture->message, "old name");
    message_add_name(&fixture->message, "new");
    g_assert_cmpint(call(fixture), ==, 0);
    check_called(fixture, "pt_rename", 3);
    g_assert_cmpuint(fixture->last->other, ==, 9);
    g_assert_cmpstr(fixture->last->name, ==, "old name");
    g_assert_cmpstr(fixture->last->second, ==, "new");
    g_assert_cmpuint(fixture->last->flags, ==, 0);

    begin(fixture, FUSE_RENAME2, 3);
    ADD(&fixture->message, fuse_rename2_in, .newdir = 8, .flags = 0x80000002);
    message_add_name(&fixture->message, "o");
    message_add_name(&fixture->message, "n");
    g_assert_cmpint(call(fixture), ==, 0);
    check_called(fixture, "pt_rename", 3);
    g_assert_cmpuint(fixture->last->other, ==, 8);
    g_assert_cmphex(fixture->last->flags, ==, 0x80000002);
    g_assert_cmpuint(fixture->last->caller.uid, ==, 1000);
    g_assert_true(fixture->last->caller.is_checked);

    begin(fixture, FUSE_LINK, 3);
    ADD(&fixture->message, fuse_link_in, .oldnodeid = 12);
    message_add_name(&fixture->message, "l");
    g_assert_cmpint(call(fixture), ==, 0);
    check_called(fixture, "pt_link", 12);
    g_assert_cmpuint(fixture->last->other, ==, 3);
    check_body(fixture, sizeof(struct fuse_entry_out));
}

static void check_caller(const Fixture *fixture, uint32_t n_groups)
{
    g_assert_cmpuint(fixture->last->caller.uid, ==, 1000);
    g_assert_cmpuint(fixture->last->caller.gid, ==, 1000);
    g_assert_cmpuint(fixture->last->caller.umask, ==, 0);
    g_assert_cmpuint(fixture->last->caller.n_groups, ==, n_groups);
}

static void test_make(Fixture *fixture, gconstpointer config)
{
    begin(fixture, FUSE_MKNOD, 3);
    ADD(&fixture->message, fuse_mknod_in, .mode = 020644, .rdev = 0x12345, .umask = 022);
    message_add_name(&fixture->message, "n");
    g_assert_cmpint(call(fixture), ==, 0);
    check_called(fixture, "pt_mknod", 3);
    check_caller(fixture, 0);
    g_assert_cmphex(fixture->last->mode, ==, 020644);
    g_assert_cmphex(fixture->last->rdev, ==, 0x12345);

    begin(fixture, FUSE_MKDIR, 3);
    ADD(&fixture->message, fuse_mkdir_in, .mode = 01777, .umask = 022);
    message_add_name(&fixture->message, "d");
    g_assert_cmpint(call(fixture), ==, 0);
    check_called(fixture, "pt_mkdir", 3);
    check_caller(fixture, 0);
    g_assert_cmphex(fixture->last->mode, ==, 01777);

    begin(fixture, FUSE_SYMLINK, 3);
    message_add_name(&fixture->message, "s");
    message_add_name(&fixture->message, "/any/../where");
    g_assert_cmpint(call(fixture), ==, 0);
    check_called(fixture, "pt_symlink", 3);
    check_caller(fixture, 0);
    g_assert_cmpstr(fixture->last->second, ==, "/any/../where");
}

static void test_create(Fixture *fixture, gconstpointer config)
{
    begin(fixture, FUSE_CREATE, 3);
    ADD(&fixture->message, fuse_create_in, .flags = O_CREAT | O_EXCL | O_RDWR,
        .mode = 0100640, .umask = 022, .open_flags = FUSE_OPEN_KILL_SUIDGID);
    message_add_name(&fixture->message, "file");
    g_assert_cmpint(call(fixture), ==, 0);
    check_called(fixture, "pt_create", 3);
    check_caller(fixture, 0);
    g_assert_cmphex(fixture->last->mode, ==, 0100640);
    g_assert_cmphex(fixture->last->flags, ==, O_CREAT | O_EXCL | O_RDWR);
    g_assert_true(fixture->last->flag);
    check_body(fixture, sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out));
    const struct fuse_entry_out *entry = harness_body(fixture->harness);
    const struct fuse_open_out *opened = (const void *)(entry + 1);
    g_assert_cmpuint(opened->fh, ==, entry->nodeid + NULL_FS_HANDLE_BASE);
}

static void add_groups(Fixture *fixture, uint32_t n)
{
    uint32_t words[4 + PT_GROUPS_MAX] = {(12 + 4 * n + 7) / 8 * 8, 32, n};

    for (uint32_t i = 0; i < n; i++) {
        words[3 + i] = 2000 + i;
    }
    message_add(&fixture->message, words, words[0]);
    fixture->message.header.total_extlen = (uint16_t)(words[0] / 8);
}

static void test_groups(Fixture *fixture, gconstpointer config)
{
    for (uint32_t n = 0; n <= PT_GROUPS_MAX; n++) {
        begin(fixture, FUSE_MKDIR, 3);
        ADD(&fixture->message, fuse_mkdir_in, .mode = 0755);
        message_add_name(&fixture->message, "d");
        add_groups(fixture, n);
        g_assert_cmpint(call(fixture), ==, 0);
        check_caller(fixture, n);
        for (uint32_t i = 0; i < n; i++) {
            g_assert_cmpuint(fixture->last->caller.groups[i], ==, 2000 + i);
        }
    }
    /* The next request brings none, and has none. */
    begin(fixture, FUSE_MKDIR, 3);
    ADD(&fixture->message, fuse_mkdir_in, .mode = 0755);
    message_add_name(&fixture->message, "d");
    g_assert_cmpint(call(fixture), ==, 0);
    check_caller(fixture, 0);
}

static void test_groups_refused(Fixture *fixture, gconstpointer config)
{
    NullFsStats before, after;

    null_fs_stats(fixture->harness->fs, &before);
    /* Where there can be none. */
    begin(fixture, FUSE_UNLINK, 3);
    message_add_name(&fixture->message, "d");
    add_groups(fixture, 1);
    g_assert_cmpint(call(fixture), ==, -EINVAL);
    /* More than there is. */
    begin(fixture, FUSE_SYMLINK, 3);
    message_add_name(&fixture->message, "d");
    message_add_name(&fixture->message, "t");
    fixture->message.header.total_extlen = UINT16_MAX;
    g_assert_cmpint(call(fixture), ==, -EINVAL);
    /* Eating the name. */
    fixture->message.header.total_extlen = 1;
    g_assert_cmpint(call(fixture), ==, -EINVAL);
    /* More than we take. */
    begin(fixture, FUSE_SYMLINK, 3);
    message_add_name(&fixture->message, "d");
    message_add_name(&fixture->message, "t");
    static const unsigned char zeros[4104];
    message_add(&fixture->message, zeros, sizeof(zeros));
    fixture->message.header.total_extlen = sizeof(zeros) / 8;
    g_assert_cmpint(call(fixture), ==, -EINVAL);
    /* Not agreed. */
    harness_init(fixture->harness, UINT64_MAX & ~CREATE_SUPP_GROUP);
    begin(fixture, FUSE_SYMLINK, 3);
    message_add_name(&fixture->message, "d");
    message_add_name(&fixture->message, "t");
    add_groups(fixture, 1);
    g_assert_cmpint(call(fixture), ==, -EINVAL);
    null_fs_stats(fixture->harness->fs, &after);
    g_assert_cmpuint(after.calls, ==, before.calls);
}

/* (uid_t)-1 would mean "stay root" to setresuid(). */
static void test_nobody(Fixture *fixture, gconstpointer config)
{
    static const uint32_t opcodes[] = {FUSE_SYMLINK, FUSE_MKNOD, FUSE_MKDIR, FUSE_CREATE};

    for (size_t i = 0; i < G_N_ELEMENTS(opcodes); i++) {
        g_assert_true(message_honest(&fixture->message, opcodes[i]));
        fixture->message.header.uid = UINT32_MAX;
        g_assert_cmpint(call(fixture), ==, -EINVAL);
        g_assert_true(message_honest(&fixture->message, opcodes[i]));
        fixture->message.header.gid = UINT32_MAX;
        g_assert_cmpint(call(fixture), ==, -EINVAL);
        g_assert_true(message_honest(&fixture->message, opcodes[i]));
        g_assert_cmpint(call(fixture), ==, 0);
    }
}

static void test_forget(Fixture *fixture, gconstpointer config)
{
    NullFsStats before, after;

    begin(fixture, FUSE_FORGET, 77);
    ADD(&fixture->message, fuse_forget_in, .nlookup = UINT64_MAX);
    g_assert_cmpint(call(fixture), ==, 1);
    check_called(fixture, "pt_forget", 77);
    g_assert_cmphex(fixture->last->other, ==, UINT64_MAX);

    null_fs_stats(fixture->harness->fs, &before);
    g_assert_true(message_honest(&fixture->message, FUSE_BATCH_FORGET));
    g_assert_cmpint(harness_run(fixture->harness, &fixture->message, 0, true), ==, 1);
    check_called(fixture, "pt_forget", 8);
    g_assert_cmpuint(fixture->last->other, ==, 2);
    null_fs_stats(fixture->harness->fs, &after);
    g_assert_cmpuint(after.forgets, ==, before.forgets + 2);

    /* A count beyond the request: nothing is forgotten. */
    static const uint32_t counts[] = {3, 0x10000000, 0x10000001, 0x80000000, UINT32_MAX};
    for (size_t i = 0; i < G_N_ELEMENTS(counts); i++) {
        g_assert_true(message_honest(&fixture->message, FUSE_BATCH_FORGET));
        memcpy(fixture->message.bytes + 40, &counts[i], 4);
        g_assert_cmpint(call(fixture), ==, 1);
    }
    null_fs_stats(fixture->harness->fs, &before);
    g_assert_cmpuint(before.forgets, ==, after.forgets);
}

static void test_readlink(Fixture *fixture, gconstpointer config)
{
    begin(fixture, FUSE_READLINK, 9);
    g_assert_cmpint(call(fixture), ==, 0);
    check_body(fixture, 10);
    g_assert_true(memcmp(harness_body(fixture->harness), "some/where", 10) == 0);
    g_assert_cmpint(harness_run(fixture->harness, &fixture->message, 25, true), ==,
                    -EINVAL);
    g_assert_cmpint(harness_run(fixture->harness, &fixture->message, 26, true), ==, 0);
}

static void test_getattr(Fixture *fixture, gconstpointer config)
{
    begin(fixture, FUSE_GETATTR, FILE_NODE);
    ADD(&fixture->message, fuse_getattr_in, .fh = FILE_HANDLE);
    g_assert_cmpint(call(fixture), ==, 0);
    check_called(fixture, "pt_getattr", FILE_NODE);
    g_assert_cmphex(fixture->last->handle, ==, PT_NO_HANDLE);
    begin(fixture, FUSE_GETATTR, FILE_NODE);
    ADD(&fixture->message, fuse_getattr_in, .getattr_flags = 1, .fh = FILE_HANDLE);
    g_assert_cmpint(call(fixture), ==, 0);
    g_assert_cmphex(fixture->last->handle, ==, FILE_HANDLE);
}

static void test_setattr(Fixture *fixture, gconstpointer config)
{
    static const uint32_t pairs[][2] = {
        {1, PT_SET_MODE}, {2, PT_SET_UID},         {4, PT_SET_GID},
        {8, PT_SET_SIZE}, {16, PT_SET_ATIME},      {32, PT_SET_MTIME},
        {64, 0},          {128, PT_SET_ATIME_NOW}, {256, PT_SET_MTIME_NOW},
        {512, 0},         {1024, PT_SET_CTIME},    {2048, PT_SET_KILL_SUIDGID},
    };
    const PtSetattr *set = &fixture->last->set;

    for (size_t i = 0; i < G_N_ELEMENTS(pairs); i++) {
        begin(fixture, FUSE_SETATTR, FILE_NODE);
        ADD(&fixture->message, fuse_setattr_in, .valid = pairs[i][0], .fh = FILE_HANDLE,
            .size = 5, .atime = UINT64_MAX, .mtime = 6, .ctime = 7, .atimensec = 8,
            .mtimensec = 999999999, .ctimensec = UINT32_MAX, .mode = 0106755, .uid = 11,
            .gid = 12);
        fixture->message.header.uid = UINT32_MAX;
        g_assert_cmpint(call(fixture), ==, 0);
        check_called(fixture, "pt_setattr", FILE_NODE);
        g_assert_cmphex(set->valid, ==, pairs[i][1]);
        g_assert_cmphex(set->handle, ==, pairs[i][0] == 64 ? FILE_HANDLE : PT_NO_HANDLE);
        g_assert_cmphex(set->mode, ==, 06755);
        g_assert_cmpuint(set->uid, ==, 11);
        g_assert_cmpuint(set->gid, ==, 12);
        g_assert_cmpuint(set->size, ==, 5);
        g_assert_cmpint(set->atime.tv_sec, ==, -1);
        g_assert_cmpint(set->atime.tv_nsec, ==, 8);
        g_assert_cmpint(set->mtime.tv_sec, ==, 6);
        g_assert_cmpint(set->mtime.tv_nsec, ==, 999999999);
    }
}

/* Values that would mean something else to the system calls. */
static void test_setattr_refused(Fixture *fixture, gconstpointer config)
{
    static const struct fuse_setattr_in cases[] = {
        {.valid = FATTR_UID, .uid = UINT32_MAX},
        {.valid = FATTR_GID, .gid = UINT32_MAX},
        {.valid = FATTR_SIZE, .size = UINT64_C(1) << 63},
        {.valid = FATTR_ATIME, .atimensec = 1000000000},
        {.valid = FATTR_ATIME, .atimensec = (1 << 30) - 1}, /* UTIME_NOW */
        {.valid = FATTR_MTIME, .mtimensec = (1 << 30) - 2}, /* UTIME_OMIT */
        {.valid = FATTR_MTIME | FATTR_MTIME_NOW, .mtimensec = UINT32_MAX},
    };
    NullFsStats before, after;

    null_fs_stats(fixture->harness->fs, &before);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        begin(fixture, FUSE_SETATTR, FILE_NODE);
        message_add(&fixture->message, &cases[i], sizeof(cases[i]));
        g_assert_cmpint(call(fixture), ==, -EINVAL);
    }
    null_fs_stats(fixture->harness->fs, &after);
    g_assert_cmpuint(after.calls, ==, before.calls);
}

static void test_open(Fixture *fixture, gconstpointer config)
{
    begin(fixture, FUSE_OPEN, FILE_NODE);
    ADD(&fixture->message, fuse_open_in, .flags = O_RDWR | O_APPEND, .open_flags = 1);
    g_assert_cmpint(call(fixture), ==, 0);
    check_called(fixture, "pt_open", FILE_NODE);
    g_assert_cmphex(fixture->last->flags, ==, O_RDWR | O_APPEND);
    g_assert_true(fixture->last->flag);
    check_body(fixture, 16);
    const struct fuse_open_out *out = harness_body(fixture->harness);
    g_assert_cmphex(out->fh, ==, FILE_HANDLE);
}

static const SessionConfig readonly_config = {.readonly = true};

static void test_readonly(Fixture *fixture, gconstpointer config)
{
    static const uint32_t refused[] = {
        FUSE_SETATTR,  FUSE_SYMLINK,     FUSE_MKNOD,           FUSE_MKDIR,
        FUSE_UNLINK,   FUSE_RMDIR,       FUSE_RENAME,          FUSE_RENAME2,
        FUSE_LINK,     FUSE_WRITE,       FUSE_FALLOCATE,       FUSE_TMPFILE,
        FUSE_SETXATTR, FUSE_REMOVEXATTR, FUSE_COPY_FILE_RANGE, ABI_COPY_FILE_RANGE_64,
    };
    static const struct {
        uint32_t flags;
        int result;
    } opens[] = {
        {O_RDONLY, 0},       {O_WRONLY, -EROFS},           {O_RDWR, -EROFS},
        {O_ACCMODE, -EROFS}, {O_RDONLY | O_TRUNC, -EROFS}, {O_RDONLY | O_APPEND, 0},
    };
    NullFsStats before, after;

    null_fs_stats(fixture->harness->fs, &before);
    for (size_t i = 0; i < G_N_ELEMENTS(refused); i++) {
        g_assert_true(message_honest(&fixture->message, refused[i]));
        g_assert_cmpint(call(fixture), ==, -EROFS);
    }
    null_fs_stats(fixture->harness->fs, &after);
    g_assert_cmpuint(after.calls, ==, before.calls);
    for (size_t i = 0; i < G_N_ELEMENTS(opens); i++) {
        begin(fixture, FUSE_OPEN, FILE_NODE);
        ADD(&fixture->message, fuse_open_in, .flags = opens[i].flags);
        g_assert_cmpint(call(fixture), ==, opens[i].result);
    }
    /* It may be of a file that is there; who sees that decides. */
    g_assert_true(message_honest(&fixture->message, FUSE_CREATE));
    g_assert_cmpint(call(fixture), ==, 0);
    check_called(fixture, "pt_create", PT_ROOT_ID);
    harness_check_alive(fixture->harness);
}

static void begin_read(Fixture *fixture, uint64_t offset, uint32_t size)
{
    begin(fixture, FUSE_READ, FILE_NODE);
    ADD(&fixture->message, fuse_read_in, .fh = FILE_HANDLE, .offset = offset,
        .size = size, .flags = O_DIRECT);
}

/* In every split, exactly what was asked, although there is more room. */
static void test_read(Fixture *fixture, gconstpointer config)
{
    static const unsigned int splits[] = {0, 1, 2, 3, 16, 17, 4096};

    for (size_t i = 0; i < G_N_ELEMENTS(splits); i++) {
        fixture->harness->split = splits[i];
        begin_read(fixture, 100, 10);
        g_assert_cmpint(harness_run(fixture->harness, &fixture->message, 4112, true), ==,
                        0);
        check_called(fixture, "pt_read", FILE_NODE);
        g_assert_cmpuint(fixture->last->bytes, ==, 10);
        g_assert_cmpuint(fixture->last->offset, ==, 100);
        g_assert_cmphex(fixture->last->handle, ==, FILE_HANDLE);
        g_assert_cmphex(fixture->last->open_flags, ==, O_DIRECT);
        check_body(fixture, 10);
        const unsigned char *body = harness_body(fixture->harness);
        for (size_t j = 0; j < 10; j++) {
            g_assert_cmphex(body[j], ==, NULL_FS_BYTE);
        }
        /* Short at the end of the file. */
        begin_read(fixture, NULL_FS_FILE_SIZE - 4, 10);
        g_assert_cmpint(call(fixture), ==, 0);
        check_body(fixture, 4);
        begin_read(fixture, NULL_FS_FILE_SIZE, 10);
        g_assert_cmpint(call(fixture), ==, 0);
        check_body(fixture, 0);
        begin_read(fixture, 0, 0);
        g_assert_cmpint(call(fixture), ==, 0);
        check_body(fixture, 0);
    }
}

static void test_read_refused(Fixture *fixture, gconstpointer config)
{
    begin_read(fixture, UINT64_C(1) << 63, 10);
    g_assert_cmpint(call(fixture), ==, -EINVAL);
    begin_read(fixture, UINT64_MAX, 10);
    g_assert_cmpint(call(fixture), ==, -EINVAL);
    /* A reply cut short would say that the file ends there. */
    begin_read(fixture, 0, 100);
    g_assert_cmpint(harness_run(fixture->harness, &fixture->message, 115, true), ==,
                    -EINVAL);
    g_assert_cmpint(harness_run(fixture->harness, &fixture->message, 116, true), ==, 0);
    g_assert_cmpint(harness_run(fixture->harness, &fixture->message, 16, true), ==,
                    -EINVAL);
    g_assert_cmpint(harness_run(fixture->harness, &fixture->message, 15, true), ==, 1);
    begin_read(fixture, 0, UINT32_MAX);
    g_assert_cmpint(call(fixture), ==, -EINVAL);
}

/* More segments than one system call takes: all bytes arrive all the same. */
static void test_read_many_segments(Fixture *fixture, gconstpointer config)
{
    fixture->harness->split = 1;
    begin_read(fixture, 0, 5000);
    g_assert_cmpint(call(fixture), ==, 0);
    check_body(fixture, 5000);
    g_assert_cmpuint(fixture->last->offset, ==, 4096);
    g_assert_cmpuint(fixture->last->bytes, ==, 5000 - 4096);
    /* The end of the file within the second part. */
    begin_read(fixture, NULL_FS_FILE_SIZE - 1500, 5000);
    g_assert_cmpint(call(fixture), ==, 0);
    check_body(fixture, 1500);
}

static void begin_write(Fixture *fixture, uint32_t size, size_t supplied)
{
    static const unsigned char bytes[8000];

    begin(fixture, FUSE_WRITE, FILE_NODE);
    ADD(&fixture->message, fuse_write_in, .fh = FILE_HANDLE, .offset = 7, .size = size,
        .write_flags = 7, .flags = O_APPEND);
    message_add(&fixture->message, bytes, supplied);
}

static void check_written(const Fixture *fixture, uint32_t size)
{
    check_body(fixture, 8);
    const struct fuse_write_out *out = harness_body(fixture->harness);
    g_assert_cmpuint(out->size, ==, size);
}

static void test_write(Fixture *fixture, gconstpointer config)
{
    static const unsigned int splits[] = {0, 1, 2, 3, 80, 81, 85};

    for (size_t i = 0; i < G_N_ELEMENTS(splits); i++) {
        fixture->harness->split = splits[i];
        begin_write(fixture, 10, 10);
        g_assert_cmpint(call(fixture), ==, 0);
        check_called(fixture, "pt_write", FILE_NODE);
        check_written(fixture, 10);
        g_assert_cmpuint(fixture->last->offset, ==, 7);
        g_assert_cmphex(fixture->last->flags, ==, PT_IO_CACHED | PT_IO_KILL_SUIDGID);
        g_assert_cmphex(fixture->last->open_flags, ==, O_APPEND);
        /* More supplied than named: never more written. */
        begin_write(fixture, 10, 50);
        g_assert_cmpint(call(fixture), ==, 0);
        check_written(fixture, 10);
        g_assert_cmpuint(fixture->last->bytes, ==, 10);
        /* Less: refused. */
        begin_write(fixture, 50, 10);
        g_assert_cmpint(call(fixture), ==, -EINVAL);
        begin_write(fixture, 0, 0);
        g_assert_cmpint(call(fixture), ==, 0);
        check_written(fixture, 0);
    }
    fixture->harness->split = 1;
    begin_write(fixture, 3000, 3000);
    g_assert_cmpint(call(fixture), ==, 0);
    check_written(fixture, 3000);
    g_assert_cmpuint(fixture->last->offset, ==, 7 + 2 * 1024);
}

static void test_write_no_room(Fixture *fixture, gconstpointer config)
{
    NullFsStats before, after;

    null_fs_stats(fixture->harness->fs, &before);
    for (size_t room = 0; room < 24; room++) {
        begin_write(fixture, 10, 10);
        g_assert_cmpint(harness_run(fixture->harness, &fixture->message, room, true), ==,
                        room < 16 ? 1 : -EINVAL);
    }
    null_fs_stats(fixture->harness->fs, &after);
    g_assert_cmpuint(after.calls, ==, before.calls);
}

static void test_handles(Fixture *fixture, gconstpointer config)
{
    begin(fixture, FUSE_FSYNC, FILE_NODE);
    ADD(&fixture->message, fuse_fsync_in, .fh = FILE_HANDLE, .fsync_flags = 1);
    g_assert_cmpint(call(fixture), ==, 0);
    check_called(fixture, "pt_fsync", FILE_NODE);
    g_assert_true(fixture->last->flag);
    begin(fixture, FUSE_FSYNC, FILE_NODE);
    ADD(&fixture->message, fuse_fsync_in, .fh = FILE_HANDLE, .fsync_flags = 2);
    g_assert_cmpint(call(fixture), ==, 0);
    g_assert_false(fixture->last->flag);
    begin(fixture, FUSE_FLUSH, FILE_NODE);
    ADD(&fixture->message, fuse_flush_in, .fh = FILE_HANDLE);
    g_assert_cmpint(call(fixture), ==, 0);
    check_called(fixture, "pt_flush", FILE_NODE);
    begin(fixture, FUSE_RELEASE, FILE_NODE);
    ADD(&fixture->message, fuse_release_in, .fh = FILE_HANDLE);
    g_assert_cmpint(call(fixture), ==, 0);
    check_called(fixture, "pt_release", FILE_NODE);
    begin(fixture, FUSE_RELEASE, FILE_NODE);
    ADD(&fixture->message, fuse_release_in, .fh = 1);
    g_assert_cmpint(call(fixture), ==, -EBADF);
    begin(fixture, FUSE_FALLOCATE, FILE_NODE);
    ADD(&fixture->message, fuse_fallocate_in, .fh = FILE_HANDLE, .offset = 3, .length = 4,
        .mode = 5);
    g_assert_cmpint(call(fixture), ==, 0);
    check_called(fixture, "pt_fallocate", FILE_NODE);
    g_assert_cmpuint(fixture->last->offset, ==, 3);
    g_assert_cmpuint(fixture->last->other, ==, 4);
    g_assert_cmpuint(fixture->last->mode, ==, 5);
    begin(fixture, FUSE_LSEEK, FILE_NODE);
    ADD(&fixture->message, fuse_lseek_in, .fh = FILE_HANDLE, .offset = 99, .whence = 4);
    g_assert_cmpint(call(fixture), ==, 0);
    check_called(fixture, "pt_lseek", FILE_NODE);
    g_assert_cmpuint(fixture->last->other, ==, 4);
    const struct fuse_lseek_out *out = harness_body(fixture->harness);
    g_assert_cmpuint(out->offset, ==, 99);
}

/* Whatever the file system says, an errno that a kernel accepts leaves. */
static void test_errors(Fixture *fixture, gconstpointer config)
{
    static const int cases[][2] = {{-1, -1},         {-511, -511},  {-512, -EIO},
                                   {-999, -EIO},     {-1000, -EIO}, {-4096, -EIO},
                                   {INT32_MIN, -EIO}};

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_assert_true(message_honest(&fixture->message, FUSE_GETATTR));
        null_fs_fail(fixture->harness->fs, cases[i][0]);
        g_assert_cmpint(call(fixture), ==, cases[i][1]);
    }
}

/* What the guest never hears of is given back. */
static void test_undelivered(Fixture *fixture, gconstpointer config)
{
    static const struct {
        int (*run)(Request *request);
        size_t room;
    } cases[] = {
        {op_lookup, 127}, {op_mkdir, 127},  {op_mknod, 127},  {op_symlink, 127},
        {op_link, 0},     {op_create, 127}, {op_create, 143}, {op_open, 15},
    };
    unsigned char out[256];
    NullFsStats stats;

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        struct iovec iov = {.iov_base = out, .iov_len = cases[i].room};
        Request request = {
            .session = fixture->harness->session,
            .fs = fixture->harness->fs,
            .header = {.nodeid = 3, .uid = 1, .gid = 1},
            .names = {"name", "target"},
        };
        g_autofree OpScratch *scratch = g_new0(OpScratch, 1);
        request.scratch = scratch;
        request.in.link.oldnodeid = cases[i].run == op_link ? 3 : 0;
        iov_writer_init(&request.writer, &iov, 1);
        g_assert_cmpint(cases[i].run(&request), ==, -EINVAL);
        null_fs_stats(fixture->harness->fs, &stats);
        g_assert_cmpuint(stats.forgets, ==, stats.lookups);
        g_assert_cmpuint(stats.releases, ==, stats.opens);
    }
    g_assert_cmpuint(stats.lookups, ==, 7);
    g_assert_cmpuint(stats.opens, ==, 3);
}

#define TEST(name, config, function)                                                     \
    g_test_add("/op/" name, Fixture, config, setup, function, teardown)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    TEST("lookup", NULL, test_lookup);
    TEST("lookup-negative", &negative_config, test_lookup_negative);
    TEST("name-lengths", NULL, test_name_lengths);
    TEST("names", NULL, test_names);
    TEST("remove", NULL, test_remove);
    TEST("rename", NULL, test_rename);
    TEST("make", NULL, test_make);
    TEST("create", NULL, test_create);
    TEST("groups", NULL, test_groups);
    TEST("groups-refused", NULL, test_groups_refused);
    TEST("nobody", NULL, test_nobody);
    TEST("forget", NULL, test_forget);
    TEST("readlink", NULL, test_readlink);
    TEST("getattr", NULL, test_getattr);
    TEST("setattr", NULL, test_setattr);
    TEST("setattr-refused", NULL, test_setattr_refused);
    TEST("open", NULL, test_open);
    TEST("readonly", &readonly_config, test_readonly);
    TEST("read", NULL, test_read);
    TEST("read-refused", NULL, test_read_refused);
    TEST("read-many-segments", NULL, test_read_many_segments);
    TEST("write", NULL, test_write);
    TEST("write-no-room", NULL, test_write_no_room);
    TEST("handles", NULL, test_handles);
    TEST("errors", NULL, test_errors);
    TEST("undelivered", NULL, test_undelivered);
    return g_test_run();
}
