/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_INODE_EVICT_H
#define PASSTHROUGH_INODE_EVICT_H

#include <stdbool.h>
#include <stdint.h>

#include "passthrough/passthrough.h"

/*
 * Making room: descriptors of inodes that can be had again by name are closed.
 */

/** struct PtEviction - how hard to try, and what came of it. */
typedef struct PtEviction {
    uint32_t wanted;   /* stop when so many are closed */
    uint32_t attempts; /* stop when so many were looked at on the host */
    bool all;          /* look at every descriptor if need be, else at some */
    uint32_t closed;
    bool later; /* some could not be judged now; a moment later it may be possible */
} PtEviction;

/** pt_evict() - close descriptors of idle inodes, those first that were not used since
 * they were last considered. */
void pt_evict(PtFs *fs, PtEviction *eviction);

#endif
