/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_BENCH_TREE_H
#define TESTS_BENCH_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/support/fuse-client.h"

/*
 * The share as the guest knows it. On the host are, before the daemon starts: "big"
 * (TREE_BIG_SIZE bytes), "data/00" to "data/63" (TREE_DATA_SIZE each), and directories of
 * files "f0000000" and so on; for rows that are slow also "huge" and "slow/00" and so on.
 * "work-LABEL" is made here, with a directory for each job.
 */

#define TREE_JOBS 65u /* 64, and one beside them */
#define TREE_FILES 64u
#define TREE_SLOW 16u
#define TREE_HUGE_SIZE (128u << 20)
#define TREE_BIG_SIZE (1u << 20)
#define TREE_DATA_SIZE (64u << 10)
#define TREE_OWN_SIZE (256u << 10)
#define TREE_NAME_MAX 16u

/** struct TreeFile - a file that stays open. */
typedef struct TreeFile {
    uint64_t nodeid;
    uint64_t fh;
} TreeFile;

/** struct TreeOwn - where one job changes what it likes. */
typedef struct TreeOwn {
    uint64_t directory;
    TreeFile file; /* of TREE_OWN_SIZE, to be written */
    bool moved;    /* "from" is "to" now */
} TreeOwn;

/** struct TreeEntry - what the guest owes for one file of the directory. */
typedef struct TreeEntry {
    uint64_t nodeid;
    uint64_t lookups;
} TreeEntry;

typedef struct Tree {
    Client *client;
    TreeFile big;
    TreeFile data[TREE_FILES];
    TreeOwn own[TREE_JOBS];
    TreeFile huge;
    TreeFile slow[TREE_SLOW]; /* on a file system that takes its time */
    bool has_slow;

    uint64_t directory;
    size_t n_entries; /* in the directory */
    size_t n_known;   /* the first ones, which are never forgotten */
    TreeEntry *entries;
} Tree;

/** tree_open() - look up and open what the rows use. Return: 0 or negative errno. */
int tree_open(Tree *tree, Client *client, const char *label);
void tree_clear(Tree *tree);
/** tree_open_slow() - the same for the rows that are slow. */
int tree_open_slow(Tree *tree);

/** tree_use() - take a directory, of which no file is known. Return: as above. */
int tree_use(Tree *tree, const char *name, size_t n_entries);
/** tree_know() - look up the first @n_known files; no fewer than before. Return: so. */
int tree_know(Tree *tree, size_t n_known);

/** tree_name() - the name of the directory's file @index. */
void tree_name(char name[TREE_NAME_MAX], size_t index);
/** tree_seen() - the guest was told of file @index, and owes a FORGET. */
void tree_seen(Tree *tree, size_t index, uint64_t nodeid);
/** tree_seen_name() - the same for a name, which need not be one of them. */
void tree_seen_name(Tree *tree, const char *name, size_t length, uint64_t nodeid);

/** tree_lookup() - look up files @from to @to. Return: as above. */
int tree_lookup(Tree *tree, size_t from, size_t to);
/** tree_forget() - forget all but one lookup of what is known. Return: as above. */
int tree_forget(Tree *tree);

#endif
