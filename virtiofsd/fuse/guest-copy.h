/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_FUSE_GUEST_COPY_H
#define VIRTIOFSD_FUSE_GUEST_COPY_H

#include <stddef.h>
#include <string.h>

/*
 * guest_copy() - the only copies from and to guest memory. What the guest does with a
 * buffer between two requests, on two queues perhaps, is ordered by the guest alone:
 * ThreadSanitizer would take it for a race of ours, so there these bytes are moved behind
 * its back.
 */
#if defined(__has_feature)
#define HAS_TSAN __has_feature(thread_sanitizer)
#elif defined(__SANITIZE_THREAD__)
#define HAS_TSAN 1
#endif
#if defined(HAS_TSAN) && HAS_TSAN
void guest_copy(void *to, const void *from, size_t size);
#else
static inline void guest_copy(void *to, const void *from, size_t size)
{
    memcpy(to, from, size);
}
#endif

#endif
