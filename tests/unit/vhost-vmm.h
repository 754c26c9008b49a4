/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_VHOST_VMM_H
#define TESTS_UNIT_VHOST_VMM_H

#include <poll.h>
#include <sys/socket.h>

#include "tests/unit/vhost-ring.h"
#include "virtiofsd/vhost/device.h"

/*
 * A VMM in the test's own process: it sends messages to a device under test and looks at
 * the answers. What the device tells its queue handler is written down.
 */

#define N_QUEUES 3u
#define NR (VU_FLAG_VERSION | VU_FLAG_NEED_REPLY)
#define PLAIN VU_FLAG_VERSION

typedef struct Vmm {
    Guest guest;
    VuDevice *device;
    int peer; /* our end of the connection */
    int interrupt_fd;
    int attend_fd;
    unsigned int n_attended;
    GString *calls;         /* "start1 wake1 stop1 " */
    int kick_fds[N_QUEUES]; /* as last given to start */
    unsigned int n_settled[N_QUEUES];
    VuChain *settles; /* not NULL: answer the chain parked on queue 1 at 0 with it */
    unsigned int fds_before;
} Vmm;

typedef struct Reply {
    struct vu_msg_header header;
    union vu_payload payload;
} Reply;

static inline void on_start(void *opaque, unsigned int queue, int kick_fd)
{
    Vmm *v = opaque;

    g_assert_true(kick_fd == -1 || is_open(kick_fd));
    v->kick_fds[queue] = kick_fd;
    g_string_append_printf(v->calls, "start%u ", queue);
}

static inline void on_stop(void *opaque, unsigned int queue)
{
    Vmm *v = opaque;

    /* still open, so that it can be removed from an epoll */
    g_assert_true(v->kick_fds[queue] == -1 || is_open(v->kick_fds[queue]));
    g_string_append_printf(v->calls, "stop%u ", queue);
}

static inline void on_settle(void *opaque, unsigned int queue)
{
    Vmm *v = opaque;
    VuRing *ring = vu_device_ring(v->device, queue);

    g_assert_false(vu_ring_is_started(ring));
    v->n_settled[queue]++;
    if (v->settles != NULL && queue == 1) {
        g_assert_true(vu_ring_unpark(ring, 0, v->settles));
        vu_ring_push(ring, v->settles, 1);
        v->settles = NULL;
    }
}

static inline void on_wake(void *opaque, unsigned int queue)
{
    Vmm *v = opaque;

    const VuRing *ring = vu_device_ring(v->device, queue);
    g_assert_true(vu_ring_is_started(ring) || vu_ring_in_flight(ring) > 0);
    g_string_append_printf(v->calls, "wake%u ", queue);
}

static inline void on_reset(void *opaque)
{
    Vmm *v = opaque;

    for (unsigned int i = 0; i < N_QUEUES; i++) {
        g_assert_false(vu_ring_is_started(vu_device_ring(v->device, i)));
        g_assert_cmpuint(vu_ring_in_flight(vu_device_ring(v->device, i)), ==, 0);
    }
    g_string_append(v->calls, "reset ");
}

static inline void on_attend(void *opaque)
{
    Vmm *v = opaque;
    uint64_t count;

    g_assert_cmpint(read(v->attend_fd, &count, sizeof(count)), ==, sizeof(count));
    v->n_attended++;
}

/* What the handler was told since the last look. */
static inline void expect_calls(Vmm *v, const char *calls)
{
    g_assert_cmpstr(v->calls->str, ==, calls);
    g_string_truncate(v->calls, 0);
}

static inline void vmm_connect(Vmm *v)
{
    int pair[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    v->peer = pair[0];
    vu_device_connect_take(v->device, pair[1]);
    g_assert_cmpint(vu_device_fd(v->device), ==, pair[1]);
}

/* @config: what is not said here: its tag and its window. */
static inline void vmm_init_device(Vmm *v, VuDeviceConfig config)
{
    *v = (Vmm){.fds_before = count_fds(), .calls = g_string_new(NULL)};
    guest_init(&v->guest, GUEST_QUEUE);
    v->interrupt_fd = make_event();
    v->attend_fd = make_event();
    config.n_queues = N_QUEUES;
    config.interrupt_fd = v->interrupt_fd;
    config.attend_fd = v->attend_fd;
    config.handler =
        (VuQueueHandler){v, on_start, on_stop, on_settle, on_wake, on_reset, on_attend};
    g_autoptr(GError) error = NULL;
    v->device = vu_device_new(&config, &error);
    g_assert_no_error(error);
    vmm_connect(v);
}

static inline void vmm_init(Vmm *v, const char *tag)
{
    vmm_init_device(v, (VuDeviceConfig){.tag = tag});
}

static inline void vmm_clear(Vmm *v)
{
    if (v->device != NULL) {
        g_assert_true(vu_device_disconnect(v->device, 0));
        g_assert_cmpint(vu_device_fd(v->device), ==, -1);
    }
    vu_device_free(v->device);
    if (v->peer >= 0) {
        close(v->peer);
    }
    close(v->interrupt_fd);
    close(v->attend_fd);
    guest_clear(&v->guest);
    g_string_free(v->calls, TRUE);
    g_assert_cmpuint(count_fds(), ==, v->fds_before);
}

typedef struct Outgoing {
    uint32_t request;
    uint32_t flags;
    const void *payload;
    size_t size;
    const int *fds;
    size_t n_fds;
} Outgoing;

static inline void vmm_send(const Vmm *v, const Outgoing *out)
{
    struct vu_msg_header header = {out->request, out->flags, (uint32_t)out->size};
    struct iovec iov[] = {{&header, sizeof(header)},
                          {(void *)(uintptr_t)out->payload, out->size}};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(16 * sizeof(int))];
    } control = {0};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};

    if (out->n_fds > 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(out->n_fds * sizeof(int));
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(out->n_fds * sizeof(int));
        memcpy(CMSG_DATA(&control.header), out->fds, out->n_fds * sizeof(int));
    }
    g_assert_cmpint(sendmsg(v->peer, &msg, MSG_NOSIGNAL), ==,
                    (ssize_t)(sizeof(header) + out->size));
}

/* The next reply. Return: whether there is one at once. */
static inline gboolean vmm_receive(const Vmm *v, Reply *reply)
{
    ssize_t n = recv(v->peer, &reply->header, sizeof(reply->header), MSG_DONTWAIT);

    if (n <= 0) {
        return FALSE;
    }
    g_assert_cmpint(n, ==, sizeof(reply->header));
    g_assert_cmpuint(reply->header.flags, ==, 0x5);
    g_assert_cmpuint(reply->header.size, <=, sizeof(reply->payload));
    if (reply->header.size > 0) {
        n = recv(v->peer, &reply->payload, reply->header.size, MSG_DONTWAIT);
        g_assert_cmpint(n, ==, reply->header.size);
    }
    return TRUE;
}

/* Send and have it obeyed. Return: what vu_device_handle() says. */
static inline VuStatus vmm_do(const Vmm *v, const Outgoing *out)
{
    vmm_send(v, out);
    return vu_device_handle(v->device);
}

/* The same for a message without descriptors. */
static inline VuStatus vmm_say(const Vmm *v, uint32_t request, uint32_t flags,
                               const void *payload, size_t size)
{
    return vmm_do(v, &(Outgoing){request, flags, payload, size, NULL, 0});
}

static inline VuStatus vmm_say_u64(const Vmm *v, uint32_t request, uint64_t value)
{
    return vmm_say(v, request, PLAIN, &value, sizeof(value));
}

static inline VuStatus vmm_say_state(const Vmm *v, uint32_t request, uint32_t index,
                                     uint32_t num)
{
    const struct vu_vring_state state = {index, num};

    return vmm_say(v, request, PLAIN, &state, sizeof(state));
}

/* A request that is answered with a number. */
static inline uint64_t vmm_ask(const Vmm *v, uint32_t request)
{
    Reply reply = {0};

    g_assert_cmpint(vmm_say(v, request, PLAIN, NULL, 0), ==, VU_OK);
    g_assert_true(vmm_receive(v, &reply));
    g_assert_cmpuint(reply.header.request, ==, request);
    g_assert_cmpuint(reply.header.size, ==, 8);
    return reply.payload.u64;
}

/* The acknowledgement that NEED_REPLY asked for. */
static inline uint64_t vmm_ack(const Vmm *v)
{
    Reply reply = {0};

    g_assert_true(vmm_receive(v, &reply));
    g_assert_cmpuint(reply.header.size, ==, 8);
    return reply.payload.u64;
}

#define ALL_FEATURES                                                                     \
    (VU_F_LOG_ALL | VU_F_INDIRECT_DESC | VU_F_EVENT_IDX | VU_F_PROTOCOL_FEATURES |       \
     VU_F_VERSION_1)
/* What a VMM that does not migrate its guest acknowledges. */
#define USUAL_FEATURES (ALL_FEATURES & ~VU_F_LOG_ALL)
/* With the other layout of rings. */
#define OFFERED_FEATURES (ALL_FEATURES | VU_F_RING_PACKED)

/* Agree on everything that is offered, but not to log, and not on packed rings. */
static inline void vmm_negotiate(const Vmm *v)
{
    uint64_t offered = vmm_ask(v, VU_GET_PROTOCOL_FEATURES);

    g_assert_cmpint(vmm_say_u64(v, VU_SET_PROTOCOL_FEATURES, offered), ==, VU_OK);
    g_assert_cmpint(vmm_say_u64(v, VU_SET_FEATURES, USUAL_FEATURES), ==, VU_OK);
}

static inline struct vu_mem_single vmm_region(uint64_t begin, uint64_t end)
{
    return (struct vu_mem_single){.region = {.gpa = GUEST_GPA + begin,
                                             .size = end - begin,
                                             .uva = GUEST_UVA + begin,
                                             .mmap_offset = begin}};
}

/* ADD_MEM_REG or, with -1, REM_MEM_REG. Return: what the acknowledgement says. */
static inline uint64_t vmm_memory(const Vmm *v, uint64_t begin, uint64_t end, int fd)
{
    const struct vu_mem_single single = vmm_region(begin, end);
    const Outgoing out = {fd >= 0 ? VU_ADD_MEM_REG : VU_REM_MEM_REG,
                          NR,
                          &single,
                          sizeof(single),
                          &fd,
                          fd >= 0 ? 1 : 0};

    g_assert_cmpint(vmm_do(v, &out), ==, VU_OK);
    return vmm_ack(v);
}

/* SET_VRING_KICK, CALL or ERR. */
static inline VuStatus vmm_ring_fd(const Vmm *v, uint32_t request, uint32_t index, int fd)
{
    uint64_t payload = fd >= 0 ? index : index | VU_VRING_NOFD;
    const Outgoing out = {request, PLAIN, &payload, sizeof(payload), &fd, fd >= 0};

    return vmm_do(v, &out);
}

static inline VuStatus vmm_ring_addr(const Vmm *v, uint32_t index, uint64_t shift)
{
    const struct vu_vring_addr addr = {.index = index,
                                       .desc = GUEST_UVA + GUEST_DESC + shift,
                                       .used = GUEST_UVA + GUEST_USED + shift,
                                       .avail = GUEST_UVA + GUEST_AVAIL + shift};

    return vmm_say(v, VU_SET_VRING_ADDR, PLAIN, &addr, sizeof(addr));
}

/* Number, base and addresses of a ring, in QEMU's order. */
static inline void vmm_ring(const Vmm *v, uint32_t index, uint32_t base)
{
    g_assert_cmpint(vmm_say_state(v, VU_SET_VRING_NUM, index, GUEST_QUEUE), ==, VU_OK);
    g_assert_cmpint(vmm_say_state(v, VU_SET_VRING_BASE, index, base), ==, VU_OK);
    g_assert_cmpint(vmm_ring_addr(v, index, 0), ==, VU_OK);
}

#endif
