/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/scratch.h"

#include <sys/file.h>

/*
 * Locks of the guest's processes (owners 1, 2, ...) against each other and against the
 * host, which is a descriptor of this test's own.
 */

enum { ALICE = 1, BOB = 2, CAROL = 3 };

typedef struct Bench {
    Scratch s;
    uint64_t node;
    uint64_t both, reader, writer; /* handles */
    int host;
} Bench;

static Bench bench_open_with(const PtConfig *config)
{
    Bench b = {.s = scratch_open_with(config)};
    pt_fs_agree(b.s.fs, &(PtAgreed){.posix_locks = true});
    host_write(&b.s, "f", "text");
    b.node = lookup(&b.s, PT_ROOT_ID, "f").nodeid;
    b.both = open_node(&b.s, b.node, O_RDWR).handle;
    b.reader = open_node(&b.s, b.node, O_RDONLY).handle;
    b.writer = open_node(&b.s, b.node, O_WRONLY).handle;
    b.host = openat(b.s.dir, "f", O_RDWR | O_CLOEXEC);
    g_assert_cmpint(b.host, >=, 0);
    return b;
}

static Bench bench_open(void)
{
    PtConfig config = scratch_config();
    return bench_open_with(&config);
}

static void bench_close(Bench *b)
{
    close(b->host);
    scratch_close(&b->s);
}

static PtLock lock_of(const Bench *b, uint64_t owner, uint32_t type, uint64_t start,
                      uint64_t end)
{
    return (PtLock){.nodeid = b->node,
                    .handle = b->both,
                    .owner = owner,
                    .start = start,
                    .end = end,
                    .type = type,
                    .pid = (uint32_t)owner + 100};
}

static int set(const Bench *b, uint64_t owner, uint32_t type, uint64_t start,
               uint64_t end)
{
    PtLock lock = lock_of(b, owner, type, start, end);
    return pt_lock_set(b->s.fs, &lock);
}

static int set_through(const Bench *b, uint64_t handle, uint64_t owner, uint32_t type,
                       uint64_t start, uint64_t end)
{
    PtLock lock = lock_of(b, owner, type, start, end);
    lock.handle = handle;
    return pt_lock_set(b->s.fs, &lock);
}

/* What the host is told when it asks for @type on [start, end]: F_UNLCK if it could. */
static int host_sees(const Bench *b, short type, int64_t start, int64_t end)
{
    struct flock host = {.l_type = type,
                         .l_whence = SEEK_SET,
                         .l_start = start,
                         .l_len = end == INT64_MAX ? 0 : end - start + 1};
    g_assert_cmpint(fcntl(b->host, F_OFD_GETLK, &host), ==, 0);
    return host.l_type;
}

static int host_set(const Bench *b, short type, int64_t start, int64_t end)
{
    struct flock host = {.l_type = type,
                         .l_whence = SEEK_SET,
                         .l_start = start,
                         .l_len = end == INT64_MAX ? 0 : end - start + 1};
    return fcntl(b->host, F_OFD_SETLK, &host) == 0 ? 0 : -errno;
}

static void test_owners(void)
{
    Bench b = bench_open();
    g_assert_cmpint(set(&b, ALICE, F_WRLCK, 0, 9), ==, 0);
    g_assert_cmpint(set(&b, BOB, F_WRLCK, 9, 20), ==, -EAGAIN);
    g_assert_cmpint(set(&b, BOB, F_RDLCK, 0, 0), ==, -EAGAIN);
    g_assert_cmpint(set(&b, BOB, F_WRLCK, 10, 20), ==, 0);
    /* Its own locks are in nobody's way. */
    g_assert_cmpint(set(&b, ALICE, F_RDLCK, 5, 9), ==, 0);
    g_assert_cmpint(set(&b, BOB, F_RDLCK, 5, 9), ==, 0);
    g_assert_cmpint(set(&b, ALICE, F_WRLCK, 5, 9), ==, -EAGAIN);
    g_assert_cmpint(set(&b, BOB, F_UNLCK, 0, INT64_MAX), ==, 0);
    g_assert_cmpint(set(&b, ALICE, F_WRLCK, 0, INT64_MAX), ==, 0);
    /* Who has no locks releases none. */
    g_assert_cmpint(set(&b, CAROL, F_UNLCK, 0, INT64_MAX), ==, 0);
    g_assert_cmpint(set(&b, CAROL, F_RDLCK, 0, 0), ==, -EAGAIN);
    bench_close(&b);
}

static void test_host(void)
{
    Bench b = bench_open();
    g_assert_cmpint(set(&b, ALICE, F_WRLCK, 100, INT64_MAX), ==, 0);
    g_assert_cmpint(host_sees(&b, F_RDLCK, 1000000, 1000000), ==, F_WRLCK);
    g_assert_cmpint(host_sees(&b, F_RDLCK, 0, 99), ==, F_UNLCK);
    g_assert_cmpint(host_set(&b, F_WRLCK, 0, 100), ==, -EAGAIN);
    g_assert_cmpint(host_set(&b, F_WRLCK, 0, 99), ==, 0);
    g_assert_cmpint(set(&b, ALICE, F_RDLCK, 99, 99), ==, -EAGAIN);
    g_assert_cmpint(set(&b, ALICE, F_UNLCK, 100, 200), ==, 0);
    g_assert_cmpint(host_set(&b, F_WRLCK, 100, 200), ==, 0);
    g_assert_cmpint(host_set(&b, F_WRLCK, 201, 201), ==, -EAGAIN);
    bench_close(&b);
}

static void test_get(void)
{
    Bench b = bench_open();
    g_assert_cmpint(set(&b, ALICE, F_WRLCK, 10, INT64_MAX), ==, 0);
    PtLock ask = lock_of(&b, BOB, F_RDLCK, 0, 50);
    g_assert_cmpint(pt_lock_get(b.s.fs, &ask), ==, 0);
    g_assert_cmpuint(ask.type, ==, F_WRLCK);
    g_assert_cmpuint(ask.start, ==, 10);
    g_assert_cmpuint(ask.end, ==, INT64_MAX);
    g_assert_cmpuint(ask.pid, ==, 100 + ALICE);
    ask = lock_of(&b, BOB, F_WRLCK, 0, 9);
    g_assert_cmpint(pt_lock_get(b.s.fs, &ask), ==, 0);
    g_assert_cmpuint(ask.type, ==, F_UNLCK);
    ask = lock_of(&b, ALICE, F_WRLCK, 0, 50);
    g_assert_cmpint(pt_lock_get(b.s.fs, &ask), ==, 0);
    g_assert_cmpuint(ask.type, ==, F_UNLCK);
    /* The host's has no name in the guest. */
    g_assert_cmpint(host_set(&b, F_RDLCK, 3, 5), ==, 0);
    ask = lock_of(&b, ALICE, F_WRLCK, 0, 50);
    g_assert_cmpint(pt_lock_get(b.s.fs, &ask), ==, 0);
    g_assert_cmpuint(ask.type, ==, F_RDLCK);
    g_assert_cmpuint(ask.start, ==, 3);
    g_assert_cmpuint(ask.end, ==, 5);
    g_assert_cmpuint(ask.pid, ==, 0);
    /* A handle that may not be read can still ask, as on Linux. */
    ask = lock_of(&b, CAROL, F_RDLCK, 0, 2);
    ask.handle = b.writer;
    g_assert_cmpint(pt_lock_get(b.s.fs, &ask), ==, 0);
    g_assert_cmpuint(ask.type, ==, F_UNLCK);
    bench_close(&b);
}

static void test_invalid(void)
{
    Bench b = bench_open();
    PtLock none = lock_of(&b, ALICE, F_UNLCK, 0, 1);
    g_assert_cmpint(set(&b, ALICE, F_WRLCK, 1, 0), ==, -EINVAL);
    g_assert_cmpint(set(&b, ALICE, F_WRLCK, 0, (uint64_t)INT64_MAX + 1), ==, -EINVAL);
    g_assert_cmpint(set(&b, ALICE, F_WRLCK, UINT64_MAX, UINT64_MAX), ==, -EINVAL);
    g_assert_cmpint(set(&b, ALICE, 3, 0, 0), ==, -EINVAL);
    g_assert_cmpint(set(&b, ALICE, 0x10001, 0, 0), ==, -EINVAL);
    g_assert_cmpint(pt_lock_get(b.s.fs, &none), ==, -EINVAL);
    none.type = 77;
    g_assert_cmpint(pt_flock(b.s.fs, &none), ==, -EINVAL);
    none = lock_of(&b, ALICE, F_WRLCK, 0, 1);
    none.handle = PT_NO_HANDLE;
    g_assert_cmpint(pt_lock_set(b.s.fs, &none), ==, -EBADF);
    g_assert_cmpint(pt_lock_get(b.s.fs, &none), ==, -EBADF);
    g_assert_cmpint(pt_flock(b.s.fs, &none), ==, -EBADF);
    g_assert_cmpint(set(&b, ALICE, F_WRLCK, INT64_MAX, INT64_MAX), ==, 0);
    g_assert_cmpint(set(&b, BOB, F_WRLCK, INT64_MAX, INT64_MAX), ==, -EAGAIN);
    bench_close(&b);
}

static void test_modes(void)
{
    Bench b = bench_open();
    g_assert_cmpint(set_through(&b, b.reader, ALICE, F_WRLCK, 0, 1), ==, -EBADF);
    g_assert_cmpint(set_through(&b, b.writer, ALICE, F_RDLCK, 0, 1), ==, -EBADF);
    g_assert_cmpint(set_through(&b, b.reader, ALICE, F_RDLCK, 0, 1), ==, 0);
    g_assert_cmpint(set_through(&b, b.writer, BOB, F_WRLCK, 2, 3), ==, 0);
    g_assert_cmpint(set_through(&b, b.reader, BOB, F_UNLCK, 2, 3), ==, 0);
    g_assert_cmpint(host_sees(&b, F_WRLCK, 2, 3), ==, F_UNLCK);
    bench_close(&b);
}

/* Read locks through one handle, then a write lock through another: nothing is lost. */
static void test_upgrade(void)
{
    Bench b = bench_open();
    g_assert_cmpint(set_through(&b, b.reader, ALICE, F_RDLCK, 0, 9), ==, 0);
    g_assert_cmpint(set_through(&b, b.reader, ALICE, F_RDLCK, 20, 29), ==, 0);
    int fds = count_fds();
    g_assert_cmpint(set(&b, ALICE, F_WRLCK, 5, 24), ==, 0);
    g_assert_cmpint(count_fds(), ==, fds);
    g_assert_cmpint(host_sees(&b, F_WRLCK, 0, 4), ==, F_RDLCK);
    g_assert_cmpint(host_sees(&b, F_RDLCK, 5, 24), ==, F_WRLCK);
    g_assert_cmpint(host_sees(&b, F_RDLCK, 25, 29), ==, F_UNLCK);
    g_assert_cmpint(host_sees(&b, F_WRLCK, 25, 29), ==, F_RDLCK);
    g_assert_cmpint(set_through(&b, b.reader, ALICE, F_UNLCK, 0, INT64_MAX), ==, 0);
    g_assert_cmpint(host_sees(&b, F_WRLCK, 0, INT64_MAX), ==, F_UNLCK);
    /* One that cannot be had leaves all as it was. */
    g_assert_cmpint(host_set(&b, F_RDLCK, 4, 4), ==, 0);
    g_assert_cmpint(set_through(&b, b.reader, BOB, F_RDLCK, 0, 9), ==, 0);
    g_assert_cmpint(set(&b, BOB, F_WRLCK, 0, 9), ==, -EAGAIN);
    g_assert_cmpint(host_set(&b, F_UNLCK, 0, INT64_MAX), ==, 0);
    g_assert_cmpint(host_sees(&b, F_WRLCK, 0, 9), ==, F_RDLCK);
    bench_close(&b);
}

static void test_upgrade_too_many(void)
{
    Bench b = bench_open();
    for (uint64_t i = 0; i < 100; i++) {
        g_assert_cmpint(set_through(&b, b.reader, ALICE, F_RDLCK, 2 * i, 2 * i), ==, 0);
    }
    g_assert_cmpint(set(&b, ALICE, F_WRLCK, 0, 0), ==, -ENOLCK);
    g_assert_cmpint(host_sees(&b, F_WRLCK, 198, 198), ==, F_RDLCK);
    g_assert_cmpint(set(&b, ALICE, F_UNLCK, 0, INT64_MAX), ==, 0);
    g_assert_cmpint(set(&b, ALICE, F_WRLCK, 0, 0), ==, 0);
    bench_close(&b);
}

/* Closing ends an owner's locks, whatever they were taken through, and no other's. */
static void test_close(void)
{
    Bench b = bench_open();
    uint64_t before = scratch_stats(&b.s).descriptors;
    g_assert_cmpint(set(&b, ALICE, F_WRLCK, 0, 9), ==, 0);
    g_assert_cmpint(set(&b, BOB, F_WRLCK, 10, 19), ==, 0);
    g_assert_cmpuint(scratch_stats(&b.s).descriptors, ==, before + 2);
    pt_lock_close(b.s.fs, b.node, CAROL);
    pt_lock_close(b.s.fs, PT_ROOT_ID, ALICE);
    g_assert_cmpint(host_sees(&b, F_WRLCK, 0, 9), ==, F_WRLCK);
    pt_lock_close(b.s.fs, b.node, ALICE);
    g_assert_cmpint(host_sees(&b, F_WRLCK, 0, 9), ==, F_UNLCK);
    g_assert_cmpint(host_sees(&b, F_WRLCK, 10, 19), ==, F_WRLCK);
    g_assert_cmpuint(scratch_stats(&b.s).descriptors, ==, before + 1);
    bench_close(&b);
}

/* A guest that never says that a process has closed the file. */
static void test_release(void)
{
    Bench b = bench_open();
    uint64_t before = scratch_stats(&b.s).descriptors;
    g_assert_cmpint(set(&b, ALICE, F_WRLCK, 0, 9), ==, 0);
    g_assert_cmpint(set_through(&b, b.writer, BOB, F_WRLCK, 10, 19), ==, 0);
    g_assert_cmpint(pt_release(b.s.fs, b.node, b.both), ==, 0);
    g_assert_cmpint(host_sees(&b, F_WRLCK, 0, 9), ==, F_UNLCK);
    g_assert_cmpint(host_sees(&b, F_WRLCK, 10, 19), ==, F_WRLCK);
    g_assert_cmpint(set(&b, ALICE, F_WRLCK, 0, 9), ==, -EBADF);
    pt_fs_reset(b.s.fs);
    g_assert_cmpint(host_sees(&b, F_WRLCK, 0, INT64_MAX), ==, F_UNLCK);
    g_assert_cmpuint(scratch_stats(&b.s).descriptors, <, before);
    bench_close(&b);
}

/* Descriptors of locks are of the guest's budget. */
static void test_budget(void)
{
    PtConfig config = scratch_config();
    config.max_descriptors = 8;
    Bench b = bench_open_with(&config);
    uint64_t owner = ALICE;
    while (set(&b, owner, F_RDLCK, 0, 9) == 0) {
        owner++;
        g_assert_cmpuint(owner, <, 8);
    }
    g_assert_cmpint(set(&b, owner, F_RDLCK, 0, 9), ==, -ENOLCK);
    g_assert_cmpint(set(&b, ALICE, F_RDLCK, 20, 29), ==, 0);
    pt_lock_close(b.s.fs, b.node, ALICE);
    g_assert_cmpint(set(&b, owner, F_RDLCK, 0, 9), ==, 0);
    bench_close(&b);
}

static void test_holder(void)
{
    Bench b = bench_open();
    PtLock ask = lock_of(&b, BOB, F_RDLCK, 0, 50);
    uint64_t owner = 0;
    g_assert_cmpint(set(&b, ALICE, F_RDLCK, 50, 60), ==, 0);
    g_assert_false(pt_lock_holder(b.s.fs, &ask, &owner));
    ask.type = F_WRLCK;
    g_assert_true(pt_lock_holder(b.s.fs, &ask, &owner));
    g_assert_cmpuint(owner, ==, ALICE);
    ask.owner = ALICE;
    g_assert_false(pt_lock_holder(b.s.fs, &ask, &owner));
    bench_close(&b);
}

static int flock_through(const Bench *b, uint64_t handle, uint32_t type)
{
    PtLock lock = {.nodeid = b->node, .handle = handle, .type = type};
    return pt_flock(b->s.fs, &lock);
}

static void test_flock(void)
{
    Bench b = bench_open();
    g_assert_cmpint(flock_through(&b, b.both, F_WRLCK), ==, 0);
    g_assert_cmpint(flock_through(&b, b.reader, F_RDLCK), ==, -EAGAIN);
    g_assert_cmpint(flock(b.host, LOCK_SH | LOCK_NB), ==, -1);
    g_assert_cmpint(flock_through(&b, b.both, F_RDLCK), ==, 0);
    g_assert_cmpint(flock(b.host, LOCK_SH | LOCK_NB), ==, 0);
    g_assert_cmpint(flock_through(&b, b.both, F_WRLCK), ==, -EAGAIN);
    /* That attempt may have cost the shared lock, as flock(2) says. */
    g_assert_cmpint(flock_through(&b, b.both, F_RDLCK), ==, 0);
    g_assert_cmpint(flock_through(&b, b.reader, F_RDLCK), ==, 0);
    g_assert_cmpint(flock(b.host, LOCK_UN), ==, 0);
    g_assert_cmpint(flock_through(&b, b.both, F_UNLCK), ==, 0);
    g_assert_cmpint(pt_release(b.s.fs, b.node, b.reader), ==, 0);
    g_assert_cmpint(flock(b.host, LOCK_EX | LOCK_NB), ==, 0);
    /* The two kinds do not know each other. */
    g_assert_cmpint(set(&b, ALICE, F_WRLCK, 0, INT64_MAX), ==, 0);
    bench_close(&b);
}

/* FLUSH is wanted for every handle, or locks would not end. */
static void test_wants_flush(void)
{
    Bench b = bench_open();
    g_assert_cmpuint(open_node(&b.s, b.node, O_RDONLY).flags & PT_OPEN_NOFLUSH, ==, 0);
    pt_fs_agree(b.s.fs, &(PtAgreed){0});
    g_assert_cmpuint(open_node(&b.s, b.node, O_RDONLY).flags & PT_OPEN_NOFLUSH, !=, 0);
    bench_close(&b);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (!need_root()) {
        return 0;
    }
    g_test_add_func("/lock/owners", test_owners);
    g_test_add_func("/lock/host", test_host);
    g_test_add_func("/lock/get", test_get);
    g_test_add_func("/lock/invalid", test_invalid);
    g_test_add_func("/lock/modes", test_modes);
    g_test_add_func("/lock/upgrade", test_upgrade);
    g_test_add_func("/lock/upgrade-too-many", test_upgrade_too_many);
    g_test_add_func("/lock/close", test_close);
    g_test_add_func("/lock/release", test_release);
    g_test_add_func("/lock/budget", test_budget);
    g_test_add_func("/lock/holder", test_holder);
    g_test_add_func("/lock/flock", test_flock);
    g_test_add_func("/lock/wants-flush", test_wants_flush);
    return g_test_run();
}
