/* SPDX-License-Identifier: Apache-2.0 */
/*
 * -o LIST, the options of QEMU's C daemon and of the Rust daemon's compatibility mode.
 * The list is cut at commas, and escapes in it are resolved, by libfuse3's fuse_opt; what
 * a key does is done by the row of the long option that it stands for.
 */
#include <fuse3/fuse_opt.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "virtiofsd/options-table.h"

/* The lines of a key that ends in '=' take a value. */
typedef struct LegacyKey {
    const char *key;
    const char *name;  /* the long option, or NULL: accepted and ignored */
    const char *value; /* for a key without a value: what the long option gets */
    const char *also;  /* a second long option with the same value */
} LegacyKey;

static const LegacyKey keys[] = {
    {"source=", "shared-dir", NULL, NULL},
    {"cache=", "cache", NULL, NULL},
    {"timeout=", "attr-timeout", NULL, "entry-timeout"},
    {"sandbox=", "sandbox", NULL, NULL},
    {"modcaps=", "modcaps", NULL, NULL},
    {"xattrmap=", "xattrmap", NULL, NULL},
    {"log_level=", "log-level", NULL, NULL},
    {"loglevel=", "log-level", NULL, NULL},
    {"debug", "log-level", "debug", NULL},
    {"announce_submounts", "announce-submounts", NULL, NULL},
    {"no_announce_submounts", "no-announce-submounts", NULL, NULL},
    {"writeback", "writeback", NULL, NULL},
    {"no_writeback", "writeback", "off", NULL},
    {"readdirplus", "no-readdirplus", "off", NULL},
    {"no_readdirplus", "no-readdirplus", NULL, NULL},
    {"allow_direct_io", "allow-direct-io", NULL, NULL},
    {"no_allow_direct_io", "allow-direct-io", "off", NULL},
    {"killpriv_v2", "killpriv-v2", NULL, NULL},
    {"no_killpriv_v2", "no-killpriv-v2", NULL, NULL},
    {"xattr", "xattr", NULL, NULL},
    {"no_xattr", "xattr", "off", NULL},
    {"posix_acl", "posix-acl", "always", NULL},
    {"no_posix_acl", "posix-acl", "never", NULL},
    {"security_label", "security-label", "always", NULL},
    {"no_security_label", "security-label", "never", NULL},
    {"posix_lock", "posix-lock", NULL, NULL},
    {"no_posix_lock", "posix-lock", "off", NULL},
    {"flock", "flock", NULL, NULL},
    {"no_flock", "flock", "off", NULL},
    {"max_idle_threads=", NULL, NULL, NULL},
    {"allow_root", NULL, NULL, NULL},
};

/* What fuse_opt hands to each call. */
typedef struct Walk {
    OptionsParse *parse;
    GError **error;
} Walk;

static const OptionsRow *row_of(const char *name)
{
    return options_find_row(name, strlen(name));
}

/* Notes what to write instead. A key that only says what is so anyhow needs nothing. */
static void suggest(const OptionsParse *parse, const LegacyKey *key)
{
    bool is_default = key->value != NULL && (strcmp(key->value, "off") == 0 ||
                                             strcmp(key->value, "never") == 0);

    if (key->name != NULL && !is_default &&
        !g_ptr_array_find(parse->replacements, key->name, NULL)) {
        g_ptr_array_add(parse->replacements, (gpointer)key->name);
    }
}

static bool apply(OptionsParse *parse, const LegacyKey *key, const char *value,
                  GError **error)
{
    uint64_t ignored = 0;

    if (key->name == NULL) {
        return value == NULL || options_parse_number(value, 0, UINT32_MAX, &ignored) ||
               options_fail(parse, value, error, "must be a whole number");
    }
    const OptionsRow *row = row_of(key->name);
    if (!row->set(parse, row, value, error)) {
        return false;
    }
    const OptionsRow *also = key->also != NULL ? row_of(key->also) : NULL;
    return also == NULL || also->set(parse, also, value, error);
}

/* Explains an entry of the list that is no key. */
static int refuse(const OptionsParse *parse, const char *entry, const char *value,
                  GError **error)
{
    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        size_t length = strlen(keys[i].key) - 1;

        if (keys[i].key[length] == '=' && strlen(entry) == length &&
            memcmp(entry, keys[i].key, length) == 0) {
            options_fail(parse, NULL, error, "needs a value after =");
            return -1;
        }
    }
    options_fail(parse, value, error,
                 entry[0] == '\0' ? "an entry of the list is empty"
                                  : "no such option: see virtiofsd(1) for those of -o");
    return -1;
}

/* fuse_opt's callback; @index is that of the key, or negative for one that is unknown. */
static int take(void *data, const char *arg, int index, struct fuse_args *outargs)
{
    Walk *walk = data;
    const char *equals = strchr(arg, '=');
    size_t length = equals != NULL ? (size_t)(equals - arg) : strlen(arg);

    (void)outargs;
    options_spell(walk->parse, length > 0 ? "-o " : "-o", arg, length);
    const char *value = equals != NULL ? equals + 1 : NULL;
    if (index < 0) {
        return refuse(walk->parse, arg, value, walk->error);
    }
    const LegacyKey *key = &keys[index];
    if (value != NULL && value[0] == '\0') {
        options_fail(walk->parse, NULL, walk->error, "needs a value after =");
        return -1;
    }
    suggest(walk->parse, key);
    return apply(walk->parse, key, value != NULL ? value : key->value, walk->error) ? 0
                                                                                    : -1;
}

bool options_set_legacy(OptionsParse *parse, const OptionsRow *row, const char *value,
                        GError **error)
{
    struct fuse_opt templates[G_N_ELEMENTS(keys) + 1] = {FUSE_OPT_END};
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    Walk walk = {.parse = parse, .error = error};

    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        /* FUSE_OPT_KEY() spelled out: clang warns of its -1U, which becomes a long. */
        templates[i] =
            (struct fuse_opt){.templ = keys[i].key, .offset = UINT_MAX, .value = (int)i};
    }
    parse->in_legacy = true;
    parse->has_legacy = true;
    bool done = fuse_opt_add_arg(&args, "virtiofsd") == 0 &&
                fuse_opt_add_arg(&args, "-o") == 0 &&
                fuse_opt_add_arg(&args, value) == 0 &&
                fuse_opt_parse(&args, &walk, templates, take) == 0;
    fuse_opt_free_args(&args);
    parse->in_legacy = false;
    if (!done && error != NULL && *error == NULL) {
        options_spell(parse, "-o", "", 0);
        options_fail(parse, value, error, "not a list of options");
    }
    return done;
}

void options_legacy_finish(const OptionsParse *parse)
{
    if (!parse->has_legacy) {
        return;
    }
    g_autoptr(GString) line = g_string_new("-o is deprecated: ");
    for (guint i = 0; i < parse->replacements->len; i++) {
        g_string_append_printf(line, "%s--%s", i == 0 ? "use " : " ",
                               (const char *)g_ptr_array_index(parse->replacements, i));
    }
    if (parse->replacements->len == 0) {
        g_string_append(line, "leave it out");
    }
    options_warn(parse, line->str);
}

void options_legacy_list(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        const char *name = keys[i].name;
        const char *metavar = name != NULL ? row_of(name)->metavar : "N";
        bool has_value = strchr(keys[i].key, '=') != NULL;

        (void)printf("-o %s%s\n", keys[i].key, has_value ? metavar : "");
    }
}
