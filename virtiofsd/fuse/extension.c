/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extensions of creating requests. They are a row of {size, type} records of a multiple
 * of 8 bytes that fill the space given by fuse_in_header.total_extlen exactly. A type
 * below 32 is really the number of labels in a record of them, which comes first. Linux
 * before 6.3 sends that record alone, behind the names and without a total length.
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

/* One label: a header, a name, a value, and padding. Return: bytes, or -EINVAL. */
static ssize_t parse_label(const unsigned char *body, size_t size, PtLabel *ret_label)
{
    struct fuse_secctx head;

    if (size < sizeof(head)) {
        return -EINVAL;
    }
    memcpy(&head, body, sizeof(head));
    const char *name = (const char *)body + sizeof(head);
    size_t left = size - sizeof(head);
    size_t length = strnlen(name, left);
    if (length == 0 || length == left || length > PT_NAME_MAX) {
        return -EINVAL;
    }
    left -= length + 1;
    if (head.size == 0 || head.size > left) {
        return -EINVAL;
    }
    *ret_label = (PtLabel){.name = name, .value = name + length + 1, .size = head.size};
    size_t used = sizeof(head) + length + 1 + head.size;
    size_t padded = (used + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return padded <= size ? (ssize_t)padded : -EINVAL;
}

/* @body: what follows the record's header. */
static int parse_labels(const unsigned char *body, size_t size, uint32_t n,
                        PtLabels *labels)
{
    if (n > PT_LABELS_MAX) {
        return -EINVAL;
    }
    for (uint32_t i = 0; i < n; i++) {
        ssize_t used = parse_label(body, size, &labels->label[i]);
        if (used < 0) {
            return -EINVAL;
        }
        body += used;
        size -= (size_t)used;
    }
    labels->n = n;
    return size == 0 ? 0 : -EINVAL;
}

/* What the parser has seen and found. */
typedef struct Parser {
    ExtensionAgreed left; /* agreed, and not seen */
    PtCaller *caller;
    PtLabels *labels;
} Parser;

static int parse_record(Parser *parser, const struct fuse_ext_header *header,
                        const unsigned char *body)
{
    size_t size = header->size - sizeof(*header);

    if (header->type < ABI_EXT_GROUPS && parser->left.labels) {
        parser->left.labels = false;
        return parse_labels(body, size, header->type, parser->labels);
    }
    if (header->type == ABI_EXT_GROUPS && parser->left.groups) {
        parser->left.groups = false;
        return parse_groups(body, size, parser->caller);
    }
    return -EINVAL;
}

static int parse_all(Parser *parser, const unsigned char *at, size_t size)
{
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
        if (parse_record(parser, &header, at + sizeof(header)) < 0) {
            return -EINVAL;
        }
        at += header.size;
        size -= header.size;
    }
    return 0;
}

int extension_parse(const void *bytes, size_t size, ExtensionAgreed agreed,
                    PtCaller *caller, PtLabels *ret_labels)
{
    Parser parser = {.left = agreed, .caller = caller, .labels = ret_labels};

    caller->n_groups = 0;
    ret_labels->n = 0;
    int result = parse_all(&parser, bytes, size);
    if (result < 0) {
        caller->n_groups = 0;
        ret_labels->n = 0;
    }
    return result;
}
