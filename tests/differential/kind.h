/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_DIFFERENTIAL_KIND_H
#define TESTS_DIFFERENTIAL_KIND_H

#include <glib.h>
#include <inttypes.h>

/*
 * The kinds of arguments: how one is drawn, told, and made simpler.
 */

/** struct Rng - a sequence of numbers that its seed decides (splitmix64). */
typedef struct Rng {
    uint64_t state;
} Rng;

uint64_t rng_next(Rng *rng);
/** rng_below() - one of 0 to @n - 1. */
uint32_t rng_below(Rng *rng, uint32_t n);

typedef enum Kind {
    KIND_NONE,
    KIND_AT,       /* a slot whose directory a path begins at, or -1 */
    KIND_PATH,     /* see path.h */
    KIND_DIR_PATH, /* rather of a directory */
    KIND_TARGET,
    KIND_SLOT,
    KIND_DIR_SLOT, /* rather of a directory */
    KIND_REGISTER, /* where telldir's answers are kept */
    KIND_OFFSET,
    KIND_LENGTH,
    KIND_SEED,
    KIND_OPEN,
    KIND_MODE,
    KIND_TYPE,
    KIND_DEVICE,
    KIND_WHENCE,
    KIND_RWF,
    KIND_FALLOCATE,
    KIND_ODD, /* flags of a call that knows none */
    KIND_REMOVE,
    KIND_LINK,
    KIND_RENAME,
    KIND_NOFOLLOW,
    KIND_UID,
    KIND_GID,
    KIND_TIME,
    KIND_ACCESS,
    KIND_ACCESS_FLAGS,
    KIND_STAT_FLAGS,
    KIND_STATX_MASK,
    KIND_COUNT, /* of directory entries */
    KIND_ROOM,  /* for a list or a value */
    KIND_XATTR,
    KIND_XATTR_FLAGS,
    KIND_XATTR_SIZE,
    KIND_IOCTL,
    KIND_FILE_FLAGS,
    KIND_ADVICE,
    KIND_SYNC,
    KIND_STATUS, /* F_SETFL */
    KIND_PROT,
    KIND_MSYNC,
    KIND_FLOCK,
    KIND_LOCK,
    KIND_LOCK_COMMAND,
    KIND_UMASK,
    KIND_BOOL,
    KIND_N,
} Kind;

int64_t kind_draw(Kind kind, Rng *rng);
/** kind_tell() - append what @value means. */
void kind_tell(Kind kind, int64_t value, GString *text);
/**
 * kind_simpler() - the @i-th simpler value to try.
 *
 * Return: false if there is none.
 */
gboolean kind_simpler(Kind kind, int64_t value, unsigned i, int64_t *ret_value);

#endif
