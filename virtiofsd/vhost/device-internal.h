/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_VHOST_DEVICE_INTERNAL_H
#define VIRTIOFSD_VHOST_DEVICE_INTERNAL_H

#include <limits.h>
#include <stdint.h>

#include "virtiofsd/autofd.h"
#include "virtiofsd/vhost/backend.h"
#include "virtiofsd/vhost/device.h"
#include "virtiofsd/vhost/message.h"
#include "virtiofsd/vhost/window.h"

/*
 * What the files of the device share: its state, and the functions of its request table.
 * Control thread only.
 */

typedef struct VuQueue {
    VuRing *ring;
    AutoFd kick_fd;  /* lent to the handler while the ring is started; -1: none */
    bool is_enabled; /* by SET_VRING_ENABLE */
} VuQueue;

struct VuDevice {
    unsigned int n_queues;
    int interrupt_fd; /* borrowed */
    int attend_fd;    /* borrowed; -1 without handler.attend */
    VuQueueHandler handler;
    bool has_tag;
    struct vu_fs_config config; /* as the guest sees it */

    AutoFd connection;
    AutoFd idle_fd; /* eventfd: a ring that is held back became idle */
    VuBackend backend;
    VuWindow *window;     /* NULL: there is none */
    VuMemoryRange *pages; /* with a window: memory that is files mapped there */
    size_t n_pages;
    bool is_stopping;           /* a ring was stopped since one was started */
    uint64_t protocol_features; /* acknowledged */
    bool told_unshared;
    VuMemory *memory; /* as given to all rings */
    VuDirtyLog *log;  /* NULL: none was given */
    VuCall *log_call; /* NULL: nobody is told of marks */
    bool logs;        /* LOG_ALL was acknowledged */
    VuQueue *queues;
};

/* ---- device-drain.c: holding rings back ----------------------------------------------
 */

/** VU_ALL_QUEUES - for vu_device_drain(). */
#define VU_ALL_QUEUES UINT_MAX

/**
 * vu_device_drain() - wait for the requests in flight of @queue, which is held back.
 *
 * Return: 0; -EINTR if interrupt_fd became readable or the VMM left.
 */
int vu_device_drain(VuDevice *device, unsigned int queue);

/** vu_device_drain_for() - the same for all queues, with a time limit and undisturbed.
 * Return: whether all are idle. */
bool vu_device_drain_for(VuDevice *device, int timeout_ms);

/** vu_device_pause() - hold all rings back, and wait for the requests that run: not for
 * those that are parked. Return: 0 or -EINTR. */
int vu_device_pause(VuDevice *device);

/** vu_device_resume() - end it, and have those with work looked at. */
void vu_device_resume(VuDevice *device);

/** vu_device_stop_queue() - stop a ring, and take its kick descriptor back. */
void vu_device_stop_queue(VuDevice *device, unsigned int queue);

/** vu_device_wake_started() - have all rings looked at that are started, or have requests
 * in flight. */
void vu_device_wake_started(VuDevice *device);

/** vu_device_range() - a region as a message describes it. */
VuMemoryRange vu_device_range(const struct vu_mem_region *region);

/** vu_device_use_memory_take() - give this table to all rings. */
void vu_device_use_memory_take(VuDevice *device, VuMemory *memory_take);

/* ---- device-shmem.c: the DAX window --------------------------------------------------
 */

/** vu_device_update_channel() - rings, or agreements, have changed: may the VMM be asked
 * for mappings now? */
void vu_device_update_channel(VuDevice *device);

/** vu_device_window_lost() - the VMM has dropped all mappings, or has left. */
void vu_device_window_lost(VuDevice *device, bool has_left);

/** vu_device_add_page() - note memory that is a file mapped in the window, and map it
 * not: it shrinks when anybody truncates the file. Return: 1; 0 if it is none; -ENOSPC.
 */
int vu_device_add_page(VuDevice *device, const VuMemoryRange *range, int fd);
/** vu_device_has_page() - Return: whether the region of this message was so noted. */
bool vu_device_has_page(const VuDevice *device, const VuMessage *message);
/** vu_device_remove_page() - Return: whether there was such a note. */
bool vu_device_remove_page(VuDevice *device, const VuMemoryRange *range);

/* ---- device-log.c: the dirty log -----------------------------------------------------
 */

/** vu_device_update_log() - the log, or the agreement on it, has changed: tell the rings.
 */
void vu_device_update_log(VuDevice *device);

/** vu_device_forget_log() - as if there had never been one. */
void vu_device_forget_log(VuDevice *device);

#endif
