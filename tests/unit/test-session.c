/* SPDX-License-Identifier: Apache-2.0 */
/*
 * INIT in every variant, INIT again, DESTROY, reset, statistics, and all of it while
 * other threads ask.
 */
#include "virtiofsd/fuse/session.h"

#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "tests/support/fuse-harness.h"
#include "virtiofsd/fuse/abi.h"

#define BIT(n) (UINT64_C(1) << (n))
/* 0, 3, 5, 12, 15, 18, 22, 30, 34, 38, 40: always; then what harness_config() wants. */
#define ALWAYS                                                                           \
    (BIT(0) | BIT(3) | BIT(5) | BIT(15) | BIT(18) | BIT(22) | BIT(30) | BIT(34) |        \
     BIT(38) | BIT(40))

static Message init_message(uint32_t major, uint32_t minor, uint64_t flags, size_t size)
{
    const struct fuse_init_in in = {
        .major = major,
        .minor = minor,
        .max_readahead = 131072,
        .flags = (uint32_t)flags,
        .flags2 = (uint32_t)(flags >> 32),
    };
    Message message;

    message_begin(&message, FUSE_INIT);
    message_add(&message, &in, MIN(size, sizeof(in)));
    for (size_t i = sizeof(in); i < size; i++) {
        message_add(&message, "", 1);
    }
    return message;
}

static uint64_t flags_of(const Harness *harness)
{
    const struct fuse_init_out *out = harness_body(harness);

    return out->flags | (uint64_t)out->flags2 << 32;
}

static void test_reply(void)
{
    g_autoptr(Harness) harness = harness_new(NULL);
    Message message = init_message(7, 38, UINT64_MAX, 64);

    g_assert_cmpint(harness_call(harness, &message), ==, 0);
    g_assert_cmpuint(harness_body_size(harness), ==, 64);
    const struct fuse_init_out *out = harness_body(harness);
    g_assert_cmpuint(out->major, ==, 7);
    g_assert_cmpuint(out->minor, ==, 38);
    g_assert_cmpuint(out->max_readahead, ==, 131072);
    g_assert_cmpuint(out->max_background, ==, 65535);
    g_assert_cmpuint(out->congestion_threshold, ==, 49151);
    g_assert_cmpuint(out->max_write, ==, 1048576);
    g_assert_cmpuint(out->time_gran, ==, 1);
    g_assert_cmpuint(out->max_pages, ==, 256);
    g_assert_cmpuint(out->map_alignment, ==, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(out->unused); i++) {
        g_assert_cmpuint(out->unused[i], ==, 0);
    }
    harness_check_alive(harness);
}

/* {what the command line says, what is agreed beside ALWAYS}. */
static const struct {
    SessionConfig config;
    uint64_t flags;
} offers[] = {
    {{.cache = PT_CACHE_AUTO}, BIT(12)},
    {{.cache = PT_CACHE_NEVER, .readdirplus = true}, BIT(12)},
    {{.cache = PT_CACHE_METADATA, .readdirplus = true}, BIT(12) | BIT(13) | BIT(14)},
    {{.cache = PT_CACHE_AUTO, .readdirplus = true}, BIT(12) | BIT(13) | BIT(14)},
    {{.cache = PT_CACHE_ALWAYS, .readdirplus = true}, BIT(13) | BIT(14) | BIT(23)},
    {{.cache = PT_CACHE_AUTO, .announce_submounts = true}, BIT(12) | BIT(27)},
    {{.cache = PT_CACHE_AUTO, .writeback = true}, BIT(12) | BIT(16)},
    {{.cache = PT_CACHE_AUTO, .killpriv_v2 = true}, BIT(12) | BIT(28)},
    {{.cache = PT_CACHE_AUTO, .allow_mmap = true}, BIT(12) | BIT(36)},
    {{.cache = PT_CACHE_AUTO, .xattr = true}, BIT(12)},
    {{.cache = PT_CACHE_AUTO, .posix_lock = true}, BIT(1) | BIT(12)},
    {{.cache = PT_CACHE_AUTO, .flock = true}, BIT(10) | BIT(12)},
    {{.cache = PT_CACHE_AUTO, .security_label = SESSION_AUTO}, BIT(12) | BIT(32)},
};

/* ATOMIC_O_TRUNC goes with ALLOW_IDMAP only where set-id bits are ours to drop. */
static uint64_t withheld(const SessionConfig *config)
{
    return config->killpriv_v2 ? 0 : BIT(3);
}

static void test_offers(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(offers); i++) {
        g_autoptr(Harness) harness = harness_new(&offers[i].config);
        uint64_t all = ALWAYS | offers[i].flags;
        Message message = init_message(7, 45, UINT64_MAX, 64);
        g_assert_cmpint(harness_call(harness, &message), ==, 0);
        g_assert_cmphex(flags_of(harness), ==, all & ~withheld(&offers[i].config));
        g_assert_cmpint(null_fs_agreed(harness->fs).writeback, ==,
                        offers[i].config.writeback);
        g_assert_true(null_fs_agreed(harness->fs).supp_groups);

        /* A guest that wants one thing gets that, or nothing. */
        for (unsigned int bit = 0; bit < 64; bit++) {
            message = init_message(7, 45, BIT(bit) | BIT(30), 64);
            g_assert_cmpint(harness_call(harness, &message), ==, 0);
            g_assert_cmphex(flags_of(harness), ==, all & (BIT(bit) | BIT(30)));
            g_assert_cmpint(null_fs_agreed(harness->fs).supp_groups, ==, bit == 34);
            const struct fuse_init_out *out = harness_body(harness);
            g_assert_cmpuint(out->max_pages, ==, bit == 22 ? 256 : 0);
        }
    }
}

/* ACLs are three capabilities, all or none; "always" insists on them. */
static void test_acl(void)
{
    static const uint64_t three = BIT(6) | BIT(20) | BIT(29);

    for (SessionMode mode = SESSION_NEVER; mode <= SESSION_ALWAYS; mode++) {
        const SessionConfig config = {.xattr = true, .posix_acl = mode};
        g_autoptr(Harness) harness = harness_new(&config);
        for (uint64_t missing = 0; missing < 8; missing++) {
            uint64_t lacks = (missing & 1 ? BIT(6) : 0) | (missing & 2 ? BIT(20) : 0) |
                             (missing & 4 ? BIT(29) : 0);
            Message message = init_message(7, 45, UINT64_MAX & ~lacks, 64);
            NullFsStats before, after;
            null_fs_stats(harness->fs, &before);
            int result = harness_call(harness, &message);
            null_fs_stats(harness->fs, &after);
            if (mode == SESSION_ALWAYS && missing != 0) {
                g_assert_cmpint(result, ==, -EPROTO);
                g_assert_cmpuint(after.resets, ==, before.resets);
                continue;
            }
            bool agreed = mode != SESSION_NEVER && missing == 0;
            g_assert_cmpint(result, ==, 0);
            g_assert_cmphex(flags_of(harness) & three, ==, agreed ? three : 0);
            g_assert_cmpint(null_fs_agreed(harness->fs).posix_acl, ==, agreed);
        }
    }
}

static void test_label(void)
{
    const SessionConfig config = {.xattr = true, .security_label = SESSION_ALWAYS};
    g_autoptr(Harness) harness = harness_new(&config);
    Message message = init_message(7, 45, UINT64_MAX & ~BIT(32), 64);

    g_assert_cmpint(harness_call(harness, &message), ==, -EPROTO);
    message = init_message(7, 45, UINT64_MAX, 64);
    g_assert_cmpint(harness_call(harness, &message), ==, 0);
    g_assert_cmphex(flags_of(harness) & BIT(32), ==, BIT(32));
}

/* flags2 counts only in a long INIT that says so. */
static void test_flags2(void)
{
    g_autoptr(Harness) harness = harness_new(NULL);
    Message message = init_message(7, 38, UINT64_MAX & ~BIT(30), 64);

    g_assert_cmpint(harness_call(harness, &message), ==, 0);
    g_assert_cmphex(flags_of(harness) >> 30, ==, 0);
    message = init_message(7, 35, UINT64_MAX, 16);
    g_assert_cmpint(harness_call(harness, &message), ==, 0);
    g_assert_cmphex(flags_of(harness) >> 32, ==, 0);
    g_assert_false(null_fs_agreed(harness->fs).supp_groups);
    message = init_message(7, 45, UINT64_MAX, 128);
    g_assert_cmpint(harness_call(harness, &message), ==, 0);
    g_assert_cmphex(flags_of(harness) >> 32, !=, 0);
}

static void test_versions(void)
{
    static const struct {
        uint32_t major, minor;
        int result;
        uint32_t answered;
    } cases[] = {
        {7, 31, 0, 31},      {7, 30, -EPROTO, 0},    {7, 0, -EPROTO, 0},
        {6, 45, -EPROTO, 0}, {0, 0, -EPROTO, 0},     {7, 45, 0, 45},
        {7, 46, 0, 45},      {7, UINT32_MAX, 0, 45},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(Harness) harness = harness_new(NULL);
        Message message = init_message(cases[i].major, cases[i].minor, 0, 64);
        Message ask;
        g_assert_true(message_honest(&ask, FUSE_GETATTR));
        g_assert_cmpint(harness_call(harness, &message), ==, cases[i].result);
        if (cases[i].result == 0) {
            const struct fuse_init_out *out = harness_body(harness);
            g_assert_cmpuint(out->minor, ==, cases[i].answered);
        }
        g_assert_cmpint(harness_call(harness, &ask), ==, cases[i].result == 0 ? 0 : -EIO);
    }
}

/* A guest from the future hears our version, and begins anew in it. */
static void test_newer_major(void)
{
    g_autoptr(Harness) harness = harness_new(NULL);
    Message message = init_message(8, 1, UINT64_MAX, 16);
    Message ask;

    g_assert_cmpint(harness_call(harness, &message), ==, 0);
    const struct fuse_init_out *out = harness_body(harness);
    g_assert_cmpuint(out->major, ==, 7);
    g_assert_cmpuint(out->minor, ==, 45);
    g_assert_cmpuint(out->max_write, ==, 0);
    g_assert_true(message_honest(&ask, FUSE_GETATTR));
    g_assert_cmpint(harness_call(harness, &ask), ==, -EIO);
    harness_init(harness, UINT64_MAX);
    harness_check_alive(harness);
}

static void test_sizes(void)
{
    for (size_t size = 0; size <= 80; size++) {
        g_autoptr(Harness) harness = harness_new(NULL);
        Message message = init_message(7, 45, UINT64_MAX, size);
        bool is_good = size == 16 || size >= 64;
        NullFsStats stats;
        g_assert_cmpint(harness_call(harness, &message), ==, is_good ? 0 : -EINVAL);
        null_fs_stats(harness->fs, &stats);
        g_assert_cmpuint(stats.resets, ==, is_good ? 1 : 0);
        /* Too little room: refused before anything is forgotten. */
        message = init_message(7, 45, UINT64_MAX, size);
        g_assert_cmpint(harness_run(harness, &message, 79, true), ==, -EINVAL);
        g_assert_cmpint(harness_run(harness, &message, 15, true), ==, 1);
        null_fs_stats(harness->fs, &stats);
        g_assert_cmpuint(stats.resets, ==, is_good ? 1 : 0);
    }
}

static int ask(Harness *harness)
{
    Message message;

    g_assert_true(message_honest(&message, FUSE_GETATTR));
    return harness_call(harness, &message);
}

static void test_life(void)
{
    g_autoptr(Harness) harness = harness_new(NULL);
    NullFsStats stats;
    Message destroy;

    g_assert_cmpint(ask(harness), ==, -EIO);
    g_assert_true(message_honest(&destroy, FUSE_DESTROY));
    g_assert_cmpint(harness_call(harness, &destroy), ==, -EIO);
    harness_init(harness, UINT64_MAX);
    g_assert_cmpint(ask(harness), ==, 0);
    /* The guest rebooted. */
    harness_init(harness, UINT64_MAX);
    g_assert_cmpint(ask(harness), ==, 0);
    null_fs_stats(harness->fs, &stats);
    g_assert_cmpuint(stats.resets, ==, 2);
    g_assert_cmpint(harness_call(harness, &destroy), ==, 0);
    g_assert_cmpuint(harness->length, ==, 16);
    g_assert_cmpint(ask(harness), ==, -EIO);
    null_fs_stats(harness->fs, &stats);
    g_assert_cmpuint(stats.resets, ==, 3);
    harness_init(harness, 0);
    g_assert_cmpint(ask(harness), ==, 0);
    session_reset(harness->session);
    g_assert_cmpint(ask(harness), ==, -EIO);
    null_fs_stats(harness->fs, &stats);
    g_assert_cmpuint(stats.resets, ==, 5);
}

/* A bad INIT leaves the session as it is. */
static void test_bad_init_keeps(void)
{
    g_autoptr(Harness) harness = harness_new(NULL);
    Message old = init_message(7, 30, 0, 64);
    Message cut = init_message(7, 45, 0, 63);

    harness_init(harness, UINT64_MAX);
    g_assert_cmpint(harness_call(harness, &old), ==, -EPROTO);
    g_assert_cmpint(ask(harness), ==, 0);
    g_assert_cmpint(harness_call(harness, &cut), ==, -EINVAL);
    g_assert_cmpint(ask(harness), ==, 0);
}

static void test_stats(void)
{
    g_autoptr(Harness) harness = harness_new(NULL);
    RequestWorker *second = request_worker_new(harness->session);
    RequestWorker *first = harness->worker;
    SessionStats stats;
    Message message;

    harness_init(harness, 0);
    g_assert_cmpint(ask(harness), ==, 0);
    harness->worker = second;
    g_assert_cmpint(ask(harness), ==, 0);
    message_begin(&message, FUSE_LOOKUP);
    message_add_name(&message, "absent");
    g_assert_cmpint(harness_call(harness, &message), ==, -ENOENT);
    g_assert_cmpint(harness_run(harness, &message, 0, true), ==, 1);
    session_stats(harness->session, &stats);
    g_assert_cmpuint(stats.requests, ==, 5);
    g_assert_cmpuint(stats.errors, ==, 2);
    g_assert_cmpuint(stats.malformed, ==, 1);
    /* What a worker counted stays when it goes. */
    request_worker_free(second);
    harness->worker = first;
    session_stats(harness->session, &stats);
    g_assert_cmpuint(stats.requests, ==, 5);
    g_assert_cmpuint(stats.malformed, ==, 1);
}

/* ---- at once ----------------------------------------------------------------------- */

#define N_ASKING 3
#define N_SESSIONS 1500

typedef struct Asker {
    Harness harness; /* of its own but for session and file system */
    uint32_t opcode;
    _Atomic bool *stop;
    pthread_t thread;
    _Atomic uint64_t n_good;
} Asker;

static void *asker_main(void *data)
{
    static const uint32_t opcodes[] = {FUSE_GETATTR, FUSE_LOOKUP, FUSE_READ, FUSE_MKDIR};
    Asker *asker = data;

    for (size_t i = 0; !atomic_load_explicit(asker->stop, memory_order_relaxed); i++) {
        Message message;
        uint32_t opcode =
            asker->opcode != 0 ? asker->opcode : opcodes[i % G_N_ELEMENTS(opcodes)];
        g_assert_true(message_honest(&message, opcode));
        int result = harness_call(&asker->harness, &message);
        g_assert_true(result == 0 || result == -EIO || result == 1);
        atomic_fetch_add(&asker->n_good, result == 0);
    }
    return NULL;
}

static void asker_start(Asker *asker, Harness *harness, uint32_t opcode,
                        _Atomic bool *stop)
{
    asker->harness.fs = harness->fs;
    asker->harness.session = harness->session;
    asker->harness.worker = request_worker_new(harness->session);
    asker->opcode = opcode;
    asker->stop = stop;
    pthread_create(&asker->thread, NULL, asker_main, asker);
}

/* Every asker has been at work: the sessions that follow are not over before it is. */
static void wait_for_askers(Harness *harness, Asker *askers)
{
    NullFsStats stats;

    for (int i = 0; i < N_ASKING; i++) {
        while (atomic_load(&askers[i].n_good) == 0) {
            sched_yield();
        }
    }
    do {
        sched_yield();
        null_fs_stats(harness->fs, &stats);
    } while (stats.forgets == 0);
}

/* INIT, DESTROY and reset against requests, and against FORGET, which waits for nobody.
 */
static void test_concurrent(void)
{
    g_autoptr(Harness) harness = harness_new(NULL);
    Asker *askers = g_new0(Asker, N_ASKING + 1);
    _Atomic bool stop = false;
    NullFsStats stats;
    Message destroy;

    null_fs_linger(harness->fs, true);
    g_assert_true(message_honest(&destroy, FUSE_DESTROY));
    for (int i = 0; i < N_ASKING; i++) {
        asker_start(&askers[i], harness, 0, &stop);
    }
    asker_start(&askers[N_ASKING], harness, FUSE_BATCH_FORGET, &stop);
    harness_init(harness, 0);
    wait_for_askers(harness, askers);
    for (int i = 0; i < N_SESSIONS; i++) {
        harness_init(harness, i % 2 == 0 ? UINT64_MAX : 0);
        sched_yield();
        if (i % 3 == 0) {
            g_assert_cmpint(harness_call(harness, &destroy), ==, 0);
        } else if (i % 3 == 1) {
            session_reset(harness->session);
        }
    }
    atomic_store(&stop, true);
    for (int i = 0; i <= N_ASKING; i++) {
        pthread_join(askers[i].thread, NULL);
        request_worker_free(askers[i].harness.worker);
    }
    g_free(askers);
    null_fs_stats(harness->fs, &stats);
    g_assert_cmpuint(stats.violations, ==, 0);
    g_assert_cmpuint(stats.resets, ==, 1 + N_SESSIONS + N_SESSIONS / 3 * 2);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/session/reply", test_reply);
    g_test_add_func("/session/offers", test_offers);
    g_test_add_func("/session/acl", test_acl);
    g_test_add_func("/session/label", test_label);
    g_test_add_func("/session/flags2", test_flags2);
    g_test_add_func("/session/versions", test_versions);
    g_test_add_func("/session/newer-major", test_newer_major);
    g_test_add_func("/session/sizes", test_sizes);
    g_test_add_func("/session/life", test_life);
    g_test_add_func("/session/bad-init-keeps", test_bad_init_keeps);
    g_test_add_func("/session/stats", test_stats);
    g_test_add_func("/session/concurrent", test_concurrent);
    return g_test_run();
}
