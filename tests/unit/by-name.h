/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_BY_NAME_H
#define TESTS_UNIT_BY_NAME_H

#include "passthrough/inode-hold.h"
#include "passthrough/internal.h"
#include "tests/unit/scratch.h"

/*
 * Files that are known by their names only: how tests get them.
 */

/* A new file is opened rather than held by name, until the clock has moved on. */
static inline void let_settle(void)
{
    g_usleep(40000);
}

static inline PtInode *inode_of(const Scratch *s, uint64_t nodeid)
{
    PtInode *inode = pt_inode_at(s->fs, (uint32_t)nodeid);
    g_assert_nonnull(inode);
    return inode;
}

static inline bool is_open(const Scratch *s, uint64_t nodeid)
{
    return pt_hold_fd(inode_of(s, nodeid)) >= 0;
}

/* How many inodes nothing but their places hold. */
static inline uint32_t n_named(const Scratch *s)
{
    uint32_t n = 0;
    for (size_t i = 0; i < PT_PLACE_NAMES; i++) {
        n += s->fs->places.named[i];
    }
    return n;
}

/* As after an eviction. */
static inline void close_idle(const Scratch *s, uint64_t nodeid)
{
    g_auto(PtHome) home = {0};
    PtInode *inode = inode_of(s, nodeid);
    if (is_open(s, nodeid) && pt_home_get(s->fs, inode, &home)) {
        const PtPlace place = {home.parent, -1, home.name};
        pt_place_name(s->fs, &place);
        pt_fd_close(s->fs, pt_hold_end(s->fs, inode));
    }
}

static inline int getattr_error(const Scratch *s, uint64_t nodeid)
{
    PtAttr attr;
    return pt_getattr(s->fs, nodeid, PT_NO_HANDLE, &attr);
}

static inline PtAttr getattr(const Scratch *s, uint64_t nodeid)
{
    PtAttr attr;
    g_assert_cmpint(pt_getattr(s->fs, nodeid, PT_NO_HANDLE, &attr), ==, 0);
    return attr;
}

/* What READDIRPLUS answers about one name, and whether it names it at all. */
static inline int list_one(const Scratch *s, uint64_t directory, const char *name,
                           PtEntry *ret_entry)
{
    PtOpened opened;
    PtDirent dirent;
    int found = -ENODATA;
    int r = pt_opendir(s->fs, directory, O_RDONLY, &opened);
    if (r < 0) {
        return r;
    }
    {
        g_auto(PtDirCursor) cursor = {0};
        r = pt_dir_begin(s->fs, directory, opened.handle, 0, &cursor);
        while (r == 0 && found == -ENODATA && pt_dir_next(&cursor, &dirent) > 0) {
            if (strcmp(dirent.name, name) == 0) {
                found = pt_dir_lookup(&cursor, &dirent, ret_entry);
            }
        }
    }
    g_assert_cmpint(pt_releasedir(s->fs, directory, opened.handle), ==, 0);
    return r < 0 ? r : found;
}

/* The node of a name that is only listed. */
static inline uint64_t listed(const Scratch *s, uint64_t directory, const char *name)
{
    PtEntry entry;
    g_assert_cmpint(list_one(s, directory, name, &entry), ==, 0);
    return entry.nodeid;
}

/* The node of a name that was looked up and used, and so is open. */
static inline uint64_t used(const Scratch *s, uint64_t directory, const char *name)
{
    PtOpened opened;
    uint64_t nodeid = lookup(s, directory, name).nodeid;
    g_assert_cmpint(pt_open(s->fs, nodeid, O_RDONLY, false, &opened), ==, 0);
    g_assert_cmpint(pt_release(s->fs, nodeid, opened.handle), ==, 0);
    g_assert_true(is_open(s, nodeid));
    return nodeid;
}

/* What is in the file of a node; for tests, one digit. */
static inline int content(const Scratch *s, uint64_t nodeid)
{
    PtOpened opened;
    char byte = 0;
    int r = pt_open(s->fs, nodeid, O_RDONLY, false, &opened);
    if (r < 0) {
        return r;
    }
    ssize_t n = read_text(s, nodeid, opened.handle, 0, &byte, 1);
    g_assert_cmpint(pt_release(s->fs, nodeid, opened.handle), ==, 0);
    return n == 1 ? byte : (int)n;
}

static inline void host_mkdir(const Scratch *s, const char *name)
{
    g_assert_cmpint(mkdirat(s->dir, name, 0755), ==, 0);
}

static inline void host_rename(const Scratch *s, const char *from, const char *to)
{
    g_assert_cmpint(renameat(s->dir, from, s->dir, to), ==, 0);
}

static inline int guest_rename(const Scratch *s, uint64_t from_dir, const char *from,
                               uint64_t to_dir, const char *to, uint32_t flags)
{
    PtRename rename = {from_dir, from, to_dir, to, flags, &root_caller};
    return pt_rename(s->fs, &rename);
}

#endif
