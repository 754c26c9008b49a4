/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SUPPORT_VHOST_MESSAGE_H
#define TESTS_SUPPORT_VHOST_MESSAGE_H

#include <stddef.h>
#include <stdint.h>

/*
 * One vhost-user message out or in (QEMU, docs/interop/vhost-user.rst), well formed or
 * not: what is sent is what the caller says, so that a hostile VMM can be played.
 */

/** enum VhostRequest - requests of the front-end. */
typedef enum VhostRequest {
    VHOST_GET_FEATURES = 1,
    VHOST_SET_FEATURES = 2,
    VHOST_SET_OWNER = 3,
    VHOST_RESET_OWNER = 4,
    VHOST_SET_MEM_TABLE = 5,
    VHOST_SET_LOG_BASE = 6,
    VHOST_SET_LOG_FD = 7,
    VHOST_SET_VRING_NUM = 8,
    VHOST_SET_VRING_ADDR = 9,
    VHOST_SET_VRING_BASE = 10,
    VHOST_GET_VRING_BASE = 11,
    VHOST_SET_VRING_KICK = 12,
    VHOST_SET_VRING_CALL = 13,
    VHOST_SET_VRING_ERR = 14,
    VHOST_GET_PROTOCOL_FEATURES = 15,
    VHOST_SET_PROTOCOL_FEATURES = 16,
    VHOST_GET_QUEUE_NUM = 17,
    VHOST_SET_VRING_ENABLE = 18,
    VHOST_SET_BACKEND_REQ_FD = 21,
    VHOST_GET_CONFIG = 24,
    VHOST_SET_CONFIG = 25,
    VHOST_RESET_DEVICE = 34,
    VHOST_GET_MAX_MEM_SLOTS = 36,
    VHOST_ADD_MEM_REG = 37,
    VHOST_REM_MEM_REG = 38,
} VhostRequest;

#define VHOST_FLAG_VERSION 0x1u
#define VHOST_FLAG_REPLY 0x4u
#define VHOST_FLAG_NEED_REPLY 0x8u

#define VHOST_MESSAGE_MAX_FDS 64
#define VHOST_REPLY_MAX_PAYLOAD 4096
#define VHOST_REPLY_MAX_FDS 8

/** struct vhost_header - what precedes every payload, native endian. */
struct vhost_header {
    uint32_t request;
    uint32_t flags;
    uint32_t size;
};

/** struct VhostMessage - bytes and descriptors to send. */
typedef struct VhostMessage {
    struct vhost_header header; /* as it is sent, also where it contradicts the rest */
    const void *payload;
    size_t payload_size; /* bytes really sent behind the header */
    const int *fds;      /* borrowed */
    unsigned int n_fds;
} VhostMessage;

/** struct VhostReply - what came back; its descriptors are the caller's. */
typedef struct VhostReply {
    struct vhost_header header;
    uint8_t payload[VHOST_REPLY_MAX_PAYLOAD];
    int fds[VHOST_REPLY_MAX_FDS];
    unsigned int n_fds;
} VhostReply;

/** vhost_message_send() - Return: 0 or negative errno; -EPIPE if the peer is gone. */
int vhost_message_send(int socket, const VhostMessage *message);

/** vhost_message_send_bytes() - any bytes, for messages cut in pieces. Return: as above.
 */
int vhost_message_send_bytes(int socket, const void *bytes, size_t size);

/**
 * vhost_message_receive() - wait for one message.
 *
 * Return: 0, -ETIMEDOUT, -ECONNRESET if the peer closed, -EPROTO if it is too large.
 */
int vhost_message_receive(int socket, VhostReply *reply, int timeout_ms);

/** vhost_reply_clear() - close the descriptors that came with a reply. */
void vhost_reply_clear(VhostReply *reply);

/** vhost_reply_u64() - Return: the payload as one number; 0 if it is shorter. */
uint64_t vhost_reply_u64(const VhostReply *reply);

#endif
