/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_FILE_HANDLE_H
#define PASSTHROUGH_FILE_HANDLE_H

#include <fcntl.h>
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "passthrough/passthrough.h"

/*
 * File handles of the host (not those that the guest has open): what a file system tells
 * its files by for longer than a number lasts, and finds them by again.
 */

struct PtMount;

/** typedef PtFileHandle - a handle, and room for any. */
typedef union PtFileHandle {
    struct file_handle head;
    char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
} PtFileHandle;

/** pt_file_handle_get() - the handle of what a descriptor, O_PATH will do, is of.
 * Return: 0 or a negative errno; -EOPNOTSUPP where the file system has none. */
int pt_file_handle_get(int fd, PtFileHandle *ret_handle);
/** pt_file_handle_hash() - Return: what tells files apart whose numbers are alike; never
 * 0. */
uint64_t pt_file_handle_hash(const PtFs *fs, const PtFileHandle *handle);
/** pt_file_handle_copy() - Return: a copy, no larger than it must be, for free(3), or
 * NULL. */
struct file_handle *pt_file_handle_copy(const PtFileHandle *handle);
/**
 * pt_file_handle_open() - an O_PATH descriptor of the file that a handle is of.
 * @mount: the mount that it was seen on, with PtMount.fd open.
 *
 * Return: the descriptor or a negative errno; -ESTALE: there is no such file any more.
 */
int pt_file_handle_open(const struct PtMount *mount, const struct file_handle *handle);

/**
 * pt_file_handle_mount() - open a new mount for pt_file_handle_open(), if its file system
 * has handles; where it has none, PtMount.fd stays as it is.
 * @fd: the first file seen on it.
 *
 * Return: 0, or a negative errno where there has to be a handle, and is none.
 */
int pt_file_handle_mount(PtFs *fs, struct PtMount *mount, int fd);

/** pt_file_handle_check() - find out whether the root can be opened by its handle; if
 * not, hold no inode that way, with a warning, or fail if nothing else is wanted. */
bool pt_file_handle_check(PtFs *fs, int root_fd, GError **error);

#endif
