/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/scratch.h"

#include <linux/fs.h>
#include <sys/ioctl.h>

/*
 * The flags of chattr(1): what the host's own ioctl(2) says and does.
 */

typedef struct Opened {
    Scratch s;
    PtFlagsOf file;
    PtFlagsOf dir;
} Opened;

/* Not every file system has flags. */
static bool open_both(Opened *o)
{
    PtOpened opened;
    *o = (Opened){.s = scratch_open()};
    host_write(&o->s, "f", "1");
    make_dir(&o->s, PT_ROOT_ID, "d");
    o->file.nodeid = lookup(&o->s, PT_ROOT_ID, "f").nodeid;
    o->file.handle = open_node(&o->s, o->file.nodeid, O_RDONLY).handle;
    o->dir.nodeid = lookup(&o->s, PT_ROOT_ID, "d").nodeid;
    g_assert_cmpint(pt_opendir(o->s.fs, o->dir.nodeid, 0, &opened), ==, 0);
    o->dir.handle = opened.handle;
    o->dir.is_directory = true;
    uint32_t flags = 0;
    int r = pt_flags(o->s.fs, &o->file, false, &flags);
    if (r == 0) {
        return true;
    }
    g_assert_true(r == -ENOTTY || r == -EOPNOTSUPP);
    g_test_skip("this file system has no flags");
    scratch_close(&o->s);
    return false;
}

static int host_flags(const Opened *o, const char *name)
{
    int flags = 0;
    int fd = openat(o->s.dir, name, O_RDONLY | O_CLOEXEC);
    g_assert_cmpint(ioctl(fd, FS_IOC_GETFLAGS, &flags), ==, 0);
    close(fd);
    return flags;
}

static void check_flags(const Opened *o, const PtFlagsOf *of, const char *name)
{
    uint32_t flags = 0xdeadbeef;
    g_assert_cmpint(pt_flags(o->s.fs, of, false, &flags), ==, 0);
    g_assert_cmphex(flags, ==, (uint32_t)host_flags(o, name));
    uint32_t wanted = flags | FS_NODUMP_FL; /* the rest as it is, as chattr(1) does */
    g_assert_cmpint(pt_flags(o->s.fs, of, true, &wanted), ==, 0);
    g_assert_true(host_flags(o, name) & FS_NODUMP_FL);
    wanted &= ~(uint32_t)FS_NODUMP_FL;
    g_assert_cmpint(pt_flags(o->s.fs, of, true, &wanted), ==, 0);
    g_assert_false(host_flags(o, name) & FS_NODUMP_FL);
}

static void test_flags(void)
{
    Opened o;
    if (open_both(&o)) {
        check_flags(&o, &o.file, "f");
        check_flags(&o, &o.dir, "d");
        scratch_close(&o.s);
    }
}

static void test_xflags(void)
{
    Opened o;
    struct fsxattr attr, again;
    if (!open_both(&o)) {
        return;
    }
    memset(&attr, 0xee, sizeof(attr));
    g_assert_cmpint(pt_xflags(o.s.fs, &o.file, false, &attr), ==, 0);
    g_assert_cmphex(attr.fsx_xflags & FS_XFLAG_NODUMP, ==, 0);
    attr.fsx_xflags |= FS_XFLAG_NODUMP;
    again = attr;
    g_assert_cmpint(pt_xflags(o.s.fs, &o.file, true, &again), ==, 0);
    g_assert_true(host_flags(&o, "f") & FS_NODUMP_FL);
    g_assert_cmpint(pt_xflags(o.s.fs, &o.file, false, &again), ==, 0);
    g_assert_cmpint(memcmp(&attr, &again, sizeof(attr)), ==, 0);
    scratch_close(&o.s);
}

static void test_refused(void)
{
    Opened o;
    uint32_t flags = 0;
    struct fsxattr attr = {0};
    if (!open_both(&o)) {
        return;
    }
    /* A handle of the other kind, of another file, of nobody. */
    const PtFlagsOf bad[] = {
        {o.file.nodeid, o.file.handle, true, false},
        {o.dir.nodeid, o.dir.handle, false, false},
        {o.dir.nodeid, o.file.handle, false, false},
        {o.file.nodeid, 4711, false, false},
        {o.file.nodeid, PT_NO_HANDLE, false, false},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        for (int set = 0; set < 2; set++) {
            g_assert_cmpint(pt_flags(o.s.fs, &bad[i], set, &flags), ==, -EBADF);
            g_assert_cmpint(pt_xflags(o.s.fs, &bad[i], set, &attr), ==, -EBADF);
        }
    }
    flags = FS_DIRSYNC_FL; /* of directories only */
    int r = pt_flags(o.s.fs, &o.file, true, &flags);
    int fd = openat(o.s.dir, "f", O_RDONLY | O_CLOEXEC);
    int natively = FS_DIRSYNC_FL;
    int want = ioctl(fd, FS_IOC_SETFLAGS, &natively) < 0 ? -errno : 0;
    g_assert_cmpint(r, ==, want);
    close(fd);
    scratch_close(&o.s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (!need_root()) {
        return 0;
    }
    g_test_add_func("/file-flags/flags", test_flags);
    g_test_add_func("/file-flags/xflags", test_xflags);
    g_test_add_func("/file-flags/refused", test_refused);
    return g_test_run();
}
