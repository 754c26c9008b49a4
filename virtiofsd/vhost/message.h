/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_VHOST_MESSAGE_H
#define VIRTIOFSD_VHOST_MESSAGE_H

#include <glib.h>
#include <stdbool.h>

#include "virtiofsd/vhost/proto.h"
#include "virtiofsd/vhost/status.h"

/*
 * One vhost-user message, in or out, with its descriptors. Knows framing and nothing of
 * what the messages mean.
 */

/** How long a message that was begun may take to complete, in either direction. */
#define VU_MESSAGE_TIMEOUT_MS 5000

/** struct VuMessage - owns the descriptors in it until they are stolen. */
typedef struct VuMessage {
    struct vu_msg_header header;
    union vu_payload payload; /* header.size bytes of it were received, the rest is 0 */
    int fds[VU_MAX_FDS];
    unsigned int n_fds;
    bool fds_lost; /* descriptors came, but this process has no room for more */
} VuMessage;

/**
 * vu_message_receive() - read one message whole.
 * @message: result; to be cleared in any case.
 * @interrupt_fd: readable = stop waiting; or -1.
 *
 * Waits for the first byte as long as it takes, for the others VU_MESSAGE_TIMEOUT_MS.
 * Descriptors come beside the first byte, as the protocol has it; any beyond VU_MAX_FDS,
 * or beside bytes that are received later, are closed and the message is refused. Return:
 * VU_OK, VU_CLOSED, VU_BAD_PEER (logged) or VU_INTERRUPTED.
 */
VuStatus vu_message_receive(VuMessage *message, int socket, int interrupt_fd);

/**
 * vu_message_reply() - send @message back as the reply to itself.
 * @message: its header.request is kept, its header.size bytes of payload are sent.
 *
 * Never blocks longer than VU_MESSAGE_TIMEOUT_MS on a VMM that does not read.
 * Return: as vu_message_receive(); VU_CLOSED if the VMM has left.
 */
VuStatus vu_message_reply(const VuMessage *message, int socket, int interrupt_fd);

/** vu_message_steal_fd() - Return: descriptor @i, now the caller's; -1 if none. */
int vu_message_steal_fd(VuMessage *message, unsigned int i);

/** vu_message_clear() - close the descriptors that nobody took. */
void vu_message_clear(VuMessage *message);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(VuMessage, vu_message_clear)

#endif
