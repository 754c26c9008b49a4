/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the FUSE decoder and encoder: a session's stream of requests against a file
 * system that does nothing. The input is a byte that chooses the modes, then a row of
 * records, each a little-endian u16 of room for the reply, a u16 of size, and that many
 * bytes of request. The harness aborts when a reply is not well-formed.
 */
#include <string.h>

#include "tests/support/fuse-harness.h"
#include "virtiofsd/log.h"

#define RECORD_HEAD 4u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t load16(const uint8_t *at)
{
    return (size_t)at[0] | (size_t)at[1] << 8;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static Harness *harnesses[UINT8_MAX + 1];

    if (size == 0) {
        return 0;
    }
    if (harnesses[*data] == NULL) {
        const SessionConfig config = harness_config_of(*data);
        log_open(LOG_LEVEL_OFF, false);
        harnesses[*data] = harness_new(&config);
    }
    Harness *harness = harnesses[*data];
    data++;
    size--;
    harness_init(harness, UINT64_MAX);
    while (size >= RECORD_HEAD) {
        size_t room = MIN(load16(data), HARNESS_OUT_SIZE);
        size_t length = MIN(load16(data + 2), size - RECORD_HEAD);
        Message message = {.size = 0};
        length = MIN(length, sizeof(message.bytes));
        message_add(&message, data + RECORD_HEAD, length);
        /* Much room in small pieces costs much time and teaches little. */
        harness->split = (unsigned int)(room < 512 ? room % 5 : room % 2 * 4096);
        (void)harness_run(harness, &message, room, false);
        data += RECORD_HEAD + length;
        size -= RECORD_HEAD + length;
    }
    return 0;
}
