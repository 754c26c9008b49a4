/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_MOUNT_H
#define PASSTHROUGH_MOUNT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "passthrough/fd.h"
#include "passthrough/passthrough.h"
#include "passthrough/slot.h"

/*
 * The host's file systems seen in the share: what kind each is, found out once. An entry
 * lives exactly as long as an inode of it is held, and a held descriptor keeps the host
 * from giving its mount id and device number to another one. Unless inodes are held by
 * file handle, it holds no descriptor itself, so it never keeps a volume busy.
 */

/** enum PtMountClass - how far inode numbers can be trusted. */
typedef enum PtMountClass {
    PT_MOUNT_LOCAL,   /* a held inode's number is its own */
    PT_MOUNT_OVERLAY, /* so is it, but for hard links: see inode.c */
    PT_MOUNT_HANDLES, /* of inodes that are held by handle: it may be used again */
    PT_MOUNT_REMOTE,  /* network, FUSE or unknown: the server may use it again */
} PtMountClass;

/** enum PtPages - what the host's kernel tells of a file's pages that are not written
 * back; see pages.c. */
typedef enum PtPages {
    PT_PAGES_NEVER, /* others may write the file, unseen; or it is in memory only, and
                       there is nothing that they could be written back to */
    PT_PAGES_UNKNOWN,
    PT_PAGES_COUNTED, /* by cachestat(2) */
} PtPages;

/** pt_mount_reuses() - Return: whether only the file handle tells files apart. */
static inline bool pt_mount_reuses(PtMountClass class)
{
    return class == PT_MOUNT_HANDLES || class == PT_MOUNT_REMOTE;
}

/** pt_mount_shares_number() - whether what was @seen may have the number of another file:
 * on overlayfs, whatever its type, if it has more than one link. */
static inline bool pt_mount_shares_number(PtMountClass class, const struct statx *seen)
{
    return class == PT_MOUNT_OVERLAY && !S_ISDIR(seen->stx_mode) && seen->stx_nlink > 1;
}

/** typedef PtMount - one (mount, device) pair. */
typedef struct PtMount {
    PtSlot slot; /* .next: chain of its bucket, under PtMounts.lock */
    uint64_t mount_id;
    uint64_t dev;
    PtMountClass class;
    PtPages pages;
    bool nowait;        /* reads by RWF_NOWAIT tell whether they would wait */
    bool births;        /* number and time of birth together are never used again */
    PtFd fd;            /* of a file on it, to open others by their handles; .fd < 0 where
                           inodes are held otherwise. Fixed */
    uint64_t listed_id; /* fixed; its number in the table of mounts, or 0 */
    _Atomic bool readonly; /* the host has made it so: see mount-tables.c */
} PtMount;

enum { PT_MOUNT_BUCKETS = 64 };

typedef struct PtMounts {
    PtSlots slots;
    pthread_mutex_t lock;
    uint32_t heads[PT_MOUNT_BUCKETS]; /* under lock */
    PtFs *fs;                         /* fixed; whose mounts these are */
    int own_table;                    /* fixed, as is the next: /proc/self/mountinfo, */
    int host_table;                   /* and the host's; or -1 */
    _Atomic uint32_t n_looks;         /* how often all were looked up in them */
    _Atomic bool some_readonly;       /* one was read-only some time */
} PtMounts;

/** pt_mounts_init() - Return: 0 or -ENOMEM. */
int pt_mounts_init(PtMounts *mounts, PtFs *fs);
/** pt_mounts_clear() - Context: nobody uses the table. A zeroed one is fine. */
void pt_mounts_clear(PtMounts *mounts);

/**
 * pt_mount_get() - the entry of a mount, referenced; asks the host when it is new.
 * @fd: a descriptor of a file on it.
 *
 * Return: 0, or a negative errno.
 */
int pt_mount_get(PtMounts *mounts, uint64_t mount_id, uint64_t dev, int fd,
                 PtMount **ret_mount);
/** pt_mount_is_remote() - Return: whether a server, or who knows, has the last word on
 * this file. */
bool pt_mount_is_remote(int fd);
/** pt_mount_ref() - one more reference for a holder of one. */
void pt_mount_ref(PtMount *mount);
void pt_mount_put(PtMounts *mounts, PtMount *mount);
/** pt_mount_readonly() - Return: whether the host has made it read-only. */
static inline bool pt_mount_readonly(const PtMount *mount)
{
    return atomic_load_explicit(&mount->readonly, memory_order_relaxed);
}
/** pt_mount_at() - the entry behind an index whose reference the caller answers for. */
static inline PtMount *pt_mount_at(const PtMounts *mounts, uint32_t index)
{
    return (PtMount *)(void *)pt_slots_given(&mounts->slots, index);
}

#endif
