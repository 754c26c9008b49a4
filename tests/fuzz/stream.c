/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a row of requests. There is no second thread: who waits for a lock is tried after
 * each request that may have made room for it, and time goes by whenever somebody looks
 * at it (the targets are linked with --wrap for that), so that nothing ever sleeps.
 */
#include "tests/fuzz/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#define RECORD_HEAD 4u
#define MOST_RECORDS 128
#define MOST_GIVEN 120u
#define NODES_AT 2u
#define LISTED_AT 0x80u
#define HANDLES_AT 1u
/* More pieces cost much time and teach little, but for more than one call to the host
 * takes. */
#define MOST_PIECES 32u
#define IN_BYTES 63u

/* Newer than the oldest <linux/fuse.h>. */
#define STATX 52u
#define COPY_FILE_RANGE_64 53u

/* Ids by who asked for them; 0: it failed. */
typedef struct Given {
    uint64_t ids[MOST_GIVEN];
    size_t n;
} Given;

typedef struct Stream {
    Harness *harness;
    Given nodes;
    Given listed;
    Given handles;
    unsigned int n_waiting;
    int refusal;         /* of the VMM: 0 or a negative errno */
    unsigned int n_maps; /* that were not all unmapped since */
} Stream;

/* What a request gives, and where it names what was given: offsets, or 0. */
static const struct Shape {
    bool gives_node, gives_handle;
    uint8_t node, handle, second_handle;
} shapes[HARNESS_OPCODES] = {
    [FUSE_LOOKUP] = {true, false, 0, 0, 0},
    [FUSE_MKNOD] = {true, false, 0, 0, 0},
    [FUSE_MKDIR] = {true, false, 0, 0, 0},
    [FUSE_SYMLINK] = {true, false, 0, 0, 0},
    [FUSE_LINK] = {true, false, 40, 0, 0},
    [FUSE_CREATE] = {true, true, 0, 0, 0},
    [FUSE_TMPFILE] = {true, true, 0, 0, 0},
    [FUSE_OPEN] = {false, true, 0, 0, 0},
    [FUSE_OPENDIR] = {false, true, 0, 0, 0},
    [FUSE_RENAME] = {false, false, 40, 0, 0},
    [FUSE_RENAME2] = {false, false, 40, 0, 0},
    [FUSE_GETATTR] = {false, false, 0, 48, 0},
    [FUSE_SETATTR] = {false, false, 0, 48, 0},
    [STATX] = {false, false, 0, 48, 0},
    [FUSE_READ] = {false, false, 0, 40, 0},
    [FUSE_WRITE] = {false, false, 0, 40, 0},
    [FUSE_RELEASE] = {false, false, 0, 40, 0},
    [FUSE_FSYNC] = {false, false, 0, 40, 0},
    [FUSE_FLUSH] = {false, false, 0, 40, 0},
    [FUSE_READDIR] = {false, false, 0, 40, 0},
    [FUSE_READDIRPLUS] = {false, false, 0, 40, 0},
    [FUSE_RELEASEDIR] = {false, false, 0, 40, 0},
    [FUSE_FSYNCDIR] = {false, false, 0, 40, 0},
    [FUSE_GETLK] = {false, false, 0, 40, 0},
    [FUSE_SETLK] = {false, false, 0, 40, 0},
    [FUSE_SETLKW] = {false, false, 0, 40, 0},
    [FUSE_IOCTL] = {false, false, 0, 40, 0},
    [FUSE_POLL] = {false, false, 0, 40, 0},
    [FUSE_FALLOCATE] = {false, false, 0, 40, 0},
    [FUSE_LSEEK] = {false, false, 0, 40, 0},
    [FUSE_COPY_FILE_RANGE] = {false, false, 56, 40, 64},
    [COPY_FILE_RANGE_64] = {false, false, 56, 40, 64},
    [FUSE_SETUPMAPPING] = {false, false, 0, 40, 0},
};

/* ---- time ---------------------------------------------------------------------------
 */

static int64_t monotonic_ms;

int __real_clock_gettime(clockid_t clock, struct timespec *ret_now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret_now);
int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                                  const struct timespec *until);
ssize_t __wrap_getrandom(void *buffer, size_t size, unsigned int flags);

/* Whoever looks twice sees that even the longest pause of waits.c is over; and a file
 * that was just made is old enough for all that passthrough/ does. */
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret_now)
{
    if (clock != CLOCK_MONOTONIC) {
        int result = __real_clock_gettime(clock, ret_now);
        ret_now->tv_sec += clock == CLOCK_REALTIME_COARSE ? 1 : 0;
        return result;
    }
    monotonic_ms += 1000;
    *ret_now = (struct timespec){monotonic_ms / 1000, 0};
    return 0;
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                                  const struct timespec *until)
{
    (void)cond;
    (void)mutex;
    (void)until;
    return ETIMEDOUT;
}

/* No input is to depend on chance: what is asked for is the key of a hash. */
ssize_t __wrap_getrandom(void *buffer, size_t size, unsigned int flags)
{
    (void)flags;
    memset(buffer, 0x5a, size);
    return (ssize_t)size;
}

/* ---- what replies give ---------------------------------------------------------------
 */

static void give(Given *given, uint64_t id)
{
    if (given->n < MOST_GIVEN) {
        given->ids[given->n++] = id;
    }
}

static bool take(const Given *given, uint64_t first, uint64_t *value)
{
    if (*value < first || *value - first >= given->n) {
        return false;
    }
    uint64_t id = given->ids[*value - first];
    *value = id != 0 ? id : *value;
    return true;
}

static void put_node(const Stream *stream, Message *message, size_t at)
{
    uint64_t value;

    if (at + sizeof(value) <= message->size) {
        memcpy(&value, message->bytes + at, sizeof(value));
        if (value >= LISTED_AT ? take(&stream->listed, LISTED_AT, &value)
                               : take(&stream->nodes, NODES_AT, &value)) {
            memcpy(message->bytes + at, &value, sizeof(value));
        }
    }
}

static void put_handle(const Stream *stream, Message *message, size_t at)
{
    uint64_t value;

    if (at > 0 && at + sizeof(value) <= message->size) {
        memcpy(&value, message->bytes + at, sizeof(value));
        if (take(&stream->handles, HANDLES_AT, &value)) {
            memcpy(message->bytes + at, &value, sizeof(value));
        }
    }
}

static const struct Shape *shape_of(const Message *message)
{
    static const struct Shape none;
    uint32_t opcode = message->header.opcode;

    return opcode < HARNESS_OPCODES ? &shapes[opcode] : &none;
}

/* Fill in what was given before. */
static void put_given(const Stream *stream, Message *message)
{
    const struct Shape *shape = shape_of(message);

    put_node(stream, message, offsetof(struct fuse_in_header, nodeid));
    if (shape->node > 0) {
        put_node(stream, message, shape->node);
    }
    put_handle(stream, message, shape->handle);
    put_handle(stream, message, shape->second_handle);
    if (message->header.opcode == FUSE_BATCH_FORGET) {
        size_t first =
            sizeof(struct fuse_in_header) + sizeof(struct fuse_batch_forget_in);
        for (size_t at = first; at < message->size;
             at += sizeof(struct fuse_forget_one)) {
            put_node(stream, message, at);
        }
    }
}

static void learn_listed(Stream *stream)
{
    const unsigned char *at = harness_body(stream->harness);
    size_t left = harness_body_size(stream->harness);
    struct fuse_direntplus entry;

    while (left >= FUSE_NAME_OFFSET_DIRENTPLUS) {
        memcpy(&entry, at, FUSE_NAME_OFFSET_DIRENTPLUS);
        size_t size = FUSE_DIRENTPLUS_SIZE(&entry);
        g_assert_cmpuint(size, <=, left);
        if (entry.entry_out.nodeid != 0) {
            give(&stream->listed, entry.entry_out.nodeid);
        }
        at += size;
        left -= size;
    }
}

/* @error: of the reply. */
static void learn(Stream *stream, const Message *message, int error)
{
    const struct Shape *shape = shape_of(message);
    const size_t entry_size = shape->gives_node ? sizeof(struct fuse_entry_out) : 0;
    const unsigned char *body = harness_body(stream->harness);
    uint64_t id = 0;

    if (shape->gives_node) {
        if (error == 0) {
            memcpy(&id, body, sizeof(id));
        }
        give(&stream->nodes, id);
    }
    if (shape->gives_handle) {
        if (error == 0) {
            memcpy(&id, body + entry_size, sizeof(id));
        }
        give(&stream->handles, error == 0 ? id : 0);
    }
    if (error == 0 && message->header.opcode == FUSE_READDIRPLUS) {
        learn_listed(stream);
    }
    if (error == 0 && message->header.opcode == FUSE_DESTROY) {
        g_assert_cmpuint(stream->n_maps, ==, 0);
    }
}

/* ---- who waits -----------------------------------------------------------------------
 */

static void answer(Stream *stream, Wait *wait)
{
    Harness *harness = stream->harness;
    uint64_t unique = waits_request(wait)->unique;
    const struct iovec out = {harness->reply.bytes, sizeof(harness->reply.bytes)};
    const RequestBuffers buffers = {.out = &out, .n_out = 1};

    size_t length = request_answer(harness->worker, wait, &buffers);
    g_assert_cmpuint(length, ==, sizeof(harness->reply.out));
    g_assert_cmpuint(harness->reply.out.len, ==, length);
    g_assert_cmpuint(harness->reply.out.unique, ==, unique);
    g_assert_cmpint(harness->reply.out.error, <=, 0);
    stream->n_waiting--;
}

/* Each of them once: time makes all of them due. */
static void try_waiting(Stream *stream)
{
    Harness *harness = stream->harness;
    Waits *waits = session_waits(harness->session);

    for (unsigned int i = stream->n_waiting; i > 0; i--) {
        Wait *wait = waits_next(waits);
        if (i % 8 == 7 && waits_is_over(waits, wait)) {
            waits_put_back(waits, wait); /* its queue has no room just now */
        } else if (request_retry(harness->worker, wait)) {
            answer(stream, wait);
        }
    }
}

static void park(Stream *stream)
{
    Harness *harness = stream->harness;
    Wait *wait = request_waiting(harness->worker);
    uint32_t queue = stream->n_waiting % 2;

    waits_park(session_waits(harness->session), wait, queue, (uint16_t)stream->n_waiting);
    stream->n_waiting++;
}

static void finish(Stream *stream)
{
    session_reset(stream->harness->session);
    while (stream->n_waiting > 0) {
        try_waiting(stream);
    }
    session_set_window(stream->harness->session, &(DaxWindow){0});
}

/* ---- the window -----------------------------------------------------------------------
 */

static bool window_is_ready(void *opaque)
{
    const Stream *stream = opaque;

    return stream->refusal != -EIO;
}

static int window_map(void *opaque, const DaxMap *map)
{
    Stream *stream = opaque;

    g_assert_cmpuint(map->offset % PT_DAX_SIZE, ==, 0);
    g_assert_cmpuint(map->file_offset % PT_DAX_SIZE, ==, 0);
    g_assert_cmpint(fcntl(map->fd, F_GETFL) & (O_ACCMODE | O_PATH), ==, O_RDWR);
    stream->n_maps += stream->refusal == 0 ? 1 : 0;
    return stream->refusal;
}

static int window_unmap(void *opaque, uint64_t offset, uint64_t length)
{
    const Stream *stream = opaque;

    return offset % PT_DAX_SIZE != 0 || length == 0 ? -EINVAL : stream->refusal;
}

static void window_unmap_all(void *opaque)
{
    Stream *stream = opaque;

    stream->n_maps = 0;
}

static void give_window(Stream *stream)
{
    session_set_window(stream->harness->session,
                       &(DaxWindow){.opaque = stream,
                                    .is_ready = window_is_ready,
                                    .map = window_map,
                                    .unmap = window_unmap,
                                    .unmap_all = window_unmap_all});
}

/* ---- the row -------------------------------------------------------------------------
 */

static size_t load16(const uint8_t *at)
{
    return (size_t)at[0] | (size_t)at[1] << 8;
}

/* What is done to a session from the other side. */
static void run_event(Stream *stream, size_t event)
{
    Harness *harness = stream->harness;
    Waits *waits = session_waits(harness->session);
    SessionStats stats;
    static const int refusals[] = {0, -EIO, -EINTR, -ENXIO};

    switch (event % 8) {
    case 0:
        session_reset(harness->session);
        break;
    case 1:
        session_stats(harness->session, &stats);
        break;
    case 2:
    case 3:
        if (waits != NULL) {
            waits_settle(waits, event % 2);
        }
        break;
    case 4:
    case 5:
        if (waits != NULL) {
            waits_open(waits, event % 2);
        }
        break;
    default:
        stream->refusal = refusals[event / 8 % G_N_ELEMENTS(refusals)];
        break;
    }
}

static void run_request(Stream *stream, const uint8_t *bytes, size_t size, size_t room)
{
    Harness *harness = stream->harness;
    Message message = {.size = 0};
    unsigned int split = (unsigned int)(room % 5);

    message_add(&message, bytes, MIN(size, sizeof(message.bytes)));
    put_given(stream, &message);
    if (message.header.len == 0) {
        message.header.len = (uint32_t)message.size;
    }
    size_t piece = MAX(room, message.size) / MOST_PIECES + 1;
    harness->split = split == 0 || split == 2 ? split : (unsigned int)MAX(piece, split);
    if (room % 64 == IN_BYTES) {
        harness->split = 1;
    }
    int error = harness_run(harness, &message, room, false);
    if (error == HARNESS_WAITS) {
        park(stream);
    } else {
        learn(stream, &message, error);
    }
}

/* Return: bytes that a record takes, 0 at the end. */
static size_t run_record(Stream *stream, const uint8_t *data, size_t size)
{
    if (size < RECORD_HEAD) {
        return 0;
    }
    size_t room = MIN(load16(data), HARNESS_OUT_SIZE);
    size_t length = MIN(load16(data + 2), size - RECORD_HEAD);
    if (length == 0) {
        run_event(stream, room);
    } else {
        run_request(stream, data + RECORD_HEAD, length, room);
    }
    if (stream->n_waiting > 0) {
        try_waiting(stream);
    }
    return RECORD_HEAD + length;
}

SessionConfig stream_config(const uint8_t *data)
{
    return harness_config_of((uint16_t)load16(data));
}

void stream_run(Harness *harness, const uint8_t *data, size_t size)
{
    Stream stream = {.harness = harness};

    monotonic_ms = 0;
    harness->may_wait = true;
    harness->split = 0;
    if ((load16(data) & HARNESS_WINDOW) != 0) {
        give_window(&stream);
    }
    harness_init(harness, UINT64_MAX);
    data += STREAM_HEAD;
    size -= STREAM_HEAD;
    for (int i = 0; i < MOST_RECORDS; i++) {
        size_t used = run_record(&stream, data, size);
        if (used == 0) {
            break;
        }
        data += used;
        size -= used;
    }
    finish(&stream);
}
