/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_OPEN_FLAGS_H
#define PASSTHROUGH_OPEN_FLAGS_H

#include <stdbool.h>
#include <stdint.h>

#include "passthrough/inode.h"
#include "passthrough/passthrough.h"

/*
 * What a guest's open flags become, and what it is told about the open file.
 */

/** pt_open_flags() - the flags of a regular file's open(2).
 * Return: 0 with the flags at @ret_flags, or -EINVAL. */
int pt_open_flags(const PtFs *fs, uint32_t guest_flags, uint32_t *ret_flags);
/** pt_open_dir_flags() - the same for a directory. */
uint32_t pt_open_dir_flags(const PtFs *fs, uint32_t guest_flags);
/** pt_open_type_check() - Return: 0 for a regular file; else the errno of opening it. */
int pt_open_type_check(mode_t type);

/** pt_opened_file() - Return: PT_OPEN_* for a file opened with @flags. */
uint32_t pt_opened_file(const PtFs *fs, const PtInode *inode, uint32_t flags);
/** pt_open_may_keep() - Return: whether it has to be found out, for a file opened with
 * @flags, if the guest may keep its pages. */
bool pt_open_may_keep(const PtFs *fs, uint32_t flags);
/** pt_opened_dir() - Return: PT_OPEN_* for a directory. */
uint32_t pt_opened_dir(const PtFs *fs);

/** pt_opened_for_writing() - Return: whether open flags permit writing. */
bool pt_opened_for_writing(uint32_t flags);

#endif
