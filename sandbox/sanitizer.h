/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SANDBOX_SANITIZER_H
#define SANDBOX_SANITIZER_H

/*
 * What a sanitizer's runtime does inside the process: it is let through in builds that
 * have one, and in no others.
 */

#if defined(__has_feature)
#define SANDBOX_HAS_FEATURE(feature) __has_feature(feature)
#else
#define SANDBOX_HAS_FEATURE(feature) 0
#endif

#if defined(__SANITIZE_THREAD__) || SANDBOX_HAS_FEATURE(thread_sanitizer)
#define SANDBOX_TSAN 1
#else
#define SANDBOX_TSAN 0
#endif

#if defined(__SANITIZE_ADDRESS__) || SANDBOX_HAS_FEATURE(address_sanitizer)
#define SANDBOX_ASAN 1
#else
#define SANDBOX_ASAN 0
#endif

/* ThreadSanitizer has a thread of its own, from the start or a little later. */
#define SANDBOX_TOOL_THREADS SANDBOX_TSAN

#endif
