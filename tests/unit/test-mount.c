/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/scratch.h"

#include <sched.h>
#include <sys/mount.h>

#include "passthrough/internal.h"

/*
 * Other mounts in the share: volumes that come and go while it is in use, file systems
 * whose inode numbers are not what they seem. Runs in a mount namespace of its own.
 */

static void mkdir_at(const Scratch *s, const char *name)
{
    g_assert_cmpint(mkdirat(s->dir, name, 0755), ==, 0);
}

static char *path_of(const Scratch *s, const char *name)
{
    return g_build_filename(s->path, name, NULL);
}

static void mount_at(const Scratch *s, const char *name, const char *type,
                     const char *options)
{
    g_autofree char *path = path_of(s, name);
    g_assert_cmpint(mount("none", path, type, 0, options), ==, 0);
}

static void bind_at(const Scratch *s, const char *from, const char *to)
{
    g_autofree char *source = path_of(s, from);
    g_autofree char *target = path_of(s, to);
    g_assert_cmpint(mount(source, target, NULL, MS_BIND, NULL), ==, 0);
}

static int umount_at(const Scratch *s, const char *name, int flags)
{
    g_autofree char *path = path_of(s, name);
    return umount2(path, flags) < 0 ? -errno : 0;
}

static uint32_t n_mounts(const Scratch *s)
{
    return s->fs->mounts.slots.n_in_use;
}

/* ---- volumes ---------------------------------------------------------------------- */

static void test_volume_comes_and_goes(void)
{
    Scratch s = scratch_open();
    mkdir_at(&s, "volume");
    PtEntry before = lookup(&s, PT_ROOT_ID, "volume");
    g_assert_cmpuint(before.attr.flags, ==, 0);
    mount_at(&s, "volume", "tmpfs", NULL);
    host_write(&s, "volume/data", "1");
    PtEntry mounted = lookup(&s, PT_ROOT_ID, "volume");
    g_assert_cmpuint(mounted.nodeid, !=, before.nodeid);
    g_assert_cmpuint(mounted.attr.flags, ==, PT_ATTR_SUBMOUNT);
    g_assert_cmpuint(lookup(&s, PT_ROOT_ID, "volume").nodeid, ==, mounted.nodeid);
    PtEntry data = lookup(&s, mounted.nodeid, "data");
    g_assert_cmpuint(data.attr.flags, ==, 0);
    g_assert_cmpuint(n_mounts(&s), ==, 2);

    /* Seen by name only, the host's unmounting shows at once. */
    g_assert_cmpint(umount_at(&s, "volume", 0), ==, -EBUSY);
    g_assert_cmpint(umount_at(&s, "volume", MNT_DETACH), ==, 0);
    g_assert_cmpuint(lookup(&s, PT_ROOT_ID, "volume").nodeid, ==, before.nodeid);
    g_assert_cmpint(lookup_error(&s, before.nodeid, "data"), ==, -ENOENT);
    pt_forget(s.fs, mounted.nodeid, 2);
    pt_forget(s.fs, data.nodeid, 1);
    g_assert_cmpuint(n_mounts(&s), ==, 1);
    scratch_close(&s);
}

/* After the last FORGET nothing keeps the volume busy. */
static void test_volume_is_released(void)
{
    Scratch s = scratch_open();
    mkdir_at(&s, "volume");
    mount_at(&s, "volume", "tmpfs", NULL);
    host_write(&s, "volume/data", "1");
    uint64_t volume = lookup(&s, PT_ROOT_ID, "volume").nodeid;
    uint64_t data = lookup(&s, volume, "data").nodeid;
    uint64_t handle = open_node(&s, data, O_RDWR).handle;
    struct statvfs about;
    g_assert_cmpint(pt_statfs(s.fs, data, &about), ==, 0);
    g_assert_cmpint(pt_syncfs(s.fs, volume), ==, 0);
    pt_forget(s.fs, volume, 1);
    g_assert_cmpint(umount_at(&s, "volume", 0), ==, -EBUSY);
    pt_forget(s.fs, data, 1);
    g_assert_cmpint(umount_at(&s, "volume", 0), ==, -EBUSY);
    g_assert_cmpint(pt_release(s.fs, data, handle), ==, 0);
    g_assert_cmpint(umount_at(&s, "volume", 0), ==, 0);
    g_assert_cmpuint(n_mounts(&s), ==, 1);
    scratch_close(&s);
}

static void test_not_announced(void)
{
    PtConfig config = scratch_config();
    config.announce_submounts = false;
    Scratch s = scratch_open_with(&config);
    mkdir_at(&s, "volume");
    mount_at(&s, "volume", "tmpfs", NULL);
    PtEntry entry = lookup(&s, PT_ROOT_ID, "volume");
    g_assert_cmpuint(entry.attr.flags, ==, 0);
    pt_forget(s.fs, entry.nodeid, 1);
    g_assert_cmpint(umount_at(&s, "volume", 0), ==, 0);
    scratch_close(&s);
}

static void test_binds(void)
{
    Scratch s = scratch_open();
    mkdir_at(&s, "a");
    mkdir_at(&s, "b");
    host_write(&s, "a/file", "from a");
    host_write(&s, "target", "below");
    uint64_t below = lookup(&s, PT_ROOT_ID, "target").nodeid;
    bind_at(&s, "a", "b");
    bind_at(&s, "a/file", "target");
    PtEntry a = lookup(&s, PT_ROOT_ID, "a");
    PtEntry b = lookup(&s, PT_ROOT_ID, "b");
    /* One directory under two mounts is two nodes: the guest mounts the second. */
    g_assert_cmpuint(a.attr.stx.stx_ino, ==, b.attr.stx.stx_ino);
    g_assert_cmpuint(a.nodeid, !=, b.nodeid);
    g_assert_cmpuint(a.attr.flags, ==, 0);
    g_assert_cmpuint(b.attr.flags, ==, PT_ATTR_SUBMOUNT);
    /* A file over a file. */
    PtEntry target = lookup(&s, PT_ROOT_ID, "target");
    g_assert_cmpuint(target.nodeid, !=, below);
    g_assert_cmpuint(target.attr.stx.stx_size, ==, 6);
    g_assert_cmpuint(target.attr.flags, ==, 0);
    g_assert_cmpint(pt_unlink(s.fs, PT_ROOT_ID, "target"), ==, -EBUSY);
    PtEntry entry;
    g_assert_cmpint(pt_link(s.fs, target.nodeid, PT_ROOT_ID, "x", &entry), ==, -EXDEV);
    g_assert_cmpint(umount_at(&s, "target", MNT_DETACH), ==, 0);
    g_assert_cmpuint(lookup(&s, PT_ROOT_ID, "target").nodeid, ==, below);
    g_assert_cmpint(umount_at(&s, "b", MNT_DETACH), ==, 0);
    scratch_close(&s);
}

/* Listing a directory with a mount in it: the entry's own number is the covered one's. */
static void test_listed(void)
{
    Scratch s = scratch_open();
    PtOpened opened;
    PtDirent dirent;
    PtEntry entry;
    mkdir_at(&s, "volume");
    uint64_t below = lookup(&s, PT_ROOT_ID, "volume").nodeid;
    mount_at(&s, "volume", "tmpfs", NULL);
    g_assert_cmpint(pt_opendir(s.fs, PT_ROOT_ID, 0, &opened), ==, 0);
    for (int i = 0; i < 2; i++) {
        g_auto(PtDirCursor) cursor = {0};
        int found = 0;
        g_assert_cmpint(pt_dir_begin(s.fs, PT_ROOT_ID, opened.handle, 0, &cursor), ==, 0);
        while (pt_dir_next(&cursor, &dirent) == 1) {
            g_assert_cmpint(pt_dir_lookup(&cursor, &dirent, &entry), ==, 0);
            if (entry.nodeid != 0) {
                found++;
                g_assert_cmpuint(entry.nodeid, !=, below);
                g_assert_cmpuint(entry.attr.flags, ==, PT_ATTR_SUBMOUNT);
            }
        }
        g_assert_cmpint(found, ==, 1);
        pt_forget(s.fs, below, 1);
    }
    pt_fs_reset(s.fs);
    g_assert_cmpint(umount_at(&s, "volume", 0), ==, 0);
    scratch_close(&s);
}

/* ---- file systems that are not trusted with numbers ------------------------------- */

static void check_remote(const char *type, const char *name)
{
    Scratch s = scratch_open();
    mkdir_at(&s, "m");
    mount_at(&s, "m", type, NULL);
    uint64_t m = lookup(&s, PT_ROOT_ID, "m").nodeid;
    PtEntry entry = lookup(&s, m, name);
    for (int i = 0; i < 10; i++) {
        g_assert_cmpuint(lookup(&s, m, name).nodeid, ==, entry.nodeid);
    }
    g_assert_cmpint(lookup_error(&s, m, "no such name"), ==, -ENOENT);
    g_assert_cmpuint(scratch_stats(&s).inodes, ==, 3);
    pt_fs_reset(s.fs);
    g_assert_cmpint(umount_at(&s, "m", 0), ==, 0);
    scratch_close(&s);
}

static void test_remote(void)
{
    check_remote("proc", "version"); /* has no file handles */
    check_remote("sysfs", "kernel"); /* has */
}

static void test_remote_is_flushed(void)
{
    Scratch s = scratch_open();
    mkdir_at(&s, "m");
    mount_at(&s, "m", "proc", NULL);
    uint64_t node = lookup(&s, PT_ROOT_ID, "m").nodeid;
    node = lookup(&s, node, "sys").nodeid;
    node = lookup(&s, node, "kernel").nodeid;
    node = lookup(&s, node, "hostname").nodeid;
    PtOpened opened = open_node(&s, node, O_RDONLY);
    g_assert_cmphex(opened.flags, ==, PT_OPEN_NOFLUSH);
    opened = open_node(&s, node, O_RDWR);
    g_assert_cmphex(opened.flags, ==, 0);
    int fds = count_fds();
    g_assert_cmpint(pt_flush(s.fs, node, opened.handle), ==, 0);
    g_assert_cmpint(count_fds(), ==, fds);
    pt_fs_reset(s.fs);
    g_assert_cmpint(umount_at(&s, "m", 0), ==, 0);
    scratch_close(&s);
}

/* ---- overlayfs -------------------------------------------------------------------- */

/* A scratch directory whose share is an overlay without index: hard links in its lower
 * layer are different files with one number. */
typedef struct Overlay {
    Scratch base;
    Scratch s; /* .dir is the overlay's */
} Overlay;

static void write_lower(const Scratch *base)
{
    mkdir_at(base, "lower");
    host_write(base, "lower/a", "old");
    g_assert_cmpint(linkat(base->dir, "lower/a", base->dir, "lower/b", 0), ==, 0);
    g_assert_cmpint(linkat(base->dir, "lower/a", base->dir, "lower/c", 0), ==, 0);
    host_write(base, "lower/single", "old");
    g_assert_cmpint(symlinkat("a", base->dir, "lower/link"), ==, 0);
    g_assert_cmpint(linkat(base->dir, "lower/link", base->dir, "lower/link2", 0), ==, 0);
    g_assert_cmpint(mknodat(base->dir, "lower/pipe", S_IFIFO | 0600, 0), ==, 0);
    g_assert_cmpint(linkat(base->dir, "lower/pipe", base->dir, "lower/pipe2", 0), ==, 0);
    mkdir_at(base, "lower/dir");
    g_assert_cmpint(linkat(base->dir, "lower/a", base->dir, "lower/dir/d", 0), ==, 0);
}

static Overlay overlay_open(void)
{
    Overlay o = {.base = scratch_open()};
    g_autofree char *path = path_of(&o.base, "merged");
    g_autofree char *options =
        g_strdup_printf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work,index=off",
                        o.base.path, o.base.path, o.base.path);
    write_lower(&o.base);
    mkdir_at(&o.base, "upper");
    mkdir_at(&o.base, "work");
    mkdir_at(&o.base, "merged");
    mount_at(&o.base, "merged", "overlay", options);
    o.s = o.base;
    o.s.dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    g_assert_cmpint(o.s.dir, >=, 0);
    PtConfig config = scratch_config();
    o.s.fs = scratch_fs(path, &config);
    return o;
}

static void overlay_close(Overlay *o)
{
    pt_fs_free(o->s.fs);
    close(o->s.dir);
    g_assert_cmpint(umount_at(&o->base, "merged", 0), ==, 0);
    scratch_close(&o->base);
}

static void write_node(const Scratch *s, uint64_t node, const char *text)
{
    PtOpened opened = open_node(s, node, O_WRONLY);
    g_assert_cmpint(write_text(s, node, opened.handle, 0, text), ==, (int)strlen(text));
    g_assert_cmpint(pt_release(s->fs, node, opened.handle), ==, 0);
}

static void assert_text(const Scratch *s, const char *name, const char *want)
{
    char buffer[16] = {0};
    int fd = openat(s->dir, name, O_RDONLY | O_CLOEXEC);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(read(fd, buffer, sizeof(buffer) - 1), >=, 0);
    close(fd);
    g_assert_cmpstr(buffer, ==, want);
}

static void test_overlay_hard_links(void)
{
    Overlay o = overlay_open();
    PtEntry a = lookup(&o.s, PT_ROOT_ID, "a");
    PtEntry b = lookup(&o.s, PT_ROOT_ID, "b");
    g_assert_cmpuint(a.attr.stx.stx_ino, ==, b.attr.stx.stx_ino);
    g_assert_cmpuint(a.attr.stx.stx_nlink, >, 1);
    g_assert_cmpuint(a.nodeid, !=, b.nodeid);
    g_assert_cmpuint(lookup(&o.s, PT_ROOT_ID, "a").nodeid, ==, a.nodeid);
    g_assert_cmpuint(lookup(&o.s, PT_ROOT_ID, "b").nodeid, ==, b.nodeid);
    /* A write meant for one reaches that one, and the guest keeps its node. */
    write_node(&o.s, b.nodeid, "new");
    assert_text(&o.s, "a", "old");
    assert_text(&o.s, "b", "new");
    g_assert_cmpuint(host_stat(&o.s, "b").st_ino, !=, a.attr.stx.stx_ino);
    g_assert_cmpuint(lookup(&o.s, PT_ROOT_ID, "b").nodeid, ==, b.nodeid);
    g_assert_cmpuint(lookup(&o.s, PT_ROOT_ID, "b").nodeid, ==, b.nodeid);
    g_assert_cmpuint(lookup(&o.s, PT_ROOT_ID, "a").nodeid, ==, a.nodeid);
    write_node(&o.s, a.nodeid, "aaa");
    assert_text(&o.s, "a", "aaa");
    assert_text(&o.s, "b", "new");
    assert_text(&o.s, "c", "old");
    g_assert_cmpuint(lookup(&o.s, PT_ROOT_ID, "a").nodeid, ==, a.nodeid);
    g_assert_cmpuint(lookup(&o.s, PT_ROOT_ID, "c").nodeid, !=, a.nodeid);
    g_assert_cmpuint(scratch_stats(&o.s).inodes, ==, 4);
    overlay_close(&o);
}

/* Symbolic links and pipes have hard links, too. */
static void test_overlay_any_type(void)
{
    static const char *const names[][2] = {{"link", "link2"}, {"pipe", "pipe2"}};
    Overlay o = overlay_open();
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        PtEntry one = lookup(&o.s, PT_ROOT_ID, names[i][0]);
        uint64_t other = lookup(&o.s, PT_ROOT_ID, names[i][1]).nodeid;
        g_assert_cmpuint(one.attr.stx.stx_nlink, ==, 2);
        g_assert_cmpuint(one.nodeid, !=, other);
        PtSetattr set = {.valid = PT_SET_UID, .handle = PT_NO_HANDLE, .uid = 7};
        PtAttr attr;
        g_assert_cmpint(pt_setattr(o.s.fs, one.nodeid, &set, &attr), ==, 0);
        g_assert_cmpuint(host_stat(&o.s, names[i][0]).st_uid, ==, 7);
        g_assert_cmpuint(host_stat(&o.s, names[i][1]).st_uid, ==, 0);
        g_assert_cmpuint(lookup(&o.s, PT_ROOT_ID, names[i][0]).nodeid, ==, one.nodeid);
        PtEntry again = lookup(&o.s, PT_ROOT_ID, names[i][1]);
        g_assert_cmpuint(again.nodeid, ==, other);
        g_assert_cmpuint(again.attr.stx.stx_uid, ==, 0);
    }
    overlay_close(&o);
}

static int rename_in_root(const Scratch *s, const char *from, const char *to,
                          uint32_t flags)
{
    PtRename rename = {PT_ROOT_ID, from, PT_ROOT_ID, to, flags, &root_caller};
    return pt_rename(s->fs, &rename);
}

static void test_overlay_rename(void)
{
    Overlay o = overlay_open();
    uint64_t a = lookup(&o.s, PT_ROOT_ID, "a").nodeid;
    uint64_t b = lookup(&o.s, PT_ROOT_ID, "b").nodeid;
    uint64_t c = lookup(&o.s, PT_ROOT_ID, "c").nodeid;
    uint64_t dir = lookup(&o.s, PT_ROOT_ID, "dir").nodeid;
    uint64_t d = lookup(&o.s, dir, "d").nodeid;
    g_assert_cmpint(rename_in_root(&o.s, "a", "a2", 0), ==, 0);
    g_assert_cmpuint(lookup(&o.s, PT_ROOT_ID, "a2").nodeid, ==, a);
    /* What is there now under the old name is somebody else. */
    g_assert_cmpint(lookup_error(&o.s, PT_ROOT_ID, "a"), ==, -ENOENT);
    g_assert_cmpint(rename_in_root(&o.s, "b", "c", RENAME_EXCHANGE), ==, 0);
    g_assert_cmpuint(lookup(&o.s, PT_ROOT_ID, "c").nodeid, ==, b);
    g_assert_cmpuint(lookup(&o.s, PT_ROOT_ID, "b").nodeid, ==, c);
    PtRename up = {dir, "d", PT_ROOT_ID, "b", 0, &root_caller};
    g_assert_cmpint(pt_rename(o.s.fs, &up), ==, 0);
    g_assert_cmpuint(lookup(&o.s, PT_ROOT_ID, "b").nodeid, ==, d);
    write_node(&o.s, c, "ccc");
    write_node(&o.s, d, "ddd");
    assert_text(&o.s, "a2", "old");
    assert_text(&o.s, "b", "ddd");
    assert_text(&o.s, "c", "old");
    g_assert_cmpuint(o.s.fs->n_linked, ==, 0);
    overlay_close(&o);
}

static void test_overlay_link(void)
{
    Overlay o = overlay_open();
    PtEntry entry;
    uint64_t a = lookup(&o.s, PT_ROOT_ID, "a").nodeid;
    uint64_t b = lookup(&o.s, PT_ROOT_ID, "b").nodeid;
    uint64_t single = lookup(&o.s, PT_ROOT_ID, "single").nodeid;
    /* Links that the guest makes are true ones. */
    g_assert_cmpint(pt_link(o.s.fs, a, PT_ROOT_ID, "a2", &entry), ==, 0);
    g_assert_cmpuint(entry.nodeid, ==, a);
    g_assert_cmpuint(lookup(&o.s, PT_ROOT_ID, "a").nodeid, ==, a);
    g_assert_cmpint(pt_link(o.s.fs, single, PT_ROOT_ID, "single2", &entry), ==, 0);
    g_assert_cmpuint(entry.nodeid, ==, single);
    g_assert_cmpuint(lookup(&o.s, PT_ROOT_ID, "single").nodeid, ==, single);
    write_node(&o.s, a, "aaa");
    assert_text(&o.s, "a2", "aaa");
    assert_text(&o.s, "b", "old");
    g_assert_cmpuint(lookup(&o.s, PT_ROOT_ID, "b").nodeid, ==, b);
    /* As git does it: made, linked, the first name removed. */
    PtOpened opened;
    PtMake make = make_of(&root_caller, PT_ROOT_ID, "tmp", 0444);
    make.open_flags = O_RDWR;
    g_assert_cmpint(pt_create(o.s.fs, &make, &entry, &opened), ==, 0);
    uint64_t made = entry.nodeid;
    g_assert_cmpint(pt_link(o.s.fs, made, PT_ROOT_ID, "object", &entry), ==, 0);
    g_assert_cmpuint(entry.nodeid, ==, made);
    g_assert_cmpuint(lookup(&o.s, PT_ROOT_ID, "tmp").nodeid, ==, made);
    g_assert_cmpint(pt_unlink(o.s.fs, PT_ROOT_ID, "tmp"), ==, 0);
    g_assert_cmpuint(lookup(&o.s, PT_ROOT_ID, "object").nodeid, ==, made);
    overlay_close(&o);
}

/* The name of a known hard link goes to another file. */
static void test_overlay_replaced(void)
{
    Overlay o = overlay_open();
    uint64_t a = lookup(&o.s, PT_ROOT_ID, "a").nodeid;
    g_assert_cmpint(pt_unlink(o.s.fs, PT_ROOT_ID, "a"), ==, 0);
    g_assert_cmpint(lookup_error(&o.s, PT_ROOT_ID, "a"), ==, -ENOENT);
    host_write(&o.s, "a", "another");
    PtEntry again = lookup(&o.s, PT_ROOT_ID, "a");
    g_assert_cmpuint(again.nodeid, !=, a);
    g_assert_cmpuint(lookup(&o.s, PT_ROOT_ID, "a").nodeid, ==, again.nodeid);
    /* By the host, with a link of the same number. */
    uint64_t b = lookup(&o.s, PT_ROOT_ID, "b").nodeid;
    g_assert_cmpint(renameat(o.s.dir, "c", o.s.dir, "b"), ==, 0);
    uint64_t now = lookup(&o.s, PT_ROOT_ID, "b").nodeid;
    g_assert_cmpuint(now, !=, b);
    write_node(&o.s, now, "new");
    assert_text(&o.s, "b", "new");
    overlay_close(&o);
}

/* A copy-up changes the time of birth, and keeps the number of a file with one link. */
static void test_overlay_copy_up(void)
{
    Overlay o = overlay_open();
    PtEntry single = lookup(&o.s, PT_ROOT_ID, "single");
    uint64_t dir = lookup(&o.s, PT_ROOT_ID, "dir").nodeid;
    for (int i = 0; i < 3; i++) {
        write_node(&o.s, single.nodeid, "new");
        PtEntry again = lookup(&o.s, PT_ROOT_ID, "single");
        g_assert_cmpuint(again.nodeid, ==, single.nodeid);
        g_assert_cmpuint(again.attr.stx.stx_ino, ==, single.attr.stx.stx_ino);
        make_dir(&o.s, dir, i == 0 ? "x" : i == 1 ? "y" : "z");
        g_assert_cmpuint(lookup(&o.s, PT_ROOT_ID, "dir").nodeid, ==, dir);
    }
    g_assert_cmpuint(scratch_stats(&o.s).inodes, ==, 6);
    overlay_close(&o);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (!need_root()) {
        return 0;
    }
    if (unshare(CLONE_NEWNS) < 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        printf("1..0 # SKIP no mount namespace here: errno %d\n", errno);
        return 0;
    }
    g_test_add_func("/mount/volume-comes-and-goes", test_volume_comes_and_goes);
    g_test_add_func("/mount/volume-is-released", test_volume_is_released);
    g_test_add_func("/mount/not-announced", test_not_announced);
    g_test_add_func("/mount/binds", test_binds);
    g_test_add_func("/mount/listed", test_listed);
    g_test_add_func("/mount/remote", test_remote);
    g_test_add_func("/mount/remote-is-flushed", test_remote_is_flushed);
    g_test_add_func("/mount/overlay-hard-links", test_overlay_hard_links);
    g_test_add_func("/mount/overlay-any-type", test_overlay_any_type);
    g_test_add_func("/mount/overlay-rename", test_overlay_rename);
    g_test_add_func("/mount/overlay-link", test_overlay_link);
    g_test_add_func("/mount/overlay-replaced", test_overlay_replaced);
    g_test_add_func("/mount/overlay-copy-up", test_overlay_copy_up);
    return g_test_run();
}
