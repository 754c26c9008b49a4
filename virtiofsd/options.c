/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line: a walk over argv that looks each option up in the table, and the
 * checks that need the whole of it.
 *
 * Own code and not GOptionContext, because a value must not be taken for granted here:
 * abbreviations are not accepted (a later version could make them ambiguous), a value
 * that looks like an option is an error, and some options take a value after '=' only.
 */
#include "virtiofsd/options.h"

#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "virtiofsd/options-table.h"

/* "Not given": --cache decides. */
#define BY_CACHE UINT64_MAX
#define SECONDS(n) (UINT64_C(n) * 1000000000)

/* What a cache mode implies, unless an option says otherwise. */
typedef struct CacheRule {
    uint64_t timeout_ns;  /* of names and attributes */
    uint64_t negative_ns; /* of names that do not exist */
    bool readdirplus;
} CacheRule;

/* A name that the host adds later must appear soon even in the modes that trust what they
 * have seen: a volume mounted after the guest looked for it is the normal order. */
static const CacheRule cache_rules[] = {
    [PT_CACHE_AUTO] = {SECONDS(1), 0, true},
    [PT_CACHE_ALWAYS] = {SECONDS(86400), SECONDS(1), true},
    [PT_CACHE_NEVER] = {0, 0, false},
    [PT_CACHE_METADATA] = {SECONDS(86400), SECONDS(1), true},
};

static unsigned int online_cpus(void)
{
    long count = sysconf(_SC_NPROCESSORS_ONLN);

    return (unsigned int)CLAMP(count, 1, OPTIONS_REQUEST_QUEUES_AUTO);
}

static Options *options_new(void)
{
    Options *self = g_new0(Options, 1);

    self->log_level = LOG_LEVEL_INFO;
    self->socket.fd = -1;
    self->sandbox.rlimit_nofile = UINT64_MAX;
    self->fs.announce_submounts = true;
    self->session.attr_timeout_ns = BY_CACHE;
    self->session.entry_timeout_ns = BY_CACHE;
    self->session.negative_timeout_ns = BY_CACHE;
    self->session.readdirplus = true;
    self->thread_pool_size = OPTIONS_THREAD_POOL_SIZE;
    self->n_request_queues = online_cpus();
    self->warnings = g_ptr_array_new_with_free_func(g_free);
    self->strings = g_ptr_array_new_with_free_func(g_free);
    return self;
}

void options_free(Options *options)
{
    if (options == NULL) {
        return;
    }
    pt_xattr_map_free(options->xattr_map);
    pt_translation_free(options->uids);
    pt_translation_free(options->gids);
    g_free(options->tag);
    g_ptr_array_unref(options->warnings);
    g_ptr_array_unref(options->strings);
    g_free(options);
}

/* ---- the walk --------------------------------------------------------------------- */

/* The arguments not read yet. */
typedef struct Arguments {
    char **next;
} Arguments;

/* Is this name the beginning of the row's, or the row's with other hyphens? */
static bool resembles(const OptionsRow *row, const char *name)
{
    g_autofree char *given = g_strdelimit(g_ascii_strdown(name, -1), "_", '-');

    return row->name != NULL && given[0] != '\0' && g_str_has_prefix(row->name, given);
}

static bool fail_unknown(const OptionsParse *parse, const char *name, GError **error)
{
    for (size_t i = 0; i < options_n_rows; i++) {
        if (resembles(&options_rows[i], name)) {
            return options_fail(parse, NULL, error,
                                "no such option: did you mean --%s?"
                                " (see virtiofsd --help)",
                                options_rows[i].name);
        }
    }
    return options_fail(parse, NULL, error, "no such option: see virtiofsd --help");
}

/* The value of an option that needs one and has none after '='. */
static const char *next_value(const OptionsRow *row, Arguments *arguments)
{
    const char *value = *arguments->next;

    if (row->bare != NULL) {
        return row->bare;
    }
    /* Another option is a value forgotten. One that begins with a hyphen takes '='. */
    if ((row->flags & OPTIONS_EQUALS) != 0 || value == NULL ||
        (value[0] == '-' && value[1] != '\0')) {
        return NULL;
    }
    arguments->next++;
    return value;
}

/* Takes one option; @value is what stands after '=' or a letter, or NULL. */
static bool take_option(OptionsParse *parse, const OptionsRow *row, const char *value,
                        Arguments *arguments, GError **error)
{
    if (row->metavar == NULL) {
        if (value != NULL) {
            return options_fail(parse, value, error, "takes no value");
        }
    } else {
        if (value == NULL) {
            value = next_value(row, arguments);
        }
        if (value == NULL || value[0] == '\0') {
            return options_fail(parse, NULL, error, "needs a value: %s%s%s",
                                parse->spelled, row->name != NULL ? "=" : " ",
                                row->metavar);
        }
    }
    return row->set(parse, row, value, error);
}

static bool take_long(OptionsParse *parse, const char *argument, Arguments *arguments,
                      GError **error)
{
    const char *equals = strchr(argument, '=');
    size_t length = equals != NULL ? (size_t)(equals - argument) : strlen(argument);
    const OptionsRow *row = options_find_row(argument + 2, length - 2);

    options_spell(parse, "", argument, length);
    if (row == NULL) {
        return fail_unknown(parse, parse->spelled + 2, error);
    }
    return take_option(parse, row, equals != NULL ? equals + 1 : NULL, arguments, error);
}

static const OptionsRow *find_letter(char letter)
{
    for (size_t i = 0; i < options_n_rows; i++) {
        if (options_rows[i].letter != '\0' && options_rows[i].letter == letter) {
            return &options_rows[i];
        }
    }
    return NULL;
}

/* Letters may stand together; the value of one that takes it ends the argument. */
static bool take_letters(OptionsParse *parse, const char *argument, Arguments *arguments,
                         GError **error)
{
    for (const char *at = argument + 1; *at != '\0' && !parse->is_complete; at++) {
        const OptionsRow *row = find_letter(*at);
        const char *value = NULL;

        options_spell(parse, "-", at, 1);
        if (row == NULL) {
            return options_fail(parse, NULL, error,
                                "no such option: see virtiofsd --help");
        }
        bool is_last = row->metavar != NULL;
        if (is_last && at[1] != '\0') {
            value = at[1] == '=' ? at + 2 : at + 1;
        }
        if (!take_option(parse, row, value, arguments, error)) {
            return false;
        }
        if (is_last) {
            break;
        }
    }
    return true;
}

static bool take_argument(OptionsParse *parse, Arguments *arguments, GError **error)
{
    const char *argument = *arguments->next++;

    if (argument[0] == '-' && argument[1] == '-' && argument[2] != '\0') {
        return take_long(parse, argument, arguments, error);
    }
    if (argument[0] == '-' && argument[1] != '-' && argument[1] != '\0') {
        return take_letters(parse, argument, arguments, error);
    }
    options_spell(parse, "", argument, strlen(argument));
    return options_fail(parse, NULL, error, "not an option: see virtiofsd --help");
}

/* ---- the whole -------------------------------------------------------------------- */

static bool fail_whole(GError **error, const char *message)
{
    g_set_error_literal(error, G_OPTION_ERROR, G_OPTION_ERROR_FAILED, message);
    return false;
}

static bool check_socket(OptionsParse *parse, GError **error)
{
    SocketConfig *config = &parse->options->socket;

    if (config->fd >= 0) {
        if (config->path != NULL || parse->old_socket != NULL) {
            return fail_whole(error, "--fd and --socket-path exclude each other:"
                                     " give one of them");
        }
        if (config->group != NULL) {
            return fail_whole(error, "--fd and --socket-group exclude each other:"
                                     " whoever made the socket gives it its group");
        }
    }
    if (config->path == NULL) {
        config->path = parse->old_socket;
    }
    if (config->path == NULL && config->fd < 0) {
        return fail_whole(error, "no socket: give --socket-path=PATH or --fd=N");
    }
    return true;
}

static bool check_maps(Options *options, GError **error)
{
    SandboxConfig *config = &options->sandbox;

    config->uid_map = options->uid_map.n > 0 ? &options->uid_map : NULL;
    config->gid_map = options->gid_map.n > 0 ? &options->gid_map : NULL;
    return sandbox_check_maps(config, error);
}

/* Under names of their own the host neither heeds access control lists nor passes them on
 * to new files, and chmod(2) does not change them: a file would stay open to whom its
 * mode shuts out. */
static bool check_acl(const OptionsParse *parse, GError **error)
{
    static const char *const names[] = {"system.posix_acl_access",
                                        "system.posix_acl_default"};
    Options *options = parse->options;
    bool keeps = true;

    for (size_t i = 0; i < G_N_ELEMENTS(names) && options->xattr_map != NULL; i++) {
        keeps = keeps && pt_xattr_map_keeps(options->xattr_map, names[i]);
    }
    if (keeps || options->session.posix_acl == SESSION_NEVER) {
        return true;
    }
    if (options->session.posix_acl == SESSION_ALWAYS) {
        return fail_whole(error, "--posix-acl=always and --xattrmap: the map must leave"
                                 " system.posix_acl_access and system.posix_acl_default"
                                 " as they are");
    }
    options_warn(parse, "--posix-acl=auto: there are no access control lists, because"
                        " --xattrmap renames or refuses them");
    options->session.posix_acl = SESSION_NEVER;
    return true;
}

/* The lists name users and groups, and the host's kernel, which judges by them and passes
 * them on to new files, knows the host's. Where several ids become one, no list can say
 * both here and there what is meant. */
static bool check_translation(const Options *options, GError **error)
{
    return options->session.posix_acl == SESSION_NEVER ||
           (options->uids == NULL && options->gids == NULL) ||
           fail_whole(error, "--posix-acl and --translate-uid or --translate-gid exclude"
                             " each other: the ids in access control lists are not"
                             " translated");
}

/* Legacy VMMs know the window's size and the tag themselves: what is left for us is to
 * ask for mappings, or nothing. */
static bool check_dax_protocol(const Options *options, GError **error)
{
    if (options->window_size == 0) {
        return fail_whole(error, "--dax-protocol: there is no window to map files in:"
                                 " give --dax-window=SIZE");
    }
    return options->dax != OPTIONS_DAX_NEVER ||
           fail_whole(error, "--dax-protocol and --dax=never exclude each other:"
                             " give one of them");
}

/* The guest finds the share, and how many queues there are, where the window is offered.
 */
static bool check_dax(Options *options, GError **error)
{
    bool has_window = options->window_size > 0;

    options->session.dax = has_window && options->dax != OPTIONS_DAX_NEVER;
    if (options->window_protocol != VU_WINDOW_STANDARD) {
        return check_dax_protocol(options, error);
    }
    if (options->dax == OPTIONS_DAX_INODE && !has_window) {
        return fail_whole(error, "--dax=inode: there is no window to map files in: give"
                                 " --dax-window=SIZE");
    }
    return !has_window || options->tag != NULL ||
           fail_whole(error, "--dax-window: the guest must be told under which tag it"
                             " finds the share: give --tag=TAG");
}

static void choose(uint64_t *value, uint64_t otherwise)
{
    if (*value == BY_CACHE) {
        *value = otherwise;
    }
}

/* What several rooms need to know, and what --cache implies. */
static void settle(Options *options)
{
    const CacheRule *rule = &cache_rules[options->fs.cache];
    SessionConfig *session = &options->session;

    session->cache = options->fs.cache;
    options->fs.uids = options->uids;
    options->fs.gids = options->gids;
    options->fs.readonly = session->readonly;
    options->sandbox.readonly = session->readonly;
    options->sandbox.file_handles = options->fs.inode_handles != PT_INODE_HANDLES_NEVER;
    session->announce_submounts = options->fs.announce_submounts;
    session->xattr = session->xattr || options->xattr_map != NULL ||
                     session->posix_acl != SESSION_NEVER ||
                     session->security_label != SESSION_NEVER;
    session->readdirplus = session->readdirplus && rule->readdirplus;
    choose(&session->attr_timeout_ns, rule->timeout_ns);
    choose(&session->entry_timeout_ns, rule->timeout_ns);
    choose(&session->negative_timeout_ns, rule->negative_ns);
}

static bool finish(OptionsParse *parse, GError **error)
{
    Options *options = parse->options;

    if (options->action == OPTIONS_PRINT_CAPABILITIES) {
        return options->socket.group == NULL ||
               fail_whole(error, "--print-capabilities and --socket-group exclude each"
                                 " other: leave out the latter");
    }
    if (options->sandbox.shared_dir == NULL) {
        return fail_whole(error, "no directory to share: give --shared-dir=DIR");
    }
    if (!check_socket(parse, error) || !check_maps(options, error) ||
        !check_acl(parse, error) || !check_translation(options, error) ||
        !check_dax(options, error)) {
        return false;
    }
    settle(options);
    options_legacy_finish(parse);
    return true;
}

Options *options_parse(int argc, char **argv, GError **error)
{
    g_autoptr(Options) options = options_new();
    g_autoptr(GPtrArray) replacements = g_ptr_array_new();
    OptionsParse parse = {.options = options, .replacements = replacements};
    Arguments arguments = {.next = argv + MIN(argc, 1)};

    if (argc < 2) {
        fail_whole(error, "nothing to do: give --shared-dir=DIR and --socket-path=PATH or"
                          " --fd=N, or see virtiofsd --help");
        return NULL;
    }
    while (*arguments.next != NULL && !parse.is_complete) {
        if (!take_argument(&parse, &arguments, error)) {
            return NULL;
        }
    }
    if (!parse.is_complete && !finish(&parse, error)) {
        return NULL;
    }
    return g_steal_pointer(&options);
}

int options_find_fd(int argc, char **argv)
{
    static const char option[] = "--fd";
    int found = -1;

    for (int i = 1; i < argc; i++) {
        const char *value = NULL;
        uint64_t number = 0;

        if (g_str_has_prefix(argv[i], "--fd=")) {
            value = argv[i] + sizeof(option);
        } else if (strcmp(argv[i], option) == 0) {
            value = argv[i + 1];
        }
        if (value != NULL && options_parse_number(value, 0, INT_MAX, &number)) {
            found = (int)number;
        }
    }
    return found;
}
