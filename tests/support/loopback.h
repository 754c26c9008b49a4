/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SUPPORT_LOOPBACK_H
#define TESTS_SUPPORT_LOOPBACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/support/virtqueue.h"

/*
 * A device in a thread of this process, for testing the driver's side of a queue: it
 * walks each chain, hands the bytes to a function and returns what that says. It trusts
 * its driver and is no example for a real device.
 */

typedef struct Loopback Loopback;

/**
 * LoopbackHandler - answer one request.
 *
 * Return: bytes to write to the beginning of @out, which has room for @room.
 */
typedef uint32_t (*LoopbackHandler)(void *opaque, const uint8_t *in, size_t size,
                                    uint8_t *out, size_t room);

/** struct LoopbackConfig - what the device serves, and how. */
typedef struct LoopbackConfig {
    GuestMemory *memory;
    Virtqueue *queue; /* its layout and descriptors are used, nothing else */
    bool event_idx;
    bool silent_kicks; /* ask for no kicks and look at the ring all the time */
    LoopbackHandler handler;
    void *opaque;
} LoopbackConfig;

Loopback *loopback_start(const LoopbackConfig *config);
/** loopback_stop() - serve what is there, then end the thread. */
void loopback_stop(Loopback *device);

#endif
