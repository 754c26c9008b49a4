/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/by-name.h"

#include <pthread.h>

/*
 * Node ids: what a guest that counts wrong, remembers what it gave back or invents ids
 * can and cannot reach.
 */

static void test_size(void)
{
    g_assert_cmpuint(sizeof(PtInode), ==, 88);
}

static void test_same_file_same_id(void)
{
    Scratch s = scratch_open();
    host_write(&s, "a", "1");
    uint64_t a = lookup(&s, PT_ROOT_ID, "a").nodeid;
    g_assert_cmpint(linkat(s.dir, "a", s.dir, "b", 0), ==, 0);
    g_assert_cmpuint(lookup(&s, PT_ROOT_ID, "a").nodeid, ==, a);
    g_assert_cmpuint(lookup(&s, PT_ROOT_ID, "b").nodeid, ==, a);
    g_assert_cmpuint(scratch_stats(&s).inodes, ==, 2);
    g_assert_cmpint(renameat(s.dir, "a", s.dir, "c"), ==, 0);
    g_assert_cmpuint(lookup(&s, PT_ROOT_ID, "c").nodeid, ==, a);
    scratch_close(&s);
}

static void test_another_file_another_id(void)
{
    Scratch s = scratch_open();
    host_write(&s, "a", "1");
    PtEntry first = lookup(&s, PT_ROOT_ID, "a");
    for (int i = 0; i < 50; i++) {
        host_write(&s, "new", "2");
        g_assert_cmpint(renameat(s.dir, "new", s.dir, "a"), ==, 0);
        PtEntry again = lookup(&s, PT_ROOT_ID, "a");
        g_assert_cmpuint(again.nodeid, !=, first.nodeid);
        g_assert_cmpuint(again.attr.stx.stx_ino, !=, first.attr.stx.stx_ino);
    }
    /* The first one is still what it was. */
    g_assert_cmpint(getattr_error(&s, first.nodeid), ==, 0);
    scratch_close(&s);
}

/* Where the time of birth differs the held descriptor decides. */
static void test_time_of_birth(void)
{
    Scratch s = scratch_open();
    host_write(&s, "a", "1");
    host_write(&s, "b", "1");
    uint64_t a = lookup(&s, PT_ROOT_ID, "a").nodeid;
    uint64_t b = lookup(&s, PT_ROOT_ID, "b").nodeid;
    /* It has changed: overlayfs does that. */
    inode_of(&s, a)->btime ^= 1;
    g_assert_cmpuint(lookup(&s, PT_ROOT_ID, "a").nodeid, ==, a);
    /* It is another file with a number that was used again. */
    inode_of(&s, a)->btime ^= 1;
    g_assert_cmpint(
        dup3(pt_hold_fd(inode_of(&s, b)), pt_hold_fd(inode_of(&s, a)), O_CLOEXEC), >=, 0);
    uint64_t again = lookup(&s, PT_ROOT_ID, "a").nodeid;
    g_assert_cmpuint(again, !=, a);
    g_assert_cmpuint(again, !=, b);
    g_assert_cmpuint(lookup(&s, PT_ROOT_ID, "a").nodeid, ==, again);
    scratch_close(&s);
}

static void test_forget(void)
{
    Scratch s = scratch_open();
    host_write(&s, "a", "1");
    uint64_t a = lookup(&s, PT_ROOT_ID, "a").nodeid;
    lookup(&s, PT_ROOT_ID, "a");
    lookup(&s, PT_ROOT_ID, "a");
    pt_forget(s.fs, a, 0);
    pt_forget(s.fs, a, 2);
    g_assert_cmpint(getattr_error(&s, a), ==, 0);
    pt_forget(s.fs, a, 1);
    g_assert_cmpint(getattr_error(&s, a), ==, -ESTALE);
    g_assert_cmpuint(scratch_stats(&s).inodes, ==, 1);
    g_assert_cmpuint(scratch_stats(&s).descriptors, ==, 1);
    pt_forget(s.fs, a, 1);

    uint64_t again = lookup(&s, PT_ROOT_ID, "a").nodeid;
    g_assert_cmpuint(again, !=, a);
    g_assert_cmpuint(again & UINT32_MAX, ==, a & UINT32_MAX);
    g_assert_cmpint(getattr_error(&s, a), ==, -ESTALE);
    /* The stale id takes nothing from the one that has its slot now. */
    pt_forget(s.fs, a, UINT64_MAX);
    g_assert_cmpint(getattr_error(&s, again), ==, 0);
    scratch_close(&s);
}

static void test_forget_beyond_count(void)
{
    const uint64_t counts[] = {2, 3, UINT32_MAX, INT64_MAX, UINT64_MAX};
    Scratch s = scratch_open();
    host_write(&s, "a", "1");
    for (size_t i = 0; i < G_N_ELEMENTS(counts); i++) {
        uint64_t a = lookup(&s, PT_ROOT_ID, "a").nodeid;
        pt_forget(s.fs, a, counts[i]);
        g_assert_cmpint(getattr_error(&s, a), ==, -ESTALE);
        g_assert_cmpuint(scratch_stats(&s).inodes, ==, 1);
    }
    scratch_close(&s);
}

static void test_root(void)
{
    Scratch s = scratch_open();
    pt_forget(s.fs, PT_ROOT_ID, 1);
    pt_forget(s.fs, PT_ROOT_ID, UINT64_MAX);
    g_assert_cmpint(getattr_error(&s, PT_ROOT_ID), ==, 0);
    PtAttr attr;
    g_assert_cmpint(pt_getattr(s.fs, PT_ROOT_ID, PT_NO_HANDLE, &attr), ==, 0);
    g_assert_cmpuint(attr.stx.stx_ino, ==, host_stat(&s, ".").st_ino);
    scratch_close(&s);
}

static void test_invented_ids(void)
{
    Scratch s = scratch_open();
    uint64_t random = 88172645463325252;
    for (int i = 0; i < 10000; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        g_assert_cmpint(getattr_error(&s, random), ==, -ESTALE);
        pt_forget(s.fs, random, random);
    }
    for (uint64_t id = 0; id < 5000; id++) {
        g_assert_cmpint(getattr_error(&s, id), ==, id == PT_ROOT_ID ? 0 : -ESTALE);
    }
    PtEntry entry;
    g_assert_cmpint(pt_lookup(s.fs, 2, "a", &entry), ==, -ESTALE);
    g_assert_cmpint(pt_unlink(s.fs, 2, "a"), ==, -ESTALE);
    g_assert_cmpint(pt_link(s.fs, 2, PT_ROOT_ID, "a", &entry), ==, -ESTALE);
    scratch_close(&s);
}

static void test_forgotten_while_open(void)
{
    Scratch s = scratch_open();
    char buffer[8];
    host_write(&s, "a", "1");
    uint64_t a = lookup(&s, PT_ROOT_ID, "a").nodeid;
    PtOpened opened = open_node(&s, a, O_RDWR);
    pt_forget(s.fs, a, 1);
    g_assert_cmpint(getattr_error(&s, a), ==, -ESTALE);
    g_assert_cmpint(read_text(&s, a, opened.handle, 0, buffer, 8), ==, 1);
    /* While it is open it is the same inode. */
    g_assert_cmpuint(lookup(&s, PT_ROOT_ID, "a").nodeid, ==, a);
    g_assert_cmpint(getattr_error(&s, a), ==, 0);
    g_assert_cmpint(pt_release(s.fs, a, opened.handle), ==, 0);
    g_assert_cmpint(getattr_error(&s, a), ==, 0);
    pt_forget(s.fs, a, 1);
    g_assert_cmpuint(scratch_stats(&s).inodes, ==, 1);
    scratch_close(&s);
}

static void test_removed_stays_usable(void)
{
    Scratch s = scratch_open();
    host_write(&s, "a", "1");
    uint64_t a = lookup(&s, PT_ROOT_ID, "a").nodeid;
    g_assert_cmpint(pt_unlink(s.fs, PT_ROOT_ID, "a"), ==, 0);
    g_assert_cmpint(lookup_error(&s, PT_ROOT_ID, "a"), ==, -ENOENT);
    PtAttr attr;
    g_assert_cmpint(pt_getattr(s.fs, a, PT_NO_HANDLE, &attr), ==, 0);
    g_assert_cmpuint(attr.stx.stx_nlink, ==, 0);
    open_node(&s, a, O_RDWR);
    scratch_close(&s);
}

static void test_reset(void)
{
    Scratch s = scratch_open();
    PtOpened opened;
    host_write(&s, "a", "1");
    uint64_t a = lookup(&s, PT_ROOT_ID, "a").nodeid;
    uint64_t d = make_dir(&s, PT_ROOT_ID, "d").nodeid;
    uint64_t handle = open_node(&s, a, O_RDWR).handle;
    g_assert_cmpint(pt_opendir(s.fs, d, 0, &opened), ==, 0);
    lookup(&s, PT_ROOT_ID, "a");
    pt_fs_reset(s.fs);
    PtStats stats = scratch_stats(&s);
    g_assert_cmpuint(stats.inodes, ==, 1);
    g_assert_cmpuint(stats.handles, ==, 0);
    g_assert_cmpuint(stats.descriptors, ==, 1);
    g_assert_cmpint(getattr_error(&s, a), ==, -ESTALE);
    g_assert_cmpint(write_text(&s, a, handle, 0, "x"), ==, -EBADF);
    g_assert_cmpint(pt_release(s.fs, a, handle), ==, -EBADF);
    g_assert_cmpuint(lookup(&s, PT_ROOT_ID, "a").nodeid, !=, a);
    pt_fs_reset(s.fs);
    scratch_close(&s);
}

/* The index grows, in every shard, and finds all again. */
static void test_many(void)
{
    enum { MANY = 15000 };
    static uint64_t ids[MANY];
    char name[16];
    Scratch s = scratch_open();
    for (int i = 0; i < MANY; i++) {
        g_snprintf(name, sizeof(name), "%d", i);
        g_assert_cmpint(mknodat(s.dir, name, S_IFREG | 0600, 0), ==, 0);
    }
    if (count_fds() + MANY + 100 > sysconf(_SC_OPEN_MAX)) {
        g_test_skip("too few descriptors allowed");
        scratch_close(&s);
        return;
    }
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < MANY; i++) {
            g_snprintf(name, sizeof(name), "%d", i);
            uint64_t id = lookup(&s, PT_ROOT_ID, name).nodeid;
            g_assert_true(round == 0 || id == ids[i]);
            ids[i] = id;
        }
    }
    g_assert_cmpuint(scratch_stats(&s).inodes, ==, MANY + 1);
    for (int i = 0; i < MANY; i++) {
        pt_forget(s.fs, ids[i], 2);
    }
    g_assert_cmpuint(scratch_stats(&s).inodes, ==, 1);
    scratch_close(&s);
}

/* ---- many threads ----------------------------------------------------------------- */

enum { THREADS = 4, ROUNDS = 2000 };

static void *lookup_and_forget(void *data)
{
    Scratch *s = data;
    g_assert_cmpint(pt_thread_enter(s->fs), ==, 0);
    for (int i = 0; i < ROUNDS; i++) {
        char name[] = {(char)('a' + i % 3), '\0'};
        PtAttr attr;
        PtEntry entry = lookup(s, PT_ROOT_ID, name);
        g_assert_cmpint(pt_getattr(s->fs, entry.nodeid, PT_NO_HANDLE, &attr), ==, 0);
        g_assert_cmpuint(attr.stx.stx_ino, ==, entry.attr.stx.stx_ino);
        pt_forget(s->fs, entry.nodeid, 1);
    }
    return NULL;
}

/* A guest that takes more than it was given, at the same time. */
static void *forget_all(void *data)
{
    Scratch *s = data;
    for (uint64_t i = 0; i < ROUNDS * 8; i++) {
        pt_forget(s->fs, (i % 6) | (i / 32) << 32, i % 2 == 0 ? UINT64_MAX : 2);
    }
    return NULL;
}

static void *lookup_only(void *data)
{
    Scratch *s = data;
    g_assert_cmpint(pt_thread_enter(s->fs), ==, 0);
    for (int i = 0; i < ROUNDS; i++) {
        char name[] = {(char)('a' + i % 3), '\0'};
        PtEntry entry = lookup(s, PT_ROOT_ID, name);
        int r = getattr_error(s, entry.nodeid);
        g_assert_true(r == 0 || r == -ESTALE);
    }
    return NULL;
}

static void run_threads(Scratch *s, void *(*run)(void *), void *(*other)(void *))
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        void *(*body)(void *) = other != NULL && i == 0 ? other : run;
        g_assert_cmpint(pthread_create(&threads[i], NULL, body, s), ==, 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
}

static Scratch scratch_abc(void)
{
    Scratch s = scratch_open();
    host_write(&s, "a", "1");
    host_write(&s, "b", "1");
    host_write(&s, "c", "1");
    return s;
}

static void test_threads(void)
{
    Scratch s = scratch_abc();
    run_threads(&s, lookup_and_forget, NULL);
    g_assert_cmpuint(scratch_stats(&s).inodes, ==, 1);
    g_assert_cmpuint(scratch_stats(&s).descriptors, ==, 1);
    scratch_close(&s);
}

static void test_threads_with_thief(void)
{
    Scratch s = scratch_abc();
    run_threads(&s, lookup_only, forget_all);
    g_assert_cmpuint(scratch_stats(&s).inodes, <=, 4);
    pt_fs_reset(s.fs);
    g_assert_cmpuint(scratch_stats(&s).descriptors, ==, 1);
    scratch_close(&s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (!need_root()) {
        return 0;
    }
    g_test_add_func("/inode/size", test_size);
    g_test_add_func("/inode/same-file-same-id", test_same_file_same_id);
    g_test_add_func("/inode/another-file-another-id", test_another_file_another_id);
    g_test_add_func("/inode/time-of-birth", test_time_of_birth);
    g_test_add_func("/inode/forget", test_forget);
    g_test_add_func("/inode/forget-beyond-count", test_forget_beyond_count);
    g_test_add_func("/inode/root", test_root);
    g_test_add_func("/inode/invented-ids", test_invented_ids);
    g_test_add_func("/inode/forgotten-while-open", test_forgotten_while_open);
    g_test_add_func("/inode/removed-stays-usable", test_removed_stays_usable);
    g_test_add_func("/inode/reset", test_reset);
    g_test_add_func("/inode/many", test_many);
    g_test_add_func("/inode/threads", test_threads);
    g_test_add_func("/inode/threads-with-thief", test_threads_with_thief);
    return g_test_run();
}
