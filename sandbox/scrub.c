/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first act of the process: nothing that it inherited may decide what it does, and
 * nothing that it was not meant to hold stays open.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "sandbox/internal.h"

static void clear_environment(void)
{
    static const char *const kept[] = {"PATH",         "NO_COLOR",      "LSAN_OPTIONS",
                                       "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"};
    char *values[G_N_ELEMENTS(kept)];

    for (size_t i = 0; i < G_N_ELEMENTS(kept); i++) {
        const char *value = getenv(kept[i]);
        values[i] = value != NULL ? strdup(value) : NULL;
    }
    /* Whoever takes over the process finds nobody's passwords. */
    for (char **entry = environ; entry != NULL && *entry != NULL; entry++) {
        explicit_bzero(*entry, strlen(*entry));
    }
    (void)clearenv();
    for (size_t i = 0; i < G_N_ELEMENTS(kept); i++) {
        if (values[i] != NULL) {
            (void)setenv(kept[i], values[i], 1); /* without memory: as if unset */
        }
        free(values[i]);
    }
}

/* Whatever is opened later must not become standard output by chance. */
static void fill_standard_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) >= 0 || open("/dev/null", O_RDWR) >= 0) {
            continue;
        }
        /* No /dev/null: something else that nobody can read from or write to. */
        (void)epoll_create1(0);
    }
}

/* For kernels and filters that refuse close_range(2). */
static void close_one_by_one(unsigned int first, unsigned int last)
{
    DIR *dir = opendir("/proc/self/fd");
    struct rlimit limit = {.rlim_cur = 0};

    if (dir != NULL) {
        for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
            unsigned long fd = strtoul(entry->d_name, NULL, 10);
            if (entry->d_name[0] != '.' && fd >= first && fd <= last &&
                (int)fd != dirfd(dir)) {
                (void)close((int)fd); /* gone either way */
            }
        }
        (void)closedir(dir); /* gone either way */
        return;
    }
    /* Not even /proc: all numbers below the limit. Cannot fail for a valid resource. */
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    for (unsigned int fd = first; fd <= last && fd < limit.rlim_cur; fd++) {
        (void)close((int)fd); /* mostly not open */
    }
}

static void close_between(unsigned int first, unsigned int last)
{
    if (first <= last && close_range(first, last, 0) < 0) {
        close_one_by_one(first, last);
    }
}

static void close_inherited(int keep_fd)
{
    const unsigned int first = STDERR_FILENO + 1;

    if (keep_fd < (int)first) {
        close_between(first, UINT_MAX);
    } else {
        close_between(first, (unsigned int)keep_fd - 1);
        close_between((unsigned int)keep_fd + 1, UINT_MAX);
    }
}

static void ignore_signals(void)
{
    const struct sigaction ignore = {.sa_handler = SIG_IGN};

    /* Fail only for signals that do not exist. A write that the other end does not want,
     * or that passes RLIMIT_FSIZE, is an error of that write. */
    (void)sigaction(SIGPIPE, &ignore, NULL);
    (void)sigaction(SIGXFSZ, &ignore, NULL);
}

void sandbox_scrub(int keep_fd)
{
    clear_environment();
    fill_standard_descriptors();
    close_inherited(keep_fd);
    ignore_signals();
    sandbox_limit_core();
}
