/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_VHOST_RING_H
#define TESTS_UNIT_VHOST_RING_H

#include <sys/eventfd.h>

#include "tests/unit/vhost-guest.h"
#include "tests/unit/vhost-packed.h"
#include "virtiofsd/vhost/proto.h"
#include "virtiofsd/vhost/ring.h"

/*
 * A ring under test, set up on a guest, with all of its descriptors.
 */

typedef struct Fixture {
    Guest guest;
    VuMemory *memory;
    VuRing *ring;
    VuChain *chain;
    int idle_fd;
    int call_fd; /* our own copies: what the ring owns may be replaced */
    int error_fd;
    unsigned int fds_before;
} Fixture;

static const VuRingAddresses guest_addresses = {.desc = GUEST_UVA + GUEST_DESC,
                                                .avail = GUEST_UVA + GUEST_AVAIL,
                                                .used = GUEST_UVA + GUEST_USED};

static inline int make_event(void)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    g_assert_cmpint(fd, >=, 0);
    return fd;
}

/* How often the eventfd was written since the last look. */
static inline uint64_t take_events(int fd)
{
    uint64_t count = 0;

    return read(fd, &count, sizeof(count)) == (ssize_t)sizeof(count) ? count : 0;
}

/* Give the table the guest's bytes [begin, end) as a region of their own. */
static inline void map_part(VuMemory **memory, const Guest *guest, uint64_t begin,
                            uint64_t end)
{
    const VuMemoryRange range = {.gpa = GUEST_GPA + begin,
                                 .size = end - begin,
                                 .uva = GUEST_UVA + begin,
                                 .mmap_offset = begin};
    VuMemory *larger = NULL;

    g_assert_cmpint(vu_memory_add(*memory, &range, dup(guest->fd), &larger), ==, 0);
    vu_memory_unref(*memory);
    *memory = larger;
}

/* What the VMM says when the ring is where the guest is. */
static inline uint32_t fixture_base(const Fixture *f)
{
    const Guest *guest = &f->guest;

    return guest->offered | (guest->packed ? (uint32_t)guest->reaped << 16 : 0);
}

static inline void fixture_start(Fixture *f)
{
    g_assert_cmpint(vu_ring_set_size(f->ring, f->guest.queue_size), ==, 0);
    g_assert_cmpint(vu_ring_set_base(f->ring, fixture_base(f)), ==, 0);
    g_assert_cmpint(vu_ring_set_addresses(f->ring, &guest_addresses), ==, 0);
    g_assert_cmpint(vu_ring_start(f->ring), ==, 0);
    vu_ring_set_enabled(f->ring, true);
}

static inline void fixture_init(Fixture *f, uint64_t features)
{
    f->fds_before = count_fds();
    guest_init(&f->guest, GUEST_QUEUE);
    if ((features & VU_F_RING_PACKED) != 0) {
        packed_init(&f->guest);
    }
    f->memory = vu_memory_new();
    map_part(&f->memory, &f->guest, 0, GUEST_SIZE);
    f->idle_fd = make_event();
    f->call_fd = make_event();
    f->error_fd = make_event();
    f->ring = vu_ring_new(1, f->idle_fd);
    f->chain = vu_chain_new();
    vu_ring_set_memory(f->ring, f->memory);
    g_assert_cmpint(vu_ring_set_features(f->ring, features), ==, 0);
    g_assert_cmpint(vu_ring_set_call_take(f->ring, dup(f->call_fd)), ==, 0);
    g_assert_cmpint(vu_ring_set_error_take(f->ring, dup(f->error_fd)), ==, 0);
    fixture_start(f);
}

static inline void fixture_clear(Fixture *f)
{
    g_assert_cmpuint(vu_ring_in_flight(f->ring), ==, 0);
    vu_ring_free(f->ring);
    vu_chain_free(f->chain);
    vu_memory_unref(f->memory);
    guest_clear(&f->guest);
    close(f->idle_fd);
    close(f->call_fd);
    close(f->error_fd);
    g_assert_cmpuint(count_fds(), ==, f->fds_before);
}

/* Host address of a guest offset, as the ring sees it. */
static inline char *fixture_host(const Fixture *f, uint64_t offset)
{
    return (char *)vu_memory_at_uva(f->memory, GUEST_UVA, 1) + offset;
}

#endif
