/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The channel for requests from us to the VMM. It is kept open from the moment that the
 * VMM gives it to the end of the connection.
 *
 * One worker at a time has the channel. It sends without blocking, under the lock, so
 * that the control thread, when it closes the channel under the lock, knows that nothing
 * is sent any more; and it waits for the answer without the lock.
 *
 * Who gives up waiting leaves an answer owed. Answers have no number, but come in the
 * order of the requests: as many as are owed are thrown away before one is believed. What
 * is no answer, or answers nothing, closes the channel for good.
 */
#include "virtiofsd/vhost/backend.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "virtiofsd/log.h"

_Static_assert(sizeof(struct vu_backend_reply) == 20, "back-end channel");

int vu_backend_init(VuBackend *backend, bool asks)
{
    pthread_condattr_t monotonic;

    backend->socket = -1;
    backend->give_up_fd = -1;
    pthread_mutex_init(&backend->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&backend->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (asks) {
        backend->give_up_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        return backend->give_up_fd < 0 ? -errno : 0;
    }
    return 0;
}

void vu_backend_free(VuBackend *backend)
{
    autofd_clear(&backend->socket);
    autofd_clear(&backend->give_up_fd);
    pthread_cond_destroy(&backend->changed);
    pthread_mutex_destroy(&backend->lock);
}

/* ---- control thread ---------------------------------------------------------------- */

void vu_backend_give_up(VuBackend *backend, bool gives_up)
{
    uint64_t count = 1;

    pthread_mutex_lock(&backend->lock);
    if (gives_up != backend->gives_up && backend->give_up_fd >= 0) {
        /* Neither fails: it is 0 before the one, and 1 before the other. */
        ssize_t n = gives_up ? write(backend->give_up_fd, &count, sizeof(count))
                             : read(backend->give_up_fd, &count, sizeof(count));
        (void)n;
    }
    backend->gives_up = gives_up;
    pthread_cond_broadcast(&backend->changed);
    pthread_mutex_unlock(&backend->lock);
}

void vu_backend_set_open(VuBackend *backend, bool is_agreed, bool is_open)
{
    pthread_mutex_lock(&backend->lock);
    backend->is_agreed = is_agreed;
    backend->is_open = is_agreed && is_open;
    pthread_cond_broadcast(&backend->changed);
    pthread_mutex_unlock(&backend->lock);
}

/* Context: the lock is held, and who calls has the channel or has seen it free. */
static void set_socket_take(VuBackend *backend, int socket_take)
{
    autofd_clear(&backend->socket);
    backend->socket = socket_take;
    backend->n_owed = 0;
    backend->n_got = 0;
    pthread_cond_broadcast(&backend->changed);
}

/* Who has the channel leaves it at once, because it is to give up: the wait is short. */
static void replace_take(VuBackend *backend, int socket_take)
{
    vu_backend_give_up(backend, true);
    pthread_mutex_lock(&backend->lock);
    while (backend->is_taken) {
        pthread_cond_wait(&backend->changed, &backend->lock);
    }
    set_socket_take(backend, socket_take);
    pthread_mutex_unlock(&backend->lock);
    vu_backend_give_up(backend, false);
}

int vu_backend_connect_take(VuBackend *backend, int socket_take)
{
    g_auto(AutoFd) socket = socket_take;
    struct statx st;

    if (statx(socket, "", AT_EMPTY_PATH, STATX_TYPE, &st) < 0) {
        return -errno;
    }
    if (!S_ISSOCK(st.stx_mode)) {
        return -ENOTSOCK;
    }
    replace_take(backend, autofd_steal(&socket));
    return 0;
}

void vu_backend_clear(VuBackend *backend)
{
    replace_take(backend, -1);
}

/* ---- a worker's turn ----------------------------------------------------------------
 */

static struct timespec deadline(void)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += VU_BACKEND_TIMEOUT_MS / 1000;
    return until;
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Context: the lock is held. Return: 0, why not, or -EAGAIN: not yet. */
static int may_enter(const VuBackend *backend)
{
    if (backend->gives_up) {
        return -EINTR;
    }
    if (backend->socket < 0 || !backend->is_agreed) {
        return -EIO;
    }
    return backend->is_taken || !backend->is_open ? -EAGAIN : 0;
}

int vu_backend_enter(VuBackend *backend)
{
    const struct timespec until = deadline();
    int late = 0;
    int result;

    pthread_mutex_lock(&backend->lock);
    while ((result = may_enter(backend)) == -EAGAIN && late == 0) {
        late = pthread_cond_timedwait(&backend->changed, &backend->lock, &until);
    }
    if (result == 0) {
        backend->is_taken = true;
    }
    pthread_mutex_unlock(&backend->lock);
    return result == -EAGAIN ? -EIO : result;
}

void vu_backend_leave(VuBackend *backend)
{
    pthread_mutex_lock(&backend->lock);
    backend->is_taken = false;
    pthread_cond_broadcast(&backend->changed);
    pthread_mutex_unlock(&backend->lock);
}

/* The VMM does not keep to the protocol, or has closed its end. Return: -EIO. */
static int give_channel_up(VuBackend *backend, const char *why)
{
    static LogLimit limit;

    log_write_limited(&limit, LOG_LEVEL_WARN,
                      "vhost-user back-end channel: %s: no file can be mapped any more",
                      why);
    pthread_mutex_lock(&backend->lock);
    set_socket_take(backend, -1);
    pthread_mutex_unlock(&backend->lock);
    return -EIO;
}

/* ---- answers ------------------------------------------------------------------------
 */

/* Read what is there of the next answer. Descriptors beside it are closed by the kernel,
 * for there is no room for them. Return: 1 when it is whole, 0 if not yet, or -EIO. */
static int receive(VuBackend *backend)
{
    char *bytes = (char *)&backend->reply;
    struct iovec iov = {bytes + backend->n_got, sizeof(backend->reply) - backend->n_got};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n = recvmsg(backend->socket, &msg, MSG_DONTWAIT);

    if (n < 0) {
        return errno == EAGAIN || errno == EINTR
                   ? 0
                   : give_channel_up(backend, "cannot read from it");
    }
    if (n == 0) {
        return give_channel_up(backend, "the VMM has closed it");
    }
    if ((msg.msg_flags & MSG_CTRUNC) != 0) {
        return give_channel_up(backend, "descriptors where none belong");
    }
    backend->n_got += (size_t)n;
    if (backend->n_got < sizeof(backend->reply)) {
        return 0;
    }
    backend->n_got = 0;
    const struct vu_msg_header *header = &backend->reply.header;
    if (header->flags != (VU_FLAG_VERSION | VU_FLAG_REPLY) ||
        header->size != sizeof(backend->reply.value)) {
        return give_channel_up(backend, "what came is no answer");
    }
    return 1;
}

/* Before something is asked: what is owed may have come. Return: 0 or -EIO. */
static int settle(VuBackend *backend)
{
    while (backend->n_owed > 0) {
        int got = receive(backend);
        if (got < 0) {
            return got;
        }
        if (got == 0) {
            return backend->n_owed < VU_BACKEND_OWED_MAX ? 0 : -EIO;
        }
        backend->n_owed--;
    }
    int got = receive(backend);
    if (got > 0 || backend->n_got > 0) {
        return give_channel_up(backend, "an answer to nothing");
    }
    return got;
}

static int result_of(VuBackend *backend, enum vu_backend_number number)
{
    uint64_t value;

    if (backend->reply.header.request != (uint32_t)number) {
        return give_channel_up(backend, "an answer to something else");
    }
    memcpy(&value, backend->reply.value, sizeof(value));
    return value == 0 ? 0 : -EIO;
}

/* Wait for more of the answer. Return: 0; -EINTR to give up; -EIO if the time is over. */
static int wait_more(VuBackend *backend, int64_t until_ms)
{
    static LogLimit limit;
    struct pollfd fds[] = {
        {.fd = backend->socket, .events = POLLIN},
        {.fd = backend->give_up_fd, .events = POLLIN},
    };
    int64_t left = until_ms - now_ms();
    int n = left > 0 ? poll(fds, 2, (int)left) : 0;

    if (n == 0) {
        log_write_limited(&limit, LOG_LEVEL_WARN,
                          "vhost-user back-end channel: no answer from the VMM in time");
        return -EIO;
    }
    if (n < 0) {
        return errno == EINTR ? 0 : -EIO;
    }
    return fds[1].revents != 0 ? -EINTR : 0;
}

/* @ret_unsure: set if it ends without an answer. */
static int await(VuBackend *backend, enum vu_backend_number number, bool *ret_unsure)
{
    int64_t until_ms = now_ms() + VU_BACKEND_TIMEOUT_MS;

    *ret_unsure = true;
    for (;;) {
        int got = receive(backend);
        if (got < 0) {
            return got;
        }
        if (got > 0 && backend->n_owed == 0) {
            int result = result_of(backend, number);
            *ret_unsure = backend->socket < 0;
            return result;
        }
        if (got > 0) {
            backend->n_owed--;
            continue;
        }
        int waited = wait_more(backend, until_ms);
        if (waited < 0) {
            backend->n_owed++;
            return waited;
        }
    }
}

/* ---- questions ----------------------------------------------------------------------
 */

/* Context: the lock is held. Return: bytes sent, or a negative errno. */
static ssize_t send_now(VuBackend *backend, const VuBackendRequest *request)
{
    struct vu_msg_header header = {
        .request = (uint32_t)request->number,
        .flags = VU_FLAG_VERSION | VU_FLAG_NEED_REPLY,
        .size = request->size,
    };
    char bytes[sizeof(header) + sizeof(request->payload)];
    struct iovec iov = {bytes, sizeof(header) + request->size};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    memcpy(bytes, &header, sizeof(header));
    memcpy(bytes + sizeof(header), &request->payload, request->size);
    if (request->fd >= 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = sizeof(control.bytes);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.header), &request->fd, sizeof(int));
    }
    ssize_t n = sendmsg(backend->socket, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    return n < 0 ? -errno : n;
}

static int send_request(VuBackend *backend, const VuBackendRequest *request)
{
    const ssize_t whole = (ssize_t)(sizeof(struct vu_msg_header) + request->size);
    ssize_t sent = -EINTR;

    pthread_mutex_lock(&backend->lock);
    if (backend->is_open && !backend->gives_up) {
        sent = send_now(backend, request);
    }
    pthread_mutex_unlock(&backend->lock);
    if (sent == whole || sent == -EINTR) {
        return sent < 0 ? -EINTR : 0;
    }
    /* Anything else is a want of room, which may pass. */
    bool is_broken = sent >= 0 || sent == -EPIPE || sent == -ECONNRESET;
    return is_broken ? give_channel_up(backend, "cannot write to it") : -EIO;
}

int vu_backend_ask(VuBackend *backend, const VuBackendRequest *request, bool *ret_unsure)
{
    *ret_unsure = false;
    if (backend->socket < 0) {
        return -EIO;
    }
    int result = settle(backend);
    if (result == 0) {
        result = send_request(backend, request);
    }
    return result < 0 ? result : await(backend, request->number, ret_unsure);
}
