/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hostile corpus: every operation cut at every byte, stretched, with every field at
 * its extremes, in every room and split; after each, an honest request is answered. The
 * sizes are held against a second table, written from the protocol and not from ours.
 */
#include "virtiofsd/fuse/dispatch.h"

#include <errno.h>
#include <glib.h>
#include <string.h>

#include "tests/support/fuse-harness.h"

#define HEADER sizeof(struct fuse_in_header)

/* fs/fuse/dev.c and the headers: fixed part and least reply of each opcode. */
static const struct {
    uint32_t opcode;
    uint16_t in;
    uint16_t out;
} sizes[] = {
    {1, 0, 128},   {2, 8, 0},     {3, 16, 104},  {4, 88, 104}, {5, 0, 0},    {6, 0, 128},
    {8, 16, 128},  {9, 8, 128},   {10, 0, 0},    {11, 0, 0},   {12, 8, 0},   {13, 8, 128},
    {14, 8, 16},   {15, 40, 0},   {16, 40, 8},   {17, 0, 80},  {18, 24, 0},  {20, 16, 0},
    {21, 8, 0},    {22, 8, 0},    {23, 8, 0},    {24, 0, 0},   {25, 24, 0},  {26, 16, 64},
    {27, 8, 16},   {28, 40, 0},   {29, 24, 0},   {30, 16, 0},  {31, 48, 24}, {32, 48, 0},
    {33, 48, 0},   {34, 8, 0},    {35, 16, 144}, {36, 8, 0},   {37, 16, 8},  {38, 0, 0},
    {39, 32, 16},  {40, 24, 8},   {41, 40, 0},   {42, 8, 0},   {43, 32, 0},  {44, 40, 0},
    {45, 16, 0},   {46, 24, 8},   {47, 56, 8},   {48, 40, 0},  {49, 4, 0},   {50, 8, 0},
    {51, 16, 144}, {52, 24, 288}, {53, 56, 8},
};

static void test_table(void)
{
    size_t n_rows = 0;

    for (uint32_t opcode = 0; opcode < 8192; opcode++) {
        n_rows += dispatch_find(opcode) != NULL;
    }
    g_assert_cmpuint(n_rows, ==, G_N_ELEMENTS(sizes));
    g_assert_null(dispatch_find(0));
    g_assert_null(dispatch_find(UINT32_MAX));
    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        const Op *op = dispatch_find(sizes[i].opcode);
        g_assert_nonnull(op);
        g_assert_cmpuint(op->in, ==, sizes[i].in);
        g_assert_cmpuint(op->out, ==, sizes[i].out);
        /* The fixed part must fit where it is copied to. */
        g_assert_true(op->run == NULL || op->in <= sizeof(OpIn));
    }
}

/* A tail of bytes may be cut and still be one; INIT has two lengths. */
static bool may_be_cut(uint32_t opcode)
{
    return opcode == FUSE_IOCTL || opcode == FUSE_NOTIFY_REPLY || opcode == FUSE_INIT ||
           opcode == FUSE_SETXATTR || opcode == FUSE_REMOVEMAPPING;
}

static bool is_silent(uint32_t opcode)
{
    return opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET ||
           opcode == FUSE_INTERRUPT;
}

/* After INIT or DESTROY among the requests there may be no session. */
static void check_alive(Harness *harness, uint32_t opcode)
{
    if (opcode == FUSE_INIT || opcode == FUSE_DESTROY) {
        unsigned int split = harness->split;
        harness->split = 0;
        harness_init(harness, UINT64_MAX);
        harness->split = split;
    }
    harness_check_alive(harness);
}

static void cut_one(Harness *harness, uint32_t opcode, size_t size)
{
    static const size_t rooms[] = {0, 15, 16, 80, 160};
    NullFsStats before, after;
    Message honest, message;

    g_assert_true(message_honest(&honest, opcode));
    for (size_t i = 0; i < G_N_ELEMENTS(rooms); i++) {
        /* Consistently shorter, and shorter than it says. */
        for (int is_told = 0; is_told < 2; is_told++) {
            message = honest;
            message.header.len = (uint32_t)(is_told ? size : honest.size);
            message.size = size;
            null_fs_stats(harness->fs, &before);
            int result = harness_run(harness, &message, rooms[i], false);
            null_fs_stats(harness->fs, &after);
            if (!is_told || !may_be_cut(opcode)) {
                g_assert_cmpint(
                    result, ==,
                    is_silent(opcode) || rooms[i] < 16 || size < HEADER ? 1 : -EINVAL);
                g_assert_cmpuint(after.calls, ==, before.calls);
                g_assert_cmpuint(after.forgets, ==, before.forgets);
                g_assert_cmpuint(after.resets, ==, before.resets);
            }
            check_alive(harness, opcode);
        }
    }
}

static void test_cut(void)
{
    static const unsigned int splits[] = {0, 1, 2, 41};
    g_autoptr(Harness) harness = harness_new(NULL);
    Message honest;

    harness_init(harness, UINT64_MAX);
    for (uint32_t opcode = 0; opcode < HARNESS_OPCODES; opcode++) {
        if (!message_honest(&honest, opcode)) {
            continue;
        }
        for (size_t i = 0; i < G_N_ELEMENTS(splits); i++) {
            harness->split = splits[i];
            for (size_t size = 0; size < honest.size; size++) {
                cut_one(harness, opcode, size);
            }
        }
    }
}

/* Bytes behind the end: refused, unless they are data. */
static void test_stretched(void)
{
    g_autoptr(Harness) harness = harness_new(NULL);
    Message message;

    harness_init(harness, UINT64_MAX);
    for (uint32_t opcode = 0; opcode < HARNESS_OPCODES; opcode++) {
        if (!message_honest(&message, opcode) || may_be_cut(opcode) ||
            is_silent(opcode) || opcode == FUSE_WRITE) {
            continue;
        }
        for (size_t extra = 1; extra < 70; extra++) {
            message_add(&message, "\0", 1);
            g_assert_cmpint(harness_call(harness, &message), ==, -EINVAL);
        }
        harness_check_alive(harness);
    }
}

static const uint64_t extremes[] = {
    0,
    1,
    2,
    255,
    256,
    4095,
    4096,
    4097,
    1048576,
    1048577,
    UINT64_C(0x7fffffff),
    UINT64_C(0x80000000),
    UINT64_C(0xfffffff8),
    UINT64_C(0xffffffff),
    UINT64_C(0x100000000),
    UINT64_C(0x7fffffffffffffff),
    UINT64_C(0x8000000000000000),
    UINT64_C(0xfffffffffffff000),
    UINT64_MAX - 1,
    UINT64_MAX,
};

/* Set the field of @width bytes at @at; the opcode, the length and the unique stay. */
static void put(Message *message, size_t at, size_t width, uint64_t value)
{
    bool is_kept = at < 16;

    if (!is_kept && at + width <= message->size) {
        memcpy(message->bytes + at, &value, width); /* little-endian hosts */
    }
}

static void test_extremes(void)
{
    static const size_t widths[] = {2, 4, 8};
    g_autoptr(Harness) harness = harness_new(NULL);
    Message honest;

    harness_init(harness, UINT64_MAX);
    for (uint32_t opcode = 0; opcode < HARNESS_OPCODES; opcode++) {
        if (!message_honest(&honest, opcode)) {
            continue;
        }
        for (size_t w = 0; w < G_N_ELEMENTS(widths); w++) {
            for (size_t at = 16; at + widths[w] <= honest.size; at += widths[w]) {
                for (size_t i = 0; i < G_N_ELEMENTS(extremes); i++) {
                    Message message = honest;
                    put(&message, at, widths[w], extremes[i]);
                    harness->split = (unsigned int)i % 4;
                    (void)harness_run(harness, &message, 4096, true);
                    (void)harness_run(harness, &message, 16 + i, true);
                    check_alive(harness, opcode);
                }
            }
        }
    }
}

/* Anything at all, in streams: sessions end and begin meanwhile. */
static void test_random(void)
{
    GRand *random = g_rand_new_with_seed(20240229);
    int n = g_test_slow() ? 5000000 : 100000;
    g_autoptr(Harness) harness = harness_new(NULL);

    harness_init(harness, UINT64_MAX);
    for (int i = 0; i < n; i++) {
        Message message;
        uint32_t opcode = (uint32_t)g_rand_int_range(random, 0, HARNESS_OPCODES + 1);
        (void)message_honest(&message, opcode);
        int n_changes = g_rand_int_range(random, 0, 4);
        for (int j = 0; j < n_changes; j++) {
            size_t width = (size_t)1 << g_rand_int_range(random, 0, 4);
            size_t at = (size_t)g_rand_int_range(random, 16, (int)message.size + 1);
            put(&message, at, width,
                extremes[g_rand_int_range(random, 0, G_N_ELEMENTS(extremes))]);
        }
        if (g_rand_int_range(random, 0, 8) == 0) {
            message.size = (size_t)g_rand_int_range(random, 0, (int)message.size + 1);
        }
        harness->split = (unsigned int)g_rand_int_range(random, 0, 9);
        (void)harness_run(harness, &message, (size_t)g_rand_int_range(random, 0, 600),
                          g_rand_int_range(random, 0, 16) != 0);
    }
    g_rand_free(random);
    harness->split = 0;
    harness_init(harness, UINT64_MAX);
    harness_check_alive(harness);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/dispatch/table", test_table);
    g_test_add_func("/dispatch/cut", test_cut);
    g_test_add_func("/dispatch/stretched", test_stretched);
    g_test_add_func("/dispatch/extremes", test_extremes);
    g_test_add_func("/dispatch/random", test_random);
    return g_test_run();
}
