/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/scratch.h"

#include <pthread.h>
#include <stdatomic.h>

#include "passthrough/internal.h"
#include "passthrough/lock-table.h"

/*
 * The table's limits, and threads that lock, upgrade, close and release the same file.
 */

static void test_limit_of_file(void)
{
    PtConfig config = scratch_config();
    Scratch s = scratch_open_with(&config);
    pt_fs_agree(s.fs, &(PtAgreed){.posix_locks = true});
    host_write(&s, "f", "text");
    uint64_t node = lookup(&s, PT_ROOT_ID, "f").nodeid;
    PtLock lock = {.nodeid = node, .end = 9, .type = F_RDLCK};
    lock.handle = open_node(&s, node, O_RDONLY).handle;
    uint64_t before = scratch_stats(&s).descriptors;
    int r = 0;
    while (r == 0) {
        lock.owner++;
        r = pt_lock_set(s.fs, &lock);
    }
    g_assert_cmpint(r, ==, -ENOLCK);
    g_assert_cmpuint(s.fs->locks.n, ==, lock.owner - 1);
    g_assert_cmpuint(s.fs->locks.n, <=, PT_LOCK_OWNERS_OF_FILE_MAX);
    g_assert_cmpuint(scratch_stats(&s).descriptors, ==, before + s.fs->locks.n);
    g_assert_cmpint(pt_release(s.fs, node, lock.handle), ==, 0);
    g_assert_cmpuint(s.fs->locks.n, ==, 0);
    g_assert_cmpuint(scratch_stats(&s).descriptors, ==, before - 1);
    scratch_close(&s);
}

/* An open file that is released while somebody is about to lock it leaves nothing. */
static void test_released(void)
{
    Scratch s = scratch_open();
    host_write(&s, "f", "text");
    uint64_t node = lookup(&s, PT_ROOT_ID, "f").nodeid;
    uint64_t handle = open_node(&s, node, O_RDONLY).handle;
    PtLock lock = {.nodeid = node, .handle = handle, .owner = 1, .type = F_RDLCK};
    PtLockOwner *added = NULL;
    PtOpenFile file;
    PtFd fd;
    g_assert_cmpint(pt_open_file_get(s.fs, node, handle, PT_HANDLE_FILE, &file), ==, 0);
    g_assert_cmpint(pt_fd_reserve(s.fs, &fd), ==, 0);
    PtLockOwner *owner = pt_lock_owner_new(&lock, &fd, O_RDONLY);
    g_assert_cmpint(pt_release(s.fs, node, handle), ==, 0);
    g_assert_cmpint(pt_locks_add(s.fs, file.handle, owner, &added), ==, -EBADF);
    g_assert_null(added);
    pt_locks_put(s.fs, owner);
    pt_open_file_clear(&file);
    scratch_close(&s);
}

/* ---- threads ----------------------------------------------------------------------- */

enum { THREADS = 4, ROUNDS = 3000, OWNERS = 3 };

typedef struct Party {
    Scratch s;
    uint64_t node;
    _Atomic uint64_t reader;
    uint64_t both;
} Party;

static void one_step(Party *party, unsigned int *seed)
{
    unsigned int choice = (unsigned int)rand_r(seed);
    uint64_t start = choice >> 4 & 15;
    PtLock lock = {.nodeid = party->node,
                   .handle = party->both,
                   .owner = choice % OWNERS,
                   .start = start,
                   .end = start + (choice >> 8 & 15)};
    uint64_t holder;
    switch (choice >> 12 & 7) {
    case 0:
        pt_lock_close(party->s.fs, party->node, lock.owner);
        break;
    case 1: {
        uint64_t again = open_node(&party->s, party->node, O_RDONLY).handle;
        uint64_t old = atomic_exchange(&party->reader, again);
        g_assert_cmpint(pt_release(party->s.fs, party->node, old), ==, 0);
        break;
    }
    case 2:
        lock.type = F_UNLCK;
        g_assert_cmpint(pt_lock_set(party->s.fs, &lock), ==, 0);
        break;
    case 3:
        lock.type = F_WRLCK;
        g_assert_cmpint(pt_lock_get(party->s.fs, &lock), ==, 0);
        (void)pt_lock_holder(party->s.fs, &lock, &holder);
        break;
    case 4:
        lock.type = F_WRLCK;
        (void)pt_lock_set(party->s.fs, &lock);
        break;
    default:
        lock.type = F_RDLCK;
        lock.handle = atomic_load(&party->reader);
        (void)pt_lock_set(party->s.fs, &lock);
    }
}

static void *run(void *data)
{
    Party *party = data;
    static _Atomic unsigned int seeds;
    unsigned int seed = atomic_fetch_add(&seeds, 1);
    g_assert_cmpint(pt_thread_enter(party->s.fs), ==, 0);
    for (int i = 0; i < ROUNDS; i++) {
        one_step(party, &seed);
    }
    return NULL;
}

static void test_threads(void)
{
    Party party = {.s = scratch_open()};
    pthread_t threads[THREADS];
    PtFs *fs = party.s.fs;
    pt_fs_agree(fs, &(PtAgreed){.posix_locks = true});
    host_write(&party.s, "f", "text");
    party.node = lookup(&party.s, PT_ROOT_ID, "f").nodeid;
    party.both = open_node(&party.s, party.node, O_RDWR).handle;
    uint64_t before = scratch_stats(&party.s).descriptors;
    party.reader = open_node(&party.s, party.node, O_RDONLY).handle;
    for (int i = 0; i < THREADS; i++) {
        g_assert_cmpint(pthread_create(&threads[i], NULL, run, &party), ==, 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    g_assert_cmpint(pt_release(fs, party.node, party.reader), ==, 0);
    for (uint64_t owner = 0; owner < OWNERS; owner++) {
        pt_lock_close(fs, party.node, owner);
    }
    /* Nothing is left of all the locks, here and on the host. */
    PtLock all = {.nodeid = party.node,
                  .handle = party.both,
                  .owner = 77,
                  .end = INT64_MAX,
                  .type = F_WRLCK};
    g_assert_cmpuint(scratch_stats(&party.s).descriptors, ==, before);
    g_assert_cmpint(pt_lock_set(fs, &all), ==, 0);
    scratch_close(&party.s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (!need_root()) {
        return 0;
    }
    g_test_add_func("/lock-table/limit-of-file", test_limit_of_file);
    g_test_add_func("/lock-table/released", test_released);
    g_test_add_func("/lock-table/threads", test_threads);
    return g_test_run();
}
