/* SPDX-License-Identifier: Apache-2.0 */
/* Operations of many requests: a directory read to its end, a file's whole life. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <string.h>

#include "tests/bench/row.h"
#include "tests/support/fuse-ops.h"

#define CREATED_NAME "created"
#define ALL_READ UINT64_MAX /* Job.offset: the end was found */

/* ---- directories ------------------------------------------------------------ */

/* Count the entries of a piece, and remember where the next one begins. */
static int take_piece(Tree *tree, Job *job, bool plus)
{
    const size_t lead = plus ? offsetof(struct fuse_direntplus, dirent) : 0;
    struct fuse_entry_out entry = {.nodeid = 0};
    struct fuse_dirent dirent;

    for (size_t at = 0; at < job->reply_size;) {
        const uint8_t *record = job->reply + at;
        size_t left = job->reply_size - at;
        if (left < lead + FUSE_NAME_OFFSET) {
            return -EPROTO;
        }
        if (plus) {
            memcpy(&entry, record, sizeof(entry));
        }
        memcpy(&dirent, record + lead, FUSE_NAME_OFFSET);
        if (dirent.namelen > left - lead - FUSE_NAME_OFFSET) {
            return -EPROTO;
        }
        tree_seen_name(tree, (const char *)record + lead + FUSE_NAME_OFFSET,
                       dirent.namelen, entry.nodeid);
        job->offset = dirent.off;
        job->count++;
        at += FUSE_DIRENT_ALIGN(lead + FUSE_NAME_OFFSET + dirent.namelen);
    }
    return 0;
}

static void open_directory(const Tree *tree, Job *job)
{
    const struct fuse_open_in in = {.flags = O_RDONLY | O_DIRECTORY};

    job->offset = 0;
    job->count = 0;
    job_request(job, FUSE_OPENDIR, tree->directory);
    job_put(job, &in, sizeof(in));
}

static void read_directory(const Tree *tree, Job *job, bool plus)
{
    const struct fuse_read_in in = {
        .fh = job->fh, .offset = job->offset, .size = job->row->size};

    job_request(job, plus ? FUSE_READDIRPLUS : FUSE_READDIR, tree->directory);
    job_put(job, &in, sizeof(in));
}

static void release_directory(const Tree *tree, Job *job)
{
    const struct fuse_release_in in = {.fh = job->fh};

    job->offset = ALL_READ;
    job_request(job, FUSE_RELEASEDIR, tree->directory);
    job_put(job, &in, sizeof(in));
}

static int list(Tree *tree, Job *job, bool plus)
{
    struct fuse_open_out out;

    if (job->step == 0) {
        open_directory(tree, job);
        return 1;
    }
    if (job->error != 0) {
        return job->error;
    }
    if (job->step == 1) {
        int rc = row_ended(job, 0, sizeof(out));
        if (rc < 0) {
            return rc;
        }
        memcpy(&out, job->reply, sizeof(out));
        job->fh = out.fh;
    } else if (job->offset == ALL_READ) {
        return job->count >= tree->n_entries ? 0 : -EIO;
    } else if (job->reply_size == 0) {
        release_directory(tree, job);
        return 1;
    } else if (take_piece(tree, job, plus) < 0) {
        return -EPROTO;
    }
    read_directory(tree, job, plus);
    return 1;
}

int row_readdir(Tree *tree, Job *job)
{
    return list(tree, job, false);
}

int row_readdirplus(Tree *tree, Job *job)
{
    return list(tree, job, true);
}

/* ---- a file's whole life ---------------------------------------------------- */

static uint64_t own_directory(const Tree *tree, const Job *job)
{
    return tree->own[job->index].directory;
}

static void create_file(const Tree *tree, Job *job)
{
    const struct fuse_create_in in = {
        .flags = O_RDWR | O_CREAT, .mode = S_IFREG | 0644, .umask = 022};

    job_request(job, FUSE_CREATE, own_directory(tree, job));
    job_put(job, &in, sizeof(in));
    job_put_name(job, CREATED_NAME);
}

static int write_file(Job *job)
{
    struct fuse_write_in in = {.size = job->row->size};
    ClientCreated created;
    int rc = row_ended(job, 0, sizeof(created));

    if (rc < 0) {
        return rc;
    }
    memcpy(&created, job->reply, sizeof(created));
    job->nodeid = created.entry.nodeid;
    in.fh = job->fh = created.open.fh;
    job_request(job, FUSE_WRITE, job->nodeid);
    job_put(job, &in, sizeof(in));
    job_put(job, NULL, job->row->size);
    return 1;
}

static int release_file(Job *job)
{
    const struct fuse_release_in in = {.fh = job->fh, .flags = O_RDWR};
    int rc = row_ended(job, 0, sizeof(struct fuse_write_out));

    job_request(job, FUSE_RELEASE, job->nodeid);
    job_put(job, &in, sizeof(in));
    return rc < 0 ? rc : 1;
}

static int unlink_file(const Tree *tree, Job *job)
{
    int rc = row_ended(job, 0, 0);

    job_request(job, FUSE_UNLINK, own_directory(tree, job));
    job_put_name(job, CREATED_NAME);
    return rc < 0 ? rc : 1;
}

/* A guest does so at once when the last name is gone. */
static int forget_file(Job *job)
{
    const struct fuse_forget_in in = {.nlookup = 1};
    int rc = row_ended(job, 0, 0);

    job_request(job, FUSE_FORGET, job->nodeid);
    job_put(job, &in, sizeof(in));
    return rc < 0 ? rc : 1;
}

int row_create(Tree *tree, Job *job)
{
    switch (job->step) {
    case 0:
        create_file(tree, job);
        return 1;
    case 1:
        return write_file(job);
    case 2:
        return release_file(job);
    case 3:
        return unlink_file(tree, job);
    case 4:
        return forget_file(job);
    default:
        return 0;
    }
}
