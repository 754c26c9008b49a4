/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/differential/trial.h"

/*
 * Sequences as text: the operation's name, who does it, its arguments as numbers, and
 * behind a '#' what they mean.
 */

static const char *const who_names[OP_PERSONAS] = {"root",  "1000",      "1001",
                                                   "65534", "1000:2000", "0:1000"};

char *script_tell(const Op *op)
{
    const OpRow *row = &ops_rows[op->code];
    GString *text = g_string_new(row->name);
    g_string_append_c(text, '(');
    for (int i = 0; i < OP_ARGS && row->kinds[i] != KIND_NONE; i++) {
        g_string_append(text, i > 0 ? ", " : "");
        kind_tell(row->kinds[i], op->arg[i], text);
    }
    g_string_append_printf(text, ") by %s", who_names[op->who]);
    return g_string_free(text, FALSE);
}

void script_write(FILE *file, const Op *ops, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        g_autofree char *told = script_tell(&ops[i]);
        const OpRow *row = &ops_rows[ops[i].code];
        (void)fprintf(file, "%s %u", row->name, ops[i].who);
        for (int k = 0; k < OP_ARGS && row->kinds[k] != KIND_NONE; k++) {
            (void)fprintf(file, " %" PRId64, ops[i].arg[k]);
        }
        (void)fprintf(file, " # %s\n", told);
    }
}

gboolean script_parse(char *line, Op *op)
{
    char *comment = strchr(line, '#');
    if (comment != NULL) {
        *comment = '\0';
    }
    g_auto(GStrv) words = g_strsplit_set(g_strstrip(line), " ", -1);
    guint n = g_strv_length(words);
    int code = n >= 2 ? ops_find(words[0]) : -1;
    if (code < 0 || n > OP_ARGS + 2) {
        return FALSE;
    }
    *op = (Op){.code = (uint16_t)code, .who = (uint16_t)atoi(words[1])};
    for (guint i = 2; i < n; i++) {
        op->arg[i - 2] = g_ascii_strtoll(words[i], NULL, 10);
    }
    return op->who < OP_PERSONAS;
}

gboolean script_read(const char *path, GArray *ops, GError **error)
{
    g_autofree char *text = NULL;
    if (!g_file_get_contents(path, &text, NULL, error)) {
        return FALSE;
    }
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (guint i = 0; lines[i] != NULL; i++) {
        Op op;
        if (lines[i][0] == '\0' || lines[i][0] == '#') {
            continue;
        }
        if (!script_parse(lines[i], &op)) {
            g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_INVAL,
                        "%s:%u: not an operation", path, i + 1);
            return FALSE;
        }
        g_array_append_val(ops, op);
    }
    return TRUE;
}
