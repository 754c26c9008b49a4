/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_OPTIONS_TABLE_H
#define VIRTIOFSD_OPTIONS_TABLE_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "virtiofsd/options.h"

/*
 * Inside of the command line: options.c (the walk over argv and the checks of the whole),
 * options-table.c (what there is), options-set.c (what a value does), options-legacy.c
 * (-o), options-print.c (help and lists). Nobody else includes this.
 */

/* The text of a default stands in the table beside the value, so both come from here. */
#define OPTIONS_THREAD_POOL_SIZE 1
#define OPTIONS_REQUEST_QUEUES_AUTO 8
#define OPTIONS_REQUEST_QUEUES_MAX 255

/** enum OptionsGroup - the paragraphs of --help, in their order. */
typedef enum OptionsGroup {
    OPTIONS_GROUP_SHARE,
    OPTIONS_GROUP_GUEST,
    OPTIONS_GROUP_CACHE,
    OPTIONS_GROUP_SANDBOX,
    OPTIONS_GROUP_SPEED,
    OPTIONS_GROUP_MIGRATION,
    OPTIONS_GROUP_LOG,
    OPTIONS_GROUP_OTHER,
    OPTIONS_N_GROUPS,
} OptionsGroup;

/* Where a word may be written; LATER: known, but this version cannot do it yet. */
#define OPTIONS_WORD_LATER 1u
#define OPTIONS_WORD_ONLY_LEGACY 2u
#define OPTIONS_WORD_ONLY_LONG 4u

/** struct OptionsWord - one value of an option that takes a word. */
typedef struct OptionsWord {
    const char *word;
    int value;
    unsigned int flags; /* OPTIONS_WORD_* */
} OptionsWord;

#define OPTIONS_LATER 1u  /* the feature is not in this version: marked in --help */
#define OPTIONS_HIDDEN 2u /* in no list */
#define OPTIONS_EQUALS 4u /* the value only after '=', never as the next argument */

typedef struct OptionsRow OptionsRow;

/** struct OptionsParse - a command line while it is read. */
typedef struct OptionsParse {
    Options *options;
    char spelled[128];       /* the option at hand as it was written, for messages */
    const char *old_socket;  /* --socket */
    GPtrArray *replacements; /* long spellings of the -o keys used, borrowed */
    bool in_legacy;          /* the option at hand came by -o */
    bool has_legacy;         /* -o was used */
    bool has_sandbox;        /* --sandbox was given */
    bool is_complete;        /* --help and the like: the rest is not looked at */
} OptionsParse;

/**
 * OptionsSetter - take one occurrence of an option.
 * @value: NULL for a flag; "off" for a flag that -o turns off.
 *
 * Return: true, or false with @error set.
 */
typedef bool (*OptionsSetter)(OptionsParse *parse, const OptionsRow *row,
                              const char *value, GError **error);

/** struct OptionsRow - everything about one option. */
struct OptionsRow {
    const char *name;    /* without "--"; NULL for a letter alone */
    const char *metavar; /* NULL for a flag */
    const char *help;
    const char *standard;     /* the default as --help tells it, or NULL */
    const char *bare;         /* the value that the name without a value stands for */
    const OptionsWord *words; /* for a setter that takes words, ended by a NULL word */
    OptionsSetter set;
    size_t offset; /* in Options, where a general setter writes */
    uint64_t min;  /* for a setter that takes numbers */
    uint64_t max;
    OptionsGroup group;
    unsigned int flags; /* OPTIONS_* */
    int constant;       /* what a flag writes */
    char letter;        /* of "-x", or 0 */
};

extern const OptionsRow options_rows[];
extern const size_t options_n_rows;
extern const char *const options_group_titles[OPTIONS_N_GROUPS];

/** options_find_row() - Return: the row with this name of @length bytes, or NULL. */
const OptionsRow *options_find_row(const char *name, size_t length);

/** options_spell() - note how the option was written: @prefix, @text made printable. */
void options_spell(OptionsParse *parse, const char *prefix, const char *text,
                   size_t length);

/**
 * options_fail() - set @error to "OPTION=VALUE: what is wrong and what is right".
 * @value: NULL for none.
 *
 * The option is the one last noted by options_spell(). Return: false.
 */
bool options_fail(const OptionsParse *parse, const char *value, GError **error,
                  const char *format, ...) G_GNUC_PRINTF(4, 5);

/** options_warn() - add a line for the log, unless it is there already. */
void options_warn(const OptionsParse *parse, const char *line);

/** options_parse_number() - Return: whether @text is digits alone, in the range. */
bool options_parse_number(const char *text, uint64_t min, uint64_t max,
                          uint64_t *ret_number);

/** options_set_*() - the setters that the table names. */
bool options_set_action(OptionsParse *, const OptionsRow *, const char *, GError **);
bool options_set_debug(OptionsParse *, const OptionsRow *, const char *, GError **);
bool options_set_handles(OptionsParse *, const OptionsRow *, const char *, GError **);
bool options_set_flag(OptionsParse *, const OptionsRow *, const char *, GError **);
bool options_set_foreground(OptionsParse *, const OptionsRow *, const char *, GError **);
bool options_set_id_map(OptionsParse *, const OptionsRow *, const char *, GError **);
bool options_set_later(OptionsParse *, const OptionsRow *, const char *, GError **);
bool options_set_legacy(OptionsParse *, const OptionsRow *, const char *, GError **);
bool options_set_limit(OptionsParse *, const OptionsRow *, const char *, GError **);
bool options_set_modcaps(OptionsParse *, const OptionsRow *, const char *, GError **);
bool options_set_number(OptionsParse *, const OptionsRow *, const char *, GError **);
bool options_set_old_socket(OptionsParse *, const OptionsRow *, const char *, GError **);
bool options_set_sandbox(OptionsParse *, const OptionsRow *, const char *, GError **);
bool options_set_seconds(OptionsParse *, const OptionsRow *, const char *, GError **);
bool options_set_share(OptionsParse *, const OptionsRow *, const char *, GError **);
bool options_set_tag(OptionsParse *, const OptionsRow *, const char *, GError **);
bool options_set_text(OptionsParse *, const OptionsRow *, const char *, GError **);
bool options_set_window(OptionsParse *, const OptionsRow *, const char *, GError **);
bool options_set_word(OptionsParse *, const OptionsRow *, const char *, GError **);
bool options_set_translation(OptionsParse *, const OptionsRow *, const char *, GError **);
bool options_set_xattrmap(OptionsParse *, const OptionsRow *, const char *, GError **);

/** options_legacy_finish() - one line that tells what to write instead of -o. */
void options_legacy_finish(const OptionsParse *parse);

/** options_legacy_list() - print the -o keys, one a line: "-o KEY" or "-o KEY=WHAT". */
void options_legacy_list(void);

#endif
