/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chains that are put aside: what waits for them, what does not, and what the guest and
 * the VMM may do to them meanwhile.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "tests/unit/vhost-vmm.h"

#define DATA (GUEST_GPA + GUEST_DATA)

static void offer(Guest *guest, uint16_t head)
{
    guest_desc(guest, GUEST_DESC, head, (GuestDesc){DATA, 10, VRING_DESC_F_WRITE, 0});
    guest_offer(guest, head);
}

static uint16_t pop_and_park(Fixture *f, uint16_t head)
{
    offer(&f->guest, head);
    g_assert_true(vu_ring_pop(f->ring, f->chain));
    g_assert_cmpuint(vu_ring_park(f->ring, f->chain), ==, head);
    g_assert_null(f->chain->memory);
    return head;
}

static void expect_used(Guest *guest, uint32_t head, uint32_t length)
{
    uint32_t id = 0, got = 0;

    g_assert_true(guest_reap(guest, &id, &got));
    g_assert_cmpuint(id, ==, head);
    g_assert_cmpuint(got, ==, length);
}

static void test_answer(void)
{
    Fixture f;

    fixture_init(&f, 0);
    uint16_t head = pop_and_park(&f, 3);
    g_assert_cmpuint(vu_ring_in_flight(f.ring), ==, 1);
    g_assert_cmpuint(vu_ring_running(f.ring), ==, 0);
    /* others go on, with the same chain */
    offer(&f.guest, 5);
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    g_assert_cmpuint(vu_ring_running(f.ring), ==, 1);
    vu_ring_push(f.ring, f.chain, 7);
    expect_used(&f.guest, 5, 7);
    g_assert_true(vu_ring_unpark(f.ring, head, f.chain));
    g_assert_cmpuint(vu_ring_running(f.ring), ==, 1);
    g_assert_cmpuint(f.chain->n_out, ==, 1);
    g_assert_true(f.chain->out[0].iov_base == fixture_host(&f, GUEST_DATA));
    vu_ring_push(f.ring, f.chain, 10);
    expect_used(&f.guest, 3, 10);
    g_assert_cmpuint(vu_ring_in_flight(f.ring), ==, 0);
    fixture_clear(&f);
}

/* Some descriptors stay for requests that end the waiting of others. */
static void test_room(void)
{
    Fixture f;

    fixture_init(&f, 0);
    uint16_t n = 0;
    for (; vu_ring_may_park(f.ring); n++) {
        g_assert_cmpuint(n, <, GUEST_QUEUE);
        pop_and_park(&f, n);
    }
    g_assert_cmpuint(n, ==, GUEST_QUEUE / 8);
    while (n > 0) {
        g_assert_true(vu_ring_unpark(f.ring, --n, f.chain));
        vu_ring_push(f.ring, f.chain, 0);
        g_assert_true(vu_ring_may_park(f.ring));
    }
    fixture_clear(&f);

    fixture_init(&f, UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC);
    for (; vu_ring_may_park(f.ring); n++) {
        pop_and_park(&f, n);
    }
    g_assert_cmpuint(n, ==, GUEST_QUEUE / 2);
    while (n > 0) {
        g_assert_true(vu_ring_unpark(f.ring, --n, f.chain));
        vu_ring_push(f.ring, f.chain, 0);
    }
    fixture_clear(&f);
}

/* A pause waits for what runs only, and is told when that has ended in either way. */
static void test_pause(void)
{
    Fixture f;
    VuChain *other = vu_chain_new();

    fixture_init(&f, 0);
    uint16_t head = pop_and_park(&f, 0);
    offer(&f.guest, 1);
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    offer(&f.guest, 2);
    g_assert_true(vu_ring_pop(f.ring, other));
    g_assert_cmpuint(take_events(f.idle_fd), ==, 0);
    vu_ring_pause(f.ring);
    g_assert_cmpuint(vu_ring_running(f.ring), ==, 2);
    g_assert_cmpuint(vu_ring_park(f.ring, other), ==, 2);
    g_assert_cmpuint(take_events(f.idle_fd), ==, 1);
    vu_ring_push(f.ring, f.chain, 0);
    g_assert_cmpuint(vu_ring_running(f.ring), ==, 0);
    g_assert_cmpuint(take_events(f.idle_fd), ==, 1);
    /* nothing is taken up while memory may change */
    g_assert_false(vu_ring_unpark(f.ring, head, f.chain));
    g_assert_null(f.chain->memory);
    g_assert_cmpuint(vu_ring_running(f.ring), ==, 0);
    vu_ring_resume(f.ring);
    g_assert_true(vu_ring_unpark(f.ring, head, f.chain));
    vu_ring_push(f.ring, f.chain, 0);
    g_assert_true(vu_ring_unpark(f.ring, 2, f.chain));
    vu_ring_push(f.ring, f.chain, 0);
    vu_chain_free(other);
    fixture_clear(&f);
}

/* A ring that is stopped answers what was parked, and keeps its layout until then. */
static void test_stop(void)
{
    Fixture f;

    fixture_init(&f, 0);
    uint16_t head = pop_and_park(&f, 0);
    vu_ring_stop(f.ring);
    g_assert_cmpint(vu_ring_set_size(f.ring, 32), ==, -EBUSY);
    g_assert_cmpint(vu_ring_set_base(f.ring, 9), ==, -EBUSY);
    g_assert_true(vu_ring_unpark(f.ring, head, f.chain));
    g_assert_cmpuint(take_events(f.idle_fd), ==, 0);
    vu_ring_push(f.ring, f.chain, 4);
    g_assert_cmpuint(take_events(f.idle_fd), ==, 1);
    expect_used(&f.guest, 0, 4);
    g_assert_cmpint(vu_ring_set_size(f.ring, 32), ==, 0);
    fixture_clear(&f);
}

/* What the guest does to the descriptors of a parked chain harms nobody but itself. */
static void test_rewritten(void)
{
    const GuestDesc bad[] = {
        {UINT64_MAX - 4, 10, VRING_DESC_F_WRITE, 0},
        {DATA, 10, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 0xffff},
        {DATA, 0, VRING_DESC_F_WRITE, 0},
        {DATA, 10, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 0},
        {DATA, 64, VRING_DESC_F_INDIRECT, 0},
    };
    Fixture f;

    fixture_init(&f, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        uint16_t head = pop_and_park(&f, 0);
        guest_desc(&f.guest, GUEST_DESC, 0, bad[i]);
        g_assert_true(vu_ring_unpark(f.ring, head, f.chain));
        g_assert_cmpuint(f.chain->n_in + f.chain->n_out, ==, 0);
        vu_ring_push(f.ring, f.chain, 0);
        expect_used(&f.guest, 0, 0);
    }
    fixture_clear(&f);
}

/* Memory is swapped, and at last gone, while a chain is parked. */
static void test_memory(void)
{
    Fixture f;

    fixture_init(&f, 0);
    uint16_t head = pop_and_park(&f, 0);
    for (int i = 0; i < 2; i++) {
        VuMemory *memory = vu_memory_new();
        if (i == 0) {
            map_part(&memory, &f.guest, 0, GUEST_SIZE);
        }
        vu_ring_pause(f.ring);
        vu_ring_set_memory(f.ring, memory);
        vu_memory_unref(f.memory); /* the last reference to the old mapping */
        f.memory = memory;
        vu_ring_resume(f.ring);
        g_assert_true(vu_ring_unpark(f.ring, head, f.chain));
        g_assert_cmpuint(f.chain->n_out, ==, i == 0 ? 1 : 0);
        if (i == 0) {
            g_assert_true(f.chain->out[0].iov_base == fixture_host(&f, GUEST_DATA));
            vu_ring_push(f.ring, f.chain, 10);
            expect_used(&f.guest, 0, 10);
            head = pop_and_park(&f, 0);
        } else {
            vu_ring_push(f.ring, f.chain, 0);
        }
    }
    g_assert_cmpuint(vu_ring_in_flight(f.ring), ==, 0);
    fixture_clear(&f);
}

/* ---- threads ----------------------------------------------------------------------- */

enum { ROUNDS = 20000, HEADS = 8 };

typedef struct Parker {
    Fixture f;
    _Atomic int parked[HEADS]; /* 1: parked, waits to be answered */
    _Atomic bool ends;
} Parker;

static void *answer_main(void *data)
{
    Parker *p = data;
    VuChain *chain = vu_chain_new();

    while (!atomic_load(&p->ends)) {
        for (uint16_t head = 0; head < HEADS; head++) {
            if (atomic_load(&p->parked[head]) == 1 &&
                vu_ring_unpark(p->f.ring, head, chain)) {
                atomic_store(&p->parked[head], 0);
                vu_ring_push(p->f.ring, chain, 1);
            }
        }
        sched_yield();
    }
    vu_chain_free(chain);
    return NULL;
}

/* One thread parks, one answers, and this one pauses: never is anything taken up then. */
static void *pause_main(void *data)
{
    Parker *p = data;

    while (!atomic_load(&p->ends)) {
        vu_ring_pause(p->f.ring);
        while (vu_ring_running(p->f.ring) > 0) {
            sched_yield();
        }
        for (int i = 0; i < 20; i++) {
            g_assert_cmpuint(vu_ring_running(p->f.ring), ==, 0);
        }
        vu_ring_resume(p->f.ring);
        sched_yield();
    }
    return NULL;
}

static void test_threads(void)
{
    static Parker p;
    pthread_t answer, pause;

    fixture_init(&p.f, 0);
    g_assert_cmpint(pthread_create(&answer, NULL, answer_main, &p), ==, 0);
    g_assert_cmpint(pthread_create(&pause, NULL, pause_main, &p), ==, 0);
    uint32_t id, length, n_reaped = 0;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        uint16_t head = (uint16_t)(i % HEADS);
        while (i - n_reaped >= HEADS || atomic_load(&p.parked[head]) != 0) {
            n_reaped += guest_reap(&p.f.guest, &id, &length) ? 1 : 0;
        }
        offer(&p.f.guest, head);
        while (!vu_ring_pop(p.f.ring, p.f.chain)) {
            sched_yield();
        }
        head = vu_ring_park(p.f.ring, p.f.chain);
        atomic_store(&p.parked[head], 1);
    }
    while (n_reaped < ROUNDS) {
        n_reaped += guest_reap(&p.f.guest, &id, &length) ? 1 : 0;
    }
    atomic_store(&p.ends, true);
    pthread_join(answer, NULL);
    pthread_join(pause, NULL);
    fixture_clear(&p.f);
}

/* ---- the device -------------------------------------------------------------------- */

static void begin_parked(Vmm *v, VuChain *chain)
{
    vmm_init(v, NULL);
    vmm_negotiate(v);
    g_assert_cmpuint(vmm_memory(v, 0, GUEST_SIZE / 2, v->guest.fd), ==, 0);
    vmm_ring(v, 1, 0);
    g_assert_cmpint(vmm_ring_fd(v, VU_SET_VRING_KICK, 1, v->interrupt_fd), ==, VU_OK);
    g_assert_cmpint(vmm_say_state(v, VU_SET_VRING_ENABLE, 1, 1), ==, VU_OK);
    offer(&v->guest, 0);
    VuRing *ring = vu_device_ring(v->device, 1);
    g_assert_true(vu_ring_pop(ring, chain));
    g_assert_cmpuint(vu_ring_park(ring, chain), ==, 0);
}

/* Memory is plugged and unplugged around a request that waits. */
static void test_device_memory(void)
{
    VuChain *chain = vu_chain_new();
    Vmm v;

    begin_parked(&v, chain);
    for (int i = 0; i < 3; i++) {
        g_assert_cmpuint(vmm_memory(&v, GUEST_SIZE / 2, GUEST_SIZE, v.guest.fd), ==, 0);
        g_assert_cmpuint(vmm_memory(&v, GUEST_SIZE / 2, GUEST_SIZE, -1), ==, 0);
    }
    g_assert_cmpuint(v.n_settled[1], ==, 0);
    g_assert_cmpuint(guest_used_index(&v.guest), ==, 0);
    v.settles = chain;
    vmm_clear(&v);
    vu_chain_free(chain);
}

/* Whatever stops a queue for good has its waiting requests answered first. */
static void test_device_settles(void)
{
    for (int i = 0; i < 3; i++) {
        VuChain *chain = vu_chain_new();
        Reply reply = {0};
        Vmm v;
        begin_parked(&v, chain);
        /* another kick descriptor is no stop */
        g_assert_cmpint(vmm_ring_fd(&v, VU_SET_VRING_KICK, 1, v.interrupt_fd), ==, VU_OK);
        g_assert_cmpuint(v.n_settled[1], ==, 0);
        v.settles = chain;
        if (i == 0) {
            g_assert_cmpint(vmm_say_state(&v, VU_GET_VRING_BASE, 1, 0), ==, VU_OK);
            g_assert_true(vmm_receive(&v, &reply));
            g_assert_cmpuint(reply.payload.state.num, ==, 1);
        } else if (i == 1) {
            g_assert_cmpint(vmm_say(&v, VU_RESET_DEVICE, PLAIN, NULL, 0), ==, VU_OK);
        } else {
            g_assert_true(vu_device_disconnect(v.device, 0));
        }
        g_assert_cmpuint(v.n_settled[1], ==, 1);
        expect_used(&v.guest, 0, 1);
        vmm_clear(&v);
        vu_chain_free(chain);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/ring-park/answer", test_answer);
    g_test_add_func("/ring-park/room", test_room);
    g_test_add_func("/ring-park/pause", test_pause);
    g_test_add_func("/ring-park/stop", test_stop);
    g_test_add_func("/ring-park/rewritten", test_rewritten);
    g_test_add_func("/ring-park/memory", test_memory);
    g_test_add_func("/ring-park/threads", test_threads);
    g_test_add_func("/ring-park/device-memory", test_device_memory);
    g_test_add_func("/ring-park/device-settles", test_device_settles);
    return g_test_run();
}
