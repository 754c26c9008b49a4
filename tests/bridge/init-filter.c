/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Some of what a virtio-fs guest agrees on with its server has no meaning over /dev/fuse,
 * or would have the kernel talk to the bridge in another way. These flags are taken out
 * of both directions, so that no daemon can turn them on.
 */
#include "tests/bridge/init-filter.h"

#include <linux/fuse.h>
#include <stddef.h>
#include <string.h>

/* Bit numbers that the oldest supported <linux/fuse.h> lacks. */
#define PASSTHROUGH (1ull << 37)     /* needs an ioctl on /dev/fuse for each file */
#define OVER_IO_URING (1ull << 41)   /* the kernel would not be read any more */
#define REQUEST_TIMEOUT (1ull << 42) /* would abort the connection of a slow daemon */

#define REFUSED                                                                          \
    (FUSE_SPLICE_WRITE | FUSE_SPLICE_MOVE | FUSE_SPLICE_READ | FUSE_MAP_ALIGNMENT |      \
     FUSE_SUBMOUNTS | FUSE_HAS_INODE_DAX | PASSTHROUGH | OVER_IO_URING |                 \
     REQUEST_TIMEOUT)

#define KEPT (~(uint64_t)REFUSED)

/* Clear the refused bits of a 32-bit word of flags, if the message is that long. */
static void clear(uint8_t *message, size_t size, size_t offset, uint32_t kept)
{
    uint32_t flags;
    if (size < offset + sizeof(flags)) {
        return;
    }
    memcpy(&flags, message + offset, sizeof(flags));
    flags &= kept;
    memcpy(message + offset, &flags, sizeof(flags));
}

void init_filter_request(uint8_t *request, size_t size)
{
    size_t start = sizeof(struct fuse_in_header);
    clear(request, size, start + offsetof(struct fuse_init_in, flags), (uint32_t)KEPT);
    clear(request, size, start + offsetof(struct fuse_init_in, flags2),
          (uint32_t)(KEPT >> 32));
}

void init_filter_reply(uint8_t *reply, size_t size, const InitLimits *limits)
{
    struct fuse_init_out out;
    size_t start = sizeof(struct fuse_out_header);
    if (size < start + sizeof(out)) {
        return;
    }
    clear(reply, size, start + offsetof(struct fuse_init_out, flags), (uint32_t)KEPT);
    clear(reply, size, start + offsetof(struct fuse_init_out, flags2),
          (uint32_t)(KEPT >> 32));
    memcpy(&out, reply + start, sizeof(out));
    if (out.max_write > limits->max_write) {
        out.max_write = limits->max_write;
    }
    if (out.max_pages > limits->max_pages) {
        out.max_pages = limits->max_pages;
    }
    memcpy(reply + start, &out, sizeof(out));
}
