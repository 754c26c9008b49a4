/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_FUZZ_STREAM_H
#define TESTS_FUZZ_STREAM_H

#include "tests/support/fuse-harness.h"

/*
 * An input of the targets that take FUSE requests: two bytes that choose the modes (see
 * harness_config_of()), then a row of records, each a little-endian u16 of room for the
 * reply, a u16 of size, and that many bytes of request. tests/fuzz/corpus.py writes them.
 *
 * What a reply gave is named by who asked for it, so that a stream goes as deep as a
 * mount does, whatever ids the daemon hands out:
 *
 * - node 2 + N is the one that the Nth request that makes or looks up a name was given,
 *   and node 0x80 + N the Nth that a READDIRPLUS told of;
 * - handle 1 + N is the one that the Nth request that opens was given.
 *
 * Where there is no such request, or it failed, the number goes as it is, as all others
 * do. A length of 0 in the header of a request is made right. An empty record does what
 * no guest can, by its room: see stream.c.
 *
 * With HARNESS_WINDOW in the modes there is a DAX window, of a VMM that maps nothing, and
 * answers what empty records say.
 */

/** Bytes that choose the modes. */
#define STREAM_HEAD 2u

/** stream_config() - what the input's first bytes choose; all else is the caller's. */
SessionConfig stream_config(const uint8_t *data);

/** stream_run() - INIT, then every record of an input; nothing waits for a lock any more
 * when it returns. @size: at least STREAM_HEAD. */
void stream_run(Harness *harness, const uint8_t *data, size_t size);

#endif
