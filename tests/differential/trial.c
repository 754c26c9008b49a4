/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/differential/trial.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/differential/compare.h"
#include "tests/differential/run.h"

/*
 * Drawing and running sequences. Both processes work at the same time on the same batch;
 * the comparer looks at it when both have ended it.
 */

/* ---- drawing ---------------------------------------------------------------------- */

static bool is_served(const Mode *mode, const OpRow *row)
{
    unsigned served =
        (mode->xattr ? OP_NEEDS_XATTR : 0) | (mode->acl ? OP_NEEDS_ACL : 0) |
        (mode->tmpfile ? OP_NEEDS_TMPFILE : 0) | (mode->ioctl ? OP_NEEDS_IOCTL : 0);
    return (row->needs & ~served) == 0;
}

static Op draw_op(const Mode *mode, Rng *rng, unsigned sum)
{
    Op op = {0};
    unsigned at = rng_below(rng, sum);
    for (size_t i = 0; i < ops_n_rows; i++) {
        const OpRow *row = &ops_rows[i];
        unsigned weight = is_served(mode, row) ? row->weight : 0;
        if (at < weight) {
            op.code = (uint16_t)i;
            break;
        }
        at -= weight;
    }
    for (int i = 0; i < OP_ARGS; i++) {
        op.arg[i] = kind_draw(ops_rows[op.code].kinds[i], rng);
    }
    if (ops_rows[op.code].run == run_open && (op.arg[2] & O_DIRECTORY) != 0) {
        op.arg[1] = kind_draw(KIND_DIR_PATH, rng);
        op.arg[4] = kind_draw(KIND_DIR_SLOT, rng);
    }
    return op;
}

/* Something to begin with: directories, and files that are open. */
static void draw_beginning(GArray *ops)
{
    static const char *const lines[] = {
        "mkdir 0 -1 81 511",    /* sub */
        "mkdir 0 -1 89 511",    /* dir */
        "mkdir 1 -1 33 493",    /* e */
        "open 0 -1 1 66 438 0", /* a, O_RDWR|O_CREAT */
        "open 1 -1 9 66 438 1",    "open 2 -1 17 66 420 2",
        "open 0 -1 25 1090 511 3", /* O_APPEND too */
        "open 0 -1 81 65536 0 4",  "open 0 -1 89 65536 0 5",
        "write 0 0 5000 1",
    };
    for (size_t i = 0; i < G_N_ELEMENTS(lines); i++) {
        g_autofree char *line = g_strdup(lines[i]);
        Op op;
        if (script_parse(line, &op)) {
            g_array_append_val(ops, op);
        }
    }
}

void trial_draw(const Mode *mode, uint64_t seed, size_t n, GArray *ops)
{
    enum { WALK_EVERY = 250 };
    Rng rng = {seed * UINT64_C(0x100000001b3) + 77};
    unsigned sum = 0;
    for (size_t i = 0; i < ops_n_rows; i++) {
        sum += is_served(mode, &ops_rows[i]) ? ops_rows[i].weight : 0;
    }
    uint16_t who = 0, walk = (uint16_t)ops_find("walk");
    draw_beginning(ops);
    for (size_t i = ops->len; i <= n; i++) {
        Op op = {.code = walk, .arg = {i == n}};
        if (i % WALK_EVERY != 0 && i != n) {
            op = draw_op(mode, &rng, sum);
            if (rng_below(&rng, 6) == 0) {
                who = (uint16_t)(rng_below(&rng, 2) ? rng_below(&rng, OP_PERSONAS) : 0);
            }
            op.who = who;
        }
        g_array_append_val(ops, op);
    }
}

/* ---- trees ------------------------------------------------------------------------ */

static void remove_contents(int fd)
{
    DIR *dir = fdopendir(fd);
    const struct dirent *entry;
    if (dir == NULL) {
        (void)close(fd);
        return;
    }
    while ((entry = readdir(dir)) != NULL) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
            continue;
        }
        if (unlinkat(dirfd(dir), name, 0) < 0) {
            int inner = openat(dirfd(dir), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
            if (inner >= 0) {
                remove_contents(inner);
            }
            (void)unlinkat(dirfd(dir), name, AT_REMOVEDIR);
        }
    }
    (void)closedir(dir);
}

static void remove_tree(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY);
    if (fd >= 0) {
        remove_contents(fd);
    }
    (void)rmdir(path);
}

/* ---- running ---------------------------------------------------------------------- */

typedef struct Run {
    Trial *trial;
    Op *shared; /* SIDE_BATCH operations */
    SideProcess sides[2];
    char *paths[2];
    Comparer comparer;
} Run;

static bool run_start(Run *run)
{
    unsigned number = run->trial->first + run->trial->count++;
    run->shared = mmap(NULL, SIDE_BATCH * sizeof(Op), PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 2; i++) {
        run->paths[i] = g_strdup_printf("%s/case-%u", run->trial->directories[i], number);
        int r = mkdir(run->paths[i], 0777);
        if (r < 0 && errno == EEXIST && run->trial->mode->overlay) {
            r = 0; /* the lower layer holds it, with files */
        }
        if (r < 0 || chmod(run->paths[i], 0777) < 0) {
            (void)fprintf(stderr, "%s: %s\n", run->paths[i], strerrorname_np(errno));
            return false;
        }
    }
    compare_init(&run->comparer, run->trial->mode);
    for (int i = 0; i < 2; i++) {
        bool mount = i == 0 && !run->trial->mode->control;
        Mode mode = *run->trial->mode; /* the process takes a copy along */
        mode.broken = mode.broken && i == 1;
        if (side_start(&run->sides[i], run->paths[i], &mode, mount, run->shared) < 0) {
            return false;
        }
    }
    return true;
}

static void run_stop(Run *run)
{
    for (int i = 0; i < 2; i++) {
        side_stop(&run->sides[i]);
        remove_tree(run->paths[i]);
        g_free(run->paths[i]);
    }
    compare_clear(&run->comparer);
    (void)munmap(run->shared, SIDE_BATCH * sizeof(Op));
}

/* ---- statistics ------------------------------------------------------------------- */

#define ROWS_MAX 128
#define ERRNOS 134

static unsigned results_of[ROWS_MAX][ERRNOS];

/* By the first result that an operation tells; 0 is success. */
static void count(const Op *op, const uint8_t *at, const uint8_t *end)
{
    const OutField *field;
    while ((field = out_next(&at, end)) != NULL) {
        if (field->tag == FIELD_RETURN) {
            int64_t value = *(const int64_t *)(const void *)(field + 1);
            results_of[op->code][value < 0 && -value < ERRNOS ? -value : 0]++;
            return;
        }
    }
    results_of[op->code][0]++;
}

void trial_report(void)
{
    for (size_t i = 0; i < ops_n_rows && i < ROWS_MAX; i++) {
        (void)printf("%-12s %7u", ops_rows[i].name, results_of[i][0]);
        for (int k = 1; k < ERRNOS; k++) {
            if (results_of[i][k] > 0) {
                (void)printf(" %s:%u", strerrorname_np(k), results_of[i][k]);
            }
        }
        (void)printf("\n");
    }
}

/* ---- batches ---------------------------------------------------------------------- */

static void note(const Run *run, const Op *op, size_t index, Finding *finding)
{
    *finding = (Finding){.index = index,
                         .code = op->code,
                         .field = run->comparer.field,
                         .part = run->comparer.part};
    g_strlcpy(finding->text, run->comparer.text->str, sizeof(finding->text));
}

static Verdict run_batch(Run *run, size_t first, size_t n, Finding *ret_finding)
{
    for (int i = 0; i < 2; i++) {
        side_begin(&run->sides[i], (uint32_t)first, (uint32_t)n);
    }
    int ended[2] = {side_finish(&run->sides[0]), side_finish(&run->sides[1])};
    if (ended[0] < 0 || ended[1] < 0) {
        (void)fprintf(stderr, "a process ended: %d %d\n", ended[0], ended[1]);
        return VERDICT_BROKEN;
    }
    for (size_t k = 0; k < n; k++) {
        const uint8_t *at[2], *end[2];
        for (int i = 0; i < 2; i++) {
            const SideResults *results = run->sides[i].results;
            at[i] = results->bytes + (k > 0 ? results->end[k - 1] : 0);
            end[i] = results->bytes + results->end[k];
        }
        count(&run->shared[k], at[1], end[1]);
        if (!compare_op(&run->comparer, &run->shared[k], (uint32_t)(first + k), at,
                        end)) {
            note(run, &run->shared[k], first + k, ret_finding);
            return VERDICT_DIFFERENT;
        }
    }
    return VERDICT_SAME;
}

Verdict trial_run(Trial *trial, const Op *ops, size_t n, Finding *ret_finding)
{
    Run run = {.trial = trial};
    Verdict verdict = VERDICT_SAME;
    if (!run_start(&run)) {
        return VERDICT_BROKEN;
    }
    for (size_t done = 0; done < n && verdict == VERDICT_SAME; done += SIDE_BATCH) {
        size_t now = MIN(n - done, SIDE_BATCH);
        memcpy(run.shared, ops + done, now * sizeof(Op));
        verdict = run_batch(&run, done + 1, now, ret_finding);
    }
    if (verdict == VERDICT_DIFFERENT) {
        ret_finding->index -= 1; /* operations are counted from 1, for `since` */
    }
    run_stop(&run);
    return verdict;
}
