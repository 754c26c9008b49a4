/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extended attributes, from the guest's bytes to the file system's door and back.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "tests/support/fuse-harness.h"
#include "virtiofsd/fuse/abi.h"
#include "virtiofsd/fuse/op.h"

#define FILE_NODE UINT64_C(7)
#define SETXATTR_EXT (UINT64_C(1) << 29)

/* Not GLib's macro, which warns. */
static void assert_same(const void *a, size_t n_a, const void *b, size_t n_b)
{
    g_assert_cmpuint(n_a, ==, n_b);
    g_assert_true(memcmp(a, b, n_a) == 0);
}

typedef struct Fixture {
    Harness *harness;
    const NullFsCall *last;
    Message message;
} Fixture;

static const SessionConfig off;
static const SessionConfig on = {.xattr = true};
static const SessionConfig acl = {.xattr = true, .posix_acl = SESSION_AUTO};
static const SessionConfig readonly = {.xattr = true, .readonly = true};

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

static void begin(Fixture *fixture, uint32_t opcode)
{
    message_begin(&fixture->message, opcode);
    fixture->message.header.nodeid = FILE_NODE;
}

static int call(Fixture *fixture)
{
    return harness_call(fixture->harness, &fixture->message);
}

static uint64_t calls(const Fixture *fixture)
{
    NullFsStats stats;

    null_fs_stats(fixture->harness->fs, &stats);
    return stats.calls;
}

/* SETXATTR as guests send it: with and without the extension of the fixed part. */
static void add_set(Fixture *fixture, struct fuse_setxattr_in in, bool ext,
                    const char *name, const void *value)
{
    begin(fixture, FUSE_SETXATTR);
    message_add(&fixture->message, &in, ext ? sizeof(in) : FUSE_COMPAT_SETXATTR_IN_SIZE);
    message_add_name(&fixture->message, name);
    message_add(&fixture->message, value, in.size);
}

static int ask(Fixture *fixture, uint32_t opcode, const char *name, uint32_t size)
{
    const struct fuse_getxattr_in in = {.size = size};

    begin(fixture, opcode);
    message_add(&fixture->message, &in, sizeof(in));
    if (name != NULL) {
        message_add_name(&fixture->message, name);
    }
    return call(fixture);
}

/* ---- SETXATTR, REMOVEXATTR --------------------------------------------------------- */

static void test_set(Fixture *fixture, gconstpointer config)
{
    add_set(fixture, (struct fuse_setxattr_in){.size = 5, .flags = 1}, false, "user.x",
            "hello");
    g_assert_cmpint(call(fixture), ==, 0);
    g_assert_cmpstr(fixture->last->function, ==, "pt_setxattr");
    g_assert_cmpuint(fixture->last->nodeid, ==, FILE_NODE);
    g_assert_cmpstr(fixture->last->name, ==, "user.x");
    g_assert_cmpstr(fixture->last->second, ==, "hello");
    g_assert_cmpuint(fixture->last->bytes, ==, 5);
    g_assert_cmphex(fixture->last->flags, ==, 1);
    g_assert_false(fixture->last->flag);

    add_set(fixture, (struct fuse_setxattr_in){0}, false, "user.empty", "");
    g_assert_cmpint(call(fixture), ==, 0);
    g_assert_cmpuint(fixture->last->bytes, ==, 0);

    null_fs_fail(fixture->harness->fs, -ENOSPC);
    g_assert_cmpint(call(fixture), ==, -ENOSPC);
    g_assert_cmpuint(harness_body_size(fixture->harness), ==, 0);
}

/* With SETXATTR_EXT the fixed part is longer, and its end means something. */
static void test_set_ext(Fixture *fixture, gconstpointer config)
{
    for (uint32_t flags = 0; flags < 4; flags++) {
        struct fuse_setxattr_in in = {.size = 3, .flags = 2, .setxattr_flags = flags};
        add_set(fixture, in, true, "system.posix_acl_access", "abc");
        g_assert_cmpint(call(fixture), ==, 0);
        g_assert_cmpstr(fixture->last->name, ==, "system.posix_acl_access");
        g_assert_cmpstr(fixture->last->second, ==, "abc");
        g_assert_cmphex(fixture->last->flags, ==, 2);
        g_assert_cmpint(fixture->last->flag, ==, flags & 1);
    }
    /* The short form is a name that begins with its end, or no name at all. */
    add_set(fixture, (struct fuse_setxattr_in){.size = 3}, false, "u", "abc");
    g_assert_cmpint(call(fixture), ==, -EINVAL);

    /* Not agreed by this guest: the long form's end is part of the name. */
    harness_init(fixture->harness, UINT64_MAX & ~SETXATTR_EXT);
    add_set(fixture, (struct fuse_setxattr_in){.size = 3}, false, "user.x", "abc");
    g_assert_cmpint(call(fixture), ==, 0);
    g_assert_cmpstr(fixture->last->name, ==, "user.x");
    add_set(fixture, (struct fuse_setxattr_in){.size = 3}, true, "user.x", "abc");
    g_assert_cmpint(call(fixture), ==, -EINVAL);
}

/* The size is what follows the name, to the byte. */
static void test_set_sizes(Fixture *fixture, gconstpointer config)
{
    static const uint32_t wrong[] = {0, 4, 6, 65535, 0x7fffffff, 0x80000000, UINT32_MAX};

    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
        const struct fuse_setxattr_in in = {.size = wrong[i]};
        uint64_t before = calls(fixture);
        begin(fixture, FUSE_SETXATTR);
        message_add(&fixture->message, &in, FUSE_COMPAT_SETXATTR_IN_SIZE);
        message_add_name(&fixture->message, "user.x");
        message_add(&fixture->message, "hello", 5);
        int result = call(fixture);
        g_assert_cmpint(result, ==, wrong[i] > PT_XATTR_MAX ? -E2BIG : -EINVAL);
        g_assert_cmpuint(calls(fixture), ==, before);
    }
    /* A name without an end; and one that no file system has. */
    begin(fixture, FUSE_SETXATTR);
    message_add(&fixture->message, &(struct fuse_setxattr_in){.size = 0},
                FUSE_COMPAT_SETXATTR_IN_SIZE);
    message_add(&fixture->message, "user.x", 6);
    g_assert_cmpint(call(fixture), ==, -EINVAL);
    char name[300];
    memset(name, 'n', sizeof(name));
    for (size_t length = 255; length <= 256; length++) {
        name[length] = '\0';
        add_set(fixture, (struct fuse_setxattr_in){.size = 1}, false, name, "v");
        g_assert_cmpint(call(fixture), ==, length == 255 ? 0 : -ERANGE);
        name[length] = 'n';
    }
}

static void test_remove(Fixture *fixture, gconstpointer config)
{
    begin(fixture, FUSE_REMOVEXATTR);
    message_add_name(&fixture->message, "user.x");
    g_assert_cmpint(call(fixture), ==, 0);
    g_assert_cmpstr(fixture->last->function, ==, "pt_removexattr");
    g_assert_cmpstr(fixture->last->name, ==, "user.x");
    g_assert_cmpuint(fixture->last->nodeid, ==, FILE_NODE);
    null_fs_fail(fixture->harness->fs, -ENODATA);
    g_assert_cmpint(call(fixture), ==, -ENODATA);
}

/* ---- GETXATTR, LISTXATTR ----------------------------------------------------------- */

static void test_get(Fixture *fixture, gconstpointer config)
{
    const struct fuse_getxattr_out *out;

    g_assert_cmpint(ask(fixture, FUSE_GETXATTR, "user.x", 0), ==, 0);
    out = harness_body(fixture->harness);
    g_assert_cmpuint(harness_body_size(fixture->harness), ==, sizeof(*out));
    g_assert_cmpuint(out->size, ==, 6);
    g_assert_cmpuint(out->padding, ==, 0);
    g_assert_cmpuint(fixture->last->nodeid, ==, FILE_NODE);
    for (uint32_t size = 1; size < 20; size++) {
        int result = ask(fixture, FUSE_GETXATTR, "user.x", size);
        g_assert_cmpint(result, ==, size < 6 ? -ERANGE : 0);
        if (result == 0) {
            const char *value = harness_body(fixture->harness);
            g_assert_cmpuint(harness_body_size(fixture->harness), ==, 6);
            g_assert_cmphex((unsigned char)value[5], ==, NULL_FS_BYTE);
        }
    }
    g_assert_cmpint(ask(fixture, FUSE_GETXATTR, "user.absent", 10), ==, -ENODATA);
    g_assert_cmpint(ask(fixture, FUSE_GETXATTR, "user.absent", 0), ==, -ENODATA);
}

/* The largest value; a guest that wants more than there can be gets what there is. */
static void test_get_long(Fixture *fixture, gconstpointer config)
{
    static const uint32_t sizes[] = {65535, 65536, 65537, 72000};

    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        int result = ask(fixture, FUSE_GETXATTR, NULL_FS_XATTR_LONG, sizes[i]);
        g_assert_cmpint(result, ==, sizes[i] < 65536 ? -ERANGE : 0);
        if (result == 0) {
            g_assert_cmpuint(harness_body_size(fixture->harness), ==, 65536);
            g_assert_cmpuint(fixture->last->bytes, ==, 65536);
        }
    }
    g_assert_cmpint(ask(fixture, FUSE_GETXATTR, "user.x", UINT32_MAX), ==, -EINVAL);
    g_assert_cmpint(ask(fixture, FUSE_LISTXATTR, NULL, UINT32_MAX), ==, -EINVAL);
}

static void test_list(Fixture *fixture, gconstpointer config)
{
    static const char names[] = NULL_FS_XATTR_NAMES;
    const struct fuse_getxattr_out *out;

    g_assert_cmpint(ask(fixture, FUSE_LISTXATTR, NULL, 0), ==, 0);
    out = harness_body(fixture->harness);
    g_assert_cmpuint(out->size, ==, sizeof(names));
    g_assert_cmpint(ask(fixture, FUSE_LISTXATTR, NULL, sizeof(names) - 1), ==, -ERANGE);
    g_assert_cmpint(ask(fixture, FUSE_LISTXATTR, NULL, sizeof(names)), ==, 0);
    assert_same(harness_body(fixture->harness), harness_body_size(fixture->harness),
                names, sizeof(names));
    g_assert_cmpint(ask(fixture, FUSE_LISTXATTR, NULL, 65536), ==, 0);
    g_assert_cmpuint(harness_body_size(fixture->harness), ==, sizeof(names));
}

/* No reply is longer than its room, and no call is made without. */
static void test_room(Fixture *fixture, gconstpointer config)
{
    static const uint32_t sizes[] = {0, 1, 8, 100};

    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        size_t needed = 16 + (sizes[i] > 0 ? sizes[i] : 8);
        uint64_t before;
        (void)ask(fixture, FUSE_LISTXATTR, NULL, sizes[i]);
        before = calls(fixture);
        g_assert_cmpint(
            harness_run(fixture->harness, &fixture->message, needed - 1, true), ==,
            -EINVAL);
        g_assert_cmpuint(calls(fixture), ==, before);
        (void)harness_run(fixture->harness, &fixture->message, needed, true);
        g_assert_cmpuint(calls(fixture), ==, before + 1);
    }
}

/* ---- all --------------------------------------------------------------------------- */

static void check_all(Fixture *fixture, int reading, int writing)
{
    uint64_t before = calls(fixture);

    add_set(fixture, (struct fuse_setxattr_in){.size = 1}, false, "user.x", "v");
    g_assert_cmpint(call(fixture), ==, writing);
    begin(fixture, FUSE_REMOVEXATTR);
    message_add_name(&fixture->message, "user.x");
    g_assert_cmpint(call(fixture), ==, writing);
    g_assert_cmpuint(calls(fixture), ==, before);
    g_assert_cmpint(ask(fixture, FUSE_GETXATTR, "user.x", 100), ==, reading);
    g_assert_cmpint(ask(fixture, FUSE_LISTXATTR, NULL, 100), ==, reading);
}

static void test_off(Fixture *fixture, gconstpointer config)
{
    uint64_t before = calls(fixture);

    check_all(fixture, -ENOSYS, -ENOSYS);
    g_assert_cmpuint(calls(fixture), ==, before);
}

static void test_readonly(Fixture *fixture, gconstpointer config)
{
    check_all(fixture, 0, -EROFS);
}

#define TEST(name, config, test)                                                         \
    g_test_add("/op-xattr/" name, Fixture, config, setup, test, teardown)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    TEST("set", &on, test_set);
    TEST("set-ext", &acl, test_set_ext);
    TEST("set-sizes", &on, test_set_sizes);
    TEST("remove", &on, test_remove);
    TEST("get", &on, test_get);
    TEST("get-long", &on, test_get_long);
    TEST("list", &on, test_list);
    TEST("room", &on, test_room);
    TEST("off", &off, test_off);
    TEST("readonly", &readonly, test_readonly);
    return g_test_run();
}
