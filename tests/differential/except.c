/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tests/differential/compare.h"
#include "tests/differential/run.h"

/*
 * The exceptions: differences that FUSE makes inevitable, one by one. HACKING.md, "Where
 * a guest can tell the share from its own file system", tells them to people. What is
 * never tried natively, because FUSE's client refuses it by itself, is in run-*.c.
 */

typedef struct Exception {
    const char *name;
    const char *reason;
    bool (*covers)(const Seen *seen);
    unsigned met;
} Exception;

bool except_recent(const Comparer *comparer, OutTime time_)
{
    return time_.s >= comparer->start - 2 && time_.s <= time(NULL) + 2;
}

static bool is_part(const Seen *seen, const char *field, const char *part)
{
    return strcmp(seen->field, field) == 0 && strcmp(seen->part, part) == 0;
}

static bool cached_access_time(const Seen *seen)
{
    if (!is_part(seen, "stat", "atime")) {
        return false;
    }
    const OutStat *native = seen->native;
    const Mode *mode = seen->comparer->mode;
    bool cached = S_ISREG(native->mode) ? mode->cached : mode->cached_names;
    return cached && except_recent(seen->comparer, native->atime);
}

static bool old_lock_mark(const Seen *seen)
{
    if (!is_part(seen, "stat", "mode")) {
        return false;
    }
    const OutStat *mount = seen->mount, *native = seen->native;
    return S_ISREG(native->mode) && (mount->mode ^ native->mode) == S_ISGID &&
           (native->mode & S_IXGRP) == 0;
}

static bool guests_pipe(const Seen *seen)
{
    const OutStat *native = seen->native;
    return (is_part(seen, "stat", "atime") || is_part(seen, "stat", "mtime") ||
            is_part(seen, "stat", "mtime moves") || is_part(seen, "stat", "ctime") ||
            is_part(seen, "stat", "ctime moves")) &&
           S_ISFIFO(native->mode);
}

static bool written_back(const Seen *seen)
{
    const OutStat *native = seen->native;
    return seen->comparer->mode->writeback &&
           (is_part(seen, "stat", "mtime moves") ||
            is_part(seen, "stat", "ctime moves")) &&
           S_ISREG(native->mode);
}

static bool unclamped(const Seen *seen)
{
    if (!seen->comparer->mode->writeback || !is_part(seen, "stat", "mtime")) {
        return false;
    }
    const OutStat *mount = seen->mount, *native = seen->native;
    int64_t asked = mount->mtime.s, kept = native->mtime.s;
    return S_ISREG(native->mode) && ((asked < kept && kept == INT32_MIN) ||
                                     (asked > kept && kept > INT64_C(1) << 33));
}

static bool read_to_write(const Seen *seen)
{
    if (!seen->comparer->mode->writeback || !is_part(seen, "stat", "atime")) {
        return false;
    }
    const OutStat *mount = seen->mount;
    return S_ISREG(mount->mode) && except_recent(seen->comparer, mount->atime);
}

static bool directory_offset(const Seen *seen)
{
    const OpRow *row = &ops_rows[seen->op->code];
    if (!is_part(seen, "return", "value") ||
        (row->run != run_read && row->run != run_pread)) {
        return false;
    }
    const int64_t *mount = seen->mount, *native = seen->native;
    return (*mount == -EISDIR && *native == -EINVAL) ||
           (*mount == -EINVAL && *native == -EISDIR);
}

static bool listed_from_the_start(const Seen *seen)
{
    if (!seen->comparer->mode->btrfs || !is_part(seen, "return", "value") ||
        ops_rows[seen->op->code].run != run_readdir) {
        return false;
    }
    const int64_t *mount = seen->mount, *native = seen->native;
    return *mount == -EINVAL && *native == 0;
}

static bool number_below(const Seen *seen)
{
    const OutStat *native = seen->native;
    return seen->comparer->mode->overlay && seen->comparer->mode->cached_names &&
           is_part(seen, "stat", "ino") && S_ISREG(native->mode);
}

static Exception exceptions[] = {
    {"cached access time",
     "a read that the guest's page cache answers never reaches the host, so the host's "
     "file system does not see the access",
     cached_access_time, 0},
    {"set-group-ID without group execute",
     "the host's kernel asks whether the caller is in the file's group before it drops "
     "the "
     "bit, and no WRITE, OPEN or SETATTR tells the caller's groups",
     old_lock_mark, 0},
    {"times of a pipe",
     "what goes through a named pipe stays in the guest's kernel, which tells no host "
     "that "
     "the pipe was read or written",
     guests_pipe, 0},
    {"access time of what is written",
     "with writeback the guest's kernel reads a page before a program writes a part of "
     "it",
     read_to_write, 0},
    {"time that no inode holds",
     "with writeback the guest's kernel keeps the time that a program set, and does not "
     "know which times the host's file system can store",
     unclamped, 0},
    {"times of what is written back",
     "with writeback the guest's kernel owns the times of a file that it writes: it "
     "takes "
     "them from its own clock, and sends them later",
     written_back, 0},
    {"offset of a directory that was read",
     "read(2) looks at the offset first, and some file systems put it where no reading "
     "can "
     "be; of a READDIR that gives nothing, the guest's kernel learns no offset, and in a "
     "listing that it keeps it has its own",
     directory_offset, 0},
    {"what was made since a directory was opened",
     "btrfs shows it to who has sought a place, and the guest's kernel does not tell a "
     "second reading at the start from a rewinddir(3): the next name may be too long, "
     "where natively there is none",
     listed_from_the_start, 0},
    {"number of a file that was copied up",
     "overlayfs gives a file that had other names below another number, and the guest's "
     "kernel keeps the number that it knows",
     number_below, 0},
};

bool except_covers(const Seen *seen)
{
    for (size_t i = 0; i < G_N_ELEMENTS(exceptions); i++) {
        if (exceptions[i].covers(seen)) {
            exceptions[i].met++;
            return true;
        }
    }
    return false;
}

void except_report(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(exceptions); i++) {
        (void)printf("exception met %u times: %s\n", exceptions[i].met,
                     exceptions[i].name);
    }
}
