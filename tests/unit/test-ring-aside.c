/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Long chains that are put aside for short ones: in which order they are given out, and
 * what stops, pauses and hostile guests may do to them meanwhile.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "tests/unit/vhost-vmm.h"

#define DATA (GUEST_GPA + GUEST_DATA)
#define LONG 32768u
#define SHORT (LONG - 1)
#define MOST_OVERTAKE 16

static void offer(Guest *guest, uint16_t head, uint32_t length)
{
    guest_desc(guest, GUEST_DESC, head, (GuestDesc){DATA, length, VRING_DESC_F_WRITE, 0});
    guest_offer(guest, head);
}

static void expect_pop(Fixture *f, uint16_t head, uint32_t length)
{
    uint32_t id = 0, got = 0;

    g_assert_true(vu_ring_pop(f->ring, f->chain));
    g_assert_cmpuint(f->chain->head, ==, head);
    g_assert_cmpuint(f->chain->n_out, ==, 1);
    g_assert_cmpuint(f->chain->out[0].iov_len, ==, length);
    g_assert_cmpuint(f->chain->n_bytes, ==, length);
    vu_ring_push(f->ring, f->chain, head);
    g_assert_true(guest_reap(&f->guest, &id, &got));
    g_assert_cmpuint(id, ==, head);
    g_assert_cmpuint(got, ==, head);
}

static void expect_idle(Fixture *f)
{
    g_assert_false(vu_ring_pop(f->ring, f->chain));
    g_assert_cmpuint(vu_ring_in_flight(f->ring), ==, 0);
    g_assert_cmpuint(vu_ring_running(f->ring), ==, 0);
}

/* The short ones first, then the long ones; each in its order. */
static void test_order(void)
{
    Fixture f;

    fixture_init(&f, 0);
    offer(&f.guest, 0, LONG);
    offer(&f.guest, 1, LONG + 1);
    offer(&f.guest, 2, SHORT);
    offer(&f.guest, 3, LONG + 2);
    offer(&f.guest, 4, 10);
    expect_pop(&f, 2, SHORT);
    expect_pop(&f, 4, 10);
    expect_pop(&f, 0, LONG);
    /* what comes now overtakes the rest, unless it is long itself */
    offer(&f.guest, 5, LONG + 3);
    offer(&f.guest, 6, 11);
    expect_pop(&f, 6, 11);
    expect_pop(&f, 1, LONG + 1);
    expect_pop(&f, 3, LONG + 2);
    expect_pop(&f, 5, LONG + 3);
    expect_idle(&f);
    fixture_clear(&f);
}

/* A long one that nobody waits behind is given out at once; so is the first of several
 * long ones. */
static void test_alone(void)
{
    Fixture f;

    fixture_init(&f, 0);
    offer(&f.guest, 7, LONG);
    expect_pop(&f, 7, LONG);
    expect_idle(&f);
    offer(&f.guest, 1, LONG);
    offer(&f.guest, 2, LONG);
    expect_pop(&f, 1, LONG);
    expect_pop(&f, 2, LONG);
    expect_idle(&f);
    fixture_clear(&f);
}

/* However many short ones come, the long ones get on. */
static void test_fair(void)
{
    Fixture f;

    fixture_init(&f, 0);
    offer(&f.guest, 0, LONG);
    offer(&f.guest, 1, LONG);
    for (int turn = 0; turn < 2; turn++) {
        for (int i = 0; i < MOST_OVERTAKE; i++) {
            offer(&f.guest, 9, 1);
            expect_pop(&f, 9, 1);
        }
        offer(&f.guest, 9, 1);
        expect_pop(&f, (uint16_t)turn, LONG);
    }
    expect_pop(&f, 9, 1); /* the last of each turn */
    expect_pop(&f, 9, 1);
    expect_idle(&f);
    fixture_clear(&f);
}

/* More than are put aside: nothing is lost. */
static void test_many(void)
{
    enum { SIZE = 1024 };
    bool seen[SIZE] = {false};
    Fixture f;
    uint32_t id = 0, length = 0;

    fixture_init(&f, 0);
    vu_ring_stop(f.ring);
    f.guest.queue_size = SIZE;
    fixture_start(&f);
    for (uint16_t head = 0; head < SIZE; head++) {
        offer(&f.guest, head, head < SIZE - 1 ? LONG : 1);
    }
    for (unsigned int n = 0; n < SIZE; n++) {
        g_assert_true(vu_ring_pop(f.ring, f.chain));
        vu_ring_push(f.ring, f.chain, 0);
        g_assert_true(guest_reap(&f.guest, &id, &length));
        g_assert_false(seen[id]);
        seen[id] = true;
    }
    expect_idle(&f);
    fixture_clear(&f);
}

static void begin_aside(Fixture *f)
{
    fixture_init(f, 0);
    offer(&f->guest, 0, LONG);
    offer(&f->guest, 1, LONG);
    offer(&f->guest, 2, 1);
    expect_pop(f, 2, 1);
    g_assert_cmpuint(vu_ring_in_flight(f->ring), ==, 2);
    g_assert_cmpuint(vu_ring_running(f->ring), ==, 0);
}

/* A ring that is stopped gives out what it had taken, and nothing new. */
static void test_stop(void)
{
    for (int i = 0; i < 2; i++) {
        Fixture f;
        begin_aside(&f);
        offer(&f.guest, 3, 1);
        if (i == 0) {
            vu_ring_stop(f.ring);
            g_assert_cmpint(vu_ring_set_base(f.ring, 9), ==, -EBUSY);
        } else {
            vu_ring_set_enabled(f.ring, false);
        }
        expect_pop(&f, 0, LONG);
        expect_pop(&f, 1, LONG);
        expect_idle(&f);
        g_assert_cmpuint(vu_ring_base(f.ring), ==, 3);
        fixture_clear(&f);
    }
}

/* The last one of a ring that is held back tells so. */
static void test_told(void)
{
    Fixture f;

    begin_aside(&f);
    expect_pop(&f, 0, LONG);
    vu_ring_stop(f.ring);
    g_assert_cmpuint(take_events(f.idle_fd), ==, 0);
    expect_pop(&f, 1, LONG);
    g_assert_cmpuint(take_events(f.idle_fd), ==, 1);
    fixture_clear(&f);
}

/* A pause does not wait for what is aside; it is given out from the new memory. */
static void test_pause(void)
{
    Fixture f;

    begin_aside(&f);
    vu_ring_pause(f.ring);
    g_assert_cmpuint(vu_ring_running(f.ring), ==, 0);
    g_assert_false(vu_ring_pop(f.ring, f.chain));
    VuMemory *memory = vu_memory_new();
    map_part(&memory, &f.guest, 0, GUEST_SIZE);
    vu_ring_set_memory(f.ring, memory);
    vu_memory_unref(f.memory); /* the last reference to the old mapping */
    f.memory = memory;
    vu_ring_resume(f.ring);
    expect_pop(&f, 0, LONG);
    /* and without memory it is retired unseen */
    vu_ring_pause(f.ring);
    memory = vu_memory_new();
    vu_ring_set_memory(f.ring, memory);
    vu_memory_unref(f.memory);
    f.memory = memory;
    vu_ring_resume(f.ring);
    expect_idle(&f);
    fixture_clear(&f);
}

/* What the guest does to the descriptors meanwhile harms nobody but itself. */
static void test_rewritten(void)
{
    uint32_t id = 0, length = 0;
    Fixture f;

    begin_aside(&f);
    guest_desc(&f.guest, GUEST_DESC, 0,
               (GuestDesc){UINT64_MAX - 4, LONG, VRING_DESC_F_WRITE, 0});
    guest_desc(&f.guest, GUEST_DESC, 1, (GuestDesc){DATA, 5, VRING_DESC_F_WRITE, 0});
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    g_assert_cmpuint(f.chain->n_bytes, ==, 5);
    g_assert_true(guest_reap(&f.guest, &id, &length));
    g_assert_cmpuint(id, ==, 0);
    g_assert_cmpuint(length, ==, 0);
    vu_ring_push(f.ring, f.chain, 5);
    g_assert_true(guest_reap(&f.guest, &id, &length));
    g_assert_cmpuint(id, ==, 1);
    expect_idle(&f);
    fixture_clear(&f);
}

/* A ring that breaks while chains are aside still gives them out. */
static void test_broken(void)
{
    Fixture f;

    begin_aside(&f);
    guest_store16(&f.guest, GUEST_AVAIL + 2, 1000);
    expect_pop(&f, 0, LONG);
    expect_pop(&f, 1, LONG);
    expect_idle(&f);
    fixture_clear(&f);
}

/* ---- threads ----------------------------------------------------------------------- */

enum { ROUNDS = 30000, HEADS = 32, THREADS = 3 };

typedef struct Crowd {
    Fixture f;
    _Atomic bool ends;
} Crowd;

static void *serve_main(void *data)
{
    Crowd *crowd = data;
    VuChain *chain = vu_chain_new();

    while (!atomic_load(&crowd->ends)) {
        while (vu_ring_pop(crowd->f.ring, chain)) {
            vu_ring_push(crowd->f.ring, chain, 1);
        }
        sched_yield();
    }
    vu_chain_free(chain);
    return NULL;
}

static void *pause_main(void *data)
{
    Crowd *crowd = data;

    while (!atomic_load(&crowd->ends)) {
        vu_ring_pause(crowd->f.ring);
        while (vu_ring_running(crowd->f.ring) > 0) {
            sched_yield();
        }
        for (int i = 0; i < 20; i++) {
            g_assert_cmpuint(vu_ring_running(crowd->f.ring), ==, 0);
        }
        vu_ring_resume(crowd->f.ring);
        sched_yield();
    }
    return NULL;
}

/* Several pop, one pauses: each chain comes back exactly once. */
static void test_threads(void)
{
    static Crowd crowd;
    pthread_t threads[THREADS + 1];
    bool out[HEADS] = {false};
    uint32_t n_offered = 0, n_reaped = 0, id = 0, length = 0;

    fixture_init(&crowd.f, 0);
    for (int i = 0; i <= THREADS; i++) {
        g_assert_cmpint(pthread_create(&threads[i], NULL,
                                       i < THREADS ? serve_main : pause_main, &crowd),
                        ==, 0);
    }
    while (n_reaped < ROUNDS) {
        uint16_t head = (uint16_t)(n_offered * 7 % HEADS);
        if (n_offered < ROUNDS && !out[head]) {
            offer(&crowd.f.guest, head, n_offered % 3 == 0 ? 1 : LONG);
            out[head] = true;
            n_offered++;
        } else if (guest_reap(&crowd.f.guest, &id, &length)) {
            g_assert_true(out[id]);
            out[id] = false;
            n_reaped++;
        } else {
            sched_yield();
        }
    }
    atomic_store(&crowd.ends, true);
    for (int i = 0; i <= THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    fixture_clear(&crowd.f);
}

/* ---- the device -------------------------------------------------------------------- */

/* A pause that is given up, because the VMM leaves, holds nothing back for ever. */
static void test_device_leaves(void)
{
    VuChain *chain = vu_chain_new();
    Vmm v;

    vmm_init(&v, NULL);
    vmm_negotiate(&v);
    g_assert_cmpuint(vmm_memory(&v, 0, GUEST_SIZE, v.guest.fd), ==, 0);
    vmm_ring(&v, 1, 0);
    g_assert_cmpint(vmm_ring_fd(&v, VU_SET_VRING_KICK, 1, v.interrupt_fd), ==, VU_OK);
    g_assert_cmpint(vmm_say_state(&v, VU_SET_VRING_ENABLE, 1, 1), ==, VU_OK);
    offer(&v.guest, 0, LONG);
    offer(&v.guest, 1, 1);
    VuRing *ring = vu_device_ring(v.device, 1);
    g_assert_true(vu_ring_pop(ring, chain));
    g_assert_cmpuint(chain->head, ==, 1);
    vu_ring_push(ring, chain, 0);
    vu_ring_pause(ring);
    g_string_truncate(v.calls, 0);
    g_assert_false(vu_device_disconnect(v.device, 0));
    expect_calls(&v, "stop1 wake1 ");
    g_assert_true(vu_ring_pop(ring, chain));
    g_assert_cmpuint(chain->head, ==, 0);
    vu_ring_push(ring, chain, 0);
    vmm_clear(&v);
    vu_chain_free(chain);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/ring-aside/order", test_order);
    g_test_add_func("/ring-aside/alone", test_alone);
    g_test_add_func("/ring-aside/fair", test_fair);
    g_test_add_func("/ring-aside/many", test_many);
    g_test_add_func("/ring-aside/stop", test_stop);
    g_test_add_func("/ring-aside/told", test_told);
    g_test_add_func("/ring-aside/pause", test_pause);
    g_test_add_func("/ring-aside/rewritten", test_rewritten);
    g_test_add_func("/ring-aside/broken", test_broken);
    g_test_add_func("/ring-aside/threads", test_threads);
    g_test_add_func("/ring-aside/device-leaves", test_device_leaves);
    return g_test_run();
}
