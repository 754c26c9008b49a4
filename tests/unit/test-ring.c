/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The split ring, one thread: well-formed and malformed chains, notifications, states.
 */
#include "virtiofsd/vhost/ring.h"

#include <errno.h>
#include <stdlib.h>

#include "tests/unit/vhost-ring.h"
#include "virtiofsd/log.h"
#include "virtiofsd/vhost/guard.h"

#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define INDIRECT VRING_DESC_F_INDIRECT
#define BOTH (VU_F_EVENT_IDX | VU_F_INDIRECT_DESC)
#define TABLE 0xc000u /* where tests put indirect tables */
#define DATA(n) (GUEST_GPA + GUEST_DATA + 0x1000u * (n))

static void check_segment(const Fixture *f, const struct iovec *segment, uint64_t gpa,
                          size_t length)
{
    g_assert_true(segment->iov_base == fixture_host(f, gpa - GUEST_GPA));
    g_assert_cmpuint(segment->iov_len, ==, length);
}

/* An honest request: 100 bytes in, 200 out. */
static void offer_honest(Fixture *f, uint16_t head)
{
    guest_desc(&f->guest, GUEST_DESC, head, (GuestDesc){DATA(0), 100, NEXT, head + 1});
    guest_desc(&f->guest, GUEST_DESC, head + 1u, (GuestDesc){DATA(2), 200, WRITE, 0});
    guest_offer(&f->guest, head);
}

static void check_honest(Fixture *f, uint16_t head)
{
    uint32_t id = 0, length = 0;

    g_assert_cmpuint(f->chain->head, ==, head);
    g_assert_cmpuint(f->chain->n_in, ==, 1);
    g_assert_cmpuint(f->chain->n_out, ==, 1);
    check_segment(f, &f->chain->in[0], DATA(0), 100);
    check_segment(f, &f->chain->out[0], DATA(2), 200);
    g_assert_cmpuint(vu_ring_in_flight(f->ring), ==, 1);
    vu_ring_push(f->ring, f->chain, 150);
    g_assert_cmpuint(vu_ring_in_flight(f->ring), ==, 0);
    g_assert_true(guest_reap(&f->guest, &id, &length));
    g_assert_cmpuint(id, ==, head);
    g_assert_cmpuint(length, ==, 150);
    g_assert_false(guest_reap(&f->guest, &id, &length));
}

static void serve_honest(Fixture *f, uint16_t head)
{
    offer_honest(f, head);
    g_assert_true(vu_ring_pop(f->ring, f->chain));
    check_honest(f, head);
}

static void expect_empty(Fixture *f)
{
    g_assert_false(vu_ring_pop(f->ring, f->chain));
}

static void test_round_trip(void)
{
    const uint64_t features[] = {0, VU_F_EVENT_IDX, VU_F_INDIRECT_DESC, BOTH};

    for (size_t i = 0; i < G_N_ELEMENTS(features); i++) {
        Fixture f;
        fixture_init(&f, features[i]);
        expect_empty(&f);
        for (unsigned int n = 0; n < 3 * GUEST_QUEUE; n++) {
            serve_honest(&f, (uint16_t)(n % (GUEST_QUEUE - 1)));
            expect_empty(&f);
        }
        fixture_clear(&f);
    }
}

/* The free-running indices wrap. */
static void test_wrap(void)
{
    Fixture f;

    fixture_init(&f, BOTH);
    vu_ring_stop(f.ring);
    f.guest.offered = f.guest.reaped = 65500;
    guest_store16(&f.guest, GUEST_AVAIL + 2, 65500);
    guest_store16(&f.guest, GUEST_USED + 2, 65500);
    fixture_start(&f);
    for (unsigned int n = 0; n < 100; n++) {
        serve_honest(&f, 5);
    }
    vu_ring_stop(f.ring);
    g_assert_cmpuint(vu_ring_base(f.ring), ==, 64);
    fixture_clear(&f);
}

/* ---- well-formed chains ------------------------------------------------------------ */

static void test_merge(void)
{
    Fixture f;

    fixture_init(&f, BOTH);
    guest_desc(&f.guest, GUEST_DESC, 0, (GuestDesc){DATA(0), 40, NEXT, 1});
    guest_desc(&f.guest, GUEST_DESC, 1, (GuestDesc){DATA(0) + 40, 60, NEXT, 2});
    guest_desc(&f.guest, GUEST_DESC, 2, (GuestDesc){DATA(0) + 101, 9, NEXT, 3});
    /* continues the last readable one, but is writable */
    guest_desc(&f.guest, GUEST_DESC, 3, (GuestDesc){DATA(0) + 110, 10, WRITE | NEXT, 4});
    guest_desc(&f.guest, GUEST_DESC, 4, (GuestDesc){DATA(0) + 120, 1, WRITE, 0});
    guest_offer(&f.guest, 0);
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    g_assert_cmpuint(f.chain->n_in, ==, 2);
    g_assert_cmpuint(f.chain->n_out, ==, 1);
    check_segment(&f, &f.chain->in[0], DATA(0), 100);
    check_segment(&f, &f.chain->in[1], DATA(0) + 101, 9);
    check_segment(&f, &f.chain->out[0], DATA(0) + 110, 11);
    vu_ring_push(f.ring, f.chain, 0);
    fixture_clear(&f);
}

/* An indirect table at @at with one readable and @n - 1 writable single pages. */
static void offer_indirect(Fixture *f, uint32_t at, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        guest_desc(&f->guest, at, i,
                   (GuestDesc){DATA(i), 0x1000,
                               (uint16_t)((i > 0 ? WRITE : 0) | (i + 1 < n ? NEXT : 0)),
                               (uint16_t)(i + 1)});
    }
    guest_desc(&f->guest, GUEST_DESC, 3,
               (GuestDesc){GUEST_GPA + at, n * 16, INDIRECT, 0});
    guest_offer(&f->guest, 3);
}

static void test_indirect(void)
{
    /* as large as the queue, and at any alignment */
    const uint32_t at[] = {TABLE, TABLE + 16, TABLE + 8};
    Fixture f;

    fixture_init(&f, BOTH);
    for (size_t i = 0; i < G_N_ELEMENTS(at); i++) {
        offer_indirect(&f, at[i], GUEST_QUEUE);
        g_assert_true(vu_ring_pop(f.ring, f.chain));
        g_assert_cmpuint(f.chain->n_in, ==, 1);
        g_assert_cmpuint(f.chain->n_out, ==, 1); /* all adjacent */
        check_segment(&f, &f.chain->in[0], DATA(0), 0x1000);
        check_segment(&f, &f.chain->out[0], DATA(1), 0x1000 * (GUEST_QUEUE - 1));
        vu_ring_push(f.ring, f.chain, 1);
    }
    fixture_clear(&f);
}

/* At an address that is not a multiple of 8, where words cannot be loaded. */
static void test_indirect_unaligned(void)
{
    struct {
        uint64_t gpa;
        uint32_t length;
        uint16_t flags, next;
    } entry = {DATA(7), 5, WRITE, 0};
    Fixture f;

    fixture_init(&f, BOTH);
    memcpy(f.guest.memory + TABLE + 3, &entry, 16);
    /* WRITE beside INDIRECT is to be ignored, and direct ones may come before */
    guest_desc(&f.guest, GUEST_DESC, 0, (GuestDesc){DATA(1), 7, NEXT, 1});
    guest_desc(&f.guest, GUEST_DESC, 1,
               (GuestDesc){GUEST_GPA + TABLE + 3, 16, INDIRECT | WRITE, 0});
    guest_offer(&f.guest, 0);
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    g_assert_cmpuint(f.chain->n_in, ==, 1);
    g_assert_cmpuint(f.chain->n_out, ==, 1);
    check_segment(&f, &f.chain->in[0], DATA(1), 7);
    check_segment(&f, &f.chain->out[0], DATA(7), 5);
    vu_ring_push(f.ring, f.chain, 0);
    fixture_clear(&f);
}

/* Memory in three regions that touch in the guest, and not in the host. */
static void use_three_regions(Fixture *f, uint64_t first, uint64_t second)
{
    VuMemory *parts = vu_memory_new();

    map_part(&parts, &f->guest, 0, first);
    map_part(&parts, &f->guest, first, second);
    map_part(&parts, &f->guest, second, GUEST_SIZE);
    vu_memory_unref(f->memory);
    f->memory = parts;
    vu_ring_set_memory(f->ring, parts);
}

static void test_spanning(void)
{
    const uint64_t first = 0x20000, second = 0x21000;
    Fixture f;

    fixture_init(&f, BOTH);
    use_three_regions(&f, first, second);
    guest_desc(&f.guest, GUEST_DESC, 0,
               (GuestDesc){GUEST_GPA + first - 10, 0x1014, WRITE, 0});
    guest_offer(&f.guest, 0);
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    size_t total = 0;
    for (size_t i = 0; i < f.chain->n_out; i++) {
        uint8_t fill = (uint8_t)(i + 1);
        memset(f.chain->out[i].iov_base, fill, f.chain->out[i].iov_len);
        total += f.chain->out[i].iov_len;
    }
    g_assert_cmpuint(total, ==, 0x1014);
    g_assert_cmpuint(f.chain->n_out, ==, 3);
    vu_ring_push(f.ring, f.chain, 0x1014);
    /* seen by the guest at the right places */
    g_assert_cmpint(f.guest.memory[first - 11], ==, 0);
    g_assert_cmpint(f.guest.memory[first - 10], ==, 1);
    g_assert_cmpint(f.guest.memory[first - 1], ==, 1);
    g_assert_cmpint(f.guest.memory[first], ==, 2);
    g_assert_cmpint(f.guest.memory[second - 1], ==, 2);
    g_assert_cmpint(f.guest.memory[second], ==, 3);
    g_assert_cmpint(f.guest.memory[second + 9], ==, 3);
    g_assert_cmpint(f.guest.memory[second + 10], ==, 0);
    fixture_clear(&f);
}

/* The indirect table itself crosses a region's end, also in the middle of an entry. */
static void test_spanning_table(void)
{
    for (uint32_t shift = 0; shift <= 48; shift += 4) {
        const uint32_t end = 0x20000;
        struct vring_desc table[3] = {
            {.addr = GUEST_GPA + 0x30000, .len = 11, .flags = NEXT, .next = 1},
            {.addr = GUEST_GPA + 0x31000, .len = 12, .flags = NEXT, .next = 2},
            {.addr = GUEST_GPA + 0x32000, .len = 13, .flags = WRITE},
        };
        Fixture f;
        fixture_init(&f, BOTH);
        use_three_regions(&f, end, end + 0x1000);
        memcpy(f.guest.memory + end - shift, table, sizeof(table));
        guest_desc(&f.guest, GUEST_DESC, 0,
                   (GuestDesc){GUEST_GPA + end - shift, 48, INDIRECT, 0});
        guest_offer(&f.guest, 0);
        g_assert_true(vu_ring_pop(f.ring, f.chain));
        g_assert_cmpuint(f.chain->n_in, ==, 2);
        g_assert_cmpuint(f.chain->n_out, ==, 1);
        g_assert_cmpuint(f.chain->in[0].iov_len, ==, 11);
        g_assert_cmpuint(f.chain->in[1].iov_len, ==, 12);
        g_assert_cmpuint(f.chain->out[0].iov_len, ==, 13);
        vu_ring_push(f.ring, f.chain, 0);
        fixture_clear(&f);
    }
}

/* ---- malformed chains -------------------------------------------------------------- */

typedef struct BadChain {
    const char *name;
    GuestDesc ring[4];  /* the first entries of the ring's table */
    GuestDesc table[3]; /* at TABLE */
} BadChain;

#define TABLE_AT (GUEST_GPA + TABLE)

static const BadChain bad_chains[] = {
    {"no bytes", {{DATA(0), 0, 0, 0}}, {{0}}},
    {"no bytes behind some", {{DATA(0), 1, NEXT, 1}, {DATA(0), 0, WRITE, 0}}, {{0}}},
    {"below memory", {{GUEST_GPA - 1, 1, 0, 0}}, {{0}}},
    {"begins below memory", {{GUEST_GPA - 1, 2, 0, 0}}, {{0}}},
    {"behind memory", {{GUEST_GPA + GUEST_SIZE, 1, 0, 0}}, {{0}}},
    {"over the end", {{GUEST_GPA + GUEST_SIZE - 1, 2, 0, 0}}, {{0}}},
    {"far over the end", {{DATA(0), UINT32_MAX, 0, 0}}, {{0}}},
    {"end of addresses", {{UINT64_MAX, 1, 0, 0}}, {{0}}},
    {"wraps around", {{UINT64_MAX, 2, WRITE, 0}}, {{0}}},
    {"address 0", {{0, 1, 0, 0}}, {{0}}},
    {"readable after writable",
     {{DATA(0), 1, WRITE | NEXT, 1}, {DATA(1), 1, 0, 0}},
     {{0}}},
    {"next is the size", {{DATA(0), 1, NEXT, GUEST_QUEUE}}, {{0}}},
    {"next is far outside", {{DATA(0), 1, NEXT, UINT16_MAX}}, {{0}}},
    {"next is itself", {{DATA(0), 1, NEXT, 0}}, {{0}}},
    {"loop of two", {{DATA(0), 1, NEXT, 1}, {DATA(1), 1, NEXT, 0}}, {{0}}},
    {"table of length 0", {{TABLE_AT, 0, INDIRECT, 0}}, {{DATA(0), 1, 0, 0}}},
    {"table of length 15", {{TABLE_AT, 15, INDIRECT, 0}}, {{DATA(0), 1, 0, 0}}},
    {"table of length 17", {{TABLE_AT, 17, INDIRECT, 0}}, {{DATA(0), 1, 0, 0}}},
    {"table larger than the queue",
     {{TABLE_AT, 16 * (GUEST_QUEUE + 1), INDIRECT, 0}},
     {{DATA(0), 1, 0, 0}}},
    {"table of 4 GiB", {{TABLE_AT, 0xfffffff0, INDIRECT, 0}}, {{DATA(0), 1, 0, 0}}},
    {"table outside memory", {{GUEST_GPA - 16, 16, INDIRECT, 0}}, {{0}}},
    {"table at the end of addresses", {{UINT64_MAX - 15, 16, INDIRECT, 0}}, {{0}}},
    {"table over the end of memory",
     {{GUEST_GPA + GUEST_SIZE - 8, 16, INDIRECT, 0}},
     {{0}}},
    {"table with a next one",
     {{TABLE_AT, 16, INDIRECT | NEXT, 1}, {DATA(0), 1, WRITE, 0}},
     {{DATA(0), 1, 0, 0}}},
    {"nested table",
     {{TABLE_AT, 32, INDIRECT, 0}},
     {{TABLE_AT + 16, 16, INDIRECT, 0}, {DATA(0), 1, 0, 0}}},
    {"nested table behind a buffer",
     {{TABLE_AT, 32, INDIRECT, 0}},
     {{DATA(0), 1, NEXT, 1}, {TABLE_AT, 16, INDIRECT, 0}}},
    {"next outside the table",
     {{TABLE_AT, 32, INDIRECT, 0}},
     {{DATA(0), 1, NEXT, 2}, {DATA(0), 1, 0, 0}, {DATA(0), 1, 0, 0}}},
    {"loop in the table", {{TABLE_AT, 16, INDIRECT, 0}}, {{DATA(0), 1, NEXT, 0}}},
    {"empty entry in the table", {{TABLE_AT, 16, INDIRECT, 0}}, {{DATA(0), 0, 0, 0}}},
    {"readable after writable in the table",
     {{DATA(0), 1, WRITE | NEXT, 1}, {TABLE_AT, 16, INDIRECT, 0}},
     {{DATA(0), 1, 0, 0}}},
};

static void offer_bad(Fixture *f, const BadChain *bad)
{
    for (uint32_t i = 0; i < G_N_ELEMENTS(bad->ring); i++) {
        guest_desc(&f->guest, GUEST_DESC, i, bad->ring[i]);
    }
    for (uint32_t i = 0; i < G_N_ELEMENTS(bad->table); i++) {
        guest_desc(&f->guest, TABLE, i, bad->table[i]);
    }
    guest_offer(&f->guest, 0);
}

/* Each is retired with length 0, in the pop that serves the honest one behind it. */
static void test_malformed(void)
{
    Fixture f;

    fixture_init(&f, BOTH);
    for (size_t i = 0; i < G_N_ELEMENTS(bad_chains); i++) {
        uint32_t id = 0, length = 0;
        g_test_message("%s", bad_chains[i].name);
        offer_bad(&f, &bad_chains[i]);
        offer_honest(&f, 20);
        g_assert_true(vu_ring_pop(f.ring, f.chain));
        g_assert_true(guest_reap(&f.guest, &id, &length));
        g_assert_cmpuint(id, ==, 0);
        g_assert_cmpuint(length, ==, 0);
        check_honest(&f, 20);
        g_assert_cmpuint(take_events(f.error_fd), ==, 0);

        offer_bad(&f, &bad_chains[i]); /* and alone */
        expect_empty(&f);
        g_assert_true(guest_reap(&f.guest, &id, &length));
        g_assert_cmpuint(length, ==, 0);
        g_assert_cmpuint(vu_ring_in_flight(f.ring), ==, 0);
    }
    fixture_clear(&f);
}

static void test_indirect_not_agreed(void)
{
    uint32_t id = 0, length = 0;
    Fixture f;

    fixture_init(&f, VU_F_EVENT_IDX);
    offer_indirect(&f, TABLE, 2);
    expect_empty(&f);
    g_assert_true(guest_reap(&f.guest, &id, &length));
    g_assert_cmpuint(length, ==, 0);
    fixture_clear(&f);
}

/* A table as long as allowed, of which no two entries can be merged. */
static void offer_scattered(Fixture *f, uint32_t n, uint16_t flags)
{
    for (uint32_t i = 0; i < n; i++) {
        guest_desc(&f->guest, 0x40000, i,
                   (GuestDesc){GUEST_GPA + 0x80000 + 2ull * i, 1,
                               (uint16_t)(flags | (i + 1 < n ? NEXT : 0)),
                               (uint16_t)(i + 1)});
    }
    guest_desc(&f->guest, GUEST_DESC, 0,
               (GuestDesc){GUEST_GPA + 0x40000, 16 * n, INDIRECT, 0});
    guest_offer(&f->guest, 0);
}

static void test_many_segments(void)
{
    const uint16_t flags[] = {0, WRITE};
    Fixture f;

    fixture_init(&f, BOTH);
    vu_ring_stop(f.ring);
    /* a large queue: its rings take the place of the small one's */
    f.guest.queue_size = 2048;
    const VuRingAddresses addresses = {.desc = GUEST_UVA,
                                       .avail = GUEST_UVA + GUEST_AVAIL + 0x10000,
                                       .used = GUEST_UVA + GUEST_USED + 0x20000};
    g_assert_cmpint(vu_ring_set_size(f.ring, 2048), ==, 0);
    g_assert_cmpint(vu_ring_set_addresses(f.ring, &addresses), ==, 0);
    g_assert_cmpint(vu_ring_start(f.ring), ==, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(flags); i++) {
        const uint32_t n = VU_CHAIN_MAX_SEGMENTS;
        offer_scattered(&f, n, flags[i]);
        guest_store16(&f.guest, GUEST_AVAIL + 0x10000 + 4 + 4 * (uint32_t)i, 0);
        guest_store16(&f.guest, GUEST_AVAIL + 0x10000 + 6 + 4 * (uint32_t)i, 0);
        guest_store16(&f.guest, GUEST_AVAIL + 0x10000 + 2, (uint16_t)(2 * i + 1));
        g_assert_true(vu_ring_pop(f.ring, f.chain));
        g_assert_cmpuint(f.chain->n_in + f.chain->n_out, ==, n);
        vu_ring_push(f.ring, f.chain, 7);
        /* one more is too many */
        offer_scattered(&f, n + 1, flags[i]);
        guest_store16(&f.guest, GUEST_AVAIL + 0x10000 + 2, (uint16_t)(2 * i + 2));
        expect_empty(&f);
        g_assert_cmpuint(guest_load16(&f.guest, GUEST_USED + 0x20000 + 2), ==, 2 * i + 2);
        g_assert_cmpuint(
            guest_load32(&f.guest, GUEST_USED + 0x20000 + 8 + 16 * (uint32_t)i + 8), ==,
            0);
    }
    fixture_clear(&f);
}

/* Lengths that add up to more than 32 bits say. */
static void test_total_length(void)
{
    const uint64_t half = 1ull << 31;
    VuMemory *memory = vu_memory_new();
    VuMemory *larger = NULL;
    const VuMemoryRange range = {.gpa = 1ull << 40, .size = half + 1, .uva = 1ull << 40};
    uint32_t id = 0, length = 0;
    Fixture f;

    fixture_init(&f, BOTH);
    int fd = memfd_create("large", MFD_CLOEXEC);
    g_assert_cmpint(ftruncate(fd, (off_t)half + 1), ==, 0);
    g_assert_cmpint(vu_memory_add(f.memory, &range, fd, &larger), ==, 0);
    vu_ring_set_memory(f.ring, larger);
    vu_memory_unref(larger);
    vu_memory_unref(memory);

    guest_desc(&f.guest, GUEST_DESC, 0, (GuestDesc){1ull << 40, (uint32_t)half, NEXT, 1});
    guest_desc(&f.guest, GUEST_DESC, 1,
               (GuestDesc){1ull << 40, (uint32_t)half - 1, WRITE, 0});
    guest_offer(&f.guest, 0);
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    vu_ring_push(f.ring, f.chain, 0);
    guest_desc(&f.guest, GUEST_DESC, 1,
               (GuestDesc){1ull << 40, (uint32_t)half, WRITE, 0});
    guest_offer(&f.guest, 0);
    expect_empty(&f);
    g_assert_true(guest_reap(&f.guest, &id, &length));
    g_assert_true(guest_reap(&f.guest, &id, &length));
    g_assert_cmpuint(length, ==, 0);
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
    g_assert_cmpuint(vu_ring_in_flight(f->ring), ==, 0);
}

/* Set up anew, as after the driver's reset, it works again. */
static void restart(Fixture *f)
{
    vu_ring_stop(f->ring);
    f->guest.offered = f->guest.reaped = 0;
    guest_store16(&f->guest, GUEST_AVAIL + 2, 0);
    guest_store16(&f->guest, GUEST_USED + 2, 0);
    fixture_start(f);
    serve_honest(f, 9);
}

static void test_broken(void)
{
    const uint16_t jumps[] = {GUEST_QUEUE + 1, 1000, 0x8000, 0xffff};
    const uint16_t heads[] = {GUEST_QUEUE, 0x8000, 0xffff};
    Fixture f;

    fixture_init(&f, BOTH);
    for (size_t i = 0; i < G_N_ELEMENTS(jumps); i++) {
        guest_store16(&f.guest, GUEST_AVAIL + 2, (uint16_t)(f.guest.offered + jumps[i]));
        expect_broken(&f);
        restart(&f);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(heads); i++) {
        guest_offer(&f.guest, heads[i]);
        expect_broken(&f);
        restart(&f);
    }
    fixture_clear(&f);
}

/* A full queue is not a jump. */
static void test_full(void)
{
    Fixture f;

    fixture_init(&f, BOTH);
    for (uint32_t i = 0; i < GUEST_QUEUE; i++) {
        guest_desc(&f.guest, GUEST_DESC, i, (GuestDesc){DATA(0), 1, 0, 0});
        guest_offer(&f.guest, (uint16_t)i);
    }
    for (uint32_t i = 0; i < GUEST_QUEUE; i++) {
        g_assert_true(vu_ring_pop(f.ring, f.chain));
        vu_ring_push(f.ring, f.chain, 0);
    }
    expect_empty(&f);

    /* one that comes when only the last of several is left is found behind it */
    guest_offer(&f.guest, 0);
    guest_offer(&f.guest, 1);
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    vu_ring_push(f.ring, f.chain, 0);
    guest_offer(&f.guest, 2);
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    vu_ring_push(f.ring, f.chain, 0);
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    vu_ring_push(f.ring, f.chain, 0);
    fixture_clear(&f);
}

/* A ring that breaks while a request runs: the request is retired, others are not taken.
 */
static void test_broken_in_flight(void)
{
    uint32_t id = 0, length = 0;
    Fixture f;

    fixture_init(&f, BOTH);
    offer_honest(&f, 2);
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    guest_store16(&f.guest, GUEST_AVAIL + 2, 5000);
    VuChain *other = vu_chain_new();
    g_assert_false(vu_ring_pop(f.ring, other));
    vu_chain_free(other);
    vu_ring_push(f.ring, f.chain, 3);
    g_assert_true(guest_reap(&f.guest, &id, &length));
    g_assert_cmpuint(length, ==, 3);
    expect_broken(&f);
    fixture_clear(&f);
}

/* The VMM takes the rings' memory away without a word. */
static void test_truncated(void)
{
    Fixture f;

    g_assert_cmpint(vu_guard_install(), ==, 0);
    fixture_init(&f, BOTH);
    serve_honest(&f, 1);
    g_assert_cmpint(ftruncate(f.guest.fd, 0), ==, 0);
    expect_broken(&f);
    g_assert_true(vu_guard_is_hit());
    vu_guard_clear();
    fixture_clear(&f);
}

/* Part of it: a request meets the hole, the rings are sound, and yet nothing goes on. */
static void test_data_truncated(void)
{
    Fixture f;

    fixture_init(&f, BOTH);
    offer_honest(&f, 1);
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    g_assert_cmpint(ftruncate(f.guest.fd, GUEST_DATA), ==, 0);
    *(volatile char *)f.chain->out[0].iov_base = 1;
    check_honest(&f, 1);
    offer_honest(&f, 1);
    (void)vu_ring_pop(f.ring, f.chain); /* one may still be taken */
    if (f.chain->memory != NULL) {
        vu_ring_push(f.ring, f.chain, 0);
    }
    expect_broken(&f);
    vu_guard_clear();
    fixture_clear(&f);
}

/* However many malformed chains there are, a call ends soon, with a chain of nothing. */
static void test_many_malformed(void)
{
    const uint32_t n = 16, more = 4; /* retired by one pop; behind the one it gives out */
    Fixture f;

    fixture_init(&f, BOTH);
    guest_desc(&f.guest, GUEST_DESC, 0, (GuestDesc){GUEST_DATA, 1, NEXT, 0}); /* a loop */
    for (uint32_t i = 0; i < n + 1 + more; i++) {
        guest_offer(&f.guest, 0);
    }
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    g_assert_cmpuint(f.chain->n_in + f.chain->n_out, ==, 0);
    g_assert_cmpuint(guest_load16(&f.guest, GUEST_USED + 2), ==, n);
    vu_ring_push(f.ring, f.chain, 0);
    expect_empty(&f);
    g_assert_cmpuint(guest_load16(&f.guest, GUEST_USED + 2), ==, n + 1 + more);
    fixture_clear(&f);
}

/* ---- notifications ----------------------------------------------------------------- */

static void test_kicks_event_idx(void)
{
    Fixture f;

    fixture_init(&f, BOTH);
    guest_store16(&f.guest, GUEST_USED + 4 + 8 * GUEST_QUEUE, 0xdead);
    guest_store16(&f.guest, GUEST_USED, 0xbeef);
    expect_empty(&f);
    g_assert_cmpuint(guest_avail_event(&f.guest), ==, 0); /* armed for the first */
    g_assert_cmpuint(guest_load16(&f.guest, GUEST_USED), ==, 0);

    offer_honest(&f, 0); /* not armed while it runs */
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    g_assert_cmpuint(guest_avail_event(&f.guest), ==, 0);
    check_honest(&f, 0);
    expect_empty(&f);
    g_assert_cmpuint(guest_avail_event(&f.guest), ==, 1);
    fixture_clear(&f);
}

static void test_kicks_flag(void)
{
    Fixture f;

    fixture_init(&f, 0);
    guest_store16(&f.guest, GUEST_USED, VRING_USED_F_NO_NOTIFY); /* of an earlier life */
    expect_empty(&f);
    g_assert_cmpuint(guest_load16(&f.guest, GUEST_USED), ==, 0);
    offer_honest(&f, 0);
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    g_assert_cmpuint(guest_load16(&f.guest, GUEST_USED), ==, VRING_USED_F_NO_NOTIFY);
    check_honest(&f, 0);
    g_assert_cmpuint(guest_load16(&f.guest, GUEST_USED), ==, VRING_USED_F_NO_NOTIFY);
    expect_empty(&f);
    g_assert_cmpuint(guest_load16(&f.guest, GUEST_USED), ==, 0);
    fixture_clear(&f);
}

/* What the rings' memory says when it starts is not what we wrote before. */
static void test_kicks_after_restart(void)
{
    Fixture f;

    fixture_init(&f, BOTH);
    serve_honest(&f, 0);
    expect_empty(&f);
    vu_ring_stop(f.ring);
    guest_store16(&f.guest, GUEST_USED + 4 + 8 * GUEST_QUEUE, 0xdead);
    fixture_start(&f);
    expect_empty(&f);
    g_assert_cmpuint(guest_avail_event(&f.guest), ==, 1);
    fixture_clear(&f);
}

/* The same memory at another address: a VMM may do that, and parts that lie in one
 * another are not seen to. */
static void map_again(Fixture *f)
{
    const VuMemoryRange range = {.gpa = GUEST_GPA + 2 * GUEST_SIZE,
                                 .uva = GUEST_UVA + 2 * GUEST_SIZE,
                                 .size = GUEST_SIZE};
    VuMemory *larger = NULL;
    g_assert_cmpint(vu_memory_add(f->memory, &range, dup(f->guest.fd), &larger), ==, 0);
    vu_ring_set_memory(f->ring, larger);
    vu_memory_unref(f->memory);
    f->memory = larger;
}

/* A chain that comes just when kicks are being enabled. To have it come exactly then, the
 * flags that enable them lie on the avail index: clearing the one moves the other from
 * 65535 to 0. */
static void test_kicks_race(void)
{
    const VuRingAddresses overlaid = {.desc = GUEST_UVA,
                                      .avail = GUEST_UVA + GUEST_AVAIL + 2,
                                      .used =
                                          GUEST_UVA + 2 * GUEST_SIZE + GUEST_AVAIL + 4};

    for (unsigned int waiting = 0; waiting < 2; waiting++) {
        Fixture f;
        fixture_init(&f, 0);
        vu_ring_stop(f.ring);
        map_again(&f);
        for (uint32_t i = 0; i < GUEST_QUEUE; i++) {
            guest_desc(&f.guest, GUEST_DESC, i, (GuestDesc){DATA(0), 1, 0, 0});
        }
        guest_store16(&f.guest, GUEST_AVAIL + 4, 65535);
        g_assert_cmpint(vu_ring_set_base(f.ring, 65535 - waiting), ==, 0);
        g_assert_cmpint(vu_ring_set_addresses(f.ring, &overlaid), ==, 0);
        g_assert_cmpint(vu_ring_start(f.ring), ==, 0);
        for (unsigned int i = 0; i < waiting + 1; i++) {
            g_assert_true(vu_ring_pop(f.ring, f.chain));
            vu_ring_push(f.ring, f.chain, 0);
        }
        fixture_clear(&f);
    }
}

static void test_interrupts_event_idx(void)
{
    Fixture f;

    fixture_init(&f, BOTH);
    guest_set_used_event(&f.guest, 30000);
    serve_honest(&f, 0);
    g_assert_cmpuint(take_events(f.call_fd), ==, 1); /* the first one always */
    guest_set_used_event(&f.guest, 1);
    serve_honest(&f, 0);
    g_assert_cmpuint(take_events(f.call_fd), ==, 1);
    serve_honest(&f, 0); /* used_event is behind: the guest is polling */
    g_assert_cmpuint(take_events(f.call_fd), ==, 0);
    guest_set_used_event(&f.guest, 5); /* at the sixth, not before */
    for (int i = 3; i < 8; i++) {
        serve_honest(&f, 0);
        g_assert_cmpuint(take_events(f.call_fd), ==, i == 5 ? 1 : 0);
    }
    fixture_clear(&f);
}

static void test_interrupts_flag(void)
{
    Fixture f;

    fixture_init(&f, 0);
    for (int i = 0; i < 3; i++) {
        serve_honest(&f, 0);
        g_assert_cmpuint(take_events(f.call_fd), ==, 1);
    }
    guest_store16(&f.guest, GUEST_AVAIL, VRING_AVAIL_F_NO_INTERRUPT);
    serve_honest(&f, 0);
    g_assert_cmpuint(take_events(f.call_fd), ==, 0);
    guest_store16(&f.guest, GUEST_AVAIL, 0);
    g_assert_cmpint(vu_ring_set_call_take(f.ring, -1), ==, 0); /* none to write to */
    serve_honest(&f, 0);
    fixture_clear(&f);
}

static void test_call_replaced(void)
{
    Fixture f;

    fixture_init(&f, 0);
    unsigned int before = count_fds();
    for (int i = 0; i < 1000; i++) {
        g_assert_cmpint(vu_ring_set_call_take(f.ring, dup(f.call_fd)), ==, 0);
        g_assert_cmpint(vu_ring_set_error_take(f.ring, dup(f.error_fd)), ==, 0);
    }
    g_assert_cmpuint(count_fds(), ==, before);
    serve_honest(&f, 0);
    g_assert_cmpuint(take_events(f.call_fd), ==, 1);
    g_assert_cmpint(vu_ring_set_call_take(f.ring, -1), ==, 0);
    g_assert_cmpint(vu_ring_set_error_take(f.ring, -1), ==, 0);
    g_assert_cmpuint(count_fds(), ==, before - 2);
    guest_offer(&f.guest, 999);
    expect_empty(&f); /* broken, with nobody to tell */
    fixture_clear(&f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_threshold = LOG_LEVEL_OFF;
    g_test_add_func("/ring/round-trip", test_round_trip);
    g_test_add_func("/ring/wrap", test_wrap);
    g_test_add_func("/ring/merge", test_merge);
    g_test_add_func("/ring/indirect", test_indirect);
    g_test_add_func("/ring/indirect-unaligned", test_indirect_unaligned);
    g_test_add_func("/ring/spanning", test_spanning);
    g_test_add_func("/ring/spanning-table", test_spanning_table);
    g_test_add_func("/ring/malformed", test_malformed);
    g_test_add_func("/ring/indirect-not-agreed", test_indirect_not_agreed);
    g_test_add_func("/ring/many-segments", test_many_segments);
    g_test_add_func("/ring/total-length", test_total_length);
    g_test_add_func("/ring/broken", test_broken);
    g_test_add_func("/ring/full", test_full);
    g_test_add_func("/ring/broken-in-flight", test_broken_in_flight);
    g_test_add_func("/ring/truncated", test_truncated);
    g_test_add_func("/ring/data-truncated", test_data_truncated);
    g_test_add_func("/ring/many-malformed", test_many_malformed);
    g_test_add_func("/ring/kicks-event-idx", test_kicks_event_idx);
    g_test_add_func("/ring/kicks-flag", test_kicks_flag);
    g_test_add_func("/ring/kicks-after-restart", test_kicks_after_restart);
    g_test_add_func("/ring/kicks-race", test_kicks_race);
    g_test_add_func("/ring/interrupts-event-idx", test_interrupts_event_idx);
    g_test_add_func("/ring/interrupts-flag", test_interrupts_flag);
    g_test_add_func("/ring/call-replaced", test_call_replaced);
    return g_test_run();
}
