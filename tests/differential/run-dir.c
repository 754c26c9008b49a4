/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/differential/run.h"

/*
 * Listings. A slot keeps what one getdents64 gave, as readdir(3) does, because how many
 * names a call gives may differ: it is the sequence of names that is compared.
 */

#define ENTRIES_ROOM 65536

static bool fill(Slot *slot, size_t room, long *ret_result)
{
    if (slot->entries == NULL) {
        slot->entries = malloc(ENTRIES_ROOM);
    }
    long n = syscall(SYS_getdents64, slot->fd, slot->entries, room);
    slot->at = 0;
    slot->end = n > 0 ? (size_t)n : 0;
    slot->ended = n == 0;
    *ret_result = n;
    return n > 0;
}

static void tell_name(Side *side, const struct dirent64 *entry)
{
    struct {
        OutName head;
        char name[256];
    } told = {{entry->d_type}, ""};
    size_t length = strnlen(entry->d_name, 255);
    memcpy(told.name, entry->d_name, length);
    out_field(&side->out, FIELD_NAME, &told, sizeof(told.head) + length);
}

static void forget_entries(Side *side, Slot *slot)
{
    slot->at = slot->end = 0;
    slot->since = side->index;
    slot->ended = false;
}

static void read_names(Side *side, Slot *slot, size_t room, int64_t most)
{
    OutNames names = {.since = slot->since, .changed = side->last_change >= slot->since};
    long r = 0;
    while (names.n < (uint64_t)most) {
        if (slot->at >= slot->end && !fill(slot, room, &r)) {
            break;
        }
        const struct dirent64 *entry =
            (const struct dirent64 *)(const void *)(slot->entries + slot->at);
        slot->at += entry->d_reclen;
        tell_name(side, entry);
        names.n++;
    }
    names.ended = slot->ended;
    out_field(&side->out, FIELD_NAMES, &names, sizeof(names));
    /* Whether there is one more name, which does not fit, is open if names changed. */
    bool is_open = names.changed && errno == EINVAL;
    out_return(&side->out, r < 0 && !is_open ? -1 : 0);
}

/* slot, count, room */
void run_readdir(Side *side, const Op *op)
{
    Slot *slot = &side->slots[(size_t)op->arg[0] % SIDE_SLOTS];
    read_names(side, slot, (size_t)op->arg[2] % (ENTRIES_ROOM + 1), op->arg[1]);
}

void run_rewind(Side *side, const Op *op)
{
    Slot *slot = &side->slots[(size_t)op->arg[0] % SIDE_SLOTS];
    if (slot->entries != NULL) { /* else it is a file's offset: see run_lseek() */
        forget_entries(side, slot);
        out_return(&side->out, lseek(slot->fd, 0, SEEK_SET));
    }
}

/* slot, register: where the next name is. The number itself is the file system's own. */
void run_telldir(Side *side, const Op *op)
{
    Slot *slot = &side->slots[(size_t)op->arg[0] % SIDE_SLOTS];
    if (slot->entries == NULL || slot->at == 0 || slot->at > slot->end) {
        return;
    }
    size_t before = 0;
    const struct dirent64 *entry = NULL;
    while (before < slot->at) {
        entry = (const struct dirent64 *)(const void *)(slot->entries + before);
        before += entry->d_reclen;
    }
    side->cookies[(size_t)op->arg[1] % SIDE_REGISTERS] = entry->d_off;
}

/* Where nothing can be read any more, ext4 refuses offsets, FUSE's client none. */
static bool is_removed(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && st.st_nlink == 0;
}

/* slot, register */
void run_seekdir(Side *side, const Op *op)
{
    Slot *slot = &side->slots[(size_t)op->arg[0] % SIDE_SLOTS];
    if (slot->entries == NULL || !run_is_directory(side, slot->fd) ||
        is_removed(slot->fd)) {
        return;
    }
    uint32_t since = slot->since;
    off_t cookie = side->cookies[(size_t)op->arg[1] % SIDE_REGISTERS];
    forget_entries(side, slot);
    slot->since = since;
    out_return(&side->out, lseek(slot->fd, cookie, SEEK_SET) < 0 ? -1 : 0);
}

/* at, path, room: all names, in order. */
void run_list(Side *side, const Op *op)
{
    char path[PATH_ROOM];
    path_decode(op->arg[1], path);
    Slot slot = {.since = side->index + 1};
    slot.fd = openat(run_at(side, op, 0), path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    out_return(&side->out, slot.fd < 0 ? -1 : 0);
    if (slot.fd >= 0) {
        read_names(side, &slot, (size_t)op->arg[2] % (ENTRIES_ROOM + 1), INT32_MAX);
        (void)close(slot.fd);
    }
    free(slot.entries);
}
