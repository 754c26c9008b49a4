/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/vhost-ring.h"
#include "virtiofsd/log.h"

/*
 * One interrupt for several requests. That they are told of together depends on how
 * quickly they follow each other, so it is tried until it happens; that the guest hears
 * of all of them does not.
 */

enum { ROUND = 64, ROUNDS = 100, TRIES = 1000, SLOW_US = 100 };
_Static_assert((unsigned int)ROUND == GUEST_QUEUE, "a round fills the queue");

static void offer_round(Fixture *f)
{
    for (uint32_t i = 0; i < ROUND; i++) {
        guest_desc(&f->guest, GUEST_DESC, i,
                   (GuestDesc){.gpa = GUEST_GPA + GUEST_DATA, .length = 1});
        guest_offer(&f->guest, (uint16_t)i);
    }
}

static void drain(Fixture *f)
{
    while (vu_ring_pop(f->ring, f->chain)) {
        vu_ring_push_more(f->ring, f->chain, 0);
    }
    (void)take_events(f->call_fd);
}

/* Leave the ring with a request that the guest has not been told of though it wants to
 * hear of each, and others that wait. */
static void owe(Fixture *f)
{
    for (int i = 0; i < TRIES; i++) {
        offer_round(f);
        for (int n = 0; n < ROUND / 2; n++) {
            g_assert_true(vu_ring_pop(f->ring, f->chain));
            (void)take_events(f->call_fd);
            guest_set_used_event(&f->guest, guest_load16(&f->guest, GUEST_USED + 2));
            vu_ring_push_more(f->ring, f->chain, 0);
            if (take_events(f->call_fd) == 0) {
                return;
            }
        }
        drain(f);
    }
    g_assert_not_reached();
}

static void expect_told(Fixture *f)
{
    g_assert_cmpuint(take_events(f->call_fd), ==, 1);
    vu_ring_settle(f->ring);
    g_assert_cmpuint(take_events(f->call_fd), ==, 0);
    g_assert_cmpuint(vu_ring_in_flight(f->ring), ==, 0);
}

/* Much fewer than requests; and the guest knows of all when nothing waits behind the one
 * that is taken, and at the end. */
static void test_together(void)
{
    uint64_t n_told = 0;
    Fixture f;

    fixture_init(&f, 0);
    for (int i = 0; i < ROUNDS; i++) {
        bool told = true;
        offer_round(&f);
        for (int n = 0; n < ROUND; n++) {
            g_assert_true(vu_ring_pop(f.ring, f.chain));
            uint64_t now = take_events(f.call_fd);
            g_assert_cmpuint(now, <=, 1);
            g_assert_true(n < ROUND - 1 || told || now == 1);
            vu_ring_push_more(f.ring, f.chain, 0);
            uint64_t then = take_events(f.call_fd);
            told = then == 1;
            n_told += now + then;
        }
        g_assert_true(told);
        g_assert_false(vu_ring_pop(f.ring, f.chain));
        g_assert_cmpuint(take_events(f.call_fd), ==, 0);
    }
    g_assert_cmpuint(n_told, <, ROUNDS * ROUND / 2);
    fixture_clear(&f);
}

/* Who takes long is not waited for. */
static void test_slow(void)
{
    Fixture f;

    fixture_init(&f, 0);
    offer_round(&f);
    for (int n = 0; n < ROUND; n++) {
        g_assert_true(vu_ring_pop(f.ring, f.chain));
        g_usleep(SLOW_US);
        vu_ring_push_more(f.ring, f.chain, 0);
        g_assert_cmpuint(take_events(f.call_fd), ==, 1);
    }
    fixture_clear(&f);
}

/* The guest's wish counts for all of them together. */
static void test_event_idx(void)
{
    Fixture f;

    fixture_init(&f, VU_F_EVENT_IDX);
    for (int n_behind = 0; n_behind < 2; n_behind++) {
        owe(&f);
        uint16_t used = guest_load16(&f.guest, GUEST_USED + 2);
        guest_set_used_event(&f.guest, (uint16_t)(used - 1 + n_behind));
        vu_ring_settle(f.ring);
        g_assert_cmpuint(take_events(f.call_fd), ==, 1 - (uint64_t)n_behind);
        drain(&f);
    }
    fixture_clear(&f);
}

static void test_settle(void)
{
    Fixture f;

    fixture_init(&f, 0);
    owe(&f);
    vu_ring_settle(f.ring);
    expect_told(&f);
    drain(&f);
    fixture_clear(&f);
}

/* Another worker's push tells of it, too. */
static void test_push(void)
{
    Fixture f;

    fixture_init(&f, 0);
    owe(&f);
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    vu_ring_push(f.ring, f.chain, 0);
    expect_told(&f);
    drain(&f);
    fixture_clear(&f);
}

/* Whoever holds the ring back has told it before he goes on. */
static void test_held(void)
{
    Fixture f;

    fixture_init(&f, 0);
    owe(&f);
    vu_ring_pause(f.ring);
    expect_told(&f);
    vu_ring_resume(f.ring);
    drain(&f);
    owe(&f);
    vu_ring_set_enabled(f.ring, false);
    expect_told(&f);
    vu_ring_set_enabled(f.ring, true);
    drain(&f);
    owe(&f);
    vu_ring_stop(f.ring);
    expect_told(&f);
    fixture_clear(&f);
}

static void test_broken(void)
{
    Fixture f;

    fixture_init(&f, 0);
    owe(&f);
    for (uint32_t n = 0; n < ROUND; n++) {
        guest_store16(&f.guest, GUEST_AVAIL + 4 + 2 * n, 5000);
    }
    g_assert_false(vu_ring_pop(f.ring, f.chain));
    g_assert_cmpuint(take_events(f.error_fd), ==, 1);
    expect_told(&f);
    fixture_clear(&f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_threshold = LOG_LEVEL_OFF;
    g_test_add_func("/ring-used/together", test_together);
    g_test_add_func("/ring-used/slow", test_slow);
    g_test_add_func("/ring-used/event-idx", test_event_idx);
    g_test_add_func("/ring-used/settle", test_settle);
    g_test_add_func("/ring-used/push", test_push);
    g_test_add_func("/ring-used/held", test_held);
    g_test_add_func("/ring-used/broken", test_broken);
    return g_test_run();
}
