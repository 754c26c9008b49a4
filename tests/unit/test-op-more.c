/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations that guests send seldom: what they say arrives at the file system's door as
 * it was meant, and what the door says arrives at the guest.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <linux/stat.h>
#include <string.h>

#include "tests/support/fuse-harness.h"
#include "virtiofsd/fuse/op.h"

#define FILE_NODE UINT64_C(7)
#define FILE_HANDLE (FILE_NODE + NULL_FS_HANDLE_BASE)
#define OTHER_NODE UINT64_C(9)
#define OTHER_HANDLE (OTHER_NODE + NULL_FS_HANDLE_BASE)

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

static void test_tmpfile(Fixture *fixture, gconstpointer config)
{
    begin(fixture, FUSE_TMPFILE, 3);
    ADD(&fixture->message, fuse_create_in, .flags = O_EXCL | O_RDWR, .mode = 0100640,
        .umask = 022);
    message_add_name(&fixture->message, "/");
    g_assert_cmpint(call(fixture), ==, 0);
    g_assert_cmpstr(fixture->last->function, ==, "pt_tmpfile");
    g_assert_cmpuint(fixture->last->nodeid, ==, 3);
    g_assert_cmpuint(fixture->last->caller.uid, ==, 1000);
    g_assert_cmphex(fixture->last->mode, ==, 0100640);
    g_assert_cmphex(fixture->last->flags, ==, O_EXCL | O_RDWR);
    g_assert_cmpuint(harness_body_size(fixture->harness), ==, 144);
    const struct fuse_entry_out *entry = harness_body(fixture->harness);
    const struct fuse_open_out *opened = (const void *)(entry + 1);
    g_assert_cmpuint(opened->fh, ==, entry->nodeid + NULL_FS_HANDLE_BASE);
    /* (uid_t)-1 would mean "stay root" to setresuid(). */
    g_assert_true(message_honest(&fixture->message, FUSE_TMPFILE));
    fixture->message.header.uid = UINT32_MAX;
    g_assert_cmpint(call(fixture), ==, -EINVAL);
    /* What the guest never hears of is given back. */
    NullFsStats stats;
    null_fs_stats(fixture->harness->fs, &stats);
    g_assert_cmpuint(stats.lookups, ==, 1);
    g_assert_cmpuint(stats.opens, ==, 1);
}

static void begin_statx(Fixture *fixture, const struct abi_statx_in *in)
{
    begin(fixture, ABI_STATX, FILE_NODE);
    message_add(&fixture->message, in, sizeof(*in));
}

static void test_statx(Fixture *fixture, gconstpointer config)
{
    const struct abi_statx_out *out;

    begin_statx(fixture, &(struct abi_statx_in){
                             .fh = FILE_HANDLE, .sx_flags = 0x2000, .sx_mask = 0xfff});
    g_assert_cmpint(call(fixture), ==, 0);
    g_assert_cmpstr(fixture->last->function, ==, "pt_statx");
    g_assert_cmphex(fixture->last->handle, ==, PT_NO_HANDLE);
    g_assert_cmphex(fixture->last->flags, ==, 0x2000);
    g_assert_cmphex(fixture->last->other, ==, 0xfff);
    g_assert_cmpuint(harness_body_size(fixture->harness), ==, 288);
    out = harness_body(fixture->harness);
    g_assert_cmpuint(out->attr_valid, ==, 1);
    g_assert_cmpuint(out->stat.ino, ==, FILE_NODE);
    g_assert_cmpuint(out->stat.size, ==, NULL_FS_FILE_SIZE);
    g_assert_cmphex(out->stat.mask, ==, 0xfff);
    g_assert_cmphex(out->stat.attributes, ==, 0x100874);
    g_assert_cmphex(out->stat.attributes_mask, ==, 0x100874);

    begin_statx(fixture, &(struct abi_statx_in){.getattr_flags = FUSE_GETATTR_FH,
                                                .fh = FILE_HANDLE});
    g_assert_cmpint(call(fixture), ==, 0);
    g_assert_cmphex(fixture->last->handle, ==, FILE_HANDLE);
    begin_statx(fixture, &(struct abi_statx_in){.getattr_flags = FUSE_GETATTR_FH,
                                                .fh = OTHER_HANDLE});
    g_assert_cmpint(call(fixture), ==, -EBADF);
}

static void begin_copy(Fixture *fixture, uint32_t opcode, uint64_t length)
{
    begin(fixture, opcode, FILE_NODE);
    ADD(&fixture->message, fuse_copy_file_range_in, .fh_in = FILE_HANDLE, .off_in = 1,
        .nodeid_out = OTHER_NODE, .fh_out = OTHER_HANDLE, .off_out = 2, .len = length);
}

static void test_copy(Fixture *fixture, gconstpointer config)
{
    static const uint64_t lengths[] = {0, 5, 1 << 20, UINT32_MAX, UINT64_MAX};
    const PtCopy *copy = &fixture->last->copy;

    for (size_t i = 0; i < G_N_ELEMENTS(lengths); i++) {
        uint64_t want = MIN(lengths[i], NULL_FS_COPY_MOST);
        begin_copy(fixture, FUSE_COPY_FILE_RANGE, lengths[i]);
        g_assert_cmpint(call(fixture), ==, 0);
        g_assert_cmpuint(harness_body_size(fixture->harness), ==, 8);
        const struct fuse_write_out *narrow = harness_body(fixture->harness);
        g_assert_cmpuint(narrow->size, ==, want);
        g_assert_cmpuint(narrow->padding, ==, 0);
        begin_copy(fixture, ABI_COPY_FILE_RANGE_64, lengths[i]);
        g_assert_cmpint(call(fixture), ==, 0);
        g_assert_cmpuint(harness_body_size(fixture->harness), ==, 8);
        const uint64_t *wide = harness_body(fixture->harness);
        g_assert_cmpuint(*wide, ==, want);
        g_assert_cmpuint(copy->nodeid, ==, FILE_NODE);
        g_assert_cmpuint(copy->handle, ==, FILE_HANDLE);
        g_assert_cmpuint(copy->offset, ==, 1);
        g_assert_cmpuint(copy->to_nodeid, ==, OTHER_NODE);
        g_assert_cmpuint(copy->to_handle, ==, OTHER_HANDLE);
        g_assert_cmpuint(copy->to_offset, ==, 2);
        g_assert_cmpuint(copy->length, ==, lengths[i]);
        g_assert_cmpuint(copy->flags, ==, 0);
        g_assert_true(copy->kill_suidgid);
    }
    /* Root may keep set-id bits; whoever is not known may not. */
    begin_copy(fixture, FUSE_COPY_FILE_RANGE, 1);
    fixture->message.header.uid = 0;
    g_assert_cmpint(call(fixture), ==, 0);
    g_assert_false(copy->kill_suidgid);
    fixture->message.header.uid = UINT32_MAX;
    g_assert_cmpint(call(fixture), ==, 0);
    g_assert_true(copy->kill_suidgid);
}

static void test_copy_refused(Fixture *fixture, gconstpointer config)
{
    static const uint32_t opcodes[] = {FUSE_COPY_FILE_RANGE, ABI_COPY_FILE_RANGE_64};

    for (size_t i = 0; i < G_N_ELEMENTS(opcodes); i++) {
        begin(fixture, opcodes[i], FILE_NODE);
        ADD(&fixture->message, fuse_copy_file_range_in, .fh_in = FILE_HANDLE,
            .nodeid_out = OTHER_NODE, .fh_out = FILE_HANDLE, .len = 1);
        g_assert_cmpint(call(fixture), ==, -EBADF);
        /* A flag in the upper half is a flag. */
        begin(fixture, opcodes[i], FILE_NODE);
        ADD(&fixture->message, fuse_copy_file_range_in, .fh_in = FILE_HANDLE,
            .nodeid_out = OTHER_NODE, .fh_out = OTHER_HANDLE, .len = 1,
            .flags = UINT64_C(1) << 32);
        g_assert_cmpint(call(fixture), ==, -EINVAL);
    }
}

/* ---- IOCTL ------------------------------------------------------------------------ */

#define GETFLAGS 0x80086601u
#define SETFLAGS 0x40086602u
#define GETFLAGS32 0x80046601u
#define SETFLAGS32 0x40046602u
#define GETXATTR 0x801c581fu
#define SETXATTR 0x401c5820u

static int call_ioctl(Fixture *fixture, const struct fuse_ioctl_in *in, size_t supplied)
{
    static const unsigned char argument[64] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13};

    begin(fixture, FUSE_IOCTL, FILE_NODE);
    message_add(&fixture->message, in, sizeof(*in));
    message_add(&fixture->message, argument, supplied);
    return call(fixture);
}

static void test_ioctl_get(Fixture *fixture, gconstpointer config)
{
    static const uint32_t numbers[] = {GETFLAGS, GETFLAGS32};

    for (size_t i = 0; i < G_N_ELEMENTS(numbers); i++) {
        struct fuse_ioctl_in in = {.fh = FILE_HANDLE, .cmd = numbers[i], .out_size = 4};
        /* A guest before 5.8 has room for a long. */
        for (; in.out_size <= 8; in.out_size += 4) {
            g_assert_cmpint(call_ioctl(fixture, &in, 0), ==, 0);
            g_assert_cmpstr(fixture->last->function, ==, "pt_flags");
            g_assert_cmpuint(fixture->last->nodeid, ==, FILE_NODE);
            g_assert_cmpuint(fixture->last->other, ==, 0);
            g_assert_false(fixture->last->flag);
            g_assert_cmpuint(harness_body_size(fixture->harness), ==, 20);
            const uint32_t *out = harness_body(fixture->harness);
            const uint32_t want[] = {0, 0, 0, 0, NULL_FS_FLAGS};
            g_assert_cmpint(memcmp(out, want, sizeof(want)), ==, 0);
        }
    }
    const struct fuse_ioctl_in in = {
        .fh = FILE_HANDLE, .cmd = GETXATTR, .flags = FUSE_IOCTL_DIR, .out_size = 28};
    g_assert_cmpint(call_ioctl(fixture, &in, 0), ==, 0);
    g_assert_cmpstr(fixture->last->function, ==, "pt_xflags");
    g_assert_cmpuint(fixture->last->other, ==, 1);
    g_assert_cmpuint(harness_body_size(fixture->harness), ==, 44);
    const unsigned char *body = harness_body(fixture->harness);
    g_assert_cmphex(body[16], ==, NULL_FS_BYTE);
    g_assert_cmphex(body[43], ==, NULL_FS_BYTE);
}

static void test_ioctl_set(Fixture *fixture, gconstpointer config)
{
    static const uint32_t numbers[] = {SETFLAGS, SETFLAGS32};

    for (size_t i = 0; i < G_N_ELEMENTS(numbers); i++) {
        struct fuse_ioctl_in in = {.fh = FILE_HANDLE, .cmd = numbers[i], .in_size = 4};
        for (; in.in_size <= 8; in.in_size += 4) {
            g_assert_cmpint(call_ioctl(fixture, &in, in.in_size), ==, 0);
            g_assert_cmpstr(fixture->last->function, ==, "pt_flags");
            g_assert_true(fixture->last->flag);
            g_assert_cmphex(fixture->last->flags, ==, 0x04030201);
            g_assert_cmpuint(harness_body_size(fixture->harness), ==, 16);
        }
    }
    const struct fuse_ioctl_in in = {.fh = FILE_HANDLE, .cmd = SETXATTR, .in_size = 28};
    g_assert_cmpint(call_ioctl(fixture, &in, 28), ==, 0);
    g_assert_cmpstr(fixture->last->function, ==, "pt_xflags");
    g_assert_cmphex(fixture->last->flags, ==, 0x04030201);
    g_assert_cmphex(fixture->last->bytes, ==, 0x0000000d);
}

static void test_ioctl_refused(Fixture *fixture, gconstpointer config)
{
    /* FIONREAD, FICLONE, FIFREEZE, FS_IOC_ENABLE_VERITY, LOOP_SET_FD, EXT4's resize; and
     * ours with another size, direction, type. */
    static const uint32_t others[] = {
        0x541b,     0x40049409, 0xc0045877, 0x40806685, 0x4c00, 0x40086610, 0x80086602,
        0x40086601, 0x80016601, 0x801b581f, 0x401c581f, 0,      UINT32_MAX};
    static const struct {
        struct fuse_ioctl_in in;
        size_t supplied;
    } cases[] = {
        {{.cmd = SETFLAGS, .in_size = 4}, 3},
        {{.cmd = SETFLAGS, .in_size = 4}, 5},
        {{.cmd = SETFLAGS, .in_size = 3}, 3},
        {{.cmd = SETFLAGS}, 0},
        {{.cmd = SETXATTR, .in_size = 27}, 27},
        {{.cmd = SETFLAGS, .in_size = UINT32_MAX}, 4},
        {{.cmd = GETFLAGS, .out_size = 3}, 0},
        {{.cmd = GETFLAGS}, 0},
        {{.cmd = GETXATTR, .out_size = 27}, 0},
        {{.cmd = GETFLAGS, .out_size = 4}, 4},
        {{.cmd = GETFLAGS, .out_size = 4, .flags = FUSE_IOCTL_UNRESTRICTED}, 0},
        {{.cmd = GETFLAGS, .out_size = 4, .flags = FUSE_IOCTL_RETRY}, 0},
        {{.cmd = GETFLAGS, .out_size = 4, .flags = 0x80000000}, 0},
    };
    NullFsStats before, after;

    null_fs_stats(fixture->harness->fs, &before);
    for (size_t i = 0; i < G_N_ELEMENTS(others); i++) {
        const struct fuse_ioctl_in in = {
            .fh = FILE_HANDLE, .cmd = others[i], .in_size = 8, .out_size = 64};
        g_assert_cmpint(call_ioctl(fixture, &in, 8), ==, -ENOTTY);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        struct fuse_ioctl_in in = cases[i].in;
        in.fh = FILE_HANDLE;
        g_assert_cmpint(call_ioctl(fixture, &in, cases[i].supplied), ==, -EINVAL);
    }
    /* There is less room than the guest says. */
    const struct fuse_ioctl_in in = {.fh = FILE_HANDLE, .cmd = GETFLAGS, .out_size = 4};
    begin(fixture, FUSE_IOCTL, FILE_NODE);
    message_add(&fixture->message, &in, sizeof(in));
    for (size_t room = 16; room < 36; room++) {
        g_assert_cmpint(harness_run(fixture->harness, &fixture->message, room, true), ==,
                        -EINVAL);
    }
    null_fs_stats(fixture->harness->fs, &after);
    g_assert_cmpuint(after.calls, ==, before.calls);
    g_assert_cmpint(harness_run(fixture->harness, &fixture->message, 36, true), ==, 0);
}

static const SessionConfig readonly_config = {.readonly = true};

static void test_ioctl_readonly(Fixture *fixture, gconstpointer config)
{
    static const uint32_t sets[] = {SETFLAGS, SETFLAGS32, SETXATTR};

    for (size_t i = 0; i < G_N_ELEMENTS(sets); i++) {
        const struct fuse_ioctl_in in = {
            .fh = FILE_HANDLE, .cmd = sets[i], .in_size = 28};
        g_assert_cmpint(call_ioctl(fixture, &in, 28), ==, -EROFS);
    }
    const struct fuse_ioctl_in in = {.fh = FILE_HANDLE, .cmd = GETFLAGS, .out_size = 4};
    g_assert_cmpint(call_ioctl(fixture, &in, 0), ==, 0);
}

#define TEST(name, config, function)                                                     \
    g_test_add("/op/" name, Fixture, config, setup, function, teardown)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    TEST("tmpfile", NULL, test_tmpfile);
    TEST("statx", NULL, test_statx);
    TEST("copy", NULL, test_copy);
    TEST("copy-refused", NULL, test_copy_refused);
    TEST("ioctl-get", NULL, test_ioctl_get);
    TEST("ioctl-set", NULL, test_ioctl_set);
    TEST("ioctl-refused", NULL, test_ioctl_refused);
    TEST("ioctl-readonly", &readonly_config, test_ioctl_readonly);
    return g_test_run();
}
