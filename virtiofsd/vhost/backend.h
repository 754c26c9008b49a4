/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_VHOST_BACKEND_H
#define VIRTIOFSD_VHOST_BACKEND_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "virtiofsd/autofd.h"
#include "virtiofsd/vhost/proto.h"

/*
 * The channel for requests from us to the VMM (SET_BACKEND_REQ_FD). Workers ask and wait
 * for the answers; the control thread gives and takes the socket, says when the VMM can
 * be asked, and never waits for the VMM here.
 */

/** How long a worker waits for its turn, and then for the VMM's answer. */
#define VU_BACKEND_TIMEOUT_MS 5000
/** Most answers that a VMM may owe us before it is asked for nothing more. */
#define VU_BACKEND_OWED_MAX 16

/** struct vu_backend_reply - what the VMM answers. */
struct vu_backend_reply {
    struct vu_msg_header header;
    uint8_t value[8]; /* a number that is not aligned: 0 is success */
};

/** struct VuBackend - the channel. */
typedef struct VuBackend {
    AutoFd give_up_fd; /* fixed: eventfd, readable while @gives_up; -1: nobody asks */
    pthread_mutex_t lock;
    pthread_cond_t changed; /* anything below; on the monotonic clock */

    /* All below: written under the lock. */
    AutoFd socket;  /* -1: the VMM gave none. Changes while nobody has the channel, or by
                       who has it */
    bool is_agreed; /* the VMM knows what we ask for */
    bool is_open;   /* and its rings run */
    bool gives_up;  /* who waits is not to */
    bool is_taken;  /* a worker has the channel: the next two are its own */
    unsigned int n_owed; /* answers to requests that nobody waits for any more */
    size_t n_got;        /* bytes of the answer that is coming in */
    struct vu_backend_reply reply;
} VuBackend;

/** vu_backend_init() - @asks: there will be requests. Return: 0 or a negative errno. */
int vu_backend_init(VuBackend *backend, bool asks);
void vu_backend_free(VuBackend *backend);

/* ---- control thread ----------------------------------------------------------------
 */

/**
 * vu_backend_connect_take() - use this socket from now on, and close the one before.
 *
 * Return: 0; or -ENOTSOCK, and the channel is as it was.
 */
int vu_backend_connect_take(VuBackend *backend, int socket_take);

/** vu_backend_clear() - close the channel; who waits for an answer gives up. */
void vu_backend_clear(VuBackend *backend);

/**
 * vu_backend_set_open() - from now on the VMM can, or must not, be asked.
 * @is_agreed: that there are such requests.
 * @is_open: that now is a time for them: who wants to ask waits for it.
 */
void vu_backend_set_open(VuBackend *backend, bool is_agreed, bool is_open);

/** vu_backend_give_up() - who waits, gives up: now, and until it is called with false. */
void vu_backend_give_up(VuBackend *backend, bool gives_up);

/* ---- workers ------------------------------------------------------------------------
 */

/**
 * vu_backend_enter() - wait for one's turn to ask. Ends with vu_backend_leave().
 *
 * Return: 0; -EINTR if the rings stop; -EIO if there is no channel, or no turn in time.
 */
int vu_backend_enter(VuBackend *backend);
void vu_backend_leave(VuBackend *backend);

/** struct VuBackendRequest - what the VMM is asked for. */
typedef struct VuBackendRequest {
    enum vu_backend_number number;
    uint32_t size; /* of the payload */
    union vu_backend_payload payload;
    int fd; /* goes along, borrowed; -1: none */
} VuBackendRequest;

/**
 * vu_backend_ask() - send a request and wait for the answer.
 * @ret_unsure: set with an error: the VMM may have obeyed, or may yet.
 *
 * Context: between enter and leave.
 * Return: 0; -EIO if the VMM refuses or is silent; -EINTR if the rings stop.
 */
int vu_backend_ask(VuBackend *backend, const VuBackendRequest *request, bool *ret_unsure);

#endif
