/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_SCRATCH_H
#define TESTS_UNIT_SCRATCH_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "passthrough/passthrough.h"

/*
 * A file system on a scratch directory, for the tests of passthrough/. The tests run as
 * root; /proc/self/fd serves as procfd.
 */

typedef struct Scratch {
    PtFs *fs;
    char *path; /* on the host */
    int dir;    /* descriptor of it */
    int fds;    /* open before */
} Scratch;

static const PtCaller root_caller = {0};

static inline int count_fds(void)
{
    int n = 0;
    DIR *dir = opendir("/proc/self/fd");
    g_assert_nonnull(dir);
    while (readdir(dir) != NULL) {
        n++;
    }
    closedir(dir);
    return n;
}

static inline PtFs *scratch_fs(const char *path, const PtConfig *config)
{
    GError *error = NULL;
    int root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int procfd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
    g_assert_cmpint(root, >=, 0);
    g_assert_cmpint(procfd, >=, 0);
    PtFs *fs = pt_fs_new(config, root, procfd, &error);
    g_assert_no_error(error);
    g_assert_nonnull(fs);
    g_assert_cmpint(pt_thread_enter(fs), ==, 0);
    return fs;
}

static inline PtConfig scratch_config(void)
{
    return (PtConfig){
        .cache = PT_CACHE_AUTO, .announce_submounts = true, .max_descriptors = 100000};
}

static inline Scratch scratch_open_with(const PtConfig *config)
{
    Scratch s = {.fds = count_fds()};
    s.path = g_dir_make_tmp("pt-scratch-XXXXXX", NULL);
    g_assert_nonnull(s.path);
    g_assert_cmpint(chmod(s.path, 0755), ==, 0);
    s.dir = open(s.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    g_assert_cmpint(s.dir, >=, 0);
    s.fs = scratch_fs(s.path, config);
    return s;
}

static inline Scratch scratch_open(void)
{
    PtConfig config = scratch_config();
    return scratch_open_with(&config);
}

static inline void remove_tree(const char *path)
{
    const char *argv[] = {"rm", "-rf", "--one-file-system", path, NULL};
    g_assert_true(g_spawn_sync("/", (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL,
                               NULL, NULL, NULL, NULL));
}

/* Nothing may be left open, whatever the test did. */
static inline void scratch_close(Scratch *s)
{
    pt_fs_free(s->fs);
    close(s->dir);
    remove_tree(s->path);
    g_free(s->path);
    g_assert_cmpint(count_fds(), ==, s->fds);
}

static inline PtStats scratch_stats(const Scratch *s)
{
    PtStats stats;
    pt_fs_stats(s->fs, &stats);
    return stats;
}

static inline PtEntry lookup(const Scratch *s, uint64_t parent, const char *name)
{
    PtEntry entry;
    g_assert_cmpint(pt_lookup(s->fs, parent, name, &entry), ==, 0);
    return entry;
}

static inline int lookup_error(const Scratch *s, uint64_t parent, const char *name)
{
    PtEntry entry;
    return pt_lookup(s->fs, parent, name, &entry);
}

static inline void host_write(const Scratch *s, const char *name, const char *text)
{
    int fd = openat(s->dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(write(fd, text, strlen(text)), ==, (int)strlen(text));
    close(fd);
}

static inline struct stat host_stat(const Scratch *s, const char *name)
{
    struct stat st;
    g_assert_cmpint(fstatat(s->dir, name, &st, AT_SYMLINK_NOFOLLOW), ==, 0);
    return st;
}

static inline PtOpened open_node(const Scratch *s, uint64_t nodeid, uint32_t flags)
{
    PtOpened opened;
    g_assert_cmpint(pt_open(s->fs, nodeid, flags, false, &opened), ==, 0);
    return opened;
}

static inline PtMake make_of(const PtCaller *caller, uint64_t parent, const char *name,
                             uint32_t mode)
{
    return (PtMake){.caller = caller, .parent = parent, .name = name, .mode = mode};
}

static inline int symlink_as(PtFs *fs, const PtCaller *caller, uint64_t parent,
                             const char *name, const char *target, PtEntry *ret_entry)
{
    PtMake make = {.caller = caller, .parent = parent, .name = name, .target = target};
    return pt_symlink(fs, &make, ret_entry);
}

static inline PtEntry make_dir(const Scratch *s, uint64_t parent, const char *name)
{
    PtEntry entry;
    PtMake make = make_of(&root_caller, parent, name, 0755);
    g_assert_cmpint(pt_mkdir(s->fs, &make, &entry), ==, 0);
    return entry;
}

static inline ssize_t write_text(const Scratch *s, uint64_t nodeid, uint64_t handle,
                                 uint64_t offset, const char *text)
{
    struct iovec iov = {(void *)text, strlen(text)};
    PtIo io = {
        .nodeid = nodeid, .handle = handle, .iov = &iov, .n_iov = 1, .offset = offset};
    return pt_write(s->fs, &io);
}

static inline ssize_t read_text(const Scratch *s, uint64_t nodeid, uint64_t handle,
                                uint64_t offset, char *buffer, size_t size)
{
    struct iovec iov = {buffer, size};
    PtIo io = {
        .nodeid = nodeid, .handle = handle, .iov = &iov, .n_iov = 1, .offset = offset};
    return pt_read(s->fs, &io);
}

static inline int allocate(PtFs *fs, uint64_t nodeid, uint64_t handle, uint32_t mode,
                           uint64_t offset, uint64_t length)
{
    const PtAllocate allocate = {.nodeid = nodeid,
                                 .handle = handle,
                                 .mode = mode,
                                 .offset = offset,
                                 .length = length};
    return pt_fallocate(fs, &allocate);
}

/* Run a function in a child process, as another user, and give back what it returns. */
typedef int (*AsUser)(const Scratch *s, void *data);

static inline int run_as(const Scratch *s, const PtCaller *caller, AsUser run, void *data)
{
    pid_t pid = fork();
    g_assert_cmpint(pid, >=, 0);
    if (pid == 0) {
        gid_t groups[PT_GROUPS_MAX];
        for (uint32_t i = 0; i < caller->n_groups; i++) {
            groups[i] = caller->groups[i];
        }
        umask(caller->umask);
        if (setgroups(caller->n_groups, groups) < 0 || setgid(caller->gid) < 0 ||
            setuid(caller->uid) < 0) {
            _exit(255);
        }
        _exit(run(s, data) & 0x7f);
    }
    int status;
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    g_assert_true(WIFEXITED(status));
    g_assert_cmpint(WEXITSTATUS(status), !=, 255);
    return WEXITSTATUS(status);
}

static inline int need_root(void)
{
    if (geteuid() != 0) {
        printf("1..0 # SKIP the tests of passthrough/ run as root\n");
        return 0;
    }
    return 1;
}

#endif
