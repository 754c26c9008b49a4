/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_FUSE_IOV_H
#define VIRTIOFSD_FUSE_IOV_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

#include "virtiofsd/fuse/guest-copy.h"

/*
 * The one door to a request's bytes: a reader and a writer over segments of guest memory.
 * The guest may change any byte at any time, so bytes are copied out once and judged in
 * the copy. Going beyond the end touches nothing, sticks, and is told by the return value
 * and by `overrun`.
 */

/** struct IovCursor - a place in a row of segments, which are borrowed. */
typedef struct IovCursor {
    const struct iovec *segment; /* holds the next byte */
    const struct iovec *end;     /* behind the last segment */
    size_t offset;               /* of the next byte in @segment */
    size_t left;                 /* bytes from here to the end */
    bool overrun;                /* somebody wanted more */
} IovCursor;

/** struct IovReader - guest -> us. */
typedef struct IovReader {
    IovCursor at;
} IovReader;

/** struct IovWriter - us -> guest. */
typedef struct IovWriter {
    IovCursor at;
    size_t written;
} IovWriter;

void iov_reader_init(IovReader *reader, const struct iovec *segments, size_t n);

/* For what is not, as a whole, in the current segment. */
bool iov_read_across(IovReader *reader, void *to, size_t size);
bool iov_write_across(IovWriter *writer, const void *from, size_t size);
bool iov_commit_across(IovWriter *writer, size_t size);

/* The next @size bytes if one segment holds them all, stepped over; else NULL. */
static inline void *iov_take_whole(IovCursor *cursor, size_t size)
{
    if (size == 0 || size > cursor->left ||
        size > cursor->segment->iov_len - cursor->offset) {
        return NULL;
    }
    char *at = (char *)cursor->segment->iov_base + cursor->offset;
    cursor->offset += size;
    cursor->left -= size;
    if (cursor->offset == cursor->segment->iov_len) {
        cursor->segment++;
        cursor->offset = 0;
    }
    return at;
}

/** iov_read() - copy @size bytes out. Return: false on overrun, with @to all zero. */
static inline bool iov_read(IovReader *reader, void *to, size_t size)
{
    const void *from = iov_take_whole(&reader->at, size);

    if (from == NULL) {
        return iov_read_across(reader, to, size);
    }
    guest_copy(to, from, size);
    /* The compiler must not go back to the guest's bytes for what it has in the copy. */
    atomic_signal_fence(memory_order_seq_cst);
    return true;
}

/**
 * iov_reader_slice() - take the next bytes as segments, without copying them.
 * @size: most bytes to take; beyond the end counts as up to the end.
 * @segments: result, at most @max; the last is cut to end where @size does.
 * @ret_n: how many.
 *
 * Return: bytes taken; less than @size when the segments end, or more than @max were
 * needed.
 */
size_t iov_reader_slice(IovReader *reader, size_t size, struct iovec *segments,
                        size_t max, size_t *ret_n);

void iov_writer_init(IovWriter *writer, const struct iovec *segments, size_t n);

/** iov_write() - copy @size bytes in. Return: false on overrun, with nothing written. */
static inline bool iov_write(IovWriter *writer, const void *from, size_t size)
{
    void *to = iov_take_whole(&writer->at, size);

    if (to == NULL) {
        return iov_write_across(writer, from, size);
    }
    guest_copy(to, from, size);
    writer->written += size;
    return true;
}

/** iov_writer_slice() - as iov_reader_slice(), but nothing is taken: iov_writer_commit()
 * tells how much was then written there. */
size_t iov_writer_slice(const IovWriter *writer, size_t size, struct iovec *segments,
                        size_t max, size_t *ret_n);

/** iov_writer_limit() - leave at most @size bytes of room from here on. */
void iov_writer_limit(IovWriter *writer, size_t size);

/** iov_writer_commit() - count @size bytes as written. Return: false on overrun. */
static inline bool iov_writer_commit(IovWriter *writer, size_t size)
{
    if (iov_take_whole(&writer->at, size) == NULL) {
        return iov_commit_across(writer, size);
    }
    writer->written += size;
    return true;
}

/** iov_reader_left() - bytes not yet read. */
static inline size_t iov_reader_left(const IovReader *reader)
{
    return reader->at.left;
}

/** iov_writer_room() - bytes that may still be written. */
static inline size_t iov_writer_room(const IovWriter *writer)
{
    return writer->at.left;
}

#endif
