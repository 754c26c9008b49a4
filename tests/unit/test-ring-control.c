/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control thread's side of a ring: settings, addresses, states.
 */
#include <errno.h>

#include "tests/unit/vhost-ring.h"
#include "virtiofsd/log.h"

#define DATA (GUEST_GPA + GUEST_DATA)

static void offer(Fixture *f)
{
    guest_desc(&f->guest, GUEST_DESC, 0, (GuestDesc){DATA, 10, VRING_DESC_F_WRITE, 0});
    guest_offer(&f->guest, 0);
}

static void expect_empty(Fixture *f)
{
    g_assert_false(vu_ring_pop(f->ring, f->chain));
    g_assert_cmpuint(vu_ring_in_flight(f->ring), ==, 0);
}

static void expect_chain(Fixture *f)
{
    g_assert_true(vu_ring_pop(f->ring, f->chain));
    g_assert_cmpuint(f->chain->n_out, ==, 1);
    vu_ring_push(f->ring, f->chain, 10);
}

static void use_memory(Fixture *f, VuMemory *memory)
{
    vu_ring_set_memory(f->ring, memory);
    vu_memory_unref(f->memory);
    f->memory = memory;
}

static void test_sizes(void)
{
    const uint32_t bad[] = {0,     3,     5,     100,   1023,     1025,
                            32767, 49152, 65535, 65536, 1u << 31, UINT32_MAX};
    const uint32_t good[] = {1, 2, 4, 64, 1024, 32768};
    Fixture f;

    fixture_init(&f, 0);
    g_assert_cmpint(vu_ring_set_size(f.ring, 64), ==, -EBUSY);
    vu_ring_stop(f.ring);
    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        g_assert_cmpint(vu_ring_set_size(f.ring, good[i]), ==, 0);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_assert_cmpint(vu_ring_set_size(f.ring, 64), ==, 0);
        g_assert_cmpint(vu_ring_set_size(f.ring, bad[i]), ==, -EINVAL);
        /* the size before must not stay in force */
        g_assert_cmpint(vu_ring_start(f.ring), ==, -EINVAL);
        g_assert_false(vu_ring_is_started(f.ring));
    }
    /* so large that the rings reach beyond the memory */
    g_assert_cmpint(vu_ring_set_size(f.ring, 32768), ==, 0);
    const VuRingAddresses late = {
        .desc = GUEST_UVA + GUEST_SIZE - 0x1000, .avail = GUEST_UVA, .used = GUEST_UVA};
    g_assert_cmpint(vu_ring_set_addresses(f.ring, &late), ==, -EFAULT);
    fixture_clear(&f);
}

static void test_base(void)
{
    Fixture f;

    fixture_init(&f, 0);
    g_assert_cmpint(vu_ring_set_base(f.ring, 1), ==, -EBUSY);
    vu_ring_stop(f.ring);
    g_assert_cmpint(vu_ring_set_base(f.ring, 0x10000), ==, -EINVAL);
    g_assert_cmpint(vu_ring_set_base(f.ring, 0x80008000), ==, -EINVAL); /* packed */
    g_assert_cmpint(vu_ring_set_base(f.ring, 0xffff), ==, 0);
    g_assert_cmpuint(vu_ring_base(f.ring), ==, 0xffff);
    fixture_clear(&f);
}

/* While a request is out, the ground it stands on does not move, even on a stopped ring.
 */
static void test_busy_in_flight(void)
{
    const VuRingAddresses other = {
        .desc = GUEST_UVA, .avail = GUEST_UVA, .used = GUEST_UVA};
    Fixture f;

    fixture_init(&f, 0);
    offer(&f);
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    vu_ring_stop(f.ring);
    g_assert_cmpint(vu_ring_set_size(f.ring, 32), ==, -EBUSY);
    g_assert_cmpint(vu_ring_set_base(f.ring, 5), ==, -EBUSY);
    g_assert_cmpint(vu_ring_set_addresses(f.ring, &other), ==, -EBUSY);
    g_assert_cmpint(vu_ring_set_addresses(f.ring, &guest_addresses), ==, 0);
    vu_ring_push(f.ring, f.chain, 0);
    g_assert_cmpint(vu_ring_set_size(f.ring, 32), ==, 0);
    fixture_clear(&f);
}

static void test_addresses(void)
{
    const uint64_t end = GUEST_UVA + GUEST_SIZE;
    const uint64_t d = GUEST_UVA, a = d + 2048, u = d + 4096;
    const struct {
        uint64_t desc, avail, used;
        int result;
    } cases[] = {
        {d, a, u, 0},
        {d + 8, a, u, -EINVAL},
        {d + 15, a, u, -EINVAL},
        {d + 16, a + 1, u, -EINVAL},
        {d + 16, a + 2, u + 2, -EINVAL},
        {d + 16, a + 2, u + 4, 0},
        {0, a, u, -EFAULT},
        {d, 0, u, -EFAULT},
        {d, a, 0, -EFAULT},
        {UINT64_MAX - 15, a, u, -EFAULT},
        /* the last place that fits, and one beyond it */
        {end - 16 * 64, a, u, 0},
        {end - 16 * 64 + 16, a, u, -EFAULT},
        {d, end - 6 - 2 * 64, u, 0},
        {d, end - 4 - 2 * 64, u, -EFAULT},
        {d, a, end - 8 - 8 * 64, 0},
        {d, a, end - 4 - 8 * 64, -EFAULT},
        /* one part in another, and side by side */
        {d, d, u, -EFAULT},
        {d, a, d, -EFAULT},
        {d, a, a, -EFAULT},
        {d, d + 16 * 64 - 2, u, -EFAULT},
        {d, d + 16 * 64, u, 0},
        {d, a, a + 4 + 2 * 64, -EFAULT},
        {d, a, a + 8 + 2 * 64, 0},
        {d, u + 4 + 8 * 64, u, -EFAULT},
        {d, u + 6 + 8 * 64, u, 0},
    };
    Fixture f;

    fixture_init(&f, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        const VuRingAddresses addresses = {
            .desc = cases[i].desc, .avail = cases[i].avail, .used = cases[i].used};
        g_test_message("case %zu", i);
        vu_ring_stop(f.ring);
        g_assert_cmpint(vu_ring_set_addresses(f.ring, &guest_addresses), ==, 0);
        g_assert_cmpint(vu_ring_set_addresses(f.ring, &addresses), ==, cases[i].result);
        g_assert_cmpint(vu_ring_start(f.ring), ==, cases[i].result == 0 ? 0 : -EINVAL);
    }
    fixture_clear(&f);
}

/* Each part must lie in one region: a mapping ends where the region does. */
static void test_across_regions(void)
{
    const uint64_t cuts[] = {GUEST_DESC + 32, GUEST_AVAIL + 32, GUEST_USED + 32};
    Fixture f;

    fixture_init(&f, 0);
    vu_ring_stop(f.ring);
    for (size_t i = 0; i < G_N_ELEMENTS(cuts); i++) {
        VuMemory *parts = vu_memory_new();
        map_part(&parts, &f.guest, 0, cuts[i]);
        map_part(&parts, &f.guest, cuts[i], GUEST_SIZE);
        use_memory(&f, parts);
        g_assert_cmpint(vu_ring_set_addresses(f.ring, &guest_addresses), ==, -EFAULT);
    }
    fixture_clear(&f);
}

/* An aligned address in a region that is itself shifted against its pages. */
static void test_shifted_region(void)
{
    VuMemory *shifted = vu_memory_new();
    VuMemory *larger = NULL;
    const VuMemoryRange range = {
        .gpa = GUEST_GPA, .size = 0x20000, .uva = GUEST_UVA, .mmap_offset = 1};
    Fixture f;

    fixture_init(&f, 0);
    vu_ring_stop(f.ring);
    g_assert_cmpint(vu_memory_add(shifted, &range, dup(f.guest.fd), &larger), ==, 0);
    vu_memory_unref(shifted);
    use_memory(&f, larger);
    g_assert_cmpint(vu_ring_set_addresses(f.ring, &guest_addresses), ==, -EFAULT);
    fixture_clear(&f);
}

static void test_sent_again(void)
{
    VuRingAddresses other = guest_addresses;
    Fixture f;

    fixture_init(&f, 0);
    g_assert_cmpint(vu_ring_set_addresses(f.ring, &guest_addresses), ==, 0);
    other.used += 4;
    g_assert_cmpint(vu_ring_set_addresses(f.ring, &other), ==, -EBUSY);
    offer(&f); /* goes on as if nothing had been */
    expect_chain(&f);
    g_assert_cmpuint(guest_used_index(&f.guest), ==, 1);
    fixture_clear(&f);
}

/* Addresses and the start come before any memory: the ring runs once there is some. */
static void test_memory_later(void)
{
    VuMemory *memory;
    Fixture f;

    fixture_init(&f, VU_F_EVENT_IDX);
    vu_ring_stop(f.ring);
    memory = vu_memory_ref(f.memory);
    use_memory(&f, vu_memory_new());
    g_assert_cmpint(vu_ring_set_addresses(f.ring, &guest_addresses), ==, 0);
    g_assert_cmpint(vu_ring_start(f.ring), ==, 0);
    offer(&f);
    expect_empty(&f);
    use_memory(&f, memory);
    expect_chain(&f);

    /* taken away and given back while it runs */
    memory = vu_memory_ref(f.memory);
    use_memory(&f, vu_memory_new());
    offer(&f);
    expect_empty(&f);
    use_memory(&f, memory);
    expect_chain(&f);
    g_assert_cmpuint(guest_used_index(&f.guest), ==, 2);
    g_assert_cmpuint(take_events(f.error_fd), ==, 0);
    fixture_clear(&f);
}

/* Another region is there, but not the ring's. */
static void test_wrong_memory(void)
{
    VuMemory *memory = vu_memory_new();
    Fixture f;

    fixture_init(&f, 0);
    vu_ring_stop(f.ring);
    map_part(&memory, &f.guest, GUEST_DATA, GUEST_SIZE);
    use_memory(&f, memory);
    g_assert_cmpint(vu_ring_start(f.ring), ==, -EFAULT);
    g_assert_false(vu_ring_is_started(f.ring));
    fixture_clear(&f);
}

static void test_not_set_up(void)
{
    VuRing *ring = vu_ring_new(0, -1);
    VuChain *chain = vu_chain_new();

    g_assert_cmpint(vu_ring_start(ring), ==, -EINVAL);
    vu_ring_set_enabled(ring, true);
    g_assert_false(vu_ring_pop(ring, chain));
    g_assert_cmpint(vu_ring_set_size(ring, 16), ==, 0);
    g_assert_cmpint(vu_ring_start(ring), ==, -EINVAL);
    g_assert_cmpuint(vu_ring_base(ring), ==, 0);
    vu_chain_free(chain);
    vu_ring_free(ring);
    vu_ring_free(NULL);
    vu_chain_free(NULL);
}

static void test_states(void)
{
    Fixture f;

    fixture_init(&f, 0);
    offer(&f);
    vu_ring_set_enabled(f.ring, false);
    expect_empty(&f);
    vu_ring_set_enabled(f.ring, true);
    vu_ring_pause(f.ring);
    expect_empty(&f);
    vu_ring_stop(f.ring);
    vu_ring_resume(f.ring);
    expect_empty(&f);
    g_assert_cmpint(vu_ring_start(f.ring), ==, 0);
    expect_chain(&f);
    expect_empty(&f);
    g_assert_cmpuint(vu_ring_base(f.ring), ==, 1);

    vu_ring_stop(f.ring);
    vu_ring_reset(f.ring);
    g_assert_cmpuint(vu_ring_base(f.ring), ==, 0);
    g_assert_cmpint(vu_ring_start(f.ring), ==, -EINVAL);
    g_assert_cmpint(vu_ring_set_size(f.ring, GUEST_QUEUE), ==, 0);
    g_assert_cmpint(vu_ring_set_addresses(f.ring, &guest_addresses), ==, 0);
    g_assert_cmpint(vu_ring_start(f.ring), ==, 0);
    expect_empty(&f); /* no longer enabled */
    vu_ring_set_enabled(f.ring, true);
    expect_chain(&f); /* from entry 0 again */

    /* entries known before the reset are not believed after it */
    for (int i = 0; i < 3; i++) {
        offer(&f);
    }
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    vu_ring_push(f.ring, f.chain, 0);
    vu_ring_stop(f.ring);
    vu_ring_reset(f.ring);
    f.guest.offered = 0;
    guest_store16(&f.guest, GUEST_AVAIL + 2, 0);
    g_assert_cmpint(vu_ring_set_size(f.ring, GUEST_QUEUE), ==, 0);
    g_assert_cmpint(vu_ring_set_addresses(f.ring, &guest_addresses), ==, 0);
    g_assert_cmpint(vu_ring_start(f.ring), ==, 0);
    vu_ring_set_enabled(f.ring, true);
    expect_empty(&f);
    fixture_clear(&f);
}

/* A kick descriptor that comes again does not revive a broken ring; stopping does. */
static void test_start_again(void)
{
    Fixture f;

    fixture_init(&f, 0);
    guest_offer(&f.guest, 0xffff);
    expect_empty(&f);
    g_assert_cmpuint(take_events(f.error_fd), ==, 1);
    g_assert_cmpint(vu_ring_start(f.ring), ==, 0);
    expect_empty(&f);
    g_assert_cmpuint(take_events(f.error_fd), ==, 0);
    vu_ring_stop(f.ring);
    g_assert_cmpint(vu_ring_start(f.ring), ==, 0);
    expect_empty(&f); /* looks, and finds it broken again */
    g_assert_cmpuint(take_events(f.error_fd), ==, 1);
    fixture_clear(&f);
}

/* The idle descriptor is written when, and only when, somebody waits for it. */
static void test_idle(void)
{
    VuChain *second = vu_chain_new();
    Fixture f;

    fixture_init(&f, 0);
    offer(&f);
    expect_chain(&f);
    g_assert_cmpuint(take_events(f.idle_fd), ==, 0);

    for (int stop = 0; stop < 2; stop++) {
        offer(&f);
        offer(&f);
        g_assert_true(vu_ring_pop(f.ring, f.chain));
        g_assert_true(vu_ring_pop(f.ring, second));
        g_assert_cmpuint(vu_ring_in_flight(f.ring), ==, 2);
        if (stop) {
            vu_ring_stop(f.ring);
        } else {
            vu_ring_pause(f.ring);
        }
        vu_ring_push(f.ring, second, 0);
        g_assert_cmpuint(take_events(f.idle_fd), ==, 0);
        g_assert_cmpuint(vu_ring_in_flight(f.ring), ==, 1);
        vu_ring_push(f.ring, f.chain, 0);
        g_assert_cmpuint(take_events(f.idle_fd), ==, 1);
        vu_ring_resume(f.ring);
    }
    g_assert_cmpuint(guest_used_index(&f.guest), ==, 5);
    vu_chain_free(second);
    fixture_clear(&f);
}

static void *page_of(char *host)
{
    return host - (uintptr_t)host % 4096;
}

/* A chain in flight keeps the table that it was popped from. */
static void test_chain_keeps_memory(void)
{
    Fixture f;

    fixture_init(&f, 0);
    offer(&f);
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    char *host = f.chain->out[0].iov_base;
    use_memory(&f, vu_memory_new()); /* which the device does not do in flight */
    *(volatile char *)host = 42;
    g_assert_cmpint(f.guest.memory[GUEST_DATA], ==, 42);
    g_assert_cmpuint(vu_ring_in_flight(f.ring), ==, 1);
    vu_ring_push(f.ring, f.chain, 1); /* nowhere to write it to */
    g_assert_cmpint(msync(page_of(host), 4096, MS_ASYNC), ==, -1); /* unmapped */
    g_assert_null(f.chain->memory);
    g_assert_cmpuint(guest_used_index(&f.guest), ==, 0);
    g_assert_cmpuint(vu_ring_in_flight(f.ring), ==, 0);
    fixture_clear(&f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_threshold = LOG_LEVEL_OFF;
    g_test_add_func("/ring-control/sizes", test_sizes);
    g_test_add_func("/ring-control/base", test_base);
    g_test_add_func("/ring-control/busy-in-flight", test_busy_in_flight);
    g_test_add_func("/ring-control/addresses", test_addresses);
    g_test_add_func("/ring-control/across-regions", test_across_regions);
    g_test_add_func("/ring-control/shifted-region", test_shifted_region);
    g_test_add_func("/ring-control/sent-again", test_sent_again);
    g_test_add_func("/ring-control/memory-later", test_memory_later);
    g_test_add_func("/ring-control/wrong-memory", test_wrong_memory);
    g_test_add_func("/ring-control/not-set-up", test_not_set_up);
    g_test_add_func("/ring-control/states", test_states);
    g_test_add_func("/ring-control/start-again", test_start_again);
    g_test_add_func("/ring-control/idle", test_idle);
    g_test_add_func("/ring-control/chain-keeps-memory", test_chain_keeps_memory);
    return g_test_run();
}
