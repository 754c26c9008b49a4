/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the FUSE decoder and encoder: a session's stream of requests against a file
 * system that does nothing. The harness aborts when a reply is not well-formed.
 */
#include "tests/fuzz/stream.h"
#include "virtiofsd/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < STREAM_HEAD) {
        return 0;
    }
    const SessionConfig config = stream_config(data);
    log_open(LOG_LEVEL_OFF, false);
    g_autoptr(Harness) harness = harness_new(&config);
    null_fs_mark_submounts(harness->fs, (data[1] & 0x10) != 0);
    null_fs_shift_owner(harness->fs, (data[1] & 0x20) != 0 ? 1000 : 0);
    null_fs_fail_entry(harness->fs, (data[1] & 0x40) != 0 ? 9 : 0);
    stream_run(harness, data, size);
    return 0;
}
