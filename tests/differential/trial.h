/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_DIFFERENTIAL_TRIAL_H
#define TESTS_DIFFERENTIAL_TRIAL_H

#include <glib.h>
#include <inttypes.h>
#include <stdio.h>

#include "tests/differential/side.h"

/*
 * A sequence of operations, run on two fresh trees.
 */

/** struct Trial - where trees are made. */
typedef struct Trial {
    const Mode *mode;
    const char *directories[2]; /* the mount's and the native one */
    unsigned count;             /* trees so far */
    unsigned first;             /* of the count, so that names do not repeat */
} Trial;

/** struct Finding - the first mismatch of a sequence. */
typedef struct Finding {
    size_t index; /* of the operation */
    uint16_t code;
    const char *field;
    const char *part;
    char text[1024];
} Finding;

typedef enum Verdict {
    VERDICT_SAME,
    VERDICT_DIFFERENT,
    VERDICT_BROKEN, /* could not be run */
} Verdict;

/** trial_run() - @ops on fresh trees, which are removed again. */
Verdict trial_run(Trial *trial, const Op *ops, size_t n, Finding *ret_finding);
/** trial_report() - how often each operation succeeded, and with which errors it failed.
 */
void trial_report(void);
/** trial_draw() - append @n operations that @seed decides, with walks, to @ops. */
void trial_draw(const Mode *mode, uint64_t seed, size_t n, GArray *ops);

/** shrink() - make @ops as short and simple as possible while it differs like @finding.
 */
void shrink(Trial *trial, GArray *ops, Finding *finding, gint64 seconds);

/** script_write() - one line for each operation, with its meaning. */
void script_write(FILE *file, const Op *ops, size_t n);
/** script_read() - append what script_write() wrote; false and words if it is none. */
gboolean script_read(const char *path, GArray *ops, GError **error);
/** script_parse() - one line, which is changed; false if it is no operation. */
gboolean script_parse(char *line, Op *ret_op);
/** script_tell() - the operation in words. */
char *script_tell(const Op *op);

#endif
