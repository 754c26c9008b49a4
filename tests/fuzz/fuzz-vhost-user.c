/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the vhost-user back-end: a stream of messages from a VMM. The input is a row of
 * records: request, flags, which descriptors come along (a nibble for how many, one for
 * the first one's kind), how the stream is cut, a little-endian u16 of payload size, and
 * the payload. After each message every started ring is popped as a worker would.
 *
 * No descriptor is left behind: that is asserted after each stream.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "tests/unit/vhost-ring.h"
#include "virtiofsd/log.h"
#include "virtiofsd/vhost/device.h"

#define RECORD_HEAD 6u
#define PAYLOAD_MAX 512u
#define N_QUEUES 3u
#define MOST_POPS 64
#define MOST_RECORDS 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct Bench {
    VuDevice *device;
    VuChain *chain;
    int peer;
    int kinds[5]; /* what may come along */
} Bench;

static void on_queue(void *opaque, unsigned int queue)
{
    (void)opaque;
    (void)queue;
}

static void on_start(void *opaque, unsigned int queue, int kick_fd)
{
    (void)opaque;
    (void)queue;
    (void)kick_fd;
}

static void on_reset(void *opaque)
{
    (void)opaque;
}

static int memory_file(void)
{
    int fd = memfd_create("guest", MFD_CLOEXEC);

    g_assert_cmpint(ftruncate(fd, 1 << 20), ==, 0);
    return fd;
}

static Bench *bench_new(void)
{
    Bench *bench = g_new0(Bench, 1);
    const uint64_t one = 1;
    int interrupt_fd = make_event();

    log_open(LOG_LEVEL_OFF, false);
    /* Whoever would wait is told to give up: a stream that ends must not take 5 s. */
    g_assert_cmpint(write(interrupt_fd, &one, sizeof(one)), ==, (int)sizeof(one));
    const VuDeviceConfig config = {
        .n_queues = N_QUEUES,
        .tag = "fuzzed",
        .interrupt_fd = interrupt_fd,
        .handler = {bench, on_start, on_queue, on_queue, on_queue, on_reset},
    };
    g_autoptr(GError) error = NULL;
    bench->device = vu_device_new(&config, &error);
    g_assert_no_error(error);
    bench->chain = vu_chain_new();
    bench->kinds[0] = make_event();
    bench->kinds[1] = memory_file();
    bench->kinds[2] = open("/dev/null", O_RDWR | O_CLOEXEC);
    bench->kinds[3] = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int pair[2];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    bench->kinds[4] = pair[0];
    return bench;
}

/* Send bytes with descriptors; a full buffer ends the stream, as a stuck VMM does. */
static bool send_piece(const Bench *bench, void *bytes, size_t size, uint8_t fds)
{
    struct iovec iov = {bytes, size};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(16 * sizeof(int))];
    } control = {0};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    size_t n = fds >> 4;

    if (n > 0) {
        int sent[16];
        for (size_t i = 0; i < n; i++) {
            sent[i] = bench->kinds[((fds & 0xf) + i) % G_N_ELEMENTS(bench->kinds)];
        }
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(n * sizeof(int));
        memcpy(CMSG_DATA(&control.header), sent, n * sizeof(int));
    }
    return sendmsg(bench->peer, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)size;
}

typedef struct Record {
    struct vu_msg_header header;
    uint8_t payload[PAYLOAD_MAX];
} Record;

/* Return: bytes of input used, 0 at its end. */
static size_t next_record(const uint8_t *data, size_t size, Record *record, size_t *ret_n)
{
    if (size < RECORD_HEAD) {
        return 0;
    }
    size_t claimed = (size_t)data[4] | (size_t)data[5] << 8;
    size_t n = MIN(MIN(claimed, size - RECORD_HEAD), PAYLOAD_MAX);
    record->header = (struct vu_msg_header){
        .request = data[0],
        .flags = data[1],
        .size = (uint32_t)((data[3] & 0x80) != 0 ? claimed : n),
    };
    memcpy(record->payload, data + RECORD_HEAD, n);
    *ret_n = n;
    return RECORD_HEAD + n;
}

static void drain_replies(const Bench *bench)
{
    char bytes[4096];

    while (recv(bench->peer, bytes, sizeof(bytes), MSG_DONTWAIT) > 0) {
    }
}

static void serve_rings(Bench *bench)
{
    for (unsigned int queue = 0; queue < N_QUEUES; queue++) {
        VuRing *ring = vu_device_ring(bench->device, queue);
        for (int i = 0; i < MOST_POPS; i++) {
            if (vu_ring_pop(ring, bench->chain, false) == VU_POP_EMPTY) {
                break;
            }
            vu_ring_push(ring, bench->chain, 0);
        }
    }
}

static void run_stream(Bench *bench, const uint8_t *data, size_t size)
{
    for (int i = 0; i < MOST_RECORDS; i++) {
        Record record;
        size_t n = 0;
        size_t used = next_record(data, size, &record, &n);
        if (used == 0) {
            return;
        }
        if (!send_piece(bench, &record, sizeof(record.header) + n, data[2]) ||
            vu_device_handle(bench->device) != VU_OK) {
            return;
        }
        serve_rings(bench);
        drain_replies(bench);
        data += used;
        size -= used;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static Bench *bench;
    int pair[2];

    if (bench == NULL) {
        bench = bench_new();
    }
    unsigned int before = count_fds();
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    bench->peer = pair[0];
    vu_device_connect_take(bench->device, pair[1]);
    run_stream(bench, data, size);
    g_assert_true(vu_device_disconnect(bench->device, 0));
    close(bench->peer);
    g_assert_cmpuint(count_fds(), ==, before);
    return 0;
}
