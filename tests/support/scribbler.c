/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scribbler.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST_PIECE 16u
#define RANDOM_ONE_IN 32u

struct Scribbler {
    ScribblerConfig config;
    pthread_t thread;
    atomic_bool stop;
    uint64_t changes;
    uint8_t images[]; /* one, other */
};

static uint32_t next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* A piece of one of the images, byte by byte, as any other thread of a guest's may. */
static void change(Scribbler *scribbler, uint64_t *state)
{
    const ScribblerConfig *config = &scribbler->config;
    uint32_t r = next(state);
    size_t from = next(state) % config->size;
    size_t end = from + 1 + r % LONGEST_PIECE;
    const uint8_t *image = scribbler->images + ((r >> 8 & 1) != 0 ? config->size : 0);
    bool random = from >= config->random_from && (r >> 9) % RANDOM_ONE_IN == 0;

    for (size_t i = from; i < end && i < config->size; i++) {
        uint8_t value = random ? (uint8_t)next(state) : image[i];
        __atomic_store_n(config->at + i, value, __ATOMIC_RELAXED);
    }
    scribbler->changes++;
}

static void *scribbler_main(void *data)
{
    Scribbler *scribbler = data;
    uint64_t state = scribbler->config.seed;

    while (!atomic_load_explicit(&scribbler->stop, memory_order_relaxed)) {
        change(scribbler, &state);
    }
    return NULL;
}

Scribbler *scribbler_start(const ScribblerConfig *config)
{
    Scribbler *scribbler = calloc(1, sizeof(*scribbler) + 2 * config->size);

    if (scribbler == NULL || config->size == 0) {
        free(scribbler);
        return NULL;
    }
    scribbler->config = *config;
    memcpy(scribbler->images, config->one, config->size);
    memcpy(scribbler->images + config->size, config->other, config->size);
    if (pthread_create(&scribbler->thread, NULL, scribbler_main, scribbler) != 0) {
        free(scribbler);
        return NULL;
    }
    return scribbler;
}

uint64_t scribbler_stop(Scribbler *scribbler)
{
    atomic_store(&scribbler->stop, true);
    (void)pthread_join(scribbler->thread, NULL); /* ours, and joined once */
    uint64_t changes = scribbler->changes;
    free(scribbler);
    return changes;
}
