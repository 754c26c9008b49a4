/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_FUSE_REPLY_H
#define VIRTIOFSD_FUSE_REPLY_H

#include <sys/statvfs.h>

#include "virtiofsd/fuse/op.h"

/*
 * Encoders: they append to a reply's body what the guest expects. All return 0, or
 * -EINVAL with nothing written when the room does not do.
 */

int reply_entry(Request *request, const PtEntry *entry);

/** reply_negative() - "there is no such name, and you may remember that". */
int reply_negative(Request *request);

int reply_attr(Request *request, const PtAttr *attr);
int reply_statx(Request *request, const PtAttr *attr);
int reply_open(Request *request, const PtOpened *opened);
int reply_statfs(Request *request, const struct statvfs *statvfs);

/** reply_bytes() - any struct or string as it is. */
int reply_bytes(Request *request, const void *bytes, size_t size);

/*
 * Directories. Records are put together in private memory and reach the guest many at a
 * time: each line of its memory comes from another processor's cache.
 */

/** reply_dirent_size() - bytes that a name of @length takes in READDIR or READDIRPLUS. */
size_t reply_dirent_size(uint32_t length, bool plus);
/** reply_dirent_room() - bytes that records may still take. */
size_t reply_dirent_room(const Request *request);
/** reply_dirent() - add a record. Return: 0, or -EINVAL if there is no room for it. */
int reply_dirent(Request *request, const PtDirent *dirent);
/** reply_direntplus() - @entry may have nodeid 0: the name is listed, nothing more. */
int reply_direntplus(Request *request, const PtDirent *dirent, const PtEntry *entry);
/** reply_dirents_end() - after the last record. Return: whether there was any. */
bool reply_dirents_end(Request *request);

#endif
