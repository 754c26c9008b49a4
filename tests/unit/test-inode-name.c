/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/by-name.h"

#include "passthrough/entry.h"

/*
 * Inodes that are held by name: listed, not opened. What the guest does to the names it
 * must not lose, what the host does to them must not lead it to another file.
 */

static const uint64_t root = PT_ROOT_ID;

static void assert_none_left(const Scratch *s)
{
    PtStats stats = scratch_stats(s);
    g_assert_cmpuint(stats.inodes, ==, 1);
    g_assert_cmpuint(stats.descriptors, ==, 1);
    g_assert_cmpuint(n_named(s), ==, 0);
}

/* A scratch directory with the files a, b and c, of which each holds its name. */
static Scratch scratch_abc(void)
{
    Scratch s = scratch_open();
    host_write(&s, "a", "a");
    host_write(&s, "b", "b");
    host_write(&s, "c", "c");
    let_settle();
    return s;
}

static void test_listing_opens_nothing(void)
{
    enum { MANY = 200 };
    uint64_t ids[MANY];
    char name[8];
    Scratch s = scratch_open();
    for (int i = 0; i < MANY; i++) {
        g_snprintf(name, sizeof(name), "%d", i);
        host_write(&s, name, "x");
    }
    let_settle();
    for (int i = 0; i < MANY; i++) {
        g_snprintf(name, sizeof(name), "%d", i);
        ids[i] = listed(&s, root, name);
        g_assert_false(is_open(&s, ids[i]));
        g_assert_cmpuint(ids[i], ==, lookup(&s, root, name).nodeid);
    }
    g_assert_cmpuint(scratch_stats(&s).descriptors, ==, 1);
    g_assert_cmpuint(n_named(&s), ==, MANY);
    g_assert_cmpuint(getattr(&s, ids[7]).stx.stx_ino, ==, host_stat(&s, "7").st_ino);
    g_assert_false(is_open(&s, ids[7]));
    g_assert_cmpuint(getattr(&s, ids[7]).stx.stx_ino, ==, host_stat(&s, "7").st_ino);
    g_assert_true(is_open(&s, ids[7]));
    g_assert_cmpint(content(&s, ids[8]), ==, 'x');
    g_assert_true(is_open(&s, ids[8]));
    g_assert_cmpuint(scratch_stats(&s).descriptors, ==, 3);
    for (int i = 0; i < MANY; i++) {
        pt_forget(s.fs, ids[i], 2);
    }
    assert_none_left(&s);
    scratch_close(&s);
}

static void test_looking_up_opens_directories(void)
{
    Scratch s = scratch_abc();
    host_mkdir(&s, "directory");
    g_assert_cmpint(symlinkat("target", s.dir, "link"), ==, 0);
    let_settle();
    uint64_t a = lookup(&s, root, "a").nodeid;
    uint64_t link = lookup(&s, root, "link").nodeid;
    uint64_t directory = lookup(&s, root, "directory").nodeid;
    g_assert_false(is_open(&s, a) || is_open(&s, link));
    g_assert_true(is_open(&s, directory));
    g_assert_cmpuint(listed(&s, root, "a"), ==, a);
    g_assert_cmpint(content(&s, a), ==, 'a');
    pt_forget(s.fs, a, 2);
    pt_forget(s.fs, link, 1);
    pt_forget(s.fs, directory, 1);
    assert_none_left(&s);
    scratch_close(&s);
}

static void test_every_type(void)
{
    Scratch s = scratch_open();
    char target[16];
    host_mkdir(&s, "directory");
    g_assert_cmpint(symlinkat("target", s.dir, "link"), ==, 0);
    g_assert_cmpint(mknodat(s.dir, "fifo", S_IFIFO | 0600, 0), ==, 0);
    let_settle();
    uint64_t directory = listed(&s, root, "directory");
    uint64_t link = listed(&s, root, "link");
    uint64_t fifo = listed(&s, root, "fifo");
    g_assert_false(is_open(&s, directory) || is_open(&s, link) || is_open(&s, fifo));
    g_assert_cmpint(pt_readlink(s.fs, link, target, sizeof(target)), ==, 6);
    g_assert_true(S_ISFIFO(getattr(&s, fifo).stx.stx_mode));
    g_assert_cmpint(lookup_error(&s, directory, "x"), ==, -ENOENT);
    scratch_close(&s);
}

/* Another file may be given the number of a young one, and be born in the same tick. */
static void test_new_files_are_opened(void)
{
    Scratch s = scratch_open();
    host_write(&s, "a", "a");
    g_assert_true(is_open(&s, listed(&s, root, "a")));
    host_write(&s, "b", "b");
    g_assert_true(is_open(&s, lookup(&s, root, "b").nodeid));
    scratch_close(&s);
}

/* ---- what the host does ------------------------------------------------------------ */

static void test_replaced(void)
{
    Scratch s = scratch_abc();
    uint64_t a = listed(&s, root, "a");
    host_rename(&s, "b", "a");
    g_assert_cmpint(getattr_error(&s, a), ==, -ESTALE);
    g_assert_cmpint(content(&s, a), ==, -ESTALE);
    uint64_t now = lookup(&s, root, "a").nodeid;
    g_assert_cmpuint(now, !=, a);
    g_assert_cmpint(content(&s, now), ==, 'b');
    scratch_close(&s);
}

/* Until the host gives the number to another file. */
static void test_number_used_again(void)
{
    Scratch s = scratch_abc();
    uint64_t a = listed(&s, root, "a");
    ino_t ino = host_stat(&s, "a").st_ino;
    int tries = 0;
    do {
        g_assert_cmpint(unlinkat(s.dir, "a", 0), ==, 0);
        host_write(&s, "a", "z");
    } while (host_stat(&s, "a").st_ino != ino && tries++ < 1000);
    if (tries > 1000) {
        g_test_message("this file system uses no number again");
    }
    g_assert_cmpint(getattr_error(&s, a), ==, -ESTALE);
    g_assert_cmpint(content(&s, a), ==, -ESTALE);
    uint64_t now = lookup(&s, root, "a").nodeid;
    g_assert_cmpuint(now, !=, a);
    g_assert_cmpint(content(&s, now), ==, 'z');
    scratch_close(&s);
}

static void test_removed(void)
{
    Scratch s = scratch_abc();
    uint64_t a = listed(&s, root, "a");
    g_assert_cmpint(unlinkat(s.dir, "a", 0), ==, 0);
    g_assert_cmpint(getattr_error(&s, a), ==, -ESTALE);
    g_assert_cmpint(lookup_error(&s, root, "a"), ==, -ENOENT);
    pt_forget(s.fs, a, 1);
    assert_none_left(&s);
    scratch_close(&s);
}

static void test_becomes_another_type(void)
{
    Scratch s = scratch_abc();
    host_mkdir(&s, "d");
    host_write(&s, "d/f", "f");
    let_settle();
    uint64_t d = listed(&s, root, "d");
    uint64_t f = listed(&s, d, "f");
    /* d has been opened; a new process' look at the share would not have it. */
    uint64_t a = listed(&s, root, "a");
    g_assert_cmpint(unlinkat(s.dir, "a", 0), ==, 0);
    g_assert_cmpint(symlinkat("d/f", s.dir, "a"), ==, 0);
    g_assert_cmpint(content(&s, a), ==, -ESTALE);
    g_assert_cmpint(unlinkat(s.dir, "d/f", 0), ==, 0);
    g_assert_cmpint(symlinkat("../b", s.dir, "d/f"), ==, 0);
    g_assert_cmpint(content(&s, f), ==, -ESTALE);
    scratch_close(&s);
}

/* What is open stays usable whatever becomes of the name, also by the node's id. */
static void test_removed_while_open(void)
{
    Scratch s = scratch_abc();
    char byte;
    uint64_t a = listed(&s, root, "a");
    uint64_t handle = open_node(&s, a, O_RDWR).handle;
    close_idle(&s, a);
    host_rename(&s, "b", "a");
    g_assert_cmpuint(getattr(&s, a).stx.stx_nlink, ==, 0);
    g_assert_cmpint(content(&s, a), ==, 'a');
    g_assert_cmpint(read_text(&s, a, handle, 0, &byte, 1), ==, 1);
    g_assert_cmpint(pt_release(s.fs, a, handle), ==, 0);
    scratch_close(&s);
}

/* A name that the guest sees later counts more than one that it saw earlier. */
static void test_moved_by_the_host(void)
{
    Scratch s = scratch_abc();
    uint64_t a = listed(&s, root, "a");
    host_rename(&s, "a", "elsewhere");
    g_assert_cmpuint(lookup(&s, root, "elsewhere").nodeid, ==, a);
    g_assert_false(is_open(&s, a));
    g_assert_cmpint(content(&s, a), ==, 'a');
    /* One of two names goes. */
    uint64_t b = listed(&s, root, "b");
    g_assert_cmpint(linkat(s.dir, "b", s.dir, "b2", 0), ==, 0);
    g_assert_cmpint(unlinkat(s.dir, "b", 0), ==, 0);
    g_assert_cmpuint(listed(&s, root, "b2"), ==, b);
    g_assert_cmpint(content(&s, b), ==, 'b');
    scratch_close(&s);
}

/* The guest's view of two directories can become a circle that the host never had. */
static void test_no_circle(void)
{
    Scratch s = scratch_open();
    host_mkdir(&s, "a");
    host_mkdir(&s, "a/b");
    let_settle();
    uint64_t a = listed(&s, root, "a");
    uint64_t b = listed(&s, a, "b");
    host_rename(&s, "a/b", "b");
    host_rename(&s, "a", "b/a");
    g_assert_cmpint(getattr_error(&s, b), ==, -ESTALE);
    /* By its handle, which was not asked whether b has moved, the guest sees a in b. */
    PtNode node = {.fs = s.fs, .inode = inode_of(&s, b), .fd = -1};
    node.fd = openat(s.dir, "b", O_PATH | O_CLOEXEC);
    PtPlace place = {node.inode, node.fd, "a"};
    PtEntry entry;
    g_assert_cmpint(pt_entry_look_up(s.fs, &place, &entry), ==, 0);
    g_assert_cmpuint(entry.nodeid, ==, a);
    close(node.fd);
    g_assert_cmpint(getattr_error(&s, a), ==, 0); /* it is open */
    g_assert_cmpuint(lookup(&s, root, "b").nodeid, ==, b);
    g_assert_cmpint(getattr_error(&s, b), ==, 0);
    pt_forget(s.fs, a, 2);
    pt_forget(s.fs, b, 2);
    assert_none_left(&s);
    scratch_close(&s);
}

/* ---- what the guest does ----------------------------------------------------------- */

static void test_unlink(void)
{
    Scratch s = scratch_abc();
    uint64_t a = listed(&s, root, "a");
    g_assert_cmpint(linkat(s.dir, "b", s.dir, "b2", 0), ==, 0);
    uint64_t b = listed(&s, root, "b");
    uint64_t c = listed(&s, root, "c");
    g_assert_cmpint(pt_unlink(s.fs, root, "a"), ==, 0);
    g_assert_cmpint(pt_unlink(s.fs, root, "b2"), ==, 0); /* under another name */
    g_assert_cmpuint(getattr(&s, a).stx.stx_nlink, ==, 0);
    g_assert_cmpint(content(&s, a), ==, 'a');
    g_assert_cmpint(content(&s, b), ==, 'b');
    g_assert_false(is_open(&s, c));
    g_assert_cmpint(pt_unlink(s.fs, root, "none"), ==, -ENOENT);
    scratch_close(&s);
}

/* Under the name at which it was seen last, and only there is it looked for. */
static void test_unlink_where_seen(void)
{
    Scratch s = scratch_abc();
    uint64_t a = lookup(&s, root, "a").nodeid;
    uint64_t b = lookup(&s, root, "b").nodeid;
    g_assert_cmpuint(n_named(&s), ==, 2);
    host_rename(&s, "a", "elsewhere");
    g_assert_cmpuint(lookup(&s, root, "elsewhere").nodeid, ==, a);
    g_assert_cmpuint(n_named(&s), ==, 2);
    g_assert_cmpint(pt_unlink(s.fs, root, "c"), ==, 0);
    g_assert_false(is_open(&s, a) || is_open(&s, b));
    g_assert_cmpint(pt_unlink(s.fs, root, "elsewhere"), ==, 0);
    g_assert_cmpuint(n_named(&s), ==, 1);
    g_assert_cmpint(content(&s, a), ==, 'a');
    close_idle(&s, b);
    g_assert_cmpint(guest_rename(&s, root, "b", root, "b2", 0), ==, 0);
    g_assert_cmpuint(n_named(&s), ==, 0);
    close_idle(&s, b);
    g_assert_cmpint(pt_unlink(s.fs, root, "b2"), ==, 0);
    g_assert_cmpint(content(&s, b), ==, 'b');
    pt_forget(s.fs, a, 2);
    pt_forget(s.fs, b, 1);
    assert_none_left(&s);
    scratch_close(&s);
}

static void test_rmdir(void)
{
    Scratch s = scratch_abc();
    host_mkdir(&s, "d");
    let_settle();
    uint64_t d = listed(&s, root, "d");
    g_assert_cmpint(pt_rmdir(s.fs, root, "d"), ==, 0);
    g_assert_cmpuint(getattr(&s, d).stx.stx_nlink, ==, 0);
    scratch_close(&s);
}

static void test_rename(void)
{
    Scratch s = scratch_abc();
    host_mkdir(&s, "d");
    let_settle();
    uint64_t a = listed(&s, root, "a");
    uint64_t b = listed(&s, root, "b");
    uint64_t d = lookup(&s, root, "d").nodeid;
    g_assert_cmpint(guest_rename(&s, root, "a", root, "b", 0), ==, 0);
    g_assert_cmpint(content(&s, a), ==, 'a');
    g_assert_cmpint(content(&s, b), ==, 'b'); /* it has no name any more */
    g_assert_cmpint(guest_rename(&s, root, "b", d, "x", 0), ==, 0);
    g_assert_cmpint(content(&s, a), ==, 'a');
    uint64_t c = listed(&s, root, "c");
    g_assert_cmpint(guest_rename(&s, d, "x", root, "c", RENAME_EXCHANGE), ==, 0);
    g_assert_cmpint(content(&s, a), ==, 'a');
    g_assert_cmpint(content(&s, c), ==, 'c');
    g_assert_cmpuint(lookup(&s, root, "c").nodeid, ==, a);
    g_assert_cmpuint(lookup(&s, d, "x").nodeid, ==, c);
    g_assert_cmpint(guest_rename(&s, root, "none", d, "y", 0), ==, -ENOENT);
    scratch_close(&s);
}

static void test_link(void)
{
    Scratch s = scratch_abc();
    PtEntry entry;
    uint64_t a = listed(&s, root, "a");
    g_assert_cmpint(pt_link(s.fs, a, root, "new", &entry), ==, 0);
    g_assert_cmpuint(entry.nodeid, ==, a);
    g_assert_cmpuint(entry.attr.stx.stx_nlink, ==, 2);
    scratch_close(&s);
}

/* ---- trees --------------------------------------------------------------------------
 */

enum { DEEP = 100 };

/* A chain of directories, all listed; the last holds a file "f". */
static uint64_t list_chain(const Scratch *s, uint64_t *ids)
{
    uint64_t at = root;
    int fd = dup(s->dir);
    for (int i = 0; i < DEEP; i++) {
        g_assert_cmpint(mkdirat(fd, "d", 0755), ==, 0);
        int below = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        close(fd);
        fd = below;
    }
    g_assert_cmpint(mknodat(fd, "f", S_IFREG | 0600, 0), ==, 0);
    close(fd);
    let_settle();
    for (int i = 0; i < DEEP; i++) {
        ids[i] = listed(s, at, "d");
        at = ids[i];
    }
    return listed(s, at, "f");
}

static void close_all(const Scratch *s, const uint64_t *ids)
{
    for (int i = 0; i < DEEP; i++) {
        close_idle(s, ids[i]);
    }
}

static void test_deep(void)
{
    uint64_t ids[DEEP];
    Scratch s = scratch_open();
    uint64_t f = list_chain(&s, ids);
    close_all(&s, ids);
    g_assert_cmpuint(scratch_stats(&s).descriptors, ==, 1);
    g_assert_true(S_ISREG(getattr(&s, f).stx.stx_mode));
    g_assert_true(is_open(&s, ids[DEEP / 2]));
    close_all(&s, ids);
    /* A directory on the way moves, and takes all with it. */
    g_assert_cmpint(guest_rename(&s, ids[40], "d", root, "moved", 0), ==, 0);
    close_all(&s, ids);
    g_assert_cmpint(getattr_error(&s, ids[60]), ==, 0);
    /* The guest need not give them back from below. */
    for (int i = 0; i < DEEP; i++) {
        pt_forget(s.fs, ids[i], 1);
    }
    g_assert_cmpuint(scratch_stats(&s).inodes, ==, DEEP - 41 + 2); /* those above too */
    g_assert_cmpint(getattr_error(&s, f), ==, 0);
    g_assert_cmpint(getattr_error(&s, ids[50]), ==, -ESTALE);
    pt_forget(s.fs, f, 1);
    assert_none_left(&s);
    scratch_close(&s);
}

/* The same without a single descriptor to keep. */
static void test_deep_and_full(void)
{
    uint64_t ids[DEEP];
    Scratch s = scratch_open();
    uint64_t f = list_chain(&s, ids);
    close_all(&s, ids);
    s.fs->config.max_descriptors = 1;
    int before = count_fds();
    g_assert_cmpint(getattr_error(&s, f), ==, 0);
    g_assert_cmpint(guest_rename(&s, ids[90], "d", ids[10], "moved", 0), ==, 0);
    g_assert_cmpint(getattr_error(&s, f), ==, 0);
    g_assert_cmpint(guest_rename(&s, ids[98], "d", root, "last", 0), ==, 0);
    g_assert_cmpint(getattr_error(&s, f), ==, 0);
    g_assert_cmpint(count_fds(), ==, before);
    g_assert_cmpuint(scratch_stats(&s).descriptors, ==, 1);
    s.fs->config.max_descriptors = 1000;
    pt_fs_reset(s.fs);
    assert_none_left(&s);
    scratch_close(&s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (!need_root()) {
        return 0;
    }
    g_test_add_func("/inode-name/listing-opens-nothing", test_listing_opens_nothing);
    g_test_add_func("/inode-name/every-type", test_every_type);
    g_test_add_func("/inode-name/looking-up-opens-directories",
                    test_looking_up_opens_directories);
    g_test_add_func("/inode-name/new-files-are-opened", test_new_files_are_opened);
    g_test_add_func("/inode-name/replaced", test_replaced);
    g_test_add_func("/inode-name/number-used-again", test_number_used_again);
    g_test_add_func("/inode-name/removed", test_removed);
    g_test_add_func("/inode-name/becomes-another-type", test_becomes_another_type);
    g_test_add_func("/inode-name/removed-while-open", test_removed_while_open);
    g_test_add_func("/inode-name/moved-by-the-host", test_moved_by_the_host);
    g_test_add_func("/inode-name/no-circle", test_no_circle);
    g_test_add_func("/inode-name/unlink", test_unlink);
    g_test_add_func("/inode-name/unlink-where-seen", test_unlink_where_seen);
    g_test_add_func("/inode-name/rmdir", test_rmdir);
    g_test_add_func("/inode-name/rename", test_rename);
    g_test_add_func("/inode-name/link", test_link);
    g_test_add_func("/inode-name/deep", test_deep);
    g_test_add_func("/inode-name/deep-and-full", test_deep_and_full);
    return g_test_run();
}
