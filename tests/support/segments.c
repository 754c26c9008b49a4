/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From bytes to descriptors. Linux's way (fs/fuse/virtio_fs.c) is one descriptor for the
 * header, one for all arguments and names, then one for each page of data; a server that
 * wants to avoid copies has to live with that, so it is the default.
 */
#include "tests/support/segments.h"

#include <errno.h>

#include "tests/support/reply-room.h"

/* Arguments and names of one request never need more. */
#define MAX_ARGS (3 * SEGMENTS_PAGE)

unsigned int segments_limit(const Virtqueue *queue)
{
    VirtqueueLayout layout = virtqueue_layout(queue);
    unsigned int limit =
        layout.table_size < layout.size ? layout.table_size : layout.size;
    limit = limit < SEGMENTS_MAX ? limit : SEGMENTS_MAX;
    /* The other direction is small where this one is large: header and arguments. */
    return limit > 4 ? limit - 3 : limit;
}

static int add(Segments *list, const SegmentsPlan *plan, uint64_t gpa, size_t size)
{
    if (list->n == plan->limit || list->n == SEGMENTS_MAX) {
        return -EMSGSIZE;
    }
    list->at[list->n++] = (VirtqueueSegment){.gpa = gpa, .size = (uint32_t)size};
    return 0;
}

static int add_pieces(Segments *list, const SegmentsPlan *plan, uint64_t gpa, size_t size,
                      size_t step)
{
    int rc = 0;
    for (size_t done = 0; rc == 0 && done < size; done += step) {
        size_t left = size - done;
        rc = add(list, plan, gpa + done, left < step ? left : step);
    }
    return rc;
}

/* Two pieces of at most these sizes, the rest page by page. */
static int add_pages(Segments *list, const SegmentsPlan *plan, uint64_t gpa, size_t size,
                     const size_t head[2])
{
    for (unsigned int i = 0; i < 2; i++) {
        size_t piece = head[i] < size ? head[i] : size;
        if (piece > 0 && add(list, plan, gpa, piece) < 0) {
            return -EMSGSIZE;
        }
        gpa += piece;
        size -= piece;
    }
    /* A queue too small for single pages gets larger pieces. */
    size_t page = SEGMENTS_PAGE;
    while (page < size && (size + page - 1) / page > plan->limit - list->n) {
        page *= 2;
    }
    return add_pieces(list, plan, gpa, size, page);
}

static int cut(Segments *list, const SegmentsPlan *plan, uint64_t gpa, size_t size,
               const size_t head[2])
{
    list->n = 0;
    switch (plan->split) {
    case SEGMENTS_WHOLE:
        return size > 0 ? add(list, plan, gpa, size) : 0;
    case SEGMENTS_BYTES:
        return add_pieces(list, plan, gpa, size, plan->step > 0 ? plan->step : 1);
    case SEGMENTS_LINUX:
        break;
    }
    return add_pages(list, plan, gpa, size, head);
}

int segments_cut_in(Segments *list, const SegmentsPlan *plan, uint64_t gpa, size_t size)
{
    size_t args = plan->opcode == FUSE_WRITE ? sizeof(struct fuse_write_in) : MAX_ARGS;
    size_t head[2] = {sizeof(struct fuse_in_header), args};
    return cut(list, plan, gpa, size, head);
}

int segments_cut_out(Segments *list, const SegmentsPlan *plan, uint64_t gpa, size_t size)
{
    size_t head[2] = {sizeof(struct fuse_out_header),
                      reply_is_paged(plan->opcode) ? 0 : size};
    return cut(list, plan, gpa, size, head);
}
