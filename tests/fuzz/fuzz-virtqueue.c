/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the walk over a virtqueue. The input is a head of four bytes (features, queue
 * size, where memory is cut into regions, what the device does) and then the guest's
 * memory: descriptor table, avail ring, used ring, or the three parts of a packed one,
 * and whatever they point to.
 * The device pops until the ring is empty or broken, touches both ends of every segment
 * as a request would, and retires the chain.
 *
 * Every chain lies within memory, and a ring ends: both are asserted.
 */
#include <string.h>
#include <sys/mman.h>

#include "tests/unit/vhost-ring.h"
#include "virtiofsd/log.h"
#include "virtiofsd/vhost/guard.h"

#define HEAD_SIZE 4u
#define MEMORY_SIZE 0x8000u
#define DESC_AT 0x0000u
#define AVAIL_AT 0x0400u
#define USED_AT 0x0500u
#define PAGE 0x1000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The guest, kept from run to run, and its memory under four ways of cutting it. */
typedef struct Bench {
    int fd;
    uint8_t *guest;
    VuMemory *memory[4];
    VuChain *chain;
    int idle_fd;
} Bench;

/* Which pages each way leaves out, as bits; regions meet wherever two pages follow. */
static const uint32_t holes[] = {0, 1u << 5, 1u << 3 | 1u << 6, 0};
/* The last way cuts where tables lie, too. */
#define FINE 3
static const uint64_t fine_cuts[] = {0x0808, 0x0818, 0x0860, 0x0900, 0x2000};

/* What the device does. */
enum {
    HOW_POLL = 1,
    HOW_PARK = 2,
    HOW_CALL = 4,
    HOW_TRUNCATE = 8, /* the VMM takes memory away */
    HOW_PAUSE = 16,
    HOW_REPLACE_CALL = 32,
};

static void add_region(VuMemory **memory, int fd, uint64_t begin, uint64_t end)
{
    const VuMemoryRange range = {.gpa = GUEST_GPA + begin,
                                 .size = end - begin,
                                 .uva = GUEST_UVA + begin,
                                 .mmap_offset = begin};
    VuMemory *larger = NULL;

    g_assert_cmpint(vu_memory_add(*memory, &range, dup(fd), &larger), ==, 0);
    vu_memory_unref(*memory);
    *memory = larger;
}

/* The rings are in one region. */
static VuMemory *cut_memory(int fd, uint32_t left_out, bool is_fine)
{
    VuMemory *memory = vu_memory_new();
    uint64_t begin = 0;

    for (size_t i = is_fine ? 0 : G_N_ELEMENTS(fine_cuts) - 1;
         i < G_N_ELEMENTS(fine_cuts); i++) {
        add_region(&memory, fd, begin, fine_cuts[i]);
        begin = fine_cuts[i];
    }
    for (uint64_t page = 2; page < MEMORY_SIZE / PAGE; page++) {
        if ((left_out >> page & 1) == 0) {
            add_region(&memory, fd, page * PAGE, (page + 1) * PAGE);
        }
    }
    return memory;
}

static Bench *bench_new(void)
{
    Bench *bench = g_new0(Bench, 1);

    log_open(LOG_LEVEL_OFF, false);
    bench->fd = memfd_create("guest", MFD_CLOEXEC);
    g_assert_cmpint(ftruncate(bench->fd, MEMORY_SIZE), ==, 0);
    bench->guest =
        mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, bench->fd, 0);
    g_assert_true(bench->guest != MAP_FAILED);
    for (size_t i = 0; i < G_N_ELEMENTS(holes); i++) {
        bench->memory[i] = cut_memory(bench->fd, holes[i], i == FINE);
    }
    bench->chain = vu_chain_new();
    bench->idle_fd = make_event();
    return bench;
}

/* Touch what a request would: the kernel checks the address, a sanitizer the rest. */
static void touch(const VuChain *chain)
{
    static volatile uint8_t sink;

    for (size_t i = 0; i < chain->n_in; i++) {
        const volatile uint8_t *bytes = chain->in[i].iov_base;
        g_assert_cmpuint(chain->in[i].iov_len, >, 0);
        sink = bytes[0] ^ bytes[chain->in[i].iov_len - 1];
    }
    for (size_t i = 0; i < chain->n_out; i++) {
        volatile uint8_t *bytes = chain->out[i].iov_base;
        g_assert_cmpuint(chain->out[i].iov_len, >, 0);
        bytes[0] = 0x5a;
        bytes[chain->out[i].iov_len - 1] = 0xa5;
    }
    (void)sink;
}

/* Chains that wait for something. */
typedef struct Parked {
    uint16_t heads[4 << 6];
    size_t n;
    bool is_paused;
} Parked;

/* Take up what was put aside: the guest may have changed its descriptors meanwhile. */
static void serve_parked(Bench *bench, VuRing *ring, Parked *parked)
{
    while (parked->n > 0) {
        uint16_t head = parked->heads[--parked->n];
        if (!vu_ring_unpark(ring, head, bench->chain)) {
            g_assert_true(parked->is_paused);
            vu_ring_resume(ring);
            parked->is_paused = false;
            g_assert_true(vu_ring_unpark(ring, head, bench->chain));
        }
        touch(bench->chain);
        vu_ring_push(ring, bench->chain, 0);
    }
}

static void serve(Bench *bench, VuRing *ring, uint32_t queue_size, uint8_t how)
{
    Parked parked = {.n = 0};

    /* The guest can offer a queue at once; what our own writes offer anew comes on top,
     * and an honest device would go on for ever. */
    for (uint32_t i = 0; i < 4 * queue_size; i++) {
        if ((how & HOW_POLL) != 0) {
            (void)vu_ring_poll(ring);
        }
        if (!vu_ring_pop(ring, bench->chain)) {
            break;
        }
        touch(bench->chain);
        if ((how & HOW_REPLACE_CALL) != 0) {
            g_assert_cmpint(vu_ring_set_call_take(ring, make_event()), ==, 0);
        }
        if ((how & HOW_PARK) != 0 && i % 2 == 0 && vu_ring_may_park(ring)) {
            parked.heads[parked.n++] = vu_ring_park(ring, bench->chain);
        } else {
            vu_ring_push(ring, bench->chain, how);
        }
    }
    if ((how & HOW_PAUSE) != 0) {
        vu_ring_pause(ring);
        parked.is_paused = true;
    }
    serve_parked(bench, ring, &parked);
}

static bool is_packed(const uint8_t *head)
{
    return head[0] >> 6 == 1;
}

/* The packed ring begins on either lap. */
static uint32_t base_of(const uint8_t *head)
{
    return is_packed(head) && (head[0] & 32) == 0 ? 0x80008000 : 0;
}

static void start(Bench *bench, VuRing *ring, const uint8_t *head, uint32_t queue_size)
{
    const VuRingAddresses addresses = {.desc = GUEST_UVA + DESC_AT,
                                       .avail = GUEST_UVA + AVAIL_AT,
                                       .used = GUEST_UVA + USED_AT};
    uint64_t features = VU_F_VERSION_1 | ((head[0] & 1) != 0 ? VU_F_EVENT_IDX : 0) |
                        ((head[0] & 2) != 0 ? VU_F_INDIRECT_DESC : 0) |
                        (is_packed(head) ? VU_F_RING_PACKED : 0);

    vu_ring_set_memory(ring, bench->memory[head[2] % G_N_ELEMENTS(holes)]);
    g_assert_cmpint(vu_ring_set_features(ring, features), ==, 0);
    g_assert_cmpint(vu_ring_set_size(ring, queue_size), ==, 0);
    g_assert_cmpint(vu_ring_set_base(ring, base_of(head)), ==, 0);
    g_assert_cmpint(vu_ring_set_addresses(ring, &addresses), ==, 0);
    g_assert_cmpint(vu_ring_start(ring), ==, 0);
    vu_ring_set_enabled(ring, true);
}

static void bench_free(Bench *bench)
{
    for (size_t i = 0; i < G_N_ELEMENTS(holes); i++) {
        vu_memory_unref(bench->memory[i]);
    }
    (void)munmap(bench->guest, MEMORY_SIZE);
    vu_chain_free(bench->chain);
    close(bench->fd);
    close(bench->idle_fd);
    g_free(bench);
}

static void run(Bench *bench, const uint8_t *data, size_t size)
{
    const uint8_t how = data[3];
    size_t used = MIN(size - HEAD_SIZE, MEMORY_SIZE);

    memcpy(bench->guest, data + HEAD_SIZE, used);
    memset(bench->guest + used, 0, MEMORY_SIZE - used);
    uint32_t queue_size = is_packed(data) ? data[1] % 64 + 1u : 1u << (data[1] % 7);
    VuRing *ring = vu_ring_new(1, bench->idle_fd);
    if ((how & HOW_CALL) != 0) {
        g_assert_cmpint(vu_ring_set_call_take(ring, make_event()), ==, 0);
        g_assert_cmpint(vu_ring_set_error_take(ring, make_event()), ==, 0);
    }
    start(bench, ring, data, queue_size);
    if ((how & HOW_TRUNCATE) != 0) {
        g_assert_cmpint(ftruncate(bench->fd, (data[1] >> 4) * PAGE / 2), ==, 0);
    }
    serve(bench, ring, queue_size, how);
    vu_ring_stop(ring);
    g_assert_cmpuint(vu_ring_in_flight(ring), ==, 0);
    vu_ring_free(ring);
    vu_guard_clear();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static Bench *kept;

    if (size < HEAD_SIZE) {
        return 0;
    }
    if (kept == NULL) {
        g_assert_cmpint(vu_guard_install(), ==, 0);
        kept = bench_new();
    }
    /* What was taken away does not come back. */
    bool is_lost = (data[3] & HOW_TRUNCATE) != 0;
    Bench *bench = is_lost ? bench_new() : kept;
    run(bench, data, size);
    if (is_lost) {
        bench_free(bench);
    }
    return 0;
}
