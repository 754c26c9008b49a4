/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The FUSE client against a device in this process: how requests are laid out, who gets
 * which answer, and what it says to answers that no guest would accept.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/fuse-client.h"
#include "tests/support/fuse-ops.h"
#include "tests/support/loopback.h"
#include "tests/support/reply-room.h"

/* Node ids that tell the device what to do wrong. */
enum {
    NODE_ERROR = 100,    /* answer with -ENOENT */
    NODE_SHORT_LEN,      /* header.len one less than what is written */
    NODE_OTHER_UNIQUE,   /* another request's number */
    NODE_POSITIVE_ERROR, /* error > 0 */
    NODE_HALF_HEADER,    /* 8 bytes */
    NODE_EMPTY,          /* nothing */
    NODE_SLOW,           /* after 300 ms */
};

typedef struct Bench {
    Frontend *frontend;
    Client *client;
    Loopback *devices[2];
    int peer;
} Bench;

/* READ is answered with the request's offset in every word; anything else with nothing.
 */
static uint32_t answer(void *opaque, const uint8_t *in, size_t size, uint8_t *out,
                       size_t room)
{
    struct fuse_in_header header;
    struct fuse_read_in read;
    g_assert_cmpuint(size, >=, sizeof(header));
    memcpy(&header, in, sizeof(header));
    if (room == 0) {
        return 0;
    }
    struct fuse_out_header reply = {.len = sizeof(reply), .unique = header.unique};
    if (header.opcode == FUSE_READ && size >= sizeof(header) + sizeof(read)) {
        memcpy(&read, in + sizeof(header), sizeof(read));
        reply.len += read.size;
        for (size_t i = 0; i < read.size / 8; i++) {
            memcpy(out + sizeof(reply) + 8 * i, &read.offset, 8);
        }
    }
    uint32_t used = reply.len;
    switch (header.nodeid) {
    case NODE_ERROR:
        reply.error = -ENOENT;
        break;
    case NODE_SHORT_LEN:
        reply.len--;
        break;
    case NODE_OTHER_UNIQUE:
        reply.unique ^= 2;
        break;
    case NODE_POSITIVE_ERROR:
        reply.error = ENOENT;
        break;
    case NODE_HALF_HEADER:
        used = 8;
        break;
    case NODE_EMPTY:
        return 0;
    case NODE_SLOW:
        g_usleep(300000);
        break;
    default:
        break;
    }
    memcpy(out, &reply, sizeof(reply));
    return used;
}

static void setup(Bench *bench, const ClientConfig *client)
{
    FrontendConfig config;
    frontend_config_init(&config);
    config.n_regions = 3;
    bench->frontend = frontend_new(&config);
    g_assert_nonnull(bench->frontend);
    int pair[2];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), ==, 0);
    frontend_attach_take(bench->frontend, pair[0]);
    bench->peer = pair[1];
    bench->client = client_new(bench->frontend, client);
    g_assert_nonnull(bench->client);
    for (unsigned int i = 0; i < 2; i++) {
        bench->devices[i] =
            loopback_start(&(LoopbackConfig){.memory = frontend_memory(bench->frontend),
                                             .queue = frontend_queue(bench->frontend, i),
                                             .event_idx = true,
                                             .handler = answer});
        g_assert_nonnull(bench->devices[i]);
    }
}

static void teardown(Bench *bench)
{
    loopback_stop(bench->devices[0]);
    loopback_stop(bench->devices[1]);
    client_free(bench->client);
    frontend_free(bench->frontend);
    if (bench->peer >= 0) {
        close(bench->peer);
    }
}

static int read_node(Client *client, uint64_t nodeid, uint64_t offset, uint32_t size)
{
    g_autofree uint64_t *words = g_malloc0(size + 8);
    ClientIo io = {.nodeid = nodeid, .offset = offset, .size = size};
    int rc = client_read(client, &io, words);
    for (int i = 0; i < rc / 8; i++) {
        g_assert_cmpuint(words[i], ==, offset);
    }
    return rc;
}

static void test_splits(void)
{
    ClientConfig config;
    client_config_init(&config);
    Bench bench;
    setup(&bench, &config);
    for (uint32_t size = 8; size <= 1u << 20; size = size * 2 + 8) {
        client_set_split(bench.client, SEGMENTS_LINUX, 0);
        g_assert_cmpint(read_node(bench.client, 1, size, size), ==, (int)size);
        client_set_split(bench.client, SEGMENTS_WHOLE, 0);
        g_assert_cmpint(read_node(bench.client, 1, size, size), ==, (int)size);
    }
    client_set_split(bench.client, SEGMENTS_BYTES, 7);
    g_assert_cmpint(read_node(bench.client, 1, 77, 512), ==, 512);
    g_assert_cmpint(read_node(bench.client, 1, 77, 4096), ==, -EMSGSIZE);
    g_assert_cmpint(read_node(bench.client, 1, 77, 2u << 20), ==, -EMSGSIZE);
    teardown(&bench);
}

static void test_malformed(void)
{
    ClientConfig config;
    client_config_init(&config);
    config.timeout_ms = 2000;
    config.poison = true;
    Bench bench;
    setup(&bench, &config);
    Client *client = bench.client;
    g_assert_cmpint(client_access(client, 1, 0), ==, 0);
    g_assert_cmpint(client_access(client, NODE_ERROR, 0), ==, -ENOENT);
    g_assert_cmpint(client_access(client, NODE_SHORT_LEN, 0), ==, -EPROTO);
    g_assert_cmpint(client_access(client, NODE_OTHER_UNIQUE, 0), ==, -EPROTO);
    g_assert_cmpint(client_access(client, NODE_POSITIVE_ERROR, 0), ==, -EPROTO);
    g_assert_cmpint(client_access(client, NODE_HALF_HEADER, 0), ==, -EPROTO);
    g_assert_cmpint(client_access(client, NODE_EMPTY, 0), ==, -ENODATA);
    g_assert_cmpint(client_forget(client, 1, 1), ==, 0);

    /* The right size is asked of operations that have one. */
    struct fuse_attr_out attr;
    g_assert_cmpint(client_getattr(client, 1, NULL, &attr), ==, -EPROTO);
    teardown(&bench);
}

/* A request given up keeps its slot until the device is done with it. */
static void test_timeout(void)
{
    ClientConfig config;
    client_config_init(&config);
    config.n_slots = 1;
    config.timeout_ms = 100;
    Bench bench;
    setup(&bench, &config);
    g_assert_cmpint(client_access(bench.client, NODE_SLOW, 0), ==, -ETIMEDOUT);
    g_assert_cmpint(client_access(bench.client, 1, 0), ==, -EAGAIN);
    g_usleep(400000);
    ClientReply reply;
    g_assert_cmpint(client_reap(bench.client, 1, &reply, 200), ==, -ETIMEDOUT);
    g_assert_cmpint(client_access(bench.client, 1, 0), ==, 0);
    teardown(&bench);
}

static void test_peer_gone(void)
{
    ClientConfig config;
    client_config_init(&config);
    Bench bench;
    setup(&bench, &config);
    close(bench.peer);
    bench.peer = -1;
    g_assert_cmpint(client_access(bench.client, NODE_SLOW, 0), ==, -ECONNRESET);
    client_reset(bench.client);
    teardown(&bench);
}

static void test_header(void)
{
    ClientConfig config;
    client_config_init(&config);
    config.uid = 7;
    Bench bench;
    setup(&bench, &config);
    ClientReply reply;
    ClientRequest request = {.opcode = FUSE_ACCESS,
                             .nodeid = 1,
                             .set = CLIENT_SET_UNIQUE | CLIENT_SET_LEN,
                             .header = {.unique = 0x1234, .len = 5}};
    g_assert_cmpint(client_exchange(bench.client, &request, &reply), ==, 0);
    g_assert_cmpuint(reply.header.unique, ==, 0x1234);
    client_release(bench.client, &reply);

    struct fuse_in_header raw = {
        .len = sizeof(raw), .opcode = FUSE_READ, .unique = 99, .nodeid = NODE_EMPTY};
    ClientRaw bytes = {.bytes = &raw, .size = sizeof(raw), .room = 24};
    g_assert_cmpint(client_exchange_raw(bench.client, &bytes, &reply, 5000), ==,
                    -ENODATA);
    g_assert_cmpuint(reply.room_size, ==, 24);
    client_release(bench.client, &reply);
    teardown(&bench);
}

/* Answers to submitted and to awaited requests do not get mixed up. */
static void test_async(void)
{
    ClientConfig config;
    client_config_init(&config);
    config.n_slots = 8;
    Bench bench;
    setup(&bench, &config);
    for (uintptr_t round = 0; round < 200; round++) {
        for (uintptr_t i = 1; i <= 7; i++) {
            struct fuse_read_in in = {.offset = i, .size = 64};
            ClientRequest request = {.opcode = FUSE_READ,
                                     .nodeid = 1,
                                     .args = &in,
                                     .args_size = sizeof(in),
                                     .queue = CLIENT_QUEUE(1)};
            g_assert_cmpint(client_submit(bench.client, &request, (void *)i), ==, 0);
        }
        g_assert_cmpint(read_node(bench.client, 1, 4711, 128), ==, 128);
        unsigned int seen = 0;
        for (unsigned int i = 0; i < 7; i++) {
            ClientReply reply;
            g_assert_cmpint(client_reap(bench.client, 1, &reply, 5000), ==, 0);
            uint64_t word;
            memcpy(&word, reply.payload, sizeof(word));
            g_assert_cmpuint(word, ==, (uintptr_t)reply.tag);
            seen |= 1u << word;
            client_release(bench.client, &reply);
        }
        g_assert_cmpuint(seen, ==, 0xfe);
    }
    teardown(&bench);
}

typedef struct Caller {
    Client *client;
    uint64_t id;
} Caller;

static gpointer call_many(gpointer data)
{
    Caller *caller = data;
    for (unsigned int i = 0; i < 2000; i++) {
        g_assert_cmpint(read_node(caller->client, 1, caller->id << 32 | i, 64), ==, 64);
    }
    return NULL;
}

/* More threads than slots, all waiting on one queue. */
static void test_threads(void)
{
    ClientConfig config;
    client_config_init(&config);
    config.n_slots = 4;
    Bench bench;
    setup(&bench, &config);
    Caller callers[8];
    GThread *threads[8];
    for (unsigned int i = 0; i < 8; i++) {
        callers[i] = (Caller){.client = bench.client, .id = i};
        threads[i] = g_thread_new("caller", call_many, &callers[i]);
    }
    for (unsigned int i = 0; i < 8; i++) {
        (void)g_thread_join(threads[i]);
    }
    teardown(&bench);
}

static size_t room_of(uint32_t opcode, const void *args, size_t size)
{
    uint8_t bytes[128] = {0};
    struct fuse_in_header header = {.opcode = opcode};
    memcpy(bytes, &header, sizeof(header));
    if (size > 0) {
        memcpy(bytes + sizeof(header), args, size);
    }
    return reply_room(bytes, sizeof(header) + size);
}

static void test_room(void)
{
    struct fuse_read_in read = {.size = 12345};
    struct fuse_getxattr_in xattr = {.size = 0};
    struct fuse_ioctl_in control = {.out_size = 100};
    g_assert_cmpuint(room_of(FUSE_READ, &read, sizeof(read)), ==, 12345);
    g_assert_cmpuint(room_of(FUSE_READDIRPLUS, &read, sizeof(read)), ==, 12345);
    g_assert_cmpuint(room_of(FUSE_READ, NULL, 0), ==, 0);
    g_assert_cmpuint(room_of(FUSE_GETXATTR, &xattr, sizeof(xattr)), ==, 8);
    xattr.size = 99;
    g_assert_cmpuint(room_of(FUSE_LISTXATTR, &xattr, sizeof(xattr)), ==, 99);
    g_assert_cmpuint(room_of(FUSE_IOCTL, &control, sizeof(control)), ==, 116);
    g_assert_cmpuint(room_of(FUSE_LOOKUP, NULL, 0), ==, 128);
    g_assert_cmpuint(room_of(FUSE_CREATE, NULL, 0), ==, 144);
    g_assert_cmpuint(room_of(FUSE_GETATTR, NULL, 0), ==, 104);
    g_assert_cmpuint(room_of(FUSE_STATFS, NULL, 0), ==, 80);
    g_assert_cmpuint(room_of(FUSE_INIT, NULL, 0), ==, 64);
    g_assert_cmpuint(room_of(FUSE_FORGET, NULL, 0), ==, 0);
    g_assert_cmpuint(room_of(52, NULL, 0), ==, 288);
    g_assert_cmpuint(room_of(7, NULL, 0), ==, 8192);
    g_assert_cmpuint(room_of(UINT32_MAX, NULL, 0), ==, 8192);
    g_assert_cmpuint(reply_room("", 0), ==, 8192);
    g_assert_true(reply_is_expected(FUSE_DESTROY));
    g_assert_false(reply_is_expected(FUSE_BATCH_FORGET));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/fuse-client/splits", test_splits);
    g_test_add_func("/fuse-client/malformed", test_malformed);
    g_test_add_func("/fuse-client/timeout", test_timeout);
    g_test_add_func("/fuse-client/peer-gone", test_peer_gone);
    g_test_add_func("/fuse-client/header", test_header);
    g_test_add_func("/fuse-client/async", test_async);
    g_test_add_func("/fuse-client/threads", test_threads);
    g_test_add_func("/reply-room/sizes", test_room);
    return g_test_run();
}
