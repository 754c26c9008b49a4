/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_FUSE_EXTENSION_H
#define VIRTIOFSD_FUSE_EXTENSION_H

#include <stdbool.h>
#include <stddef.h>

#include "passthrough/passthrough.h"

/*
 * What a request that creates something brings at its end (FUSE 7.38, fuse_ext_header).
 */

/**
 * extension_parse() - take the caller's supplementary groups out of the extensions.
 * @bytes: private copy of all extensions.
 * @size: bytes at @bytes; may be 0.
 * @groups_agreed: CREATE_SUPP_GROUP was negotiated; nothing else ever is.
 * @caller: n_groups and groups are set.
 *
 * Return: 0, or -EINVAL for anything that is not well-formed or was not agreed.
 */
int extension_parse(const void *bytes, size_t size, bool groups_agreed, PtCaller *caller);

#endif
