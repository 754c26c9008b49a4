/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/scratch.h"

#include <pthread.h>

#include "passthrough/dir-stream.h"
#include "passthrough/internal.h"

/*
 * Directories: every name once, in requests of any size, from any cookie; entries that
 * are looked up on the way; walks that meet.
 */

enum { MANY = 3000 }; /* more than two buffers of 64 KiB */

/* A directory with MANY files, which tests leave as it is. */
static Scratch many;

typedef struct Names {
    GHashTable *seen; /* name -> times */
    GArray *cookies;  /* before each entry, in order */
    GPtrArray *order; /* names in order */
} Names;

static Names names_new(void)
{
    return (Names){g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL),
                   g_array_new(FALSE, FALSE, sizeof(uint64_t)),
                   g_ptr_array_new_with_free_func(g_free)};
}

static void names_free(Names *names)
{
    g_hash_table_unref(names->seen);
    g_array_unref(names->cookies);
    g_ptr_array_unref(names->order);
}

static void names_add(Names *names, const PtDirent *entry, uint64_t cookie)
{
    g_assert_cmpuint(strlen(entry->name), ==, entry->name_length);
    g_assert_true(g_hash_table_add(names->seen, g_strdup(entry->name)));
    g_array_append_val(names->cookies, cookie);
    g_ptr_array_add(names->order, g_strdup(entry->name));
}

/* One READDIR that takes @max entries; Return: how many it got. */
static int read_some(const Scratch *s, uint64_t dir, uint64_t handle, uint64_t *cookie,
                     int max, Names *names)
{
    g_auto(PtDirCursor) cursor = {0};
    PtDirent entry;
    int n = 0;
    g_assert_cmpint(pt_dir_begin(s->fs, dir, handle, *cookie, &cursor), ==, 0);
    for (; n < max; n++) {
        int r = pt_dir_next(&cursor, &entry);
        g_assert_cmpint(r, >=, 0);
        if (r == 0) {
            break;
        }
        if (names != NULL) {
            names_add(names, &entry, *cookie);
        }
        *cookie = entry.offset;
    }
    return n;
}

static Names read_all(const Scratch *s, uint64_t dir, uint64_t handle, int step)
{
    Names names = names_new();
    uint64_t cookie = 0;
    while (read_some(s, dir, handle, &cookie, step, &names) > 0) {
    }
    return names;
}

static uint64_t open_dir(const Scratch *s, uint64_t dir)
{
    PtOpened opened;
    g_assert_cmpint(pt_opendir(s->fs, dir, 0, &opened), ==, 0);
    return opened.handle;
}

static void fill_dir(const Scratch *s, int n)
{
    char name[64];
    for (int i = 0; i < n; i++) {
        g_snprintf(name, sizeof(name), "entry-%05d-with-some-length", i);
        g_assert_cmpint(mknodat(s->dir, name, S_IFREG | 0600, 0), ==, 0);
    }
}

static void test_all_once(void)
{
    const int steps[] = {1, 2, 7, 1000, MANY * 2};
    const Scratch s = many;
    uint64_t handle = open_dir(&s, PT_ROOT_ID);
    for (size_t i = 0; i < G_N_ELEMENTS(steps); i++) {
        Names names = read_all(&s, PT_ROOT_ID, handle, steps[i]);
        g_assert_cmpuint(names.order->len, ==, MANY + 2);
        g_assert_true(g_hash_table_contains(names.seen, "."));
        g_assert_true(g_hash_table_contains(names.seen, "entry-00000-with-some-length"));
        names_free(&names);
    }
    pt_fs_reset(s.fs);
}

static void test_cookies(void)
{
    const Scratch s = many;
    uint64_t handle = open_dir(&s, PT_ROOT_ID);
    uint64_t other = open_dir(&s, PT_ROOT_ID);
    Names names = read_all(&s, PT_ROOT_ID, handle, 100);
    uint32_t random = 12345;
    for (int i = 0; i < 2000; i++) {
        random = random * 1664525 + 1013904223;
        /* Far and near jumps, on the handle that gave the cookie and on another one. */
        uint32_t at = i % 3 == 0 ? (random >> 8) % (MANY + 2) : (uint32_t)(i * 2 % MANY);
        uint64_t cookie = g_array_index(names.cookies, uint64_t, at);
        g_auto(PtDirCursor) cursor = {0};
        PtDirent entry;
        uint64_t on = i % 5 == 0 ? other : handle;
        g_assert_cmpint(pt_dir_begin(s.fs, PT_ROOT_ID, on, cookie, &cursor), ==, 0);
        g_assert_cmpint(pt_dir_next(&cursor, &entry), ==, 1);
        g_assert_cmpstr(entry.name, ==, g_ptr_array_index(names.order, at));
    }
    names_free(&names);
    pt_fs_reset(s.fs);
}

static void test_strange_cookies(void)
{
    const uint64_t cookies[] = {1,          2,          4711,           UINT32_MAX,
                                INT64_MAX,  UINT64_MAX, UINT64_MAX - 1, INT64_MAX - 1,
                                1ull << 63, 1ull << 62};
    const Scratch s = many;
    uint64_t handle = open_dir(&s, PT_ROOT_ID);
    for (size_t i = 0; i < G_N_ELEMENTS(cookies); i++) {
        g_auto(PtDirCursor) cursor = {0};
        PtDirent entry;
        int r = pt_dir_begin(s.fs, PT_ROOT_ID, handle, cookies[i], &cursor);
        if (cookies[i] > INT64_MAX) {
            g_assert_cmpint(r, ==, -EINVAL);
        }
        for (int n = 0; r == 0 && n < 10; n++) {
            r = pt_dir_next(&cursor, &entry) - 1;
        }
    }
    Names names = read_all(&s, PT_ROOT_ID, handle, 50);
    g_assert_cmpuint(names.order->len, ==, MANY + 2);
    names_free(&names);
    pt_fs_reset(s.fs);
}

static void test_unread(void)
{
    const Scratch s = many;
    uint64_t handle = open_dir(&s, PT_ROOT_ID);
    g_auto(PtDirCursor) cursor = {0};
    PtDirent entry;
    uint64_t cookie = 0;
    char *name = NULL;
    Names names = names_new();
    g_assert_cmpint(pt_dir_begin(s.fs, PT_ROOT_ID, handle, 0, &cursor), ==, 0);
    /* Each reply is full just before an entry; the next one begins with that. */
    for (int i = 0; pt_dir_next(&cursor, &entry) == 1; i++) {
        if (i % 10 == 9) {
            name = g_strdup(entry.name);
            pt_dir_unread(&cursor, &entry);
            pt_dir_end(&cursor);
            g_assert_cmpint(pt_dir_begin(s.fs, PT_ROOT_ID, handle, cookie, &cursor), ==,
                            0);
            g_assert_cmpint(pt_dir_next(&cursor, &entry), ==, 1);
            g_assert_cmpstr(entry.name, ==, name);
            g_free(name);
        }
        names_add(&names, &entry, cookie);
        cookie = entry.offset;
    }
    g_assert_cmpuint(names.order->len, ==, MANY + 2);
    names_free(&names);
    pt_dir_end(&cursor);
    pt_fs_reset(s.fs);
}

static void test_rewind_sees_changes(void)
{
    Scratch s = scratch_open();
    uint64_t handle = open_dir(&s, PT_ROOT_ID);
    for (int i = 0; i < 5; i++) {
        char name[2] = {(char)('a' + i), '\0'};
        Names names = read_all(&s, PT_ROOT_ID, handle, 1 + i);
        g_assert_cmpuint(names.order->len, ==, (guint)i + 2);
        names_free(&names);
        host_write(&s, name, "1");
    }
    g_assert_cmpint(unlinkat(s.dir, "a", 0), ==, 0);
    Names names = read_all(&s, PT_ROOT_ID, handle, 100);
    g_assert_cmpuint(names.order->len, ==, 6);
    g_assert_false(g_hash_table_contains(names.seen, "a"));
    names_free(&names);
    scratch_close(&s);
}

/* A reply without room for even one entry, and then the walk begins anew. */
static void test_rewind_after_nothing(void)
{
    Scratch s = scratch_open();
    uint64_t handle = open_dir(&s, PT_ROOT_ID);
    g_auto(PtDirCursor) cursor = {0};
    PtDirent entry;
    g_assert_cmpint(pt_dir_begin(s.fs, PT_ROOT_ID, handle, 0, &cursor), ==, 0);
    g_assert_cmpint(pt_dir_next(&cursor, &entry), ==, 1);
    pt_dir_unread(&cursor, &entry);
    pt_dir_end(&cursor);
    host_write(&s, "a", "1");
    Names names = read_all(&s, PT_ROOT_ID, handle, 100);
    g_assert_true(g_hash_table_contains(names.seen, "a"));
    names_free(&names);
    scratch_close(&s);
}

/* Each reading at the end asks the host, which notes the access. */
static void test_end_again(void)
{
    Scratch s = scratch_open();
    const struct timespec long_ago[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    struct statvfs about;
    g_assert_cmpint(statvfs(s.path, &about), ==, 0);
    uint64_t handle = open_dir(&s, PT_ROOT_ID);
    Names names = names_new();
    uint64_t cookie = 0;
    g_assert_cmpint(read_some(&s, PT_ROOT_ID, handle, &cookie, 10, &names), ==, 2);
    for (int i = 0; i < 3 && !(about.f_flag & ST_NOATIME); i++) {
        struct stat st;
        g_assert_cmpint(futimens(s.dir, long_ago), ==, 0);
        g_assert_cmpint(read_some(&s, PT_ROOT_ID, handle, &cookie, 10, &names), ==, 0);
        g_assert_cmpint(fstat(s.dir, &st), ==, 0);
        g_assert_cmpint(st.st_atim.tv_sec, >, 1);
    }
    names_free(&names);
    g_assert_cmpint(pt_releasedir(s.fs, PT_ROOT_ID, handle), ==, 0);
    scratch_close(&s);
}

/* The program behind the guest had less room than was asked for, so the guest goes back,
 * until it hears of the end: the host is not asked a second time for what it gave. */
static void test_back_from_the_end(void)
{
    enum { ALL = 12, BACK = 6 };
    Scratch s = scratch_open();
    fill_dir(&s, ALL - 2);
    uint64_t handle = open_dir(&s, PT_ROOT_ID);
    Names names = names_new();
    uint64_t cookie = 0;
    g_assert_cmpint(read_some(&s, PT_ROOT_ID, handle, &cookie, 100, &names), ==, ALL);
    for (int i = 0; i < ALL; i++) {
        (void)unlinkat(s.dir, g_ptr_array_index(names.order, i), 0); /* not . and .. */
    }
    for (int from = 1; from < ALL; from += BACK) {
        Names again = names_new();
        cookie = g_array_index(names.cookies, uint64_t, from);
        g_assert_cmpint(read_some(&s, PT_ROOT_ID, handle, &cookie, 100, &again), ==,
                        ALL - from);
        g_assert_cmpstr(g_ptr_array_index(again.order, 0), ==,
                        g_ptr_array_index(names.order, from));
        names_free(&again);
    }
    g_assert_cmpint(read_some(&s, PT_ROOT_ID, handle, &cookie, 100, NULL), ==, 0);
    /* Now it is a program that goes back. */
    cookie = g_array_index(names.cookies, uint64_t, 1);
    g_assert_cmpint(read_some(&s, PT_ROOT_ID, handle, &cookie, 100, NULL), <=, 2);
    names_free(&names);
    scratch_close(&s);
}

/* What stays is listed once, whatever comes and goes meanwhile. */
/* A guest that knows the names begins at the end, and then rewinds: ext4 takes the start
 * for the end, when its descriptor was first read there. */
static void test_end_first(void)
{
    Scratch s = scratch_open();
    host_write(&s, "a", "1");
    uint64_t known = open_dir(&s, PT_ROOT_ID), fresh = open_dir(&s, PT_ROOT_ID);
    Names names = names_new();
    uint64_t cookie = 0, start = 0;
    g_assert_cmpint(read_some(&s, PT_ROOT_ID, known, &cookie, 10, &names), ==, 3);
    g_assert_cmpint(read_some(&s, PT_ROOT_ID, fresh, &cookie, 10, NULL), ==, 0);
    g_assert_cmpint(read_some(&s, PT_ROOT_ID, fresh, &start, 10, NULL), ==, 3);
    names_free(&names);
    g_assert_cmpint(pt_releasedir(s.fs, PT_ROOT_ID, known), ==, 0);
    g_assert_cmpint(pt_releasedir(s.fs, PT_ROOT_ID, fresh), ==, 0);
    scratch_close(&s);
}

static void test_changes_while_walking(void)
{
    Scratch s = scratch_open();
    fill_dir(&s, MANY);
    uint64_t handle = open_dir(&s, PT_ROOT_ID);
    Names names = names_new();
    uint64_t cookie = 0;
    char name[64];
    for (int i = 0; read_some(&s, PT_ROOT_ID, handle, &cookie, 20, &names) > 0; i++) {
        g_snprintf(name, sizeof(name), "new-%d", i);
        host_write(&s, name, "1");
        g_snprintf(name, sizeof(name), "entry-%05d-with-some-length", i * 2);
        g_assert_cmpint(unlinkat(s.dir, name, 0), ==, 0);
    }
    for (int i = 1; i < MANY; i += 2) {
        g_snprintf(name, sizeof(name), "entry-%05d-with-some-length", i);
        g_assert_true(g_hash_table_contains(names.seen, name));
    }
    names_free(&names);
    scratch_close(&s);
}

/* ---- entries that are looked up --------------------------------------------------- */

static void test_lookup(void)
{
    Scratch s = scratch_open();
    fill_dir(&s, 300);
    g_assert_cmpint(mkdirat(s.dir, "sub", 0700), ==, 0);
    g_assert_cmpint(symlinkat("x", s.dir, "link"), ==, 0);
    uint64_t handle = open_dir(&s, PT_ROOT_ID);
    uint64_t known = lookup(&s, PT_ROOT_ID, "entry-00007-with-some-length").nodeid;
    g_auto(PtDirCursor) cursor = {0};
    for (int round = 1; round <= 2; round++) {
        PtDirent dirent;
        PtEntry entry;
        int dots = 0;
        g_assert_cmpint(pt_dir_begin(s.fs, PT_ROOT_ID, handle, 0, &cursor), ==, 0);
        while (pt_dir_next(&cursor, &dirent) == 1) {
            g_assert_cmpint(pt_dir_lookup(&cursor, &dirent, &entry), ==, 0);
            if (entry.nodeid == 0) {
                g_assert_cmpint(dirent.name[0], ==, '.');
                dots++;
                continue;
            }
            struct stat st = host_stat(&s, dirent.name);
            g_assert_cmpuint(entry.attr.stx.stx_ino, ==, st.st_ino);
            g_assert_cmpuint(dirent.ino, ==, st.st_ino);
            g_assert_cmpuint(dirent.type, ==, st.st_mode >> 12);
            g_assert_cmpuint(lookup(&s, PT_ROOT_ID, dirent.name).nodeid, ==,
                             entry.nodeid);
            pt_forget(s.fs, entry.nodeid, 1);
            if (strcmp(dirent.name, "entry-00007-with-some-length") == 0) {
                g_assert_cmpuint(entry.nodeid, ==, known);
            }
        }
        pt_dir_end(&cursor);
        g_assert_cmpint(dots, ==, 2);
        g_assert_cmpuint(scratch_stats(&s).inodes, ==, 303);
    }
    scratch_close(&s);
}

static void test_lookup_of_vanished(void)
{
    Scratch s = scratch_open();
    host_write(&s, "a", "1");
    uint64_t handle = open_dir(&s, PT_ROOT_ID);
    g_auto(PtDirCursor) cursor = {0};
    PtDirent dirent;
    PtEntry entry;
    g_assert_cmpint(pt_dir_begin(s.fs, PT_ROOT_ID, handle, 0, &cursor), ==, 0);
    while (pt_dir_next(&cursor, &dirent) == 1) {
        if (dirent.name[0] == 'a') {
            g_assert_cmpint(unlinkat(s.dir, "a", 0), ==, 0);
            g_assert_cmpint(pt_dir_lookup(&cursor, &dirent, &entry), ==, -ENOENT);
        }
    }
    pt_dir_end(&cursor);
    scratch_close(&s);
}

/* ---- walks that meet -------------------------------------------------------------- */

static void test_two_walks(void)
{
    const Scratch s = many;
    uint64_t handle = open_dir(&s, PT_ROOT_ID);
    g_auto(PtDirCursor) first = {0};
    g_auto(PtDirCursor) second = {0};
    PtDirent a, b;
    Names names = names_new();
    g_assert_cmpint(pt_dir_begin(s.fs, PT_ROOT_ID, handle, 0, &first), ==, 0);
    g_assert_cmpuint(scratch_stats(&s).descriptors, ==, 2);
    g_assert_cmpint(pt_dir_begin(s.fs, PT_ROOT_ID, handle, 0, &second), ==, 0);
    g_assert_cmpuint(scratch_stats(&s).descriptors, ==, 3);
    while (pt_dir_next(&first, &a) == 1) {
        g_assert_cmpint(pt_dir_next(&second, &b), ==, 1);
        g_assert_cmpstr(a.name, ==, b.name);
        names_add(&names, &a, 0);
    }
    g_assert_cmpint(pt_dir_next(&second, &b), ==, 0);
    g_assert_cmpuint(names.order->len, ==, MANY + 2);
    names_free(&names);
    /* Released under their feet. */
    g_assert_cmpint(pt_releasedir(s.fs, PT_ROOT_ID, handle), ==, 0);
    g_assert_cmpint(pt_dir_next(&first, &a), ==, 0);
    pt_dir_end(&second);
    pt_dir_end(&first);
    pt_dir_end(&first);
    g_assert_cmpuint(scratch_stats(&s).descriptors, ==, 1);
    pt_fs_reset(s.fs);
}

typedef struct Walkers {
    Scratch s;
    uint64_t handle;
} Walkers;

static void *walk(void *data)
{
    Walkers *w = data;
    g_assert_cmpint(pt_thread_enter(w->s.fs), ==, 0);
    for (int i = 0; i < 20; i++) {
        Names names = read_all(&w->s, PT_ROOT_ID, w->handle, 150 + i);
        g_assert_cmpuint(names.order->len, ==, 502);
        names_free(&names);
    }
    return NULL;
}

static void test_threads(void)
{
    Walkers w = {.s = scratch_open()};
    pthread_t threads[4];
    fill_dir(&w.s, 500);
    w.handle = open_dir(&w.s, PT_ROOT_ID);
    for (size_t i = 0; i < G_N_ELEMENTS(threads); i++) {
        g_assert_cmpint(pthread_create(&threads[i], NULL, walk, &w), ==, 0);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(threads); i++) {
        pthread_join(threads[i], NULL);
    }
    g_assert_cmpuint(scratch_stats(&w.s).descriptors, ==, 2);
    scratch_close(&w.s);
}

/* ---- limits ----------------------------------------------------------------------- */

/* A guest that opens very many directories and reads a little of each. */
static void test_buffers_are_limited(void)
{
    enum { OPEN = 600 };
    static uint64_t handles[OPEN], cookies[OPEN];
    Scratch s = scratch_open();
    fill_dir(&s, 100);
    for (int i = 0; i < OPEN; i++) {
        handles[i] = open_dir(&s, PT_ROOT_ID);
        g_assert_cmpint(read_some(&s, PT_ROOT_ID, handles[i], &cookies[i], 10, NULL), ==,
                        10);
    }
    g_assert_cmpuint(s.fs->n_dir_buffers, <=, 256);
    g_assert_cmpuint(s.fs->n_dir_buffers, >, 100);
    /* All of them go on where they were. */
    for (int i = 0; i < OPEN; i++) {
        g_assert_cmpint(read_some(&s, PT_ROOT_ID, handles[i], &cookies[i], 10, NULL), ==,
                        10);
        g_assert_cmpint(read_some(&s, PT_ROOT_ID, handles[i], &cookies[i], 1000, NULL),
                        ==, 82);
        g_assert_cmpint(read_some(&s, PT_ROOT_ID, handles[i], &cookies[i], 1000, NULL),
                        ==, 0);
    }
    g_assert_cmpuint(s.fs->n_dir_buffers, ==, 0);
    for (int i = 0; i < OPEN; i++) {
        g_assert_cmpint(pt_releasedir(s.fs, PT_ROOT_ID, handles[i]), ==, 0);
    }
    scratch_close(&s);
}

static void test_removed_directory(void)
{
    Scratch s = scratch_open();
    uint64_t d = make_dir(&s, PT_ROOT_ID, "d").nodeid;
    uint64_t handle = open_dir(&s, d);
    g_assert_cmpint(pt_rmdir(s.fs, PT_ROOT_ID, "d"), ==, 0);
    g_auto(PtDirCursor) cursor = {0};
    PtDirent entry;
    g_assert_cmpint(pt_dir_begin(s.fs, d, handle, 0, &cursor), ==, 0);
    g_assert_cmpint(pt_dir_next(&cursor, &entry), ==, -ENOENT);
    pt_dir_end(&cursor);
    g_assert_cmpint(pt_fsyncdir(s.fs, d, handle, false), ==, 0);
    scratch_close(&s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (!need_root()) {
        return 0;
    }
    many = scratch_open();
    fill_dir(&many, MANY);
    g_test_add_func("/dir/all-once", test_all_once);
    g_test_add_func("/dir/cookies", test_cookies);
    g_test_add_func("/dir/strange-cookies", test_strange_cookies);
    g_test_add_func("/dir/unread", test_unread);
    g_test_add_func("/dir/rewind-sees-changes", test_rewind_sees_changes);
    g_test_add_func("/dir/rewind-after-nothing", test_rewind_after_nothing);
    g_test_add_func("/dir/end-again", test_end_again);
    g_test_add_func("/dir/end-first", test_end_first);
    g_test_add_func("/dir/back-from-the-end", test_back_from_the_end);
    g_test_add_func("/dir/changes-while-walking", test_changes_while_walking);
    g_test_add_func("/dir/lookup", test_lookup);
    g_test_add_func("/dir/lookup-of-vanished", test_lookup_of_vanished);
    g_test_add_func("/dir/two-walks", test_two_walks);
    g_test_add_func("/dir/threads", test_threads);
    g_test_add_func("/dir/buffers-are-limited", test_buffers_are_limited);
    g_test_add_func("/dir/removed-directory", test_removed_directory);
    int status = g_test_run();
    scratch_close(&many);
    return status;
}
