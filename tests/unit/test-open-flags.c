/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Times of access: who asks that none be written, and who may not.
 */
#include "tests/unit/scratch.h"

#include <linux/capability.h>
#include <sys/syscall.h>

enum { LONG_AGO = 1000000000 };

/* A directory that was last read long ago. */
static void make_dir_old(const Scratch *s)
{
    const struct timespec times[2] = {{.tv_sec = LONG_AGO}, {.tv_sec = LONG_AGO + 1}};
    g_assert_cmpint(utimensat(s->dir, "dir", times, 0), ==, 0);
}

/* And a file that was. */
static void make_old(const Scratch *s)
{
    const struct timespec times[2] = {{.tv_sec = LONG_AGO}, {.tv_sec = LONG_AGO + 1}};
    host_write(s, "file", "text");
    g_assert_cmpint(mkdirat(s->dir, "dir", 0755), ==, 0);
    g_assert_cmpint(mkdirat(s->dir, "dir/inner", 0755), ==, 0);
    g_assert_cmpint(utimensat(s->dir, "file", times, 0), ==, 0);
    make_dir_old(s);
}

static void read_file_of(const Scratch *s, uint32_t flags)
{
    char buffer[8];
    uint64_t f = lookup(s, PT_ROOT_ID, "file").nodeid;
    uint64_t handle = open_node(s, f, flags).handle;
    struct iovec iov = {buffer, sizeof(buffer)};
    PtIo io = {
        .nodeid = f, .handle = handle, .iov = &iov, .n_iov = 1, .open_flags = flags};
    g_assert_cmpint(pt_read(s->fs, &io), ==, 4);
    g_assert_cmpint(pt_release(s->fs, f, handle), ==, 0);
}

static void read_dir_of(const Scratch *s, uint32_t opened_with, uint32_t flags)
{
    PtOpened opened;
    PtDirCursor cursor;
    PtDirent dirent;
    uint64_t d = lookup(s, PT_ROOT_ID, "dir").nodeid;
    g_assert_cmpint(pt_opendir(s->fs, d, opened_with, &opened), ==, 0);
    g_assert_cmpint(pt_dir_begin(s->fs, d, opened.handle, 0, &cursor), ==, 0);
    pt_dir_follow(&cursor, flags);
    g_assert_cmpint(pt_dir_next(&cursor, &dirent), ==, 1);
    pt_dir_end(&cursor);
    g_assert_cmpint(pt_releasedir(s->fs, d, opened.handle), ==, 0);
}

static void check_traces(const PtConfig *config, uint32_t flags, bool leaves)
{
    Scratch s = scratch_open_with(config);
    make_old(&s);
    read_file_of(&s, flags);
    read_dir_of(&s, flags, flags);
    g_assert_cmpint(host_stat(&s, "file").st_atime != LONG_AGO, ==, leaves);
    g_assert_cmpint(host_stat(&s, "dir").st_atime != LONG_AGO, ==, leaves);
    /* fcntl(2) changes the flag while the directory is open. */
    make_dir_old(&s);
    read_dir_of(&s, flags ^ O_NOATIME, flags);
    g_assert_cmpint(host_stat(&s, "dir").st_atime != LONG_AGO, ==, leaves);
    scratch_close(&s);
}

static void test_noatime(void)
{
    PtConfig config = scratch_config();
    check_traces(&config, O_RDONLY, true);
    check_traces(&config, O_RDONLY | O_NOATIME, true);
    config.preserve_noatime = true;
    check_traces(&config, O_RDONLY, true);
    check_traces(&config, O_RDONLY | O_NOATIME, false);
    config.preserve_noatime = false;
    config.readonly = true;
    check_traces(&config, O_RDONLY, false);
}

static void set_fowner(bool effective)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
    g_assert_cmpint(syscall(SYS_capget, &head, data), ==, 0);
    data[0].effective &= ~CAP_TO_MASK(CAP_FOWNER);
    if (effective) {
        data[0].effective |= CAP_TO_MASK(CAP_FOWNER);
    }
    g_assert_cmpint(syscall(SYS_capset, &head, data), ==, 0);
}

/* Only a file's owner, or who may act as such, reads it without a trace. A daemon that is
 * neither reads it all the same. */
static void test_not_the_owner(void)
{
    PtConfig config = scratch_config();
    PtEntry entry;
    PtOpened opened;
    config.readonly = true;
    Scratch s = scratch_open_with(&config);
    make_old(&s);
    g_assert_cmpint(fchownat(s.dir, "file", 1000, 1000, 0), ==, 0);
    g_assert_cmpint(fchownat(s.dir, "dir", 1000, 1000, 0), ==, 0);
    PtMake make = make_of(&root_caller, PT_ROOT_ID, "file", 0644);
    make.open_flags = O_CREAT | O_RDONLY;
    set_fowner(false);
    int refused = openat(s.dir, "file", O_RDONLY | O_NOATIME | O_CLOEXEC);
    int error = errno;
    read_file_of(&s, O_RDONLY);
    read_dir_of(&s, O_RDONLY, O_RDONLY);
    int created = pt_create(s.fs, &make, &entry, &opened);
    set_fowner(true);
    g_assert_cmpint(refused, ==, -1);
    g_assert_cmpint(error, ==, EPERM);
    g_assert_cmpint(created, ==, 0);
    g_assert_cmpint(host_stat(&s, "file").st_atime, !=, LONG_AGO);
    scratch_close(&s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (!need_root()) {
        return 0;
    }
    g_test_add_func("/open-flags/noatime", test_noatime);
    g_test_add_func("/open-flags/not-the-owner", test_not_the_owner);
    return g_test_run();
}
