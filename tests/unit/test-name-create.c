/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/scratch.h"

#include <sys/mount.h>

/*
 * TMPFILE: a file without a name, which LINK may give one. CREATE in a share that nobody
 * may change. What else CREATE does is with names, files and identities.
 */

typedef struct Made {
    PtEntry entry;
    PtOpened opened;
} Made;

static int tmpfile_in(const Scratch *s, const PtCaller *caller, uint64_t parent,
                      uint32_t flags, Made *ret)
{
    PtMake make = {
        .caller = caller, .parent = parent, .mode = S_IFREG | 0640, .open_flags = flags};
    return pt_tmpfile(s->fs, &make, &ret->entry, &ret->opened);
}

static int count_names(const char *path)
{
    GDir *dir = g_dir_open(path, 0, NULL);
    int n = 0;
    while (g_dir_read_name(dir) != NULL) {
        n++;
    }
    g_dir_close(dir);
    return n;
}

static void check_life(const Scratch *s, uint64_t parent, const char *folder)
{
    g_autofree char *path = g_build_filename(s->path, folder, NULL);
    Made made;
    PtEntry entry;
    PtAttr attr;
    char buffer[8];
    int names = count_names(path);
    g_assert_cmpint(tmpfile_in(s, &root_caller, parent, O_RDWR, &made), ==, 0);
    uint64_t f = made.entry.nodeid;
    g_assert_cmpuint(made.entry.attr.stx.stx_mode, ==, S_IFREG | 0640);
    g_assert_cmpuint(made.entry.attr.stx.stx_nlink, ==, 0);
    g_assert_cmpint(count_names(path), ==, names);
    g_assert_cmpint(write_text(s, f, made.opened.handle, 0, "text"), ==, 4);
    g_assert_cmpint(pt_getattr(s->fs, f, PT_NO_HANDLE, &attr), ==, 0);
    g_assert_cmpuint(attr.stx.stx_size, ==, 4);
    g_assert_cmpuint(attr.stx.stx_nlink, ==, 0);
    /* The second descriptor is of the same file. */
    uint64_t again = open_node(s, f, O_RDONLY).handle;
    g_assert_cmpint(read_text(s, f, again, 0, buffer, 8), ==, 4);
    g_assert_cmpint(pt_link(s->fs, f, parent, "named", &entry), ==, 0);
    g_assert_cmpuint(entry.nodeid, ==, f);
    g_assert_cmpuint(entry.attr.stx.stx_nlink, ==, 1);
    g_assert_cmpint(count_names(path), ==, names + 1);
    g_assert_cmpuint(lookup(s, parent, "named").nodeid, ==, f);
    g_assert_cmpint(pt_release(s->fs, f, made.opened.handle), ==, 0);
    g_assert_cmpint(pt_release(s->fs, f, again), ==, 0);
    pt_forget(s->fs, f, 3);
    g_assert_cmpint(pt_getattr(s->fs, f, PT_NO_HANDLE, &attr), ==, -ESTALE);
}

static void test_tmpfile(void)
{
    Scratch s = scratch_open();
    make_dir(&s, PT_ROOT_ID, "dir");
    check_life(&s, PT_ROOT_ID, ".");
    check_life(&s, lookup(&s, PT_ROOT_ID, "dir").nodeid, "dir");
    scratch_close(&s);
}

static void test_on_tmpfs_and_overlay(void)
{
    Scratch s = scratch_open();
    g_autofree char *tmpfs = g_build_filename(s.path, "tmpfs", NULL);
    g_autofree char *overlay = g_build_filename(s.path, "overlay", NULL);
    g_autofree char *options =
        g_strdup_printf("lowerdir=%s/l,upperdir=%s/u,workdir=%s/w", tmpfs, tmpfs, tmpfs);
    g_assert_cmpint(mkdir(tmpfs, 0755), ==, 0);
    g_assert_cmpint(mkdir(overlay, 0755), ==, 0);
    g_assert_cmpint(mount("none", tmpfs, "tmpfs", 0, NULL), ==, 0);
    for (const char *name = "luw"; *name != '\0'; name++) {
        g_autofree char *path = g_strdup_printf("%s/%c", tmpfs, *name);
        g_assert_cmpint(mkdir(path, 0755), ==, 0);
    }
    check_life(&s, lookup(&s, PT_ROOT_ID, "tmpfs").nodeid, "tmpfs");
    if (mount("none", overlay, "overlay", 0, options) == 0) {
        check_life(&s, lookup(&s, PT_ROOT_ID, "overlay").nodeid, "overlay");
        pt_fs_reset(s.fs);
        g_assert_cmpint(umount2(overlay, 0), ==, 0);
    }
    pt_fs_reset(s.fs);
    g_assert_cmpint(umount2(tmpfs, 0), ==, 0);
    scratch_close(&s);
}

static void test_never_linked(void)
{
    Scratch s = scratch_open();
    Made made;
    PtEntry entry;
    g_assert_cmpint(tmpfile_in(&s, &root_caller, PT_ROOT_ID, O_RDWR | O_EXCL, &made), ==,
                    0);
    g_assert_cmpint(pt_link(s.fs, made.entry.nodeid, PT_ROOT_ID, "x", &entry), ==,
                    -ENOENT);
    g_assert_cmpint(count_names(s.path), ==, 0);
    scratch_close(&s);
}

/* Two of them are two, and their numbers come back only when they are gone. */
static void test_many(void)
{
    Scratch s = scratch_open();
    Made made[50];
    for (size_t i = 0; i < G_N_ELEMENTS(made); i++) {
        g_assert_cmpint(tmpfile_in(&s, &root_caller, PT_ROOT_ID, O_RDWR, &made[i]), ==,
                        0);
        for (size_t j = 0; j < i; j++) {
            g_assert_cmpuint(made[i].entry.nodeid, !=, made[j].entry.nodeid);
        }
    }
    g_assert_cmpuint(scratch_stats(&s).inodes, ==, 1 + G_N_ELEMENTS(made));
    scratch_close(&s);
}

static void test_as_caller(void)
{
    const PtCaller caller = {.uid = 1000, .gid = 1001, .umask = 027};
    Scratch s = scratch_open();
    Made made;
    g_assert_cmpint(tmpfile_in(&s, &caller, PT_ROOT_ID, O_RDWR, &made), ==, 0);
    g_assert_cmpuint(made.entry.attr.stx.stx_uid, ==, 1000);
    g_assert_cmpuint(made.entry.attr.stx.stx_gid, ==, 1001);
    g_assert_cmpuint(made.entry.attr.stx.stx_mode, ==, S_IFREG | 0640);
    /* With the groups sent along, the host checks the directory, too. */
    PtAgreed agreed = {.supp_groups = true};
    pt_fs_agree(s.fs, &agreed);
    g_assert_cmpint(tmpfile_in(&s, &caller, PT_ROOT_ID, O_RDWR, &made), ==, -EACCES);
    g_assert_cmpint(fchmod(s.dir, 0777), ==, 0);
    g_assert_cmpint(tmpfile_in(&s, &caller, PT_ROOT_ID, O_RDWR, &made), ==, 0);
    scratch_close(&s);
}

/* The mode that asks for both permissions and gives neither is a mode that writes. */
static void test_no_access(void)
{
    Scratch s = scratch_open();
    Made made;
    g_assert_cmpint(tmpfile_in(&s, &root_caller, PT_ROOT_ID, O_ACCMODE, &made), ==, 0);
    g_assert_cmpint(write_text(&s, made.entry.nodeid, made.opened.handle, 0, "x"), ==,
                    -EBADF);
    scratch_close(&s);
}

static void test_refused(void)
{
    Scratch s = scratch_open();
    Made made;
    host_write(&s, "f", "1");
    uint64_t f = lookup(&s, PT_ROOT_ID, "f").nodeid;
    g_assert_cmpint(tmpfile_in(&s, &root_caller, f, O_RDWR, &made), ==, -ENOTDIR);
    g_assert_cmpint(tmpfile_in(&s, &root_caller, 4711, O_RDWR, &made), ==, -ESTALE);
    g_assert_cmpint(tmpfile_in(&s, &root_caller, PT_ROOT_ID, O_RDONLY, &made), ==,
                    -EINVAL);
    PtStats stats = scratch_stats(&s);
    g_assert_cmpuint(stats.handles, ==, 0);
    g_assert_cmpuint(stats.descriptors, ==, 2);
    scratch_close(&s);
}

/* ---- CREATE, read-only ------------------------------------------------------------ */

typedef struct CreateCase {
    const char *name;
    uint32_t flags;
    int result;
} CreateCase;

static void check_create(const Scratch *s, const CreateCase *c)
{
    PtEntry entry;
    PtOpened opened;
    char buffer[8];
    PtMake make = make_of(&root_caller, PT_ROOT_ID, c->name, 0644);
    make.open_flags = c->flags | O_CREAT;
    g_test_message("%s %x", c->name, c->flags);
    g_assert_cmpint(pt_create(s->fs, &make, &entry, &opened), ==, c->result);
    if (c->result == 0) {
        g_assert_cmpuint(entry.nodeid, ==, lookup(s, PT_ROOT_ID, c->name).nodeid);
        g_assert_cmpint(read_text(s, entry.nodeid, opened.handle, 0, buffer, 8), ==, 4);
        g_assert_cmpint(write_text(s, entry.nodeid, opened.handle, 0, "x"), ==, -EBADF);
        g_assert_cmpint(pt_release(s->fs, entry.nodeid, opened.handle), ==, 0);
        pt_forget(s->fs, entry.nodeid, 2);
    }
}

static void test_readonly(void)
{
    static const CreateCase cases[] = {
        {"file", O_RDONLY, 0},
        {"file", O_RDONLY | O_APPEND, 0},
        {"file", O_RDONLY | O_EXCL, -EEXIST},
        {"file", O_RDONLY | O_TRUNC, -EROFS},
        {"file", O_WRONLY, -EROFS},
        {"file", O_RDWR, -EROFS},
        {"none", O_RDONLY, -EROFS},
        {"none", O_RDWR | O_EXCL, -EROFS},
        {"dir", O_RDONLY, -EISDIR},
        {"fifo", O_RDONLY, -ENXIO},
        {"link", O_RDONLY, -ELOOP},
        {"link", O_RDONLY | O_EXCL, -EEXIST},
    };
    PtConfig config = scratch_config();
    config.readonly = true;
    Scratch s = scratch_open_with(&config);
    host_write(&s, "file", "text");
    g_assert_cmpint(mkdirat(s.dir, "dir", 0755), ==, 0);
    g_assert_cmpint(mkfifoat(s.dir, "fifo", 0644), ==, 0);
    g_assert_cmpint(symlinkat("none", s.dir, "link"), ==, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        check_create(&s, &cases[i]);
    }
    g_assert_cmpint(lookup_error(&s, PT_ROOT_ID, "none"), ==, -ENOENT);
    g_assert_cmpuint(scratch_stats(&s).inodes, ==, 1);
    g_assert_cmpuint(scratch_stats(&s).handles, ==, 0);
    scratch_close(&s);
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
    g_test_add_func("/name-create/tmpfile", test_tmpfile);
    g_test_add_func("/name-create/on-tmpfs-and-overlay", test_on_tmpfs_and_overlay);
    g_test_add_func("/name-create/never-linked", test_never_linked);
    g_test_add_func("/name-create/many", test_many);
    g_test_add_func("/name-create/as-caller", test_as_caller);
    g_test_add_func("/name-create/no-access", test_no_access);
    g_test_add_func("/name-create/refused", test_refused);
    g_test_add_func("/name-create/readonly", test_readonly);
    return g_test_run();
}
