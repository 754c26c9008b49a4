/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_LOG_H
#define VIRTIOFSD_LOG_H

#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The log writer. It formats into a fixed buffer, opens nothing after start, never blocks
 * and never aborts. One of the two leaf headers that every room may include.
 */

/** enum LogLevel - how much is said; a line is written when its level is <= the
 * threshold. */
typedef enum LogLevel {
    LOG_LEVEL_OFF,
    LOG_LEVEL_ERROR,
    LOG_LEVEL_WARN,
    LOG_LEVEL_INFO,
    LOG_LEVEL_DEBUG,
    LOG_LEVEL_TRACE,
} LogLevel;

/** struct LogLimit - lets a few lines a second through and counts the rest; zeroed =
 * fresh. */
typedef struct LogLimit {
    _Atomic int64_t window_start_ns;
    _Atomic uint32_t written;
    _Atomic uint32_t suppressed;
} LogLimit;

extern _Atomic int log_threshold;

/**
 * log_open() - choose the sink and the threshold, once, before threads and sandbox exist.
 * @level: the threshold.
 * @use_syslog: write to /dev/log (datagram, non-blocking) instead of stderr.
 *
 * Stays on stderr with a warning when /dev/log is not there. Colours levels when stderr
 * is a terminal and NO_COLOR is unset or empty. A pipe or terminal at stderr is replaced,
 * under the same number, by a non-blocking open file of our own.
 */
void log_open(LogLevel level, bool use_syslog);

/**
 * log_descriptor() - the descriptor that the writer owns besides stderr.
 *
 * Return: the connected /dev/log socket, or -1.
 */
int log_descriptor(void);

/**
 * log_write() - write one line.
 * @level: its level; the caller has checked log_enabled().
 * @format: printf format, without a newline. Text that the guest chose must have been
 *          through log_escape(). Control characters are escaped again here.
 *
 * Context: any thread, no lock held. A full or vanished receiver loses the line; losses
 * are counted and told with the next line that gets through.
 */
void log_write(LogLevel level, const char *format, ...) G_GNUC_PRINTF(2, 3);

/**
 * log_write_limited() - log_write(), at most five lines a second per @limit.
 * @limit: shared by all callers of one message; how many were left out is told later.
 */
void log_write_limited(LogLimit *limit, LogLevel level, const char *format, ...)
    G_GNUC_PRINTF(3, 4);

/**
 * log_ready() - write the readiness line, at every level, to stderr or the syslog.
 *
 * The text "Waiting for vhost-user socket connection" appears nowhere else, and no other
 * line can contain it: Kata's runtime-rs aborts on a second one.
 */
void log_ready(void);

/**
 * log_escape() - make bytes printable.
 * @out: result, always NUL-terminated; ends in "..." when cut.
 * @out_size: bytes at @out, at least 4.
 * @text: the bytes; NUL, the backslash and anything outside printable ASCII become \xHH,
 *        so that no text can pass for an escape of ours.
 * @size: bytes at @text.
 *
 * Return: @out.
 */
const char *log_escape(char *out, size_t out_size, const void *text, size_t size);

/** log_enabled() - would a line of this level be written? Costs one relaxed load. */
static inline bool log_enabled(LogLevel level)
{
    return (int)level <= atomic_load_explicit(&log_threshold, memory_order_relaxed);
}

#define log_at(level, ...) (log_enabled(level) ? log_write(level, __VA_ARGS__) : (void)0)
#define log_error(...) log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_at(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)
#define log_trace(...) log_at(LOG_LEVEL_TRACE, __VA_ARGS__)

#endif
