/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SUPPORT_FUSE_CLIENT_H
#define TESTS_SUPPORT_FUSE_CLIENT_H

#include <linux/fuse.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/support/frontend.h"
#include "tests/support/segments.h"

/*
 * A FUSE client over a frontend's queues: slots of guest memory, each for one request and
 * its answer. Every call is safe from any thread; client_call() and client_exchange()
 * from many threads share the waiting. For whole operations see fuse-ops.h.
 */

typedef struct Client Client;
typedef struct ClientSlot ClientSlot;

/** struct ClientConfig - see client_config_init() for the defaults. */
typedef struct ClientConfig {
    unsigned int n_slots; /* requests in flight; 16 */
    size_t data_size;     /* largest payload of a WRITE or READ; 1 MiB */
    SegmentsSplit split;
    size_t split_size; /* for SEGMENTS_BYTES */
    uint32_t uid;
    uint32_t gid;
    uint32_t pid;
    int timeout_ms; /* of client_call(); 10 s */
    bool poison;    /* fill the room for answers with 0xa5 before each request */
} ClientConfig;

void client_config_init(ClientConfig *config);
/** client_memory_size() - Return: what to add to FrontendConfig.memory_size. */
size_t client_memory_size(const ClientConfig *config);

/** client_new() - Return: a client; NULL if memory is short. The frontend outlives it. */
Client *client_new(Frontend *frontend, const ClientConfig *config);
void client_free(Client *client);
Frontend *client_frontend(const Client *client);
/** client_set_identity() - whom later requests come from. */
void client_set_identity(Client *client, uint32_t uid, uint32_t gid, uint32_t pid);
/** client_set_split() - how later requests are cut. */
void client_set_split(Client *client, SegmentsSplit split, size_t split_size);
/** client_reset() - forget all in flight, after frontend_reset() or the peer's death. */
void client_reset(Client *client);

/** ClientRequest.queue: automatically (hiprio for FORGET, else by turns), or one. */
#define CLIENT_QUEUE_AUTO 0u
#define CLIENT_QUEUE(index) ((index) + 1u)

/** ClientRequest.set: header fields that are sent as given instead of as is right. */
#define CLIENT_SET_LEN 0x1u
#define CLIENT_SET_UNIQUE 0x2u
#define CLIENT_SET_UID 0x4u
#define CLIENT_SET_GID 0x8u
#define CLIENT_SET_PID 0x10u
#define CLIENT_SET_EXTLEN 0x20u /* total_extlen */

/** struct ClientRequest - header, arguments, names, data, in this order. */
typedef struct ClientRequest {
    uint32_t opcode;
    uint64_t nodeid;
    const void *args;
    size_t args_size;
    const char *name; /* with its NUL; or NULL */
    const char *name2;
    const void *data; /* NULL with a size: whatever the slot holds */
    size_t data_size;
    size_t out_size; /* room behind the out header; 0: what the request asks for */
    bool no_reply;   /* no room at all, not even for a header */
    unsigned int queue;
    unsigned int set;
    struct fuse_in_header header;
} ClientRequest;

/** struct ClientReply - what came back; its memory is valid until client_release(). */
typedef struct ClientReply {
    uint32_t used; /* bytes written, as the device says */
    struct fuse_out_header header;
    const uint8_t *payload;
    size_t size;         /* of the payload, as far as it was written */
    const uint8_t *room; /* everything the device could write to */
    size_t room_size;
    void *tag;
    ClientSlot *slot;
} ClientReply;

/**
 * client_call() - send a request, wait, and copy what follows the header to @out.
 *
 * Return: bytes copied; the server's error; -EPROTO for a malformed answer, -ENODATA for
 * none, -ETIMEDOUT, -ECONNRESET if the peer is gone.
 */
int client_call(Client *client, const ClientRequest *request, void *out, size_t out_size);

/**
 * client_exchange() - send a request and wait for its completion.
 * @reply: filled on 0, -EPROTO and -ENODATA; then client_release() it.
 *
 * Return: 0 for a well-formed answer, even if it is an error; else as client_call().
 */
int client_exchange(Client *client, const ClientRequest *request, ClientReply *reply);

/** struct ClientRaw - bytes sent as they are, the header included. */
typedef struct ClientRaw {
    const void *bytes;
    size_t size;
    size_t room; /* for the answer, its header included */
    unsigned int queue;
} ClientRaw;

/** client_exchange_raw() - the same for any bytes. */
int client_exchange_raw(Client *client, const ClientRaw *raw, ClientReply *reply,
                        int timeout_ms);

/** client_submit() - send and do not wait. Return: 0, -EAGAIN if no slot is free. */
int client_submit(Client *client, const ClientRequest *request, void *tag);
/** client_submit_raw() - the same for any bytes. */
int client_submit_raw(Client *client, const ClientRaw *raw, void *tag);
/** client_reap() - next answer to a submitted request on @queue. Return: as exchange. */
int client_reap(Client *client, unsigned int queue, ClientReply *reply, int timeout_ms);
/** client_release() - give the slot back; the reply's memory is gone. */
void client_release(Client *client, ClientReply *reply);

#endif
