/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/mount-tables.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "passthrough/inode-index.h"
#include "passthrough/inode.h"
#include "passthrough/internal.h"
#include "passthrough/passthrough.h"

/*
 * What the host mounts in the share appears in a mount namespace of ours as well, but a
 * remount stays where it is made: a volume that the host makes read-only after mounting
 * it, as Kata's runtime-rs does, would still take the guest's changes. So the host's own
 * table of mounts decides, of which the sandbox keeps a view: nothing but what lies in
 * the share.
 *
 * The twin of one of our mounts is the one at the same place, of the same file system and
 * the same directory in it. If it is mounted elsewhere only, the guest may be renaming
 * directories on the way while the tables are read: they are read again, a few times,
 * and then any of those mounts that is read-only is taken for the twin. Not mounted at
 * all: the host has unmounted it, and nothing changes.
 */

enum { TABLE_STEP = 65536, TABLE_MOST = 64 << 20, LOOKS_MOST = 100 };

/* One line. What it lacks is an empty string. */
typedef struct Line {
    uint64_t id;
    const char *device;
    const char *root;  /* the mounted directory in its file system */
    const char *place; /* where it is mounted */
    bool readonly;
} Line;

typedef struct Table {
    char *text; /* to which the lines point */
    Line *lines;
    size_t n;
} Table;

static void table_clear(Table *table)
{
    free(table->text);
    free(table->lines);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Table, table_clear)

uint64_t pt_mount_tables_id(int fd)
{
    struct statx stx;
    bool told = statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &stx) == 0 &&
                (stx.stx_mask & STATX_MNT_ID) != 0;
    return told ? stx.stx_mnt_id : 0;
}

/* From its start, whatever others read of it. */
static bool read_text(int fd, char **text)
{
    size_t size = 0;
    for (size_t room = TABLE_STEP; room <= TABLE_MOST; room *= 2) {
        char *longer = realloc(*text, room + 1);
        if (longer == NULL) {
            return false;
        }
        *text = longer;
        ssize_t n = 1;
        while (n > 0 && size < room) {
            struct iovec iov = {*text + size, room - size};
            n = preadv2(fd, &iov, 1, (off_t)size, 0);
            size += n > 0 ? (size_t)n : 0;
        }
        (*text)[size] = '\0';
        if (n <= 0) {
            return n == 0;
        }
    }
    return false;
}

static const char *next_field(char **at)
{
    const char *field = strsep(at, " ");
    return field != NULL ? field : "";
}

static bool has_option(const char *options, const char *option)
{
    size_t length = strlen(option);
    return strncmp(options, option, length) == 0 &&
           (options[length] == ',' || options[length] == '\0');
}

static Line parse(char *at)
{
    Line line = {.id = strtoull(next_field(&at), NULL, 10)};
    (void)next_field(&at); /* the parent's number */
    line.device = next_field(&at);
    line.root = next_field(&at);
    line.place = next_field(&at);
    line.readonly = has_option(next_field(&at), "ro"); /* it comes first */
    return line;
}

static bool read_table(int fd, Table *ret_table)
{
    size_t n = 0;
    if (!read_text(fd, &ret_table->text)) {
        return false;
    }
    for (const char *c = ret_table->text; *c != '\0'; c++) {
        n += *c == '\n';
    }
    ret_table->lines = calloc(n + 1, sizeof(Line));
    if (ret_table->lines == NULL) {
        return false;
    }
    for (char *at = ret_table->text; ret_table->n < n; ret_table->n++) {
        ret_table->lines[ret_table->n] = parse(strsep(&at, "\n"));
    }
    return true;
}

static const Line *find(const Table *table, uint64_t id)
{
    for (size_t i = 0; i < table->n; i++) {
        if (table->lines[i].id == id) {
            return &table->lines[i];
        }
    }
    return NULL;
}

/* What the host has mounted at the place of one of ours. */
typedef struct Twin {
    bool found, readonly;
    bool elsewhere, elsewhere_readonly; /* mounts of the same directory at other places */
} Twin;

static Twin find_twin(const Table *host, const Line *ours)
{
    Twin twin = {0};
    for (size_t i = 0; i < host->n; i++) {
        const Line *line = &host->lines[i];
        if (strcmp(line->device, ours->device) != 0 ||
            strcmp(line->root, ours->root) != 0) {
            continue;
        }
        if (strcmp(line->place, ours->place) == 0) {
            twin.found = true;
            twin.readonly = line->readonly; /* the last one lies on top */
        } else {
            twin.elsewhere = true;
            twin.elsewhere_readonly |= line->readonly;
        }
    }
    return twin;
}

/* Whether it is worth another look at the tables. */
static bool look_up(PtMounts *mounts, PtMount *mount, const Table *host,
                    const Table *ours)
{
    const Line *line = find(ours, mount->listed_id);
    if (line == NULL) {
        return false; /* it is gone, but for who holds it */
    }
    Twin twin = find_twin(host, line);
    /* Nobody moves the share itself, which need not be a mount on the host. */
    bool moves = !twin.found && twin.elsewhere && strcmp(line->place, "/") != 0;
    bool before = atomic_load_explicit(&mount->readonly, memory_order_relaxed);
    bool readonly =
        twin.found ? twin.readonly : before || (moves && twin.elsewhere_readonly);
    if (readonly) {
        atomic_store_explicit(&mounts->some_readonly, true, memory_order_relaxed);
    }
    atomic_store_explicit(&mount->readonly, readonly, memory_order_relaxed);
    return moves;
}

static bool look_up_all(PtMounts *mounts, const Table *host, const Table *ours)
{
    bool moves = false;
    for (uint32_t i = 1; i < pt_slots_end(&mounts->slots); i++) {
        PtMount *mount = pt_mount_at(mounts, i);
        if (pt_slot_ref_live(&mount->slot)) {
            moves |= look_up(mounts, mount, host, ours);
            pt_mount_put(mounts, mount);
        }
    }
    return moves;
}

/* False if they cannot be read. */
static bool look_once(PtMounts *mounts, PtMount *only, bool *ret_moves)
{
    g_auto(Table) host = {0};
    g_auto(Table) ours = {0};
    if (!read_table(mounts->own_table, &ours) || !read_table(mounts->host_table, &host)) {
        return false;
    }
    *ret_moves = only != NULL ? look_up(mounts, only, &host, &ours)
                              : look_up_all(mounts, &host, &ours);
    return true;
}

void pt_mount_tables_look(PtMounts *mounts, PtMount *only)
{
    if (mounts->host_table < 0) {
        return;
    }
    if (only == NULL) {
        atomic_fetch_add(&mounts->n_looks, 1);
    }
    bool moves = false, outdated = false;
    unsigned n = 0;
    do {
        uint32_t looks = atomic_load(&mounts->n_looks);
        if (!look_once(mounts, only, &moves)) {
            return;
        }
        /* Who looks up all reads what is newest; what was read before goes for nothing.
         */
        outdated = only != NULL && looks != atomic_load(&mounts->n_looks);
    } while (outdated || (moves && ++n < LOOKS_MOST));
}

void pt_fs_watch_mounts(PtFs *fs, int own_table_take, int host_table_take)
{
    fs->mounts.own_table = own_table_take;
    fs->mounts.host_table = host_table_take;
    pt_mount_tables_look(&fs->mounts, NULL);
}

int pt_fs_mounts_fd(const PtFs *fs)
{
    return fs->mounts.host_table;
}

void pt_fs_mounts_changed(PtFs *fs)
{
    pt_mount_tables_look(&fs->mounts, NULL);
}

bool pt_inode_readonly(PtFs *fs, PtInode *inode)
{
    if (!atomic_load_explicit(&fs->mounts.some_readonly, memory_order_relaxed)) {
        return false;
    }
    return pt_mount_readonly(pt_mount_at(&fs->mounts, pt_index_mount(fs, inode)));
}

bool pt_node_readonly(PtFs *fs, uint64_t nodeid)
{
    if (!atomic_load_explicit(&fs->mounts.some_readonly, memory_order_relaxed)) {
        return false;
    }
    PtInode *inode = (PtInode *)(void *)pt_slots_get(&fs->inodes, nodeid);
    if (inode == NULL) {
        return false; /* whoever needs it says so */
    }
    bool readonly = pt_inode_readonly(fs, inode);
    pt_inode_put(fs, inode);
    return readonly;
}
