/* SPDX-License-Identifier: Apache-2.0 */
/*
 * READDIR and READDIRPLUS: every entry once, whatever the reply's size, and no lookup
 * that the guest does not hear of.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "tests/support/fuse-harness.h"

#define ROOT_HANDLE (PT_ROOT_ID + NULL_FS_HANDLE_BASE)
/* The largest entries: a name of 255 bytes. */
#define MOST_PLAIN 280u
#define MOST_PLUS 408u

#define ADD(message, type, ...)                                                          \
    message_add((message), &(struct type){__VA_ARGS__}, sizeof(struct type))

typedef struct Listing {
    Harness *harness;
    bool plus;
    size_t room; /* beside the size asked, to be sure that the lesser counts */
    uint64_t offset;
    size_t n_entries;
    uint64_t n_nodes; /* entries that came with a node */
} Listing;

static int ask(Listing *listing, uint32_t size)
{
    Message message;

    message_begin(&message, listing->plus ? FUSE_READDIRPLUS : FUSE_READDIR);
    ADD(&message, fuse_read_in, .fh = ROOT_HANDLE, .offset = listing->offset,
        .size = size);
    return harness_run(listing->harness, &message, listing->room, true);
}

static void check_node(Listing *listing, const struct fuse_entry_out *entry)
{
    static const unsigned char zeros[sizeof(*entry)];
    bool has_node = listing->n_entries >= 2 && listing->n_entries != NULL_FS_DIR_ABSENT;

    if (has_node) {
        g_assert_cmpuint(entry->nodeid, !=, 0);
        listing->n_nodes++;
    } else {
        g_assert_true(memcmp(entry, zeros, sizeof(zeros)) == 0);
    }
}

/* Return: whether there was anything. */
static bool check_entries(Listing *listing)
{
    const unsigned char *at = harness_body(listing->harness);
    size_t left = harness_body_size(listing->harness);
    bool has_any = left > 0;

    while (left > 0) {
        size_t start = listing->plus ? sizeof(struct fuse_entry_out) : 0;
        const struct fuse_dirent *dirent = (const void *)(at + start);
        g_assert_cmpuint(left, >=, start + sizeof(*dirent));
        size_t size = FUSE_REC_ALIGN(start + sizeof(*dirent) + dirent->namelen);
        g_assert_cmpuint(left, >=, size);
        for (size_t i = start + sizeof(*dirent) + dirent->namelen; i < size; i++) {
            g_assert_cmphex(at[i], ==, 0);
        }
        if (listing->plus) {
            check_node(listing, (const void *)at);
        }
        listing->n_entries++;
        g_assert_cmpuint(dirent->off, ==, listing->n_entries);
        g_assert_cmpuint(dirent->ino, ==, listing->n_entries);
        listing->offset = dirent->off;
        at += size;
        left -= size;
    }
    return has_any;
}

static void list_all(Listing *listing, uint32_t size)
{
    NullFsStats before, after;

    null_fs_stats(listing->harness->fs, &before);
    listing->offset = 0;
    listing->n_entries = 0;
    listing->n_nodes = 0;
    do {
        g_assert_cmpint(ask(listing, size), ==, 0);
        g_assert_cmpuint(harness_body_size(listing->harness), <=, size);
    } while (check_entries(listing));
    g_assert_cmpuint(listing->n_entries, ==, NULL_FS_DIR_ENTRIES);
    null_fs_stats(listing->harness->fs, &after);
    /* What did not fit was put back, and not looked up. */
    g_assert_cmpuint(after.dirents - before.dirents, ==, listing->n_entries);
    g_assert_cmpuint(after.lookups - before.lookups, ==, listing->n_nodes);
    g_assert_cmpuint(after.forgets, ==, before.forgets);
}

static void test_all(gconstpointer plus)
{
    g_autoptr(Harness) harness = harness_new(NULL);
    Listing listing = {
        .harness = harness, .plus = plus != NULL, .room = HARNESS_OUT_SIZE};
    uint32_t least = listing.plus ? MOST_PLUS : MOST_PLAIN;

    harness_init(harness, UINT64_MAX);
    for (uint32_t size = least; size < 1500; size += 3) {
        harness->split = size % 7;
        listing.room = 16 + size + size % 5;
        list_all(&listing, size);
    }
    listing.room = HARNESS_OUT_SIZE;
    list_all(&listing, 4096);
    list_all(&listing, 32768);
}

/* The reply's room counts, if it is less than the size that was named. */
static void test_room(gconstpointer plus)
{
    g_autoptr(Harness) harness = harness_new(NULL);
    Listing listing = {.harness = harness, .plus = plus != NULL};
    uint32_t least = listing.plus ? MOST_PLUS : MOST_PLAIN;

    harness_init(harness, UINT64_MAX);
    for (listing.room = 16 + least; listing.room < 900; listing.room += 7) {
        harness->split = (unsigned int)listing.room % 5;
        list_all(&listing, UINT32_MAX);
    }
}

/* Too small for the next entry: an error, because nothing would mean the end. */
static void test_too_small(gconstpointer plus)
{
    g_autoptr(Harness) harness = harness_new(NULL);
    Listing listing = {
        .harness = harness, .plus = plus != NULL, .room = HARNESS_OUT_SIZE};
    NullFsStats stats;

    harness_init(harness, UINT64_MAX);
    for (uint32_t size = 0; size < (listing.plus ? 160 : 32); size++) {
        g_assert_cmpint(ask(&listing, size), ==, -EINVAL);
        listing.room = 16 + size;
        g_assert_cmpint(ask(&listing, 4096), ==, -EINVAL);
        listing.room = HARNESS_OUT_SIZE;
    }
    null_fs_stats(harness->fs, &stats);
    g_assert_cmpuint(stats.lookups, ==, 0);
    /* At the end there is no next entry. */
    listing.offset = NULL_FS_DIR_ENTRIES;
    g_assert_cmpint(ask(&listing, 0), ==, 0);
    listing.offset = UINT64_MAX;
    g_assert_cmpint(ask(&listing, 4096), ==, 0);
}

/* An error in the middle: first what was found, then the error. */
static void test_error(gconstpointer plus)
{
    g_autoptr(Harness) harness = harness_new(NULL);
    Listing listing = {
        .harness = harness, .plus = plus != NULL, .room = HARNESS_OUT_SIZE};

    harness_init(harness, UINT64_MAX);
    null_fs_fail_entry(harness->fs, 10);
    g_assert_cmpint(ask(&listing, 32768), ==, 0);
    g_assert_true(check_entries(&listing));
    g_assert_cmpuint(listing.n_entries, ==, 10);
    g_assert_cmpint(ask(&listing, 32768), ==, -EIO);
}

static void test_wrong_handle(gconstpointer plus)
{
    g_autoptr(Harness) harness = harness_new(NULL);
    Message message;

    harness_init(harness, UINT64_MAX);
    message_begin(&message, plus != NULL ? FUSE_READDIRPLUS : FUSE_READDIR);
    ADD(&message, fuse_read_in, .fh = ROOT_HANDLE + 1, .size = 4096);
    g_assert_cmpint(harness_call(harness, &message), ==, -EBADF);
}

static void test_open(void)
{
    g_autoptr(Harness) harness = harness_new(NULL);
    NullFsStats stats;
    Message message;

    harness_init(harness, UINT64_MAX);
    g_assert_true(message_honest(&message, FUSE_OPENDIR));
    g_assert_cmpint(harness_call(harness, &message), ==, 0);
    const struct fuse_open_out *out = harness_body(harness);
    g_assert_cmpuint(out->fh, ==, ROOT_HANDLE);
    message.header.nodeid = 7;
    g_assert_cmpint(harness_call(harness, &message), ==, -ENOTDIR);
    g_assert_true(message_honest(&message, FUSE_FSYNCDIR));
    g_assert_cmpint(harness_call(harness, &message), ==, 0);
    g_assert_true(message_honest(&message, FUSE_RELEASEDIR));
    g_assert_cmpint(harness_call(harness, &message), ==, 0);
    null_fs_stats(harness->fs, &stats);
    g_assert_cmpuint(stats.opens, ==, 1);
    g_assert_cmpuint(stats.releases, ==, 1);
}

#define BOTH(name, function)                                                             \
    g_test_add_data_func("/op-dir/" name "/plain", NULL, function);                      \
    g_test_add_data_func("/op-dir/" name "/plus", "", function)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    BOTH("all", test_all);
    BOTH("room", test_room);
    BOTH("too-small", test_too_small);
    BOTH("error", test_error);
    BOTH("wrong-handle", test_wrong_handle);
    g_test_add_func("/op-dir/open", test_open);
    return g_test_run();
}
