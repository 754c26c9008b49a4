/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/scratch.h"

#include <sys/mount.h>

/*
 * Copying on the host: the same bytes and errors as copy_file_range(2) itself, and an end
 * to each request.
 */

#define MIB (UINT64_C(1) << 20)

typedef struct Pair {
    Scratch s;
    PtCopy copy;  /* all of "from" to the start of "to" */
    int from, to; /* descriptors of our own */
} Pair;

static Pair pair_open(void)
{
    Pair p = {.s = scratch_open()};
    host_write(&p.s, "from", "0123456789abcdef");
    host_write(&p.s, "to", "................");
    p.copy.nodeid = lookup(&p.s, PT_ROOT_ID, "from").nodeid;
    p.copy.to_nodeid = lookup(&p.s, PT_ROOT_ID, "to").nodeid;
    p.copy.handle = open_node(&p.s, p.copy.nodeid, O_RDWR).handle;
    p.copy.to_handle = open_node(&p.s, p.copy.to_nodeid, O_RDWR).handle;
    p.copy.length = 16;
    p.from = openat(p.s.dir, "from", O_RDWR | O_CLOEXEC);
    p.to = openat(p.s.dir, "to", O_RDWR | O_CLOEXEC);
    return p;
}

static void pair_close(Pair *p)
{
    close(p->from);
    close(p->to);
    scratch_close(&p->s);
}

static void assert_text(int fd, const char *want)
{
    char text[64] = {0};
    g_assert_cmpint(pread(fd, text, sizeof(text) - 1, 0), ==, (ssize_t)strlen(want));
    g_assert_cmpstr(text, ==, want);
}

static void test_copies(void)
{
    Pair p = pair_open();
    PtCopy part = p.copy;
    part.offset = 3;
    part.to_offset = 5;
    part.length = 4;
    g_assert_cmpint(pt_copy(p.s.fs, &part), ==, 4);
    assert_text(p.to, ".....3456.......");
    /* Short at the end, nothing behind it, and beyond the target's. */
    part = p.copy;
    part.offset = 12;
    part.length = INT64_MAX;
    g_assert_cmpint(pt_copy(p.s.fs, &part), ==, 4);
    part.offset = 16;
    g_assert_cmpint(pt_copy(p.s.fs, &part), ==, 0);
    part.offset = INT64_MAX;
    g_assert_cmpint(pt_copy(p.s.fs, &part), ==, 0);
    part.offset = 0;
    part.length = 2;
    part.to_offset = 18;
    g_assert_cmpint(pt_copy(p.s.fs, &part), ==, 2);
    g_assert_cmpint(host_stat(&p.s, "to").st_size, ==, 20);
    part.length = 0;
    g_assert_cmpint(pt_copy(p.s.fs, &part), ==, 0);
    /* Within a file. */
    part = p.copy;
    part.to_nodeid = part.nodeid;
    part.to_handle = part.handle;
    part.to_offset = 16;
    g_assert_cmpint(pt_copy(p.s.fs, &part), ==, 16);
    assert_text(p.from, "0123456789abcdef0123456789abcdef");
    pair_close(&p);
}

/* What the guest has open is what can be copied, by exactly these handles. */
static void test_refused(void)
{
    Pair p = pair_open();
    PtOpened opened;
    PtCopy bad = p.copy;
    bad.flags = 1;
    g_assert_cmpint(pt_copy(p.s.fs, &bad), ==, -EINVAL);
    bad = p.copy;
    bad.offset = INT64_MAX + UINT64_C(1);
    g_assert_cmpint(pt_copy(p.s.fs, &bad), ==, -EINVAL);
    bad = p.copy;
    bad.to_offset = UINT64_MAX;
    g_assert_cmpint(pt_copy(p.s.fs, &bad), ==, -EINVAL);
    bad = p.copy;
    bad.nodeid = p.copy.to_nodeid;
    g_assert_cmpint(pt_copy(p.s.fs, &bad), ==, -EBADF);
    bad = p.copy;
    bad.to_nodeid = p.copy.nodeid;
    g_assert_cmpint(pt_copy(p.s.fs, &bad), ==, -EBADF);
    bad = p.copy;
    bad.to_handle = 4711;
    g_assert_cmpint(pt_copy(p.s.fs, &bad), ==, -EBADF);
    bad = p.copy;
    bad.to_nodeid = PT_ROOT_ID;
    g_assert_cmpint(pt_opendir(p.s.fs, PT_ROOT_ID, 0, &opened), ==, 0);
    bad.to_handle = opened.handle;
    g_assert_cmpint(pt_copy(p.s.fs, &bad), ==, -EBADF);
    bad = p.copy;
    bad.to_handle = open_node(&p.s, p.copy.to_nodeid, O_RDONLY).handle;
    g_assert_cmpint(pt_copy(p.s.fs, &bad), ==, -EBADF);
    bad = p.copy;
    bad.handle = open_node(&p.s, p.copy.nodeid, O_WRONLY).handle;
    g_assert_cmpint(pt_copy(p.s.fs, &bad), ==, -EBADF);
    /* Onto itself. */
    bad = p.copy;
    bad.to_nodeid = bad.nodeid;
    bad.to_handle = bad.handle;
    bad.to_offset = 8;
    g_assert_cmpint(pt_copy(p.s.fs, &bad), ==, -EINVAL);
    assert_text(p.to, "................");
    pair_close(&p);
}

static void test_other_file_system(void)
{
    Scratch s = scratch_open();
    g_autofree char *path = g_build_filename(s.path, "other", NULL);
    g_assert_cmpint(mkdir(path, 0755), ==, 0);
    g_assert_cmpint(mount("none", path, "tmpfs", 0, NULL), ==, 0);
    host_write(&s, "from", "1234");
    host_write(&s, "other/to", "");
    uint64_t from = lookup(&s, PT_ROOT_ID, "from").nodeid;
    uint64_t other = lookup(&s, PT_ROOT_ID, "other").nodeid;
    uint64_t to = lookup(&s, other, "to").nodeid;
    PtCopy copy = {.nodeid = from, .to_nodeid = to, .length = 4};
    copy.handle = open_node(&s, from, O_RDONLY).handle;
    copy.to_handle = open_node(&s, to, O_WRONLY).handle;
    int ours = openat(s.dir, "from", O_RDONLY | O_CLOEXEC);
    int theirs = openat(s.dir, "other/to", O_WRONLY | O_CLOEXEC);
    ssize_t want = copy_file_range(ours, NULL, theirs, NULL, 4, 0);
    want = want < 0 ? -errno : want;
    g_assert_cmpint(pt_copy(s.fs, &copy), ==, want);
    close(ours);
    close(theirs);
    pt_fs_reset(s.fs);
    g_assert_cmpint(umount2(path, 0), ==, 0);
    scratch_close(&s);
}

static void test_set_id_bits(void)
{
    for (int kill = 0; kill < 2; kill++) {
        Pair p = pair_open();
        g_assert_cmpint(fchmodat(p.s.dir, "to", 06777, 0), ==, 0);
        p.copy.kill_suidgid = kill;
        g_assert_cmpint(pt_copy(p.s.fs, &p.copy), ==, 16);
        g_assert_cmpuint(host_stat(&p.s, "to").st_mode & 07777, ==, kill ? 0777 : 06777);
        pair_close(&p);
    }
}

/* A guest asks for 8 EiB: it gets what can be copied in a fraction of a second, and so a
 * worker back, and with a few requests all of it. */
static void test_long_copies_end(void)
{
    const uint64_t size = 3072 * MIB;
    Pair p = pair_open();
    g_assert_cmpint(ftruncate(p.from, 0), ==, 0);
    g_assert_cmpint(ftruncate(p.from, (off_t)size), ==, 0);
    g_assert_cmpint(pwrite(p.from, "x", 1, (off_t)size - 1), ==, 1);
    PtCopy copy = p.copy;
    copy.length = INT64_MAX;
    g_test_timer_start();
    ssize_t n = pt_copy(p.s.fs, &copy);
    double elapsed = g_test_timer_elapsed();
    g_assert_cmpint(n, >=, 8 * MIB);
    g_assert_cmpint(n, <=, 0x7ffff000);
    /* Natively this takes seconds; a loaded machine may double what we aim at. */
    if (n < 0x7ffff000) {
        g_assert_cmpfloat(elapsed, <, 2.0);
    }
    /* The end of it arrives where it belongs. */
    char byte = 0;
    copy.offset = copy.to_offset = size - 20 * MIB;
    while (copy.offset < size) {
        n = pt_copy(p.s.fs, &copy);
        g_assert_cmpint(n, >, 0);
        copy.offset += (uint64_t)n;
        copy.to_offset += (uint64_t)n;
    }
    g_assert_cmpint(pread(p.to, &byte, 1, (off_t)size - 1), ==, 1);
    g_assert_cmpint(byte, ==, 'x');
    pair_close(&p);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (!need_root()) {
        return 0;
    }
    /* Mounts are ours alone. */
    g_assert_cmpint(unshare(CLONE_NEWNS), ==, 0);
    g_assert_cmpint(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), ==, 0);
    g_test_add_func("/file-copy/copies", test_copies);
    g_test_add_func("/file-copy/refused", test_refused);
    g_test_add_func("/file-copy/other-file-system", test_other_file_system);
    g_test_add_func("/file-copy/set-id-bits", test_set_id_bits);
    g_test_add_func("/file-copy/long-copies-end", test_long_copies_end);
    return g_test_run();
}
