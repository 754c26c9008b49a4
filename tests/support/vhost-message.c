/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost-user messages over a Unix stream socket. Time-outs are the socket's own
 * (SO_SNDTIMEO) for sending and a deadline over poll(2) for receiving.
 */
#include "tests/support/vhost-message.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int send_rest(int socket, const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        ssize_t n = send(socket, bytes, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return errno == EAGAIN ? -ETIMEDOUT : -errno;
        }
        bytes += n;
        size -= (size_t)n;
    }
    return 0;
}

int vhost_message_send_bytes(int socket, const void *bytes, size_t size)
{
    return send_rest(socket, bytes, size);
}

int vhost_message_send(int socket, const VhostMessage *message)
{
    if (message->n_fds > VHOST_MESSAGE_MAX_FDS) {
        return -EINVAL;
    }
    struct iovec iov[2] = {
        {.iov_base = (void *)(uintptr_t)&message->header,
         .iov_len = sizeof(message->header)},
        {.iov_base = (void *)(uintptr_t)message->payload,
         .iov_len = message->payload_size},
    };
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = message->payload_size > 0 ? 2 : 1};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(VHOST_MESSAGE_MAX_FDS * sizeof(int))];
    } control = {0};
    if (message->n_fds > 0) {
        size_t size = message->n_fds * sizeof(int);
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(size);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(size);
        memcpy(CMSG_DATA(&control.header), message->fds, size);
    }

    ssize_t n;
    do {
        n = sendmsg(socket, &msg, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return errno == EAGAIN ? -ETIMEDOUT : -errno;
    }
    /* A stream socket may have taken a part; the descriptors went with its first byte. */
    size_t done = (size_t)n;
    if (done < sizeof(message->header)) {
        int rc = send_rest(socket, (const uint8_t *)&message->header + done,
                           sizeof(message->header) - done);
        if (rc < 0) {
            return rc;
        }
        done = sizeof(message->header);
    }
    done -= sizeof(message->header);
    if (done == message->payload_size) {
        return 0;
    }
    return send_rest(socket, (const uint8_t *)message->payload + done,
                     message->payload_size - done);
}

static int64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Wait until the socket is readable. */
static int await_input(int socket, int64_t deadline)
{
    for (;;) {
        int64_t left = deadline - now_ms();
        struct pollfd pfd = {.fd = socket, .events = POLLIN};
        int rc = poll(&pfd, 1, left > 0 ? (int)left : 0);
        if (rc > 0) {
            return 0;
        }
        if (rc == 0) {
            return -ETIMEDOUT;
        }
        if (errno != EINTR) {
            return -errno;
        }
    }
}

static void take_fds(struct msghdr *msg, VhostReply *reply)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            if (reply->n_fds < VHOST_REPLY_MAX_FDS) {
                reply->fds[reply->n_fds++] = fd;
            } else {
                (void)close(fd); /* more than any reply carries */
            }
        }
    }
}

static int receive_exactly(int socket, void *bytes, size_t size, VhostReply *reply,
                           int64_t deadline)
{
    size_t done = 0;
    while (done < size) {
        int rc = await_input(socket, deadline);
        if (rc < 0) {
            return rc;
        }
        char control[CMSG_SPACE(VHOST_REPLY_MAX_FDS * sizeof(int))];
        struct iovec iov = {.iov_base = (uint8_t *)bytes + done, .iov_len = size - done};
        struct msghdr msg = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
        ssize_t n = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) {
            continue;
        }
        if (n <= 0) {
            return n == 0 ? -ECONNRESET : -errno;
        }
        take_fds(&msg, reply);
        done += (size_t)n;
    }
    return 0;
}

int vhost_message_receive(int socket, VhostReply *reply, int timeout_ms)
{
    int64_t deadline = now_ms() + timeout_ms;
    reply->n_fds = 0;
    int rc =
        receive_exactly(socket, &reply->header, sizeof(reply->header), reply, deadline);
    if (rc == 0 && reply->header.size > sizeof(reply->payload)) {
        rc = -EPROTO;
    }
    if (rc == 0) {
        rc = receive_exactly(socket, reply->payload, reply->header.size, reply, deadline);
    }
    if (rc < 0) {
        vhost_reply_clear(reply);
    }
    return rc;
}

void vhost_reply_clear(VhostReply *reply)
{
    for (unsigned int i = 0; i < reply->n_fds; i++) {
        (void)close(reply->fds[i]); /* nothing to do about a failure */
    }
    reply->n_fds = 0;
}

uint64_t vhost_reply_u64(const VhostReply *reply)
{
    uint64_t value = 0;
    if (reply->header.size >= sizeof(value)) {
        memcpy(&value, reply->payload, sizeof(value));
    }
    return value;
}
