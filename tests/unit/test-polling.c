/* SPDX-License-Identifier: Apache-2.0 */
#include <glib.h>

#include "virtiofsd/polling.h"

enum { MOST_US = 50, US = 1000 };

static _Atomic bool is_polled;

static bool count(void *n)
{
    ++*(unsigned int *)n;
    return false;
}

static bool find(void *n)
{
    ++*(unsigned int *)n;
    return true;
}

static PollingResult look(Polling *polling, bool (*has_work)(void *data))
{
    unsigned int n = 0;
    PollingResult result = polling_look(polling, has_work, &n);
    g_assert_cmpint(n > 0, ==, result != POLLING_LEFT_OUT);
    g_assert_false(is_polled);
    return result;
}

static void test_never(void)
{
    Polling polling;
    polling_init(&polling, 0, &is_polled);
    g_assert_cmpint(look(&polling, count), ==, POLLING_LEFT_OUT);
    polling_slept(&polling, POLLING_LEFT_OUT);
    g_assert_cmpint(look(&polling, count), ==, POLLING_LEFT_OUT);
}

/* Work that comes soon is looked for, longer and longer; work that comes late is not. */
static void test_time(void)
{
    Polling polling;
    polling_init(&polling, MOST_US, &is_polled);
    g_assert_cmpint(look(&polling, count), ==, POLLING_LEFT_OUT);
    polling_learn(&polling, POLLING_LEFT_OUT, 10 * US);
    uint64_t first = polling.ns;
    g_assert_cmpuint(first, >, 0);
    g_assert_cmpint(look(&polling, find), ==, POLLING_FOUND);
    polling_learn(&polling, POLLING_LEFT_OUT, 10 * US);
    g_assert_cmpuint(polling.ns, ==, 2 * first);
    for (int i = 0; i < 10; i++) {
        polling_learn(&polling, POLLING_LEFT_OUT, 10 * US);
    }
    g_assert_cmpuint(polling.ns, ==, MOST_US * US);
    polling_learn(&polling, POLLING_LEFT_OUT, (MOST_US + 1) * US);
    g_assert_cmpint(look(&polling, count), ==, POLLING_LEFT_OUT);
}

/* How many of so many sleeps, of which all end soon, come after looking in vain. */
static unsigned int looks_in_vain(Polling *polling, unsigned int n)
{
    unsigned int n_looks = 0;
    for (unsigned int i = 0; i < n; i++) {
        PollingResult result = look(polling, count);
        n_looks += result == POLLING_IN_VAIN;
        polling_learn(polling, result, 10 * US);
    }
    return n_looks;
}

static void test_in_vain(void)
{
    Polling polling;
    polling_init(&polling, MOST_US, &is_polled);
    g_assert_cmpuint(looks_in_vain(&polling, 10000), <, 30);
    polling.n_skip = 0;
    g_assert_cmpint(look(&polling, find), ==, POLLING_FOUND);
    g_assert_cmpint(look(&polling, count), ==, POLLING_IN_VAIN);
    g_assert_cmpint(look(&polling, count), ==, POLLING_IN_VAIN);
}

static void test_one_at_a_time(void)
{
    Polling polling;
    polling_init(&polling, MOST_US, &is_polled);
    polling_learn(&polling, POLLING_LEFT_OUT, 10 * US);
    is_polled = true;
    unsigned int n = 0;
    g_assert_cmpint(polling_look(&polling, count, &n), ==, POLLING_LEFT_OUT);
    g_assert_true(is_polled);
    is_polled = false;
    g_assert_cmpint(look(&polling, count), ==, POLLING_IN_VAIN);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/polling/never", test_never);
    g_test_add_func("/polling/time", test_time);
    g_test_add_func("/polling/in-vain", test_in_vain);
    g_test_add_func("/polling/one-at-a-time", test_one_at_a_time);
    return g_test_run();
}
