/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the value of an option does: the setters that the table names. Each takes one
 * occurrence, in the order of the command line, so that the last one wins; those where a
 * later occurrence must not win say so themselves.
 */
#include <inttypes.h>
#include <string.h>

#include "virtiofsd/options-table.h"

#define SECOND_NS UINT64_C(1000000000)
#define SECONDS_MAX UINT64_C(4294967295)
#define TAG_MAX 36

G_STATIC_ASSERT(sizeof(PtCache) == sizeof(int));
G_STATIC_ASSERT(sizeof(SessionMode) == sizeof(int));
G_STATIC_ASSERT(sizeof(SandboxMode) == sizeof(int));
G_STATIC_ASSERT(sizeof(SandboxSeccomp) == sizeof(int));
G_STATIC_ASSERT(sizeof(LogLevel) == sizeof(int));

/* Writes a member of Options; setters without one have no offset. */
static void store(OptionsParse *parse, const OptionsRow *row, const void *value,
                  size_t size)
{
    if (row->offset != SIZE_MAX) {
        memcpy((char *)parse->options + row->offset, value, size);
    }
}

/* A copy that lives as long as the options. */
static const char *keep(OptionsParse *parse, const char *text)
{
    char *copy = g_strdup(text);

    g_ptr_array_add(parse->options->strings, copy);
    return copy;
}

void options_spell(OptionsParse *parse, const char *prefix, const char *text,
                   size_t length)
{
    size_t used = g_strlcpy(parse->spelled, prefix, sizeof(parse->spelled));

    (void)log_escape(parse->spelled + used, sizeof(parse->spelled) - used, text, length);
}

bool options_fail(const OptionsParse *parse, const char *value, GError **error,
                  const char *format, ...)
{
    char shown[128];
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *what = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    if (value != NULL) {
        /* It may hold a newline, or bytes that a reader of UTF-8 chokes on. */
        (void)log_escape(shown, sizeof(shown), value, strlen(value));
    }
    g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, "%s%s%s: %s",
                parse->spelled, value != NULL ? "=" : "", value != NULL ? shown : "",
                what);
    return false;
}

/* ---- values ----------------------------------------------------------------------- */

bool options_parse_number(const char *text, uint64_t min, uint64_t max,
                          uint64_t *ret_number)
{
    /* g_ascii_string_to_unsigned() takes neither signs nor blanks. */
    guint64 number = 0;

    if (!g_ascii_string_to_unsigned(text, 10, min, max, &number, NULL)) {
        return false;
    }
    *ret_number = number;
    return true;
}

/* A number that K, M or G may follow. */
static bool parse_size(const char *text, uint64_t max, uint64_t *ret_size)
{
    static const char units[] = "kmg";
    size_t length = strlen(text);
    const char *unit =
        length > 0 ? strchr(units, g_ascii_tolower(text[length - 1])) : NULL;
    unsigned int shift = unit != NULL ? 10u * (unsigned int)(unit - units + 1) : 0;
    g_autofree char *digits = g_strndup(text, length - (unit != NULL ? 1 : 0));

    if (!options_parse_number(digits, 0, max >> shift, ret_size)) {
        return false;
    }
    *ret_size <<= shift;
    return true;
}

/* Decimal seconds as nanoseconds; no exponent, no sign, no locale. */
static bool parse_seconds(const char *text, uint64_t *ret_ns)
{
    const char *point = strchr(text, '.');
    g_autofree char *whole =
        g_strndup(text, point != NULL ? (size_t)(point - text) : strlen(text));
    uint64_t seconds = 0;
    uint64_t part = 0;

    if (!options_parse_number(whole, 0, SECONDS_MAX, &seconds)) {
        return false;
    }
    if (point != NULL) {
        size_t digits = strlen(point + 1);

        if (digits > 9 || !options_parse_number(point + 1, 0, SECOND_NS - 1, &part)) {
            return false;
        }
        for (; digits < 9; digits++) {
            part *= 10;
        }
    }
    *ret_ns = seconds * SECOND_NS + part;
    return true;
}

/* May this word be written where the option at hand is? */
static bool is_allowed(const OptionsParse *parse, const OptionsWord *word)
{
    unsigned int refused =
        parse->in_legacy ? OPTIONS_WORD_ONLY_LONG : OPTIONS_WORD_ONLY_LEGACY;

    return (word->flags & refused) == 0;
}

static bool parse_word(const OptionsParse *parse, const OptionsRow *row,
                       const char *value, int *ret_value, GError **error)
{
    g_autoptr(GString) list = g_string_new(NULL);

    for (const OptionsWord *word = row->words; word->word != NULL; word++) {
        if (!is_allowed(parse, word)) {
            continue;
        }
        if (g_ascii_strcasecmp(word->word, value) != 0) {
            g_string_append_printf(list, "%s%s", list->len > 0 ? ", " : "", word->word);
            continue;
        }
        if ((word->flags & OPTIONS_WORD_LATER) != 0) {
            return options_fail(parse, value, error,
                                "not in this version: leave the option out");
        }
        *ret_value = word->value;
        return true;
    }
    return options_fail(parse, value, error, "must be one of %s", list->str);
}

/* ---- general setters -------------------------------------------------------------- */

bool options_set_action(OptionsParse *parse, const OptionsRow *row, const char *value,
                        GError **error)
{
    parse->options->action = (OptionsAction)row->constant;
    parse->is_complete = parse->options->action != OPTIONS_PRINT_CAPABILITIES;
    return true;
}

bool options_set_flag(OptionsParse *parse, const OptionsRow *row, const char *value,
                      GError **error)
{
    bool on = row->constant != 0;

    if (value != NULL) { /* "off" */
        on = !on;
    }
    store(parse, row, &on, sizeof(on));
    return true;
}

bool options_set_word(OptionsParse *parse, const OptionsRow *row, const char *value,
                      GError **error)
{
    int number = 0;

    if (!parse_word(parse, row, value, &number, error)) {
        return false;
    }
    store(parse, row, &number, sizeof(number));
    return true;
}

bool options_set_text(OptionsParse *parse, const OptionsRow *row, const char *value,
                      GError **error)
{
    const char *text = keep(parse, value);

    store(parse, row, &text, sizeof(text));
    return true;
}

bool options_set_number(OptionsParse *parse, const OptionsRow *row, const char *value,
                        GError **error)
{
    uint64_t number = 0;

    if (!options_parse_number(value, row->min, row->max, &number)) {
        return options_fail(parse, value, error,
                            "must be a whole number from %" PRIu64 " to %" PRIu64,
                            row->min, row->max);
    }
    unsigned int small = (unsigned int)number;
    store(parse, row, &small, sizeof(small));
    return true;
}

bool options_set_seconds(OptionsParse *parse, const OptionsRow *row, const char *value,
                         GError **error)
{
    uint64_t ns = 0;

    if (!parse_seconds(value, &ns)) {
        return options_fail(parse, value, error,
                            "must be seconds from 0 to %" PRIu64
                            ", with at most nine decimals",
                            SECONDS_MAX);
    }
    store(parse, row, &ns, sizeof(ns));
    return true;
}

/* An option of which nothing can be done yet; -o may turn it off. */
bool options_set_later(OptionsParse *parse, const OptionsRow *row, const char *value,
                       GError **error)
{
    if (row->metavar == NULL && value != NULL) { /* "off" */
        return true;
    }
    return options_fail(parse, value, error, "not in this version: leave the option out");
}

/* ---- options with rules of their own ---------------------------------------------- */

/* Whoever can append arguments must not be able to serve another directory. */
bool options_set_share(OptionsParse *parse, const OptionsRow *row, const char *value,
                       GError **error)
{
    SandboxConfig *sandbox = &parse->options->sandbox;

    if (sandbox->shared_dir != NULL && strcmp(sandbox->shared_dir, value) != 0) {
        return options_fail(parse, value, error,
                            "the directory to share has been given already, and"
                            " differently: give it once");
    }
    sandbox->shared_dir = keep(parse, value);
    return true;
}

/* Whoever can append arguments must not be able to unlock the sandbox. */
bool options_set_sandbox(OptionsParse *parse, const OptionsRow *row, const char *value,
                         GError **error)
{
    SandboxMode *mode = &parse->options->sandbox.mode;
    int wanted = 0;

    if (!parse_word(parse, row, value, &wanted, error)) {
        return false;
    }
    if (wanted == SANDBOX_NONE && parse->has_sandbox && *mode != SANDBOX_NONE) {
        return options_fail(parse, value, error,
                            "refused after another --sandbox: give one of them");
    }
    *mode = (SandboxMode)wanted;
    parse->has_sandbox = true;
    return true;
}

/* Somebody else knows what is wrong, and may quote the value. */
static bool fail_as(const OptionsParse *parse, const char *value, const GError *wrong,
                    GError **error)
{
    char why[256];

    (void)log_escape(why, sizeof(why), wrong->message, strlen(wrong->message));
    return options_fail(parse, value, error, "%s", why);
}

bool options_set_modcaps(OptionsParse *parse, const OptionsRow *row, const char *value,
                         GError **error)
{
    g_autoptr(GError) wrong = NULL;

    return sandbox_check_modcaps(value, &wrong)
               ? options_set_text(parse, row, value, error)
               : fail_as(parse, value, wrong, error);
}

bool options_set_id_map(OptionsParse *parse, const OptionsRow *row, const char *value,
                        GError **error)
{
    SandboxIdMap *map = (SandboxIdMap *)(void *)((char *)parse->options + row->offset);
    g_autoptr(GError) wrong = NULL;

    return sandbox_id_map_add(map, value, &wrong) || fail_as(parse, value, wrong, error);
}

bool options_set_translation(OptionsParse *parse, const OptionsRow *row,
                             const char *value, GError **error)
{
    PtTranslation **translation =
        (PtTranslation **)(void *)((char *)parse->options + row->offset);
    g_autoptr(GError) wrong = NULL;

    return pt_translation_add(translation, value, &wrong) ||
           fail_as(parse, value, wrong, error);
}

bool options_set_xattrmap(OptionsParse *parse, const OptionsRow *row, const char *value,
                          GError **error)
{
    Options *options = parse->options;
    g_autoptr(GError) wrong = NULL;
    char why[256];
    PtXattrMap *map = pt_xattr_map_parse(value, &wrong);

    if (map == NULL) {
        (void)log_escape(why, sizeof(why), wrong->message, strlen(wrong->message));
        return options_fail(parse, value, error, "%s", why);
    }
    pt_xattr_map_free(options->xattr_map);
    options->xattr_map = map;
    options->fs.xattr_map = map;
    return true;
}

bool options_set_tag(OptionsParse *parse, const OptionsRow *row, const char *value,
                     GError **error)
{
    if (strlen(value) > TAG_MAX || !g_utf8_validate(value, -1, NULL)) {
        return options_fail(parse, value, error, "must be 1 to %d bytes of UTF-8",
                            TAG_MAX);
    }
    g_free(parse->options->tag);
    parse->options->tag = g_strdup(value);
    return true;
}

bool options_set_limit(OptionsParse *parse, const OptionsRow *row, const char *value,
                       GError **error)
{
    uint64_t *limit = &parse->options->sandbox.rlimit_nofile;

    if (!options_parse_number(value, row->min, row->max, limit)) {
        return options_fail(parse, value, error,
                            "must be a whole number from %" PRIu64 " to %" PRIu64,
                            row->min, row->max);
    }
    return true;
}

bool options_set_window(OptionsParse *parse, const OptionsRow *row, const char *value,
                        GError **error)
{
    uint64_t size = 0;

    if (!parse_size(value, row->max, &size) ||
        (size != 0 && (size < row->min || (size & (size - 1)) != 0))) {
        return options_fail(parse, value, error,
                            "must be 0 or a power of two from 2M to 512M");
    }
    parse->options->window_size = size;
    return true;
}

/* ---- old spellings ---------------------------------------------------------------- */

void options_warn(const OptionsParse *parse, const char *line)
{
    GPtrArray *warnings = parse->options->warnings;

    for (guint i = 0; i < warnings->len; i++) {
        if (strcmp(g_ptr_array_index(warnings, i), line) == 0) {
            return;
        }
    }
    g_ptr_array_add(warnings, g_strdup(line));
}

bool options_set_old_socket(OptionsParse *parse, const OptionsRow *row, const char *value,
                            GError **error)
{
    options_warn(parse, "--socket is deprecated: use --socket-path");
    parse->old_socket = keep(parse, value);
    return true;
}

bool options_set_handles(OptionsParse *parse, const OptionsRow *row, const char *value,
                         GError **error)
{
    if (g_ascii_strcasecmp(value, "fallback") == 0) {
        options_warn(parse, "--inode-file-handles=fallback is deprecated: use"
                            " --inode-file-handles=prefer");
    }
    return options_set_word(parse, row, value, error);
}

bool options_set_debug(OptionsParse *parse, const OptionsRow *row, const char *value,
                       GError **error)
{
    options_warn(parse, "-d is deprecated: use --log-level=debug");
    parse->options->log_level = LOG_LEVEL_DEBUG;
    return true;
}

bool options_set_foreground(OptionsParse *parse, const OptionsRow *row, const char *value,
                            GError **error)
{
    options_warn(parse, "-f does nothing: the process always stays in the foreground");
    return true;
}
