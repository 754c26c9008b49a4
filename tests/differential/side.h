/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_DIFFERENTIAL_SIDE_H
#define TESTS_DIFFERENTIAL_SIDE_H

#include <stdbool.h>
#include <sys/types.h>

#include "tests/differential/op.h"
#include "tests/differential/out.h"

/*
 * One of the two trees, and the process that works in it. The process has its tree as
 * root directory, so that no path leads out of it and absolute ones mean the same in
 * both.
 */

#define SIDE_SLOTS 6
#define SIDE_REGISTERS 3
/** Operations that are run before anybody compares. */
#define SIDE_BATCH 256
#define SIDE_BUFFER (1u << 20)

/** struct Mode - how the daemon was started, as far as a program can tell. */
typedef struct Mode {
    bool control;      /* both trees are native */
    bool cached;       /* the guest keeps pages (auto, always) */
    bool cached_names; /* and names, for long */
    bool mmap;         /* shared mappings are possible */
    bool writeback;
    bool xattr;
    bool acl;
    bool direct;  /* O_DIRECT reaches the host */
    bool noatime; /* O_NOATIME reaches the host */
    bool tmpfile;
    bool ioctl;
    bool statx;
    bool memory;   /* the trees are on tmpfs */
    bool killpriv; /* by the host (--killpriv-v2) */
    bool overlay;  /* the trees are on overlayfs */
    bool btrfs;    /* the trees are on btrfs */
    bool xfs;      /* the trees are on xfs */
    bool broken;   /* the native side is wrong on purpose */
    int64_t far;   /* how far a native file's offset can go */
} Mode;

/** struct Slot - an open file; @fd is -1 if there is none. */
typedef struct Slot {
    int fd;
    bool directory;
    bool toggled; /* O_DIRECT: the last transfer may not have had what it has */
    /* A listing in progress. */
    char *entries;
    size_t at;
    size_t end;
    uint32_t since;
    bool ended;
} Slot;

struct Side {
    const Mode *mode;
    bool mount; /* what is tested, not what it is compared with */
    int root_fd;
    int proc_fd; /* /proc/self/fd */
    uint64_t device;
    int who;
    uint32_t index;       /* of the operation */
    uint32_t last_change; /* operation that last changed a name */
    bool settled;         /* all is written back */
    bool mapped;          /* a file was mapped */
    Slot slots[SIDE_SLOTS];
    int64_t cookies[SIDE_REGISTERS];
    uint8_t *buffer; /* SIDE_BUFFER bytes, at the start of a page */
    Out out;
};

/** struct SideResults - in shared memory. */
typedef struct SideResults {
    size_t end[SIDE_BATCH]; /* where each operation's fields end */
    bool alive;             /* the last operation that was begun has ended */
    uint8_t bytes[(16u << 20) - 4096];
} SideResults;

typedef struct SideProcess {
    pid_t pid;
    int to;
    int from;
    SideResults *results;
} SideProcess;

/** side_far() - the greatest offset that a file in @directory can be moved to. */
int64_t side_far(const char *directory);
/**
 * side_start() - a process in @directory.
 * @ops: SIDE_BATCH operations in shared memory.
 *
 * Return: 0 or a negative errno.
 */
int side_start(SideProcess *process, const char *directory, const Mode *mode, bool mount,
               const Op *ops);
/** side_begin() - run @n operations, the first being number @first. */
void side_begin(SideProcess *process, uint32_t first, uint32_t n);
/** side_finish() - Return: 0, or -EPIPE if the process ended. */
int side_finish(SideProcess *process);
void side_stop(SideProcess *process);

#endif
