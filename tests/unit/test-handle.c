/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/scratch.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "passthrough/handle.h"

/*
 * File handles: only the guest's own, of the right node and kind, work; each is released
 * once.
 */

typedef struct Tree {
    Scratch s;
    uint64_t a, b, dir;
    PtOpened open_a, open_b, open_dir;
} Tree;

static Tree tree_open(void)
{
    Tree t = {.s = scratch_open()};
    host_write(&t.s, "a", "aaaa");
    host_write(&t.s, "b", "bbbb");
    t.a = lookup(&t.s, PT_ROOT_ID, "a").nodeid;
    t.b = lookup(&t.s, PT_ROOT_ID, "b").nodeid;
    t.dir = make_dir(&t.s, PT_ROOT_ID, "dir").nodeid;
    t.open_a = open_node(&t.s, t.a, O_RDWR);
    t.open_b = open_node(&t.s, t.b, O_RDWR);
    g_assert_cmpint(pt_opendir(t.s.fs, t.dir, 0, &t.open_dir), ==, 0);
    return t;
}

/* The errno of each request that takes a handle; all must agree. */
static int use(const Scratch *s, uint64_t nodeid, uint64_t handle, bool dir)
{
    PtAttr attr;
    PtDirCursor cursor;
    uint64_t offset;
    char buffer[4];
    PtSetattr set = {.handle = handle};
    int r = pt_getattr(s->fs, nodeid, handle, &attr);
    g_assert_cmpint(pt_setattr(s->fs, nodeid, &set, &attr), ==, r);
    if (dir) {
        g_assert_cmpint(pt_fsyncdir(s->fs, nodeid, handle, true), ==, r);
        g_assert_cmpint(pt_dir_begin(s->fs, nodeid, handle, 0, &cursor), ==, r);
        pt_dir_end(&cursor);
        return r;
    }
    g_assert_cmpint(pt_fsync(s->fs, nodeid, handle, true), ==, r);
    g_assert_cmpint(pt_flush(s->fs, nodeid, handle), ==, r);
    g_assert_cmpint(pt_lseek(s->fs, nodeid, handle, 0, SEEK_SET, &offset), ==, r);
    g_assert_cmpint(allocate(s->fs, nodeid, handle, FALLOC_FL_KEEP_SIZE, 0, 1), ==, r);
    g_assert_cmpint(read_text(s, nodeid, handle, 0, buffer, 4), ==, r == 0 ? 4 : r);
    g_assert_cmpint(write_text(s, nodeid, handle, 0, "w"), ==, r == 0 ? 1 : r);
    return r;
}

static void test_own(void)
{
    Tree t = tree_open();
    g_assert_cmpint(use(&t.s, t.a, t.open_a.handle, false), ==, 0);
    g_assert_cmpint(use(&t.s, t.dir, t.open_dir.handle, true), ==, 0);
    g_assert_cmpint(pt_release(t.s.fs, t.a, t.open_a.handle), ==, 0);
    g_assert_cmpint(use(&t.s, t.a, t.open_a.handle, false), ==, -EBADF);
    g_assert_cmpint(pt_releasedir(t.s.fs, t.dir, t.open_dir.handle), ==, 0);
    g_assert_cmpint(use(&t.s, t.dir, t.open_dir.handle, true), ==, -EBADF);
    scratch_close(&t.s);
}

static void test_of_another_node(void)
{
    Tree t = tree_open();
    g_assert_cmpint(use(&t.s, t.b, t.open_a.handle, false), ==, -EBADF);
    g_assert_cmpint(use(&t.s, PT_ROOT_ID, t.open_a.handle, false), ==, -EBADF);
    g_assert_cmpint(use(&t.s, PT_ROOT_ID, t.open_dir.handle, true), ==, -EBADF);
    g_assert_cmpint(pt_release(t.s.fs, t.b, t.open_a.handle), ==, -EBADF);
    g_assert_cmpint(pt_releasedir(t.s.fs, PT_ROOT_ID, t.open_dir.handle), ==, -EBADF);
    g_assert_cmpint(use(&t.s, t.a, t.open_a.handle, false), ==, 0);
    scratch_close(&t.s);
}

static void test_of_another_kind(void)
{
    Tree t = tree_open();
    PtDirCursor cursor;
    char buffer[4];
    uint64_t dir = t.open_dir.handle;
    uint64_t offset;
    PtFs *fs = t.s.fs;
    g_assert_cmpint(read_text(&t.s, t.dir, dir, 0, buffer, 4), ==, -EBADF);
    g_assert_cmpint(write_text(&t.s, t.dir, dir, 0, "w"), ==, -EBADF);
    g_assert_cmpint(pt_fsync(fs, t.dir, dir, false), ==, -EBADF);
    g_assert_cmpint(pt_flush(fs, t.dir, dir), ==, -EBADF);
    g_assert_cmpint(pt_lseek(fs, t.dir, dir, 0, SEEK_SET, &offset), ==, -EBADF);
    g_assert_cmpint(allocate(fs, t.dir, dir, 0, 0, 1), ==, -EBADF);
    g_assert_cmpint(pt_release(fs, t.dir, dir), ==, -EBADF);
    g_assert_cmpint(pt_releasedir(fs, t.a, t.open_a.handle), ==, -EBADF);
    g_assert_cmpint(pt_fsyncdir(fs, t.a, t.open_a.handle, false), ==, -EBADF);
    g_assert_cmpint(pt_dir_begin(fs, t.a, t.open_a.handle, 0, &cursor), ==, -EBADF);
    pt_dir_end(&cursor);
    scratch_close(&t.s);
}

static void test_invented(void)
{
    Tree t = tree_open();
    const uint64_t handles[] = {
        0, 4, 4096, UINT32_MAX, UINT64_MAX - 1, 1 | UINT64_C(1) << 32, INT64_MAX};
    for (size_t i = 0; i < G_N_ELEMENTS(handles); i++) {
        g_assert_cmpint(use(&t.s, t.a, handles[i], false), ==, -EBADF);
        g_assert_cmpint(use(&t.s, t.dir, handles[i], true), ==, -EBADF);
        g_assert_cmpint(pt_release(t.s.fs, t.a, handles[i]), ==, -EBADF);
    }
    char buffer[4];
    g_assert_cmpint(read_text(&t.s, t.a, PT_NO_HANDLE, 0, buffer, 4), ==, -EBADF);
    scratch_close(&t.s);
}

static void test_released_twice(void)
{
    Tree t = tree_open();
    g_assert_cmpint(pt_release(t.s.fs, t.a, t.open_a.handle), ==, 0);
    g_assert_cmpint(pt_release(t.s.fs, t.a, t.open_a.handle), ==, -EBADF);
    /* Its slot goes to somebody else; the old handle does not follow. */
    PtOpened again = open_node(&t.s, t.a, O_RDONLY);
    g_assert_cmpuint((uint32_t)again.handle, ==, (uint32_t)t.open_a.handle);
    g_assert_cmpuint(again.handle, !=, t.open_a.handle);
    g_assert_cmpint(pt_release(t.s.fs, t.a, t.open_a.handle), ==, -EBADF);
    g_assert_cmpint(pt_release(t.s.fs, t.a, again.handle), ==, 0);
    g_assert_cmpuint(scratch_stats(&t.s).handles, ==, 2);
    scratch_close(&t.s);
}

/* RELEASE while a request still works on the file: the descriptor stays until it ends. */
static void test_released_in_use(void)
{
    Tree t = tree_open();
    PtOpenFile file;
    g_assert_cmpint(pt_open_file_get(t.s.fs, t.a, t.open_a.handle, PT_HANDLE_FILE, &file),
                    ==, 0);
    g_assert_cmpint(pt_release(t.s.fs, t.a, t.open_a.handle), ==, 0);
    g_assert_cmpint(use(&t.s, t.a, t.open_a.handle, false), ==, -EBADF);
    g_assert_cmpint(pt_release(t.s.fs, t.a, t.open_a.handle), ==, -EBADF);
    g_assert_cmpint(fcntl(file.handle->fd, F_GETFD), ==, FD_CLOEXEC);
    int fd = file.handle->fd;
    pt_open_file_clear(&file);
    g_assert_cmpint(fcntl(fd, F_GETFD), ==, -1);
    scratch_close(&t.s);
}

/* ---- many threads ----------------------------------------------------------------- */

enum { THREADS = 4, ROUNDS = 1500, RIVAL_ROUNDS = 5000 };

typedef struct Race {
    Tree t;
    _Atomic uint64_t handle; /* that all of them know */
    _Atomic int opened, released;
} Race;

static void *open_use_release(void *data)
{
    Race *race = data;
    const Scratch *s = &race->t.s;
    char buffer[4];
    g_assert_cmpint(pt_thread_enter(s->fs), ==, 0);
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t mine = open_node(s, race->t.a, O_RDONLY).handle;
        atomic_fetch_add(&race->opened, 1);
        uint64_t other = atomic_exchange(&race->handle, mine);
        ssize_t n = read_text(s, race->t.a, other, 0, buffer, 4);
        g_assert_true(n == 4 || n == -EBADF);
        n = read_text(s, race->t.a, mine, 0, buffer, 4);
        g_assert_true(n == 4 || n == -EBADF);
        /* Two may try to release one handle; one of them does. */
        uint64_t victims[] = {other, mine};
        for (int v = 0; v < 2; v++) {
            if (pt_release(s->fs, race->t.a, victims[v]) == 0) {
                atomic_fetch_add(&race->released, 1);
            }
        }
    }
    return NULL;
}

static void test_threads(void)
{
    static Race race;
    pthread_t threads[THREADS];
    race.t = tree_open();
    for (int i = 0; i < THREADS; i++) {
        g_assert_cmpint(pthread_create(&threads[i], NULL, open_use_release, &race), ==,
                        0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    g_assert_cmpint(race.opened, ==, THREADS * ROUNDS);
    g_assert_cmpint(race.released, ==, THREADS * ROUNDS);
    g_assert_cmpuint(scratch_stats(&race.t.s).handles, ==, 3);
    scratch_close(&race.t.s);
}

typedef struct Rivals {
    Tree t;
    _Atomic uint64_t handle;
    _Atomic int arrived; /* at all meeting points so far */
    _Atomic int released;
} Rivals;

/* Meet the other one; spinning, so that both go on at the same instant. */
static void meet(Rivals *r)
{
    int all = (atomic_fetch_add(&r->arrived, 1) / 2 + 1) * 2;
    for (int spins = 0; atomic_load(&r->arrived) < all; spins++) {
        if (spins > 1000) {
            sched_yield();
        }
    }
}

static void *release_same(void *data)
{
    Rivals *r = data;
    g_assert_cmpint(pt_thread_enter(r->t.s.fs), ==, 0);
    for (int i = 0; i < RIVAL_ROUNDS; i++) {
        uint64_t none = 0;
        uint64_t mine = open_node(&r->t.s, r->t.a, O_RDONLY).handle;
        meet(r);
        if (!atomic_compare_exchange_strong(&r->handle, &none, mine)) {
            g_assert_cmpint(pt_release(r->t.s.fs, r->t.a, mine), ==, 0);
        }
        meet(r);
        uint64_t handle = atomic_load(&r->handle);
        meet(r);
        if (pt_release(r->t.s.fs, r->t.a, handle) == 0) {
            atomic_fetch_add(&r->released, 1);
        }
        meet(r);
        atomic_store(&r->handle, 0);
        meet(r);
    }
    return NULL;
}

/* Two release one handle at once: one of them does. */
static void test_rivals(void)
{
    static Rivals r;
    pthread_t threads[2];
    r.t = tree_open();
    for (int i = 0; i < 2; i++) {
        g_assert_cmpint(pthread_create(&threads[i], NULL, release_same, &r), ==, 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    g_assert_cmpint(r.released, ==, RIVAL_ROUNDS);
    g_assert_cmpuint(scratch_stats(&r.t.s).handles, ==, 3);
    scratch_close(&r.t.s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (!need_root()) {
        return 0;
    }
    g_test_add_func("/handle/own", test_own);
    g_test_add_func("/handle/of-another-node", test_of_another_node);
    g_test_add_func("/handle/of-another-kind", test_of_another_kind);
    g_test_add_func("/handle/invented", test_invented);
    g_test_add_func("/handle/released-twice", test_released_twice);
    g_test_add_func("/handle/released-in-use", test_released_in_use);
    g_test_add_func("/handle/threads", test_threads);
    g_test_add_func("/handle/rivals", test_rivals);
    return g_test_run();
}
