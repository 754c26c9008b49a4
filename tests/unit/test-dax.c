/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/scratch.h"

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mount.h>

/*
 * Which files may be mapped into the guest, and the descriptors by which they are.
 */

#define SIZE ((off_t)PT_DAX_SIZE)

static void host_file(const Scratch *s, const char *name, off_t size)
{
    int fd = openat(s->dir, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, size), ==, 0);
    close(fd);
}

static bool suits(const Scratch *s, const char *name)
{
    PtEntry entry = lookup(s, PT_ROOT_ID, name);
    return pt_dax_suits(s->fs, entry.nodeid, &entry.attr.stx);
}

static void test_suits(void)
{
    Scratch s = scratch_open();
    const off_t no[] = {0, 1, 4096, SIZE - 1, SIZE + 1, SIZE + 4096, 3 * SIZE / 2};
    for (size_t i = 0; i < G_N_ELEMENTS(no); i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "no%zu", i);
        host_file(&s, name, no[i]);
        g_assert_false(suits(&s, name));
    }
    host_file(&s, "one", SIZE);
    host_file(&s, "many", 1000 * SIZE);
    g_assert_true(suits(&s, "one"));
    g_assert_true(suits(&s, "many"));
    g_assert_cmpint(mkdirat(s.dir, "d", 0755), ==, 0);
    g_assert_false(suits(&s, "d"));
    g_assert_cmpint(symlinkat("one", s.dir, "link"), ==, 0);
    g_assert_false(suits(&s, "link"));
    scratch_close(&s);
}

/* Whom the guest does not know, or not any more. */
static void test_unknown(void)
{
    Scratch s = scratch_open();
    host_file(&s, "one", SIZE);
    PtEntry entry = lookup(&s, PT_ROOT_ID, "one");
    g_assert_false(pt_dax_suits(s.fs, entry.nodeid + 1, &entry.attr.stx));
    pt_forget(s.fs, entry.nodeid, 1);
    g_assert_false(pt_dax_suits(s.fs, entry.nodeid, &entry.attr.stx));
    g_assert_cmpint(pt_dax_open(s.fs, entry.nodeid, PT_NO_HANDLE, false), ==, -ESTALE);
    g_assert_cmpint(pt_dax_open(s.fs, UINT64_MAX, PT_NO_HANDLE, false), ==, -ESTALE);
    g_assert_cmpint(pt_dax_open(s.fs, 0, PT_NO_HANDLE, false), ==, -ESTALE);
    scratch_close(&s);
}

/* What is opened can be read and written, whatever the guest wants to do. */
static void test_open(void)
{
    Scratch s = scratch_open();
    host_file(&s, "one", SIZE);
    uint64_t node = lookup(&s, PT_ROOT_ID, "one").nodeid;
    uint64_t before = scratch_stats(&s).descriptors;
    for (int writes = 0; writes < 2; writes++) {
        int fd = pt_dax_open(s.fs, node, PT_NO_HANDLE, writes == 1);
        g_assert_cmpint(fd, >=, 0);
        g_assert_cmpint(fcntl(fd, F_GETFL) & (O_ACCMODE | O_PATH), ==, O_RDWR);
        g_assert_cmpuint(scratch_stats(&s).descriptors, ==, before + 1);
        pt_dax_close(s.fs, fd);
        g_assert_cmpuint(scratch_stats(&s).descriptors, ==, before);
    }
    scratch_close(&s);
}

static void test_handles(void)
{
    Scratch s = scratch_open();
    host_file(&s, "one", SIZE);
    host_file(&s, "two", SIZE);
    uint64_t node = lookup(&s, PT_ROOT_ID, "one").nodeid;
    uint64_t other = lookup(&s, PT_ROOT_ID, "two").nodeid;
    uint64_t reads = open_node(&s, node, O_RDONLY).handle;
    uint64_t writes = open_node(&s, node, O_RDWR).handle;
    uint64_t foreign = open_node(&s, other, O_RDWR).handle;
    PtOpened dir;
    g_assert_cmpint(pt_opendir(s.fs, PT_ROOT_ID, 0, &dir), ==, 0);
    const struct {
        uint64_t handle;
        bool writes;
        int result;
    } cases[] = {
        {reads, false, 0},          {reads, true, -EACCES},   {writes, true, 0},
        {foreign, true, -EBADF},    {foreign, false, -EBADF}, {dir.handle, false, -EBADF},
        {reads + 77, true, -EBADF}, {0, false, -EBADF},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        int fd = pt_dax_open(s.fs, node, cases[i].handle, cases[i].writes);
        g_assert_cmpint(MIN(fd, 0), ==, cases[i].result);
        if (fd >= 0) {
            pt_dax_close(s.fs, fd);
        }
    }
    g_assert_cmpint(pt_release(s.fs, node, reads), ==, 0);
    g_assert_cmpint(pt_dax_open(s.fs, node, reads, false), ==, -EBADF);
    scratch_close(&s);
}

/* Nothing that is no regular file is opened: a FIFO would block, a device act. */
static void test_special(void)
{
    static const struct {
        const char *name;
        mode_t mode;
        dev_t rdev;
    } nodes[] = {
        {"fifo", S_IFIFO, 0},
        {"socket", S_IFSOCK, 0},
        {"char", S_IFCHR, 0x0103},
        {"block", S_IFBLK, 0x0700},
    };
    Scratch s = scratch_open();
    for (size_t i = 0; i < G_N_ELEMENTS(nodes); i++) {
        g_assert_cmpint(
            mknodat(s.dir, nodes[i].name, nodes[i].mode | 0666, nodes[i].rdev), ==, 0);
        uint64_t node = lookup(&s, PT_ROOT_ID, nodes[i].name).nodeid;
        g_assert_false(suits(&s, nodes[i].name));
        g_assert_cmpint(pt_dax_open(s.fs, node, PT_NO_HANDLE, true), ==, -ENXIO);
    }
    g_assert_cmpint(symlinkat("fifo", s.dir, "link"), ==, 0);
    uint64_t link = lookup(&s, PT_ROOT_ID, "link").nodeid;
    g_assert_cmpint(pt_dax_open(s.fs, link, PT_NO_HANDLE, false), ==, -ELOOP);
    g_assert_cmpint(pt_dax_open(s.fs, PT_ROOT_ID, PT_NO_HANDLE, false), ==, -EISDIR);
    scratch_close(&s);
}

static void test_readonly(void)
{
    PtConfig config = scratch_config();
    config.readonly = true;
    Scratch s = scratch_open_with(&config);
    host_file(&s, "one", SIZE);
    g_assert_false(suits(&s, "one"));
    uint64_t node = lookup(&s, PT_ROOT_ID, "one").nodeid;
    g_assert_cmpint(pt_dax_open(s.fs, node, PT_NO_HANDLE, false), ==, -EROFS);
    scratch_close(&s);
}

/* What cannot be written is not told to be mapped: there would be no other way to read
 * it.
 */
static void test_immutable(void)
{
    Scratch s = scratch_open();
    int flags = FS_IMMUTABLE_FL;
    int none = 0;
    host_file(&s, "one", SIZE);
    int fd = openat(s.dir, "one", O_RDONLY | O_CLOEXEC);
    if (ioctl(fd, FS_IOC_SETFLAGS, &flags) < 0) {
        g_test_skip("no file can be made immutable here");
    } else {
        g_assert_false(suits(&s, "one"));
        g_assert_cmpint(ioctl(fd, FS_IOC_SETFLAGS, &none), ==, 0);
        g_assert_true(suits(&s, "one"));
    }
    close(fd);
    scratch_close(&s);
}

/* In overlayfs a file that is only read would be copied up. */
static void test_overlay(void)
{
    g_assert_cmpint(unshare(CLONE_NEWNS), ==, 0);
    g_assert_cmpint(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), ==, 0);
    Scratch s = scratch_open();
    g_autofree char *folder = g_strconcat(s.path, "/m", NULL);
    g_assert_cmpint(mkdir(folder, 0755), ==, 0);
    g_assert_cmpint(mount("none", folder, "tmpfs", 0, NULL), ==, 0);
    const char *const names[] = {"lower", "upper", "work", "over"};
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path = g_strconcat(folder, "/", names[i], NULL);
        g_assert_cmpint(mkdir(path, 0755), ==, 0);
    }
    g_autofree char *over = g_strconcat(folder, "/over", NULL);
    g_autofree char *options = g_strdup_printf(
        "lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", folder, folder, folder);
    host_file(&s, "m/lower/one", SIZE);
    if (mount("none", over, "overlay", 0, options) < 0) {
        g_test_skip("no overlayfs here");
    } else {
        uint64_t m = lookup(&s, PT_ROOT_ID, "m").nodeid;
        uint64_t dir = lookup(&s, m, "over").nodeid;
        PtEntry entry = lookup(&s, dir, "one");
        g_assert_false(pt_dax_suits(s.fs, entry.nodeid, &entry.attr.stx));
        g_assert_cmpint(pt_dax_open(s.fs, entry.nodeid, PT_NO_HANDLE, false), ==,
                        -EOPNOTSUPP);
        g_assert_cmpint(umount2(over, MNT_DETACH), ==, 0);
    }
    g_assert_cmpint(umount2(folder, MNT_DETACH), ==, 0);
    scratch_close(&s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/dax/suits", test_suits);
    g_test_add_func("/dax/unknown", test_unknown);
    g_test_add_func("/dax/open", test_open);
    g_test_add_func("/dax/handles", test_handles);
    g_test_add_func("/dax/special", test_special);
    g_test_add_func("/dax/readonly", test_readonly);
    g_test_add_func("/dax/immutable", test_immutable);
    g_test_add_func("/dax/overlay", test_overlay);
    return g_test_run();
}
