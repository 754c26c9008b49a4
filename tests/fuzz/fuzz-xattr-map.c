/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes --xattrmap: rules up to the first NUL, then names, each with its NUL. Whatever
 * the rules are, they are refused with a reason or have an answer for every name, and no
 * answer reaches beyond its buffer or its argument.
 */
#include <errno.h>
#include <string.h>

#include "passthrough/xattr-map.h"

#define MOST_BYTES 8192u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_name(const PtXattrMap *map, const char *name)
{
    size_t length = strlen(name);
    const char *shown = pt_xattr_map_server(map, name);
    /* On the heap, so that a sanitizer sees a step over its end. */
    g_autofree PtXattrName *mapped = g_new(PtXattrName, 1);

    if (shown != NULL) {
        g_assert_true(shown >= name && shown < name + length);
    }
    int result = pt_xattr_map_client(map, name, mapped);
    g_assert_true(result == 0 || result == -EPERM || result == -EOPNOTSUPP ||
                  result == -ERANGE);
    bool is_same = false;
    if (result == 0) {
        size_t mapped_length = strnlen(mapped->text, sizeof(mapped->text));
        g_assert_cmpuint(mapped_length, <=, XATTR_NAME_MAX);
        g_assert_cmpuint(mapped_length, >=, length);
        g_assert_cmpstr(mapped->text + mapped_length - length, ==, name);
        is_same = mapped_length == length;
    }
    g_assert_true(pt_xattr_map_keeps(map, name) == (is_same && shown == name));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const usual[] = {"user.a", "security.capability", "trusted.x",
                                        "system.posix_acl_access"};
    g_autoptr(GError) error = NULL;

    if (size > MOST_BYTES) {
        return 0;
    }
    g_autofree char *text = g_malloc(size + 1);
    memcpy(text, data, size);
    text[size] = '\0';
    g_autoptr(PtXattrMap) map = pt_xattr_map_parse(text, &error);
    g_assert_true((map == NULL) == (error != NULL));
    if (map == NULL) {
        g_assert_true(g_str_has_prefix(error->message, "rule "));
        return 0;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(usual); i++) {
        check_name(map, usual[i]);
    }
    for (size_t at = strlen(text) + 1; at <= size; at += strlen(text + at) + 1) {
        if (text[at] != '\0') {
            g_autofree char *name = g_strdup(text + at);
            check_name(map, name);
        }
    }
    return 0;
}
