/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/xattr-map.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

/*
 * The map of attribute names: rules, of which the first that matches decides. A name from
 * the guest is matched with a rule's key, one from the host with its prepend; both are
 * beginnings of names. Each rule brings its own delimiter, and space may stand around it:
 *
 *     :type:scope:key:prepend:       type prefix, ok, bad, unsupported; scope client,
 *                                    server, all
 *     :map:key:prepend:              short for several of them, and the last
 *
 * A map has an answer for every name, or it is refused when it is parsed. It is made at
 * the start and never changes; looking up allocates nothing.
 */

#define RULES_MAX 256u

typedef enum Type { TYPE_PREFIX, TYPE_OK, TYPE_BAD, TYPE_UNSUPPORTED, TYPE_MAP } Type;

#define SCOPE_CLIENT 1u
#define SCOPE_SERVER 2u
#define SCOPE_ALL (SCOPE_CLIENT | SCOPE_SERVER)

typedef struct Word {
    const char *text;
    unsigned int value;
} Word;

static const Word types[] = {{"prefix", TYPE_PREFIX}, {"ok", TYPE_OK},
                             {"bad", TYPE_BAD},       {"unsupported", TYPE_UNSUPPORTED},
                             {"map", TYPE_MAP},       {NULL, 0}};
static const Word scopes[] = {
    {"client", SCOPE_CLIENT}, {"server", SCOPE_SERVER}, {"all", SCOPE_ALL}, {NULL, 0}};

/* What a name begins with. */
typedef struct Beginning {
    char *text;
    size_t length;
} Beginning;

typedef struct Rule {
    Type type;
    unsigned int scope;
    Beginning key;
    Beginning prepend;
} Rule;

struct PtXattrMap {
    GArray *rules; /* of Rule */
};

static void clear_rule(void *data)
{
    Rule *rule = data;
    g_free(rule->key.text);
    g_free(rule->prepend.text);
}

void pt_xattr_map_free(PtXattrMap *map)
{
    if (map != NULL) {
        g_array_unref(map->rules);
        g_free(map);
    }
}

/* ---- parsing ---------------------------------------------------------------------- */

typedef struct Parser {
    const char *text;
    const char *at;
    PtXattrMap *map;
    unsigned int n; /* rules begun */
    char delimiter; /* of the rule at hand */
    GError **error;
} Parser;

G_GNUC_PRINTF(2, 3) static bool fail(const Parser *parser, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    g_autofree char *what = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_set_error(parser->error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
                "rule %u, character %zu: %s", parser->n,
                (size_t)(parser->at - parser->text) + 1, what);
    return false;
}

/* Take what stands before the next delimiter, and the delimiter. */
static bool take_field(Parser *parser, const char *what, Beginning *ret_field)
{
    const char *end = strchr(parser->at, parser->delimiter);
    if (end == NULL) {
        return fail(parser, "the %s does not end with %c", what, parser->delimiter);
    }
    size_t length = (size_t)(end - parser->at);
    if (length > XATTR_NAME_MAX) {
        return fail(parser, "the %s is longer than %d bytes", what, XATTR_NAME_MAX);
    }
    *ret_field = (Beginning){g_strndup(parser->at, length), length};
    parser->at = end + 1;
    return true;
}

static bool take_word(Parser *parser, const char *what, const Word *words,
                      unsigned int *ret_value)
{
    const char *start = parser->at;
    Beginning field = {NULL, 0};
    if (!take_field(parser, what, &field)) {
        return false;
    }
    g_autofree char *text = field.text;
    g_autoptr(GString) list = g_string_new(NULL);
    for (const Word *word = words; word->text != NULL; word++) {
        if (strcmp(word->text, text) == 0) {
            *ret_value = word->value;
            return true;
        }
        g_string_append_printf(list, "%s%s", list->len > 0 ? ", " : "", word->text);
    }
    parser->at = start;
    return fail(parser, "the %s must be one of %s", what, list->str);
}

static void add(Parser *parser, Type type, const char *key, const char *prepend)
{
    Rule rule = {type,
                 SCOPE_ALL,
                 {g_strdup(key), strlen(key)},
                 {g_strdup(prepend), strlen(prepend)}};
    g_array_append_val(parser->map->rules, rule);
}

/* What begins with @rule's key is stored with its prepend before it, what already looks
 * so is out of reach, the rest passes. */
static void add_map(Parser *parser, const Rule *rule)
{
    const char *key = rule->key.text;
    const char *prepend = rule->prepend.text;
    add(parser, TYPE_PREFIX, key, prepend);
    if (key[0] == '\0') {
        add(parser, TYPE_BAD, "", "");
        return;
    }
    add(parser, TYPE_BAD, prepend, key);
    add(parser, TYPE_OK, "", "");
}

static void skip_space(Parser *parser)
{
    while (g_ascii_isspace(*parser->at)) {
        parser->at++;
    }
}

static bool take_rule(Parser *parser)
{
    Rule rule = {.type = TYPE_MAP};
    unsigned int type = 0;
    if (++parser->n > RULES_MAX) {
        return fail(parser, "more than %u rules", RULES_MAX);
    }
    parser->delimiter = *parser->at++;
    if (!take_word(parser, "type", types, &type) ||
        (type != TYPE_MAP && !take_word(parser, "scope", scopes, &rule.scope))) {
        return false;
    }
    rule.type = (Type)type;
    if (!take_field(parser, "key", &rule.key)) {
        return false;
    }
    if (!take_field(parser, "prepend", &rule.prepend)) {
        clear_rule(&rule);
        return false;
    }
    skip_space(parser);
    if (type != TYPE_MAP) {
        g_array_append_val(parser->map->rules, rule);
        return true;
    }
    add_map(parser, &rule);
    clear_rule(&rule);
    return *parser->at == '\0' || fail(parser, "nothing may follow a map rule");
}

/* Is there a rule that matches whatever comes from this side? */
static bool matches_all(const PtXattrMap *map, unsigned int side)
{
    for (guint i = 0; i < map->rules->len; i++) {
        const Rule *rule = &g_array_index(map->rules, Rule, i);
        const Beginning *beginning = side == SCOPE_CLIENT ? &rule->key : &rule->prepend;
        if ((rule->scope & side) && beginning->length == 0) {
            return true;
        }
    }
    return false;
}

static bool take_rules(Parser *parser)
{
    skip_space(parser);
    if (*parser->at == '\0') {
        return fail(parser, "there are no rules");
    }
    while (*parser->at != '\0') {
        if (!take_rule(parser)) {
            return false;
        }
    }
    if (!matches_all(parser->map, SCOPE_CLIENT)) {
        return fail(parser, "no rule is left for other names from the guest:"
                            " end with :bad:all::: or :ok:all:::");
    }
    if (!matches_all(parser->map, SCOPE_SERVER)) {
        return fail(parser, "no rule is left for other names from the host:"
                            " end with :bad:all::: or :ok:all:::");
    }
    return true;
}

PtXattrMap *pt_xattr_map_parse(const char *rules, GError **error)
{
    g_autoptr(PtXattrMap) map = g_new0(PtXattrMap, 1);
    Parser parser = {.text = rules, .at = rules, .map = map, .error = error};
    map->rules = g_array_new(FALSE, FALSE, sizeof(Rule));
    g_array_set_clear_func(map->rules, clear_rule);
    return take_rules(&parser) ? g_steal_pointer(&map) : NULL;
}

/* ---- mapping ---------------------------------------------------------------------- */

static bool begins_with(const char *name, const Beginning *beginning)
{
    return strncmp(name, beginning->text, beginning->length) == 0;
}

static const Rule *find(const PtXattrMap *map, unsigned int side, const char *name)
{
    for (guint i = 0; i < map->rules->len; i++) {
        const Rule *rule = &g_array_index(map->rules, Rule, i);
        const Beginning *beginning = side == SCOPE_CLIENT ? &rule->key : &rule->prepend;
        if ((rule->scope & side) && begins_with(name, beginning)) {
            return rule;
        }
    }
    return NULL; /* not reached: the parser has seen to it */
}

int pt_xattr_map_client(const PtXattrMap *map, const char *name, PtXattrName *ret_name)
{
    const Rule *rule = find(map, SCOPE_CLIENT, name);
    if (rule == NULL || rule->type == TYPE_BAD) {
        return -EPERM;
    }
    if (rule->type == TYPE_UNSUPPORTED) {
        return -EOPNOTSUPP;
    }
    size_t before = rule->type == TYPE_PREFIX ? rule->prepend.length : 0;
    size_t length = strlen(name);
    if (before + length > XATTR_NAME_MAX) {
        return -ERANGE;
    }
    memcpy(ret_name->text, rule->prepend.text, before);
    memcpy(ret_name->text + before, name, length + 1);
    return 0;
}

const char *pt_xattr_map_server(const PtXattrMap *map, const char *name)
{
    const Rule *rule = find(map, SCOPE_SERVER, name);
    if (rule == NULL || rule->type == TYPE_BAD || rule->type == TYPE_UNSUPPORTED) {
        return NULL;
    }
    /* Nothing but the prefix is no name. */
    const char *shown = name + (rule->type == TYPE_PREFIX ? rule->prepend.length : 0);
    return *shown != '\0' ? shown : NULL;
}

bool pt_xattr_map_keeps(const PtXattrMap *map, const char *name)
{
    PtXattrName mapped;
    if (pt_xattr_map_client(map, name, &mapped) < 0 || strcmp(mapped.text, name) != 0) {
        return false;
    }
    const char *shown = pt_xattr_map_server(map, name);
    return shown != NULL && strcmp(shown, name) == 0;
}
