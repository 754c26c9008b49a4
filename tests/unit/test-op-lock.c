/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GETLK, SETLK, SETLKW and INTERRUPT: what they hand down, which of them wait, and how
 * what waits is tried and answered.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <string.h>

#include "tests/support/fuse-harness.h"
#include "virtiofsd/fuse/abi.h"
#include "virtiofsd/fuse/waits.h"

#define FILE_NODE UINT64_C(7)
#define HANDLE_OF(node) ((node) + NULL_FS_HANDLE_BASE)

typedef struct Fixture {
    Harness *harness;
    const NullFsCall *last;
    Waits *waits;
    RequestWorker *waiter;
    uint64_t unique; /* of the last SETLKW */
} Fixture;

static void setup(Fixture *fixture, gconstpointer data)
{
    SessionConfig config = harness_config();

    config.posix_lock = config.flock = true;
    fixture->harness = harness_new(&config);
    harness_init(fixture->harness, UINT64_MAX);
    null_fs_record(fixture->harness->fs, true);
    fixture->last = null_fs_last(fixture->harness->fs);
    fixture->waits = session_waits(fixture->harness->session);
    g_assert_nonnull(fixture->waits);
    fixture->waiter = request_worker_new(fixture->harness->session);
    fixture->unique = 1000;
}

static void teardown(Fixture *fixture, gconstpointer data)
{
    request_worker_free(fixture->waiter);
    harness_free(fixture->harness);
}

static Message lock_message(uint32_t opcode, uint64_t node, uint64_t owner, uint32_t type)
{
    const struct fuse_lk_in in = {
        .fh = HANDLE_OF(node),
        .owner = owner,
        .lk = {.start = 3, .end = 9, .type = type, .pid = 42},
    };
    Message message;

    message_begin(&message, opcode);
    message.header.nodeid = node;
    message_add(&message, &in, sizeof(in));
    return message;
}

static int call(Fixture *fixture, uint32_t opcode, uint64_t node, uint64_t owner,
                uint32_t type)
{
    Message message = lock_message(opcode, node, owner, type);
    return harness_call(fixture->harness, &message);
}

/* A SETLKW that may wait. Return: it if it does, else NULL and @ret_error. */
static Wait *set_or_wait(Fixture *fixture, uint64_t node, uint64_t owner, int *ret_error)
{
    Message message = lock_message(FUSE_SETLKW, node, owner, F_WRLCK);
    struct fuse_out_header out = {0};
    const struct iovec to = {&out, sizeof(out)};

    message.header.len = (uint32_t)message.size;
    message.header.unique = ++fixture->unique;
    const struct iovec from = {message.bytes, message.size};
    const RequestBuffers buffers = {&from, 1, &to, 1, .may_wait = true};
    size_t length = request_run(fixture->harness->worker, &buffers);
    *ret_error = out.error;
    if (length != REQUEST_WAITS) {
        g_assert_cmpuint(length, ==, sizeof(out));
        return NULL;
    }
    g_assert_cmpuint(out.len, ==, 0);
    Wait *wait = request_waiting(fixture->harness->worker);
    waits_park(fixture->waits, wait, 1, 0);
    return wait;
}

static Wait *must_wait(Fixture *fixture, uint64_t node, uint64_t owner)
{
    int error;
    Wait *wait = set_or_wait(fixture, node, owner, &error);

    g_assert_nonnull(wait);
    Wait *next;
    do { /* those before it first */
        next = waits_next(fixture->waits);
        g_assert_false(request_retry(fixture->waiter, next));
    } while (next != wait);
    return wait;
}

/* @wait ends now, in this way. */
static void expect_end(Fixture *fixture, Wait *wait, int error)
{
    struct fuse_out_header out = {0};
    const struct iovec to = {&out, sizeof(out)};
    const RequestBuffers buffers = {NULL, 0, &to, 1, .may_wait = false};
    uint64_t unique = waits_request(wait)->unique;
    Wait *next;

    while ((next = waits_next(fixture->waits)) != wait) {
        g_assert_false(request_retry(fixture->waiter, next));
    }
    g_assert_true(request_retry(fixture->waiter, wait));
    g_assert_cmpuint(request_answer(fixture->waiter, wait, &buffers), ==, sizeof(out));
    g_assert_cmpuint(out.len, ==, sizeof(out));
    g_assert_cmpuint(out.unique, ==, unique);
    g_assert_cmpint(out.error, ==, error);
}

static void test_handed_down(Fixture *fixture, gconstpointer data)
{
    g_assert_cmpint(call(fixture, FUSE_SETLK, FILE_NODE, 77, F_RDLCK), ==, 0);
    g_assert_cmpstr(fixture->last->function, ==, "pt_lock_set");
    g_assert_cmpuint(fixture->last->nodeid, ==, FILE_NODE);
    g_assert_cmpuint(fixture->last->handle, ==, HANDLE_OF(FILE_NODE));
    g_assert_cmpuint(fixture->last->other, ==, 77);
    g_assert_cmpuint(fixture->last->offset, ==, 3);
    g_assert_cmpuint(fixture->last->bytes, ==, 9);
    g_assert_cmpuint(fixture->last->flags, ==, F_RDLCK);
    g_assert_cmpuint(fixture->last->mode, ==, 42);
    g_assert_cmpint(call(fixture, FUSE_GETLK, FILE_NODE, 78, F_RDLCK), ==, 0);
    g_assert_cmpuint(harness_body_size(fixture->harness), ==, 24);
    const struct fuse_lk_out *out = harness_body(fixture->harness);
    g_assert_cmpuint(out->lk.start, ==, 3);
    g_assert_cmpuint(out->lk.end, ==, 9);
    g_assert_cmpuint(out->lk.type, ==, F_WRLCK);
    g_assert_cmpuint(out->lk.pid, ==, 77);
    Message message = lock_message(FUSE_SETLK, FILE_NODE, 78, F_WRLCK);
    struct fuse_lk_in *in = (void *)(message.bytes + sizeof(struct fuse_in_header));
    in->lk_flags = FUSE_LK_FLOCK;
    g_assert_cmpint(harness_call(fixture->harness, &message), ==, 0);
    g_assert_cmpstr(fixture->last->function, ==, "pt_flock");
    g_assert_cmpint(call(fixture, FUSE_SETLK, FILE_NODE, 78, F_WRLCK), ==, -EAGAIN);
    /* nobody could answer it later */
    g_assert_cmpint(call(fixture, FUSE_SETLKW, FILE_NODE, 78, F_WRLCK), ==, -ENOLCK);
}

/* What INIT did not agree on is not there. */
static void test_not_agreed(Fixture *fixture, gconstpointer data)
{
    harness_init(fixture->harness, UINT64_MAX & ~(uint64_t)FUSE_POSIX_LOCKS);
    g_assert_cmpint(call(fixture, FUSE_GETLK, FILE_NODE, 1, F_RDLCK), ==, -ENOSYS);
    g_assert_cmpint(call(fixture, FUSE_SETLK, FILE_NODE, 1, F_RDLCK), ==, -ENOSYS);
    g_assert_cmpint(call(fixture, FUSE_SETLKW, FILE_NODE, 1, F_RDLCK), ==, -ENOSYS);
    g_assert_false(null_fs_agreed(fixture->harness->fs).posix_locks);
    harness_init(fixture->harness, UINT64_MAX);
    g_assert_true(null_fs_agreed(fixture->harness->fs).posix_locks);
}

static void test_wait(Fixture *fixture, gconstpointer data)
{
    g_assert_cmpint(call(fixture, FUSE_SETLK, FILE_NODE, 1, F_WRLCK), ==, 0);
    Wait *second = must_wait(fixture, FILE_NODE, 2);
    Wait *third = must_wait(fixture, FILE_NODE, 3);
    harness_check_alive(fixture->harness);
    g_assert_cmpint(call(fixture, FUSE_SETLK, FILE_NODE, 1, F_UNLCK), ==, 0);
    expect_end(fixture, second, 0);
    g_assert_cmpint(call(fixture, FUSE_SETLK, FILE_NODE, 2, F_UNLCK), ==, 0);
    expect_end(fixture, third, 0);
}

static void test_interrupt(Fixture *fixture, gconstpointer data)
{
    Message message;

    g_assert_cmpint(call(fixture, FUSE_SETLK, FILE_NODE, 1, F_WRLCK), ==, 0);
    Wait *wait = must_wait(fixture, FILE_NODE, 2);
    const struct fuse_interrupt_in in = {.unique = fixture->unique};
    message_begin(&message, FUSE_INTERRUPT);
    message_add(&message, &in, sizeof(in));
    g_assert_cmpint(harness_run(fixture->harness, &message, 0, true), ==, 1);
    expect_end(fixture, wait, -EINTR);
}

static void close_file(Fixture *fixture, uint32_t opcode, uint64_t owner)
{
    const struct fuse_flush_in flush = {.fh = HANDLE_OF(FILE_NODE), .lock_owner = owner};
    const struct fuse_release_in release = {.fh = HANDLE_OF(FILE_NODE)};
    Message message;

    message_begin(&message, opcode);
    message.header.nodeid = FILE_NODE;
    if (opcode == FUSE_FLUSH) {
        message_add(&message, &flush, sizeof(flush));
    } else {
        message_add(&message, &release, sizeof(release));
    }
    g_assert_cmpint(harness_call(fixture->harness, &message), ==, 0);
}

static void test_close(Fixture *fixture, gconstpointer data)
{
    g_assert_cmpint(call(fixture, FUSE_SETLK, FILE_NODE, 1, F_WRLCK), ==, 0);
    Wait *second = must_wait(fixture, FILE_NODE, 2);
    Wait *third = must_wait(fixture, FILE_NODE, 3);
    Wait *fourth = must_wait(fixture, FILE_NODE, 4);
    close_file(fixture, FUSE_FLUSH, 2);
    expect_end(fixture, second, -EBADF);
    close_file(fixture, FUSE_FLUSH, 1);
    expect_end(fixture, third, 0);
    close_file(fixture, FUSE_RELEASE, 0);
    expect_end(fixture, fourth, -EBADF);
}

static void test_session_ends(Fixture *fixture, gconstpointer data)
{
    Message message;

    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(call(fixture, FUSE_SETLK, FILE_NODE, 1, F_WRLCK), ==, 0);
        Wait *wait = must_wait(fixture, FILE_NODE, 2);
        if (i == 0) {
            message_begin(&message, FUSE_DESTROY);
            g_assert_cmpint(harness_call(fixture->harness, &message), ==, 0);
        } else if (i == 1) {
            session_reset(fixture->harness->session);
        }
        harness_init(fixture->harness, UINT64_MAX);
        expect_end(fixture, wait, -ENOLCK);
    }
}

/* 1 wants what 2 has, 2 what 3 has; 3 is told that it must not want what 1 has. */
static void test_deadlock(Fixture *fixture, gconstpointer data)
{
    int error;

    for (uint64_t owner = 1; owner <= 3; owner++) {
        g_assert_cmpint(call(fixture, FUSE_SETLK, 10 + owner, owner, F_WRLCK), ==, 0);
    }
    Wait *first = must_wait(fixture, 12, 1);
    Wait *second = must_wait(fixture, 13, 2);
    g_assert_null(set_or_wait(fixture, 11, 3, &error));
    g_assert_cmpint(error, ==, -EDEADLK);
    g_assert_cmpint(call(fixture, FUSE_SETLK, 13, 3, F_UNLCK), ==, 0);
    expect_end(fixture, second, 0);
    /* 2 has both now; that 1 waits for it is no deadlock */
    Wait *third = must_wait(fixture, 13, 3);
    g_assert_cmpint(call(fixture, FUSE_SETLK, 12, 2, F_UNLCK), ==, 0);
    expect_end(fixture, first, 0);
    g_assert_cmpint(call(fixture, FUSE_SETLK, 13, 2, F_UNLCK), ==, 0);
    expect_end(fixture, third, 0);
}

/* It may come about while they wait: one of them ends then, and the other goes on. */
static void test_deadlock_later(Fixture *fixture, gconstpointer data)
{
    g_assert_cmpint(call(fixture, FUSE_SETLK, 11, 9, F_WRLCK), ==, 0);
    g_assert_cmpint(call(fixture, FUSE_SETLK, 12, 2, F_WRLCK), ==, 0);
    Wait *second = must_wait(fixture, 11, 2);
    Wait *first = must_wait(fixture, 12, 1);
    /* another thread of 1 gets what 2 waits for */
    g_assert_cmpint(call(fixture, FUSE_SETLK, 11, 9, F_UNLCK), ==, 0);
    g_assert_cmpint(call(fixture, FUSE_SETLK, 11, 1, F_WRLCK), ==, 0);
    expect_end(fixture, second, -EDEADLK);
    g_assert_cmpint(call(fixture, FUSE_SETLK, 12, 2, F_UNLCK), ==, 0);
    expect_end(fixture, first, 0);
}

static void test_full(Fixture *fixture, gconstpointer data)
{
    int error;

    g_assert_cmpint(call(fixture, FUSE_SETLK, FILE_NODE, 1, F_WRLCK), ==, 0);
    for (uint64_t i = 0; i < WAITS_MAX; i++) {
        g_assert_nonnull(set_or_wait(fixture, FILE_NODE, 100 + i, &error));
    }
    g_assert_null(set_or_wait(fixture, FILE_NODE, 2, &error));
    g_assert_cmpint(error, ==, -ENOLCK);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(Fixture *fixture, gconstpointer data);
    } tests[] = {
        {"/op-lock/handed-down", test_handed_down},
        {"/op-lock/not-agreed", test_not_agreed},
        {"/op-lock/wait", test_wait},
        {"/op-lock/interrupt", test_interrupt},
        {"/op-lock/close", test_close},
        {"/op-lock/session-ends", test_session_ends},
        {"/op-lock/deadlock", test_deadlock},
        {"/op-lock/deadlock-later", test_deadlock_later},
        {"/op-lock/full", test_full},
    };

    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++) {
        g_test_add(tests[i].name, Fixture, NULL, setup, tests[i].run, teardown);
    }
    return g_test_run();
}
