/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_BRIDGE_FORWARDER_H
#define TESTS_BRIDGE_FORWARDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/bridge/recorder.h"
#include "tests/support/frontend.h"
#include "tests/support/segments.h"

/*
 * Requests from /dev/fuse to the virtqueues, answers back. Reader threads read straight
 * into guest memory and submit; one thread for each queue writes answers straight from
 * guest memory. Readers may wait for a free slot, the others never wait for readers.
 */

typedef struct Forwarder Forwarder;

/** enum ForwarderState - how far it is; only grows. */
typedef enum ForwarderState {
    FORWARDER_STARTING, /* INIT not answered yet */
    FORWARDER_SERVING,
    FORWARDER_ENDED,  /* the kernel ended the connection: unmounted, or aborted */
    FORWARDER_FAILED, /* see forwarder_error() */
} ForwarderState;

/** struct ForwarderConfig - constant over a forwarder's life; all is borrowed. */
typedef struct ForwarderConfig {
    Frontend *frontend;
    const int *fuse_fds; /* one for each reader */
    unsigned int n_readers;
    unsigned int n_slots; /* shared out to the request queues */
    SegmentsSplit split;
    bool interrupts;    /* forward INTERRUPT */
    Recorder *recorder; /* or NULL */
    int event_fd;       /* eventfd; written when the state changes */
} ForwarderConfig;

/** Opcodes below this one are counted each by itself, all others as the last. */
#define FORWARDER_OPCODES 64

/** struct ForwarderCounters - since the start. */
typedef struct ForwarderCounters {
    uint64_t requests;
    uint64_t by_opcode[FORWARDER_OPCODES];
    uint64_t malformed; /* answers that a guest would not have accepted */
} ForwarderCounters;

/** forwarder_memory_size() - Return: guest memory for so many slots. */
size_t forwarder_memory_size(unsigned int n_slots);

/** forwarder_new() - make slots. Return: NULL if memory is short. */
Forwarder *forwarder_new(const ForwarderConfig *config);
/** forwarder_free() - Context: after forwarder_stop(). */
void forwarder_free(Forwarder *forwarder);

/** forwarder_start() - start all threads. Return: 0 or negative errno. */
int forwarder_start(Forwarder *forwarder);
/**
 * forwarder_stop() - end all threads, readers first.
 * @drain_ms: how long to wait for requests in flight before the others end.
 *
 * Requests that were read and not answered are answered by closing /dev/fuse.
 * Return: true if none is left.
 */
bool forwarder_stop(Forwarder *forwarder, int drain_ms);
/** forwarder_destroy_session() - send DESTROY; after a stop that drained. */
int forwarder_destroy_session(Forwarder *forwarder, int timeout_ms);

ForwarderState forwarder_state(Forwarder *forwarder);
/** forwarder_error() - Return: what failed; valid in FORWARDER_FAILED. */
const char *forwarder_error(const Forwarder *forwarder);
ForwarderCounters forwarder_counters(Forwarder *forwarder);

#endif
