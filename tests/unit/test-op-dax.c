/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SETUPMAPPING and REMOVEMAPPING: what INIT agrees, which files the guest is told to map,
 * and what the window is asked for.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/fuse-harness.h"
#include "virtiofsd/fuse/abi.h"
#include "virtiofsd/fuse/dax-window.h"

#define FILE_NODE UINT64_C(7)
#define DAX (FUSE_MAP_ALIGNMENT | FUSE_HAS_INODE_DAX)

typedef struct Fixture {
    Harness *harness;
    const NullFsCall *last;
    bool is_ready;
    int result; /* of the next calls */
    unsigned int n_maps;
    unsigned int n_unmaps;
    unsigned int n_cleared;
    DaxMap map; /* the last one */
    uint64_t unmapped[4];
} Fixture;

static bool on_is_ready(void *opaque)
{
    const Fixture *f = opaque;

    return f->is_ready;
}

static int on_map(void *opaque, const DaxMap *map)
{
    Fixture *f = opaque;

    g_assert_cmpint(fcntl(map->fd, F_GETFL) & O_ACCMODE, ==, O_RDWR);
    f->map = *map;
    f->n_maps++;
    return f->result;
}

static int on_unmap(void *opaque, uint64_t offset, uint64_t length)
{
    Fixture *f = opaque;

    f->unmapped[0] = offset;
    f->unmapped[1] = length;
    f->n_unmaps++;
    return f->result;
}

static void on_unmap_all(void *opaque)
{
    Fixture *f = opaque;

    f->n_cleared++;
}

static void begin(Fixture *f, const SessionConfig *config)
{
    const DaxWindow window = {f, on_is_ready, on_map, on_unmap, on_unmap_all};

    f->harness = harness_new(config);
    f->is_ready = true;
    session_set_window(f->harness->session, &window);
    null_fs_record(f->harness->fs, true);
    f->last = null_fs_last(f->harness->fs);
}

static void setup(Fixture *f, gconstpointer data)
{
    SessionConfig config = harness_config();

    config.dax = true;
    begin(f, &config);
    harness_init(f->harness, UINT64_MAX);
}

static void teardown(Fixture *f, gconstpointer data)
{
    harness_free(f->harness);
}

static const struct fuse_setupmapping_in honest = {
    .fh = UINT64_MAX,
    .foffset = 3 * PT_DAX_SIZE,
    .len = PT_DAX_SIZE,
    .flags = FUSE_SETUPMAPPING_FLAG_READ,
    .moffset = 5 * PT_DAX_SIZE,
};

static int map_of(Fixture *f, uint64_t node, const struct fuse_setupmapping_in *in)
{
    Message message;

    message_begin(&message, FUSE_SETUPMAPPING);
    message.header.nodeid = node;
    message_add(&message, in, sizeof(*in));
    return harness_call(f->harness, &message);
}

static int map(Fixture *f, const struct fuse_setupmapping_in *in)
{
    return map_of(f, FILE_NODE, in);
}

static int unmap(Fixture *f, uint32_t count, uint32_t n, uint64_t offset)
{
    const struct fuse_removemapping_in in = {.count = count};
    Message message;

    message_begin(&message, FUSE_REMOVEMAPPING);
    message.header.nodeid = FILE_NODE;
    message_add(&message, &in, sizeof(in));
    for (uint32_t i = 0; i < n; i++) {
        const struct fuse_removemapping_one one = {.moffset = offset + i * PT_DAX_SIZE,
                                                   .len = PT_DAX_SIZE};
        message_add(&message, &one, sizeof(one));
    }
    return harness_call(f->harness, &message);
}

static void test_map(Fixture *f, gconstpointer data)
{
    struct fuse_setupmapping_in in = honest;

    g_assert_cmpint(map(f, &in), ==, 0);
    g_assert_cmpuint(harness_body_size(f->harness), ==, 0);
    g_assert_cmpuint(f->map.offset, ==, 5 * PT_DAX_SIZE);
    g_assert_cmpuint(f->map.file_offset, ==, 3 * PT_DAX_SIZE);
    g_assert_cmpint(fcntl(f->map.fd, F_GETFD), ==, -1); /* closed */
    g_assert_cmpstr(f->last->function, ==, "pt_dax_open");
    g_assert_cmpuint(f->last->nodeid, ==, FILE_NODE);
    g_assert_cmpuint(f->last->handle, ==, PT_NO_HANDLE);
    g_assert_false(f->last->flag);
    in.fh = 12;
    in.flags = FUSE_SETUPMAPPING_FLAG_READ | FUSE_SETUPMAPPING_FLAG_WRITE;
    g_assert_cmpint(map(f, &in), ==, 0);
    g_assert_cmpuint(f->last->handle, ==, 12);
    g_assert_true(f->last->flag);
    in.flags = FUSE_SETUPMAPPING_FLAG_WRITE;
    g_assert_cmpint(map(f, &in), ==, 0);
    f->result = -EIO;
    g_assert_cmpint(map(f, &in), ==, -EIO);
    g_assert_cmpint(fcntl(f->map.fd, F_GETFD), ==, -1);
    g_assert_cmpuint(f->n_maps, ==, 4);
    null_fs_fail(f->harness->fs, -EACCES);
    g_assert_cmpint(map(f, &in), ==, -EACCES);
    g_assert_cmpint(map_of(f, PT_ROOT_ID, &in), ==, -EISDIR);
    g_assert_cmpint(map_of(f, 99999, &in), <, 0);
    g_assert_cmpuint(f->n_maps, ==, 4);
}

/* Every field at its ends: the file is not even opened. */
static void test_wrong(Fixture *f, gconstpointer data)
{
    static const uint64_t values[] = {
        1,
        4,
        7,
        4096,
        PT_DAX_SIZE - 1,
        PT_DAX_SIZE + 1,
        3 * PT_DAX_SIZE / 2,
        INT64_MAX,
        (UINT64_C(1) << 63) + 1,
        UINT64_MAX - 1,
        UINT64_MAX,
    };
    uint64_t calls;
    NullFsStats stats;

    null_fs_stats(f->harness->fs, &stats);
    calls = stats.calls;
    for (size_t i = 0; i < G_N_ELEMENTS(values); i++) {
        struct fuse_setupmapping_in in = honest;
        in.foffset = values[i];
        g_assert_cmpint(map(f, &in), ==, -EINVAL);
        in = honest;
        in.moffset = values[i];
        g_assert_cmpint(map(f, &in), ==, -EINVAL);
        in = honest;
        in.len = values[i];
        g_assert_cmpint(map(f, &in), ==, -EINVAL);
        in = honest;
        in.flags = values[i] & ~UINT64_C(3);
        g_assert_cmpint(map(f, &in), ==, -EINVAL);
    }
    struct fuse_setupmapping_in in = honest;
    in.len = 0;
    g_assert_cmpint(map(f, &in), ==, -EINVAL);
    in.len = 2 * PT_DAX_SIZE;
    g_assert_cmpint(map(f, &in), ==, -EINVAL);
    null_fs_stats(f->harness->fs, &stats);
    g_assert_cmpuint(stats.calls, ==, calls);
    g_assert_cmpuint(f->n_maps, ==, 0);
}

static void test_unmap(Fixture *f, gconstpointer data)
{
    g_assert_cmpint(unmap(f, 1, 1, 4 * PT_DAX_SIZE), ==, 0);
    g_assert_cmpuint(harness_body_size(f->harness), ==, 0);
    g_assert_cmpuint(f->unmapped[0], ==, 4 * PT_DAX_SIZE);
    g_assert_cmpuint(f->unmapped[1], ==, PT_DAX_SIZE);
    g_assert_cmpint(unmap(f, 256, 256, 0), ==, 0);
    g_assert_cmpuint(f->unmapped[0], ==, 255 * PT_DAX_SIZE);
    g_assert_cmpuint(f->n_unmaps, ==, 257);
    g_assert_cmpint(unmap(f, 0, 0, 0), ==, 0);
    const uint32_t counts[] = {0, 2, 4, UINT32_MAX, UINT32_C(1) << 28, UINT32_C(1) << 31};
    for (size_t i = 0; i < G_N_ELEMENTS(counts); i++) {
        g_assert_cmpint(unmap(f, counts[i], 3, 0), ==, -EINVAL);
    }
    g_assert_cmpuint(f->n_unmaps, ==, 257);
    f->result = -EINVAL; /* the first that fails ends it */
    g_assert_cmpint(unmap(f, 3, 3, 0), ==, -EINVAL);
    g_assert_cmpuint(f->n_unmaps, ==, 258);
}

/* ---- what is agreed -----------------------------------------------------------------
 */

static uint64_t agree(Fixture *f, uint64_t offered)
{
    const struct fuse_init_out *out = harness_body(f->harness);

    harness_init(f->harness, offered);
    uint64_t flags = (out->flags | (uint64_t)out->flags2 << 32) & DAX;
    g_assert_cmpuint(out->map_alignment, ==, flags != 0 ? 21 : 0);
    return flags;
}

/* Return: whether the guest is told to map a file, in both kinds of answers. */
static bool is_told(Fixture *f)
{
    const struct fuse_getattr_in in = {0};
    Message message;

    message_begin(&message, FUSE_LOOKUP);
    message_add_name(&message, "file");
    g_assert_cmpint(harness_call(f->harness, &message), ==, 0);
    const struct fuse_entry_out *entry = harness_body(f->harness);
    bool told = (entry->attr.flags & FUSE_ATTR_DAX) != 0;
    message_begin(&message, FUSE_GETATTR);
    message.header.nodeid = FILE_NODE;
    message_add(&message, &in, sizeof(in));
    g_assert_cmpint(harness_call(f->harness, &message), ==, 0);
    const struct fuse_attr_out *attr = harness_body(f->harness);
    g_assert_cmpint((attr->attr.flags & FUSE_ATTR_DAX) != 0, ==, told);
    message.header.nodeid = PT_ROOT_ID; /* a directory */
    g_assert_cmpint(harness_call(f->harness, &message), ==, 0);
    attr = harness_body(f->harness);
    g_assert_cmpuint(attr->attr.flags & FUSE_ATTR_DAX, ==, 0);
    return told;
}

static void expect_none(Fixture *f, uint64_t offered)
{
    unsigned int before = f->n_maps + f->n_unmaps;

    g_assert_cmphex(agree(f, offered), ==, 0);
    g_assert_false(is_told(f));
    g_assert_cmpint(map(f, &honest), ==, -ENOSYS);
    g_assert_cmpint(unmap(f, 1, 1, 0), ==, -ENOSYS);
    g_assert_cmpuint(f->n_maps + f->n_unmaps, ==, before);
}

static void test_init(Fixture *f, gconstpointer data)
{
    g_assert_cmphex(agree(f, UINT64_MAX), ==, DAX);
    g_assert_true(is_told(f));
    expect_none(f, UINT64_MAX & ~(uint64_t)FUSE_MAP_ALIGNMENT);
    /* a guest that maps all files, and does not ask which suit */
    g_assert_cmphex(agree(f, UINT64_MAX & ~(uint64_t)FUSE_HAS_INODE_DAX), ==,
                    FUSE_MAP_ALIGNMENT);
    g_assert_cmpint(map(f, &honest), ==, 0);
    f->is_ready = false; /* a VMM without a window */
    expect_none(f, UINT64_MAX);
    f->is_ready = true;
    g_assert_cmphex(agree(f, UINT64_MAX), ==, DAX);
    g_assert_cmpint(map(f, &honest), ==, 0);
}

/* Each session begins, and ends, with an empty window. */
static void test_sessions(Fixture *f, gconstpointer data)
{
    Message message;

    g_assert_cmpuint(f->n_cleared, ==, 1);
    harness_init(f->harness, UINT64_MAX);
    g_assert_cmpuint(f->n_cleared, ==, 2);
    message_begin(&message, FUSE_DESTROY);
    g_assert_cmpint(harness_call(f->harness, &message), ==, 0);
    g_assert_cmpuint(f->n_cleared, ==, 3);
    g_assert_cmpint(map(f, &honest), ==, -EIO);
    /* the VMM has reset the device: it has dropped everything itself */
    session_reset(f->harness->session);
    g_assert_cmpuint(f->n_cleared, ==, 3);
}

/* Nothing without the option, and nothing in a read-only share. */
static void test_options(void)
{
    SessionConfig configs[] = {harness_config(), harness_config()};

    configs[1].dax = configs[1].readonly = true;
    for (size_t i = 0; i < G_N_ELEMENTS(configs); i++) {
        Fixture f = {0};
        begin(&f, &configs[i]);
        expect_none(&f, UINT64_MAX);
        harness_free(f.harness);
    }
}

#define TEST(name, function)                                                             \
    g_test_add("/op-dax/" name, Fixture, NULL, setup, function, teardown)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    TEST("map", test_map);
    TEST("wrong", test_wrong);
    TEST("unmap", test_unmap);
    TEST("init", test_init);
    TEST("sessions", test_sessions);
    g_test_add_func("/op-dax/options", test_options);
    return g_test_run();
}
