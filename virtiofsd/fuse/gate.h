/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_FUSE_GATE_H
#define VIRTIOFSD_FUSE_GATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

/*
 * Lets any number of requests run together, and INIT and DESTROY alone. A request touches
 * only its own worker's cache line and reads one that hardly ever changes; the mutex is
 * for those who must wait.
 */

/** Bytes that two processors do not share. */
#define GATE_LINE 64

/** struct GateSlot - one worker's half of the gate, alone on its cache line. */
typedef struct GateSlot {
    _Alignas(GATE_LINE) _Atomic bool busy; /* written by its worker only */
    struct GateSlot *next;                 /* under Gate.lock */
} GateSlot;

/** struct Gate - the shared half. */
typedef struct Gate {
    _Alignas(GATE_LINE) _Atomic bool closed; /* somebody runs alone, or waits to */
    _Alignas(GATE_LINE) pthread_mutex_t lock;
    pthread_cond_t changed; /* closed or some slot's busy became false */
    GateSlot *slots;        /* under lock */
} Gate;

void gate_init(Gate *gate);
void gate_clear(Gate *gate);

/** gate_add() - let a worker take part. @slot lives until gate_remove(). */
void gate_add(Gate *gate, GateSlot *slot);
/** gate_remove() - Context: the worker is outside the gate for good. */
void gate_remove(Gate *gate, GateSlot *slot);

/** gate_enter() - wait until nobody runs alone, then be inside.
 * Context: the slot's worker, outside. Ends with gate_leave(). */
void gate_enter(Gate *gate, GateSlot *slot);
void gate_leave(Gate *gate, GateSlot *slot);

/** gate_try_enter() - as gate_enter(), without waiting.
 * Return: false if somebody runs alone, or waits to; then nothing was entered. */
bool gate_try_enter(Gate *gate, GateSlot *slot);

/** gate_enter_alone() - keep others out and wait until those inside have left.
 * Context: any thread that is not inside; no lock is held afterwards. Ends with
 * gate_leave_alone(). */
void gate_enter_alone(Gate *gate);
void gate_leave_alone(Gate *gate);

#endif
