/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of waits: who is tried when and in which order, what ends a wait, and that
 * each gets exactly one answer while threads do all of it at once.
 */
#include "virtiofsd/fuse/waits.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <pthread.h>
#include <stdatomic.h>

#define NODE UINT64_C(5)
#define HANDLE UINT64_C(50)

static WaitRequest request(uint64_t unique)
{
    return (WaitRequest){
        .lock = {.nodeid = NODE,
                 .handle = HANDLE,
                 .owner = unique * 10,
                 .end = INT64_MAX,
                 .type = F_WRLCK},
        .opcode = 33,
        .unique = unique,
    };
}

static Wait *take(Waits *waits, uint64_t unique)
{
    const WaitRequest wanted = request(unique);
    return waits_take(waits, &wanted);
}

static Wait *park(Waits *waits, uint64_t unique, uint32_t queue)
{
    Wait *wait = take(waits, unique);
    g_assert_nonnull(wait);
    waits_park(waits, wait, queue, (uint16_t)(unique + 100));
    return wait;
}

/* The next one is @wait, it is not over, and is not to be had. */
static void expect_try(Waits *waits, Wait *wait)
{
    g_assert_true(waits_next(waits) == wait);
    g_assert_false(waits_is_over(waits, wait));
    g_assert_false(waits_tried(waits, wait, -EAGAIN));
}

/* The next one is @wait and has ended so. */
static void expect_end(Waits *waits, Wait *wait, int result)
{
    g_assert_true(waits_next(waits) == wait);
    g_assert_true(waits_is_over(waits, wait));
    g_assert_true(waits_tried(waits, wait, -EAGAIN));
    g_assert_cmpint(waits_answer(wait).result, ==, result);
    waits_give(waits, wait);
}

static void test_order(void)
{
    Waits *waits = waits_new();
    Wait *first = take(waits, 1);
    Wait *second = park(waits, 2, 1);

    /* What is not parked yet is not tried; its place in the row is kept. */
    expect_try(waits, second);
    waits_park(waits, first, 3, 7);
    expect_try(waits, first);
    expect_try(waits, second);
    g_assert_true(waits_next(waits) == first);
    g_assert_true(waits_tried(waits, first, 0));
    const WaitAnswer answer = waits_answer(first);
    g_assert_cmpuint(answer.queue, ==, 3);
    g_assert_cmpuint(answer.head, ==, 7);
    g_assert_cmpuint(answer.request->unique, ==, 1);
    g_assert_cmpint(answer.result, ==, 0);
    waits_give(waits, first);
    expect_try(waits, second);
    waits_free(waits);
}

/* Nobody tells of locks on the host: it is looked at again, less and less often. */
static void test_interval(void)
{
    Waits *waits = waits_new();
    Wait *wait = park(waits, 1, 1);
    int64_t begin = g_get_monotonic_time();
    unsigned int n = 0;

    for (; g_get_monotonic_time() - begin < 1000000; n++) {
        expect_try(waits, wait);
    }
    /* 1 + 2 + 4 ... 64, then every 100 ms. */
    g_assert_cmpuint(n, >=, 8);
    g_assert_cmpuint(n, <=, 20);
    /* A kick is heard at once, and begins anew. */
    begin = g_get_monotonic_time();
    waits_kick(waits, NODE);
    expect_try(waits, wait);
    g_assert_cmpint(g_get_monotonic_time() - begin, <, 50000);
    waits_free(waits);
}

/* One that comes while it is being tried is not lost. */
static void test_kick_in_between(void)
{
    Waits *waits = waits_new();
    Wait *wait = park(waits, 1, 1);

    for (int i = 0; i < 12; i++) {
        expect_try(waits, wait); /* the interval grows */
    }
    g_assert_true(waits_next(waits) == wait);
    waits_kick(waits, NODE + 1);
    waits_kick(waits, NODE);
    int64_t begin = g_get_monotonic_time();
    g_assert_false(waits_tried(waits, wait, -EAGAIN));
    expect_try(waits, wait);
    g_assert_cmpint(g_get_monotonic_time() - begin, <, 50000);
    waits_free(waits);
}

static void test_ends(void)
{
    Waits *waits = waits_new();
    const uint64_t owner = 20;
    Wait *first = park(waits, 1, 1);
    Wait *second = park(waits, 2, 1);
    Wait *third = park(waits, 3, 2);

    expect_try(waits, first);
    expect_try(waits, second);
    expect_try(waits, third);
    waits_interrupt(waits, 1);
    expect_end(waits, first, -EINTR);
    waits_end_handle(waits, HANDLE + 1, NULL);
    waits_end_handle(waits, HANDLE, &owner);
    expect_end(waits, second, -EBADF);
    waits_settle(waits, 1);
    g_assert_false(waits_is_over(waits, third));
    waits_settle(waits, 2);
    /* The first to say so decides. */
    waits_end_handle(waits, HANDLE, NULL);
    expect_end(waits, third, -ENOLCK);
    /* Who comes to a settled queue is too late, until it is opened. */
    expect_end(waits, park(waits, 4, 2), -ENOLCK);
    waits_open(waits, 2);
    first = park(waits, 5, 2);
    expect_try(waits, first);
    second = take(waits, 6);
    waits_end_all(waits, -EIO);
    expect_end(waits, first, -EIO);
    waits_park(waits, second, 2, 0);
    expect_end(waits, second, -EIO);
    waits_stop(waits);
    g_assert_null(waits_next(waits));
    waits_free(waits);
}

/* INTERRUPT comes on another queue and may overtake what it is about. */
static void test_early(void)
{
    Waits *waits = waits_new();

    waits_interrupt(waits, 9);
    expect_end(waits, park(waits, 9, 1), -EINTR);
    /* Once. */
    Wait *wait = park(waits, 9, 1);
    expect_try(waits, wait);
    waits_interrupt(waits, 9);
    expect_end(waits, wait, -EINTR);
    /* Not for ever, and not into the next session. */
    for (uint64_t unique = 100; unique < 200; unique++) {
        waits_interrupt(waits, unique);
    }
    wait = park(waits, 100, 1);
    expect_try(waits, wait);
    waits_end_all(waits, -EIO);
    expect_end(waits, wait, -EIO);
    wait = park(waits, 199, 1);
    expect_try(waits, wait);
    waits_free(waits);
}

/* What was had is had, whatever happened meanwhile: the guest must hear of it. */
static void test_too_late(void)
{
    Waits *waits = waits_new();
    Wait *wait = park(waits, 1, 1);

    g_assert_true(waits_next(waits) == wait);
    waits_interrupt(waits, 1);
    g_assert_true(waits_tried(waits, wait, 0));
    g_assert_cmpint(waits_answer(wait).result, ==, 0);
    waits_give(waits, wait);
    waits_free(waits);
}

static void test_put_back(void)
{
    Waits *waits = waits_new();
    Wait *wait = park(waits, 1, 1);

    waits_interrupt(waits, 1);
    g_assert_true(waits_next(waits) == wait);
    g_assert_true(waits_tried(waits, wait, -EAGAIN));
    waits_put_back(waits, wait);
    expect_end(waits, wait, -EINTR);
    waits_free(waits);
}

static void test_full(void)
{
    Waits *waits = waits_new();
    Wait *all[WAITS_MAX];

    for (int round = 0; round < 2; round++) {
        for (uint64_t i = 0; i < WAITS_MAX; i++) {
            all[i] = take(waits, i);
            g_assert_nonnull(all[i]);
        }
        g_assert_null(take(waits, WAITS_MAX));
        for (size_t i = 0; i < WAITS_MAX; i++) {
            waits_give(waits, all[i]);
        }
    }
    waits_free(waits);
}

static void test_owner(void)
{
    Waits *waits = waits_new();
    WaitRequest whole = request(3);
    PtLock lock;

    g_assert_false(waits_of_owner(waits, 10, &lock));
    Wait *wait = take(waits, 1);
    g_assert_false(waits_of_owner(waits, 10, &lock));
    waits_park(waits, wait, 1, 0);
    g_assert_true(waits_of_owner(waits, 10, &lock));
    g_assert_cmpuint(lock.owner, ==, 10);
    g_assert_cmpuint(lock.nodeid, ==, NODE);
    whole.whole = true;
    wait = waits_take(waits, &whole);
    waits_park(waits, wait, 1, 0);
    g_assert_false(waits_of_owner(waits, 30, &lock));
    waits_interrupt(waits, 1);
    g_assert_false(waits_of_owner(waits, 10, &lock));
    waits_free(waits);
}

/* ---- all at once ------------------------------------------------------------------- */

#define N_THREADS 4
#define N_EACH 3000

typedef struct Crowd {
    Waits *waits;
    _Atomic unsigned int n_answered;
    _Atomic unsigned int answers[N_THREADS * N_EACH];
    _Atomic unsigned int n_refused;
} Crowd;

typedef struct Member {
    Crowd *crowd;
    unsigned int index;
} Member;

static void *waiter(void *data)
{
    Crowd *crowd = data;
    unsigned int n = 0;

    for (Wait *wait; (wait = waits_next(crowd->waits)) != NULL; n++) {
        bool is_over = waits_is_over(crowd->waits, wait);
        if (waits_tried(crowd->waits, wait, !is_over && n % 5 == 0 ? 0 : -EAGAIN)) {
            if (n % 7 == 0) {
                waits_put_back(crowd->waits, wait);
                continue;
            }
            atomic_fetch_add(&crowd->answers[waits_answer(wait).request->unique], 1);
            waits_give(crowd->waits, wait);
            atomic_fetch_add(&crowd->n_answered, 1);
        }
    }
    return NULL;
}

static void *worker(void *data)
{
    const Member *self = data;
    Crowd *crowd = self->crowd;
    PtLock lock;

    for (unsigned int i = 0; i < N_EACH; i++) {
        uint64_t unique = self->index * N_EACH + i;
        Wait *wait = take(crowd->waits, unique);
        if (wait == NULL) {
            atomic_fetch_add(&crowd->n_refused, 1);
            atomic_fetch_add(&crowd->answers[unique], 1);
            continue;
        }
        if (i % 11 == 0) {
            waits_give(crowd->waits, wait);
            atomic_fetch_add(&crowd->n_refused, 1);
            atomic_fetch_add(&crowd->answers[unique], 1);
            continue;
        }
        waits_park(crowd->waits, wait, 1 + i % 3, (uint16_t)i);
        (void)waits_of_owner(crowd->waits, unique, &lock);
        switch (i % 5) {
        case 0:
            waits_interrupt(crowd->waits, unique - i % 3);
            break;
        case 1:
            waits_kick(crowd->waits, NODE);
            break;
        case 2:
            waits_settle(crowd->waits, 1 + i % 2);
            waits_open(crowd->waits, 1 + i % 2);
            break;
        case 3:
            waits_end_handle(crowd->waits, HANDLE, &(uint64_t){unique * 10});
            break;
        default:
            break;
        }
    }
    return NULL;
}

static void test_crowd(void)
{
    Crowd *crowd = g_new0(Crowd, 1);
    Member members[N_THREADS];
    pthread_t threads[N_THREADS];
    pthread_t waiting;

    crowd->waits = waits_new();
    pthread_create(&waiting, NULL, waiter, crowd);
    for (unsigned int i = 0; i < N_THREADS; i++) {
        members[i] = (Member){crowd, i};
        pthread_create(&threads[i], NULL, worker, &members[i]);
    }
    for (unsigned int i = 0; i < N_THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    waits_end_all(crowd->waits, -EIO);
    while (atomic_load(&crowd->n_answered) + atomic_load(&crowd->n_refused) <
           N_THREADS * N_EACH) {
        g_usleep(1000);
    }
    waits_stop(crowd->waits);
    pthread_join(waiting, NULL);
    for (size_t i = 0; i < N_THREADS * N_EACH; i++) {
        g_assert_cmpuint(atomic_load(&crowd->answers[i]), ==, 1);
    }
    waits_free(crowd->waits);
    g_free(crowd);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/waits/order", test_order);
    g_test_add_func("/waits/interval", test_interval);
    g_test_add_func("/waits/kick-in-between", test_kick_in_between);
    g_test_add_func("/waits/ends", test_ends);
    g_test_add_func("/waits/early", test_early);
    g_test_add_func("/waits/too-late", test_too_late);
    g_test_add_func("/waits/put-back", test_put_back);
    g_test_add_func("/waits/full", test_full);
    g_test_add_func("/waits/owner", test_owner);
    g_test_add_func("/waits/crowd", test_crowd);
    return g_test_run();
}
