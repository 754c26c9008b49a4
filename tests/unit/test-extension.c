/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extensions: what Linux sends, and every way to get it wrong.
 */
#include "virtiofsd/fuse/extension.h"

#include <errno.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>

#define GROUPS 32u

static const ExtensionAgreed both = {.groups = true, .labels = true};

/* Parse a copy that is exactly as long as it says; labels are read to their ends. */
static int parse_as(const void *bytes, size_t size, ExtensionAgreed agreed,
                    PtCaller *caller, PtLabels *labels)
{
    void *copy = malloc(MAX(size, 1));

    memcpy(copy, bytes, size);
    memset(caller, 0x77, sizeof(*caller));
    memset(labels, 0x77, sizeof(*labels));
    int result = extension_parse(copy, size, agreed, caller, labels);
    if (result < 0) {
        g_assert_cmpint(result, ==, -EINVAL);
        g_assert_cmpuint(caller->n_groups, ==, 0);
        g_assert_cmpuint(labels->n, ==, 0);
    }
    g_assert_cmpuint(labels->n, <=, PT_LABELS_MAX);
    for (uint32_t i = 0; i < labels->n; i++) {
        PtLabel *label = &labels->label[i];
        g_assert_cmpuint(strlen(label->name), <=, PT_NAME_MAX);
        g_assert_true((const char *)label->value ==
                      label->name + strlen(label->name) + 1);
        g_assert_cmpuint(label->size, >, 0);
        g_assert_true((const char *)label->value + label->size <= (char *)copy + size);
        /* To be looked at when the copy is gone. */
        label->name = g_strdup(label->name);
        label->value = memcpy(g_malloc(label->size), label->value, label->size);
    }
    free(copy);
    return result;
}

static void free_labels(PtLabels *labels)
{
    for (uint32_t i = 0; i < labels->n; i++) {
        g_free((void *)labels->label[i].name);
        g_free((void *)labels->label[i].value);
    }
}

/* Groups alone. */
static int parse(const uint32_t *words, size_t size, bool agreed, PtCaller *caller)
{
    PtLabels labels;
    int result =
        parse_as(words, size, (ExtensionAgreed){.groups = agreed}, caller, &labels);

    g_assert_cmpuint(labels.n, ==, 0);
    return result;
}

static void test_good(void)
{
    PtCaller caller;
    const uint32_t one[] = {16, GROUPS, 1, 4711};
    const uint32_t none[] = {16, GROUPS, 0, 0};
    const uint32_t padded[] = {24, GROUPS, 2, 1, 2, 99};

    g_assert_cmpint(parse(one, 0, true, &caller), ==, 0);
    g_assert_cmpuint(caller.n_groups, ==, 0);
    g_assert_cmpint(parse(one, sizeof(one), true, &caller), ==, 0);
    g_assert_cmpuint(caller.n_groups, ==, 1);
    g_assert_cmpuint(caller.groups[0], ==, 4711);
    g_assert_cmpint(parse(none, sizeof(none), true, &caller), ==, 0);
    g_assert_cmpuint(caller.n_groups, ==, 0);
    g_assert_cmpint(parse(padded, sizeof(padded), true, &caller), ==, 0);
    g_assert_cmpuint(caller.n_groups, ==, 2);
    g_assert_cmpuint(caller.groups[1], ==, 2);
}

static void test_most_groups(void)
{
    uint32_t words[4 + PT_GROUPS_MAX] = {0, GROUPS, PT_GROUPS_MAX};
    PtCaller caller;

    for (uint32_t i = 0; i < PT_GROUPS_MAX; i++) {
        words[3 + i] = i;
    }
    words[0] = 12 + 4 * PT_GROUPS_MAX + 4;
    g_assert_cmpint(parse(words, words[0], true, &caller), ==, 0);
    g_assert_cmpuint(caller.n_groups, ==, PT_GROUPS_MAX);
    g_assert_cmpuint(caller.groups[PT_GROUPS_MAX - 1], ==, PT_GROUPS_MAX - 1);
    words[2] = PT_GROUPS_MAX + 1;
    g_assert_cmpint(parse(words, words[0], true, &caller), ==, -EINVAL);
}

static void test_not_agreed(void)
{
    PtCaller caller;
    const uint32_t groups[] = {16, GROUPS, 1, 4711};
    const uint32_t context[] = {8, 0};

    g_assert_cmpint(parse(groups, sizeof(groups), false, &caller), ==, -EINVAL);
    g_assert_cmpint(parse(context, sizeof(context), true, &caller), ==, -EINVAL);
}

/* Each word at its extremes, alone and in pairs; each length. */
static void test_corpus(void)
{
    static const uint32_t extremes[] = {
        0,  1,  7,  8,          12,         16,         24,
        31, 32, 33, 0x7fffffff, 0x80000000, 0xfffffff8, 0xffffffff,
    };
    const uint32_t good[] = {16, GROUPS, 1, 4711};
    PtCaller caller;

    for (size_t size = 0; size < sizeof(good); size++) {
        g_assert_cmpint(parse(good, size, true, &caller), ==, size == 0 ? 0 : -EINVAL);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(extremes); i++) {
        for (size_t j = 0; j < G_N_ELEMENTS(extremes); j++) {
            for (size_t k = 0; k < G_N_ELEMENTS(extremes); k++) {
                const uint32_t words[] = {extremes[i], extremes[j], extremes[k], 5};
                bool is_good =
                    extremes[i] == 16 && extremes[j] == GROUPS && extremes[k] <= 1;
                g_assert_cmpint(parse(words, sizeof(words), true, &caller), ==,
                                is_good ? 0 : -EINVAL);
            }
        }
    }
}

static void test_bad(void)
{
    PtCaller caller;
    const uint32_t twice[] = {16, GROUPS, 1, 5, 16, GROUPS, 1, 6};
    const uint32_t behind[] = {16, GROUPS, 1, 5, 8, 33};
    const uint32_t left[] = {16, GROUPS, 1, 5, 0};
    const uint32_t no_count[] = {8, GROUPS};
    const uint32_t nobody[] = {16, GROUPS, 1, UINT32_MAX};

    g_assert_cmpint(parse(twice, sizeof(twice), true, &caller), ==, -EINVAL);
    g_assert_cmpint(parse(behind, sizeof(behind), true, &caller), ==, -EINVAL);
    g_assert_cmpint(parse(left, sizeof(left), true, &caller), ==, -EINVAL);
    g_assert_cmpint(parse(no_count, sizeof(no_count), true, &caller), ==, -EINVAL);
    g_assert_cmpint(parse(nobody, sizeof(nobody), true, &caller), ==, -EINVAL);
}

static void test_random(void)
{
    GRand *random = g_rand_new_with_seed(42);
    PtCaller caller;

    for (int i = 0; i < 200000; i++) {
        uint32_t words[16];
        for (size_t j = 0; j < G_N_ELEMENTS(words); j++) {
            words[j] = g_rand_boolean(random) ? g_rand_int(random) % 40 : 8;
        }
        words[1] = g_rand_boolean(random) ? GROUPS : words[1];
        size_t size = g_rand_int(random) % (sizeof(words) + 1);
        if (parse(words, size, true, &caller) == 0) {
            g_assert_cmpuint(size % 8, ==, 0);
            g_assert_cmpuint(caller.n_groups * 4, <=, size);
        }
    }
    g_rand_free(random);
}

/* ---- labels ------------------------------------------------------------------------ */

/* Put a label at @at as Linux does. Return: its bytes. */
static size_t add_label(unsigned char *at, const char *name, const char *value)
{
    uint32_t head[2] = {(uint32_t)strlen(value), 0};
    size_t used = sizeof(head) + strlen(name) + 1 + strlen(value);

    memset(at, 0, used + 8);
    memcpy(at, head, sizeof(head));
    memcpy(at + sizeof(head), name, strlen(name) + 1);
    memcpy(at + sizeof(head) + strlen(name) + 1, value, strlen(value));
    return (used + 7) / 8 * 8;
}

/* A record of @n labels, of all lengths modulo 8. Return: its bytes. */
static size_t add_labels(unsigned char *at, uint32_t n)
{
    static const char *const values[] = {"a", "label", "u:r:t:s0", "0123456789"};
    size_t size = 8;

    for (uint32_t i = 0; i < n; i++) {
        size += add_label(at + size, i == 0 ? "security.selinux" : "security.x",
                          values[i % 4]);
    }
    uint32_t head[2] = {(uint32_t)size, n};
    memcpy(at, head, sizeof(head));
    return size;
}

static void test_labels(void)
{
    unsigned char bytes[1000];
    const uint32_t groups[] = {16, GROUPS, 1, 4711};
    PtCaller caller;
    PtLabels labels;

    for (uint32_t n = 0; n <= PT_LABELS_MAX; n++) {
        size_t size = add_labels(bytes, n);
        g_assert_cmpint(parse_as(bytes, size, both, &caller, &labels), ==, 0);
        g_assert_cmpuint(labels.n, ==, n);
        g_assert_cmpuint(caller.n_groups, ==, 0);
        if (n > 1) {
            g_assert_cmpstr(labels.label[0].name, ==, "security.selinux");
            g_assert_cmpuint(labels.label[0].size, ==, 1);
            g_assert_cmpstr(labels.label[1].name, ==, "security.x");
            g_assert_cmpuint(labels.label[1].size, ==, 5);
            g_assert_true(memcmp(labels.label[1].value, "label", 5) == 0);
        }
        free_labels(&labels);
        memcpy(bytes + size, groups, sizeof(groups));
        size += sizeof(groups);
        g_assert_cmpint(parse_as(bytes, size, both, &caller, &labels), ==, 0);
        g_assert_cmpuint(labels.n, ==, n);
        g_assert_cmpuint(caller.n_groups, ==, 1);
        free_labels(&labels);
        /* Each only if it was agreed. */
        g_assert_cmpint(
            parse_as(bytes, size, (ExtensionAgreed){.groups = true}, &caller, &labels),
            ==, -EINVAL);
        g_assert_cmpint(
            parse_as(bytes, size, (ExtensionAgreed){.labels = true}, &caller, &labels),
            ==, -EINVAL);
    }
    size_t size = add_labels(bytes, PT_LABELS_MAX + 1);
    g_assert_cmpint(parse_as(bytes, size, both, &caller, &labels), ==, -EINVAL);
}

/* Nothing is agreed to be there, and none is. */
static void test_no_labels(void)
{
    PtCaller caller;
    PtLabels labels;

    g_assert_cmpint(parse_as("", 0, both, &caller, &labels), ==, 0);
    g_assert_cmpuint(labels.n, ==, 0);
}

static void test_bad_labels(void)
{
    unsigned char bytes[1000];
    PtCaller caller;
    PtLabels labels;
    size_t size = add_labels(bytes, 1);

    for (size_t cut = 1; cut < size; cut++) {
        g_assert_cmpint(parse_as(bytes, cut, both, &caller, &labels), ==, -EINVAL);
    }
    for (uint32_t n = 0; n < 5; n++) {
        memcpy(bytes + 4, &n, 4); /* more, or fewer, than there are */
        g_assert_cmpint(parse_as(bytes, size, both, &caller, &labels), ==,
                        n == 1 ? 0 : -EINVAL);
        free_labels(&labels);
    }
    (void)add_labels(bytes, 1);
    static const uint32_t sizes[] = {0, 16, 100, 0x7fffffff, UINT32_MAX};
    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        memcpy(bytes + 8, &sizes[i], 4);
        g_assert_cmpint(parse_as(bytes, size, both, &caller, &labels), ==, -EINVAL);
    }
    (void)add_labels(bytes, 1);
    bytes[16] = 0; /* no name */
    g_assert_cmpint(parse_as(bytes, size, both, &caller, &labels), ==, -EINVAL);
    (void)add_labels(bytes, 1);
    memset(bytes + 16, 'n', size - 16); /* a name without an end */
    g_assert_cmpint(parse_as(bytes, size, both, &caller, &labels), ==, -EINVAL);
    size = add_labels(bytes, 1);
    memcpy(bytes + size, bytes, size); /* twice */
    g_assert_cmpint(parse_as(bytes, 2 * size, both, &caller, &labels), ==, -EINVAL);
}

static void test_long_names(void)
{
    unsigned char bytes[1000];
    PtCaller caller;
    PtLabels labels;

    for (size_t length = PT_NAME_MAX - 1; length <= PT_NAME_MAX + 1; length++) {
        g_autofree char *name = g_strnfill(length, 'n');
        size_t size = 8 + add_label(bytes + 8, name, "value");
        uint32_t head[2] = {(uint32_t)size, 1};
        memcpy(bytes, head, sizeof(head));
        g_assert_cmpint(parse_as(bytes, size, both, &caller, &labels), ==,
                        length <= PT_NAME_MAX ? 0 : -EINVAL);
        free_labels(&labels);
    }
}

/* A good record with bytes of it changed: whatever is said is inside. */
static void test_random_labels(void)
{
    GRand *random = g_rand_new_with_seed(43);
    unsigned int good = 0;

    for (int i = 0; i < 200000; i++) {
        unsigned char bytes[1000];
        PtCaller caller;
        PtLabels labels;
        size_t size = add_labels(bytes, g_rand_int(random) % (PT_LABELS_MAX + 1));
        for (uint32_t changes = g_rand_int(random) % 4; changes > 0; changes--) {
            bytes[g_rand_int(random) % size] = (unsigned char)(g_rand_int(random) % 40);
        }
        good += parse_as(bytes, size, both, &caller, &labels) == 0;
        free_labels(&labels);
    }
    g_assert_cmpuint(good, >, 50000);
    g_rand_free(random);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/extension/good", test_good);
    g_test_add_func("/extension/most-groups", test_most_groups);
    g_test_add_func("/extension/not-agreed", test_not_agreed);
    g_test_add_func("/extension/corpus", test_corpus);
    g_test_add_func("/extension/bad", test_bad);
    g_test_add_func("/extension/random", test_random);
    g_test_add_func("/extension/labels", test_labels);
    g_test_add_func("/extension/no-labels", test_no_labels);
    g_test_add_func("/extension/bad-labels", test_bad_labels);
    g_test_add_func("/extension/long-names", test_long_names);
    g_test_add_func("/extension/random-labels", test_random_labels);
    return g_test_run();
}
