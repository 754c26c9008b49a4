/* SPDX-License-Identifier: Apache-2.0 */
/* The closed loop, over all queues in one thread. */
#include "tests/bench/load.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>

#define QUEUES_MAX 64u
#define PATIENCE_MS 30000
#define JOB_BYTES (JOB_IN_MAX + JOB_OUT_MAX + (16u << 10))

struct Load {
    Frontend *frontend;
    Tree *tree;
    Job jobs[TREE_JOBS];
    unsigned int n_queues; /* hiprio included */

    /* The last jobs. */
    unsigned int n_beside;
    unsigned int beside_active;
    bool beside_ends;

    /* Of the pass. */
    LoadPass *pass;
    int64_t deadline_ns;
    uint64_t begun;
    unsigned int active;
    int error; /* the first one; nothing begins any more */
};

size_t load_memory_size(void)
{
    return (size_t)TREE_JOBS * JOB_BYTES;
}

int64_t load_now(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

Load *load_new(Frontend *frontend, Tree *tree)
{
    Load *load = calloc(1, sizeof(*load));

    if (load == NULL || frontend_n_queues(frontend) > QUEUES_MAX) {
        free(load);
        return NULL;
    }
    load->frontend = frontend;
    load->tree = tree;
    load->n_queues = frontend_n_queues(frontend);
    for (unsigned int i = 0; i < TREE_JOBS; i++) {
        if (job_init(&load->jobs[i], frontend_memory(frontend), i) < 0) {
            load_free(load);
            return NULL;
        }
    }
    return load;
}

void load_free(Load *load)
{
    free(load);
}

/* ---- operations ------------------------------------------------------------- */

static void fail(Load *load, int error)
{
    load->error = load->error == 0 ? error : load->error;
}

static bool is_beside(const Load *load, const Job *job)
{
    return job->index >= TREE_JOBS - load->n_beside;
}

/* Send the operation's next request. Return: false if it has ended. */
static bool advance(Load *load, Job *job)
{
    int rc = job->row->next(load->tree, job);

    if (rc == 1) {
        unsigned int queue =
            job_is_urgent(job) ? 0 : 1 + job->index % (load->n_queues - 1);
        rc = job_submit(job, frontend_queue(load->frontend, queue),
                        frontend_memory(load->frontend));
        if (rc == 0) {
            if (!is_beside(load, job)) {
                load->pass->ret_requests++;
            }
            return true;
        }
    }
    if (rc < 0) {
        fail(load, rc);
    }
    return false;
}

static bool begin(Load *load, Job *job, int64_t now)
{
    job->step = 0;
    job->turn = load->begun++;
    job->began_ns = now;
    return advance(load, job);
}

/* Another one, which nobody counts. */
static void begin_beside(Load *load, Job *job)
{
    job->step = 0;
    job->turn++;
    load->beside_active += advance(load, job);
}

static bool may_begin(const Load *load, int64_t now)
{
    const LoadPass *pass = load->pass;

    return load->error == 0 && load->begun < pass->n_samples &&
           (pass->operations == 0 || load->begun < pass->operations) &&
           (load->begun < pass->depth || now < load->deadline_ns);
}

static void answered(Load *load, const VirtqueueCompletion *completion)
{
    LoadPass *pass = load->pass;
    Job *job = completion->tag;
    int rc = job_complete(job, completion->length);

    job->step++;
    if (rc < 0) {
        fail(load, rc);
    } else if (advance(load, job)) {
        return;
    }
    if (is_beside(load, job)) {
        load->beside_active--;
        if (load->error == 0 && !load->beside_ends) {
            begin_beside(load, job);
        }
        return;
    }
    int64_t now = load_now();
    if (load->error == 0) {
        pass->samples[pass->ret_operations++] = now - job->began_ns;
    }
    if (!may_begin(load, now) || !begin(load, job, now)) {
        load->active--;
    }
}

/* ---- the loop --------------------------------------------------------------- */

/* Return: whether something was answered; an error ends the pass. */
static bool drain(Load *load)
{
    VirtqueueCompletion completion;
    bool some = false;

    for (unsigned int i = 0; i < load->n_queues; i++) {
        int rc;
        while ((rc = virtqueue_poll(frontend_queue(load->frontend, i), &completion)) ==
               1) {
            answered(load, &completion);
            some = true;
        }
        if (rc < 0) {
            fail(load, rc);
        }
    }
    return some;
}

/* Until an interrupt. Return: 0, or an error if there is nobody to send one. */
static int wait_for_some(Load *load)
{
    struct pollfd fds[QUEUES_MAX + 1];
    bool there = false;

    for (unsigned int i = 0; i < load->n_queues; i++) {
        Virtqueue *queue = frontend_queue(load->frontend, i);
        fds[i] = (struct pollfd){.fd = virtqueue_call_fd(queue), .events = POLLIN};
        there = virtqueue_arm(queue) || there;
    }
    if (there) {
        return 0;
    }
    fds[load->n_queues] =
        (struct pollfd){.fd = frontend_socket(load->frontend), .events = POLLRDHUP};
    if (poll(fds, load->n_queues + 1, PATIENCE_MS) <= 0) {
        return -ETIMEDOUT;
    }
    if (fds[load->n_queues].revents != 0) {
        return -ECONNRESET;
    }
    for (unsigned int i = 0; i < load->n_queues; i++) {
        if (fds[i].revents != 0) {
            virtqueue_acknowledge(frontend_queue(load->frontend, i));
        }
    }
    return 0;
}

/* Until none of those that @active counts is in flight. */
static int finish(Load *load, const unsigned int *active)
{
    while (*active > 0) {
        int rc = drain(load) ? 0 : wait_for_some(load);
        if (rc < 0) {
            return rc;
        }
    }
    return load->error;
}

int load_begin_beside(Load *load, const Row *row, unsigned int n)
{
    if (load->n_beside > 0) {
        return -EBUSY;
    }
    load->error = 0;
    load->n_beside = n;
    load->beside_ends = false;
    for (unsigned int i = TREE_JOBS - n; i < TREE_JOBS; i++) {
        load->jobs[i].row = row;
        load->jobs[i].turn = 0;
        begin_beside(load, &load->jobs[i]);
    }
    return load->error;
}

int load_end_beside(Load *load)
{
    load->error = 0;
    load->beside_ends = true;
    int rc = finish(load, &load->beside_active);
    load->n_beside = 0;
    return rc;
}

int load_run(Load *load, LoadPass *pass)
{
    int64_t began = load_now();

    if (pass->depth > TREE_JOBS - load->n_beside) {
        return -EINVAL;
    }
    load->pass = pass;
    load->deadline_ns = began + pass->duration_ns;
    load->begun = 0;
    load->active = 0;
    load->error = 0;
    pass->ret_operations = 0;
    pass->ret_requests = 0;
    for (unsigned int i = 0; i < pass->depth && may_begin(load, began); i++) {
        load->jobs[i].row = pass->row;
        load->active += begin(load, &load->jobs[i], load_now());
    }
    int rc = finish(load, &load->active);
    pass->ret_elapsed_ns = load_now() - began;
    return rc;
}
