/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/scratch.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/sysmacros.h>

/*
 * Names: one component each, whatever the request; what is made, renamed, linked and
 * removed is what the host's own calls would give.
 */

/* ---- names that are none ---------------------------------------------------------- */

typedef int (*NameRequest)(const Scratch *s, const char *name);

static int try_lookup(const Scratch *s, const char *name)
{
    return lookup_error(s, PT_ROOT_ID, name);
}

static int try_mkdir(const Scratch *s, const char *name)
{
    PtEntry entry;
    PtMake make = make_of(&root_caller, PT_ROOT_ID, name, 0755);
    return pt_mkdir(s->fs, &make, &entry);
}

static int try_mknod(const Scratch *s, const char *name)
{
    PtEntry entry;
    PtMake make = make_of(&root_caller, PT_ROOT_ID, name, S_IFREG | 0644);
    return pt_mknod(s->fs, &make, &entry);
}

static int try_create(const Scratch *s, const char *name)
{
    PtEntry entry;
    PtOpened opened;
    PtMake make = make_of(&root_caller, PT_ROOT_ID, name, 0644);
    return pt_create(s->fs, &make, &entry, &opened);
}

static int try_symlink(const Scratch *s, const char *name)
{
    PtEntry entry;
    return symlink_as(s->fs, &root_caller, PT_ROOT_ID, name, "target", &entry);
}

static int try_unlink(const Scratch *s, const char *name)
{
    return pt_unlink(s->fs, PT_ROOT_ID, name);
}

static int try_rmdir(const Scratch *s, const char *name)
{
    return pt_rmdir(s->fs, PT_ROOT_ID, name);
}

static int try_rename_from(const Scratch *s, const char *name)
{
    PtRename rename = {PT_ROOT_ID, name, PT_ROOT_ID, "other", 0, &root_caller};
    return pt_rename(s->fs, &rename);
}

static int try_rename_to(const Scratch *s, const char *name)
{
    PtRename rename = {PT_ROOT_ID, "file", PT_ROOT_ID, name, 0, &root_caller};
    return pt_rename(s->fs, &rename);
}

static int try_link(const Scratch *s, const char *name)
{
    PtEntry entry;
    uint64_t file = lookup(s, PT_ROOT_ID, "file").nodeid;
    return pt_link(s->fs, file, PT_ROOT_ID, name, &entry);
}

static const NameRequest name_requests[] = {
    try_lookup, try_mkdir, try_mknod,       try_create,    try_symlink,
    try_unlink, try_rmdir, try_rename_from, try_rename_to, try_link,
};

static void test_bad_names(void)
{
    static const char *const names[] = {
        "",
        ".",
        "..",
        "/",
        "a/b",
        "../x",
        "/etc/passwd",
        "dir/..",
        "dir/new",
        "file/",
        "./file",
        "..//x",
        "dir/",
        "/tmp/x",
        "//",
        "a/",
        "/proc/self/x",
        "x/../..",
        "dir/../..",
        "../../..",
    };
    Scratch s = scratch_open();
    host_write(&s, "file", "1");
    g_assert_cmpint(mkdirat(s.dir, "dir", 0755), ==, 0);
    for (size_t n = 0; n < G_N_ELEMENTS(names); n++) {
        for (size_t r = 0; r < G_N_ELEMENTS(name_requests); r++) {
            g_assert_cmpint(name_requests[r](&s, names[n]), ==, -EINVAL);
        }
    }
    /* Nothing has happened, inside or outside. */
    DIR *dir = fdopendir(dup(s.dir));
    int entries = 0;
    while (readdir(dir) != NULL) {
        entries++;
    }
    closedir(dir);
    g_assert_cmpint(entries, ==, 4);
    scratch_close(&s);
}

static void test_long_names(void)
{
    char name[PT_NAME_MAX + 2];
    Scratch s = scratch_open();
    host_write(&s, "file", "1");
    memset(name, 'n', sizeof(name));
    name[PT_NAME_MAX + 1] = '\0';
    for (size_t r = 0; r < G_N_ELEMENTS(name_requests); r++) {
        g_assert_cmpint(name_requests[r](&s, name), ==, -ENAMETOOLONG);
    }
    name[PT_NAME_MAX] = '\0';
    g_assert_cmpint(try_create(&s, name), ==, 0);
    g_assert_cmpint(try_lookup(&s, name), ==, 0);
    g_assert_cmpint(try_unlink(&s, name), ==, 0);
    scratch_close(&s);
}

static void test_parent_is_no_directory(void)
{
    PtEntry entry;
    PtOpened opened;
    Scratch s = scratch_open();
    host_write(&s, "file", "1");
    g_assert_cmpint(symlinkat("/", s.dir, "link"), ==, 0);
    const char *const parents[] = {"file", "link"};
    for (size_t i = 0; i < G_N_ELEMENTS(parents); i++) {
        uint64_t parent = lookup(&s, PT_ROOT_ID, parents[i]).nodeid;
        PtMake make = make_of(&root_caller, parent, "etc", S_IFREG | 0644);
        g_assert_cmpint(lookup_error(&s, parent, "etc"), ==, -ENOTDIR);
        g_assert_cmpint(pt_mkdir(s.fs, &make, &entry), ==, -ENOTDIR);
        g_assert_cmpint(pt_mknod(s.fs, &make, &entry), ==, -ENOTDIR);
        g_assert_cmpint(pt_create(s.fs, &make, &entry, &opened), ==, -ENOTDIR);
        g_assert_cmpint(pt_unlink(s.fs, parent, "etc"), ==, -ENOTDIR);
        PtRename rename = {PT_ROOT_ID, "file", parent, "etc", 0, &root_caller};
        g_assert_cmpint(pt_rename(s.fs, &rename), ==, -ENOTDIR);
    }
    scratch_close(&s);
}

/* ---- links ------------------------------------------------------------------------ */

static void test_symlinks_are_not_followed(void)
{
    Scratch s = scratch_open();
    PtSetattr set = {.valid = PT_SET_SIZE, .handle = PT_NO_HANDLE};
    PtOpened opened;
    PtAttr attr;
    char buffer[64];
    g_assert_cmpint(symlinkat("/etc", s.dir, "dir"), ==, 0);
    g_assert_cmpint(symlinkat("/etc/passwd", s.dir, "file"), ==, 0);
    g_assert_cmpint(symlinkat("loop", s.dir, "loop"), ==, 0);
    g_assert_cmpint(symlinkat("/proc/self/fd/0", s.dir, "magic"), ==, 0);
    const char *const names[] = {"dir", "file", "loop", "magic"};
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        PtEntry entry = lookup(&s, PT_ROOT_ID, names[i]);
        g_assert_true(S_ISLNK(entry.attr.stx.stx_mode));
        g_assert_cmpint(pt_open(s.fs, entry.nodeid, O_RDONLY, false, &opened), ==,
                        -ELOOP);
        g_assert_cmpint(pt_opendir(s.fs, entry.nodeid, 0, &opened), ==, -ENOTDIR);
        g_assert_cmpint(pt_setattr(s.fs, entry.nodeid, &set, &attr), ==, -EINVAL);
        g_assert_cmpint(pt_syncfs(s.fs, entry.nodeid), ==, -EINVAL);
        ssize_t length = pt_readlink(s.fs, entry.nodeid, buffer, sizeof(buffer));
        char native[64];
        g_assert_cmpint(readlinkat(s.dir, names[i], native, sizeof(native)), ==, length);
        g_assert_cmpint(memcmp(buffer, native, (size_t)length), ==, 0);
        g_assert_cmpint(pt_readlink(s.fs, entry.nodeid, buffer, 2), ==, 2);
    }
    g_assert_cmpint(pt_readlink(s.fs, PT_ROOT_ID, buffer, sizeof(buffer)), ==, -EINVAL);
    scratch_close(&s);
}

static void test_hard_links(void)
{
    PtEntry entry;
    Scratch s = scratch_open();
    host_write(&s, "file", "1");
    g_assert_cmpint(symlinkat("file", s.dir, "sym"), ==, 0);
    uint64_t file = lookup(&s, PT_ROOT_ID, "file").nodeid;
    uint64_t sym = lookup(&s, PT_ROOT_ID, "sym").nodeid;
    uint64_t dir = make_dir(&s, PT_ROOT_ID, "dir").nodeid;
    g_assert_cmpint(pt_link(s.fs, file, dir, "hard", &entry), ==, 0);
    g_assert_cmpuint(entry.nodeid, ==, file);
    g_assert_cmpuint(entry.attr.stx.stx_nlink, ==, 2);
    g_assert_cmpint(pt_link(s.fs, file, dir, "hard", &entry), ==, -EEXIST);
    /* A link to the symbolic link, not to where it leads. */
    g_assert_cmpint(pt_link(s.fs, sym, dir, "sym2", &entry), ==, 0);
    g_assert_cmpuint(entry.nodeid, ==, sym);
    g_assert_true(S_ISLNK(entry.attr.stx.stx_mode));
    g_assert_cmpint(pt_link(s.fs, dir, PT_ROOT_ID, "dir2", &entry), ==, -EPERM);
    g_assert_cmpint(pt_unlink(s.fs, PT_ROOT_ID, "file"), ==, 0);
    g_assert_cmpint(pt_unlink(s.fs, dir, "hard"), ==, 0);
    g_assert_cmpint(pt_link(s.fs, file, dir, "back", &entry), ==, -ENOENT);
    scratch_close(&s);
}

/* ---- making ----------------------------------------------------------------------- */

static void test_mknod(void)
{
    const struct {
        const char *name;
        mode_t mode;
        uint32_t rdev;
        dev_t want;
    } nodes[] = {
        {"reg", S_IFREG | 0640, 77, 0},
        {"fifo", S_IFIFO | 0600, 77, 0},
        {"sock", S_IFSOCK | 0700, 77, 0},
        {"null", S_IFCHR | 0666, 0x103, makedev(1, 3)},
        {"whiteout", S_IFCHR, 0, makedev(0, 0)},
        {"wide", S_IFBLK | 0600, 0xabcde3ff, makedev(0xde3, 0xabcff)},
    };
    Scratch s = scratch_open();
    PtEntry entry;
    for (size_t i = 0; i < G_N_ELEMENTS(nodes); i++) {
        PtMake make = make_of(&root_caller, PT_ROOT_ID, nodes[i].name, nodes[i].mode);
        make.rdev = nodes[i].rdev;
        g_assert_cmpint(pt_mknod(s.fs, &make, &entry), ==, 0);
        g_assert_cmpuint(entry.attr.stx.stx_mode, ==, nodes[i].mode);
        struct stat st = host_stat(&s, nodes[i].name);
        g_assert_cmpuint(st.st_mode, ==, nodes[i].mode);
        g_assert_cmpuint(major(st.st_rdev), ==, major(nodes[i].want));
        g_assert_cmpuint(minor(st.st_rdev), ==, minor(nodes[i].want));
        g_assert_cmpint(pt_mknod(s.fs, &make, &entry), ==, -EEXIST);
    }
    PtMake make = make_of(&root_caller, PT_ROOT_ID, "x", S_IFDIR | 0755);
    g_assert_cmpint(pt_mknod(s.fs, &make, &entry), ==, -EPERM);
    make.mode = S_IFLNK | 0777;
    g_assert_cmpint(pt_mknod(s.fs, &make, &entry), ==, -EINVAL);
    scratch_close(&s);
}

static void test_mkdir_and_remove(void)
{
    Scratch s = scratch_open();
    PtEntry entry;
    PtMake make = make_of(&root_caller, PT_ROOT_ID, "d", S_IFREG | 01777);
    g_assert_cmpint(pt_mkdir(s.fs, &make, &entry), ==, 0);
    g_assert_cmpuint(entry.attr.stx.stx_mode, ==, S_IFDIR | 01777);
    g_assert_cmpint(pt_mkdir(s.fs, &make, &entry), ==, -EEXIST);
    g_assert_cmpint(pt_unlink(s.fs, PT_ROOT_ID, "d"), ==, -EISDIR);
    uint64_t d = lookup(&s, PT_ROOT_ID, "d").nodeid;
    make_dir(&s, d, "sub");
    g_assert_cmpint(pt_rmdir(s.fs, PT_ROOT_ID, "d"), ==, -ENOTEMPTY);
    g_assert_cmpint(pt_rmdir(s.fs, d, "sub"), ==, 0);
    g_assert_cmpint(pt_rmdir(s.fs, PT_ROOT_ID, "d"), ==, 0);
    g_assert_cmpint(pt_rmdir(s.fs, PT_ROOT_ID, "d"), ==, -ENOENT);
    /* In a directory that is gone. */
    make.parent = d;
    g_assert_cmpint(pt_mkdir(s.fs, &make, &entry), ==, -ENOENT);
    g_assert_cmpint(lookup_error(&s, d, "sub"), ==, -ENOENT);
    scratch_close(&s);
}

static void test_symlink_targets(void)
{
    Scratch s = scratch_open();
    PtEntry entry;
    char target[4097];
    memset(target, 't', sizeof(target));
    target[4096] = '\0';
    g_assert_cmpint(symlink_as(s.fs, &root_caller, PT_ROOT_ID, "l", target, &entry), ==,
                    -ENAMETOOLONG);
    g_assert_cmpint(symlink_as(s.fs, &root_caller, PT_ROOT_ID, "l", "", &entry), ==,
                    -ENOENT);
    target[4095] = '\0';
    g_assert_cmpint(symlink_as(s.fs, &root_caller, PT_ROOT_ID, "l", target, &entry), ==,
                    0);
    char buffer[4096];
    g_assert_cmpint(pt_readlink(s.fs, entry.nodeid, buffer, sizeof(buffer)), ==, 4095);
    g_assert_cmpint(
        symlink_as(s.fs, &root_caller, PT_ROOT_ID, "up", "../../x/..", &entry), ==, 0);
    scratch_close(&s);
}

/* ---- renaming --------------------------------------------------------------------- */

static int rename_to(const Scratch *s, const char *from, const char *to, uint32_t flags)
{
    PtRename rename = {PT_ROOT_ID, from, PT_ROOT_ID, to, flags, &root_caller};
    return pt_rename(s->fs, &rename);
}

static void test_rename(void)
{
    Scratch s = scratch_open();
    host_write(&s, "a", "a");
    host_write(&s, "b", "b");
    uint64_t a = lookup(&s, PT_ROOT_ID, "a").nodeid;
    uint64_t b = lookup(&s, PT_ROOT_ID, "b").nodeid;
    uint64_t dir = make_dir(&s, PT_ROOT_ID, "dir").nodeid;
    g_assert_cmpint(rename_to(&s, "a", "b", RENAME_NOREPLACE), ==, -EEXIST);
    g_assert_cmpint(rename_to(&s, "a", "b", RENAME_EXCHANGE), ==, 0);
    g_assert_cmpuint(lookup(&s, PT_ROOT_ID, "a").nodeid, ==, b);
    g_assert_cmpuint(lookup(&s, PT_ROOT_ID, "b").nodeid, ==, a);
    PtRename into = {PT_ROOT_ID, "b", dir, "moved", 0, &root_caller};
    g_assert_cmpint(pt_rename(s.fs, &into), ==, 0);
    g_assert_cmpuint(lookup(&s, dir, "moved").nodeid, ==, a);
    g_assert_cmpint(rename_to(&s, "a", "w", RENAME_WHITEOUT), ==, 0);
    g_assert_true(S_ISCHR(host_stat(&s, "a").st_mode));
    g_assert_cmpuint(lookup(&s, PT_ROOT_ID, "w").nodeid, ==, b);
    const uint32_t bad[] = {8, 16, UINT32_MAX, RENAME_NOREPLACE | RENAME_EXCHANGE,
                            UINT32_C(1) << 31};
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_assert_cmpint(rename_to(&s, "w", "v", bad[i]), ==, -EINVAL);
    }
    g_assert_cmpint(rename_to(&s, "no", "v", 0), ==, -ENOENT);
    PtRename inside = {PT_ROOT_ID, "dir", dir, "self", 0, &root_caller};
    g_assert_cmpint(pt_rename(s.fs, &inside), ==, -EINVAL);
    scratch_close(&s);
}

/* It is the caller's, and the guest's kernel has checked that he may leave it: his
 * groups, which it does not tell, are not asked for. */
static void test_whiteout(void)
{
    static const PtCaller callers[] = {
        {.uid = 0, .is_checked = true},
        {.uid = 1000, .gid = 1001, .is_checked = true},
        {.uid = 0, .gid = 1001, .is_checked = true},
    };
    PtAgreed agreed = {.supp_groups = true};
    Scratch s = scratch_open();
    pt_fs_agree(s.fs, &agreed);
    for (size_t i = 0; i < G_N_ELEMENTS(callers); i++) {
        PtRename rename = {PT_ROOT_ID,      "a",        PT_ROOT_ID, "b",
                           RENAME_WHITEOUT, &callers[i]};
        host_write(&s, "a", "a");
        g_assert_cmpint(pt_rename(s.fs, &rename), ==, 0);
        struct stat st = host_stat(&s, "a");
        g_assert_cmpuint(st.st_mode & S_IFMT, ==, S_IFCHR);
        g_assert_cmpuint(st.st_rdev, ==, 0);
        g_assert_cmpuint(st.st_uid, ==, callers[i].uid);
        g_assert_cmpuint(st.st_gid, ==, callers[i].gid);
        g_assert_cmpuint(host_stat(&s, "b").st_uid, ==, 0);
        g_assert_cmpint(unlinkat(s.dir, "a", 0), ==, 0);
    }
    PtCaller nobody = {.uid = UINT32_MAX, .is_checked = true};
    PtRename rename = {PT_ROOT_ID, "b", PT_ROOT_ID, "a", RENAME_WHITEOUT, &nobody};
    g_assert_cmpint(pt_rename(s.fs, &rename), ==, -EINVAL);
    rename.flags = 0;
    g_assert_cmpint(pt_rename(s.fs, &rename), ==, 0);
    g_assert_cmpuint(geteuid(), ==, 0);
    scratch_close(&s);
}

/* ---- creating --------------------------------------------------------------------- */

typedef struct Create {
    PtEntry entry;
    PtOpened opened;
} Create;

static int create(const Scratch *s, const PtCaller *caller, const char *name,
                  uint32_t flags, Create *ret)
{
    PtMake make = make_of(caller, PT_ROOT_ID, name, 0640);
    make.open_flags = flags;
    return pt_create(s->fs, &make, &ret->entry, &ret->opened);
}

static void test_create(void)
{
    Scratch s = scratch_open();
    Create made, again;
    char buffer[8];
    g_assert_cmpint(create(&s, &root_caller, "f", O_RDWR, &made), ==, 0);
    g_assert_cmpuint(made.entry.attr.stx.stx_mode, ==, S_IFREG | 0640);
    g_assert_cmpuint(made.entry.attr.stx.stx_ino, ==, host_stat(&s, "f").st_ino);
    uint64_t f = made.entry.nodeid;
    g_assert_cmpint(write_text(&s, f, made.opened.handle, 0, "text"), ==, 4);
    g_assert_cmpint(create(&s, &root_caller, "f", O_RDWR | O_EXCL, &again), ==, -EEXIST);
    g_assert_cmpint(create(&s, &root_caller, "f", O_RDWR, &again), ==, 0);
    g_assert_cmpuint(again.entry.nodeid, ==, f);
    g_assert_cmpuint(again.opened.handle, !=, made.opened.handle);
    g_assert_cmpuint(again.entry.attr.stx.stx_size, ==, 4);
    g_assert_cmpint(read_text(&s, f, again.opened.handle, 0, buffer, 8), ==, 4);
    g_assert_cmpint(create(&s, &root_caller, "f", O_RDWR | O_TRUNC, &again), ==, 0);
    g_assert_cmpuint(again.entry.attr.stx.stx_size, ==, 0);
    /* Three opens, three lookups. */
    g_assert_cmpuint(scratch_stats(&s).handles, ==, 3);
    pt_forget(s.fs, f, 2);
    g_assert_cmpuint(lookup(&s, PT_ROOT_ID, "f").nodeid, ==, f);
    scratch_close(&s);
}

static void test_create_on_others(void)
{
    Scratch s = scratch_open();
    Create made;
    g_assert_cmpint(mkdirat(s.dir, "dir", 0755), ==, 0);
    g_assert_cmpint(symlinkat("/tmp/pt-scratch-escape", s.dir, "dangling"), ==, 0);
    g_assert_cmpint(symlinkat("/etc/passwd", s.dir, "link"), ==, 0);
    g_assert_cmpint(mknodat(s.dir, "fifo", S_IFIFO | 0666, 0), ==, 0);
    g_assert_cmpint(mknodat(s.dir, "zero", S_IFCHR | 0666, makedev(1, 5)), ==, 0);
    g_assert_cmpint(mknodat(s.dir, "sock", S_IFSOCK | 0666, 0), ==, 0);
    g_test_timer_start();
    g_assert_cmpint(create(&s, &root_caller, "dir", O_RDWR, &made), ==, -EISDIR);
    g_assert_cmpint(create(&s, &root_caller, "dangling", O_RDWR, &made), ==, -ELOOP);
    g_assert_cmpint(create(&s, &root_caller, "link", O_RDWR, &made), ==, -ELOOP);
    g_assert_cmpint(create(&s, &root_caller, "fifo", O_WRONLY, &made), ==, -ENXIO);
    g_assert_cmpint(create(&s, &root_caller, "fifo", O_RDONLY, &made), ==, -ENXIO);
    g_assert_cmpint(create(&s, &root_caller, "zero", O_RDWR, &made), ==, -ENXIO);
    g_assert_cmpint(create(&s, &root_caller, "sock", O_RDWR, &made), ==, -ENXIO);
    g_assert_cmpfloat(g_test_timer_elapsed(), <, 2.0);
    g_assert_cmpint(access("/tmp/pt-scratch-escape", F_OK), ==, -1);
    g_assert_cmpuint(scratch_stats(&s).descriptors, ==, 1);
    scratch_close(&s);
}

/* The guest's kernel believed that the name was free: the permission is checked here. */
static void test_create_on_forbidden(void)
{
    const PtCaller caller = {.uid = 1000, .gid = 1000};
    Scratch s = scratch_open();
    Create made;
    g_assert_cmpint(fchmod(s.dir, 0777), ==, 0);
    host_write(&s, "secret", "1");
    g_assert_cmpint(fchmodat(s.dir, "secret", 0600, 0), ==, 0);
    for (int supp_groups = 0; supp_groups < 2; supp_groups++) {
        PtAgreed agreed = {.supp_groups = supp_groups};
        pt_fs_agree(s.fs, &agreed);
        g_assert_cmpint(create(&s, &caller, "secret", O_RDONLY, &made), ==, -EACCES);
        g_assert_cmpint(create(&s, &caller, "secret", O_WRONLY | O_TRUNC, &made), ==,
                        -EACCES);
    }
    g_assert_cmpint(host_stat(&s, "secret").st_size, ==, 1);
    g_assert_cmpint(create(&s, &root_caller, "secret", O_RDONLY, &made), ==, 0);
    scratch_close(&s);
}

/* The kernel's own rule: who may not read what he makes still has it open. */
static void test_create_unreadable(void)
{
    const PtCaller caller = {.uid = 1000, .gid = 1000};
    Scratch s = scratch_open();
    Create made;
    g_assert_cmpint(fchmod(s.dir, 0777), ==, 0);
    PtMake make = make_of(&caller, PT_ROOT_ID, "f", 0);
    make.open_flags = O_RDWR;
    g_assert_cmpint(pt_create(s.fs, &make, &made.entry, &made.opened), ==, 0);
    g_assert_cmpuint(made.entry.attr.stx.stx_mode, ==, S_IFREG);
    g_assert_cmpint(write_text(&s, made.entry.nodeid, made.opened.handle, 0, "x"), ==, 1);
    scratch_close(&s);
}

/* ---- a host that moves things about ------------------------------------------------ */

typedef struct Swapper {
    Scratch *s;
    _Atomic bool stop;
} Swapper;

static void *swap(void *data)
{
    Swapper *swapper = data;
    int dir = swapper->s->dir;
    while (!swapper->stop) {
        (void)renameat2(dir, "dir", dir, "link", RENAME_EXCHANGE);
    }
    return NULL;
}

/* A link is no directory; it may be known by its name alone, and that is another's now.
 */
static bool refuses_link(int result)
{
    return result == -ENOTDIR || result == -ESTALE;
}

/* "dir" is now a directory, now a link out of the share: nothing is ever found or made
 * behind the link. */
static void test_swapped(void)
{
    Scratch s = scratch_open();
    Swapper swapper = {&s, false};
    g_autofree char *outside = g_dir_make_tmp("pt-scratch-XXXXXX", NULL);
    g_autofree char *canary = g_build_filename(outside, "canary", NULL);
    pthread_t thread;
    int dirs = 0, links = 0;
    g_assert_true(g_file_set_contents(canary, "outside", -1, NULL));
    g_assert_cmpint(mkdirat(s.dir, "dir", 0755), ==, 0);
    g_assert_cmpint(symlinkat(outside, s.dir, "link"), ==, 0);
    g_assert_cmpint(pthread_create(&thread, NULL, swap, &swapper), ==, 0);
    for (int i = 0; i < 3000 || dirs == 0 || links == 0; i++) {
        PtEntry entry = lookup(&s, PT_ROOT_ID, "dir");
        PtEntry made;
        PtMake make = make_of(&root_caller, entry.nodeid, "made", 0755);
        bool dir = S_ISDIR(entry.attr.stx.stx_mode);
        dirs += dir;
        links += !dir;
        int r = lookup_error(&s, entry.nodeid, "canary");
        g_assert_true(dir ? r == -ENOENT : refuses_link(r));
        r = pt_mkdir(s.fs, &make, &made);
        g_assert_true(dir ? r == 0 || r == -EEXIST : refuses_link(r));
        g_assert_cmpint(pt_unlink(s.fs, entry.nodeid, "canary"), <, 0);
    }
    swapper.stop = true;
    pthread_join(thread, NULL);
    g_assert_cmpint(unlink(canary), ==, 0);
    g_assert_cmpint(rmdir(outside), ==, 0); /* nothing else is in it */
    scratch_close(&s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (!need_root()) {
        return 0;
    }
    g_test_add_func("/name/bad-names", test_bad_names);
    g_test_add_func("/name/long-names", test_long_names);
    g_test_add_func("/name/parent-is-no-directory", test_parent_is_no_directory);
    g_test_add_func("/name/symlinks-are-not-followed", test_symlinks_are_not_followed);
    g_test_add_func("/name/hard-links", test_hard_links);
    g_test_add_func("/name/mknod", test_mknod);
    g_test_add_func("/name/mkdir-and-remove", test_mkdir_and_remove);
    g_test_add_func("/name/symlink-targets", test_symlink_targets);
    g_test_add_func("/name/rename", test_rename);
    g_test_add_func("/name/whiteout", test_whiteout);
    g_test_add_func("/name/create", test_create);
    g_test_add_func("/name/create-on-others", test_create_on_others);
    g_test_add_func("/name/create-on-forbidden", test_create_on_forbidden);
    g_test_add_func("/name/create-unreadable", test_create_unreadable);
    g_test_add_func("/name/swapped", test_swapped);
    return g_test_run();
}
