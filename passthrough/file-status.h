/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_FILE_STATUS_H
#define PASSTHROUGH_FILE_STATUS_H

#include <stdbool.h>
#include <stdint.h>

#include "passthrough/handle.h"
#include "passthrough/passthrough.h"

/*
 * File status flags that a program changes while a file is open, fcntl(2) F_SETFL: no
 * request tells of the change, but each READ, WRITE and READDIR tells the flags.
 */

/**
 * pt_status_wanted() - the status flags with which a transfer is to meet the host's file.
 *
 * The guest's O_DIRECT and O_NOATIME, as far as the configuration passes them on. What
 * the guest's page cache writes back names no flags, and is never direct: its last page
 * may be a part of one.
 */
uint32_t pt_status_wanted(const PtFs *fs, PtHandle *handle, const PtIo *io);

/**
 * pt_status_set() - give the host's file these flags, if it has others.
 * @wanted: of pt_status_wanted().
 *
 * One system call when they change, none otherwise. A flag that the host's file system
 * refuses is left off. Any thread, no lock: when two transfers on one handle want
 * different flags, either may be met by the other's. See pt_status_lost().
 */
void pt_status_set(PtHandle *handle, uint32_t wanted);

/** pt_status_lost() - whether another transfer has set other flags meanwhile. */
bool pt_status_lost(PtHandle *handle, uint32_t wanted);

#endif
