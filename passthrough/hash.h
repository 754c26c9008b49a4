/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_HASH_H
#define PASSTHROUGH_HASH_H

#include <stddef.h>
#include <stdint.h>

/** typedef PtHashKey - the secret of this process' hashes. */
typedef struct PtHashKey {
    uint64_t word[2];
} PtHashKey;

/**
 * pt_hash() - SipHash-1-3: without the key nobody can make values collide.
 * @data: @size bytes, at any alignment.
 */
uint64_t pt_hash(const PtHashKey *key, const void *data, size_t size);

#endif
