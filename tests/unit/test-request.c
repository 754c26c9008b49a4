/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request as a whole: its length, its reply's room, unknown opcodes, and bytes that
 * change while they are read.
 */
#include "virtiofsd/fuse/request.h"

#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/fuse-harness.h"
#include "virtiofsd/log.h"

static Harness *ready(void)
{
    Harness *harness = harness_new(NULL);

    harness_init(harness, UINT64_MAX);
    return harness;
}

static uint64_t malformed(Harness *harness)
{
    SessionStats stats;

    session_stats(harness->session, &stats);
    return stats.malformed;
}

/* Without a header there is nobody to answer to. */
static void test_no_header(void)
{
    g_autoptr(Harness) harness = ready();
    Message message;

    for (size_t size = 0; size < sizeof(struct fuse_in_header); size++) {
        g_assert_true(message_honest(&message, FUSE_GETATTR));
        message.size = size;
        uint64_t before = malformed(harness);
        g_assert_cmpint(harness_run(harness, &message, 120, false), ==, 1);
        g_assert_cmpuint(malformed(harness), ==, before + 1);
    }
    harness_check_alive(harness);
}

static void test_wrong_length(void)
{
    static const uint32_t lengths[] = {0,  1,  16,         39,         40,
                                       55, 57, 0x7fffffff, 0x80000000, UINT32_MAX};
    g_autoptr(Harness) harness = ready();
    Message message;

    for (size_t i = 0; i < G_N_ELEMENTS(lengths); i++) {
        g_assert_true(message_honest(&message, FUSE_GETATTR));
        g_assert_cmpuint(message.size, ==, 56);
        message.header.len = lengths[i];
        message.header.unique = 77;
        uint64_t before = malformed(harness);
        g_assert_cmpint(harness_run(harness, &message, 120, false), ==, -EINVAL);
        g_assert_cmpint(harness_run(harness, &message, 16, false), ==, -EINVAL);
        g_assert_cmpint(harness_run(harness, &message, 15, false), ==, 1);
        g_assert_cmpuint(malformed(harness), ==, before + 3);
        harness_check_alive(harness);
    }
}

/* 0 and numbers in use are as good as any. */
static void test_unique(void)
{
    static const uint64_t uniques[] = {0, 0, 1, 1, UINT64_C(1) << 63, UINT64_MAX};
    g_autoptr(Harness) harness = ready();
    Message message;

    for (size_t i = 0; i < G_N_ELEMENTS(uniques); i++) {
        g_assert_true(message_honest(&message, FUSE_GETATTR));
        message.header.len = (uint32_t)message.size;
        message.header.unique = uniques[i];
        g_assert_cmpint(harness_run(harness, &message, 120, false), ==, 0);
    }
}

static void test_unknown_opcodes(void)
{
    g_autoptr(Harness) harness = ready();
    Message message;

    for (uint32_t opcode = 0; opcode < 8192; opcode++) {
        if (message_honest(&message, opcode)) {
            continue;
        }
        g_assert_cmpint(harness_run(harness, &message, 16, true), ==, -ENOSYS);
        g_assert_cmpint(harness_run(harness, &message, 0, true), ==, 1);
    }
    message_begin(&message, UINT32_MAX);
    g_assert_cmpint(harness_call(harness, &message), ==, -ENOSYS);
    g_assert_cmpuint(malformed(harness), >, 0);
    harness_check_alive(harness);
}

/* Before INIT nothing works but INIT, and nothing reaches the file system. */
static void test_before_init(void)
{
    g_autoptr(Harness) harness = harness_new(NULL);
    NullFsStats stats;
    Message message;

    for (uint32_t opcode = 0; opcode < HARNESS_OPCODES; opcode++) {
        if (opcode == FUSE_INIT || !message_honest(&message, opcode)) {
            continue;
        }
        int result = harness_call(harness, &message);
        g_assert_true(result == -EIO || result == 1);
    }
    null_fs_stats(harness->fs, &stats);
    g_assert_cmpuint(stats.calls + stats.forgets + stats.resets, ==, 0);
}

/* No request is answered at all if its error would not fit, and none is done then; FORGET
 * is done without any room, and never answered. */
static void test_rooms(void)
{
    g_autoptr(Harness) harness = ready();
    NullFsStats before, after;
    Message message;

    for (uint32_t opcode = 0; opcode < HARNESS_OPCODES; opcode++) {
        if (!message_honest(&message, opcode)) {
            continue;
        }
        bool is_silent = opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET ||
                         opcode == FUSE_INTERRUPT;
        for (size_t room = 0; room < 16; room++) {
            null_fs_stats(harness->fs, &before);
            g_assert_cmpint(harness_run(harness, &message, room, true), ==, 1);
            null_fs_stats(harness->fs, &after);
            g_assert_cmpuint(after.calls, ==, before.calls);
            g_assert_cmpuint(after.resets, ==, before.resets);
            g_assert_cmpint(after.forgets > before.forgets, ==,
                            is_silent && opcode != FUSE_INTERRUPT);
        }
        if (is_silent) {
            g_assert_cmpint(harness_call(harness, &message), ==, 1);
        }
    }
    harness_check_alive(harness);
}

/* What succeeds must fit: with one byte less it is refused before it is done. */
static void test_least_rooms(void)
{
    g_autoptr(Harness) harness = ready();
    NullFsStats before, after;
    Message message;

    for (uint32_t opcode = 0; opcode < HARNESS_OPCODES; opcode++) {
        if (opcode == FUSE_INIT || opcode == FUSE_DESTROY || opcode == FUSE_READLINK ||
            opcode == FUSE_READDIR || opcode == FUSE_READDIRPLUS ||
            !message_honest(&message, opcode) || harness_call(harness, &message) != 0) {
            continue;
        }
        size_t length = harness->length;
        g_assert_cmpint(harness_run(harness, &message, length, true), ==, 0);
        g_assert_cmpuint(harness->length, ==, length);
        for (size_t room = 16; room < length; room++) {
            null_fs_stats(harness->fs, &before);
            g_assert_cmpint(harness_run(harness, &message, room, true), ==, -EINVAL);
            null_fs_stats(harness->fs, &after);
            g_assert_cmpuint(after.calls, ==, before.calls);
        }
    }
}

static void test_later_opcodes(void)
{
    static const uint32_t later[] = {
        FUSE_SETXATTR, FUSE_GETXATTR,     FUSE_LISTXATTR,    FUSE_REMOVEXATTR,
        FUSE_SETLK,    FUSE_SETLKW,       FUSE_ACCESS,       FUSE_BMAP,
        FUSE_POLL,     FUSE_NOTIFY_REPLY, FUSE_SETUPMAPPING, FUSE_REMOVEMAPPING,
    };
    g_autoptr(Harness) harness = ready();
    Message message;

    for (size_t i = 0; i < G_N_ELEMENTS(later); i++) {
        g_assert_true(message_honest(&message, later[i]));
        g_assert_cmpint(harness_run(harness, &message, 16, true), ==, -ENOSYS);
        if (message.size > sizeof(message.header)) {
            message.size = sizeof(message.header);
            g_assert_cmpint(harness_run(harness, &message, 16, true), ==, -EINVAL);
        }
    }
    g_assert_cmpuint(malformed(harness), ==, G_N_ELEMENTS(later));
}

/* A request larger than a Message: @in and @tail zero bytes, or, without @in, a name of
 * @tail bytes that does not end, or two names and extensions. */
static int run_large(Harness *harness, uint32_t opcode, uint16_t total_extlen,
                     const struct fuse_write_in *in, size_t tail)
{
    size_t fixed = in != NULL ? sizeof(*in) : 0;
    size_t size = sizeof(struct fuse_in_header) + fixed + tail;
    const struct fuse_in_header header = {.len = (uint32_t)size,
                                          .opcode = opcode,
                                          .nodeid = 7,
                                          .total_extlen = total_extlen};
    g_autofree unsigned char *bytes = g_malloc0(size);
    struct fuse_out_header out[16];
    const struct iovec request = {.iov_base = bytes, .iov_len = size};
    const struct iovec reply = {.iov_base = out, .iov_len = sizeof(out)};
    const RequestBuffers buffers = {.in = &request, .n_in = 1, .out = &reply, .n_out = 1};

    memcpy(bytes, &header, sizeof(header));
    if (in != NULL) {
        memcpy(bytes + sizeof(header), in, sizeof(*in));
    } else {
        memset(bytes + sizeof(header), 'n', tail);
        memcpy(bytes + sizeof(header), "n\0t", total_extlen > 0 ? 4 : 0);
    }
    g_assert_cmpuint(request_run(harness->worker, &buffers), ==, out->len);
    g_assert_cmpuint(out->len, >=, sizeof(*out));
    return out->error;
}

/* As large as the largest WRITE with extensions could be, and one byte more. */
static void test_too_much(void)
{
    const struct fuse_write_in in = {.fh = 7 + NULL_FS_HANDLE_BASE, .size = 5};
    const size_t most = 1024 * 1024 + 64 * 1024;
    g_autoptr(Harness) harness = ready();

    g_assert_cmpint(run_large(harness, FUSE_WRITE, 0, &in, most), ==, 0);
    g_assert_cmpint(run_large(harness, FUSE_WRITE, 0, &in, most + 1), ==, -EINVAL);
}

static void test_max_write(void)
{
    const size_t most = 1024 * 1024;
    struct fuse_write_in in = {.fh = 7 + NULL_FS_HANDLE_BASE, .size = most};
    g_autoptr(Harness) harness = ready();

    g_assert_cmpint(run_large(harness, FUSE_WRITE, 0, &in, most), ==, 0);
    in.size++;
    g_assert_cmpint(run_large(harness, FUSE_WRITE, 0, &in, most + 1), ==, -EINVAL);
}

/* Names and extensions larger than all that a worker has. */
static void test_large_names(void)
{
    g_autoptr(Harness) harness = ready();

    for (size_t size = 4000; size < 1000000; size = size * 5 / 4) {
        g_assert_cmpint(run_large(harness, FUSE_LOOKUP, 0, NULL, size), ==,
                        size <= PT_NAME_MAX + 1 + 4096 ? -EINVAL : -ENAMETOOLONG);
        uint16_t extlen = (uint16_t)MIN(size / 8, UINT16_MAX);
        g_assert_cmpint(
            run_large(harness, FUSE_SYMLINK, extlen, NULL, (size_t)extlen * 8 + 4), ==,
            -EINVAL);
    }
    harness_check_alive(harness);
}

/* The lines of --log-level=debug, and of a malformed request. */
static void test_log(void)
{
    if (g_test_subprocess()) {
        g_autoptr(Harness) harness = ready();
        Message message;
        atomic_store(&log_threshold, LOG_LEVEL_DEBUG);
        message_begin(&message, FUSE_LOOKUP);
        message_add_name(&message, "absent\nvirtiofsd: Waiting for vhost-user socket");
        g_assert_cmpint(harness_call(harness, &message), ==, -ENOENT);
        message_begin(&message, FUSE_LOOKUP);
        g_assert_cmpint(harness_call(harness, &message), ==, -EINVAL);
        message_begin(&message, 4711);
        g_assert_cmpint(harness_call(harness, &message), ==, -ENOSYS);
        message_begin(&message, FUSE_FORGET);
        message.header.unique = 5;
        message.size = 3;
        g_assert_cmpint(harness_run(harness, &message, 0, false), ==, 1);
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_passed();
    g_test_trap_assert_stderr("*LOOKUP (1) node 0x1: -2 in * us*");
    g_test_trap_assert_stderr("*malformed request: LOOKUP (1): a name does not end*");
    g_test_trap_assert_stderr("*unknown (4711) node 0x1: -38 in * us*");
    g_test_trap_assert_stderr("*malformed request: *too short for a header*");
    g_test_trap_assert_stderr_unmatched("*Waiting*");
}

/* ---- bytes that change while they are read ------------------------------------------
 */

#ifndef __has_feature
#define __has_feature(feature) 0
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define IS_TSAN true
#else
#define IS_TSAN false
#endif

typedef struct Flipper {
    unsigned char *bytes;
    size_t size;
    _Atomic bool stop;
    pthread_t thread;
} Flipper;

static void *flipper_main(void *data)
{
    Flipper *flipper = data;
    volatile unsigned char *bytes = flipper->bytes;
    uint32_t state = 1;

    while (!atomic_load_explicit(&flipper->stop, memory_order_relaxed)) {
        state = state * 1664525u + 1013904223u;
        /* Mostly the fields that lengths and bounds hang on. */
        size_t at = (state >> 8) % flipper->size;
        unsigned char old = bytes[at];
        bytes[at] = (unsigned char)(state >> 24);
        bytes[at] = old;
    }
    return NULL;
}

/* Each decision is made on one copy: a sanitizer would see a bound checked on another. */
static void test_changing_bytes(void)
{
    if (IS_TSAN) {
        g_test_skip("the race is the guest's, and meant");
        return;
    }
    g_autoptr(Harness) harness = ready();
    unsigned char *out = malloc(4096);

    for (uint32_t opcode = 1; opcode < HARNESS_OPCODES; opcode++) {
        Message message;
        if (opcode == FUSE_DESTROY || !message_honest(&message, opcode)) {
            continue;
        }
        message.header.len = (uint32_t)message.size;
        Flipper flipper = {.bytes = malloc(message.size), .size = message.size};
        memcpy(flipper.bytes, message.bytes, message.size);
        pthread_create(&flipper.thread, NULL, flipper_main, &flipper);
        const struct iovec in = {flipper.bytes, message.size};
        const struct iovec reply = {out, 4096};
        const RequestBuffers buffers = {.in = &in, .n_in = 1, .out = &reply, .n_out = 1};
        for (int i = 0; i < 4000; i++) {
            size_t length = request_run(harness->worker, &buffers);
            g_assert_true(length == 0 || (length >= 16 && length <= 4096));
        }
        atomic_store(&flipper.stop, true);
        pthread_join(flipper.thread, NULL);
        free(flipper.bytes);
    }
    free(out);
    harness_init(harness, UINT64_MAX);
    harness_check_alive(harness);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/request/no-header", test_no_header);
    g_test_add_func("/request/wrong-length", test_wrong_length);
    g_test_add_func("/request/unique", test_unique);
    g_test_add_func("/request/unknown-opcodes", test_unknown_opcodes);
    g_test_add_func("/request/before-init", test_before_init);
    g_test_add_func("/request/rooms", test_rooms);
    g_test_add_func("/request/least-rooms", test_least_rooms);
    g_test_add_func("/request/later-opcodes", test_later_opcodes);
    g_test_add_func("/request/too-much", test_too_much);
    g_test_add_func("/request/max-write", test_max_write);
    g_test_add_func("/request/large-names", test_large_names);
    g_test_add_func("/request/log", test_log);
    g_test_add_func("/request/changing-bytes", test_changing_bytes);
    return g_test_run();
}
