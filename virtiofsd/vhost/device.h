/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_VHOST_DEVICE_H
#define VIRTIOFSD_VHOST_DEVICE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "virtiofsd/vhost/ring.h"
#include "virtiofsd/vhost/status.h"
#include "virtiofsd/vhost/window.h"

/*
 * The VMM's half of a vhost-user back-end: one connection, its features, memory and
 * rings. All calls come from the control (main) thread.
 */

typedef struct VuDevice VuDevice;

/**
 * struct VuQueueHandler - who serves the queues; given by server.c.
 *
 * Called on the control thread, from vu_device_handle() and vu_device_disconnect(). Each
 * start is followed by one stop of that queue before the next start.
 */
typedef struct VuQueueHandler {
    void *opaque;
    /* A ring may be popped: watch @kick_fd (borrowed until stop; -1 = the VMM gave none
     * and expects polling) and look at the ring once. */
    void (*start)(void *opaque, unsigned int queue, int kick_fd);
    /* Forget the kick descriptor. Requests in flight may still be running. */
    void (*stop)(void *opaque, unsigned int queue);
    /* It will not be started before its requests in flight have ended: answer those that
     * are parked, and park none until start. */
    void (*settle)(void *opaque, unsigned int queue);
    /* Look at the ring: it was enabled or resumed. Only between start and stop. */
    void (*wake)(void *opaque, unsigned int queue);
    /* RESET_DEVICE: all rings are stopped and idle; forget the guest's session. */
    void (*reset)(void *opaque);
    /* attend_fd is readable while requests in flight are waited for; must not come back
     * to the device. NULL: nothing needs attention. */
    void (*attend)(void *opaque);
} VuQueueHandler;

/** struct VuDeviceConfig - constant over a device's life. */
typedef struct VuDeviceConfig {
    unsigned int n_queues; /* hiprio and request queues together, 2 to 256 */
    const char *tag; /* NULL, or the tag for GET_CONFIG (which is offered only then) */
    /* Bytes of the DAX window, 0: none is offered. As the standard says it needs a tag */
    uint64_t window_size;
    VuWindowProtocol window_protocol;
    int interrupt_fd; /* readable = give up waiting for requests in flight; or -1 */
    int attend_fd;    /* for handler.attend */
    VuQueueHandler handler;
} VuDeviceConfig;

/**
 * vu_device_new() - make a device without connection.
 *
 * Also makes the process survive a VMM that truncates guest memory (see guard.h).
 * Return: the device, or NULL with @error set.
 */
VuDevice *vu_device_new(const VuDeviceConfig *config, GError **error);

/** vu_device_free() - the threads that pop its rings have ended, or never were. */
void vu_device_free(VuDevice *device);

/** vu_device_connect_take() - serve this connection from now on. Owned now. There is none
 * yet, or vu_device_disconnect() ended the one before and returned true. */
void vu_device_connect_take(VuDevice *device, int connection_fd_take);

/** vu_device_fd() - Return: the descriptor to poll for input, or -1. */
int vu_device_fd(const VuDevice *device);

/**
 * vu_device_handle() - read, obey and answer one message; blocks until it is complete.
 *
 * Return: VU_OK; or anything else, after which the connection is to be ended by
 * vu_device_disconnect().
 */
VuStatus vu_device_handle(VuDevice *device);

/**
 * vu_device_disconnect() - stop all rings, wait for their requests, drop rings' settings,
 * memory and connection.
 * @timeout_ms: how long to wait for requests in flight; negative: without end.
 *
 * Return: true if all were done in time; if not, memory they use is left mapped.
 */
bool vu_device_disconnect(VuDevice *device, int timeout_ms);

/** vu_device_ring() - Return: the ring, borrowed for the device's life. */
VuRing *vu_device_ring(VuDevice *device, unsigned int queue);

/** vu_device_window() - Return: the DAX window, borrowed for the device's life; or NULL.
 */
VuWindow *vu_device_window(VuDevice *device);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VuDevice, vu_device_free)

#endif
