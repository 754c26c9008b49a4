/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost-user framing against a peer that does everything wrong that a peer can do.
 */
#include "virtiofsd/vhost/message.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/vhost-guest.h"
#include "virtiofsd/autofd.h"
#include "virtiofsd/log.h"

#define HEADER sizeof(struct vu_msg_header)

typedef struct Pair {
    AutoFd peer;
    AutoFd ours;
    AutoFd interrupt;
    unsigned int fds_before;
} Pair;

static void pair_open(Pair *pair)
{
    int fds[2];

    pair->fds_before = count_fds();
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
    pair->peer = fds[0];
    pair->ours = fds[1];
    pair->interrupt = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static void pair_close(Pair *pair)
{
    autofd_clear(&pair->peer);
    autofd_clear(&pair->ours);
    autofd_clear(&pair->interrupt);
    g_assert_cmpuint(count_fds(), ==, pair->fds_before);
}

static void raise_interrupt(const Pair *pair)
{
    uint64_t one = 1;

    g_assert_cmpint(write(pair->interrupt, &one, sizeof(one)), ==, sizeof(one));
}

static VuStatus receive(const Pair *pair, VuMessage *message)
{
    return vu_message_receive(message, pair->ours, pair->interrupt);
}

/* Header and payload of a message as bytes. Return: how many. */
static size_t compose(char *bytes, uint32_t request, uint32_t flags, size_t payload)
{
    struct vu_msg_header header = {request, flags, (uint32_t)payload};

    memcpy(bytes, &header, HEADER);
    for (size_t i = 0; i < payload; i++) {
        bytes[HEADER + i] = (char)(i * 7 + 1);
    }
    return HEADER + payload;
}

static void send_with_fds(int socket, const void *bytes, size_t size, const int *fds,
                          size_t n)
{
    char control[CMSG_SPACE(64 * sizeof(int))] = {0};
    struct iovec iov = {(void *)(uintptr_t)bytes, size};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (n > 0) {
        msg.msg_control = control;
        msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n * sizeof(int));
    }
    g_assert_cmpint(sendmsg(socket, &msg, MSG_NOSIGNAL), ==, (ssize_t)size);
}

static void check_payload(const VuMessage *message, size_t size)
{
    const char *bytes = (const char *)&message->payload;

    g_assert_cmpuint(message->header.size, ==, size);
    for (size_t i = 0; i < sizeof(message->payload); i++) {
        g_assert_cmpint(bytes[i], ==, i < size ? (char)(i * 7 + 1) : 0);
    }
}

static void test_whole(void)
{
    const size_t sizes[] = {0, 8, 16, 40, 264, VU_PAYLOAD_MAX};
    char bytes[HEADER + VU_PAYLOAD_MAX];
    Pair pair;

    pair_open(&pair);
    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        VuMessage message;
        size_t n = compose(bytes, 5, 0x9, sizes[i]);
        send_with_fds(pair.peer, bytes, n, NULL, 0);
        g_assert_cmpint(receive(&pair, &message), ==, VU_OK);
        g_assert_cmpuint(message.header.request, ==, 5);
        g_assert_cmpuint(message.header.flags, ==, 0x9);
        g_assert_cmpuint(message.n_fds, ==, 0);
        check_payload(&message, sizes[i]);
        vu_message_clear(&message);
    }
    pair_close(&pair);
}

/* Two messages in one send must not be mixed. */
static void test_two_at_once(void)
{
    char bytes[HEADER + VU_PAYLOAD_MAX];
    VuMessage message;
    Pair pair;

    pair_open(&pair);
    size_t n = compose(bytes, 2, 1, 8);
    n += compose(bytes + n, 3, 1, 40);
    send_with_fds(pair.peer, bytes, n, NULL, 0);
    g_assert_cmpint(receive(&pair, &message), ==, VU_OK);
    check_payload(&message, 8);
    g_assert_cmpint(receive(&pair, &message), ==, VU_OK);
    check_payload(&message, 40);
    pair_close(&pair);
}

typedef struct Drip {
    int socket;
    size_t n;
    const char *bytes;
} Drip;

static void *drip_main(void *data)
{
    const Drip *drip = data;

    for (size_t i = 0; i < drip->n; i++) {
        g_usleep(200);
        send_with_fds(drip->socket, drip->bytes + i, 1, NULL, 0);
    }
    return NULL;
}

static void test_byte_by_byte(void)
{
    char bytes[HEADER + VU_PAYLOAD_MAX];
    VuMessage message;
    pthread_t thread;
    Pair pair;

    pair_open(&pair);
    Drip drip = {pair.peer, compose(bytes, 5, 1, VU_PAYLOAD_MAX), bytes};
    g_assert_cmpint(pthread_create(&thread, NULL, drip_main, &drip), ==, 0);
    g_assert_cmpint(receive(&pair, &message), ==, VU_OK);
    check_payload(&message, VU_PAYLOAD_MAX);
    pthread_join(thread, NULL);
    pair_close(&pair);
}

static void test_cut_off(void)
{
    char bytes[64];
    size_t n = compose(bytes, 2, 1, 8);

    for (size_t cut = 0; cut < n; cut++) {
        VuMessage message;
        Pair pair;
        pair_open(&pair);
        if (cut > 0) {
            send_with_fds(pair.peer, bytes, cut, NULL, 0);
        }
        autofd_clear(&pair.peer);
        g_assert_cmpint(receive(&pair, &message), ==, cut == 0 ? VU_CLOSED : VU_BAD_PEER);
        vu_message_clear(&message);
        pair_close(&pair);
    }
}

/* A peer that dies without having read what we sent: ECONNRESET, not an error of ours. */
static void test_reset(void)
{
    VuMessage message = {.header = {.request = 1, .size = 8}};
    Pair pair;

    pair_open(&pair);
    g_assert_cmpint(vu_message_reply(&message, pair.ours, -1), ==, VU_OK);
    autofd_clear(&pair.peer);
    g_assert_cmpint(receive(&pair, &message), ==, VU_CLOSED);
    pair_close(&pair);
}

/* Refused by the header alone, without waiting for what it announces. */
static void test_header(void)
{
    const struct {
        uint32_t flags;
        size_t size;
        VuStatus status;
    } cases[] = {
        {0x1, 0, VU_OK},
        {0x9, 0, VU_OK},
        {0xfffffff9u, 0, VU_OK},
        {0x0, 0, VU_BAD_PEER},
        {0x2, 0, VU_BAD_PEER},
        {0x3, 0, VU_BAD_PEER},
        {0x5, 0, VU_BAD_PEER},
        {0xd, 0, VU_BAD_PEER},
        {0x1, VU_PAYLOAD_MAX + 1, VU_BAD_PEER},
        {0x1, 4096, VU_BAD_PEER},
        {0x1, 1u << 31, VU_BAD_PEER},
        {0x1, UINT32_MAX, VU_BAD_PEER},
    };

    gint64 start = g_get_monotonic_time();
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        struct vu_msg_header header = {1, cases[i].flags, (uint32_t)cases[i].size};
        VuMessage message;
        Pair pair;
        pair_open(&pair);
        send_with_fds(pair.peer, &header, sizeof(header), NULL, 0);
        g_assert_cmpint(receive(&pair, &message), ==, cases[i].status);
        pair_close(&pair);
    }
    gint64 ms = (g_get_monotonic_time() - start) / 1000;
    g_assert_cmpint(ms, <, VU_MESSAGE_TIMEOUT_MS);
}

/* 0 to 32 descriptors arrive, close-on-exec; more are refused; none is ever left over. */
static void test_descriptors(void)
{
    char bytes[64];
    size_t n = compose(bytes, 2, 1, 8);

    for (size_t n_fds = 0; n_fds <= 40; n_fds++) {
        int fds[40];
        VuMessage message;
        Pair pair;
        pair_open(&pair);
        for (size_t i = 0; i < n_fds; i++) {
            fds[i] = pair.interrupt;
        }
        send_with_fds(pair.peer, bytes, n, fds, n_fds);
        VuStatus status = receive(&pair, &message);
        g_assert_cmpint(status, ==, n_fds <= 32 ? VU_OK : VU_BAD_PEER);
        if (status == VU_OK) {
            g_assert_cmpuint(message.n_fds, ==, n_fds);
            g_assert_false(message.fds_lost);
        }
        for (size_t i = 0; status == VU_OK && i < n_fds; i++) {
            g_assert_cmpint(fcntl(message.fds[i], F_GETFD), ==, FD_CLOEXEC);
        }
        vu_message_clear(&message);
        pair_close(&pair);
    }
}

static void test_steal(void)
{
    char bytes[64];
    size_t n = compose(bytes, 2, 1, 8);
    VuMessage message;
    Pair pair;

    pair_open(&pair);
    const int fds[] = {pair.interrupt, pair.interrupt};
    send_with_fds(pair.peer, bytes, n, fds, 2);
    g_assert_cmpint(receive(&pair, &message), ==, VU_OK);
    int kept = message.fds[1];
    int closed = message.fds[0];
    g_assert_cmpint(vu_message_steal_fd(&message, 1), ==, kept);
    g_assert_cmpint(vu_message_steal_fd(&message, 1), ==, -1);
    g_assert_cmpint(vu_message_steal_fd(&message, 2), ==, -1);
    vu_message_clear(&message);
    g_assert_true(is_open(kept));
    g_assert_false(is_open(closed));
    close(kept);
    pair_close(&pair);
}

/* Descriptors beside the payload are closed, and the message is refused. The kernel may
 * hand over those that came in the middle of the header with its first byte. */
static void test_late_descriptors(void)
{
    char bytes[64];
    size_t n = compose(bytes, 2, 1, 8);

    for (size_t at = 1; at < n; at++) {
        VuMessage message;
        Pair pair;
        pair_open(&pair);
        send_with_fds(pair.peer, bytes, at, NULL, 0);
        send_with_fds(pair.peer, bytes + at, n - at, &pair.interrupt, 1);
        VuStatus status = receive(&pair, &message);
        g_assert_cmpint(status, ==, at < HEADER ? VU_OK : VU_BAD_PEER);
        g_assert_cmpuint(message.n_fds, ==, at < HEADER ? 1 : 0);
        vu_message_clear(&message);
        pair_close(&pair);
    }
}

/* The message is whole, but this process has no room for its descriptors. */
static void test_no_room(void)
{
    struct rlimit limit, none;
    char bytes[64];
    size_t n = compose(bytes, 2, 1, 8);
    VuMessage message;
    Pair pair;

    pair_open(&pair);
    const int fds[] = {pair.interrupt, pair.interrupt, pair.interrupt};
    send_with_fds(pair.peer, bytes, n, fds, 3);
    int lowest = dup(pair.interrupt);
    close(lowest);
    g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    none = limit;
    none.rlim_cur = (rlim_t)lowest + 1; /* room for one of the three */
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &none), ==, 0);
    VuStatus status = receive(&pair, &message);
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    g_assert_cmpint(status, ==, VU_OK);
    g_assert_true(message.fds_lost);
    g_assert_cmpuint(message.n_fds, <=, 1);
    check_payload(&message, 8);
    vu_message_clear(&message);
    pair_close(&pair);
}

static void test_interrupted(void)
{
    char bytes[64];
    size_t n = compose(bytes, 2, 1, 8);
    VuMessage message;

    for (size_t sent = 0; sent < n; sent++) {
        Pair pair;
        pair_open(&pair);
        if (sent > 0) {
            send_with_fds(pair.peer, bytes, sent, NULL, 0);
        }
        raise_interrupt(&pair);
        g_assert_cmpint(receive(&pair, &message), ==, VU_INTERRUPTED);
        vu_message_clear(&message);
        pair_close(&pair);
    }
}

static void test_reply(void)
{
    VuMessage message = {.header = {.request = 17, .flags = 0x9, .size = 8}};
    char bytes[HEADER + 8 + 1];
    Pair pair;

    pair_open(&pair);
    message.payload.u64 = 0x1122334455667788;
    g_assert_cmpint(vu_message_reply(&message, pair.ours, pair.interrupt), ==, VU_OK);
    g_assert_cmpint(recv(pair.peer, bytes, sizeof(bytes), 0), ==, HEADER + 8);
    const struct vu_msg_header expected = {17, 0x5, 8};
    g_assert_cmpint(memcmp(bytes, &expected, HEADER), ==, 0);
    g_assert_cmpint(memcmp(bytes + HEADER, &message.payload, 8), ==, 0);

    autofd_clear(&pair.peer);
    g_assert_cmpint(vu_message_reply(&message, pair.ours, pair.interrupt), ==, VU_CLOSED);
    pair_close(&pair);
}

/* Fill the peer's receive buffer, as a VMM that never reads does. */
static void fill(int socket)
{
    char junk[512] = {0};

    while (send(socket, junk, sizeof(junk), MSG_DONTWAIT) > 0) {
    }
    while (send(socket, junk, 1, MSG_DONTWAIT) > 0) {
    }
}

static void test_reply_interrupted(void)
{
    VuMessage message = {.header = {.request = 17, .size = 8}};
    Pair pair;

    pair_open(&pair);
    fill(pair.ours);
    raise_interrupt(&pair);
    g_assert_cmpint(vu_message_reply(&message, pair.ours, pair.interrupt), ==,
                    VU_INTERRUPTED);
    pair_close(&pair);
}

static void *stalled_receive(void *data)
{
    VuMessage message;

    g_assert_cmpint(receive(data, &message), ==, VU_BAD_PEER);
    vu_message_clear(&message);
    return NULL;
}

/* Half a message, and a reply that is not read: both end, after the time allowed. */
static void test_deadlines(void)
{
    VuMessage message = {.header = {.request = 17, .size = 8}};
    Pair half, unread;
    pthread_t thread;

    pair_open(&half);
    pair_open(&unread);
    send_with_fds(half.peer, "\1", 1, NULL, 0);
    fill(unread.ours);
    gint64 start = g_get_monotonic_time();
    g_assert_cmpint(pthread_create(&thread, NULL, stalled_receive, &half), ==, 0);
    g_assert_cmpint(vu_message_reply(&message, unread.ours, unread.interrupt), ==,
                    VU_BAD_PEER);
    pthread_join(thread, NULL);
    gint64 ms = (g_get_monotonic_time() - start) / 1000;
    g_assert_cmpint(ms, >=, VU_MESSAGE_TIMEOUT_MS - 10);
    g_assert_cmpint(ms, <, VU_MESSAGE_TIMEOUT_MS + 3000);
    pair_close(&unread);
    pair_close(&half);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_threshold = LOG_LEVEL_OFF;
    g_test_add_func("/message/whole", test_whole);
    g_test_add_func("/message/two-at-once", test_two_at_once);
    g_test_add_func("/message/byte-by-byte", test_byte_by_byte);
    g_test_add_func("/message/cut-off", test_cut_off);
    g_test_add_func("/message/reset", test_reset);
    g_test_add_func("/message/header", test_header);
    g_test_add_func("/message/descriptors", test_descriptors);
    g_test_add_func("/message/steal", test_steal);
    g_test_add_func("/message/late-descriptors", test_late_descriptors);
    g_test_add_func("/message/no-room", test_no_room);
    g_test_add_func("/message/interrupted", test_interrupted);
    g_test_add_func("/message/reply", test_reply);
    g_test_add_func("/message/reply-interrupted", test_reply_interrupted);
    g_test_add_func("/message/deadlines", test_deadlines);
    return g_test_run();
}
