/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SANDBOX_SECCOMP_ROW_H
#define SANDBOX_SECCOMP_ROW_H

#include <seccomp.h>
#include <stdint.h>

/*
 * The words in which seccomp-list.h is written.
 */

/** enum SeccompAnswer - what becomes of a call. */
typedef enum SeccompAnswer {
    SECCOMP_ALLOW,      /* whatever the arguments */
    SECCOMP_ALLOW_IF,   /* if (argument[index] & mask) == value */
    SECCOMP_ALLOW_SELF, /* the same, and argument[0] is our process id */
    SECCOMP_ABSENT,     /* fails with ENOENT */
} SeccompAnswer;

/** struct SeccompRow - one system call, or one way to use it. */
typedef struct SeccompRow {
    const char *name;
    int call; /* negative: not on this architecture */
    SeccompAnswer answer;
    unsigned int index;
    uint64_t mask;
    uint64_t value;
    const char *needed_by;
} SeccompRow;

/* clang-format off */
#define ROW(call, ...) {#call, SCMP_SYS(call), __VA_ARGS__}
/* clang-format on */

/* Whatever the arguments. */
#define ALLOW(call, who) ROW(call, SECCOMP_ALLOW, 0, 0, 0, who)
/* If argument @i (from 0) is @value. */
#define ALLOW_IS(call, i, value, who)                                                    \
    ROW(call, SECCOMP_ALLOW_IF, i, UINT64_MAX, value, who)
/* If argument @i has none of @bits. */
#define ALLOW_LACKS(call, i, bits, who) ROW(call, SECCOMP_ALLOW_IF, i, bits, 0, who)
/* If argument 0 is our process id, and argument @i is @value. */
#define ALLOW_SELF(call, i, value, who)                                                  \
    ROW(call, SECCOMP_ALLOW_SELF, i, UINT64_MAX, value, who)
/* No such file. */
#define ABSENT(call, who) ROW(call, SECCOMP_ABSENT, 0, 0, 0, who)

#endif
