/* SPDX-License-Identifier: Apache-2.0 */
/*
 * INIT and DESTROY. Both run alone in the gate. A guest that reboots says INIT again
 * without DESTROY: every good INIT begins a session anew.
 */
#include <errno.h>
#include <string.h>

#include "virtiofsd/fuse/op.h"
#include "virtiofsd/fuse/reply.h"

/* As much as virtio-fs guests ask for by default: 256 pages of 4 KiB. */
#define MAX_PAGES (SESSION_MAX_WRITE / 4096u)
/* 0 would be taken as 12; the ring is what limits the guest. */
#define MAX_BACKGROUND UINT16_C(65535)
#define CONGESTION_THRESHOLD ((uint16_t)(MAX_BACKGROUND * 3u / 4u))

/* INIT had 16 bytes before 7.36 and has 64 since; the table row has copied the first 16.
 */
static int read_rest(Request *request)
{
    struct fuse_init_in *in = &request->in.init;
    const size_t rest = sizeof(*in) - ABI_COMPAT_INIT_IN_SIZE;

    if (request->tail == 0) {
        return 0;
    }
    if (request->tail < rest) {
        return op_malformed(request, "too short");
    }
    (void)iov_read(&request->reader, (char *)in + ABI_COMPAT_INIT_IN_SIZE, rest);
    return 0;
}

/* A short INIT has left flags2 at 0. */
static uint64_t offered_flags(const Request *request)
{
    const struct fuse_init_in *in = &request->in.init;
    uint64_t flags = in->flags;

    if ((flags & FUSE_INIT_EXT) != 0) {
        flags |= (uint64_t)in->flags2 << 32;
    }
    return flags;
}

int op_init(Request *request)
{
    const struct fuse_init_in *in = &request->in.init;
    struct fuse_init_out out = {.major = ABI_MAJOR, .minor = ABI_MINOR};
    uint64_t flags = 0;

    if (in->major > ABI_MAJOR) {
        /* The guest reads our version and says INIT again in it (fuse.h, "Version
         * negotiation"); until then nothing has begun. */
        return reply_bytes(request, &out, sizeof(out));
    }
    if (in->major < ABI_MAJOR || in->minor < ABI_MINOR_MIN) {
        return -EPROTO;
    }
    int result = read_rest(request);
    if (result < 0) {
        return result;
    }
    result = session_agree(request->session, offered_flags(request), &flags);
    if (result < 0) {
        return result;
    }
    session_unmap_all(request->session);
    out.minor = in->minor < ABI_MINOR ? in->minor : ABI_MINOR;
    out.max_readahead = in->max_readahead;
    out.flags = (uint32_t)flags;
    out.flags2 = (uint32_t)(flags >> 32);
    out.max_background = MAX_BACKGROUND;
    out.congestion_threshold = CONGESTION_THRESHOLD;
    out.max_write = SESSION_MAX_WRITE;
    out.max_pages = (flags & FUSE_MAX_PAGES) != 0 ? MAX_PAGES : 0;
    out.map_alignment = (flags & FUSE_MAP_ALIGNMENT) != 0 ? ABI_MAP_ALIGNMENT : 0;
    out.time_gran = 1;
    return reply_bytes(request, &out, sizeof(out));
}

int op_destroy(Request *request)
{
    /* Linux unmaps nothing at umount. */
    session_unmap_all(request->session);
    session_end(request->session);
    return 0;
}
