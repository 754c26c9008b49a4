/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "passthrough/cred.h"
#include "passthrough/entry.h"
#include "passthrough/fd.h"
#include "passthrough/handle.h"
#include "passthrough/inode-index.h"
#include "passthrough/inode-known.h"
#include "passthrough/inode.h"
#include "passthrough/internal.h"
#include "passthrough/mount-tables.h"
#include "passthrough/open-flags.h"
#include "passthrough/passthrough.h"
#include "passthrough/secctx.h"
#include "passthrough/xattr.h"

/*
 * CREATE and TMPFILE.
 *
 * CREATE: the file is made with O_EXCL, as the caller, and the answer comes from the
 * descriptor that made it. If the name exists and the guest did not ask for O_EXCL, what
 * is there is opened as OPEN does it, never by name; still as the caller, because the
 * guest's kernel took the name for free and has checked no permission on the file.
 */

/* How often a name may come and go between our looks at it. */
enum { TRIES = 8 };

typedef struct Creating {
    const PtMake *make;
    PtPlace place;
    uint32_t flags; /* for open(2) */
    PtFd path;      /* O_PATH descriptor of the file */
    PtFd file;      /* the open file */
} Creating;

static void creating_clear(Creating *creating)
{
    pt_fd_clear(&creating->path);
    pt_fd_clear(&creating->file);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Creating, creating_clear)

static int open_new(PtFs *fs, Creating *creating)
{
    int dir_fd = creating->place.dir_fd;
    creating->file.fd =
        pt_open_beneath(dir_fd, creating->place.name, creating->flags | O_CREAT | O_EXCL,
                        creating->make->mode & 07777);
    return creating->file.fd < 0 ? pt_denied(fs, creating->file.fd, dir_fd, W_OK | X_OK)
                                 : 0;
}

static bool wants_write(const Creating *creating)
{
    return pt_opened_for_writing(creating->flags) || (creating->flags & O_TRUNC);
}

/* A file of its own mount may be read-only where its directory is not. */
static int check_mount(PtFs *fs, const Creating *creating, const struct statx *seen)
{
    PtMount *mount = NULL;
    PtIdentity id = pt_identity(seen);
    if (!wants_write(creating) || pt_inode_on_mount(fs, creating->place.parent, &id)) {
        return 0;
    }
    int r = pt_mount_get(&fs->mounts, id.mount_id, id.dev, creating->path.fd, &mount);
    if (r == 0) {
        r = pt_mount_readonly(mount) ? -EROFS : 0;
        pt_mount_put(&fs->mounts, mount);
    }
    return r;
}

static int open_existing(PtFs *fs, Creating *creating, PtCred *cred)
{
    g_auto(PtPrivileges) privileges = {0};
    struct statx seen;
    int dir_fd = creating->place.dir_fd;
    creating->path.fd = pt_open_beneath(dir_fd, creating->place.name, O_PATH, 0);
    if (creating->path.fd < 0) {
        return creating->path.fd;
    }
    int r = pt_stat(fs, creating->path.fd, "", &seen);
    if (r < 0) {
        return r;
    }
    r = pt_open_type_check(seen.stx_mode & S_IFMT);
    if (r < 0) {
        return r;
    }
    r = check_mount(fs, creating, &seen);
    if (r == 0) {
        r = pt_cred_strict(cred);
    }
    if (r < 0) {
        return r;
    }
    r = pt_privileges_drop(creating->make->kill_suidgid, &privileges);
    if (r < 0) {
        return r;
    }
    creating->file.fd = pt_reopen(fs, creating->path.fd, creating->flags);
    return creating->file.fd < 0 ? creating->file.fd : 0;
}

/* Where nothing may be changed: what is there can be opened for reading. */
static int open_unchanged(PtFs *fs, Creating *creating, PtCred *cred)
{
    struct statx seen;
    uint32_t asked = creating->make->open_flags;
    int r = pt_stat(fs, creating->place.dir_fd, creating->place.name, &seen);
    if (r < 0) {
        return r == -ENOENT ? -EROFS : r;
    }
    if (asked & O_EXCL) {
        return -EEXIST;
    }
    if ((asked & O_ACCMODE) != O_RDONLY || (asked & O_TRUNC)) {
        return -EROFS;
    }
    return open_existing(fs, creating, cred);
}

static int open_as_caller(PtFs *fs, Creating *creating)
{
    g_auto(PtCred) cred = {0};
    const PtMake *make = creating->make;
    int r = pt_cred_enter(fs, make->caller, &cred);
    if (r < 0) {
        return r;
    }
    if (fs->config.readonly || pt_inode_readonly(fs, creating->place.parent)) {
        return open_unchanged(fs, creating, &cred);
    }
    for (int i = 0; i < TRIES; i++) {
        r = open_new(fs, creating);
        if (r != -EEXIST || (make->open_flags & O_EXCL)) {
            return r;
        }
        r = open_existing(fs, creating, &cred);
        if (r != -ENOENT || creating->path.fd >= 0) {
            return r;
        }
    }
    return r;
}

static int prepare(PtFs *fs, Creating *creating)
{
    int r = pt_open_flags(fs, creating->make->open_flags, &creating->flags);
    if (r < 0) {
        return r;
    }
    r = pt_fd_reserve(fs, &creating->path);
    return r < 0 ? r : pt_fd_reserve(fs, &creating->file);
}

/* A new file has a descriptor that opened it, and needs another one, and its labels. */
static int finish_new(PtFs *fs, Creating *creating)
{
    creating->path.fd = pt_reopen(fs, creating->file.fd, O_PATH);
    if (creating->path.fd < 0) {
        return creating->path.fd;
    }
    return pt_labels_set(fs, &creating->place, creating->make->labels, creating->path.fd);
}

/* Make the two ids that the guest gets, of the open file. */
static int give(PtFs *fs, Creating *creating, PtEntry *ret_entry, PtOpened *ret_opened)
{
    PtInode *inode = NULL;
    if (!pt_thread_usable()) {
        return -EIO;
    }
    int r = creating->path.fd < 0 ? finish_new(fs, creating) : 0;
    if (r < 0) {
        return r;
    }
    r = pt_inode_adopt(fs, &creating->place, &creating->path, &ret_entry->attr.stx,
                       &inode);
    if (r < 0) {
        return r;
    }
    ret_opened->flags = pt_opened_file(fs, inode, creating->flags);
    PtHandleMake make = {inode, &creating->file, PT_HANDLE_FILE, creating->flags, 0};
    r = pt_handle_new(fs, &make, &ret_opened->handle);
    if (r < 0) {
        pt_inode_put(fs, inode);
        return r;
    }
    pt_entry_give(fs, &creating->place, inode, ret_entry);
    return 0;
}

int pt_create(PtFs *fs, const PtMake *make, PtEntry *ret_entry, PtOpened *ret_opened)
{
    g_auto(PtNode) node = {0};
    g_auto(Creating) creating = {.make = make, .path = {.fd = -1}, .file = {.fd = -1}};
    int r = prepare(fs, &creating);
    if (r < 0) {
        return r;
    }
    r = pt_place_get(fs, make->parent, make->name, &node, &creating.place);
    if (r < 0) {
        return r;
    }
    r = open_as_caller(fs, &creating);
    if (r < 0) {
        return r;
    }
    bool is_new = creating.path.fd < 0;
    if (!is_new && (creating.flags & O_TRUNC) && pt_thread_usable()) {
        r = pt_capability_drop(fs, creating.path.fd, S_IFREG);
    }
    return r < 0 ? r : give(fs, &creating, ret_entry, ret_opened);
}

/* ---- without a name --------------------------------------------------------------- */

/* O_EXCL means here that the file never gets a name. */
static int open_nameless(PtFs *fs, Creating *creating)
{
    g_auto(PtCred) cred = {0};
    const PtMake *make = creating->make;
    int r = pt_cred_enter(fs, make->caller, &cred);
    if (r < 0) {
        return r;
    }
    creating->file.fd = pt_open_beneath(
        creating->place.dir_fd, ".",
        creating->flags | O_TMPFILE | (make->open_flags & O_EXCL), make->mode & 07777);
    return creating->file.fd < 0
               ? pt_denied(fs, creating->file.fd, creating->place.dir_fd, W_OK | X_OK)
               : 0;
}

int pt_tmpfile(PtFs *fs, const PtMake *make, PtEntry *ret_entry, PtOpened *ret_opened)
{
    g_auto(PtNode) node = {0};
    g_auto(Creating) creating = {.make = make, .path = {.fd = -1}, .file = {.fd = -1}};
    int r = prepare(fs, &creating);
    if (r < 0) {
        return r;
    }
    r = pt_node_get(fs, make->parent, &node);
    if (r < 0) {
        return r;
    }
    if (!S_ISDIR(pt_inode_type(node.inode))) {
        return -ENOTDIR;
    }
    /* A file without links is known by its number, never by this name. */
    creating.place = (PtPlace){node.inode, node.fd, ""};
    r = open_nameless(fs, &creating);
    return r < 0 ? r : give(fs, &creating, ret_entry, ret_opened);
}
