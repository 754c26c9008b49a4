/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the process prints about itself and exits: help, version, capabilities, lists.
 */
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "virtiofsd/options-table.h"

#define HELP_COLUMN 30 /* where the texts begin */
#define WIDTH_DEFAULT 80
#define WIDTH_LEAST 60
#define WIDTH_MOST 120

/* Features that management software asks for by name. "...-negotiation-mode": the option
 * takes never, auto or always. "separate-options": every option has a long form, -o is
 * not needed. */
static const char *const features[] = {
    "posix-acl-negotiation-mode",
    "security-label-negotiation-mode",
    "separate-options",
};

static size_t screen_width(void)
{
    struct winsize size = {0};

    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col == 0) {
        return WIDTH_DEFAULT;
    }
    return CLAMP((size_t)size.ws_col, WIDTH_LEAST, WIDTH_MOST);
}

/* Prints words from @column on, with every further line indented to HELP_COLUMN. */
static void print_wrapped(size_t column, const char *text, size_t width)
{
    g_auto(GStrv) words = g_strsplit(text, " ", -1);

    if (column >= HELP_COLUMN) {
        (void)printf("\n");
        column = 0;
    }
    (void)printf("%*s", (int)(HELP_COLUMN - column), "");
    column = HELP_COLUMN;
    for (size_t i = 0; words[i] != NULL; i++) {
        size_t length = strlen(words[i]);

        if (i > 0 && column + 1 + length > width) {
            (void)printf("\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        } else if (i > 0) {
            (void)printf(" ");
            column++;
        }
        (void)printf("%s", words[i]);
        column += length;
    }
    (void)printf("\n");
}

/* The option as one writes it: "--cache=MODE", "--posix-acl[=MODE]", "-o LIST". */
static char *spell(const OptionsRow *row)
{
    if (row->name == NULL) {
        return g_strdup_printf("-%c%s%s", row->letter, row->metavar != NULL ? " " : "",
                               row->metavar != NULL ? row->metavar : "");
    }
    if (row->metavar == NULL) {
        return g_strdup_printf("--%s", row->name);
    }
    return g_strdup_printf(row->bare != NULL ? "--%s[=%s]" : "--%s=%s", row->name,
                           row->metavar);
}

static void print_row(const OptionsRow *row, size_t width)
{
    g_autofree char *spelled = spell(row);
    g_autoptr(GString) text = g_string_new(row->help);
    char letter[8] = "";

    if (row->standard != NULL) {
        g_string_append_printf(text, " (default: %s)", row->standard);
    }
    if ((row->flags & OPTIONS_LATER) != 0) {
        g_string_append(text, " [not in this version]");
    }
    if (row->letter != '\0' && row->name != NULL) {
        (void)g_snprintf(letter, sizeof(letter), "-%c, ", row->letter);
    }
    int column = printf("  %s%s", letter, spelled);
    print_wrapped((size_t)MAX(column, 0), text->str, width);
}

static void print_help(void)
{
    size_t width = screen_width();

    (void)printf("Usage: virtiofsd --shared-dir=DIR {--socket-path=PATH | --fd=N}"
                 " [OPTION]...\n"
                 "Serve a directory to a virtual machine over virtio-fs.\n");
    for (int group = 0; group < OPTIONS_N_GROUPS; group++) {
        (void)printf("\n%s:\n", options_group_titles[group]);
        for (size_t i = 0; i < options_n_rows; i++) {
            const OptionsRow *row = &options_rows[i];

            if ((int)row->group == group && (row->flags & OPTIONS_HIDDEN) == 0) {
                print_row(row, width);
            }
        }
    }
    (void)printf("\nA value follows after = or as the next argument.\n"
                 "The manual page virtiofsd(1) tells more.\n");
}

static void print_capabilities(void)
{
    (void)printf("{\n  \"type\": \"fs\",\n  \"features\": [\n");
    for (size_t i = 0; i < G_N_ELEMENTS(features); i++) {
        (void)printf("    \"%s\"%s\n", features[i],
                     i + 1 < G_N_ELEMENTS(features) ? "," : "");
    }
    (void)printf("  ]\n}\n");
}

static void print_list(void)
{
    for (size_t i = 0; i < options_n_rows; i++) {
        const OptionsRow *row = &options_rows[i];
        g_autofree char *spelled = spell(row);

        if ((row->flags & OPTIONS_HIDDEN) != 0) {
            continue;
        }
        if (row->name != NULL && row->letter != '\0') {
            (void)printf("-%c\n", row->letter);
        }
        (void)printf("%s\n", spelled);
    }
    options_legacy_list();
}

void options_print(OptionsAction action)
{
    switch (action) {
    case OPTIONS_SERVE:
        break;
    case OPTIONS_HELP:
        print_help();
        break;
    case OPTIONS_VERSION:
        (void)printf("virtiofsd %s\n", VIRTIOFSD_VERSION);
        break;
    case OPTIONS_PRINT_CAPABILITIES:
        print_capabilities();
        break;
    case OPTIONS_LIST:
        print_list();
        break;
    }
    /* A reader that has gone has seen enough. */
    (void)fflush(stdout);
}
