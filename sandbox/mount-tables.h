/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SANDBOX_MOUNT_TABLES_H
#define SANDBOX_MOUNT_TABLES_H

#include <glib.h>
#include <stdbool.h>

#include "virtiofsd/autofd.h"

/*
 * Views of the tables of mounts, for sandbox.c.
 */

/**
 * sandbox_mounts_of_host() - open the host's table of mounts, as far as the share
 * reaches.
 * @ret_table: -1 if there is nothing to be seen, or, with a warning, if it cannot be had.
 *
 * Context: still in the host's mount namespace; /proc is mounted. Return: true, or false
 * if the process has lost its root directory on the way.
 */
bool sandbox_mounts_of_host(const char *shared_dir, AutoFd *ret_table, GError **error);

/** sandbox_mounts_keep() - what sandbox_mounts_of_ours() needs. Context: before the
 * pivot. Return: a descriptor to be closed after it, or -1. */
int sandbox_mounts_keep(void);

/** sandbox_mounts_of_ours() - open our own table. Context: after the pivot, after which
 * the share is the root. Return: a descriptor, or -1. */
int sandbox_mounts_of_ours(int procfd, int kept);

#endif
