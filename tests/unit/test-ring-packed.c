/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The packed ring, one thread: well-formed and malformed chains, their order,
 * notifications.
 */
#include "virtiofsd/vhost/ring.h"

#include <errno.h>

#include "tests/unit/vhost-ring.h"
#include "virtiofsd/log.h"
#include "virtiofsd/vhost/guard.h"

#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define INDIRECT VRING_DESC_F_INDIRECT
#define PACKED VU_F_RING_PACKED
#define ALL (PACKED | VU_F_EVENT_IDX | VU_F_INDIRECT_DESC)
#define TABLE 0xc000u /* where tests put indirect tables */
#define DATA(n) (GUEST_GPA + GUEST_DATA + 0x1000u * (n))
#define KICK_DESC ((uint32_t)VRING_PACKED_EVENT_FLAG_DESC << 16)
#define KICK_NEVER ((uint32_t)VRING_PACKED_EVENT_FLAG_DISABLE << 16)

static void check_segment(const Fixture *f, const struct iovec *segment, uint64_t gpa,
                          size_t length)
{
    g_assert_true(segment->iov_base == fixture_host(f, gpa - GUEST_GPA));
    g_assert_cmpuint(segment->iov_len, ==, length);
}

/* An honest request of two places: 100 bytes in, 200 out. */
static void offer_honest(Fixture *f, uint16_t id)
{
    const GuestDesc chain[] = {{DATA(0), 100, NEXT, 0xbad}, {DATA(2), 200, WRITE, id}};

    packed_offer(&f->guest, chain, 2);
}

static void expect_used(Fixture *f, uint32_t n_places, uint32_t id, uint32_t length)
{
    uint32_t got_id = 0, got_length = 0;

    g_assert_true(packed_reap(&f->guest, n_places, &got_id, &got_length));
    g_assert_cmpuint(got_id, ==, id);
    g_assert_cmpuint(got_length, ==, length);
}

static void expect_none_used(Fixture *f)
{
    uint32_t id = 0, length = 0;

    g_assert_false(packed_reap(&f->guest, 1, &id, &length));
}

static void check_honest(Fixture *f, uint16_t id)
{
    g_assert_cmpuint(f->chain->n_in, ==, 1);
    g_assert_cmpuint(f->chain->n_out, ==, 1);
    check_segment(f, &f->chain->in[0], DATA(0), 100);
    check_segment(f, &f->chain->out[0], DATA(2), 200);
    g_assert_cmpuint(vu_ring_in_flight(f->ring), ==, 1);
    vu_ring_push(f->ring, f->chain, 150);
    g_assert_cmpuint(vu_ring_in_flight(f->ring), ==, 0);
    expect_used(f, 2, id, 150);
    expect_none_used(f);
}

static void serve_honest(Fixture *f, uint16_t id)
{
    offer_honest(f, id);
    g_assert_true(vu_ring_pop(f->ring, f->chain));
    check_honest(f, id);
}

/* One of a single place. */
static void offer_single(Fixture *f, uint16_t id)
{
    packed_offer(&f->guest, &(GuestDesc){DATA(4), 10, WRITE, id}, 1);
}

static void expect_empty(Fixture *f)
{
    g_assert_false(vu_ring_pop(f->ring, f->chain));
}

static void resize(Fixture *f, uint32_t size)
{
    vu_ring_stop(f->ring);
    memset(f->guest.memory, 0, 16 * (size_t)GUEST_QUEUE);
    f->guest.queue_size = size;
    packed_init(&f->guest);
    fixture_start(f);
}

/* Chains begin at every place, and go over the end, in queues of any size. */
static void test_round_trip(void)
{
    const uint64_t features[] = {0, VU_F_EVENT_IDX, VU_F_INDIRECT_DESC, ALL};
    const uint32_t sizes[] = {GUEST_QUEUE, 2, 3, 5, 63};

    for (size_t i = 0; i < G_N_ELEMENTS(features); i++) {
        Fixture f;
        fixture_init(&f, features[i] | PACKED);
        for (size_t k = 0; k < G_N_ELEMENTS(sizes); k++) {
            resize(&f, sizes[k]);
            expect_empty(&f);
            for (unsigned int n = 0; n < 3 * sizes[k]; n++) {
                serve_honest(&f, (uint16_t)(n * 1009)); /* any id will do */
                expect_empty(&f);
            }
        }
        fixture_clear(&f);
    }
}

/* A queue with one place, and one that is full. */
static void test_full(void)
{
    const uint32_t sizes[] = {1, 7, GUEST_QUEUE};
    VuChain *chains[GUEST_QUEUE];
    Fixture f;

    fixture_init(&f, ALL);
    for (uint32_t i = 0; i < GUEST_QUEUE; i++) {
        chains[i] = vu_chain_new();
    }
    for (size_t k = 0; k < G_N_ELEMENTS(sizes); k++) {
        const uint32_t n = sizes[k];
        resize(&f, n);
        for (int lap = 0; lap < 3; lap++) {
            for (uint32_t i = 0; i < n; i++) {
                offer_single(&f, (uint16_t)i);
            }
            for (uint32_t i = 0; i < n; i++) {
                g_assert_true(vu_ring_pop(f.ring, chains[i]));
            }
            expect_empty(&f);
            for (uint32_t i = 0; i < n; i++) { /* the last one first */
                vu_ring_push(f.ring, chains[n - 1 - i], i);
                expect_used(&f, 1, n - 1 - i, i);
            }
            expect_none_used(&f);
        }
    }
    for (uint32_t i = 0; i < GUEST_QUEUE; i++) {
        vu_chain_free(chains[i]);
    }
    fixture_clear(&f);
}

/* What is told of one chain is written over another that runs. */
static void test_order(void)
{
    VuChain *first = vu_chain_new(), *second = vu_chain_new();
    const GuestDesc three[] = {
        {DATA(0), 1, NEXT, 7}, {DATA(2), 2, NEXT, 7}, {DATA(4), 3, WRITE, 7}};
    Fixture f;

    fixture_init(&f, ALL);
    for (int lap = 0; lap < 40; lap++) { /* 6 places each: through the end, too */
        offer_honest(&f, 40);
        packed_offer(&f.guest, three, 3);
        offer_single(&f, 9);
        uint16_t begin = f.guest.reaped;
        g_assert_true(vu_ring_pop(f.ring, first));
        g_assert_true(vu_ring_pop(f.ring, second));
        g_assert_true(vu_ring_pop(f.ring, f.chain));
        vu_ring_push(f.ring, second, 3);
        expect_used(&f, 3, 7, 3);
        g_assert_cmpuint(f.guest.reaped, ==, packed_step(&f.guest, begin, 3));
        vu_ring_push(f.ring, f.chain, 10);
        expect_used(&f, 1, 9, 10);
        check_segment(&f, &first->out[0], DATA(2), 200);
        vu_ring_push(f.ring, first, 0);
        expect_used(&f, 2, 40, 0);
        g_assert_cmpuint(f.guest.reaped, ==, f.guest.offered);
    }
    vu_chain_free(first);
    vu_chain_free(second);
    fixture_clear(&f);
}

/* A chain that waits is not what has been written over it since, by us and then by the
 * guest, but what it was. */
static void test_park(void)
{
    Fixture f;

    fixture_init(&f, ALL);
    offer_honest(&f, 1);
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    uint16_t head = vu_ring_park(f.ring, f.chain);
    for (uint32_t i = 0; i < 3 * GUEST_QUEUE; i++) {
        offer_single(&f, 2);
        g_assert_true(vu_ring_pop(f.ring, f.chain));
        vu_ring_push(f.ring, f.chain, i);
        expect_used(&f, 1, 2, i);
    }
    memset(f.guest.memory + GUEST_DESC, 0xff, 16 * (size_t)GUEST_QUEUE);
    g_assert_true(vu_ring_unpark(f.ring, head, f.chain));
    check_honest(&f, 1);
    fixture_clear(&f);
}

/* ---- indirect tables --------------------------------------------------------------- */

/* A table of @n entries at @at: one readable and the others writable single pages. */
static void write_table(Fixture *f, uint32_t at, uint32_t n, uint16_t more_flags)
{
    for (uint32_t i = 0; i < n; i++) {
        struct vring_packed_desc entry = {
            .addr = DATA(i),
            .len = 0x1000,
            .id = 0xdead,
            .flags = (uint16_t)((i > 0 ? WRITE : 0) | more_flags),
        };
        memcpy(f->guest.memory + at + 16 * i, &entry, sizeof(entry));
    }
}

static void offer_table(Fixture *f, uint32_t at, uint32_t n)
{
    packed_offer(&f->guest, &(GuestDesc){GUEST_GPA + at, 16 * n, INDIRECT | WRITE, 5}, 1);
}

/* Entries follow each other; no flag but WRITE, and no id, has a meaning there. */
static void test_indirect(void)
{
    const uint32_t at[] = {TABLE, TABLE + 16, TABLE + 8, TABLE + 3};
    const uint16_t flags[] = {0, NEXT, INDIRECT, (uint16_t)~WRITE};
    Fixture f;

    fixture_init(&f, ALL);
    for (size_t i = 0; i < G_N_ELEMENTS(at); i++) {
        for (size_t k = 0; k < G_N_ELEMENTS(flags); k++) {
            write_table(&f, at[i], GUEST_QUEUE, flags[k]);
            offer_table(&f, at[i], GUEST_QUEUE);
            g_assert_true(vu_ring_pop(f.ring, f.chain));
            g_assert_cmpuint(f.chain->n_in, ==, 1);
            g_assert_cmpuint(f.chain->n_out, ==, 1); /* all adjacent */
            check_segment(&f, &f.chain->in[0], DATA(0), 0x1000);
            check_segment(&f, &f.chain->out[0], DATA(1), 0x1000 * (GUEST_QUEUE - 1));
            vu_ring_push(f.ring, f.chain, 1);
            expect_used(&f, 1, 5, 1);
        }
    }
    fixture_clear(&f);
}

/* Across the end of a region, in the middle of an entry, too. */
static void test_indirect_spanning(void)
{
    for (uint32_t shift = 0; shift <= 32; shift += 4) {
        const uint32_t end = 0x20000;
        VuMemory *parts = vu_memory_new();
        Fixture f;
        fixture_init(&f, ALL);
        map_part(&parts, &f.guest, 0, end);
        map_part(&parts, &f.guest, end, GUEST_SIZE);
        vu_ring_set_memory(f.ring, parts);
        vu_memory_unref(f.memory);
        f.memory = parts;
        write_table(&f, end - shift, 2, 0);
        offer_table(&f, end - shift, 2);
        g_assert_true(vu_ring_pop(f.ring, f.chain));
        g_assert_cmpuint(f.chain->n_in, ==, 1);
        g_assert_cmpuint(f.chain->n_out, ==, 1);
        check_segment(&f, &f.chain->out[0], DATA(1), 0x1000);
        vu_ring_push(f.ring, f.chain, 0);
        fixture_clear(&f);
    }
}

/* ---- malformed chains -------------------------------------------------------------- */

typedef struct BadChain {
    const char *name;
    uint32_t n;
    GuestDesc ring[3];
    struct vring_packed_desc table[2]; /* at TABLE */
} BadChain;

#define TABLE_AT (GUEST_GPA + TABLE)
#define ONE                                                                              \
    {                                                                                    \
        .addr = DATA(0), .len = 1                                                        \
    }

static const BadChain bad_chains[] = {
    {"no bytes", 1, {{DATA(0), 0, 0, 3}}, {{0}}},
    {"no bytes behind some", 2, {{DATA(0), 1, NEXT, 0}, {DATA(0), 0, WRITE, 3}}, {{0}}},
    {"outside memory", 1, {{GUEST_GPA - 1, 2, 0, 3}}, {{0}}},
    {"wraps around", 1, {{UINT64_MAX, 2, WRITE, 3}}, {{0}}},
    {"readable after writable",
     2,
     {{DATA(0), 1, WRITE | NEXT, 0}, {DATA(1), 1, 0, 3}},
     {{0}}},
    {"table of length 0", 1, {{TABLE_AT, 0, INDIRECT, 3}}, {ONE}},
    {"table of length 17", 1, {{TABLE_AT, 17, INDIRECT, 3}}, {ONE}},
    {"table larger than the queue",
     1,
     {{TABLE_AT, 16 * (GUEST_QUEUE + 1), INDIRECT, 3}},
     {ONE}},
    {"table outside memory", 1, {{GUEST_GPA - 16, 16, INDIRECT, 3}}, {{0}}},
    {"table over the end", 1, {{GUEST_GPA + GUEST_SIZE - 8, 16, INDIRECT, 3}}, {{0}}},
    {"table with a next one",
     2,
     {{TABLE_AT, 16, INDIRECT | NEXT, 0}, {DATA(0), 1, WRITE, 3}},
     {ONE}},
    {"empty entry in the table", 1, {{TABLE_AT, 32, INDIRECT, 3}}, {ONE, {0}}},
    {"readable after writable in the table",
     1,
     {{TABLE_AT, 32, INDIRECT, 3}},
     {{.addr = DATA(0), .len = 1, .flags = WRITE}, ONE}},
};

static void offer_bad(Fixture *f, const BadChain *bad)
{
    memcpy(f->guest.memory + TABLE, bad->table, sizeof(bad->table));
    packed_offer(&f->guest, bad->ring, bad->n);
}

/* Each is retired with length 0, by its own id and in its own length, in the pop that
 * serves the honest one behind it. */
static void test_malformed(void)
{
    Fixture f;

    fixture_init(&f, ALL);
    for (size_t i = 0; i < G_N_ELEMENTS(bad_chains); i++) {
        g_test_message("%s", bad_chains[i].name);
        offer_bad(&f, &bad_chains[i]);
        offer_honest(&f, 20);
        g_assert_true(vu_ring_pop(f.ring, f.chain));
        expect_used(&f, bad_chains[i].n, 3, 0);
        check_honest(&f, 20);

        offer_bad(&f, &bad_chains[i]); /* and alone */
        expect_empty(&f);
        expect_used(&f, bad_chains[i].n, 3, 0);
        g_assert_cmpuint(take_events(f.error_fd), ==, 0);
    }
    fixture_clear(&f);

    fixture_init(&f, PACKED | VU_F_EVENT_IDX);
    write_table(&f, TABLE, 2, 0);
    offer_table(&f, TABLE, 2); /* which was not agreed */
    expect_empty(&f);
    expect_used(&f, 1, 5, 0);
    fixture_clear(&f);
}

/* ---- broken rings ------------------------------------------------------------------ */

static void expect_broken(Fixture *f)
{
    for (int i = 0; i < 3; i++) {
        expect_empty(f);
    }
    g_assert_cmpuint(take_events(f->error_fd), ==, 1); /* said once */
    g_assert_true(vu_ring_is_started(f->ring));
}

/* Every descriptor names a next one: no chain ends. */
static void test_endless(void)
{
    const uint32_t sizes[] = {1, 3, GUEST_QUEUE};
    Fixture f;

    fixture_init(&f, ALL);
    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        resize(&f, sizes[i]);
        for (uint32_t n = 0; n < sizes[i]; n++) {
            packed_offer(&f.guest, &(GuestDesc){DATA(0), 1, NEXT, 1}, 1);
        }
        expect_broken(&f);
        g_assert_cmpuint(vu_ring_in_flight(f.ring), ==, 0);
    }
    resize(&f, GUEST_QUEUE); /* as after the driver's reset, it works again */
    serve_honest(&f, 1);
    fixture_clear(&f);
}

/* Offered once more, in places whose chains still run. What runs is retired. */
static void test_too_many(void)
{
    VuChain *chains[4];
    Fixture f;

    fixture_init(&f, ALL);
    resize(&f, 4);
    for (uint16_t i = 0; i < 4; i++) {
        offer_single(&f, i);
        chains[i] = vu_chain_new();
        g_assert_true(vu_ring_pop(f.ring, chains[i]));
    }
    expect_empty(&f);
    g_assert_cmpuint(take_events(f.error_fd), ==, 0);
    offer_single(&f, 0);
    expect_broken(&f);
    for (uint16_t i = 0; i < 4; i++) {
        vu_ring_push(f.ring, chains[i], 1);
        vu_chain_free(chains[i]);
    }
    g_assert_cmpuint(vu_ring_in_flight(f.ring), ==, 0);
    resize(&f, 4);

    /* two places of four are taken: a chain of three is one too long */
    offer_honest(&f, 1);
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    const GuestDesc three[] = {
        {DATA(0), 1, NEXT, 7}, {DATA(2), 2, NEXT, 7}, {DATA(4), 3, 0, 7}};
    packed_offer(&f.guest, three, 3);
    VuChain *other = vu_chain_new();
    g_assert_false(vu_ring_pop(f.ring, other));
    vu_chain_free(other);
    vu_ring_push(f.ring, f.chain, 1);
    expect_broken(&f);
    fixture_clear(&f);
}

/* Ids are the guest's own business: the same twice, or any number. */
static void test_ids(void)
{
    VuChain *other = vu_chain_new();
    const uint16_t ids[] = {0, GUEST_QUEUE, 0x8000, 0xffff};
    Fixture f;

    fixture_init(&f, ALL);
    for (size_t i = 0; i < G_N_ELEMENTS(ids); i++) {
        offer_single(&f, ids[i]);
        offer_honest(&f, ids[i]);
        g_assert_true(vu_ring_pop(f.ring, f.chain));
        g_assert_true(vu_ring_pop(f.ring, other));
        vu_ring_push(f.ring, other, 2);
        expect_used(&f, 2, ids[i], 2);
        vu_ring_push(f.ring, f.chain, 1);
        expect_used(&f, 1, ids[i], 1);
    }
    vu_chain_free(other);
    fixture_clear(&f);
}

/* Flags that offer nothing: of the lap before, used, or neither. */
static void test_not_offered(void)
{
    const uint16_t first_lap[] = {0, PACKED_USED, PACKED_AVAIL | PACKED_USED};
    const uint16_t second_lap[] = {0, PACKED_AVAIL, PACKED_AVAIL | PACKED_USED};
    Fixture f;

    fixture_init(&f, ALL);
    for (int lap = 0; lap < 2; lap++) {
        for (size_t i = 0; i < 3; i++) {
            packed_desc(&f.guest, f.guest.offered, (GuestDesc){DATA(0), 1, 0, 0});
            packed_flags(&f.guest, f.guest.offered, (lap ? second_lap : first_lap)[i]);
            g_assert_false(vu_ring_poll(f.ring));
            expect_empty(&f);
        }
        for (uint32_t i = 0; i < GUEST_QUEUE / 2; i++) {
            offer_honest(&f, 0);
            g_assert_true(vu_ring_poll(f.ring));
            g_assert_true(vu_ring_pop(f.ring, f.chain));
            check_honest(&f, 0);
        }
    }
    fixture_clear(&f);
}

static void test_truncated(void)
{
    Fixture f;

    g_assert_cmpint(vu_guard_install(), ==, 0);
    fixture_init(&f, ALL);
    serve_honest(&f, 1);
    g_assert_cmpint(ftruncate(f.guest.fd, 0), ==, 0);
    expect_broken(&f);
    g_assert_true(vu_guard_is_hit());
    vu_guard_clear();
    fixture_clear(&f);
}

/* ---- notifications ----------------------------------------------------------------- */

static void test_kicks_event_idx(void)
{
    Fixture f;

    fixture_init(&f, ALL);
    memset(f.guest.memory + GUEST_USED, 0xff, 4); /* of an earlier life */
    expect_empty(&f);
    g_assert_cmpuint(packed_device_event(&f.guest), ==, KICK_DESC | 0x8000);
    for (uint32_t i = 0; i < GUEST_QUEUE; i++) {
        uint32_t before = packed_device_event(&f.guest);
        offer_honest(&f, 0); /* not armed while it runs */
        g_assert_true(vu_ring_pop(f.ring, f.chain));
        g_assert_cmpuint(packed_device_event(&f.guest), ==, before);
        check_honest(&f, 0);
        expect_empty(&f);
        g_assert_cmpuint(packed_device_event(&f.guest), ==, KICK_DESC | f.guest.offered);
    }
    g_assert_false(vu_ring_poll(f.ring)); /* whoever polls wants none */
    g_assert_cmpuint(packed_device_event(&f.guest), ==, KICK_NEVER);
    expect_empty(&f);
    g_assert_cmpuint(packed_device_event(&f.guest), ==, KICK_DESC | f.guest.offered);
    fixture_clear(&f);
}

static void test_kicks_flag(void)
{
    Fixture f;

    fixture_init(&f, PACKED);
    memset(f.guest.memory + GUEST_USED, 0xff, 4);
    expect_empty(&f);
    g_assert_cmpuint(packed_device_event(&f.guest), ==, 0);
    offer_honest(&f, 0);
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    g_assert_cmpuint(packed_device_event(&f.guest), ==, KICK_NEVER);
    check_honest(&f, 0);
    expect_empty(&f);
    g_assert_cmpuint(packed_device_event(&f.guest), ==, 0);
    fixture_clear(&f);
}

static void expect_interrupt(Fixture *f, bool expected)
{
    serve_honest(f, 0);
    g_assert_cmpuint(take_events(f->call_fd), ==, expected ? 1 : 0);
}

static void test_interrupts_flag(void)
{
    for (int event_idx = 0; event_idx < 2; event_idx++) {
        Fixture f;
        fixture_init(&f, event_idx ? ALL : PACKED);
        packed_set_driver_event(&f.guest, 0, VRING_PACKED_EVENT_FLAG_ENABLE);
        expect_interrupt(&f, true);
        expect_interrupt(&f, true);
        packed_set_driver_event(&f.guest, 0, VRING_PACKED_EVENT_FLAG_DISABLE);
        expect_interrupt(&f, false);
        packed_set_driver_event(&f.guest, 0, VRING_PACKED_EVENT_FLAG_DISABLE | 0xfffc);
        expect_interrupt(&f, false);
        packed_set_driver_event(&f.guest, 0, 3); /* reserved: better one too many */
        expect_interrupt(&f, true);
        if (!event_idx) { /* a wish that was not agreed on */
            packed_set_driver_event(&f.guest, 9, VRING_PACKED_EVENT_FLAG_DESC);
            expect_interrupt(&f, true);
        }
        fixture_clear(&f);
    }
}

/* An interrupt at the place that the guest names and at no other, on every lap: at each
 * place of the ring, and of the next lap. */
static void test_interrupts_event_idx(void)
{
    const uint32_t sizes[] = {GUEST_QUEUE, 6};
    Fixture f;

    fixture_init(&f, ALL);
    for (size_t k = 0; k < G_N_ELEMENTS(sizes); k++) {
        const uint32_t n = sizes[k] / 2; /* requests in a lap */
        resize(&f, sizes[k]);
        packed_set_driver_event(&f.guest, 9, VRING_PACKED_EVENT_FLAG_DESC);
        expect_interrupt(&f, true); /* the first one always */
        for (uint32_t ahead = 0; ahead < n; ahead++) {
            /* in either of the two places that the request takes up */
            uint16_t at = packed_step(&f.guest, f.guest.reaped, 2 * ahead + (ahead & 1));
            packed_set_driver_event(&f.guest, at, VRING_PACKED_EVENT_FLAG_DESC);
            for (uint32_t i = 0; i <= n; i++) {
                expect_interrupt(&f, i == ahead);
            }
        }
    }
    fixture_clear(&f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_threshold = LOG_LEVEL_OFF;
    g_test_add_func("/ring-packed/round-trip", test_round_trip);
    g_test_add_func("/ring-packed/full", test_full);
    g_test_add_func("/ring-packed/order", test_order);
    g_test_add_func("/ring-packed/park", test_park);
    g_test_add_func("/ring-packed/indirect", test_indirect);
    g_test_add_func("/ring-packed/indirect-spanning", test_indirect_spanning);
    g_test_add_func("/ring-packed/malformed", test_malformed);
    g_test_add_func("/ring-packed/endless", test_endless);
    g_test_add_func("/ring-packed/too-many", test_too_many);
    g_test_add_func("/ring-packed/ids", test_ids);
    g_test_add_func("/ring-packed/not-offered", test_not_offered);
    g_test_add_func("/ring-packed/truncated", test_truncated);
    g_test_add_func("/ring-packed/kicks-event-idx", test_kicks_event_idx);
    g_test_add_func("/ring-packed/kicks-flag", test_kicks_flag);
    g_test_add_func("/ring-packed/interrupts-flag", test_interrupts_flag);
    g_test_add_func("/ring-packed/interrupts-event-idx", test_interrupts_event_idx);
    return g_test_run();
}
