/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who asks: which requests say it, what arrives at the file system's door, and what is
 * refused before.
 */
#include "virtiofsd/fuse/op.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <string.h>

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

/* ---- labels ------------------------------------------------------------------------ */

static const SessionConfig label_config = {
    .cache = PT_CACHE_AUTO, .xattr = true, .security_label = SESSION_AUTO};

/* {32 bytes, one label}, {5 bytes}, "a.b", "label" and padding. */
static const unsigned char one_label[] = {32,  0,   0,   0, 1, 0,   0,   0,   5, 0,   0,
                                          0,   0,   0,   0, 0, 'a', '.', 'b', 0, 'l', 'a',
                                          'b', 'e', 'l', 0, 0, 0,   0,   0,   0, 0};
static const unsigned char no_label[] = {8, 0, 0, 0, 0, 0, 0, 0};
static const unsigned char one_group[] = {16, 0, 0, 0, 32, 0, 0, 0,
                                          1,  0, 0, 0, 9,  0, 0, 0};

static Message symlink_message(uint32_t mode, uint32_t umask)
{
    Message message;

    message_begin(&message, FUSE_SYMLINK);
    message_add_name(&message, "l");
    message_add_name(&message, "to");
    return message;
}

static Message tmpfile_message(uint32_t mode, uint32_t umask)
{
    const struct fuse_create_in in = {.mode = mode, .umask = umask};
    Message message;

    message_begin(&message, FUSE_TMPFILE);
    message_add(&message, &in, sizeof(in));
    message_add_name(&message, "/");
    return message;
}

static Message (*const creating[])(uint32_t, uint32_t) = {
    mknod_message, mkdir_message, create_message, symlink_message, tmpfile_message};

#define ADD(message, bytes) message_add((message), (bytes), sizeof(bytes))

/* Linux from 6.3 says how long extensions are, before it does not. */
static void test_labels(void)
{
    g_autoptr(Harness) harness = harness_new(&label_config);
    const NullFsCall *last = null_fs_last(harness->fs);

    harness_init(harness, ALL_FLAGS);
    for (size_t i = 0; i < G_N_ELEMENTS(creating); i++) {
        for (uint32_t told = 0; told < 3; told++) {
            Message message = creating[i](0100640, 0);
            ADD(&message, one_label);
            if (told == 2) {
                ADD(&message, one_group);
            }
            message.header.total_extlen = (uint16_t)(told == 0 ? 0 : 2 + 2 * told);
            g_assert_cmpint(call(harness, &message), ==, 0);
            g_assert_cmpuint(last->labels.n, ==, 1);
            g_assert_cmpstr(last->labels.label[0].name, ==, "a.b");
            g_assert_cmpuint(last->labels.label[0].size, ==, 5);
            g_assert_true(memcmp(last->labels.label[0].value, "label", 5) == 0);
            g_assert_cmpuint(last->caller.n_groups, ==, told == 2);
        }
        Message message = creating[i](0100640, 0);
        ADD(&message, no_label);
        g_assert_cmpint(call(harness, &message), ==, 0);
        g_assert_cmpuint(last->labels.n, ==, 0);
        message = creating[i](0100640, 0);
        g_assert_cmpint(call(harness, &message), ==, 0);
        g_assert_cmpuint(last->labels.n, ==, 0);
    }
}

static void test_bad_labels(void)
{
    g_autoptr(Harness) harness = harness_new(&label_config);
    const NullFsCall *last = null_fs_last(harness->fs);

    harness_init(harness, ALL_FLAGS);
    for (size_t i = 0; i < G_N_ELEMENTS(creating); i++) {
        for (size_t cut = 1; cut < sizeof(one_label); cut++) {
            Message message = creating[i](0100640, 0);
            message_add(&message, one_label, cut);
            g_assert_cmpint(call(harness, &message), ==, -EINVAL);
            g_assert_null(last->function);
        }
        /* As much as there is room for, and one byte more; none of it labels. */
        static const unsigned char much[OP_EXTENSION_SIZE + 1];
        for (size_t more = 0; more < 2; more++) {
            Message message = creating[i](0100640, 0);
            message_add(&message, much, OP_EXTENSION_SIZE + more);
            g_assert_cmpint(call(harness, &message), ==, -EINVAL);
            g_assert_null(last->function);
        }
    }
}

/* Where none were agreed, and where nothing is made, they are bytes too many. */
static void test_labels_not_agreed(void)
{
    g_autoptr(Harness) harness = harness_new(&label_config);
    g_autoptr(Harness) never = harness_new(NULL);

    harness_init(harness, ALL_FLAGS & ~(uint64_t)FUSE_SECURITY_CTX);
    harness_init(never, ALL_FLAGS);
    for (size_t i = 0; i < G_N_ELEMENTS(creating); i++) {
        for (uint16_t told = 0; told <= 4; told += 4) {
            Message message = creating[i](0100640, 0);
            ADD(&message, one_label);
            message.header.total_extlen = told;
            g_assert_cmpint(call(harness, &message), ==, -EINVAL);
            g_assert_cmpint(call(never, &message), ==, -EINVAL);
        }
    }
    harness_init(harness, ALL_FLAGS);
    for (uint32_t opcode = 0; opcode < HARNESS_OPCODES; opcode++) {
        const Op *op = dispatch_find(opcode);
        Message message;
        if (op == NULL || op->run == NULL || op->tail == OP_TAIL_BYTES ||
            (op->flags & OP_CREATES) != 0 || !message_honest(&message, opcode) ||
            harness_call(harness, &message) != 0) {
            continue;
        }
        ADD(&message, one_label);
        g_assert_cmpint(harness_call(harness, &message), ==, -EINVAL);
    }
}

/* ---- set-id bits ------------------------------------------------------------------ */

static Message open_message(uint32_t open_flags)
{
    const struct fuse_open_in in = {.flags = O_WRONLY | O_TRUNC,
                                    .open_flags = open_flags};
    Message message;

    message_begin(&message, FUSE_OPEN);
    message.header.nodeid = 7;
    message_add(&message, &in, sizeof(in));
    return message;
}

/* Is the request by @uid one that takes set-id bits away? */
static bool kills(Harness *harness, Message *message, uint32_t uid)
{
    message->header.uid = uid;
    g_assert_cmpint(call(harness, message), ==, 0);
    return null_fs_last(harness->fs)->flag;
}

static void check_kills(bool killpriv, uint32_t uid, bool expected)
{
    static const uint32_t opcodes[] = {FUSE_FALLOCATE, FUSE_COPY_FILE_RANGE, 53};
    SessionConfig config = harness_config();
    Message message;

    config.killpriv_v2 = killpriv;
    g_autoptr(Harness) harness = harness_new(&config);
    harness_init(harness, ALL_FLAGS);
    for (size_t i = 0; i < G_N_ELEMENTS(opcodes); i++) {
        g_assert_true(message_honest(&message, opcodes[i]));
        g_assert_cmpint(kills(harness, &message, uid), ==, expected);
    }
    message = open_message(FUSE_OPEN_KILL_SUIDGID);
    g_assert_true(kills(harness, &message, uid));
    message = open_message(0);
    g_assert_cmpint(kills(harness, &message, uid), ==, expected && !killpriv);
}

/* Root's bits stay; who does not say who he is, is not root, where it is ours to know. */
static void test_set_id_bits(void)
{
    check_kills(true, 0, false);
    check_kills(true, 1000, true);
    check_kills(true, UINT32_MAX, true);
    check_kills(false, 0, false);
    check_kills(false, 1000, true);
    check_kills(false, UINT32_MAX, false);
}

/* A change of nothing asks for just that, if anybody asks. */
static void test_set_nothing(void)
{
    static const uint32_t uids[] = {0, 1000, UINT32_MAX};
    /* With write-back the guest's kernel says in the same breath that it has changed. */
    const struct fuse_setattr_in ins[] = {{.valid = 0}, {.valid = FATTR_CTIME}};

    for (size_t i = 0; i < 4 * G_N_ELEMENTS(uids); i++) {
        uint32_t uid = uids[i / 4];
        const struct fuse_setattr_in *in = &ins[i / 2 % 2];
        uint32_t otherwise = in->valid == 0 ? 0 : PT_SET_CTIME;
        SessionConfig config = harness_config();
        Message message;
        config.killpriv_v2 = i % 2 == 0;
        g_autoptr(Harness) harness = harness_new(&config);
        const PtSetattr *set = &null_fs_last(harness->fs)->set;
        bool expected = config.killpriv_v2 && uid != UINT32_MAX;
        harness_init(harness, ALL_FLAGS);
        message_begin(&message, FUSE_SETATTR);
        message_add(&message, in, sizeof(*in));
        message.header.uid = uid;
        g_assert_cmpint(call(harness, &message), ==, 0);
        g_assert_cmphex(set->valid, ==, expected ? PT_SET_KILL_FOR_UID : otherwise);
        g_assert_cmpuint(set->uid, ==, expected ? uid : 0);
    }
}

/* What a new owner or size takes away is ours to take, or else to keep. */
static void test_kept(void)
{
    static const uint32_t valid[][2] = {{FATTR_UID, PT_SET_UID},
                                        {FATTR_SIZE, PT_SET_SIZE}};

    for (unsigned i = 0; i < 8; i++) {
        const struct fuse_setattr_in in = {.valid = valid[i >> 2][0], .uid = 1000};
        SessionConfig config = harness_config();
        Message message;
        config.killpriv_v2 = (i & 1) != 0;
        config.xattr = (i & 2) != 0;
        g_autoptr(Harness) harness = harness_new(&config);
        uint32_t kept = PT_SET_KEEP_SUIDGID | (config.xattr ? PT_SET_KEEP_CAPABILITY : 0);
        harness_init(harness, ALL_FLAGS);
        message_begin(&message, FUSE_SETATTR);
        message_add(&message, &in, sizeof(in));
        g_assert_cmpint(call(harness, &message), ==, 0);
        g_assert_cmphex(null_fs_last(harness->fs)->set.valid, ==,
                        valid[i >> 2][1] | (config.killpriv_v2 ? 0 : kept));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/op-caller/umask", test_umask);
    g_test_add_func("/op-caller/nobody", test_nobody);
    g_test_add_func("/op-caller/half", test_half);
    g_test_add_func("/op-caller/labels", test_labels);
    g_test_add_func("/op-caller/bad-labels", test_bad_labels);
    g_test_add_func("/op-caller/labels-not-agreed", test_labels_not_agreed);
    g_test_add_func("/op-caller/set-id-bits", test_set_id_bits);
    g_test_add_func("/op-caller/set-nothing", test_set_nothing);
    g_test_add_func("/op-caller/kept", test_kept);
    return g_test_run();
}
