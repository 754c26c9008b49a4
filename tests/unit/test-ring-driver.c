/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring and the driver that all test tools use, in both layouts: requests of all
 * shapes, ended in any order by several workers, some of them parked, some put aside,
 * while the ring is stopped and started. A lost wake-up in either direction shows as a
 * wait that times out.
 */
#include <fcntl.h>
#include <glib.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/support/guest-memory.h"
#include "tests/support/virtqueue.h"
#include "virtiofsd/log.h"
#include "virtiofsd/vhost/proto.h"
#include "virtiofsd/vhost/ring.h"

#define PATIENCE_MS 20000
#define ROOM 40000u /* so many bytes are a chain that others overtake */

enum { N_WORKERS = 3, N_SLOTS = 12, N_REQUESTS = 6000, N_BETWEEN_STOPS = 400 };

/* One request of the driver's: a number in, and the same inverted out. */
typedef struct Slot {
    uint64_t *in; /* in two halves */
    uint64_t *out;
    uint64_t expected; /* 0: free */
} Slot;

typedef struct Scene {
    VirtqueueConfig config;
    GuestMemory *memory;
    Virtqueue *queue;
    VuMemory *mapped;
    VuRing *ring;
    Slot slots[N_SLOTS];
    int idle_fd, kick_fd, call_fd, wake_fd, stop_fd, epoll_fd;
    int parked[2]; /* a pipe of heads; GLib's queues are unknown to ThreadSanitizer */
    _Atomic unsigned int n_parked;
    pthread_t workers[N_WORKERS], answerer;
} Scene;

static int make_event(void)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    g_assert_cmpint(fd, >=, 0);
    return fd;
}

static void notify(int fd)
{
    uint64_t one = 1;

    g_assert_cmpint(write(fd, &one, sizeof(one)), ==, sizeof(one));
}

/* ---- the device -------------------------------------------------------------------- */

static uint64_t number_in(const VuChain *chain)
{
    uint64_t number;
    size_t done = 0;

    for (size_t i = 0; i < chain->n_in; i++) {
        g_assert_cmpuint(done + chain->in[i].iov_len, <=, sizeof(number));
        memcpy((char *)&number + done, chain->in[i].iov_base, chain->in[i].iov_len);
        done += chain->in[i].iov_len;
    }
    g_assert_cmpuint(done, ==, sizeof(number));
    return number;
}

static void answer(VuRing *ring, VuChain *chain)
{
    uint64_t number = ~number_in(chain);

    g_assert_cmpuint(chain->n_out, ==, 1);
    g_assert_cmpuint(chain->out[0].iov_len, >=, sizeof(number));
    memcpy(chain->out[0].iov_base, &number, sizeof(number));
    vu_ring_push(ring, chain, sizeof(number));
}

static void run(Scene *s, VuChain *chain)
{
    uint64_t number = number_in(chain);

    if (number % 8 == 0 && vu_ring_may_park(s->ring)) {
        uint16_t head = vu_ring_park(s->ring, chain);
        atomic_fetch_add(&s->n_parked, 1);
        g_assert_cmpint(write(s->parked[1], &head, sizeof(head)), ==, sizeof(head));
        return;
    }
    if (number % 3 == 0) {
        sched_yield();
    }
    answer(s->ring, chain);
}

static void *worker_main(void *data)
{
    Scene *s = data;
    VuChain *chain = vu_chain_new();
    struct epoll_event event = {0};

    do {
        while (vu_ring_pop(s->ring, chain)) {
            run(s, chain);
        }
        g_assert_cmpint(epoll_wait(s->epoll_fd, &event, 1, -1), ==, 1);
    } while (event.data.fd != s->stop_fd);
    vu_chain_free(chain);
    return NULL;
}

static void *answerer_main(void *data)
{
    Scene *s = data;
    VuChain *chain = vu_chain_new();
    uint16_t head;

    while (read(s->parked[0], &head, sizeof(head)) == sizeof(head)) {
        sched_yield();
        g_assert_true(vu_ring_unpark(s->ring, head, chain));
        answer(s->ring, chain);
    }
    vu_chain_free(chain);
    return NULL;
}

/* ---- the VMM ----------------------------------------------------------------------- */

static uint64_t features_of(const VirtqueueConfig *config)
{
    return (config->packed ? VU_F_RING_PACKED : 0) |
           (config->event_idx ? VU_F_EVENT_IDX : 0) |
           (config->indirect ? VU_F_INDIRECT_DESC : 0);
}

static void start_ring(Scene *s, uint32_t base)
{
    VirtqueueLayout layout = virtqueue_layout(s->queue);
    const VuRingAddresses addresses = {.desc = guest_memory_uva(s->memory, layout.desc),
                                       .avail = guest_memory_uva(s->memory, layout.avail),
                                       .used = guest_memory_uva(s->memory, layout.used)};

    g_assert_cmpint(vu_ring_set_size(s->ring, s->config.size), ==, 0);
    g_assert_cmpint(vu_ring_set_base(s->ring, base), ==, 0);
    g_assert_cmpint(vu_ring_set_addresses(s->ring, &addresses), ==, 0);
    g_assert_cmpint(vu_ring_start(s->ring), ==, 0);
    vu_ring_set_enabled(s->ring, true);
}

/* Stop, wait until nothing is in flight, and go on from the base. */
static uint32_t stop_ring(Scene *s)
{
    struct pollfd pollfd = {.fd = s->idle_fd, .events = POLLIN};
    uint64_t count;

    vu_ring_stop(s->ring);
    while (vu_ring_in_flight(s->ring) > 0) {
        notify(s->wake_fd); /* what was put aside is still to be run */
        g_assert_cmpint(poll(&pollfd, 1, PATIENCE_MS), ==, 1);
        g_assert_cmpint(read(s->idle_fd, &count, sizeof(count)), ==, sizeof(count));
    }
    uint32_t base = vu_ring_base(s->ring);
    if (s->config.packed) {
        g_assert_cmpuint(base >> 16, ==, base & 0xffff);
    }
    return base;
}

static void map_memory(Scene *s)
{
    s->mapped = vu_memory_new();
    for (unsigned int i = 0; i < guest_memory_n_regions(s->memory); i++) {
        const GuestRegion *region = guest_memory_region(s->memory, i);
        const VuMemoryRange range = {.gpa = region->gpa,
                                     .size = region->size,
                                     .uva = region->uva,
                                     .mmap_offset = region->offset};
        VuMemory *larger = NULL;
        g_assert_cmpint(vu_memory_add(s->mapped, &range, dup(region->fd), &larger), ==,
                        0);
        vu_memory_unref(s->mapped);
        s->mapped = larger;
    }
}

static void watch(Scene *s, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};

    g_assert_cmpint(epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &event), ==, 0);
}

static void scene_start(Scene *s, const VirtqueueConfig *config)
{
    *s = (Scene){.config = *config};
    s->memory = guest_memory_new(&(GuestMemoryLayout){.n_regions = 2, .size = 8u << 20});
    s->queue = virtqueue_new(s->memory, config);
    g_assert_true(s->memory != NULL && s->queue != NULL);
    for (unsigned int i = 0; i < N_SLOTS; i++) {
        s->slots[i].in = guest_memory_alloc(s->memory, sizeof(uint64_t), 8);
        s->slots[i].out = guest_memory_alloc(s->memory, ROOM, 8);
    }
    s->idle_fd = make_event();
    s->kick_fd = make_event();
    s->call_fd = make_event();
    s->wake_fd = make_event();
    s->stop_fd = make_event();
    s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    g_assert_cmpint(pipe2(s->parked, O_CLOEXEC), ==, 0);
    watch(s, s->kick_fd, EPOLLIN | EPOLLET);
    watch(s, s->wake_fd, EPOLLIN | EPOLLET);
    watch(s, s->stop_fd, EPOLLIN);
    virtqueue_set_fds(s->queue, s->kick_fd, s->call_fd);
    map_memory(s);
    s->ring = vu_ring_new(1, s->idle_fd);
    vu_ring_set_memory(s->ring, s->mapped);
    g_assert_cmpint(vu_ring_set_features(s->ring, features_of(config)), ==, 0);
    g_assert_cmpint(vu_ring_set_call_take(s->ring, dup(s->call_fd)), ==, 0);
    start_ring(s, virtqueue_base(s->queue));
    for (unsigned int i = 0; i < N_WORKERS; i++) {
        g_assert_cmpint(pthread_create(&s->workers[i], NULL, worker_main, s), ==, 0);
    }
    g_assert_cmpint(pthread_create(&s->answerer, NULL, answerer_main, s), ==, 0);
}

static void scene_end(Scene *s)
{
    notify(s->stop_fd);
    for (unsigned int i = 0; i < N_WORKERS; i++) {
        pthread_join(s->workers[i], NULL);
    }
    close(s->parked[1]);
    pthread_join(s->answerer, NULL);
    close(s->parked[0]);
    vu_ring_free(s->ring);
    vu_memory_unref(s->mapped);
    virtqueue_free(s->queue);
    guest_memory_free(s->memory);
    const int fds[] = {s->idle_fd, s->kick_fd, s->call_fd,
                       s->wake_fd, s->stop_fd, s->epoll_fd};
    for (size_t i = 0; i < G_N_ELEMENTS(fds); i++) {
        close(fds[i]);
    }
}

/* ---- the driver -------------------------------------------------------------------- */

/* Of two descriptors, three, or one that is long. */
static bool submit(Scene *s, Slot *slot, uint64_t number)
{
    uint64_t in = guest_memory_gpa(s->memory, slot->in);
    unsigned int n_in = number % 2 == 0 ? 1 : 2;
    const VirtqueueSegment one = {in, 8}, halves[] = {{in, 3}, {in + 3, 5}};
    const VirtqueueSegment out = {guest_memory_gpa(s->memory, slot->out),
                                  number % 5 == 0 ? ROOM : 8};
    const VirtqueueRequest request = {.in = n_in == 1 ? &one : halves,
                                      .n_in = n_in,
                                      .out = &out,
                                      .n_out = 1,
                                      .tag = slot};
    *slot->in = number;
    *slot->out = 0;
    if (virtqueue_submit(s->queue, &request) < 0) {
        return false; /* full */
    }
    slot->expected = ~number;
    return true;
}

static uint64_t submit_all(Scene *s, uint64_t number)
{
    for (unsigned int i = 0; i < N_SLOTS && number <= N_REQUESTS; i++) {
        if (s->slots[i].expected == 0) {
            if (!submit(s, &s->slots[i], number)) {
                break;
            }
            number++;
        }
    }
    return number;
}

static void take_back(Scene *s)
{
    VirtqueueCompletion completion;

    g_assert_cmpint(virtqueue_wait(s->queue, &completion, PATIENCE_MS), ==, 1);
    Slot *slot = completion.tag;
    g_assert_cmpuint(completion.length, ==, sizeof(uint64_t));
    g_assert_cmpuint(slot->expected, !=, 0);
    g_assert_cmpuint(*slot->out, ==, slot->expected);
    slot->expected = 0;
}

static void test_requests(gconstpointer data)
{
    uint64_t next = 1;
    Scene s;

    scene_start(&s, data);
    for (unsigned int done = 0; done < N_REQUESTS; done++) {
        next = submit_all(&s, next);
        if (done % N_BETWEEN_STOPS == N_BETWEEN_STOPS - 1) {
            start_ring(&s, stop_ring(&s));
            notify(s.wake_fd);
        }
        take_back(&s);
    }
    g_assert_cmpuint(next, ==, N_REQUESTS + 1);
    g_assert_cmpuint(virtqueue_in_flight(s.queue), ==, 0);
    g_assert_cmpuint(stop_ring(&s), ==, virtqueue_base(s.queue));
    VirtqueueCounters counters = virtqueue_counters(s.queue);
    g_test_message("%u parked, %" G_GUINT64_FORMAT " kicks, %" G_GUINT64_FORMAT
                   " interrupts",
                   atomic_load(&s.n_parked), counters.kicks, counters.interrupts);
    g_assert_cmpuint(atomic_load(&s.n_parked), >, 0);
    scene_end(&s);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        VirtqueueConfig config;
    } cases[] = {
        {"split", {.size = 16}},
        {"split-event-idx", {.size = 16, .event_idx = true}},
        {"split-all", {.size = 16, .event_idx = true, .indirect = true}},
        {"packed", {.size = 16, .packed = true}},
        {"packed-event-idx", {.size = 11, .packed = true, .event_idx = true}},
        {"packed-indirect", {.size = 7, .packed = true, .indirect = true}},
        {"packed-all", {.size = 16, .packed = true, .event_idx = true, .indirect = true}},
    };

    g_test_init(&argc, &argv, NULL);
    log_threshold = LOG_LEVEL_OFF;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *path = g_strdup_printf("/ring-driver/%s", cases[i].name);
        g_test_add_data_func(path, &cases[i].config, test_requests);
    }
    return g_test_run();
}
