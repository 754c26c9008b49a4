/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Driver side of a virtqueue: what both layouts share, and the split one.
 *
 * The ring lies in memory that another process writes, so its indices are read and
 * written with atomic operations. "Publish, then look whether the other side wants to be
 * told" needs a full barrier on both sides (Virtio 1.2, 2.7.13.3 and 2.7.7): the store
 * and the load are sequentially consistent, which gives that barrier and, other than a
 * fence, is understood by ThreadSanitizer. One mutex guards what only the driver knows.
 */
#include "tests/support/virtqueue-private.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_TABLE_SIZE 512u
#define RING_ALIGN 4096u

static size_t round_up(size_t value, size_t align)
{
    return (value + align - 1) / align * align;
}

static unsigned int table_size(const VirtqueueConfig *config)
{
    unsigned int n = config->table_size;
    if (n == 0) {
        n = config->size < DEFAULT_TABLE_SIZE ? config->size : DEFAULT_TABLE_SIZE;
    }
    return n;
}

static size_t avail_bytes(unsigned int size)
{
    return sizeof(struct vring_avail) + (size + 1) * sizeof(uint16_t);
}

static size_t used_bytes(unsigned int size)
{
    return sizeof(struct vring_used) + size * sizeof(struct vring_used_elem) +
           sizeof(uint16_t);
}

size_t virtqueue_memory_size(const VirtqueueConfig *config)
{
    unsigned int n = config->size;
    size_t tables = (size_t)n * table_size(config) * sizeof(struct vring_desc);
    return round_up(n * sizeof(struct vring_desc), RING_ALIGN) +
           round_up(avail_bytes(n), RING_ALIGN) + round_up(used_bytes(n), RING_ALIGN) +
           round_up(tables, RING_ALIGN) + RING_ALIGN;
}

/* Index behind the ring at which the device says when it wants a kick. */
static uint16_t *avail_event(Virtqueue *queue)
{
    return (uint16_t *)(void *)&queue->used->ring[queue->config.size];
}

static uint16_t *used_event(Virtqueue *queue)
{
    return &queue->avail->ring[queue->config.size];
}

Virtqueue *virtqueue_new(GuestMemory *memory, const VirtqueueConfig *config)
{
    unsigned int n = config->size;
    Virtqueue *queue = calloc(1, sizeof(*queue));
    if (queue == NULL) {
        return NULL;
    }
    queue->memory = memory;
    queue->config = *config;
    queue->config.table_size = table_size(config);
    queue->kick_fd = -1;
    queue->call_fd = -1;
    (void)pthread_mutex_init(&queue->lock,
                             NULL); /* cannot fail with default attributes */
    queue->heads = calloc(n, sizeof(Head));
    queue->plan = calloc(n, sizeof(struct vring_desc));
    queue->desc = guest_memory_alloc(memory, n * sizeof(struct vring_desc), RING_ALIGN);
    queue->avail = guest_memory_alloc(memory, avail_bytes(n), RING_ALIGN);
    queue->used = guest_memory_alloc(memory, used_bytes(n), RING_ALIGN);
    queue->tables = guest_memory_alloc(
        memory, (size_t)n * queue->config.table_size * sizeof(struct vring_desc), 16);
    if (queue->heads == NULL || queue->plan == NULL || queue->desc == NULL ||
        queue->avail == NULL || queue->used == NULL || queue->tables == NULL) {
        virtqueue_free(queue);
        errno = ENOMEM;
        return NULL;
    }
    virtqueue_reset(queue);
    return queue;
}

void virtqueue_free(Virtqueue *queue)
{
    if (queue == NULL) {
        return;
    }
    (void)pthread_mutex_destroy(&queue->lock); /* nobody holds it any more */
    free(queue->heads);
    free(queue->plan);
    free(queue);
}

void virtqueue_set_fds(Virtqueue *queue, int kick_fd, int call_fd)
{
    (void)pthread_mutex_lock(&queue->lock);
    queue->kick_fd = kick_fd;
    queue->call_fd = call_fd;
    (void)pthread_mutex_unlock(&queue->lock);
}

int virtqueue_call_fd(const Virtqueue *queue)
{
    return queue->call_fd;
}

int virtqueue_kick_fd(const Virtqueue *queue)
{
    return queue->kick_fd;
}

void virtqueue_set_features(Virtqueue *queue, const VirtqueueFeatures *features)
{
    (void)pthread_mutex_lock(&queue->lock);
    queue->config.indirect = features->indirect;
    queue->config.event_idx = features->event_idx;
    queue->config.packed = features->packed;
    (void)pthread_mutex_unlock(&queue->lock);
    virtqueue_reset(queue);
}

void virtqueue_reset(Virtqueue *queue)
{
    unsigned int n = queue->config.size;
    (void)pthread_mutex_lock(&queue->lock);
    memset(queue->desc, 0, n * sizeof(struct vring_desc));
    memset(queue->avail, 0, avail_bytes(n));
    memset(queue->used, 0, used_bytes(n));
    if (queue->config.packed) {
        virtqueue_packed_reset(queue);
    } else {
        /* No interrupt until somebody waits; with EVENT_IDX the flag is ignored. */
        __atomic_store_n(&queue->avail->flags, VRING_AVAIL_F_NO_INTERRUPT,
                         __ATOMIC_RELAXED);
        __atomic_store_n(used_event(queue), UINT16_MAX, __ATOMIC_RELAXED);
    }
    for (unsigned int i = 0; i < n; i++) {
        queue->heads[i] = (Head){.next = (uint16_t)(i + 1)};
    }
    queue->free_head = 0;
    queue->n_free = n;
    queue->n_in_flight = 0;
    queue->avail_index = 0;
    queue->kicked_index = 0;
    queue->used_index = 0;
    (void)pthread_mutex_unlock(&queue->lock);
}

/* ---- submission, under the lock --------------------------------------------- */

uint16_t virtqueue_take(Virtqueue *queue)
{
    uint16_t index = queue->free_head;
    queue->free_head = queue->heads[index].next;
    queue->n_free--;
    return index;
}

static void give_descriptor(Virtqueue *queue, uint16_t index)
{
    queue->heads[index] = (Head){.next = queue->free_head};
    queue->free_head = index;
    queue->n_free++;
}

const VirtqueueSegment *virtqueue_segment(const VirtqueueRequest *request, unsigned int i)
{
    return i < request->n_in ? &request->in[i] : &request->out[i - request->n_in];
}

static void fill(struct vring_desc *desc, const VirtqueueRequest *request, unsigned int i)
{
    const VirtqueueSegment *segment = virtqueue_segment(request, i);
    bool last = i + 1 == request->n_in + request->n_out;
    desc->addr = segment->gpa;
    desc->len = segment->size;
    desc->flags = (uint16_t)((i >= request->n_in ? VRING_DESC_F_WRITE : 0) |
                             (last ? 0 : VRING_DESC_F_NEXT));
}

static uint16_t fill_table(Virtqueue *queue, const VirtqueueRequest *request)
{
    unsigned int n = request->n_in + request->n_out;
    uint16_t head = virtqueue_take(queue);
    struct vring_desc *table = queue->tables + (size_t)head * queue->config.table_size;
    for (unsigned int i = 0; i < n; i++) {
        fill(&table[i], request, i);
        table[i].next = (uint16_t)(i + 1);
    }
    queue->desc[head] = (struct vring_desc){
        .addr = guest_memory_gpa(queue->memory, table),
        .len = (uint32_t)(n * sizeof(struct vring_desc)),
        .flags = VRING_DESC_F_INDIRECT,
    };
    queue->heads[head].length = 1;
    return head;
}

static uint16_t fill_chain(Virtqueue *queue, const VirtqueueRequest *request)
{
    unsigned int n = request->n_in + request->n_out;
    uint16_t head = queue->free_head;
    uint16_t last = head;
    for (unsigned int i = 0; i < n; i++) {
        last = virtqueue_take(queue);
        fill(&queue->desc[last], request, i);
        /* virtqueue_take() left the link to the next free one, which comes next. */
        queue->desc[last].next = queue->heads[last].next;
    }
    queue->heads[head].length = (uint16_t)n;
    return head;
}

static void publish(Virtqueue *queue, uint16_t head)
{
    uint16_t place = (uint16_t)(queue->avail_index % queue->config.size);
    __atomic_store_n(&queue->avail->ring[place], head, __ATOMIC_RELAXED);
    __atomic_store_n(&queue->avail->idx, (uint16_t)(queue->avail_index + 1),
                     __ATOMIC_SEQ_CST);
}

static void count_published(Virtqueue *queue)
{
    queue->avail_index++;
    queue->counters.submitted++;
    queue->n_in_flight++;
}

static void write_kick(Virtqueue *queue)
{
    uint64_t one = 1;
    queue->kicked_index = queue->avail_index;
    queue->kicked_at = queue->avail_at;
    queue->counters.kicks++;
    /* A counter that is full has woken the device already; no other failure matters. */
    (void)!write(queue->kick_fd, &one, sizeof(one));
}

static bool wants_kick(Virtqueue *queue)
{
    if (queue->config.packed) {
        return virtqueue_packed_wants_kick(queue);
    }
    if (queue->config.event_idx) {
        uint16_t event = __atomic_load_n(avail_event(queue), __ATOMIC_SEQ_CST);
        return (uint16_t)(queue->avail_index - event - 1) <
               (uint16_t)(queue->avail_index - queue->kicked_index);
    }
    uint16_t flags = __atomic_load_n(&queue->used->flags, __ATOMIC_SEQ_CST);
    return (flags & VRING_USED_F_NO_NOTIFY) == 0;
}

static void kick_if_wanted(Virtqueue *queue)
{
    if (queue->kicked_index == queue->avail_index) {
        return;
    }
    if (wants_kick(queue)) {
        write_kick(queue);
    } else {
        queue->kicked_index = queue->avail_index;
        queue->kicked_at = queue->avail_at;
        queue->counters.kicks_suppressed++;
    }
}

static int check_request(const Virtqueue *queue, const VirtqueueRequest *request)
{
    unsigned int n = request->n_in + request->n_out;
    bool table = queue->config.indirect && n > 1;
    if (n == 0) {
        return -EINVAL;
    }
    if (n > (table ? queue->config.table_size : queue->config.size)) {
        return -EMSGSIZE;
    }
    return queue->n_free < (table ? 1 : n) ? -ENOSPC : 0;
}

/* What the completion is compared with; nobody takes that up while we have the lock. */
static void remember(Head *state, const VirtqueueRequest *request)
{
    state->tag = request->tag;
    state->in_flight = 1;
    state->room = 0;
    for (unsigned int i = 0; i < request->n_out; i++) {
        state->room += request->out[i].size;
    }
}

static int submit_locked(Virtqueue *queue, const VirtqueueRequest *request)
{
    int rc = check_request(queue, request);
    if (rc < 0) {
        return rc;
    }
    bool table = queue->config.indirect && request->n_in + request->n_out > 1;
    uint16_t head;
    if (queue->config.packed) {
        head = virtqueue_packed_fill(queue, request, table);
    } else {
        head = table ? fill_table(queue, request) : fill_chain(queue, request);
        publish(queue, head);
    }
    remember(&queue->heads[head], request);
    count_published(queue);
    if (!request->no_kick) {
        kick_if_wanted(queue);
    }
    return head;
}

int virtqueue_submit(Virtqueue *queue, const VirtqueueRequest *request)
{
    (void)pthread_mutex_lock(&queue->lock);
    int rc = submit_locked(queue, request);
    (void)pthread_mutex_unlock(&queue->lock);
    return rc;
}

void virtqueue_kick(Virtqueue *queue)
{
    (void)pthread_mutex_lock(&queue->lock);
    kick_if_wanted(queue);
    (void)pthread_mutex_unlock(&queue->lock);
}

void virtqueue_kick_always(Virtqueue *queue)
{
    (void)pthread_mutex_lock(&queue->lock);
    write_kick(queue);
    (void)pthread_mutex_unlock(&queue->lock);
}

/* ---- completion ------------------------------------------------------------- */

static void free_chain(Virtqueue *queue, uint16_t head)
{
    uint16_t index = head;
    for (unsigned int left = queue->heads[head].length; left > 0; left--) {
        /* In a chain heads[].next still names the following descriptor. */
        uint16_t next = queue->heads[index].next;
        give_descriptor(queue, index);
        index = next;
    }
}

/* Return: 1 with a completion, which is left where it is; 0; or -EPROTO. */
static int look(const Virtqueue *queue, VirtqueueCompletion *completion)
{
    if (queue->config.packed) {
        return virtqueue_packed_look(queue, completion) ? 1 : 0;
    }
    uint16_t index = __atomic_load_n(&queue->used->idx, __ATOMIC_SEQ_CST);
    uint16_t waiting = (uint16_t)(index - queue->used_index);
    if (waiting == 0) {
        return 0;
    }
    if (waiting > queue->n_in_flight) {
        return -EPROTO;
    }
    struct vring_used_elem *elem =
        &queue->used->ring[queue->used_index % queue->config.size];
    *completion = (VirtqueueCompletion){
        .head = __atomic_load_n(&elem->id, __ATOMIC_RELAXED),
        .length = __atomic_load_n(&elem->len, __ATOMIC_RELAXED),
    };
    return 1;
}

static int poll_locked(Virtqueue *queue, VirtqueueCompletion *completion)
{
    int rc = look(queue, completion);
    if (rc <= 0) {
        return rc;
    }
    if (completion->head >= queue->config.size ||
        queue->heads[completion->head].in_flight == 0) {
        return -EPROTO;
    }
    Head *state = &queue->heads[completion->head];
    if (completion->length > state->room) {
        return -EPROTO;
    }
    completion->tag = state->tag;
    queue->used_index++;
    if (queue->config.packed) {
        virtqueue_packed_step(queue, state->length);
    }
    queue->n_in_flight--;
    queue->counters.completed++;
    if (state->reserved) {
        state->in_flight--;
    } else {
        free_chain(queue, (uint16_t)completion->head);
    }
    return 1;
}

int virtqueue_poll(Virtqueue *queue, VirtqueueCompletion *completion)
{
    (void)pthread_mutex_lock(&queue->lock);
    int rc = poll_locked(queue, completion);
    (void)pthread_mutex_unlock(&queue->lock);
    return rc;
}

bool virtqueue_arm(Virtqueue *queue)
{
    VirtqueueCompletion completion;
    (void)pthread_mutex_lock(&queue->lock);
    if (queue->config.packed) {
        virtqueue_packed_arm(queue, true);
    } else if (queue->config.event_idx) {
        __atomic_store_n(used_event(queue), queue->used_index, __ATOMIC_SEQ_CST);
    } else {
        __atomic_store_n(&queue->avail->flags, 0, __ATOMIC_SEQ_CST);
    }
    bool there = look(queue, &completion) != 0;
    (void)pthread_mutex_unlock(&queue->lock);
    return there;
}

static void disarm(Virtqueue *queue)
{
    if (queue->config.event_idx) {
        return;
    }
    if (queue->config.packed) {
        virtqueue_packed_arm(queue, false);
    } else {
        __atomic_store_n(&queue->avail->flags, VRING_AVAIL_F_NO_INTERRUPT,
                         __ATOMIC_RELAXED);
    }
}

void virtqueue_acknowledge(Virtqueue *queue)
{
    uint64_t n = 0;
    (void)pthread_mutex_lock(&queue->lock);
    if (read(queue->call_fd, &n, sizeof(n)) == (ssize_t)sizeof(n)) {
        queue->counters.interrupts += n;
    }
    (void)pthread_mutex_unlock(&queue->lock);
}

static int64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int virtqueue_wait(Virtqueue *queue, VirtqueueCompletion *completion, int timeout_ms)
{
    int rc = virtqueue_poll(queue, completion);
    if (rc != 0) {
        return rc;
    }
    int64_t deadline = now_ms() + timeout_ms;
    for (;;) {
        (void)virtqueue_arm(queue);
        rc = virtqueue_poll(queue, completion);
        int64_t left = deadline - now_ms();
        if (rc != 0 || left < 0) {
            disarm(queue);
            return rc != 0 ? rc : -ETIMEDOUT;
        }
        struct pollfd pfd = {.fd = queue->call_fd, .events = POLLIN};
        if (poll(&pfd, 1, (int)left + 1) > 0) {
            virtqueue_acknowledge(queue);
        }
    }
}

/* ---- hostile use ------------------------------------------------------------ */

int virtqueue_reserve(Virtqueue *queue, unsigned int n, uint16_t *heads)
{
    (void)pthread_mutex_lock(&queue->lock);
    int rc = queue->n_free < n ? -ENOSPC : 0;
    for (unsigned int i = 0; rc == 0 && i < n; i++) {
        heads[i] = virtqueue_take(queue);
        queue->heads[heads[i]].reserved = true;
    }
    (void)pthread_mutex_unlock(&queue->lock);
    return rc;
}

void virtqueue_release(Virtqueue *queue, unsigned int n, const uint16_t *heads)
{
    (void)pthread_mutex_lock(&queue->lock);
    for (unsigned int i = 0; i < n; i++) {
        if (queue->heads[heads[i]].reserved) {
            give_descriptor(queue, heads[i]);
        }
    }
    (void)pthread_mutex_unlock(&queue->lock);
}

void virtqueue_post(Virtqueue *queue, uint16_t head, void *tag)
{
    (void)pthread_mutex_lock(&queue->lock);
    if (head < queue->config.size && queue->heads[head].reserved) {
        queue->heads[head].tag = tag;
        queue->heads[head].in_flight++;
        queue->heads[head].room = UINT32_MAX; /* only the test knows */
    }
    if (queue->config.packed) {
        virtqueue_packed_post(queue, head);
    } else {
        publish(queue, head);
    }
    count_published(queue);
    write_kick(queue);
    (void)pthread_mutex_unlock(&queue->lock);
}

VirtqueueLayout virtqueue_layout(const Virtqueue *queue)
{
    return (VirtqueueLayout){
        .size = queue->config.size,
        .desc = queue->desc,
        .plan = queue->config.packed ? queue->plan : queue->desc,
        .avail = queue->avail,
        .used = queue->used,
        .tables = queue->tables,
        .table_size = queue->config.table_size,
    };
}

VirtqueueCounters virtqueue_counters(Virtqueue *queue)
{
    (void)pthread_mutex_lock(&queue->lock);
    VirtqueueCounters counters = queue->counters;
    (void)pthread_mutex_unlock(&queue->lock);
    return counters;
}

unsigned int virtqueue_in_flight(Virtqueue *queue)
{
    (void)pthread_mutex_lock(&queue->lock);
    unsigned int n = queue->n_in_flight;
    (void)pthread_mutex_unlock(&queue->lock);
    return n;
}

unsigned int virtqueue_waiting(Virtqueue *queue)
{
    (void)pthread_mutex_lock(&queue->lock);
    uint16_t index = __atomic_load_n(&queue->used->idx, __ATOMIC_SEQ_CST);
    unsigned int n = queue->config.packed ? virtqueue_packed_waiting(queue)
                                          : (uint16_t)(index - queue->used_index);
    (void)pthread_mutex_unlock(&queue->lock);
    return n;
}

uint16_t virtqueue_avail_index(Virtqueue *queue)
{
    (void)pthread_mutex_lock(&queue->lock);
    uint16_t index = queue->avail_index;
    (void)pthread_mutex_unlock(&queue->lock);
    return index;
}

uint32_t virtqueue_base(Virtqueue *queue)
{
    (void)pthread_mutex_lock(&queue->lock);
    uint32_t base = queue->config.packed
                        ? queue->avail_at | (uint32_t)queue->avail_at << 16
                        : queue->avail_index;
    (void)pthread_mutex_unlock(&queue->lock);
    return base;
}
