/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests are written where the device reads them, so that the load costs little of the
 * core that it may share with the daemon. A row's requests are well formed and bounded
 * by construction.
 */
#include "tests/bench/job.h"

#include <errno.h>
#include <linux/fuse.h>
#include <string.h>

#include "tests/support/reply-room.h"
#include "tests/support/segments.h"

int job_init(Job *job, GuestMemory *memory, unsigned int index)
{
    /* A page in front for the header, another behind for arguments and names. */
    uint8_t *in = guest_memory_alloc(memory, JOB_IN_MAX + 2 * SEGMENTS_PAGE, 4096);
    uint8_t *out = guest_memory_alloc(memory, JOB_OUT_MAX + SEGMENTS_PAGE, 4096);

    if (in == NULL || out == NULL) {
        return -ENOMEM;
    }
    *job = (Job){
        .index = index,
        .in = in + SEGMENTS_IN_LEAD,
        .out = out + SEGMENTS_OUT_LEAD,
        /* 0 ends QEMU's daemon. */
        .unique = 2 * (uint64_t)(index + 1),
    };
    return 0;
}

void job_request(Job *job, uint32_t opcode, uint64_t nodeid)
{
    const struct fuse_in_header header = {
        .opcode = opcode, .nodeid = nodeid, .unique = job->unique, .pid = 1};

    memcpy(job->in, &header, sizeof(header));
    job->in_size = sizeof(header);
}

void job_put(Job *job, const void *bytes, size_t size)
{
    if (bytes != NULL) {
        memcpy(job->in + job->in_size, bytes, size);
    }
    job->in_size += size;
}

void job_put_name(Job *job, const char *name)
{
    job_put(job, name, strlen(name) + 1);
}

static uint32_t opcode_of(const Job *job)
{
    uint32_t opcode;

    memcpy(&opcode, job->in + offsetof(struct fuse_in_header, opcode), sizeof(opcode));
    return opcode;
}

bool job_is_urgent(const Job *job)
{
    return !reply_is_expected(opcode_of(job));
}

int job_submit(Job *job, Virtqueue *queue, const GuestMemory *memory)
{
    const SegmentsPlan plan = {.split = SEGMENTS_LINUX,
                               .limit = segments_limit(queue),
                               .opcode = opcode_of(job)};
    const uint32_t length = (uint32_t)job->in_size;
    Segments in;
    Segments out = {.n = 0};

    memcpy(job->in + offsetof(struct fuse_in_header, len), &length, sizeof(length));
    job->out_size = 0;
    int rc = segments_cut_in(&in, &plan, guest_memory_gpa(memory, job->in), job->in_size);
    if (rc == 0 && reply_is_expected(plan.opcode)) {
        job->out_size =
            reply_room(job->in, job->in_size) + sizeof(struct fuse_out_header);
        rc = segments_cut_out(&out, &plan, guest_memory_gpa(memory, job->out),
                              job->out_size);
    }
    if (rc == 0) {
        rc = virtqueue_submit(
            queue,
            &(VirtqueueRequest){
                .in = in.at, .n_in = in.n, .out = out.at, .n_out = out.n, .tag = job});
    }
    return rc < 0 ? rc : 0;
}

int job_complete(Job *job, uint32_t used)
{
    struct fuse_out_header header = {.len = 0};

    job->error = 0;
    job->reply = job->out + sizeof(header);
    job->reply_size = 0;
    if (job->out_size == 0) {
        return used == 0 ? 0 : -EPROTO;
    }
    memcpy(&header, job->out, sizeof(header));
    if (used < sizeof(header) || header.len != used || header.unique != job->unique ||
        header.error > 0) {
        return -EPROTO;
    }
    /* Another one for the next request; even, as those of Linux are. */
    job->unique += UINT64_C(1) << 16;
    job->error = header.error;
    job->reply_size = used - sizeof(header);
    return 0;
}
