/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool of buffers. Every slot takes the largest request and answer there is, since
 * its size is known only once it was read; memory that small requests never touch costs
 * nothing. The slot used last is taken first: its memory is in the processor's caches.
 */
#include "tests/bridge/slots.h"

#include <glib.h>
#include <pthread.h>
#include <time.h>

#include "tests/support/segments.h"

#define AREA_SIZE (SEGMENTS_PAGE + SLOTS_DATA_SIZE + SLOTS_EXTRA_SIZE)

struct Slots {
    Slot *all;
    unsigned int n;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    Slot *free;
    unsigned int n_free;
    bool closed;
};

size_t slots_memory_size(unsigned int n)
{
    return 2 * (size_t)n * AREA_SIZE + SEGMENTS_PAGE;
}

size_t slots_in_room(void)
{
    return AREA_SIZE - SEGMENTS_IN_LEAD;
}

size_t slots_out_room(void)
{
    return AREA_SIZE - SEGMENTS_OUT_LEAD;
}

Slots *slots_new(GuestMemory *memory, unsigned int n)
{
    Slots *slots = g_new0(Slots, 1);
    pthread_condattr_t attr;
    (void)pthread_mutex_init(&slots->lock, NULL); /* none of these fails on Linux */
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&slots->changed, &attr);
    (void)pthread_condattr_destroy(&attr);
    slots->all = g_new0(Slot, n);
    slots->n = n;
    for (unsigned int i = 0; i < n; i++) {
        uint8_t *in = guest_memory_alloc(memory, AREA_SIZE, SEGMENTS_PAGE);
        uint8_t *out = guest_memory_alloc(memory, AREA_SIZE, SEGMENTS_PAGE);
        if (in == NULL || out == NULL) {
            slots_free(slots);
            return NULL;
        }
        slots->all[i].in = in + SEGMENTS_IN_LEAD;
        slots->all[i].out = out + SEGMENTS_OUT_LEAD;
        slots->all[i].owner = slots;
        slots_put(&slots->all[i]);
    }
    return slots;
}

void slots_free(Slots *slots)
{
    if (slots == NULL) {
        return;
    }
    (void)pthread_cond_destroy(&slots->changed); /* nobody waits */
    (void)pthread_mutex_destroy(&slots->lock);
    g_free(slots->all);
    g_free(slots);
}

Slot *slots_take(Slots *slots)
{
    Slot *slot = NULL;
    (void)pthread_mutex_lock(&slots->lock);
    while (slots->free == NULL && !slots->closed) {
        (void)pthread_cond_wait(&slots->changed, &slots->lock);
    }
    if (!slots->closed) {
        slot = slots->free;
        slots->free = slot->next;
        slots->n_free--;
    }
    (void)pthread_mutex_unlock(&slots->lock);
    return slot;
}

void slots_put(Slot *slot)
{
    Slots *slots = slot->owner;
    (void)pthread_mutex_lock(&slots->lock);
    slot->next = slots->free;
    slots->free = slot;
    slots->n_free++;
    (void)pthread_cond_signal(&slots->changed);
    (void)pthread_mutex_unlock(&slots->lock);
}

static void set_closed(Slots *slots, bool closed)
{
    (void)pthread_mutex_lock(&slots->lock);
    slots->closed = closed;
    (void)pthread_cond_broadcast(&slots->changed);
    (void)pthread_mutex_unlock(&slots->lock);
}

void slots_close(Slots *slots)
{
    set_closed(slots, true);
}

void slots_open(Slots *slots)
{
    set_closed(slots, false);
}

bool slots_wait_idle(Slots *slots, int timeout_ms)
{
    struct timespec when;
    (void)clock_gettime(CLOCK_MONOTONIC, &when); /* cannot fail for this clock */
    long ns = when.tv_nsec + timeout_ms % 1000 * 1000000L;
    when.tv_sec += timeout_ms / 1000 + ns / 1000000000L;
    when.tv_nsec = ns % 1000000000L;
    int rc = 0;
    (void)pthread_mutex_lock(&slots->lock);
    while (slots->n_free < slots->n && rc == 0) {
        rc = pthread_cond_timedwait(&slots->changed, &slots->lock, &when);
    }
    bool idle = slots->n_free == slots->n;
    (void)pthread_mutex_unlock(&slots->lock);
    return idle;
}
