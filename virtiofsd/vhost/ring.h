/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_VHOST_RING_H
#define VIRTIOFSD_VHOST_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "virtiofsd/vhost/call.h"
#include "virtiofsd/vhost/dirty-log.h"
#include "virtiofsd/vhost/memory.h"

/*
 * One virtqueue, device side (Virtio 1.2, 2.7 and 2.8), split or packed. Any number of
 * workers pop and push; a mutex inside guards the few loads and stores, never a request.
 * Control calls come from the control thread alone.
 *
 * The ring is the guest's memory: every index is read once, checked, and only then used.
 * A ring that breaks the rules is stopped until it is started anew, with one log line and
 * a write to its error descriptor; other rings go on.
 */

/** Largest queue size accepted (Virtio 1.2, 2.7 and 2.8). */
#define VU_RING_MAX_SIZE 32768
/** Most segments of a chain in each direction, after merging: IOV_MAX. */
#define VU_CHAIN_MAX_SEGMENTS 1024

typedef struct VuRing VuRing;

/**
 * struct VuChain - one request's buffers. One per worker, reused: allocated by
 * vu_chain_new(), filled by vu_ring_pop(), given back by vu_ring_push().
 */
typedef struct VuChain {
    struct iovec *in;  /* guest -> us; device-readable */
    struct iovec *out; /* us -> guest; device-writable */
    size_t n_in;
    size_t n_out;
    uint64_t n_bytes; /* of all segments */
    uint16_t head;
    VuMemory *memory; /* reference held while the chain is out */
} VuChain;

VuChain *vu_chain_new(void);
void vu_chain_free(VuChain *chain);

/**
 * vu_ring_new() - a ring that is not set up. Return: it, or NULL when memory is short.
 * @index: for the log.
 * @idle_fd: eventfd, borrowed; written when the last request that runs or is in flight
 * ends on a ring that vu_ring_stop() or vu_ring_pause() holds back.
 */
VuRing *vu_ring_new(unsigned int index, int idle_fd);
void vu_ring_free(VuRing *ring);

/**
 * vu_ring_pop() - take the next chain.
 *
 * A chain that cannot be walked (address outside memory, too many segments, readable
 * after writable, bad indirect table) but whose head is sound is retired here with length
 * 0, and the next one is tried; a ring whose indices are wrong is stopped. After some
 * bad chains the next one is given out without any segment, so that a call ends soon.
 * Kicks are suppressed from the first pop to the pop that finds the ring empty. Chains of
 * many bytes are overtaken by shorter ones: whoever pops goes on until there is none.
 * Context: any worker.
 * Return: whether there was one; not if the ring is stopped.
 */
bool vu_ring_pop(VuRing *ring, VuChain *chain);

/** vu_ring_poll() - is there a chain? Kicks are suppressed: whoever looks ends with a
 * pop, which wants them again when it finds none. Context: any worker. */
bool vu_ring_poll(VuRing *ring);

/**
 * vu_ring_push() - retire a chain and interrupt the guest if it wants that.
 * @length: bytes written to the out segments (to their beginning).
 *
 * Context: any worker. The chain's memory is not to be touched afterwards.
 */
void vu_ring_push(VuRing *ring, VuChain *chain, uint32_t length);

/** vu_ring_park() - put a chain aside whose request waits for something: it stays in
 * flight, but runs no more; it holds no memory and no VuChain. Return: its head. */
uint16_t vu_ring_park(VuRing *ring, VuChain *chain);

/** vu_ring_may_park() - Return: whether one more may be put aside: those that wait must
 * not use up the descriptors that the guest needs for requests that end their waiting. */
bool vu_ring_may_park(const VuRing *ring);

/** vu_ring_unpark() - take a parked chain up again, to be pushed. Its descriptors are
 * read anew; if they are malformed now, it has no segments. Return: false while the ring
 * is paused; try again later. */
bool vu_ring_unpark(VuRing *ring, uint16_t head, VuChain *chain);

/* ---- control thread ------------------------------------------------------------ */

/** struct VuRingAddresses - SET_VRING_ADDR, in the VMM's own addresses. */
typedef struct VuRingAddresses {
    uint64_t desc, avail, used;
    bool is_logged;   /* the used ring is: ... */
    uint64_t log_gpa; /* ... at this guest physical address */
} VuRingAddresses;

/** vu_ring_set_size() - Return: 0, -EINVAL (0, no power of two in a split ring, too
 * large; the ring then has no size), -EBUSY (runs, or has requests in flight). */
int vu_ring_set_size(VuRing *ring, uint32_t size);
/** vu_ring_set_base() - next avail index; packed: places of the next to take (bits 0-14)
 * and to give back (16-30), with wrap counters. Return: 0, -EINVAL or -EBUSY. */
int vu_ring_set_base(VuRing *ring, uint32_t base);
/** vu_ring_base() - Return: what GET_VRING_BASE answers; the ring must be idle. */
uint32_t vu_ring_base(const VuRing *ring);
/** vu_ring_set_addresses() - Return: 0; -EINVAL (unaligned); -EFAULT (in no region; never
 * if there is no memory at all: then they are remembered until there is); -EBUSY (runs,
 * and with others than before). After -EINVAL and -EFAULT the ring has no addresses. */
int vu_ring_set_addresses(VuRing *ring, const VuRingAddresses *addresses);
/** vu_ring_set_features() - RING_PACKED, EVENT_IDX and INDIRECT_DESC as acknowledged.
 * With another layout, size, addresses and base are forgotten. Return: 0, or -EBUSY if
 * the layout would change of a ring that runs or has requests in flight. */
int vu_ring_set_features(VuRing *ring, uint64_t features);
/** vu_ring_set_memory() - swap the table; translates the ring's addresses anew, and holds
 * the ring back while they lie in no region. */
void vu_ring_set_memory(VuRing *ring, VuMemory *memory);
/** vu_ring_set_log() - mark writes in @log (borrowed, or NULL) from now on, and no more
 * in the one before; signal @call (or NULL) when a push has marked something. */
void vu_ring_set_log(VuRing *ring, VuDirtyLog *log, VuCall *call);
/** vu_ring_set_call_take() - descriptor for interrupts, owned now; -1 for none. Return: 0
 * or -ENOMEM (there is none then). */
int vu_ring_set_call_take(VuRing *ring, int fd_take);
/** vu_ring_set_error_take() - the same for the descriptor that tells of a broken ring. */
int vu_ring_set_error_take(VuRing *ring, int fd_take);
/** vu_ring_start() - allow pops (when also enabled). Return: 0; -EINVAL (no size, no
 * addresses, a base outside); -EFAULT (there is memory, but not there); -ENOMEM. */
int vu_ring_start(VuRing *ring);
/** vu_ring_stop() - no more pops, until vu_ring_start(). Requests in flight go on. */
void vu_ring_stop(VuRing *ring);
/** vu_ring_reset() - forget all settings. It is stopped and idle. */
void vu_ring_reset(VuRing *ring);
/** vu_ring_set_enabled() - SET_VRING_ENABLE. Requests in flight go on. */
void vu_ring_set_enabled(VuRing *ring, bool enabled);
/** vu_ring_pause() - hold pops back (memory will change) until vu_ring_resume(). */
void vu_ring_pause(VuRing *ring);
void vu_ring_resume(VuRing *ring);
bool vu_ring_is_started(const VuRing *ring);
/** vu_ring_in_flight() - Return: chains popped whose push has not yet ended. */
unsigned int vu_ring_in_flight(const VuRing *ring);
/** vu_ring_running() - Return: the same without those that are parked. */
unsigned int vu_ring_running(const VuRing *ring);

#endif
