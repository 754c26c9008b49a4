/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads that must not wait for the disk say so, and a read that is cut short where the
 * next page is missing does not look like the end of the file.
 */
#include "passthrough/internal.h"
#include "tests/unit/scratch.h"

enum { PAGE = 4096, PAGES = 64, SIZE = PAGES * PAGE };

typedef struct Opened {
    Scratch s;
    uint64_t nodeid;
    uint64_t handle;
    char *data; /* SIZE bytes */
    int fd;     /* of the file, on the host */
} Opened;

/* @folder: NULL for one on a disk. */
static Opened open_file(const char *folder, size_t size)
{
    PtConfig config = scratch_config();
    config.allow_direct_io = true;
    Opened o = {.s = scratch_open_with(&config), .data = g_malloc(SIZE)};
    if (folder != NULL) {
        remove_tree(o.s.path);
        pt_fs_free(o.s.fs);
        close(o.s.dir);
        g_free(o.s.path);
        o.s.path = g_strdup_printf("%s/virtiofsd-test-XXXXXX", folder);
        g_assert_nonnull(g_mkdtemp(o.s.path));
        o.s.dir = open(o.s.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        o.s.fs = scratch_fs(o.s.path, &config);
    }
    o.fd = openat(o.s.dir, "file", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    g_assert_cmpint(o.fd, >=, 0);
    memset(o.data, 'x', SIZE);
    g_assert_cmpint(pwrite(o.fd, o.data, size, 0), ==, (ssize_t)size);
    g_assert_cmpint(fsync(o.fd), ==, 0);
    o.nodeid = lookup(&o.s, PT_ROOT_ID, "file").nodeid;
    o.handle = open_node(&o.s, o.nodeid, O_RDONLY).handle;
    return o;
}

static void close_all(Opened *o)
{
    g_assert_cmpint(pt_release(o->s.fs, o->nodeid, o->handle), ==, 0);
    close(o->fd);
    g_free(o->data);
    scratch_close(&o->s);
}

static PtHandle *handle_of(const Opened *o)
{
    PtHandle *handle = (PtHandle *)(void *)pt_slots_get(&o->s.fs->handles, o->handle);
    g_assert_nonnull(handle);
    (void)pt_slot_unref(&handle->slot); /* the guest has it open */
    return handle;
}

static ssize_t read_as(const Opened *o, uint64_t offset, size_t size, uint32_t open_flags,
                       uint32_t flags)
{
    struct iovec iov = {o->data, size};
    const PtIo io = {.nodeid = o->nodeid,
                     .handle = o->handle,
                     .iov = &iov,
                     .n_iov = 1,
                     .offset = offset,
                     .open_flags = open_flags,
                     .flags = flags};
    return pt_read(o->s.fs, &io);
}

/* Leave only so much of the file in memory. Return: whether the host does that. */
static bool keep(const Opened *o, size_t size)
{
    char byte;
    struct iovec iov = {&byte, 1};
    g_assert_cmpint(posix_fadvise(o->fd, 0, 0, POSIX_FADV_DONTNEED), ==, 0);
    g_assert_cmpint(posix_fadvise(o->fd, 0, 0, POSIX_FADV_RANDOM), ==, 0);
    g_assert_cmpint(pread(o->fd, o->data, size, 0), ==, (ssize_t)size);
    if (handle_of(o)->nowait && preadv2(o->fd, &iov, 1, (off_t)size, RWF_NOWAIT) < 0) {
        return true;
    }
    g_test_skip("this file system does not tell whether a read waits");
    return false;
}

static void test_missing(void)
{
    Opened o = open_file(NULL, SIZE);
    if (keep(&o, 0)) {
        g_assert_cmpint(read_as(&o, 0, SIZE, 0, PT_IO_NOWAIT), ==, -EAGAIN);
        g_assert_cmpint(read_as(&o, 0, SIZE, 0, 0), ==, SIZE);
        g_assert_cmpint(read_as(&o, 0, SIZE, 0, PT_IO_NOWAIT), ==, SIZE);
    }
    close_all(&o);
}

/* Half of it is there. */
static void test_half(void)
{
    Opened o = open_file(NULL, SIZE);
    if (keep(&o, SIZE / 2)) {
        g_assert_cmpint(read_as(&o, 0, SIZE / 2, 0, PT_IO_NOWAIT), ==, SIZE / 2);
        g_assert_cmpint(read_as(&o, 0, SIZE, 0, PT_IO_NOWAIT), ==, -EAGAIN);
    }
    close_all(&o);
}

static void test_end(void)
{
    Opened o = open_file(NULL, PAGE + 100);
    g_assert_cmpint(read_as(&o, 0, SIZE, 0, PT_IO_NOWAIT), ==, PAGE + 100);
    g_assert_cmpint(read_as(&o, PAGE, 100, 0, PT_IO_NOWAIT), ==, 100);
    g_assert_cmpint(read_as(&o, PAGE + 100, PAGE, 0, PT_IO_NOWAIT), ==, 0);
    g_assert_cmpint(ftruncate(o.fd, PAGE), ==, 0);
    g_assert_cmpint(read_as(&o, 0, PAGE, 0, PT_IO_NOWAIT), ==, PAGE);
    if (handle_of(&o)->nowait) { /* it cannot be told from a missing page */
        g_assert_cmpint(read_as(&o, 0, SIZE, 0, PT_IO_NOWAIT), ==, -EAGAIN);
    }
    g_assert_cmpint(read_as(&o, 0, SIZE, 0, 0), ==, PAGE);
    close_all(&o);
}

/* Past the cache it always waits. */
static void test_direct(void)
{
    Opened o = open_file(NULL, SIZE);
    if (handle_of(&o)->nowait) {
        g_assert_cmpint(read_as(&o, 0, PAGE, O_DIRECT, PT_IO_NOWAIT), ==, -EAGAIN);
    }
    close_all(&o);
}

/* A file system that passes for another one, and cannot do it. */
static void test_unable(void)
{
    Opened o = open_file("/dev/shm", PAGE);
    struct iovec iov = {o.data, 1};
    handle_of(&o)->nowait = true;
    if (preadv2(o.fd, &iov, 1, 0, RWF_NOWAIT) >= 0) {
        g_test_skip("/dev/shm can do it");
    }
    g_assert_cmpint(read_as(&o, 0, PAGE, 0, PT_IO_NOWAIT), ==, PAGE);
    close_all(&o);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/file-nowait/missing", test_missing);
    g_test_add_func("/file-nowait/half", test_half);
    g_test_add_func("/file-nowait/end", test_end);
    g_test_add_func("/file-nowait/direct", test_direct);
    g_test_add_func("/file-nowait/unable", test_unable);
    return g_test_run();
}
