/* SPDX-License-Identifier: Apache-2.0 */
/* What a process inherits, and what is left of it. */
#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "sandbox/sandbox.h"
#include "tests/unit/child.h"
#include "virtiofsd/log.h"

/* Far above what is open by chance. */
enum { SOME_FDS = 50, FIRST_FD = 100, SPARSE_FD = 900, STEP = 3 };

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static void open_many(void)
{
    struct rlimit limit = {.rlim_cur = 1024, .rlim_max = 1024};

    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    for (int i = 0; i < SOME_FDS; i++) {
        int fd = FIRST_FD + i * STEP;
        g_assert_cmpint(dup2(STDOUT_FILENO, fd), ==, fd);
    }
    g_assert_cmpint(dup2(STDOUT_FILENO, SPARSE_FD), ==, SPARSE_FD);
}

static unsigned int count_open(void)
{
    unsigned int n = 0;

    for (int fd = 0; fd < 1024; fd++) {
        n += is_open(fd) ? 1 : 0;
    }
    return n;
}

static void close_all_but(const void *data)
{
    const int *keep_fd = data;

    open_many();
    sandbox_scrub(*keep_fd);
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        g_assert_true(is_open(fd));
    }
    bool extra = *keep_fd > STDERR_FILENO;
    g_assert_cmpuint(count_open(), ==, extra ? 4 : 3);
    if (extra) {
        g_assert_true(is_open(*keep_fd));
    }
}

static const int kept[] = {-1, 0, 2, FIRST_FD, FIRST_FD + STEP, SPARSE_FD};

static void test_descriptors(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(kept); i++) {
        child_passes(close_all_but, &kept[i]);
    }
}

/* Kata's --fd is the first one after the standard descriptors. */
static void keep_three(const void *data)
{
    const int keep_fd = STDERR_FILENO + 1;

    g_assert_cmpint(dup2(STDOUT_FILENO, keep_fd), ==, keep_fd);
    close_all_but(&keep_fd);
}

static void test_keep_three(void)
{
    child_passes(keep_three, NULL);
}

static void refuse_call(int call, int error)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

    g_assert_nonnull(filter);
    g_assert_cmpint(seccomp_rule_add(filter, SCMP_ACT_ERRNO((uint32_t)error), call, 0),
                    ==, 0);
    g_assert_cmpint(seccomp_load(filter), ==, 0);
    seccomp_release(filter);
}

static void without_close_range(const void *data)
{
    refuse_call(SCMP_SYS(close_range), ENOSYS);
    close_all_but(data);
}

static void without_proc(const void *data)
{
    refuse_call(SCMP_SYS(close_range), EPERM);
    refuse_call(SCMP_SYS(openat), ENOENT);
    close_all_but(data);
}

static void test_fallbacks(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(kept); i++) {
        child_passes(without_close_range, &kept[i]);
        child_passes(without_proc, &kept[i]);
    }
}

static void assert_null_device(int fd)
{
    struct stat st, null;

    g_assert_cmpint(fstat(fd, &st), ==, 0);
    g_assert_cmpint(stat("/dev/null", &null), ==, 0);
    g_assert_cmpuint(st.st_rdev, ==, null.st_rdev);
    g_assert_cmpint(fcntl(fd, F_GETFL) & O_ACCMODE, ==, O_RDWR);
}

static void repair(const void *data)
{
    const int *closed = data; /* bits */

    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if ((*closed >> fd & 1) != 0) {
            (void)close(fd);
        }
    }
    sandbox_scrub(-1);
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        g_assert_true(is_open(fd));
        if ((*closed >> fd & 1) != 0) {
            assert_null_device(fd);
        }
    }
    g_assert_cmpuint(count_open(), ==, 3);
}

static void test_repair(void)
{
    static const int closed[] = {1, 2, 4, 3, 5, 6, 7};

    for (size_t i = 0; i < G_N_ELEMENTS(closed); i++) {
        child_passes(repair, &closed[i]);
    }
}

static void repair_without_device(const void *data)
{
    refuse_call(SCMP_SYS(openat), ENOENT);
    (void)close(STDIN_FILENO);
    sandbox_scrub(-1);
    char byte;
    g_assert_true(is_open(STDIN_FILENO));
    g_assert_cmpint(read(STDIN_FILENO, &byte, 1), <, 0);
    g_assert_cmpint(write(STDIN_FILENO, &byte, 1), <, 0);
}

static void test_repair_without_device(void)
{
    child_passes(repair_without_device, NULL);
}

static void clear_environment(const void *data)
{
    static const struct {
        const char *name;
        bool stays;
    } variables[] = {
        {"PATH", true},          {"NO_COLOR", true},     {"ASAN_OPTIONS", true},
        {"LSAN_OPTIONS", true},  {"TSAN_OPTIONS", true}, {"UBSAN_OPTIONS", true},
        {"LD_PRELOAD", false},   {"LANG", false},        {"LC_ALL", false},
        {"TZ", false},           {"GCONV_PATH", false},  {"G_MESSAGES_DEBUG", false},
        {"MALLOC_TRACE", false}, {"LOCPATH", false},     {"XPATH", false},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(variables); i++) {
        g_assert_cmpint(setenv(variables[i].name, "value", 1), ==, 0);
    }
    const char *forgotten = getenv("TZ");
    sandbox_scrub(-1);
    g_assert_cmpstr(forgotten, ==, ""); /* not even in memory */
    for (size_t i = 0; i < G_N_ELEMENTS(variables); i++) {
        g_assert_cmpstr(getenv(variables[i].name), ==,
                        variables[i].stays ? "value" : NULL);
    }
    unsetenv("PATH");
    sandbox_scrub(-1);
    g_assert_null(getenv("PATH"));
    g_assert_cmpstr(getenv("NO_COLOR"), ==, "value");
}

static void test_environment(void)
{
    child_passes(clear_environment, NULL);
}

static void signals_and_core(const void *data)
{
    static const int ignored[] = {SIGPIPE, SIGXFSZ};
    struct sigaction action;
    struct rlimit limit;

    for (size_t i = 0; i < G_N_ELEMENTS(ignored); i++) {
        g_assert_true(signal(ignored[i], SIG_DFL) != SIG_ERR);
    }
    sandbox_scrub(-1);
    for (size_t i = 0; i < G_N_ELEMENTS(ignored); i++) {
        g_assert_cmpint(sigaction(ignored[i], NULL, &action), ==, 0);
        g_assert_true(action.sa_handler == SIG_IGN);
    }
    g_assert_cmpint(getrlimit(RLIMIT_CORE, &limit), ==, 0);
    g_assert_cmpuint(limit.rlim_cur, ==, 0);
    g_assert_cmpuint(limit.rlim_max, ==, 0);
}

static void test_signals_and_core(void)
{
    child_passes(signals_and_core, NULL);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_open(LOG_LEVEL_OFF, false);
    g_test_add_func("/scrub/descriptors", test_descriptors);
    g_test_add_func("/scrub/descriptors/keep-three", test_keep_three);
    g_test_add_func("/scrub/descriptors/fallbacks", test_fallbacks);
    g_test_add_func("/scrub/standard/repair", test_repair);
    g_test_add_func("/scrub/standard/repair-without-device", test_repair_without_device);
    g_test_add_func("/scrub/environment", test_environment);
    g_test_add_func("/scrub/signals-and-core", test_signals_and_core);
    return g_test_run();
}
