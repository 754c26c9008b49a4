/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_FUSE_IOV_H
#define VIRTIOFSD_FUSE_IOV_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

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

/** iov_read() - copy @size bytes out. Return: false on overrun, with @to all zero. */
bool iov_read(IovReader *reader, void *to, size_t size);

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
bool iov_write(IovWriter *writer, const void *from, size_t size);

/** iov_write_zeros() - as iov_write(), of @size zero bytes. */
bool iov_write_zeros(IovWriter *writer, size_t size);

/** iov_writer_slice() - as iov_reader_slice(), but nothing is taken: iov_writer_commit()
 * tells how much was then written there. */
size_t iov_writer_slice(const IovWriter *writer, size_t size, struct iovec *segments,
                        size_t max, size_t *ret_n);

/** iov_writer_limit() - leave at most @size bytes of room from here on. */
void iov_writer_limit(IovWriter *writer, size_t size);

/** iov_writer_commit() - count @size bytes as written. Return: false on overrun. */
bool iov_writer_commit(IovWriter *writer, size_t size);

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
