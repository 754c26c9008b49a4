/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_VHOST_DIRTY_LOG_H
#define VIRTIOFSD_VHOST_DIRTY_LOG_H

#include <glib.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "virtiofsd/vhost/memory.h"

/*
 * The VMM's log of guest pages that were written: while it migrates a guest it sends
 * again what it finds marked there. One bit for each 4 KiB of guest physical memory, from
 * address 0 on, in memory that both map; the VMM takes the marks out as we put them in.
 */

typedef struct VuDirtyLog VuDirtyLog;

/**
 * vu_dirty_log_new() - map a log of @size bytes, at @offset of @fd.
 *
 * Return: 0, or as vu_mapping_new(). Context: the control thread only.
 */
int vu_dirty_log_new(int fd, uint64_t offset, uint64_t size, VuDirtyLog **ret_log);
/** vu_dirty_log_free() - nobody marks anything in it any more. NULL is nothing. */
void vu_dirty_log_free(VuDirtyLog *log);

/**
 * vu_dirty_log_mark() - note that @length bytes from @gpa on were written.
 *
 * To be called after the write: what is marked before it could be taken out of the log,
 * and the page sent, in between. Pages that the log does not cover are left out.
 * Context: any thread, while the log is not freed.
 */
void vu_dirty_log_mark(VuDirtyLog *log, uint64_t gpa, uint64_t length);

/** vu_dirty_log_mark_segments() - the same for the first @length bytes of segments that
 * lie in @memory. */
void vu_dirty_log_mark_segments(VuDirtyLog *log, const VuMemory *memory,
                                const struct iovec *segments, size_t n, uint64_t length);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VuDirtyLog, vu_dirty_log_free)

#endif
