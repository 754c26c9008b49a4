/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/differential/out.h"

#include <errno.h>
#include <string.h>

static size_t padded(size_t size)
{
    return (size + 7) & ~(size_t)7;
}

/* What does not fit is left out on both sides alike. */
void out_field(Out *out, FieldTag tag, const void *bytes, size_t size)
{
    OutField field = {(uint32_t)tag, (uint32_t)size};
    size_t needed = sizeof(field) + padded(size);
    if (needed > out->room - out->size) {
        return;
    }
    memcpy(out->bytes + out->size, &field, sizeof(field));
    if (size > 0) {
        memcpy(out->bytes + out->size + sizeof(field), bytes, size);
    }
    out->size += needed;
}

void out_number(Out *out, FieldTag tag, int64_t number)
{
    out_field(out, tag, &number, sizeof(number));
}

void out_return(Out *out, long result)
{
    out_number(out, FIELD_RETURN, result < 0 ? -errno : result);
}

uint64_t out_hash(uint64_t hash, const void *bytes, size_t size)
{
    const uint8_t *at = bytes;
    for (; size >= 8; size -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 32;
    }
    while (size-- > 0) {
        hash = (hash ^ *at++) * UINT64_C(0x100000001b3);
    }
    return hash;
}

void out_data(Out *out, const void *bytes, size_t size)
{
    OutData data = {.size = size, .hash = out_hash(size, bytes, size)};
    memcpy(data.head, bytes, size < sizeof(data.head) ? size : sizeof(data.head));
    out_field(out, FIELD_DATA, &data, sizeof(data));
}

const OutField *out_next(const uint8_t **at, const uint8_t *end)
{
    if (*at >= end) {
        return NULL;
    }
    const OutField *field = (const OutField *)(const void *)*at;
    *at += sizeof(*field) + padded(field->size);
    return field;
}
