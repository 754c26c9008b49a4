/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_VHOST_LOG_H
#define TESTS_UNIT_VHOST_LOG_H

#include "tests/unit/vhost-guest.h"

/*
 * The VMM's side of a dirty log: a memfd, and what is marked in it.
 */

#define LOG_PAGE 4096u
/* Covers the guest's memory, and not a page more. */
#define LOG_SIZE ((GUEST_GPA + GUEST_SIZE) / LOG_PAGE / 8)

typedef struct Log {
    int fd;
    uint8_t *bytes;
} Log;

static inline void log_init(Log *log)
{
    log->fd = memfd_create("log", MFD_CLOEXEC);
    g_assert_cmpint(ftruncate(log->fd, LOG_SIZE), ==, 0);
    log->bytes = mmap(NULL, LOG_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, log->fd, 0);
    g_assert_true(log->bytes != MAP_FAILED);
}

static inline void log_clear(Log *log)
{
    munmap(log->bytes, LOG_SIZE);
    close(log->fd);
}

/* The pages that are marked, as "40010 40011 " in hexadecimal; they are so no longer. */
static inline void expect_pages(Log *log, const char *pages)
{
    g_autoptr(GString) found = g_string_new(NULL);

    for (uint64_t i = 0; i < LOG_SIZE; i++) {
        uint8_t bits = __atomic_exchange_n(&log->bytes[i], 0, __ATOMIC_SEQ_CST);
        for (unsigned int bit = 0; bit < 8; bit++) {
            if ((bits >> bit & 1) != 0) {
                g_string_append_printf(found, "%" G_GINT64_MODIFIER "x ", i * 8 + bit);
            }
        }
    }
    g_assert_cmpstr(found->str, ==, pages);
}

/* How often logs are mapped in this process. */
static inline unsigned int count_logs(void)
{
    return count_maps("memfd:log");
}

#endif
