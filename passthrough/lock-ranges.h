/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_LOCK_RANGES_H
#define PASSTHROUGH_LOCK_RANGES_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Which ranges of a file one lock owner holds, as it would be told to somebody else.
 */

/** As many ranges are remembered; programs hold a handful. */
#define PT_LOCK_RANGES_MAX 32

/** typedef PtLockRange - bytes @start to @end, both included. */
typedef struct PtLockRange {
    uint64_t start;
    uint64_t end;  /* INT64_MAX: however long the file grows */
    uint32_t type; /* F_RDLCK, F_WRLCK; F_UNLCK only as an argument */
} PtLockRange;

/** typedef PtLockRanges - sorted, without overlap; neighbours differ or do not touch. */
typedef struct PtLockRanges {
    uint32_t n;
    bool unknown; /* there were too many: @n is 0, and says nothing */
    PtLockRange items[PT_LOCK_RANGES_MAX];
} PtLockRanges;

/** pt_lock_ranges_set() - as fcntl(2) sets one: @range replaces what it overlaps. */
void pt_lock_ranges_set(PtLockRanges *ranges, const PtLockRange *range);

/** pt_lock_ranges_conflict() - Return: whether @range could not be had by another. */
bool pt_lock_ranges_conflict(const PtLockRanges *ranges, const PtLockRange *range);

#endif
