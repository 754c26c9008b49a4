/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/pages.h"

#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "passthrough/fd.h"
#include "passthrough/internal.h"

/*
 * With --cache=auto a guest sees after each open what is then in the file. Its kernel
 * drops the file's pages for that at every OPEN, unless the answer says that they are
 * still right: they are if nothing has changed the file since an OPEN at which they were
 * dropped. The file's size, time of modification and time of change then, as a hash that
 * nobody can foresee, are kept with the inode.
 *
 * The time of change moves whenever the file is written, and never back, with these
 * exceptions, because of which not every state can be relied upon:
 *
 * - The clock of times may be coarse, and the time moves before the data does. So it must
 *   be a while ago.
 * - A store through a mapping moves it only if the page is clean. So no page may be dirty
 *   or on its way to the disk, looked at after the times: what is stored from then on
 *   moves them. On overlayfs and elsewhere nobody counts the pages of the file below; but
 *   the kernel writes them back within half a minute, and can be told to. Where files are
 *   in memory only, pages stay dirty for good.
 *
 * A guest may open a file twice at a time, and get the answer to keep its pages before
 * the one to drop them. So a state counts only once the guest has used the handle of the
 * OPEN that was answered so: it has dropped the pages by then.
 */

#ifndef __NR_cachestat
#define __NR_cachestat 451
#endif

enum {
    WHILE_S = 2,           /* counted pages are clean */
    LONG_WHILE_S = 60,     /* pages that nobody counts are written back */
    COUNTED_MOST = 1 << 30 /* bytes; counting takes time */
};

/* cachestat(2), which the host's headers may lack. */
typedef struct CacheRange {
    uint64_t offset;
    uint64_t length; /* 0: to the end */
} CacheRange;

typedef struct CacheCounts {
    uint64_t cached;
    uint64_t dirty;
    uint64_t writeback;
    uint64_t evicted;
    uint64_t recently_evicted;
} CacheCounts;

static uint64_t hash_state(const PtFs *fs, const struct statx *stx)
{
    const uint64_t words[] = {stx->stx_size, (uint64_t)stx->stx_mtime.tv_sec,
                              stx->stx_mtime.tv_nsec, (uint64_t)stx->stx_ctime.tv_sec,
                              stx->stx_ctime.tv_nsec};
    return pt_hash(&fs->hash_key, words, sizeof(words)) | 1;
}

/* In seconds, rounded down; negative if the change is in the future. */
static int64_t age_of(const struct statx *stx)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    int64_t age = now.tv_sec - stx->stx_ctime.tv_sec;
    return now.tv_nsec < stx->stx_ctime.tv_nsec ? age - 1 : age;
}

static bool is_clean(int fd)
{
    CacheRange range = {0, 0};
    CacheCounts counts = {0};
    return syscall(__NR_cachestat, fd, &range, &counts, 0) == 0 && counts.dirty == 0 &&
           counts.writeback == 0;
}

/* What is in memory only has no extents. */
static bool is_written_back(int fd)
{
    struct fiemap map = {.fm_length = 1, .fm_flags = FIEMAP_FLAG_SYNC};
    return ioctl(fd, FS_IOC_FIEMAP, &map) == 0;
}

static bool is_reliable(PtPages pages, const struct statx *stx, int fd)
{
    int64_t age = age_of(stx);
    if (pages == PT_PAGES_COUNTED && age >= WHILE_S && stx->stx_size <= COUNTED_MOST &&
        is_clean(fd)) {
        return true;
    }
    return age >= LONG_WHILE_S && is_written_back(fd);
}

bool pt_pages_opened(PtFs *fs, PtInode *inode, int fd, struct statx *seen,
                     uint64_t *ret_state)
{
    *ret_state = 0;
    PtPages pages = pt_mount_at(&fs->mounts, pt_index_mount(fs, inode))->pages;
    if (pages == PT_PAGES_NEVER ||
        (seen->stx_mask == 0 && pt_stat(fs, fd, "", seen) < 0)) {
        return false;
    }
    uint64_t state = hash_state(fs, seen);
    if (atomic_load_explicit(&inode->pages, memory_order_relaxed) == state) {
        return true;
    }
    if (is_reliable(pages, seen, fd)) {
        *ret_state = state;
    }
    return false;
}
