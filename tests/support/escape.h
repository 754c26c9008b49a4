/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SUPPORT_ESCAPE_H
#define TESTS_SUPPORT_ESCAPE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/support/fuse-client.h"

/*
 * A folder of the share, the arena, in which threads of the host swap directories and
 * files with symbolic links that lead out of the share, while a guest, or a naive program
 * of the host, works on those names. What they lead to is the canary.
 *
 *     arena/swap     a directory          | exchanged with bait, a link to the canary
 *     arena/file     a file               | with filebait, a link to the canary's secret
 *     arena/solid    a file               | with dangle, a link to what is not there
 *
 * The canary has the directory's names: secret, victim, pointer, empty, sub/leaf. Its
 * contents, link targets and attribute values, and the name of one of its files, contain
 * CANARY_MARK.
 */

#define CANARY_MARK "CANARY"
#define CANARY_INODES 64
#define ESCAPE_SWAPPERS 2

/** enum EscapeKind - families of operations; escape_kind_name() has their names. */
typedef enum EscapeKind {
    ESCAPE_READ,
    ESCAPE_WRITE,
    ESCAPE_CREATE,
    ESCAPE_DANGLE,
    ESCAPE_MKDIR,
    ESCAPE_NODE,
    ESCAPE_RENAME,
    ESCAPE_LINK,
    ESCAPE_UNLINK,
    ESCAPE_XATTR,
    ESCAPE_SETATTR,
    ESCAPE_READLINK,
    ESCAPE_LIST,
    ESCAPE_FILE,
    ESCAPE_DEEP,
    ESCAPE_EXCHANGE,
    ESCAPE_KINDS,
} EscapeKind;

typedef struct EscapeTally {
    _Atomic uint64_t tried[ESCAPE_KINDS];
    _Atomic uint64_t done[ESCAPE_KINDS];    /* what was asked for was done, somewhere */
    _Atomic uint64_t escaped[ESCAPE_KINDS]; /* and that was the canary */
} EscapeTally;

typedef struct Escape {
    const char *arena;
    int arena_fd;
    int canary_fd;
    uint64_t canary_inodes[CANARY_INODES];
    size_t n_canary_inodes;
    _Atomic bool stop;
    _Atomic uint64_t swaps;
    EscapeTally tally;
} Escape;

/** escape_init() - @arena and @canary are paths of the host. Return: 0 or -errno. */
int escape_init(Escape *escape, const char *arena, const char *canary);
const char *escape_kind_name(EscapeKind kind);
/** escape_is_canary() - Return: whether this is the number of one of its files. */
bool escape_is_canary(const Escape *escape, uint64_t inode);
/** escape_has_mark() - Return: whether the bytes contain CANARY_MARK. */
bool escape_has_mark(const void *bytes, size_t size);
/** escape_random() - Return: the next of a series. */
uint64_t escape_random(uint64_t *state);
/** escape_print() - the tally, one line for each kind. */
void escape_print(Escape *escape);

/** escape_swap() - a thread that swaps until escape->stop. @data: the Escape. */
void *escape_swap(void *data);

/** escape_naive() - @n times each kind, by plain paths. */
void escape_naive(Escape *escape, uint64_t n);
/** escape_guest() - @n operations of a guest, with two threads. Return: 0 or -errno. */
int escape_guest(Escape *escape, Client *client, uint64_t n);

#endif
