/* SPDX-License-Identifier: Apache-2.0 */
/* Operations that keep a thread of the daemon for long. */
#include <errno.h>
#include <linux/fuse.h>
#include <string.h>

#include "tests/bench/row.h"

#define DIRTY_SIZE (4u << 20) /* what one FSYNC writes to the disk */

static const TreeFile *slow_file(const Tree *tree, const Job *job)
{
    return &tree->slow[job->index % TREE_SLOW];
}

int row_read_slow(Tree *tree, Job *job)
{
    const TreeFile *file = slow_file(tree, job);
    const struct fuse_read_in in = {.fh = file->fh, .size = job->row->size};

    if (job->step > 0) {
        return job->error; /* it may be short */
    }
    job_request(job, FUSE_READ, file->nodeid);
    job_put(job, &in, sizeof(in));
    return 1;
}

static int fsync_file(Job *job, const TreeFile *file)
{
    const struct fuse_fsync_in in = {.fh = file->fh};

    job_request(job, FUSE_FSYNC, file->nodeid);
    job_put(job, &in, sizeof(in));
    return 1;
}

int row_fsync_slow(Tree *tree, Job *job)
{
    return job->step > 0 ? row_ended(job, 0, 0) : fsync_file(job, slow_file(tree, job));
}

int row_write_fsync(Tree *tree, Job *job)
{
    const TreeFile *file = &tree->own[job->index].file;
    const uint32_t n_writes = DIRTY_SIZE / job->row->size;
    const struct fuse_write_in in = {.fh = file->fh,
                                     .offset = (uint64_t)job->step * job->row->size,
                                     .size = job->row->size};

    if (job->step > n_writes) {
        return row_ended(job, 0, 0);
    }
    int rc = job->step == 0 ? 0 : row_ended(job, 0, sizeof(struct fuse_write_out));
    if (rc < 0) {
        return rc;
    }
    if (job->step == n_writes) {
        return fsync_file(job, file);
    }
    job_request(job, FUSE_WRITE, file->nodeid);
    job_put(job, &in, sizeof(in));
    job_put(job, NULL, job->row->size);
    return 1;
}

int row_copy(Tree *tree, Job *job)
{
    const TreeFile *file = &tree->own[job->index].file;
    const struct fuse_copy_file_range_in in = {.fh_in = tree->huge.fh,
                                               .nodeid_out = file->nodeid,
                                               .fh_out = file->fh,
                                               .len = job->row->size};

    if (job->step > 0) {
        return row_ended(job, 0, sizeof(struct fuse_write_out));
    }
    job_request(job, FUSE_COPY_FILE_RANGE, tree->huge.nodeid);
    job_put(job, &in, sizeof(in));
    return 1;
}
