/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the whole way of a request, from its bytes to the host's file system: a stream
 * of requests, in the form of fuzz-request, on a fresh directory with a few files in it.
 * Runs as root, as the daemon does, and writes nowhere else: a file outside the share is
 * looked at after each stream.
 *
 * Node ids and handles are given out in the same order each time, so an input stays good.
 */
#include <fcntl.h>
#include <ftw.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/fuzz/stream.h"
#include "virtiofsd/log.h"

/* No file grows beyond this, so that no input fills the disk. */
#define FILE_SIZE_MAX (1 << 20)
#define CANARY "canary"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void write_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(write(fd, CANARY, sizeof(CANARY)), ==, (int)sizeof(CANARY));
    close(fd);
}

/* In the fuzzer's own files, such as that of a merge, no limit is wanted. */
static void limit_files(rlim_t size)
{
    const struct rlimit most = {size, RLIM_INFINITY};

    g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &most), ==, 0);
}

/* Everything lies in a directory of its own, as the working directory. */
static int home;
static char *home_path;

static void go_home(void)
{
    g_assert_cmpint(fchdir(home), ==, 0);
}

static void leave(void)
{
    go_home();
    (void)unlink("outside"); /* is there */
    (void)rmdir(home_path);
    g_free(home_path);
}

/* What --translate-uid and --xattrmap make, once. */
static PtTranslation *translation;
static PtXattrMap *xattr_map;

static void make_maps(void)
{
    static const char *const rules[] = {"map:1000:0:1", "squash-guest:2000:1:100",
                                        "forbid-guest:3000:10", "host:5:7:3"};
    static const char map[] = ":prefix:client:trusted.:user.virtiofs.:"
                              ":bad:all:security.bad::"
                              ":unsupported:client:user.no::"
                              ":prefix:server::user.virtiofs.:"
                              ":ok:all:::";
    g_autoptr(GError) error = NULL;

    for (size_t i = 0; i < G_N_ELEMENTS(rules); i++) {
        g_assert_true(pt_translation_add(&translation, rules[i], &error));
    }
    xattr_map = pt_xattr_map_parse(map, &error);
    g_assert_no_error(error);
}

/* As the daemon: else a file could be made that cannot be removed. */
static void drop_immutable(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];

    g_assert_cmpint(syscall(SYS_capget, &header, sets), ==, 0);
    sets[0].effective &= ~CAP_TO_MASK(CAP_LINUX_IMMUTABLE);
    sets[0].permitted &= ~CAP_TO_MASK(CAP_LINUX_IMMUTABLE);
    g_assert_cmpint(syscall(SYS_capset, &header, sets), ==, 0);
}

static void prepare(void)
{
    home_path = g_dir_make_tmp("fuzz-passthrough-XXXXXX", NULL);

    log_open(LOG_LEVEL_OFF, false);
    /* As the daemon does: EFBIG is enough. libFuzzer would take it for a crash. */
    (void)signal(SIGXFSZ, SIG_IGN);
    g_assert_nonnull(home_path);
    (void)atexit(leave); /* else it stays */
    home = open(home_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    g_assert_cmpint(home, >=, 0);
    go_home();
    write_file("outside");
    make_maps();
    drop_immutable();
}

static void make_share(void)
{
    g_assert_cmpint(mkdir("share", 0755), ==, 0);
    g_assert_cmpint(mkdir("share/dir", 0755), ==, 0);
    write_file("share/file");
    write_file("share/dir/inner");
    g_assert_cmpint(symlink("../outside", "share/link"), ==, 0);
    g_assert_cmpint(mkfifo("share/fifo", 0644), ==, 0);
}

/* The modes that are left: a nibble. */
static PtFs *open_share(const SessionConfig *session, unsigned int modes)
{
    static const PtInodeHandles handles[] = {
        PT_INODE_HANDLES_NEVER, PT_INODE_HANDLES_NEVER, PT_INODE_HANDLES_PREFER,
        PT_INODE_HANDLES_MANDATORY};
    const PtConfig config = {
        .cache = session->cache,
        .announce_submounts = session->announce_submounts,
        .allow_direct_io = session->cache == PT_CACHE_NEVER,
        .preserve_noatime = session->writeback,
        .readonly = session->readonly,
        .inode_handles = handles[modes & 3],
        .uids = (modes & 4) != 0 ? translation : NULL,
        .gids = (modes & 4) != 0 ? translation : NULL,
        .xattr_map = (modes & 8) != 0 ? xattr_map : NULL,
        /* Few enough for one stream to use them up. */
        .max_descriptors = (modes & 3) == 1 ? 12 : 200,
    };
    int root = open("share", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int procfd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
    g_autoptr(GError) error = NULL;
    PtFs *fs = pt_fs_new(&config, root, procfd, &error);

    g_assert_no_error(error);
    g_assert_cmpint(pt_thread_enter(fs), ==, 0);
    return fs;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static void check_canary(void)
{
    struct stat st;

    g_assert_cmpint(stat("outside", &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, (int)sizeof(CANARY));
    g_assert_cmpuint(st.st_nlink, ==, 1);
    g_assert_cmpuint(st.st_mode, ==, S_IFREG | 0644);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < STREAM_HEAD) {
        return 0;
    }
    const SessionConfig config = stream_config(data);
    if (geteuid() != 0) {
        _exit(77); /* skipped: it could not be anybody else */
    }
    if (home == 0) {
        prepare();
    }
    make_share();
    Harness *harness = harness_new_on(&config, open_share(&config, data[1] >> 4));
    limit_files(FILE_SIZE_MAX);
    stream_run(harness, data, size);
    limit_files(RLIM_INFINITY);
    harness_free(harness);
    go_home();
    check_canary();
    g_assert_cmpint(nftw("share", remove_one, 8, FTW_DEPTH | FTW_PHYS), ==, 0);
    return 0;
}
