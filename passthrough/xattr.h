/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_XATTR_H
#define PASSTHROUGH_XATTR_H

#include <sys/types.h>

#include "passthrough/handle.h"
#include "passthrough/passthrough.h"

/*
 * What the rest of passthrough/ has to do with extended attributes.
 */

/** pt_setxattr_fd() - pt_setxattr() on any descriptor of the file. */
int pt_setxattr_fd(const PtFs *fs, int fd, const PtSetxattr *set);

/** pt_capability_init() - find out whether the map renames security.capability. */
void pt_capability_init(PtFs *fs);

/**
 * pt_capability_drop() - remove a file's capabilities, if the map keeps them under a name
 * that the kernel does not know: it removes only its own when a file changes.
 * @fd: any descriptor of the file that is about to change.
 * @type: S_IFMT bits; for all but regular files there is nothing to do.
 *
 * One system call under such a map, else none.
 * Return: 0 or a negative errno.
 */
int pt_capability_drop(const PtFs *fs, int fd, mode_t type);

/** struct PtCapability - a file's capabilities, as they are kept. */
typedef struct PtCapability {
    ssize_t size; /* of @value; not positive: there are none */
    char value[24];
} PtCapability;

/** pt_capability_save() - note the capabilities that the guest sees, before they go. */
void pt_capability_save(const PtFs *fs, int fd, PtCapability *ret_capability);

/** pt_capability_restore() - give them back.
 * Return: 0 or a negative errno. */
int pt_capability_restore(const PtFs *fs, int fd, const PtCapability *capability);

/** pt_file_changes() - pt_capability_drop() for an open file that is about to be written.
 * Return: 0 or a negative errno. */
int pt_file_changes(const PtFs *fs, const PtOpenFile *file);

#endif
