/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The encoders: every field where the kernel looks for it, and no byte of ours besides.
 */
#include "virtiofsd/fuse/reply.h"

#include <errno.h>
#include <glib.h>
#include <string.h>

#include "tests/support/null-fs.h"

typedef struct Fixture {
    PtFs *fs;
    Session *session;
    Request request;
    OpScratch scratch;
    unsigned char out[3 * sizeof(((OpScratch *)NULL)->answer)];
    struct iovec iov;
} Fixture;

static void set_room(Fixture *fixture, size_t room)
{
    memset(fixture->out, 0xee, sizeof(fixture->out));
    fixture->iov = (struct iovec){.iov_base = fixture->out, .iov_len = room};
    iov_writer_init(&fixture->request.writer, &fixture->iov, 1);
}

static void setup(Fixture *fixture, gconstpointer data)
{
    const SessionConfig config = {
        .attr_timeout_ns = UINT64_C(2500000001),
        .entry_timeout_ns = UINT64_C(86400000000007),
        .negative_timeout_ns = UINT64_C(3000000004),
    };

    fixture->fs = null_fs_new();
    fixture->session = session_new(&config, fixture->fs);
    fixture->request.session = fixture->session;
    fixture->request.fs = fixture->fs;
    fixture->request.scratch = &fixture->scratch;
    memset(&fixture->scratch, 0xdd, sizeof(fixture->scratch));
    set_room(fixture, sizeof(fixture->out));
}

static void teardown(Fixture *fixture, gconstpointer data)
{
    session_free(fixture->session);
    pt_fs_free(fixture->fs);
}

static PtEntry some_entry(void)
{
    PtEntry entry = {.nodeid = UINT64_C(0x123456789abcdef0)};

    entry.attr.stx = (struct statx){
        .stx_ino = UINT64_C(0xfedcba9876543210),
        .stx_size = UINT64_MAX,
        .stx_blocks = 77,
        .stx_atime = {.tv_sec = -1, .tv_nsec = 999999999},
        .stx_mtime = {.tv_sec = INT64_C(1) << 40, .tv_nsec = 1},
        .stx_ctime = {.tv_sec = 3, .tv_nsec = 2},
        .stx_mode = 0100644,
        .stx_nlink = 9,
        .stx_uid = 1000,
        .stx_gid = 1001,
        .stx_rdev_major = 0x103,
        .stx_rdev_minor = 0x45607,
        .stx_blksize = 65536,
    };
    entry.attr.flags = PT_ATTR_SUBMOUNT;
    return entry;
}

static void check_attr(const struct fuse_attr *attr, uint32_t flags)
{
    g_assert_cmphex(attr->ino, ==, UINT64_C(0xfedcba9876543210));
    g_assert_cmphex(attr->size, ==, UINT64_MAX);
    g_assert_cmpuint(attr->blocks, ==, 77);
    g_assert_cmpint((int64_t)attr->atime, ==, -1);
    g_assert_cmpuint(attr->atimensec, ==, 999999999);
    g_assert_cmpuint(attr->mtime, ==, UINT64_C(1) << 40);
    g_assert_cmpuint(attr->mtimensec, ==, 1);
    g_assert_cmpuint(attr->ctime, ==, 3);
    g_assert_cmpuint(attr->ctimensec, ==, 2);
    g_assert_cmpuint(attr->mode, ==, 0100644);
    g_assert_cmpuint(attr->nlink, ==, 9);
    g_assert_cmpuint(attr->uid, ==, 1000);
    g_assert_cmpuint(attr->gid, ==, 1001);
    /* As the kernel's new_decode_dev() takes it apart. */
    g_assert_cmphex((attr->rdev & 0xfff00) >> 8, ==, 0x103);
    g_assert_cmphex((attr->rdev & 0xff) | ((attr->rdev >> 12) & 0xfff00), ==, 0x45607);
    g_assert_cmpuint(attr->blksize, ==, 65536);
    g_assert_cmpuint(attr->flags, ==, flags);
}

static void test_entry(Fixture *fixture, gconstpointer data)
{
    const struct fuse_entry_out *out = (const void *)fixture->out;
    PtEntry entry = some_entry();

    g_assert_cmpint(reply_entry(&fixture->request, &entry), ==, 0);
    g_assert_cmpuint(fixture->request.writer.written, ==, 128);
    g_assert_cmphex(out->nodeid, ==, UINT64_C(0x123456789abcdef0));
    g_assert_cmpuint(out->generation, ==, 0);
    g_assert_cmpuint(out->entry_valid, ==, 86400);
    g_assert_cmpuint(out->entry_valid_nsec, ==, 7);
    g_assert_cmpuint(out->attr_valid, ==, 2);
    g_assert_cmpuint(out->attr_valid_nsec, ==, 500000001);
    check_attr(&out->attr, 0);
    g_assert_cmphex(fixture->out[128], ==, 0xee);

    /* Submounts are told only to a guest that knows them. */
    fixture->session->agreed.submounts = true;
    set_room(fixture, 128);
    g_assert_cmpint(reply_entry(&fixture->request, &entry), ==, 0);
    check_attr(&out->attr, FUSE_ATTR_SUBMOUNT);

    /* The guest is told its own ids. */
    null_fs_shift_owner(fixture->fs, 5);
    set_room(fixture, 128);
    g_assert_cmpint(reply_entry(&fixture->request, &entry), ==, 0);
    g_assert_cmpuint(out->attr.uid, ==, 1005);
    g_assert_cmpuint(out->attr.gid, ==, 1011);
    set_room(fixture, 160 + 128);
    g_assert_cmpint(reply_statx(&fixture->request, &entry.attr), ==, 0);
    const struct abi_statx_out *statx = (const void *)fixture->out;
    g_assert_cmpuint(statx->stat.uid, ==, 1005);
    g_assert_cmpuint(statx->stat.gid, ==, 1011);
    memset(fixture->out, 0xee, sizeof(fixture->out));

    set_room(fixture, 127);
    g_assert_cmpint(reply_entry(&fixture->request, &entry), ==, -EINVAL);
    g_assert_cmphex(fixture->out[0], ==, 0xee);
}

static void test_negative(Fixture *fixture, gconstpointer data)
{
    struct fuse_entry_out expected = {.entry_valid = 3, .entry_valid_nsec = 4};

    g_assert_cmpint(reply_negative(&fixture->request), ==, 0);
    g_assert_cmpuint(fixture->request.writer.written, ==, 128);
    g_assert_true(memcmp(fixture->out, &expected, sizeof(expected)) == 0);
}

static void test_attr(Fixture *fixture, gconstpointer data)
{
    const struct fuse_attr_out *out = (const void *)fixture->out;
    PtEntry entry = some_entry();

    g_assert_cmpint(reply_attr(&fixture->request, &entry.attr), ==, 0);
    g_assert_cmpuint(fixture->request.writer.written, ==, 104);
    g_assert_cmpuint(out->attr_valid, ==, 2);
    g_assert_cmpuint(out->attr_valid_nsec, ==, 500000001);
    g_assert_cmpuint(out->dummy, ==, 0);
    check_attr(&out->attr, 0);
}

static void test_open(Fixture *fixture, gconstpointer data)
{
    static const uint32_t pairs[][2] = {
        {0, 0},
        {PT_OPEN_DIRECT_IO, 1},
        {PT_OPEN_KEEP_CACHE, 2},
        {PT_OPEN_CACHE_DIR, 8},
        {PT_OPEN_NOFLUSH, 32},
        {PT_OPEN_PARALLEL_DIRECT_WRITES, 64},
        {PT_OPEN_CACHE_DIR | PT_OPEN_KEEP_CACHE, 10},
    };
    const struct fuse_open_out *out = (const void *)fixture->out;
    const uint32_t nothing = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(pairs); i++) {
        const PtOpened opened = {.handle = UINT64_MAX - 5, .flags = pairs[i][0]};
        set_room(fixture, 16);
        g_assert_cmpint(reply_open(&fixture->request, &opened), ==, 0);
        g_assert_cmphex(out->fh, ==, UINT64_MAX - 5);
        g_assert_cmphex(out->open_flags, ==, pairs[i][1]);
        /* The rest, whose name differs between kernel headers. */
        g_assert_cmpint(memcmp((const char *)out + 12, &nothing, sizeof(nothing)), ==, 0);
    }
}

static void test_statfs(Fixture *fixture, gconstpointer data)
{
    const struct statvfs statvfs = {
        .f_bsize = 4096,
        .f_frsize = 512,
        .f_blocks = UINT64_C(1) << 40,
        .f_bfree = 3,
        .f_bavail = 4,
        .f_files = 5,
        .f_ffree = 6,
        .f_namemax = 255,
    };
    struct fuse_statfs_out expected = {
        .st = {.blocks = UINT64_C(1) << 40,
               .bfree = 3,
               .bavail = 4,
               .files = 5,
               .ffree = 6,
               .bsize = 4096,
               .namelen = 255,
               .frsize = 512},
    };

    g_assert_cmpint(reply_statfs(&fixture->request, &statvfs), ==, 0);
    g_assert_cmpuint(fixture->request.writer.written, ==, 80);
    g_assert_true(memcmp(fixture->out, &expected, sizeof(expected)) == 0);
}

/* Names of every length: padded with zeros to 8 bytes, never beyond. */
static void test_dirent(Fixture *fixture, gconstpointer data)
{
    char name[PT_NAME_MAX + 1];
    PtEntry entry = some_entry();

    memset(name, 'n', sizeof(name));
    for (uint32_t length = 1; length <= PT_NAME_MAX; length++) {
        for (int plus = 0; plus < 2; plus++) {
            const PtDirent dirent = {.ino = 11,
                                     .offset = UINT64_MAX - 1,
                                     .type = 8,
                                     .name_length = length,
                                     .name = name};
            size_t start = plus ? 128 : 0;
            size_t size = start + (24 + length + 7) / 8 * 8;
            const struct fuse_dirent *out = (const void *)(fixture->out + start);
            g_assert_cmpuint(reply_dirent_size(length, plus), ==, size);
            for (size_t room = size - 1; room <= size; room++) {
                set_room(fixture, room);
                int result = plus ? reply_direntplus(&fixture->request, &dirent, &entry)
                                  : reply_dirent(&fixture->request, &dirent);
                g_assert_cmpint(result, ==, room < size ? -EINVAL : 0);
                (void)reply_dirents_end(&fixture->request);
                g_assert_cmpuint(fixture->request.writer.written, ==,
                                 room < size ? 0 : size);
            }
            g_assert_cmpuint(out->ino, ==, 11);
            g_assert_cmphex(out->off, ==, UINT64_MAX - 1);
            g_assert_cmpuint(out->type, ==, 8);
            g_assert_cmpuint(out->namelen, ==, length);
            g_assert_true(memcmp(out->name, name, length) == 0);
            for (size_t i = start + 24 + length; i < size; i++) {
                g_assert_cmphex(fixture->out[i], ==, 0);
            }
            g_assert_cmphex(fixture->out[size], ==, 0xee);
        }
    }
}

static void test_direntplus_without_node(Fixture *fixture, gconstpointer data)
{
    const PtDirent dirent = {.ino = 1, .offset = 2, .name_length = 1, .name = "x"};
    static const unsigned char zeros[128];
    PtEntry entry = some_entry();

    entry.nodeid = 0;
    g_assert_cmpint(reply_direntplus(&fixture->request, &dirent, &entry), ==, 0);
    (void)reply_dirents_end(&fixture->request);
    g_assert_true(memcmp(fixture->out, zeros, sizeof(zeros)) == 0);
}

/* More than is put together at a time, up to the last byte of the room. */
static void test_many_dirents(Fixture *fixture, gconstpointer data)
{
    const uint32_t n = sizeof(fixture->out) / 32 - 1;

    set_room(fixture, (size_t)n * 32 + 31);
    for (uint32_t i = 0; i < n; i++) {
        char name[9];
        const PtDirent dirent = {.ino = i, .name_length = 8, .name = name};
        (void)g_snprintf(name, sizeof(name), "%08u", i);
        g_assert_cmpuint(reply_dirent_room(&fixture->request), ==, (n - i) * 32 + 31);
        g_assert_cmpint(reply_dirent(&fixture->request, &dirent), ==, 0);
        memset(name, 'x', sizeof(name)); /* it is copied */
    }
    const PtDirent more = {.name_length = 8, .name = "overmuch"};
    g_assert_cmpint(reply_dirent(&fixture->request, &more), ==, -EINVAL);
    g_assert_true(reply_dirents_end(&fixture->request));
    g_assert_cmpuint(fixture->request.writer.written, ==, n * 32);
    for (uint32_t i = 0; i < n; i++) {
        const struct fuse_dirent *out = (const void *)(fixture->out + (size_t)i * 32);
        g_assert_cmpuint(out->ino, ==, i);
        char name[9] = {0};
        memcpy(name, out->name, out->namelen);
        g_assert_cmpuint(g_ascii_strtoull(name, NULL, 10), ==, i);
    }
    g_assert_cmphex(fixture->out[n * 32], ==, 0xee);
}

#define ADD(name, function) g_test_add(name, Fixture, NULL, setup, function, teardown)

/* struct fuse_statx_out, at the offsets of fuse.h 7.39. */
static void test_statx(Fixture *fixture, gconstpointer data)
{
    static const struct {
        size_t offset;
        size_t width;
        uint64_t value;
    } fields[] = {
        {0, 8, 2},
        {8, 4, 500000001},
        {12, 4, 0},
        {32, 4, 0xfff},
        {36, 4, 65536},
        {40, 8, 0x10},
        {48, 4, 9},
        {52, 4, 1000},
        {56, 4, 1001},
        {60, 2, 0100644},
        {64, 8, UINT64_C(0xfedcba9876543210)},
        {72, 8, UINT64_MAX},
        {80, 8, 77},
        {88, 8, 0x30},
        {96, 8, UINT64_MAX},
        {104, 4, 999999999},
        {112, 8, 12},
        {120, 4, 13},
        {128, 8, 3},
        {136, 4, 2},
        {144, 8, UINT64_C(1) << 40},
        {152, 4, 1},
        {160, 4, 0x103},
        {164, 4, 0x45607},
        {168, 8, 0},
        {176, 8, 0},
        {280, 8, 0},
    };
    PtAttr attr = some_entry().attr;

    attr.stx.stx_mask = 0x80003fff;
    attr.stx.stx_btime = (struct statx_timestamp){.tv_sec = 12, .tv_nsec = 13};
    attr.stx.stx_attributes = STATX_ATTR_IMMUTABLE | STATX_ATTR_MOUNT_ROOT;
    attr.stx.stx_attributes_mask =
        STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND | STATX_ATTR_AUTOMOUNT | STATX_ATTR_DAX;
    attr.stx.stx_dev_major = 8;
    g_assert_cmpint(reply_statx(&fixture->request, &attr), ==, 0);
    g_assert_cmpuint(fixture->request.writer.written, ==, 288);
    for (size_t i = 0; i < G_N_ELEMENTS(fields); i++) {
        uint64_t value = 0;
        memcpy(&value, fixture->out + fields[i].offset, fields[i].width);
        g_assert_cmphex(value, ==, fields[i].value);
    }
    g_assert_cmphex(fixture->out[288], ==, 0xee);
    set_room(fixture, 287);
    g_assert_cmpint(reply_statx(&fixture->request, &attr), ==, -EINVAL);
    g_assert_cmphex(fixture->out[0], ==, 0xee);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("/reply/entry", test_entry);
    ADD("/reply/negative", test_negative);
    ADD("/reply/attr", test_attr);
    ADD("/reply/statx", test_statx);
    ADD("/reply/open", test_open);
    ADD("/reply/statfs", test_statfs);
    ADD("/reply/dirent", test_dirent);
    ADD("/reply/direntplus-without-node", test_direntplus_without_node);
    ADD("/reply/many-dirents", test_many_dirents);
    return g_test_run();
}
