/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader and the writer, over every way to cut bytes into segments.
 */
#include "virtiofsd/fuse/iov.h"

#include <glib.h>
#include <stdint.h>
#include <string.h>

#define TOTAL 11

static const char letters[] = "abcdefghijk";

static void assert_bytes(const void *bytes, const void *expected, size_t size)
{
    g_assert_true(memcmp(bytes, expected, size) == 0);
}

typedef struct Cut {
    char bytes[TOTAL];
    struct iovec iov[2 * TOTAL + 1];
    size_t n;
} Cut;

/* Bit i of @mask: a segment ends behind byte i. @empties: with empty ones between. */
static void cut_init(Cut *cut, unsigned int mask, bool empties)
{
    size_t start = 0;

    memcpy(cut->bytes, letters, TOTAL);
    cut->n = 0;
    for (size_t i = 0; i < TOTAL; i++) {
        if ((mask >> i & 1) != 0 || i == TOTAL - 1) {
            if (empties) {
                cut->iov[cut->n++] = (struct iovec){NULL, 0};
            }
            cut->iov[cut->n++] = (struct iovec){cut->bytes + start, i + 1 - start};
            start = i + 1;
        }
    }
    if (empties) {
        cut->iov[cut->n++] = (struct iovec){NULL, 0};
    }
}

#define FOR_EACH_CUT(cut)                                                                \
    for (unsigned int mask = 0; mask < 1u << (TOTAL - 1); mask++)                        \
        for (int empties = (cut_init((cut), mask, false), 0); empties < 2;               \
             empties++, cut_init((cut), mask, true))

static void test_read(void)
{
    Cut cut;

    FOR_EACH_CUT(&cut)
    {
        IovReader reader;
        char out[TOTAL + 1];
        iov_reader_init(&reader, cut.iov, cut.n);
        g_assert_cmpuint(iov_reader_left(&reader), ==, TOTAL);
        g_assert_true(iov_read(&reader, out, 3));
        g_assert_true(iov_read(&reader, out + 3, 0));
        g_assert_true(iov_read(&reader, out + 3, TOTAL - 3));
        assert_bytes(out, letters, TOTAL);
        g_assert_cmpuint(iov_reader_left(&reader), ==, 0);
        g_assert_false(reader.at.overrun);
    }
}

static void test_read_overrun(void)
{
    Cut cut;

    FOR_EACH_CUT(&cut)
    {
        IovReader reader;
        char out[TOTAL + 1];
        iov_reader_init(&reader, cut.iov, cut.n);
        g_assert_true(iov_read(&reader, out, 4));
        memset(out, 'x', sizeof(out));
        g_assert_false(iov_read(&reader, out, TOTAL - 3));
        for (size_t i = 0; i < TOTAL - 3; i++) {
            g_assert_cmpint(out[i], ==, 0);
        }
        g_assert_cmpint(out[TOTAL - 3], ==, 'x');
        /* It sticks: what was there before cannot be had any more. */
        g_assert_false(iov_read(&reader, out, 1));
        g_assert_false(iov_read(&reader, out, 0));
        g_assert_true(reader.at.overrun);
        g_assert_cmpuint(iov_reader_left(&reader), ==, 0);
        size_t n = 9;
        g_assert_cmpuint(iov_reader_slice(&reader, 1, cut.iov, 1, &n), ==, 0);
        g_assert_cmpuint(n, ==, 0);
    }
}

static void check_slice(const struct iovec *slice, size_t n, const char *expected,
                        size_t size)
{
    size_t at = 0;

    for (size_t i = 0; i < n; i++) {
        g_assert_cmpuint(slice[i].iov_len, >, 0);
        assert_bytes(slice[i].iov_base, expected + at, slice[i].iov_len);
        at += slice[i].iov_len;
    }
    g_assert_cmpuint(at, ==, size);
}

/* A slice is as long as asked, wherever it begins, and reading goes on behind it. */
static void test_reader_slice(void)
{
    Cut cut;

    FOR_EACH_CUT(&cut)
    {
        for (size_t skip = 0; skip <= TOTAL; skip++) {
            for (size_t size = 0; size <= TOTAL + 1; size++) {
                struct iovec slice[TOTAL];
                IovReader reader;
                char out[TOTAL];
                size_t n = 99;
                size_t expected = MIN(size, TOTAL - skip);
                iov_reader_init(&reader, cut.iov, cut.n);
                g_assert_true(iov_read(&reader, out, skip));
                g_assert_cmpuint(iov_reader_slice(&reader, size, slice, TOTAL, &n), ==,
                                 expected);
                check_slice(slice, n, letters + skip, expected);
                size_t left = TOTAL - skip - expected;
                g_assert_cmpuint(iov_reader_left(&reader), ==, left);
                g_assert_true(iov_read(&reader, out, left));
                assert_bytes(out, letters + TOTAL - left, left);
            }
        }
    }
}

static void test_slice_limit(void)
{
    Cut cut;
    struct iovec slice[4];
    IovReader reader;
    size_t n;

    cut_init(&cut, ~0u, true);
    iov_reader_init(&reader, cut.iov, cut.n);
    g_assert_cmpuint(iov_reader_slice(&reader, 10, slice, 4, &n), ==, 4);
    g_assert_cmpuint(n, ==, 4);
    check_slice(slice, n, letters, 4);
    g_assert_cmpuint(iov_reader_slice(&reader, 6, slice, 4, &n), ==, 4);
    check_slice(slice, n, letters + 4, 4);
    g_assert_cmpuint(iov_reader_left(&reader), ==, 3);
    g_assert_cmpuint(iov_reader_slice(&reader, 6, slice, 0, &n), ==, 0);
}

static void test_write(void)
{
    Cut cut;

    FOR_EACH_CUT(&cut)
    {
        IovWriter writer;
        iov_writer_init(&writer, cut.iov, cut.n);
        g_assert_cmpuint(iov_writer_room(&writer), ==, TOTAL);
        g_assert_true(iov_write(&writer, "ABCD", 4));
        g_assert_true(iov_write(&writer, "\0", 2));
        g_assert_true(iov_writer_commit(&writer, 2));
        g_assert_true(iov_write(&writer, "IJ", 2));
        g_assert_cmpuint(writer.written, ==, 10);
        assert_bytes(cut.bytes, "ABCD\0\0ghIJk", TOTAL);
        /* Too much writes nothing, and nothing can be written after. */
        g_assert_false(iov_write(&writer, "KL", 2));
        g_assert_false(iov_write(&writer, "K", 1));
        g_assert_false(iov_writer_commit(&writer, 1));
        g_assert_true(writer.at.overrun);
        g_assert_cmpuint(writer.written, ==, 10);
        assert_bytes(cut.bytes, "ABCD\0\0ghIJk", TOTAL);
    }
}

static void test_writer_slice(void)
{
    Cut cut;

    FOR_EACH_CUT(&cut)
    {
        IovWriter writer;
        struct iovec slice[TOTAL];
        size_t n;
        iov_writer_init(&writer, cut.iov, cut.n);
        g_assert_true(iov_writer_commit(&writer, 3));
        g_assert_cmpuint(iov_writer_slice(&writer, 5, slice, TOTAL, &n), ==, 5);
        check_slice(slice, n, letters + 3, 5);
        /* Nothing was taken. */
        g_assert_cmpuint(writer.written, ==, 3);
        g_assert_cmpuint(iov_writer_room(&writer), ==, TOTAL - 3);
        g_assert_true(iov_writer_commit(&writer, 2));
        g_assert_cmpuint(iov_writer_slice(&writer, 99, slice, TOTAL, &n), ==, TOTAL - 5);
        check_slice(slice, n, letters + 5, TOTAL - 5);
    }
}

static void test_limit(void)
{
    Cut cut;
    IovWriter writer;

    cut_init(&cut, 0x55, true);
    iov_writer_init(&writer, cut.iov, cut.n);
    g_assert_true(iov_write(&writer, "AB", 2));
    iov_writer_limit(&writer, 99);
    g_assert_cmpuint(iov_writer_room(&writer), ==, TOTAL - 2);
    iov_writer_limit(&writer, 3);
    g_assert_cmpuint(iov_writer_room(&writer), ==, 3);
    g_assert_false(iov_write(&writer, "CDEF", 4));
    assert_bytes(cut.bytes, "ABcdefghijk", TOTAL);
}

/* No segments at all, and lengths whose sum no size_t holds. */
static void test_odd(void)
{
    IovReader reader;
    char byte = 1;
    char out;

    iov_reader_init(&reader, NULL, 0);
    g_assert_cmpuint(iov_reader_left(&reader), ==, 0);
    g_assert_false(iov_read(&reader, &out, 1));

    const struct iovec huge[] = {{&byte, 1}, {&byte, SIZE_MAX}, {&byte, SIZE_MAX}};
    iov_reader_init(&reader, huge, G_N_ELEMENTS(huge));
    g_assert_cmpuint(iov_reader_left(&reader), ==, SIZE_MAX);
    g_assert_true(iov_read(&reader, &out, 1));
    g_assert_cmpint(out, ==, 1);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/iov/read", test_read);
    g_test_add_func("/iov/read-overrun", test_read_overrun);
    g_test_add_func("/iov/reader-slice", test_reader_slice);
    g_test_add_func("/iov/slice-limit", test_slice_limit);
    g_test_add_func("/iov/write", test_write);
    g_test_add_func("/iov/writer-slice", test_writer_slice);
    g_test_add_func("/iov/limit", test_limit);
    g_test_add_func("/iov/odd", test_odd);
    return g_test_run();
}
