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

#define TEST(name, config, function)                                                     \
    g_test_add("/op/" name, Fixture, config, setup, function, teardown)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    TEST("tmpfile", NULL, test_tmpfile);
    TEST("statx", NULL, test_statx);
    TEST("copy", NULL, test_copy);
    TEST("copy-refused", NULL, test_copy_refused);
    return g_test_run();
}
