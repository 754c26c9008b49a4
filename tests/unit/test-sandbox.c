/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entering the sandbox, as root; what refuses to enter, for everybody.
 */
#include "sandbox/sandbox.h"
#include "tests/unit/inside.h"
#include "virtiofsd/log.h"

/* ---- namespace: the audit ---------------------------------------------------------- */

static void assert_namespaces(const Inside *inside)
{
    static const struct {
        const char *name;
        bool own;
    } spaces[] = {{"ns/mnt", true},  {"ns/net", true},    {"ns/ipc", true},
                  {"ns/uts", true},  {"ns/cgroup", true}, {"ns/pid", false},
                  {"ns/user", false}};

    for (size_t i = 0; i < G_N_ELEMENTS(spaces); i++) {
        g_autofree char *theirs = inside_proc(inside, spaces[i].name);
        g_autofree char *ours = g_strdup_printf("/proc/self/%s", spaces[i].name);
        g_assert_cmpint(same_file(theirs, ours), ==, !spaces[i].own);
    }
}

/* The share and what is mounted in it: hardened, slaves, and nothing else. */
static void assert_mounts(const Inside *inside)
{
    static const char *const points[] = {"/", "/sub"};
    g_autofree char *path = inside_proc(inside, "mountinfo");
    g_autofree char *text = read_file(path);
    g_auto(GStrv) lines = g_strsplit(g_strchomp(text), "\n", -1);

    g_assert_cmpuint(g_strv_length(lines), ==, G_N_ELEMENTS(points));
    for (size_t i = 0; i < G_N_ELEMENTS(points); i++) {
        g_auto(GStrv) fields = g_strsplit(lines[i], " ", -1);
        g_assert_cmpstr(fields[3], ==, i == 0 ? "/share" : "/volume");
        g_assert_cmpstr(fields[4], ==, points[i]);
        g_assert_nonnull(strstr(fields[5], "nosuid,nodev,noexec"));
        g_assert_nonnull(strstr(lines[i], " master:"));
        g_assert_null(strstr(lines[i], " shared:"));
    }
}

static void assert_descriptors(const Inside *inside)
{
    g_autofree char *path = inside_proc(inside, "fd");
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    unsigned int n_open = 0;
    unsigned int n_directories = 0;

    g_assert_nonnull(dir);
    for (const char *name; (name = g_dir_read_name(dir)) != NULL; n_open++) {
        g_autofree char *link = g_build_filename(path, name, NULL);
        struct stat st;
        g_assert_cmpint(stat(link, &st), ==, 0);
        if (S_ISDIR(st.st_mode)) {
            int fd = atoi(name);
            g_assert_true(fd == inside->view.root_fd || fd == inside->view.procfd);
            g_assert_true(same_file(link, fd == inside->view.procfd ? path : "share"));
            n_directories++;
        }
    }
    g_assert_cmpuint(n_directories, ==, 2);
    unsigned int n_tables = inside->view.host_mounts >= 0 ? 2 : 0;
    /* standard, socket */
    g_assert_cmpuint(n_open, ==, 3 + 1 + n_directories + n_tables);
}

static void assert_privileges(pid_t pid)
{
    child_assert_status(pid, "CapPrm", KEPT_CAPS);
    child_assert_status(pid, "CapEff", KEPT_CAPS);
    child_assert_status(pid, "CapInh", NO_CAPS);
    child_assert_status(pid, "CapBnd", NO_CAPS);
    child_assert_status(pid, "CapAmb", NO_CAPS);
    child_assert_status(pid, "NoNewPrivs", "1");
    child_assert_status(pid, "Groups", "");
    child_assert_status(pid, "Uid", "0\t0\t0\t0");
    child_assert_status(pid, "Gid", "0\t0\t0\t0");
}

static void audit(const void *data)
{
    static const gid_t groups[] = {5, 1000};
    const SandboxConfig config = {.shared_dir = "share", .seccomp = SANDBOX_SECCOMP_KILL};

    host_start(data);
    g_assert_cmpint(setgroups(G_N_ELEMENTS(groups), groups), ==, 0);
    g_assert_cmpint(setregid(1000, 0), ==, 0);
    g_autofree char *before = read_file("/proc/self/mountinfo");
    Inside inside = inside_start(&config);
    g_autofree char *after = read_file("/proc/self/mountinfo");
    g_assert_cmpstr(before, ==, after);

    g_autofree char *root = inside_proc(&inside, "root");
    g_autofree char *cwd = inside_proc(&inside, "cwd");
    g_assert_true(same_file(root, "share"));
    g_assert_true(same_file(cwd, "share"));
    assert_namespaces(&inside);
    assert_mounts(&inside);
    assert_descriptors(&inside);
    assert_privileges(inside.pid);
    child_assert_status(inside.pid, "Seccomp", "2");
    child_assert_status(inside.pid, "Threads", SANDBOX_TOOL_THREADS ? "2" : "1");
    inside_stop(&inside);
}

static void test_audit(void)
{
    host_run(audit);
}

/* ---- namespace: what the host mounts later ----------------------------------------- */

static void propagate(const void *data)
{
    const SandboxConfig config = {.shared_dir = "share", .seccomp = SANDBOX_SECCOMP_NONE};

    host_start(data);
    Inside inside = inside_start(&config);
    g_assert_cmpint(inside_try(&inside, ASK_PRESENT, "file"), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_PRESENT, "sub/inner"), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_PRESENT, "late/inner"), ==, -ENOENT);

    host_bind("volume", "share/late");
    g_assert_cmpint(inside_try(&inside, ASK_PRESENT, "late/inner"), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_CREATE, "late/made"), ==, 0);
    g_assert_cmpint(access("volume/made", F_OK), ==, 0);
    /* Below a mount that came late, and below one that was there. */
    host_bind("other", "share/late/deep");
    g_assert_cmpint(inside_try(&inside, ASK_PRESENT, "late/deep/thing"), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_PRESENT, "sub/deep/thing"), ==, 0);

    g_assert_cmpint(umount2("share/late/deep", MNT_DETACH), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_PRESENT, "late/deep/thing"), ==, -ENOENT);
    g_assert_cmpint(umount2("share/late", MNT_DETACH), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_PRESENT, "late/inner"), ==, -ENOENT);
    g_assert_cmpint(umount2("share/sub", 0), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_PRESENT, "sub/inner"), ==, -ENOENT);
    inside_stop(&inside);
    g_assert_cmpint(access("share/file", F_OK), ==, 0);
}

static void test_propagate(void)
{
    host_run(propagate);
}

/* ---- namespace: the way out -------------------------------------------------------- */

static void assert_no_way_out(const Inside *inside)
{
    /* ".." of a clone is itself: then these are names of descriptors, and there are none
     * such; "1" is standard output, which has nothing below it. */
    static const char *const names[] = {"../exe",       "../root",    "../cwd", "../fd",
                                        "../../1/root", "../../self", "../task"};

    g_assert_cmpint(inside_try(inside, ASK_PRESENT, "../secret"), ==, -ENOENT);
    g_assert_cmpint(inside_try(inside, ASK_PRESENT, "/secret"), ==, -ENOENT);
    g_assert_cmpint(inside_try(inside, ASK_PRESENT, "/proc/self"), ==, -ENOENT);
    g_assert_cmpint(inside_try(inside, ASK_PROCFD, "."), ==, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_assert_cmpint(inside_try(inside, ASK_PROCFD, names[i]), <, 0);
    }
}

static void descriptors(const void *data)
{
    const SandboxConfig config = {.shared_dir = "share", .seccomp = SANDBOX_SECCOMP_NONE};

    host_start(data);
    Inside inside = inside_start(&config);
    assert_no_way_out(&inside);
    g_assert_cmpint(inside_try(&inside, ASK_DUMPABLE, ""), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_REOPEN, "file"), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_REOPEN, "sub/inner"), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_REOPEN_AS_USER, "file"), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_REOPEN_AS_USER, "late"), ==, 0);
    g_assert_cmpint(chmod("share/file", 0600), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_REOPEN_AS_USER, "file"), ==, -EACCES);
    /* Made as the guest wants it, but nothing that opens it here is a device. */
    g_assert_cmpint(inside_try(&inside, ASK_SET_ID, "file"), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_MAKE_DEVICE, "null"), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_REOPEN, "null"), ==, -EACCES);
    g_assert_cmpint(inside_try(&inside, ASK_MAKE_DEVICE, "sub/null"), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_REOPEN, "sub/null"), ==, -EACCES);
    inside_stop(&inside);
}

static void test_descriptors(void)
{
    host_run(descriptors);
}

/* ---- namespace: other shares ------------------------------------------------------- */

static void assert_shares(const char *shared_dir, const char *what, const char *file)
{
    const SandboxConfig config = {.shared_dir = shared_dir,
                                  .seccomp = SANDBOX_SECCOMP_NONE};
    Inside inside = inside_start(&config);
    g_autofree char *root = inside_proc(&inside, "root");

    g_assert_true(same_file(root, what));
    g_assert_cmpint(inside_try(&inside, ASK_PRESENT, file), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_REOPEN, file), ==, 0);
    inside_stop(&inside);
}

static void shares(const void *data)
{
    g_autofree char *absolute = g_build_filename(data, "share", NULL);

    host_start(data);
    assert_shares(absolute, absolute, "file");
    assert_shares("share/sub", "share/sub", "inner"); /* a mount point itself */
    g_assert_cmpint(symlink("share", "link"), ==, 0);
    assert_shares("link", "share", "file");
    assert_shares("./share/../link/", "share", "file");
    assert_shares("/", "/", "proc/self/status"); /* all of the host, mounts included */
}

static void test_shares(void)
{
    host_run(shares);
}

static void readonly(const void *data)
{
    const SandboxConfig config = {.shared_dir = "share", .seccomp = SANDBOX_SECCOMP_NONE};

    host_start(data);
    host_bind("share", "share");
    g_assert_cmpint(mount(NULL, "share", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL),
                    ==, 0);
    Inside inside = inside_start(&config);
    g_assert_cmpint(inside_try(&inside, ASK_PRESENT, "file"), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_CREATE, "made"), ==, -EROFS);
    /* A writable volume in a read-only share, as Kata lays it out. */
    host_bind("volume", "share/late");
    g_assert_cmpint(inside_try(&inside, ASK_CREATE, "late/made"), ==, 0);
    inside_stop(&inside);
}

static void test_readonly(void)
{
    host_run(readonly);
}

/* --readonly: also of volumes that are there, but not of those that come later. */
static void made_readonly(const void *data)
{
    const SandboxConfig config = {.shared_dir = "share",
                                  .seccomp = SANDBOX_SECCOMP_NONE,
                                  .readonly = true,
                                  .no_landlock = true};

    host_start(data);
    host_bind("volume", "share/sub");
    Inside inside = inside_start(&config);
    g_assert_cmpint(inside_try(&inside, ASK_PRESENT, "file"), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_CREATE, "made"), ==, -EROFS);
    g_assert_cmpint(inside_try(&inside, ASK_CREATE, "sub/made"), ==, -EROFS);
    host_bind("volume", "share/late");
    /* Landlock refuses that in tests/unit/test-landlock.c. */
    g_assert_cmpint(inside_try(&inside, ASK_CREATE, "late/made"), ==, 0);
    /* The host's own view is as it was. */
    g_assert_true(g_file_set_contents("share/made", "", 0, NULL));
    inside_stop(&inside);
}

static void test_made_readonly(void)
{
    host_run(made_readonly);
}

/* ---- the other modes --------------------------------------------------------------- */

static void in_chroot(const void *data)
{
    const SandboxConfig config = {
        .mode = SANDBOX_CHROOT, .shared_dir = "share", .seccomp = SANDBOX_SECCOMP_NONE};

    host_start(data);
    Inside inside = inside_start(&config);
    g_autofree char *root = inside_proc(&inside, "root");
    g_autofree char *cwd = inside_proc(&inside, "cwd");
    g_assert_true(same_file(root, "share"));
    g_assert_true(same_file(cwd, "share"));
    assert_privileges(inside.pid);
    assert_descriptors(&inside);
    assert_no_way_out(&inside);
    g_assert_cmpint(inside_try(&inside, ASK_DUMPABLE, ""), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_REOPEN_AS_USER, "file"), ==, 0);
    host_bind("volume", "share/late");
    g_assert_cmpint(inside_try(&inside, ASK_PRESENT, "late/inner"), ==, 0);
    inside_stop(&inside);
}

/* Where no mount may be made it still works, if not as well: it says so. */
static void in_chroot_only(const void *data)
{
    const SandboxConfig config = {
        .mode = SANDBOX_CHROOT, .shared_dir = "share", .seccomp = SANDBOX_SECCOMP_NONE};

    host_start(data);
    inside_lose(CAP_SYS_ADMIN);
    Inside inside = inside_start(&config);
    g_autofree char *root = inside_proc(&inside, "root");
    g_assert_true(same_file(root, "share"));
    g_assert_cmpint(inside_try(&inside, ASK_PRESENT, "../secret"), ==, -ENOENT);
    g_assert_cmpint(inside_try(&inside, ASK_REOPEN_AS_USER, "file"), ==, 0);
    inside_stop(&inside);
}

static void test_chroot(void)
{
    host_run(in_chroot);
    host_run(in_chroot_only);
}

static void none_as_root(const void *data)
{
    const SandboxConfig config = {
        .mode = SANDBOX_NONE, .shared_dir = "share", .seccomp = SANDBOX_SECCOMP_NONE};

    host_start(data);
    Inside inside = inside_start(&config);
    g_autofree char *root = inside_proc(&inside, "root");
    g_assert_true(same_file(root, "/"));
    assert_privileges(inside.pid);
    assert_descriptors(&inside);
    child_assert_status(inside.pid, "Seccomp", "0");
    g_assert_cmpint(inside_try(&inside, ASK_DUMPABLE, ""), ==, 1);
    inside_stop(&inside);
}

static void test_none_as_root(void)
{
    host_run(none_as_root);
}

static void none_as_user(const void *data)
{
    const SandboxConfig config = {
        .mode = SANDBOX_NONE, .shared_dir = "/usr", .seccomp = SANDBOX_SECCOMP_NONE};

    inside_become_user();
    Inside inside = inside_start(&config);
    child_assert_status(inside.pid, "CapEff", NO_CAPS);
    child_assert_status(inside.pid, "NoNewPrivs", "1");
    g_assert_cmpint(inside_try(&inside, ASK_PRESENT, "bin"), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_REOPEN, "bin"), ==, 0);
    inside_stop(&inside);
}

static void test_none_as_user(void)
{
    child_passes(none_as_user, NULL);
}

/* ---- refusals ---------------------------------------------------------------------- */

typedef struct Refusal {
    SandboxConfig config;
    bool as_user;
    const char *message; /* part of it */
} Refusal;

static void refuse(const void *data)
{
    const Refusal *refusal = data;
    g_autoptr(GError) error = NULL;
    SandboxView view;

    g_autofree char *before = read_file("/proc/self/mountinfo");
    if (refusal->as_user) {
        inside_become_user();
    }
    g_assert_false(sandbox_enter(&refusal->config, &view, &error));
    g_assert_nonnull(error);
    g_assert_null(strchr(error->message, '\n'));
    if (strstr(error->message, refusal->message) == NULL) {
        g_error("\"%s\" does not say \"%s\"", error->message, refusal->message);
    }
    g_autofree char *after = read_file("/proc/self/mountinfo");
    g_assert_cmpstr(before, ==, after);
}

static void test_refusals(void)
{
    static const SandboxIdMap map = {.n = 1, .ranges = {{0, 1000, 1}}};
    static const Refusal refusals[] = {
        {{.shared_dir = "/no/such"}, true, "cannot find the share /no/such"},
        {{.shared_dir = "/", .mode = SANDBOX_CHROOT}, true, "needs root"},
        {{.shared_dir = "/no/such", .mode = SANDBOX_NONE},
         true,
         "cannot find the share /no/such: No such file or directory"},
        {{.shared_dir = "/dev/null", .mode = SANDBOX_NONE},
         true,
         "is neither a directory nor a regular file"},
        {{.shared_dir = "/", .mode = SANDBOX_NONE, .modcaps = "+x"}, true, "\"+x\""},
        {{.shared_dir = "/", .mode = SANDBOX_NONE, .rlimit_nofile = UINT64_MAX - 1},
         true,
         "--rlimit-nofile"},
        {{.shared_dir = "/no/such"}, false, "cannot find the share /no/such"},
        {{.shared_dir = "/dev/null"}, false, "is neither a directory nor"},
        {{.shared_dir = "/", .uid_map = &map}, false, "for ordinary users"},
        {{.shared_dir = "/", .gid_map = &map}, false, "for ordinary users"},
        {{.shared_dir = "/", .uid_map = &map, .mode = SANDBOX_NONE},
         true,
         "need --sandbox=namespace"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(refusals); i++) {
        if (geteuid() == 0 || refusals[i].as_user) {
            child_passes(refuse, &refusals[i]);
        }
    }
}

/* Root, but in a container that may make no mounts, or not change the root. */
static void refuse_without(unsigned int cap, SandboxMode mode, const char *message)
{
    const SandboxConfig config = {.mode = mode, .shared_dir = "/usr"};
    g_autoptr(GError) error = NULL;
    SandboxView view;

    inside_lose(cap);
    g_assert_false(sandbox_enter(&config, &view, &error));
    g_assert_nonnull(strstr(error->message, message));
}

static void no_admin(const void *data)
{
    refuse_without(CAP_SYS_ADMIN, SANDBOX_NAMESPACE,
                   "cannot enter new mount, network, IPC, UTS and cgroup namespaces: "
                   "Operation not permitted; run as root with CAP_SYS_ADMIN, or use "
                   "--sandbox=none");
}

static void no_chroot(const void *data)
{
    refuse_without(CAP_SYS_CHROOT, SANDBOX_CHROOT,
                   "Operation not permitted; run as root with CAP_SYS_CHROOT");
}

static void test_refuse_without(void)
{
    if (geteuid() != 0) {
        g_test_skip("needs root");
        return;
    }
    child_passes(no_admin, NULL);
    child_passes(no_chroot, NULL);
}

static void *wait_main(void *data)
{
    pthread_barrier_t *end = data;

    pthread_barrier_wait(end);
    return NULL;
}

static void refuse_threads(const void *data)
{
    const SandboxConfig config = {.mode = SANDBOX_NONE, .shared_dir = "/"};
    g_autoptr(GError) error = NULL;
    pthread_barrier_t end;
    pthread_t threads[2];
    SandboxView view;

    pthread_barrier_init(&end, NULL, 3);
    for (size_t i = 0; i < G_N_ELEMENTS(threads); i++) {
        g_assert_cmpint(pthread_create(&threads[i], NULL, wait_main, &end), ==, 0);
    }
    g_assert_false(sandbox_enter(&config, &view, &error));
    g_assert_nonnull(strstr(error->message, "threads"));
    pthread_barrier_wait(&end);
    for (size_t i = 0; i < G_N_ELEMENTS(threads); i++) {
        g_assert_cmpint(pthread_join(threads[i], NULL), ==, 0);
    }
}

static void test_refuse_threads(void)
{
    child_passes(refuse_threads, NULL);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_open(LOG_LEVEL_OFF, false);
    g_test_add_func("/sandbox/namespace/audit", test_audit);
    g_test_add_func("/sandbox/namespace/propagate", test_propagate);
    g_test_add_func("/sandbox/namespace/descriptors", test_descriptors);
    g_test_add_func("/sandbox/namespace/shares", test_shares);
    g_test_add_func("/sandbox/namespace/readonly", test_readonly);
    g_test_add_func("/sandbox/namespace/made-readonly", test_made_readonly);
    g_test_add_func("/sandbox/chroot", test_chroot);
    g_test_add_func("/sandbox/none/root", test_none_as_root);
    g_test_add_func("/sandbox/none/user", test_none_as_user);
    g_test_add_func("/sandbox/refuse", test_refusals);
    g_test_add_func("/sandbox/refuse/capabilities", test_refuse_without);
    g_test_add_func("/sandbox/refuse/threads", test_refuse_threads);
    return g_test_run();
}
