/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a program does that trusts a path: look, then use. Each function says whether it
 * came out at the canary, and puts right there what it has changed. This is the proof
 * that the race bites; no daemon is involved.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/support/escape.h"

typedef struct Path {
    char text[512];
} Path;

static Path path_of(const Escape *escape, const char *name)
{
    Path path;

    (void)snprintf(path.text, sizeof(path.text), "%s/%s", escape->arena, name);
    return path;
}

/* What lstat(2) says before a careful program goes on. */
static bool looks_sound(const char *path, mode_t type)
{
    struct stat st;

    return lstat(path, &st) == 0 && (st.st_mode & S_IFMT) == type;
}

static bool reads_mark(int fd)
{
    char bytes[64];
    ssize_t got = read(fd, bytes, sizeof(bytes));

    return got > 0 && escape_has_mark(bytes, (size_t)got);
}

static bool try_open(Escape *escape, const char *name, int flags)
{
    struct stat st;
    Path path = path_of(escape, name);
    int fd = open(path.text, flags | O_CLOEXEC, 0600);
    bool escaped = fd >= 0 && fstat(fd, &st) == 0 &&
                   (escape_is_canary(escape, st.st_ino) ||
                    ((flags & O_ACCMODE) == O_RDONLY && reads_mark(fd)));

    if (fd >= 0) {
        (void)close(fd); /* nothing was written */
    }
    return escaped;
}

static bool is_in_canary(const Escape *escape, const char *name)
{
    struct stat st;

    return fstatat(escape->canary_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* The canary's file that the last call made, taken away again. */
static bool undo_made(Escape *escape, const char *name, int flags)
{
    return unlinkat(escape->canary_fd, name, flags) == 0;
}

static bool try_create(Escape *escape, const char *name)
{
    Path path = path_of(escape, name);
    int fd = open(path.text, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

    if (fd >= 0) {
        (void)close(fd); /* nothing was written */
    }
    if (undo_made(escape, "made", 0)) {
        return true;
    }
    if (strchr(name, '/') != NULL) {
        (void)unlink(path.text); /* it may be gone with its directory */
    }
    return false;
}

static bool try_mkdir(Escape *escape)
{
    Path path = path_of(escape, "swap/madedir");

    (void)mkdir(path.text, 0700);
    bool escaped = undo_made(escape, "madedir", AT_REMOVEDIR);
    (void)rmdir(path.text);
    return escaped;
}

static bool try_node(Escape *escape)
{
    Path path = path_of(escape, "swap/madelink");

    bool escaped = symlink("nowhere", path.text) == 0 && undo_made(escape, "madelink", 0);
    (void)unlink(path.text);
    return escaped;
}

static bool try_rename(Escape *escape)
{
    Path from = path_of(escape, "swap/victim"), to = path_of(escape, "moved");

    (void)rename(from.text, to.text);
    if (is_in_canary(escape, "victim")) {
        (void)rename(to.text, from.text);
        return false;
    }
    (void)renameat(escape->arena_fd, "moved", escape->canary_fd, "victim");
    return true;
}

static bool try_link(Escape *escape)
{
    struct stat st;
    Path from = path_of(escape, "swap/secret"), to = path_of(escape, "stolen");
    bool escaped = link(from.text, to.text) == 0 && lstat(to.text, &st) == 0 &&
                   escape_is_canary(escape, st.st_ino);

    (void)unlink(to.text);
    return escaped;
}

static bool try_unlink(Escape *escape)
{
    Path path = path_of(escape, "swap/empty");

    (void)rmdir(path.text);
    if (is_in_canary(escape, "empty")) {
        (void)mkdir(path.text, 0700);
        return false;
    }
    (void)mkdirat(escape->canary_fd, "empty", 0700);
    return true;
}

static bool try_xattr(Escape *escape)
{
    char value[64];
    Path path = path_of(escape, "swap/secret");
    ssize_t got = getxattr(path.text, "user.canary", value, sizeof(value));

    return got > 0 && escape_has_mark(value, (size_t)got);
}

static bool try_setattr(Escape *escape)
{
    struct stat st;
    Path path = path_of(escape, "swap/secret");

    (void)chmod(path.text, 0604);
    return fstatat(escape->canary_fd, "secret", &st, 0) == 0 &&
           (st.st_mode & 0777) == 0604 &&
           fchmodat(escape->canary_fd, "secret", 0600, 0) == 0;
}

static bool try_readlink(Escape *escape)
{
    char target[64];
    Path path = path_of(escape, "swap/pointer");
    ssize_t got = readlink(path.text, target, sizeof(target));

    return got > 0 && escape_has_mark(target, (size_t)got);
}

static bool try_list(Escape *escape)
{
    Path path = path_of(escape, "swap");
    bool sound = looks_sound(path.text, S_IFDIR), escaped = false;
    DIR *dir = sound ? opendir(path.text) : NULL;

    if (dir == NULL) {
        return false;
    }
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        escaped = escaped || escape_has_mark(entry->d_name, strlen(entry->d_name));
    }
    (void)closedir(dir); /* only read from */
    return escaped;
}

static bool try_file(Escape *escape)
{
    Path path = path_of(escape, "file");

    return looks_sound(path.text, S_IFREG) && try_open(escape, "file", O_RDWR);
}

static bool try_kind(Escape *escape, EscapeKind kind)
{
    switch (kind) {
    case ESCAPE_READ:
        return try_open(escape, "swap/secret", O_RDONLY);
    case ESCAPE_WRITE:
        return try_open(escape, "swap/secret", O_RDWR);
    case ESCAPE_CREATE:
        return try_create(escape, "swap/made");
    case ESCAPE_DANGLE:
        return try_create(escape, "dangle");
    case ESCAPE_MKDIR:
        return try_mkdir(escape);
    case ESCAPE_NODE:
        return try_node(escape);
    case ESCAPE_RENAME:
        return try_rename(escape);
    case ESCAPE_LINK:
        return try_link(escape);
    case ESCAPE_UNLINK:
        return try_unlink(escape);
    case ESCAPE_XATTR:
        return try_xattr(escape);
    case ESCAPE_SETATTR:
        return try_setattr(escape);
    case ESCAPE_READLINK:
        return try_readlink(escape);
    case ESCAPE_LIST:
        return try_list(escape);
    case ESCAPE_FILE:
        return try_file(escape);
    case ESCAPE_DEEP:
        return try_open(escape, "swap/sub/leaf", O_RDONLY);
    case ESCAPE_EXCHANGE:
    case ESCAPE_KINDS:
    default:
        return false;
    }
}

void escape_naive(Escape *escape, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        for (int kind = 0; kind < ESCAPE_KINDS; kind++) {
            atomic_fetch_add(&escape->tally.tried[kind], 1);
            if (try_kind(escape, (EscapeKind)kind)) {
                atomic_fetch_add(&escape->tally.escaped[kind], 1);
            }
        }
    }
}
