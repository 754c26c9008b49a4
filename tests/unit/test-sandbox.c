/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entering the sandbox. A test plays three parts: this process; a "host" with a mount
 * namespace of its own, in which a tmpfs is shared as a container runtime's directory is;
 * and a process inside, which the host looks at through /proc and asks to try things.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "sandbox/sandbox.h"
#include "tests/unit/child.h"
#include "virtiofsd/log.h"

#define KEPT_CAPS "00000000880000db"
#define NO_CAPS "0000000000000000"

/* ---- the process inside ------------------------------------------------------------ */

/* What it is asked to try; the answer is 0 or more, or a negative errno. */
typedef enum What {
    ASK_PRESENT,        /* is there such a name below the root descriptor? */
    ASK_CREATE,         /* make a file */
    ASK_PROCFD,         /* walk from the directory of descriptors */
    ASK_REOPEN,         /* open a file again through its descriptor's number... */
    ASK_REOPEN_AS_USER, /* ... in a thread that is user 1000 */
    ASK_SET_ID,         /* make it set-user-id */
    ASK_MAKE_DEVICE,
    ASK_DUMPABLE,
} What;

typedef struct Ask {
    What what;
    char path[100];
} Ask;

typedef struct Inside {
    pid_t pid;
    int fd; /* the host's end */
    SandboxView view;
} Inside;

static int open_at(int dir_fd, const char *path, uint64_t flags)
{
    const struct open_how how = {.flags = flags | O_CLOEXEC,
                                 .mode = flags & O_CREAT ? 0600 : 0};
    long fd = syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));

    return fd < 0 ? -errno : (int)fd;
}

static int try_open(int dir_fd, const char *path, uint64_t flags)
{
    int fd = open_at(dir_fd, path, flags);

    if (fd >= 0) {
        g_assert_cmpint(close(fd), ==, 0);
        return 0;
    }
    return fd;
}

typedef struct Reopen {
    const SandboxView *view;
    const char *path;
    bool as_user;
    int result;
} Reopen;

static void *reopen_main(void *data)
{
    Reopen *reopen = data;
    int fd = open_at(reopen->view->root_fd, reopen->path, O_PATH | O_NOFOLLOW);

    if (fd < 0) {
        reopen->result = fd;
        return NULL;
    }
    g_autofree char *number = g_strdup_printf("%d", fd);
    if (reopen->as_user) {
        /* For this thread alone: the C library would change them all. */
        g_assert_cmpint(syscall(SYS_setresgid, -1, 1000, -1), ==, 0);
        g_assert_cmpint(syscall(SYS_setresuid, -1, 1000, -1), ==, 0);
    }
    reopen->result = try_open(reopen->view->procfd, number, O_RDONLY);
    (void)close(fd);
    return NULL;
}

static int reopen_in_thread(const SandboxView *view, const char *path, bool as_user)
{
    Reopen reopen = {.view = view, .path = path, .as_user = as_user};
    pthread_t thread;

    g_assert_cmpint(pthread_create(&thread, NULL, reopen_main, &reopen), ==, 0);
    g_assert_cmpint(pthread_join(thread, NULL), ==, 0);
    return reopen.result;
}

static int answer(const SandboxView *view, const Ask *ask)
{
    struct statx stx;

    switch (ask->what) {
    case ASK_PRESENT:
        return statx(view->root_fd, ask->path, AT_SYMLINK_NOFOLLOW, STATX_INO, &stx) < 0
                   ? -errno
                   : 0;
    case ASK_CREATE:
        return try_open(view->root_fd, ask->path, O_CREAT | O_EXCL | O_WRONLY);
    case ASK_PROCFD:
        return try_open(view->procfd, ask->path, O_PATH);
    case ASK_REOPEN:
        return reopen_in_thread(view, ask->path, false);
    case ASK_REOPEN_AS_USER:
        return reopen_in_thread(view, ask->path, true);
    case ASK_SET_ID:
        return fchmodat(view->root_fd, ask->path, 04755, 0) < 0 ? -errno : 0;
    case ASK_MAKE_DEVICE:
        return mknodat(view->root_fd, ask->path, S_IFCHR | 0600, 0x0103) < 0 ? -errno : 0;
    case ASK_DUMPABLE:
        return prctl(PR_GET_DUMPABLE);
    }
    g_assert_not_reached();
}

static void inside_main(const SandboxConfig *config, int fd)
{
    g_autoptr(GError) error = NULL;
    SandboxView view;
    Ask ask;

    child_settle();
    sandbox_scrub(fd);
    bool entered = sandbox_enter(config, &view, &error);
    g_assert_no_error(error);
    g_assert_true(entered);
    bool sealed = sandbox_seal(config, &error);
    g_assert_no_error(error);
    g_assert_true(sealed);
    g_assert_cmpint(write(fd, &view, sizeof(view)), ==, sizeof(view));
    while (read(fd, &ask, sizeof(ask)) == (ssize_t)sizeof(ask)) {
        int result = answer(&view, &ask);
        g_assert_cmpint(write(fd, &result, sizeof(result)), ==, sizeof(result));
    }
    _exit(0);
}

static Inside inside_start(const SandboxConfig *config)
{
    Inside inside;
    int ends[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), ==, 0);
    inside.pid = fork();
    g_assert_cmpint(inside.pid, >=, 0);
    if (inside.pid == 0) {
        inside_main(config, ends[1]);
    }
    (void)close(ends[1]);
    inside.fd = ends[0];
    g_assert_cmpint(read(inside.fd, &inside.view, sizeof(inside.view)), ==,
                    sizeof(inside.view));
    return inside;
}

static int inside_try(const Inside *inside, What what, const char *path)
{
    Ask ask = {.what = what};
    int result = 0;

    g_strlcpy(ask.path, path, sizeof(ask.path));
    g_assert_cmpint(write(inside->fd, &ask, sizeof(ask)), ==, sizeof(ask));
    g_assert_cmpint(read(inside->fd, &result, sizeof(result)), ==, sizeof(result));
    return result;
}

static void inside_stop(const Inside *inside)
{
    int status = -1;

    (void)close(inside->fd);
    g_assert_cmpint(waitpid(inside->pid, &status, 0), ==, inside->pid);
    g_assert_cmpint(status, ==, 0);
}

static char *inside_proc(const Inside *inside, const char *name)
{
    return g_strdup_printf("/proc/%d/%s", (int)inside->pid, name);
}

/* ---- the host ---------------------------------------------------------------------- */

static void host_bind(const char *from, const char *to)
{
    g_assert_cmpint(mount(from, to, NULL, MS_BIND, NULL), ==, 0);
}

/* In @dir a shared tmpfs, with share/{file,late/,sub/} and a volume mounted on sub. */
static void host_start(const char *dir)
{
    g_assert_cmpint(unshare(CLONE_NEWNS), ==, 0);
    g_assert_cmpint(mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL), ==, 0);
    g_assert_cmpint(mount("test", dir, "tmpfs", 0, NULL), ==, 0);
    g_assert_cmpint(mount(NULL, dir, NULL, MS_SHARED, NULL), ==, 0);
    g_assert_cmpint(chdir(dir), ==, 0);
    g_assert_cmpint(chmod(".", 0755), ==, 0);
    static const char *const dirs[] = {"share",  "share/late",  "share/sub",
                                       "volume", "volume/deep", "other"};
    for (size_t i = 0; i < G_N_ELEMENTS(dirs); i++) {
        g_assert_cmpint(mkdir(dirs[i], 0755), ==, 0);
    }
    static const char *const files[] = {"share/file", "volume/inner", "other/thing",
                                        "secret"};
    for (size_t i = 0; i < G_N_ELEMENTS(files); i++) {
        g_assert_true(g_file_set_contents(files[i], "text", -1, NULL));
        g_assert_cmpint(chmod(files[i], 0644), ==, 0);
    }
    host_bind("volume", "share/sub");
}

/* Run @body as a host; it is given the directory. */
static void host_run(ChildBody body)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *dir = g_dir_make_tmp("test-sandbox-XXXXXX", &error);

    g_assert_no_error(error);
    if (geteuid() != 0) {
        g_test_skip("needs root");
    } else {
        child_passes(body, dir);
    }
    g_assert_cmpint(rmdir(dir), ==, 0);
}

static char *read_file(const char *path)
{
    g_autoptr(GError) error = NULL;
    char *text = NULL;

    g_file_get_contents(path, &text, NULL, &error);
    g_assert_no_error(error);
    return text;
}

static bool same_file(const char *one, const char *other)
{
    struct stat a, b;

    g_assert_cmpint(stat(one, &a), ==, 0);
    g_assert_cmpint(stat(other, &b), ==, 0);
    return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* ---- namespace: the audit ---------------------------------------------------------- */

static void assert_namespaces(const Inside *inside)
{
    static const struct {
        const char *name;
        bool own;
    } spaces[] = {{"ns/mnt", true}, {"ns/net", true},  {"ns/ipc", true},
                  {"ns/uts", true}, {"ns/pid", false}, {"ns/user", false}};

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
    g_assert_cmpuint(n_open, ==, 3 + 1 + n_directories); /* standard, socket */
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

static void lose(unsigned int cap)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];

    g_assert_cmpint(syscall(SYS_capget, &header, sets), ==, 0);
    sets[0].effective &= ~(1u << cap);
    sets[0].permitted &= ~(1u << cap);
    g_assert_cmpint(syscall(SYS_capset, &header, sets), ==, 0);
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
    lose(CAP_SYS_ADMIN);
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

static void become_user(void)
{
    if (geteuid() == 0) {
        g_assert_cmpint(setgroups(0, NULL), ==, 0);
        g_assert_cmpint(setresgid(65534, 65534, 65534), ==, 0);
        g_assert_cmpint(setresuid(65534, 65534, 65534), ==, 0);
    }
}

static void none_as_user(const void *data)
{
    const SandboxConfig config = {
        .mode = SANDBOX_NONE, .shared_dir = "/usr", .seccomp = SANDBOX_SECCOMP_NONE};

    become_user();
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
        become_user();
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
    static const Refusal refusals[] = {
        {{.shared_dir = "/no/such"}, true, "ordinary user"},
        {{.shared_dir = "/", .mode = SANDBOX_NAMESPACE}, true, "--sandbox=none"},
        {{.shared_dir = "/", .mode = SANDBOX_CHROOT}, true, "needs root"},
        {{.shared_dir = "/no/such", .mode = SANDBOX_NONE},
         true,
         "cannot find the share /no/such: No such file or directory"},
        {{.shared_dir = "/etc/passwd", .mode = SANDBOX_NONE}, true, "is a file"},
        {{.shared_dir = "/dev/null", .mode = SANDBOX_NONE}, true, "is not a directory"},
        {{.shared_dir = "/", .mode = SANDBOX_NONE, .modcaps = "+x"}, true, "\"+x\""},
        {{.shared_dir = "/", .mode = SANDBOX_NONE, .rlimit_nofile = UINT64_MAX - 1},
         true,
         "--rlimit-nofile"},
        {{.shared_dir = "/no/such"}, false, "cannot find the share /no/such"},
        {{.shared_dir = "/etc/passwd"}, false, "is a file"},
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

    lose(cap);
    g_assert_false(sandbox_enter(&config, &view, &error));
    g_assert_nonnull(strstr(error->message, message));
}

static void no_admin(const void *data)
{
    refuse_without(CAP_SYS_ADMIN, SANDBOX_NAMESPACE,
                   "cannot enter new mount, network, IPC and UTS namespaces: Operation "
                   "not permitted; run as root with CAP_SYS_ADMIN, or use "
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
    g_test_add_func("/sandbox/chroot", test_chroot);
    g_test_add_func("/sandbox/none/root", test_none_as_root);
    g_test_add_func("/sandbox/none/user", test_none_as_user);
    g_test_add_func("/sandbox/refuse", test_refusals);
    g_test_add_func("/sandbox/refuse/capabilities", test_refuse_without);
    g_test_add_func("/sandbox/refuse/threads", test_refuse_threads);
    return g_test_run();
}
