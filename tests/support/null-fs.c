/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file system that does nothing. It checks ids and names as the real one does, touches
 * every byte of the segments that it is given (so that a sanitizer sees a wrong one), and
 * notices when a reset overlaps another call. All atomics are relaxed: they must not give
 * the threads under test an order that the code under test fails to give them.
 */
#include "tests/support/null-fs-private.h"

#include <errno.h>
#include <limits.h>
#include <linux/fs.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct PtFs {
    PtAgreed agreed; /* plain: ThreadSanitizer watches that it is not changed in use */
    _Atomic uint64_t calls;
    _Atomic uint64_t lookups;
    _Atomic uint64_t forgets;
    _Atomic uint64_t opens;
    _Atomic uint64_t releases;
    _Atomic uint64_t resets;
    _Atomic uint64_t dirents;
    _Atomic uint64_t violations;
    _Atomic int in_flight;
    _Atomic int fail;
    _Atomic unsigned char seen; /* makes a write's bytes count */
    size_t fail_entry;
    bool lingers;
    bool marks_submounts;
    uint32_t owner; /* what is added to the ids of files */
    bool records;
    NullFsLocks locks;
    NullFsCall last;
    char name[PT_NAME_MAX + 1]; /* of last */
    char second[PATH_MAX];
};

/* ---- the account ------------------------------------------------------------------- */

static char entry_names[NULL_FS_DIR_ENTRIES][PT_NAME_MAX + 1];

/* Lengths 8, 12, ... 248, and 255. */
static void make_entry_names(void)
{
    for (size_t i = 2; i < NULL_FS_DIR_ENTRIES; i++) {
        size_t length = i + 1 < NULL_FS_DIR_ENTRIES ? i * 4 : PT_NAME_MAX;
        memset(entry_names[i], 'a' + (int)(i % 26), length);
    }
    memcpy(entry_names[0], ".", 2);
    memcpy(entry_names[1], "..", 3);
}

PtFs *null_fs_new(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, make_entry_names);
    return calloc(1, sizeof(PtFs));
}

void null_fs_stats(PtFs *fs, NullFsStats *ret_stats)
{
    *ret_stats = (NullFsStats){
        .calls = atomic_load_explicit(&fs->calls, memory_order_relaxed),
        .lookups = atomic_load_explicit(&fs->lookups, memory_order_relaxed),
        .forgets = atomic_load_explicit(&fs->forgets, memory_order_relaxed),
        .opens = atomic_load_explicit(&fs->opens, memory_order_relaxed),
        .releases = atomic_load_explicit(&fs->releases, memory_order_relaxed),
        .resets = atomic_load_explicit(&fs->resets, memory_order_relaxed),
        .dirents = atomic_load_explicit(&fs->dirents, memory_order_relaxed),
        .violations = atomic_load_explicit(&fs->violations, memory_order_relaxed),
    };
}

NullFsLocks *null_fs_locks(PtFs *fs)
{
    return &fs->locks;
}

void null_fs_record(PtFs *fs, bool on)
{
    fs->records = on;
}

const NullFsCall *null_fs_last(const PtFs *fs)
{
    return &fs->last;
}

PtAgreed null_fs_agreed(const PtFs *fs)
{
    return fs->agreed;
}

void null_fs_fail(PtFs *fs, int result)
{
    atomic_store_explicit(&fs->fail, result, memory_order_relaxed);
}

void null_fs_fail_entry(PtFs *fs, size_t index)
{
    fs->fail_entry = index;
}

void null_fs_linger(PtFs *fs, bool on)
{
    fs->lingers = on;
}

void null_fs_shift_owner(PtFs *fs, uint32_t by)
{
    fs->owner = by;
}

void null_fs_mark_submounts(PtFs *fs, bool on)
{
    fs->marks_submounts = on;
}

static void record(PtFs *fs, const NullFsCall *call, const char *name, const char *second)
{
    if (!fs->records) {
        return;
    }
    fs->last = *call;
    if (name != NULL) {
        snprintf(fs->name, sizeof(fs->name), "%s", name);
        fs->last.name = fs->name;
    }
    if (second != NULL) {
        snprintf(fs->second, sizeof(fs->second), "%s", second);
        fs->last.second = fs->second;
    }
}

/* Begin a call on a node. Return: 0, or why it fails at once. */
static int begin(PtFs *fs, uint64_t nodeid)
{
    atomic_fetch_add_explicit(&fs->calls, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&fs->in_flight, 1, memory_order_relaxed);
    if (fs->lingers) {
        sched_yield();
    }
    int fail = atomic_exchange_explicit(&fs->fail, 0, memory_order_relaxed);
    if (fail != 0) {
        return fail;
    }
    return nodeid == 0 || nodeid > NULL_FS_NODES ? -ESTALE : 0;
}

static int end(PtFs *fs, int result)
{
    /* Read at the end too: INIT must not have changed it meanwhile. */
    if (fs->agreed.writeback && fs->agreed.supp_groups && fs->lingers) {
        sched_yield();
    }
    atomic_fetch_sub_explicit(&fs->in_flight, 1, memory_order_relaxed);
    return result;
}

static int check_name(const char *name)
{
    size_t length = strlen(name);

    if (length == 0) {
        return -ENOENT;
    }
    if (strchr(name, '/') != NULL || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        return -EINVAL;
    }
    return length > PT_NAME_MAX ? -ENAMETOOLONG : 0;
}

static int check_handle(uint64_t nodeid, uint64_t handle)
{
    return handle == nodeid + NULL_FS_HANDLE_BASE ? 0 : -EBADF;
}

static uint64_t node_of(const char *name)
{
    size_t length = strlen(name);

    return 2 + (length * 16 + (unsigned char)name[length - 1]) % (NULL_FS_NODES - 2);
}

static void fill_attr(const PtFs *fs, uint64_t nodeid, PtAttr *attr)
{
    bool is_root = nodeid == PT_ROOT_ID;

    memset(attr, 0, sizeof(*attr));
    attr->flags = fs->marks_submounts ? PT_ATTR_SUBMOUNT : 0;
    attr->stx.stx_ino = nodeid;
    attr->stx.stx_mode = is_root ? S_IFDIR | 0755 : S_IFREG | 0644;
    attr->stx.stx_nlink = is_root ? 2 : 1;
    attr->stx.stx_size = is_root ? 0 : NULL_FS_FILE_SIZE;
    attr->stx.stx_blksize = 4096;
}

static void give_entry(PtFs *fs, const char *name, PtEntry *ret_entry)
{
    ret_entry->nodeid = node_of(name);
    fill_attr(fs, ret_entry->nodeid, &ret_entry->attr);
    atomic_fetch_add_explicit(&fs->lookups, 1, memory_order_relaxed);
}

static void give_handle(PtFs *fs, uint64_t nodeid, PtOpened *ret_opened)
{
    ret_opened->handle = nodeid + NULL_FS_HANDLE_BASE;
    ret_opened->flags = 0;
    atomic_fetch_add_explicit(&fs->opens, 1, memory_order_relaxed);
}

/* ---- life cycle -------------------------------------------------------------------- */

PtFs *pt_fs_new(const PtConfig *config, int root_fd_take, int procfd_take, GError **error)
{
    (void)close(root_fd_take);
    (void)close(procfd_take);
    return null_fs_new();
}

void pt_fs_free(PtFs *fs)
{
    free(fs);
}

static void check_alone(PtFs *fs)
{
    if (atomic_load_explicit(&fs->in_flight, memory_order_relaxed) != 0) {
        atomic_fetch_add_explicit(&fs->violations, 1, memory_order_relaxed);
    }
}

void pt_fs_reset(PtFs *fs)
{
    check_alone(fs);
    atomic_fetch_add_explicit(&fs->resets, 1, memory_order_relaxed);
    if (fs->lingers) {
        sched_yield();
    }
    null_fs_locks_reset(fs);
    check_alone(fs);
}

void pt_fs_agree(PtFs *fs, const PtAgreed *agreed)
{
    check_alone(fs);
    fs->agreed = *agreed;
}

bool pt_node_readonly(PtFs *fs, uint64_t nodeid)
{
    (void)fs;
    (void)nodeid;
    return false;
}

void pt_fs_stats(PtFs *fs, PtStats *ret_stats)
{
    memset(ret_stats, 0, sizeof(*ret_stats));
}

int pt_thread_enter(PtFs *fs)
{
    return 0;
}

bool pt_thread_usable(void)
{
    return true;
}

/* ---- names ------------------------------------------------------------------------- */

int pt_lookup(PtFs *fs, uint64_t parent, const char *name, PtEntry *ret_entry)
{
    int result = begin(fs, parent);

    record(fs, &(NullFsCall){.function = __func__, .nodeid = parent}, name, NULL);
    if (result == 0) {
        result = check_name(name);
    }
    if (result == 0 && strncmp(name, "absent", 6) == 0) {
        result = -ENOENT;
    }
    if (result == 0) {
        give_entry(fs, name, ret_entry);
    }
    return end(fs, result);
}

void pt_forget(PtFs *fs, uint64_t nodeid, uint64_t nlookup)
{
    atomic_fetch_add_explicit(&fs->forgets, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&fs->in_flight, 1, memory_order_relaxed);
    record(fs, &(NullFsCall){.function = __func__, .nodeid = nodeid, .other = nlookup},
           NULL, NULL);
    (void)end(fs, 0);
}

ssize_t pt_readlink(PtFs *fs, uint64_t nodeid, char *buffer, size_t size)
{
    static const char target[] = "some/where";
    int result = begin(fs, nodeid);

    if (result == 0) {
        result = (int)(sizeof(target) - 1 < size ? sizeof(target) - 1 : size);
        memcpy(buffer, target, (size_t)result);
    }
    return end(fs, result);
}

static int make_node(PtFs *fs, const char *function, const PtMake *make,
                     PtEntry *ret_entry)
{
    int result = begin(fs, make->parent);

    record(fs,
           &(NullFsCall){.function = function,
                         .nodeid = make->parent,
                         .caller = *make->caller,
                         .labels = make->labels != NULL ? *make->labels : (PtLabels){0},
                         .mode = make->mode,
                         .rdev = make->rdev,
                         .flags = make->open_flags,
                         .flag = make->kill_suidgid},
           make->name, make->target);
    if (result == 0) {
        result = check_name(make->name);
    }
    if (result == 0) {
        give_entry(fs, make->name, ret_entry);
    }
    return end(fs, result);
}

int pt_symlink(PtFs *fs, const PtMake *make, PtEntry *ret_entry)
{
    return make_node(fs, __func__, make, ret_entry);
}

int pt_mknod(PtFs *fs, const PtMake *make, PtEntry *ret_entry)
{
    return make_node(fs, __func__, make, ret_entry);
}

int pt_mkdir(PtFs *fs, const PtMake *make, PtEntry *ret_entry)
{
    return make_node(fs, __func__, make, ret_entry);
}

int pt_create(PtFs *fs, const PtMake *make, PtEntry *ret_entry, PtOpened *ret_opened)
{
    int result = make_node(fs, __func__, make, ret_entry);

    if (result == 0) {
        give_handle(fs, ret_entry->nodeid, ret_opened);
    }
    return result;
}

int pt_tmpfile(PtFs *fs, const PtMake *make, PtEntry *ret_entry, PtOpened *ret_opened)
{
    PtMake named = *make;
    named.name = "nameless";
    int result = make_node(fs, __func__, &named, ret_entry);

    if (result == 0) {
        give_handle(fs, ret_entry->nodeid, ret_opened);
    }
    return result;
}

static int remove_name(PtFs *fs, const char *function, uint64_t parent, const char *name)
{
    int result = begin(fs, parent);

    record(fs, &(NullFsCall){.function = function, .nodeid = parent}, name, NULL);
    return end(fs, result < 0 ? result : check_name(name));
}

int pt_unlink(PtFs *fs, uint64_t parent, const char *name)
{
    return remove_name(fs, __func__, parent, name);
}

int pt_rmdir(PtFs *fs, uint64_t parent, const char *name)
{
    return remove_name(fs, __func__, parent, name);
}

int pt_rename(PtFs *fs, const PtRename *rename)
{
    int result = begin(fs, rename->parent);

    record(fs,
           &(NullFsCall){.function = __func__,
                         .nodeid = rename->parent,
                         .other = rename->new_parent,
                         .caller = *rename->caller,
                         .flags = rename->flags},
           rename->name, rename->new_name);
    if (result == 0) {
        result = check_name(rename->name);
    }
    return end(fs, result < 0 ? result : check_name(rename->new_name));
}

int pt_link(PtFs *fs, uint64_t nodeid, uint64_t new_parent, const char *new_name,
            PtEntry *ret_entry)
{
    int result = begin(fs, nodeid);

    record(fs, &(NullFsCall){.function = __func__, .nodeid = nodeid, .other = new_parent},
           new_name, NULL);
    if (result == 0) {
        result = check_name(new_name);
    }
    if (result == 0) {
        give_entry(fs, new_name, ret_entry);
    }
    return end(fs, result);
}

/* ---- attributes -------------------------------------------------------------------- */

int pt_getattr(PtFs *fs, uint64_t nodeid, uint64_t handle, PtAttr *ret_attr)
{
    int result = begin(fs, nodeid);

    record(fs, &(NullFsCall){.function = __func__, .nodeid = nodeid, .handle = handle},
           NULL, NULL);
    if (result == 0 && handle != PT_NO_HANDLE) {
        result = check_handle(nodeid, handle);
    }
    if (result == 0) {
        fill_attr(fs, nodeid, ret_attr);
    }
    return end(fs, result);
}

int pt_statx(PtFs *fs, uint64_t nodeid, const PtStatx *want, PtAttr *ret_attr)
{
    int result = begin(fs, nodeid);

    record(fs,
           &(NullFsCall){.function = __func__,
                         .nodeid = nodeid,
                         .handle = want->handle,
                         .other = want->mask,
                         .flags = want->flags},
           NULL, NULL);
    if (result == 0 && want->handle != PT_NO_HANDLE) {
        result = check_handle(nodeid, want->handle);
    }
    if (result == 0) {
        fill_attr(fs, nodeid, ret_attr);
        ret_attr->stx.stx_mask = UINT32_MAX;
        ret_attr->stx.stx_attributes = UINT64_MAX;
        ret_attr->stx.stx_attributes_mask = UINT64_MAX;
    }
    return end(fs, result);
}

int pt_setattr(PtFs *fs, uint64_t nodeid, const PtSetattr *set, PtAttr *ret_attr)
{
    int result = begin(fs, nodeid);

    record(fs, &(NullFsCall){.function = __func__, .nodeid = nodeid, .set = *set}, NULL,
           NULL);
    if (result == 0 && set->handle != PT_NO_HANDLE) {
        result = check_handle(nodeid, set->handle);
    }
    if (result == 0) {
        fill_attr(fs, nodeid, ret_attr);
    }
    return end(fs, result);
}

void pt_attr_owner(const PtFs *fs, const PtAttr *attr, uint32_t *ret_uid,
                   uint32_t *ret_gid)
{
    *ret_uid = attr->stx.stx_uid + fs->owner;
    *ret_gid = attr->stx.stx_gid + 2 * fs->owner;
}

int pt_statfs(PtFs *fs, uint64_t nodeid, struct statvfs *ret_statvfs)
{
    int result = begin(fs, nodeid);

    memset(ret_statvfs, 0, sizeof(*ret_statvfs));
    ret_statvfs->f_bsize = 4096;
    ret_statvfs->f_frsize = 4096;
    ret_statvfs->f_namemax = PT_NAME_MAX;
    return end(fs, result);
}

/* ---- files ------------------------------------------------------------------------- */

int pt_open(PtFs *fs, uint64_t nodeid, uint32_t open_flags, bool kill_suidgid,
            PtOpened *ret_opened)
{
    int result = begin(fs, nodeid);

    record(fs,
           &(NullFsCall){.function = __func__,
                         .nodeid = nodeid,
                         .flags = open_flags,
                         .flag = kill_suidgid},
           NULL, NULL);
    if (result == 0 && nodeid == PT_ROOT_ID) {
        result = -EISDIR;
    }
    if (result == 0) {
        give_handle(fs, nodeid, ret_opened);
    }
    return end(fs, result);
}

static uint64_t sum_lengths(const PtIo *io)
{
    uint64_t sum = 0;

    for (int i = 0; i < io->n_iov; i++) {
        sum += io->iov[i].iov_len;
    }
    return sum;
}

static int begin_io(PtFs *fs, const char *function, const PtIo *io)
{
    int result = begin(fs, io->nodeid);

    record(fs,
           &(NullFsCall){.function = function,
                         .nodeid = io->nodeid,
                         .handle = io->handle,
                         .offset = io->offset,
                         .flags = io->flags,
                         .open_flags = io->open_flags,
                         .bytes = sum_lengths(io),
                         .n_iov = io->n_iov},
           NULL, NULL);
    if (result == 0) {
        result = check_handle(io->nodeid, io->handle);
    }
    return result == 0 && io->offset > INT64_MAX ? -EINVAL : result;
}

ssize_t pt_read(PtFs *fs, const PtIo *io)
{
    int result = begin_io(fs, __func__, io);
    uint64_t left = io->offset < NULL_FS_FILE_SIZE ? NULL_FS_FILE_SIZE - io->offset : 0;

    for (int i = 0; i < io->n_iov && result >= 0 && left > 0; i++) {
        uint64_t here = io->iov[i].iov_len < left ? io->iov[i].iov_len : left;
        memset(io->iov[i].iov_base, NULL_FS_BYTE, here);
        left -= here;
        result += (int)here;
    }
    return end(fs, result);
}

ssize_t pt_write(PtFs *fs, const PtIo *io)
{
    int result = begin_io(fs, __func__, io);
    unsigned char sum = 0;

    for (int i = 0; i < io->n_iov && result >= 0; i++) {
        const unsigned char *bytes = io->iov[i].iov_base;
        for (size_t j = 0; j < io->iov[i].iov_len; j++) {
            sum ^= bytes[j];
        }
        result += (int)io->iov[i].iov_len;
    }
    atomic_store_explicit(&fs->seen, sum, memory_order_relaxed);
    return end(fs, result);
}

static int on_handle(PtFs *fs, const NullFsCall *call)
{
    int result = begin(fs, call->nodeid);

    record(fs, call, NULL, NULL);
    return end(fs, result < 0 ? result : check_handle(call->nodeid, call->handle));
}

int pt_flush(PtFs *fs, uint64_t nodeid, uint64_t handle)
{
    return on_handle(
        fs, &(NullFsCall){.function = __func__, .nodeid = nodeid, .handle = handle});
}

int pt_fsync(PtFs *fs, uint64_t nodeid, uint64_t handle, bool datasync)
{
    return on_handle(fs, &(NullFsCall){.function = __func__,
                                       .nodeid = nodeid,
                                       .handle = handle,
                                       .flag = datasync});
}

int pt_release(PtFs *fs, uint64_t nodeid, uint64_t handle)
{
    int result = on_handle(
        fs, &(NullFsCall){.function = __func__, .nodeid = nodeid, .handle = handle});

    if (result == 0) {
        atomic_fetch_add_explicit(&fs->releases, 1, memory_order_relaxed);
    }
    return result;
}

int pt_fallocate(PtFs *fs, const PtAllocate *allocate)
{
    return on_handle(fs, &(NullFsCall){.function = __func__,
                                       .nodeid = allocate->nodeid,
                                       .handle = allocate->handle,
                                       .mode = allocate->mode,
                                       .offset = allocate->offset,
                                       .other = allocate->length,
                                       .flag = allocate->kill_suidgid});
}

int pt_lseek(PtFs *fs, uint64_t nodeid, uint64_t handle, uint64_t offset, uint32_t whence,
             uint64_t *ret_offset)
{
    *ret_offset = offset;
    return on_handle(fs, &(NullFsCall){.function = __func__,
                                       .nodeid = nodeid,
                                       .handle = handle,
                                       .offset = offset,
                                       .other = whence});
}

ssize_t pt_copy(PtFs *fs, const PtCopy *copy)
{
    int result = on_handle(fs, &(NullFsCall){.function = __func__,
                                             .nodeid = copy->nodeid,
                                             .handle = copy->handle,
                                             .offset = copy->offset,
                                             .flags = copy->flags,
                                             .flag = copy->kill_suidgid,
                                             .copy = *copy});

    if (result == 0) {
        result = check_handle(copy->to_nodeid, copy->to_handle);
    }
    return result < 0 ? result : (ssize_t)MIN(copy->length, NULL_FS_COPY_MOST);
}

static int on_flags(PtFs *fs, const char *function, const PtFlagsOf *of, bool set)
{
    return on_handle(fs, &(NullFsCall){.function = function,
                                       .nodeid = of->nodeid,
                                       .handle = of->handle,
                                       .other = of->is_directory,
                                       .flag = set});
}

int pt_flags(PtFs *fs, const PtFlagsOf *of, bool set, uint32_t *flags)
{
    int result = on_flags(fs, __func__, of, set);

    if (set && fs->records) {
        fs->last.flags = *flags;
    }
    *flags = set ? 0 : NULL_FS_FLAGS;
    return result;
}

int pt_xflags(PtFs *fs, const PtFlagsOf *of, bool set, struct fsxattr *attr)
{
    int result = on_flags(fs, __func__, of, set);

    if (set && fs->records) {
        fs->last.flags = attr->fsx_xflags;
        fs->last.bytes = attr->fsx_projid;
    }
    memset(attr, set ? 0 : NULL_FS_BYTE, sizeof(*attr));
    return result;
}

int pt_syncfs(PtFs *fs, uint64_t nodeid)
{
    return end(fs, begin(fs, nodeid));
}

/* ---- directories ------------------------------------------------------------------- */

int pt_opendir(PtFs *fs, uint64_t nodeid, uint32_t open_flags, PtOpened *ret_opened)
{
    int result = begin(fs, nodeid);

    if (result == 0 && nodeid != PT_ROOT_ID) {
        result = -ENOTDIR;
    }
    if (result == 0) {
        give_handle(fs, nodeid, ret_opened);
    }
    return end(fs, result);
}

int pt_releasedir(PtFs *fs, uint64_t nodeid, uint64_t handle)
{
    return pt_release(fs, nodeid, handle);
}

int pt_fsyncdir(PtFs *fs, uint64_t nodeid, uint64_t handle, bool datasync)
{
    return pt_fsync(fs, nodeid, handle, datasync);
}

/* The cursor's only content here is the index of the next entry, in @stream. */
int pt_dir_begin(PtFs *fs, uint64_t nodeid, uint64_t handle, uint64_t offset,
                 PtDirCursor *ret_cursor)
{
    int result = begin(fs, nodeid);

    *ret_cursor = (PtDirCursor){.fs = fs, .stream = (void *)(uintptr_t)offset};
    if (result == 0) {
        result = check_handle(nodeid, handle);
    }
    return end(fs, result);
}

void pt_dir_follow(PtDirCursor *cursor, uint32_t open_flags)
{
    (void)cursor;
    (void)open_flags;
}

int pt_dir_next(PtDirCursor *cursor, PtDirent *ret_dirent)
{
    size_t i = (uintptr_t)cursor->stream;

    if (i > 0 && i == cursor->fs->fail_entry) {
        return -EIO;
    }
    if (i >= NULL_FS_DIR_ENTRIES) {
        return 0;
    }
    *ret_dirent = (PtDirent){
        .ino = i + 1,
        .offset = i + 1,
        .type = i < 2 ? 4 : 8,
        .name_length = (uint32_t)strlen(entry_names[i]),
        .name = entry_names[i],
    };
    cursor->stream = (void *)(uintptr_t)(i + 1);
    atomic_fetch_add_explicit(&cursor->fs->dirents, 1, memory_order_relaxed);
    return 1;
}

void pt_dir_unread(PtDirCursor *cursor, const PtDirent *dirent)
{
    cursor->stream = (void *)(uintptr_t)(dirent->offset - 1);
    atomic_fetch_sub_explicit(&cursor->fs->dirents, 1, memory_order_relaxed);
}

int pt_dir_lookup(PtDirCursor *cursor, const PtDirent *dirent, PtEntry *ret_entry)
{
    memset(ret_entry, 0, sizeof(*ret_entry));
    if (dirent->name[0] == '.') {
        return 0;
    }
    if (dirent->offset == NULL_FS_DIR_ABSENT + 1) {
        return -ENOENT;
    }
    give_entry(cursor->fs, dirent->name, ret_entry);
    return 0;
}

void pt_dir_end(PtDirCursor *cursor)
{
    *cursor = (PtDirCursor){0};
}

/* ---- for the other files ----------------------------------------------------------- */

int null_fs_begin(PtFs *fs, uint64_t nodeid)
{
    return begin(fs, nodeid);
}

int null_fs_end(PtFs *fs, int result)
{
    return end(fs, result);
}

void null_fs_note(PtFs *fs, const NullFsCall *call, const char *name, const char *second)
{
    record(fs, call, name, second);
}
