/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/differential/kind.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/differential/path.h"

/*
 * Most kinds are lists: of values, one of which is drawn by weight, or of a value and of
 * flags, each of which is added by chance. The others are numbers with a taste for edges.
 */

#ifndef RWF_NOAPPEND
#define RWF_NOAPPEND 0x20
#endif

typedef struct Choice {
    const char *name;
    int64_t value;
    unsigned weight; /* of a value; of a flag: one time in so many */
} Choice;

typedef struct List {
    const Choice *values;
    const Choice *flags;
} List;

#define VALUE(name, weight)                                                              \
    {                                                                                    \
#name, name, weight                                                              \
    }
#define CHOICES(...)                                                                     \
    (const Choice[])                                                                     \
    {                                                                                    \
        __VA_ARGS__,                                                                     \
        {                                                                                \
            NULL, 0, 0                                                                   \
        }                                                                                \
    }

static const List lists[KIND_N] = {
    [KIND_OPEN] = {CHOICES(VALUE(O_RDONLY, 4), VALUE(O_WRONLY, 2), VALUE(O_RDWR, 6),
                           VALUE(O_ACCMODE, 1)),
                   CHOICES(VALUE(O_CREAT, 2), VALUE(O_EXCL, 12), VALUE(O_TRUNC, 8),
                           VALUE(O_APPEND, 8), VALUE(O_DIRECTORY, 8),
                           VALUE(O_NOFOLLOW, 16), VALUE(O_PATH, 24), VALUE(O_DIRECT, 24),
                           {"O_SYNC", O_SYNC & ~O_DSYNC, 32}, VALUE(O_DSYNC, 32),
                           VALUE(O_NOATIME, 24), VALUE(O_NOCTTY, 64),
                           {"__O_TMPFILE", O_TMPFILE & ~O_DIRECTORY, 24})},
    [KIND_MODE] = {CHOICES({"0644", 0644, 4}, {"0755", 0755, 4}, {"0777", 0777, 4},
                           {"0600", 0600, 2}, {"0", 0, 1}, {"0666", 0666, 2},
                           {"0460", 0460, 1}, {"0711", 0711, 1}, {"0070", 0070, 1}),
                   CHOICES(VALUE(S_ISUID, 12), VALUE(S_ISGID, 8), VALUE(S_ISVTX, 16),
                           {"0200000", 0200000, 200})},
    [KIND_TYPE] = {CHOICES(VALUE(S_IFREG, 4), VALUE(S_IFIFO, 3), VALUE(S_IFSOCK, 2),
                           VALUE(S_IFCHR, 3), VALUE(S_IFBLK, 2), {"0", 0, 2},
                           VALUE(S_IFDIR, 1), VALUE(S_IFLNK, 1), {"S_IFMT", S_IFMT, 1}),
                   NULL},
    [KIND_DEVICE] = {CHOICES({"0:0", 0, 4}, {"1:3", 0x103, 2}, {"240:200", 0xf0c8, 1},
                             {"255:255", 0xffff, 1}, {"4095:1048575", 0xffffffff, 1},
                             {"300:300", 0x12c2c | 0x100000, 1}),
                     NULL},
    [KIND_WHENCE] = {CHOICES(VALUE(SEEK_SET, 4), VALUE(SEEK_CUR, 2), VALUE(SEEK_END, 2),
                             VALUE(SEEK_DATA, 4), VALUE(SEEK_HOLE, 4), {"5", 5, 1},
                             {"-1", -1, 1}),
                     NULL},
    [KIND_RWF] = {CHOICES({"0", 0, 6}),
                  CHOICES(VALUE(RWF_DSYNC, 8), VALUE(RWF_SYNC, 16), VALUE(RWF_APPEND, 6),
                          VALUE(RWF_HIPRI, 16), VALUE(RWF_NOWAIT, 16),
                          VALUE(RWF_NOAPPEND, 8), {"0x40000000", 0x40000000, 64})},
    [KIND_FALLOCATE] =
        {CHOICES({"0", 0, 6}, {"KEEP_SIZE", FALLOC_FL_KEEP_SIZE, 3},
                 {"PUNCH_HOLE|KEEP_SIZE", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 6},
                 {"ZERO_RANGE", FALLOC_FL_ZERO_RANGE, 4},
                 {"ZERO_RANGE|KEEP_SIZE", FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 2},
                 {"PUNCH_HOLE", FALLOC_FL_PUNCH_HOLE, 1},
                 {"COLLAPSE_RANGE", FALLOC_FL_COLLAPSE_RANGE, 1},
                 {"INSERT_RANGE", FALLOC_FL_INSERT_RANGE, 1},
                 {"UNSHARE_RANGE", FALLOC_FL_UNSHARE_RANGE, 1}, {"0x100", 0x100, 1}),
         NULL},
    [KIND_ODD] = {CHOICES({"0", 0, 30}, {"1", 1, 1}, {"0x80000000", 0x80000000, 1}),
                  NULL},
    [KIND_REMOVE] = {CHOICES({"0", 0, 8}, VALUE(AT_REMOVEDIR, 6),
                             {"0x40000000", 0x40000000, 1}),
                     NULL},
    [KIND_LINK] = {CHOICES({"0", 0, 12}),
                   CHOICES(VALUE(AT_SYMLINK_FOLLOW, 4), VALUE(AT_EMPTY_PATH, 6),
                           {"0x2", 2, 60})},
    [KIND_RENAME] = {CHOICES(
                         {"0", 0, 12}, VALUE(RENAME_NOREPLACE, 4),
                         VALUE(RENAME_EXCHANGE, 6), VALUE(RENAME_WHITEOUT, 3),
                         {"NOREPLACE|WHITEOUT", RENAME_NOREPLACE | RENAME_WHITEOUT, 2},
                         {"EXCHANGE|NOREPLACE", RENAME_EXCHANGE | RENAME_NOREPLACE, 1},
                         {"EXCHANGE|WHITEOUT", RENAME_EXCHANGE | RENAME_WHITEOUT, 1},
                         {"0x8", 8, 1}),
                     NULL},
    [KIND_NOFOLLOW] = {CHOICES({"0", 0, 8}),
                       CHOICES(VALUE(AT_SYMLINK_NOFOLLOW, 3), VALUE(AT_EMPTY_PATH, 6),
                               {"0x40000000", 0x40000000, 100})},
    [KIND_UID] = {CHOICES({"-1", -1, 3}, {"0", 0, 3}, {"1000", 1000, 4},
                          {"1001", 1001, 3}, {"65534", 65534, 1},
                          {"2147483648", 0x80000000, 1}),
                  NULL},
    [KIND_GID] = {CHOICES({"-1", -1, 3}, {"0", 0, 2}, {"1000", 1000, 4},
                          {"1001", 1001, 2}, {"2000", 2000, 4}, {"65534", 65534, 1}),
                  NULL},
    /* Which time: see time_of() in run-attr.c. */
    [KIND_TIME] = {CHOICES({"NOW", 0, 4}, {"OMIT", 1, 4}, {"0.0", 2, 2},
                           {"1.000000001", 3, 2}, {"-1.5", 4, 1},
                           {"10^9.999999999", 5, 3}, {"2^31", 6, 1}, {"2^33+7", 7, 1},
                           {"10^12", 8, 1}, {"nsec=10^9", 9, 1}, {"-2^40", 10, 1},
                           {"1234567890.123456789", 11, 3}, {"nsec=-1", 12, 1}),
                   NULL},
    [KIND_ACCESS] = {CHOICES({"F_OK", 0, 2}, {"R", 4, 3}, {"W", 2, 3}, {"X", 1, 3},
                             {"RW", 6, 1}, {"RWX", 7, 1}, {"8", 8, 1}),
                     NULL},
    [KIND_ACCESS_FLAGS] = {CHOICES({"0", 0, 8}),
                           CHOICES(VALUE(AT_EACCESS, 3), VALUE(AT_SYMLINK_NOFOLLOW, 6),
                                   VALUE(AT_EMPTY_PATH, 8))},
    [KIND_STAT_FLAGS] = {CHOICES({"0", 0, 8}),
                         CHOICES(VALUE(AT_SYMLINK_NOFOLLOW, 2), VALUE(AT_EMPTY_PATH, 4),
                                 VALUE(AT_NO_AUTOMOUNT, 16),
                                 VALUE(AT_STATX_FORCE_SYNC, 16),
                                 {"0x40000000", 0x40000000, 100})},
    [KIND_STATX_MASK] = {CHOICES(VALUE(STATX_BASIC_STATS, 4),
                                 {"BASIC|BTIME", STATX_BASIC_STATS | STATX_BTIME, 6},
                                 VALUE(STATX_BTIME, 2), {"0", 0, 1}, VALUE(STATX_SIZE, 1),
                                 {"0x80000000", 0x80000000, 1}),
                         NULL},
    [KIND_COUNT] = {CHOICES({"all", 100000, 6}, {"1", 1, 3}, {"2", 2, 2}, {"3", 3, 2},
                            {"7", 7, 2}),
                    NULL},
    [KIND_ROOM] = {CHOICES({"32768", 32768, 6}, {"24", 24, 1}, {"64", 64, 1},
                           {"280", 280, 3}, {"1024", 1024, 3}, {"0", 0, 1},
                           {"4096", 4096, 2}, {"1", 1, 1}, {"65536", 65536, 1},
                           {"20", 20, 1}),
                   NULL},
    [KIND_XATTR] = {CHOICES({"user.a", 0, 8}, {"user.b", 1, 4}, {"trusted.a", 2, 3},
                            {"security.a", 3, 2}, {"security.capability", 4, 3},
                            {"user.", 5, 1}, {"user.<255>", 6, 1}, {"user.<256>", 7, 1},
                            {"none", 8, 1}, {"system.a", 9, 1}, {"\"\"", 10, 1},
                            {"trusted.overlay.x", 11, 1}, {"user.\\xff", 12, 1},
                            {"security.selinux", 13, 1}),
                    NULL},
    [KIND_XATTR_FLAGS] = {CHOICES({"0", 0, 6}, {"CREATE", 1, 2}, {"REPLACE", 2, 2},
                                  {"CREATE|REPLACE", 3, 1}, {"4", 4, 1}),
                          NULL},
    [KIND_XATTR_SIZE] = {CHOICES({"0", 0, 2}, {"1", 1, 3}, {"20", 20, 6}, {"100", 100, 3},
                                 {"255", 255, 1}, {"2000", 2000, 1}, {"65536", 65536, 1},
                                 {"65537", 65537, 1}),
                         NULL},
    [KIND_IOCTL] = {CHOICES({"GETFLAGS", 0, 4}, {"FSGETXATTR", 1, 4}, {"0xdead", 2, 1},
                            {"TCGETS", 3, 1}, {"FIONREAD", 4, 1}),
                    NULL},
    [KIND_FILE_FLAGS] = {CHOICES({"0", 0, 6}, {"NODUMP", 0x40, 4}, {"NOATIME", 0x80, 2},
                                 {"SYNC", 0x8, 1}, {"DIRSYNC", 0x10000, 1}),
                         NULL},
    [KIND_ADVICE] = {CHOICES({"NORMAL", 0, 1}, {"RANDOM", 1, 1}, {"SEQUENTIAL", 2, 1},
                             {"WILLNEED", 3, 2}, {"DONTNEED", 4, 3}, {"NOREUSE", 5, 1},
                             {"9", 9, 1}),
                     NULL},
    [KIND_SYNC] = {CHOICES({"fsync", 0, 3}, {"fdatasync", 1, 3}, {"syncfs", 2, 1},
                           {"sync_file_range", 3, 1}, {"sync_file_range(odd)", 4, 1}),
                   NULL},
    [KIND_STATUS] = {CHOICES({"0", 0, 2}),
                     CHOICES(VALUE(O_APPEND, 2), VALUE(O_NOATIME, 6),
                             VALUE(O_DIRECT, 12))},
    [KIND_PROT] = {CHOICES({"SHARED,READ", 0, 4}, {"SHARED,WRITE", 1, 6},
                           {"PRIVATE,WRITE", 2, 2}, {"SHARED_VALIDATE", 3, 1}),
                   NULL},
    [KIND_MSYNC] = {CHOICES({"none", 0, 2}, VALUE(MS_SYNC, 3), VALUE(MS_ASYNC, 1)), NULL},
    [KIND_FLOCK] = {CHOICES({"SH", LOCK_SH | LOCK_NB, 3}, {"EX", LOCK_EX | LOCK_NB, 3},
                            {"UN", LOCK_UN, 3}, {"0", 0, 1}),
                    NULL},
    [KIND_LOCK] = {CHOICES(VALUE(F_RDLCK, 3), VALUE(F_WRLCK, 3), VALUE(F_UNLCK, 3),
                           {"7", 7, 1}),
                   NULL},
    [KIND_LOCK_COMMAND] = {CHOICES(VALUE(F_SETLK, 4), VALUE(F_GETLK, 2),
                                   VALUE(F_OFD_SETLK, 6), VALUE(F_OFD_GETLK, 4)),
                           NULL},
    [KIND_UMASK] = {CHOICES({"022", 022, 4}, {"0", 0, 3}, {"077", 077, 1},
                            {"027", 027, 1}, {"0777", 0777, 1}),
                    NULL},
    [KIND_BOOL] = {CHOICES({"0", 0, 1}, {"1", 1, 1}), NULL},
};

uint64_t rng_next(Rng *rng)
{
    uint64_t z = rng->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint32_t rng_below(Rng *rng, uint32_t n)
{
    return (uint32_t)(((rng_next(rng) >> 32) * n) >> 32);
}

static int64_t draw_from(const List *list, Rng *rng)
{
    unsigned sum = 0;
    for (const Choice *c = list->values; c->name != NULL; c++) {
        sum += c->weight;
    }
    unsigned at = rng_below(rng, sum);
    const Choice *chosen = list->values;
    while (at >= chosen->weight) {
        at -= chosen++->weight;
    }
    int64_t value = chosen->value;
    for (const Choice *c = list->flags; c != NULL && c->name != NULL; c++) {
        if (rng_below(rng, c->weight) == 0) {
            value |= c->value;
        }
    }
    return value;
}

static int64_t draw_offset(Rng *rng)
{
    static const int64_t far[] = {
        INT32_MAX,
        INT64_C(1) << 32,
        (INT64_C(1) << 40) + 1,
        (INT64_C(1) << 44),
        (INT64_C(1) << 44) - 1,
        INT64_C(1) << 62,
        INT64_MAX,
        INT64_MAX - 4095,
        -1,
        -4096,
    };
    switch (rng_below(rng, 12)) {
    case 0:
    case 1:
        return 0;
    case 2:
    case 3:
        return rng_below(rng, 200);
    case 4:
    case 5:
    case 6:
        return (int64_t)rng_below(rng, 20) * 4096;
    case 7:
        return (int64_t)rng_below(rng, 20) * 4096 + 1 - (int64_t)rng_below(rng, 3);
    case 8:
        return rng_below(rng, 1 << 20);
    case 9:
        return (int64_t)rng_below(rng, 40) * 512;
    case 10:
        return rng_below(rng, 70000);
    default:
        return rng_below(rng, 4) > 0 ? 0 : far[rng_below(rng, G_N_ELEMENTS(far))];
    }
}

static int64_t draw_length(Rng *rng)
{
    switch (rng_below(rng, 10)) {
    case 0:
        return rng_below(rng, 3);
    case 1:
    case 2:
    case 3:
        return rng_below(rng, 100);
    case 4:
    case 5:
        return 4096 * (1 + (int64_t)rng_below(rng, 4));
    case 6:
        return 4095 + (int64_t)rng_below(rng, 3);
    case 7:
        return rng_below(rng, 20000);
    case 8:
        return 512 * (int64_t)rng_below(rng, 20);
    default:
        return rng_below(rng, 8) > 0 ? 1 : rng_below(rng, 300000);
    }
}

int64_t kind_draw(Kind kind, Rng *rng)
{
    switch (kind) {
    case KIND_NONE:
        return 0;
    case KIND_AT:
        return rng_below(rng, 6) > 0 ? -1 : kind_draw(KIND_DIR_SLOT, rng);
    case KIND_PATH:
        return path_draw(rng, FALSE);
    case KIND_DIR_PATH:
        return path_draw(rng, TRUE);
    case KIND_TARGET:
        return path_draw_target(rng);
    case KIND_SLOT: /* files are rather in the lower slots */
        return rng_below(rng, 6) > 0 ? rng_below(rng, 4) : rng_below(rng, 6);
    case KIND_DIR_SLOT:
        return rng_below(rng, 6) > 0 ? 4 + rng_below(rng, 2) : rng_below(rng, 6);
    case KIND_REGISTER:
        return rng_below(rng, 3);
    case KIND_OFFSET:
        return draw_offset(rng);
    case KIND_LENGTH:
        return draw_length(rng);
    case KIND_SEED:
        return rng_below(rng, 250);
    default:
        return draw_from(&lists[kind], rng);
    }
}

static const Choice *find(const Choice *choices, int64_t value)
{
    for (const Choice *c = choices; c != NULL && c->name != NULL; c++) {
        if (c->value == value) {
            return c;
        }
    }
    return NULL;
}

static void tell_from(const List *list, int64_t value, GString *text)
{
    const Choice *exact = find(list->values, value);
    if (exact != NULL) {
        g_string_append(text, exact->name);
        return;
    }
    int64_t flags = 0;
    g_autoptr(GString) told = g_string_new(NULL);
    for (const Choice *c = list->flags; c != NULL && c->name != NULL; c++) {
        if ((value & c->value) == c->value) {
            g_string_append_printf(told, "|%s", c->name);
            flags |= c->value;
        }
    }
    const Choice *base = find(list->values, value & ~flags);
    if (base != NULL) {
        g_string_append_printf(text, "%s%s", base->name, told->str);
    } else {
        g_string_append_printf(text, "%#" PRIx64 "%s", (uint64_t)(value & ~flags),
                               told->str);
    }
}

void kind_tell(Kind kind, int64_t value, GString *text)
{
    switch (kind) {
    case KIND_AT:
        if (value < 0) {
            g_string_append(text, "-");
            return;
        }
        g_string_append_printf(text, "slot%" PRId64, value);
        return;
    case KIND_SLOT:
    case KIND_DIR_SLOT:
        g_string_append_printf(text, "slot%" PRId64, value);
        return;
    case KIND_PATH:
    case KIND_DIR_PATH:
    case KIND_TARGET:
        path_tell(value, text);
        return;
    case KIND_REGISTER:
    case KIND_OFFSET:
    case KIND_LENGTH:
    case KIND_SEED:
        g_string_append_printf(text, "%" PRId64, value);
        return;
    default:
        tell_from(&lists[kind], value, text);
    }
}

static bool simpler_flags(const List *list, int64_t value, unsigned i, int64_t *ret_value)
{
    for (const Choice *c = list->flags; c != NULL && c->name != NULL; c++) {
        if ((value & c->value) == c->value && i-- == 0) {
            *ret_value = value & ~c->value;
            return true;
        }
    }
    *ret_value = list->values[0].value;
    return i == 0 && list->flags == NULL && value != list->values[0].value;
}

gboolean kind_simpler(Kind kind, int64_t value, unsigned i, int64_t *ret_value)
{
    switch (kind) {
    case KIND_NONE:
        return FALSE;
    case KIND_AT:
        *ret_value = -1;
        return i == 0 && value != -1;
    case KIND_PATH:
    case KIND_DIR_PATH:
    case KIND_TARGET:
        return path_simpler(value, i, ret_value);
    case KIND_SLOT:
    case KIND_DIR_SLOT:
    case KIND_REGISTER:
    case KIND_SEED:
        *ret_value = 0;
        return i == 0 && value != 0;
    case KIND_OFFSET:
    case KIND_LENGTH:
        *ret_value = i == 0 ? kind == KIND_LENGTH : value / 2;
        return i < 2 && *ret_value != value;
    default:
        return simpler_flags(&lists[kind], value, i, ret_value);
    }
}
