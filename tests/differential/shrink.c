/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "tests/differential/trial.h"

/*
 * Shrinking: operations are left out in ever smaller pieces, then what remains is made
 * simpler, as long as the same mismatch is still found. Then once more, until nothing
 * helps.
 */

typedef struct Shrinking {
    Trial *trial;
    GArray *ops;
    Finding *finding;
    gint64 deadline;
} Shrinking;

static gboolean is_late(const Shrinking *s)
{
    return g_get_monotonic_time() > s->deadline;
}

/* Whether @ops still differ in the same way; then they are the new sequence. */
static gboolean try_ops(Shrinking *s, GArray *ops)
{
    Finding found;
    if (is_late(s) ||
        trial_run(s->trial, (const Op *)(void *)ops->data, ops->len, &found) !=
            VERDICT_DIFFERENT ||
        found.code != s->finding->code || strcmp(found.field, s->finding->field) != 0 ||
        strcmp(found.part, s->finding->part) != 0) {
        return FALSE;
    }
    *s->finding = found;
    g_array_set_size(ops, (guint)found.index + 1);
    g_array_set_size(s->ops, 0);
    g_array_append_vals(s->ops, ops->data, ops->len);
    return TRUE;
}

static GArray *copy_without(const GArray *ops, guint from, guint n)
{
    GArray *copy = g_array_new(FALSE, FALSE, sizeof(Op));
    g_array_append_vals(copy, ops->data, ops->len);
    g_array_remove_range(copy, from, MIN(n, ops->len - from));
    return copy;
}

static gboolean leave_out(Shrinking *s)
{
    gboolean any = FALSE;
    for (guint piece = MAX(s->ops->len / 2, 1); piece >= 1; piece /= 2) {
        guint from = s->ops->len;
        while (from > 0 && !is_late(s)) {
            from = from > piece ? from - piece : 0;
            if (from >= s->ops->len) {
                continue;
            }
            g_autoptr(GArray) fewer = copy_without(s->ops, from, piece);
            any = (fewer->len > 0 && try_ops(s, fewer)) || any;
        }
    }
    return any;
}

static gboolean try_value(Shrinking *s, guint i, int argument, int64_t value)
{
    g_autoptr(GArray) simpler = copy_without(s->ops, 0, 0);
    Op *op = &g_array_index(simpler, Op, i);
    if (argument < 0) {
        op->who = (uint16_t)value;
    } else {
        op->arg[argument] = value;
    }
    return try_ops(s, simpler);
}

static gboolean simplify_argument(Shrinking *s, guint i, int argument)
{
    for (unsigned k = 0; k < 24; k++) {
        const Op *op = &g_array_index(s->ops, Op, i);
        int64_t value;
        if (!kind_simpler(ops_rows[op->code].kinds[argument], op->arg[argument], k,
                          &value)) {
            return FALSE;
        }
        if (try_value(s, i, argument, value)) {
            return TRUE;
        }
    }
    return FALSE;
}

static gboolean simplify(Shrinking *s)
{
    gboolean any = FALSE;
    for (guint i = 0; i < s->ops->len && !is_late(s); i++) {
        if (g_array_index(s->ops, Op, i).who != 0) {
            any = try_value(s, i, -1, 0) || any;
        }
        for (int argument = 0; argument < OP_ARGS && i < s->ops->len; argument++) {
            while (i < s->ops->len && simplify_argument(s, i, argument)) {
                any = TRUE;
            }
        }
    }
    return any;
}

void shrink(Trial *trial, GArray *ops, Finding *finding, gint64 seconds)
{
    Shrinking s = {trial, ops, finding,
                   g_get_monotonic_time() + seconds * G_USEC_PER_SEC};
    g_array_set_size(ops, (guint)finding->index + 1);
    while ((leave_out(&s) || simplify(&s)) && !is_late(&s)) {
    }
}
