/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the vhost-user back-end: a stream of messages from a VMM. The input is a row of
 * records: request, flags, which descriptors come along (a nibble for how many, one for
 * the first one's kind), what else is done (HOW_*), a little-endian u16 of payload size,
 * and the payload. After each message every started ring is popped as a worker would, and
 * its chains are retired, held until later, or parked.
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
#define PAYLOAD_MAX 1100u
#define N_QUEUES 3u
#define MOST_POPS 64
#define MOST_RECORDS 64
#define MOST_HELD 16u
#define MEMORY_SIZE (1 << 20)
/* No request: the guest offers a chain on each ring where seeds.py has them. */
#define WRITE_MEMORY 0xfe

/* What is done with a message, and with what the rings offer after it. */
enum {
    HOW_HOLD = 1,      /* requests go on running */
    HOW_PARK = 2,      /* they wait for something */
    HOW_FINISH = 4,    /* those that are held end */
    HOW_TRUNCATE = 8,  /* memory is taken away before */
    HOW_CUT = 16,      /* half of the message comes, and then the VMM goes */
    HOW_LATE_FDS = 32, /* the descriptors come with the payload */
    HOW_FULL = 64,     /* the VMM does not read what is answered */
    HOW_CLAIM = 128,   /* the size is what the record says, not what it has */
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A request that has not ended: it holds memory. */
typedef struct Held {
    VuChain *chain;
    VuRing *ring;
} Held;

typedef struct Bench {
    VuDevice *device;
    VuChain *chain;
    Held held[MOST_HELD];
    unsigned int n_held;
    /* Parked, by queue. */
    uint16_t parked[N_QUEUES][MOST_HELD];
    unsigned int n_parked[N_QUEUES];
    int peer;
    bool is_dirty; /* memory is not as it was made */
    int kinds[5];  /* what may come along */
} Bench;

#define MEMORY_KIND 1

/* Answer what is parked in a queue. */
static void finish_parked(Bench *bench, unsigned int queue)
{
    VuRing *ring = vu_device_ring(bench->device, queue);

    while (bench->n_parked[queue] > 0) {
        uint16_t head = bench->parked[queue][bench->n_parked[queue] - 1];
        if (!vu_ring_unpark(ring, head, bench->chain)) {
            return; /* paused: the VMM is about to change memory */
        }
        bench->n_parked[queue]--;
        vu_ring_push(ring, bench->chain, 0);
    }
}

static void finish_held(Bench *bench)
{
    while (bench->n_held > 0) {
        Held *held = &bench->held[--bench->n_held];
        vu_ring_push(held->ring, held->chain, 0);
    }
}

static void on_queue(void *opaque, unsigned int queue)
{
    (void)opaque;
    (void)queue;
}

static void on_settle(void *opaque, unsigned int queue)
{
    finish_parked(opaque, queue);
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

    g_assert_cmpint(ftruncate(fd, MEMORY_SIZE), ==, 0);
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
        .handler = {.opaque = bench,
                    .start = on_start,
                    .stop = on_queue,
                    .settle = on_settle,
                    .wake = on_queue,
                    .reset = on_reset},
    };
    g_autoptr(GError) error = NULL;
    bench->device = vu_device_new(&config, &error);
    g_assert_no_error(error);
    bench->chain = vu_chain_new();
    for (size_t i = 0; i < MOST_HELD; i++) {
        bench->held[i].chain = vu_chain_new();
    }
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
        .size = (uint32_t)((data[3] & HOW_CLAIM) != 0 ? claimed : n),
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

/* As if all that a request may write to had been written. */
static uint32_t room_of(const VuChain *chain)
{
    size_t room = 0;

    for (size_t i = 0; i < chain->n_out; i++) {
        room += chain->out[i].iov_len;
    }
    return (uint32_t)room; /* a chain has less than 4 GiB */
}

/* A worker has the chain in @held or in bench->chain. */
static void serve_chain(Bench *bench, VuRing *ring, unsigned int queue, uint8_t how)
{
    if ((how & HOW_PARK) != 0 && bench->n_parked[queue] < MOST_HELD &&
        vu_ring_may_park(ring)) {
        bench->parked[queue][bench->n_parked[queue]++] = vu_ring_park(ring, bench->chain);
    } else if ((how & HOW_HOLD) != 0 && bench->n_held < MOST_HELD) {
        Held *held = &bench->held[bench->n_held++];
        VuChain *empty = held->chain;
        *held = (Held){.chain = bench->chain, .ring = ring};
        bench->chain = empty;
    } else {
        vu_ring_push(ring, bench->chain, room_of(bench->chain));
    }
}

static void serve_rings(Bench *bench, uint8_t how)
{
    for (unsigned int queue = 0; queue < N_QUEUES; queue++) {
        VuRing *ring = vu_device_ring(bench->device, queue);
        for (int i = 0; i < MOST_POPS; i++) {
            if (!vu_ring_pop(ring, bench->chain)) {
                break;
            }
            serve_chain(bench, ring, queue, how);
        }
    }
    if ((how & HOW_FINISH) != 0) {
        finish_held(bench);
        for (unsigned int queue = 0; queue < N_QUEUES; queue++) {
            finish_parked(bench, queue);
        }
    }
}

/* Return: whether all of it was sent. */
static bool send_record(Bench *bench, Record *record, size_t n, uint8_t fds, uint8_t how)
{
    size_t whole = sizeof(record->header) + n;

    if ((how & HOW_CUT) != 0) {
        (void)send_piece(bench, record, whole / 2, fds);
        (void)shutdown(bench->peer, SHUT_WR);
        return true;
    }
    if ((how & HOW_LATE_FDS) != 0) {
        return send_piece(bench, record, sizeof(record->header), 0) &&
               send_piece(bench, record->payload, n, fds);
    }
    return send_piece(bench, record, whole, fds);
}

static void prepare(Bench *bench, uint8_t how)
{
    if ((how & HOW_TRUNCATE) != 0) {
        g_assert_cmpint(ftruncate(bench->kinds[MEMORY_KIND], 0x1000), ==, 0);
        bench->is_dirty = true;
    }
    if ((how & HOW_FULL) != 0) {
        const int least = 1;
        char bytes[4096] = {0};
        int ours = vu_device_fd(bench->device);
        (void)setsockopt(ours, SOL_SOCKET, SO_SNDBUF, &least, sizeof(least));
        while (send(ours, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL) > 0) {
        }
    }
}

static void write_memory(Bench *bench, uint64_t at, const void *bytes, size_t size)
{
    /* Memory that was taken away grows again here, which no VMM does: harmless. */
    ssize_t written = pwrite(bench->kinds[MEMORY_KIND], bytes, size, (off_t)at);
    g_assert_cmpint(written, ==, (ssize_t)size);
    bench->is_dirty = true;
}

/* Rings of 16 entries, one in each 0x8000 bytes: descriptors, avail, used. The payload
 * is what the descriptor table is to be, else it is one chain of two. */
static void offer(Bench *bench, const Record *record, size_t n)
{
    const struct vring_desc honest[] = {
        {GUEST_GPA + 0x20000, 40, VRING_DESC_F_NEXT, 1},
        {GUEST_GPA + 0x21000, 0x1800, VRING_DESC_F_WRITE, 0},
    };
    const uint16_t avail[] = {0, 3, 0, 0, 0};

    for (uint64_t base = 0; base < 2 * 0x8000; base += 0x8000) {
        write_memory(bench, base, n > 0 ? (const void *)record->payload : honest,
                     n > 0 ? n : sizeof(honest));
        write_memory(bench, base + 0x1000, avail, sizeof(avail));
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
        if (record.header.request == WRITE_MEMORY) {
            offer(bench, &record, n);
            serve_rings(bench, data[3]);
            data += used;
            size -= used;
            continue;
        }
        prepare(bench, data[3]);
        if (!send_record(bench, &record, n, data[2], data[3]) ||
            vu_device_handle(bench->device) != VU_OK) {
            return;
        }
        serve_rings(bench, data[3]);
        drain_replies(bench);
        data += used;
        size -= used;
    }
}

/* What still runs when the VMM has gone ends now. */
static void leave(Bench *bench)
{
    if (!vu_device_disconnect(bench->device, 0)) {
        g_assert_cmpuint(bench->n_held, >, 0);
        finish_held(bench);
        g_assert_true(vu_device_disconnect(bench->device, 0));
    }
    for (unsigned int queue = 0; queue < N_QUEUES; queue++) {
        g_assert_cmpuint(bench->n_parked[queue], ==, 0);
    }
    g_assert_cmpuint(bench->n_held, ==, 0);
    close(bench->peer);
    if (bench->is_dirty) {
        g_assert_cmpint(ftruncate(bench->kinds[MEMORY_KIND], 0), ==, 0);
        g_assert_cmpint(ftruncate(bench->kinds[MEMORY_KIND], MEMORY_SIZE), ==, 0);
        bench->is_dirty = false;
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
    leave(bench);
    g_assert_cmpuint(count_fds(), ==, before);
    return 0;
}
