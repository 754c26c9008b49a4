/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/mount.h"

#include <errno.h>
#include <linux/magic.h>
#include <stddef.h>
#include <sys/vfs.h>

#include "passthrough/file-handle.h"
#include "passthrough/mount-tables.h"
#include "virtiofsd/autofd.h"

/*
 * The table of mounts. A share has few of them and a guest can make none, so a small
 * fixed hash table under one lock does; the lock is taken only when an inode enters or
 * leaves that is on another mount than its parent directory.
 */

/* Not in every <linux/magic.h>. */
#define BCACHEFS_STATFS_MAGIC 0xca451a4e
#define ZFS_STATFS_MAGIC 0x2fc12fc1
#define JFS_STATFS_MAGIC 0x3153464a
#define UFS_STATFS_MAGIC 0x00011954
#define NTFS3_STATFS_MAGIC 0x7366746e

/* File systems in which a held inode keeps its number to itself. All others count as
 * remote: that is right for any, and costs a few system calls more. Where births are
 * told, they are so by the kernel's clock, to the microsecond at least, for good. */
static const struct Type {
    uint32_t magic;
    PtMountClass class;
    bool births;
    PtPages pages;
    bool nowait;
} types[] = {
    {EXT4_SUPER_MAGIC, PT_MOUNT_LOCAL, true, PT_PAGES_COUNTED, true},
    {XFS_SUPER_MAGIC, PT_MOUNT_LOCAL, true, PT_PAGES_COUNTED, true},
    {BTRFS_SUPER_MAGIC, PT_MOUNT_LOCAL, true, PT_PAGES_COUNTED, true},
    {TMPFS_MAGIC, PT_MOUNT_LOCAL, true, PT_PAGES_NEVER, false},
    {F2FS_SUPER_MAGIC, PT_MOUNT_LOCAL, true, PT_PAGES_UNKNOWN, false},
    {BCACHEFS_STATFS_MAGIC, PT_MOUNT_LOCAL, true, PT_PAGES_UNKNOWN, false},
    {ZFS_STATFS_MAGIC, PT_MOUNT_LOCAL, true, PT_PAGES_UNKNOWN, false},
    {OVERLAYFS_SUPER_MAGIC, PT_MOUNT_OVERLAY, true, PT_PAGES_UNKNOWN, false},
    {RAMFS_MAGIC, PT_MOUNT_LOCAL, false, PT_PAGES_NEVER, false},
    {SQUASHFS_MAGIC, PT_MOUNT_LOCAL, false, PT_PAGES_UNKNOWN, false},
    {EROFS_SUPER_MAGIC_V1, PT_MOUNT_LOCAL, false, PT_PAGES_UNKNOWN, false},
    {ISOFS_SUPER_MAGIC, PT_MOUNT_LOCAL, false, PT_PAGES_UNKNOWN, false},
    {MSDOS_SUPER_MAGIC, PT_MOUNT_LOCAL, false, PT_PAGES_UNKNOWN, false},
    {EXFAT_SUPER_MAGIC, PT_MOUNT_LOCAL, false, PT_PAGES_UNKNOWN, false},
    {REISERFS_SUPER_MAGIC, PT_MOUNT_LOCAL, false, PT_PAGES_UNKNOWN, false},
    {JFS_STATFS_MAGIC, PT_MOUNT_LOCAL, false, PT_PAGES_UNKNOWN, false},
    {UFS_STATFS_MAGIC, PT_MOUNT_LOCAL, false, PT_PAGES_UNKNOWN, false},
    {NTFS3_STATFS_MAGIC, PT_MOUNT_LOCAL, false, PT_PAGES_UNKNOWN, false},
    {HUGETLBFS_MAGIC, PT_MOUNT_LOCAL, false, PT_PAGES_NEVER, false},
    {NILFS_SUPER_MAGIC, PT_MOUNT_LOCAL, false, PT_PAGES_UNKNOWN, false},
    {MINIX3_SUPER_MAGIC, PT_MOUNT_LOCAL, false, PT_PAGES_UNKNOWN, false},
};

static struct Type type_of(uint32_t magic)
{
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (types[i].magic == magic) {
            return types[i];
        }
    }
    return (struct Type){magic, PT_MOUNT_REMOTE, false, PT_PAGES_NEVER, false};
}

bool pt_mount_is_remote(int fd)
{
    struct statfs about;
    return fstatfs(fd, &about) < 0 ||
           type_of((uint32_t)about.f_type).class == PT_MOUNT_REMOTE;
}

int pt_mounts_init(PtMounts *mounts, PtFs *fs)
{
    *mounts = (PtMounts){.fs = fs, .own_table = -1, .host_table = -1};
    int r = pt_slots_init(&mounts->slots, sizeof(PtMount));
    return r < 0 ? r : -pthread_mutex_init(&mounts->lock, NULL);
}

void pt_mounts_clear(PtMounts *mounts)
{
    if (mounts->slots.chunks != NULL) {
        (void)pthread_mutex_destroy(&mounts->lock); /* fails only while it is held */
        pt_slots_clear(&mounts->slots);
        autofd_clear(&mounts->own_table);
        autofd_clear(&mounts->host_table);
    }
}

static uint32_t next_of(PtMount *mount)
{
    return atomic_load_explicit(&mount->slot.next, memory_order_relaxed);
}

static uint32_t *bucket_of(PtMounts *mounts, uint64_t mount_id, uint64_t dev)
{
    return &mounts->heads[(mount_id ^ dev) % PT_MOUNT_BUCKETS];
}

/* Context: the lock is held. */
static PtMount *find(PtMounts *mounts, uint64_t mount_id, uint64_t dev)
{
    uint32_t index = *bucket_of(mounts, mount_id, dev);
    while (index != 0) {
        PtMount *mount = pt_mount_at(mounts, index);
        if (mount->mount_id == mount_id && mount->dev == dev &&
            pt_slot_ref_live(&mount->slot)) {
            return mount;
        }
        index = next_of(mount);
    }
    return NULL;
}

static PtMount *find_or_insert(PtMounts *mounts, PtMount *mount)
{
    (void)pthread_mutex_lock(&mounts->lock); /* cannot fail: a plain lock, not held */
    PtMount *found = find(mounts, mount->mount_id, mount->dev);
    if (found == NULL) {
        uint32_t *bucket = bucket_of(mounts, mount->mount_id, mount->dev);
        atomic_store_explicit(&mount->slot.next, *bucket, memory_order_relaxed);
        *bucket = mount->slot.index;
        pt_slot_publish(&mount->slot);
    }
    (void)pthread_mutex_unlock(&mounts->lock);
    return found;
}

static void give(PtMounts *mounts, PtMount *mount)
{
    PtFd fd = mount->fd;
    pt_slots_give(&mounts->slots, &mount->slot);
    pt_fd_clear(&fd);
}

/* Return: 0 with an entry that is not in the table yet, or a negative errno. */
static int make(PtMounts *mounts, int fd, PtMount **ret_mount)
{
    struct statfs about;
    if (fstatfs(fd, &about) < 0) {
        return -errno;
    }
    PtMount *mount = (PtMount *)(void *)pt_slots_take(&mounts->slots);
    if (mount == NULL) {
        return -ENOMEM;
    }
    const struct Type type = type_of((uint32_t)about.f_type);
    mount->fd = (PtFd){.fd = -1};
    mount->listed_id = pt_mount_tables_id(fd);
    atomic_store_explicit(&mount->readonly, false, memory_order_relaxed);
    int r = pt_file_handle_mount(mounts->fs, mount, fd);
    if (r < 0) {
        give(mounts, mount);
        return r;
    }
    bool by_handle = mount->fd.fd >= 0;
    mount->class =
        by_handle && type.class != PT_MOUNT_REMOTE ? PT_MOUNT_HANDLES : type.class;
    mount->births = type.births && !by_handle;
    mount->pages = type.pages;
    mount->nowait = type.nowait;
    *ret_mount = mount;
    return 0;
}

int pt_mount_get(PtMounts *mounts, uint64_t mount_id, uint64_t dev, int fd,
                 PtMount **ret_mount)
{
    (void)pthread_mutex_lock(&mounts->lock);
    *ret_mount = find(mounts, mount_id, dev);
    (void)pthread_mutex_unlock(&mounts->lock);
    if (*ret_mount != NULL) {
        return 0;
    }
    PtMount *mount = NULL;
    int r = make(mounts, fd, &mount);
    if (r < 0) {
        return r;
    }
    mount->mount_id = mount_id;
    mount->dev = dev;
    *ret_mount = find_or_insert(mounts, mount);
    if (*ret_mount == NULL) {
        *ret_mount = mount;
        pt_mount_tables_look(mounts, mount);
    } else {
        give(mounts, mount);
    }
    return 0;
}

void pt_mount_ref(PtMount *mount)
{
    /* Cannot fail: the caller holds a reference, and inodes number fewer than 2^31. */
    (void)pt_slot_ref_live(&mount->slot);
}

static void unlink_from_bucket(PtMounts *mounts, PtMount *mount)
{
    uint32_t *bucket = bucket_of(mounts, mount->mount_id, mount->dev);
    if (*bucket == mount->slot.index) {
        *bucket = next_of(mount);
        return;
    }
    for (uint32_t index = *bucket; index != 0;) {
        PtMount *before = pt_mount_at(mounts, index);
        index = next_of(before);
        if (index == mount->slot.index) {
            atomic_store_explicit(&before->slot.next, next_of(mount),
                                  memory_order_relaxed);
            return;
        }
    }
}

void pt_mount_put(PtMounts *mounts, PtMount *mount)
{
    if (!pt_slot_unref(&mount->slot)) {
        return;
    }
    (void)pthread_mutex_lock(&mounts->lock);
    unlink_from_bucket(mounts, mount);
    (void)pthread_mutex_unlock(&mounts->lock);
    give(mounts, mount);
}
