/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/differential/compare.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tests/differential/run.h"

/*
 * Field by field. Inode numbers differ, so each native file is paired with the first
 * number that was seen for it on the mount, and must keep it. Times that a program set
 * must be equal; those that are "now" must have moved on both sides or on none, since the
 * file was last looked at.
 */

enum { MOUNT, NATIVE };

/* Seconds. What was made in a lower layer since then counts as made just now. */
enum { LOWER_AGE = 86400 };

static const char *const field_names[FIELD_N] = {
    "return", "number", "offset", "flags",  "refused", "stat",    "data", "path", "name",
    "names",  "target", "xattr",  "statfs", "lock",    "spliced", "room", "cut",  "hole",
};

/* Places of holes that were compared, and those that were not. */
static unsigned holes[2];

typedef struct Step {
    Comparer *comparer;
    const Op *op;
    uint32_t index;
    const OutField *field[2];
} Step;

static const void *bytes_of(const OutField *field)
{
    return field + 1;
}

/* Whether a difference is excused; else it is noted. */
static bool differ(Step *step, const char *part, const char *mount, const char *native)
{
    Comparer *comparer = step->comparer;
    const OutField *any =
        step->field[MOUNT] != NULL ? step->field[MOUNT] : step->field[NATIVE];
    Seen seen = {.comparer = comparer,
                 .op = step->op,
                 .field = field_names[any->tag],
                 .part = part};
    if (step->field[MOUNT] != NULL && step->field[NATIVE] != NULL &&
        step->field[MOUNT]->tag == step->field[NATIVE]->tag) {
        seen.mount = bytes_of(step->field[MOUNT]);
        seen.native = bytes_of(step->field[NATIVE]);
    }
    if (!comparer->mode->control && except_covers(&seen)) {
        return true;
    }
    comparer->field = seen.field;
    comparer->part = part;
    g_string_printf(comparer->text, "%s%s%s.%s: mount %s, native %s", comparer->path,
                    comparer->path[0] != '\0' ? " " : "", seen.field, part, mount,
                    native);
    return false;
}

static bool same_number(Step *step, const char *part, int64_t mount, int64_t native)
{
    char text[2][64];
    if (mount == native) {
        return true;
    }
    for (int i = 0; i < 2; i++) {
        int64_t number = i == MOUNT ? mount : native;
        bool is_mode = strcmp(part, "mode") == 0;
        bool error = number < 0 && number > -4096 && strcmp(part, "value") == 0 &&
                     step->field[i]->tag == FIELD_RETURN;
        if (error) {
            g_strlcpy(text[i], strerrorname_np((int)-number), sizeof(text[i]));
        } else {
            g_snprintf(text[i], sizeof(text[i]), is_mode ? "%#" PRIo64 : "%" PRId64,
                       number);
        }
    }
    return differ(step, part, text[MOUNT], text[NATIVE]);
}

/* ---- attributes ------------------------------------------------------------------- */

static bool same_time(OutTime a, OutTime b)
{
    return a.s == b.s && a.ns == b.ns;
}

static bool time_differs(Step *step, const char *part, const OutTime times[2],
                         const char *note)
{
    char text[2][64];
    for (int i = 0; i < 2; i++) {
        g_snprintf(text[i], sizeof(text[i]), "%" PRId64 ".%09" PRId64 "%s", times[i].s,
                   times[i].ns, i == MOUNT ? note : "");
    }
    return differ(step, part, text[MOUNT], text[NATIVE]);
}

static bool compare_time(Step *step, const char *part, OutTime mount, OutTime native)
{
    const OutTime times[2] = {mount, native};
    bool recent[2] = {except_recent(step->comparer, mount),
                      except_recent(step->comparer, native)};
    if (recent[MOUNT] && recent[NATIVE]) {
        return true;
    }
    return same_time(mount, native) || time_differs(step, part, times, "");
}

/* Some file systems give a directory the coarse time of the file that is named in it: a
 * change in the tick of the last one does not move it, and a batch may run in a tick. */
static bool is_coarse(const OutStat *native, OutTime mover, OutTime other)
{
    return S_ISDIR(native->mode) && mover.s - other.s <= 2;
}

/* Whether both moved since they were last seen, or both did not. */
static bool compare_move(Step *step, const char *part, const OutStat *native,
                         const OutTime times[2][2])
{
    const OutTime *before = times[0], *now = times[1];
    bool moved[2] = {!same_time(before[MOUNT], now[MOUNT]),
                     !same_time(before[NATIVE], now[NATIVE])};
    int mover = moved[MOUNT] ? MOUNT : NATIVE;
    return moved[MOUNT] == moved[NATIVE] || is_coarse(native, now[mover], now[!mover]) ||
           time_differs(step, part, now, moved[MOUNT] ? " moved" : " did not move");
}

static Pair *pair_of(Step *step, OutFile native)
{
    GHashTable *pairs = step->comparer->pairs;
    Pair *pair = g_hash_table_lookup(pairs, &native.ino);
    if (pair == NULL) {
        uint64_t *key = g_new(uint64_t, 1);
        *key = native.ino;
        pair = g_new0(Pair, 1);
        g_hash_table_insert(pairs, key, pair);
    }
    if (!same_time(pair->btime, native.btime) || pair->handle != native.handle) {
        /* the number belongs to another file now */
        *pair = (Pair){.btime = native.btime, .handle = native.handle};
    }
    return pair;
}

static Pair *pair_of_stat(Step *step, const OutStat *native)
{
    return pair_of(step, (OutFile){native->ino, native->handle, native->btime});
}

/* Of what a file has room for, but does not hold yet, that counts as data which is in the
 * page cache; and how much was read ahead differs. */
static bool compare_hole(Step *step)
{
    const OutHole *mount = bytes_of(step->field[MOUNT]);
    const OutHole *native = bytes_of(step->field[NATIVE]);
    bool is_place[2] = {mount->value >= 0 || mount->value == -ENXIO,
                        native->value >= 0 || native->value == -ENXIO};
    const Pair *pair = pair_of(step, native->file);
    if (pair->roomy && !step->comparer->mode->memory && is_place[MOUNT] &&
        is_place[NATIVE]) {
        holes[1]++;
        return true;
    }
    holes[0]++;
    return same_number(step, "value", mount->value, native->value);
}

static bool note_file(Step *step)
{
    Pair *pair = pair_of(step, *(const OutFile *)bytes_of(step->field[NATIVE]));
    switch (step->field[NATIVE]->tag) {
    case FIELD_ROOM:
        pair->roomy = true;
        break;
    case FIELD_CUT:
        pair->cut = true;
        break;
    default:
        pair->spliced = true;
        break;
    }
    return true;
}

static bool compare_history(Step *step, const OutStat *mount, const OutStat *native)
{
    const uint32_t needed = STATX_MTIME | STATX_CTIME;
    if ((native->wanted & needed) != needed) {
        return true;
    }
    Pair *pair = pair_of_stat(step, native);
    bool same = true;
    if (pair->seen) {
        const OutTime mtime[2][2] = {{pair->mount.mtime, pair->native.mtime},
                                     {mount->mtime, native->mtime}};
        const OutTime ctime[2][2] = {{pair->mount.ctime, pair->native.ctime},
                                     {mount->ctime, native->ctime}};
        same = same_number(step, "ino", (int64_t)mount->ino, (int64_t)pair->mount_ino) &&
               compare_move(step, "ctime moves", native, ctime) &&
               compare_move(step, "mtime moves", native, mtime);
    }
    pair->mount_ino = mount->ino;
    pair->seen = true;
    pair->mount = (Times){mount->mtime, mount->ctime};
    pair->native = (Times){native->mtime, native->ctime};
    return same;
}

static bool compare_times(Step *step, const OutStat *mount, const OutStat *native)
{
    const struct {
        uint32_t bit;
        const char *name;
        OutTime mount;
        OutTime native;
    } times[] = {{STATX_ATIME, "atime", mount->atime, native->atime},
                 {STATX_MTIME, "mtime", mount->mtime, native->mtime},
                 {STATX_CTIME, "ctime", mount->ctime, native->ctime},
                 {STATX_BTIME, "btime", mount->btime, native->btime}};
    uint32_t wanted = native->wanted;
    if (pair_of_stat(step, native)->spliced) {
        wanted &= ~STATX_ATIME;
    }
    bool same = true;
    for (size_t i = 0; same && i < G_N_ELEMENTS(times); i++) {
        same = (wanted & times[i].bit) == 0 ||
               compare_time(step, times[i].name, times[i].mount, times[i].native);
    }
    return same;
}

/* What is not asked for is told from what the guest keeps, and that may be old. */
static bool compare_asked(Step *step, const OutStat *mount, const OutStat *native)
{
    const struct {
        uint32_t bit;
        const char *name;
        uint64_t mount;
        uint64_t native;
    } parts[] = {{STATX_MODE, "mode", mount->mode, native->mode},
                 {STATX_NLINK, "nlink", mount->nlink, native->nlink},
                 {STATX_UID, "uid", mount->uid, native->uid},
                 {STATX_GID, "gid", mount->gid, native->gid},
                 {STATX_SIZE, "size", mount->size, native->size}};
    bool same = true;
    for (size_t i = 0; same && i < G_N_ELEMENTS(parts); i++) {
        same = (native->wanted & parts[i].bit) == 0 ||
               same_number(step, parts[i].name, (int64_t)parts[i].mount,
                           (int64_t)parts[i].native);
    }
    return same;
}

static bool compare_stat(Step *step)
{
    const OutStat *mount = bytes_of(step->field[MOUNT]);
    const OutStat *native = bytes_of(step->field[NATIVE]);
    bool same = same_number(step, "mask", mount->mask & native->wanted,
                            native->mask & native->wanted) &&
                compare_asked(step, mount, native) &&
                same_number(step, "blksize", mount->blksize, native->blksize) &&
                same_number(step, "rdev major", mount->rdev_major, native->rdev_major) &&
                same_number(step, "rdev minor", mount->rdev_minor, native->rdev_minor) &&
                same_number(step, "same device", mount->same_device, native->same_device);
    /* How many blocks a file system takes for the same data depends on when it wrote
     * them; whether it took any does not, once all is written. */
    if (same && native->settled && S_ISREG(native->mode) &&
        !pair_of_stat(step, native)->cut) {
        same = same_number(step, "has blocks", mount->blocks != 0, native->blocks != 0);
    }
    return same && compare_times(step, mount, native) &&
           compare_history(step, mount, native);
}

/* ---- listings --------------------------------------------------------------------- */

static Listing *listing_of(Step *step, const OutNames *names)
{
    if (ops_rows[step->op->code].run != run_readdir) {
        return NULL;
    }
    Listing *listing = &step->comparer->listings[(size_t)step->op->arg[0] % SIDE_SLOTS];
    if (listing->since != names->since) {
        *listing = (Listing){.since = names->since, .sought = listing->sought};
    }
    return listing;
}

static void remember_name(Listing *listing, int side, const OutField *field)
{
    char name[256] = "";
    const OutName *head = bytes_of(field);
    memcpy(name, head + 1, field->size - sizeof(*head));
    int number = path_name(name);
    if (number >= 0) {
        listing->seen[side] |= 1u << number;
    }
}

/* A name that did not change while the directory was read must have been seen. */
static bool compare_seen(Step *step, const Listing *listing)
{
    for (int name = 0; name < PATH_NAMES; name++) {
        bool seen[2] = {(listing->seen[MOUNT] >> name) & 1,
                        (listing->seen[NATIVE] >> name) & 1};
        if (seen[MOUNT] != seen[NATIVE] &&
            step->comparer->touched[name] < listing->since) {
            char text[32];
            g_snprintf(text, sizeof(text), "name %d", name);
            return differ(step, "missing", seen[MOUNT] ? text : "not",
                          seen[NATIVE] ? text : "not");
        }
    }
    return true;
}

static bool same_field(const OutField *a, const OutField *b)
{
    return a->tag == b->tag && a->size == b->size &&
           memcmp(bytes_of(a), bytes_of(b), a->size) == 0;
}

static char *tell_name(const OutField *field)
{
    if (field->tag != FIELD_NAME) {
        return g_strdup("the end");
    }
    const OutName *head = bytes_of(field);
    g_autofree char *raw =
        g_strndup((const char *)(head + 1), field->size - sizeof(*head));
    g_autofree char *escaped = g_strescape(raw, NULL);
    return g_strdup_printf("\"%s\" type %u", escaped, head->type);
}

static bool names_differ(Step *step)
{
    g_autofree char *mount = tell_name(step->field[MOUNT]);
    g_autofree char *native = tell_name(step->field[NATIVE]);
    return differ(step, "sequence", mount, native);
}

/* Moves both sides behind the end of the listing. */
static bool compare_names(Step *step, const uint8_t *at[2], const uint8_t *const end[2])
{
    const OutField *first[2] = {step->field[0], step->field[1]};
    const uint8_t *first_at[2] = {at[0], at[1]};
    for (int i = 0; i < 2; i++) { /* find the end, where it says whether names changed */
        while (step->field[i] != NULL && step->field[i]->tag == FIELD_NAME) {
            step->field[i] = out_next(&at[i], end[i]);
        }
        if (step->field[i] == NULL || step->field[i]->tag != FIELD_NAMES) {
            return differ(step, "listing", "?", "?");
        }
    }
    const OutNames *names = bytes_of(step->field[NATIVE]);
    const OutNames *mounts = bytes_of(step->field[MOUNT]);
    Listing *listing = listing_of(step, names);
    for (int i = 0; i < 2 && listing != NULL; i++) {
        const uint8_t *walk = first_at[i];
        for (const OutField *f = first[i]; f->tag == FIELD_NAME;
             f = out_next(&walk, end[i])) {
            remember_name(listing, i, f);
        }
    }
    if (names->changed) {
        return listing == NULL || listing->sought > listing->since || !names->ended ||
               !mounts->ended || compare_seen(step, listing);
    }
    const uint8_t *walk[2] = {first_at[0], first_at[1]};
    step->field[0] = first[0];
    step->field[1] = first[1];
    while (step->field[0]->tag == FIELD_NAME || step->field[1]->tag == FIELD_NAME) {
        if (!same_field(step->field[0], step->field[1])) {
            return names_differ(step);
        }
        step->field[0] = out_next(&walk[0], end[0]);
        step->field[1] = out_next(&walk[1], end[1]);
    }
    return true;
}

/* ---- everything ------------------------------------------------------------------- */

static bool compare_bytes(Step *step)
{
    if (same_field(step->field[MOUNT], step->field[NATIVE])) {
        return true;
    }
    char *text[2];
    for (int i = 0; i < 2; i++) {
        g_autoptr(GString) told = g_string_new(NULL);
        const uint8_t *bytes = bytes_of(step->field[i]);
        bool is_text = step->field[i]->tag != FIELD_DATA;
        for (uint32_t k = 0; k < step->field[i]->size && k < 64; k++) {
            g_string_append_printf(told, is_text ? "%c" : "%02x", bytes[k]);
        }
        text[i] = g_strescape(told->str, NULL);
    }
    bool excused = differ(step, "bytes", text[MOUNT], text[NATIVE]);
    g_free(text[0]);
    g_free(text[1]);
    return excused;
}

static bool compare_numbers(Step *step)
{
    static const char *const statfs_parts[] = {"bsize", "frsize", "blocks", "files",
                                               "namelen"};
    static const char *const lock_parts[] = {"type", "whence", "start", "length"};
    const int64_t *mount = bytes_of(step->field[MOUNT]);
    const int64_t *native = bytes_of(step->field[NATIVE]);
    size_t n = step->field[MOUNT]->size / sizeof(int64_t);
    uint32_t tag = step->field[MOUNT]->tag;
    for (size_t i = 0; i < n; i++) {
        const char *part = tag == FIELD_STATFS ? statfs_parts[i]
                           : tag == FIELD_LOCK ? lock_parts[i]
                                               : "value";
        if (!same_number(step, part, mount[i], native[i])) {
            return false;
        }
    }
    return true;
}

static bool compare_field(Step *step)
{
    switch ((FieldTag)step->field[MOUNT]->tag) {
    case FIELD_STAT:
        return compare_stat(step);
    case FIELD_RETURN:
    case FIELD_NUMBER:
    case FIELD_OFFSET:
    case FIELD_FLAGS:
    case FIELD_REFUSED:
    case FIELD_STATFS:
    case FIELD_LOCK:
        return compare_numbers(step);
    case FIELD_PATH:
        g_snprintf(step->comparer->path, sizeof(step->comparer->path), "%.*s",
                   (int)step->field[MOUNT]->size,
                   (const char *)bytes_of(step->field[MOUNT]));
        return compare_bytes(step);
    case FIELD_SPLICED:
    case FIELD_ROOM:
    case FIELD_CUT:
        return note_file(step);
    case FIELD_HOLE:
        return compare_hole(step);
    default:
        return compare_bytes(step);
    }
}

static bool is_listing(const OutField *field)
{
    return field != NULL && (field->tag == FIELD_NAME || field->tag == FIELD_NAMES);
}

static const char *field_text(const OutField *field, char text[64])
{
    if (field == NULL) {
        return "nothing more";
    }
    if (field->tag == FIELD_RETURN) {
        int64_t value = *(const int64_t *)bytes_of(field);
        if (value < 0 && value > -4096) {
            return strerrorname_np((int)-value);
        }
        g_snprintf(text, 64, "%" PRId64, value);
        return text;
    }
    return field_names[field->tag];
}

static void note_names(Comparer *comparer, const Op *op, uint32_t index)
{
    const OpRow *row = &ops_rows[op->code];
    for (int i = 0; i < OP_ARGS; i++) {
        if (row->kinds[i] != KIND_PATH && row->kinds[i] != KIND_DIR_PATH) {
            continue;
        }
        for (int name = 0; name < PATH_NAMES; name++) {
            if (path_uses_name(op->arg[i], name)) {
                comparer->touched[name] = index;
            }
        }
    }
    if (row->run == run_seekdir) {
        comparer->listings[(size_t)op->arg[0] % SIDE_SLOTS].sought = index;
    }
}

bool compare_op(Comparer *comparer, const Op *op, uint32_t index,
                const uint8_t *const begin[2], const uint8_t *const end[2])
{
    const uint8_t *at[2] = {begin[0], begin[1]};
    char text[2][64];
    comparer->path[0] = '\0';
    note_names(comparer, op, index);
    for (;;) {
        Step step = {.comparer = comparer, .op = op, .index = index};
        step.field[0] = out_next(&at[0], end[0]);
        step.field[1] = out_next(&at[1], end[1]);
        if (step.field[0] == NULL && step.field[1] == NULL) {
            return true;
        }
        bool same;
        if (is_listing(step.field[0]) && is_listing(step.field[1])) {
            same = compare_names(&step, at, end);
        } else if (step.field[0] == NULL || step.field[1] == NULL ||
                   step.field[0]->tag != step.field[1]->tag) {
            same = differ(&step, "presence", field_text(step.field[0], text[0]),
                          field_text(step.field[1], text[1]));
            if (same) {
                return true; /* nothing behind it can be matched */
            }
        } else {
            same = compare_field(&step);
        }
        if (!same) {
            return false;
        }
    }
}

void compare_report(void)
{
    (void)printf("places of holes: %u compared, %u not comparable\n", holes[0], holes[1]);
}

void compare_init(Comparer *comparer, const Mode *mode)
{
    *comparer = (Comparer){.mode = mode, .start = time(NULL)};
    if (mode->overlay) {
        comparer->start -= LOWER_AGE;
    }
    comparer->pairs = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, g_free);
    comparer->text = g_string_new(NULL);
}

void compare_clear(Comparer *comparer)
{
    g_hash_table_destroy(comparer->pairs);
    (void)g_string_free(comparer->text, TRUE);
}
