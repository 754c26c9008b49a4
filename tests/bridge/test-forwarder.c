/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The forwarder between a socket that plays /dev/fuse and a device in this process: what
 * reaches the device, what comes back, and what becomes of answers that no guest would
 * accept. The filter of INIT is tested with it.
 */
#include <errno.h>
#include <glib.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bridge/forwarder.h"
#include "tests/bridge/init-filter.h"
#include "tests/support/loopback.h"

#define WAIT_MS 10000

/* Node ids that tell the device what to do wrong. */
enum {
    NODE_GOOD = 1,
    NODE_ERROR,          /* -ENOENT */
    NODE_SHORT_LEN,      /* header.len less than what is written */
    NODE_OTHER_UNIQUE,   /* another request's number */
    NODE_POSITIVE_ERROR, /* error > 0 */
    NODE_LONG_ERROR,     /* an error with a payload */
    NODE_EMPTY,          /* nothing at all */
};

typedef struct Bench {
    Frontend *frontend;
    Forwarder *forwarder;
    Loopback *devices[3];
    int kernel[2]; /* our ends of two descriptors of the device */
    int fuse[2];
    int event_fd;
    uint32_t opcodes[3]; /* last one that each queue saw; atomic */
} Bench;

typedef struct Device {
    Bench *bench;
    unsigned int queue;
} Device;

static Device devices[3];

static uint32_t answer(void *opaque, const uint8_t *in, size_t size, uint8_t *out,
                       size_t room)
{
    Device *device = opaque;
    struct fuse_in_header header;
    g_assert_cmpuint(size, >=, sizeof(header));
    memcpy(&header, in, sizeof(header));
    __atomic_store_n(&device->bench->opcodes[device->queue], header.opcode,
                     __ATOMIC_RELEASE);
    if (room == 0) {
        return 0;
    }
    struct fuse_out_header reply = {.len = (uint32_t)room, .unique = header.unique};
    memset(out, (int)header.unique, room);
    switch (header.nodeid) {
    case NODE_ERROR:
        reply.error = -ENOENT;
        reply.len = sizeof(reply);
        break;
    case NODE_SHORT_LEN:
        reply.len--;
        break;
    case NODE_OTHER_UNIQUE:
        reply.unique += 2;
        break;
    case NODE_POSITIVE_ERROR:
        reply.error = 1;
        reply.len = sizeof(reply);
        break;
    case NODE_LONG_ERROR:
        reply.error = -ENOENT;
        break;
    case NODE_EMPTY:
        return 0;
    default:
        break;
    }
    memcpy(out, &reply, sizeof(reply));
    return header.nodeid == NODE_SHORT_LEN ? (uint32_t)room : reply.len;
}

static void setup(Bench *bench, unsigned int n_slots)
{
    *bench = (Bench){0};
    FrontendConfig config;
    frontend_config_init(&config);
    config.n_request_queues = 2;
    config.memory_size = forwarder_memory_size(n_slots);
    config.n_regions = 1;
    bench->frontend = frontend_new(&config);
    g_assert_nonnull(bench->frontend);
    for (unsigned int i = 0; i < 2; i++) {
        int pair[2];
        g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), ==, 0);
        bench->kernel[i] = pair[0];
        bench->fuse[i] = pair[1];
    }
    bench->event_fd = eventfd(0, EFD_NONBLOCK);
    bench->forwarder = forwarder_new(&(ForwarderConfig){.frontend = bench->frontend,
                                                        .fuse_fds = bench->fuse,
                                                        .n_readers = 2,
                                                        .n_slots = n_slots,
                                                        .event_fd = bench->event_fd});
    g_assert_nonnull(bench->forwarder);
    for (unsigned int i = 0; i < 3; i++) {
        devices[i] = (Device){.bench = bench, .queue = i};
        bench->devices[i] =
            loopback_start(&(LoopbackConfig){.memory = frontend_memory(bench->frontend),
                                             .queue = frontend_queue(bench->frontend, i),
                                             .event_idx = true,
                                             .handler = answer,
                                             .opaque = &devices[i]});
        g_assert_nonnull(bench->devices[i]);
    }
    g_assert_cmpint(forwarder_start(bench->forwarder), ==, 0);
}

static void teardown(Bench *bench)
{
    g_assert_true(forwarder_stop(bench->forwarder, WAIT_MS));
    for (unsigned int i = 0; i < 3; i++) {
        loopback_stop(bench->devices[i]);
    }
    forwarder_free(bench->forwarder);
    frontend_free(bench->frontend);
    for (unsigned int i = 0; i < 2; i++) {
        close(bench->kernel[i]);
        close(bench->fuse[i]);
    }
    close(bench->event_fd);
}

static void ask(const Bench *bench, unsigned int fd, uint32_t opcode, uint64_t nodeid,
                uint64_t unique)
{
    uint8_t request[sizeof(struct fuse_in_header) + 64] = {0};
    struct fuse_in_header header = {
        .len = sizeof(request), .opcode = opcode, .nodeid = nodeid, .unique = unique};
    memcpy(request, &header, sizeof(header));
    g_assert_cmpint(write(bench->kernel[fd], request, sizeof(request)), ==,
                    (ssize_t)sizeof(request));
}

static struct fuse_out_header hear(const Bench *bench, unsigned int fd, ssize_t size)
{
    uint8_t reply[4096];
    struct fuse_out_header header;
    struct pollfd pfd = {.fd = bench->kernel[fd], .events = POLLIN};
    g_assert_cmpint(poll(&pfd, 1, WAIT_MS), ==, 1);
    g_assert_cmpint(read(bench->kernel[fd], reply, sizeof(reply)), ==, size);
    memcpy(&header, reply, sizeof(header));
    g_assert_cmpuint(header.len, ==, (uint32_t)size);
    return header;
}

/* Each answer goes to the descriptor where its request was read. */
static void test_answers(void)
{
    Bench bench;
    setup(&bench, 8);
    for (uint64_t i = 1; i < 2000; i++) {
        unsigned int fd = i % 3 == 0;
        ask(&bench, fd, FUSE_GETATTR, NODE_GOOD, i);
        struct fuse_out_header header =
            hear(&bench, fd, sizeof(header) + sizeof(struct fuse_attr_out));
        g_assert_cmpuint(header.unique, ==, i);
        g_assert_cmpint(header.error, ==, 0);
    }
    ask(&bench, 0, FUSE_GETATTR, NODE_ERROR, 7);
    g_assert_cmpint(hear(&bench, 0, sizeof(struct fuse_out_header)).error, ==, -ENOENT);
    g_assert_cmpuint(forwarder_counters(bench.forwarder).malformed, ==, 0);
    g_assert_cmpuint(forwarder_counters(bench.forwarder).requests, ==, 2000);
    teardown(&bench);
}

static void test_malformed(void)
{
    Bench bench;
    setup(&bench, 2);
    for (uint64_t node = NODE_SHORT_LEN; node <= NODE_EMPTY; node++) {
        ask(&bench, 1, FUSE_GETATTR, node, 100 + node);
        struct fuse_out_header header = hear(&bench, 1, sizeof(header));
        g_assert_cmpuint(header.unique, ==, 100 + node);
        g_assert_cmpint(header.error, ==, -EIO);
    }
    g_assert_cmpuint(forwarder_counters(bench.forwarder).malformed, ==,
                     NODE_EMPTY - NODE_SHORT_LEN + 1);
    g_assert_cmpint(forwarder_state(bench.forwarder), ==, FORWARDER_STARTING);
    teardown(&bench);
}

/* FORGET goes to hiprio and is not answered, INTERRUPT goes nowhere, others by reader. */
static void test_queues(void)
{
    Bench bench;
    setup(&bench, 4);
    for (unsigned int i = 0; i < 100; i++) {
        ask(&bench, 0, FUSE_FORGET, 1, 2 * i);
        ask(&bench, 0, FUSE_INTERRUPT, 1, 2 * i + 1);
    }
    ask(&bench, 0, FUSE_GETATTR, NODE_GOOD, 1000);
    ask(&bench, 1, FUSE_STATFS, NODE_GOOD, 1001);
    g_assert_cmpuint(hear(&bench, 0, 16 + sizeof(struct fuse_attr_out)).unique, ==, 1000);
    g_assert_cmpuint(hear(&bench, 1, 16 + sizeof(struct fuse_statfs_out)).unique, ==,
                     1001);
    g_assert_cmpuint(__atomic_load_n(&bench.opcodes[0], __ATOMIC_ACQUIRE), ==,
                     FUSE_FORGET);
    g_assert_cmpuint(__atomic_load_n(&bench.opcodes[1], __ATOMIC_ACQUIRE), ==,
                     FUSE_GETATTR);
    g_assert_cmpuint(__atomic_load_n(&bench.opcodes[2], __ATOMIC_ACQUIRE), ==,
                     FUSE_STATFS);
    g_assert_cmpuint(forwarder_counters(bench.forwarder).requests, ==, 102);
    teardown(&bench);
}

static void test_init(void)
{
    Bench bench;
    setup(&bench, 2);
    ask(&bench, 0, FUSE_INIT, NODE_GOOD, 2);
    (void)hear(&bench, 0, 16 + sizeof(struct fuse_init_out));
    struct pollfd pfd = {.fd = bench.event_fd, .events = POLLIN};
    g_assert_cmpint(poll(&pfd, 1, WAIT_MS), ==, 1);
    g_assert_cmpint(forwarder_state(bench.forwarder), ==, FORWARDER_SERVING);
    g_assert_true(forwarder_stop(bench.forwarder, WAIT_MS));
    g_assert_cmpint(forwarder_destroy_session(bench.forwarder, WAIT_MS), ==, 0);
    g_assert_cmpuint(__atomic_load_n(&bench.opcodes[1], __ATOMIC_ACQUIRE), ==,
                     FUSE_DESTROY);
    teardown(&bench);

    setup(&bench, 2);
    ask(&bench, 0, FUSE_INIT, NODE_ERROR, 2);
    g_assert_cmpint(hear(&bench, 0, 16).error, ==, -ENOENT);
    pfd.fd = bench.event_fd;
    g_assert_cmpint(poll(&pfd, 1, WAIT_MS), ==, 1);
    g_assert_cmpint(forwarder_state(bench.forwarder), ==, FORWARDER_FAILED);
    g_assert_nonnull(strstr(forwarder_error(bench.forwarder), "INIT"));
    teardown(&bench);
}

static void test_filter(void)
{
    struct {
        struct fuse_in_header header;
        struct fuse_init_in init;
    } request = {.init = {.flags = UINT32_MAX, .flags2 = UINT32_MAX}};
    struct {
        struct fuse_out_header header;
        struct fuse_init_out init;
    } reply = {.init = {.flags = UINT32_MAX,
                        .flags2 = UINT32_MAX,
                        .max_write = 5u << 20,
                        .max_pages = 999}};
    uint32_t refused = FUSE_SPLICE_READ | FUSE_SPLICE_WRITE | FUSE_SPLICE_MOVE |
                       FUSE_SUBMOUNTS | FUSE_MAP_ALIGNMENT;
    uint32_t refused2 =
        1u << (33 - 32) | 1u << (37 - 32) | 1u << (41 - 32) | 1u << (42 - 32);
    init_filter_request((uint8_t *)&request, sizeof(request));
    g_assert_cmphex(request.init.flags, ==, ~refused);
    g_assert_cmphex(request.init.flags2, ==, ~refused2);

    InitLimits limits = {.max_write = 1u << 20, .max_pages = 256};
    init_filter_reply((uint8_t *)&reply, sizeof(reply), &limits);
    g_assert_cmphex(reply.init.flags, ==, ~refused);
    g_assert_cmphex(reply.init.flags2, ==, ~refused2);
    g_assert_cmpuint(reply.init.max_write, ==, 1u << 20);
    g_assert_cmpuint(reply.init.max_pages, ==, 256);

    /* The short INIT of kernels before 7.36. */
    request.init.flags = UINT32_MAX;
    request.init.flags2 = UINT32_MAX;
    init_filter_request((uint8_t *)&request, sizeof(request.header) + 16);
    g_assert_cmphex(request.init.flags, ==, ~refused);
    g_assert_cmphex(request.init.flags2, ==, UINT32_MAX);
}

static void ignore_signal(int number)
{
    (void)number; /* it only ends a read(2) */
}

int main(int argc, char **argv)
{
    struct sigaction interrupt = {.sa_handler = ignore_signal};
    g_assert_cmpint(sigaction(SIGUSR1, &interrupt, NULL), ==, 0);
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/forwarder/answers", test_answers);
    g_test_add_func("/forwarder/malformed", test_malformed);
    g_test_add_func("/forwarder/queues", test_queues);
    g_test_add_func("/forwarder/init", test_init);
    g_test_add_func("/init-filter/flags", test_filter);
    return g_test_run();
}
