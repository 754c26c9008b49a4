/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Maps of user and group ids, as --uid-map and --gid-map write them: which id of the host
 * is behind an id of our user namespace.
 */
#include <string.h>

#include "sandbox/idmap.h"

/* What the kernel takes: the highest number is no id. */
#define ID_MAX UINT32_MAX

static bool fail_format(GError **error)
{
    g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_INVAL,
                "must be three numbers, each between two of the same mark, as in"
                " :0:100000:65536: (inside, outside, count)");
    return false;
}

/* The mark is any one character that is neither a letter nor a digit. */
static bool read_mark(const char *text, char *ret_mark, GError **error)
{
    if (!g_utf8_validate(text, -1, NULL) || text[0] == '\0' ||
        g_unichar_isalnum(g_utf8_get_char(text))) {
        return fail_format(error);
    }
    gint length = g_unichar_to_utf8(g_utf8_get_char(text), ret_mark);
    ret_mark[length] = '\0';
    return true;
}

static bool parse_number(const char *text, uint32_t *ret_number)
{
    /* Takes neither signs nor blanks. */
    guint64 number = 0;

    if (!g_ascii_string_to_unsigned(text, 10, 0, UINT32_MAX, &number, NULL)) {
        return false;
    }
    *ret_number = (uint32_t)number;
    return true;
}

static bool parse_range(const char *text, SandboxIdRange *ret_range, GError **error)
{
    char mark[8];

    if (!read_mark(text, mark, error)) {
        return false;
    }
    g_auto(GStrv) words = g_strsplit(text, mark, -1);
    /* Nothing before the first mark, nothing after the last. */
    if (g_strv_length(words) != 5 || words[0][0] != '\0' || words[4][0] != '\0' ||
        !parse_number(words[1], &ret_range->inside) ||
        !parse_number(words[2], &ret_range->outside) ||
        !parse_number(words[3], &ret_range->count)) {
        return fail_format(error);
    }
    return true;
}

static bool fits(uint32_t first, uint32_t count)
{
    return count <= ID_MAX - first;
}

static bool overlap(uint32_t first, uint32_t count, uint32_t other, uint32_t other_count)
{
    return first < other ? other - first < count : first - other < other_count;
}

static bool check_range(const SandboxIdMap *map, const SandboxIdRange *range,
                        GError **error)
{
    if (range->count == 0 || !fits(range->inside, range->count) ||
        !fits(range->outside, range->count)) {
        g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_INVAL,
                    "the count must be at least 1, and no id above 4294967294");
        return false;
    }
    for (unsigned int i = 0; i < map->n; i++) {
        const SandboxIdRange *other = &map->ranges[i];
        const char *side = NULL;
        if (overlap(range->inside, range->count, other->inside, other->count)) {
            side = "inside";
        } else if (overlap(range->outside, range->count, other->outside, other->count)) {
            side = "outside";
        }
        if (side != NULL) {
            g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_INVAL,
                        "overlaps :%u:%u:%u: %s: an id can be mapped once only",
                        other->inside, other->outside, other->count, side);
            return false;
        }
    }
    return true;
}

bool sandbox_id_map_add(SandboxIdMap *map, const char *text, GError **error)
{
    SandboxIdRange range;

    if (!parse_range(text, &range, error) || !check_range(map, &range, error)) {
        return false;
    }
    if (map->n == SANDBOX_ID_RANGES_MAX) {
        g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_INVAL,
                    "the kernel takes no more than %d ranges", SANDBOX_ID_RANGES_MAX);
        return false;
    }
    map->ranges[map->n++] = range;
    return true;
}

bool sandbox_id_map_is_own(const SandboxIdMap *map, uint32_t own)
{
    return map->n == 1 && map->ranges[0].count == 1 && map->ranges[0].outside == own;
}

static bool has_inside(const SandboxIdMap *map, uint32_t inside)
{
    for (unsigned int i = 0; i < map->n; i++) {
        if (inside - map->ranges[i].inside < map->ranges[i].count) {
            return true;
        }
    }
    return false;
}

uint32_t sandbox_id_map_choose(const SandboxIdMap *map, uint32_t own)
{
    if (has_inside(map, 0)) {
        return 0;
    }
    for (unsigned int i = 0; i < map->n; i++) {
        const SandboxIdRange *range = &map->ranges[i];
        if (own - range->outside < range->count) {
            return range->inside + (own - range->outside);
        }
    }
    return map->ranges[0].inside;
}
