/* SPDX-License-Identifier: Apache-2.0 */
#include "virtiofsd/relief.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>

/*
 * The timer is armed by a worker that begins a request, if it is not; once for all
 * requests until it expires, and for longer and longer while nothing is wrong, so under
 * load it costs little, and nothing in an idle daemon.
 *
 * Where there is always something to do, more than one work at once, but one processor is
 * left to the guest: its own threads are what hears that a request is done, and where
 * workers have every processor, each of these waits until one of them is made to pause.
 *
 * What was seen is atomic although only one at a time has it: that the timer expires
 * after it was armed is known to the kernel alone.
 *
 * No request is without relief: the count is made odd before is_armed is read, and
 * is_armed cleared before the counts are read, all sequentially consistent. So a worker
 * that found the timer armed is seen by the one whom it wakes.
 */

enum { FIRST_US = 500, MOST_US = 2000 };

bool relief_init(Relief *self, unsigned int n, unsigned int busy_max, GError **error)
{
    self->n = n;
    self->busy_max = busy_max;
    self->after_us = FIRST_US;
    if (n < 2) {
        return true;
    }
    self->turns = aligned_alloc(_Alignof(ReliefTurn), n * sizeof(ReliefTurn));
    self->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (self->turns == NULL || self->timer_fd < 0) {
        g_set_error(error, G_FILE_ERROR, (gint)g_file_error_from_errno(errno),
                    "cannot set up a timer for %u workers: %s", n,
                    strerrordesc_np(errno));
        return false;
    }
    memset(self->turns, 0, n * sizeof(ReliefTurn));
    return true;
}

void relief_clear(Relief *self)
{
    autofd_clear(&self->timer_fd);
    free(self->turns);
    self->turns = NULL;
}

static bool is_odd(uint32_t count)
{
    return (count & 1) != 0;
}

static uint32_t rests_of(const Relief *self)
{
    return atomic_load_explicit(&self->n_rests, memory_order_relaxed);
}

/* Look how far all are, with is_armed set. Return: see relief_is_due(). */
static bool look(Relief *self)
{
    uint32_t rests = rests_of(self);
    bool has_more =
        atomic_exchange_explicit(&self->rests_seen, rests, memory_order_relaxed) == rests;
    bool is_kept = false;
    unsigned int n_getting_on = 0;

    for (unsigned int i = 0; i < self->n; i++) {
        ReliefTurn *turn = &self->turns[i];
        uint32_t count = atomic_load(&turn->count);
        uint32_t seen =
            atomic_exchange_explicit(&turn->seen, count, memory_order_relaxed);
        is_kept = is_kept || (is_odd(count) && count == seen);
        n_getting_on += count != seen ? 1 : 0;
    }
    return is_kept || (has_more && n_getting_on < self->busy_max);
}

static void arm_once(Relief *self)
{
    if (!atomic_load(&self->is_armed) && !atomic_exchange(&self->is_armed, true)) {
        uint32_t after_us = atomic_load_explicit(&self->after_us, memory_order_relaxed);
        const struct itimerspec after = {.it_value.tv_nsec = after_us * 1000L};

        (void)look(self);
        /* Fails only for times and descriptors that are none. */
        (void)timerfd_settime(self->timer_fd, 0, &after, NULL);
    }
}

void relief_begin(Relief *self, unsigned int worker, bool others_wait)
{
    if (self->turns == NULL) {
        return;
    }
    _Atomic uint32_t *count = &self->turns[worker].count;
    atomic_store(count, atomic_load_explicit(count, memory_order_relaxed) + 1);
    if (others_wait) {
        arm_once(self);
    }
}

void relief_end(Relief *self, unsigned int worker)
{
    if (self->turns != NULL) {
        _Atomic uint32_t *count = &self->turns[worker].count;
        uint32_t now = atomic_load_explicit(count, memory_order_relaxed);
        atomic_store_explicit(count, now + 1, memory_order_release);
    }
}

void relief_rest(Relief *self)
{
    atomic_fetch_add_explicit(&self->n_rests, 1, memory_order_relaxed);
}

/* With is_armed set. */
static void learn(Relief *self, bool was_due)
{
    uint32_t after_us = atomic_load_explicit(&self->after_us, memory_order_relaxed);
    uint32_t next_us = was_due ? FIRST_US : MIN(after_us * 2, MOST_US);

    atomic_store_explicit(&self->after_us, next_us, memory_order_relaxed);
}

bool relief_is_due(Relief *self)
{
    bool is_due = look(self);
    bool is_serving = false;

    learn(self, is_due);
    atomic_store(&self->is_armed, false);
    for (unsigned int i = 0; i < self->n && !is_due && !is_serving; i++) {
        is_serving = is_odd(atomic_load(&self->turns[i].count));
    }
    if (is_serving) {
        arm_once(self);
    }
    return is_due;
}
