/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_COMMAND_LINE_H
#define TESTS_UNIT_COMMAND_LINE_H

#include <glib.h>
#include <string.h>

#include "virtiofsd/options.h"

/*
 * Command lines as one string.
 */

#define SERVE "--shared-dir=/srv --fd=3 "

/* Splits at single blanks; "\t" in an argument stands for a blank. */
static inline char **split(const char *line)
{
    g_autofree char *whole =
        g_strconcat("virtiofsd", line[0] != '\0' ? " " : "", line, NULL);
    char **argv = g_strsplit(whole, " ", -1);

    for (char **at = argv; *at != NULL; at++) {
        g_strdelimit(*at, "\t", ' ');
    }
    return argv;
}

static inline Options *parse(const char *line)
{
    g_auto(GStrv) argv = split(line);
    g_autoptr(GError) error = NULL;
    Options *options = options_parse((int)g_strv_length(argv), argv, &error);

    if (options == NULL) {
        g_error("%s: %s", line, error->message);
    }
    return options;
}

/* One line of printable ASCII that tells @words. */
static inline void assert_refused(const char *line, const char *words)
{
    g_auto(GStrv) argv = split(line);
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) options = options_parse((int)g_strv_length(argv), argv, &error);

    if (options != NULL) {
        g_error("accepted: %s", line);
    }
    g_assert_nonnull(error);
    if (strstr(error->message, words) == NULL) {
        g_error("%s: \"%s\" does not say \"%s\"", line, error->message, words);
    }
    for (const char *at = error->message; *at != '\0'; at++) {
        g_assert_true(g_ascii_isprint(*at));
    }
    g_assert_cmpuint(strlen(error->message), <, 400);
}

#endif
