/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/scratch.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "passthrough/internal.h"

/*
 * Starting: what is wrong is said and nothing stays open. And what happens when there is
 * no memory.
 */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

/* pt_fs_new() has to fail, with these words. */
static void assert_refused(int root, int procfd, const char *words)
{
    PtConfig config = scratch_config();
    GError *error = NULL;
    int fds = count_fds();
    PtFs *fs = pt_fs_new(&config, root, procfd, &error);
    g_assert_null(fs);
    g_assert_nonnull(error);
    g_assert_nonnull(strstr(error->message, words));
    g_assert_cmpint(count_fds(), ==, fds - (root >= 0) - (procfd >= 0));
    g_error_free(error);
}

static int open_path(const char *path)
{
    int fd = open(path, O_PATH | O_CLOEXEC);
    g_assert_cmpint(fd, >=, 0);
    return fd;
}

static void test_wrong_descriptors(void)
{
    assert_refused(-1, open_path("/proc/self/fd"), "the share");
    assert_refused(open_path("/tmp"), -1, "/proc/self/fd");
    assert_refused(open_path("/tmp"), open_path("/tmp"), "/proc/self/fd");
    assert_refused(open_path("/tmp"), open_path("/proc/self"), "/proc/self/fd");
    assert_refused(open_path("/dev/null"), open_path("/proc/self/fd"), "the share");
    /* Somebody else's. */
    assert_refused(open_path("/tmp"), open_path("/proc/1/fd"), "/proc/self/fd");
}

/* From now on, in this process, a system call does not exist. */
static void remove_call(uint32_t number)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {G_N_ELEMENTS(code), code};
    g_assert_cmpint(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), ==, 0);
}

static int start_without(const Scratch *s, void *data)
{
    const struct {
        uint32_t number;
        const char *name;
    } calls[] = {{SYS_openat2, "openat2"},
                 {SYS_renameat2, "renameat2"},
                 {SYS_pwritev2, "pwritev2"}};
    const size_t *i = data;
    remove_call(calls[*i].number);
    assert_refused(open_path("/tmp"), open_path("/proc/self/fd"), calls[*i].name);
    return 0;
}

static void test_missing_calls(void)
{
    for (size_t i = 0; i < 3; i++) {
        g_assert_cmpint(run_as(NULL, &root_caller, start_without, &i), ==, 0);
    }
}

static void test_free(void)
{
    pt_fs_free(NULL);
    Scratch s = scratch_open();
    pt_fs_reset(s.fs);
    pt_fs_reset(s.fs);
    scratch_close(&s);
}

/* Any descriptor of the directory will do for the root. */
static void test_readable_root(void)
{
    PtConfig config = scratch_config();
    PtEntry entry;
    PtFs *fs = pt_fs_new(&config, open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC),
                         open_path("/proc/self/fd"), NULL);
    g_assert_nonnull(fs);
    g_assert_cmpint(pt_thread_enter(fs), ==, 0);
    g_assert_cmpint(pt_lookup(fs, PT_ROOT_ID, "tmp", &entry), ==, 0);
    pt_fs_free(fs);
}

#ifndef SANITIZED
static void limit_memory(rlim_t limit)
{
    struct rlimit now;
    g_assert_cmpint(getrlimit(RLIMIT_AS, &now), ==, 0);
    now.rlim_cur = MIN(limit, now.rlim_max);
    g_assert_cmpint(setrlimit(RLIMIT_AS, &now), ==, 0);
}

/* Every request that needs memory fails by itself, and all is well when there is some
 * again. */
static int run_out_of_memory(const Scratch *s, void *data)
{
    enum { DIRS = 3000, FILES = 2000 };
    static uint64_t handles[DIRS];
    char name[16];
    int failed = 0, opened_dirs = 0;
    PtOpened opened;
    PtEntry entry;
    for (int i = 0; i < DIRS; i++) {
        if (pt_opendir(s->fs, PT_ROOT_ID, 0, &opened) == 0) {
            handles[opened_dirs++] = opened.handle;
        }
    }
    limit_memory(0);
    for (int i = 0; i < opened_dirs; i++) {
        g_auto(PtDirCursor) cursor = {0};
        PtDirent dirent;
        int r = pt_dir_begin(s->fs, PT_ROOT_ID, handles[i], 0, &cursor);
        r = r < 0 ? r : pt_dir_next(&cursor, &dirent);
        if (r < 0) {
            g_assert_cmpint(r, ==, -ENOMEM);
            failed++;
        }
    }
    for (int i = 0; i < FILES; i++) {
        g_snprintf(name, sizeof(name), "%d", i);
        int r = pt_lookup(s->fs, PT_ROOT_ID, name, &entry);
        g_assert_true(r == 0 || r == -ENOMEM);
        failed += r < 0;
    }
    limit_memory(RLIM_INFINITY);
    g_assert_cmpint(failed, >, 0);
    for (int i = 0; i < FILES; i++) {
        g_snprintf(name, sizeof(name), "%d", i);
        g_assert_cmpint(pt_lookup(s->fs, PT_ROOT_ID, name, &entry), ==, 0);
    }
    g_assert_cmpuint(scratch_stats(s).inodes, ==, FILES + 1);
    pt_fs_reset(s->fs);
    g_assert_cmpuint(scratch_stats(s).descriptors, ==, 1);
    return 0;
}

static void test_no_memory(void)
{
    char name[16];
    Scratch s = scratch_open();
    for (int i = 0; i < 2000; i++) {
        g_snprintf(name, sizeof(name), "%d", i);
        g_assert_cmpint(mknodat(s.dir, name, S_IFREG | 0600, 0), ==, 0);
    }
    g_assert_cmpint(run_as(&s, &root_caller, run_out_of_memory, NULL), ==, 0);
    scratch_close(&s);
}
#endif

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (!need_root()) {
        return 0;
    }
    g_test_add_func("/fs/wrong-descriptors", test_wrong_descriptors);
    g_test_add_func("/fs/missing-calls", test_missing_calls);
    g_test_add_func("/fs/free", test_free);
    g_test_add_func("/fs/readable-root", test_readable_root);
#ifndef SANITIZED
    g_test_add_func("/fs/no-memory", test_no_memory);
#endif
    return g_test_run();
}
