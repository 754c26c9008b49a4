/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The share is a single file: node 1 is a regular file, and a directory to nobody.
 */
#include <sys/statvfs.h>

#include "tests/unit/scratch.h"

static PtFs *fs_of_file(const Scratch *s, const char *name)
{
    PtConfig config = scratch_config();
    g_autoptr(GError) error = NULL;
    int root = openat(s->dir, name, O_PATH | O_CLOEXEC);
    int procfd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);

    PtFs *fs = pt_fs_new(&config, root, procfd, &error);
    g_assert_no_error(error);
    g_assert_nonnull(fs);
    g_assert_cmpint(pt_thread_enter(fs), ==, 0);
    return fs;
}

/* Run as another scratch whose root is the file. */
typedef struct FileRoot {
    Scratch outer;
    Scratch s;
} FileRoot;

static FileRoot file_root_open(void)
{
    FileRoot root = {.outer = scratch_open()};

    host_write(&root.outer, "file", "content");
    root.s = root.outer;
    root.s.fs = fs_of_file(&root.outer, "file");
    return root;
}

static void file_root_close(FileRoot *root)
{
    pt_fs_free(root->s.fs);
    scratch_close(&root->outer);
}

static void test_attributes(void)
{
    FileRoot root = file_root_open();
    PtFs *fs = root.s.fs;
    struct statvfs statvfs;
    PtAttr attr;

    g_assert_cmpint(pt_getattr(fs, PT_ROOT_ID, PT_NO_HANDLE, &attr), ==, 0);
    g_assert_true(S_ISREG(attr.stx.stx_mode));
    g_assert_cmpuint(attr.stx.stx_size, ==, 7);
    const PtSetattr set = {.valid = PT_SET_SIZE | PT_SET_MODE | PT_SET_UID | PT_SET_MTIME,
                           .handle = PT_NO_HANDLE,
                           .size = 3,
                           .mode = 0604,
                           .uid = 1000,
                           .mtime = {.tv_sec = 5}};
    g_assert_cmpint(pt_setattr(fs, PT_ROOT_ID, &set, &attr), ==, 0);
    g_assert_cmpuint(attr.stx.stx_size, ==, 3);
    struct stat st = host_stat(&root.s, "file");
    g_assert_cmpint(st.st_mode, ==, S_IFREG | 0604);
    g_assert_cmpint(st.st_uid, ==, 1000);
    g_assert_cmpint(st.st_mtime, ==, 5);
    g_assert_cmpint(st.st_size, ==, 3);
    g_assert_cmpint(pt_statfs(fs, PT_ROOT_ID, &statvfs), ==, 0);
    g_assert_cmpint(pt_syncfs(fs, PT_ROOT_ID), ==, 0);
    file_root_close(&root);
}

static void test_data(void)
{
    FileRoot root = file_root_open();
    PtFs *fs = root.s.fs;
    char buffer[16] = "";
    PtAttr attr;

    PtOpened opened = open_node(&root.s, PT_ROOT_ID, O_RDWR);
    g_assert_cmpint(write_text(&root.s, PT_ROOT_ID, opened.handle, 3, "TENTS"), ==, 5);
    g_assert_cmpint(
        read_text(&root.s, PT_ROOT_ID, opened.handle, 0, buffer, sizeof(buffer)), ==, 8);
    g_assert_cmpstr(buffer, ==, "conTENTS");
    g_assert_cmpint(pt_fsync(fs, PT_ROOT_ID, opened.handle, true), ==, 0);
    g_assert_cmpint(allocate(fs, PT_ROOT_ID, opened.handle, 0, 0, 100), ==, 0);
    g_assert_cmpint(pt_getattr(fs, PT_ROOT_ID, opened.handle, &attr), ==, 0);
    g_assert_cmpuint(attr.stx.stx_size, ==, 100);
    g_assert_cmpint(pt_flush(fs, PT_ROOT_ID, opened.handle), ==, 0);
    g_assert_cmpint(pt_release(fs, PT_ROOT_ID, opened.handle), ==, 0);
    opened = open_node(&root.s, PT_ROOT_ID, O_WRONLY | O_TRUNC);
    g_assert_cmpint(host_stat(&root.s, "file").st_size, ==, 0);
    g_assert_cmpint(pt_release(fs, PT_ROOT_ID, opened.handle), ==, 0);
    file_root_close(&root);
}

static void assert_makes_nothing(PtFs *fs)
{
    PtMake make = make_of(&root_caller, PT_ROOT_ID, "name", 0755);
    PtMake node = make_of(&root_caller, PT_ROOT_ID, "name", S_IFREG | 0644);
    PtOpened opened;
    PtEntry entry;

    g_assert_cmpint(pt_mkdir(fs, &make, &entry), ==, -ENOTDIR);
    g_assert_cmpint(pt_mknod(fs, &node, &entry), ==, -ENOTDIR);
    make.open_flags = O_RDWR;
    g_assert_cmpint(pt_create(fs, &make, &entry, &opened), ==, -ENOTDIR);
    g_assert_cmpint(symlink_as(fs, &root_caller, PT_ROOT_ID, "name", "to", &entry), ==,
                    -ENOTDIR);
    g_assert_cmpint(pt_link(fs, PT_ROOT_ID, PT_ROOT_ID, "name", &entry), ==, -ENOTDIR);
}

static void test_no_directory(void)
{
    FileRoot root = file_root_open();
    PtFs *fs = root.s.fs;
    static const char *const names[] = {"name", "file", "..."};
    char target[16];
    PtOpened opened;

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        const PtRename move = {.parent = PT_ROOT_ID,
                               .name = names[i],
                               .new_parent = PT_ROOT_ID,
                               .new_name = "other"};
        g_assert_cmpint(lookup_error(&root.s, PT_ROOT_ID, names[i]), ==, -ENOTDIR);
        g_assert_cmpint(pt_unlink(fs, PT_ROOT_ID, names[i]), ==, -ENOTDIR);
        g_assert_cmpint(pt_rmdir(fs, PT_ROOT_ID, names[i]), ==, -ENOTDIR);
        g_assert_cmpint(pt_rename(fs, &move), ==, -ENOTDIR);
    }
    assert_makes_nothing(fs);
    g_assert_cmpint(pt_opendir(fs, PT_ROOT_ID, 0, &opened), ==, -ENOTDIR);
    g_assert_cmpint((int)pt_readlink(fs, PT_ROOT_ID, target, sizeof(target)), <, 0);
    g_assert_cmpint(host_stat(&root.s, "file").st_size, ==, 7);
    file_root_close(&root);
}

/* What has its name later is another file. */
static void test_replaced(void)
{
    FileRoot root = file_root_open();
    PtFs *fs = root.s.fs;
    char buffer[16] = "";

    host_write(&root.s, "new", "other");
    g_assert_cmpint(renameat(root.s.dir, "new", root.s.dir, "file"), ==, 0);
    PtOpened opened = open_node(&root.s, PT_ROOT_ID, O_RDONLY);
    g_assert_cmpint(
        read_text(&root.s, PT_ROOT_ID, opened.handle, 0, buffer, sizeof(buffer)), ==, 7);
    g_assert_cmpstr(buffer, ==, "content");
    g_assert_cmpint(pt_release(fs, PT_ROOT_ID, opened.handle), ==, 0);
    pt_fs_reset(fs);
    opened = open_node(&root.s, PT_ROOT_ID, O_RDONLY);
    pt_fs_reset(fs);
    file_root_close(&root);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (!need_root()) {
        return 0;
    }
    g_test_add_func("/file-root/attributes", test_attributes);
    g_test_add_func("/file-root/data", test_data);
    g_test_add_func("/file-root/no-directory", test_no_directory);
    g_test_add_func("/file-root/replaced", test_replaced);
    return g_test_run();
}
