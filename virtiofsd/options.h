/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_OPTIONS_H
#define VIRTIOFSD_OPTIONS_H

#include <glib.h>
#include <stdbool.h>

#include "passthrough/passthrough.h"
#include "sandbox/sandbox.h"
#include "virtiofsd/fuse/session.h"
#include "virtiofsd/log.h"
#include "virtiofsd/socket.h"
#include "virtiofsd/vhost/window-protocol.h"

/*
 * The command line. One table: the parser, --help and the manual page's test read it.
 */

/** enum OptionsAction - what the process is to do. */
typedef enum OptionsAction {
    OPTIONS_SERVE,
    OPTIONS_HELP,
    OPTIONS_VERSION,
    OPTIONS_PRINT_CAPABILITIES,
    OPTIONS_LIST, /* hidden --list-options: the table's names, one a line, for tests */
} OptionsAction;

/** enum OptionsDax - which files the guest is told to map. */
typedef enum OptionsDax {
    OPTIONS_DAX_DEFAULT,
    OPTIONS_DAX_NEVER,
    OPTIONS_DAX_INODE, /* those that suit */
} OptionsDax;

/** struct Options - the whole command line, checked; strings live as long as it does. */
typedef struct Options {
    OptionsAction action;
    LogLevel log_level;
    bool use_syslog;
    SocketConfig socket;
    SandboxConfig sandbox;
    PtConfig fs;
    SessionConfig session;
    PtXattrMap *xattr_map; /* which .fs borrows, or NULL */
    PtTranslation *uids;   /* likewise */
    PtTranslation *gids;   /* likewise */
    char *tag;             /* NULL, or 1 to 36 bytes */
    uint64_t window_size;  /* of the DAX window; 0: none */
    VuWindowProtocol window_protocol;
    OptionsDax dax;                /* as given: .session.dax is what counts */
    unsigned int thread_pool_size; /* request workers beyond the first */
    unsigned int n_request_queues;
    unsigned int poll_us;
    SandboxIdMap uid_map; /* empty without --uid-map */
    SandboxIdMap gid_map;
    GPtrArray *warnings; /* lines to log once the log is open (deprecated spellings) */
    GPtrArray *strings;  /* owns what the borrowed pointers above point to */
} Options;

/**
 * options_parse() - parse and check.
 * @argv: NULL-terminated, of main().
 *
 * Return: the options, or NULL with @error set to one line that names the option and the
 * mend (exit status 2).
 */
Options *options_parse(int argc, char **argv, GError **error);
void options_free(Options *options);

/** options_find_fd() - the value of --fd before anything else is parsed, or -1:
 * descriptors are closed first of all. */
int options_find_fd(int argc, char **argv);

/** options_print() - print help, version, capabilities or the list on stdout. */
void options_print(OptionsAction action);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Options, options_free)

#endif
