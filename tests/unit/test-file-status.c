/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File status flags that change while a file is open: O_DIRECT and O_NOATIME follow the
 * flags that each read and write names.
 */
#include "tests/unit/scratch.h"

#include <stdatomic.h>

enum { LONG_AGO = 1000000000, BLOCK = 4096, ROUNDS = 10000 };

typedef struct Opened {
    Scratch s;
    uint64_t nodeid;
    uint64_t handle;
    void *block; /* aligned */
    atomic_bool done;
} Opened;

static Opened open_with(bool direct, bool noatime, uint32_t flags)
{
    PtConfig config = scratch_config();
    config.allow_direct_io = direct;
    config.preserve_noatime = noatime;
    Opened o = {.s = scratch_open_with(&config)};
    o.block = aligned_alloc(BLOCK, BLOCK);
    g_assert_nonnull(o.block);
    memset(o.block, 'x', BLOCK);
    host_write(&o.s, "file", "text");
    o.nodeid = lookup(&o.s, PT_ROOT_ID, "file").nodeid;
    o.handle = open_node(&o.s, o.nodeid, O_RDWR | flags).handle;
    return o;
}

static void close_all(Opened *o)
{
    g_assert_cmpint(pt_release(o->s.fs, o->nodeid, o->handle), ==, 0);
    free(o->block);
    scratch_close(&o->s);
}

static PtIo io_of(const Opened *o, struct iovec *iov, uint32_t open_flags, uint32_t flags)
{
    return (PtIo){.nodeid = o->nodeid,
                  .handle = o->handle,
                  .iov = iov,
                  .n_iov = 1,
                  .open_flags = open_flags,
                  .flags = flags};
}

static ssize_t write_as(const Opened *o, size_t size, uint32_t open_flags, uint32_t flags)
{
    struct iovec iov = {o->block, size};
    PtIo io = io_of(o, &iov, open_flags, flags);
    return pt_write(o->s.fs, &io);
}

static ssize_t read_as(const Opened *o, size_t size, uint32_t open_flags)
{
    struct iovec iov = {o->block, size};
    PtIo io = io_of(o, &iov, open_flags, 0);
    return pt_read(o->s.fs, &io);
}

/* Not every file system has direct transfers, or minds their alignment. */
static bool minds_alignment(const Opened *o)
{
    int fd = openat(o->s.dir, "file", O_RDWR | O_DIRECT | O_CLOEXEC);
    bool minds = fd >= 0 && pwrite(fd, o->block, 1, 0) < 0 && errno == EINVAL;
    if (fd >= 0) {
        close(fd);
    }
    if (!minds) {
        g_test_skip("direct transfers of any size pass on this file system");
    }
    return minds;
}

static void test_direct(void)
{
    for (int opened = 0; opened < 2; opened++) {
        Opened o = open_with(true, false, opened ? O_DIRECT : 0);
        if (minds_alignment(&o)) {
            g_assert_cmpint(write_as(&o, 1, O_DIRECT, 0), ==, -EINVAL);
            g_assert_cmpint(write_as(&o, 1, 0, 0), ==, 1);
            g_assert_cmpint(write_as(&o, BLOCK, O_DIRECT, 0), ==, BLOCK);
            g_assert_cmpint(read_as(&o, 1, O_DIRECT), ==, -EINVAL);
            g_assert_cmpint(read_as(&o, BLOCK, O_DIRECT), ==, BLOCK);
            g_assert_cmpint(read_as(&o, 1, 0), ==, 1);
            /* The last page of a file is written back as far as the file goes. */
            g_assert_cmpint(write_as(&o, 7, 0, PT_IO_CACHED), ==, 7);
            g_assert_cmpint(write_as(&o, 1, O_DIRECT, 0), ==, -EINVAL);
        }
        close_all(&o);
    }
}

static void test_direct_not_allowed(void)
{
    Opened o = open_with(false, false, O_DIRECT);
    g_assert_cmpint(write_as(&o, 1, O_DIRECT, 0), ==, 1);
    g_assert_cmpint(read_as(&o, 1, O_DIRECT), ==, 1);
    close_all(&o);
}

/* Whether a read leaves a trace. */
static bool leaves_trace(const Opened *o, uint32_t open_flags)
{
    const struct timespec times[2] = {{.tv_sec = LONG_AGO}, {.tv_sec = LONG_AGO + 1}};
    g_assert_cmpint(utimensat(o->s.dir, "file", times, 0), ==, 0);
    g_assert_cmpint(read_as(o, 1, open_flags), ==, 1);
    return host_stat(&o->s, "file").st_atime != LONG_AGO;
}

static void test_noatime(void)
{
    for (int opened = 0; opened < 2; opened++) {
        Opened o = open_with(false, true, opened ? O_NOATIME : 0);
        g_assert_false(leaves_trace(&o, O_NOATIME));
        g_assert_true(leaves_trace(&o, 0));
        g_assert_false(leaves_trace(&o, O_NOATIME));
        close_all(&o);
        o = open_with(false, false, opened ? O_NOATIME : 0);
        g_assert_true(leaves_trace(&o, O_NOATIME));
        close_all(&o);
    }
}

static void *read_directly(void *data)
{
    Opened *o = data;
    void *block = aligned_alloc(BLOCK, BLOCK);
    struct iovec iov = {block, BLOCK};
    PtIo io = io_of(o, &iov, O_DIRECT, 0);
    g_assert_cmpint(pt_thread_enter(o->s.fs), ==, 0);
    for (int i = 0; i < ROUNDS && !atomic_load(&o->done); i++) {
        g_assert_cmpint(pt_read(o->s.fs, &io), >=, 0);
    }
    free(block);
    return NULL;
}

/* Through one handle at once: what is written back is not lost to an alignment. */
static void test_both_at_once(void)
{
    Opened o = open_with(true, false, O_DIRECT);
    GThread *thread = g_thread_new("direct", read_directly, &o);
    for (int i = 0; i < ROUNDS; i++) {
        g_assert_cmpint(write_as(&o, 7, O_DIRECT, PT_IO_CACHED), ==, 7);
    }
    atomic_store(&o.done, true);
    g_thread_join(thread);
    close_all(&o);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (!need_root()) {
        return 0;
    }
    g_test_add_func("/file-status/direct", test_direct);
    g_test_add_func("/file-status/direct-not-allowed", test_direct_not_allowed);
    g_test_add_func("/file-status/noatime", test_noatime);
    g_test_add_func("/file-status/both-at-once", test_both_at_once);
    return g_test_run();
}
