/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_BENCH_LOAD_H
#define TESTS_BENCH_LOAD_H

#include "tests/bench/row.h"
#include "tests/support/frontend.h"

/*
 * A closed loop: so many operations of one row in flight, each followed by the next as
 * soon as it has ended. One thread submits, kicks where the device asks for it, and
 * sleeps until an interrupt when nothing has been answered, as a guest does.
 */

typedef struct Load Load;

/** struct LoadPass - what to run, and what came of it. */
typedef struct LoadPass {
    const Row *row;
    unsigned int depth;  /* up to TREE_JOBS */
    uint64_t operations; /* as many at most; 0: any number */
    int64_t duration_ns; /* none begins later, but one in each place */
    int64_t *samples;    /* what each operation took; with room for @n_samples */
    size_t n_samples;    /* reaching it ends the pass */

    uint64_t ret_operations;
    uint64_t ret_requests;
    int64_t ret_elapsed_ns;
} LoadPass;

/** load_memory_size() - Return: what to add to FrontendConfig.memory_size. */
size_t load_memory_size(void);
/** load_new() - Return: a load, or NULL if memory is short. Both outlive it. */
Load *load_new(Frontend *frontend, Tree *tree);
void load_free(Load *load);

/**
 * load_run() - run one pass.
 *
 * Return: 0; what the row says to a wrong answer; -ETIMEDOUT or -ECONNRESET, and then
 * requests may still be in flight: the load is of no more use.
 */
int load_run(Load *load, LoadPass *pass);

/**
 * load_begin_beside() - from now on so many operations of another row are in flight all
 * the time; they are not counted, and passes have that much less depth.
 *
 * Return: 0, -EBUSY if there are some already, or what the row says.
 */
int load_begin_beside(Load *load, const Row *row, unsigned int n);
/** load_end_beside() - wait for the last of them. Return: as load_run(). */
int load_end_beside(Load *load);

/** load_now() - Return: nanoseconds of the monotonic clock. */
int64_t load_now(void);

#endif
