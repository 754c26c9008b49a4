/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --dax, --dax-window and --dax-protocol, which need each other and --tag.
 */
#include "tests/unit/command-line.h"

static void test_dax(void)
{
    static const struct {
        const char *words;
        uint64_t size;
        bool maps;
    } cases[] = {
        {"--tag=t", 0, false},
        {"--tag=t --dax=never", 0, false},
        {"--tag=t --dax-window=0", 0, false},
        {"--tag=t --dax-window=2M", 2u << 20, true},
        {"--tag=t --dax-window=512m", 512u << 20, true},
        {"--dax-window=4096K --dax=inode --tag=t", 4u << 20, true},
        {"--dax-window=64M --dax=never --tag=t", 64u << 20, false},
        {"--dax-window=64M --dax-window=8M --tag=t", 8u << 20, true},
        {"--dax-window=64M --dax-window=0", 0, false},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *line = g_strconcat(SERVE, cases[i].words, NULL);
        g_autoptr(Options) options = parse(line);
        g_assert_nonnull(options);
        g_assert_cmpuint(options->window_size, ==, cases[i].size);
        g_assert_cmpint(options->session.dax, ==, cases[i].maps);
    }
    assert_refused(SERVE "--dax=always", "must be one of never, inode");
    assert_refused(SERVE "--tag=t --dax=inode", "give --dax-window=SIZE");
    assert_refused(SERVE "--tag=t --dax=inode --dax-window=0", "give --dax-window=SIZE");
    assert_refused(SERVE "--dax-window=2M", "give --tag=TAG");
}

/* What leaves the VMM nothing to do, or us nothing to ask for, is refused. */
static void test_protocol(void)
{
    static const struct {
        const char *words;
        VuWindowProtocol protocol;
    } cases[] = {
        {"--dax=never", VU_WINDOW_STANDARD},
        {"--dax-protocol=standard", VU_WINDOW_STANDARD},
        {"--dax-protocol=standard --dax=never", VU_WINDOW_STANDARD},
        {"--tag=t --dax-window=2M", VU_WINDOW_STANDARD},
        {"--dax-protocol=legacy --dax-window=2M", VU_WINDOW_LEGACY},
        {"--dax-protocol=legacy --dax-window=2M --dax=inode", VU_WINDOW_LEGACY},
        {"--dax-protocol=legacy --dax-window=2M --tag=t", VU_WINDOW_LEGACY},
        {"--dax-window=2M --dax-protocol=legacy-v3", VU_WINDOW_LEGACY_V3},
        {"--dax-protocol=legacy --dax-protocol=standard", VU_WINDOW_STANDARD},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *line = g_strconcat(SERVE, cases[i].words, NULL);
        g_autoptr(Options) options = parse(line);
        g_assert_nonnull(options);
        g_assert_cmpint(options->window_protocol, ==, cases[i].protocol);
        g_assert_cmpint(options->session.dax, ==, options->window_size > 0);
    }
    assert_refused(SERVE "--dax-protocol=old", "one of standard, legacy, legacy-v3");
    assert_refused(SERVE "--dax-protocol", "needs a value");
    assert_refused(SERVE "--dax-protocol=legacy", "give --dax-window=SIZE");
    assert_refused(SERVE "--dax-protocol=legacy-v3 --dax=inode --dax-window=0",
                   "give --dax-window=SIZE");
    assert_refused(SERVE "--dax-protocol=legacy --dax-window=2M --dax=never",
                   "exclude each other: give one of them");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/options-dax/dax", test_dax);
    g_test_add_func("/options-dax/protocol", test_protocol);
    return g_test_run();
}
