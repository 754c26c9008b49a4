/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One ring, several workers, a guest that runs beside them, and a control thread that
 * interferes. A lost wake-up in any direction shows as a wait that times out.
 */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "tests/unit/vhost-ring.h"
#include "virtiofsd/log.h"

#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define MAX_WORKERS 4
#define PATIENCE_MS 20000

typedef struct Scene {
    Fixture f;
    uint64_t features;
    unsigned int n_requests;
    int kick_fd;  /* guest -> workers, edge-triggered and never read */
    int wake_fd;  /* control -> workers, likewise */
    int stop_fd;  /* level-triggered */
    int epoll_fd; /* of all three */
    int guest_fd; /* what the guest listens to */
    _Atomic unsigned int n_waiting;
    _Atomic bool guest_is_done;
    pthread_t workers[MAX_WORKERS];
    unsigned int n_workers;
    pthread_t guest_thread;
} Scene;

static void notify(int fd)
{
    uint64_t one = 1;

    g_assert_cmpint(write(fd, &one, sizeof(one)), ==, sizeof(one));
}

/* ---- workers, busier than the daemon's
 * ---------------------------------------------------- */

/* The request: 8 bytes in, the same 8 bytes out, inverted. */
static uint32_t run_request(const VuChain *chain)
{
    uint64_t value;

    g_assert_cmpuint(chain->n_in, ==, 1);
    g_assert_cmpuint(chain->n_out, ==, 1);
    g_assert_cmpuint(chain->in[0].iov_len, ==, sizeof(value));
    g_assert_cmpuint(chain->out[0].iov_len, ==, sizeof(value));
    memcpy(&value, chain->in[0].iov_base, sizeof(value));
    if (value % 16 == 0) {
        sched_yield();
    }
    value = ~value;
    memcpy(chain->out[0].iov_base, &value, sizeof(value));
    return sizeof(value);
}

static void serve(Scene *s, VuChain *chain)
{
    for (;;) {
        if (!vu_ring_pop(s->f.ring, chain)) {
            return;
        }
        if (atomic_load(&s->n_waiting) > 0) {
            notify(s->wake_fd);
        }
        vu_ring_push(s->f.ring, chain, run_request(chain));
    }
}

static void *worker_main(void *data)
{
    Scene *s = data;
    VuChain *chain = vu_chain_new();
    struct epoll_event event = {0};

    do {
        serve(s, chain);
        atomic_fetch_add(&s->n_waiting, 1);
        serve(s, chain);
        g_assert_cmpint(epoll_wait(s->epoll_fd, &event, 1, -1), ==, 1);
        atomic_fetch_sub(&s->n_waiting, 1);
    } while (event.data.fd != s->stop_fd);
    vu_chain_free(chain);
    return NULL;
}

/* ---- the guest -----------------------------------------------------------------------
 */

static bool wants_kick(Scene *s)
{
    Guest *guest = &s->f.guest;

    if ((s->features & VU_F_EVENT_IDX) != 0) {
        return vring_need_event(guest_avail_event(guest), guest->offered,
                                (uint16_t)(guest->offered - 1));
    }
    return (guest_load16(guest, GUEST_USED) & VRING_USED_F_NO_NOTIFY) == 0;
}

static uint64_t *slot_data(Guest *guest, uint32_t slot)
{
    return (uint64_t *)(void *)(guest->memory + GUEST_DATA + 64 * slot);
}

static void submit(Scene *s, uint32_t slot, uint64_t value)
{
    Guest *guest = &s->f.guest;
    uint64_t gpa = GUEST_GPA + GUEST_DATA + 64ull * slot;

    slot_data(guest, slot)[0] = value;
    slot_data(guest, slot)[4] = 0;
    guest_desc(guest, GUEST_DESC, 2 * slot,
               (GuestDesc){gpa, 8, NEXT, (uint16_t)(2 * slot + 1)});
    guest_desc(guest, GUEST_DESC, 2 * slot + 1, (GuestDesc){gpa + 32, 8, WRITE, 0});
    guest_offer(guest, (uint16_t)(2 * slot));
    if (wants_kick(s)) {
        notify(s->kick_fd);
    }
}

static void wait_for_interrupt(Scene *s)
{
    struct pollfd pollfd = {.fd = s->guest_fd, .events = POLLIN};
    Guest *guest = &s->f.guest;

    guest_set_used_event(guest, guest->reaped);
    if (guest_used_index(guest) != guest->reaped) {
        return;
    }
    g_assert_cmpint(poll(&pollfd, 1, PATIENCE_MS), ==, 1);
    (void)take_events(s->guest_fd);
}

static void *guest_main(void *data)
{
    Scene *s = data;
    const uint32_t n_slots = GUEST_QUEUE / 2;
    uint64_t expected[GUEST_QUEUE / 2] = {0}; /* 0: slot is free */
    uint64_t submitted = 0, done = 0;
    unsigned int seed = 1;

    while (done < s->n_requests) {
        uint32_t id = 0, length = 0;
        unsigned int burst = (unsigned int)rand_r(&seed) % n_slots + 1;
        for (uint32_t i = 0; i < n_slots && burst > 0 && submitted < s->n_requests; i++) {
            if (expected[i] == 0) {
                expected[i] = ++submitted;
                submit(s, i, expected[i]);
                burst--;
            }
        }
        while (guest_reap(&s->f.guest, &id, &length)) {
            uint32_t slot = id / 2;
            g_assert_cmpuint(slot, <, n_slots);
            g_assert_cmpuint(length, ==, 8);
            g_assert_cmpuint(expected[slot], !=, 0); /* completed once, not twice */
            g_assert_cmpuint(slot_data(&s->f.guest, slot)[4], ==, ~expected[slot]);
            expected[slot] = 0;
            done++;
        }
        if (done < submitted) {
            wait_for_interrupt(s);
        }
    }
    atomic_store(&s->guest_is_done, true);
    return NULL;
}

/* ---- the scene -----------------------------------------------------------------------
 */

static void watch(Scene *s, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};

    g_assert_cmpint(epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &event), ==, 0);
}

static void scene_start(Scene *s, uint64_t features, unsigned int n_workers)
{
    fixture_init(&s->f, features);
    s->features = features;
    s->n_requests = 20000;
    s->kick_fd = make_event();
    s->wake_fd = make_event();
    s->stop_fd = make_event();
    s->guest_fd = dup(s->f.call_fd);
    s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    watch(s, s->kick_fd, EPOLLIN | EPOLLET);
    watch(s, s->wake_fd, EPOLLIN | EPOLLET);
    watch(s, s->stop_fd, EPOLLIN);
    s->n_workers = n_workers;
    for (unsigned int i = 0; i < n_workers; i++) {
        g_assert_cmpint(pthread_create(&s->workers[i], NULL, worker_main, s), ==, 0);
    }
    g_assert_cmpint(pthread_create(&s->guest_thread, NULL, guest_main, s), ==, 0);
}

static void scene_end(Scene *s)
{
    pthread_join(s->guest_thread, NULL);
    notify(s->stop_fd);
    for (unsigned int i = 0; i < s->n_workers; i++) {
        pthread_join(s->workers[i], NULL);
    }
    close(s->kick_fd);
    close(s->wake_fd);
    close(s->stop_fd);
    close(s->guest_fd);
    close(s->epoll_fd);
    fixture_clear(&s->f);
}

static const uint64_t feature_sets[] = {0, VU_F_EVENT_IDX};

static void test_workers(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(feature_sets); i++) {
        for (unsigned int n = 1; n <= MAX_WORKERS; n *= 2) {
            Scene s = {0};
            scene_start(&s, feature_sets[i], n);
            scene_end(&s);
        }
    }
}

/* Wait as the device does: until nothing is in flight on a ring that is held back. */
static void drain(Scene *s)
{
    struct pollfd pollfd = {.fd = s->f.idle_fd, .events = POLLIN};

    while (vu_ring_in_flight(s->f.ring) > 0) {
        g_assert_cmpint(poll(&pollfd, 1, PATIENCE_MS), ==, 1);
        (void)take_events(s->f.idle_fd);
    }
}

/* Memory is replaced by another mapping of itself, the old one unmapped, while requests
 * come: nothing is lost and nobody touches the old mapping. */
static void test_swap_memory(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(feature_sets); i++) {
        Scene s = {0};
        unsigned int swaps = 0;
        scene_start(&s, feature_sets[i], 3);
        do {
            vu_ring_pause(s.f.ring);
            drain(&s);
            g_assert_cmpuint(vu_ring_in_flight(s.f.ring), ==, 0);
            VuMemory *fresh = vu_memory_new();
            map_part(&fresh, &s.f.guest, 0, GUEST_SIZE);
            vu_ring_set_memory(s.f.ring, fresh);
            vu_memory_unref(s.f.memory);
            s.f.memory = fresh;
            vu_ring_resume(s.f.ring);
            notify(s.wake_fd);
            swaps++;
            g_usleep(200);
        } while (!atomic_load(&s.guest_is_done));
        g_test_message("%u swaps", swaps);
        scene_end(&s);
    }
}

/* A region is added and the tables swapped without a pause. */
static void test_add_memory(void)
{
    const VuMemoryRange extra = {.gpa = 1ull << 40, .size = 0x1000, .uva = 1ull << 40};
    Scene s = {0};

    scene_start(&s, VU_F_EVENT_IDX, 3);
    do {
        VuMemory *larger = NULL;
        int fd = memfd_create("extra", MFD_CLOEXEC);
        g_assert_cmpint(ftruncate(fd, 0x1000), ==, 0);
        g_assert_cmpint(vu_memory_add(s.f.memory, &extra, fd, &larger), ==, 0);
        vu_ring_set_memory(s.f.ring, larger);
        vu_memory_unref(larger);
        vu_ring_set_memory(s.f.ring, s.f.memory);
    } while (!atomic_load(&s.guest_is_done));
    scene_end(&s);
}

/* Stop and cont: the base is handed over, as GET and SET_VRING_BASE do. */
static void test_stop_and_go(void)
{
    Scene s = {0};

    scene_start(&s, VU_F_EVENT_IDX, 3);
    do {
        vu_ring_stop(s.f.ring);
        drain(&s);
        uint32_t base = vu_ring_base(s.f.ring);
        g_assert_cmpuint(base, ==, guest_used_index(&s.f.guest));
        g_assert_cmpint(vu_ring_set_base(s.f.ring, 7), ==, 0); /* forgets */
        g_assert_cmpint(vu_ring_set_size(s.f.ring, GUEST_QUEUE), ==, 0);
        g_assert_cmpint(vu_ring_set_base(s.f.ring, base), ==, 0);
        g_assert_cmpint(vu_ring_set_addresses(s.f.ring, &guest_addresses), ==, 0);
        g_assert_cmpint(vu_ring_start(s.f.ring), ==, 0);
        notify(s.wake_fd);
        g_usleep(200);
    } while (!atomic_load(&s.guest_is_done));
    scene_end(&s);
}

/* A vector is masked and unmasked. The VMM looks once at what it listened to while it was
 * masked; an interrupt that comes there later would be lost. */
static void test_mask(void)
{
    Scene s = {0};
    uint64_t seen_masked = 0;

    scene_start(&s, VU_F_EVENT_IDX, 3);
    do {
        int masked = make_event();
        g_assert_cmpint(vu_ring_set_call_take(s.f.ring, dup(masked)), ==, 0);
        g_usleep(20);
        g_assert_cmpint(vu_ring_set_call_take(s.f.ring, dup(s.guest_fd)), ==, 0);
        uint64_t events = take_events(masked);
        if (events > 0) {
            seen_masked++;
            notify(s.guest_fd);
        }
        close(masked);
        g_usleep(50);
    } while (!atomic_load(&s.guest_is_done));
    g_test_message("%" G_GUINT64_FORMAT " interrupts while masked", seen_masked);
    scene_end(&s);
}

/* ---- the guest as an enemy -----------------------------------------------------------
 */

typedef struct Enemy {
    Fixture f;
    char *memory; /* as the ring has it mapped, so that ThreadSanitizer sees both sides */
    _Atomic bool stop;
    _Atomic unsigned int chains;
} Enemy;

static void scribble(Enemy *e, unsigned int *seed)
{
    uint32_t r = (uint32_t)rand_r(seed);
    uint32_t slot = r >> 8 & (GUEST_QUEUE - 1);
    uint64_t *desc = (uint64_t *)(void *)(e->memory + GUEST_DESC + 16 * slot);
    uint16_t *avail = (uint16_t *)(void *)(e->memory + GUEST_AVAIL);
    uint16_t *used = (uint16_t *)(void *)(e->memory + GUEST_USED);
    uint16_t index = __atomic_load_n(&avail[1], __ATOMIC_RELAXED);

    switch (r & 7) {
    case 0: /* an address, mostly sound */
        __atomic_store_n(&desc[0], GUEST_GPA + (r >> 12) % (GUEST_SIZE + 100),
                         __ATOMIC_RELAXED);
        break;
    case 1:
    case 2: /* length, flags and next */
        __atomic_store_n(&desc[1],
                         (r >> 16 & 0xfff) | (uint64_t)(r >> 4 & 7) << 32 |
                             (uint64_t)((r >> 7) % (GUEST_QUEUE + 2)) << 48,
                         __ATOMIC_RELAXED);
        break;
    case 3: /* a head */
        __atomic_store_n(&avail[2 + slot], (uint16_t)((r >> 14) % (GUEST_QUEUE + 1)),
                         __ATOMIC_RELAXED);
        break;
    case 4: /* the index, seldom: far ahead, or back */
        if (r % 1009 == 0) {
            __atomic_store_n(&avail[1], (uint16_t)(index + (r >> 12)), __ATOMIC_SEQ_CST);
        }
        break;
    case 5: /* flags, used_event */
        __atomic_store_n(&avail[r & 8 ? 0 : 2 + GUEST_QUEUE], (uint16_t)(r >> 10),
                         __ATOMIC_RELAXED);
        break;
    default: /* the index, as an honest guest moves it */
        if ((uint16_t)(index - __atomic_load_n(&used[1], __ATOMIC_RELAXED)) < 32) {
            __atomic_store_n(&avail[1], (uint16_t)(index + 1), __ATOMIC_SEQ_CST);
        }
        break;
    }
}

static void *scribbler_main(void *data)
{
    Enemy *e = data;
    unsigned int seed = 4711;

    while (!atomic_load_explicit(&e->stop, memory_order_relaxed)) {
        scribble(e, &seed);
    }
    return NULL;
}

static void check_segments(const Enemy *e, const struct iovec *segments, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *base = segments[i].iov_base;
        g_assert_true(base >= e->memory && base < e->memory + GUEST_SIZE);
        g_assert_cmpuint(segments[i].iov_len, >, 0);
        g_assert_cmpuint(segments[i].iov_len, <=,
                         (size_t)(e->memory + GUEST_SIZE - base));
    }
}

static void *victim_main(void *data)
{
    Enemy *e = data;
    VuChain *chain = vu_chain_new();

    while (!atomic_load(&e->stop)) {
        if (!vu_ring_pop(e->f.ring, chain)) {
            sched_yield();
            continue;
        }
        atomic_fetch_add(&e->chains, 1);
        check_segments(e, chain->in, chain->n_in);
        check_segments(e, chain->out, chain->n_out);
        vu_ring_push(e->f.ring, chain, (uint32_t)chain->n_out);
    }
    vu_chain_free(chain);
    return NULL;
}

static void test_scribbling(void)
{
    Enemy e = {0};
    pthread_t scribbler, victims[2];
    unsigned int restarts = 0;

    fixture_init(&e.f, VU_F_EVENT_IDX | VU_F_INDIRECT_DESC);
    e.memory = fixture_host(&e.f, 0);
    pthread_create(&scribbler, NULL, scribbler_main, &e);
    for (size_t i = 0; i < G_N_ELEMENTS(victims); i++) {
        pthread_create(&victims[i], NULL, victim_main, &e);
    }
    gint64 begin = g_get_monotonic_time();
    /* On a busy machine it takes longer until anything has happened. */
    while (g_get_monotonic_time() < begin + 1500 * 1000 ||
           (atomic_load(&e.chains) <= 100 &&
            g_get_monotonic_time() < begin + 60 * G_USEC_PER_SEC)) {
        if (take_events(e.f.error_fd) > 0) { /* broken: the driver's reset */
            vu_ring_stop(e.f.ring);
            while (vu_ring_in_flight(e.f.ring) > 0) {
                sched_yield();
            }
            uint16_t *index = (uint16_t *)(void *)(e.memory + GUEST_AVAIL + 2);
            uint16_t *used = (uint16_t *)(void *)(e.memory + GUEST_USED + 2);
            uint16_t base = __atomic_load_n(index, __ATOMIC_SEQ_CST);
            __atomic_store_n(used, base, __ATOMIC_SEQ_CST);
            g_assert_cmpint(vu_ring_set_base(e.f.ring, base), ==, 0);
            g_assert_cmpint(vu_ring_start(e.f.ring), ==, 0);
            restarts++;
        }
        g_usleep(100);
    }
    atomic_store(&e.stop, true);
    pthread_join(scribbler, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(victims); i++) {
        pthread_join(victims[i], NULL);
    }
    g_test_message("%u chains, %u restarts", e.chains, restarts);
    g_assert_cmpuint(e.chains, >, 100);
    g_assert_cmpuint(restarts, >, 0);
    fixture_clear(&e.f);
}

/* A worker hangs in the write to a call descriptor that is replaced meanwhile: when it is
 * through, it writes to the successor as well. */
static void *pusher_main(void *data)
{
    Fixture *f = data;

    vu_ring_push(f->ring, f->chain, 0);
    return NULL;
}

static void test_late_interrupt(void)
{
    const uint64_t full = UINT64_MAX - 1;
    int blocking = eventfd(0, EFD_CLOEXEC);
    pthread_t pusher;
    Fixture f;

    fixture_init(&f, 0);
    g_assert_cmpint(vu_ring_set_call_take(f.ring, dup(blocking)), ==, 0);
    g_assert_cmpint(write(blocking, &full, sizeof(full)), ==, sizeof(full));
    guest_desc(&f.guest, GUEST_DESC, 0, (GuestDesc){GUEST_GPA, 8, WRITE, 0});
    guest_offer(&f.guest, 0);
    g_assert_true(vu_ring_pop(f.ring, f.chain));
    g_assert_cmpint(pthread_create(&pusher, NULL, pusher_main, &f), ==, 0);
    while (guest_used_index(&f.guest) == 0) {
        sched_yield();
    }
    g_usleep(20000); /* for it to reach the write */
    g_assert_cmpint(vu_ring_set_call_take(f.ring, dup(f.call_fd)), ==, 0);
    g_assert_cmpuint(vu_ring_in_flight(f.ring), ==, 1); /* not quiet yet */
    g_assert_cmpuint(take_events(blocking), ==, full);
    pthread_join(pusher, NULL);
    g_assert_cmpuint(take_events(f.call_fd), ==, 1);
    fixture_clear(&f);
    close(blocking);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_threshold = LOG_LEVEL_OFF;
    g_test_add_func("/ring-threads/workers", test_workers);
    g_test_add_func("/ring-threads/swap-memory", test_swap_memory);
    g_test_add_func("/ring-threads/add-memory", test_add_memory);
    g_test_add_func("/ring-threads/stop-and-go", test_stop_and_go);
    g_test_add_func("/ring-threads/mask", test_mask);
    g_test_add_func("/ring-threads/scribbling", test_scribbling);
    g_test_add_func("/ring-threads/late-interrupt", test_late_interrupt);
    return g_test_run();
}
