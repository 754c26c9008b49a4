/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A share that is a single file, in the three modes.
 */
#include <linux/capability.h>

#include "sandbox/sandbox.h"
#include "tests/unit/inside.h"
#include "virtiofsd/log.h"

static SandboxConfig config_of(SandboxMode mode, const char *path)
{
    return (SandboxConfig){
        .mode = mode, .shared_dir = path, .seccomp = SANDBOX_SECCOMP_NONE};
}

/* The descriptor of the share is one of the file and leads nowhere else. */
static void assert_share(const Inside *inside, const char *path, int size)
{
    g_autofree char *name = g_strdup_printf("fd/%d", inside->view.root_fd);
    g_autofree char *link = inside_proc(inside, name);

    g_assert_true(same_file(link, path));
    g_assert_cmpint(inside_try(inside, ASK_SIZE, ""), ==, size);
    g_assert_cmpint(inside_try(inside, ASK_REOPEN, ""), ==, 0);
    g_assert_cmpint(inside_try(inside, ASK_REOPEN_AS_USER, ""), ==, 0);
    g_assert_cmpint(inside_try(inside, ASK_PRESENT, "name"), ==, -ENOTDIR);
    g_assert_cmpint(inside_try(inside, ASK_PRESENT, ".."), ==, -ENOTDIR);
    g_assert_cmpint(inside_try(inside, ASK_CREATE, "name"), ==, -ENOTDIR);
}

static void assert_one_directory(const Inside *inside)
{
    g_autofree char *path = inside_proc(inside, "fd");
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    unsigned int n_directories = 0;

    g_assert_nonnull(dir);
    for (const char *name; (name = g_dir_read_name(dir)) != NULL;) {
        g_autofree char *link = g_build_filename(path, name, NULL);
        struct stat st;
        g_assert_cmpint(stat(link, &st), ==, 0);
        if (S_ISDIR(st.st_mode)) {
            g_assert_cmpint(atoi(name), ==, inside->view.procfd);
            n_directories++;
        }
    }
    g_assert_cmpuint(n_directories, ==, 1);
}

/* A root with nothing in it but, maybe, the file; nothing can be made there. */
static void assert_root(const Inside *inside)
{
    g_autofree char *root = inside_proc(inside, "root");
    g_autofree char *cwd = inside_proc(inside, "cwd");

    g_assert_true(same_file(root, cwd));
    g_assert_false(same_file(root, "/"));
    g_assert_cmpint(inside_try(inside, ASK_PRESENT, "/secret"), ==, -ENOENT);
    g_assert_cmpint(inside_try(inside, ASK_PRESENT, "/../secret"), ==, -ENOENT);
    g_assert_cmpint(inside_try(inside, ASK_PRESENT, "/proc"), ==, -ENOENT);
    g_assert_cmpint(inside_try(inside, ASK_CREATE, "/made"), ==, -EROFS);
    g_assert_cmpint(inside_try(inside, ASK_PROCFD, "../exe"), <, 0);
    g_assert_cmpint(inside_try(inside, ASK_DUMPABLE, ""), ==, 0);
}

static void assert_mounts(const Inside *inside, const char *from)
{
    g_autofree char *path = inside_proc(inside, "mountinfo");
    g_autofree char *text = read_file(path);
    g_auto(GStrv) lines = g_strsplit(g_strchomp(text), "\n", -1);
    bool has_root = false;
    bool has_share = false;

    g_assert_cmpuint(g_strv_length(lines), ==, 2);
    for (size_t i = 0; i < 2; i++) {
        g_auto(GStrv) fields = g_strsplit(lines[i], " ", -1);
        bool is_root = strcmp(fields[4], "/") == 0;
        g_assert_nonnull(strstr(fields[5], "nosuid,nodev,noexec"));
        g_assert_cmpint(g_str_has_prefix(fields[5], "ro,"), ==, is_root);
        g_assert_cmpstr(fields[3], ==, is_root ? "/" : from);
        g_assert_cmpint(strstr(lines[i], " - tmpfs none ") != NULL, ==, is_root);
        g_assert_null(strstr(lines[i], " shared:"));
        has_root = has_root || is_root;
        has_share = has_share || strcmp(fields[4], "/share") == 0;
    }
    g_assert_true(has_root && has_share);
}

/* ---- namespace --------------------------------------------------------------------- */

static void in_namespace(const void *data)
{
    SandboxConfig config = config_of(SANDBOX_NAMESPACE, "share/file");

    config.seccomp = SANDBOX_SECCOMP_LOG;
    host_start(data);
    g_autofree char *before = read_file("/proc/self/mountinfo");
    Inside inside = inside_start(&config);
    g_autofree char *after = read_file("/proc/self/mountinfo");
    g_assert_cmpstr(before, ==, after);
    assert_share(&inside, "share/file", 4);
    assert_root(&inside);
    assert_one_directory(&inside);
    assert_mounts(&inside, "/share/file");
    g_assert_cmpint(inside_try(&inside, ASK_PRESENT, "/share"), ==, 0);
    child_assert_status(inside.pid, "CapPrm", KEPT_CAPS);
    child_assert_status(inside.pid, "CapBnd", NO_CAPS);
    child_assert_status(inside.pid, "NoNewPrivs", "1");
    inside_stop(&inside);
}

static void test_namespace(void)
{
    host_run(in_namespace);
}

/* A file that is mounted on another, one behind a symbolic link. */
static void other_files(const void *data)
{
    host_start(data);
    host_bind("secret", "share/sub/inner");
    g_assert_cmpint(symlink("share/sub/inner", "link"), ==, 0);
    SandboxConfig config = config_of(SANDBOX_NAMESPACE, "link");
    Inside inside = inside_start(&config);
    assert_share(&inside, "secret", 4);
    assert_mounts(&inside, "/secret");
    inside_stop(&inside);
}

static void test_other_files(void)
{
    host_run(other_files);
}

static void readonly(const void *data)
{
    SandboxConfig config = config_of(SANDBOX_NAMESPACE, "share/late/file");

    host_start(data);
    g_assert_true(g_file_set_contents("volume/file", "read only", -1, NULL));
    host_bind("volume", "share/late");
    g_assert_cmpint(
        mount(NULL, "share/late", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), ==, 0);
    Inside inside = inside_start(&config);
    g_assert_cmpint(inside_try(&inside, ASK_SIZE, ""), ==, 9);
    g_assert_cmpint(inside_try(&inside, ASK_REOPEN_TO_WRITE, ""), ==, -EROFS);
    inside_stop(&inside);
}

static void test_readonly(void)
{
    host_run(readonly);
}

/* The share is the file that it was, not what has its name now; changes of it show. */
static void replaced(const void *data)
{
    SandboxMode mode = SANDBOX_NAMESPACE;

    host_start(data);
    for (; mode <= SANDBOX_NONE; mode++) {
        SandboxConfig config = config_of(mode, "share/file");
        g_assert_true(g_file_set_contents("share/new", "something longer", -1, NULL));
        Inside inside = inside_start(&config);
        g_assert_cmpint(truncate("share/file", 2), ==, 0);
        g_assert_cmpint(inside_try(&inside, ASK_SIZE, ""), ==, 2);
        g_assert_cmpint(rename("share/new", "share/file"), ==, 0);
        g_assert_cmpint(inside_try(&inside, ASK_SIZE, ""), ==, 2);
        g_assert_cmpint(inside_try(&inside, ASK_REOPEN, ""), ==, 0);
        inside_stop(&inside);
    }
}

static void test_replaced(void)
{
    host_run(replaced);
}

/* ---- the other modes --------------------------------------------------------------- */

static void in_chroot(const void *data)
{
    const SandboxConfig config = config_of(SANDBOX_CHROOT, "share/file");

    host_start(data);
    g_autofree char *before = read_file("/proc/self/mountinfo");
    Inside inside = inside_start(&config);
    g_autofree char *after = read_file("/proc/self/mountinfo");
    g_assert_cmpstr(before, ==, after);
    assert_share(&inside, "share/file", 4);
    assert_root(&inside);
    assert_one_directory(&inside);
    g_assert_cmpint(inside_try(&inside, ASK_PRESENT, "/share"), ==, -ENOENT);
    inside_stop(&inside);
}

/* Without the right to make a mount there is no empty root. */
static void in_chroot_only(const void *data)
{
    const SandboxConfig config = config_of(SANDBOX_CHROOT, "share/file");
    g_autoptr(GError) error = NULL;
    SandboxView view;

    host_start(data);
    inside_lose(CAP_SYS_ADMIN);
    g_assert_false(sandbox_enter(&config, &view, &error));
    g_assert_nonnull(strstr(error->message, "takes CAP_SYS_ADMIN"));
    g_assert_null(strchr(error->message, '\n'));
}

static void test_chroot(void)
{
    host_run(in_chroot);
    host_run(in_chroot_only);
}

static void in_none(const void *data)
{
    const SandboxConfig config = config_of(SANDBOX_NONE, "share/file");

    host_start(data);
    Inside inside = inside_start(&config);
    assert_share(&inside, "share/file", 4);
    g_assert_cmpint(inside_try(&inside, ASK_PRESENT, "/proc"), ==, 0);
    inside_stop(&inside);
}

static void test_none(void)
{
    host_run(in_none);
}

/* ---- refusals ---------------------------------------------------------------------- */

static void assert_refused(SandboxMode mode, const char *path)
{
    const SandboxConfig config = config_of(mode, path);
    g_autoptr(GError) error = NULL;
    SandboxView view;

    g_assert_false(sandbox_enter(&config, &view, &error));
    g_assert_nonnull(strstr(error->message, "neither a directory nor a regular file"));
}

static void refuse(const void *data)
{
    host_start(data);
    g_assert_cmpint(mkfifo("pipe", 0600), ==, 0);
    g_assert_cmpint(mknod("device", S_IFBLK | 0600, 0), ==, 0);
    g_assert_cmpint(mknod("socket", S_IFSOCK | 0600, 0), ==, 0);
    for (SandboxMode mode = SANDBOX_NAMESPACE; mode <= SANDBOX_NONE; mode++) {
        assert_refused(mode, "pipe");
        assert_refused(mode, "device");
        assert_refused(mode, "socket");
    }
}

static void test_refuse(void)
{
    host_run(refuse);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_open(LOG_LEVEL_OFF, false);
    g_test_add_func("/root-file/namespace", test_namespace);
    g_test_add_func("/root-file/other-files", test_other_files);
    g_test_add_func("/root-file/readonly", test_readonly);
    g_test_add_func("/root-file/replaced", test_replaced);
    g_test_add_func("/root-file/chroot", test_chroot);
    g_test_add_func("/root-file/none", test_none);
    g_test_add_func("/root-file/refuse", test_refuse);
    return g_test_run();
}
