/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_BENCH_ROW_H
#define TESTS_BENCH_ROW_H

#include "tests/bench/job.h"
#include "tests/bench/tree.h"

/** struct Row - one kind of operation: a request, or a few that follow each other. */
typedef struct Row {
    const char *name;
    /**
     * @next: build the operation's request number job->step.
     * Return: 1, or 0 if the operation has ended as it must, else negative errno.
     */
    int (*next)(Tree *tree, Job *job);
    uint32_t size; /* of the data, or of a directory's pieces */
    bool is_slow;  /* needs tree_open_slow() */
    size_t pass;   /* operations until @between is due; 0: any number */
    /** @between: what is not measured, before each pass. Return: 0 or negative errno. */
    int (*between)(Tree *tree);
} Row;

/** row_find() - Return: the row, or NULL. */
const Row *row_find(const char *name);

/** row_ended() - Return: 0 if the last answer is this error and size, else an error. */
int row_ended(const Job *job, int error, size_t size);

/* Operations of more than a few lines (row-dir.c). */
int row_readdir(Tree *tree, Job *job);
int row_readdirplus(Tree *tree, Job *job);
int row_create(Tree *tree, Job *job);

/* Those that take long (row-slow.c). */
int row_read_slow(Tree *tree, Job *job);
int row_fsync_slow(Tree *tree, Job *job);
int row_write_fsync(Tree *tree, Job *job);
int row_copy(Tree *tree, Job *job);

#endif
