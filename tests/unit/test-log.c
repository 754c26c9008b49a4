/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log writer: one printable line a write, never waiting, never forged, never a flood.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "tests/unit/child.h"
#include "virtiofsd/log.h"

#define READY "Waiting for vhost-user socket connection"
#define LINE_MOST 1024
#define SKIPPED 77

/* A place for stderr while a test looks at it. */
typedef struct Capture {
    int saved;
    int read_end;
} Capture;

/* Gives stderr the write end, which is closed here, and opens the log on it. */
static Capture capture_begin(int read_end, int write_end, LogLevel level)
{
    Capture capture = {.saved = dup(STDERR_FILENO), .read_end = read_end};

    g_assert_cmpint(capture.saved, >=, 0);
    g_assert_cmpint(dup2(write_end, STDERR_FILENO), ==, STDERR_FILENO);
    close(write_end);
    log_open(level, false);
    return capture;
}

static Capture capture_pipe(LogLevel level)
{
    int ends[2];

    g_assert_cmpint(pipe2(ends, O_CLOEXEC), ==, 0);
    g_assert_cmpint(fcntl(ends[0], F_SETFL, O_NONBLOCK), ==, 0);
    return capture_begin(ends[0], ends[1], level);
}

/* A socket keeps each write apart. */
static Capture capture_packets(LogLevel level)
{
    int ends[2];

    g_assert_cmpint(
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), ==,
        0);
    return capture_begin(ends[0], ends[1], level);
}

static void capture_end(Capture *capture)
{
    g_assert_cmpint(dup2(capture->saved, STDERR_FILENO), ==, STDERR_FILENO);
    close(capture->saved);
    close(capture->read_end);
}

/* What has been written since, all of it, or "". */
static char *drain(const Capture *capture)
{
    GString *text = g_string_new(NULL);
    char bytes[4096];
    ssize_t got;

    while ((got = read(capture->read_end, bytes, sizeof(bytes))) > 0) {
        g_string_append_len(text, bytes, got);
    }
    return g_string_free(text, FALSE);
}

static guint count_lines(const char *text)
{
    guint count = 0;

    for (; *text != '\0'; text++) {
        count += *text == '\n';
    }
    return count;
}

static void assert_printable(const char *text)
{
    for (; *text != '\0'; text++) {
        g_assert_true(*text == '\n' || (*text >= 0x20 && *text < 0x7f));
    }
}

/* ---- lines ------------------------------------------------------------------------ */

static void test_levels(void)
{
    Capture capture = capture_pipe(LOG_LEVEL_WARN);

    log_error("one %d", 1);
    log_warn("two %s", "words");
    log_info("three");
    log_debug("four");
    log_trace("five");
    g_assert_true(log_enabled(LOG_LEVEL_WARN));
    g_assert_false(log_enabled(LOG_LEVEL_INFO));
    g_autofree char *text = drain(&capture);
    /* Another threshold. */
    log_open(LOG_LEVEL_TRACE, false);
    log_info("three");
    log_debug("four");
    log_trace("five");
    g_autofree char *all = drain(&capture);
    log_open(LOG_LEVEL_OFF, false);
    log_error("nothing");
    log_write(LOG_LEVEL_ERROR, "last words");
    g_autofree char *off = drain(&capture);
    capture_end(&capture);

    g_assert_cmpstr(text, ==, "virtiofsd: error: one 1\nvirtiofsd: warning: two words\n");
    g_assert_cmpstr(all, ==,
                    "virtiofsd: info: three\nvirtiofsd: debug: four\n"
                    "virtiofsd: trace: five\n");
    g_assert_cmpstr(off, ==, "virtiofsd: error: last words\n");
    g_assert_cmpint(log_descriptor(), ==, -1);
}

/* Each line is one write; errno is the caller's. */
static void test_one_write(void)
{
    Capture capture = capture_packets(LOG_LEVEL_INFO);
    char bytes[4096];

    errno = ENOTDIR;
    log_info("first");
    g_assert_cmpint(errno, ==, ENOTDIR);
    log_info("second");
    g_assert_cmpint(read(capture.read_end, bytes, sizeof(bytes)), ==, 23);
    g_assert_cmpint(memcmp(bytes, "virtiofsd: info: first\n", 23), ==, 0);
    g_assert_cmpint(read(capture.read_end, bytes, sizeof(bytes)), ==, 24);
    g_assert_cmpint(read(capture.read_end, bytes, sizeof(bytes)), ==, -1);
    capture_end(&capture);
}

static void test_unprintable(void)
{
    Capture capture = capture_pipe(LOG_LEVEL_INFO);

    log_info("%s", "a\nvirtiofsd: error: forged\r\x1b[31m\x7f\x80\xff\xc3\xa4\t\\x41");
    g_autofree char *text = drain(&capture);
    capture_end(&capture);

    g_assert_cmpstr(text, ==,
                    "virtiofsd: info: a\\x0avirtiofsd: error: forged\\x0d\\x1b[31m"
                    "\\x7f\\x80\\xff\\xc3\\xa4\\x09\\x41\n");
}

static void test_long(void)
{
    Capture capture = capture_packets(LOG_LEVEL_INFO);
    char bytes[4096];

    /* Every length around the line's, of plain and of escaped bytes. */
    for (size_t length = 200; length < 1100; length++) {
        g_autofree char *plain = g_strnfill(length, 'x');
        g_autofree char *control = g_strnfill(length, '\n');

        log_info("%s", plain);
        ssize_t got = read(capture.read_end, bytes, sizeof(bytes));
        g_assert_cmpint(got, ==, (ssize_t)MIN(17 + length + 1, LINE_MOST));
        bytes[got] = '\0';
        assert_printable(bytes);
        g_assert_cmpint(g_str_has_suffix(bytes, "x...\n"), ==, length > LINE_MOST - 18);
        log_info("%s", control);
        got = read(capture.read_end, bytes, sizeof(bytes));
        g_assert_cmpint(got, <=, LINE_MOST);
        bytes[got] = '\0';
        assert_printable(bytes);
        g_assert_true(g_str_has_suffix(bytes, length > 251 ? "\\x0a...\n" : "\\x0a\n"));
    }
    capture_end(&capture);
}

/* Nothing but log_ready() says the words, and log_ready() says them at every level. */
static void test_ready(void)
{
    Capture capture = capture_pipe(LOG_LEVEL_OFF);

    log_ready();
    g_autofree char *text = drain(&capture);
    g_assert_cmpstr(text, ==, "virtiofsd: info: " READY "\n");

    log_open(LOG_LEVEL_INFO, false);
    log_info(READY);
    log_info("a " READY READY " " READY "\n" READY);
    log_write(LOG_LEVEL_ERROR, "%s", READY);
    g_autofree char *long_tail = g_strnfill(900, 'y');
    log_info("%s" READY "%s", long_tail, READY);
    g_autofree char *forged = drain(&capture);
    capture_end(&capture);
    g_assert_cmpuint(count_lines(forged), ==, 4);
    g_assert_null(strstr(forged, READY));
    g_assert_nonnull(strstr(forged, "?aiting for vhost-user socket connection"));
}

/* ---- escaping --------------------------------------------------------------------- */

static void test_escape(void)
{
    char out[64];

    g_assert_cmpstr(log_escape(out, sizeof(out), "plain name", 10), ==, "plain name");
    g_assert_cmpstr(log_escape(out, sizeof(out), "", 0), ==, "");
    g_assert_cmpstr(log_escape(out, sizeof(out), "a\0b", 3), ==, "a\\x00b");
    g_assert_cmpstr(log_escape(out, sizeof(out), "\xff\n~ \x1f", 5), ==,
                    "\\xff\\x0a~ \\x1f");
    /* What looks like an escape is not one. */
    g_assert_cmpstr(log_escape(out, sizeof(out), "\\x0a", 4), ==, "\\x5cx0a");
    g_assert_cmpstr(log_escape(out, 4, "abc", 3), ==, "abc");
    g_assert_cmpstr(log_escape(out, 4, "abcd", 4), ==, "...");
    g_assert_cmpstr(log_escape(out, 5, "\n", 1), ==, "\\x0a");
    g_assert_cmpstr(log_escape(out, 4, "\n", 1), ==, "...");
    g_assert_cmpstr(log_escape(out, 8, "a\n\n", 3), ==, "a...");
    g_assert_cmpstr(log_escape(out, 9, "a\n\n", 3), ==, "a\\x0a...");
}

/* Every text of two kinds of bytes in every size: whole escapes, dots only when cut. */
static void test_escape_sizes(void)
{
    for (unsigned int pattern = 0; pattern < 256; pattern++) {
        char text[8];
        size_t whole = 0;

        for (size_t i = 0; i < sizeof(text); i++) {
            bool is_plain = (pattern >> i & 1) != 0;
            text[i] = is_plain ? 'p' : '\n';
            whole += is_plain ? 1 : 4;
        }
        for (size_t size = 4; size < 40; size++) {
            g_autofree char *out = g_malloc(size);
            log_escape(out, size, text, sizeof(text));
            size_t length = strlen(out);
            bool is_cut = g_str_has_suffix(out, "...");

            g_assert_cmpint(is_cut, ==, whole >= size);
            g_assert_true(is_cut || length == whole);
            const char *end = out + length - (is_cut ? 3 : 0);
            for (const char *at = out; at < end;) {
                bool is_plain = *at == 'p';
                g_assert_true(is_plain || strncmp(at, "\\x0a", 4) == 0);
                at += is_plain ? 1 : 4;
            }
        }
    }
}

/* ---- receivers that do not take it ------------------------------------------------ */

static guint lost_in(const char *text)
{
    guint count = 0;
    const char *told = strstr(text, "virtiofsd: warning: ");

    g_assert_nonnull(told);
    g_assert_cmpint(
        sscanf(told, "virtiofsd: warning: %u log lines were lost here", &count), ==, 1);
    return count;
}

static void test_full_pipe(void)
{
    int ends[2];
    guint written = 5000;

    g_assert_cmpint(pipe2(ends, O_CLOEXEC), ==, 0);
    g_assert_cmpint(fcntl(ends[0], F_SETFL, O_NONBLOCK), ==, 0);
    int parent = dup(ends[1]); /* the same open file, as a parent has it */
    Capture capture = capture_begin(ends[0], ends[1], LOG_LEVEL_INFO);

    alarm(20); /* a write that waits ends the test */
    for (guint i = 0; i < written; i++) {
        log_info("line %u of those that nobody reads", i);
    }
    alarm(0);
    g_assert_cmpint(fcntl(parent, F_GETFL) & O_NONBLOCK, ==, 0);
    g_autofree char *before = drain(&capture);
    log_info("after");
    g_autofree char *after = drain(&capture);
    log_info("and on");
    g_autofree char *on = drain(&capture);
    close(parent);
    capture_end(&capture);

    g_assert_cmpuint(count_lines(before), >, 0);
    g_assert_cmpuint(count_lines(before) + lost_in(after), ==, written);
    g_assert_true(g_str_has_suffix(after, "\nvirtiofsd: info: after\n"));
    g_assert_cmpuint(count_lines(after), ==, 2);
    g_assert_cmpstr(on, ==, "virtiofsd: info: and on\n");
}

/* Where the pipe cannot be opened anew, poll() asks. */
static void without_reopening(const void *data)
{
    int ends[2];

    (void)data;
    g_assert_cmpint(pipe2(ends, O_CLOEXEC), ==, 0);
    g_assert_cmpint(fcntl(ends[0], F_SETFL, O_NONBLOCK), ==, 0);
    int parent = dup(ends[1]);
    /* The pipe is root's alone. */
    g_assert_cmpint(fchmod(ends[1], 0), ==, 0);
    g_assert_cmpint(setresuid(65534, 65534, 65534), ==, 0);
    Capture capture = capture_begin(ends[0], ends[1], LOG_LEVEL_INFO);

    g_assert_cmpint(fcntl(STDERR_FILENO, F_GETFL) & O_NONBLOCK, ==, 0);
    alarm(20);
    for (guint i = 0; i < 5000; i++) {
        log_info("line %u of those that nobody reads", i);
    }
    g_autofree char *before = drain(&capture);
    log_info("after");
    g_autofree char *after = drain(&capture);
    g_assert_cmpuint(count_lines(before) + lost_in(after), ==, 5000);
    close(parent);
    capture_end(&capture);
}

static void test_full_pipe_poll(void)
{
    if (geteuid() != 0) {
        g_test_skip("needs root, to become somebody else");
        return;
    }
    child_passes(without_reopening, NULL);
}

static void test_reader_gone(void)
{
    Capture capture = capture_pipe(LOG_LEVEL_INFO);
    int ends[2];

    close(capture.read_end);
    log_info("to nobody");
    errno = ENOTDIR;
    log_info("to nobody");
    g_assert_cmpint(errno, ==, ENOTDIR);
    /* A new reader hears of it. */
    g_assert_cmpint(pipe2(ends, O_CLOEXEC | O_NONBLOCK), ==, 0);
    capture.read_end = ends[0];
    g_assert_cmpint(dup2(ends[1], STDERR_FILENO), ==, STDERR_FILENO);
    close(ends[1]);
    log_info("to somebody");
    g_autofree char *text = drain(&capture);
    capture_end(&capture);
    g_assert_cmpstr(text, ==,
                    "virtiofsd: warning: 2 log lines were lost here\n"
                    "virtiofsd: info: to somebody\n");
}

static void test_no_stderr(void)
{
    int saved = dup(STDERR_FILENO);

    close(STDERR_FILENO);
    log_open(LOG_LEVEL_INFO, false);
    log_info("nowhere");
    log_ready();
    g_assert_cmpint(dup2(saved, STDERR_FILENO), ==, STDERR_FILENO);
    close(saved);
    /* Tell the loss now, not in another test. */
    Capture capture = capture_pipe(LOG_LEVEL_INFO);
    log_info("here");
    g_autofree char *text = drain(&capture);
    capture_end(&capture);
    g_assert_cmpuint(lost_in(text), ==, 1);
}

/* ---- terminals -------------------------------------------------------------------- */

static Capture capture_terminal(void)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct termios modes;

    g_assert_cmpint(master, >=, 0);
    g_assert_cmpint(grantpt(master), ==, 0);
    g_assert_cmpint(unlockpt(master), ==, 0);
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    g_assert_cmpint(slave, >=, 0);
    g_assert_cmpint(tcgetattr(slave, &modes), ==, 0);
    cfmakeraw(&modes);
    g_assert_cmpint(tcsetattr(slave, TCSANOW, &modes), ==, 0);
    g_assert_cmpint(fcntl(master, F_SETFL, O_NONBLOCK), ==, 0);
    return capture_begin(master, slave, LOG_LEVEL_INFO);
}

static void test_colours(void)
{
    g_unsetenv("NO_COLOR");
    Capture capture = capture_terminal();
    log_error("red");
    g_autofree char *colour = drain(&capture);
    g_assert_true(g_setenv("NO_COLOR", "1", TRUE));
    log_open(LOG_LEVEL_INFO, false);
    log_error("plain");
    g_autofree char *plain = drain(&capture);
    g_unsetenv("NO_COLOR");
    /* A terminal that nobody reads fills up. */
    alarm(20);
    for (guint i = 0; i < 5000; i++) {
        log_info("line %u of those that nobody reads", i);
    }
    alarm(0);
    g_autofree char *full = drain(&capture);
    log_info("after");
    g_autofree char *after = drain(&capture);
    capture_end(&capture);

    g_assert_cmpstr(colour, ==, "virtiofsd: \033[31merror:\033[0m red\n");
    g_assert_cmpstr(plain, ==, "virtiofsd: error: plain\n");
    g_assert_cmpuint(count_lines(full), <, 5000);
    g_assert_nonnull(strstr(after, " log lines were lost here\n"));
}

/* ---- limits ----------------------------------------------------------------------- */

static void test_limit(void)
{
    Capture capture = capture_pipe(LOG_LEVEL_INFO);
    LogLimit limit = {0};

    for (int i = 0; i < 1000; i++) {
        log_write_limited(&limit, LOG_LEVEL_WARN, "again %d", i);
    }
    g_autofree char *first = drain(&capture);
    /* A second later. */
    atomic_fetch_sub(&limit.window_start_ns, INT64_C(1000000000));
    for (int i = 0; i < 1000; i++) {
        log_write_limited(&limit, LOG_LEVEL_WARN, "again %d", i);
    }
    g_autofree char *second = drain(&capture);
    log_write_limited(&limit, LOG_LEVEL_DEBUG, "not at this level");
    atomic_fetch_sub(&limit.window_start_ns, INT64_C(1000000000));
    log_write_limited(&limit, LOG_LEVEL_DEBUG, "not at this level");
    g_autofree char *none = drain(&capture);
    capture_end(&capture);

    g_assert_cmpuint(count_lines(first), ==, 5);
    g_assert_true(g_str_has_suffix(first, "virtiofsd: warning: again 4\n"));
    g_assert_true(g_str_has_prefix(second,
                                   "virtiofsd: warning: 995 lines like the next one were "
                                   "left out\nvirtiofsd: warning: again 0\n"));
    g_assert_cmpuint(count_lines(second), ==, 5);
    g_assert_cmpstr(none, ==, "");
}

typedef struct Flood {
    LogLimit limit;
    _Atomic uint32_t calls;
} Flood;

static void *flood(void *data)
{
    Flood *self = data;

    for (int i = 0; i < 20000; i++) {
        log_write_limited(&self->limit, LOG_LEVEL_WARN, "flood");
        atomic_fetch_add(&self->calls, 1);
    }
    return NULL;
}

static void test_limit_threads(void)
{
    Capture capture = capture_pipe(LOG_LEVEL_INFO);
    Flood self = {0};
    pthread_t threads[4];
    gint64 begin = g_get_monotonic_time();

    for (size_t i = 0; i < G_N_ELEMENTS(threads); i++) {
        g_assert_cmpint(pthread_create(&threads[i], NULL, flood, &self), ==, 0);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(threads); i++) {
        g_assert_cmpint(pthread_join(threads[i], NULL), ==, 0);
    }
    guint windows = (guint)((g_get_monotonic_time() - begin) / G_USEC_PER_SEC) + 2;
    g_autofree char *text = drain(&capture);
    capture_end(&capture);

    g_assert_cmpuint(self.calls, ==, 80000);
    g_assert_cmpuint(count_lines(text), >=, 5);
    /* Threads that meet a new window at once may each slip through. */
    g_assert_cmpuint(count_lines(text), <=, windows * (5 + 4));
    assert_printable(text);
}

/* ---- the system log --------------------------------------------------------------- */

/* A /dev/log of our own, in a mount namespace of our own. */
static int listen_at_dev_log(void)
{
    const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (unshare(CLONE_NEWNS) < 0 ||
        mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL) < 0 ||
        mount("none", "/dev", "tmpfs", 0, NULL) < 0) {
        _exit(SKIPPED);
    }
    g_assert_cmpint(bind(fd, (const struct sockaddr *)&address, sizeof(address)), ==, 0);
    return fd;
}

static char *receive(int fd)
{
    char bytes[4096];
    ssize_t got = recv(fd, bytes, sizeof(bytes), 0);

    return got < 0 ? g_strdup("") : g_strndup(bytes, (gsize)got);
}

static void use_syslog(const void *data)
{
    int fd = listen_at_dev_log();
    g_autofree char *wanted =
        g_strdup_printf("<12>virtiofsd[%d]: one\\x0aline", (int)getpid());
    g_autofree char *ready = g_strdup_printf("<14>virtiofsd[%d]: " READY, (int)getpid());

    (void)data;
    log_open(LOG_LEVEL_INFO, true);
    g_assert_cmpint(log_descriptor(), >=, 0);
    log_warn("one\nline");
    log_ready();
    g_autofree char *first = receive(fd);
    g_autofree char *second = receive(fd);
    g_assert_cmpstr(first, ==, wanted);
    g_assert_cmpstr(second, ==, ready);

    /* A receiver that sleeps costs lines, not time. */
    alarm(20);
    for (int i = 0; i < 5000; i++) {
        log_info("line %d", i);
    }
    guint received = 0;
    for (;;) {
        g_autofree char *line = receive(fd);
        if (line[0] == '\0') {
            break;
        }
        received++;
    }
    log_info("after");
    g_autofree char *told = receive(fd);
    g_autofree char *tail =
        g_strdup_printf(": %u log lines were lost here", 5000 - received);
    g_assert_cmpuint(received, <, 5000);
    g_assert_true(g_str_has_suffix(told, tail));

    /* One that is gone too. */
    close(fd);
    log_info("to nobody");
    log_ready();
}

static void without_syslog(const void *data)
{
    (void)data;
    close(listen_at_dev_log());
    Capture capture = capture_pipe(LOG_LEVEL_INFO);

    log_open(LOG_LEVEL_INFO, true);
    log_info("still here");
    g_autofree char *text = drain(&capture);
    capture_end(&capture);
    g_assert_cmpint(log_descriptor(), ==, -1);
    g_assert_true(g_str_has_prefix(text, "virtiofsd: warning: --syslog: "));
    g_assert_true(g_str_has_suffix(text, "\nvirtiofsd: info: still here\n"));
}

static void test_syslog(gconstpointer body)
{
    int status = child_run((ChildBody)body, NULL);

    if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED) {
        g_test_skip("needs a mount namespace");
        return;
    }
    g_assert_cmpint(status, ==, 0);
}

int main(int argc, char **argv)
{
    /* As sandbox_scrub() does. */
    (void)signal(SIGPIPE, SIG_IGN);
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/log/levels", test_levels);
    g_test_add_func("/log/one-write", test_one_write);
    g_test_add_func("/log/unprintable", test_unprintable);
    g_test_add_func("/log/long", test_long);
    g_test_add_func("/log/ready", test_ready);
    g_test_add_func("/log/escape", test_escape);
    g_test_add_func("/log/escape-sizes", test_escape_sizes);
    g_test_add_func("/log/full-pipe", test_full_pipe);
    g_test_add_func("/log/full-pipe-poll", test_full_pipe_poll);
    g_test_add_func("/log/reader-gone", test_reader_gone);
    g_test_add_func("/log/no-stderr", test_no_stderr);
    g_test_add_func("/log/colours", test_colours);
    g_test_add_func("/log/limit", test_limit);
    g_test_add_func("/log/limit-threads", test_limit_threads);
    g_test_add_data_func("/log/syslog", (gconstpointer)use_syslog, test_syslog);
    g_test_add_data_func("/log/no-syslog", (gconstpointer)without_syslog, test_syslog);
    return g_test_run();
}
