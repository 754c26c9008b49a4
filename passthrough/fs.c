/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "passthrough/file-handle.h"
#include "passthrough/handle.h"
#include "passthrough/inode.h"
#include "passthrough/internal.h"
#include "passthrough/passthrough.h"
#include "passthrough/xattr.h"
#include "virtiofsd/autofd.h"

/*
 * The share as a whole: made once, emptied whenever the guest's kernel starts anew.
 */

/* Descriptors of the process that are not the guest's raise the numbers of those that
 * are. Beyond the second figure they are too many to ever need eviction. */
static uint32_t n_owners(const PtConfig *config)
{
    const uint32_t others = 1 << 16;
    const uint32_t most = 1 << 24;
    return config->max_descriptors < most ? config->max_descriptors + others : most;
}

static int init_tables(PtFs *fs)
{
    pt_locks_init(&fs->locks);
    if (getrandom(&fs->hash_key, sizeof(fs->hash_key), 0) !=
        (ssize_t)sizeof(fs->hash_key)) {
        return -errno;
    }
    int r = pt_slots_init(&fs->inodes, sizeof(PtInode));
    if (r == 0) {
        r = pt_slots_init(&fs->handles, sizeof(PtHandle));
    }
    if (r == 0) {
        r = pt_mounts_init(&fs->mounts, fs);
    }
    if (r == 0) {
        r = pt_index_init(&fs->index);
    }
    if (r == 0) {
        r = pt_places_init(&fs->places);
    }
    return r == 0 ? pt_owners_init(&fs->owners, n_owners(&fs->config)) : r;
}

/* errno by name: strerror(3) may load a translation, and the root is the share already.
 */
static void set_error(GError **error, int code, const char *what)
{
    g_set_error(error, G_FILE_ERROR, (gint)g_file_error_from_errno(code), "%s: %s", what,
                strerrorname_np(code));
}

static bool set_root(PtFs *fs, int root_fd_take, GError **error)
{
    int r = pt_inode_set_root(fs, root_fd_take);
    if (r < 0) {
        set_error(error, -r, "cannot look at the share");
    }
    return r == 0;
}

PtFs *pt_fs_new(const PtConfig *config, int root_fd_take, int procfd_take, GError **error)
{
    g_auto(AutoFd) root_fd = root_fd_take;
    g_auto(AutoFd) procfd = procfd_take;
    uint32_t statx_mask = pt_probe(root_fd, procfd, error);
    if (statx_mask == 0) {
        return NULL;
    }
    g_autoptr(PtFs) fs = calloc(1, sizeof(*fs));
    int r = -ENOMEM;
    if (fs != NULL) {
        fs->config = *config;
        fs->procfd = autofd_steal(&procfd);
        r = init_tables(fs);
    }
    if (r < 0) {
        set_error(error, -r, "cannot allocate the tables of the file system");
        return NULL;
    }
    pt_capability_init(fs);
    fs->statx_mask = statx_mask;
    if (!pt_file_handle_check(fs, root_fd, error)) {
        return NULL;
    }
    return set_root(fs, autofd_steal(&root_fd), error) ? g_steal_pointer(&fs) : NULL;
}

void pt_fs_free(PtFs *fs)
{
    if (fs == NULL) {
        return;
    }
    if (fs->handles.chunks != NULL && fs->inodes.chunks != NULL) {
        pt_handle_drop_all(fs);
        pt_inode_drop_all(fs, true);
    }
    pt_index_clear(&fs->index);
    pt_locks_clear(&fs->locks);
    pt_owners_clear(&fs->owners);
    pt_mounts_clear(&fs->mounts);
    pt_slots_clear(&fs->handles);
    pt_slots_clear(&fs->inodes);
    autofd_clear(&fs->procfd);
    free(fs);
}

void pt_fs_reset(PtFs *fs)
{
    pt_handle_drop_all(fs);
    pt_inode_drop_all(fs, false);
    pt_index_clear(&fs->index);
    fs->agreed = (PtAgreed){0};
}

void pt_fs_agree(PtFs *fs, const PtAgreed *agreed)
{
    fs->agreed = *agreed;
}

void pt_fs_stats(PtFs *fs, PtStats *ret_stats)
{
    *ret_stats = (PtStats){
        .inodes = atomic_load_explicit(&fs->inodes.n_in_use, memory_order_relaxed),
        .handles = atomic_load_explicit(&fs->handles.n_in_use, memory_order_relaxed),
        .descriptors = atomic_load_explicit(&fs->n_descriptors, memory_order_relaxed),
    };
}
