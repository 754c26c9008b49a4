/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/hash.h"

#include <string.h>

/*
 * SipHash-1-3 (Aumasson, Bernstein: "SipHash: a fast short-input PRF"), as a keyed hash
 * for tables whose keys a guest can choose. Results stay inside this process, so the
 * byte order of the machine does.
 */

typedef struct Sip {
    uint64_t v[4];
} Sip;

static inline uint64_t rotate(uint64_t value, unsigned bits)
{
    return value << bits | value >> (64 - bits);
}

static inline void sip_round(Sip *s)
{
    s->v[0] += s->v[1];
    s->v[2] += s->v[3];
    s->v[1] = rotate(s->v[1], 13) ^ s->v[0];
    s->v[3] = rotate(s->v[3], 16) ^ s->v[2];
    s->v[0] = rotate(s->v[0], 32);
    s->v[2] += s->v[1];
    s->v[0] += s->v[3];
    s->v[1] = rotate(s->v[1], 17) ^ s->v[2];
    s->v[3] = rotate(s->v[3], 21) ^ s->v[0];
    s->v[2] = rotate(s->v[2], 32);
}

static inline void sip_word(Sip *s, uint64_t word)
{
    s->v[3] ^= word;
    sip_round(s);
    s->v[0] ^= word;
}

uint64_t pt_hash(const PtHashKey *key, const void *data, size_t size)
{
    Sip s = {{
        key->word[0] ^ UINT64_C(0x736f6d6570736575),
        key->word[1] ^ UINT64_C(0x646f72616e646f6d),
        key->word[0] ^ UINT64_C(0x6c7967656e657261),
        key->word[1] ^ UINT64_C(0x7465646279746573),
    }};
    const char *bytes = data;
    size_t left = size;
    for (; left >= sizeof(uint64_t); left -= sizeof(uint64_t)) {
        uint64_t word;
        memcpy(&word, bytes, sizeof(word));
        sip_word(&s, word);
        bytes += sizeof(word);
    }
    uint64_t last = 0;
    memcpy(&last, bytes, left);
    sip_word(&s, last | (uint64_t)size << 56);
    s.v[2] ^= 0xff;
    sip_round(&s);
    sip_round(&s);
    sip_round(&s);
    return s.v[0] ^ s.v[1] ^ s.v[2] ^ s.v[3];
}
