/* SPDX-License-Identifier: Apache-2.0 */
#include "virtiofsd/workers.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <time.h>

#include "tests/unit/vhost-ring.h"
#include "virtiofsd/fuse/request.h"
#include "virtiofsd/fuse/waits.h"

/*
 * Which ring a worker turns to next, and who goes on when one is kept. The FUSE half is
 * replaced by functions that write down in which order they were asked.
 */

enum { QUEUES = 4, LONG = 40, SERVED_MAX = 1000, PATIENCE_S = 20 };

/* Requests that wait until the others have been served: without a word, and with one. */
#define KEPT 'k'
#define SLOW 's'

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static char served[SERVED_MAX + 1]; /* under lock: '1' for a request of queue 1 */
static size_t n_served;             /* under lock */
static size_t n_before_kept;        /* under lock: that those wait for */
static size_t n_told;               /* under lock: that may take long */

/* ---- what workers.c asks of others ---------------------------------------------------
 */

struct RequestWorker {
    int unused;
};

RequestWorker *request_worker_new(Session *session)
{
    return calloc(1, sizeof(RequestWorker));
}

void request_worker_free(RequestWorker *worker)
{
    free(worker);
}

/* Context: the lock is held. */
static void wait_for_others(void)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    while (n_served < n_before_kept) {
        g_assert_cmpint(pthread_cond_timedwait(&changed, &lock, &until), ==, 0);
    }
}

size_t request_run(RequestWorker *worker, const RequestBuffers *buffers)
{
    g_assert_cmpuint(buffers->n_in, ==, 1);
    char what = *(const char *)buffers->in[0].iov_base;
    pthread_mutex_lock(&lock);
    g_assert_cmpuint(n_served, <, SERVED_MAX);
    if (what == SLOW && buffers->only_short) {
        n_told++;
        pthread_mutex_unlock(&lock);
        return REQUEST_LONG;
    }
    if (what == KEPT || what == SLOW) {
        wait_for_others();
    }
    served[n_served++] = what;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return 0;
}

Wait *request_waiting(const RequestWorker *worker)
{
    g_assert_not_reached();
}

void waits_park(Waits *waits, Wait *wait, uint32_t queue, uint16_t head)
{
    g_assert_not_reached();
}

Waits *session_waits(Session *session)
{
    return NULL;
}

int pt_thread_enter(PtFs *fs)
{
    return 0;
}

bool pt_thread_usable(void)
{
    return true;
}

/* ---- tests ---------------------------------------------------------------------------
 */

/* A request of one byte. No kick. */
static void offer_one(Fixture *f, unsigned int slot, char what)
{
    f->guest.memory[GUEST_DATA + slot] = (uint8_t)what;
    guest_desc(&f->guest, GUEST_DESC, slot,
               (GuestDesc){.gpa = GUEST_GPA + GUEST_DATA + slot, .length = 1});
    guest_offer(&f->guest, (uint16_t)slot);
}

/* Requests of a queue, each of which is the queue's digit. */
static void offer(Fixture *f, unsigned int queue, unsigned int n)
{
    for (unsigned int i = 0; i < n; i++) {
        offer_one(f, i, (char)('0' + queue));
    }
}

static size_t wait_served(size_t n)
{
    size_t now = 0;

    for (int i = 0; i < 10000 && now < n; i++) {
        g_usleep(1000);
        pthread_mutex_lock(&lock);
        now = n_served;
        pthread_mutex_unlock(&lock);
    }
    return now;
}

/* Rings 1 to 3 with so many requests each, all there before the first worker looks. */
static void serve(const unsigned int *counts, unsigned int n_workers)
{
    Fixture rings[QUEUES];
    const WorkersConfig config = {.n_queues = QUEUES, .n_request_workers = n_workers};
    size_t total = 0;

    n_served = 0;
    memset(served, 0, sizeof(served));
    for (unsigned int i = 1; i < QUEUES; i++) {
        fixture_init(&rings[i], 0);
    }
    g_autoptr(GError) error = NULL;
    Workers *workers = workers_new(&config, &error);
    g_assert_no_error(error);
    for (unsigned int i = QUEUES - 1; i > 0; i--) {
        g_assert_cmpint(workers_watch(workers, i, rings[i].ring, -1), ==, 0);
    }
    g_usleep(20000); /* nobody looks at a ring any more */
    for (unsigned int i = QUEUES - 1; i > 0; i--) {
        offer(&rings[i], i, counts[i]);
        total += counts[i];
    }
    workers_wake(workers, 1);
    g_assert_cmpuint(wait_served(total), ==, total);
    g_assert_true(workers_stop(workers, 10000));
    for (unsigned int i = QUEUES - 1; i > 0; i--) {
        fixture_clear(&rings[i]);
    }
}

/* However long a ring is, the others are not behind all of it. */
static void test_turns(void)
{
    const unsigned int counts[QUEUES] = {0, LONG, 1, 2};

    serve(counts, 1);
    const char *second = strchr(served, '2'), *third = strrchr(served, '3');
    g_assert_nonnull(second);
    g_assert_nonnull(third);
    g_assert_cmpint(second - served, <, LONG / 2);
    g_assert_cmpint(third - served, <, LONG / 2);
}

/* All are served, by as many workers as there are. */
static void test_all(void)
{
    const unsigned int counts[QUEUES] = {0, LONG, LONG, LONG};

    for (unsigned int n_workers = 1; n_workers <= 3; n_workers++) {
        serve(counts, n_workers);
        for (char queue = '1'; queue <= '3'; queue++) {
            unsigned int n = 0;
            for (size_t i = 0; i < n_served; i++) {
                n += served[i] == queue;
            }
            g_assert_cmpuint(n, ==, LONG);
        }
    }
}

/* One request that waits for all that come after it, at once and when its worker has been
 * relieved already. */
static void serve_kept(char what, unsigned int n_workers)
{
    const WorkersConfig config = {.n_queues = 2, .n_request_workers = n_workers};
    g_autoptr(GError) error = NULL;
    Fixture ring;
    int kick_fd = eventfd(0, EFD_NONBLOCK);

    n_served = n_told = 0;
    n_before_kept = 4;
    memset(served, 0, sizeof(served));
    fixture_init(&ring, 0);
    Workers *workers = workers_new(&config, &error);
    g_assert_no_error(error);
    g_assert_cmpint(workers_watch(workers, 1, ring.ring, kick_fd), ==, 0);
    g_usleep(20000);
    offer_one(&ring, 0, what);
    offer_one(&ring, 1, 'a');
    offer_one(&ring, 2, 'b');
    g_assert_cmpint(eventfd_write(kick_fd, 1), ==, 0);
    g_assert_cmpuint(wait_served(2), ==, 2);
    /* Whoever looked last wants to be told of the next one. */
    for (unsigned int slot = 3; slot < 5; slot++) {
        for (int i = 0; guest_load16(&ring.guest, GUEST_USED) != 0; i++) {
            g_assert_cmpint(i, <, PATIENCE_S * 1000);
            g_usleep(1000);
        }
        offer_one(&ring, slot, 'c');
        g_assert_cmpint(eventfd_write(kick_fd, 1), ==, 0);
        g_assert_cmpuint(wait_served(slot), >=, slot);
    }
    g_assert_cmpuint(wait_served(5), ==, 5);
    g_assert_true(workers_stop(workers, 10000));
    g_assert_cmpint(served[4], ==, what);
    fixture_clear(&ring);
    close(kick_fd);
}

static void test_kept(void)
{
    for (unsigned int n_workers = 2; n_workers <= 4; n_workers++) {
        serve_kept(KEPT, n_workers);
        g_assert_cmpuint(n_told, ==, 0);
    }
}

/* Who knows that it will take long says so, if there is somebody to be told. */
static void test_slow(void)
{
    for (unsigned int n_workers = 2; n_workers <= 4; n_workers++) {
        serve_kept(SLOW, n_workers);
        g_assert_cmpuint(n_told, ==, 1);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/workers/turns", test_turns);
    g_test_add_func("/workers/all", test_all);
    g_test_add_func("/workers/kept", test_kept);
    g_test_add_func("/workers/slow", test_slow);
    return g_test_run();
}
