/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gate between requests and those that must run alone.
 *
 * A request says "busy" in its own slot and then looks whether the gate is closed;
 * whoever wants to be alone closes the gate and then looks at all slots. Both stores and
 * both looks are sequentially consistent, so at least one side sees the other: either the
 * request steps back and waits, or the one who closed waits for it. A request that leaves
 * clears its slot and looks at the gate again, and wakes the waiter if there may be one;
 * the waiter looks at the slots under the mutex, so that wake-up is not lost.
 */
#include "virtiofsd/fuse/gate.h"

#include <stddef.h>

void gate_init(Gate *gate)
{
    atomic_init(&gate->closed, false);
    pthread_mutex_init(&gate->lock, NULL);
    pthread_cond_init(&gate->changed, NULL);
    gate->slots = NULL;
}

void gate_clear(Gate *gate)
{
    pthread_cond_destroy(&gate->changed);
    pthread_mutex_destroy(&gate->lock);
}

void gate_add(Gate *gate, GateSlot *slot)
{
    atomic_init(&slot->busy, false);
    pthread_mutex_lock(&gate->lock);
    slot->next = gate->slots;
    gate->slots = slot;
    pthread_mutex_unlock(&gate->lock);
}

void gate_remove(Gate *gate, GateSlot *slot)
{
    pthread_mutex_lock(&gate->lock);
    for (GateSlot **at = &gate->slots; *at != NULL; at = &(*at)->next) {
        if (*at == slot) {
            *at = slot->next;
            break;
        }
    }
    pthread_mutex_unlock(&gate->lock);
}

static void wake_all(Gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

static void wait_open(Gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    while (atomic_load(&gate->closed)) {
        pthread_cond_wait(&gate->changed, &gate->lock);
    }
    pthread_mutex_unlock(&gate->lock);
}

void gate_leave(Gate *gate, GateSlot *slot)
{
    atomic_store(&slot->busy, false);
    if (atomic_load(&gate->closed)) {
        wake_all(gate);
    }
}

bool gate_try_enter(Gate *gate, GateSlot *slot)
{
    atomic_store(&slot->busy, true);
    if (!atomic_load(&gate->closed)) {
        return true;
    }
    gate_leave(gate, slot);
    return false;
}

void gate_enter(Gate *gate, GateSlot *slot)
{
    while (!gate_try_enter(gate, slot)) {
        wait_open(gate);
    }
}

/* Context: the gate's lock is held; a wait may change the list, so look from its start.
 */
static bool is_any_busy(const Gate *gate)
{
    for (const GateSlot *slot = gate->slots; slot != NULL; slot = slot->next) {
        if (atomic_load(&slot->busy)) {
            return true;
        }
    }
    return false;
}

void gate_enter_alone(Gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    while (atomic_load(&gate->closed)) {
        pthread_cond_wait(&gate->changed, &gate->lock);
    }
    atomic_store(&gate->closed, true);
    while (is_any_busy(gate)) {
        pthread_cond_wait(&gate->changed, &gate->lock);
    }
    pthread_mutex_unlock(&gate->lock);
}

void gate_leave_alone(Gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    atomic_store(&gate->closed, false);
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}
