/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arena of escape.h: who swaps, and what was counted.
 */
#include "tests/support/escape.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const kind_names[ESCAPE_KINDS] = {
    [ESCAPE_READ] = "read",       [ESCAPE_WRITE] = "write",
    [ESCAPE_CREATE] = "create",   [ESCAPE_DANGLE] = "dangle",
    [ESCAPE_MKDIR] = "mkdir",     [ESCAPE_NODE] = "node",
    [ESCAPE_RENAME] = "rename",   [ESCAPE_LINK] = "link",
    [ESCAPE_UNLINK] = "unlink",   [ESCAPE_XATTR] = "xattr",
    [ESCAPE_SETATTR] = "setattr", [ESCAPE_READLINK] = "readlink",
    [ESCAPE_LIST] = "list",       [ESCAPE_FILE] = "file",
    [ESCAPE_DEEP] = "deep",       [ESCAPE_EXCHANGE] = "exchange",
};

const char *escape_kind_name(EscapeKind kind)
{
    return kind_names[kind];
}

static void add_inode(Escape *escape, uint64_t inode)
{
    if (escape->n_canary_inodes < CANARY_INODES) {
        escape->canary_inodes[escape->n_canary_inodes++] = inode;
    }
}

/* The numbers of everything in a folder, and of the folder. */
static int add_folder(Escape *escape, int fd)
{
    struct stat st;
    DIR *dir = fdopendir(dup(fd));

    if (dir == NULL || fstat(fd, &st) < 0) {
        return -errno;
    }
    add_inode(escape, st.st_ino);
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        if (strcmp(entry->d_name, "..") != 0) {
            add_inode(escape, entry->d_ino);
        }
    }
    (void)closedir(dir); /* only read from */
    return 0;
}

int escape_init(Escape *escape, const char *arena, const char *canary)
{
    memset(escape, 0, sizeof(*escape));
    escape->arena = arena;
    escape->arena_fd = open(arena, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    escape->canary_fd = open(canary, O_RDONLY | O_DIRECTORY | O_NOATIME | O_CLOEXEC);
    if (escape->arena_fd < 0 || escape->canary_fd < 0) {
        return -errno;
    }
    int sub = openat(escape->canary_fd, "sub", O_RDONLY | O_DIRECTORY | O_NOATIME);
    if (sub < 0) {
        return -errno;
    }
    int result = add_folder(escape, escape->canary_fd);
    if (result == 0) {
        result = add_folder(escape, sub);
    }
    (void)close(sub); /* only read from */
    return result;
}

bool escape_is_canary(const Escape *escape, uint64_t inode)
{
    for (size_t i = 0; i < escape->n_canary_inodes; i++) {
        if (escape->canary_inodes[i] == inode) {
            return true;
        }
    }
    return false;
}

bool escape_has_mark(const void *bytes, size_t size)
{
    return memmem(bytes, size, CANARY_MARK, strlen(CANARY_MARK)) != NULL;
}

uint64_t escape_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

void *escape_swap(void *data)
{
    static const char *const pairs[][2] = {
        {"swap", "bait"}, {"file", "filebait"}, {"solid", "dangle"}};
    Escape *escape = data;

    for (unsigned int i = 0; !atomic_load(&escape->stop); i++) {
        const char *const *pair = pairs[i % 3];
        if (renameat2(escape->arena_fd, pair[0], escape->arena_fd, pair[1],
                      RENAME_EXCHANGE) == 0) {
            atomic_fetch_add(&escape->swaps, 1);
        }
    }
    return NULL;
}

void escape_print(Escape *escape)
{
    for (int kind = 0; kind < ESCAPE_KINDS; kind++) {
        printf("%s tried=%" PRIu64 " done=%" PRIu64 " escaped=%" PRIu64 "\n",
               kind_names[kind], atomic_load(&escape->tally.tried[kind]),
               atomic_load(&escape->tally.done[kind]),
               atomic_load(&escape->tally.escaped[kind]));
    }
    printf("swaps=%" PRIu64 "\n", atomic_load(&escape->swaps));
}
