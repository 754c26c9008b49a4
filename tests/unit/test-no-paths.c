/* SPDX-License-Identifier: Apache-2.0 */
/*
 * After the pivot every path leads into the share, where the guest puts what it likes. A
 * process goes through the sandbox under ptrace(2), and the system calls that it makes
 * from the pivot to its end may name no path: neither ours nor any library's.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "sandbox/sandbox.h"
#include "tests/unit/child.h"
#include "virtiofsd/log.h"

/* Calls that take a path, and which argument it is. */
static const struct {
    uint64_t call;
    unsigned int argument;
} path_calls[] = {
#ifdef SYS_open
    {SYS_open, 0},       {SYS_creat, 0},     {SYS_stat, 0},
    {SYS_lstat, 0},      {SYS_access, 0},    {SYS_readlink, 0},
    {SYS_chdir, 0},
#endif
    {SYS_openat, 1},     {SYS_openat2, 1},   {SYS_newfstatat, 1},
    {SYS_statx, 1},      {SYS_faccessat, 1}, {SYS_faccessat2, 1},
    {SYS_readlinkat, 1}, {SYS_statfs, 0},    {SYS_execve, 0},
    {SYS_execveat, 1},   {SYS_getxattr, 0},  {SYS_inotify_add_watch, 1},
};

/* ---- the process that is watched --------------------------------------------------- */

static void *thread_main(void *data)
{
    pthread_barrier_t *sealed = data;

    pthread_barrier_wait(sealed); /* begun */
    pthread_barrier_wait(sealed);
    for (size_t i = 0; i < 100; i++) {
        void *volatile block = malloc(5000 + i * 1000);
        g_assert_nonnull(block);
        free(block);
    }
    log_write(LOG_LEVEL_ERROR, "from a thread: %s %d", "text", 1);
    return NULL;
}

/* What the daemon does between the two doors and after, as far as libraries see it. */
static void go_inside(const SandboxConfig *config)
{
    g_autoptr(GError) error = NULL;
    pthread_barrier_t sealed;
    pthread_t thread;
    SandboxView view;

    child_settle();
    sandbox_scrub(-1);
    g_assert_cmpint(ptrace(PTRACE_TRACEME, 0, NULL, NULL), ==, 0);
    g_assert_cmpint(raise(SIGSTOP), ==, 0);
    g_assert_true(sandbox_enter(config, &view, NULL));
    log_write(LOG_LEVEL_ERROR, "from the main thread: %s", strerrordesc_np(ENOENT));
    g_set_error(&error, G_FILE_ERROR, G_FILE_ERROR_NOENT, "%s: %s", "what", "why");
    pthread_barrier_init(&sealed, NULL, 2);
    g_assert_cmpint(pthread_create(&thread, NULL, thread_main, &sealed), ==, 0);
    pthread_barrier_wait(&sealed);
    g_assert_true(sandbox_seal(config, NULL));
    pthread_barrier_wait(&sealed);
    g_assert_cmpint(pthread_join(thread, NULL), ==, 0);
    _exit(0);
}

/* ---- the watcher ------------------------------------------------------------------- */

/* The first bytes of a string of the process. */
static char *peek(pid_t pid, uint64_t address)
{
    union {
        long word;
        char bytes[sizeof(long)];
    } start = {0};
    GString *text = g_string_new(NULL);

    for (size_t i = 0; address != 0 && i < 64; i++) {
        size_t offset = i % sizeof(long);
        if (offset == 0) {
            errno = 0;
            start.word = ptrace(PTRACE_PEEKDATA, pid, address + i, NULL);
            g_assert_cmpint(errno, ==, 0);
        }
        if (start.bytes[offset] == '\0') {
            break;
        }
        g_string_append_c(text, start.bytes[offset]);
    }
    return g_string_free(text, FALSE);
}

static void check_call(pid_t pid, uint64_t call, const uint64_t *arguments)
{
    for (size_t i = 0; i < G_N_ELEMENTS(path_calls); i++) {
        if (path_calls[i].call == call) {
            g_autofree char *path = peek(pid, arguments[path_calls[i].argument]);
            /* A number is one of the process's own descriptors, in their directory. */
            if (path[strspn(path, "0123456789")] != '\0') {
                g_error("system call %u names the path %s", (unsigned int)call, path);
            }
        }
    }
}

/* How PTRACE_O_TRACESYSGOOD marks a stop at a system call. */
#define SYSCALL_STOP (SIGTRAP | 0x80)

typedef struct Watch {
    bool pivoted;
    unsigned int n_calls; /* after the pivot */
    unsigned int n_calls_of_threads;
    pid_t main;
} Watch;

static void watch_call(Watch *watch, pid_t pid)
{
    struct __ptrace_syscall_info info = {0};

    g_assert_cmpint(ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info), >, 0);
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY) {
        return;
    }
    if (watch->pivoted) {
        uint64_t arguments[6];
        memcpy(arguments, info.entry.args, sizeof(arguments));
        check_call(pid, info.entry.nr, arguments);
        watch->n_calls++;
        watch->n_calls_of_threads += pid != watch->main ? 1 : 0;
    } else {
        watch->pivoted = info.entry.nr == SYS_pivot_root;
    }
}

/* Return: the wait(2) status with which the process ended. */
static int watch_all(Watch *watch)
{
    int status = 0;

    g_assert_cmpint(waitpid(watch->main, &status, 0), ==, watch->main);
    g_assert_true(WIFSTOPPED(status));
    g_assert_cmpint(
        ptrace(PTRACE_SETOPTIONS, watch->main, NULL,
               PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL),
        ==, 0);
    long deliver = 0;
    for (pid_t pid = watch->main;;) {
        (void)ptrace(PTRACE_SYSCALL, pid, NULL, deliver); /* a thread may be gone */
        pid = waitpid(-1, &status, __WALL);
        g_assert_cmpint(pid, >, 0);
        if (pid == watch->main && !WIFSTOPPED(status)) {
            return status;
        }
        int signal = WIFSTOPPED(status) ? WSTOPSIG(status) : 0;
        if (signal == SYSCALL_STOP) {
            watch_call(watch, pid);
        }
        bool ours = signal == SYSCALL_STOP || signal == SIGTRAP || signal == SIGSTOP;
        deliver = ours ? 0 : signal;
    }
}

static void test_no_paths(void)
{
    if (geteuid() != 0) {
        g_test_skip("needs root");
        return;
    }
    g_autofree char *dir = g_dir_make_tmp("test-no-paths-XXXXXX", NULL);
    const SandboxConfig config = {.shared_dir = dir, .rlimit_nofile = UINT64_MAX};
    Watch watch = {0};

    g_assert_nonnull(dir);
    watch.main = fork();
    g_assert_cmpint(watch.main, >=, 0);
    if (watch.main == 0) {
        go_inside(&config);
    }
    int status = watch_all(&watch);
    g_assert_cmpint(rmdir(dir), ==, 0);
    g_assert_cmpint(status, ==, 0);
    g_assert_true(watch.pivoted);
    g_assert_cmpuint(watch.n_calls, >, 50);
    g_assert_cmpuint(watch.n_calls_of_threads, >, 5);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_open(LOG_LEVEL_OFF, false);
    g_test_add_func("/sandbox/no-paths", test_no_paths);
    return g_test_run();
}
