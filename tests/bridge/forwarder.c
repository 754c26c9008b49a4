/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forwarding, both ways.
 *
 * No reader can block the answers: there are no more slots than requests that a queue
 * holds, so submitting never waits, and whoever waits for a slot holds nothing that the
 * other threads need. Each request queue has slots of its own: ThreadSanitizer in a
 * daemon sees no order between the last use of a buffer on one queue and its next use on
 * another, because that order is made here, in another process. A reader sleeps in
 * read(2), which only a signal ends; because a signal that comes just before the call is
 * lost, forwarder_stop() repeats it.
 *
 * An answer must be one that Linux would accept from a virtio-fs device; the others are
 * counted and replaced by EIO, as the guest's driver would do.
 */
#include "tests/bridge/forwarder.h"

#include <errno.h>
#include <glib.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/bridge/init-filter.h"
#include "tests/bridge/slots.h"
#include "tests/support/reply-room.h"

#define STOP_INTERVAL_US 2000

typedef struct Reader {
    Forwarder *forwarder;
    unsigned int queue; /* for its requests, but those of hiprio */
    Slots *slots;
    int fuse_fd;
    pthread_t thread;
    bool started;
    bool done; /* atomic */
} Reader;

typedef struct Writer {
    Forwarder *forwarder;
    Virtqueue *ring;
    pthread_t thread;
    bool started;
} Writer;

struct Forwarder {
    ForwarderConfig config;
    Slots **slots; /* one pool for each request queue */
    Reader *readers;
    Writer *writers; /* one for each queue */
    unsigned int n_queues;

    /* atomic: */
    int state;
    bool stop_readers;
    bool stop_writers;
    uint64_t n_by_opcode[FORWARDER_OPCODES];
    uint64_t n_malformed;

    pthread_mutex_t error_lock;
    char error[200];
};

size_t forwarder_memory_size(unsigned int n_slots)
{
    return slots_memory_size(n_slots);
}

/* ---- state ------------------------------------------------------------------ */

static void set_state(Forwarder *forwarder, ForwarderState state)
{
    int old = __atomic_load_n(&forwarder->state, __ATOMIC_ACQUIRE);
    while (old < (int)state &&
           !__atomic_compare_exchange_n(&forwarder->state, &old, (int)state, false,
                                        __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
    }
    uint64_t one = 1;
    (void)!write(forwarder->config.event_fd, &one,
                 sizeof(one)); /* full: noticed already */
}

static void fail(Forwarder *forwarder, const char *what, int rc)
{
    (void)pthread_mutex_lock(&forwarder->error_lock);
    if (forwarder->error[0] == '\0') {
        (void)snprintf(forwarder->error, sizeof(forwarder->error), "%s: %s", what,
                       strerrordesc_np(-rc)); /* shortened if need be */
    }
    (void)pthread_mutex_unlock(&forwarder->error_lock);
    set_state(forwarder, FORWARDER_FAILED);
}

ForwarderState forwarder_state(Forwarder *forwarder)
{
    return (ForwarderState)__atomic_load_n(&forwarder->state, __ATOMIC_ACQUIRE);
}

const char *forwarder_error(const Forwarder *forwarder)
{
    return forwarder->error;
}

ForwarderCounters forwarder_counters(Forwarder *forwarder)
{
    ForwarderCounters counters = {
        .malformed = __atomic_load_n(&forwarder->n_malformed, __ATOMIC_RELAXED),
    };
    for (unsigned int i = 0; i < FORWARDER_OPCODES; i++) {
        counters.by_opcode[i] =
            __atomic_load_n(&forwarder->n_by_opcode[i], __ATOMIC_RELAXED);
        counters.requests += counters.by_opcode[i];
    }
    return counters;
}

static bool is_set(const bool *flag)
{
    return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}

static void set(bool *flag)
{
    __atomic_store_n(flag, true, __ATOMIC_RELEASE);
}

/* ---- from the kernel to the daemon ------------------------------------------ */

/* Read one request. Return: its size, 0 to try again, -errno if there are no more. */
static ssize_t read_request(Forwarder *forwarder, const Reader *reader, Slot *slot)
{
    ssize_t size = read(reader->fuse_fd, slot->in, slots_in_room());
    if (size >= (ssize_t)sizeof(struct fuse_in_header)) {
        return size;
    }
    if (size >= 0) {
        fail(forwarder, "/dev/fuse gave less than a header", -EIO);
        return -EIO;
    }
    switch (errno) {
    case EINTR:  /* perhaps told to stop */
    case ENOENT: /* the request was interrupted before it was read */
    case EAGAIN:
        return is_set(&forwarder->stop_readers) ? -EINTR : 0;
    case ENODEV:       /* unmounted */
    case ECONNABORTED: /* aborted, where INIT agreed on telling them apart */
        set_state(forwarder, FORWARDER_ENDED);
        return -ENODEV;
    default:
        fail(forwarder, "read from /dev/fuse", -errno);
        return -EIO;
    }
}

static int submit(Forwarder *forwarder, unsigned int queue, Slot *slot, size_t in_size)
{
    Segments in;
    Segments out;
    GuestMemory *memory = frontend_memory(forwarder->config.frontend);
    Virtqueue *ring = forwarder->writers[queue].ring;
    SegmentsPlan plan = {
        .split = forwarder->config.split,
        .limit = segments_limit(ring),
        .opcode = slot->opcode,
    };
    int rc = segments_cut_in(&in, &plan, guest_memory_gpa(memory, slot->in), in_size);
    if (rc == 0) {
        rc = segments_cut_out(&out, &plan, guest_memory_gpa(memory, slot->out),
                              slot->out_size);
    }
    if (rc == 0) {
        rc = virtqueue_submit(
            ring,
            &(VirtqueueRequest){
                .in = in.at, .n_in = in.n, .out = out.at, .n_out = out.n, .tag = slot});
    }
    return rc < 0 ? rc : 0;
}

/*
 * An interrupt is only a hint, and Linux's virtio-fs never sends one. Where they are
 * wanted, those that a daemon never completes must not cost all slots.
 */
static bool is_dispensable(const Forwarder *forwarder, const Slot *slot)
{
    if (slot->opcode != FUSE_INTERRUPT) {
        return false;
    }
    return !forwarder->config.interrupts ||
           virtqueue_in_flight(forwarder->writers[0].ring) >=
               forwarder->config.n_slots / 4;
}

static void record(const Forwarder *forwarder, RecorderKind kind,
                   const struct iovec *bytes, size_t room)
{
    if (forwarder->config.recorder != NULL) {
        recorder_add(forwarder->config.recorder, kind, bytes, 1, bytes->iov_len, room);
    }
}

/* Send a request on its way; the slot is not ours afterwards. */
static int forward(Forwarder *forwarder, const Reader *reader, Slot *slot, size_t size)
{
    struct fuse_in_header header;
    memcpy(&header, slot->in, sizeof(header));
    slot->opcode = header.opcode;
    slot->unique = header.unique;
    slot->fuse_fd = reader->fuse_fd;
    slot->out_size = 0;
    if (reply_is_expected(slot->opcode)) {
        slot->out_size = sizeof(struct fuse_out_header) + reply_room(slot->in, size);
    }
    if (slot->out_size > slots_out_room()) {
        slot->out_size = slots_out_room();
    }
    if (is_dispensable(forwarder, slot)) {
        slots_put(slot);
        return 0;
    }
    if (slot->opcode == FUSE_INIT) {
        init_filter_request(slot->in, size);
    }
    record(forwarder, RECORDER_REQUEST, &(struct iovec){slot->in, size}, slot->out_size);
    unsigned int counted = MIN(slot->opcode, FORWARDER_OPCODES - 1u);
    (void)__atomic_fetch_add(&forwarder->n_by_opcode[counted], 1, __ATOMIC_RELAXED);
    unsigned int queue = reply_is_expected(slot->opcode) ? reader->queue : 0;
    return submit(forwarder, queue, slot, size);
}

static void *run_reader(void *opaque)
{
    Reader *reader = opaque;
    Forwarder *forwarder = reader->forwarder;
    Slot *slot;
    while ((slot = slots_take(reader->slots)) != NULL) {
        ssize_t size;
        do {
            size = read_request(forwarder, reader, slot);
        } while (size == 0);
        if (size < 0) {
            slots_put(slot);
            break;
        }
        int rc = forward(forwarder, reader, slot, (size_t)size);
        if (rc < 0) {
            slots_put(slot);
            fail(forwarder, "cannot submit a request", rc);
            break;
        }
    }
    set(&reader->done);
    return NULL;
}

/* ---- from the daemon to the kernel ------------------------------------------ */

/* virtio_fs_verify_response() and fuse_dev_do_write() of Linux 7.2. */
static bool is_well_formed(const Slot *slot, const struct fuse_out_header *header,
                           uint32_t used)
{
    return used >= sizeof(*header) && header->len == used &&
           header->unique == slot->unique && header->error <= 0 && header->error > -512 &&
           (header->error == 0 || used == sizeof(*header));
}

/* Bytes of the answer to write; a bad one becomes EIO. */
static size_t check_answer(Forwarder *forwarder, Slot *slot, uint32_t used)
{
    struct fuse_out_header header = {0};
    memcpy(&header, slot->out, used < sizeof(header) ? used : sizeof(header));
    if (is_well_formed(slot, &header, used)) {
        return used;
    }
    (void)__atomic_fetch_add(&forwarder->n_malformed, 1, __ATOMIC_RELAXED);
    (void)fprintf(stderr,
                  "bridge: malformed answer to opcode %u: used %u, len %u, error %d, "
                  "unique %" G_GUINT64_FORMAT " for %" G_GUINT64_FORMAT "\n",
                  slot->opcode, used, header.len, header.error, (guint64)header.unique,
                  (guint64)slot->unique);
    header = (struct fuse_out_header){
        .len = sizeof(header), .error = -EIO, .unique = slot->unique};
    memcpy(slot->out, &header, sizeof(header));
    return sizeof(header);
}

static void finish_init(Forwarder *forwarder, Slot *slot, size_t size)
{
    struct fuse_out_header header;
    InitLimits limits = {.max_write = SLOTS_DATA_SIZE,
                         .max_pages = SLOTS_DATA_SIZE / SEGMENTS_PAGE};
    memcpy(&header, slot->out, sizeof(header));
    if (header.error != 0) {
        fail(forwarder, "the daemon refuses INIT", header.error);
        return;
    }
    init_filter_reply(slot->out, size, &limits);
}

static void write_answer(Forwarder *forwarder, Slot *slot, uint32_t used)
{
    size_t size = check_answer(forwarder, slot, used);
    record(forwarder, RECORDER_REPLY, &(struct iovec){slot->out, size}, 0);
    if (slot->opcode == FUSE_INIT) {
        finish_init(forwarder, slot, size);
    }
    ssize_t rc;
    do {
        rc = write(slot->fuse_fd, slot->out, size);
    } while (rc < 0 && errno == EINTR);
    if (rc < 0 && errno == EINVAL) {
        (void)__atomic_fetch_add(&forwarder->n_malformed, 1, __ATOMIC_RELAXED);
        (void)fprintf(stderr,
                      "bridge: the kernel refuses an answer of %zu bytes to opcode %u\n",
                      size, slot->opcode);
    }
    /* Any other failure: nobody waits any more, or the mount is gone, as readers see. */
    if (slot->opcode == FUSE_INIT) {
        set_state(forwarder, FORWARDER_SERVING);
    }
}

static void *run_writer(void *opaque)
{
    Writer *writer = opaque;
    Forwarder *forwarder = writer->forwarder;
    for (;;) {
        VirtqueueCompletion completion;
        int rc;
        while ((rc = virtqueue_poll(writer->ring, &completion)) == 1) {
            Slot *slot = completion.tag;
            if (slot->out_size > 0) {
                write_answer(forwarder, slot, completion.length);
            }
            slots_put(slot);
        }
        if (rc < 0) {
            fail(forwarder, "the daemon wrote nonsense into the used ring", rc);
            return NULL;
        }
        if (is_set(&forwarder->stop_writers)) {
            return NULL;
        }
        if (virtqueue_arm(writer->ring)) {
            continue;
        }
        struct pollfd pfd = {.fd = virtqueue_call_fd(writer->ring), .events = POLLIN};
        if (poll(&pfd, 1, -1) > 0) {
            virtqueue_acknowledge(writer->ring);
        }
    }
}

/* ---- life ------------------------------------------------------------------- */

static bool make_slots(Forwarder *forwarder)
{
    GuestMemory *memory = frontend_memory(forwarder->config.frontend);
    unsigned int n_pools = forwarder->n_queues - 1;
    unsigned int n = forwarder->config.n_slots / n_pools;
    forwarder->slots = g_new0(Slots *, n_pools);
    for (unsigned int i = 0; i < n_pools; i++) {
        forwarder->slots[i] = slots_new(memory, n > 0 ? n : 1);
        if (forwarder->slots[i] == NULL) {
            return false;
        }
    }
    return true;
}

Forwarder *forwarder_new(const ForwarderConfig *config)
{
    Forwarder *forwarder = g_new0(Forwarder, 1);
    forwarder->config = *config;
    forwarder->n_queues = frontend_n_queues(config->frontend);
    (void)pthread_mutex_init(&forwarder->error_lock, NULL); /* cannot fail here */
    forwarder->readers = g_new0(Reader, config->n_readers);
    forwarder->writers = g_new0(Writer, forwarder->n_queues);
    for (unsigned int i = 0; i < forwarder->n_queues; i++) {
        forwarder->writers[i] =
            (Writer){.forwarder = forwarder, .ring = frontend_queue(config->frontend, i)};
    }
    if (!make_slots(forwarder)) {
        forwarder_free(forwarder);
        return NULL;
    }
    for (unsigned int i = 0; i < config->n_readers; i++) {
        unsigned int pool = i % (forwarder->n_queues - 1);
        forwarder->readers[i] = (Reader){.forwarder = forwarder,
                                         .queue = pool + 1,
                                         .slots = forwarder->slots[pool],
                                         .fuse_fd = config->fuse_fds[i]};
    }
    return forwarder;
}

void forwarder_free(Forwarder *forwarder)
{
    if (forwarder == NULL) {
        return;
    }
    for (unsigned int i = 0; i + 1 < forwarder->n_queues; i++) {
        slots_free(forwarder->slots[i]);
    }
    g_free(forwarder->slots);
    (void)pthread_mutex_destroy(&forwarder->error_lock); /* nobody holds it */
    g_free(forwarder->readers);
    g_free(forwarder->writers);
    g_free(forwarder);
}

int forwarder_start(Forwarder *forwarder)
{
    for (unsigned int i = 0; i < forwarder->n_queues; i++) {
        Writer *writer = &forwarder->writers[i];
        int rc = pthread_create(&writer->thread, NULL, run_writer, writer);
        if (rc != 0) {
            return -rc;
        }
        writer->started = true;
    }
    for (unsigned int i = 0; i < forwarder->config.n_readers; i++) {
        Reader *reader = &forwarder->readers[i];
        int rc = pthread_create(&reader->thread, NULL, run_reader, reader);
        if (rc != 0) {
            return -rc;
        }
        reader->started = true;
    }
    return 0;
}

static void stop_reader(Reader *reader)
{
    while (reader->started && !is_set(&reader->done)) {
        (void)pthread_kill(reader->thread, SIGUSR1); /* not joined, so it exists */
        g_usleep(STOP_INTERVAL_US);
    }
    if (reader->started) {
        (void)pthread_join(reader->thread, NULL); /* it is done */
        reader->started = false;
    }
}

bool forwarder_stop(Forwarder *forwarder, int drain_ms)
{
    set(&forwarder->stop_readers);
    for (unsigned int i = 0; i + 1 < forwarder->n_queues; i++) {
        slots_close(forwarder->slots[i]);
    }
    for (unsigned int i = 0; i < forwarder->config.n_readers; i++) {
        stop_reader(&forwarder->readers[i]);
    }
    bool idle = true;
    for (unsigned int i = 0; i + 1 < forwarder->n_queues; i++) {
        idle = slots_wait_idle(forwarder->slots[i], drain_ms) && idle;
    }
    set(&forwarder->stop_writers);
    for (unsigned int i = 0; i < forwarder->n_queues; i++) {
        Writer *writer = &forwarder->writers[i];
        if (writer->started) {
            uint64_t one = 1;
            /* As an interrupt would; a full counter has woken it already. */
            (void)!write(virtqueue_call_fd(writer->ring), &one, sizeof(one));
            (void)pthread_join(writer->thread, NULL); /* it does end */
            writer->started = false;
        }
    }
    return idle;
}

int forwarder_destroy_session(Forwarder *forwarder, int timeout_ms)
{
    const unsigned int queue = 1;
    slots_open(forwarder->slots[0]);
    Slot *slot = slots_take(forwarder->slots[0]);
    struct fuse_in_header header = {
        .len = sizeof(header), .opcode = FUSE_DESTROY, .unique = 2};
    memcpy(slot->in, &header, sizeof(header));
    slot->opcode = FUSE_DESTROY;
    slot->unique = header.unique;
    slot->out_size = sizeof(struct fuse_out_header);
    int rc = submit(forwarder, queue, slot, sizeof(header));
    if (rc < 0) {
        return rc;
    }
    VirtqueueCompletion completion;
    rc = virtqueue_wait(forwarder->writers[queue].ring, &completion, timeout_ms);
    if (rc == 1) {
        (void)check_answer(forwarder, slot, completion.length);
        slots_put(slot);
    }
    return rc < 0 ? rc : 0;
}
