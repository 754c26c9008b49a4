/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_SERVER_H
#define VIRTIOFSD_SERVER_H

#include <glib.h>
#include <stdbool.h>

#include "passthrough/passthrough.h"
#include "virtiofsd/fuse/session.h"
#include "virtiofsd/socket.h"
#include "virtiofsd/vhost/window-protocol.h"

/*
 * Joins the two halves: the VMM's connection and queues on one side, the FUSE session and
 * the file system on the other.
 */

typedef struct Server Server;

/** struct ServerConfig - everything is borrowed and outlives the server. */
typedef struct ServerConfig {
    PtFs *fs;
    Session *session;
    Socket *socket;
    const char *tag; /* NULL, or the tag to offer in the device's configuration space */
    uint64_t window_size; /* bytes of the DAX window to offer; 0: none */
    VuWindowProtocol window_protocol;
    unsigned int n_request_queues;
    unsigned int n_request_workers;
    unsigned int poll_us; /* see WorkersConfig */
} ServerConfig;

/** server_block_signals() - block what server_run() reads. Context: before any thread. */
void server_block_signals(void);

/**
 * server_new() - make the device and all threads.
 *
 * Return: the server, or NULL with @error set.
 */
Server *server_new(const ServerConfig *config, GError **error);

/**
 * server_run() - serve one VMM until it leaves or a signal asks for the end.
 * @ret_lost: whether it ended because no worker was left, which is a failure.
 *
 * Return: true when the end was clean and server_free() may be called; false if a request
 * would not end, and nothing may be freed.
 */
bool server_run(Server *server, bool *ret_lost);

/** server_free() - end the threads and free the device. NULL is fine. */
void server_free(Server *server);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Server, server_free)

#endif
