/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <glib.h>
#include <string.h>

#include "passthrough/lock-ranges.h"

/*
 * Ranges against a model that has one type per byte, and at their limits.
 */

#define BYTES 64u

static PtLockRange range(uint64_t start, uint64_t end, uint32_t type)
{
    return (PtLockRange){start, end, type};
}

static void set(PtLockRanges *ranges, uint64_t start, uint64_t end, uint32_t type)
{
    PtLockRange one = range(start, end, type);
    pt_lock_ranges_set(ranges, &one);
}

/* The ranges say of each byte what the model says, in the fewest ranges. */
static void check(const PtLockRanges *ranges, const uint32_t *model)
{
    uint32_t n = 0;
    uint32_t at = 0;
    for (uint32_t byte = 0; byte < BYTES; byte++) {
        if (model[byte] != F_UNLCK && (byte == 0 || model[byte - 1] != model[byte])) {
            n++;
        }
        while (at < ranges->n && ranges->items[at].end < byte) {
            at++;
        }
        bool is_in = at < ranges->n && ranges->items[at].start <= byte;
        uint32_t type = is_in ? ranges->items[at].type : (uint32_t)F_UNLCK;
        g_assert_cmpuint(type, ==, model[byte]);
    }
    g_assert_cmpuint(ranges->n, ==, n);
    g_assert_false(ranges->unknown);
}

static bool model_conflicts(const uint32_t *model, const PtLockRange *wanted)
{
    for (uint64_t byte = wanted->start; byte <= wanted->end; byte++) {
        bool both_read = model[byte] == F_RDLCK && wanted->type == F_RDLCK;
        if (model[byte] != F_UNLCK && !both_read) {
            return true;
        }
    }
    return false;
}

static void test_model(void)
{
    static const uint32_t types[] = {F_RDLCK, F_WRLCK, F_UNLCK};
    for (int round = 0; round < 200; round++) {
        PtLockRanges ranges = {0};
        uint32_t model[BYTES];
        for (uint32_t i = 0; i < BYTES; i++) {
            model[i] = F_UNLCK;
        }
        for (int step = 0; step < 60; step++) {
            uint32_t start = (uint32_t)g_test_rand_int_range(0, BYTES);
            uint32_t end = (uint32_t)g_test_rand_int_range((gint32)start, BYTES);
            uint32_t type = types[g_test_rand_int_range(0, 3)];
            PtLockRange wanted = range(start, end, type);
            if (type != F_UNLCK) {
                g_assert_cmpint(pt_lock_ranges_conflict(&ranges, &wanted), ==,
                                model_conflicts(model, &wanted));
            }
            pt_lock_ranges_set(&ranges, &wanted);
            for (uint32_t i = start; i <= end; i++) {
                model[i] = type;
            }
            check(&ranges, model);
        }
    }
}

static void test_to_the_end(void)
{
    PtLockRanges ranges = {0};
    PtLockRange far = range(INT64_MAX, INT64_MAX, F_WRLCK);
    set(&ranges, 10, INT64_MAX, F_WRLCK);
    g_assert_true(pt_lock_ranges_conflict(&ranges, &far));
    set(&ranges, 0, INT64_MAX, F_RDLCK);
    g_assert_cmpuint(ranges.n, ==, 1);
    far.type = F_RDLCK;
    g_assert_false(pt_lock_ranges_conflict(&ranges, &far));
    set(&ranges, INT64_MAX, INT64_MAX, F_UNLCK);
    g_assert_cmpuint(ranges.items[0].end, ==, (uint64_t)INT64_MAX - 1);
}

static void test_too_many(void)
{
    PtLockRanges ranges = {0};
    for (uint64_t i = 0; i < PT_LOCK_RANGES_MAX; i++) {
        set(&ranges, 4 * i, 4 * i + 1, F_WRLCK);
    }
    g_assert_cmpuint(ranges.n, ==, PT_LOCK_RANGES_MAX);
    g_assert_false(ranges.unknown);
    /* The most that one step can need: in the middle of the first. */
    set(&ranges, 0, 4 * PT_LOCK_RANGES_MAX, F_WRLCK);
    g_assert_cmpuint(ranges.n, ==, 1);
    for (uint64_t i = 0; i < PT_LOCK_RANGES_MAX / 2; i++) {
        set(&ranges, 2 * i + 1, 2 * i + 1, F_RDLCK);
    }
    g_assert_true(ranges.unknown);
    g_assert_cmpuint(ranges.n, ==, 0);
    set(&ranges, 5, 6, F_UNLCK);
    g_assert_true(ranges.unknown);
    set(&ranges, 0, INT64_MAX, F_UNLCK);
    g_assert_false(ranges.unknown);
    g_assert_cmpuint(ranges.n, ==, 0);
    set(&ranges, 5, 6, F_RDLCK);
    g_assert_cmpuint(ranges.n, ==, 1);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/lock-ranges/model", test_model);
    g_test_add_func("/lock-ranges/to-the-end", test_to_the_end);
    g_test_add_func("/lock-ranges/too-many", test_too_many);
    return g_test_run();
}
