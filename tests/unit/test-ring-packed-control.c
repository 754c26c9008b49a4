/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control thread's side of a packed ring: choice of the layout, sizes, bases,
 * addresses, memory that goes and comes.
 */
#include <errno.h>

#include "tests/unit/vhost-ring.h"
#include "virtiofsd/log.h"

#define DATA (GUEST_GPA + GUEST_DATA)
#define PACKED VU_F_RING_PACKED
#define FRESH 0x80008000u /* base of a ring that nothing has happened to */

static void offer(Fixture *f, uint16_t id)
{
    packed_offer(&f->guest, &(GuestDesc){DATA, 10, VRING_DESC_F_WRITE, id}, 1);
}

static void expect_used(Fixture *f, uint32_t id)
{
    uint32_t got = 0, length = 0;

    g_assert_true(packed_reap(&f->guest, 1, &got, &length));
    g_assert_cmpuint(got, ==, id);
}

static void serve(Fixture *f)
{
    offer(f, 6);
    g_assert_true(vu_ring_pop(f->ring, f->chain));
    g_assert_cmpuint(f->chain->n_out, ==, 1);
    vu_ring_push(f->ring, f->chain, 10);
    expect_used(f, 6);
}

static void use_memory(Fixture *f, VuMemory *memory)
{
    vu_ring_set_memory(f->ring, memory);
    vu_memory_unref(f->memory);
    f->memory = memory;
}

static void test_sizes(void)
{
    const uint32_t good[] = {1, 2, 3, 5, 100, 1023, 32767, 32768};
    const uint32_t bad[] = {0, 32769, 65535, 65536, 1u << 31, UINT32_MAX};
    Fixture f;

    fixture_init(&f, PACKED);
    g_assert_cmpint(vu_ring_set_size(f.ring, 3), ==, -EBUSY);
    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        vu_ring_stop(f.ring);
        g_assert_cmpint(vu_ring_set_size(f.ring, good[i]), ==, 0);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_assert_cmpint(vu_ring_set_size(f.ring, 3), ==, 0);
        g_assert_cmpint(vu_ring_set_size(f.ring, bad[i]), ==, -EINVAL);
        g_assert_cmpint(vu_ring_start(f.ring), ==, -EINVAL);
    }
    /* the largest one works in its last place, and from there on */
    f.guest.queue_size = 32768;
    f.guest.offered = f.guest.reaped = 32767;
    const VuRingAddresses large = {.desc = GUEST_UVA,
                                   .avail = GUEST_UVA + 16 * 32768,
                                   .used = GUEST_UVA + 16 * 32768 + 4};
    g_assert_cmpint(vu_ring_set_size(f.ring, 32768), ==, 0);
    g_assert_cmpint(vu_ring_set_base(f.ring, 32767u << 16 | 32767u), ==, 0);
    g_assert_cmpint(vu_ring_set_addresses(f.ring, &large), ==, 0);
    g_assert_cmpint(vu_ring_start(f.ring), ==, 0);
    serve(&f);
    serve(&f);
    g_assert_cmpuint(vu_ring_base(f.ring), ==, 0x80018001);
    fixture_clear(&f);
}

/* Both places, and both wrap counters, are kept over a stop, on all laps. */
static void test_base(void)
{
    Fixture f;

    fixture_init(&f, PACKED);
    g_assert_cmpint(vu_ring_set_base(f.ring, FRESH), ==, -EBUSY);
    for (uint32_t i = 0; i < 5 * GUEST_QUEUE; i++) {
        vu_ring_stop(f.ring);
        uint32_t base = vu_ring_base(f.ring);
        g_assert_cmpuint(base, ==, fixture_base(&f));
        g_assert_cmpint(vu_ring_set_base(f.ring, 0x12345678), ==, 0); /* forgets */
        g_assert_cmpuint(vu_ring_base(f.ring), ==, 0x12345678);
        g_assert_cmpint(vu_ring_set_base(f.ring, base), ==, 0);
        fixture_start(&f);
        serve(&f);
    }
    vu_ring_stop(f.ring);
    vu_ring_reset(f.ring);
    g_assert_cmpuint(vu_ring_base(f.ring), ==, FRESH);
    fixture_clear(&f);
}

/* Places that the ring does not have. */
static void test_base_outside(void)
{
    const uint32_t bad[] = {GUEST_QUEUE, GUEST_QUEUE << 16,   0x7fff0000,
                            0x00007fff,  FRESH | GUEST_QUEUE, UINT32_MAX};
    Fixture f;

    fixture_init(&f, PACKED);
    vu_ring_stop(f.ring);
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_assert_cmpint(vu_ring_set_base(f.ring, bad[i]), ==, 0);
        g_assert_cmpint(vu_ring_start(f.ring), ==, -EINVAL);
        g_assert_false(vu_ring_is_started(f.ring));
        g_assert_false(vu_ring_pop(f.ring, f.chain));
    }
    fixture_start(&f);
    serve(&f);
    fixture_clear(&f);
}

/* A VMM whose two places differ: nothing is in flight, so all that matters is that both
 * are where it says. */
static void test_base_apart(void)
{
    Fixture f;

    fixture_init(&f, PACKED);
    vu_ring_stop(f.ring);
    f.guest.offered = 3;
    f.guest.reaped = 60 | PACKED_WRAP;
    fixture_start(&f);
    for (uint32_t i = 0; i < 3 * GUEST_QUEUE; i++) {
        serve(&f);
    }
    fixture_clear(&f);
}

static void test_addresses(void)
{
    const uint64_t end = GUEST_UVA + GUEST_SIZE, d = GUEST_UVA, size = 16 * GUEST_QUEUE;
    const struct {
        uint64_t desc, avail, used;
        int result;
    } cases[] = {
        {d, d + size, d + size + 4, 0},
        {d + 8, d + size + 16, d + size + 20, -EINVAL},
        {d, d + size + 2, d + size + 8, -EINVAL},
        {d, d + size, d + size + 6, -EINVAL},
        {d, d + size, d + size, -EFAULT},
        {d, d + size - 4, d + size, -EFAULT},
        {d, d + size, d, -EFAULT},
        {d, end - 4, d + size, 0},
        {d, end, d + size, -EFAULT},
        {end - size, d, end - size - 4, 0},
        {end - size + 16, d, d + 4, -EFAULT},
        {UINT64_MAX - 15, d, d + 4, -EFAULT},
    };
    Fixture f;

    fixture_init(&f, PACKED);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        const VuRingAddresses addresses = {
            .desc = cases[i].desc, .avail = cases[i].avail, .used = cases[i].used};
        g_test_message("case %zu", i);
        vu_ring_stop(f.ring);
        g_assert_cmpint(vu_ring_set_addresses(f.ring, &addresses), ==, cases[i].result);
        g_assert_cmpint(vu_ring_start(f.ring), ==, cases[i].result == 0 ? 0 : -EINVAL);
    }
    fixture_clear(&f);
}

/* The guest's next driver may want another layout: all of the old one is forgotten. */
static void test_layout(void)
{
    Fixture f;

    fixture_init(&f, PACKED);
    serve(&f);
    g_assert_cmpint(vu_ring_set_features(f.ring, 0), ==, -EBUSY);
    g_assert_cmpint(vu_ring_set_features(f.ring, PACKED | VU_F_EVENT_IDX), ==, 0);
    serve(&f); /* the same layout: nothing has changed */
    offer(&f, 1);
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    vu_ring_stop(f.ring);
    g_assert_cmpint(vu_ring_set_features(f.ring, 0), ==, -EBUSY); /* one is in flight */
    vu_ring_push(f.ring, f.chain, 0);
    g_assert_cmpint(vu_ring_set_size(f.ring, 3), ==, 0);

    g_assert_cmpint(vu_ring_set_features(f.ring, 0), ==, 0);
    g_assert_cmpuint(vu_ring_base(f.ring), ==, 0);
    g_assert_cmpint(vu_ring_start(f.ring), ==, -EINVAL); /* no size of 3 */
    f.guest.packed = false;
    f.guest.offered = f.guest.reaped = 0;
    memset(f.guest.memory, 0, GUEST_DATA);
    fixture_start(&f);
    guest_desc(&f.guest, GUEST_DESC, 4, (GuestDesc){DATA, 10, VRING_DESC_F_WRITE, 0});
    guest_offer(&f.guest, 4);
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    vu_ring_push(f.ring, f.chain, 1);
    g_assert_cmpuint(guest_used_index(&f.guest), ==, 1);

    vu_ring_stop(f.ring);
    g_assert_cmpint(vu_ring_set_features(f.ring, PACKED), ==, 0);
    g_assert_cmpuint(vu_ring_base(f.ring), ==, FRESH);
    g_assert_cmpint(vu_ring_start(f.ring), ==, -EINVAL);
    memset(f.guest.memory, 0, GUEST_DATA);
    packed_init(&f.guest);
    fixture_start(&f);
    serve(&f);
    fixture_clear(&f);
}

/* Stopped and started again while a chain is out: it is still known then. */
static void test_start_in_flight(void)
{
    Fixture f;

    fixture_init(&f, PACKED);
    offer(&f, 9);
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    uint16_t head = vu_ring_park(f.ring, f.chain);
    vu_ring_stop(f.ring);
    g_assert_cmpint(vu_ring_start(f.ring), ==, 0);
    serve(&f);
    g_assert_true(vu_ring_unpark(f.ring, head, f.chain));
    g_assert_cmpuint(f.chain->n_out, ==, 1);
    vu_ring_push(f.ring, f.chain, 3);
    expect_used(&f, 9);
    g_assert_cmpuint(vu_ring_base(f.ring), ==, fixture_base(&f));
    fixture_clear(&f);
}

/* The ring's memory is away when a chain is answered: nobody is told, and the guest does
 * not have its place back. All others go on when the memory is there again. */
static void test_memory(void)
{
    Fixture f;

    fixture_init(&f, PACKED);
    offer(&f, 9);
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    uint16_t head = vu_ring_park(f.ring, f.chain);
    VuMemory *memory = vu_memory_ref(f.memory), *data = vu_memory_new();
    map_part(&data, &f.guest, GUEST_DATA, GUEST_SIZE);
    use_memory(&f, data);
    g_assert_true(vu_ring_unpark(f.ring, head, f.chain));
    g_assert_cmpuint(f.chain->n_in + f.chain->n_out, ==, 0);
    vu_ring_push(f.ring, f.chain, 0);
    use_memory(&f, memory);
    for (uint32_t i = 0; i < 3 * GUEST_QUEUE; i++) {
        serve(&f);
    }
    /* one place less than the queue has */
    for (uint32_t i = 0; i < GUEST_QUEUE - 1; i++) {
        offer(&f, 1);
        g_assert_true(vu_ring_pop(f.ring, f.chain));
        (void)vu_ring_park(f.ring, f.chain);
    }
    offer(&f, 1);
    g_assert_false(vu_ring_pop(f.ring, f.chain));
    g_assert_cmpuint(take_events(f.error_fd), ==, 1);
    for (uint16_t i = 0; i < GUEST_QUEUE; i++) {
        if (i != head) {
            g_assert_true(vu_ring_unpark(f.ring, i, f.chain));
            vu_ring_push(f.ring, f.chain, 0);
        }
    }
    fixture_clear(&f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_threshold = LOG_LEVEL_OFF;
    g_test_add_func("/ring-packed-control/sizes", test_sizes);
    g_test_add_func("/ring-packed-control/base", test_base);
    g_test_add_func("/ring-packed-control/base-outside", test_base_outside);
    g_test_add_func("/ring-packed-control/base-apart", test_base_apart);
    g_test_add_func("/ring-packed-control/addresses", test_addresses);
    g_test_add_func("/ring-packed-control/layout", test_layout);
    g_test_add_func("/ring-packed-control/start-in-flight", test_start_in_flight);
    g_test_add_func("/ring-packed-control/memory", test_memory);
    return g_test_run();
}
