/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/file-status.h"

#include <errno.h>
#include <fcntl.h>

#include "passthrough/internal.h"

/*
 * The flags that the host's file has are remembered in the handle, so that only a change
 * costs a system call. While one thread changes them, no other does: what is remembered
 * is what the last F_SETFL said.
 */

enum { CHANGING = 1 }; /* in PtHandle.status: O_WRONLY, which is no status flag */

uint32_t pt_status_wanted(const PtFs *fs, PtHandle *handle, const PtIo *io)
{
    uint32_t status =
        atomic_load_explicit(&handle->status, memory_order_relaxed) & ~(uint32_t)CHANGING;
    uint32_t changeable = 0;
    if (fs->config.allow_direct_io) {
        changeable |= O_DIRECT;
    }
    if (fs->config.preserve_noatime && !fs->config.readonly) {
        changeable |= O_NOATIME;
    }
    if (io->flags & PT_IO_CACHED) {
        return status & ~(uint32_t)O_DIRECT;
    }
    return (status & ~changeable) | (io->open_flags & changeable);
}

static int set(int fd, uint32_t flags)
{
    return fcntl(fd, F_SETFL, (int)flags) < 0 ? -errno : 0;
}

void pt_status_set(PtHandle *handle, uint32_t wanted)
{
    uint32_t status = atomic_load_explicit(&handle->status, memory_order_acquire);
    if (status == wanted || (status & CHANGING) ||
        !atomic_compare_exchange_strong_explicit(&handle->status, &status,
                                                 wanted | CHANGING, memory_order_acq_rel,
                                                 memory_order_acquire)) {
        return;
    }
    int r = set(handle->fd, wanted);
    if (r < 0) {
        /* O_DIRECT is not for every file system, O_NOATIME not for every user. */
        (void)set(handle->fd, wanted & ~(uint32_t)(r == -EPERM ? O_NOATIME : O_DIRECT));
    }
    atomic_store_explicit(&handle->status, wanted, memory_order_release);
}

bool pt_status_lost(PtHandle *handle, uint32_t wanted)
{
    return atomic_load_explicit(&handle->status, memory_order_acquire) != wanted;
}
