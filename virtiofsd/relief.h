/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_RELIEF_H
#define VIRTIOFSD_RELIEF_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "virtiofsd/autofd.h"

/*
 * Who goes on when a worker is kept by its request. One worker that serves all is the
 * cheapest: it hears of the next request without being woken. So the others sleep on
 * while it does, and a timer, which runs only meanwhile, makes somebody see whether it
 * still gets on.
 */

/** struct ReliefTurn - how far a worker is; a cache line of its own. */
typedef struct ReliefTurn {
    _Alignas(64) _Atomic uint32_t count; /* odd while it serves a request */
    _Atomic uint32_t seen;               /* with Relief.is_armed */
} ReliefTurn;

/** struct Relief - of the workers of a group. */
typedef struct Relief {
    AutoFd timer_fd;
    ReliefTurn *turns; /* one for each worker; NULL where one is alone */
    unsigned int n;
    unsigned int
        busy_max; /* so many at once for no other reason than that there is more */
    _Atomic bool is_armed; /* whoever sets or clears it has what is below */
    _Atomic uint32_t rests_seen;
    _Atomic uint32_t after_us; /* how long the timer is to run */
    _Atomic uint32_t n_rests;  /* how often there was nothing to do */
} Relief;

/**
 * relief_init() - for @n workers.
 * @busy_max: so many of them at most are made to work at once because there is always
 * more to do; those whom requests keep do not count.
 *
 * Return: true, or false with @error.
 */
bool relief_init(Relief *self, unsigned int n, unsigned int busy_max, GError **error);
void relief_clear(Relief *self);

/**
 * relief_begin() - a worker begins a request.
 * @others_wait: another one can relieve it.
 *
 * Context: the worker's thread; once what would wake the others has been switched off.
 */
void relief_begin(Relief *self, unsigned int worker, bool others_wait);

/** relief_end() - the request is over. Context: the worker's thread. */
void relief_end(Relief *self, unsigned int worker);

/** relief_rest() - there was nothing to do any more. Context: any worker. */
void relief_rest(Relief *self);

/**
 * relief_is_due() - the timer has expired: is help wanted?
 *
 * Context: whoever looks after the timer, one at a time.
 * Return: whether another one is still at the request that it was at before, or there has
 * been something to do all the time and more may work.
 */
bool relief_is_due(Relief *self);

#endif
