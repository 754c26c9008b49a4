/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a ring marks in the dirty log: replies, used entries and index, and its wishes to
 * the guest; no page more, none less, and in the log that there is.
 */
#include <errno.h>
#include <stdlib.h>

#include "tests/unit/vhost-log.h"
#include "tests/unit/vhost-ring.h"

#define DATA (GUEST_GPA + GUEST_DATA) /* page 40010 */
/* Where the VMM says that the used ring is: its first byte is the last but five of page
 * 1000, entry 0 lies across, all others and avail_event are in page 1001. */
#define USED_GPA (0x1001000ull - 6)
#define USED_FIRST "1000 "
#define USED_BOTH "1000 1001 "

typedef struct LogFixture {
    Fixture ring;
    Log log;
    VuDirtyLog *ours;
    VuCall *call;
    int call_fd;
} LogFixture;

static VuRingAddresses logged_addresses(void)
{
    VuRingAddresses addresses = guest_addresses;

    addresses.is_logged = true;
    addresses.log_gpa = USED_GPA;
    return addresses;
}

static void begin(LogFixture *f, uint64_t features)
{
    const VuRingAddresses addresses = logged_addresses();

    log_init(&f->log);
    f->call_fd = make_event();
    f->call = vu_call_new_take(dup(f->call_fd));
    fixture_init(&f->ring, features);
    f->ring.fds_before -= 3; /* the log, and two of the call */
    g_assert_cmpint(vu_dirty_log_new(f->log.fd, 0, LOG_SIZE, &f->ours), ==, 0);
    vu_ring_set_log(f->ring.ring, f->ours, f->call);
    g_assert_cmpint(vu_ring_set_addresses(f->ring.ring, &addresses), ==, 0);
}

static void end(LogFixture *f)
{
    vu_ring_set_log(f->ring.ring, NULL, NULL);
    vu_dirty_log_free(f->ours);
    vu_call_unref(f->call);
    close(f->call_fd);
    log_clear(&f->log);
    fixture_clear(&f->ring);
}

/* Offer one chain of these writable segments, and take it. */
static void take(LogFixture *f, const GuestDesc *segments, unsigned int n)
{
    Guest *guest = &f->ring.guest;

    for (unsigned int i = 0; i < n; i++) {
        guest_desc(guest, GUEST_DESC, i,
                   (GuestDesc){segments[i].gpa, segments[i].length,
                               (uint16_t)(VRING_DESC_F_WRITE |
                                          (i + 1 < n ? VRING_DESC_F_NEXT : 0)),
                               (uint16_t)(i + 1)});
    }
    guest_offer(guest, 0);
    g_assert_true(vu_ring_pop(f->ring.ring, f->ring.chain));
}

static void take_one(LogFixture *f)
{
    take(f, &(GuestDesc){.gpa = DATA, .length = 16}, 1);
}

static void push(LogFixture *f, uint32_t length)
{
    vu_ring_push(f->ring.ring, f->ring.chain, length);
}

/* Replies of each size; the used ring is not logged. */
static void test_reply(void)
{
    const GuestDesc two[] = {{.gpa = DATA + 4096 - 16, .length = 4096 + 16},
                             {.gpa = DATA + 0x5000, .length = 0x2000}};
    const struct {
        uint32_t length;
        const char *pages;
    } cases[] = {
        {0, ""},
        {1, "40010 "},
        {16, "40010 "},
        {17, "40010 40011 "},
        {4096 + 16, "40010 40011 "},
        {4096 + 17, "40010 40011 40015 "},
        {4096 + 16 + 4096, "40010 40011 40015 "},
        {4096 + 16 + 4097, "40010 40011 40015 40016 "},
        {UINT32_MAX, "40010 40011 40015 40016 "},
    };
    LogFixture f;

    begin(&f, 0);
    g_assert_cmpint(vu_ring_set_addresses(f.ring.ring, &guest_addresses), ==, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        take(&f, two, 2);
        expect_pages(&f.log, "");
        push(&f, cases[i].length);
        expect_pages(&f.log, cases[i].pages);
    }
    end(&f);
}

/* One entry after another, around the ring; the first half of them is in page 1000. */
static void test_used(void)
{
    VuRingAddresses addresses = logged_addresses();
    LogFixture f;

    begin(&f, 0);
    addresses.log_gpa = 0x1001000 - 4 - 8 * GUEST_QUEUE / 2;
    g_assert_cmpint(vu_ring_set_addresses(f.ring.ring, &addresses), ==, 0);
    for (uint32_t i = 0; i < 3 * GUEST_QUEUE; i++) {
        take_one(&f);
        expect_pages(&f.log, i == 0 ? USED_FIRST : ""); /* kicks are suppressed */
        push(&f, 0);
        expect_pages(&f.log, i % GUEST_QUEUE < GUEST_QUEUE / 2 ? USED_FIRST : USED_BOTH);
        g_assert_cmpuint(take_events(f.call_fd), ==, 1);
    }
    end(&f);
}

/* What the guest is told about kicks. */
static void test_kicks(void)
{
    LogFixture f;

    begin(&f, 0);
    g_assert_false(vu_ring_pop(f.ring.ring, f.ring.chain));
    expect_pages(&f.log, USED_FIRST);
    g_assert_false(vu_ring_pop(f.ring.ring, f.ring.chain));
    expect_pages(&f.log, "");
    g_assert_false(vu_ring_poll(f.ring.ring));
    expect_pages(&f.log, USED_FIRST);
    end(&f);

    begin(&f, VU_F_EVENT_IDX);
    g_assert_false(vu_ring_pop(f.ring.ring, f.ring.chain));
    expect_pages(&f.log, USED_BOTH); /* flags, too, the first time */
    take_one(&f);
    push(&f, 0);
    expect_pages(&f.log, USED_BOTH);
    g_assert_false(vu_ring_pop(f.ring.ring, f.ring.chain));
    expect_pages(&f.log, "1001 ");
    g_assert_false(vu_ring_poll(f.ring.ring));
    expect_pages(&f.log, "1001 ");
    end(&f);
}

/* Whatever the VMM says of the used ring is no address of ours. */
static void test_anywhere(void)
{
    const uint64_t places[] = {LOG_SIZE * 8 * LOG_PAGE, UINT64_MAX, UINT64_MAX - 4,
                               1ull << 63};
    LogFixture f;

    begin(&f, VU_F_EVENT_IDX);
    for (size_t i = 0; i < G_N_ELEMENTS(places); i++) {
        VuRingAddresses addresses = logged_addresses();
        addresses.log_gpa = places[i];
        g_assert_cmpint(vu_ring_set_addresses(f.ring.ring, &addresses), ==, 0);
        g_assert_false(vu_ring_pop(f.ring.ring, f.ring.chain));
        take_one(&f);
        push(&f, 16);
        /* at the end of the address space, it goes on at its beginning */
        expect_pages(&f.log, places[i] > 1ull << 63 ? "0 40010 " : "40010 ");
    }
    end(&f);
}

/* A request that runs is logged where its end finds a log. */
static void test_in_flight(void)
{
    VuDirtyLog *other = NULL;
    LogFixture f;
    Log second;

    begin(&f, 0);
    log_init(&second);
    g_assert_cmpint(vu_dirty_log_new(second.fd, 0, LOG_SIZE, &other), ==, 0);
    vu_ring_set_log(f.ring.ring, NULL, f.call);
    take_one(&f); /* none before */
    vu_ring_set_log(f.ring.ring, f.ours, NULL);
    push(&f, 16);
    expect_pages(&f.log, USED_BOTH "40010 ");
    take_one(&f); /* replaced meanwhile, and the old one is gone */
    vu_ring_set_log(f.ring.ring, other, NULL);
    g_clear_pointer(&f.ours, vu_dirty_log_free);
    push(&f, 16);
    expect_pages(&f.log, "");
    expect_pages(&second, USED_BOTH "40010 ");
    take_one(&f); /* none any more */
    vu_ring_set_log(f.ring.ring, NULL, NULL);
    vu_dirty_log_free(other);
    push(&f, 16);
    g_assert_false(vu_ring_pop(f.ring.ring, f.ring.chain));
    expect_pages(&f.log, "");
    expect_pages(&second, "");
    g_assert_cmpuint(take_events(f.call_fd), ==, 0);
    log_clear(&second);
    end(&f);
}

/* A chain that waited is logged where its buffers are then. */
static void test_parked(void)
{
    LogFixture f;

    begin(&f, 0);
    take_one(&f);
    expect_pages(&f.log, USED_FIRST);
    uint16_t head = vu_ring_park(f.ring.ring, f.ring.chain);
    guest_desc(&f.ring.guest, GUEST_DESC, 0,
               (GuestDesc){DATA + 0x3000, 16, VRING_DESC_F_WRITE, 0});
    g_assert_true(vu_ring_unpark(f.ring.ring, head, f.ring.chain));
    push(&f, 16);
    expect_pages(&f.log, USED_BOTH "40013 ");
    end(&f);
}

/* Its ring is gone, its buffers are not. */
static void test_ring_lost(void)
{
    VuMemory *rest = vu_memory_new();
    LogFixture f;

    begin(&f, 0);
    take_one(&f);
    expect_pages(&f.log, USED_FIRST);
    map_part(&rest, &f.ring.guest, GUEST_DATA, GUEST_SIZE);
    vu_ring_set_memory(f.ring.ring, rest);
    push(&f, 16);
    expect_pages(&f.log, "40010 ");
    vu_memory_unref(rest);
    end(&f);
}

/* The used ring begins and ends to be logged while it runs, and stays where it is. */
static void test_addresses(void)
{
    VuRingAddresses addresses = logged_addresses();
    LogFixture f;

    begin(&f, 0);
    addresses.log_gpa = 0x3000000;
    g_assert_cmpint(vu_ring_set_addresses(f.ring.ring, &addresses), ==, 0);
    take_one(&f);
    expect_pages(&f.log, "3000 ");
    addresses.log_gpa = 0x4000000; /* also while a request is in flight */
    g_assert_cmpint(vu_ring_set_addresses(f.ring.ring, &addresses), ==, 0);
    push(&f, 0);
    expect_pages(&f.log, "4000 ");
    addresses.used += 4;
    addresses.log_gpa = 0x5000000;
    g_assert_cmpint(vu_ring_set_addresses(f.ring.ring, &addresses), ==, -EBUSY);
    take_one(&f);
    push(&f, 0);
    expect_pages(&f.log, "4000 ");
    g_assert_cmpint(vu_ring_set_addresses(f.ring.ring, &guest_addresses), ==, 0);
    take_one(&f);
    push(&f, 0);
    expect_pages(&f.log, "");
    end(&f);
}

/* A packed ring: what is done is told in the descriptors, which the VMM names no place in
 * the log for, and wishes in the device's event area. */
static void test_packed(void)
{
    const GuestDesc desc = {DATA + 0xff8, 16, VRING_DESC_F_WRITE, 7};
    LogFixture f;

    begin(&f, VU_F_RING_PACKED | VU_F_EVENT_IDX);
    g_assert_false(vu_ring_pop(f.ring.ring, f.ring.chain));
    expect_pages(&f.log, "40008 ");
    for (uint32_t i = 0; i < 2 * GUEST_QUEUE; i++) {
        uint32_t id = 0, length = 0;
        packed_offer(&f.ring.guest, &desc, 1);
        g_assert_true(vu_ring_pop(f.ring.ring, f.ring.chain));
        push(&f, i % 17);
        g_assert_true(packed_reap(&f.ring.guest, 1, &id, &length));
        expect_pages(&f.log, i % 17 == 0  ? "40000 "
                             : i % 17 < 9 ? "40000 40010 "
                                          : "40000 40010 40011 ");
    }
    g_assert_false(vu_ring_poll(f.ring.ring));
    expect_pages(&f.log, "40008 ");
    g_assert_cmpint(vu_ring_set_addresses(f.ring.ring, &guest_addresses), ==, 0);
    packed_offer(&f.ring.guest, &desc, 1);
    g_assert_true(vu_ring_pop(f.ring.ring, f.ring.chain));
    push(&f, 16);
    g_assert_false(vu_ring_pop(f.ring.ring, f.ring.chain));
    expect_pages(&f.log, "40010 40011 ");
    end(&f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/ring-log/reply", test_reply);
    g_test_add_func("/ring-log/used", test_used);
    g_test_add_func("/ring-log/kicks", test_kicks);
    g_test_add_func("/ring-log/anywhere", test_anywhere);
    g_test_add_func("/ring-log/in-flight", test_in_flight);
    g_test_add_func("/ring-log/parked", test_parked);
    g_test_add_func("/ring-log/ring-lost", test_ring_lost);
    g_test_add_func("/ring-log/addresses", test_addresses);
    g_test_add_func("/ring-log/packed", test_packed);
    return g_test_run();
}
