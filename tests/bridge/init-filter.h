/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_BRIDGE_INIT_FILTER_H
#define TESTS_BRIDGE_INIT_FILTER_H

#include <stddef.h>
#include <stdint.h>

/* INIT between the host's kernel and the daemon, less what /dev/fuse cannot honour. */

/** struct InitLimits - what the bridge's buffers hold. */
typedef struct InitLimits {
    uint32_t max_write;
    uint16_t max_pages;
} InitLimits;

/** init_filter_request() - take flags out of an INIT request, header included. */
void init_filter_request(uint8_t *request, size_t size);
/** init_filter_reply() - the same for the answer, and limit its sizes. */
void init_filter_reply(uint8_t *reply, size_t size, const InitLimits *limits);

#endif
