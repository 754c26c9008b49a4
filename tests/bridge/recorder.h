/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_BRIDGE_RECORDER_H
#define TESTS_BRIDGE_RECORDER_H

#include <stddef.h>

/*
 * Writes requests to a file, as a corpus: for each its length (32 bits, little endian)
 * and its bytes. tests/bridge/corpus.py splits such a file.
 */

typedef struct Recorder Recorder;

/** recorder_new() - append to a file. Return: NULL with errno set on failure. */
Recorder *recorder_new(const char *path);
/** recorder_free() - Return: 0, or the first error of writing, negative. */
int recorder_free(Recorder *recorder);
/** recorder_add() - Context: any thread. */
void recorder_add(Recorder *recorder, const void *bytes, size_t size);

#endif
