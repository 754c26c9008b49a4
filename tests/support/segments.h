/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SUPPORT_SEGMENTS_H
#define TESTS_SUPPORT_SEGMENTS_H

#include <linux/fuse.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/support/virtqueue.h"

/* How a FUSE request and the room for its answer are cut into descriptors. */

#define SEGMENTS_MAX 1024u
#define SEGMENTS_PAGE 4096u

/*
 * Where in its page a request, or the room for an answer, has to begin so that the data
 * of a WRITE or READ begins a page, as in a real guest.
 */
#define SEGMENTS_IN_LEAD                                                                 \
    (SEGMENTS_PAGE - sizeof(struct fuse_in_header) - sizeof(struct fuse_write_in))
#define SEGMENTS_OUT_LEAD (SEGMENTS_PAGE - sizeof(struct fuse_out_header))

/** enum SegmentsSplit - the ways to cut. */
typedef enum SegmentsSplit {
    SEGMENTS_LINUX, /* header, arguments, then page by page, as virtio_fs.c does */
    SEGMENTS_WHOLE, /* one for each direction */
    SEGMENTS_BYTES, /* every so many bytes */
} SegmentsSplit;

/** struct Segments - descriptors for one direction. */
typedef struct Segments {
    VirtqueueSegment at[SEGMENTS_MAX];
    unsigned int n;
} Segments;

/** struct SegmentsPlan - how to cut. */
typedef struct SegmentsPlan {
    SegmentsSplit split;
    size_t step;        /* for SEGMENTS_BYTES */
    unsigned int limit; /* most descriptors for one direction */
    uint32_t opcode;
} SegmentsPlan;

/** segments_cut_in() - cut a request. Return: 0, or -EMSGSIZE beyond the limit. */
int segments_cut_in(Segments *list, const SegmentsPlan *plan, uint64_t gpa, size_t size);
/** segments_cut_out() - cut the room for an answer, header included. Return: as above. */
int segments_cut_out(Segments *list, const SegmentsPlan *plan, uint64_t gpa, size_t size);

/** segments_limit() - Return: a plan's limit for this queue, with room for both. */
unsigned int segments_limit(const Virtqueue *queue);

#endif
