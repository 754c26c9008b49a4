/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SUPPORT_SCRIBBLER_H
#define TESTS_SUPPORT_SCRIBBLER_H

#include <stddef.h>
#include <stdint.h>

/*
 * Another thread of a hostile guest's: it changes memory while the device reads it, so
 * that whoever reads a byte twice reads two bytes.
 */

typedef struct Scribbler Scribbler;

/** struct ScribblerConfig - what is changed, and into what. */
typedef struct ScribblerConfig {
    uint8_t *at; /* memory of the guest's, @size bytes */
    size_t size;
    const uint8_t *one; /* @size bytes each: what is there is a piece of either */
    const uint8_t *other;
    size_t random_from; /* from this offset on seldom also anything else; @size: never */
    unsigned int seed;
} ScribblerConfig;

/** scribbler_start() - Return: a thread at work, or NULL. The images are copied. */
Scribbler *scribbler_start(const ScribblerConfig *config);
/** scribbler_stop() - end it and free it. Return: how many changes it made. */
uint64_t scribbler_stop(Scribbler *scribbler);

#endif
