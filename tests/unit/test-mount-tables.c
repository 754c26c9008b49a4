/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's table of mounts and ours: which of ours has a twin that is read-only. Both
 * are plain files here, and the share is the one mount that is looked up.
 */
#include "tests/unit/scratch.h"

#include <inttypes.h>

#include "passthrough/mount-tables.h"

typedef struct Tables {
    Scratch s;
    int own;
    int host;
    uint64_t id;
} Tables;

static void write_table(int fd, const char *text)
{
    g_assert_cmpint(ftruncate(fd, 0), ==, 0);
    g_assert_cmpint(pwrite(fd, text, strlen(text), 0), ==, (ssize_t)strlen(text));
}

static int make_table(const Scratch *s, const char *name)
{
    int fd = openat(s->dir, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    g_assert_cmpint(fd, >=, 0);
    return fd;
}

/* @place: of the share in our own table. */
static Tables tables_open(const char *place)
{
    Tables t = {.s = scratch_open()};
    t.own = make_table(&t.s, "own");
    t.host = make_table(&t.s, "host");
    t.id = pt_mount_tables_id(t.s.dir);
    g_assert_cmpuint(t.id, >, 0);
    g_autofree char *own = g_strdup_printf(
        "%" PRIu64 " 1 8:1 /else /wrong ro - x y rw\n"
        "%" PRIu64 " 1 8:1 /source%%\\040x %s rw,relatime master:1 - ext4 /dev/sda ro\n",
        t.id + 1, t.id, place);
    write_table(t.own, own);
    pt_fs_watch_mounts(t.s.fs, t.own, t.host);
    g_assert_cmpint(pt_fs_mounts_fd(t.s.fs), ==, t.host);
    return t;
}

static bool after(const Tables *t, const char *host)
{
    write_table(t->host, host);
    pt_fs_mounts_changed(t->s.fs);
    return pt_node_readonly(t->s.fs, PT_ROOT_ID);
}

#define LINE(device, root, place, options)                                               \
    "77 1 " device " " root " " place " " options " shared:3 - ext4 /dev/sda rw\n"
#define SOURCE "/source%\\040x"

static void test_twin(void)
{
    Tables t = tables_open("/a");
    g_assert_false(pt_node_readonly(t.s.fs, PT_ROOT_ID));
    g_assert_false(after(&t, LINE("8:1", SOURCE, "/a", "rw,relatime")));
    g_assert_true(after(&t, LINE("8:1", SOURCE, "/a", "ro,relatime")));
    g_assert_true(after(&t, LINE("8:1", SOURCE, "/a", "ro")));
    g_assert_false(after(&t, LINE("8:1", SOURCE, "/a", "rw")));
    g_assert_false(after(&t, LINE("8:1", SOURCE, "/a", "rota,ro")));
    /* Of several, the last one lies on top. */
    g_assert_true(after(&t, LINE("8:1", SOURCE, "/a", "rw")
                                LINE("8:1", SOURCE, "/a", "ro,noatime")));
    g_assert_false(after(&t, LINE("8:1", SOURCE, "/a", "ro")
                                 LINE("8:1", SOURCE, "/a", "rw,noatime")));
    /* A node that nobody holds is nobody's business here. */
    g_assert_true(after(&t, LINE("8:1", SOURCE, "/a", "ro")));
    g_assert_false(pt_node_readonly(t.s.fs, PT_ROOT_ID + 12345));
    scratch_close(&t.s);
}

static void test_others(void)
{
    Tables t = tables_open("/a");
    g_assert_false(after(&t, LINE("8:2", SOURCE, "/a", "ro")));
    g_assert_false(after(&t, LINE("8:1", "/source%", "/a", "ro")));
    g_assert_false(after(&t, "nonsense\n\n 1 2 3\n"));
    g_assert_false(after(&t, ""));
    scratch_close(&t.s);
}

static void test_moved(void)
{
    Tables t = tables_open("/a");
    g_assert_true(after(&t, LINE("8:1", SOURCE, "/b", "ro")));
    /* As long as it is not at its place again, nobody says that it may be written. */
    g_assert_true(after(&t, LINE("8:1", SOURCE, "/b", "rw")));
    g_assert_true(after(&t, ""));
    g_assert_false(after(&t, LINE("8:1", SOURCE, "/a", "rw")));
    g_assert_false(after(&t, LINE("8:1", SOURCE, "/b", "rw")));
    scratch_close(&t.s);
    /* The share itself is moved by nobody. */
    t = tables_open("/");
    g_assert_false(after(&t, LINE("8:1", SOURCE, "/b", "ro")));
    g_assert_true(after(&t, LINE("8:1", SOURCE, "/", "ro")));
    scratch_close(&t.s);
}

static void test_long(void)
{
    Tables t = tables_open("/a");
    g_autoptr(GString) host = g_string_new(NULL);
    for (int i = 0; i < 20000; i++) {
        g_string_append(host, LINE("8:1", "/some/other/source", "/somewhere", "rw"));
    }
    g_string_append(host, LINE("8:1", SOURCE, "/a", "ro"));
    g_assert_true(after(&t, host->str));
    scratch_close(&t.s);
}

/* What cannot be read changes nothing. */
static void test_unreadable(void)
{
    Scratch s = scratch_open();
    g_assert_cmpint(pt_fs_mounts_fd(s.fs), ==, -1);
    pt_fs_mounts_changed(s.fs);
    g_assert_false(pt_node_readonly(s.fs, PT_ROOT_ID));
    int host = open(s.path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    pt_fs_watch_mounts(s.fs, -1, host);
    pt_fs_mounts_changed(s.fs);
    g_assert_false(pt_node_readonly(s.fs, PT_ROOT_ID));
    scratch_close(&s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (!need_root()) {
        return 0;
    }
    g_test_add_func("/mount-tables/twin", test_twin);
    g_test_add_func("/mount-tables/others", test_others);
    g_test_add_func("/mount-tables/moved", test_moved);
    g_test_add_func("/mount-tables/long", test_long);
    g_test_add_func("/mount-tables/unreadable", test_unreadable);
    return g_test_run();
}
