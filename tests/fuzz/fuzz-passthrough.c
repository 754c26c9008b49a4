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
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/fuse-harness.h"
#include "virtiofsd/log.h"

#define RECORD_HEAD 4u
#define MOST_RECORDS 64
/* No file grows beyond this, so that no input fills the disk. */
#define FILE_SIZE_MAX (1 << 20)
#define CANARY "canary"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t load16(const uint8_t *at)
{
    return (size_t)at[0] | (size_t)at[1] << 8;
}

static void write_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(write(fd, CANARY, sizeof(CANARY)), ==, (int)sizeof(CANARY));
    close(fd);
}

/* Everything lies in a directory of its own, as the working directory. */
static int home;

static void go_home(void)
{
    g_assert_cmpint(fchdir(home), ==, 0);
}

static void prepare(void)
{
    const struct rlimit most = {FILE_SIZE_MAX, FILE_SIZE_MAX};
    g_autofree char *path = g_dir_make_tmp("fuzz-passthrough-XXXXXX", NULL);

    log_open(LOG_LEVEL_OFF, false);
    g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &most), ==, 0);
    /* As the daemon does: EFBIG is enough. libFuzzer would take it for a crash. */
    (void)signal(SIGXFSZ, SIG_IGN);
    g_assert_nonnull(path);
    home = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    g_assert_cmpint(home, >=, 0);
    go_home();
    write_file("outside");
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

static PtFs *open_share(const SessionConfig *session)
{
    const PtConfig config = {
        .cache = session->cache,
        .announce_submounts = true,
        .allow_direct_io = session->cache == PT_CACHE_NEVER,
        .preserve_noatime = session->writeback,
        .readonly = session->readonly,
        .max_descriptors = 200,
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

static void run_stream(Harness *harness, const uint8_t *data, size_t size)
{
    for (int i = 0; i < MOST_RECORDS && size >= RECORD_HEAD; i++) {
        size_t room = MIN(load16(data), HARNESS_OUT_SIZE);
        size_t length = MIN(load16(data + 2), size - RECORD_HEAD);
        Message message = {.size = 0};
        length = MIN(length, sizeof(message.bytes));
        message_add(&message, data + RECORD_HEAD, length);
        /* Much room in small pieces costs much time and teaches little. */
        harness->split = (unsigned int)(room < 512 ? room % 5 : room % 2 * 4096);
        (void)harness_run(harness, &message, room, false);
        data += RECORD_HEAD + length;
        size -= RECORD_HEAD + length;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    const SessionConfig config = harness_config_of(*data);
    if (home == 0) {
        prepare();
    }
    make_share();
    Harness *harness = harness_new_on(&config, open_share(&config));
    harness_init(harness, UINT64_MAX);
    run_stream(harness, data + 1, size - 1);
    harness_free(harness);
    go_home();
    check_canary();
    g_assert_cmpint(nftw("share", remove_one, 8, FTW_DEPTH | FTW_PHYS), ==, 0);
    return 0;
}
