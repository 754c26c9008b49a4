/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log writer. A line is formatted on the stack, made printable, and handed over in
 * one system call that never waits: to stderr (one write or send) or to /dev/log (one
 * datagram). What the receiver does not take is lost and counted.
 *
 * stderr may be a pipe whose reader is slow, or a terminal that is stopped. O_NONBLOCK
 * belongs to the open file, which the parent and its other children share, so stderr is
 * opened anew through /proc and the new open file takes its number. Where that is
 * refused, poll(2) asks before each write.
 *
 * After log_open() nothing here opens a file, allocates, or calls what might: no
 * strerror, no localtime, no stdio stream.
 */
#include "virtiofsd/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "virtiofsd/autofd.h"

/* One line with its newline. Below PIPE_BUF, so that a pipe takes all of it or nothing.
 */
#define LINE_SIZE 1024
#define READY_TEXT "Waiting for vhost-user socket connection"
/* How long the readiness line may wait for a full stderr. */
#define READY_WAIT_MS 5000
#define LIMIT_LINES 5
#define LIMIT_WINDOW_NS INT64_C(1000000000)
#define SYSLOG_PATH "/dev/log"

/* How a line leaves. */
typedef enum Sink {
    SINK_WRITE, /* a file, a device, or a pipe or terminal opened non-blocking */
    SINK_POLL,  /* a pipe or terminal that may block */
    SINK_SEND,  /* stderr is a socket */
    SINK_SYSLOG,
} Sink;

typedef struct LevelName {
    const char *word;
    const char *colour;
    int priority;
} LevelName;

static const LevelName level_names[] = {
    [LOG_LEVEL_OFF] = {"info", "", LOG_INFO},
    [LOG_LEVEL_ERROR] = {"error", "\033[31m", LOG_ERR},
    [LOG_LEVEL_WARN] = {"warning", "\033[33m", LOG_WARNING},
    [LOG_LEVEL_INFO] = {"info", "\033[32m", LOG_INFO},
    [LOG_LEVEL_DEBUG] = {"debug", "\033[34m", LOG_DEBUG},
    [LOG_LEVEL_TRACE] = {"trace", "\033[36m", LOG_DEBUG},
};

/* A line under construction; the last byte is left for '\n'. */
typedef struct Line {
    char bytes[LINE_SIZE];
    size_t used;
} Line;

_Atomic int log_threshold = LOG_LEVEL_INFO;

/* Written by log_open() before any thread exists, read-only afterwards. */
static struct {
    Sink sink;
    int syslog_fd;
    int pid;
    bool colour;
} writer = {.sink = SINK_POLL, .syslog_fd = -1};

/* Lines that no receiver took, not yet told. */
static _Atomic uint32_t lost;

/* Puts one byte as it is or as \xHH. Returns how many characters that made. */
static size_t put_byte(char *out, size_t room, unsigned char byte, bool plain)
{
    static const char digits[] = "0123456789abcdef";

    if (plain) {
        if (room >= 1) {
            out[0] = (char)byte;
        }
        return 1;
    }
    if (room >= 4) {
        out[0] = '\\';
        out[1] = 'x';
        out[2] = digits[byte >> 4];
        out[3] = digits[byte & 15];
    }
    return 4;
}

/*
 * Makes @size bytes printable in at most @room characters (at least 3), without a NUL;
 * ends in "..." if they do not fit. An escape is never cut in two. @backslash says
 * whether the backslash is escaped too, so that no text can look like an escape of ours.
 */
static size_t escape(char *out, size_t room, const char *text, size_t size,
                     bool backslash)
{
    size_t used = 0;
    size_t safe = 0; /* the last boundary after which "..." fits */

    for (size_t i = 0; i < size; i++) {
        unsigned char byte = (unsigned char)text[i];
        bool plain = byte >= 0x20 && byte < 0x7f && !(backslash && byte == '\\');
        size_t length = put_byte(out + used, room - used, byte, plain);

        if (length > room - used) {
            memcpy(out + safe, "...", 3);
            return safe + 3;
        }
        used += length;
        if (used + 3 <= room) {
            safe = used;
        }
    }
    return used;
}

const char *log_escape(char *out, size_t out_size, const void *text, size_t size)
{
    out[escape(out, out_size - 1, text, size, true)] = '\0';
    return out;
}

static void line_begin(Line *line, LogLevel level)
{
    const LevelName *name = &level_names[level];
    int length;

    if (writer.sink == SINK_SYSLOG) {
        length = snprintf(line->bytes, sizeof(line->bytes),
                          "<%d>virtiofsd[%d]: ", LOG_USER | name->priority, writer.pid);
    } else {
        length = snprintf(line->bytes, sizeof(line->bytes), "virtiofsd: %s%s:%s ",
                          writer.colour ? name->colour : "", name->word,
                          writer.colour ? "\033[0m" : "");
    }
    line->used = (size_t)length;
}

static void line_add(Line *line, const char *text)
{
    size_t room = sizeof(line->bytes) - 1 - line->used;

    line->used += escape(line->bytes + line->used, room, text, strlen(text), false);
}

/* Whoever waits for the readiness line must not be deceived by another one. */
static void line_spoil_ready(Line *line)
{
    const size_t length = sizeof(READY_TEXT) - 1;
    char *end = line->bytes + line->used;
    char *at = line->bytes;

    while ((at = memmem(at, (size_t)(end - at), READY_TEXT, length)) != NULL) {
        *at = '?';
        at += length;
    }
}

static bool stderr_ready(int timeout_ms)
{
    struct pollfd poll_fd = {.fd = STDERR_FILENO, .events = POLLOUT};

    return poll(&poll_fd, 1, timeout_ms) == 1 && (poll_fd.revents & POLLOUT) != 0;
}

/* Hands the line over; false if nobody took it. What a terminal took half of is taken. */
static bool line_send(Line *line)
{
    const int flags = MSG_DONTWAIT | MSG_NOSIGNAL;

    if (writer.sink == SINK_SYSLOG) {
        /* A datagram is a line by itself. */
        return send(writer.syslog_fd, line->bytes, line->used, flags) >= 0;
    }
    line->bytes[line->used++] = '\n';
    if (writer.sink == SINK_SEND) {
        return send(STDERR_FILENO, line->bytes, line->used, flags) >= 0;
    }
    if (writer.sink == SINK_POLL && !stderr_ready(0)) {
        return false;
    }
    return write(STDERR_FILENO, line->bytes, line->used) >= 0;
}

/* Tells of lines lost before, where the gap is. */
static void tell_lost(void)
{
    uint32_t count = atomic_exchange_explicit(&lost, 0, memory_order_relaxed);
    char text[64];
    Line line;

    if (count == 0) {
        return;
    }
    (void)snprintf(text, sizeof(text), "%u log lines were lost here", count);
    line_begin(&line, LOG_LEVEL_WARN);
    line_add(&line, text);
    if (!line_send(&line)) {
        atomic_fetch_add_explicit(&lost, count, memory_order_relaxed);
    }
}

static void write_text(LogLevel level, const char *text)
{
    int saved = errno;
    Line line;

    if (atomic_load_explicit(&lost, memory_order_relaxed) != 0) {
        tell_lost();
    }
    line_begin(&line, level);
    line_add(&line, text);
    line_spoil_ready(&line);
    if (!line_send(&line)) {
        atomic_fetch_add_explicit(&lost, 1, memory_order_relaxed);
    }
    errno = saved;
}

/* A message longer than the buffer is longer than a line, too, and ends in "..." there.
 */
static void write_format(LogLevel level, const char *format, va_list arguments)
    G_GNUC_PRINTF(2, 0);

static void write_format(LogLevel level, const char *format, va_list arguments)
{
    char text[LINE_SIZE];

    if (vsnprintf(text, sizeof(text), format, arguments) >= 0) {
        write_text(level, text);
    }
}

void log_write(LogLevel level, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    write_format(level, format, arguments);
    va_end(arguments);
}

/*
 * Takes a place in the current window, or counts a line left out. A new window first
 * tells what the one before left out, in one of its own places.
 */
static bool limit_take(LogLimit *limit, LogLevel level)
{
    struct timespec time;
    int64_t start = atomic_load_explicit(&limit->window_start_ns, memory_order_relaxed);

    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    int64_t now = (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
    if (now - start >= LIMIT_WINDOW_NS &&
        atomic_compare_exchange_strong_explicit(&limit->window_start_ns, &start, now,
                                                memory_order_relaxed,
                                                memory_order_relaxed)) {
        uint32_t left_out =
            atomic_exchange_explicit(&limit->suppressed, 0, memory_order_relaxed);

        atomic_store_explicit(&limit->written, left_out != 0 ? 2 : 1,
                              memory_order_relaxed);
        if (left_out != 0) {
            log_write(level, "%u lines like the next one were left out", left_out);
        }
        return true;
    }
    /* Looked at first: the count may not run over while the flood lasts. */
    if (atomic_load_explicit(&limit->written, memory_order_relaxed) < LIMIT_LINES &&
        atomic_fetch_add_explicit(&limit->written, 1, memory_order_relaxed) <
            LIMIT_LINES) {
        return true;
    }
    atomic_fetch_add_explicit(&limit->suppressed, 1, memory_order_relaxed);
    return false;
}

void log_write_limited(LogLimit *limit, LogLevel level, const char *format, ...)
{
    va_list arguments;

    if (!log_enabled(level) || !limit_take(limit, level)) {
        return;
    }
    va_start(arguments, format);
    write_format(level, format, arguments);
    va_end(arguments);
}

void log_ready(void)
{
    Line line;

    line_begin(&line, LOG_LEVEL_INFO);
    line_add(&line, READY_TEXT);
    if (line_send(&line)) {
        return;
    }
    if (writer.sink != SINK_SYSLOG && stderr_ready(READY_WAIT_MS)) {
        line.used--; /* the newline, which is added again */
        (void)line_send(&line);
    }
}

/* Chooses how to write to stderr without ever waiting for its reader. */
static Sink open_stderr(void)
{
    struct stat status;

    if (fstat(STDERR_FILENO, &status) < 0) {
        return SINK_WRITE;
    }
    if (S_ISSOCK(status.st_mode)) {
        return SINK_SEND;
    }
    if (!S_ISFIFO(status.st_mode) && isatty(STDERR_FILENO) != 1) {
        return SINK_WRITE;
    }
    const struct open_how how = {.flags = O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC};
    g_auto(AutoFd) fd =
        (int)syscall(SYS_openat2, AT_FDCWD, "/proc/self/fd/2", &how, sizeof(how));
    if (fd < 0 || dup2(fd, STDERR_FILENO) < 0) {
        return SINK_POLL;
    }
    return SINK_WRITE;
}

static int open_syslog(void)
{
    const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SYSLOG_PATH};
    g_auto(AutoFd) fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        return -1;
    }
    return autofd_steal(&fd);
}

void log_open(LogLevel level, bool use_syslog)
{
    const char *no_colour = getenv("NO_COLOR");

    atomic_store_explicit(&log_threshold, (int)level, memory_order_relaxed);
    autofd_clear(&writer.syslog_fd);
    writer.pid = getpid();
    writer.colour =
        isatty(STDERR_FILENO) == 1 && (no_colour == NULL || no_colour[0] == '\0');
    writer.sink = open_stderr();
    if (!use_syslog) {
        return;
    }
    writer.syslog_fd = open_syslog();
    if (writer.syslog_fd < 0) {
        log_warn("--syslog: nobody listens on " SYSLOG_PATH
                 " (error %d): logging to stderr",
                 errno);
        return;
    }
    writer.sink = SINK_SYSLOG;
}

int log_descriptor(void)
{
    return writer.syslog_fd;
}
