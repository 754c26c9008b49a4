/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_WAITER_H
#define VIRTIOFSD_WAITER_H

#include <glib.h>

#include "passthrough/passthrough.h"
#include "virtiofsd/fuse/session.h"
#include "virtiofsd/vhost/device.h"

/*
 * The thread that tries again what waits for a lock, and answers it. It is there only if
 * locks are served.
 */

typedef struct Waiter Waiter;

/** struct WaiterConfig - everything is borrowed and outlives the waiter. */
typedef struct WaiterConfig {
    PtFs *fs;
    Session *session; /* with session_waits() */
    VuDevice *device;
} WaiterConfig;

/**
 * waiter_new() - make the thread and wait until it is ready.
 *
 * Context: as workers_new(). Return: it, or NULL with @error set and no thread left.
 */
Waiter *waiter_new(const WaiterConfig *config, GError **error);

/** waiter_free() - end the thread. NULL is fine. Context: nothing waits any more. */
void waiter_free(Waiter *waiter);

#endif
