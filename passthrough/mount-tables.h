/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_MOUNT_TABLES_H
#define PASSTHROUGH_MOUNT_TABLES_H

#include <stdbool.h>
#include <stdint.h>

#include "passthrough/inode.h"
#include "passthrough/mount.h"

/*
 * Which mounts of the share the host has made read-only, proc_pid_mountinfo(5).
 */

/** pt_mount_tables_id() - Return: the number of the mount of @fd in its namespace's
 * table; 0 if the kernel does not tell. */
uint64_t pt_mount_tables_id(int fd);

/**
 * pt_mount_tables_look() - look up in the tables what the host says about mounts.
 * @only: the one to be looked up, or NULL for all.
 *
 * Nothing changes when the tables cannot be read. Context: any thread, no lock held;
 * reads two files of /proc.
 */
void pt_mount_tables_look(PtMounts *mounts, PtMount *only);

/** pt_inode_readonly() - Return: whether the host's table has its mount as read-only. */
bool pt_inode_readonly(PtFs *fs, PtInode *inode);

#endif
