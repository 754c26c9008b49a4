/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_INSIDE_H
#define TESTS_UNIT_INSIDE_H

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

/*
 * A test of the sandbox plays three parts: this process; a "host" with a mount namespace
 * of its own, in which a tmpfs is shared as a container runtime's directory is; and a
 * process inside, which the host looks at through /proc and asks to try things.
 */

#define KEPT_CAPS "00000000880000db"
#define NO_CAPS "0000000000000000"

/* ---- the process inside ------------------------------------------------------------ */

/* What it is asked to try; the answer is 0 or more, or a negative errno. */
typedef enum What {
    ASK_PRESENT, /* is there such a name below the root descriptor? */
    ASK_CREATE,  /* make a file */
    ASK_PROCFD,  /* walk from the directory of descriptors */
    ASK_REOPEN,  /* open a file, or "" for the share, again through its descriptor's
                    number... */
    ASK_REOPEN_AS_USER, /* ... as user 1000 */
    ASK_REOPEN_TO_WRITE,
    ASK_SET_ID, /* make it set-user-id */
    ASK_MAKE_DEVICE,
    ASK_DUMPABLE,
    ASK_SIZE, /* of the share itself, if it is a file */
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

static inline int open_at(int dir_fd, const char *path, uint64_t flags)
{
    const struct open_how how = {.flags = flags | O_CLOEXEC,
                                 .mode = flags & O_CREAT ? 0600 : 0};
    long fd = syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));

    return fd < 0 ? -errno : (int)fd;
}

static inline int try_open(int dir_fd, const char *path, uint64_t flags)
{
    int fd = open_at(dir_fd, path, flags);

    if (fd >= 0) {
        g_assert_cmpint(close(fd), ==, 0);
        return 0;
    }
    return fd;
}

/* As a worker does it: for this thread alone; the C library would change them all. */
static inline void borrow_ids(uid_t uid, gid_t gid)
{
    /* The group while we are root, or again are. */
    if (uid == 0) {
        g_assert_cmpint(syscall(SYS_setresuid, -1, uid, -1), ==, 0);
    }
    g_assert_cmpint(syscall(SYS_setresgid, -1, gid, -1), ==, 0);
    if (uid != 0) {
        g_assert_cmpint(syscall(SYS_setresuid, -1, uid, -1), ==, 0);
    }
}

static inline int reopen(const SandboxView *view, const Ask *ask)
{
    const uint64_t flags = ask->what == ASK_REOPEN_TO_WRITE ? O_WRONLY : O_RDONLY;
    const uid_t uid = geteuid();
    const gid_t gid = getegid();
    int fd = ask->path[0] == '\0'
                 ? fcntl(view->root_fd, F_DUPFD_CLOEXEC, 0)
                 : open_at(view->root_fd, ask->path, O_PATH | O_NOFOLLOW);

    if (fd < 0) {
        return fd;
    }
    g_autofree char *number = g_strdup_printf("%d", fd);
    if (ask->what == ASK_REOPEN_AS_USER) {
        borrow_ids(1000, 1000);
    }
    int result = try_open(view->procfd, number, flags);
    borrow_ids(uid, gid);
    (void)close(fd);
    return result;
}

static inline int answer(const SandboxView *view, const Ask *ask)
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
    case ASK_REOPEN_AS_USER:
    case ASK_REOPEN_TO_WRITE:
        return reopen(view, ask);
    case ASK_SET_ID:
        return fchmodat(view->root_fd, ask->path, 04755, 0) < 0 ? -errno : 0;
    case ASK_MAKE_DEVICE:
        return mknodat(view->root_fd, ask->path, S_IFCHR | 0600, 0x0103) < 0 ? -errno : 0;
    case ASK_DUMPABLE:
        return prctl(PR_GET_DUMPABLE);
    case ASK_SIZE:
        return statx(view->root_fd, "", AT_EMPTY_PATH, STATX_SIZE, &stx) < 0
                   ? -errno
                   : (int)stx.stx_size;
    }
    g_assert_not_reached();
}

static inline void inside_main(const SandboxConfig *config, int fd)
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

/** inside_lose() - go without a capability. */
static inline void inside_lose(unsigned int cap)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];

    g_assert_cmpint(syscall(SYS_capget, &header, sets), ==, 0);
    sets[0].effective &= ~(1u << cap);
    sets[0].permitted &= ~(1u << cap);
    g_assert_cmpint(syscall(SYS_capset, &header, sets), ==, 0);
}

/** inside_become_user() - be what a user's shell starts, if this is root. */
static inline void inside_become_user(void)
{
    if (geteuid() == 0) {
        g_assert_cmpint(setgroups(0, NULL), ==, 0);
        g_assert_cmpint(setresgid(1000, 1000, 1000), ==, 0);
        g_assert_cmpint(setresuid(1000, 1000, 1000), ==, 0);
        g_assert_cmpint(prctl(PR_SET_DUMPABLE, 1), ==, 0); /* as exec leaves it */
    }
}

/** inside_start_as() - a process in the sandbox. @prepare: what it does first, or NULL.
 */
static inline Inside inside_start_as(const SandboxConfig *config, void (*prepare)(void))
{
    Inside inside;
    int ends[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), ==, 0);
    inside.pid = fork();
    g_assert_cmpint(inside.pid, >=, 0);
    if (inside.pid == 0) {
        if (prepare != NULL) {
            prepare();
        }
        inside_main(config, ends[1]);
    }
    (void)close(ends[1]);
    inside.fd = ends[0];
    g_assert_cmpint(read(inside.fd, &inside.view, sizeof(inside.view)), ==,
                    sizeof(inside.view));
    return inside;
}

static inline Inside inside_start(const SandboxConfig *config)
{
    return inside_start_as(config, NULL);
}

static inline int inside_try(const Inside *inside, What what, const char *path)
{
    Ask ask = {.what = what};
    int result = 0;

    g_strlcpy(ask.path, path, sizeof(ask.path));
    g_assert_cmpint(write(inside->fd, &ask, sizeof(ask)), ==, sizeof(ask));
    g_assert_cmpint(read(inside->fd, &result, sizeof(result)), ==, sizeof(result));
    return result;
}

static inline void inside_stop(const Inside *inside)
{
    int status = -1;

    (void)close(inside->fd);
    g_assert_cmpint(waitpid(inside->pid, &status, 0), ==, inside->pid);
    g_assert_cmpint(status, ==, 0);
}

static inline char *inside_proc(const Inside *inside, const char *name)
{
    return g_strdup_printf("/proc/%d/%s", (int)inside->pid, name);
}

/* ---- the host ---------------------------------------------------------------------- */

static inline void host_bind(const char *from, const char *to)
{
    g_assert_cmpint(mount(from, to, NULL, MS_BIND, NULL), ==, 0);
}

/* In @dir a shared tmpfs, with share/{file,late/,sub/} and a volume mounted on sub. */
static inline void host_start(const char *dir)
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
static inline void host_run(ChildBody body)
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

static inline char *read_file(const char *path)
{
    g_autoptr(GError) error = NULL;
    char *text = NULL;

    g_file_get_contents(path, &text, NULL, &error);
    g_assert_no_error(error);
    return text;
}

static inline bool same_file(const char *one, const char *other)
{
    struct stat a, b;

    g_assert_cmpint(stat(one, &a), ==, 0);
    g_assert_cmpint(stat(other, &b), ==, 0);
    return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

#endif
