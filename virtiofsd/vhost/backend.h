/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_VHOST_BACKEND_H
#define VIRTIOFSD_VHOST_BACKEND_H

#include "virtiofsd/autofd.h"

/*
 * The channel for requests from us to the VMM (SET_BACKEND_REQ_FD). Control thread only.
 */

/** struct VuBackend - owns the channel's socket. */
typedef struct VuBackend {
    AutoFd socket; /* -1: the VMM gave none */
} VuBackend;

void vu_backend_init(VuBackend *backend);

/**
 * vu_backend_connect_take() - use this socket from now on, and close the one before.
 *
 * Return: 0; or -ENOTSOCK, and the channel is as it was.
 */
int vu_backend_connect_take(VuBackend *backend, int socket_take);

/** vu_backend_clear() - close the channel. */
void vu_backend_clear(VuBackend *backend);

#endif
