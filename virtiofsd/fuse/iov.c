/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bounded reader and writer over segments of guest memory. All arithmetic on segments is
 * here; whoever decodes or encodes can neither run over an end nor fetch a byte twice.
 */
#include "virtiofsd/fuse/iov.h"

#include <stdint.h>

static void cursor_init(IovCursor *cursor, const struct iovec *segments, size_t n)
{
    size_t left = 0;

    for (size_t i = 0; i < n; i++) {
        size_t length = segments[i].iov_len;
        left = length > SIZE_MAX - left ? SIZE_MAX : left + length;
    }
    *cursor = (IovCursor){.segment = segments, .end = segments + n, .left = left};
}

/* May @size bytes be had? Once not, never again. */
static bool cursor_check(IovCursor *cursor, size_t size)
{
    if (cursor->overrun || size > cursor->left) {
        cursor->overrun = true;
        cursor->left = 0;
        return false;
    }
    return true;
}

/* The next piece in one segment, at most @size bytes, and step over it. The caller has
 * checked that @size > 0 bytes are left. */
static struct iovec cursor_next(IovCursor *cursor, size_t size)
{
    while (cursor->offset == cursor->segment->iov_len) {
        cursor->segment++;
        cursor->offset = 0;
    }
    size_t here = cursor->segment->iov_len - cursor->offset;
    struct iovec piece = {
        .iov_base = (char *)cursor->segment->iov_base + cursor->offset,
        .iov_len = here < size ? here : size,
    };
    cursor->offset += piece.iov_len;
    cursor->left -= piece.iov_len;
    return piece;
}

static size_t cursor_slice(IovCursor *cursor, size_t size, struct iovec *segments,
                           size_t max, size_t *ret_n)
{
    size_t wanted = size < cursor->left ? size : cursor->left;
    size_t taken = 0;
    size_t n = 0;

    while (taken < wanted && n < max) {
        segments[n] = cursor_next(cursor, wanted - taken);
        taken += segments[n].iov_len;
        n++;
    }
    *ret_n = n;
    return taken;
}

#if defined(HAS_TSAN) && HAS_TSAN
__attribute__((no_sanitize("thread"))) void guest_copy(void *to, const void *from,
                                                       size_t size)
{
    for (size_t i = 0; i < size; i++) {
        ((volatile char *)to)[i] = ((const volatile char *)from)[i];
    }
}
#endif

void iov_reader_init(IovReader *reader, const struct iovec *segments, size_t n)
{
    cursor_init(&reader->at, segments, n);
}

bool iov_read_across(IovReader *reader, void *to, size_t size)
{
    char *at = to;

    if (!cursor_check(&reader->at, size)) {
        memset(to, 0, size);
        return false;
    }
    while (size > 0) {
        struct iovec piece = cursor_next(&reader->at, size);
        guest_copy(at, piece.iov_base, piece.iov_len);
        at += piece.iov_len;
        size -= piece.iov_len;
    }
    atomic_signal_fence(memory_order_seq_cst);
    return true;
}

size_t iov_reader_slice(IovReader *reader, size_t size, struct iovec *segments,
                        size_t max, size_t *ret_n)
{
    return cursor_slice(&reader->at, size, segments, max, ret_n);
}

void iov_writer_init(IovWriter *writer, const struct iovec *segments, size_t n)
{
    cursor_init(&writer->at, segments, n);
    writer->written = 0;
}

bool iov_write_across(IovWriter *writer, const void *from, size_t size)
{
    const char *at = from;

    if (!cursor_check(&writer->at, size)) {
        return false;
    }
    writer->written += size;
    while (size > 0) {
        struct iovec piece = cursor_next(&writer->at, size);
        guest_copy(piece.iov_base, at, piece.iov_len);
        at += piece.iov_len;
        size -= piece.iov_len;
    }
    return true;
}

size_t iov_writer_slice(const IovWriter *writer, size_t size, struct iovec *segments,
                        size_t max, size_t *ret_n)
{
    IovCursor from_here = writer->at;

    return cursor_slice(&from_here, size, segments, max, ret_n);
}

void iov_writer_limit(IovWriter *writer, size_t size)
{
    if (size < writer->at.left) {
        writer->at.left = size;
    }
}

bool iov_commit_across(IovWriter *writer, size_t size)
{
    if (!cursor_check(&writer->at, size)) {
        return false;
    }
    writer->written += size;
    while (size > 0) {
        size -= cursor_next(&writer->at, size).iov_len;
    }
    return true;
}
