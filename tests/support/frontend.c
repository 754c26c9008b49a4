/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The front-end's life: memory and queues, connection, negotiation, messages. What
 * concerns rings and memory of a running device is in frontend-rings.c.
 */
#include "tests/support/frontend.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/support/frontend-private.h"

void frontend_config_init(FrontendConfig *config)
{
    *config = (FrontendConfig){
        .n_request_queues = 1,
        .queue_size = 128,
        .features = FRONTEND_F_INDIRECT_DESC | FRONTEND_F_EVENT_IDX |
                    FRONTEND_F_PROTOCOL_FEATURES | FRONTEND_F_VERSION_1,
        .protocol_features =
            FRONTEND_PROTOCOL_MQ | FRONTEND_PROTOCOL_LOG_SHMFD |
            FRONTEND_PROTOCOL_REPLY_ACK | FRONTEND_PROTOCOL_BACKEND_REQ |
            FRONTEND_PROTOCOL_BACKEND_SEND_FD | FRONTEND_PROTOCOL_RESET_DEVICE |
            FRONTEND_PROTOCOL_CONFIGURE_MEM_SLOTS | FRONTEND_PROTOCOL_DEVICE_STATE,
        .n_regions = 2,
        .memory_size = 64u << 20,
        .timeout_ms = 10000,
    };
    const char *ring = getenv("VIRTIOFSD_TEST_RING");
    if (ring != NULL && strcmp(ring, "packed") == 0) {
        config->features |= FRONTEND_F_RING_PACKED;
    }
}

int frontend_fail(Frontend *frontend, int rc, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(frontend->error, sizeof(frontend->error), format, args);
    va_end(args);
    if (rc < 0 && n >= 0 && (size_t)n < sizeof(frontend->error)) {
        (void)snprintf(frontend->error + n, sizeof(frontend->error) - (size_t)n, ": %s",
                       strerrordesc_np(-rc)); /* shortened if it does not fit */
    }
    return rc;
}

const char *frontend_error(const Frontend *frontend)
{
    return frontend->error;
}

/* ---- memory and queues ------------------------------------------------------ */

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        (void)close(*fd); /* nothing to do about a failure */
    }
    *fd = -1;
}

static int new_queue(Frontend *frontend, FrontendQueue *queue,
                     const VirtqueueConfig *config)
{
    queue->ring = virtqueue_new(frontend->memory, config);
    queue->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    queue->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    queue->err_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (queue->ring == NULL || queue->kick_fd < 0 || queue->call_fd < 0 ||
        queue->err_fd < 0) {
        return -errno;
    }
    virtqueue_set_fds(queue->ring, queue->kick_fd, queue->call_fd);
    return 0;
}

static int build(Frontend *frontend)
{
    const FrontendConfig *config = &frontend->config;
    VirtqueueConfig ring = {
        .size = config->queue_size,
        .table_size = config->table_size,
        .indirect = (config->features & FRONTEND_F_INDIRECT_DESC) != 0,
        .event_idx = (config->features & FRONTEND_F_EVENT_IDX) != 0,
    };
    unsigned int n = config->n_request_queues + 1;
    unsigned int n_regions = config->n_regions > 0 ? config->n_regions : 1;
    /* The regions share the memory evenly; each must be able to hold a queue's part. */
    GuestMemoryLayout layout = {
        .n_regions = n_regions,
        .size = config->memory_size + n * virtqueue_memory_size(&ring) + n_regions * 8192,
        .separate_files = config->separate_files,
    };
    frontend->memory = guest_memory_new(&layout);
    frontend->queues = calloc(n, sizeof(*frontend->queues));
    if (frontend->memory == NULL || frontend->queues == NULL) {
        return -errno;
    }
    for (unsigned int i = 0; i < n; i++) {
        frontend->queues[i] = (FrontendQueue){.kick_fd = -1, .call_fd = -1, .err_fd = -1};
    }
    frontend->n_queues = n;
    for (unsigned int i = 0; i < n; i++) {
        int rc = new_queue(frontend, &frontend->queues[i], &ring);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

Frontend *frontend_new(const FrontendConfig *config)
{
    Frontend *frontend = calloc(1, sizeof(*frontend));
    if (frontend == NULL) {
        return NULL;
    }
    frontend->config = *config;
    frontend->socket = -1;
    frontend->backend_socket = -1;
    int rc = build(frontend);
    if (rc < 0) {
        frontend_free(frontend);
        errno = -rc;
        return NULL;
    }
    return frontend;
}

void frontend_free(Frontend *frontend)
{
    if (frontend == NULL) {
        return;
    }
    frontend_disconnect(frontend);
    for (unsigned int i = 0; i < frontend->n_queues; i++) {
        FrontendQueue *queue = &frontend->queues[i];
        virtqueue_free(queue->ring);
        close_fd(&queue->kick_fd);
        close_fd(&queue->call_fd);
        close_fd(&queue->err_fd);
    }
    free(frontend->queues);
    guest_memory_free(frontend->memory);
    free(frontend);
}

/* ---- connection ------------------------------------------------------------- */

void frontend_attach_take(Frontend *frontend, int socket_fd_take)
{
    frontend_disconnect(frontend);
    struct timeval limit = {
        .tv_sec = frontend->config.timeout_ms / 1000,
        .tv_usec = frontend->config.timeout_ms % 1000 * 1000,
    };
    /* Without the limit a peer that stops reading would only hang the test. */
    (void)setsockopt(socket_fd_take, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    frontend->socket = socket_fd_take;
}

int frontend_connect(Frontend *frontend, const char *socket_path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(socket_path) >= sizeof(address.sun_path)) {
        return frontend_fail(frontend, -ENAMETOOLONG, "socket path %s", socket_path);
    }
    memcpy(address.sun_path, socket_path, strlen(socket_path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return frontend_fail(frontend, -errno, "cannot make a socket");
    }
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        int rc = -errno;
        close_fd(&fd);
        return frontend_fail(frontend, rc, "cannot connect to %s", socket_path);
    }
    frontend_attach_take(frontend, fd);
    return 0;
}

void frontend_disconnect(Frontend *frontend)
{
    close_fd(&frontend->socket);
    close_fd(&frontend->backend_socket);
    frontend->offered = 0;
    frontend->agreed = 0;
    frontend->protocol_offered = 0;
    frontend->protocol_agreed = 0;
    frontend->peer_queues = 0;
    frontend->peer_slots = 0;
    frontend->n_known_regions = 0;
}

/* ---- messages --------------------------------------------------------------- */

static int send_flags(Frontend *frontend, const FrontendRequest *request, uint32_t flags)
{
    VhostMessage message = {
        .header = {.request = request->request,
                   .flags = VHOST_FLAG_VERSION | flags,
                   .size = request->size},
        .payload = request->payload,
        .payload_size = request->size,
        .fds = request->fds,
        .n_fds = request->n_fds,
    };
    int rc = vhost_message_send(frontend->socket, &message);
    return rc < 0 ? frontend_fail(frontend, rc, "sending request %u", request->request)
                  : 0;
}

int frontend_send(Frontend *frontend, const FrontendRequest *request)
{
    return send_flags(frontend, request, 0);
}

int frontend_get(Frontend *frontend, const FrontendRequest *request, VhostReply *reply)
{
    int rc = send_flags(frontend, request, 0);
    if (rc < 0) {
        return rc;
    }
    rc = vhost_message_receive(frontend->socket, reply, frontend->config.timeout_ms);
    if (rc < 0) {
        return frontend_fail(frontend, rc, "reply to request %u", request->request);
    }
    /* QEMU, vhost_user_read_header: the flags of a reply are compared for equality. */
    if (reply->header.request != request->request ||
        reply->header.flags != (VHOST_FLAG_VERSION | VHOST_FLAG_REPLY)) {
        vhost_reply_clear(reply);
        return frontend_fail(frontend, -EPROTO, "request %u answered by %u, flags 0x%x",
                             request->request, reply->header.request,
                             reply->header.flags);
    }
    return 0;
}

int frontend_ack(Frontend *frontend, const FrontendRequest *request)
{
    if ((frontend->protocol_agreed & FRONTEND_PROTOCOL_REPLY_ACK) == 0) {
        return frontend_send(frontend, request);
    }
    int rc = send_flags(frontend, request, VHOST_FLAG_NEED_REPLY);
    if (rc < 0) {
        return rc;
    }
    VhostReply reply;
    rc = vhost_message_receive(frontend->socket, &reply, frontend->config.timeout_ms);
    if (rc < 0) {
        return frontend_fail(frontend, rc, "acknowledgement of %u", request->request);
    }
    vhost_reply_clear(&reply);
    if (reply.header.request != request->request ||
        reply.header.flags != (VHOST_FLAG_VERSION | VHOST_FLAG_REPLY) ||
        reply.header.size != sizeof(uint64_t)) {
        return frontend_fail(frontend, -EPROTO,
                             "request %u acknowledged by %u, flags 0x%x",
                             request->request, reply.header.request, reply.header.flags);
    }
    uint64_t status = vhost_reply_u64(&reply);
    return status == 0 ? 0
                       : frontend_fail(frontend, -EREMOTEIO, "request %u refused (%llu)",
                                       request->request, (unsigned long long)status);
}

int frontend_send_raw(Frontend *frontend, const VhostMessage *message)
{
    return vhost_message_send(frontend->socket, message);
}

int frontend_receive(Frontend *frontend, VhostReply *reply, int timeout_ms)
{
    return vhost_message_receive(frontend->socket, reply, timeout_ms);
}

bool frontend_is_closed(Frontend *frontend, int timeout_ms)
{
    if (frontend->socket < 0) {
        return true;
    }
    struct pollfd pfd = {.fd = frontend->socket, .events = POLLRDHUP};
    return poll(&pfd, 1, timeout_ms) > 0;
}

int frontend_set_u64(Frontend *frontend, uint32_t request, uint64_t value)
{
    return frontend_send(
        frontend,
        &(FrontendRequest){.request = request, .payload = &value, .size = sizeof(value)});
}

static int get_u64(Frontend *frontend, uint32_t request, uint64_t *ret_value)
{
    VhostReply reply;
    int rc = frontend_get(frontend, &(FrontendRequest){.request = request}, &reply);
    if (rc < 0) {
        return rc;
    }
    vhost_reply_clear(&reply);
    if (reply.header.size != sizeof(uint64_t)) {
        return frontend_fail(frontend, -EPROTO, "reply to %u has %u bytes", request,
                             reply.header.size);
    }
    *ret_value = vhost_reply_u64(&reply);
    return 0;
}

/* ---- negotiation ------------------------------------------------------------ */

static int set_backend_socket(Frontend *frontend)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        return frontend_fail(frontend, -errno, "cannot make the backend's channel");
    }
    frontend->backend_socket = pair[0];
    int rc = frontend_ack(
        frontend, &(FrontendRequest){
                      .request = VHOST_SET_BACKEND_REQ_FD, .fds = &pair[1], .n_fds = 1});
    close_fd(&pair[1]);
    return rc;
}

static int negotiate_protocol(Frontend *frontend)
{
    uint64_t value = 0;
    int rc = get_u64(frontend, VHOST_GET_PROTOCOL_FEATURES, &frontend->protocol_offered);
    if (rc < 0) {
        return rc;
    }
    uint64_t agreed = frontend->protocol_offered & frontend->config.protocol_features;
    rc = frontend_set_u64(frontend, VHOST_SET_PROTOCOL_FEATURES, agreed);
    if (rc < 0) {
        return rc;
    }
    frontend->protocol_agreed = agreed;
    if (agreed & FRONTEND_PROTOCOL_MQ) {
        rc = get_u64(frontend, VHOST_GET_QUEUE_NUM, &value);
        frontend->peer_queues = (unsigned int)value;
    }
    if (rc == 0 && (agreed & FRONTEND_PROTOCOL_CONFIGURE_MEM_SLOTS)) {
        rc = get_u64(frontend, VHOST_GET_MAX_MEM_SLOTS, &value);
        frontend->peer_slots = (unsigned int)value;
    }
    if (rc == 0 && (agreed & FRONTEND_PROTOCOL_BACKEND_REQ)) {
        rc = set_backend_socket(frontend);
    }
    return rc;
}

int frontend_negotiate(Frontend *frontend)
{
    int rc = get_u64(frontend, VHOST_GET_FEATURES, &frontend->offered);
    if (rc == 0 && (frontend->offered & FRONTEND_F_PROTOCOL_FEATURES)) {
        rc = negotiate_protocol(frontend);
    }
    if (rc == 0) {
        rc = frontend_send(frontend, &(FrontendRequest){.request = VHOST_SET_OWNER});
    }
    if (rc == 0) {
        rc = get_u64(frontend, VHOST_GET_FEATURES, &frontend->offered);
    }
    frontend->agreed = frontend->offered & frontend->config.features;
    for (unsigned int i = 0; rc == 0 && i < frontend->n_queues; i++) {
        FrontendQueue *queue = &frontend->queues[i];
        virtqueue_set_features(
            queue->ring,
            &(VirtqueueFeatures){
                .indirect = (frontend->agreed & FRONTEND_F_INDIRECT_DESC) != 0,
                .event_idx = (frontend->agreed & FRONTEND_F_EVENT_IDX) != 0,
                .packed = (frontend->agreed & FRONTEND_F_RING_PACKED) != 0,
            });
        rc = frontend_set_fd(frontend, VHOST_SET_VRING_CALL, i, queue->call_fd);
        if (rc == 0) {
            rc = frontend_set_fd(frontend, VHOST_SET_VRING_ERR, i, queue->err_fd);
        }
    }
    return rc < 0 ? rc : frontend_reset(frontend);
}

/* ---- parts ------------------------------------------------------------------ */

unsigned int frontend_n_queues(const Frontend *frontend)
{
    return frontend->n_queues;
}

Virtqueue *frontend_queue(const Frontend *frontend, unsigned int queue)
{
    return queue < frontend->n_queues ? frontend->queues[queue].ring : NULL;
}

GuestMemory *frontend_memory(const Frontend *frontend)
{
    return frontend->memory;
}

int frontend_socket(const Frontend *frontend)
{
    return frontend->socket;
}

int frontend_backend_socket(const Frontend *frontend)
{
    return frontend->backend_socket;
}

uint64_t frontend_offered(const Frontend *frontend, bool protocol)
{
    return protocol ? frontend->protocol_offered : frontend->offered;
}

uint64_t frontend_agreed(const Frontend *frontend, bool protocol)
{
    return protocol ? frontend->protocol_agreed : frontend->agreed;
}

unsigned int frontend_peer_queues(const Frontend *frontend)
{
    return frontend->peer_queues;
}
