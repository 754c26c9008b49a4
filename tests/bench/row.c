/* SPDX-License-Identifier: Apache-2.0 */
/* The rows of the benchmark: a table, and the requests of each. */
#include "tests/bench/row.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <string.h>

#define KIB 1024u
#define PASS 2048u
#define UNKNOWN_OPCODE 2000u
#define MISSING_NAMES 64u
/* Linux adds it to what a program asks for. */
#define OPEN_FLAGS (O_RDONLY | 0x8000u)
/* Visits all entries in an order that no cache foresees. */
#define STRIDE 7919u

int row_ended(const Job *job, int error, size_t size)
{
    if (job->error == error && job->reply_size == size) {
        return 0;
    }
    return job->error < 0 && job->error != error ? job->error : -EPROTO;
}

static size_t known_entry(const Tree *tree, const Job *job)
{
    return (size_t)(job->turn * STRIDE % tree->n_known);
}

/* One that the guest does not know yet in this pass; some are left. */
static size_t new_entry(const Tree *tree, const Job *job)
{
    return tree->n_known + (size_t)(job->turn % (tree->n_entries - tree->n_known));
}

static int next_empty(Tree *tree, Job *job)
{
    if (job->step > 0) {
        return row_ended(job, -ENOSYS, 0);
    }
    job_request(job, UNKNOWN_OPCODE, FUSE_ROOT_ID);
    return 1;
}

/* ---- names ------------------------------------------------------------------ */

static int lookup_entry(Tree *tree, Job *job, size_t index)
{
    struct fuse_entry_out entry;
    char name[TREE_NAME_MAX];

    if (job->step > 0) {
        int rc = row_ended(job, 0, sizeof(entry));
        if (rc == 0) {
            memcpy(&entry, job->reply, sizeof(entry));
            tree_seen(tree, index, entry.nodeid);
        }
        return rc;
    }
    tree_name(name, index);
    job_request(job, FUSE_LOOKUP, tree->directory);
    job_put_name(job, name);
    return 1;
}

static int next_lookup(Tree *tree, Job *job)
{
    return lookup_entry(tree, job, known_entry(tree, job));
}

static int next_lookup_new(Tree *tree, Job *job)
{
    return lookup_entry(tree, job, new_entry(tree, job));
}

static int next_lookup_none(Tree *tree, Job *job)
{
    char name[TREE_NAME_MAX];

    if (job->step > 0) {
        return row_ended(job, -ENOENT, 0);
    }
    tree_name(name, (size_t)(job->turn % MISSING_NAMES));
    name[0] = 'g';
    job_request(job, FUSE_LOOKUP, tree->directory);
    job_put_name(job, name);
    return 1;
}

static int lookup_pass(Tree *tree)
{
    size_t end = tree->n_known + PASS;
    int rc = tree_forget(tree);

    end = end < tree->n_entries ? end : tree->n_entries;
    return rc < 0 ? rc : tree_lookup(tree, tree->n_known, end);
}

static int next_forget(Tree *tree, Job *job)
{
    TreeEntry *entry = &tree->entries[new_entry(tree, job)];
    const struct fuse_forget_in in = {.nlookup = entry->lookups};

    if (job->step > 0) {
        return 0;
    }
    entry->lookups = 0;
    job_request(job, FUSE_FORGET, entry->nodeid);
    job_put(job, &in, sizeof(in));
    return 1;
}

static int next_rename(Tree *tree, Job *job)
{
    TreeOwn *own = &tree->own[job->index];
    const struct fuse_rename_in in = {.newdir = own->directory};

    if (job->step > 0) {
        own->moved = own->moved != (job->error == 0);
        return row_ended(job, 0, 0);
    }
    job_request(job, FUSE_RENAME, own->directory);
    job_put(job, &in, sizeof(in));
    job_put_name(job, own->moved ? "to" : "from");
    job_put_name(job, own->moved ? "from" : "to");
    return 1;
}

/* ---- attributes ------------------------------------------------------------- */

static int next_getattr(Tree *tree, Job *job)
{
    const struct fuse_getattr_in in = {.getattr_flags = 0};

    if (job->step > 0) {
        return row_ended(job, 0, sizeof(struct fuse_attr_out));
    }
    job_request(job, FUSE_GETATTR, tree->entries[known_entry(tree, job)].nodeid);
    job_put(job, &in, sizeof(in));
    return 1;
}

static int next_setattr(Tree *tree, Job *job)
{
    const struct fuse_setattr_in in = {.valid = FATTR_MODE,
                                       .mode = job->turn / TREE_FILES % 2 ? 0600 : 0644};

    if (job->step > 0) {
        return row_ended(job, 0, sizeof(struct fuse_attr_out));
    }
    job_request(job, FUSE_SETATTR, tree->data[job->turn % TREE_FILES].nodeid);
    job_put(job, &in, sizeof(in));
    return 1;
}

/* What a guest asks before each write, in vain. */
static int next_getxattr(Tree *tree, Job *job)
{
    const struct fuse_getxattr_in in = {.size = 24};

    if (job->step > 0) {
        return row_ended(job, -ENODATA, 0);
    }
    job_request(job, FUSE_GETXATTR, tree->data[job->turn % TREE_FILES].nodeid);
    job_put(job, &in, sizeof(in));
    job_put_name(job, "security.capability");
    return 1;
}

static int next_statfs(Tree *tree, Job *job)
{
    if (job->step > 0) {
        return row_ended(job, 0, sizeof(struct fuse_statfs_out));
    }
    job_request(job, FUSE_STATFS, FUSE_ROOT_ID);
    return 1;
}

/* ---- files ------------------------------------------------------------------ */

static int next_open(Tree *tree, Job *job)
{
    const struct fuse_open_in in = {.flags = OPEN_FLAGS};
    struct fuse_release_in release = {.flags = OPEN_FLAGS};
    struct fuse_open_out out;
    int rc;

    switch (job->step) {
    case 0:
        job->nodeid = tree->data[job->turn % TREE_FILES].nodeid;
        job_request(job, FUSE_OPEN, job->nodeid);
        job_put(job, &in, sizeof(in));
        return 1;
    case 1:
        rc = row_ended(job, 0, sizeof(out));
        if (rc < 0) {
            return rc;
        }
        memcpy(&out, job->reply, sizeof(out));
        release.fh = out.fh;
        job_request(job, FUSE_RELEASE, job->nodeid);
        job_put(job, &release, sizeof(release));
        return 1;
    default:
        return row_ended(job, 0, 0);
    }
}

static int next_flush(Tree *tree, Job *job)
{
    const TreeFile *file = &tree->own[job->index].file;
    const struct fuse_flush_in in = {.fh = file->fh};

    if (job->step > 0) {
        return row_ended(job, 0, 0);
    }
    job_request(job, FUSE_FLUSH, file->nodeid);
    job_put(job, &in, sizeof(in));
    return 1;
}

static int read_file(Job *job, const TreeFile *file, uint64_t offset)
{
    const struct fuse_read_in in = {
        .fh = file->fh, .offset = offset, .size = job->row->size};

    if (job->step > 0) {
        return row_ended(job, 0, job->row->size);
    }
    job_request(job, FUSE_READ, file->nodeid);
    job_put(job, &in, sizeof(in));
    return 1;
}

static int next_read(Tree *tree, Job *job)
{
    return read_file(job, &tree->big, job->turn * job->row->size % TREE_BIG_SIZE);
}

static int next_read_many(Tree *tree, Job *job)
{
    return read_file(job, &tree->data[job->turn % TREE_FILES],
                     job->turn / TREE_FILES * job->row->size % TREE_DATA_SIZE);
}

static int next_write(Tree *tree, Job *job)
{
    const TreeFile *file = &tree->own[job->index].file;
    const struct fuse_write_in in = {.fh = file->fh,
                                     .offset = job->turn * job->row->size % TREE_OWN_SIZE,
                                     .size = job->row->size};
    struct fuse_write_out out;

    if (job->step > 0) {
        int rc = row_ended(job, 0, sizeof(out));
        memcpy(&out, job->reply, sizeof(out));
        return rc < 0 || out.size == job->row->size ? rc : -EIO;
    }
    job_request(job, FUSE_WRITE, file->nodeid);
    job_put(job, &in, sizeof(in));
    job_put(job, NULL, job->row->size);
    return 1;
}

/* What a guest that looks around asks, by turns. */
static int next_mixed(Tree *tree, Job *job)
{
    switch (job->turn % 3) {
    case 0:
        return next_lookup(tree, job);
    case 1:
        return next_getattr(tree, job);
    default:
        return next_read(tree, job);
    }
}

static const Row rows[] = {
    {.name = "empty", .next = next_empty},
    {.name = "lookup", .next = next_lookup},
    {.name = "lookup-new", .next = next_lookup_new, .pass = PASS, .between = tree_forget},
    {.name = "lookup-none", .next = next_lookup_none},
    {.name = "forget", .next = next_forget, .pass = PASS, .between = lookup_pass},
    {.name = "getattr", .next = next_getattr},
    {.name = "setattr", .next = next_setattr},
    {.name = "open", .next = next_open},
    {.name = "create", .next = row_create, .size = 4 * KIB},
    {.name = "rename", .next = next_rename},
    {.name = "read-4k", .next = next_read, .size = 4 * KIB},
    {.name = "read-4k-many", .next = next_read_many, .size = 4 * KIB},
    {.name = "read-128k", .next = next_read, .size = 128 * KIB},
    {.name = "read-1m", .next = next_read, .size = 1024 * KIB},
    {.name = "write-4k", .next = next_write, .size = 4 * KIB},
    {.name = "write-128k", .next = next_write, .size = 128 * KIB},
    {.name = "flush", .next = next_flush},
    {.name = "readdir", .next = row_readdir, .size = 4 * KIB},
    {.name = "readdirplus", .next = row_readdirplus, .size = 4 * KIB},
    {.name = "readdirplus-new",
     .next = row_readdirplus,
     .size = 4 * KIB,
     .pass = 1,
     .between = tree_forget},
    {.name = "getxattr", .next = next_getxattr},
    {.name = "statfs", .next = next_statfs},
    {.name = "mixed", .next = next_mixed, .size = 4 * KIB},
    {.name = "read-slow", .next = row_read_slow, .size = 4 * KIB, .is_slow = true},
    {.name = "fsync-slow", .next = row_fsync_slow, .pass = TREE_SLOW, .is_slow = true},
    {.name = "write-fsync", .next = row_write_fsync, .size = 128 * KIB},
    {.name = "copy", .next = row_copy, .size = TREE_HUGE_SIZE, .is_slow = true},
};

const Row *row_find(const char *name)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (strcmp(rows[i].name, name) == 0) {
            return &rows[i];
        }
    }
    return NULL;
}
