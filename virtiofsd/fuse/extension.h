/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_FUSE_EXTENSION_H
#define VIRTIOFSD_FUSE_EXTENSION_H

#include <stdbool.h>
#include <stddef.h>

#include "passthrough/passthrough.h"

/*
 * What a request that creates something brings at its end (FUSE 7.38, fuse_ext_header).
 */

/** struct ExtensionAgreed - which extensions were negotiated. */
typedef struct ExtensionAgreed {
    bool groups; /* CREATE_SUPP_GROUP */
    bool labels; /* SECURITY_CTX */
} ExtensionAgreed;

/**
 * extension_parse() - take the caller's supplementary groups and the labels of what is to
 * be made out of the extensions.
 * @bytes: private copy of all extensions; labels will point into it.
 * @size: bytes at @bytes; may be 0.
 * @caller: n_groups and groups are set.
 * @ret_labels: may be none, also when they were agreed.
 *
 * Return: 0, or -EINVAL for anything that is not well-formed or was not agreed.
 */
int extension_parse(const void *bytes, size_t size, ExtensionAgreed agreed,
                    PtCaller *caller, PtLabels *ret_labels);

#endif
