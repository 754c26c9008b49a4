/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holding rings back, and waiting until their requests are done. A request may take as
 * long as the host's file system does, so the wait has no time limit; it ends early when
 * the process is asked to end or the VMM leaves, and what else the control thread has to
 * do is done meanwhile. There are no periodic wake-ups: the worker that retires the last
 * request writes idle_fd.
 *
 * A request that waits for the VMM gives up first: the VMM waits for us.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <time.h>

#include "virtiofsd/log.h"
#include "virtiofsd/vhost/device-internal.h"

typedef unsigned int (*CountRequests)(const VuRing *ring);

static bool is_idle(const VuDevice *device, unsigned int queue, CountRequests count)
{
    if (queue != VU_ALL_QUEUES) {
        return count(device->queues[queue].ring) == 0;
    }
    for (unsigned int i = 0; i < device->n_queues; i++) {
        if (count(device->queues[i].ring) > 0) {
            return false;
        }
    }
    return true;
}

/* The eventfd is emptied before the rings are looked at again, so that a write in between
 * is not lost. */
static void empty_idle_fd(const VuDevice *device)
{
    uint64_t count;
    ssize_t got = read(device->idle_fd, &count, sizeof(count));

    (void)got; /* non-blocking: fails only when it is empty already */
}

static int wait_idle(VuDevice *device, unsigned int queue, CountRequests count)
{
    struct pollfd fds[] = {
        {.fd = device->idle_fd, .events = POLLIN},
        {.fd = device->interrupt_fd, .events = POLLIN},
        {.fd = device->connection, .events = POLLRDHUP},
        {.fd = device->attend_fd, .events = POLLIN},
    };

    while (!is_idle(device, queue, count)) {
        if (poll(fds, G_N_ELEMENTS(fds), -1) < 0) {
            if (errno == EINTR) {
                continue;
            }
            return -errno;
        }
        if (fds[1].revents != 0 || fds[2].revents != 0) {
            log_warn("gave up waiting for requests in flight: %s",
                     fds[1].revents != 0 ? "asked to end" : "the VMM has left");
            return -EINTR;
        }
        if (fds[3].revents != 0) {
            device->handler.attend(device->handler.opaque);
        }
        empty_idle_fd(device);
    }
    return 0;
}

static int drain(VuDevice *device, unsigned int queue, CountRequests count)
{
    vu_backend_give_up(&device->backend, true);
    int result = wait_idle(device, queue, count);
    vu_backend_give_up(&device->backend, false);
    return result;
}

int vu_device_drain(VuDevice *device, unsigned int queue)
{
    return drain(device, queue, vu_ring_in_flight);
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static bool wait_idle_for(VuDevice *device, int timeout_ms)
{
    struct pollfd idle = {.fd = device->idle_fd, .events = POLLIN};
    int64_t deadline = now_ms() + timeout_ms;

    while (!is_idle(device, VU_ALL_QUEUES, vu_ring_in_flight)) {
        int64_t left = timeout_ms < 0 ? -1 : deadline - now_ms();
        if (timeout_ms >= 0 && left <= 0) {
            return false;
        }
        if (poll(&idle, 1, (int)left) < 0 && errno != EINTR) {
            return false;
        }
        empty_idle_fd(device);
    }
    return true;
}

bool vu_device_drain_for(VuDevice *device, int timeout_ms)
{
    vu_backend_give_up(&device->backend, true);
    bool idle = wait_idle_for(device, timeout_ms);
    vu_backend_give_up(&device->backend, false);
    return idle;
}

int vu_device_pause(VuDevice *device)
{
    for (unsigned int i = 0; i < device->n_queues; i++) {
        vu_ring_pause(device->queues[i].ring);
    }
    /* What is parked uses no memory, and may stay so for hours. */
    return drain(device, VU_ALL_QUEUES, vu_ring_running);
}

void vu_device_wake_started(VuDevice *device)
{
    for (unsigned int i = 0; i < device->n_queues; i++) {
        const VuRing *ring = device->queues[i].ring;
        if (vu_ring_is_started(ring) || vu_ring_in_flight(ring) > 0) {
            device->handler.wake(device->handler.opaque, i);
        }
    }
}

void vu_device_resume(VuDevice *device)
{
    for (unsigned int i = 0; i < device->n_queues; i++) {
        vu_ring_resume(device->queues[i].ring);
    }
    vu_device_wake_started(device);
}

void vu_device_stop_queue(VuDevice *device, unsigned int queue)
{
    VuQueue *q = &device->queues[queue];

    device->is_stopping = true;
    vu_device_update_channel(device);
    if (vu_ring_is_started(q->ring)) {
        vu_ring_stop(q->ring);
        device->handler.stop(device->handler.opaque, queue);
        device->handler.settle(device->handler.opaque, queue);
    }
    autofd_clear(&q->kick_fd);
}

void vu_device_use_memory_take(VuDevice *device, VuMemory *memory_take)
{
    for (unsigned int i = 0; i < device->n_queues; i++) {
        vu_ring_set_memory(device->queues[i].ring, memory_take);
    }
    vu_memory_unref(device->memory);
    device->memory = memory_take;
}
