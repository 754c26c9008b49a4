/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Landlock in each sandbox: a process that holds a descriptor from which a path leads out
 * of the share, and has no system-call filter, still reaches nothing there.
 */
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/un.h>

#include "sandbox/sandbox.h"
#include "tests/unit/inside.h"
#include "virtiofsd/log.h"

/* What is not in every <linux/fs.h> under this name. */
#define GET_FLAGS _IOR('f', 1, long)

static const SandboxMode modes[] = {SANDBOX_NAMESPACE, SANDBOX_CHROOT, SANDBOX_NONE};

/* ---- entering ---------------------------------------------------------------------- */

/* What an attacker would like to have: the directory above the share. */
static int outside = -1;
static int folder = -1;

static int leak(void *data)
{
    outside = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    g_assert_cmpint(outside, >=, 0);
    return folder >= 0 ? fcntl(folder, F_DUPFD_CLOEXEC, 0) : -1;
}

static SandboxView enter(SandboxConfig config)
{
    g_autoptr(GError) error = NULL;
    SandboxView view;

    child_settle();
    config.seccomp = SANDBOX_SECCOMP_NONE;
    config.last_paths = leak;
    config.shared_dir = config.shared_dir != NULL ? config.shared_dir : "share";
    bool entered = sandbox_enter(&config, &view, &error);
    g_assert_no_error(error);
    g_assert_true(entered);
    return view;
}

/* This kernel may have no Landlock. Return: whether it is in force. */
static bool enter_landlock(SandboxConfig config, SandboxView *ret_view)
{
    *ret_view = enter(config);
    return ret_view->landlock;
}

static int result_of(long result)
{
    return result < 0 ? -errno : (int)result;
}

static int try_reopen(const SandboxView *view, int fd, uint64_t flags)
{
    g_autofree char *number = g_strdup_printf("%d", fd);

    return try_open(view->procfd, number, flags);
}

/* ---- outside ----------------------------------------------------------------------- */

static void assert_no_files(const SandboxView *view)
{
    g_assert_cmpint(try_open(outside, "secret", O_RDONLY), ==, -EACCES);
    g_assert_cmpint(try_open(outside, "secret", O_WRONLY), ==, -EACCES);
    g_assert_cmpint(try_open(outside, ".", O_RDONLY | O_DIRECTORY), ==, -EACCES);
    g_assert_cmpint(try_open(outside, "new", O_WRONLY | O_CREAT), ==, -EACCES);
    g_assert_cmpint(try_open(outside, ".", O_WRONLY | O_TMPFILE), ==, -EACCES);
    g_assert_cmpint(result_of(mkdirat(outside, "new", 0700)), ==, -EACCES);
    g_assert_cmpint(result_of(mknodat(outside, "new", S_IFIFO | 0600, 0)), ==, -EACCES);
    g_assert_cmpint(result_of(symlinkat("/", outside, "new")), ==, -EACCES);
    g_assert_cmpint(result_of(unlinkat(outside, "secret", 0)), ==, -EACCES);
    g_assert_cmpint(result_of(unlinkat(outside, "empty", AT_REMOVEDIR)), ==, -EACCES);
    g_assert_cmpint(result_of(renameat(outside, "secret", outside, "new")), ==, -EACCES);
    g_assert_cmpint(result_of(renameat(outside, "secret", view->root_fd, "new")), <, 0);
    g_assert_cmpint(result_of(renameat(view->root_fd, "file", outside, "new")), <, 0);
    g_assert_cmpint(result_of(linkat(outside, "secret", view->root_fd, "new", 0)), <, 0);
    /* Through the descriptor of a file that may be looked at. */
    int fd = open_at(outside, "secret", O_PATH);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(try_reopen(view, fd, O_RDONLY), ==, -EACCES);
    g_assert_cmpint(fchdir(view->procfd), ==, 0);
    g_autofree char *number = g_strdup_printf("%d", fd);
    g_assert_cmpint(result_of(truncate(number, 0)), ==, -EACCES);
    g_assert_cmpint(close(fd), ==, 0);
}

static void assert_no_others(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "\0test-landlock"};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    g_assert_cmpint(result_of(kill(getppid(), 0)), ==, -EPERM);
    g_assert_cmpint(result_of(kill(getpid(), 0)), ==, 0);
    g_assert_cmpint(fd, >=, 0);
    int r = result_of(connect(fd, (struct sockaddr *)&address, sizeof(address)));
    /* In a network namespace of its own it is not there. */
    g_assert_true(r == -EPERM || r == -ECONNREFUSED);
    g_assert_cmpint(close(fd), ==, 0);
    g_assert_cmpint(result_of(mount("x", "/", "tmpfs", 0, NULL)), ==, -EPERM);
    g_assert_cmpint(result_of(umount2("/", MNT_DETACH)), ==, -EPERM);
}

static void listen_abstract(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "\0test-landlock"};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_assert_cmpint(bind(fd, (struct sockaddr *)&address, sizeof(address)), ==, 0);
    g_assert_cmpint(listen(fd, 1), ==, 0);
}

static void stay_in(const void *data)
{
    const SandboxMode *mode = data;
    SandboxView view;

    if (enter_landlock((SandboxConfig){.mode = *mode}, &view)) {
        assert_no_files(&view);
        assert_no_others();
    }
}

/* The same with --no-landlock: what the others rest on is there. */
static void get_out(const void *data)
{
    const SandboxMode *mode = data;
    SandboxView view = enter((SandboxConfig){.mode = *mode, .no_landlock = true});

    g_assert_false(view.landlock);
    g_assert_cmpint(try_open(outside, "secret", O_RDONLY), ==, 0);
    g_assert_cmpint(try_open(outside, "new", O_WRONLY | O_CREAT), ==, 0);
    g_assert_cmpint(result_of(kill(getppid(), 0)), ==, 0);
}

static void host_outside(const void *data)
{
    host_start(data);
    listen_abstract();
    g_assert_cmpint(mkdir("empty", 0755), ==, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(modes); i++) {
        child_passes(stay_in, &modes[i]);
        g_assert_cmpint(access("new", F_OK), ==, -1);
        g_assert_cmpint(access("share/new", F_OK), ==, -1);
        child_passes(get_out, &modes[i]);
        g_assert_cmpint(unlink("new"), ==, 0);
    }
}

static void test_outside(void)
{
    host_run(host_outside);
}

/* ---- the folder of the socket ------------------------------------------------------ */

static void remove_only(const void *data)
{
    const SandboxMode *mode = data;
    SandboxView view;

    folder = *mode == SANDBOX_NONE
                 ? open("other", O_PATH | O_CLOEXEC)
                 : open_tree(AT_FDCWD, "other", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    g_assert_cmpint(folder, >=, 0);
    if (enter_landlock((SandboxConfig){.mode = *mode}, &view)) {
        g_assert_cmpint(try_open(folder, "thing", O_RDONLY), ==, -EACCES);
        g_assert_cmpint(try_open(folder, ".", O_RDONLY | O_DIRECTORY), ==, -EACCES);
        g_assert_cmpint(try_open(folder, "new", O_WRONLY | O_CREAT), ==, -EACCES);
        g_assert_cmpint(result_of(renameat(folder, "thing", folder, "new")), ==, -EACCES);
        g_assert_cmpint(result_of(unlinkat(outside, "secret", 0)), ==, -EACCES);
    }
    g_assert_cmpint(result_of(unlinkat(folder, "thing", 0)), ==, 0);
}

static void host_folder(const void *data)
{
    host_start(data);
    for (size_t i = 0; i < G_N_ELEMENTS(modes); i++) {
        child_passes(remove_only, &modes[i]);
        g_assert_true(g_file_set_contents("other/thing", "text", -1, NULL));
    }
}

static void test_folder(void)
{
    host_run(host_folder);
}

/* ---- inside ------------------------------------------------------------------------ */

static void assert_names(const SandboxView *view)
{
    const int root = view->root_fd;

    g_assert_cmpint(mkdirat(root, "a", 0700), ==, 0);
    g_assert_cmpint(try_open(root, "one", O_CREAT | O_RDWR), ==, 0);
    g_assert_cmpint(renameat(root, "one", root, "a/one"), ==, 0);
    g_assert_cmpint(try_open(root, "two", O_CREAT | O_RDWR), ==, 0);
    g_assert_cmpint(renameat2(root, "two", root, "a/one", RENAME_EXCHANGE), ==, 0);
    g_assert_cmpint(renameat2(root, "two", root, "three", RENAME_WHITEOUT), ==, 0);
    g_assert_cmpint(linkat(root, "three", root, "a/linked", 0), ==, 0);
    static const mode_t kinds[] = {S_IFREG, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK};
    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_assert_cmpint(mknodat(root, "node", kinds[i] | 0600, 0x0103), ==, 0);
        g_assert_cmpint(unlinkat(root, "node", 0), ==, 0);
    }
    g_assert_cmpint(symlinkat("x", root, "link"), ==, 0);
    for (const char *const *name =
             (const char *const[]){"a/one", "a/linked", "two", "three", "link", NULL};
         *name != NULL; name++) {
        g_assert_cmpint(unlinkat(root, *name, 0), ==, 0);
    }
    g_assert_cmpint(unlinkat(root, "a", AT_REMOVEDIR), ==, 0);
}

static void assert_files(const SandboxView *view)
{
    int fd = open_at(view->root_fd, ".", O_TMPFILE | O_RDWR);
    g_autofree char *number = g_strdup_printf("%d", fd);
    long flags = 0;

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ioctl(fd, GET_FLAGS, &flags), ==, 0);
    g_assert_cmpint(fchdir(view->procfd), ==, 0);
    g_assert_cmpint(truncate(number, 5), ==, 0);
    g_assert_cmpint(
        linkat(view->procfd, number, view->root_fd, "named", AT_SYMLINK_FOLLOW), ==, 0);
    g_assert_cmpint(unlinkat(view->root_fd, "named", 0), ==, 0);
    g_assert_cmpint(try_reopen(view, fd, O_RDWR | O_TRUNC), ==, 0);
    g_assert_cmpint(close(fd), ==, 0);
}

/* Says to the host that it is inside, and waits for what happens there. */
static void meet(int fd)
{
    char byte = 0;

    g_assert_cmpint(write(fd, &byte, 1), ==, 1);
    g_assert_cmpint(read(fd, &byte, 1), ==, 1);
}

typedef struct Late {
    SandboxMode mode;
    int fd;
} Late;

static void work(const void *data)
{
    const Late *late = data;
    SandboxView view;
    bool is_on = enter_landlock((SandboxConfig){.mode = late->mode}, &view);

    assert_names(&view);
    assert_files(&view);
    meet(late->fd); /* volumes are mounted */
    g_assert_cmpint(try_open(view.root_fd, "late/inner", O_RDWR), ==, 0);
    g_assert_cmpint(try_open(view.root_fd, "late/new", O_RDWR | O_CREAT), ==, 0);
    int fd = open_at(view.root_fd, "late/inner", O_PATH);
    int directory = open_at(view.root_fd, "late", O_PATH);
    meet(late->fd); /* and unmounted */
    g_assert_cmpint(try_open(view.root_fd, "late/inner", O_RDWR), ==, -ENOENT);
    g_assert_cmpint(try_reopen(&view, fd, O_RDONLY), ==, is_on ? -EACCES : 0);
    g_assert_cmpint(result_of(unlinkat(directory, "new", 0)), ==, is_on ? -EACCES : 0);
}

static void host_work(const void *data)
{
    char byte = 0;

    host_start(data);
    for (size_t i = 0; i < G_N_ELEMENTS(modes); i++) {
        int ends[2];
        g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), ==, 0);
        Late late = {modes[i], ends[1]};
        pid_t pid = fork();
        if (pid == 0) {
            work(&late);
            _exit(0);
        }
        g_assert_cmpint(close(ends[1]), ==, 0);
        g_assert_cmpint(read(ends[0], &byte, 1), ==, 1);
        host_bind("volume", "share/late");
        g_assert_cmpint(write(ends[0], &byte, 1), ==, 1);
        g_assert_cmpint(read(ends[0], &byte, 1), ==, 1);
        g_assert_cmpint(umount2("share/late", MNT_DETACH), ==, 0);
        g_assert_cmpint(write(ends[0], &byte, 1), ==, 1);
        int status = -1;
        g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
        g_assert_cmpint(status, ==, 0);
        (void)unlink("volume/new"); /* there if Landlock is */
    }
}

static void test_inside(void)
{
    host_run(host_work);
}

/* ---- other shares ------------------------------------------------------------------ */

static void read_only(const void *data)
{
    const SandboxMode *mode = data;
    SandboxView view;

    if (enter_landlock((SandboxConfig){.mode = *mode, .readonly = true}, &view)) {
        g_assert_cmpint(try_open(view.root_fd, "file", O_RDONLY), ==, 0);
        g_assert_cmpint(try_open(view.root_fd, ".", O_RDONLY | O_DIRECTORY), ==, 0);
        g_assert_cmpint(try_open(view.root_fd, "file", O_WRONLY), <, 0);
        g_assert_cmpint(try_open(view.root_fd, "new", O_WRONLY | O_CREAT), <, 0);
        g_assert_cmpint(result_of(unlinkat(view.root_fd, "file", 0)), <, 0);
    }
}

static void one_file(const void *data)
{
    const SandboxMode *mode = data;
    SandboxView view;

    if (enter_landlock((SandboxConfig){.mode = *mode, .shared_dir = "share/file"},
                       &view)) {
        g_assert_cmpint(try_reopen(&view, view.root_fd, O_RDWR | O_TRUNC), ==, 0);
        g_assert_cmpint(try_open(outside, "share/late", O_RDONLY), ==, -EACCES);
        g_assert_cmpint(try_open(outside, "secret", O_RDONLY), ==, -EACCES);
    }
}

static void host_shares(const void *data)
{
    host_start(data);
    for (size_t i = 0; i < G_N_ELEMENTS(modes); i++) {
        child_passes(read_only, &modes[i]);
        child_passes(one_file, &modes[i]);
    }
}

static void test_shares(void)
{
    host_run(host_shares);
}

/* ---- where it cannot be had -------------------------------------------------------- */

/* From here on the kernel answers so when it is asked with any, or with these, flags. */
static void play_kernel(int code, const struct scmp_arg_cmp *flags)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

    g_assert_nonnull(filter);
    g_assert_cmpint(seccomp_rule_add_array(filter, SCMP_ACT_ERRNO((unsigned)code),
                                           SCMP_SYS(landlock_create_ruleset),
                                           flags != NULL ? 1 : 0, flags),
                    ==, 0);
    g_assert_cmpint(seccomp_load(filter), ==, 0);
    seccomp_release(filter);
}

static void without(const void *data)
{
    const int *code = data;

    play_kernel(*code, NULL);
    SandboxView view = enter((SandboxConfig){.mode = SANDBOX_NONE});
    g_assert_false(view.landlock);
    g_assert_cmpint(try_open(outside, ".", O_RDONLY), ==, 0);
}

static void test_without(void)
{
    static const int codes[] = {ENOSYS, EOPNOTSUPP};
    g_autofree char *old = g_get_current_dir();
    g_autofree char *dir = g_dir_make_tmp("test-landlock-XXXXXX", NULL);

    g_assert_cmpint(chdir(dir), ==, 0);
    g_assert_cmpint(mkdir("share", 0700), ==, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(codes); i++) {
        child_passes(without, &codes[i]);
    }
    g_assert_cmpint(rmdir("share"), ==, 0);
    g_assert_cmpint(chdir(old), ==, 0);
    g_assert_cmpint(rmdir(dir), ==, 0);
}

/* Opening by handle finds files whose directories nobody has walked through: kernels that
 * know no errata refuse to open them, so nothing is asked of those. */
static void with_handles(const void *data)
{
    const bool *knows_errata = data;
    const struct scmp_arg_cmp flags = SCMP_A2(SCMP_CMP_EQ, 2, 0);
    SandboxView view;

    if (!*knows_errata) {
        play_kernel(EINVAL, &flags);
    }
    bool is_on = enter_landlock(
        (SandboxConfig){.mode = SANDBOX_NONE, .file_handles = true}, &view);
    g_assert_true(*knows_errata || !is_on);
    g_assert_cmpint(try_open(outside, "secret", O_RDONLY), ==, is_on ? -EACCES : 0);
}

/* Whoever opens none needs no erratum mended. */
static void without_handles(const void *data)
{
    const struct scmp_arg_cmp flags = SCMP_A2(SCMP_CMP_EQ, 2, 0);
    SandboxView view;

    play_kernel(EINVAL, &flags);
    bool is_on = enter_landlock((SandboxConfig){.mode = SANDBOX_NONE}, &view);
    g_assert_true(is_on == (syscall(SYS_landlock_create_ruleset, NULL, 0, 1) >= 2 &&
                            !SANDBOX_ASAN && !SANDBOX_TSAN));
}

static void host_handles(const void *data)
{
    static const bool knows_errata[] = {true, false};

    host_start(data);
    for (size_t i = 0; i < G_N_ELEMENTS(knows_errata); i++) {
        child_passes(with_handles, &knows_errata[i]);
    }
    child_passes(without_handles, NULL);
}

static void test_handles(void)
{
    host_run(host_handles);
}

static void with_user(const void *data)
{
    SandboxView view;

    inside_become_user();
    if (enter_landlock((SandboxConfig){.mode = SANDBOX_NONE}, &view)) {
        g_assert_cmpint(try_open(outside, "secret", O_RDONLY), ==, -EACCES);
        g_assert_cmpint(try_open(view.root_fd, "file", O_RDONLY), ==, 0);
    }
}

static void host_user(const void *data)
{
    host_start(data);
    child_passes(with_user, NULL);
}

static void test_user(void)
{
    host_run(host_user);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_open(LOG_LEVEL_OFF, false);
    g_test_add_func("/landlock/outside", test_outside);
    g_test_add_func("/landlock/folder", test_folder);
    g_test_add_func("/landlock/inside", test_inside);
    g_test_add_func("/landlock/shares", test_shares);
    g_test_add_func("/landlock/without", test_without);
    g_test_add_func("/landlock/handles", test_handles);
    g_test_add_func("/landlock/user", test_user);
    return g_test_run();
}
