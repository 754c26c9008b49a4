/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How VMMs are asked for mappings: every byte.
 */
#include "virtiofsd/vhost/window-protocol.h"

#include <glib.h>
#include <string.h>

/* The words of 64 bits in a payload. */
typedef struct Words {
    uint64_t words[32];
} Words;

static Words words_of(const VuBackendRequest *request)
{
    Words found = {{0}};

    g_assert_cmpuint(request->size, <=, sizeof(found));
    memcpy(&found, &request->payload, request->size);
    return found;
}

static const VuWindowPiece map = {true, 0x600000, 0x200000, 0x400000, 7};
static const VuWindowPiece unmap = {false, 0x800000, 0xa00000, 0x200000, -1};

static void expect(const VuBackendRequest *request, unsigned int number, int fd,
                   const Words *words, uint32_t size)
{
    const Words found = words_of(request);

    g_assert_cmpuint(request->number, ==, number);
    g_assert_cmpint(request->fd, ==, fd);
    g_assert_cmpuint(request->size, ==, size);
    g_assert_cmpint(memcmp(&found, words, sizeof(found)), ==, 0);
}

static void test_standard(void)
{
    VuBackendRequest request;

    vu_window_protocol_encode(VU_WINDOW_STANDARD, &map, &request);
    expect(&request, 9, 7, &(Words){{0, 0x200000, 0x600000, 0x400000, 1}}, 40);
    vu_window_protocol_encode(VU_WINDOW_STANDARD, &unmap, &request);
    expect(&request, 10, -1, &(Words){{0, 0xa00000, 0x800000, 0x200000, 0}}, 40);
}

static void test_legacy(void)
{
    const Words maps = {{[0] = 0x200000, [8] = 0x600000, [16] = 0x400000, [24] = 3}};
    const Words unmaps = {{[0] = 0xa00000, [8] = 0x800000, [16] = 0x200000}};
    VuBackendRequest request;

    vu_window_protocol_encode(VU_WINDOW_LEGACY, &map, &request);
    expect(&request, 6, 7, &maps, 256);
    vu_window_protocol_encode(VU_WINDOW_LEGACY, &unmap, &request);
    expect(&request, 7, -1, &unmaps, 256);
}

/* Flags 0, a count of 1, and the entry. */
static void test_legacy_v3(void)
{
    const uint64_t head = GUINT64_FROM_LE(UINT64_C(1) << 32);
    VuBackendRequest request;

    vu_window_protocol_encode(VU_WINDOW_LEGACY_V3, &map, &request);
    expect(&request, 6, 7, &(Words){{head, 0x200000, 0x600000, 0x400000, 3}}, 40);
    vu_window_protocol_encode(VU_WINDOW_LEGACY_V3, &unmap, &request);
    expect(&request, 7, -1, &(Words){{head, 0xa00000, 0x800000, 0x200000, 0}}, 40);
}

static void test_rules(void)
{
    const uint64_t channel = VU_PROTOCOL_F_BACKEND_REQ | VU_PROTOCOL_F_REPLY_ACK;
    const VuWindowRules *rules = vu_window_protocol_rules(VU_WINDOW_STANDARD);

    g_assert_cmpuint(rules->offers, ==, VU_PROTOCOL_F_SHMEM);
    g_assert_cmpuint(rules->needs, ==, channel | VU_PROTOCOL_F_SHMEM);
    g_assert_true(rules->adds_memory);
    g_assert_false(rules->outlives_reset);
    for (unsigned int i = VU_WINDOW_LEGACY; i <= VU_WINDOW_LEGACY_V3; i++) {
        rules = vu_window_protocol_rules((VuWindowProtocol)i);
        g_assert_cmpuint(rules->offers, ==, 0);
        g_assert_cmpuint(rules->needs, ==, channel | VU_PROTOCOL_F_BACKEND_SEND_FD);
        g_assert_false(rules->adds_memory);
        g_assert_true(rules->outlives_reset);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/window-protocol/standard", test_standard);
    g_test_add_func("/window-protocol/legacy", test_legacy);
    g_test_add_func("/window-protocol/legacy-v3", test_legacy_v3);
    g_test_add_func("/window-protocol/rules", test_rules);
    return g_test_run();
}
