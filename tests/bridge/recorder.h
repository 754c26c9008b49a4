/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_BRIDGE_RECORDER_H
#define TESTS_BRIDGE_RECORDER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/*
 * Writes requests and replies to a file, each with a head of four 32-bit numbers, little
 * endian: kind, size, bytes kept, and of a request the room for its reply.
 * tests/fuzz/corpus.py reads such a file.
 */

typedef struct Recorder Recorder;

/** Of what is longer, such as a WRITE, only the beginning is kept. */
#define RECORDER_KEPT_MAX 8192u

/** enum RecorderKind - what it is. */
typedef enum RecorderKind { RECORDER_REQUEST = 1, RECORDER_REPLY = 2 } RecorderKind;

/** recorder_new() - append to a file. Return: NULL with errno set on failure. */
Recorder *recorder_new(const char *path);
/** recorder_free() - Return: 0, or the first error of writing, negative. */
int recorder_free(Recorder *recorder);
/**
 * recorder_add() - write down the first @size bytes of what is in the segments.
 * @room: of a request: bytes for its reply.
 *
 * Context: any thread.
 */
void recorder_add(Recorder *recorder, RecorderKind kind, const struct iovec *segments,
                  size_t n, size_t size, size_t room);

#endif
