/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the maps of ids: lines that begin with 'm' are ranges of --uid-map, those with
 * 't' rules of --translate-uid. What is accepted is kept here a second time, in the most
 * simple way, and must answer alike for the ids at every edge.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "passthrough/translate.h"
#include "sandbox/idmap.h"

#define MOST_BYTES 8192u
#define MOST_RULES 512u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A rule that was accepted, with the numbers as they stand in it. */
typedef struct Rule {
    char kind[16];
    uint32_t first, to, count;
} Rule;

typedef struct Model {
    Rule rules[MOST_RULES];
    size_t n;
} Model;

static void expect_error(bool accepted, const GError *error)
{
    g_assert_true(accepted == (error == NULL));
    if (error != NULL) {
        g_assert_cmpuint(strlen(error->message), >, 0);
    }
}

/* ---- --uid-map ----------------------------------------------------------------------
 */

static bool overlap(uint32_t a, uint32_t b, uint32_t a_count, uint32_t b_count)
{
    return a < (uint64_t)b + b_count && b < (uint64_t)a + a_count;
}

static void check_map(const SandboxIdMap *map)
{
    const SandboxIdRange *last = &map->ranges[map->n - 1];

    g_assert_cmpuint(map->n, <=, SANDBOX_ID_RANGES_MAX);
    g_assert_cmpuint(last->count, >, 0);
    g_assert_cmpuint((uint64_t)last->inside + last->count, <=, UINT32_MAX);
    g_assert_cmpuint((uint64_t)last->outside + last->count, <=, UINT32_MAX);
    for (unsigned int i = 0; i + 1 < map->n; i++) {
        const SandboxIdRange *other = &map->ranges[i];
        g_assert_false(overlap(last->inside, other->inside, last->count, other->count));
        g_assert_false(overlap(last->outside, other->outside, last->count, other->count));
    }
    (void)sandbox_id_map_is_own(map, last->outside);
    uint32_t chosen = sandbox_id_map_choose(map, last->outside + last->count - 1);
    bool is_inside = false;
    for (unsigned int i = 0; i < map->n; i++) {
        is_inside =
            is_inside || overlap(chosen, map->ranges[i].inside, 1, map->ranges[i].count);
    }
    g_assert_true(is_inside);
}

static void add_range(SandboxIdMap *map, const char *text)
{
    g_autoptr(GError) error = NULL;
    unsigned int before = map->n;
    bool accepted = sandbox_id_map_add(map, text, &error);

    expect_error(accepted, error);
    g_assert_cmpuint(map->n, ==, before + (accepted ? 1 : 0));
    if (accepted) {
        check_map(map);
    }
}

/* ---- --translate-uid ----------------------------------------------------------------
 */

static bool is_kind(const Rule *rule, const char *kind)
{
    return g_ascii_strcasecmp(rule->kind, kind) == 0;
}

static uint32_t shift(const Rule *rule, uint32_t id, bool squashes)
{
    return rule->to + (squashes ? 0 : id - rule->first);
}

static int model_to_host(const Model *model, uint32_t id, uint32_t *ret_host)
{
    *ret_host = id;
    for (size_t i = 0; i < model->n; i++) {
        const Rule *rule = &model->rules[i];
        if (is_kind(rule, "host") || is_kind(rule, "squash-host") ||
            !overlap(id, rule->first, 1, rule->count)) {
            continue;
        }
        if (is_kind(rule, "forbid-guest")) {
            return -EPERM;
        }
        *ret_host = shift(rule, id, is_kind(rule, "squash-guest"));
    }
    return 0;
}

static uint32_t model_to_guest(const Model *model, uint32_t id)
{
    for (size_t i = 0; i < model->n; i++) {
        const Rule *rule = &model->rules[i];
        const Rule back = {"map", rule->to, rule->first, rule->count};
        if (is_kind(rule, "map") && overlap(id, back.first, 1, back.count)) {
            return shift(&back, id, false);
        }
        if ((is_kind(rule, "host") || is_kind(rule, "squash-host")) &&
            overlap(id, rule->first, 1, rule->count)) {
            return shift(rule, id, is_kind(rule, "squash-host"));
        }
    }
    return id;
}

static void check_id(const PtTranslation *translation, const Model *model, uint32_t id)
{
    uint32_t host = 0;
    uint32_t expected = 0;
    int result = pt_translate_to_host(translation, id, &host);

    g_assert_cmpint(result, ==, model_to_host(model, id, &expected));
    if (result == 0) {
        g_assert_cmpuint(host, ==, expected);
    }
    g_assert_cmpuint(pt_translate_to_guest(translation, id), ==,
                     model_to_guest(model, id));
}

/* A rule that was accepted has any mark but word's between its parts. */
static Rule read_rule(const char *text)
{
    Rule rule = {.kind = ""};
    guint64 numbers[3] = {0};
    const char *at = text;
    size_t length = 0;

    for (; g_ascii_isalnum(*at) || *at == '-' || *at == '_'; at++, length++) {
        g_assert_cmpuint(length, <, sizeof(rule.kind) - 1);
        rule.kind[length] = *at;
    }
    for (size_t i = 0; i < 3 && *at != '\0'; i++) {
        char *end = NULL;
        numbers[i] = g_ascii_strtoull(g_utf8_next_char(at), &end, 10);
        g_assert_cmpuint(numbers[i], <=, UINT32_MAX);
        at = end;
    }
    g_assert_cmpint(*at, ==, '\0');
    rule.first = (uint32_t)numbers[0];
    if (is_kind(&rule, "forbid-guest")) {
        rule.count = (uint32_t)numbers[1];
    } else {
        rule.to = (uint32_t)numbers[1];
        rule.count = (uint32_t)numbers[2];
    }
    return rule;
}

static void add_rule(PtTranslation **translation, Model *model, const char *text)
{
    g_autoptr(GError) error = NULL;
    bool accepted = pt_translation_add(translation, text, &error);

    expect_error(accepted, error);
    if (accepted) {
        model->rules[model->n++] = read_rule(text);
    } else {
        /* The daemon would not start; half of the rule may be in there. */
        g_clear_pointer(translation, pt_translation_free);
        model->n = 0;
    }
}

static void check_edges(const PtTranslation *translation, const Model *model)
{
    for (size_t i = 0; i < model->n; i++) {
        const Rule *rule = &model->rules[i];
        const uint32_t starts[] = {rule->first, rule->to};
        g_assert_cmpuint(rule->count, >, 0);
        for (size_t j = 0; j < G_N_ELEMENTS(starts); j++) {
            check_id(translation, model, starts[j] - 1);
            check_id(translation, model, starts[j]);
            check_id(translation, model, starts[j] + rule->count - 1);
            check_id(translation, model, starts[j] + rule->count);
        }
    }
    check_id(translation, model, 0);
    check_id(translation, model, UINT32_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree SandboxIdMap *map = g_new0(SandboxIdMap, 1);
    g_autofree Model *model = g_new0(Model, 1);
    g_autoptr(PtTranslation) translation = NULL;

    if (size > MOST_BYTES) {
        return 0;
    }
    g_autofree char *text = g_strndup((const char *)data, size);
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (size_t i = 0; lines[i] != NULL; i++) {
        if (lines[i][0] == 'm') {
            add_range(map, lines[i] + 1);
        } else if (lines[i][0] == 't' && model->n < MOST_RULES) {
            add_rule(&translation, model, lines[i] + 1);
        }
    }
    check_edges(translation, model);
    return 0;
}
