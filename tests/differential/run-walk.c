/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/differential/run.h"

/*
 * The walk through the whole tree: what each file is, holds and is called. It goes by
 * descriptors, because trees grow deeper than a path may be long.
 */

#define DEPTH_MAX 64
#define ENTRIES_MAX 512
#define LIST_ROOM (256u << 10)
#define READ_MOST (4u << 20)
#define SECTOR 512

typedef struct Walk {
    Side *side;
    unsigned depth;
    GString *path;
} Walk;

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int by_name(const void *a, const void *b)
{
    const struct dirent64 *const *x = a, *const *y = b;
    return strcmp((*x)->d_name, (*y)->d_name);
}

typedef struct Content {
    uint64_t hash;  /* of what is not zero */
    uint64_t size;  /* its size */
    uint64_t holes; /* hash of where data begins and ends */
} Content;

static bool is_zero(const uint8_t *bytes, size_t n)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, n - 1) == 0;
}

static void take(Content *content, off_t at, const uint8_t *bytes, size_t size)
{
    for (size_t done = 0, n; done < size; done += n) {
        n = MIN(SECTOR - (size_t)(at + (off_t)done) % SECTOR, size - done);
        if (!is_zero(bytes + done, n)) {
            const off_t where = at + (off_t)done;
            content->hash = out_hash(content->hash, &where, sizeof(where));
            content->hash = out_hash(content->hash, bytes + done, n);
            content->size += n;
        }
    }
}

static bool read_data(Side *side, int fd, Content *content, const off_t place[2])
{
    for (off_t at = place[0]; at < place[1] && content->size < READ_MOST;) {
        size_t want = MIN((size_t)(place[1] - at), SIDE_BUFFER);
        ssize_t n = pread(fd, side->buffer, want, at);
        if (n <= 0) {
            out_return(&side->out, n);
            return false;
        }
        take(content, at, side->buffer, (size_t)n);
        at += n;
    }
    return true;
}

/* What a file holds, up to a limit. A hole and zeros are the same content; where which of
 * them is, is told apart from it. */
static void tell_content(Side *side, int dir_fd, const char *name)
{
    int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        out_return(&side->out, fd);
        return;
    }
    if (run_ends_too_far(side, fd)) {
        (void)close(fd);
        return;
    }
    Content content = {0};
    bool tells_holes = run_holes_are_same(side, fd);
    off_t place[2] = {0, 0}, end = lseek(fd, 0, SEEK_END);
    (void)!pread(fd, side->buffer, 1, 0); /* an access, whatever counts as data */
    while (content.size < READ_MOST && place[1] < end &&
           (place[0] = lseek(fd, place[1], SEEK_DATA)) >= 0) {
        place[1] = lseek(fd, place[0], SEEK_HOLE);
        content.holes = out_hash(content.holes, place, sizeof(place));
        if (!read_data(side, fd, &content, place)) {
            break;
        }
    }
    OutData told = {.size = content.size, .hash = content.hash};
    out_field(&side->out, FIELD_DATA, &told, sizeof(told));
    if (tells_holes) {
        run_hole(side, fd, (int64_t)(content.holes >> 1));
    }
    (void)close(fd);
}

static void tell_xattrs(Side *side, int dir_fd, const char *name)
{
    const char *sorted[ENTRIES_MAX];
    g_autofree char *list = g_malloc(65536);
    if (fchdir(dir_fd) < 0) {
        return;
    }
    ssize_t size = llistxattr(name, list, 65536);
    if (size < 0) {
        out_return(&side->out, size);
        return;
    }
    size_t n = 0;
    for (char *at = list; at < list + size && n < ENTRIES_MAX; at += strlen(at) + 1) {
        if (geteuid() == 0 || strncmp(at, "trusted.", 8) != 0) {
            sorted[n++] = at;
        }
    }
    qsort(sorted, n, sizeof(*sorted), by_text);
    for (size_t i = 0; i < n; i++) {
        out_field(&side->out, FIELD_XATTR, sorted[i], strlen(sorted[i]));
        ssize_t r = lgetxattr(name, sorted[i], side->buffer, 65536);
        out_return(&side->out, r);
        if (r > 0) {
            out_data(&side->out, side->buffer, (size_t)r);
        }
    }
}

static void tell_target(Side *side, int dir_fd, const char *name)
{
    ssize_t n = readlinkat(dir_fd, name, (char *)side->buffer, 4096);
    out_return(&side->out, n);
    if (n > 0) {
        out_field(&side->out, FIELD_TARGET, side->buffer, (size_t)n);
    }
}

static void walk_directory(Walk *walk, int fd);

static void walk_name(Walk *walk, int dir_fd, const struct dirent64 *entry)
{
    Side *side = walk->side;
    const char *name = entry->d_name;
    struct stat st;
    size_t length = walk->path->len;
    g_string_append_printf(walk->path, "/%s", name);
    out_field(&side->out, FIELD_PATH, walk->path->str, walk->path->len);
    unsigned mask = STATX_BASIC_STATS | (side->mode->statx ? STATX_BTIME : 0);
    if (run_stat(side, dir_fd, name, AT_SYMLINK_NOFOLLOW, mask) == 0 &&
        fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        if (!side->mode->overlay || !S_ISREG(st.st_mode)) {
            /* A file that is copied up gets a number of its own, if it had other names:
             * what has it in memory goes on telling the old one. */
            out_number(&side->out, FIELD_NUMBER, st.st_ino == entry->d_ino);
        }
        if (side->mode->xattr) {
            tell_xattrs(side, dir_fd, name);
        }
        if (S_ISREG(st.st_mode)) {
            tell_content(side, dir_fd, name);
        } else if (S_ISLNK(st.st_mode)) {
            tell_target(side, dir_fd, name);
        } else if (S_ISDIR(st.st_mode)) {
            int fd =
                openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
            out_return(&side->out, fd < 0 ? -1 : 0);
            if (fd >= 0) {
                walk->depth++;
                walk_directory(walk, fd);
                walk->depth--;
                (void)close(fd);
            }
        }
    }
    g_string_truncate(walk->path, length);
}

static void tell_listing(Side *side, const char *entries, size_t size)
{
    OutNames names = {.since = side->index + 1, .ended = 1};
    for (size_t at = 0; at < size; names.n++) {
        const struct dirent64 *entry = (const void *)(entries + at);
        struct {
            OutName head;
            char name[256];
        } told = {{entry->d_type}, ""};
        size_t length = strnlen(entry->d_name, 255);
        memcpy(told.name, entry->d_name, length);
        out_field(&side->out, FIELD_NAME, &told, sizeof(told.head) + length);
        at += entry->d_reclen;
    }
    out_field(&side->out, FIELD_NAMES, &names, sizeof(names));
}

/* Names that the comparer sees in the order of the listing are walked in theirs. */
static void walk_directory(Walk *walk, int fd)
{
    const struct dirent64 *sorted[ENTRIES_MAX];
    size_t size = 0, n = 0;
    g_autofree char *entries = g_malloc(LIST_ROOM);
    long got;
    while (LIST_ROOM - size > 1024 &&
           (got = syscall(SYS_getdents64, fd, entries + size, LIST_ROOM - size)) > 0) {
        size += (size_t)got;
    }
    tell_listing(walk->side, entries, size);
    for (size_t at = 0; at < size && n < ENTRIES_MAX;) {
        const struct dirent64 *entry = (const void *)(entries + at);
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            sorted[n++] = entry;
        }
        at += entry->d_reclen;
    }
    qsort(sorted, n, sizeof(*sorted), by_name);
    for (size_t i = 0; i < n && walk->depth < DEPTH_MAX; i++) {
        walk_name(walk, fd, sorted[i]);
    }
}

/* whether everything is to be on disk before */
void run_walk(Side *side, const Op *op)
{
    g_autoptr(GString) path = g_string_new(NULL);
    Walk walk = {.side = side, .path = path};
    side->settled = op->arg[0] != 0 && syncfs(side->root_fd) == 0;
    int fd = openat(side->root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)run_stat(side, fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS);
        walk_directory(&walk, fd);
        (void)close(fd);
    }
    side->settled = false;
    (void)!fchdir(side->root_fd);
}
