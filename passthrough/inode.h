/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_INODE_H
#define PASSTHROUGH_INODE_H

#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "passthrough/fd.h"
#include "passthrough/mount.h"
#include "passthrough/passthrough.h"
#include "passthrough/slot.h"

/*
 * The files that the guest knows by node id.
 */

/** typedef PtIdentity - what the host tells one file from another by. */
typedef struct PtIdentity {
    uint64_t mount_id;
    uint64_t dev;
    uint64_t ino;
    uint64_t btime; /* nanoseconds; 0 where the file system has none */
} PtIdentity;

/** pt_identity() - Return: the identity in the answer of a statx. */
PtIdentity pt_identity(const struct statx *stx);
bool pt_identity_equal(const PtIdentity *a, const PtIdentity *b);

/** enum PtKeyKind - how an inode is found again. */
typedef enum PtKeyKind {
    PT_KEY_NONE,   /* not at all: the root, which is found by its id */
    PT_KEY_NUMBER, /* mount, device, number */
    PT_KEY_NAME,   /* mount, parent, name */
} PtKeyKind;

/** enum PtHeld - how an inode is held on the host. */
typedef enum PtHeld {
    PT_HELD_OPEN,   /* by a descriptor, for as long as it lives */
    PT_HELD_NAME,   /* by a descriptor while there is room, else by its place */
    PT_HELD_HANDLE, /* by its file handle, with no descriptor between requests */
} PtHeld;

/** typedef PtInode - one file; 88 bytes, so that a million of them are 88 MB. */
typedef struct PtInode {
    PtSlot slot; /* .next: chain of its bucket, under the shard's lock */
    /* Lookups that the guest has not given back; while > 0 they hold one reference. */
    _Atomic uint64_t nlookup;
    _Atomic uint64_t hold; /* its descriptor, and who uses it: see inode-hold.h */
    uint64_t ino;          /* under the shard's lock, as are the next two */
    uint64_t btime;
    uint64_t tag;          /* by number, remote: hash of the file handle, 0 for none;
                              by number, else: 0; by name: hash of parent and name */
    _Atomic uint32_t hash; /* of its key; changes under both shards' locks */
    uint32_t mount;        /* index of a PtMount that is referenced; as ino. Fixed for
                              directories, of which anybody may read it */
    union {
        char *name; /* PT_HELD_NAME: its place, see inode-place.h; PT_HELD_OPEN: NULL */
        struct file_handle *handle; /* PT_HELD_HANDLE; fixed */
    };
    _Atomic uint64_t pages; /* state of the file that the guest's pages are of, or 0: see
                               pages.c */
    uint32_t parent;        /* index, 0 for none; a reference is held. As name */
    uint8_t type;           /* fixed: S_IFMT bits >> 12 */
    uint8_t held;           /* fixed: PtHeld */
    uint8_t mount_class;    /* fixed: PtMountClass */
    uint8_t key_kind;       /* PtKeyKind; as ino */
} PtInode;

/** typedef PtPlace - a name in a directory. */
typedef struct PtPlace {
    PtInode *parent;
    int dir_fd; /* a descriptor of @parent, borrowed; O_PATH will do */
    const char *name;
} PtPlace;

/** enum PtNodeFd - whose PtNode.fd is. */
typedef enum PtNodeFd {
    PT_NODE_FD_BORROWED, /* the inode's for ever, or there is none */
    PT_NODE_FD_PINNED,   /* the inode's, which must not close it */
    PT_NODE_FD_OWN,      /* the node's */
} PtNodeFd;

/** typedef PtNode - a reference to an inode, owned by a scope. */
typedef struct PtNode {
    PtFs *fs;
    PtInode *inode;
    int fd; /* O_PATH descriptor of it, good until pt_node_clear(); -1: only referenced */
    PtNodeFd whose;
    struct statx *seen; /* where a file that has to be opened for this is told about, or
                           NULL; stx_mask is 0 if it was not */
} PtNode;

/**
 * pt_node_get() - the inode behind an id of the guest's, with a descriptor of it.
 *
 * Return: 0, -ESTALE for an id that the guest does not hold and for a file that was
 * replaced or removed on the host, or -EIO on a thread that must not serve.
 */
int pt_node_get(PtFs *fs, uint64_t nodeid, PtNode *ret_node);
/** pt_node_get_seen() - the same. @seen: its attributes, if the file had to be opened;
 * else left as it is, or with an stx_mask of 0. */
int pt_node_get_seen(PtFs *fs, uint64_t nodeid, PtNode *ret_node, struct statx *seen);
/** pt_node_stat() - statx(2) of the inode behind an id of the guest's. It is not opened
 * for that if it still is at its place, and this is the first time or there is no room.
 * Return: as pt_node_get(). */
int pt_node_stat(PtFs *fs, uint64_t nodeid, struct statx *ret_seen);
void pt_node_clear(PtNode *node);

/** pt_inode_set_root() - make the first inode. @fd is taken, also on error. */
int pt_inode_set_root(PtFs *fs, int fd_take);
/** pt_inode_drop_all() - as if the guest had forgotten everything; with @root, also it.
 */
void pt_inode_drop_all(PtFs *fs, bool root);

/** pt_inode_type() - Return: the S_IFMT bits. */
mode_t pt_inode_type(const PtInode *inode);
/** pt_inode_ref() - one more reference for a holder of one. */
void pt_inode_ref(PtInode *inode);
void pt_inode_put(PtFs *fs, PtInode *inode);
/** pt_inode_count_lookup() - the guest learns of it: one lookup more.
 * Consumes the caller's reference. Return: the node id. */
uint64_t pt_inode_count_lookup(PtFs *fs, PtInode *inode_take);

/** pt_inode_at() - the inode that lives at an index; the caller answers for that. */
PtInode *pt_inode_at(const PtFs *fs, uint32_t index);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(PtNode, pt_node_clear)

#endif
