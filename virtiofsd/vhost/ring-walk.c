/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk along a descriptor chain (Virtio 1.2, 2.7.5). It is guest memory that may
 * change under our eyes: a descriptor is copied by atomic loads into a local one, checked
 * there, and never looked at again. Loops need no detection, for the number of steps is
 * bounded by the queue size, as the specification bounds chains.
 *
 * A packed ring's descriptors have been copied into a table of the same form before
 * (ring-packed.c); only indirect tables are read as they are.
 */
#include "virtiofsd/vhost/ring-walk.h"

#include <endian.h>
#include <string.h>

#define DESC_SIZE sizeof(struct vring_desc)

typedef struct Descriptor {
    uint64_t addr;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
} Descriptor;

_Static_assert(sizeof(struct vring_desc) == 16, "descriptor");
_Static_assert(sizeof(Descriptor) == 16, "descriptor");

/* Where descriptors are taken from: the ring's own table, or an indirect one. */
typedef struct Table {
    const VuMemory *memory;
    const uint8_t *host; /* the first @contiguous bytes */
    uint64_t contiguous;
    uint64_t gpa; /* for what lies beyond; not needed for the ring's own table */
    uint32_t size;
    bool packed; /* an indirect table of consecutive entries */
    bool plain;  /* all of it is contiguous and aligned */
} Table;

typedef struct Walk {
    const VuRingView *view;
    VuChain *chain;
    VuMemoryWindow window; /* of the last translation */
    uint64_t total;        /* cannot overflow: at most 2^16 descriptors of 4 GiB */
    uint32_t left;         /* descriptors that may still come */
} Walk;

/* Is the piece of memory in the region that the last one was in? */
static inline bool is_in_window(const Walk *walk, uint64_t gpa, uint64_t length)
{
    uint64_t offset = gpa - walk->window.gpa;

    return offset < walk->window.size && length <= walk->window.size - offset;
}

/* As vu_memory_at_gpa(). */
static void *translate(Walk *walk, uint64_t gpa, uint64_t *length)
{
    VuMemoryWindow *window = &walk->window;
    uint64_t offset = gpa - window->gpa;

    if (offset >= window->size) {
        if (!vu_memory_window(walk->view->memory, gpa, window)) {
            return NULL;
        }
        offset = gpa - window->gpa;
    }
    if (*length > window->size - offset) {
        *length = window->size - offset;
    }
    return window->host + offset;
}

/* ---- one descriptor ---------------------------------------------------------------- */

/* One copy, by loads that the compiler may not repeat. */
static void load_bytes(uint8_t *to, const uint8_t *from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        to[i] = __atomic_load_n(from + i, __ATOMIC_RELAXED);
    }
}

/* The same by words, from where those are aligned. */
static inline struct vring_desc load_words(const uint8_t *from)
{
    const uint64_t *words = (const void *)from;
    uint64_t copy[2] = {__atomic_load_n(&words[0], __ATOMIC_RELAXED),
                        __atomic_load_n(&words[1], __ATOMIC_RELAXED)};
    struct vring_desc raw;

    memcpy(&raw, copy, sizeof(raw));
    return raw;
}

/* Piece by piece, from a table that lies in several regions. */
static bool load_scattered(const Table *table, uint8_t *to, uint64_t offset)
{
    for (size_t done = 0; done < DESC_SIZE;) {
        uint64_t gpa;
        uint64_t here = DESC_SIZE - done;
        if (__builtin_add_overflow(table->gpa, offset + done, &gpa)) {
            return false;
        }
        const uint8_t *host = vu_memory_at_gpa(table->memory, gpa, &here);
        if (host == NULL) {
            return false;
        }
        load_bytes(to + done, host, (size_t)here);
        done += (size_t)here;
    }
    return true;
}

static bool is_aligned(const uint8_t *host)
{
    return ((uintptr_t)host & 7) == 0;
}

/* There the id comes where a split table has the flags, and the flags where it has the
 * next one. All but WRITE are to be ignored (Virtio 1.2, 2.8.7). */
static void read_packed(const Table *table, uint32_t i, Descriptor *descriptor)
{
    bool is_last = i + 1 == table->size;

    descriptor->flags = (uint16_t)((descriptor->next & VRING_DESC_F_WRITE) |
                                   (is_last ? 0 : VRING_DESC_F_NEXT));
    descriptor->next = (uint16_t)(i + 1);
}

/* As load_descriptor(), from a table that is not plain. */
static bool load_bytewise(const Table *table, uint32_t i, struct vring_desc *ret_raw)
{
    uint8_t bytes[DESC_SIZE];
    uint64_t offset = (uint64_t)i * DESC_SIZE;

    if (offset + DESC_SIZE <= table->contiguous) {
        load_bytes(bytes, table->host + offset, DESC_SIZE);
    } else if (!load_scattered(table, bytes, offset)) {
        return false;
    }
    memcpy(ret_raw, bytes, sizeof(bytes));
    return true;
}

/* Copy descriptor @i, which is within the table. Return: false if it is in no memory. */
static inline bool load_descriptor(const Table *table, uint32_t i,
                                   Descriptor *ret_descriptor)
{
    struct vring_desc raw;

    if (G_LIKELY(table->plain)) {
        raw = load_words(table->host + (size_t)i * DESC_SIZE);
    } else if (!load_bytewise(table, i, &raw)) {
        return false;
    }
    *ret_descriptor = (Descriptor){.addr = le64toh(raw.addr),
                                   .length = le32toh(raw.len),
                                   .flags = le16toh(raw.flags),
                                   .next = le16toh(raw.next)};
    if (table->packed) {
        read_packed(table, i, ret_descriptor);
    }
    return true;
}

/* ---- segments ---------------------------------------------------------------------- */

/* Append a piece of memory, merged with the last one if it continues it. */
static inline bool append(struct iovec *segments, size_t *n, void *host, size_t length)
{
    struct iovec *next = segments + *n;

    if (*n > 0 && (char *)next[-1].iov_base + next[-1].iov_len == host) {
        next[-1].iov_len += length;
        return true;
    }
    if (*n == VU_CHAIN_MAX_SEGMENTS) {
        return false;
    }
    *next = (struct iovec){host, length};
    (*n)++;
    return true;
}

/* A buffer that is not, as a whole, where the last one was: it may span regions. */
static const char *add_pieces(Walk *walk, struct iovec *segments, size_t *n, uint64_t gpa,
                              uint64_t left)
{
    while (left > 0) {
        uint64_t here = left;
        void *host = translate(walk, gpa, &here);
        if (host == NULL) {
            return "address outside guest memory";
        }
        if (!append(segments, n, host, (size_t)here)) {
            return "too many segments";
        }
        gpa += here; /* no region reaches the end of the address space */
        left -= here;
    }
    return NULL;
}

/* The buffer of one descriptor. */
static inline const char *add_buffer(Walk *walk, const Descriptor *descriptor)
{
    VuChain *chain = walk->chain;
    bool writable = (descriptor->flags & VRING_DESC_F_WRITE) != 0;
    struct iovec *segments = writable ? chain->out : chain->in;
    size_t *n = writable ? &chain->n_out : &chain->n_in;

    if (descriptor->length == 0) {
        return "descriptor of length 0";
    }
    if (!writable && chain->n_out > 0) {
        return "readable descriptor after a writable one";
    }
    walk->total += descriptor->length;
    if (!is_in_window(walk, descriptor->addr, descriptor->length)) {
        return add_pieces(walk, segments, n, descriptor->addr, descriptor->length);
    }
    uint8_t *host = walk->window.host + (descriptor->addr - walk->window.gpa);
    return append(segments, n, host, descriptor->length) ? NULL : "too many segments";
}

/* ---- tables ------------------------------------------------------------------------ */

/* Walk from entry @i of @table to the chain's end or to an indirect descriptor. */
static const char *walk_table(Walk *walk, const Table *table, uint32_t i,
                              Descriptor *ret_indirect)
{
    for (;;) {
        Descriptor descriptor;
        if (i >= table->size) {
            return "descriptor index outside the table";
        }
        if (walk->left == 0) {
            return "longer than the queue";
        }
        walk->left--;
        if (!load_descriptor(table, i, &descriptor)) {
            return "descriptor table outside guest memory";
        }
        if ((descriptor.flags & VRING_DESC_F_INDIRECT) != 0) {
            *ret_indirect = descriptor;
            return NULL;
        }
        const char *fault = add_buffer(walk, &descriptor);
        if (fault != NULL || (descriptor.flags & VRING_DESC_F_NEXT) == 0) {
            return fault;
        }
        i = descriptor.next;
    }
}

static const char *walk_indirect(Walk *walk, const Descriptor *indirect)
{
    const VuRingView *view = walk->view;
    uint64_t contiguous = indirect->length;
    Descriptor nested = {0};

    if (!view->indirect) {
        return "indirect descriptor without the feature";
    }
    if ((indirect->flags & VRING_DESC_F_NEXT) != 0) {
        return "indirect descriptor with a next one";
    }
    if (indirect->length == 0 || indirect->length % DESC_SIZE != 0 ||
        indirect->length / DESC_SIZE > view->size) {
        return "indirect table of wrong length";
    }
    const void *host = translate(walk, indirect->addr, &contiguous);
    if (host == NULL) {
        return "indirect table outside guest memory";
    }
    const Table table = {.memory = view->memory,
                         .host = host,
                         .contiguous = contiguous,
                         .gpa = indirect->addr,
                         .size = (uint32_t)(indirect->length / DESC_SIZE),
                         .packed = view->packed,
                         .plain = contiguous == indirect->length && is_aligned(host)};
    walk->left = view->size;
    const char *fault = walk_table(walk, &table, 0, &nested);
    if (fault == NULL && nested.flags != 0) {
        return "nested indirect table";
    }
    return fault;
}

const char *vu_ring_walk(const VuRingView *view, VuChain *chain)
{
    Walk walk = {.view = view, .chain = chain, .left = view->size};
    const Table table = {.memory = view->memory,
                         .host = (const uint8_t *)view->desc,
                         .contiguous = (uint64_t)view->size * DESC_SIZE,
                         .size = view->size,
                         .plain = is_aligned((const uint8_t *)view->desc)};
    Descriptor indirect = {0};

    chain->n_in = 0;
    chain->n_out = 0;
    const char *fault = walk_table(&walk, &table, chain->head, &indirect);
    if (fault == NULL && indirect.flags != 0) {
        fault = walk_indirect(&walk, &indirect);
    }
    chain->n_bytes = walk.total;
    if (fault == NULL && walk.total > UINT32_MAX) {
        fault = "more than 4 GiB"; /* Virtio 1.2, 2.7.5 */
    }
    return fault;
}
