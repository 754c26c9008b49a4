/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extensions: what Linux sends, and every way to get it wrong.
 */
#include "virtiofsd/fuse/extension.h"

#include <errno.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>

#define GROUPS 32u

/* Parse a copy that is exactly as long as it says. */
static int parse(const uint32_t *words, size_t size, bool agreed, PtCaller *caller)
{
    void *copy = malloc(MAX(size, 1));

    memcpy(copy, words, size);
    memset(caller, 0x77, sizeof(*caller));
    int result = extension_parse(copy, size, agreed, caller);
    free(copy);
    if (result < 0) {
        g_assert_cmpint(result, ==, -EINVAL);
        g_assert_cmpuint(caller->n_groups, ==, 0);
    }
    return result;
}

static void test_good(void)
{
    PtCaller caller;
    const uint32_t one[] = {16, GROUPS, 1, 4711};
    const uint32_t none[] = {16, GROUPS, 0, 0};
    const uint32_t padded[] = {24, GROUPS, 2, 1, 2, 99};

    g_assert_cmpint(parse(one, 0, true, &caller), ==, 0);
    g_assert_cmpuint(caller.n_groups, ==, 0);
    g_assert_cmpint(parse(one, sizeof(one), true, &caller), ==, 0);
    g_assert_cmpuint(caller.n_groups, ==, 1);
    g_assert_cmpuint(caller.groups[0], ==, 4711);
    g_assert_cmpint(parse(none, sizeof(none), true, &caller), ==, 0);
    g_assert_cmpuint(caller.n_groups, ==, 0);
    g_assert_cmpint(parse(padded, sizeof(padded), true, &caller), ==, 0);
    g_assert_cmpuint(caller.n_groups, ==, 2);
    g_assert_cmpuint(caller.groups[1], ==, 2);
}

static void test_most_groups(void)
{
    uint32_t words[4 + PT_GROUPS_MAX] = {0, GROUPS, PT_GROUPS_MAX};
    PtCaller caller;

    for (uint32_t i = 0; i < PT_GROUPS_MAX; i++) {
        words[3 + i] = i;
    }
    words[0] = 12 + 4 * PT_GROUPS_MAX + 4;
    g_assert_cmpint(parse(words, words[0], true, &caller), ==, 0);
    g_assert_cmpuint(caller.n_groups, ==, PT_GROUPS_MAX);
    g_assert_cmpuint(caller.groups[PT_GROUPS_MAX - 1], ==, PT_GROUPS_MAX - 1);
    words[2] = PT_GROUPS_MAX + 1;
    g_assert_cmpint(parse(words, words[0], true, &caller), ==, -EINVAL);
}

static void test_not_agreed(void)
{
    PtCaller caller;
    const uint32_t groups[] = {16, GROUPS, 1, 4711};
    const uint32_t context[] = {8, 0};

    g_assert_cmpint(parse(groups, sizeof(groups), false, &caller), ==, -EINVAL);
    g_assert_cmpint(parse(context, sizeof(context), true, &caller), ==, -EINVAL);
}

/* Each word at its extremes, alone and in pairs; each length. */
static void test_corpus(void)
{
    static const uint32_t extremes[] = {
        0,  1,  7,  8,          12,         16,         24,
        31, 32, 33, 0x7fffffff, 0x80000000, 0xfffffff8, 0xffffffff,
    };
    const uint32_t good[] = {16, GROUPS, 1, 4711};
    PtCaller caller;

    for (size_t size = 0; size < sizeof(good); size++) {
        g_assert_cmpint(parse(good, size, true, &caller), ==, size == 0 ? 0 : -EINVAL);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(extremes); i++) {
        for (size_t j = 0; j < G_N_ELEMENTS(extremes); j++) {
            for (size_t k = 0; k < G_N_ELEMENTS(extremes); k++) {
                const uint32_t words[] = {extremes[i], extremes[j], extremes[k], 5};
                bool is_good =
                    extremes[i] == 16 && extremes[j] == GROUPS && extremes[k] <= 1;
                g_assert_cmpint(parse(words, sizeof(words), true, &caller), ==,
                                is_good ? 0 : -EINVAL);
            }
        }
    }
}

static void test_bad(void)
{
    PtCaller caller;
    const uint32_t twice[] = {16, GROUPS, 1, 5, 16, GROUPS, 1, 6};
    const uint32_t behind[] = {16, GROUPS, 1, 5, 8, 33};
    const uint32_t left[] = {16, GROUPS, 1, 5, 0};
    const uint32_t no_count[] = {8, GROUPS};
    const uint32_t nobody[] = {16, GROUPS, 1, UINT32_MAX};

    g_assert_cmpint(parse(twice, sizeof(twice), true, &caller), ==, -EINVAL);
    g_assert_cmpint(parse(behind, sizeof(behind), true, &caller), ==, -EINVAL);
    g_assert_cmpint(parse(left, sizeof(left), true, &caller), ==, -EINVAL);
    g_assert_cmpint(parse(no_count, sizeof(no_count), true, &caller), ==, -EINVAL);
    g_assert_cmpint(parse(nobody, sizeof(nobody), true, &caller), ==, -EINVAL);
}

static void test_random(void)
{
    GRand *random = g_rand_new_with_seed(42);
    PtCaller caller;

    for (int i = 0; i < 200000; i++) {
        uint32_t words[16];
        for (size_t j = 0; j < G_N_ELEMENTS(words); j++) {
            words[j] = g_rand_boolean(random) ? g_rand_int(random) % 40 : 8;
        }
        words[1] = g_rand_boolean(random) ? GROUPS : words[1];
        size_t size = g_rand_int(random) % (sizeof(words) + 1);
        if (parse(words, size, true, &caller) == 0) {
            g_assert_cmpuint(size % 8, ==, 0);
            g_assert_cmpuint(caller.n_groups * 4, <=, size);
        }
    }
    g_rand_free(random);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/extension/good", test_good);
    g_test_add_func("/extension/most-groups", test_most_groups);
    g_test_add_func("/extension/not-agreed", test_not_agreed);
    g_test_add_func("/extension/corpus", test_corpus);
    g_test_add_func("/extension/bad", test_bad);
    g_test_add_func("/extension/random", test_random);
    return g_test_run();
}
