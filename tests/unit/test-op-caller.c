/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who asks: which requests say it, what arrives at the file system's door, and what is
 * refused before.
 */
#include "virtiofsd/fuse/op.h"

#include <errno.h>
#include <glib.h>

#include "tests/support/fuse-harness.h"
#include "virtiofsd/fuse/dispatch.h"

#define ALL_FLAGS UINT64_MAX

static const SessionConfig acl_config = {
    .cache = PT_CACHE_AUTO, .xattr = true, .posix_acl = SESSION_AUTO};

static int call(Harness *harness, Message *message)
{
    null_fs_record(harness->fs, true);
    return harness_call(harness, message);
}

static Message mknod_message(uint32_t mode, uint32_t umask)
{
    const struct fuse_mknod_in in = {.mode = mode, .umask = umask};
    Message message;

    message_begin(&message, FUSE_MKNOD);
    message_add(&message, &in, sizeof(in));
    message_add_name(&message, "n");
    return message;
}

static Message mkdir_message(uint32_t mode, uint32_t umask)
{
    const struct fuse_mkdir_in in = {.mode = mode, .umask = umask};
    Message message;

    message_begin(&message, FUSE_MKDIR);
    message_add(&message, &in, sizeof(in));
    message_add_name(&message, "d");
    return message;
}

static Message create_message(uint32_t mode, uint32_t umask)
{
    const struct fuse_create_in in = {.mode = mode, .umask = umask};
    Message message;

    message_begin(&message, FUSE_CREATE);
    message_add(&message, &in, sizeof(in));
    message_add_name(&message, "f");
    return message;
}

/* The umask is the guest's to apply until it is agreed that it is ours. */
static void check_umask(const SessionConfig *config, uint64_t flags, uint32_t expected)
{
    Message (*const makers[])(uint32_t, uint32_t) = {mknod_message, mkdir_message,
                                                     create_message};
    g_autoptr(Harness) harness = harness_new(config);
    const NullFsCall *last = null_fs_last(harness->fs);

    harness_init(harness, flags);
    for (size_t i = 0; i < G_N_ELEMENTS(makers); i++) {
        Message message = makers[i](0100666, 027);
        g_assert_cmpint(call(harness, &message), ==, 0);
        g_assert_cmphex(last->mode & 0777, ==, 0666);
        g_assert_cmphex(last->caller.umask, ==, expected);
    }
    Message message;
    message_begin(&message, FUSE_SYMLINK);
    message_add_name(&message, "l");
    message_add_name(&message, "to");
    g_assert_cmpint(call(harness, &message), ==, 0);
    g_assert_cmphex(last->caller.umask, ==, 0);
}

static void test_umask(void)
{
    check_umask(NULL, ALL_FLAGS, 0);
    check_umask(&acl_config, ALL_FLAGS, 027);
    /* Without one of the three there are no lists, and the guest has masked. */
    check_umask(&acl_config, ALL_FLAGS & ~(uint64_t)FUSE_POSIX_ACL, 0);
    check_umask(&acl_config, ALL_FLAGS & ~(uint64_t)FUSE_DONT_MASK, 0);
    check_umask(&acl_config, 0, 0);
}

/* With ALLOW_IDMAP only what creates says who asks; all the rest comes from -1, -1, and
 * is served as from anybody. */
static void test_nobody(void)
{
    unsigned int served = 0;

    for (uint32_t opcode = 0; opcode < HARNESS_OPCODES; opcode++) {
        g_autoptr(Harness) harness = harness_new(NULL);
        const Op *op = dispatch_find(opcode);
        Message message;
        if (op == NULL || !message_honest(&message, opcode)) {
            continue;
        }
        harness_init(harness, ALL_FLAGS);
        int expected = call(harness, &message);
        (void)message_honest(&message, opcode);
        message.header.uid = message.header.gid = UINT32_MAX;
        harness_init(harness, ALL_FLAGS);
        int result = call(harness, &message);
        if (op->run != NULL && (op->flags & OP_CREATES) != 0) {
            g_assert_cmpint(result, ==, -EINVAL);
        } else {
            g_assert_cmpint(result, ==, expected);
            served += result >= 0;
        }
    }
    g_assert_cmpuint(served, >, 20);
}

/* Half a caller is none. */
static void test_half(void)
{
    g_autoptr(Harness) harness = harness_new(NULL);

    harness_init(harness, ALL_FLAGS);
    Message message = mkdir_message(0755, 0);
    message.header.uid = UINT32_MAX;
    g_assert_cmpint(call(harness, &message), ==, -EINVAL);
    message = mkdir_message(0755, 0);
    message.header.gid = UINT32_MAX;
    g_assert_cmpint(call(harness, &message), ==, -EINVAL);
    message = mkdir_message(0755, 0);
    message.header.uid = message.header.gid = UINT32_MAX - 1;
    g_assert_cmpint(call(harness, &message), ==, 0);
    const NullFsCall *last = null_fs_last(harness->fs);
    g_assert_cmpuint(last->caller.uid, ==, UINT32_MAX - 1);
    g_assert_cmpuint(last->caller.gid, ==, UINT32_MAX - 1);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/op-caller/umask", test_umask);
    g_test_add_func("/op-caller/nobody", test_nobody);
    g_test_add_func("/op-caller/half", test_half);
    return g_test_run();
}
