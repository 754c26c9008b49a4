/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dirty log. It is the VMM's memory, so each mark is one atomic OR, whatever was
 * there before: the VMM exchanges whole words for zero meanwhile, and to look first
 * whether a bit is set already would race with that. The size bounds every mark, and the
 * VMM chose it; if the log's file is made smaller later, the guard puts zeros in its
 * place and all rings stop, as they do for guest memory: marks that get lost would be a
 * guest that arrives broken.
 */
#include "virtiofsd/vhost/dirty-log.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "virtiofsd/vhost/mapping.h"

#define PAGE_SHIFT 12 /* whatever the host's pages and the guest's are */

struct VuDirtyLog {
    VuMapping *mapping;
    _Atomic uint8_t *bytes;
    uint64_t size;
};

_Static_assert(sizeof(_Atomic uint8_t) == 1, "marks are bits of bytes");

int vu_dirty_log_new(int fd, uint64_t offset, uint64_t size, VuDirtyLog **ret_log)
{
    VuDirtyLog *log = calloc(1, sizeof(*log));

    if (log == NULL) {
        return -ENOMEM;
    }
    int result = vu_mapping_new(fd, offset, size, &log->mapping);
    if (result < 0) {
        free(log);
        return result;
    }
    log->bytes = (_Atomic uint8_t *)vu_mapping_host(log->mapping);
    log->size = size;
    *ret_log = log;
    return 0;
}

void vu_dirty_log_free(VuDirtyLog *log)
{
    if (log != NULL) {
        vu_mapping_unref(log->mapping);
        free(log);
    }
}

void vu_dirty_log_mark(VuDirtyLog *log, uint64_t gpa, uint64_t length)
{
    uint64_t end;

    if (length == 0) {
        return;
    }
    if (__builtin_add_overflow(gpa, length, &end)) {
        end = UINT64_MAX;
    }
    uint64_t first = gpa >> PAGE_SHIFT;
    uint64_t last = (end - 1) >> PAGE_SHIFT;
    for (uint64_t i = first / 8; i <= last / 8 && i < log->size; i++) {
        unsigned int bits = 0xff;
        if (i == first / 8) {
            bits &= 0xffu << first % 8;
        }
        if (i == last / 8) {
            bits &= 0xffu >> (7 - last % 8);
        }
        atomic_fetch_or(&log->bytes[i], (uint8_t)bits);
    }
}

void vu_dirty_log_mark_segments(VuDirtyLog *log, const VuMemory *memory,
                                const struct iovec *segments, size_t n, uint64_t length)
{
    VuMemoryWindow window = {0};

    for (size_t i = 0; i < n && length > 0; i++) {
        const uint8_t *host = segments[i].iov_base;
        uint64_t left = MIN(segments[i].iov_len, length);
        length -= left;
        /* A segment may lie in two regions that happen to be neighbours here. */
        while (left > 0 && vu_memory_window_at(memory, host, &window)) {
            uint64_t offset = (uint64_t)(host - window.host);
            uint64_t here = MIN(left, window.size - offset);
            vu_dirty_log_mark(log, window.gpa + offset, here);
            host += here;
            left -= here;
        }
    }
}
