/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_DIFFERENTIAL_COMPARE_H
#define TESTS_DIFFERENTIAL_COMPARE_H

#include <glib.h>

#include "tests/differential/path.h"
#include "tests/differential/side.h"

/*
 * The comparer: whether both sides were told the same, but for the exceptions.
 */

/** struct Times - what a file's times were when they were last seen. */
typedef struct Times {
    OutTime mtime;
    OutTime ctime;
} Times;

/** struct Pair - a file of the mount and its native twin. */
typedef struct Pair {
    uint64_t mount_ino;
    OutTime btime; /* of the native one, to notice that its number is used again */
    uint64_t handle;
    bool seen;    /* mount and native hold something */
    bool spliced; /* the access time is unknown */
    bool roomy;   /* room was made for more than it holds */
    bool cut;     /* and perhaps freed again */
    Times mount;
    Times native;
} Pair;

/** struct Listing - what was seen of a directory through one slot. */
typedef struct Listing {
    uint32_t since;
    uint32_t sought;  /* operation that last went elsewhere in it */
    uint32_t seen[2]; /* names of the alphabet, by bit */
} Listing;

typedef struct Comparer {
    const Mode *mode;
    int64_t start;                /* when the trees were made, in seconds */
    GHashTable *pairs;            /* native inode number to Pair */
    uint32_t touched[PATH_NAMES]; /* operation that last may have changed the name */
    Listing listings[SIDE_SLOTS];
    char path[256]; /* what the fields are about, in a walk */
    /* Of the mismatch, if there is one. */
    const char *field;
    const char *part;
    GString *text;
} Comparer;

/** struct Seen - what an exception is asked about. */
typedef struct Seen {
    const Comparer *comparer;
    const Op *op;
    const char *field;
    const char *part;
    const void *mount; /* the field's bytes */
    const void *native;
} Seen;

/** except_covers() - whether this difference is one of the listed impossibilities. */
bool except_covers(const Seen *seen);
/** except_report() - which exceptions were met how often. */
void except_report(void);
/** except_recent() - whether a time is one of this run, not one that was set. */
bool except_recent(const Comparer *comparer, OutTime time);

void compare_init(Comparer *comparer, const Mode *mode);
void compare_clear(Comparer *comparer);
/** compare_report() - how much of what is not always comparable was compared. */
void compare_report(void);
/**
 * compare_op() - compare what operation @op, number @index, was answered.
 * @at, @end: fields of the mount and of the native side.
 *
 * Return: false for a mismatch; then @field, @part and @text say which.
 */
bool compare_op(Comparer *comparer, const Op *op, uint32_t index,
                const uint8_t *const at[2], const uint8_t *const end[2]);

#endif
