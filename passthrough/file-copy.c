/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "passthrough/cred.h"
#include "passthrough/fd.h"
#include "passthrough/handle.h"
#include "passthrough/internal.h"
#include "passthrough/passthrough.h"
#include "passthrough/xattr.h"

/*
 * Copying on the host. A worker must not copy for as long as the guest likes: one that
 * writes 2 GiB to a disk is busy for many seconds, and the VMM, which wants to stop the
 * queue, waits as long. But where the host's file system shares blocks instead of copying
 * them, any length takes no time, and small pieces only make it slow. So it is time that
 * ends a request: the first piece is small, each later one as long as all before it, and
 * after TIME_NS no other is begun. The copy is then short, as copy_file_range(2) may be
 * at any time; the program goes on with the rest.
 */

/* At the 100 MB/s of a slow disk this is what TIME_NS is spent on. */
#define FIRST_PIECE (UINT64_C(8) << 20)
#define TIME_NS INT64_C(100000000)
/* Linux's own limit for one call, MAX_RW_COUNT; and a multiple of every block size. */
#define MOST UINT64_C(0x7ffff000)

static int64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static ssize_t copy_pieces(int from_fd, int to_fd, const PtCopy *copy)
{
    off_t from = (off_t)copy->offset;
    off_t to = (off_t)copy->to_offset;
    uint64_t most = MIN(copy->length, MOST);
    uint64_t piece = MIN(most, FIRST_PIECE);
    int64_t end_ns = most > piece ? now_ns() + TIME_NS : 0;
    uint64_t done = 0;
    for (;;) {
        ssize_t n = copy_file_range(from_fd, &from, to_fd, &to, piece, 0);
        if (n < 0) {
            return done > 0 ? (ssize_t)done : pt_error();
        }
        done += (uint64_t)n;
        if ((uint64_t)n < piece || done == most || now_ns() >= end_ns) {
            return (ssize_t)done;
        }
        piece = MIN(most - done, done);
    }
}

ssize_t pt_copy(PtFs *fs, const PtCopy *copy)
{
    g_auto(PtOpenFile) from = {0};
    g_auto(PtOpenFile) to = {0};
    g_auto(PtPrivileges) privileges = {0};
    if (copy->flags != 0 || copy->offset > INT64_MAX || copy->to_offset > INT64_MAX) {
        return -EINVAL;
    }
    int r = pt_open_file_get(fs, copy->nodeid, copy->handle, PT_HANDLE_FILE, &from);
    if (r < 0) {
        return r;
    }
    r = pt_open_file_get(fs, copy->to_nodeid, copy->to_handle, PT_HANDLE_FILE, &to);
    if (r < 0) {
        return r;
    }
    r = pt_file_changes(fs, &to);
    if (r < 0) {
        return r;
    }
    r = pt_privileges_drop(copy->kill_suidgid, &privileges);
    return r < 0 ? r : copy_pieces(from.handle->fd, to.handle->fd, copy);
}
