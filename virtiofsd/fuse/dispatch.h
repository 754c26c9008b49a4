/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_FUSE_DISPATCH_H
#define VIRTIOFSD_FUSE_DISPATCH_H

#include <stdint.h>

#include "virtiofsd/fuse/op.h"

/*
 * The opcode table, and the code that obeys it.
 */

/** enum OpTail - what follows the fixed part. */
typedef enum OpTail {
    OP_TAIL_NONE,
    OP_TAIL_NAME,        /* one name */
    OP_TAIL_TWO_NAMES,   /* old and new name */
    OP_TAIL_NAME_TARGET, /* a name and what a symbolic link leads to */
    OP_TAIL_BYTES,       /* any number of bytes, judged by the operation */
} OpTail;

/** enum OpFlags - facts that generic code obeys. */
typedef enum OpFlags {
    OP_MODIFIES = 1,    /* EROFS when the share is read-only */
    OP_CREATES = 2,     /* extensions may follow the tail */
    OP_NO_REPLY = 4,    /* the guest expects none, not even an error */
    OP_BEFORE_INIT = 8, /* needs no session */
    OP_NO_WAIT = 16,    /* never waits at the gate: dropped if it is closed */
    OP_ALONE = 32,      /* no other request runs meanwhile */
    OP_LONG = 64,       /* it may take much longer than to tell another worker of that */
} OpFlags;

/** struct Op - one row. */
typedef struct Op {
    const char *name;
    int (*run)(Request *request); /* NULL: ENOSYS, after all checks */
    uint16_t in;                  /* bytes of the fixed part */
    uint16_t out;                 /* room that success needs behind the reply's header */
    uint8_t tail;                 /* enum OpTail */
    uint8_t flags;                /* enum OpFlags */
} Op;

/** dispatch_find() - Return: the row of @opcode, or NULL. */
const Op *dispatch_find(uint32_t opcode);

/**
 * dispatch_run() - decode, check and run one request.
 * @op: its row.
 * @request: header, reader (behind the header) and writer (behind the reply's header) are
 *           set.
 * @slot: of the calling worker, outside the gate.
 *
 * Return: >= 0, or a negative errno; @request->malformed is set if it did not decode.
 */
int dispatch_run(const Op *op, Request *request, GateSlot *slot);

/** dispatch_readonly() - Return: whether what a decoded request would change is
 * read-only: the whole share, or on the host the mount that it is on. */
bool dispatch_readonly(const Request *request);

#endif
