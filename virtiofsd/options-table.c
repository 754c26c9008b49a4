/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every option there is. The parser, --help, --list-options and through it the test of
 * the manual page read this table and nothing else: an option is added by adding a row
 * (and its paragraph in man/virtiofsd.1.rst, which the test then demands).
 *
 * An option whose feature is not in this version has its row all the same, with the flag
 * OPTIONS_LATER and a setter or words that refuse what cannot be done, so that no command
 * line is silently served with less than it asks for.
 */
#include "virtiofsd/options-table.h"

#include <limits.h>
#include <string.h>

#define AT(member) offsetof(Options, member)
#define STRING_(x) #x
#define STRING(x) STRING_(x)

/* How a row's value is taken: columns that always go together. */
#define FLAG(member, value)                                                              \
    .set = options_set_flag, .offset = AT(member), .constant = (value)
#define TEXT(member) .set = options_set_text, .offset = AT(member)
#define SECONDS(member)                                                                  \
    .metavar = "SECONDS", .set = options_set_seconds, .offset = AT(member),              \
    .standard = "by --cache"
#define NUMBER(member, least, most)                                                      \
    .metavar = "N", .set = options_set_number, .offset = AT(member), .min = (least),     \
    .max = (most)
#define WORD(member, list) .set = options_set_word, .offset = AT(member), .words = (list)
#define ACTION(action) .set = options_set_action, .constant = (action)
#define LATER .flags = OPTIONS_LATER, .set = options_set_later
/* A word of which only the harmless values can be had yet. */
#define LATER_WORD(list)                                                                 \
    .flags = OPTIONS_LATER, .set = options_set_word, .offset = SIZE_MAX, .words = (list)

const char *const options_group_titles[OPTIONS_N_GROUPS] = {
    [OPTIONS_GROUP_SHARE] = "Share and socket",
    [OPTIONS_GROUP_GUEST] = "What the guest may do",
    [OPTIONS_GROUP_CACHE] = "What the guest may cache",
    [OPTIONS_GROUP_SANDBOX] = "Isolation",
    [OPTIONS_GROUP_SPEED] = "Resources",
    [OPTIONS_GROUP_MIGRATION] = "Migration",
    [OPTIONS_GROUP_LOG] = "Logging",
    [OPTIONS_GROUP_OTHER] = "Other",
};

static const OptionsWord cache_words[] = {
    {"auto", PT_CACHE_AUTO, 0},
    {"always", PT_CACHE_ALWAYS, 0},
    {"never", PT_CACHE_NEVER, 0},
    {"none", PT_CACHE_NEVER, OPTIONS_WORD_ONLY_LEGACY},
    {"metadata", PT_CACHE_METADATA, 0},
    {NULL, 0, 0},
};

static const OptionsWord sandbox_words[] = {
    {"namespace", SANDBOX_NAMESPACE, 0},
    {"chroot", SANDBOX_CHROOT, 0},
    {"none", SANDBOX_NONE, OPTIONS_WORD_ONLY_LONG},
    {NULL, 0, 0},
};

static const OptionsWord seccomp_words[] = {
    {"kill", SANDBOX_SECCOMP_KILL, 0},
    {"log", SANDBOX_SECCOMP_LOG, 0},
    {"trap", SANDBOX_SECCOMP_TRAP, 0},
    {"none", SANDBOX_SECCOMP_NONE, 0},
    {NULL, 0, 0},
};

static const OptionsWord level_words[] = {
    {"error", LOG_LEVEL_ERROR, 0}, {"err", LOG_LEVEL_ERROR, OPTIONS_WORD_ONLY_LEGACY},
    {"warn", LOG_LEVEL_WARN, 0},   {"info", LOG_LEVEL_INFO, 0},
    {"debug", LOG_LEVEL_DEBUG, 0}, {"trace", LOG_LEVEL_TRACE, 0},
    {"off", LOG_LEVEL_OFF, 0},     {NULL, 0, 0},
};

/* --posix-acl and --security-label. */
static const OptionsWord negotiation_words[] = {
    {"never", SESSION_NEVER, 0},
    {"auto", SESSION_AUTO, 0},
    {"always", SESSION_ALWAYS, 0},
    {NULL, 0, 0},
};

static const OptionsWord handles_words[] = {
    {"never", PT_INODE_HANDLES_NEVER, 0},
    {"prefer", PT_INODE_HANDLES_PREFER, 0},
    {"fallback", PT_INODE_HANDLES_PREFER, 0},
    {"mandatory", PT_INODE_HANDLES_MANDATORY, 0},
    {NULL, 0, 0},
};

static const OptionsWord dax_words[] = {
    {"never", OPTIONS_DAX_NEVER, 0},
    {"inode", OPTIONS_DAX_INODE, 0},
    {NULL, 0, 0},
};

static const OptionsWord protocol_words[] = {
    {"standard", VU_WINDOW_STANDARD, 0},
    {"legacy", VU_WINDOW_LEGACY, 0},
    {"legacy-v3", VU_WINDOW_LEGACY_V3, 0},
    {NULL, 0, 0},
};

static const OptionsWord migration_modes[] = {
    {"find-paths", 0, OPTIONS_WORD_LATER},
    {"file-handles", 0, OPTIONS_WORD_LATER},
    {NULL, 0, 0},
};

static const OptionsWord migration_errors[] = {
    {"abort", 0, OPTIONS_WORD_LATER},
    {"guest-error", 0, OPTIONS_WORD_LATER},
    {NULL, 0, 0},
};

const OptionsRow options_rows[] = {
    /* ---- share and socket ---- */
    {.name = "shared-dir",
     .metavar = "DIR",
     .set = options_set_share,
     .help = "the directory, or the single file, to serve; required"},
    {.name = "socket-path",
     .metavar = "PATH",
     TEXT(socket.path),
     .help = "make the socket PATH, to which the VMM connects"},
    {.name = "socket-group",
     .metavar = "GROUP",
     TEXT(socket.group),
     .help = "let the members of GROUP connect to the socket"},
    {.name = "fd",
     NUMBER(socket.fd, 0, INT_MAX),
     .help = "listen on descriptor N, a socket that the parent process has made"},
    {.name = "tag",
     .metavar = "TAG",
     .set = options_set_tag,
     .help =
         "tell the VMM under which tag (1 to 36 bytes) the guest is to find the share"},
    {.name = "socket",
     .metavar = "PATH",
     .set = options_set_old_socket,
     .help = "old name of --socket-path"},

    /* ---- what the guest may do ---- */
    {.name = "readonly",
     .group = OPTIONS_GROUP_GUEST,
     FLAG(session.readonly, true),
     .help = "refuse whatever would change the share"},
    {.name = "announce-submounts",
     .group = OPTIONS_GROUP_GUEST,
     FLAG(fs.announce_submounts, true),
     .standard = "on",
     .help = "tell the guest where in the share other file systems are mounted"},
    {.name = "no-announce-submounts",
     .group = OPTIONS_GROUP_GUEST,
     FLAG(fs.announce_submounts, false),
     .help = "show the share as one file system"},
    {.name = "killpriv-v2",
     .group = OPTIONS_GROUP_GUEST,
     FLAG(session.killpriv_v2, true),
     .standard = "off",
     .help = "drop set-user-id and set-group-id bits on the host, not in the guest"},
    {.name = "no-killpriv-v2",
     .group = OPTIONS_GROUP_GUEST,
     FLAG(session.killpriv_v2, false),
     .help = "leave dropping these bits to the guest"},
    {.name = "xattr",
     .group = OPTIONS_GROUP_GUEST,
     FLAG(session.xattr, true),
     .standard = "off",
     .help = "serve extended attributes"},
    {.name = "xattrmap",
     .metavar = "RULES",
     .group = OPTIONS_GROUP_GUEST,
     .set = options_set_xattrmap,
     .help = "rename or refuse extended attributes by RULES"},
    {.name = "posix-acl",
     .metavar = "MODE",
     .bare = "always",
     .group = OPTIONS_GROUP_GUEST,
     .flags = OPTIONS_EQUALS,
     WORD(session.posix_acl, negotiation_words),
     .standard = "never",
     .help = "serve access control lists: never, auto, always; no MODE means always"},
    {.name = "security-label",
     .metavar = "MODE",
     .bare = "always",
     .group = OPTIONS_GROUP_GUEST,
     .flags = OPTIONS_EQUALS,
     WORD(session.security_label, negotiation_words),
     .standard = "never",
     .help =
         "label new files as the guest asks: never, auto, always; no MODE means always"},
    {.name = "posix-lock",
     .group = OPTIONS_GROUP_GUEST,
     FLAG(session.posix_lock, true),
     .standard = "off",
     .help = "make the guest's POSIX record locks visible on the host"},
    {.name = "flock",
     .group = OPTIONS_GROUP_GUEST,
     FLAG(session.flock, true),
     .standard = "off",
     .help = "make the guest's flock(2) locks visible on the host"},
    {.name = "translate-uid",
     .metavar = "RULE",
     .group = OPTIONS_GROUP_GUEST,
     .set = options_set_translation,
     .offset = AT(uids),
     .help = "translate user ids between guest and host by RULE; may be repeated"},
    {.name = "translate-gid",
     .metavar = "RULE",
     .group = OPTIONS_GROUP_GUEST,
     .set = options_set_translation,
     .offset = AT(gids),
     .help = "translate group ids between guest and host by RULE; may be repeated"},

    /* ---- what the guest may cache ---- */
    {.name = "cache",
     .metavar = "MODE",
     .group = OPTIONS_GROUP_CACHE,
     WORD(fs.cache, cache_words),
     .standard = "auto",
     .help = "how much the guest may keep: never, metadata, auto, always"},
    {.name = "attr-timeout",
     .group = OPTIONS_GROUP_CACHE,
     SECONDS(session.attr_timeout_ns),
     .help = "how long the guest may keep attributes"},
    {.name = "entry-timeout",
     .group = OPTIONS_GROUP_CACHE,
     SECONDS(session.entry_timeout_ns),
     .help = "how long the guest may keep names"},
    {.name = "negative-timeout",
     .group = OPTIONS_GROUP_CACHE,
     SECONDS(session.negative_timeout_ns),
     .help = "how long the guest may remember that a name does not exist"},
    {.name = "no-readdirplus",
     .group = OPTIONS_GROUP_CACHE,
     FLAG(session.readdirplus, false),
     .help = "list directories without attributes; implied by --cache=never"},
    {.name = "writeback",
     .group = OPTIONS_GROUP_CACHE,
     FLAG(session.writeback, true),
     .help = "let the guest collect writes; only where nobody else changes the share"},
    {.name = "allow-direct-io",
     .group = OPTIONS_GROUP_CACHE,
     FLAG(fs.allow_direct_io, true),
     .help = "pass the guest's O_DIRECT on to the host"},
    {.name = "allow-mmap",
     .group = OPTIONS_GROUP_CACHE,
     FLAG(session.allow_mmap, true),
     .help = "allow shared mappings of files that are not cached"},
    {.name = "preserve-noatime",
     .group = OPTIONS_GROUP_CACHE,
     FLAG(fs.preserve_noatime, true),
     .help = "pass the guest's O_NOATIME on to the host"},
    {.name = "dax",
     .metavar = "MODE",
     .group = OPTIONS_GROUP_CACHE,
     WORD(dax, dax_words),
     .standard = "inode with a window, else never",
     .help = "which files the guest is told to map directly: never, inode"},
    {.name = "dax-window",
     .metavar = "SIZE",
     .group = OPTIONS_GROUP_CACHE,
     .set = options_set_window,
     .min = 2u << 20,
     .max = 512u << 20,
     .standard = "0, off",
     .help = "offer a window of SIZE for mapping files directly: a power of two from 2M "
             "to 512M"},

    {.name = "dax-protocol",
     .metavar = "PROTOCOL",
     .group = OPTIONS_GROUP_CACHE,
     WORD(window_protocol, protocol_words),
     .standard = "standard",
     .help = "how the VMM is asked to map files: standard; legacy and legacy-v3 only for "
             "those from before there was a standard"},

    /* ---- isolation ---- */
    {.name = "sandbox",
     .metavar = "MODE",
     .group = OPTIONS_GROUP_SANDBOX,
     .set = options_set_sandbox,
     .offset = AT(sandbox.mode),
     .words = sandbox_words,
     .standard = "namespace",
     .help = "shut the process into the share: namespace, chroot; none is for tests"},
    {.name = "seccomp",
     .metavar = "ACTION",
     .group = OPTIONS_GROUP_SANDBOX,
     WORD(sandbox.seccomp, seccomp_words),
     .standard = "kill",
     .help = "what a forbidden system call does: kill, log, trap; none forbids nothing"},
    {.name = "modcaps",
     .metavar = "LIST",
     .group = OPTIONS_GROUP_SANDBOX,
     .set = options_set_modcaps,
     .offset = AT(sandbox.modcaps),
     .help = "capabilities to keep or drop beyond the usual, as in +sys_admin:-chown"},
    {.name = "no-landlock",
     .group = OPTIONS_GROUP_SANDBOX,
     FLAG(sandbox.no_landlock, true),
     .help = "do not use Landlock, where the kernel has it"},
    {.name = "uid-map",
     .metavar = "MAP",
     .group = OPTIONS_GROUP_SANDBOX,
     .set = options_set_id_map,
     .offset = AT(uid_map),
     .standard = "an ordinary user's own id",
     .help = "user ids of the user namespace, :inside:outside:count:; may be repeated"},
    {.name = "gid-map",
     .metavar = "MAP",
     .group = OPTIONS_GROUP_SANDBOX,
     .set = options_set_id_map,
     .offset = AT(gid_map),
     .standard = "an ordinary user's own id",
     .help = "group ids of the user namespace, :inside:outside:count:; may be repeated"},

    /* ---- resources ---- */
    {.name = "thread-pool-size",
     .group = OPTIONS_GROUP_SPEED,
     NUMBER(thread_pool_size, 0, 1024),
     .standard = STRING(OPTIONS_THREAD_POOL_SIZE),
     .help = "request workers beyond the first; 0 serves one request after the other"},
    {.name = "num-request-queues",
     .group = OPTIONS_GROUP_SPEED,
     NUMBER(n_request_queues, 1, OPTIONS_REQUEST_QUEUES_MAX),
     .standard = "online CPUs, up to " STRING(OPTIONS_REQUEST_QUEUES_AUTO),
     .help = "request queues offered; the VMM decides how many are used"},
    {.name = "poll-us",
     .group = OPTIONS_GROUP_SPEED,
     NUMBER(poll_us, 0, 1000),
     .standard = "0",
     .help = "microseconds for which a worker that found work looks for more"},
    {.name = "rlimit-nofile",
     .metavar = "N",
     .group = OPTIONS_GROUP_SPEED,
     .set = options_set_limit,
     .max = INT_MAX,
     .standard = "1000000, or less if the host allows less",
     .help = "limit of open files; 0 leaves it as it is"},
    {.name = "inode-file-handles",
     .metavar = "MODE",
     .group = OPTIONS_GROUP_SPEED,
     .flags = OPTIONS_EQUALS,
     .set = options_set_handles,
     .offset = AT(fs.inode_handles),
     .words = handles_words,
     .standard = "never",
     .help =
         "hold inodes by file handle instead of descriptor: never, prefer, mandatory"},

    /* ---- migration ---- */
    {.name = "migration-mode",
     .metavar = "MODE",
     .group = OPTIONS_GROUP_MIGRATION,
     LATER_WORD(migration_modes),
     .help = "how the source tells which inodes it holds: find-paths, file-handles"},
    {.name = "migration-on-error",
     .metavar = "WHAT",
     .group = OPTIONS_GROUP_MIGRATION,
     LATER_WORD(migration_errors),
     .help = "what the destination does about an inode not found: abort, guest-error"},
    {.name = "migration-verify-handles",
     .group = OPTIONS_GROUP_MIGRATION,
     LATER,
     .help = "send file handles along, to be compared on the destination"},
    {.name = "migration-confirm-paths",
     .group = OPTIONS_GROUP_MIGRATION,
     LATER,
     .help = "check on the source, in the end, that paths are still right"},

    /* ---- logging ---- */
    {.name = "log-level",
     .metavar = "LEVEL",
     .group = OPTIONS_GROUP_LOG,
     WORD(log_level, level_words),
     .standard = "info",
     .help = "say no more than LEVEL: error, warn, info, debug, trace, off"},
    {.name = "syslog",
     .group = OPTIONS_GROUP_LOG,
     FLAG(use_syslog, true),
     .help = "log to the system log instead of standard error"},

    /* ---- other ---- */
    {.name = "help",
     .letter = 'h',
     .group = OPTIONS_GROUP_OTHER,
     ACTION(OPTIONS_HELP),
     .help = "print this and exit"},
    {.name = "version",
     .letter = 'V',
     .group = OPTIONS_GROUP_OTHER,
     ACTION(OPTIONS_VERSION),
     .help = "print the version and exit"},
    {.name = "print-capabilities",
     .group = OPTIONS_GROUP_OTHER,
     ACTION(OPTIONS_PRINT_CAPABILITIES),
     .help = "print what management software asks for, in JSON, and exit"},
    {.name = "list-options",
     .group = OPTIONS_GROUP_OTHER,
     .flags = OPTIONS_HIDDEN,
     ACTION(OPTIONS_LIST),
     .help = "print all options, one a line, and exit"},
    {.letter = 'o',
     .metavar = "LIST",
     .group = OPTIONS_GROUP_OTHER,
     .set = options_set_legacy,
     .help = "options of older daemons, separated by commas; see virtiofsd(1)"},
    {.letter = 'd',
     .group = OPTIONS_GROUP_OTHER,
     .set = options_set_debug,
     .help = "old form of --log-level=debug"},
    {.letter = 'f',
     .group = OPTIONS_GROUP_OTHER,
     .set = options_set_foreground,
     .help = "ignored; the process always stays in the foreground"},
};

const size_t options_n_rows = G_N_ELEMENTS(options_rows);

const OptionsRow *options_find_row(const char *name, size_t length)
{
    for (size_t i = 0; i < options_n_rows; i++) {
        const OptionsRow *row = &options_rows[i];

        if (row->name != NULL && strlen(row->name) == length &&
            memcmp(row->name, name, length) == 0) {
            return row;
        }
    }
    return NULL;
}
