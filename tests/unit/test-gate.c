/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gate: many together, one alone, nobody forgotten. Plain variables inside the gate
 * let ThreadSanitizer judge it too.
 */
#include "virtiofsd/fuse/gate.h"

#include <glib.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#define N_WORKERS 4
#define N_ALONE 2

typedef struct Shared {
    Gate gate;
    uint64_t plain; /* written alone, read inside */
    _Atomic int inside;
    _Atomic int alone;
    _Atomic int faults;
    _Atomic bool stop;
    _Atomic uint64_t entered;
} Shared;

typedef struct Worker {
    GateSlot slot;
    Shared *shared;
    pthread_t thread;
} Worker;

static void *worker_main(void *data)
{
    Worker *worker = data;
    Shared *shared = worker->shared;
    uint64_t sum = 0;

    while (!atomic_load_explicit(&shared->stop, memory_order_relaxed)) {
        gate_enter(&shared->gate, &worker->slot);
        atomic_fetch_add_explicit(&shared->inside, 1, memory_order_relaxed);
        sum += shared->plain;
        if (atomic_load_explicit(&shared->alone, memory_order_relaxed) != 0) {
            atomic_fetch_add(&shared->faults, 1);
        }
        atomic_fetch_sub_explicit(&shared->inside, 1, memory_order_relaxed);
        gate_leave(&shared->gate, &worker->slot);
        atomic_fetch_add_explicit(&shared->entered, 1, memory_order_relaxed);
    }
    return (void *)(uintptr_t)(sum & 1);
}

static void *alone_main(void *data)
{
    Shared *shared = data;

    for (int i = 0; i < 3000; i++) {
        gate_enter_alone(&shared->gate);
        if (atomic_fetch_add_explicit(&shared->alone, 1, memory_order_relaxed) != 0 ||
            atomic_load_explicit(&shared->inside, memory_order_relaxed) != 0) {
            atomic_fetch_add(&shared->faults, 1);
        }
        shared->plain++;
        if (i % 16 == 0) {
            sched_yield();
        }
        if (atomic_load_explicit(&shared->inside, memory_order_relaxed) != 0) {
            atomic_fetch_add(&shared->faults, 1);
        }
        atomic_fetch_sub_explicit(&shared->alone, 1, memory_order_relaxed);
        gate_leave_alone(&shared->gate);
    }
    return NULL;
}

static Shared *shared_new(void)
{
    Shared *shared = aligned_alloc(GATE_LINE, sizeof(*shared));

    g_assert_nonnull(shared);
    *shared = (Shared){0};
    gate_init(&shared->gate);
    return shared;
}

static void test_exclusion(void)
{
    Shared *shared = shared_new();
    Worker *workers = aligned_alloc(GATE_LINE, N_WORKERS * sizeof(*workers));
    pthread_t alone[N_ALONE];

    for (int i = 0; i < N_WORKERS; i++) {
        workers[i].shared = shared;
        gate_add(&shared->gate, &workers[i].slot);
        pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]);
    }
    for (int i = 0; i < N_ALONE; i++) {
        pthread_create(&alone[i], NULL, alone_main, shared);
    }
    for (int i = 0; i < N_ALONE; i++) {
        pthread_join(alone[i], NULL);
    }
    atomic_store(&shared->stop, true);
    for (int i = 0; i < N_WORKERS; i++) {
        pthread_join(workers[i].thread, NULL);
        gate_remove(&shared->gate, &workers[i].slot);
    }
    g_assert_cmpint(atomic_load(&shared->faults), ==, 0);
    g_assert_cmpuint(shared->plain, ==, 3000 * N_ALONE);
    g_assert_cmpuint(atomic_load(&shared->entered), >, 0);
    g_assert_null(shared->gate.slots);
    gate_clear(&shared->gate);
    free(workers);
    free(shared);
}

static void *enter_alone_once(void *data)
{
    Shared *shared = data;

    gate_enter_alone(&shared->gate);
    atomic_store(&shared->alone, 1);
    gate_leave_alone(&shared->gate);
    return NULL;
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

/* Whoever closes the gate waits for the one who is inside, and is woken when he leaves.
 */
static void test_waits(void)
{
    Shared *shared = shared_new();
    GateSlot *slot = aligned_alloc(GATE_LINE, 2 * sizeof(*slot));
    GateSlot *other = slot + 1;
    pthread_t thread;

    gate_add(&shared->gate, slot);
    gate_add(&shared->gate, other);
    gate_enter(&shared->gate, slot);
    pthread_create(&thread, NULL, enter_alone_once, shared);
    while (!atomic_load(&shared->gate.closed)) {
        sched_yield();
    }
    sleep_ms(20);
    g_assert_cmpint(atomic_load(&shared->alone), ==, 0);
    /* Who does not wait is turned away at once, and is not in the way later. */
    g_assert_false(gate_try_enter(&shared->gate, other));
    g_assert_false(gate_try_enter(&shared->gate, other));
    gate_leave(&shared->gate, slot);
    pthread_join(thread, NULL);
    g_assert_cmpint(atomic_load(&shared->alone), ==, 1);

    /* Open again, for those who come and for the next one alone. */
    gate_enter(&shared->gate, slot);
    gate_leave(&shared->gate, slot);
    g_assert_true(gate_try_enter(&shared->gate, other));
    gate_leave(&shared->gate, other);
    gate_enter_alone(&shared->gate);
    gate_leave_alone(&shared->gate);
    gate_remove(&shared->gate, slot);
    gate_remove(&shared->gate, other);
    gate_clear(&shared->gate);
    free(slot);
    free(shared);
}

static void test_remove(void)
{
    Shared *shared = shared_new();
    GateSlot *slots = aligned_alloc(GATE_LINE, 3 * sizeof(*slots));

    for (int i = 0; i < 3; i++) {
        gate_add(&shared->gate, &slots[i]);
    }
    gate_remove(&shared->gate, &slots[1]);
    g_assert_true(shared->gate.slots == &slots[2]);
    g_assert_true(slots[2].next == &slots[0]);
    gate_remove(&shared->gate, &slots[2]);
    gate_remove(&shared->gate, &slots[0]);
    g_assert_null(shared->gate.slots);
    gate_clear(&shared->gate);
    free(slots);
    free(shared);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/gate/exclusion", test_exclusion);
    g_test_add_func("/gate/waits", test_waits);
    g_test_add_func("/gate/remove", test_remove);
    return g_test_run();
}
