/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/lock-ranges.h"

#include <fcntl.h>
#include <string.h>

/*
 * The kernel has the locks; this is a note of them, kept for what the kernel does not
 * tell: whose lock is in the way, and what to take along to another descriptor. The note
 * is bounded. An owner with more ranges than fit is not refused anything, only not known.
 */

/* One range may cut another in two. */
#define ROOM (PT_LOCK_RANGES_MAX + 2)

typedef struct Builder {
    uint32_t n;
    PtLockRange items[ROOM];
} Builder;

/* Append what comes after all there is, joined to it where it continues it. */
static void append(Builder *builder, uint64_t start, uint64_t end, uint32_t type)
{
    PtLockRange *last = builder->n > 0 ? &builder->items[builder->n - 1] : NULL;
    if (last != NULL && last->type == type && last->end + 1 == start) {
        last->end = end;
        return;
    }
    builder->items[builder->n++] = (PtLockRange){start, end, type};
}

static void append_if_locked(Builder *builder, const PtLockRange *range)
{
    if (range->type != F_UNLCK) {
        append(builder, range->start, range->end, range->type);
    }
}

static void build(Builder *builder, const PtLockRanges *old, const PtLockRange *range)
{
    bool is_placed = false;
    for (uint32_t i = 0; i < old->n; i++) {
        const PtLockRange *item = &old->items[i];
        if (item->start < range->start) {
            uint64_t end = item->end < range->start ? item->end : range->start - 1;
            append(builder, item->start, end, item->type);
        }
        if (!is_placed && item->end >= range->start) {
            append_if_locked(builder, range);
            is_placed = true;
        }
        if (item->end > range->end) {
            uint64_t start = item->start > range->end ? item->start : range->end + 1;
            append(builder, start, item->end, item->type);
        }
    }
    if (!is_placed) {
        append_if_locked(builder, range);
    }
}

void pt_lock_ranges_set(PtLockRanges *ranges, const PtLockRange *range)
{
    Builder builder = {0};
    bool is_all = range->start == 0 && range->end == INT64_MAX;
    if (ranges->unknown && !is_all) {
        return;
    }
    build(&builder, ranges, range);
    ranges->unknown = builder.n > PT_LOCK_RANGES_MAX;
    ranges->n = ranges->unknown ? 0 : builder.n;
    memcpy(ranges->items, builder.items, ranges->n * sizeof(builder.items[0]));
}

bool pt_lock_ranges_conflict(const PtLockRanges *ranges, const PtLockRange *range)
{
    for (uint32_t i = 0; i < ranges->n; i++) {
        const PtLockRange *item = &ranges->items[i];
        bool overlap = item->start <= range->end && range->start <= item->end;
        if (overlap && (item->type == F_WRLCK || range->type == F_WRLCK)) {
            return true;
        }
    }
    return false;
}
