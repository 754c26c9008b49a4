/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extensions of creating requests. They are a row of {size, type} records of a multiple
 * of 8 bytes that fill the space given by fuse_in_header.total_extlen exactly. A type
 * below 32 is really the count of a security context record, which is never agreed.
 */
#include "virtiofsd/fuse/extension.h"

#include <errno.h>
#include <string.h>

#include "virtiofsd/fuse/abi.h"

#define ALIGNMENT 8u

_Static_assert(PT_GROUPS_MAX <= UINT32_MAX / sizeof(uint32_t), "group count");

/* @body: what follows the record's header. */
static int parse_groups(const unsigned char *body, size_t size, PtCaller *caller)
{
    struct abi_supp_groups head;

    if (size < sizeof(head)) {
        return -EINVAL;
    }
    memcpy(&head, body, sizeof(head));
    if (head.nr_groups > PT_GROUPS_MAX ||
        head.nr_groups * sizeof(uint32_t) > size - sizeof(head)) {
        return -EINVAL;
    }
    memcpy(caller->groups, body + sizeof(head), head.nr_groups * sizeof(uint32_t));
    for (uint32_t i = 0; i < head.nr_groups; i++) {
        if (caller->groups[i] == UINT32_MAX) {
            return -EINVAL;
        }
    }
    caller->n_groups = head.nr_groups;
    return 0;
}

static int parse_all(const unsigned char *at, size_t size, bool groups_agreed,
                     PtCaller *caller)
{
    bool seen_groups = false;

    while (size > 0) {
        struct fuse_ext_header header;
        if (size < sizeof(header)) {
            return -EINVAL;
        }
        memcpy(&header, at, sizeof(header));
        if (header.size < sizeof(header) || header.size % ALIGNMENT != 0 ||
            header.size > size) {
            return -EINVAL;
        }
        if (header.type != ABI_EXT_GROUPS || !groups_agreed || seen_groups) {
            return -EINVAL;
        }
        if (parse_groups(at + sizeof(header), header.size - sizeof(header), caller) < 0) {
            return -EINVAL;
        }
        seen_groups = true;
        at += header.size;
        size -= header.size;
    }
    return 0;
}

int extension_parse(const void *bytes, size_t size, bool groups_agreed, PtCaller *caller)
{
    caller->n_groups = 0;
    int result = parse_all(bytes, size, groups_agreed, caller);
    if (result < 0) {
        caller->n_groups = 0;
    }
    return result;
}
