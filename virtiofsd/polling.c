/* SPDX-License-Identifier: Apache-2.0 */
#include "virtiofsd/polling.h"

#include <stdatomic.h>
#include <time.h>

enum {
    FIRST_NS = 4000,
    MISSES = 4, /* in a row, until it is left out */
    SKIP_BITS = 10
};

static uint64_t now(void)
{
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * UINT64_C(1000000000) + (uint64_t)time.tv_nsec;
}

/* Leave the core to its sibling. */
static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

void polling_init(Polling *self, unsigned int most_us, _Atomic bool *is_polled)
{
    *self =
        (Polling){.most_ns = (uint64_t)most_us * UINT64_C(1000), .is_polled = is_polled};
}

static bool may_look(Polling *self)
{
    if (self->most_ns == 0) {
        return false;
    }
    self->since = now();
    if (self->n_skip > 0) {
        self->n_skip--;
        return false;
    }
    return self->ns > 0 && !atomic_exchange(self->is_polled, true);
}

PollingResult polling_look(Polling *self, bool (*has_work)(void *data), void *data)
{
    bool found = false;

    if (!may_look(self)) {
        return POLLING_LEFT_OUT;
    }
    do {
        relax();
        found = has_work(data);
    } while (!found && now() - self->since < self->ns);
    atomic_store(self->is_polled, false);
    if (!found) {
        return POLLING_IN_VAIN;
    }
    self->n_missed = 0;
    return POLLING_FOUND;
}

void polling_slept(Polling *self, PollingResult looked)
{
    if (self->most_ns > 0) {
        polling_learn(self, looked, now() - self->since);
    }
}

void polling_learn(Polling *self, PollingResult looked, uint64_t after_ns)
{
    if (after_ns > self->most_ns) {
        self->ns = 0; /* it could not have been found */
        return;
    }
    self->ns = self->ns == 0 ? FIRST_NS : self->ns * 2;
    if (self->ns > self->most_ns) {
        self->ns = self->most_ns;
    }
    if (looked == POLLING_IN_VAIN && ++self->n_missed >= MISSES) {
        uint32_t over = self->n_missed - MISSES;
        self->n_skip = UINT32_C(1) << (over < SKIP_BITS ? over : SKIP_BITS);
    }
}
