/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SUPPORT_REPLY_ROOM_H
#define TESTS_SUPPORT_REPLY_ROOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a FUSE client provides for the answer, as Linux does (fs/fuse). */

/* Opcodes that the oldest supported <linux/fuse.h> lacks. */
#define REPLY_OPCODE_STATX 52u
#define REPLY_OPCODE_COPY_FILE_RANGE_64 53u

/** struct fuse_statx bytes behind the fixed head of a STATX reply. */
#define REPLY_STATX_SIZE 288u

/**
 * reply_room() - bytes behind the out header that a request's answer may take.
 * @request: the whole request, header included; need not be well formed.
 * @size: its size.
 *
 * Return: for READ and its like what the request asks for, else the fixed size of the
 * answer; 8 KiB for an unknown opcode.
 */
size_t reply_room(const void *request, size_t size);

/** reply_is_expected() - Return: false for FORGET, BATCH_FORGET and INTERRUPT. */
bool reply_is_expected(uint32_t opcode);

/** reply_is_paged() - Return: whether Linux takes the answer into whole pages. */
bool reply_is_paged(uint32_t opcode);

#endif
