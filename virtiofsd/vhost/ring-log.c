/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring's marks in the dirty log.
 *
 * Order. A mark is made after its write: the VMM takes a mark out and then reads the
 * page, so it reads what was written, or finds the mark the next time. Whether the guest
 * learns of the write before the mark does not matter, as the VMM looks at the log a last
 * time when all rings have stopped, and for that it waits until in_flight is 0: a chain
 * is in flight until its marks are made.
 *
 * Completeness. The log is the ring's, not the chain's: what counts is the one that there
 * is when the chain is retired. So a request that was running when the VMM began to log
 * is logged, whatever it had written by then; and as marks are made under the ring's lock
 * only, one log replaces another between two marks. What a request wrote beyond the
 * length that it is retired with is nobody's to read (Virtio 1.2, 2.7.8.2).
 */
#include "virtiofsd/vhost/ring-internal.h"

/* The VMM says where in its log a used ring is. Of a packed ring's descriptors, which we
 * write to as well, it says nothing: they are marked where they are in the guest. */
void vu_ring_log_write(const VuRing *ring, const void *at, size_t size)
{
    if (!ring->addresses.is_logged) {
        return;
    }
    if (ring->layout == &vu_packed_layout) {
        const struct iovec segment = {(void *)(uintptr_t)at, size};
        vu_dirty_log_mark_segments(ring->log, ring->memory, &segment, 1, size);
    } else {
        uint64_t offset = (uint64_t)((const uint8_t *)at - (const uint8_t *)ring->used);
        vu_dirty_log_mark(ring->log, ring->addresses.log_gpa + offset, size);
    }
}

VuCall *vu_ring_log_reply(const VuRing *ring, const VuChain *chain, uint32_t length)
{
    vu_dirty_log_mark_segments(ring->log, chain->memory, chain->out, chain->n_out,
                               length);
    return vu_call_ref(ring->log_call);
}
