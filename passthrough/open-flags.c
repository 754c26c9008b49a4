/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/open-flags.h"

#include <errno.h>
#include <fcntl.h>

#include "passthrough/internal.h"

/*
 * Open flags. What is not listed here never reaches the host: O_CREAT and O_EXCL are
 * pt_create()'s own, O_PATH and O_TMPFILE would open something else, O_APPEND is applied
 * to each write, because the guest's kernel may change it at any time. The fourth access
 * mode, O_ACCMODE, asks for both permissions and gives neither: Linux has it for
 * ioctl(2).
 */

int pt_open_flags(const PtFs *fs, uint32_t guest_flags, uint32_t *ret_flags)
{
    uint32_t allowed = O_ACCMODE | O_TRUNC | O_SYNC | O_DSYNC;
    if (fs->config.allow_direct_io) {
        allowed |= O_DIRECT;
    }
    if (fs->config.preserve_noatime) {
        allowed |= O_NOATIME;
    }
    uint32_t flags = guest_flags & allowed;
    if (fs->agreed.writeback && (flags & O_ACCMODE) == O_WRONLY) {
        /* The guest's page cache reads what it writes only a part of. */
        flags = (flags & ~(uint32_t)O_ACCMODE) | O_RDWR;
    }
    if (fs->config.readonly) {
        flags |= O_NOATIME;
    }
    *ret_flags = flags | O_NOCTTY;
    return 0;
}

uint32_t pt_open_dir_flags(const PtFs *fs, uint32_t guest_flags)
{
    uint32_t allowed = fs->config.preserve_noatime ? O_NOATIME : 0;
    uint32_t always = fs->config.readonly ? O_NOATIME : 0;
    return O_RDONLY | O_DIRECTORY | (guest_flags & allowed) | always;
}

int pt_open_type_check(mode_t type)
{
    switch (type) {
    case S_IFREG:
        return 0;
    case S_IFDIR:
        return -EISDIR;
    case S_IFLNK:
        return -ELOOP;
    default:
        return -ENXIO;
    }
}

bool pt_opened_for_writing(uint32_t flags)
{
    uint32_t mode = flags & O_ACCMODE;
    return mode == O_WRONLY || mode == O_RDWR;
}

uint32_t pt_opened_file(const PtFs *fs, const PtInode *inode, uint32_t flags)
{
    /* FLUSH has something to do where a file was written and close(2) tells errors (see
     * pt_flush()), and where it ends record locks. */
    bool flush = fs->agreed.posix_locks ||
                 (pt_opened_for_writing(flags) && inode->mount_class == PT_MOUNT_REMOTE);
    uint32_t answer = flush ? 0 : PT_OPEN_NOFLUSH;
    switch (fs->config.cache) {
    case PT_CACHE_NEVER:
    case PT_CACHE_METADATA:
        return answer | PT_OPEN_DIRECT_IO | PT_OPEN_PARALLEL_DIRECT_WRITES;
    case PT_CACHE_ALWAYS:
        return answer | PT_OPEN_KEEP_CACHE;
    case PT_CACHE_AUTO:
        break;
    }
    return answer;
}

bool pt_open_may_keep(const PtFs *fs, uint32_t flags)
{
    return fs->config.cache == PT_CACHE_AUTO && !fs->agreed.writeback &&
           (flags & O_ACCMODE) != O_WRONLY && (flags & (O_TRUNC | O_DIRECT)) == 0;
}

uint32_t pt_opened_dir(const PtFs *fs)
{
    bool caches =
        fs->config.cache == PT_CACHE_ALWAYS || fs->config.cache == PT_CACHE_METADATA;
    return caches ? PT_OPEN_CACHE_DIR | PT_OPEN_KEEP_CACHE : 0;
}
