/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests in slots of guest memory, and who waits for them.
 *
 * A slot is laid out so that what follows the header and a WRITE's arguments begins a
 * page, and so does what follows the header of an answer: as in a real guest, data is
 * page-aligned. Threads that wait for answers on one queue share the work: one of them
 * sleeps on the queue and hands out what completes, the others sleep on a condition; when
 * it has its own answer, another takes over. A request whose waiter gave up keeps its
 * slot until the device completes it, because the device may still write there.
 */
#include "tests/support/fuse-client.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/support/reply-room.h"

#define PAGE SEGMENTS_PAGE
#define POISON 0xa5
/* How often a waiter looks whether the peer still lives. */
#define SLICE_MS 100
#define NO_QUEUE UINT_MAX

typedef enum SlotState {
    SLOT_FREE,
    SLOT_FILLING,
    SLOT_AWAITED,   /* in flight, a thread waits for it */
    SLOT_SUBMITTED, /* in flight, for client_reap() */
    SLOT_ABANDONED, /* in flight, nobody wants it */
    SLOT_DONE,
} SlotState;

struct ClientSlot {
    uint8_t *in;
    uint8_t *out;
    size_t in_size;
    size_t out_size;
    uint64_t unique;
    unsigned int queue;
    SlotState state; /* under the client's lock, as the rest */
    uint32_t used;
    void *tag;
    ClientSlot *next; /* free list, or the queue's list of those done */
};

typedef struct ClientQueue {
    Virtqueue *ring;
    pthread_cond_t changed;
    bool has_reaper;
    ClientSlot *done;
    ClientSlot **done_end;
} ClientQueue;

struct Client {
    Frontend *frontend;
    ClientConfig config;
    size_t in_room;
    size_t out_room;
    ClientQueue *queues;
    unsigned int n_queues;
    ClientSlot *slots;

    pthread_mutex_t lock;
    pthread_cond_t slot_freed;
    ClientSlot *free;
    uint64_t next_unique;
    unsigned int turn; /* spreads requests over the queues */
};

void client_config_init(ClientConfig *config)
{
    *config = (ClientConfig){
        .n_slots = 16,
        .data_size = 1u << 20,
        .split = SEGMENTS_LINUX,
        .pid = 1,
        .timeout_ms = 10000,
    };
}

static size_t area_size(const ClientConfig *config)
{
    /* A page in front for the header, three behind for names and arguments. */
    return (config->data_size + PAGE - 1) / PAGE * PAGE + 4 * PAGE;
}

size_t client_memory_size(const ClientConfig *config)
{
    return 2 * config->n_slots * area_size(config) + PAGE;
}

/* ---- life ------------------------------------------------------------------- */

static void init_cond(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr); /* none of these fails on Linux */
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(cond, &attr);
    (void)pthread_condattr_destroy(&attr);
}

static bool build(Client *client)
{
    GuestMemory *memory = frontend_memory(client->frontend);
    size_t area = area_size(&client->config);
    client->in_room = area - SEGMENTS_IN_LEAD;
    client->out_room = area - SEGMENTS_OUT_LEAD;
    unsigned int n = frontend_n_queues(client->frontend);
    client->queues = calloc(n, sizeof(*client->queues));
    client->slots = calloc(client->config.n_slots, sizeof(*client->slots));
    if (client->queues == NULL || client->slots == NULL) {
        return false;
    }
    for (; client->n_queues < n; client->n_queues++) {
        ClientQueue *queue = &client->queues[client->n_queues];
        queue->ring = frontend_queue(client->frontend, client->n_queues);
        init_cond(&queue->changed);
        queue->done_end = &queue->done;
    }
    for (unsigned int i = client->config.n_slots; i > 0; i--) {
        ClientSlot *slot = &client->slots[i - 1];
        uint8_t *in = guest_memory_alloc(memory, area, PAGE);
        uint8_t *out = guest_memory_alloc(memory, area, PAGE);
        if (in == NULL || out == NULL) {
            return false;
        }
        slot->in = in + SEGMENTS_IN_LEAD;
        slot->out = out + SEGMENTS_OUT_LEAD;
        slot->queue = NO_QUEUE;
        slot->next = client->free;
        client->free = slot;
    }
    return true;
}

Client *client_new(Frontend *frontend, const ClientConfig *config)
{
    Client *client = calloc(1, sizeof(*client));
    if (client == NULL) {
        return NULL;
    }
    client->frontend = frontend;
    client->config = *config;
    client->next_unique = 2;
    (void)pthread_mutex_init(&client->lock, NULL); /* cannot fail with defaults */
    init_cond(&client->slot_freed);
    if (!build(client)) {
        client_free(client);
        errno = ENOMEM;
        return NULL;
    }
    return client;
}

void client_free(Client *client)
{
    if (client == NULL) {
        return;
    }
    for (unsigned int i = 0; i < client->n_queues; i++) {
        (void)pthread_cond_destroy(&client->queues[i].changed); /* nobody waits */
    }
    (void)pthread_cond_destroy(&client->slot_freed);
    (void)pthread_mutex_destroy(&client->lock);
    free(client->queues);
    free(client->slots);
    free(client);
}

Frontend *client_frontend(const Client *client)
{
    return client->frontend;
}

void client_set_identity(Client *client, uint32_t uid, uint32_t gid, uint32_t pid)
{
    (void)pthread_mutex_lock(&client->lock);
    client->config.uid = uid;
    client->config.gid = gid;
    client->config.pid = pid;
    (void)pthread_mutex_unlock(&client->lock);
}

void client_set_split(Client *client, SegmentsSplit split, size_t split_size)
{
    (void)pthread_mutex_lock(&client->lock);
    client->config.split = split;
    client->config.split_size = split_size;
    (void)pthread_mutex_unlock(&client->lock);
}

/* ---- slots ------------------------------------------------------------------ */

static int64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Wait on a condition, at most until the deadline and no longer than a slice. */
static void wait_cond(Client *client, pthread_cond_t *cond, int64_t deadline)
{
    int64_t until = now_ms() + SLICE_MS;
    until = until < deadline ? until : deadline;
    struct timespec when = {.tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000};
    /* A time-out is noticed by the caller, who looks at the clock. */
    (void)pthread_cond_timedwait(cond, &client->lock, &when);
}

static void put_slot(Client *client, ClientSlot *slot)
{
    slot->state = SLOT_FREE;
    slot->next = client->free;
    client->free = slot;
    (void)pthread_cond_signal(&client->slot_freed);
}

static ClientSlot *take_slot(Client *client, unsigned int queue, int64_t deadline)
{
    while (client->free == NULL && now_ms() < deadline) {
        wait_cond(client, &client->slot_freed, deadline);
    }
    /*
     * Rather one that served the same queue before, else a new one: ThreadSanitizer in
     * the daemon sees no order between uses of a buffer on two queues, since it is made
     * in this process.
     */
    ClientSlot **link = &client->free;
    for (ClientSlot **at = link; *at != NULL; at = &(*at)->next) {
        if ((*at)->queue == queue) {
            link = at;
            break;
        }
        if ((*at)->queue == NO_QUEUE) {
            link = at;
        }
    }
    ClientSlot *slot = *link;
    if (slot != NULL) {
        *link = slot->next;
        slot->queue = queue;
        slot->state = SLOT_FILLING;
        slot->next = NULL;
    }
    return slot;
}

void client_release(Client *client, ClientReply *reply)
{
    if (reply->slot == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&client->lock);
    put_slot(client, reply->slot);
    (void)pthread_mutex_unlock(&client->lock);
    reply->slot = NULL;
}

void client_reset(Client *client)
{
    (void)pthread_mutex_lock(&client->lock);
    client->free = NULL;
    for (unsigned int i = 0; i < client->n_queues; i++) {
        client->queues[i].done = NULL;
        client->queues[i].done_end = &client->queues[i].done;
    }
    for (unsigned int i = client->config.n_slots; i > 0; i--) {
        put_slot(client, &client->slots[i - 1]);
    }
    (void)pthread_mutex_unlock(&client->lock);
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static uint32_t opcode_of(const ClientSlot *slot)
{
    uint32_t opcode = 0;
    if (slot->in_size >= sizeof(uint32_t) + sizeof(opcode)) {
        memcpy(&opcode, slot->in + offsetof(struct fuse_in_header, opcode),
               sizeof(opcode));
    }
    return opcode;
}

static int send_slot(Client *client, ClientSlot *slot)
{
    Segments in;
    Segments out;
    Virtqueue *ring = client->queues[slot->queue].ring;
    GuestMemory *memory = frontend_memory(client->frontend);
    SegmentsPlan plan = {
        .split = client->config.split,
        .step = client->config.split_size,
        .limit = segments_limit(ring),
        .opcode = opcode_of(slot),
    };
    int rc =
        segments_cut_in(&in, &plan, guest_memory_gpa(memory, slot->in), slot->in_size);
    if (rc == 0) {
        rc = segments_cut_out(&out, &plan, guest_memory_gpa(memory, slot->out),
                              slot->out_size);
    }
    if (rc < 0) {
        return rc;
    }
    if (client->config.poison) {
        memset(slot->out, POISON, slot->out_size);
    }
    rc = virtqueue_submit(
        ring, &(VirtqueueRequest){
                  .in = in.at, .n_in = in.n, .out = out.at, .n_out = out.n, .tag = slot});
    return rc < 0 ? rc : 0;
}

/* ---- filling a slot --------------------------------------------------------- */

static unsigned int choose_queue(Client *client, unsigned int wanted, uint32_t opcode)
{
    if (wanted != CLIENT_QUEUE_AUTO && wanted <= client->n_queues) {
        return wanted - 1;
    }
    if (!reply_is_expected(opcode) || client->n_queues == 1) {
        return 0;
    }
    return 1 + client->turn++ % (client->n_queues - 1);
}

static int append(Client *client, ClientSlot *slot, const void *bytes, size_t size)
{
    if (size > client->in_room - slot->in_size) {
        return -EMSGSIZE;
    }
    if (bytes != NULL && size > 0) {
        memcpy(slot->in + slot->in_size, bytes, size);
    }
    slot->in_size += size;
    return 0;
}

static struct fuse_in_header
make_header(const Client *client, const ClientRequest *request, const ClientSlot *slot)
{
    const struct fuse_in_header *given = &request->header;
    unsigned int set = request->set;
    return (struct fuse_in_header){
        .len = set & CLIENT_SET_LEN ? given->len : (uint32_t)slot->in_size,
        .opcode = request->opcode,
        .unique = slot->unique,
        .nodeid = request->nodeid,
        .uid = set & CLIENT_SET_UID ? given->uid : client->config.uid,
        .gid = set & CLIENT_SET_GID ? given->gid : client->config.gid,
        .pid = set & CLIENT_SET_PID ? given->pid : client->config.pid,
        .total_extlen = set & CLIENT_SET_EXTLEN ? given->total_extlen : (uint16_t)0,
    };
}

static int fill(Client *client, ClientSlot *slot, const ClientRequest *request)
{
    const char *name = request->name;
    const char *name2 = request->name2;
    slot->in_size = sizeof(struct fuse_in_header);
    slot->unique =
        request->set & CLIENT_SET_UNIQUE ? request->header.unique : client->next_unique;
    client->next_unique += 2;
    int rc = append(client, slot, request->args, request->args_size);
    if (rc == 0 && name != NULL) {
        rc = append(client, slot, name, strlen(name) + 1);
    }
    if (rc == 0 && name2 != NULL) {
        rc = append(client, slot, name2, strlen(name2) + 1);
    }
    if (rc == 0) {
        rc = append(client, slot, request->data, request->data_size);
    }
    if (rc < 0) {
        return rc;
    }
    struct fuse_in_header header = make_header(client, request, slot);
    memcpy(slot->in, &header, sizeof(header));
    size_t room =
        request->out_size > 0 ? request->out_size : reply_room(slot->in, slot->in_size);
    room += sizeof(struct fuse_out_header);
    bool silent = request->no_reply || !reply_is_expected(request->opcode);
    slot->out_size = silent ? 0 : room;
    return slot->out_size > client->out_room ? -EMSGSIZE : 0;
}

static int fill_raw(Client *client, ClientSlot *slot, const ClientRaw *raw)
{
    slot->in_size = 0;
    slot->out_size = raw->room;
    slot->unique = 0;
    int rc = append(client, slot, raw->bytes, raw->size);
    if (raw->size >= 16) {
        memcpy(&slot->unique, slot->in + offsetof(struct fuse_in_header, unique), 8);
    }
    return rc < 0 ? rc : raw->room > client->out_room ? -EMSGSIZE : 0;
}

/* ---- waiting ---------------------------------------------------------------- */

static void complete(Client *client, const VirtqueueCompletion *completion)
{
    ClientSlot *slot = completion->tag;
    if (slot == NULL) {
        return; /* posted by a test */
    }
    ClientQueue *queue = &client->queues[slot->queue];
    slot->used = completion->length;
    if (slot->state == SLOT_ABANDONED) {
        put_slot(client, slot);
        return;
    }
    if (slot->state == SLOT_SUBMITTED) {
        slot->next = NULL;
        *queue->done_end = slot;
        queue->done_end = &slot->next;
    }
    slot->state = SLOT_DONE;
}

static bool is_there(const ClientQueue *queue, const ClientSlot *slot)
{
    return slot != NULL ? slot->state == SLOT_DONE : queue->done != NULL;
}

/* Wait until @slot, or without one any submitted request of the queue, is done. */
static int await(Client *client, ClientQueue *queue, const ClientSlot *slot,
                 int64_t deadline)
{
    int rc = 0;
    while (!is_there(queue, slot)) {
        int64_t left = deadline - now_ms();
        if (rc < 0) {
            return rc;
        }
        if (queue->has_reaper) {
            if (left <= 0) {
                return -ETIMEDOUT;
            }
            wait_cond(client, &queue->changed, deadline);
            continue;
        }
        VirtqueueCompletion completion;
        queue->has_reaper = true;
        (void)pthread_mutex_unlock(&client->lock);
        left = left > SLICE_MS ? SLICE_MS : left;
        rc = virtqueue_wait(queue->ring, &completion, left > 0 ? (int)left : 0);
        if (rc == -ETIMEDOUT && left > 0) {
            rc = frontend_is_closed(client->frontend, 0) ? -ECONNRESET : 0;
        }
        (void)pthread_mutex_lock(&client->lock);
        queue->has_reaper = false;
        if (rc == 1) {
            complete(client, &completion);
        }
        (void)pthread_cond_broadcast(&queue->changed);
    }
    return 0;
}

static int check_reply(const ClientReply *reply, const ClientSlot *slot)
{
    if (reply->used == 0) {
        return slot->out_size == 0 ? 0 : -ENODATA;
    }
    /* virtio_fs_verify_response() and fuse_dev_do_write() of Linux 7.2. */
    bool well_formed = reply->used >= sizeof(reply->header) &&
                       reply->header.len == reply->used &&
                       reply->header.unique == slot->unique && reply->header.error <= 0 &&
                       reply->header.error > -1000;
    return well_formed ? 0 : -EPROTO;
}

static int make_reply(ClientSlot *slot, ClientReply *reply)
{
    size_t used = smaller(slot->used, slot->out_size);
    *reply = (ClientReply){
        .used = slot->used,
        .room = slot->out,
        .room_size = slot->out_size,
        .tag = slot->tag,
        .slot = slot,
    };
    memcpy(&reply->header, slot->out, smaller(used, sizeof(reply->header)));
    if (used > sizeof(reply->header)) {
        reply->payload = slot->out + sizeof(reply->header);
        reply->size = used - sizeof(reply->header);
    }
    return check_reply(reply, slot);
}

/* Send a filled slot and wait for it. Called and left with the lock held. */
static int run_slot(Client *client, ClientSlot *slot, ClientReply *reply,
                    int64_t deadline)
{
    slot->state = SLOT_AWAITED;
    slot->tag = NULL;
    int rc = send_slot(client, slot);
    if (rc < 0) {
        put_slot(client, slot);
        return rc;
    }
    rc = await(client, &client->queues[slot->queue], slot, deadline);
    if (rc < 0) {
        slot->state = SLOT_ABANDONED;
        return rc;
    }
    return make_reply(slot, reply);
}

/* One of both: a request to be built, or bytes. */
typedef struct Order {
    const ClientRequest *request;
    const ClientRaw *raw;
} Order;

static unsigned int queue_of(Client *client, const Order *order)
{
    uint32_t opcode = 0;
    if (order->request != NULL) {
        return choose_queue(client, order->request->queue, order->request->opcode);
    }
    if (order->raw->size >= sizeof(uint32_t) + sizeof(opcode)) {
        memcpy(&opcode,
               (const uint8_t *)order->raw->bytes +
                   offsetof(struct fuse_in_header, opcode),
               sizeof(opcode));
    }
    return choose_queue(client, order->raw->queue, opcode);
}

/* Take a slot and fill it. Called and left with the lock held. */
static int prepare(Client *client, const Order *order, int64_t deadline,
                   ClientSlot **ret_slot)
{
    ClientSlot *slot = take_slot(client, queue_of(client, order), deadline);
    if (slot == NULL) {
        return -EAGAIN;
    }
    int rc = order->request != NULL ? fill(client, slot, order->request)
                                    : fill_raw(client, slot, order->raw);
    if (rc < 0) {
        put_slot(client, slot);
        return rc;
    }
    *ret_slot = slot;
    return 0;
}

static int exchange(Client *client, const Order *order, ClientReply *reply,
                    int timeout_ms)
{
    int64_t deadline = now_ms() + timeout_ms;
    ClientSlot *slot;
    *reply = (ClientReply){0};
    (void)pthread_mutex_lock(&client->lock);
    int rc = prepare(client, order, deadline, &slot);
    if (rc == 0) {
        rc = run_slot(client, slot, reply, deadline);
    }
    (void)pthread_mutex_unlock(&client->lock);
    return rc;
}

int client_exchange(Client *client, const ClientRequest *request, ClientReply *reply)
{
    return exchange(client, &(Order){.request = request}, reply,
                    client->config.timeout_ms);
}

int client_exchange_raw(Client *client, const ClientRaw *raw, ClientReply *reply,
                        int timeout_ms)
{
    return exchange(client, &(Order){.raw = raw}, reply, timeout_ms);
}

int client_call(Client *client, const ClientRequest *request, void *out, size_t out_size)
{
    ClientReply reply;
    int rc = client_exchange(client, request, &reply);
    if (rc == 0 && reply.header.error != 0) {
        rc = reply.header.error;
    } else if (rc == 0) {
        size_t size = smaller(reply.size, out_size);
        if (size > 0) {
            memcpy(out, reply.payload, size);
        }
        rc = (int)size;
    }
    client_release(client, &reply);
    return rc;
}

/* ---- without waiting -------------------------------------------------------- */

static int submit(Client *client, const Order *order, void *tag)
{
    ClientSlot *slot;
    (void)pthread_mutex_lock(&client->lock);
    int rc = prepare(client, order, 0, &slot);
    if (rc == 0) {
        slot->state = SLOT_SUBMITTED;
        slot->tag = tag;
        rc = send_slot(client, slot);
        if (rc < 0) {
            put_slot(client, slot);
        }
    }
    (void)pthread_mutex_unlock(&client->lock);
    return rc;
}

int client_submit(Client *client, const ClientRequest *request, void *tag)
{
    return submit(client, &(Order){.request = request}, tag);
}

int client_submit_raw(Client *client, const ClientRaw *raw, void *tag)
{
    return submit(client, &(Order){.raw = raw}, tag);
}

int client_reap(Client *client, unsigned int queue, ClientReply *reply, int timeout_ms)
{
    ClientQueue *q = &client->queues[queue];
    *reply = (ClientReply){0};
    (void)pthread_mutex_lock(&client->lock);
    int rc = await(client, q, NULL, now_ms() + timeout_ms);
    if (rc == 0) {
        ClientSlot *slot = q->done;
        q->done = slot->next;
        if (q->done == NULL) {
            q->done_end = &q->done;
        }
        rc = make_reply(slot, reply);
    }
    (void)pthread_mutex_unlock(&client->lock);
    return rc;
}
