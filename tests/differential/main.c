/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/differential/compare.h"
#include "tests/differential/trial.h"

/*
 * The differential test: random operations on a mounted share and on a native directory
 * must be answered alike. Exit status: 0 alike, 1 different, 2 usage, 3 could not run.
 */

typedef struct Options {
    char *mount;
    char *native;
    char *replay;
    char *save;
    gint64 seed;
    gint64 n_ops;
    gint64 length;
    gint64 seconds;
    gboolean keep_going;
    gboolean verbose;
    char **modes;
} Options;

/* The words of --mode. */
static const struct Word {
    const char *name;
    size_t at;
} words[] = {
    {"control", offsetof(Mode, control)},
    {"cached", offsetof(Mode, cached)},
    {"cached-names", offsetof(Mode, cached_names)},
    {"mmap", offsetof(Mode, mmap)},
    {"writeback", offsetof(Mode, writeback)},
    {"xattr", offsetof(Mode, xattr)},
    {"acl", offsetof(Mode, acl)},
    {"direct", offsetof(Mode, direct)},
    {"noatime", offsetof(Mode, noatime)},
    {"tmpfile", offsetof(Mode, tmpfile)},
    {"ioctl", offsetof(Mode, ioctl)},
    {"statx", offsetof(Mode, statx)},
    {"memory", offsetof(Mode, memory)},
    {"killpriv", offsetof(Mode, killpriv)},
    {"overlay", offsetof(Mode, overlay)},
    {"btrfs", offsetof(Mode, btrfs)},
    {"xfs", offsetof(Mode, xfs)},
    {"broken", offsetof(Mode, broken)},
};

static bool set_mode(Mode *mode, const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(words); i++) {
        if (strcmp(words[i].name, name) == 0) {
            *(bool *)((char *)mode + words[i].at) = true;
            return true;
        }
    }
    (void)fprintf(stderr, "differential: no such mode: %s\n", name);
    return false;
}

static void save(const Options *options, const Finding *finding, const GArray *ops,
                 gint64 seed)
{
    if (options->save == NULL) {
        return;
    }
    g_autofree char *path = g_strdup_printf("%s/seed-%" PRId64, options->save, seed);
    FILE *file = fopen(path, "we");
    if (file != NULL) {
        (void)fprintf(file, "# %s\n", finding->text);
        script_write(file, (const Op *)(void *)ops->data, ops->len);
        (void)fclose(file);
    }
}

static void report(Trial *trial, const Options *options, GArray *ops, Finding *finding,
                   gint64 seed)
{
    g_autofree char *told = script_tell(&g_array_index(ops, Op, finding->index));
    (void)printf("DIFFERENT: seed %" PRId64 ", operation %zu: %s\n  %s\n", seed,
                 finding->index, told, finding->text);
    (void)fflush(stdout);
    if (options->seconds > 0) {
        shrink(trial, ops, finding, options->seconds);
    } else {
        guint n = (guint)finding->index + 1;
        g_array_set_size(ops, n);
        g_array_remove_range(ops, 0, n > 20 ? n - 20 : 0);
    }
    (void)printf("shortest sequence: %s\n", finding->text);
    script_write(stdout, (const Op *)(void *)ops->data, ops->len);
    (void)fflush(stdout);
    save(options, finding, ops, seed);
}

static int run_replay(Trial *trial, const Options *options)
{
    g_autoptr(GArray) ops = g_array_new(FALSE, TRUE, sizeof(Op));
    g_autoptr(GError) error = NULL;
    Finding finding;
    if (!script_read(options->replay, ops, &error)) {
        (void)fprintf(stderr, "differential: %s\n", error->message);
        return 2;
    }
    Verdict verdict = trial_run(trial, (const Op *)(void *)ops->data, ops->len, &finding);
    if (verdict == VERDICT_DIFFERENT) {
        g_autofree char *told = script_tell(&g_array_index(ops, Op, finding.index));
        (void)printf("DIFFERENT: %s: operation %zu: %s\n  %s\n", options->replay,
                     finding.index, told, finding.text);
    }
    return verdict == VERDICT_SAME ? 0 : verdict == VERDICT_DIFFERENT ? 1 : 3;
}

static int run_cases(Trial *trial, const Options *options)
{
    gint64 started = g_get_monotonic_time(), done = 0;
    int status = 0;
    for (gint64 i = 0; done < options->n_ops && (status == 0 || options->keep_going);
         i++) {
        g_autoptr(GArray) ops = g_array_new(FALSE, TRUE, sizeof(Op));
        Finding finding;
        gint64 n = MIN(options->length, options->n_ops - done);
        trial_draw(trial->mode, (uint64_t)(options->seed + i), (size_t)n, ops);
        Verdict verdict =
            trial_run(trial, (const Op *)(void *)ops->data, ops->len, &finding);
        if (verdict == VERDICT_BROKEN) {
            return 3;
        }
        if (verdict == VERDICT_DIFFERENT) {
            report(trial, options, ops, &finding, options->seed + i);
            status = 1;
        }
        done += n;
    }
    double seconds = (double)(g_get_monotonic_time() - started) / G_USEC_PER_SEC;
    (void)printf("%" PRId64 " operations, %.0f per second\n", done,
                 (double)done / seconds);
    except_report();
    if (options->verbose) {
        trial_report();
        compare_report();
    }
    return status;
}

int main(int argc, char **argv)
{
    Options options = {.n_ops = 10000, .length = 2000, .seed = 1, .seconds = 60};
    const GOptionEntry entries[] = {
        {"mount", 0, 0, G_OPTION_ARG_FILENAME, &options.mount, "directory to test",
         "DIR"},
        {"native", 0, 0, G_OPTION_ARG_FILENAME, &options.native,
         "directory to compare with", "DIR"},
        {"seed", 0, 0, G_OPTION_ARG_INT64, &options.seed, "of the first case (1)", "N"},
        {"ops", 0, 0, G_OPTION_ARG_INT64, &options.n_ops, "how many (10000)", "N"},
        {"length", 0, 0, G_OPTION_ARG_INT64, &options.length,
         "operations on one pair of trees (2000)", "N"},
        {"shrink", 0, 0, G_OPTION_ARG_INT64, &options.seconds,
         "seconds for shrinking a sequence (60)", "N"},
        {"replay", 0, 0, G_OPTION_ARG_FILENAME, &options.replay, "run a script", "FILE"},
        {"save", 0, 0, G_OPTION_ARG_FILENAME, &options.save, "write scripts there",
         "DIR"},
        {"keep-going", 0, 0, G_OPTION_ARG_NONE, &options.keep_going,
         "look for further differences", NULL},
        {"verbose", 0, 0, G_OPTION_ARG_NONE, &options.verbose,
         "tell what the operations were answered", NULL},
        {"mode", 0, 0, G_OPTION_ARG_STRING_ARRAY, &options.modes,
         "what the daemon was told; may be repeated", "WORD"},
        {NULL, 0, 0, G_OPTION_ARG_NONE, NULL, NULL, NULL},
    };
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);
    g_autoptr(GError) error = NULL;
    Mode mode = {0};
    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &error) || options.mount == NULL ||
        options.native == NULL) {
        (void)fprintf(stderr, "differential: %s\n",
                      error != NULL ? error->message : "--mount and --native are needed");
        return 2;
    }
    for (char **word = options.modes; word != NULL && *word != NULL; word++) {
        if (!set_mode(&mode, *word)) {
            return 2;
        }
    }
    mode.far = side_far(options.native);
    Trial trial = {.mode = &mode,
                   .directories = {options.mount, options.native},
                   .first = mode.overlay ? 0 : (unsigned)getpid() * 100000u};
    return options.replay != NULL ? run_replay(&trial, &options)
                                  : run_cases(&trial, &options);
}
