/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line: what each launcher passes, what is refused and how, and that the
 * table is sound.
 */
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/child.h"
#include "tests/unit/command-line.h"
#include "virtiofsd/options-table.h"
#include "virtiofsd/options.h"

#define SECOND UINT64_C(1000000000)

static int find_fd(const char *line)
{
    g_auto(GStrv) argv = split(line);

    return options_find_fd((int)g_strv_length(argv), argv);
}

/* ---- the launchers ---------------------------------------------------------------- */

/* Kata's Go runtime: the parent listens, descriptor 3. */
static void test_kata_go(void)
{
    static const char line[] =
        "--syslog --cache=auto"
        " --shared-dir=/run/kata-containers/shared/sandboxes/0123abcd/shared --fd=3"
        " --thread-pool-size=1 --announce-submounts";
    g_autoptr(Options) options = parse(line);

    g_assert_cmpint(find_fd(line), ==, 3);
    g_assert_cmpint(options->action, ==, OPTIONS_SERVE);
    g_assert_true(options->use_syslog);
    g_assert_cmpint(options->fs.cache, ==, PT_CACHE_AUTO);
    g_assert_cmpint(options->session.cache, ==, PT_CACHE_AUTO);
    g_assert_cmpstr(options->sandbox.shared_dir, ==,
                    "/run/kata-containers/shared/sandboxes/0123abcd/shared");
    g_assert_cmpint(options->socket.fd, ==, 3);
    g_assert_null(options->socket.path);
    g_assert_cmpuint(options->thread_pool_size, ==, 1);
    g_assert_true(options->fs.announce_submounts);
    g_assert_true(options->session.announce_submounts);
    g_assert_cmpuint(options->warnings->len, ==, 0);
}

/* Kata's runtime-rs: values as arguments of their own, a relative socket, and -o. */
static void test_kata_rs(void)
{
    static const char line[] =
        "--socket-path virtiofsd.sock --shared-dir"
        " /run/kata-containers/shared/sandboxes/0123abcd/ro --cache auto"
        " --thread-pool-size=1 -o announce_submounts";
    g_autoptr(Options) options = parse(line);

    g_assert_cmpint(find_fd(line), ==, -1);
    g_assert_cmpint(options->action, ==, OPTIONS_SERVE);
    g_assert_false(options->use_syslog);
    g_assert_cmpstr(options->socket.path, ==, "virtiofsd.sock");
    g_assert_cmpint(options->socket.fd, ==, -1);
    g_assert_cmpstr(options->sandbox.shared_dir, ==,
                    "/run/kata-containers/shared/sandboxes/0123abcd/ro");
    g_assert_cmpint(options->fs.cache, ==, PT_CACHE_AUTO);
    g_assert_cmpuint(options->thread_pool_size, ==, 1);
    g_assert_true(options->fs.announce_submounts);
    g_assert_cmpuint(options->warnings->len, ==, 1);
}

static void test_defaults(void)
{
    g_autoptr(Options) options = parse("--shared-dir=/srv --socket-path=/run/s");

    g_assert_cmpint(options->log_level, ==, LOG_LEVEL_INFO);
    g_assert_cmpint(options->sandbox.mode, ==, SANDBOX_NAMESPACE);
    g_assert_cmpint(options->sandbox.seccomp, ==, SANDBOX_SECCOMP_KILL);
    g_assert_null(options->sandbox.modcaps);
    g_assert_cmpuint(options->sandbox.rlimit_nofile, ==, UINT64_MAX);
    g_assert_null(options->tag);
    g_assert_null(options->socket.group);
    g_assert_cmpuint(options->n_request_queues, >=, 1);
    g_assert_cmpuint(options->n_request_queues, <=, 8);
    g_assert_cmpuint(options->poll_us, ==, 0);
    g_assert_true(options->session.readdirplus);
    g_assert_false(options->session.writeback);
    g_assert_false(options->session.killpriv_v2);
    g_assert_false(options->session.allow_mmap);
    g_assert_false(options->session.readonly);
    g_assert_false(options->fs.allow_direct_io);
    g_assert_false(options->sandbox.no_landlock);
    g_assert_false(options->fs.preserve_noatime);
    g_assert_true(options->session.announce_submounts);
}

static void test_flags(void)
{
    g_autoptr(Options) options = parse(
        SERVE "--readonly --no-announce-submounts --no-readdirplus --writeback"
              " --allow-direct-io --allow-mmap --preserve-noatime --killpriv-v2 --syslog"
              " --no-landlock");

    g_assert_true(options->session.readonly);
    g_assert_true(options->sandbox.no_landlock);
    g_assert_false(options->session.announce_submounts);
    g_assert_false(options->fs.announce_submounts);
    g_assert_false(options->session.readdirplus);
    g_assert_true(options->session.writeback);
    g_assert_true(options->fs.allow_direct_io);
    g_assert_true(options->session.allow_mmap);
    g_assert_true(options->fs.preserve_noatime);
    g_assert_true(options->session.killpriv_v2);
    g_assert_true(options->use_syslog);
}

/* The last one wins, whatever the spelling. */
static void test_last_wins(void)
{
    g_autoptr(Options) options = parse(
        SERVE "--cache=always --fd 7 -o cache=none --cache=METADATA --tag=a --tag b"
              " --announce-submounts --no-announce-submounts --killpriv-v2"
              " --no-killpriv-v2 --log-level=off -d --log-level=warn --writeback"
              " -o no_writeback --no-readdirplus -o readdirplus --modcaps=+sys_admin"
              " --modcaps=-mknod --rlimit-nofile=5 --rlimit-nofile=0 --seccomp=none"
              " --seccomp=trap");

    g_assert_cmpint(options->socket.fd, ==, 7);
    g_assert_cmpint(options->fs.cache, ==, PT_CACHE_METADATA);
    g_assert_cmpstr(options->tag, ==, "b");
    g_assert_false(options->fs.announce_submounts);
    g_assert_false(options->session.killpriv_v2);
    g_assert_cmpint(options->log_level, ==, LOG_LEVEL_WARN);
    g_assert_false(options->session.writeback);
    g_assert_true(options->session.readdirplus);
    g_assert_cmpstr(options->sandbox.modcaps, ==, "-mknod");
    g_assert_cmpuint(options->sandbox.rlimit_nofile, ==, 0);
    g_assert_cmpint(options->sandbox.seccomp, ==, SANDBOX_SECCOMP_TRAP);
}

/* ---- values ----------------------------------------------------------------------- */

static void assert_timeouts(const char *line, uint64_t attr, uint64_t entry,
                            uint64_t negative)
{
    g_autofree char *whole = g_strconcat(SERVE, line, NULL);
    g_autoptr(Options) options = parse(whole);

    g_assert_cmpuint(options->session.attr_timeout_ns, ==, attr);
    g_assert_cmpuint(options->session.entry_timeout_ns, ==, entry);
    g_assert_cmpuint(options->session.negative_timeout_ns, ==, negative);
}

static void test_timeouts(void)
{
    assert_timeouts("--cache=never", 0, 0, 0);
    assert_timeouts("--cache=auto", SECOND, SECOND, 0);
    assert_timeouts("--cache=always", 86400 * SECOND, 86400 * SECOND, SECOND);
    assert_timeouts("--cache=metadata", 86400 * SECOND, 86400 * SECOND, SECOND);
    assert_timeouts("--attr-timeout=2", 2 * SECOND, SECOND, 0);
    assert_timeouts("--entry-timeout=0.5 --cache=always", 86400 * SECOND, SECOND / 2,
                    SECOND);
    assert_timeouts("--negative-timeout 1.000000001", SECOND, SECOND, SECOND + 1);
    assert_timeouts("-o timeout=3.25", 13 * SECOND / 4, 13 * SECOND / 4, 0);
    assert_timeouts("-o timeout=3 --attr-timeout=0", 0, 3 * SECOND, 0);
    assert_timeouts("--attr-timeout=4294967295", 4294967295 * SECOND, SECOND, 0);

    g_autoptr(Options) never = parse(SERVE "--cache=Never");
    g_assert_false(never->session.readdirplus);
}

static void test_numbers(void)
{
    g_autoptr(Options) options =
        parse(SERVE "--thread-pool-size=1024 --num-request-queues=255 --poll-us=1000"
                    " --rlimit-nofile=2147483647");

    g_assert_cmpuint(options->thread_pool_size, ==, 1024);
    g_assert_cmpuint(options->n_request_queues, ==, 255);
    g_assert_cmpuint(options->poll_us, ==, 1000);
    g_assert_cmpuint(options->sandbox.rlimit_nofile, ==, 2147483647);

    static const char *const wrong[] = {
        "--thread-pool-size=1025",
        "--thread-pool-size=x",
        "--thread-pool-size=0x10",
        "--thread-pool-size=\t1",
        "--thread-pool-size=+1",
        "--thread-pool-size=1K",
        "--num-request-queues=0",
        "--num-request-queues=256",
        "--poll-us=1001",
        "--poll-us=1.5",
        "--rlimit-nofile=2147483648",
        "--rlimit-nofile=-1",
        "--fd=-1",
        "--fd=2147483648",
        "--fd=18446744073709551619",
    };
    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_autofree char *line = g_strconcat(SERVE, wrong[i], NULL);
        assert_refused(line, "must be a whole number from ");
    }
    static const char *const no_seconds[] = {
        "--attr-timeout=-1",           "--attr-timeout=1e3",
        "--entry-timeout=.5",          "--entry-timeout=1.",
        "--negative-timeout=inf",      "--negative-timeout=1,5",
        "--attr-timeout=1.1.1",        "--attr-timeout=4294967296",
        "--attr-timeout=0.0000000001", "-o timeout=x",
        "--attr-timeout=1.-1",
    };
    for (size_t i = 0; i < G_N_ELEMENTS(no_seconds); i++) {
        g_autofree char *line = g_strconcat(SERVE, no_seconds[i], NULL);
        assert_refused(line, "must be seconds from 0");
    }
    static const char *const no_size[] = {
        "1M", "3M", "1G", "513M", "2m2", "M", "0x200000", "99999999999999999999G", "-2M",
    };
    for (size_t i = 0; i < G_N_ELEMENTS(no_size); i++) {
        g_autofree char *line = g_strconcat(SERVE "--dax-window=", no_size[i], NULL);
        assert_refused(line, "must be 0 or a power of two");
    }
}

static void test_words(void)
{
    static const struct {
        const char *word;
        LogLevel level;
    } levels[] = {
        {"error", LOG_LEVEL_ERROR}, {"warn", LOG_LEVEL_WARN},   {"info", LOG_LEVEL_INFO},
        {"debug", LOG_LEVEL_DEBUG}, {"trace", LOG_LEVEL_TRACE}, {"off", LOG_LEVEL_OFF},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(levels); i++) {
        g_autofree char *line = g_strconcat(SERVE "--log-level=", levels[i].word, NULL);
        g_autoptr(Options) options = parse(line);
        g_assert_cmpint(options->log_level, ==, levels[i].level);
    }
    assert_refused(SERVE "--log-level=err",
                   "must be one of error, warn, info, debug, trace, off");
    assert_refused(SERVE "--log-level=3", "--log-level=3");
    assert_refused(SERVE "--cache=none", "must be one of auto, always, never, metadata");
    assert_refused(SERVE "--seccomp=errno", "must be one of kill, log, trap, none");
    assert_refused(SERVE "--sandbox=vm", "must be one of namespace, chroot, none");
}

static void test_tag(void)
{
    g_autoptr(Options) options =
        parse(SERVE "--tag=012345678901234567890123456789012345");
    g_autoptr(Options) one = parse(SERVE "--tag=k");

    g_assert_cmpuint(strlen(options->tag), ==, 36);
    g_assert_cmpstr(one->tag, ==, "k");
    assert_refused(SERVE "--tag=0123456789012345678901234567890123456", "1 to 36 bytes");
    assert_refused(SERVE "--tag=\xff", "--tag=\\xff: must be 1 to 36 bytes");
    assert_refused(SERVE "--tag=", "--tag: needs a value: --tag=TAG");
}

/* ---- conflicts -------------------------------------------------------------------- */

/* Whoever can append arguments gets neither another directory nor out of the sandbox. */
static void test_appended(void)
{
    g_autoptr(Options) same =
        parse("--shared-dir /srv --fd=3 -o source=/srv --shared-dir=/srv");
    g_autoptr(Options) locked = parse(SERVE "--sandbox=none --sandbox=namespace");
    g_autoptr(Options) open = parse(SERVE "--sandbox=none --sandbox=none");
    g_autoptr(Options) other = parse(SERVE "--sandbox=NAMESPACE -o sandbox=chroot");

    g_assert_cmpstr(same->sandbox.shared_dir, ==, "/srv");
    g_assert_cmpint(locked->sandbox.mode, ==, SANDBOX_NAMESPACE);
    g_assert_cmpint(open->sandbox.mode, ==, SANDBOX_NONE);
    g_assert_cmpint(other->sandbox.mode, ==, SANDBOX_CHROOT);

    assert_refused(SERVE "--shared-dir=/", "--shared-dir=/: the directory to share");
    assert_refused(SERVE "-o source=/", "-o source=/: the directory to share");
    assert_refused("-o source=/srv --fd=3 -o xx,source=/", "-o xx: no such option");
    assert_refused("-o source=/srv,source=/ --fd=3", "-o source=/: the directory");
    assert_refused(SERVE "--sandbox=namespace --sandbox=none", "refused after another");
    assert_refused(SERVE "--sandbox=chroot --sandbox none", "refused after another");
    assert_refused(SERVE "-o sandbox=chroot --sandbox=none", "refused after another");
    assert_refused(SERVE "--sandbox=none --sandbox=chroot --sandbox=none",
                   "refused after another");
    assert_refused(SERVE "-o sandbox=none", "must be one of namespace, chroot");
}

static void test_sockets(void)
{
    g_autoptr(Options) old = parse("--shared-dir=/srv --socket=/run/a");
    g_autoptr(Options) both =
        parse("--shared-dir=/srv --socket-path=/run/b --socket=/run/a");
    g_autoptr(Options) group =
        parse("--shared-dir=/srv --socket-path=/run/b --socket-group=kvm");

    g_assert_cmpstr(old->socket.path, ==, "/run/a");
    g_assert_cmpuint(old->warnings->len, ==, 1);
    g_assert_cmpstr(both->socket.path, ==, "/run/b");
    g_assert_cmpstr(group->socket.group, ==, "kvm");

    assert_refused(SERVE "--socket-path=/run/s", "--fd and --socket-path exclude");
    assert_refused(SERVE "--socket=/run/s", "--fd and --socket-path exclude");
    assert_refused(SERVE "--socket-group=kvm", "--fd and --socket-group exclude");
    assert_refused("--shared-dir=/srv", "give --socket-path=PATH or --fd=N");
    assert_refused("--fd=3", "give --shared-dir=DIR");
    assert_refused("--readonly", "give --shared-dir=DIR");
    assert_refused("--print-capabilities --socket-group=kvm", "exclude each other");
}

/* ---- wrong command lines ---------------------------------------------------------- */

static void test_wrong(void)
{
    static const struct {
        const char *line;
        const char *words;
    } wrong[] = {
        {"", "give --shared-dir=DIR and --socket-path=PATH"},
        {"--bogus", "--bogus: no such option: see virtiofsd --help"},
        {"--", "--: not an option"},
        {"-", "-: not an option"},
        {SERVE "/srv", "/srv: not an option"},
        {SERVE "--cach=auto", "did you mean --cache?"},
        {SERVE "--shared", "did you mean --shared-dir?"},
        {SERVE "--socket_path=/s", "did you mean --socket-path?"},
        {SERVE "--CACHE=auto", "did you mean --cache?"},
        {SERVE "--=x", "--: no such option"},
        {SERVE "-x", "-x: no such option"},
        {SERVE "-fx", "-x: no such option"},
        {SERVE "-f=1", "-=: no such option"},
        {SERVE "--cache", "--cache: needs a value: --cache=MODE"},
        {SERVE "--cache=", "--cache: needs a value: --cache=MODE"},
        {SERVE "--cache --readonly", "--cache: needs a value"},
        {SERVE "--modcaps -mknod", "--modcaps: needs a value: --modcaps=LIST"},
        {SERVE "--modcaps=+nosuch", "--modcaps=+nosuch: "},
        {SERVE "--readonly=yes", "--readonly=yes: takes no value"},
        {SERVE "--inode-file-handles never", "needs a value: --inode-file-handles=MODE"},
        {SERVE "--posix-acl never", "never: not an option"},
        {SERVE "--posix-acl=sometimes", "must be one of never, auto, always"},
        {SERVE "--xattr=yes", "--xattr=yes: takes no value"},
        {SERVE "--xattrmap", "--xattrmap: needs a value: --xattrmap=RULES"},
        {SERVE "--xattrmap=:ok:all:x:", "--xattrmap=:ok:all:x:: rule 1, character 11: "},
        {SERVE "-o xattrmap=:ok:al:::", "-o xattrmap=:ok:al:::: rule 1, character 5: "},
        {SERVE "--posix-acl --xattrmap=:map::user.v.:",
         "--posix-acl=always and --xattrmap: the map must leave"},
        {SERVE "-o", "-o: needs a value: -o LIST"},
        {SERVE "-o=", "-o: needs a value"},
        {SERVE "--bad\nline", "--bad\\x0aline: no such option"},
        {SERVE "--cache=\x1b[31m\xc3\xa4", "--cache=\\x1b[31m\\xc3\\xa4: must be"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
        assert_refused(wrong[i].line, wrong[i].words);
    }
    g_autofree char *endless = g_strnfill(100000, 'x');
    g_autofree char *name = g_strconcat(SERVE "--", endless, NULL);
    g_autofree char *value = g_strconcat(SERVE "--cache=", endless, NULL);
    assert_refused(name, "xxx...: no such option");
    assert_refused(value, "xxx...: must be one of");
}

/* {arguments, xattr, posix_acl, security_label, a map}. */
static const struct {
    const char *line;
    bool xattr;
    SessionMode posix_acl;
    SessionMode security_label;
    bool map;
} attributes[] = {
    {SERVE "--readonly", false, SESSION_NEVER, SESSION_NEVER, false},
    {SERVE "--xattr", true, SESSION_NEVER, SESSION_NEVER, false},
    {SERVE "-o xattr", true, SESSION_NEVER, SESSION_NEVER, false},
    {SERVE "--xattr -o no_xattr", false, SESSION_NEVER, SESSION_NEVER, false},
    {SERVE "--posix-acl", true, SESSION_ALWAYS, SESSION_NEVER, false},
    {SERVE "--posix-acl=auto", true, SESSION_AUTO, SESSION_NEVER, false},
    {SERVE "--posix-acl=NEVER --security-label=never", false, SESSION_NEVER,
     SESSION_NEVER, false},
    {SERVE "-o posix_acl", true, SESSION_ALWAYS, SESSION_NEVER, false},
    {SERVE "--posix-acl -o no_posix_acl", false, SESSION_NEVER, SESSION_NEVER, false},
    {SERVE "--security-label", true, SESSION_NEVER, SESSION_ALWAYS, false},
    {SERVE "--security-label=auto -o no_xattr", true, SESSION_NEVER, SESSION_AUTO, false},
    {SERVE "-o security_label", true, SESSION_NEVER, SESSION_ALWAYS, false},
    {SERVE "-o security_label,no_security_label", false, SESSION_NEVER, SESSION_NEVER,
     false},
    {SERVE "--xattrmap=:map::user.v.:", true, SESSION_NEVER, SESSION_NEVER, true},
    {SERVE "-o xattrmap=:map::user.v.:", true, SESSION_NEVER, SESSION_NEVER, true},
    {SERVE "--xattrmap=:ok:all::: --xattrmap=:bad:all:::", true, SESSION_NEVER,
     SESSION_NEVER, true},
    {SERVE "--xattrmap=:map:trusted.:user.v.: --posix-acl", true, SESSION_ALWAYS,
     SESSION_NEVER, true},
    /* Not those that the host would not heed. */
    {SERVE "--xattrmap=:map::user.v.: --posix-acl=auto", true, SESSION_NEVER,
     SESSION_NEVER, true},
    {SERVE "--xattrmap=:bad:all:system.::/ok/all/// --posix-acl=auto", true,
     SESSION_NEVER, SESSION_NEVER, true},
};

static void test_attributes(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(attributes); i++) {
        g_autoptr(Options) options = parse(attributes[i].line);
        g_assert_nonnull(options);
        const SessionConfig *session = &options->session;
        g_assert_cmpint(session->xattr, ==, attributes[i].xattr);
        g_assert_cmpint(session->posix_acl, ==, attributes[i].posix_acl);
        g_assert_cmpint(session->security_label, ==, attributes[i].security_label);
        g_assert_cmpint(options->fs.xattr_map != NULL, ==, attributes[i].map);
        g_assert_true(options->fs.xattr_map == options->xattr_map);
    }
}

/* What this version cannot do is refused by name, and its harmless values are not. */
static void test_later(void)
{
    static const char *const words[] = {
        "--migration-mode=find-paths",
        "--migration-mode=file-handles",
        "--migration-on-error=abort",
    };

    for (size_t i = 0; i < options_n_rows; i++) {
        const OptionsRow *row = &options_rows[i];
        if (row->set == options_set_later) {
            g_autofree char *line = g_strdup_printf(SERVE "--%s%s", row->name,
                                                    row->metavar != NULL ? "=x" : "");
            assert_refused(line, "not in this version: leave the option out");
        }
    }
    for (size_t i = 0; i < G_N_ELEMENTS(words); i++) {
        g_autofree char *line = g_strconcat(SERVE, words[i], NULL);
        assert_refused(line, "not in this version: leave the option out");
    }
    g_autoptr(Options) harmless =
        parse(SERVE "--inode-file-handles=never --dax=never --dax-window=0 --no-landlock"
                    " -o no_posix_lock,no_flock");
    g_assert_nonnull(harmless);
    assert_refused(SERVE "--migration-mode=x", "must be one of find-paths, file-handles");
}

static void test_file_handles(void)
{
    static const struct {
        const char *words;
        PtInodeHandles handles;
    } cases[] = {
        {"--cache=auto", PT_INODE_HANDLES_NEVER},
        {"--inode-file-handles=never", PT_INODE_HANDLES_NEVER},
        {"--inode-file-handles=Prefer", PT_INODE_HANDLES_PREFER},
        {"--inode-file-handles=fallback", PT_INODE_HANDLES_PREFER},
        {"--inode-file-handles=mandatory", PT_INODE_HANDLES_MANDATORY},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *line = g_strconcat(SERVE, cases[i].words, NULL);
        g_autoptr(Options) options = parse(line);
        g_assert_cmpint(options->fs.inode_handles, ==, cases[i].handles);
        g_assert_cmpint(options->sandbox.file_handles, ==,
                        cases[i].handles != PT_INODE_HANDLES_NEVER);
        g_assert_cmpuint(options->warnings->len, ==,
                         strstr(line, "fallback") != NULL ? 1 : 0);
    }
    assert_refused(SERVE "--inode-file-handles=x", "must be one of never, prefer");
}

/* ---- -o --------------------------------------------------------------------------- */

static void test_legacy(void)
{
    g_autoptr(Options) options = parse(
        "--fd=3 -o source=/a\\,b,cache=always,log_level=err,sandbox=chroot -owriteback"
        " -o=allow_direct_io,modcaps=-mknod,no_readdirplus,killpriv_v2"
        " -o "
        "no_flock,no_posix_lock,allow_root,max_idle_threads=10,no_announce_submounts");

    g_assert_cmpstr(options->sandbox.shared_dir, ==, "/a,b");
    g_assert_cmpint(options->fs.cache, ==, PT_CACHE_ALWAYS);
    g_assert_cmpint(options->log_level, ==, LOG_LEVEL_ERROR);
    g_assert_cmpint(options->sandbox.mode, ==, SANDBOX_CHROOT);
    g_assert_true(options->session.writeback);
    g_assert_true(options->fs.allow_direct_io);
    g_assert_cmpstr(options->sandbox.modcaps, ==, "-mknod");
    g_assert_false(options->session.readdirplus);
    g_assert_true(options->session.killpriv_v2);
    g_assert_false(options->fs.announce_submounts);
    /* However often it is used, -o is one line. */
    g_assert_cmpuint(options->warnings->len, ==, 1);

    g_autoptr(Options) none =
        parse(SERVE "-o cache=none,no_killpriv_v2,no_allow_direct_io");
    g_assert_cmpint(none->fs.cache, ==, PT_CACHE_NEVER);
    g_autoptr(Options) debug = parse(SERVE "-o debug");
    g_assert_cmpint(debug->log_level, ==, LOG_LEVEL_DEBUG);
    g_autoptr(Options) level = parse(SERVE "-o loglevel=warn");
    g_assert_cmpint(level->log_level, ==, LOG_LEVEL_WARN);
    g_autoptr(Options) letters = parse(SERVE "-dfocache=always");
    g_assert_cmpint(letters->log_level, ==, LOG_LEVEL_DEBUG);
    g_assert_cmpint(letters->fs.cache, ==, PT_CACHE_ALWAYS);
    g_assert_cmpuint(letters->warnings->len, ==, 3);
}

static void test_legacy_wrong(void)
{
    static const struct {
        const char *line;
        const char *words;
    } wrong[] = {
        {"-o nonsense", "-o nonsense: no such option: see virtiofsd(1)"},
        {"-o cache=sometimes", "-o cache=sometimes: must be one of auto, always, never"},
        {"-o cache", "-o cache: needs a value after ="},
        {"-o cache=", "-o cache: needs a value after ="},
        {"-o writeback=1", "-o writeback=1: no such option"},
        {"-o writeback,,no_flock", "-o: an entry of the list is empty"},
        {"-o ,", "-o: an entry of the list is empty"},
        {"-o writeback,--help", "-o --help: no such option"},
        {"-o log_level=loud", "-o log_level=loud: must be one of error, err, warn"},
        {"-o max_idle_threads=many", "must be a whole number"},
        {"-o vhost_user_socket=/s", "-o vhost_user_socket=/s: no such option"},
        {"-o modcaps=mknod", "-o modcaps=mknod: "},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_autofree char *line = g_strconcat(SERVE, wrong[i].line, NULL);
        assert_refused(line, wrong[i].words);
    }
}

static void test_warnings(void)
{
    g_autoptr(Options) options =
        parse("--shared-dir=/srv --socket=/s --socket=/s -d -d -f -f"
              " -o announce_submounts,cache=auto -o cache=auto,no_flock");
    GPtrArray *lines = options->warnings;

    g_assert_cmpuint(lines->len, ==, 4);
    g_assert_cmpstr(g_ptr_array_index(lines, 0), ==,
                    "--socket is deprecated: use --socket-path");
    g_assert_cmpstr(g_ptr_array_index(lines, 3), ==,
                    "-o is deprecated: use --announce-submounts --cache");
}

/* ---- actions and lists ------------------------------------------------------------ */

static OptionsAction action_of(const char *line)
{
    g_autoptr(Options) options = parse(line);

    return options->action;
}

static void test_actions(void)
{
    g_assert_cmpint(action_of("--help"), ==, OPTIONS_HELP);
    g_assert_cmpint(action_of("-h"), ==, OPTIONS_HELP);
    g_assert_cmpint(action_of("-fh --bogus"), ==, OPTIONS_HELP);
    g_assert_cmpint(action_of("--version --bogus"), ==, OPTIONS_VERSION);
    g_assert_cmpint(action_of("-V"), ==, OPTIONS_VERSION);
    g_assert_cmpint(action_of("--list-options"), ==, OPTIONS_LIST);
    g_assert_cmpint(action_of("--print-capabilities"), ==, OPTIONS_PRINT_CAPABILITIES);
    g_assert_cmpint(action_of("--print-capabilities --help"), ==, OPTIONS_HELP);
    assert_refused("--bogus --help", "--bogus");
}

static void test_find_fd(void)
{
    g_assert_cmpint(find_fd(""), ==, -1);
    g_assert_cmpint(find_fd("--fd=5"), ==, 5);
    g_assert_cmpint(find_fd("--shared-dir /x --fd 5"), ==, 5);
    g_assert_cmpint(find_fd("--fd=5 --fd 6"), ==, 6);
    g_assert_cmpint(find_fd("--fd"), ==, -1);
    g_assert_cmpint(find_fd("--fd="), ==, -1);
    g_assert_cmpint(find_fd("--fd=-5"), ==, -1);
    g_assert_cmpint(find_fd("--fd=5x"), ==, -1);
    g_assert_cmpint(find_fd("--fd=2147483648"), ==, -1);
    g_assert_cmpint(find_fd("--fds=5"), ==, -1);
}

/* What options_print() writes to stdout. */
static char *printed(OptionsAction action)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *path = NULL;
    char *text = NULL;
    int file = g_file_open_tmp(NULL, &path, &error);

    g_assert_no_error(error);
    fflush(stdout);
    int saved = dup(STDOUT_FILENO);
    g_assert_cmpint(dup2(file, STDOUT_FILENO), ==, STDOUT_FILENO);
    options_print(action);
    g_assert_cmpint(dup2(saved, STDOUT_FILENO), ==, STDOUT_FILENO);
    close(saved);
    close(file);
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_cmpint(unlink(path), ==, 0);
    return text;
}

static void test_print(void)
{
    g_autofree char *help = printed(OPTIONS_HELP);
    g_autofree char *list = printed(OPTIONS_LIST);
    g_autofree char *version = printed(OPTIONS_VERSION);
    g_autofree char *capabilities = printed(OPTIONS_PRINT_CAPABILITIES);
    g_auto(GStrv) lines = g_strsplit(help, "\n", -1);

    g_assert_true(
        g_regex_match_simple("^virtiofsd [0-9]+\\.[0-9]+\\.[0-9]+\n$", version, 0, 0));
    g_assert_cmpstr(capabilities, ==,
                    "{\n  \"type\": \"fs\",\n  \"features\": [\n"
                    "    \"posix-acl-negotiation-mode\",\n"
                    "    \"security-label-negotiation-mode\",\n"
                    "    \"separate-options\"\n  ]\n}\n");
    for (char **line = lines; *line != NULL; line++) {
        g_assert_cmpuint(strlen(*line), <=, 80);
    }
    for (size_t i = 0; i < options_n_rows; i++) {
        const OptionsRow *row = &options_rows[i];
        bool hidden = (row->flags & OPTIONS_HIDDEN) != 0;
        g_autofree char *name = row->name != NULL ? g_strdup_printf("--%s", row->name)
                                                  : g_strdup_printf("  -%c", row->letter);

        g_assert_cmpint(strstr(help, name) == NULL, ==, hidden);
        g_assert_cmpint(strstr(list, g_strchug(name)) == NULL, ==, hidden);
    }
    g_assert_nonnull(strstr(list, "\n--posix-acl[=MODE]\n"));
    g_assert_nonnull(strstr(list, "\n-h\n--help\n"));
    g_assert_nonnull(strstr(list, "\n-o source=DIR\n"));
}

static void test_translation(void)
{
    static const char *const beside[] = {" --posix-acl", " --posix-acl=auto",
                                         " -o posix_acl"};
    g_autoptr(Options) none = parse(SERVE "--posix-acl");
    g_assert_null(none->fs.uids);
    g_assert_null(none->fs.gids);
    g_autoptr(Options) some = parse(SERVE "--translate-uid map:0:100000:65536"
                                          " --translate-uid=forbid-guest:70000:5"
                                          " --posix-acl=never");
    g_assert_nonnull(some->fs.uids);
    g_assert_null(some->fs.gids);
    for (size_t i = 0; i < G_N_ELEMENTS(beside); i++) {
        g_autofree char *line =
            g_strconcat(SERVE "--translate-gid=map:0:1:1", beside[i], NULL);
        assert_refused(line, "--posix-acl and --translate-uid or --translate-gid");
    }
    assert_refused(SERVE "--translate-uid", "needs a value: --translate-uid=RULE");
    assert_refused(SERVE "--translate-uid=map:0:x:1",
                   "--translate-uid=map:0:x:1: character 7: the host id must be");
    assert_refused(SERVE "--translate-gid=a\n", "character 1: the kind of rule must be");
    assert_refused(SERVE "--translate-gid=map:0:5:9 --translate-gid=guest:8:3:1",
                   "--translate-gid=guest:8:3:1: character 7: an earlier rule");
}

static void maps_of_a_user(const void *data)
{
    if (geteuid() == 0) {
        g_assert_cmpint(setresuid(1000, 1000, 1000), ==, 0);
    }
    g_autoptr(Options) none = parse(SERVE "--readonly");
    g_assert_null(none->sandbox.uid_map);
    g_assert_null(none->sandbox.gid_map);
    g_autoptr(Options) some = parse(SERVE "--uid-map :0:1000:1: --gid-map=/5/6/7/"
                                          " --uid-map=:1:100000:65536:");
    g_assert_cmpuint(some->sandbox.uid_map->n, ==, 2);
    g_assert_cmpuint(some->sandbox.uid_map->ranges[1].outside, ==, 100000);
    g_assert_cmpuint(some->sandbox.gid_map->n, ==, 1);
    g_assert_cmpuint(some->sandbox.gid_map->ranges[0].count, ==, 7);
    assert_refused(SERVE "--sandbox=none --uid-map=:0:1000:1:",
                   "--uid-map and --gid-map need --sandbox=namespace");
    assert_refused(SERVE "--gid-map=:0:1000:1: --sandbox=chroot",
                   "--uid-map and --gid-map need --sandbox=namespace");
}

static void test_maps(void)
{
    child_passes(maps_of_a_user, NULL);
    assert_refused(SERVE "--uid-map=:0:1:", "--uid-map=:0:1:: must be three numbers");
    assert_refused(SERVE "--gid-map=:0:1:0:", "--gid-map=:0:1:0:: the count");
    assert_refused(SERVE "--uid-map", "--uid-map: needs a value: --uid-map=MAP");
    assert_refused(SERVE "--uid-map=:0:0:5: --uid-map=:4:9:1:",
                   "--uid-map=:4:9:1:: overlaps :0:0:5: inside");
    if (geteuid() == 0) {
        assert_refused(SERVE "--uid-map=:0:1000:1:", "for ordinary users");
    }
}

/* No two rows of one name or letter; every row has what its kind needs. */
static void test_table(void)
{
    for (size_t i = 0; i < options_n_rows; i++) {
        const OptionsRow *row = &options_rows[i];

        g_assert_nonnull(row->set);
        g_assert_nonnull(row->help);
        g_assert_true(row->name != NULL || row->letter != '\0');
        g_assert_true(row->set != options_set_word || row->words != NULL);
        g_assert_true(row->bare == NULL || (row->flags & OPTIONS_EQUALS) != 0);
        if (row->name != NULL) {
            g_assert_true(options_find_row(row->name, strlen(row->name)) == row);
        }
        for (size_t j = 0; j < i; j++) {
            g_assert_true(row->letter == '\0' || options_rows[j].letter != row->letter);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/options/kata-go", test_kata_go);
    g_test_add_func("/options/kata-rs", test_kata_rs);
    g_test_add_func("/options/defaults", test_defaults);
    g_test_add_func("/options/flags", test_flags);
    g_test_add_func("/options/last-wins", test_last_wins);
    g_test_add_func("/options/timeouts", test_timeouts);
    g_test_add_func("/options/numbers", test_numbers);
    g_test_add_func("/options/words", test_words);
    g_test_add_func("/options/tag", test_tag);
    g_test_add_func("/options/appended", test_appended);
    g_test_add_func("/options/sockets", test_sockets);
    g_test_add_func("/options/wrong", test_wrong);
    g_test_add_func("/options/attributes", test_attributes);
    g_test_add_func("/options/later", test_later);
    g_test_add_func("/options/file-handles", test_file_handles);
    g_test_add_func("/options/maps", test_maps);
    g_test_add_func("/options/translation", test_translation);
    g_test_add_func("/options/legacy", test_legacy);
    g_test_add_func("/options/legacy-wrong", test_legacy_wrong);
    g_test_add_func("/options/warnings", test_warnings);
    g_test_add_func("/options/actions", test_actions);
    g_test_add_func("/options/find-fd", test_find_fd);
    g_test_add_func("/options/print", test_print);
    g_test_add_func("/options/table", test_table);
    return g_test_run();
}
