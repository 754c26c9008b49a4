/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_POLLING_H
#define VIRTIOFSD_POLLING_H

#include <stdbool.h>
#include <stdint.h>

/*
 * How long a worker that found work looks for more before it sleeps. What it saves is the
 * guest's kick and its own waking up; what it costs is the processor. So it goes by what
 * came of it: the time grows while work comes soon, is nothing when work comes late, and
 * when looking finds nothing again and again, because the guest needs this very
 * processor, it is left out for longer and longer.
 */

/** struct Polling - of one worker, whose thread alone uses it. */
typedef struct Polling {
    _Atomic bool *is_polled;
    uint64_t most_ns;  /* fixed; 0: never */
    uint64_t ns;       /* for how long now */
    uint64_t since;    /* when there was nothing to do any more */
    uint32_t n_missed; /* how often in a row it was in vain */
    uint32_t n_skip;   /* how often it is left out from here */
} Polling;

/** enum PollingResult - what came of looking. */
typedef enum PollingResult {
    POLLING_LEFT_OUT,
    POLLING_FOUND,
    POLLING_IN_VAIN,
} PollingResult;

/**
 * polling_init() - a worker that has not looked yet.
 * @most_us: microseconds to look at most, 0 for never.
 * @is_polled: borrowed; shared by those of whom one at a time looks.
 */
void polling_init(Polling *self, unsigned int most_us, _Atomic bool *is_polled);

/** polling_look() - look until @has_work(@data) or time is up, or not at all. */
PollingResult polling_look(Polling *self, bool (*has_work)(void *data), void *data);

/** polling_slept() - the worker was woken after it had looked, with that result. */
void polling_slept(Polling *self, PollingResult looked);

/** polling_learn() - how long to look the next time.
 * @after_ns: when work came, since there was none any more. */
void polling_learn(Polling *self, PollingResult looked, uint64_t after_ns);

#endif
