/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/translate.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "passthrough/internal.h"

/*
 * Translation of ids. There is a table for each direction: ranges that do not overlap, in
 * order; an id that is in none of them stays what it is. Tables are made at the start and
 * never change.
 *
 *     guest:GUEST:HOST:COUNT           to the host, one by one
 *     host:HOST:GUEST:COUNT            to the guest, one by one
 *     map:GUEST:HOST:COUNT             both
 *     squash-guest:GUEST:HOST:COUNT    to the host, all to one
 *     squash-host:HOST:GUEST:COUNT     to the guest, all to one
 *     forbid-guest:GUEST:COUNT         what the guest asks for with such an id is refused
 *
 * The highest number, 4294967295, is no id: to the calls that change owner or identity it
 * means "leave as it is". No range contains it, on either side, so it is never the result
 * of a translation either.
 */

#define ID_MAX (UINT32_MAX - 1)
#define FIELDS_MAX 3

/* From where, how many, and to where. */
typedef struct Range {
    uint32_t first;
    uint32_t count;
    uint32_t to;
    enum RangeKind { RANGE_SHIFT, RANGE_SQUASH, RANGE_FORBID } kind;
} Range;

struct PtTranslation {
    GArray *to_host; /* of Range, by .first */
    GArray *to_guest;
};

static const struct Form {
    const char *name;
    const char *fields[FIELDS_MAX + 1]; /* NULL at the end */
    enum RangeKind kind;
    bool to_host, to_guest;
} forms[] = {
    {"guest", {"guest id", "host id", "count", NULL}, RANGE_SHIFT, true, false},
    {"host", {"host id", "guest id", "count", NULL}, RANGE_SHIFT, false, true},
    {"map", {"guest id", "host id", "count", NULL}, RANGE_SHIFT, true, true},
    {"squash-guest", {"guest id", "host id", "count", NULL}, RANGE_SQUASH, true, false},
    {"squash-host", {"host id", "guest id", "count", NULL}, RANGE_SQUASH, false, true},
    {"forbid-guest", {"guest id", "count", NULL, NULL}, RANGE_FORBID, true, false},
};

/* ---- looking up ------------------------------------------------------------------- */

/* Return: the range that contains @id, or NULL. */
static const Range *find(const GArray *ranges, uint32_t id)
{
    guint low = 0;
    guint high = ranges->len;
    while (low < high) {
        guint middle = low + (high - low) / 2;
        const Range *range = &g_array_index(ranges, Range, middle);
        if (id < range->first) {
            high = middle;
        } else if (id - range->first >= range->count) {
            low = middle + 1;
        } else {
            return range;
        }
    }
    return NULL;
}

static uint32_t follow(const Range *range, uint32_t id)
{
    return range->kind == RANGE_SQUASH ? range->to : range->to + (id - range->first);
}

int pt_translate_to_host(const PtTranslation *translation, uint32_t guest,
                         uint32_t *ret_host)
{
    const Range *range = translation != NULL ? find(translation->to_host, guest) : NULL;
    if (range != NULL && range->kind == RANGE_FORBID) {
        return -EPERM;
    }
    *ret_host = range != NULL ? follow(range, guest) : guest;
    return 0;
}

uint32_t pt_translate_to_guest(const PtTranslation *translation, uint32_t host)
{
    const Range *range = translation != NULL ? find(translation->to_guest, host) : NULL;
    return range != NULL ? follow(range, host) : host;
}

int pt_translate_caller(const PtFs *fs, const PtCaller *guest, PtCaller *ret_host)
{
    const PtConfig *config = &fs->config;
    *ret_host = *guest;
    int r = pt_translate_to_host(config->uids, guest->uid, &ret_host->uid);
    if (r == 0) {
        r = pt_translate_to_host(config->gids, guest->gid, &ret_host->gid);
    }
    for (uint32_t i = 0; i < guest->n_groups && r == 0; i++) {
        r = pt_translate_to_host(config->gids, guest->groups[i], &ret_host->groups[i]);
    }
    return r;
}

void pt_attr_owner(const PtFs *fs, const PtAttr *attr, uint32_t *ret_uid,
                   uint32_t *ret_gid)
{
    *ret_uid = pt_translate_to_guest(fs->config.uids, attr->stx.stx_uid);
    *ret_gid = pt_translate_to_guest(fs->config.gids, attr->stx.stx_gid);
}

/* ---- parsing ---------------------------------------------------------------------- */

typedef struct Parser {
    const char *text;
    const char *at; /* where what is parsed next, or was parsed last, begins */
    GError **error;
} Parser;

G_GNUC_PRINTF(2, 3) static bool fail(const Parser *parser, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    g_autofree char *what = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_set_error(parser->error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
                "character %zu: %s", (size_t)(parser->at - parser->text) + 1, what);
    return false;
}

static bool is_word(char c)
{
    return g_ascii_isalnum(c) || c == '-' || c == '_';
}

static const struct Form *parse_form(Parser *parser, size_t length)
{
    for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) {
        if (strlen(forms[i].name) == length &&
            g_ascii_strncasecmp(forms[i].name, parser->text, length) == 0) {
            return &forms[i];
        }
    }
    (void)fail(parser, "the kind of rule must be one of guest, host, map, squash-guest,"
                       " squash-host, forbid-guest");
    return NULL;
}

/* The words behind the kind of rule, each after one mark that is no part of a word. */
static bool parse_fields(Parser *parser, const struct Form *form, const char *end,
                         uint32_t values[FIELDS_MAX], const char *places[FIELDS_MAX])
{
    for (size_t i = 0; form->fields[i] != NULL; i++) {
        guint64 number = 0;
        parser->at = end;
        if (*end == '\0') {
            return fail(parser, "the %s is missing", form->fields[i]);
        }
        parser->at = places[i] = g_utf8_next_char(end);
        for (end = parser->at; is_word(*end); end++) {
        }
        g_autofree char *word = g_strndup(parser->at, (size_t)(end - parser->at));
        /* Takes neither signs nor blanks. */
        if (!g_ascii_string_to_unsigned(word, 10, 0, ID_MAX + 1, &number, NULL)) {
            return fail(parser, "the %s must be a whole number from 0 to %u",
                        form->fields[i], ID_MAX);
        }
        values[i] = (uint32_t)number;
    }
    parser->at = end;
    return *end == '\0' || fail(parser, "nothing may follow the count");
}

/* Return: how many ranges begin before @first. */
static guint place_of(const GArray *ranges, uint32_t first)
{
    guint low = 0;
    guint high = ranges->len;
    while (low < high) {
        guint middle = low + (high - low) / 2;
        if (g_array_index(ranges, Range, middle).first < first) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Put a range in its place, or say what is in the way. */
static bool insert(Parser *parser, GArray *ranges, const Range *range)
{
    guint at = place_of(ranges, range->first);
    for (guint i = at > 0 ? at - 1 : 0; i < ranges->len && i <= at; i++) {
        const Range *other = &g_array_index(ranges, Range, i);
        if (other->first - range->first < range->count ||
            range->first - other->first < other->count) {
            return fail(parser, "an earlier rule translates %u to %u already",
                        other->first, other->first + (other->count - 1));
        }
    }
    g_array_insert_val(ranges, at, *range);
    return true;
}

static bool fits(uint32_t first, uint32_t count)
{
    return first <= ID_MAX && count - 1 <= ID_MAX - first;
}

static bool check(Parser *parser, const struct Form *form, const Range *range,
                  const char *places[FIELDS_MAX])
{
    bool forbids = form->kind == RANGE_FORBID;
    parser->at = places[forbids ? 1 : 2];
    if (range->count == 0) {
        return fail(parser, "the count must be at least 1");
    }
    parser->at = places[0];
    if (!fits(range->first, range->count)) {
        return fail(parser, "the highest id is %u", ID_MAX);
    }
    parser->at = places[1];
    return forbids || fits(range->to, form->kind == RANGE_SHIFT ? range->count : 1) ||
           fail(parser, "the highest id is %u", ID_MAX);
}

static bool add(Parser *parser, PtTranslation *translation)
{
    const char *end = parser->text;
    uint32_t values[FIELDS_MAX] = {0};
    const char *places[FIELDS_MAX] = {NULL};
    if (!g_utf8_validate(parser->text, -1, NULL)) {
        return fail(parser, "must be UTF-8");
    }
    while (is_word(*end)) {
        end++;
    }
    const struct Form *form = parse_form(parser, (size_t)(end - parser->text));
    if (form == NULL || !parse_fields(parser, form, end, values, places)) {
        return false;
    }
    bool forbids = form->kind == RANGE_FORBID;
    Range forth = {values[0], values[forbids ? 1 : 2], values[1], form->kind};
    Range back = {form->to_host ? forth.to : forth.first, forth.count,
                  form->to_host ? forth.first : forth.to, form->kind};
    if (!check(parser, form, &forth, places)) {
        return false;
    }
    parser->at = places[0];
    if (form->to_host && !insert(parser, translation->to_host, &forth)) {
        return false;
    }
    parser->at = places[form->to_host ? 1 : 0];
    return !form->to_guest || insert(parser, translation->to_guest, &back);
}

bool pt_translation_add(PtTranslation **translation, const char *rule, GError **error)
{
    Parser parser = {.text = rule, .at = rule, .error = error};
    if (*translation == NULL) {
        *translation = g_new(PtTranslation, 1);
        (*translation)->to_host = g_array_new(FALSE, FALSE, sizeof(Range));
        (*translation)->to_guest = g_array_new(FALSE, FALSE, sizeof(Range));
    }
    return add(&parser, *translation);
}

void pt_translation_free(PtTranslation *translation)
{
    if (translation != NULL) {
        g_array_unref(translation->to_host);
        g_array_unref(translation->to_guest);
        g_free(translation);
    }
}
