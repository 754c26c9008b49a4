/* SPDX-License-Identifier: Apache-2.0 */
/* The limit of open files: the default rule, explicit values, and what cannot be had. */
#include <errno.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "sandbox/internal.h"
#include "tests/unit/child.h"
#include "virtiofsd/log.h"

#define DEFAULT_FILES UINT64_C(1000000)

static void set_limit(rlim_t soft, rlim_t hard)
{
    const struct rlimit limit = {.rlim_cur = soft, .rlim_max = hard};

    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &limit), ==, 0);
}

static void assert_limit(rlim_t soft, rlim_t hard)
{
    struct rlimit limit;

    g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    g_assert_cmpuint(limit.rlim_cur, ==, soft);
    g_assert_cmpuint(limit.rlim_max, ==, hard);
}

/* Nobody may raise a hard limit without CAP_SYS_RESOURCE. */
static void become_modest(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

    g_assert_cmpint(syscall(SYS_capget, &header, data), ==, 0);
    data[0].effective &= ~(1u << CAP_SYS_RESOURCE);
    data[0].permitted &= ~(1u << CAP_SYS_RESOURCE);
    g_assert_cmpint(syscall(SYS_capset, &header, data), ==, 0);
}

static void default_falls_back(const void *data)
{
    g_autoptr(GError) error = NULL;
    uint64_t limit = 0;

    become_modest();
    set_limit(100, 400);
    g_assert_true(sandbox_limit_files(UINT64_MAX, &limit, &error));
    g_assert_no_error(error);
    g_assert_cmpuint(limit, ==, 400);
    assert_limit(400, 400);
}

static void test_default_falls_back(void)
{
    child_passes(default_falls_back, NULL);
}

static void default_raises(const void *data)
{
    g_autoptr(GError) error = NULL;
    uint64_t limit = 0;

    set_limit(100, 400);
    g_assert_true(sandbox_limit_files(UINT64_MAX, &limit, &error));
    g_assert_cmpuint(limit, ==, DEFAULT_FILES);
    assert_limit(DEFAULT_FILES, DEFAULT_FILES);
}

static bool can_raise(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

    g_assert_cmpint(syscall(SYS_capget, &header, data), ==, 0);
    return (data[0].effective & (1u << CAP_SYS_RESOURCE)) != 0;
}

static void test_default_raises(void)
{
    if (!can_raise()) {
        g_test_skip("needs CAP_SYS_RESOURCE");
        return;
    }
    child_passes(default_raises, NULL);
}

typedef struct Case {
    uint64_t wanted;
    rlim_t soft; /* expected */
    rlim_t hard;
    const char *error; /* NULL, or what its text contains */
} Case;

/* From soft 100 and hard 400, without CAP_SYS_RESOURCE. */
static const Case cases[] = {
    {0, 100, 400, NULL},
    {50, 50, 50, NULL},
    {400, 400, 400, NULL},
    {401, 100, 400, "401: Operation not permitted; raise the hard limit"},
    {UINT64_C(1) << 40, 100, 400, "raise the sysctl fs.nr_open or lower --rlimit-nofile"},
    {UINT64_MAX - 1, 100, 400, "raise the sysctl fs.nr_open or lower --rlimit-nofile"},
};

static void run_case(const void *data)
{
    const Case *c = data;
    g_autoptr(GError) error = NULL;
    uint64_t limit = 0;

    become_modest();
    set_limit(100, 400);
    bool done = sandbox_limit_files(c->wanted, &limit, &error);
    assert_limit(c->soft, c->hard);
    if (c->error == NULL) {
        g_assert_true(done);
        g_assert_cmpuint(limit, ==, c->soft);
    } else {
        g_assert_false(done);
        g_assert_nonnull(strstr(error->message, c->error));
    }
}

static void test_explicit(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        child_passes(run_case, &cases[i]);
    }
}

static void no_core(const void *data)
{
    struct rlimit limit = {.rlim_cur = 1, .rlim_max = 1};

    sandbox_limit_core();
    g_assert_cmpint(getrlimit(RLIMIT_CORE, &limit), ==, 0);
    g_assert_cmpuint(limit.rlim_cur, ==, 0);
    g_assert_cmpuint(limit.rlim_max, ==, 0);
}

static void test_no_core(void)
{
    child_passes(no_core, NULL);
}

static void *thread_main(void *data)
{
    return data;
}

/* Root, outside of a user namespace, is bound by none. */
static void no_process(const void *data)
{
    struct rlimit limit = {.rlim_cur = 1, .rlim_max = 1};
    pthread_t thread;

    sandbox_limit_processes();
    g_assert_cmpint(getrlimit(RLIMIT_NPROC, &limit), ==, 0);
    g_assert_cmpuint(limit.rlim_cur, ==, 0);
    g_assert_cmpuint(limit.rlim_max, ==, 0);
    if (geteuid() == 0) {
        become_modest();
        g_assert_cmpint(setresuid(1000, 1000, 1000), ==, 0);
    }
    g_assert_cmpint(fork(), ==, -1);
    g_assert_cmpint(errno, ==, EAGAIN);
    g_assert_cmpint(pthread_create(&thread, NULL, thread_main, NULL), ==, EAGAIN);
}

static void test_no_process(void)
{
    child_passes(no_process, NULL);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_open(LOG_LEVEL_OFF, false);
    g_test_add_func("/limits/default/raises", test_default_raises);
    g_test_add_func("/limits/default/falls-back", test_default_falls_back);
    g_test_add_func("/limits/explicit", test_explicit);
    g_test_add_func("/limits/no-core", test_no_core);
    g_test_add_func("/limits/no-process", test_no_process);
    return g_test_run();
}
