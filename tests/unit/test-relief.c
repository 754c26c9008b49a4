/* SPDX-License-Identifier: Apache-2.0 */
#include "virtiofsd/relief.h"

#include <poll.h>
#include <stdatomic.h>
#include <sys/timerfd.h>

enum { WORKERS = 3, BUSY_MAX = 2, PATIENCE_MS = 20000 };
enum { FIRST_US = 500, MOST_US = 2000 };

static Relief *start(Relief *relief)
{
    g_autoptr(GError) error = NULL;

    *relief = (Relief){.timer_fd = -1};
    relief_init(relief, WORKERS, BUSY_MAX, &error);
    g_assert_no_error(error);
    return relief;
}

static int64_t left_ns(const Relief *relief)
{
    struct itimerspec left = {0};

    g_assert_cmpint(timerfd_gettime(relief->timer_fd, &left), ==, 0);
    return left.it_value.tv_sec * 1000000000 + left.it_value.tv_nsec;
}

static bool is_running(const Relief *relief)
{
    return left_ns(relief) > 0;
}

static void wait_expired(const Relief *relief)
{
    struct pollfd timer = {.fd = relief->timer_fd, .events = POLLIN};

    g_assert_cmpint(poll(&timer, 1, PATIENCE_MS), ==, 1);
    g_assert_false(is_running(relief));
}

/* Nobody could relieve it. */
static void test_alone(void)
{
    g_autoptr(GError) error = NULL;
    Relief relief = {.timer_fd = -1};

    g_assert_true(relief_init(&relief, 1, BUSY_MAX, &error));
    relief_begin(&relief, 0, false);
    relief_end(&relief, 0);
    g_assert_cmpint(relief.timer_fd, ==, -1);
    relief_clear(&relief);
}

/* Where none waits, none is woken. */
static void test_none_waits(void)
{
    Relief relief;

    relief_begin(start(&relief), 1, false);
    g_assert_false(relief.is_armed);
    relief_end(&relief, 1);
    relief_clear(&relief);
}

/* All requests until it expires share one run of the timer. */
static void test_kept(void)
{
    Relief relief;

    relief_begin(start(&relief), 0, true);
    relief_end(&relief, 0);
    relief_rest(&relief);
    relief_begin(&relief, 2, true);
    wait_expired(&relief);
    g_assert_false(relief_is_due(&relief)); /* it was not at this request then */
    wait_expired(&relief);
    g_assert_true(relief_is_due(&relief));
    g_assert_false(relief.is_armed);
    relief_clear(&relief);
}

static void test_gets_on(void)
{
    Relief relief;
    int64_t longest_ns = 0;

    relief_begin(start(&relief), 1, true);
    for (int i = 0; i < 10; i++) {
        wait_expired(&relief);
        relief_end(&relief, 1);
        relief_rest(&relief);
        relief_begin(&relief, 1, true);
        g_assert_false(relief_is_due(&relief));
        g_assert_true(relief.is_armed);
        longest_ns = MAX(longest_ns, left_ns(&relief));
    }
    g_assert_cmpint(longest_ns, >, FIRST_US * 1000); /* it need not look so often */
    g_assert_cmpint(longest_ns, <=, MOST_US * 1000);
    wait_expired(&relief);
    relief_end(&relief, 1);
    relief_rest(&relief);
    g_assert_false(relief_is_due(&relief));
    g_assert_false(relief.is_armed); /* nobody serves */
    g_assert_false(is_running(&relief));
    relief_clear(&relief);
}

/* It gets on, but there is more and more to do. */
static void test_busy(void)
{
    Relief relief;

    relief_begin(start(&relief), 0, true);
    relief_end(&relief, 0);
    relief_begin(&relief, 0, true);
    wait_expired(&relief);
    g_assert_true(relief_is_due(&relief));
    relief_clear(&relief);
}

static void go_on(Relief *relief, unsigned int worker)
{
    relief_end(relief, worker);
    relief_begin(relief, worker, true);
}

/* There is more and more to do, but enough are at it; unless one of them is kept. */
static void test_busy_enough(void)
{
    Relief relief;

    relief_begin(start(&relief), 0, true);
    relief_begin(&relief, 1, true);
    go_on(&relief, 0);
    go_on(&relief, 1);
    wait_expired(&relief);
    g_assert_false(relief_is_due(&relief));
    go_on(&relief, 0);
    wait_expired(&relief);
    g_assert_true(relief_is_due(&relief));
    relief_clear(&relief);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/relief/alone", test_alone);
    g_test_add_func("/relief/none-waits", test_none_waits);
    g_test_add_func("/relief/kept", test_kept);
    g_test_add_func("/relief/gets-on", test_gets_on);
    g_test_add_func("/relief/busy", test_busy);
    g_test_add_func("/relief/busy-enough", test_busy_enough);
    return g_test_run();
}
