/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_HANDLE_H
#define PASSTHROUGH_HANDLE_H

#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "passthrough/fd.h"
#include "passthrough/inode.h"
#include "passthrough/passthrough.h"
#include "passthrough/slot.h"

/*
 * What the guest has open, by file handle.
 */

/** enum PtHandleKind - what may be done with a handle. */
typedef enum PtHandleKind {
    PT_HANDLE_FILE,
    PT_HANDLE_DIR,
    PT_HANDLE_ANY, /* only asked for */
} PtHandleKind;

typedef struct PtDirStream PtDirStream;

/** typedef PtHandle - an open file or directory. */
typedef struct PtHandle {
    PtSlot slot;
    uint64_t nodeid;         /* fixed; of the inode, to which a reference is held */
    PtDirStream *stream;     /* whose walk set @walking has it; NULL until first used */
    int fd;                  /* fixed */
    uint8_t kind;            /* fixed: PtHandleKind, not _ANY */
    bool writable;           /* fixed */
    bool nowait;             /* fixed; as PtMount.nowait */
    _Atomic uint64_t pages;  /* what becomes its inode's at first use: see pages.h */
    _Atomic uint32_t status; /* see file-status.c */
    _Atomic bool open;       /* until released; while set it holds one reference */
    _Atomic bool walking;    /* a walk has the stream */
} PtHandle;

/** typedef PtOpenFile - a reference to a handle, owned by a scope. */
typedef struct PtOpenFile {
    PtFs *fs;
    PtHandle *handle;
} PtOpenFile;

/**
 * pt_open_file_get() - the open file behind a handle of the guest's.
 * @nodeid: of the file; another one's handle is refused.
 *
 * Return: 0, -EBADF, or -EIO on a thread that must not serve.
 */
int pt_open_file_get(PtFs *fs, uint64_t nodeid, uint64_t handle, PtHandleKind kind,
                     PtOpenFile *ret_file);
void pt_open_file_clear(PtOpenFile *file);

/** struct PtHandleMake - what becomes a handle. */
typedef struct PtHandleMake {
    PtInode *inode; /* of which the caller has a reference */
    PtFd *fd;       /* taken on success */
    PtHandleKind kind;
    uint32_t flags; /* O_*, with which it was opened */
    uint64_t pages; /* see pt_pages_opened() */
} PtHandleMake;

/** pt_handle_new() - Return: 0 with the id at @ret_id, or -ENOMEM. */
int pt_handle_new(PtFs *fs, const PtHandleMake *make, uint64_t *ret_id);

/** pt_handle_release() - the guest is done with it. Return: 0, or -EBADF. */
int pt_handle_release(PtFs *fs, uint64_t nodeid, uint64_t handle, PtHandleKind kind);

/** pt_handle_inode() - the inode, borrowed from the handle. */
PtInode *pt_handle_inode(const PtFs *fs, const PtHandle *handle);

/** pt_handle_reopen() - an O_PATH descriptor of a node that the guest has open somewhere.
 * Return: it, or a negative errno. */
int pt_handle_reopen(PtFs *fs, uint64_t nodeid);

/** pt_handle_drop_all() - as if the guest had released all. */
void pt_handle_drop_all(PtFs *fs);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(PtOpenFile, pt_open_file_clear)

#endif
