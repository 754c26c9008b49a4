/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver's side of the virtqueue against a device in this process: every feature
 * combination, full queues, wrapping indices, many threads, and devices that misbehave.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/support/guest-memory.h"
#include "tests/support/loopback.h"
#include "tests/support/virtqueue.h"

#define WAIT_MS 10000

typedef struct Bench {
    GuestMemory *memory;
    Virtqueue *queue;
    Loopback *device;
    uint8_t *in;
    uint8_t *out;
    int kick_fd;
    int call_fd;
} Bench;

/* Answers with the request's bytes turned over, bit by bit. */
static uint32_t invert(void *opaque, const uint8_t *in, size_t size, uint8_t *out,
                       size_t room)
{
    size_t n = size < room ? size : room;
    for (size_t i = 0; i < n; i++) {
        out[i] = (uint8_t)~in[i];
    }
    return (uint32_t)n;
}

static void setup_queue(Bench *bench, const VirtqueueConfig *config)
{
    *bench = (Bench){0};
    bench->memory =
        guest_memory_new(&(GuestMemoryLayout){.n_regions = 3, .size = 8u << 20});
    g_assert_nonnull(bench->memory);
    bench->queue = virtqueue_new(bench->memory, config);
    g_assert_nonnull(bench->queue);
    bench->kick_fd = eventfd(0, EFD_NONBLOCK);
    bench->call_fd = eventfd(0, EFD_NONBLOCK);
    virtqueue_set_fds(bench->queue, bench->kick_fd, bench->call_fd);
    bench->in = guest_memory_alloc(bench->memory, 65536, 1);
    bench->out = guest_memory_alloc(bench->memory, 65536, 1);
    g_assert_true(bench->in != NULL && bench->out != NULL);
}

static void start_device(Bench *bench, const VirtqueueConfig *config, bool silent_kicks)
{
    bench->device = loopback_start(&(LoopbackConfig){.memory = bench->memory,
                                                     .queue = bench->queue,
                                                     .event_idx = config->event_idx,
                                                     .silent_kicks = silent_kicks,
                                                     .handler = invert});
    g_assert_nonnull(bench->device);
}

static void teardown(Bench *bench)
{
    if (bench->device != NULL) {
        loopback_stop(bench->device);
    }
    virtqueue_free(bench->queue);
    guest_memory_free(bench->memory);
    close(bench->kick_fd);
    close(bench->call_fd);
}

/* @n segments of @size bytes from @host on. */
static void cut(const Bench *bench, const uint8_t *host, VirtqueueSegment *segments,
                unsigned int n, uint32_t size)
{
    for (unsigned int i = 0; i < n; i++) {
        segments[i] = (VirtqueueSegment){
            .gpa = guest_memory_gpa(bench->memory, host + i * size), .size = size};
    }
}

static const VirtqueueConfig combinations[] = {
    {.size = 16},
    {.size = 16, .indirect = true},
    {.size = 16, .event_idx = true},
    {.size = 16, .indirect = true, .event_idx = true},
    {.size = 1, .indirect = true, .event_idx = true, .table_size = 16},
};

/* More requests than an index counts, so that all indices wrap; once is enough. */
static unsigned int n_echoes(const VirtqueueConfig *config)
{
    return config->indirect && config->event_idx && config->size > 1 ? 70000 : 3000;
}

static void test_echo(gconstpointer data)
{
    const VirtqueueConfig *config = data;
    Bench bench;
    setup_queue(&bench, config);
    start_device(&bench, config, false);
    VirtqueueSegment in[3];
    VirtqueueSegment out[2];
    cut(&bench, bench.in, in, 3, 5);
    cut(&bench, bench.out, out, 2, 8);
    unsigned int n = n_echoes(config);
    for (unsigned int i = 0; i < n; i++) {
        memcpy(bench.in, &i, sizeof(i));
        VirtqueueRequest request = {
            .in = in, .n_in = 3, .out = out, .n_out = 2, .tag = &bench};
        g_assert_cmpint(virtqueue_submit(bench.queue, &request), >=, 0);
        VirtqueueCompletion completion;
        g_assert_cmpint(virtqueue_wait(bench.queue, &completion, WAIT_MS), ==, 1);
        g_assert_true(completion.tag == &bench);
        g_assert_cmpuint(completion.length, ==, 15);
        unsigned int answer;
        memcpy(&answer, bench.out, sizeof(answer));
        g_assert_cmpuint(answer, ==, ~i);
    }
    VirtqueueCounters counters = virtqueue_counters(bench.queue);
    g_assert_cmpuint(counters.submitted, ==, n);
    g_assert_cmpuint(counters.completed, ==, n);
    g_assert_cmpuint(counters.kicks + counters.kicks_suppressed, ==, n);
    g_assert_cmpuint(virtqueue_in_flight(bench.queue), ==, 0);
    teardown(&bench);
}

static void test_full(gconstpointer data)
{
    const VirtqueueConfig *config = data;
    Bench bench;
    setup_queue(&bench, config);
    VirtqueueSegment in[2];
    VirtqueueSegment out[2];
    cut(&bench, bench.in, in, 2, 4);
    cut(&bench, bench.out, out, 2, 4);
    VirtqueueRequest request = {.in = in, .n_in = 2, .out = out, .n_out = 2};
    unsigned int places = config->indirect ? config->size : config->size / 4;
    for (unsigned int round = 0; round < 3; round++) {
        for (unsigned int i = 0; i < places; i++) {
            g_assert_cmpint(virtqueue_submit(bench.queue, &request), >=, 0);
        }
        g_assert_cmpint(virtqueue_submit(bench.queue, &request), ==, -ENOSPC);
        if (round == 0) {
            start_device(&bench, config, false);
        }
        for (unsigned int i = 0; i < places; i++) {
            VirtqueueCompletion completion;
            g_assert_cmpint(virtqueue_wait(bench.queue, &completion, WAIT_MS), ==, 1);
        }
    }
    VirtqueueSegment many[17];
    cut(&bench, bench.in, many, 17, 1);
    VirtqueueRequest long_one = {.in = many, .n_in = 17};
    g_assert_cmpint(virtqueue_submit(bench.queue, &long_one), ==, -EMSGSIZE);
    g_assert_cmpint(virtqueue_submit(bench.queue, &(VirtqueueRequest){0}), ==, -EINVAL);
    teardown(&bench);
}

typedef struct Producer {
    Bench *bench;
    unsigned int n;
    uint8_t *in;
    uint8_t *out;
} Producer;

static gpointer produce(gpointer data)
{
    Producer *producer = data;
    VirtqueueSegment in = {.gpa = guest_memory_gpa(producer->bench->memory, producer->in),
                           .size = 8};
    VirtqueueSegment out = {
        .gpa = guest_memory_gpa(producer->bench->memory, producer->out), .size = 8};
    VirtqueueRequest request = {
        .in = &in, .n_in = 1, .out = &out, .n_out = 1, .tag = producer};
    for (unsigned int i = 0; i < producer->n;) {
        if (virtqueue_submit(producer->bench->queue, &request) >= 0) {
            i++;
        } else {
            g_thread_yield();
        }
    }
    return NULL;
}

static void test_threads(gconstpointer data)
{
    const VirtqueueConfig *config = data;
    enum { N_THREADS = 4, N_EACH = 5000 };
    Bench bench;
    setup_queue(&bench, config);
    start_device(&bench, config, false);
    Producer producers[N_THREADS];
    GThread *threads[N_THREADS];
    unsigned int seen[N_THREADS] = {0};
    for (unsigned int i = 0; i < N_THREADS; i++) {
        producers[i] = (Producer){.bench = &bench,
                                  .n = N_EACH,
                                  .in = bench.in + 64 * i,
                                  .out = bench.out + 64 * i};
        threads[i] = g_thread_new("producer", produce, &producers[i]);
    }
    for (unsigned int i = 0; i < N_THREADS * N_EACH; i++) {
        VirtqueueCompletion completion;
        g_assert_cmpint(virtqueue_wait(bench.queue, &completion, WAIT_MS), ==, 1);
        seen[(Producer *)completion.tag - producers]++;
    }
    for (unsigned int i = 0; i < N_THREADS; i++) {
        (void)g_thread_join(threads[i]);
        g_assert_cmpuint(seen[i], ==, N_EACH);
    }
    teardown(&bench);
}

/* One request after the other: how many of @n came with a kick. */
static uint64_t count_kicks(const Bench *bench, unsigned int n)
{
    VirtqueueSegment in;
    cut(bench, bench->in, &in, 1, 8);
    uint64_t before = virtqueue_counters(bench->queue).kicks;
    for (unsigned int i = 0; i < n; i++) {
        VirtqueueCompletion completion;
        VirtqueueRequest request = {.in = &in, .n_in = 1};
        g_assert_cmpint(virtqueue_submit(bench->queue, &request), >=, 0);
        g_assert_cmpint(virtqueue_wait(bench->queue, &completion, WAIT_MS), ==, 1);
    }
    return virtqueue_counters(bench->queue).kicks - before;
}

/* A device that looks at the ring by itself is not kicked, once it has begun. */
static void test_no_kicks(gconstpointer data)
{
    const VirtqueueConfig *config = data;
    Bench bench;
    setup_queue(&bench, config);
    start_device(&bench, config, true);
    for (unsigned int i = 0; count_kicks(&bench, 1) > 0; i++) {
        g_assert_cmpuint(i, <, 1000);
    }
    uint64_t suppressed = virtqueue_counters(bench.queue).kicks_suppressed;
    g_assert_cmpuint(count_kicks(&bench, 50), ==, 0);
    VirtqueueCounters counters = virtqueue_counters(bench.queue);
    g_assert_cmpuint(counters.kicks_suppressed, ==, suppressed + 50);
    g_assert_cmpuint(counters.interrupts, >, 0);
    teardown(&bench);
}

/* What the driver says to a used ring that no request explains. */
static int judge(const struct vring_used_elem *elem, uint16_t used_index)
{
    VirtqueueConfig config = {.size = 8, .indirect = true};
    Bench bench;
    setup_queue(&bench, &config);
    VirtqueueSegment segment;
    cut(&bench, bench.out, &segment, 1, 16);
    VirtqueueRequest request = {.out = &segment, .n_out = 1};
    int head = virtqueue_submit(bench.queue, &request);
    g_assert_cmpint(head, ==, 0);
    struct vring_used *used = virtqueue_layout(bench.queue).used;
    used->ring[0] = *elem;
    used->idx = used_index;
    VirtqueueCompletion completion;
    int rc = virtqueue_poll(bench.queue, &completion);
    teardown(&bench);
    return rc;
}

static void test_bad_device(void)
{
    g_assert_cmpint(judge(&(struct vring_used_elem){.id = 0, .len = 16}, 1), ==, 1);
    g_assert_cmpint(judge(&(struct vring_used_elem){.id = 0, .len = 16}, 0), ==, 0);
    g_assert_cmpint(judge(&(struct vring_used_elem){.id = 1, .len = 16}, 1), ==, -EPROTO);
    g_assert_cmpint(judge(&(struct vring_used_elem){.id = 99, .len = 0}, 1), ==, -EPROTO);
    g_assert_cmpint(judge(&(struct vring_used_elem){.id = 0, .len = 17}, 1), ==, -EPROTO);
    g_assert_cmpint(judge(&(struct vring_used_elem){.id = 0, .len = 16}, 2), ==, -EPROTO);
    g_assert_cmpint(judge(&(struct vring_used_elem){.id = 0}, 65535), ==, -EPROTO);
}

/* Hand-made descriptors travel as they are, twice in flight if posted twice. */
static void test_raw(void)
{
    VirtqueueConfig config = {.size = 8, .event_idx = true};
    Bench bench;
    setup_queue(&bench, &config);
    uint16_t heads[8];
    g_assert_cmpint(virtqueue_reserve(bench.queue, 9, heads), ==, -ENOSPC);
    g_assert_cmpint(virtqueue_reserve(bench.queue, 2, heads), ==, 0);
    VirtqueueLayout ring = virtqueue_layout(bench.queue);
    memset(bench.in, 0x55, 6);
    ring.desc[heads[0]] =
        (struct vring_desc){.addr = guest_memory_gpa(bench.memory, bench.in),
                            .len = 6,
                            .flags = VRING_DESC_F_NEXT,
                            .next = heads[1]};
    ring.desc[heads[1]] =
        (struct vring_desc){.addr = guest_memory_gpa(bench.memory, bench.out),
                            .len = 6,
                            .flags = VRING_DESC_F_WRITE};
    virtqueue_post(bench.queue, heads[0], &bench);
    virtqueue_post(bench.queue, heads[0], &bench);
    start_device(&bench, &config, false);
    for (unsigned int i = 0; i < 2; i++) {
        VirtqueueCompletion completion;
        g_assert_cmpint(virtqueue_wait(bench.queue, &completion, WAIT_MS), ==, 1);
        g_assert_true(completion.tag == &bench);
        g_assert_cmpuint(completion.length, ==, 6);
    }
    g_assert_cmpuint(bench.out[5], ==, 0xaa);
    virtqueue_release(bench.queue, 2, heads);
    g_assert_cmpint(virtqueue_reserve(bench.queue, 8, heads), ==, 0);
    teardown(&bench);
}

static void test_timeout(void)
{
    VirtqueueConfig config = {.size = 8, .event_idx = true};
    Bench bench;
    setup_queue(&bench, &config);
    VirtqueueCompletion completion;
    gint64 before = g_get_monotonic_time();
    g_assert_cmpint(virtqueue_wait(bench.queue, &completion, 50), ==, -ETIMEDOUT);
    g_assert_cmpint(g_get_monotonic_time() - before, >=, 50000);
    teardown(&bench);
}

static void test_memory(void)
{
    GuestMemory *memory = guest_memory_new(
        &(GuestMemoryLayout){.n_regions = 4, .size = 3u << 20, .separate_files = true});
    g_assert_cmpuint(guest_memory_n_regions(memory), ==, 4);
    for (unsigned int i = 0; i < 4; i++) {
        const GuestRegion *region = guest_memory_region(memory, i);
        const uint8_t *last = region->host + region->size - 1;
        g_assert_cmpuint(guest_memory_gpa(memory, last), ==,
                         region->gpa + region->size - 1);
        g_assert_cmpuint(guest_memory_uva(memory, last), ==,
                         region->uva + region->size - 1);
        g_assert_true(guest_memory_host(memory, region->gpa, region->size) ==
                      region->host);
        g_assert_null(guest_memory_host(memory, region->gpa, region->size + 1));
        g_assert_null(guest_memory_host(memory, region->gpa + region->size, 1));
    }
    g_assert_nonnull(guest_memory_alloc(memory, 1u << 20, 4096));
    g_assert_null(guest_memory_alloc(memory, 2u << 20, 4096));
    int added = guest_memory_add(memory, 2u << 20);
    g_assert_cmpint(added, ==, 4);
    g_assert_nonnull(guest_memory_alloc(memory, 2u << 20, 4096));
    uint64_t gpa = guest_memory_region(memory, 4)->gpa;
    guest_memory_remove(memory, 4);
    g_assert_null(guest_memory_host(memory, gpa, 1));
    guest_memory_free(memory);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned int i = 0; i < G_N_ELEMENTS(combinations); i++) {
        const VirtqueueConfig *config = &combinations[i];
        g_autofree char *name = g_strdup_printf("size-%u%s%s", config->size,
                                                config->indirect ? "-indirect" : "",
                                                config->event_idx ? "-event-idx" : "");
        g_autofree char *echo = g_strdup_printf("/virtqueue/echo/%s", name);
        g_autofree char *threads = g_strdup_printf("/virtqueue/threads/%s", name);
        g_autofree char *full = g_strdup_printf("/virtqueue/full/%s", name);
        g_autofree char *no_kicks = g_strdup_printf("/virtqueue/no-kicks/%s", name);
        g_test_add_data_func(echo, config, test_echo);
        if (config->size > 1) {
            g_test_add_data_func(full, config, test_full);
            g_test_add_data_func(threads, config, test_threads);
            g_test_add_data_func(no_kicks, config, test_no_kicks);
        }
    }
    g_test_add_func("/virtqueue/bad-device", test_bad_device);
    g_test_add_func("/virtqueue/raw", test_raw);
    g_test_add_func("/virtqueue/timeout", test_timeout);
    g_test_add_func("/guest-memory/regions", test_memory);
    return g_test_run();
}
