/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/differential/path.h"

#include <string.h>

/*
 * A path is, from the lowest bit: 3 bits of depth, four names of 5 bits each, 3 bits of
 * decoration. Depth 0 is the empty path.
 */

enum { DEPTH_BITS = 3, NAME_BITS = 5, DEPTH_MAX = 4, DECORATION_AT = 23 };

enum {
    PLAIN,
    SLASH_BEHIND,
    SLASH_BEFORE,
    DOT_BEFORE,
    TWO_SLASHES,
    DOT_BEHIND,
    DOTS_BEHIND,
    DECORATIONS,
};

enum { LONG_254 = 18, LONG_255, LONG_256, DOT, DOTS, ODD };

/* The common ones come first. */
static const char *const names[PATH_NAMES] = {
    "a",       "b", "c",   "d",   "e",   "f",   "g",        "h",
    "k",       "m", "sub", "dir", "lnk", "x y", "\xc3\xa9", "new\nline",
    ".hidden", "T", NULL,  NULL,  NULL,  ".",   "..",       "\x01\xff",
};

static const char *name_of(unsigned name, char buffer[300])
{
    name %= PATH_NAMES;
    if (names[name] != NULL) {
        return names[name];
    }
    size_t length = 254 + name - LONG_254;
    memset(buffer, 'n', length);
    buffer[length] = '\0';
    return buffer;
}

/* Names that are mostly directories, so that longer paths lead somewhere. */
static unsigned draw_directory(Rng *rng)
{
    static const unsigned char some[] = {4, 10, 11};
    return some[rng_below(rng, sizeof(some))];
}

static unsigned draw_name(Rng *rng)
{
    switch (rng_below(rng, 64)) {
    case 0:
        return LONG_254 + rng_below(rng, 3);
    case 1:
        return DOT + rng_below(rng, 2);
    case 2:
    case 3:
        return 12 + rng_below(rng, PATH_NAMES - 12);
    case 4:
    case 5:
    case 6:
    case 7:
    case 8:
        return rng_below(rng, 12);
    default:
        return rng_below(rng, 6);
    }
}

static unsigned depth_of(int64_t path)
{
    unsigned depth = (unsigned)path & ((1u << DEPTH_BITS) - 1);
    return depth > DEPTH_MAX ? DEPTH_MAX : depth;
}

static unsigned name_at(int64_t path, unsigned i)
{
    return (unsigned)(path >> (DEPTH_BITS + NAME_BITS * i)) & ((1u << NAME_BITS) - 1);
}

static unsigned decoration_of(int64_t path)
{
    return (unsigned)(path >> DECORATION_AT) % DECORATIONS;
}

int64_t path_draw(Rng *rng, gboolean directory)
{
    static const unsigned char depths[16] = {1, 1, 1, 1, 1, 1, 1, 2,
                                             2, 2, 2, 2, 2, 3, 3, 4};
    unsigned depth = depths[rng_below(rng, 16)];
    if (rng_below(rng, 100) == 0) {
        depth = 0;
    }
    uint64_t path = depth;
    for (unsigned i = 0; i < depth; i++) {
        gboolean inner = directory || i + 1 < depth;
        unsigned name =
            inner && rng_below(rng, 5) > 0 ? draw_directory(rng) : draw_name(rng);
        path |= (uint64_t)name << (DEPTH_BITS + NAME_BITS * i);
    }
    if (rng_below(rng, 16) == 0) {
        path |= (uint64_t)rng_below(rng, DECORATIONS) << DECORATION_AT;
    }
    return (int64_t)path;
}

/* Bit 40 and up: targets that are no paths of ours. */
int64_t path_draw_target(Rng *rng)
{
    if (rng_below(rng, 20) == 0) {
        return (int64_t)(1 + rng_below(rng, 4)) << 40;
    }
    return path_draw(rng, FALSE);
}

static void decode_odd_target(int64_t which, char text[PATH_ROOM])
{
    static const unsigned short lengths[] = {60, 59, 1023, 2047};
    size_t length = lengths[(which - 1) & 3];
    for (size_t i = 0; i < length; i++) {
        text[i] = i % 20 == 19 ? '/' : 't';
    }
    text[length] = '\0';
}

void path_decode(int64_t path, char text[PATH_ROOM])
{
    char buffer[300];
    unsigned depth = depth_of(path), decoration = decoration_of(path);
    if (path >> 40 != 0) {
        decode_odd_target(path >> 40, text);
        return;
    }
    g_autoptr(GString) string = g_string_sized_new(64);
    if (decoration == SLASH_BEFORE) {
        g_string_append_c(string, '/');
    } else if (decoration == DOT_BEFORE) {
        g_string_append(string, "./");
    }
    for (unsigned i = 0; i < depth; i++) {
        if (i > 0) {
            g_string_append(string, decoration == TWO_SLASHES ? "//" : "/");
        }
        g_string_append(string, name_of(name_at(path, i), buffer));
    }
    if (decoration == SLASH_BEHIND) {
        g_string_append_c(string, '/');
    } else if (decoration == DOT_BEHIND) {
        g_string_append(string, "/.");
    } else if (decoration == DOTS_BEHIND) {
        g_string_append(string, "/..");
    }
    g_strlcpy(text, string->str, PATH_ROOM);
}

void path_tell(int64_t path, GString *text)
{
    char decoded[PATH_ROOM];
    path_decode(path, decoded);
    g_autofree char *escaped = g_strescape(decoded, NULL);
    size_t length = strlen(escaped);
    if (length > 80) {
        g_string_append_printf(text, "\"%.20s...%s\"(%zu)", escaped,
                               escaped + length - 20, length);
    } else {
        g_string_append_printf(text, "\"%s\"", escaped);
    }
}

gboolean path_simpler(int64_t path, unsigned i, int64_t *ret_path)
{
    unsigned depth = depth_of(path);
    if (path >> 40 != 0) {
        *ret_path = 1;
        return i == 0;
    }
    if (i == 0) {
        *ret_path = path & ((1 << DECORATION_AT) - 1);
        return *ret_path != path;
    }
    i--;
    if (i < depth && depth > 1) { /* without the i-th name */
        uint64_t shorter = depth - 1;
        for (unsigned at = 0, to = 0; at < depth; at++) {
            if (at != i) {
                shorter |= (uint64_t)name_at(path, at) << (DEPTH_BITS + NAME_BITS * to++);
            }
        }
        *ret_path = (int64_t)shorter | (path & ~(int64_t)((1 << DECORATION_AT) - 1));
        return TRUE;
    }
    return FALSE;
}

int path_name(const char *name)
{
    char buffer[300];
    for (unsigned i = 0; i < PATH_NAMES; i++) {
        if (strcmp(name, name_of(i, buffer)) == 0) {
            return (int)i;
        }
    }
    return -1;
}

gboolean path_uses_name(int64_t path, int name)
{
    unsigned depth = depth_of(path);
    for (unsigned i = 0; i < depth; i++) {
        if ((int)(name_at(path, i) % PATH_NAMES) == name) {
            return TRUE;
        }
    }
    return FALSE;
}
