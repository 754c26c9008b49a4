/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_DIFFERENTIAL_OP_H
#define TESTS_DIFFERENTIAL_OP_H

#include <stddef.h>
#include <stdint.h>

#include "tests/differential/kind.h"

/*
 * An operation is data: a code, who does it, and numbers that say with what. So a
 * sequence can be drawn, cut, simplified, written down and run again, and means the same
 * each time.
 */

#define OP_ARGS 6
/** How many identities there are: see side.c. */
#define OP_PERSONAS 6

typedef struct Side Side;

typedef struct Op {
    uint16_t code; /* row of ops_rows */
    uint16_t who;
    int64_t arg[OP_ARGS];
} Op;

/** struct OpRow - what there is to know about an operation. */
typedef struct OpRow {
    const char *name;
    void (*run)(Side *side, const Op *op);
    unsigned weight;     /* how often it is drawn; 0: never by itself */
    unsigned needs;      /* OP_NEEDS_* */
    Kind kinds[OP_ARGS]; /* of each argument, KIND_NONE ends them */
} OpRow;

/** What the daemon must have been told to serve. */
#define OP_NEEDS_XATTR 1u
#define OP_NEEDS_ACL 2u
#define OP_NEEDS_TMPFILE 4u
#define OP_NEEDS_IOCTL 8u

extern const OpRow ops_rows[];
extern const size_t ops_n_rows;

/** ops_find() - the row's number, or -1. */
int ops_find(const char *name);

/** op_int() - argument @i as the int that most system calls take. */
static inline int op_int(const Op *op, int i)
{
    return (int)op->arg[i];
}

#endif
