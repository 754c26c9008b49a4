/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One vhost-user message in or out. The peer is not trusted: it may send a byte an hour,
 * stop in the middle, attach descriptors anywhere or never read what we answer. Nothing
 * here allocates, and no wait is without an end but the one for a message's first byte.
 */
#include "virtiofsd/vhost/message.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "virtiofsd/log.h"

/* A wait on the connection: until then, or until interrupted. */
typedef struct Channel {
    int socket;
    int interrupt_fd;
    int64_t deadline_ms; /* -1: none */
} Channel;

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static VuStatus refuse(const char *why)
{
    log_error("vhost-user connection: %s", why);
    return VU_BAD_PEER;
}

/* Wait until @events, the deadline or an interruption. */
static VuStatus channel_wait(const Channel *channel, short events)
{
    struct pollfd fds[] = {
        {.fd = channel->socket, .events = events},
        {.fd = channel->interrupt_fd, .events = POLLIN},
    };
    int n;

    do {
        int timeout = -1;
        if (channel->deadline_ms >= 0) {
            int64_t left = channel->deadline_ms - now_ms();
            timeout = left > 0 ? (int)left : 0;
        }
        n = poll(fds, G_N_ELEMENTS(fds), timeout);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return refuse("cannot wait for it");
    }
    if (n == 0) {
        return refuse("the VMM left a message half sent or half read");
    }
    return fds[1].revents != 0 ? VU_INTERRUPTED : VU_OK;
}

/* Keep the descriptors that came along; all of them are ours now, wanted or not. */
static void collect_fds(VuMessage *message, struct msghdr *msg)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        const unsigned char *data = CMSG_DATA(c);
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, data + i * sizeof(int), sizeof(fd));
            if (message->n_fds < VU_MAX_FDS) {
                message->fds[message->n_fds++] = fd;
            } else {
                (void)close(fd); /* the buffer has room for VU_MAX_FDS: not reached */
            }
        }
    }
}

/* recvmsg() that waits. @ret_n: bytes received, 0 if the VMM has left. */
static VuStatus channel_receive(const Channel *channel, struct msghdr *msg, size_t *ret_n)
{
    for (;;) {
        ssize_t n = recvmsg(channel->socket, msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n >= 0) {
            *ret_n = (size_t)n;
            return VU_OK;
        }
        if (errno == EAGAIN) {
            VuStatus status = channel_wait(channel, POLLIN);
            if (status != VU_OK) {
                return status;
            }
        } else if (errno == ECONNRESET) {
            *ret_n = 0;
            return VU_OK;
        } else if (errno != EINTR) {
            return refuse("cannot read from it");
        }
    }
}

/* The first bytes of the header, with all descriptors of the message. */
static VuStatus receive_first(VuMessage *message, const Channel *channel, size_t *ret_n)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(VU_MAX_FDS * sizeof(int))];
    } control;
    struct iovec iov = {&message->header, sizeof(message->header)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof(control.bytes)};

    VuStatus status = channel_receive(channel, &msg, ret_n);
    if (status != VU_OK) {
        return status;
    }
    if (*ret_n == 0) {
        return VU_CLOSED;
    }
    collect_fds(message, &msg);
    if ((msg.msg_flags & MSG_CTRUNC) != 0) {
        if (message->n_fds == VU_MAX_FDS) {
            return refuse("a message with too many descriptors");
        }
        message->fds_lost = true;
    }
    return VU_OK;
}

/* Bytes after the first. Without a control buffer the kernel closes descriptors that
 * come with them, and says so by MSG_CTRUNC. */
static VuStatus receive_rest(const Channel *channel, void *buffer, size_t size)
{
    while (size > 0) {
        struct iovec iov = {buffer, size};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
        size_t n = 0;
        VuStatus status = channel_receive(channel, &msg, &n);
        if (status != VU_OK) {
            return status;
        }
        if (n == 0) {
            return refuse("the VMM left in the middle of a message");
        }
        if ((msg.msg_flags & MSG_CTRUNC) != 0) {
            return refuse("descriptors in the middle of a message");
        }
        buffer = (char *)buffer + n;
        size -= n;
    }
    return VU_OK;
}

static VuStatus check_header(const struct vu_msg_header *header)
{
    if ((header->flags & VU_FLAG_VERSION_MASK) != VU_FLAG_VERSION) {
        log_error("vhost-user connection: a message of version %u, not 1",
                  header->flags & VU_FLAG_VERSION_MASK);
        return VU_BAD_PEER;
    }
    if ((header->flags & VU_FLAG_REPLY) != 0) {
        return refuse("a reply to nothing");
    }
    if (header->size > VU_PAYLOAD_MAX) {
        log_error("vhost-user connection: message %u with %u bytes is too long",
                  header->request, header->size);
        return VU_BAD_PEER;
    }
    return VU_OK;
}

VuStatus vu_message_receive(VuMessage *message, int socket, int interrupt_fd)
{
    Channel channel = {.socket = socket, .interrupt_fd = interrupt_fd, .deadline_ms = -1};
    size_t got = 0;

    memset(message, 0, sizeof(*message));
    memset(message->fds, 0xff, sizeof(message->fds)); /* none is -1 */
    VuStatus status = receive_first(message, &channel, &got);
    if (status != VU_OK) {
        return status;
    }
    channel.deadline_ms = now_ms() + VU_MESSAGE_TIMEOUT_MS;
    status = receive_rest(&channel, (char *)&message->header + got,
                          sizeof(message->header) - got);
    if (status != VU_OK) {
        return status;
    }
    status = check_header(&message->header);
    if (status != VU_OK) {
        return status;
    }
    return receive_rest(&channel, &message->payload, message->header.size);
}

VuStatus vu_message_reply(const VuMessage *message, int socket, int interrupt_fd)
{
    Channel channel = {.socket = socket,
                       .interrupt_fd = interrupt_fd,
                       .deadline_ms = now_ms() + VU_MESSAGE_TIMEOUT_MS};
    struct vu_msg_header header = {
        .request = message->header.request,
        .flags = VU_FLAG_VERSION | VU_FLAG_REPLY, /* QEMU compares for equality */
        .size = message->header.size,
    };
    char bytes[sizeof(header) + sizeof(message->payload)];
    struct iovec iov = {bytes, sizeof(header) + header.size};

    memcpy(bytes, &header, sizeof(header));
    memcpy(bytes + sizeof(header), &message->payload, header.size);
    while (iov.iov_len > 0) {
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
        ssize_t n = sendmsg(socket, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n >= 0) {
            iov.iov_base = (char *)iov.iov_base + n;
            iov.iov_len -= (size_t)n;
        } else if (errno == EAGAIN) {
            VuStatus status = channel_wait(&channel, POLLOUT);
            if (status != VU_OK) {
                return status;
            }
        } else if (errno == EPIPE || errno == ECONNRESET) {
            return VU_CLOSED;
        } else if (errno != EINTR) {
            return refuse("cannot write to it");
        }
    }
    return VU_OK;
}

int vu_message_steal_fd(VuMessage *message, unsigned int i)
{
    if (i >= message->n_fds) {
        return -1;
    }
    int fd = message->fds[i];
    message->fds[i] = -1;
    return fd;
}

void vu_message_clear(VuMessage *message)
{
    for (unsigned int i = 0; i < message->n_fds; i++) {
        if (message->fds[i] >= 0) {
            (void)close(message->fds[i]); /* nothing was written to it */
        }
    }
    message->n_fds = 0;
}
