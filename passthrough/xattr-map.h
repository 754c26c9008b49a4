/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_XATTR_MAP_H
#define PASSTHROUGH_XATTR_MAP_H

#include <linux/limits.h>

#include "passthrough/passthrough.h"

/*
 * Between the names of extended attributes that the guest uses and those on the host.
 */

/** typedef PtXattrName - a name on the host. */
typedef struct PtXattrName {
    char text[XATTR_NAME_MAX + 1];
} PtXattrName;

/**
 * pt_xattr_map_client() - the host's name of an attribute that the guest names.
 *
 * Return: 0; -EPERM or -EOPNOTSUPP, as the rule says; -ERANGE for one that becomes too
 * long.
 */
int pt_xattr_map_client(const PtXattrMap *map, const char *name, PtXattrName *ret_name);

/** pt_xattr_map_server() - the guest's name of an attribute on the host. Return: a part
 * of @name, or NULL: not to be shown. */
const char *pt_xattr_map_server(const PtXattrMap *map, const char *name);

#endif
