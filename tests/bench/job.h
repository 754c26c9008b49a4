/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_BENCH_JOB_H
#define TESTS_BENCH_JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/support/guest-memory.h"
#include "tests/support/virtqueue.h"

/*
 * One of the operations that run side by side: a request at a time, in guest memory of
 * its own that is laid out as a Linux guest does it.
 */

/** The largest WRITE and the largest answer to a READ. */
#define JOB_IN_MAX (128u << 10)
#define JOB_OUT_MAX (1u << 20)

struct Row;

typedef struct Job {
    /* What a row reads and keeps. */
    const struct Row *row;
    unsigned int index;   /* among those that run side by side */
    unsigned int step;    /* requests of this operation that were answered */
    uint64_t turn;        /* operations of this pass that began before */
    int error;            /* of the last answer: 0 or negative errno */
    const uint8_t *reply; /* what followed its header */
    size_t reply_size;
    uint64_t nodeid;
    uint64_t fh;
    uint64_t offset;
    uint64_t count;

    /* What the load keeps. */
    int64_t began_ns;
    uint8_t *in;
    uint8_t *out;
    size_t in_size;
    size_t out_size;
    uint64_t unique;
} Job;

/** job_init() - take guest memory. Return: 0 or -ENOMEM. */
int job_init(Job *job, GuestMemory *memory, unsigned int index);

/** job_request() - begin a request; job_put*() add to it, in order. */
void job_request(Job *job, uint32_t opcode, uint64_t nodeid);
/** job_put() - arguments; with @bytes NULL whatever lies there. */
void job_put(Job *job, const void *bytes, size_t size);
/** job_put_name() - a name and its NUL. */
void job_put_name(Job *job, const char *name);

/** job_submit() - send the request. Return: 0 or negative errno. */
int job_submit(Job *job, Virtqueue *queue, const GuestMemory *memory);
/** job_complete() - look at the answer. Return: 0, or -EPROTO if it is malformed. */
int job_complete(Job *job, uint32_t used);
/** job_is_urgent() - Return: whether the request goes to hiprio. */
bool job_is_urgent(const Job *job);

#endif
