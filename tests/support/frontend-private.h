/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SUPPORT_FRONTEND_PRIVATE_H
#define TESTS_SUPPORT_FRONTEND_PRIVATE_H

#include "tests/support/frontend.h"

/* Shared by the frontend's files only. */

/* One queue and the descriptors that the peer has copies of. */
typedef struct FrontendQueue {
    Virtqueue *ring;
    int kick_fd;
    int call_fd;
    int err_fd;
    uint32_t base; /* where the device goes on when started */
} FrontendQueue;

struct Frontend {
    FrontendConfig config;
    GuestMemory *memory;
    FrontendQueue *queues;
    unsigned int n_queues;

    int socket;
    int backend_socket;
    uint64_t offered;
    uint64_t agreed;
    uint64_t protocol_offered;
    uint64_t protocol_agreed;
    unsigned int peer_queues;
    unsigned int peer_slots;
    unsigned int n_known_regions; /* told to the peer, the first ones of the table */
    char error[256];
};

/** frontend_fail() - remember words for an error. Return: @rc. */
int frontend_fail(Frontend *frontend, int rc, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/** frontend_set_u64() - a request whose payload is one number. */
int frontend_set_u64(Frontend *frontend, uint32_t request, uint64_t value);
/** frontend_set_fd() - KICK, CALL or ERR of one queue. */
int frontend_set_fd(Frontend *frontend, uint32_t request, unsigned int queue, int fd);

#endif
