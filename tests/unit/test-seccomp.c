/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The system-call filter, from inside: every call that is not in the list is tried and
 * must be refused, every rule about an argument is tried on both sides.
 */
#include <errno.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "sandbox/internal.h"
#include "sandbox/seccomp-list.h"
#include "tests/unit/child.h"
#include "virtiofsd/log.h"

/* Beyond the last number that any kernel knows. */
#define CALLS_END 1024
#define SYS_SECCOMP_CODE 1 /* si_code of a trapped call */

static volatile sig_atomic_t n_trapped;
static volatile sig_atomic_t last_trapped;

static void on_sigsys(int number, siginfo_t *info, void *context)
{
    if (info->si_code == SYS_SECCOMP_CODE) {
        n_trapped++;
        last_trapped = info->si_syscall;
    }
}

static bool file_handles;

static void seal(SandboxSeccomp mode)
{
    const SandboxConfig config = {.seccomp = mode, .file_handles = file_handles};
    g_autoptr(GError) error = NULL;

    child_settle();
    g_assert_true(sandbox_seal(&config, &error));
    g_assert_no_error(error);
}

static void seal_trapping(void)
{
    const struct sigaction action = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO};

    g_assert_cmpint(sigaction(SIGSYS, &action, NULL), ==, 0);
    seal(SANDBOX_SECCOMP_TRAP);
}

/* Did the filter refuse this call? */
#define IS_REFUSED(...) (n_trapped = 0, (void)syscall(__VA_ARGS__), n_trapped == 1)

static bool is_listed(long call)
{
    for (size_t i = 0; i < G_N_ELEMENTS(seccomp_list); i++) {
        if (seccomp_list[i].call == call) {
            return true;
        }
    }
    return false;
}

/* The kernel's own uretprobe and uprobe: no filter sees them, and whoever calls them
 * other than from the kernel's trampoline dies. */
static bool is_unfilterable(long call)
{
#if defined(__x86_64__)
    return call == 335 || call == 336;
#else
    return false;
#endif
}

static void test_list(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(seccomp_list); i++) {
        const SeccompRow *row = &seccomp_list[i];
        g_assert_cmpstr(row->needed_by, !=, "");
        g_assert_cmpuint(row->index, <, 6);
        for (size_t j = 0; j < i; j++) {
            const SeccompRow *other = &seccomp_list[j];
            if (row->call >= 0 && row->call == other->call) {
                /* Only calls that are let through by argument have several rows. */
                g_assert_cmpint(row->answer, ==, other->answer);
                g_assert_cmpint(row->answer, !=, SECCOMP_ALLOW);
                g_assert_cmpint(row->answer, !=, SECCOMP_ABSENT);
                g_assert_cmpuint(row->value, !=, other->value);
            }
        }
    }
}

/* What every request calls is let through whatever its arguments: the kernel then answers
 * from a bitmap and runs no program. */
static void test_hot_calls(void)
{
    static const long hot[] = {SYS_futex,     SYS_read,     SYS_write,
                               SYS_close,     SYS_statx,    SYS_openat2,
                               SYS_preadv2,   SYS_pwritev2, SYS_getdents64,
#ifdef SYS_epoll_wait
                               SYS_epoll_wait
#else
                               SYS_epoll_pwait
#endif
    };

    for (size_t i = 0; i < G_N_ELEMENTS(hot); i++) {
        bool is_allowed = false;
        for (size_t j = 0; j < G_N_ELEMENTS(seccomp_list); j++) {
            is_allowed |=
                seccomp_list[j].call == hot[i] && seccomp_list[j].answer == SECCOMP_ALLOW;
        }
        g_assert_true(is_allowed); /* by its only row: test_list */
    }
}

/* With addresses and descriptors that do not exist: harmless should one get through. */
static void try_all(const void *data)
{
    int n_refused = 0;

    seal_trapping();
    for (long call = 0; call < CALLS_END; call++) {
        if (is_listed(call) || is_unfilterable(call)) {
            continue;
        }
        bool refused = IS_REFUSED(call, -1L, -1L, -1L, -1L, -1L, -1L);
        if (!refused || last_trapped != call) {
            g_error("system call %ld is not in the list and is not refused", call);
        }
        n_refused++;
    }
    g_assert_cmpint(n_refused, >, CALLS_END - (int)G_N_ELEMENTS(seccomp_list) - 3);
}

static void test_all_others_are_refused(void)
{
    child_passes(try_all, NULL);
}

static void try_file_handles(const void *data)
{
    const int flags = O_PATH | O_CLOEXEC;

    file_handles = true;
    seal_trapping();
    g_assert_false(IS_REFUSED(SYS_open_by_handle_at, -1, NULL, flags));
    g_assert_true(IS_REFUSED(SYS_open_by_handle_at, -1, NULL, O_RDONLY | O_CLOEXEC));
    g_assert_true(IS_REFUSED(SYS_open_by_handle_at, -1, NULL, flags | O_CREAT));
}

static void test_file_handles(void)
{
    child_passes(try_file_handles, NULL);
}

/* ---- rules about arguments --------------------------------------------------------- */

static void try_memory(void)
{
    const int private = MAP_PRIVATE | MAP_ANONYMOUS;
    long page = sysconf(_SC_PAGESIZE);

    g_assert_true(IS_REFUSED(SYS_mmap, 0L, page, PROT_READ | PROT_EXEC, private, -1, 0L));
    g_assert_true(IS_REFUSED(SYS_mmap, 0L, page, PROT_EXEC, private, -1, 0L));
    n_trapped = 0;
    void *memory = mmap(NULL, (size_t)page, PROT_READ | PROT_WRITE, private, -1, 0);
    g_assert_true(memory != MAP_FAILED);
    g_assert_true(IS_REFUSED(SYS_mprotect, memory, page, PROT_READ | PROT_EXEC));
    n_trapped = 0;
    g_assert_cmpint(mprotect(memory, (size_t)page, PROT_READ), ==, 0);
    g_assert_cmpint(munmap(memory, (size_t)page), ==, 0);
    g_assert_cmpint(n_trapped, ==, 0);
}

static void try_descriptors(int socket_fd)
{
    struct iovec vector = {.iov_base = (void *)"", .iov_len = 0};
    char address[2] = {0};

    g_assert_true(IS_REFUSED(SYS_fcntl, 0, F_SETOWN, 1));
    g_assert_true(IS_REFUSED(SYS_fcntl, 0, F_NOTIFY, 1));
    g_assert_true(IS_REFUSED(SYS_fcntl, 0, F_SETLEASE, F_RDLCK));
    g_assert_true(IS_REFUSED(SYS_fcntl, 0, F_GETFL | 1L << 32, 0));
    g_assert_false(IS_REFUSED(SYS_fcntl, 0, F_GETFL));
    g_assert_true(IS_REFUSED(SYS_ioctl, 0, FIONREAD, NULL));
    g_assert_true(IS_REFUSED(SYS_ioctl, 0, FICLONE, 0));
    g_assert_true(IS_REFUSED(SYS_ioctl, 0, FS_IOC_GETFLAGS | 1L << 32, NULL));
    g_assert_false(IS_REFUSED(SYS_ioctl, -1, FS_IOC_GETFLAGS, NULL));
    g_assert_false(IS_REFUSED(SYS_ioctl, -1, FS_IOC_FSSETXATTR, NULL));
    g_assert_true(IS_REFUSED(SYS_copy_file_range, -1, NULL, -1, NULL, 0L, 1));
    g_assert_false(IS_REFUSED(SYS_copy_file_range, -1, NULL, -1, NULL, 0L, 0));
    g_assert_true(IS_REFUSED(SYS_sendto, socket_fd, "x", 1L, 0, address, 2));
    g_assert_false(IS_REFUSED(SYS_sendto, socket_fd, "x", 1L, MSG_DONTWAIT, NULL, 0));
    g_assert_true(IS_REFUSED(SYS_writev, socket_fd, &vector, 1));
    g_assert_false(IS_REFUSED(SYS_writev, STDERR_FILENO, &vector, 1));
}

static void try_processes(void)
{
    const pid_t self = getpid();
    struct sigaction action = {.sa_handler = SIG_IGN};
    cpu_set_t cpus;

    g_assert_true(IS_REFUSED(SYS_tgkill, 1, 1, 0));
    g_assert_true(IS_REFUSED(SYS_tgkill, 1, 1, SIGABRT));
    g_assert_true(IS_REFUSED(SYS_tgkill, self, self, SIGKILL));
    g_assert_true(IS_REFUSED(SYS_tgkill, self, self, 0));
    g_assert_true(IS_REFUSED(SYS_sched_getaffinity, 0, sizeof(cpus), &cpus));
    g_assert_true(IS_REFUSED(SYS_rt_sigaction, SIGSYS, &action, NULL, 8L));
    g_assert_true(IS_REFUSED(SYS_rt_sigaction, SIGTERM, &action, NULL, 8L));
    g_assert_cmpint(sigaction(SIGABRT, &action, NULL), ==, 0);
}

static void try_arguments(const void *data)
{
    int ends[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends), ==, 0);
    seal_trapping();
    try_memory();
    try_descriptors(ends[0]);
    try_processes();
}

static void test_arguments(void)
{
    child_passes(try_arguments, NULL);
}

/* ---- files that do not exist ------------------------------------------------------- */

static void try_open(const void *data)
{
    static const long calls[] = {
#ifdef SYS_open
        SYS_open, SYS_creat,
#endif
        SYS_openat};

    seal_trapping();
    for (size_t i = 0; i < G_N_ELEMENTS(calls); i++) {
        errno = 0;
        g_assert_cmpint(syscall(calls[i], "/", "/", 0, 0), ==, -1);
        g_assert_cmpint(errno, ==, ENOENT);
    }
    g_assert_null(fopen("/dev/null", "r"));
    g_assert_cmpint(errno, ==, ENOENT);
    g_assert_cmpint(n_trapped, ==, 0);

    const struct open_how how = {.flags = O_RDONLY | O_CLOEXEC};
    long fd = syscall(SYS_openat2, AT_FDCWD, "/dev/null", &how, sizeof(how));
    g_assert_cmpint(fd, >=, 0);
    struct statx st;
    g_assert_cmpint(statx((int)fd, "", AT_EMPTY_PATH, STATX_TYPE, &st), ==, 0);
    g_assert_cmpint(close((int)fd), ==, 0);
    g_assert_cmpint(n_trapped, ==, 0);
}

static void test_open(void)
{
    child_passes(try_open, NULL);
}

/* ---- actions ----------------------------------------------------------------------- */

static void call_socket(const void *data)
{
    const SandboxSeccomp *mode = data;

    seal(*mode);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    _exit(fd >= 0 ? 42 : 1);
}

static void test_actions(void)
{
    static const SandboxSeccomp modes[] = {SANDBOX_SECCOMP_KILL, SANDBOX_SECCOMP_TRAP,
                                           SANDBOX_SECCOMP_LOG, SANDBOX_SECCOMP_NONE};

    for (size_t i = 0; i < G_N_ELEMENTS(modes); i++) {
        int status = child_run(call_socket, &modes[i]);
        if (modes[i] == SANDBOX_SECCOMP_KILL || modes[i] == SANDBOX_SECCOMP_TRAP) {
            g_assert_true(WIFSIGNALED(status));
            g_assert_cmpint(WTERMSIG(status), ==, SIGSYS);
        } else {
            g_assert_true(WIFEXITED(status));
            g_assert_cmpint(WEXITSTATUS(status), ==, 42);
        }
    }
}

/* Seals itself, says so, and waits to be looked at. */
static pid_t start_sealed(SandboxSeccomp mode)
{
    char byte = 0;
    int ends[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), ==, 0);
    pid_t pid = fork();
    g_assert_cmpint(pid, >=, 0);
    if (pid == 0) {
        seal(mode);
        g_assert_cmpint(write(ends[1], &byte, 1), ==, 1);
        (void)close(ends[0]);
        for (;;) {
            g_assert_cmpint(read(ends[1], &byte, 1), ==, 0);
        }
    }
    (void)close(ends[1]);
    g_assert_cmpint(read(ends[0], &byte, 1), ==, 1);
    return pid;
}

static void assert_kernel_says(SandboxSeccomp mode, const char *seccomp,
                               const char *no_new_privs)
{
    pid_t pid = start_sealed(mode);

    child_assert_status(pid, "Seccomp", seccomp);
    child_assert_status(pid, "NoNewPrivs", no_new_privs);
    g_assert_cmpint(kill(pid, SIGKILL), ==, 0);
    g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
}

static void test_kernel_says(void)
{
    assert_kernel_says(SANDBOX_SECCOMP_KILL, "2", "1");
    assert_kernel_says(SANDBOX_SECCOMP_LOG, "2", "1");
    assert_kernel_says(SANDBOX_SECCOMP_NONE, "0", "0");
}

#if defined(__x86_64__)
static void call_x32(const void *data)
{
    seal(SANDBOX_SECCOMP_LOG);
    (void)syscall(0x40000000L | SYS_getpid);
}

static void call_i386(const void *data)
{
    long result = 20; /* getpid() there */

    signal(SIGSEGV, SIG_DFL); /* a sanitizer would turn it into an exit status */
    seal(SANDBOX_SECCOMP_LOG);
    __asm__ volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
}

static void test_other_architectures(void)
{
    static const ChildBody bodies[] = {call_x32, call_i386};

    for (size_t i = 0; i < G_N_ELEMENTS(bodies); i++) {
        int status = child_run(bodies[i], NULL);
        g_assert_true(WIFSIGNALED(status));
        /* SIGSEGV: a kernel without that architecture. */
        g_assert_true(WTERMSIG(status) == SIGSYS || WTERMSIG(status) == SIGSEGV);
    }
}
#endif

/* ---- life goes on ------------------------------------------------------------------ */

typedef struct Thread {
    pthread_t thread;
    pthread_barrier_t go;
    bool refused;
} Thread;

/* Enough to make and shrink an arena of its own. */
static void use_heap(void)
{
    enum { BLOCKS = 200 };
    void *blocks[BLOCKS];

    for (size_t i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(i % 7 == 0 ? 300000 : 5000);
        g_assert_nonnull(blocks[i]);
        memset(blocks[i], 1, 5000);
    }
    for (size_t i = BLOCKS; i > 0; i--) {
        free(blocks[i - 1]);
    }
}

static void *thread_main(void *data)
{
    Thread *self = data;

    pthread_barrier_wait(&self->go); /* begun: the C library's first calls are made */
    pthread_barrier_wait(&self->go);
    use_heap();
    self->refused = IS_REFUSED(SYS_socket, AF_UNIX, SOCK_STREAM, 0);
    use_heap();
    return NULL;
}

/* Threads made before the filter are under it, work, and end. */
static void seal_threads(const void *data)
{
    enum { THREADS = 3 };
    Thread threads[THREADS] = {0};

    for (size_t i = 0; i < THREADS; i++) {
        pthread_barrier_init(&threads[i].go, NULL, 2);
        g_assert_cmpint(
            pthread_create(&threads[i].thread, NULL, thread_main, &threads[i]), ==, 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_barrier_wait(&threads[i].go);
    }
    seal_trapping();
    /* One after the other: they share the count of traps. */
    for (size_t i = 0; i < THREADS; i++) {
        pthread_barrier_wait(&threads[i].go);
        g_assert_cmpint(pthread_join(threads[i].thread, NULL), ==, 0);
        g_assert_true(threads[i].refused);
    }
}

static void make_thread(const void *data)
{
    Thread thread = {0};

    seal(SANDBOX_SECCOMP_KILL);
    (void)pthread_create(&thread.thread, NULL, thread_main, &thread);
}

static void fork_sealed(const void *data)
{
    seal(SANDBOX_SECCOMP_KILL);
    (void)fork();
}

static void assert_killed(ChildBody body)
{
    int status = child_run(body, NULL);

    g_assert_true(WIFSIGNALED(status));
    g_assert_cmpint(WTERMSIG(status), ==, SIGSYS);
}

static void test_threads(void)
{
    child_passes(seal_threads, NULL);
    assert_killed(make_thread);
    assert_killed(fork_sealed);
}

static void abort_sealed(const void *data)
{
    const struct rlimit none = {0};

    (void)setrlimit(RLIMIT_CORE, &none);
    seal(SANDBOX_SECCOMP_KILL);
    abort();
}

/* The cause of a death must be seen, not be hidden by a second one. */
static void test_abort(void)
{
    int status = child_run(abort_sealed, NULL);

    g_assert_true(WIFSIGNALED(status));
    g_assert_cmpint(WTERMSIG(status), ==, SIGABRT);
}

static void log_sealed(const void *data)
{
    seal(SANDBOX_SECCOMP_KILL);
    log_write(LOG_LEVEL_ERROR, "written after the seal");
}

static void test_log(void)
{
    child_passes(log_sealed, NULL);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_open(LOG_LEVEL_OFF, false);
    g_test_add_func("/seccomp/list", test_list);
    g_test_add_func("/seccomp/hot-calls", test_hot_calls);
    g_test_add_func("/seccomp/refused/all-others", test_all_others_are_refused);
    g_test_add_func("/seccomp/refused/file-handles", test_file_handles);
    g_test_add_func("/seccomp/refused/by-argument", test_arguments);
    g_test_add_func("/seccomp/open", test_open);
    g_test_add_func("/seccomp/actions", test_actions);
    g_test_add_func("/seccomp/kernel-says", test_kernel_says);
#if defined(__x86_64__)
    g_test_add_func("/seccomp/other-architectures", test_other_architectures);
#endif
    g_test_add_func("/seccomp/threads", test_threads);
    g_test_add_func("/seccomp/abort", test_abort);
    g_test_add_func("/seccomp/log", test_log);
    return g_test_run();
}
