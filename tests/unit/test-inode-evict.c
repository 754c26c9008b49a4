/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/by-name.h"

#include <pthread.h>

#include "passthrough/inode-evict.h"

/*
 * The budget of descriptors: however few there are, every name can be looked up, and what
 * is closed is found again or was never another file.
 */

static const uint64_t root = PT_ROOT_ID;

enum { FEW = 16, MANY = 200 };

static Scratch scratch_few(uint32_t max_descriptors)
{
    PtConfig config = scratch_config();
    config.max_descriptors = max_descriptors;
    return scratch_open_with(&config);
}

/* Files 0 to MANY - 1; each holds the last digit of its name. */
static void make_many(const Scratch *s)
{
    char name[8], text[2];
    for (int i = 0; i < MANY; i++) {
        g_snprintf(name, sizeof(name), "%d", i);
        g_snprintf(text, sizeof(text), "%d", i % 10);
        host_write(s, name, text);
    }
}

static void look_up_many(const Scratch *s, uint64_t *ids)
{
    char name[8];
    for (int i = 0; i < MANY; i++) {
        g_snprintf(name, sizeof(name), "%d", i);
        ids[i] = lookup(s, root, name).nodeid;
    }
}

static void assert_within_budget(const Scratch *s, uint32_t max)
{
    g_assert_cmpuint(scratch_stats(s).descriptors, <=, max);
}

static void test_more_than_descriptors(void)
{
    uint64_t ids[MANY];
    Scratch s = scratch_few(FEW);
    make_many(&s);
    let_settle();
    look_up_many(&s, ids);
    assert_within_budget(&s, FEW);
    for (int i = 0; i < MANY; i++) {
        g_assert_cmpint(content(&s, ids[i]), ==, '0' + i % 10);
        assert_within_budget(&s, FEW);
    }
    for (int i = 0; i < MANY; i++) {
        pt_forget(s.fs, ids[i], 1);
    }
    g_assert_cmpuint(n_named(&s), ==, 0);
    g_assert_cmpuint(scratch_stats(&s).descriptors, ==, 1);
    scratch_close(&s);
}

/* Files so young that their number might still be given to another with their birth. */
static void test_new_files(void)
{
    uint64_t ids[MANY];
    Scratch s = scratch_few(FEW);
    make_many(&s);
    look_up_many(&s, ids);
    assert_within_budget(&s, FEW);
    g_assert_cmpint(content(&s, ids[MANY - 1]), ==, '0' + (MANY - 1) % 10);
    scratch_close(&s);
}

/* On the way to a deep directory no other on that way is closed for it, one after the
 * other, each of which would have to be asked for along the same way. */
static void test_deep(void)
{
    uint64_t ids[MANY];
    char path[2 * MANY + 1] = "";
    Scratch s = scratch_few(FEW);
    for (int i = 0; i < MANY; i++) {
        strcat(path, i == 0 ? "d" : "/d");
        host_mkdir(&s, path);
    }
    let_settle();
    for (int i = 0; i < MANY; i++) {
        ids[i] = lookup(&s, i == 0 ? root : ids[i - 1], "d").nodeid;
    }
    for (int i = MANY - 1; i > 0; i /= 2) {
        uint32_t before = s.fs->n_evictions;
        g_assert_cmpint(getattr_error(&s, ids[i]), ==, 0);
        g_assert_cmpuint(s.fs->n_evictions - before, <=, 8);
        assert_within_budget(&s, FEW);
    }
    scratch_close(&s);
}

/* The guest has everything open: that is an error for who opens, for nobody else. */
static void test_all_open(void)
{
    uint64_t ids[MANY];
    PtOpened opened[FEW], more;
    PtEntry entry;
    Scratch s = scratch_few(FEW);
    make_many(&s);
    let_settle();
    look_up_many(&s, ids);
    int n = 0;
    while (pt_open(s.fs, ids[n], O_RDWR, false, &opened[n]) == 0) {
        n++;
        g_assert_cmpint(n, <, FEW);
    }
    g_assert_cmpint(n, ==, FEW - 2); /* the root, and what is to be opened */
    PtOpened last;
    g_assert_cmpint(pt_opendir(s.fs, root, 0, &last), ==, 0);
    g_assert_cmpint(pt_opendir(s.fs, root, 0, &more), ==, -ENFILE);
    PtMake make = make_of(&root_caller, root, "new", 0644);
    g_assert_cmpint(pt_create(s.fs, &make, &entry, &more), ==, -ENFILE);
    g_assert_cmpint(lookup_error(&s, root, "new"), ==, -ENOENT);
    g_assert_cmpint(pt_mkdir(s.fs, &make, &entry), ==, 0);
    g_assert_cmpuint(lookup(&s, root, "new").nodeid, ==, entry.nodeid);
    for (int i = 0; i < MANY; i++) {
        g_assert_cmpint(getattr_error(&s, ids[i]), ==, 0);
    }
    g_assert_cmpint(pt_unlink(s.fs, root, "100"), ==, 0);
    g_assert_cmpint(guest_rename(&s, root, "101", entry.nodeid, "x", 0), ==, 0);
    g_assert_cmpint(getattr_error(&s, ids[101]), ==, 0);
    while (n-- > 0) {
        g_assert_cmpint(pt_release(s.fs, ids[n], opened[n].handle), ==, 0);
    }
    g_assert_cmpint(content(&s, ids[101]), ==, '1');
    scratch_close(&s);
}

/* What has no name cannot be had again: it is not closed. */
static void test_nameless_stays(void)
{
    uint64_t ids[MANY];
    Scratch s = scratch_few(FEW);
    make_many(&s);
    let_settle();
    look_up_many(&s, ids);
    g_assert_cmpint(pt_unlink(s.fs, root, "7"), ==, 0);
    g_assert_cmpint(pt_unlink(s.fs, root, "8"), ==, 0);
    for (int i = 9; i < MANY; i++) {
        g_assert_cmpint(content(&s, ids[i]), ==, '0' + i % 10);
    }
    g_assert_cmpint(content(&s, ids[7]), ==, '7');
    g_assert_cmpuint(getattr(&s, ids[8]).stx.stx_nlink, ==, 0);
    scratch_close(&s);
}

/* The place where it was seen is not its place any more. */
static void test_misplaced_stays(void)
{
    Scratch s = scratch_open();
    host_write(&s, "a", "a");
    host_write(&s, "b", "b");
    let_settle();
    uint64_t a = used(&s, root, "a");
    uint64_t b = used(&s, root, "b");
    host_rename(&s, "a", "c");
    PtEviction eviction = {.wanted = FEW, .attempts = FEW, .all = true};
    pt_evict(s.fs, &eviction);
    g_assert_cmpuint(eviction.closed, ==, 1);
    g_assert_true(is_open(&s, a));
    g_assert_false(is_open(&s, b));
    g_assert_cmpint(content(&s, a), ==, 'a');
    g_assert_cmpint(content(&s, b), ==, 'b');
    /* Seen at its new place, it can be closed. */
    g_assert_cmpuint(lookup(&s, root, "c").nodeid, ==, a);
    eviction = (PtEviction){.wanted = FEW, .attempts = FEW, .all = true};
    pt_evict(s.fs, &eviction);
    g_assert_false(is_open(&s, a));
    g_assert_cmpint(content(&s, a), ==, 'a');
    scratch_close(&s);
}

static void test_used_is_passed_over(void)
{
    Scratch s = scratch_open();
    host_write(&s, "a", "a");
    let_settle();
    uint64_t a = lookup(&s, root, "a").nodeid;
    g_auto(PtNode) node = {0};
    g_assert_cmpint(pt_node_get(s.fs, a, &node), ==, 0);
    PtEviction eviction = {.wanted = 1, .attempts = FEW, .all = true};
    pt_evict(s.fs, &eviction);
    g_assert_cmpuint(eviction.closed, ==, 0);
    pt_node_clear(&node);
    pt_evict(s.fs, &eviction);
    g_assert_cmpuint(eviction.closed, ==, 1);
    scratch_close(&s);
}

/* ---- threads ----------------------------------------------------------------------- */

enum { THREADS = 4, OWN = 20, ROUNDS = 1500 };

typedef struct Walker {
    const Scratch *s;
    uint64_t directory; /* of all */
    unsigned int number;
} Walker;

static char own_digit(const Walker *w, int i)
{
    return (char)('a' + ((int)w->number * OWN + i) % 26);
}

static void own_name(const Walker *w, int i, bool moved, char *name, size_t size)
{
    g_snprintf(name, size, "%u-%d%s", w->number, i, moved ? "m" : "");
}

/* Its file, or the error of a thread to which the others left no descriptor. */
static void check_own(const Walker *w, const char *name, char digit)
{
    PtEntry entry;
    g_assert_cmpint(pt_lookup(w->s->fs, w->directory, name, &entry), ==, 0);
    g_assert_cmpint(getattr_error(w->s, entry.nodeid), ==, 0);
    int r = content(w->s, entry.nodeid);
    g_assert_true(r == digit || r == -ENFILE);
    pt_forget(w->s->fs, entry.nodeid, 1);
}

static void move_own(const Walker *w, int i, bool *moved)
{
    char from[16], to[16];
    own_name(w, i, *moved, from, sizeof(from));
    own_name(w, i, !*moved, to, sizeof(to));
    PtEntry entry;
    g_assert_cmpint(pt_lookup(w->s->fs, w->directory, from, &entry), ==, 0);
    g_assert_cmpint(guest_rename(w->s, w->directory, from, w->directory, to, 0), ==, 0);
    g_assert_cmpint(getattr_error(w->s, entry.nodeid), ==, 0);
    pt_forget(w->s->fs, entry.nodeid, 1);
    *moved = !*moved;
    check_own(w, to, own_digit(w, i));
}

static void *walk(void *data)
{
    const Walker *w = data;
    bool moved[OWN] = {0};
    char name[16];
    unsigned int random = w->number;
    g_assert_cmpint(pt_thread_enter(w->s->fs), ==, 0);
    for (int n = 0; n < ROUNDS; n++) {
        random = random * 1103515245 + 12345;
        int i = (int)(random >> 16) % OWN;
        own_name(w, i, moved[i], name, sizeof(name));
        if (n % 3 == 0) {
            move_own(w, i, &moved[i]);
        } else {
            check_own(w, name, own_digit(w, i));
        }
    }
    return NULL;
}

static void make_own(const Walker *w)
{
    char name[16], path[32], text[2] = {0};
    for (int i = 0; i < OWN; i++) {
        own_name(w, i, false, name, sizeof(name));
        g_snprintf(path, sizeof(path), "d/%s", name);
        text[0] = own_digit(w, i);
        host_write(w->s, path, text);
    }
}

static void test_threads(void)
{
    pthread_t threads[THREADS];
    Walker walkers[THREADS];
    Scratch s = scratch_few(FEW);
    host_mkdir(&s, "d");
    uint64_t directory = lookup(&s, root, "d").nodeid;
    for (unsigned int i = 0; i < THREADS; i++) {
        walkers[i] = (Walker){&s, directory, i};
        make_own(&walkers[i]);
    }
    let_settle();
    /* Some that nobody gives back, so that there is always something to close. */
    for (int i = 0; i < OWN; i++) {
        char name[16];
        own_name(&walkers[0], i, false, name, sizeof(name));
        lookup(&s, directory, name);
    }
    for (unsigned int i = 0; i < THREADS; i++) {
        g_assert_cmpint(pthread_create(&threads[i], NULL, walk, &walkers[i]), ==, 0);
    }
    for (unsigned int i = 0; i < THREADS; i++) {
        g_assert_cmpint(pthread_join(threads[i], NULL), ==, 0);
    }
    assert_within_budget(&s, FEW);
    pt_fs_reset(s.fs);
    g_assert_cmpuint(n_named(&s), ==, 0);
    g_assert_cmpuint(scratch_stats(&s).descriptors, ==, 1);
    g_assert_cmpuint(scratch_stats(&s).inodes, ==, 1);
    scratch_close(&s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (!need_root()) {
        return 0;
    }
    g_test_add_func("/inode-evict/more-than-descriptors", test_more_than_descriptors);
    g_test_add_func("/inode-evict/new-files", test_new_files);
    g_test_add_func("/inode-evict/deep", test_deep);
    g_test_add_func("/inode-evict/all-open", test_all_open);
    g_test_add_func("/inode-evict/nameless-stays", test_nameless_stays);
    g_test_add_func("/inode-evict/misplaced-stays", test_misplaced_stays);
    g_test_add_func("/inode-evict/used-is-passed-over", test_used_is_passed_over);
    g_test_add_func("/inode-evict/threads", test_threads);
    return g_test_run();
}
