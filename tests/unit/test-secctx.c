/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Labels of new files: every call that makes something, labels that can be set and labels
 * that cannot, and what is left behind on the host.
 */
#include <errno.h>
#include <sys/xattr.h>

#include "tests/unit/scratch.h"

#define LABEL "security.selinux"

static const PtLabels one = {.n = 1,
                             .label = {{.name = LABEL, .value = "u:o:t", .size = 5}}};
static const PtLabels two = {.n = 2,
                             .label = {{.name = LABEL, .value = "u:o:t", .size = 5},
                                       {.name = "trusted.x", .value = "y", .size = 1}}};
/* The second one cannot be set: the first must not keep the file alive. */
static const PtLabels half = {.n = 2,
                              .label = {{.name = LABEL, .value = "u:o:t", .size = 5},
                                        {.name = "nothing.x", .value = "y", .size = 1}}};

/* Anything that the guest may make. */
typedef struct Kind {
    const char *name;
    uint32_t type;
} Kind;

static const Kind kinds[] = {
    {"create", S_IFREG}, {"tmpfile", 0},     {"mkdir", S_IFDIR}, {"symlink", S_IFLNK},
    {"fifo", S_IFIFO},   {"sock", S_IFSOCK}, {"chr", S_IFCHR},   {"mknod", S_IFREG},
};

static int make(const Scratch *s, uint64_t parent, const Kind *kind,
                const PtLabels *labels, PtEntry *ret_entry)
{
    PtMake call = make_of(&root_caller, parent, kind->name, kind->type | 0600);
    PtOpened opened;

    call.labels = labels;
    call.target = "target";
    call.open_flags = O_RDWR;
    bool opens = kind->type == 0 || strcmp(kind->name, "create") == 0;
    if (opens) {
        int r = kind->type == 0 ? pt_tmpfile(s->fs, &call, ret_entry, &opened)
                                : pt_create(s->fs, &call, ret_entry, &opened);
        return r < 0 ? r : pt_release(s->fs, ret_entry->nodeid, opened.handle);
    }
    switch (kind->type) {
    case S_IFDIR:
        return pt_mkdir(s->fs, &call, ret_entry);
    case S_IFLNK:
        return pt_symlink(s->fs, &call, ret_entry);
    default:
        return pt_mknod(s->fs, &call, ret_entry);
    }
}

static void assert_label(const Scratch *s, uint64_t nodeid, const char *name,
                         const char *value)
{
    char buffer[100];
    ssize_t size = pt_getxattr(s->fs, nodeid, name, buffer, sizeof(buffer));

    g_assert_cmpint(size, ==, (ssize_t)strlen(value));
    g_assert_true(memcmp(buffer, value, (size_t)size) == 0);
}

/* No name, no inode, no descriptor of it. */
static void assert_nothing(const Scratch *s, const char *name, const PtStats *before)
{
    PtStats after = scratch_stats(s);

    g_assert_cmpint(faccessat(s->dir, name, F_OK, AT_SYMLINK_NOFOLLOW), ==, -1);
    g_assert_cmpint(errno, ==, ENOENT);
    g_assert_cmpuint(after.inodes, ==, before->inodes);
    g_assert_cmpuint(after.handles, ==, before->handles);
    g_assert_cmpuint(after.descriptors, ==, before->descriptors);
}

static void test_labelled(void)
{
    Scratch s = scratch_open();

    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        PtStats before = scratch_stats(&s);
        PtEntry entry;
        PtAttr attr;
        g_assert_cmpint(make(&s, PT_ROOT_ID, &kinds[i], &two, &entry), ==, 0);
        assert_label(&s, entry.nodeid, LABEL, "u:o:t");
        assert_label(&s, entry.nodeid, "trusted.x", "y");
        /* What the guest is told is what there is now. */
        g_assert_cmpint(pt_getattr(s.fs, entry.nodeid, PT_NO_HANDLE, &attr), ==, 0);
        g_assert_cmpint(entry.attr.stx.stx_ctime.tv_sec, ==, attr.stx.stx_ctime.tv_sec);
        g_assert_cmpuint(entry.attr.stx.stx_ctime.tv_nsec, ==,
                         attr.stx.stx_ctime.tv_nsec);
        if (kinds[i].type != 0) {
            g_autofree char *path = g_build_filename(s.path, kinds[i].name, NULL);
            g_assert_cmpint(lgetxattr(path, LABEL, NULL, 0), ==, 5);
            g_assert_cmpint(remove(path), ==, 0);
        }
        pt_forget(s.fs, entry.nodeid, 1);
        assert_nothing(&s, kinds[i].name, &before);
    }
    scratch_close(&s);
}

/* Fifty of each: what is left open would be seen at the end, and in the budget. */
static void test_nothing_left(void)
{
    Scratch s = scratch_open();
    PtStats before = scratch_stats(&s);
    int fds = count_fds();

    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        for (int n = 0; n < 50; n++) {
            PtEntry entry;
            g_assert_cmpint(make(&s, PT_ROOT_ID, &kinds[i], &one, &entry), ==, 0);
            pt_forget(s.fs, entry.nodeid, 1);
            bool is_dir = kinds[i].type == S_IFDIR;
            int r = unlinkat(s.dir, kinds[i].name, is_dir ? AT_REMOVEDIR : 0);
            g_assert_cmpint(r, ==, kinds[i].type != 0 ? 0 : -1);
            r = make(&s, PT_ROOT_ID, &kinds[i], &half, &entry);
            g_assert_cmpint(r, ==, -EOPNOTSUPP);
        }
        assert_nothing(&s, kinds[i].name, &before);
    }
    g_assert_cmpint(count_fds(), ==, fds);
    scratch_close(&s);
}

static void test_removed(void)
{
    Scratch s = scratch_open();

    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        PtStats before = scratch_stats(&s);
        PtEntry entry;
        g_assert_cmpint(make(&s, PT_ROOT_ID, &kinds[i], &half, &entry), ==, -EOPNOTSUPP);
        assert_nothing(&s, kinds[i].name, &before);
    }
    scratch_close(&s);
}

/* What was there before is neither labelled nor removed. */
static void test_existing(void)
{
    Scratch s = scratch_open();
    g_autofree char *path = g_build_filename(s.path, "create", NULL);
    PtEntry entry;

    host_write(&s, "create", "text");
    g_assert_cmpint(make(&s, PT_ROOT_ID, &kinds[0], &one, &entry), ==, 0);
    g_assert_cmpint(lgetxattr(path, LABEL, NULL, 0), ==, -1);
    pt_forget(s.fs, entry.nodeid, 1);
    g_assert_cmpint(make(&s, PT_ROOT_ID, &kinds[0], &half, &entry), ==, 0);
    pt_forget(s.fs, entry.nodeid, 1);
    g_assert_cmpint(host_stat(&s, "create").st_size, ==, 4);
    PtMake node = make_of(&root_caller, PT_ROOT_ID, "create", S_IFIFO | 0600);
    node.labels = &half;
    g_assert_cmpint(pt_mknod(s.fs, &node, &entry), ==, -EEXIST);
    g_assert_cmpint(host_stat(&s, "create").st_size, ==, 4);
    scratch_close(&s);
}

/* Labels go through the map as any other attribute. */
static void test_mapped(void)
{
    g_autoptr(PtXattrMap) map =
        pt_xattr_map_parse(":map:security.:trusted.virtiofs.:", NULL);
    PtConfig config = scratch_config();
    config.xattr_map = map;
    Scratch s = scratch_open_with(&config);

    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_autofree char *path = g_build_filename(s.path, kinds[i].name, NULL);
        PtEntry entry;
        g_assert_cmpint(make(&s, PT_ROOT_ID, &kinds[i], &one, &entry), ==, 0);
        assert_label(&s, entry.nodeid, LABEL, "u:o:t");
        if (kinds[i].type != 0) {
            g_assert_cmpint(lgetxattr(path, "trusted.virtiofs." LABEL, NULL, 0), ==, 5);
            g_assert_cmpint(lgetxattr(path, LABEL, NULL, 0), ==, -1);
        }
    }
    scratch_close(&s);
}

static void check_refused(const char *rules, const PtLabels *labels, int expected)
{
    g_autoptr(PtXattrMap) map = pt_xattr_map_parse(rules, NULL);
    PtConfig config = scratch_config();
    config.xattr_map = map;
    Scratch s = scratch_open_with(&config);

    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        PtStats before = scratch_stats(&s);
        PtEntry entry;
        g_assert_cmpint(make(&s, PT_ROOT_ID, &kinds[i], labels, &entry), ==, expected);
        assert_nothing(&s, kinds[i].name, &before);
    }
    scratch_close(&s);
}

static void test_refused(void)
{
    static const PtLabels acl = {
        .n = 1, .label = {{.name = "system.posix_acl_access", .value = "x", .size = 1}}};

    check_refused(":bad:all:security.:security.:/ok/all///", &one, -EPERM);
    check_refused(":unsupported:all:security.:security.:/ok/all///", &one, -EOPNOTSUPP);
    /* Access control lists are not agreed here. */
    check_refused(":ok:all:::", &acl, -EOPNOTSUPP);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (!need_root()) {
        return 0;
    }
    g_test_add_func("/secctx/labelled", test_labelled);
    g_test_add_func("/secctx/nothing-left", test_nothing_left);
    g_test_add_func("/secctx/removed", test_removed);
    g_test_add_func("/secctx/existing", test_existing);
    g_test_add_func("/secctx/mapped", test_mapped);
    g_test_add_func("/secctx/refused", test_refused);
    return g_test_run();
}
