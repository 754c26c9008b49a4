/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_PAGES_H
#define PASSTHROUGH_PAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "passthrough/handle.h"
#include "passthrough/inode.h"

/*
 * Whether the guest may keep the pages of a file from one OPEN to the next.
 */

/**
 * pt_pages_opened() - look at a file that was just opened to be read.
 * @fd: a descriptor of it, not O_PATH.
 * @seen: its attributes, as they were since the guest has asked for this; an stx_mask of
 * 0 if they are not known.
 * @ret_state: what the guest's pages will be good for if it drops those that it has; 0
 * for nothing. For the new handle.
 *
 * Return: whether the guest may keep what it has.
 */
bool pt_pages_opened(PtFs *fs, PtInode *inode, int fd, struct statx *seen,
                     uint64_t *ret_state);

/**
 * pt_pages_known() - the guest uses the handle: it has dropped what it had to.
 * Context: any thread that holds a reference to the handle.
 */
static inline void pt_pages_known(PtFs *fs, PtHandle *handle)
{
    if (atomic_load_explicit(&handle->pages, memory_order_relaxed) != 0) {
        PtInode *inode = pt_handle_inode(fs, handle);
        uint64_t state =
            atomic_exchange_explicit(&handle->pages, 0, memory_order_relaxed);
        if (state != 0) {
            atomic_store_explicit(&inode->pages, state, memory_order_relaxed);
        }
    }
}

#endif
