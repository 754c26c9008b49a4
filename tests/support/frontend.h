/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SUPPORT_FRONTEND_H
#define TESTS_SUPPORT_FRONTEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/support/guest-memory.h"
#include "tests/support/vhost-message.h"
#include "tests/support/virtqueue.h"

/*
 * A VMM without a machine: the vhost-user front-end of a virtio-fs device, with guest
 * memory and the driver's side of its queues. It speaks in QEMU's order; every step can
 * be left out, repeated or replaced by raw messages.
 *
 *     frontend_new() → frontend_connect() → frontend_negotiate() → frontend_start()
 *
 * Calls return 0 or negative errno, and frontend_error() then says more. Control calls
 * come from one thread at a time; queues are used from any (see virtqueue.h).
 */

typedef struct Frontend Frontend;

#define FRONTEND_F_LOG_ALL (1ull << 26)
#define FRONTEND_F_INDIRECT_DESC (1ull << 28)
#define FRONTEND_F_EVENT_IDX (1ull << 29)
#define FRONTEND_F_PROTOCOL_FEATURES (1ull << 30)
#define FRONTEND_F_VERSION_1 (1ull << 32)
#define FRONTEND_F_RING_PACKED (1ull << 34)

#define FRONTEND_PROTOCOL_MQ (1ull << 0)
#define FRONTEND_PROTOCOL_LOG_SHMFD (1ull << 1)
#define FRONTEND_PROTOCOL_REPLY_ACK (1ull << 3)
#define FRONTEND_PROTOCOL_BACKEND_REQ (1ull << 5)
#define FRONTEND_PROTOCOL_CONFIG (1ull << 9)
#define FRONTEND_PROTOCOL_BACKEND_SEND_FD (1ull << 10)
#define FRONTEND_PROTOCOL_RESET_DEVICE (1ull << 13)
#define FRONTEND_PROTOCOL_CONFIGURE_MEM_SLOTS (1ull << 15)
#define FRONTEND_PROTOCOL_DEVICE_STATE (1ull << 19)
#define FRONTEND_PROTOCOL_SHMEM (1ull << 22)

/** struct FrontendConfig - see frontend_config_init() for the defaults. With
 * $VIRTIOFSD_TEST_RING=packed these have packed rings, where the peer offers them. */
typedef struct FrontendConfig {
    unsigned int n_request_queues; /* besides hiprio, which is queue 0; 1 */
    unsigned int queue_size;       /* 128 */
    unsigned int table_size;       /* entries of an indirect table; 0: min(size, 512) */
    uint64_t features;             /* taken, where offered: indirect, event index */
    uint64_t protocol_features;    /* taken, where offered: what QEMU takes */
    unsigned int n_regions;        /* of guest memory; 2 */
    size_t memory_size;            /* besides what the rings take; 64 MiB */
    bool separate_files;           /* a memfd for each region */
    int timeout_ms;                /* of every control message; 10 s */
} FrontendConfig;

void frontend_config_init(FrontendConfig *config);

/** frontend_new() - guest memory and queues. Return: NULL with errno set on failure. */
Frontend *frontend_new(const FrontendConfig *config);
void frontend_free(Frontend *frontend);
/** frontend_error() - Return: why the last failing call failed. */
const char *frontend_error(const Frontend *frontend);

/* ---- the usual way ---------------------------------------------------------- */

int frontend_connect(Frontend *frontend, const char *socket_path);
/** frontend_attach_take() - use a connected socket; owned from now on. */
void frontend_attach_take(Frontend *frontend, int socket_fd_take);
/** frontend_disconnect() - close the connection and every descriptor given to the peer.
 */
void frontend_disconnect(Frontend *frontend);

/** frontend_negotiate() - from GET_FEATURES to the first RESET_DEVICE. */
int frontend_negotiate(Frontend *frontend);
/** frontend_start() - features, new memory regions, all rings; also after a stop. */
int frontend_start(Frontend *frontend);
/** frontend_stop() - disable all rings and fetch their bases. */
int frontend_stop(Frontend *frontend);
/** frontend_reset() - RESET_DEVICE if agreed, and empty rings. Only while stopped. */
int frontend_reset(Frontend *frontend);

/** frontend_add_region() - plug in memory and tell the peer. Return: index or error. */
int frontend_add_region(Frontend *frontend, size_t size);
/** frontend_remove_region() - tell the peer and unmap the region. */
int frontend_remove_region(Frontend *frontend, unsigned int index);

/* ---- single steps ----------------------------------------------------------- */

/** frontend_set_memory() - send the regions the peer does not know yet. */
int frontend_set_memory(Frontend *frontend);
/** frontend_set_ring() - NUM, BASE, ADDR, KICK and CALL of one queue. */
int frontend_set_ring(Frontend *frontend, unsigned int queue);
int frontend_enable_ring(Frontend *frontend, unsigned int queue, bool enable);
/** frontend_get_base() - GET_VRING_BASE, which stops the ring. */
int frontend_get_base(Frontend *frontend, unsigned int queue, uint32_t *ret_base);
/** frontend_swap_call() - a new call descriptor in place of the present one. */
int frontend_swap_call(Frontend *frontend, unsigned int queue);
int frontend_get_config(Frontend *frontend, uint32_t offset, uint32_t size, void *bytes);

/* ---- raw messages ----------------------------------------------------------- */

/** struct FrontendRequest - a well-formed message. */
typedef struct FrontendRequest {
    uint32_t request;
    const void *payload;
    uint32_t size;
    const int *fds;
    unsigned int n_fds;
} FrontendRequest;

/** frontend_send() - send a request with the right header and wait for nothing. */
int frontend_send(Frontend *frontend, const FrontendRequest *request);
/** frontend_ack() - send with NEED_REPLY, if agreed, and wait for success. */
int frontend_ack(Frontend *frontend, const FrontendRequest *request);
/** frontend_get() - send a request that has a reply of its own and wait for it. */
int frontend_get(Frontend *frontend, const FrontendRequest *request, VhostReply *reply);
/** frontend_send_raw() - send a message just as it is. */
int frontend_send_raw(Frontend *frontend, const VhostMessage *message);
int frontend_receive(Frontend *frontend, VhostReply *reply, int timeout_ms);
/** frontend_is_closed() - Return: whether the peer hung up within @timeout_ms. */
bool frontend_is_closed(Frontend *frontend, int timeout_ms);

/* ---- parts ------------------------------------------------------------------ */

unsigned int frontend_n_queues(const Frontend *frontend);
Virtqueue *frontend_queue(const Frontend *frontend, unsigned int queue);
GuestMemory *frontend_memory(const Frontend *frontend);
/** frontend_socket() - Return: the connection, borrowed, or -1. */
int frontend_socket(const Frontend *frontend);
/** frontend_backend_socket() - Return: where the peer's own requests arrive, or -1. */
int frontend_backend_socket(const Frontend *frontend);
/** frontend_offered() - what the peer offered; with @protocol its protocol features. */
uint64_t frontend_offered(const Frontend *frontend, bool protocol);
/** frontend_agreed() - what both sides know. */
uint64_t frontend_agreed(const Frontend *frontend, bool protocol);
/** frontend_peer_queues() - Return: the answer to GET_QUEUE_NUM, 0 if not asked. */
unsigned int frontend_peer_queues(const Frontend *frontend);

#endif
