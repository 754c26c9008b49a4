/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device's life: made before the sandbox is complete, connected to one VMM, and brought
 * back to where it began when that VMM has left.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "virtiofsd/vhost/device-internal.h"
#include "virtiofsd/vhost/guard.h"

/* Without a terminating NUL (Virtio 1.2, 5.11.4). */
#define TAG_MAX sizeof((struct vu_fs_config){0}.tag)

static bool check_config(const VuDeviceConfig *config, GError **error)
{
    if (config->n_queues < 2 || config->n_queues > 256) {
        g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_INVAL,
                    "%u queues: there can be 1 to 255 request queues beside hiprio",
                    config->n_queues);
        return false;
    }
    if (config->window_size % VU_WINDOW_PAGE != 0 ||
        (config->window_size > 0 && config->window_protocol == VU_WINDOW_STANDARD &&
         config->tag == NULL)) {
        g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_INVAL,
                    "a DAX window must be a multiple of 2M, and needs a tag");
        return false;
    }
    if (config->tag != NULL &&
        (config->tag[0] == '\0' || strlen(config->tag) > TAG_MAX)) {
        g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_INVAL,
                    "tag \"%s\" must have 1 to 36 bytes", config->tag);
        return false;
    }
    return true;
}

static bool make_window(VuDevice *device, const VuDeviceConfig *config)
{
    device->window =
        vu_window_new(config->window_size, config->window_protocol, &device->backend);
    device->pages = calloc(VU_MEMORY_MAX_REGIONS, sizeof(*device->pages));
    return device->window != NULL && device->pages != NULL;
}

static bool make_queues(VuDevice *device)
{
    device->queues = calloc(device->n_queues, sizeof(*device->queues));
    device->memory = vu_memory_new();
    if (device->queues == NULL || device->memory == NULL) {
        return false;
    }
    for (unsigned int i = 0; i < device->n_queues; i++) {
        device->queues[i].kick_fd = -1;
    }
    for (unsigned int i = 0; i < device->n_queues; i++) {
        device->queues[i].ring = vu_ring_new(i, device->idle_fd);
        if (device->queues[i].ring == NULL) {
            return false;
        }
    }
    return true;
}

VuDevice *vu_device_new(const VuDeviceConfig *config, GError **error)
{
    if (!check_config(config, error)) {
        return NULL;
    }
    g_autoptr(VuDevice) device = g_new0(VuDevice, 1);
    device->n_queues = config->n_queues;
    device->interrupt_fd = config->interrupt_fd;
    device->attend_fd = config->handler.attend != NULL ? config->attend_fd : -1;
    device->handler = config->handler;
    device->connection = -1;
    if (config->tag != NULL) {
        device->has_tag = true;
        memcpy(device->config.tag, config->tag, strlen(config->tag));
        device->config.num_request_queues = GUINT32_TO_LE(config->n_queues - 1);
    }
    bool has_window = config->window_size > 0;
    int result = vu_backend_init(&device->backend, has_window);
    device->idle_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (result < 0 || device->idle_fd < 0 || vu_guard_install() < 0) {
        g_set_error(error, G_FILE_ERROR, (gint)g_file_error_from_errno(errno),
                    "cannot prepare for a VMM: %s", strerrordesc_np(errno));
        return NULL;
    }
    if (has_window && !make_window(device, config)) {
        g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_NOMEM,
                    "not enough memory for the DAX window's table");
        return NULL;
    }
    if (!make_queues(device)) {
        g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_NOMEM,
                    "not enough memory for %u queues: lower --num-request-queues",
                    config->n_queues);
        return NULL;
    }
    return g_steal_pointer(&device);
}

void vu_device_free(VuDevice *device)
{
    if (device == NULL) {
        return;
    }
    for (unsigned int i = 0; device->queues != NULL && i < device->n_queues; i++) {
        vu_ring_free(device->queues[i].ring);
        autofd_clear(&device->queues[i].kick_fd);
    }
    free(device->queues);
    vu_memory_unref(device->memory);
    vu_dirty_log_free(device->log);
    vu_call_unref(device->log_call);
    vu_window_free(device->window);
    free(device->pages);
    vu_backend_free(&device->backend);
    autofd_clear(&device->connection);
    autofd_clear(&device->idle_fd);
    g_free(device);
}

void vu_device_connect_take(VuDevice *device, int connection_fd_take)
{
    autofd_clear(&device->connection);
    device->connection = connection_fd_take;
}

int vu_device_fd(const VuDevice *device)
{
    return device->connection;
}

VuRing *vu_device_ring(VuDevice *device, unsigned int queue)
{
    return device->queues[queue].ring;
}

/* As if no VMM had ever connected. All rings are stopped and idle. */
static bool forget_vmm(VuDevice *device)
{
    VuMemory *none = vu_memory_new();

    for (unsigned int i = 0; i < device->n_queues; i++) {
        VuRing *ring = device->queues[i].ring;
        vu_ring_reset(ring);
        vu_ring_resume(ring);
        (void)vu_ring_set_features(ring, 0);   /* it is idle */
        (void)vu_ring_set_call_take(ring, -1); /* only a descriptor needs memory */
        (void)vu_ring_set_error_take(ring, -1);
        device->queues[i].is_enabled = false;
    }
    device->protocol_features = 0;
    vu_device_forget_log(device);
    vu_device_update_channel(device);
    vu_device_window_lost(device, true);
    device->told_unshared = false;
    if (none == NULL) {
        return false;
    }
    vu_device_use_memory_take(device, none);
    vu_guard_clear();
    return true;
}

bool vu_device_disconnect(VuDevice *device, int timeout_ms)
{
    for (unsigned int i = 0; i < device->n_queues; i++) {
        vu_device_stop_queue(device, i);
    }
    vu_device_resume(device); /* a pause that was given up would hold them for ever */
    bool idle = vu_device_drain_for(device, timeout_ms);
    if (idle) { /* else who has the channel may not leave it */
        vu_backend_clear(&device->backend);
    }
    autofd_clear(&device->connection);
    return idle && forget_vmm(device);
}
