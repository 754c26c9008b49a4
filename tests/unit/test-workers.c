/* SPDX-License-Identifier: Apache-2.0 */
#include "virtiofsd/workers.h"

#include <pthread.h>

#include "tests/unit/vhost-ring.h"
#include "virtiofsd/fuse/request.h"
#include "virtiofsd/fuse/waits.h"

/*
 * Which ring a worker turns to next. The FUSE half is replaced by functions that write
 * down in which order they were asked.
 */

enum { QUEUES = 4, LONG = 40, SERVED_MAX = 1000 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char served[SERVED_MAX + 1]; /* under lock: '1' for a request of queue 1 */
static size_t n_served;             /* under lock */

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

size_t request_run(RequestWorker *worker, const RequestBuffers *buffers)
{
    g_assert_cmpuint(buffers->n_in, ==, 1);
    pthread_mutex_lock(&lock);
    g_assert_cmpuint(n_served, <, SERVED_MAX);
    served[n_served++] = *(const char *)buffers->in[0].iov_base;
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

/* Requests of a queue, each of which is the queue's digit. No kick. */
static void offer(Fixture *f, unsigned int queue, unsigned int n)
{
    f->guest.memory[GUEST_DATA] = (uint8_t)('0' + queue);
    for (unsigned int i = 0; i < n; i++) {
        guest_desc(&f->guest, GUEST_DESC, i,
                   (GuestDesc){.gpa = GUEST_GPA + GUEST_DATA, .length = 1});
        guest_offer(&f->guest, (uint16_t)i);
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

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/workers/turns", test_turns);
    g_test_add_func("/workers/all", test_all);
    return g_test_run();
}
