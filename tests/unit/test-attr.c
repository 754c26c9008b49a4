/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/scratch.h"

#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <time.h>

/*
 * Attributes: read and set by node and by handle, compared with the host's own view.
 */

static int set_on(const Scratch *s, uint64_t nodeid, PtSetattr set, PtAttr *ret_attr)
{
    return pt_setattr(s->fs, nodeid, &set, ret_attr);
}

static void assert_as_host(const Scratch *s, const char *name, const PtAttr *attr)
{
    struct stat st = host_stat(s, name);
    const struct statx *stx = &attr->stx;
    g_assert_cmpuint(stx->stx_ino, ==, st.st_ino);
    g_assert_cmpuint(stx->stx_mode, ==, st.st_mode);
    g_assert_cmpuint(stx->stx_nlink, ==, st.st_nlink);
    g_assert_cmpuint(stx->stx_uid, ==, st.st_uid);
    g_assert_cmpuint(stx->stx_gid, ==, st.st_gid);
    g_assert_cmpuint(stx->stx_size, ==, (uint64_t)st.st_size);
    g_assert_cmpuint(stx->stx_blocks, ==, (uint64_t)st.st_blocks);
    g_assert_cmpint(stx->stx_mtime.tv_sec, ==, st.st_mtim.tv_sec);
    g_assert_cmpuint(stx->stx_mtime.tv_nsec, ==, (uint32_t)st.st_mtim.tv_nsec);
    g_assert_cmpint(stx->stx_ctime.tv_sec, ==, st.st_ctim.tv_sec);
    g_assert_cmpuint(stx->stx_ctime.tv_nsec, ==, (uint32_t)st.st_ctim.tv_nsec);
    g_assert_cmpuint(attr->flags, ==, 0);
}

static void test_getattr(void)
{
    Scratch s = scratch_open();
    PtAttr attr;
    host_write(&s, "f", "12345");
    g_assert_cmpint(symlinkat("t", s.dir, "l"), ==, 0);
    g_assert_cmpint(mknodat(s.dir, "p", S_IFIFO | 0600, 0), ==, 0);
    const char *const names[] = {"f", "l", "p"};
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        PtEntry entry = lookup(&s, PT_ROOT_ID, names[i]);
        assert_as_host(&s, names[i], &entry.attr);
        g_assert_cmpint(pt_getattr(s.fs, entry.nodeid, PT_NO_HANDLE, &attr), ==, 0);
        assert_as_host(&s, names[i], &attr);
    }
    uint64_t f = lookup(&s, PT_ROOT_ID, "f").nodeid;
    uint64_t h = open_node(&s, f, O_RDONLY).handle;
    g_assert_cmpint(pt_getattr(s.fs, f, h, &attr), ==, 0);
    assert_as_host(&s, "f", &attr);
    /* By handle it works even when the node has been forgotten and the name is gone. */
    pt_forget(s.fs, f, UINT64_MAX);
    g_assert_cmpint(unlinkat(s.dir, "f", 0), ==, 0);
    g_assert_cmpint(pt_getattr(s.fs, f, PT_NO_HANDLE, &attr), ==, -ESTALE);
    g_assert_cmpint(pt_getattr(s.fs, f, h, &attr), ==, 0);
    g_assert_cmpuint(attr.stx.stx_nlink, ==, 0);
    scratch_close(&s);
}

/* Compared with statx(2): what was asked for, and when the file was born. */
static void test_statx(void)
{
    Scratch s = scratch_open();
    PtAttr attr;
    host_write(&s, "f", "12345");
    uint64_t f = lookup(&s, PT_ROOT_ID, "f").nodeid;
    uint64_t h = open_node(&s, f, O_RDONLY).handle;
    const uint32_t masks[] = {0, STATX_BTIME, STATX_SIZE, STATX_BASIC_STATS | STATX_BTIME,
                              0x7fffffff};
    const uint32_t flags[] = {0, AT_STATX_FORCE_SYNC, AT_STATX_DONT_SYNC};
    for (size_t i = 0; i < G_N_ELEMENTS(masks) * G_N_ELEMENTS(flags); i++) {
        PtStatx want = {PT_NO_HANDLE, masks[i / 3], flags[i % 3]};
        struct statx stx;
        g_assert_cmpint(
            statx(s.dir, "f", AT_SYMLINK_NOFOLLOW | (int)want.flags, want.mask, &stx), ==,
            0);
        g_assert_cmpint(pt_statx(s.fs, f, &want, &attr), ==, 0);
        g_assert_cmpint(memcmp(&attr.stx, &stx, sizeof(stx)), ==, 0);
        want.handle = h;
        g_assert_cmpint(pt_statx(s.fs, f, &want, &attr), ==, 0);
        g_assert_cmpint(memcmp(&attr.stx, &stx, sizeof(stx)), ==, 0);
        g_assert_true((stx.stx_mask & STATX_BTIME) || !(want.mask & STATX_BTIME));
    }
    const PtStatx bad[] = {{PT_NO_HANDLE, STATX__RESERVED, 0},
                           {PT_NO_HANDLE, 0, AT_STATX_SYNC_TYPE},
                           {PT_NO_HANDLE, 0, AT_SYMLINK_NOFOLLOW},
                           {PT_NO_HANDLE, 0, 0x80000000u}};
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_assert_cmpint(pt_statx(s.fs, f, &bad[i], &attr), ==, -EINVAL);
    }
    const PtStatx by_handle = {.handle = h};
    g_assert_cmpint(pt_statx(s.fs, PT_ROOT_ID, &by_handle, &attr), ==, -EBADF);
    scratch_close(&s);
}

static void test_mode_and_owner(void)
{
    Scratch s = scratch_open();
    PtAttr attr;
    host_write(&s, "f", "1");
    uint64_t f = lookup(&s, PT_ROOT_ID, "f").nodeid;
    uint64_t d = make_dir(&s, PT_ROOT_ID, "d").nodeid;
    const uint64_t handles[] = {PT_NO_HANDLE, open_node(&s, f, O_RDONLY).handle};
    for (size_t i = 0; i < G_N_ELEMENTS(handles); i++) {
        PtSetattr set = {.handle = handles[i], .mode = 0xfffff000u | 06751};
        set.valid = PT_SET_MODE;
        g_assert_cmpint(set_on(&s, f, set, &attr), ==, 0);
        g_assert_cmpuint(attr.stx.stx_mode, ==, S_IFREG | 06751);
        assert_as_host(&s, "f", &attr);
        /* A new owner clears the bits, as on the host; a mode in the same request does
         * not get lost by that. */
        set = (PtSetattr){.valid = PT_SET_UID, .handle = handles[i], .uid = 1000};
        g_assert_cmpint(set_on(&s, f, set, &attr), ==, 0);
        g_assert_cmpuint(attr.stx.stx_mode & 07777, ==, 0751);
        set.valid = PT_SET_UID | PT_SET_GID | PT_SET_MODE;
        set.uid = 1;
        set.gid = 2;
        set.mode = 04711;
        g_assert_cmpint(set_on(&s, f, set, &attr), ==, 0);
        assert_as_host(&s, "f", &attr);
        g_assert_cmpuint(attr.stx.stx_mode & 07777, ==, 04711);
        g_assert_cmpuint(attr.stx.stx_uid, ==, 1);
        g_assert_cmpuint(attr.stx.stx_gid, ==, 2);
        set.valid = PT_SET_UID;
        set.uid = UINT32_MAX;
        g_assert_cmpint(set_on(&s, f, set, &attr), ==, -EINVAL);
        set.valid = PT_SET_GID;
        set.gid = UINT32_MAX;
        g_assert_cmpint(set_on(&s, f, set, &attr), ==, -EINVAL);
    }
    PtSetattr set = {.valid = PT_SET_MODE, .handle = PT_NO_HANDLE, .mode = 03770};
    g_assert_cmpint(set_on(&s, d, set, &attr), ==, 0);
    g_assert_cmpuint(attr.stx.stx_mode, ==, S_IFDIR | 03770);
    scratch_close(&s);
}

static void test_symlink(void)
{
    Scratch s = scratch_open();
    PtAttr attr;
    host_write(&s, "f", "1");
    struct stat before = host_stat(&s, "f");
    g_assert_cmpint(symlinkat("f", s.dir, "l"), ==, 0);
    uint64_t l = lookup(&s, PT_ROOT_ID, "l").nodeid;
    PtSetattr set = {.valid = PT_SET_MODE, .handle = PT_NO_HANDLE, .mode = 0600};
    g_assert_cmpint(set_on(&s, l, set, &attr), ==, -EOPNOTSUPP);
    set = (PtSetattr){.valid = PT_SET_SIZE, .handle = PT_NO_HANDLE};
    g_assert_cmpint(set_on(&s, l, set, &attr), ==, -EINVAL);
    set = (PtSetattr){.valid = PT_SET_UID | PT_SET_GID | PT_SET_MTIME,
                      .handle = PT_NO_HANDLE,
                      .uid = 5,
                      .gid = 6,
                      .mtime = {.tv_sec = 7, .tv_nsec = 8}};
    g_assert_cmpint(set_on(&s, l, set, &attr), ==, 0);
    assert_as_host(&s, "l", &attr);
    g_assert_cmpuint(attr.stx.stx_uid, ==, 5);
    g_assert_cmpint(attr.stx.stx_mtime.tv_sec, ==, 7);
    /* The file behind it is as it was. */
    struct stat after = host_stat(&s, "f");
    g_assert_cmpuint(after.st_uid, ==, before.st_uid);
    g_assert_cmpint(after.st_ctim.tv_sec, ==, before.st_ctim.tv_sec);
    g_assert_cmpint(after.st_ctim.tv_nsec, ==, before.st_ctim.tv_nsec);
    scratch_close(&s);
}

static void test_size(void)
{
    Scratch s = scratch_open();
    PtAttr attr;
    host_write(&s, "f", "12345678");
    uint64_t f = lookup(&s, PT_ROOT_ID, "f").nodeid;
    /* A handle that cannot write does not hinder: the guest has checked. */
    const uint64_t handles[] = {PT_NO_HANDLE, open_node(&s, f, O_RDWR).handle,
                                open_node(&s, f, O_RDONLY).handle};
    const uint64_t sizes[] = {4, 0, 100, (UINT64_C(1) << 33) + 1, 3};
    for (size_t h = 0; h < G_N_ELEMENTS(handles); h++) {
        PtSetattr set = {.valid = PT_SET_SIZE, .handle = handles[h]};
        for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
            set.size = sizes[i];
            g_assert_cmpint(set_on(&s, f, set, &attr), ==, 0);
            g_assert_cmpuint(attr.stx.stx_size, ==, sizes[i]);
            assert_as_host(&s, "f", &attr);
        }
        set.size = INT64_MAX + UINT64_C(1);
        g_assert_cmpint(set_on(&s, f, set, &attr), ==, -EINVAL);
        set.size = UINT64_MAX;
        g_assert_cmpint(set_on(&s, f, set, &attr), ==, -EINVAL);
        set.size = INT64_MAX;
        g_assert_cmpint(set_on(&s, f, set, &attr), ==, -EFBIG);
    }
    scratch_close(&s);
}

static void test_times(void)
{
    static const struct timespec times[] = {{0, 0},
                                            {1, 999999999},
                                            {-1, 500000000},
                                            {2000000000, 1},
                                            {4000000000, 123456789}};
    Scratch s = scratch_open();
    PtAttr attr;
    host_write(&s, "f", "1");
    uint64_t f = lookup(&s, PT_ROOT_ID, "f").nodeid;
    const uint64_t handles[] = {PT_NO_HANDLE, open_node(&s, f, O_RDONLY).handle};
    for (size_t h = 0; h < G_N_ELEMENTS(handles); h++) {
        for (size_t i = 0; i < G_N_ELEMENTS(times); i++) {
            PtSetattr set = {.handle = handles[h], .mtime = times[i], .size = 5};
            set.valid = PT_SET_MTIME | PT_SET_SIZE;
            g_assert_cmpint(set_on(&s, f, set, &attr), ==, 0);
            g_assert_cmpint(attr.stx.stx_mtime.tv_sec, ==, times[i].tv_sec);
            g_assert_cmpuint(attr.stx.stx_mtime.tv_nsec, ==, (uint32_t)times[i].tv_nsec);
            struct statx_timestamp mtime = attr.stx.stx_mtime;
            set = (PtSetattr){.handle = handles[h], .atime = times[i]};
            set.valid = PT_SET_ATIME;
            g_assert_cmpint(set_on(&s, f, set, &attr), ==, 0);
            g_assert_cmpint(attr.stx.stx_atime.tv_sec, ==, times[i].tv_sec);
            g_assert_cmpint(attr.stx.stx_mtime.tv_sec, ==, mtime.tv_sec);
            g_assert_cmpuint(attr.stx.stx_mtime.tv_nsec, ==, mtime.tv_nsec);
        }
    }
    int64_t now = g_get_real_time() / 1000000;
    PtSetattr set = {.handle = PT_NO_HANDLE};
    set.valid = PT_SET_ATIME | PT_SET_ATIME_NOW | PT_SET_MTIME_NOW;
    g_assert_cmpint(set_on(&s, f, set, &attr), ==, 0);
    g_assert_cmpint(ABS(attr.stx.stx_atime.tv_sec - now), <, 60);
    g_assert_cmpint(ABS(attr.stx.stx_mtime.tv_sec - now), <, 60);
    const long bad[] = {-1, 1000000000, UTIME_NOW, UTIME_OMIT, INT64_MAX};
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        set = (PtSetattr){.valid = PT_SET_MTIME, .handle = PT_NO_HANDLE};
        set.mtime.tv_nsec = bad[i];
        g_assert_cmpint(set_on(&s, f, set, &attr), ==, -EINVAL);
    }
    scratch_close(&s);
}

/* It moves exactly when asked for, and takes nothing else along. */
static void test_changed(void)
{
    const struct timespec times[2] = {{1000000000, 1}, {1000000000, 2}};
    const struct timespec tick = {.tv_nsec = 20000000};
    const char *const names[] = {"f", "l"};
    Scratch s = scratch_open();
    PtAttr attr;
    host_write(&s, "f", "1");
    g_assert_cmpint(symlinkat("t", s.dir, "l"), ==, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_assert_cmpint(utimensat(s.dir, names[i], times, AT_SYMLINK_NOFOLLOW), ==, 0);
        uint64_t node = lookup(&s, PT_ROOT_ID, names[i]).nodeid;
        struct stat before = host_stat(&s, names[i]);
        PtSetattr set = {.handle = PT_NO_HANDLE, .valid = 0};
        nanosleep(&tick, NULL);
        g_assert_cmpint(set_on(&s, node, set, &attr), ==, 0);
        struct stat same = host_stat(&s, names[i]);
        g_assert_cmpint(before.st_ctim.tv_sec, ==, same.st_ctim.tv_sec);
        g_assert_cmpint(before.st_ctim.tv_nsec, ==, same.st_ctim.tv_nsec);
        set.valid = PT_SET_CTIME;
        g_assert_cmpint(set_on(&s, node, set, &attr), ==, 0);
        assert_as_host(&s, names[i], &attr);
        struct stat after = host_stat(&s, names[i]);
        g_assert_true(after.st_ctim.tv_sec > before.st_ctim.tv_sec ||
                      after.st_ctim.tv_nsec > before.st_ctim.tv_nsec);
        g_assert_cmpint(after.st_atim.tv_nsec, ==, 1);
        g_assert_cmpint(after.st_mtim.tv_nsec, ==, 2);
    }
    scratch_close(&s);
}

static void test_nothing(void)
{
    Scratch s = scratch_open();
    PtAttr attr;
    host_write(&s, "f", "1");
    struct stat before = host_stat(&s, "f");
    uint64_t f = lookup(&s, PT_ROOT_ID, "f").nodeid;
    const uint32_t unknown = ~((PT_SET_CTIME << 1) - 1);
    PtSetattr set = {.valid = PT_SET_KILL_SUIDGID | unknown, .handle = PT_NO_HANDLE};
    g_assert_cmpint(set_on(&s, f, set, &attr), ==, 0);
    struct stat after = host_stat(&s, "f");
    g_assert_cmpint(after.st_ctim.tv_nsec, ==, before.st_ctim.tv_nsec);
    scratch_close(&s);
}

/* chown(2) that names nobody takes set-id bits, if root or the owner makes it. */
static void test_kill_for(void)
{
    static const struct {
        uint32_t uid;
        mode_t want;
    } cases[] = {{0, 0755}, {1000, 0755}, {1001, 06755}};
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        Scratch s = scratch_open();
        PtAttr attr;
        host_write(&s, "f", "1");
        g_assert_cmpint(fchownat(s.dir, "f", 1000, 1000, 0), ==, 0);
        g_assert_cmpint(fchmodat(s.dir, "f", 06755, 0), ==, 0);
        uint64_t f = lookup(&s, PT_ROOT_ID, "f").nodeid;
        PtSetattr set = {
            .valid = PT_SET_KILL_FOR_UID, .handle = PT_NO_HANDLE, .uid = cases[i].uid};
        g_assert_cmpint(set_on(&s, f, set, &attr), ==, 0);
        g_assert_cmphex(attr.stx.stx_mode & 07777, ==, cases[i].want);
        g_assert_cmpuint(attr.stx.stx_uid, ==, 1000);
        scratch_close(&s);
    }
}

/* Owner or size change, and what chown(2) and truncate(2) take stays, if so asked. */
static void test_keep(void)
{
    static const struct {
        uint32_t valid;
        mode_t before;
        mode_t want;
    } cases[] = {{PT_SET_UID, 06755, 0755},
                 {PT_SET_UID | PT_SET_KEEP_SUIDGID, 06755, 06755},
                 {PT_SET_UID | PT_SET_KEEP_SUIDGID, 04711, 04711},
                 {PT_SET_UID | PT_SET_KEEP_SUIDGID, 02755, 02755},
                 {PT_SET_UID | PT_SET_KEEP_SUIDGID | PT_SET_MODE, 06755, 0640},
                 {PT_SET_UID | PT_SET_KEEP_CAPABILITY, 04755, 0755},
                 {PT_SET_SIZE, 0755, 0755},
                 {PT_SET_SIZE | PT_SET_KEEP_CAPABILITY, 0755, 0755}};
    const char capability[20] = {1, 0, 0, 2, 0, 0x20}; /* cap_net_raw, permitted */
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        Scratch s = scratch_open();
        char seen[24];
        PtAttr attr;
        host_write(&s, "f", "1");
        g_autofree char *path = g_build_filename(s.path, "f", NULL);
        g_assert_cmpint(chmod(path, cases[i].before), ==, 0);
        g_assert_cmpint(setxattr(path, "security.capability", capability, 20, 0), ==, 0);
        uint64_t f = lookup(&s, PT_ROOT_ID, "f").nodeid;
        PtSetattr set = {
            .valid = cases[i].valid, .handle = PT_NO_HANDLE, .mode = 0640, .uid = 1000};
        g_assert_cmpint(set_on(&s, f, set, &attr), ==, 0);
        g_assert_cmphex(attr.stx.stx_mode & 07777, ==, cases[i].want);
        g_assert_cmpuint(attr.stx.stx_uid, ==, cases[i].valid & PT_SET_UID ? 1000 : 0);
        ssize_t size = getxattr(path, "security.capability", seen, sizeof(seen));
        g_assert_cmpint(size, ==, cases[i].valid & PT_SET_KEEP_CAPABILITY ? 20 : -1);
        scratch_close(&s);
    }
}

static void test_statfs(void)
{
    Scratch s = scratch_open();
    struct statvfs ours, want;
    host_write(&s, "f", "1");
    const uint64_t nodes[] = {PT_ROOT_ID, lookup(&s, PT_ROOT_ID, "f").nodeid};
    g_assert_cmpint(fstatvfs(s.dir, &want), ==, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(nodes); i++) {
        g_assert_cmpint(pt_statfs(s.fs, nodes[i], &ours), ==, 0);
        g_assert_cmpuint(ours.f_bsize, ==, want.f_bsize);
        g_assert_cmpuint(ours.f_blocks, ==, want.f_blocks);
        g_assert_cmpuint(ours.f_files, ==, want.f_files);
        g_assert_cmpuint(ours.f_namemax, ==, want.f_namemax);
    }
    g_assert_cmpint(pt_statfs(s.fs, 4711, &ours), ==, -ESTALE);
    scratch_close(&s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (!need_root()) {
        return 0;
    }
    g_test_add_func("/attr/getattr", test_getattr);
    g_test_add_func("/attr/statx", test_statx);
    g_test_add_func("/attr/mode-and-owner", test_mode_and_owner);
    g_test_add_func("/attr/symlink", test_symlink);
    g_test_add_func("/attr/size", test_size);
    g_test_add_func("/attr/times", test_times);
    g_test_add_func("/attr/changed", test_changed);
    g_test_add_func("/attr/nothing", test_nothing);
    g_test_add_func("/attr/kill-for", test_kill_for);
    g_test_add_func("/attr/keep", test_keep);
    g_test_add_func("/attr/statfs", test_statfs);
    return g_test_run();
}
