/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Maps of ids: how they are written, what fits together, and who one is then.
 */
#include "sandbox/idmap.h"

/* ---- one range --------------------------------------------------------------------- */

static void assert_range(const char *text, uint32_t inside, uint32_t outside,
                         uint32_t count)
{
    SandboxIdMap map = {0};
    g_autoptr(GError) error = NULL;

    bool added = sandbox_id_map_add(&map, text, &error);
    g_assert_no_error(error);
    g_assert_true(added);
    g_assert_cmpuint(map.n, ==, 1);
    g_assert_cmpuint(map.ranges[0].inside, ==, inside);
    g_assert_cmpuint(map.ranges[0].outside, ==, outside);
    g_assert_cmpuint(map.ranges[0].count, ==, count);
}

static void test_ranges(void)
{
    assert_range(":0:100000:65536:", 0, 100000, 65536);
    assert_range("/1/2/3/", 1, 2, 3);
    assert_range("-1-2-3-", 1, 2, 3);
    assert_range("+1+2+3+", 1, 2, 3);
    assert_range(" 1 2 3 ", 1, 2, 3);
    assert_range("_1_2_3_", 1, 2, 3);
    assert_range("§1§2§3§", 1, 2, 3);
    assert_range("𝄞1𝄞2𝄞3𝄞", 1, 2, 3);
    assert_range(":007:2:3:", 7, 2, 3);
    assert_range(":4294967294:4294967294:1:", 4294967294, 4294967294, 1);
    assert_range(":0:0:4294967295:", 0, 0, 4294967295);
}

static void assert_refused(SandboxIdMap *map, const char *text, const char *why)
{
    const unsigned int before = map->n;
    g_autoptr(GError) error = NULL;

    g_assert_false(sandbox_id_map_add(map, text, &error));
    g_assert_nonnull(error);
    if (strstr(error->message, why) == NULL) {
        g_error("%s: \"%s\" does not say \"%s\"", text, error->message, why);
    }
    g_assert_null(strchr(error->message, '\n'));
    g_assert_cmpuint(map->n, ==, before);
}

static void test_wrong_format(void)
{
    static const char *const texts[] = {"",
                                        ":",
                                        "::",
                                        ":::",
                                        "::::",
                                        ":1:2:3",
                                        "1:2:3:",
                                        "1:2:3",
                                        ":1:2:",
                                        ":1:2:3:4:",
                                        ":1:2:3:x",
                                        ":1:2:3: ",
                                        ":1/2/3/",
                                        ":1:2/3:",
                                        "a1a2a3a",
                                        "0102030",
                                        ":-1:2:3:",
                                        ":+1:2:3:",
                                        ": 1:2:3:",
                                        ":1:2:x:",
                                        ":0x1:2:3:",
                                        "::2:3:",
                                        ":1::3:",
                                        ":1:2::",
                                        ":1:2:3::",
                                        "ä1ä2ä3ä",
                                        "é",
                                        "\xff"
                                        "1\xff"
                                        "2\xff"
                                        "3\xff",
                                        ":1:2:3:\xff",
                                        ":1:2:3:\n",
                                        ":4294967296:0:1:",
                                        ":0:4294967296:1:",
                                        ":0:0:4294967296:",
                                        ":0:0:99999999999999999999:"};
    SandboxIdMap map = {0};

    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        assert_refused(&map, texts[i], ":0:100000:65536:");
    }
}

static void test_wrong_numbers(void)
{
    static const char *const texts[] = {":0:0:0:",
                                        ":4294967295:0:1:",
                                        ":0:4294967295:1:",
                                        ":1:0:4294967295:",
                                        ":0:1:4294967295:",
                                        ":4294967294:0:2:",
                                        ":4294967295:4294967295:4294967295:"};
    SandboxIdMap map = {0};

    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        assert_refused(&map, texts[i], "no id above 4294967294");
    }
}

/* ---- several ----------------------------------------------------------------------- */

static void test_several(void)
{
    SandboxIdMap map = {0};

    g_assert_true(sandbox_id_map_add(&map, ":100:1000:10:", NULL));
    g_assert_true(sandbox_id_map_add(&map, ":110:990:10:", NULL)); /* side by side */
    g_assert_true(sandbox_id_map_add(&map, ":99:1010:1:", NULL));
    assert_refused(&map, ":0:0:100:", ":99:1010:1: inside");
    assert_refused(&map, ":100:5000:10:", ":100:1000:10: inside");
    assert_refused(&map, ":104:5000:1:", ":100:1000:10: inside");
    assert_refused(&map, ":0:5000:1000:", "inside");
    assert_refused(&map, ":119:5000:1:", ":110:990:10: inside");
    assert_refused(&map, ":500:1009:1:", ":100:1000:10: outside");
    assert_refused(&map, ":500:0:4294966000:", "outside");
    g_assert_cmpuint(map.n, ==, 3);
}

static void test_too_many(void)
{
    SandboxIdMap map = {0};

    for (unsigned int i = 0; i < SANDBOX_ID_RANGES_MAX; i++) {
        g_autofree char *text = g_strdup_printf(":%u:%u:1:", i, i);
        g_assert_true(sandbox_id_map_add(&map, text, NULL));
    }
    assert_refused(&map, ":1000:1000:1:", "no more than 340");
}

/* ---- who one is -------------------------------------------------------------------- */

static void test_own(void)
{
    const SandboxIdMap none = {0};
    const SandboxIdMap own = {.n = 1, .ranges = {{0, 1000, 1}}};
    const SandboxIdMap two = {.n = 1, .ranges = {{0, 1000, 2}}};
    const SandboxIdMap more = {.n = 2, .ranges = {{0, 1000, 1}, {1, 5, 1}}};

    g_assert_false(sandbox_id_map_is_own(&none, 1000));
    g_assert_true(sandbox_id_map_is_own(&own, 1000));
    g_assert_false(sandbox_id_map_is_own(&own, 1001));
    g_assert_false(sandbox_id_map_is_own(&two, 1000));
    g_assert_false(sandbox_id_map_is_own(&more, 1000));
}

static void test_choose(void)
{
    const SandboxIdMap root = {.n = 2, .ranges = {{1, 100000, 65536}, {0, 1000, 1}}};
    const SandboxIdMap shifted = {.n = 1, .ranges = {{0, 100000, 65536}}};
    const SandboxIdMap own = {.n = 2, .ranges = {{7, 8, 1}, {50, 990, 20}}};
    const SandboxIdMap other = {.n = 2, .ranges = {{70, 80, 1}, {5, 6, 1}}};

    g_assert_cmpuint(sandbox_id_map_choose(&root, 1000), ==, 0);
    g_assert_cmpuint(sandbox_id_map_choose(&shifted, 1000), ==, 0);
    g_assert_cmpuint(sandbox_id_map_choose(&own, 1000), ==, 60);
    g_assert_cmpuint(sandbox_id_map_choose(&own, 1009), ==, 69);
    g_assert_cmpuint(sandbox_id_map_choose(&own, 1010), ==, 7);
    g_assert_cmpuint(sandbox_id_map_choose(&own, 0), ==, 7);
    g_assert_cmpuint(sandbox_id_map_choose(&other, 1000), ==, 70);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/idmap/ranges", test_ranges);
    g_test_add_func("/idmap/wrong/format", test_wrong_format);
    g_test_add_func("/idmap/wrong/numbers", test_wrong_numbers);
    g_test_add_func("/idmap/several", test_several);
    g_test_add_func("/idmap/too-many", test_too_many);
    g_test_add_func("/idmap/own", test_own);
    g_test_add_func("/idmap/choose", test_choose);
    return g_test_run();
}
