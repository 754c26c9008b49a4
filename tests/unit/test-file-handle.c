/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/by-name.h"

#include <sys/mount.h>

#include "passthrough/file-handle.h"

/*
 * Inodes that are held by file handle: no descriptor between requests, and no other file
 * behind the handle of one that is gone. Runs in a mount namespace of its own.
 */

static const uint64_t root = PT_ROOT_ID;

static Scratch scratch_handles_with(PtInodeHandles how, uint32_t max_descriptors)
{
    PtConfig config = scratch_config();
    config.inode_handles = how;
    config.max_descriptors = max_descriptors;
    return scratch_open_with(&config);
}

static Scratch scratch_handles(void)
{
    return scratch_handles_with(PT_INODE_HANDLES_MANDATORY, 100);
}

/* The root's, and the mount's. */
static void assert_few_open(const Scratch *s)
{
    g_assert_cmpuint(scratch_stats(s).descriptors, ==, 2);
}

static void test_nothing_open(void)
{
    enum { MANY = 200 };
    uint64_t ids[MANY];
    char name[8];
    Scratch s = scratch_handles();
    for (int i = 0; i < MANY; i++) {
        g_snprintf(name, sizeof(name), "%d", i);
        host_write(&s, name, "x");
        ids[i] = i % 2 ? listed(&s, root, name) : lookup(&s, root, name).nodeid;
        g_assert_cmpint(inode_of(&s, ids[i])->held, ==, PT_HELD_HANDLE);
        assert_few_open(&s);
    }
    for (int i = 0; i < MANY; i++) {
        g_snprintf(name, sizeof(name), "%d", i);
        g_assert_cmpuint(ids[i], ==, lookup(&s, root, name).nodeid);
        g_assert_cmpuint(getattr(&s, ids[i]).stx.stx_ino, ==, host_stat(&s, name).st_ino);
        g_assert_cmpint(content(&s, ids[i]), ==, 'x');
    }
    assert_few_open(&s);
    for (int i = 0; i < MANY; i++) {
        pt_forget(s.fs, ids[i], 2);
    }
    assert_few_open(&s);
    g_assert_cmpuint(scratch_stats(&s).inodes, ==, 1);
    scratch_close(&s);
}

static void test_every_type(void)
{
    Scratch s = scratch_handles();
    char target[16];
    host_mkdir(&s, "directory");
    host_write(&s, "directory/file", "f");
    g_assert_cmpint(symlinkat("target", s.dir, "link"), ==, 0);
    g_assert_cmpint(mknodat(s.dir, "fifo", S_IFIFO | 0600, 0), ==, 0);
    uint64_t link = lookup(&s, root, "link").nodeid;
    uint64_t directory = lookup(&s, root, "directory").nodeid;
    g_assert_cmpint(pt_readlink(s.fs, link, target, sizeof(target)), ==, 6);
    g_assert_true(S_ISFIFO(getattr(&s, lookup(&s, root, "fifo").nodeid).stx.stx_mode));
    g_assert_cmpint(content(&s, lookup(&s, directory, "file").nodeid), ==, 'f');
    assert_few_open(&s);
    scratch_close(&s);
}

/* A handle follows what the guest does and what the host does, and ends with the file. */
static void test_names_change(void)
{
    Scratch s = scratch_handles();
    host_mkdir(&s, "d");
    host_write(&s, "a", "a");
    host_write(&s, "b", "b");
    uint64_t a = lookup(&s, root, "a").nodeid;
    uint64_t b = lookup(&s, root, "b").nodeid;
    uint64_t d = lookup(&s, root, "d").nodeid;
    g_assert_cmpint(guest_rename(&s, root, "a", d, "x", 0), ==, 0);
    g_assert_cmpint(content(&s, a), ==, 'a');
    g_assert_cmpuint(lookup(&s, d, "x").nodeid, ==, a);
    host_rename(&s, "d/x", "elsewhere");
    g_assert_cmpint(content(&s, a), ==, 'a');
    host_rename(&s, "elsewhere", "b");
    g_assert_cmpint(getattr_error(&s, b), ==, -ESTALE);
    g_assert_cmpuint(lookup(&s, root, "b").nodeid, ==, a);
    g_assert_cmpint(content(&s, a), ==, 'a');
    scratch_close(&s);
}

static void test_number_used_again(void)
{
    Scratch s = scratch_handles();
    host_write(&s, "a", "a");
    uint64_t a = lookup(&s, root, "a").nodeid;
    ino_t ino = host_stat(&s, "a").st_ino;
    for (int i = 0; i < 1000; i++) {
        g_assert_cmpint(unlinkat(s.dir, "a", 0), ==, 0);
        host_write(&s, "a", "z");
        if (host_stat(&s, "a").st_ino == ino) {
            break;
        }
    }
    g_assert_cmpint(getattr_error(&s, a), ==, -ESTALE);
    uint64_t now = lookup(&s, root, "a").nodeid;
    g_assert_cmpuint(now, !=, a);
    g_assert_cmpint(content(&s, now), ==, 'z');
    scratch_close(&s);
}

static void test_removed_while_open(void)
{
    Scratch s = scratch_handles();
    char byte;
    host_write(&s, "a", "a");
    uint64_t a = lookup(&s, root, "a").nodeid;
    uint64_t handle = open_node(&s, a, O_RDWR).handle;
    g_assert_cmpint(pt_unlink(s.fs, root, "a"), ==, 0);
    g_assert_cmpuint(getattr(&s, a).stx.stx_nlink, ==, 0);
    g_assert_cmpint(read_text(&s, a, handle, 0, &byte, 1), ==, 1);
    g_assert_cmpint(pt_release(s.fs, a, handle), ==, 0);
    g_assert_cmpint(getattr_error(&s, a), ==, -ESTALE);
    scratch_close(&s);
}

static void test_made_by_the_guest(void)
{
    Scratch s = scratch_handles();
    PtEntry made, entry;
    PtOpened opened;
    PtMake make = make_of(&root_caller, root, "d", 0755);
    g_assert_cmpint(pt_mkdir(s.fs, &make, &made), ==, 0);
    make = make_of(&root_caller, made.nodeid, "f", 0644);
    make.open_flags = O_RDWR;
    g_assert_cmpint(pt_create(s.fs, &make, &entry, &opened), ==, 0);
    g_assert_cmpint(pt_release(s.fs, entry.nodeid, opened.handle), ==, 0);
    g_assert_cmpint(pt_link(s.fs, entry.nodeid, root, "linked", &entry), ==, 0);
    g_assert_cmpuint(entry.attr.stx.stx_nlink, ==, 2);
    assert_few_open(&s);
    scratch_close(&s);
}

/* The guest has everything open, and looks up all the same. */
static void test_all_open(void)
{
    enum { FEW = 8 };
    PtOpened opened[FEW];
    PtEntry entry;
    Scratch s = scratch_handles_with(PT_INODE_HANDLES_PREFER, FEW);
    host_write(&s, "a", "a");
    host_write(&s, "b", "b");
    uint64_t a = lookup(&s, root, "a").nodeid;
    int n = 0;
    while (pt_open(s.fs, a, O_RDWR, false, &opened[n]) == 0) {
        n++;
        g_assert_cmpint(n, <, FEW);
    }
    g_assert_cmpint(n, ==, FEW - 2);
    uint64_t b = lookup(&s, root, "b").nodeid;
    g_assert_cmpint(getattr_error(&s, b), ==, 0);
    PtMake make = make_of(&root_caller, root, "d", 0755);
    g_assert_cmpint(pt_mkdir(s.fs, &make, &entry), ==, 0);
    while (n-- > 0) {
        g_assert_cmpint(pt_release(s.fs, a, opened[n].handle), ==, 0);
    }
    assert_few_open(&s);
    scratch_close(&s);
}

/* ---- mounts ------------------------------------------------------------------------ */

static void mount_at(const Scratch *s, const char *name, const char *type)
{
    g_autofree char *path = g_build_filename(s->path, name, NULL);
    g_assert_cmpint(mkdir(path, 0755), ==, 0);
    g_assert_cmpint(mount("none", path, type, 0, NULL), ==, 0);
}

static int umount_at(const Scratch *s, const char *name, int flags)
{
    g_autofree char *path = g_build_filename(s->path, name, NULL);
    return umount2(path, flags) < 0 ? -errno : 0;
}

/* The mount is busy for as long as the guest knows a file of it, and no longer. */
static void test_mount(void)
{
    Scratch s = scratch_handles();
    mount_at(&s, "a volume", "tmpfs");
    host_write(&s, "a volume/file", "f");
    uint64_t volume = lookup(&s, root, "a volume").nodeid;
    uint64_t file = lookup(&s, volume, "file").nodeid;
    g_assert_cmpint(content(&s, file), ==, 'f');
    g_assert_cmpuint(scratch_stats(&s).descriptors, ==, 3);
    pt_forget(s.fs, volume, 1);
    g_assert_cmpint(umount_at(&s, "a volume", 0), ==, -EBUSY);
    g_assert_cmpint(content(&s, file), ==, 'f');
    pt_forget(s.fs, file, 1);
    g_assert_cmpint(umount_at(&s, "a volume", 0), ==, 0);
    assert_few_open(&s);
    scratch_close(&s);
}

static void test_mount_vanishes(void)
{
    Scratch s = scratch_handles();
    mount_at(&s, "volume", "tmpfs");
    host_write(&s, "volume/file", "f");
    uint64_t volume = lookup(&s, root, "volume").nodeid;
    uint64_t file = lookup(&s, volume, "file").nodeid;
    g_assert_cmpint(umount_at(&s, "volume", MNT_DETACH), ==, 0);
    uint64_t beneath = lookup(&s, root, "volume").nodeid;
    g_assert_cmpuint(beneath, !=, volume);
    g_assert_cmpint(lookup_error(&s, beneath, "file"), ==, -ENOENT);
    g_assert_cmpint(content(&s, file), ==, 'f');
    pt_forget(s.fs, volume, 1);
    pt_forget(s.fs, file, 1);
    assert_few_open(&s);
    scratch_close(&s);
}

/* A file system without handles: devpts has none, for one. */
static void test_mount_without_handles(void)
{
    Scratch s = scratch_handles();
    mount_at(&s, "pts", "devpts");
    g_assert_cmpint(lookup_error(&s, root, "pts"), ==, -EOPNOTSUPP);
    assert_few_open(&s);
    s.fs->config.inode_handles = PT_INODE_HANDLES_PREFER;
    uint64_t pts = lookup(&s, root, "pts").nodeid;
    g_assert_cmpint(inode_of(&s, pts)->held, ==, PT_HELD_OPEN);
    g_assert_cmpint(getattr_error(&s, lookup(&s, pts, "ptmx").nodeid), ==, 0);
    pt_fs_reset(s.fs);
    assert_few_open(&s);
    g_assert_cmpint(umount_at(&s, "pts", 0), ==, 0);
    scratch_close(&s);
}

/* ---- the root ---------------------------------------------------------------------- */

static PtFs *fs_without_handles(const char *path, PtInodeHandles how, GError **error)
{
    PtConfig config = scratch_config();
    config.inode_handles = how;
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int procfd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return pt_fs_new(&config, fd, procfd, error);
}

static void test_root_without_handles(void)
{
    int before = count_fds();
    g_autoptr(GError) error = NULL;
    g_autofree char *path = g_dir_make_tmp("pt-scratch-XXXXXX", NULL);
    g_assert_cmpint(mount("none", path, "devpts", 0, NULL), ==, 0);
    g_assert_null(fs_without_handles(path, PT_INODE_HANDLES_MANDATORY, &error));
    g_assert_nonnull(strstr(error->message, "does not open files by handle"));
    PtFs *fs = fs_without_handles(path, PT_INODE_HANDLES_PREFER, NULL);
    g_assert_nonnull(fs);
    g_assert_cmpint(fs->config.inode_handles, ==, PT_INODE_HANDLES_NEVER);
    pt_fs_free(fs);
    g_assert_cmpint(umount(path), ==, 0);
    g_assert_cmpint(rmdir(path), ==, 0);
    g_assert_cmpint(count_fds(), ==, before);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (!need_root()) {
        return 0;
    }
    g_assert_cmpint(unshare(CLONE_NEWNS), ==, 0);
    g_assert_cmpint(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), ==, 0);
    g_test_add_func("/file-handle/nothing-open", test_nothing_open);
    g_test_add_func("/file-handle/every-type", test_every_type);
    g_test_add_func("/file-handle/names-change", test_names_change);
    g_test_add_func("/file-handle/number-used-again", test_number_used_again);
    g_test_add_func("/file-handle/removed-while-open", test_removed_while_open);
    g_test_add_func("/file-handle/made-by-the-guest", test_made_by_the_guest);
    g_test_add_func("/file-handle/all-open", test_all_open);
    g_test_add_func("/file-handle/mount", test_mount);
    g_test_add_func("/file-handle/mount-vanishes", test_mount_vanishes);
    g_test_add_func("/file-handle/mount-without-handles", test_mount_without_handles);
    g_test_add_func("/file-handle/root-without-handles", test_root_without_handles);
    return g_test_run();
}
