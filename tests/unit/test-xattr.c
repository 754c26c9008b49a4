/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extended attributes on a scratch directory: every answer is compared with what the
 * host's own call says about the same file.
 */
#include <errno.h>
#include <linux/capability.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <sys/xattr.h>

#include "tests/unit/scratch.h"

#define ACL_ACCESS "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"
#define CAPABILITY "security.capability"

/* Version 2, CAP_NET_RAW, effective. */
static const unsigned char capability[20] = {1, 0, 0, 2, 0, 0x20};

/* {version 2, user::rwx, user:1000:rwx, group::rwx, mask::rwx, other::---} */
static const unsigned char acl[] = {2,    0, 0, 0,                         /* */
                                    1,    0, 7, 0, 0xff, 0xff, 0xff, 0xff, /* */
                                    2,    0, 7, 0, 0xe8, 3,    0,    0,    /* */
                                    4,    0, 7, 0, 0xff, 0xff, 0xff, 0xff, /* */
                                    0x10, 0, 7, 0, 0xff, 0xff, 0xff, 0xff, /* */
                                    0x20, 0, 0, 0, 0xff, 0xff, 0xff, 0xff};

/* Not GLib's macro, which warns. */
static void assert_same(const void *a, size_t n_a, const void *b, size_t n_b)
{
    g_assert_cmpuint(n_a, ==, n_b);
    g_assert_true(memcmp(a, b, n_a) == 0);
}

static const char *const kinds[] = {"file", "dir", "link", "fifo", "sock", "chr", "blk"};

/* One file of each kind, for ourselves and once more for the host's calls. */
static Scratch open_kinds(const char *rules, PtXattrMap **ret_map)
{
    PtConfig config = scratch_config();
    GError *error = NULL;

    if (rules != NULL) {
        *ret_map = pt_xattr_map_parse(rules, &error);
        g_assert_no_error(error);
        config.xattr_map = *ret_map;
    }
    Scratch s = scratch_open_with(&config);
    for (int twin = 0; twin < 2; twin++) {
        char *names[G_N_ELEMENTS(kinds)];
        for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
            names[i] = g_strdup_printf("%s%s", kinds[i], twin ? "-twin" : "");
        }
        host_write(&s, names[0], "text");
        g_assert_cmpint(mkdirat(s.dir, names[1], 0755), ==, 0);
        g_assert_cmpint(symlinkat("file", s.dir, names[2]), ==, 0);
        g_assert_cmpint(mknodat(s.dir, names[3], S_IFIFO | 0644, 0), ==, 0);
        g_assert_cmpint(mknodat(s.dir, names[4], S_IFSOCK | 0644, 0), ==, 0);
        g_assert_cmpint(mknodat(s.dir, names[5], S_IFCHR | 0644, 0x103), ==, 0);
        g_assert_cmpint(mknodat(s.dir, names[6], S_IFBLK | 0644, 0x701), ==, 0);
        for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
            g_free(names[i]);
        }
    }
    return s;
}

static char *host_path(const Scratch *s, const char *name, bool twin)
{
    return g_strdup_printf("%s/%s%s", s->path, name, twin ? "-twin" : "");
}

static int set_as(const Scratch *s, uint64_t nodeid, const PtSetxattr *set)
{
    return pt_setxattr(s->fs, nodeid, set);
}

static int set_text(const Scratch *s, uint64_t nodeid, const char *name, const char *text)
{
    return set_as(s, nodeid,
                  &(PtSetxattr){.name = name, .value = text, .size = strlen(text)});
}

static int negative(ssize_t result)
{
    return result < 0 ? -errno : (int)result;
}

/* ---- as on the host ---------------------------------------------------------------- */

static const char *const names[] = {"user.a",
                                    "user.b",
                                    "user.",
                                    "user",
                                    "trusted.a",
                                    "trusted.",
                                    "security.foo",
                                    "security.",
                                    "system.foo",
                                    "system.",
                                    "foo",
                                    "",
                                    ".",
                                    "foo.bar",
                                    "security.capability",
                                    "user.user.",
                                    "security.selinux"};

static void compare_get(const Scratch *s, uint64_t nodeid, const char *twin,
                        const char *name)
{
    static const size_t sizes[] = {0, 1, 2, 3, 100, PT_XATTR_MAX};
    static char ours[PT_XATTR_MAX], theirs[PT_XATTR_MAX];

    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        int expected = negative(lgetxattr(twin, name, theirs, sizes[i]));
        int result = (int)pt_getxattr(s->fs, nodeid, name, ours, sizes[i]);
        if (result != expected) {
            g_test_message("%s %s %zu: %d, not %d", twin, name, sizes[i], result,
                           expected);
            g_test_fail();
        } else if (result > 0 && sizes[i] > 0) {
            assert_same(ours, (size_t)result, theirs, (size_t)expected);
        }
    }
}

/* By root and by somebody: the attributes of both are ourselves', so no difference. */
static void compare_list(const Scratch *s, uint64_t nodeid, const char *twin)
{
    static char ours[PT_XATTR_MAX], theirs[PT_XATTR_MAX];
    int full = negative(llistxattr(twin, theirs, 0));

    g_assert_cmpint(full, >=, 0);
    g_assert_cmpint(pt_listxattr(s->fs, nodeid, ours, 0), ==, full);
    for (size_t size = 1; size < (size_t)full + 2; size++) {
        int expected = negative(llistxattr(twin, theirs, size));
        g_assert_cmpint(pt_listxattr(s->fs, nodeid, ours, size), ==, expected);
        if (expected >= 0) {
            assert_same(ours, (size_t)expected, theirs, (size_t)expected);
        }
    }
}

static void compare_kind(const Scratch *s, const char *kind)
{
    static const uint32_t flags[] = {XATTR_CREATE, XATTR_REPLACE, 0, XATTR_CREATE, 3};
    g_autofree char *twin = host_path(s, kind, true);
    uint64_t nodeid = lookup(s, PT_ROOT_ID, kind).nodeid;

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        for (size_t f = 0; f < G_N_ELEMENTS(flags); f++) {
            const PtSetxattr set = {
                .name = names[i], .value = "va", .size = 2, .flags = flags[f]};
            int expected = negative(lsetxattr(twin, names[i], "va", 2, (int)flags[f]));
            int result = pt_setxattr(s->fs, nodeid, &set);
            if (result != expected) {
                g_test_message("set %s %s %u: %d, not %d", twin, names[i], flags[f],
                               result, expected);
                g_test_fail();
            }
        }
        compare_get(s, nodeid, twin, names[i]);
    }
    compare_list(s, nodeid, twin);
    for (size_t i = 0; i < 2 * G_N_ELEMENTS(names); i++) {
        const char *name = names[i % G_N_ELEMENTS(names)];
        int expected = negative(lremovexattr(twin, name));
        g_assert_cmpint(pt_removexattr(s->fs, nodeid, name), ==, expected);
        compare_get(s, nodeid, twin, name);
    }
    compare_list(s, nodeid, twin);
}

static void test_as_host(void)
{
    Scratch s = open_kinds(NULL, NULL);

    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        compare_kind(&s, kinds[i]);
    }
    scratch_close(&s);
}

static void test_long(void)
{
    static char value[PT_XATTR_MAX + 1];
    static char read[PT_XATTR_MAX];
    Scratch s = open_kinds(NULL, NULL);
    uint64_t nodeid = lookup(&s, PT_ROOT_ID, "file").nodeid;
    g_autofree char *twin = host_path(&s, "file", true);
    static const size_t sizes[] = {0, 1, 2000, 4000, 5000, 65535, 65536, 65537};

    memset(value, 'v', sizeof(value));
    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        const PtSetxattr set = {.name = "user.x", .value = value, .size = sizes[i]};
        int expected = negative(lsetxattr(twin, "user.x", value, sizes[i], 0));
        g_assert_cmpint(pt_setxattr(s.fs, nodeid, &set), ==, expected);
        expected = negative(lgetxattr(twin, "user.x", read, sizeof(read)));
        g_assert_cmpint(pt_getxattr(s.fs, nodeid, "user.x", read, sizeof(read)), ==,
                        expected);
    }
    char name[258];
    memset(name, 'n', sizeof(name));
    memcpy(name, "user.", 5);
    for (size_t length = 254; length <= 257; length++) {
        name[length] = '\0';
        int expected = negative(lsetxattr(twin, name, "v", 1, 0));
        g_assert_cmpint(set_text(&s, nodeid, name, "v"), ==, expected);
        expected = negative(lgetxattr(twin, name, read, 100));
        g_assert_cmpint(pt_getxattr(s.fs, nodeid, name, read, 100), ==, expected);
        name[length] = 'n';
    }
    scratch_close(&s);
}

static void test_ids(void)
{
    Scratch s = open_kinds(NULL, NULL);
    char buffer[PT_XATTR_MAX];

    for (uint64_t nodeid = 2; nodeid < 100; nodeid++) {
        g_assert_cmpint(pt_getxattr(s.fs, nodeid, "user.a", buffer, 9), ==, -ESTALE);
        g_assert_cmpint(pt_listxattr(s.fs, nodeid, buffer, 9), ==, -ESTALE);
        g_assert_cmpint(set_text(&s, nodeid, "user.a", "v"), ==, -ESTALE);
        g_assert_cmpint(pt_removexattr(s.fs, nodeid, "user.a"), ==, -ESTALE);
    }
    g_assert_cmpint(set_text(&s, PT_ROOT_ID, "user.a", "v"), ==, 0);
    g_assert_cmpint(pt_getxattr(s.fs, PT_ROOT_ID, "user.a", buffer, 9), ==, 1);
    scratch_close(&s);
}

/* ---- with a map -------------------------------------------------------------------- */

static void assert_host_has(const Scratch *s, const char *file, const char *name,
                            bool has)
{
    g_autofree char *path = host_path(s, file, false);
    char value[100];

    g_assert_cmpint(lgetxattr(path, name, value, sizeof(value)) >= 0, ==, has);
}

static void assert_list(const Scratch *s, uint64_t nodeid, const char *list, size_t size)
{
    char buffer[PT_XATTR_MAX];

    g_assert_cmpint(pt_listxattr(s->fs, nodeid, buffer, 0), ==, (int)size);
    if (size > 1) {
        g_assert_cmpint(pt_listxattr(s->fs, nodeid, buffer, size - 1), ==, -ERANGE);
    }
    g_assert_cmpint(pt_listxattr(s->fs, nodeid, buffer, size + 1), ==, (int)size);
    assert_same(buffer, size, list, size);
}

/* The size of a mapped list is the size of what is then given, also of none. */
static void test_map(void)
{
    g_autoptr(PtXattrMap) map = NULL;
    Scratch s = open_kinds("/map/trusted./user.virtiofs./", &map);
    g_autofree char *path = host_path(&s, "file", false);
    uint64_t nodeid = lookup(&s, PT_ROOT_ID, "file").nodeid;
    char buffer[100];

    assert_list(&s, nodeid, "", 0);
    g_assert_cmpint(set_text(&s, nodeid, "trusted.a", "one"), ==, 0);
    assert_host_has(&s, "file", "user.virtiofs.trusted.a", true);
    assert_host_has(&s, "file", "trusted.a", false);
    assert_list(&s, nodeid, "trusted.a", 10);
    g_assert_cmpint(lsetxattr(path, "trusted.host", "x", 1, 0), ==, 0);
    assert_list(&s, nodeid, "trusted.a", 10);
    g_assert_cmpint(pt_getxattr(s.fs, nodeid, "trusted.host", buffer, 9), ==, -ENODATA);
    g_assert_cmpint(pt_getxattr(s.fs, nodeid, "trusted.a", buffer, 0), ==, 3);
    g_assert_cmpint(pt_getxattr(s.fs, nodeid, "trusted.a", buffer, 2), ==, -ERANGE);
    g_assert_cmpint(pt_getxattr(s.fs, nodeid, "trusted.a", buffer, 3), ==, 3);
    /* Out of reach: not to be set or removed, and so not there. */
    const char *hidden = "user.virtiofs.trusted.a";
    g_assert_cmpint(set_text(&s, nodeid, hidden, "two"), ==, -EPERM);
    g_assert_cmpint(pt_removexattr(s.fs, nodeid, hidden), ==, -EPERM);
    g_assert_cmpint(pt_getxattr(s.fs, nodeid, hidden, buffer, 9), ==, -ENODATA);
    g_assert_cmpint(pt_removexattr(s.fs, nodeid, "trusted.a"), ==, 0);
    assert_list(&s, nodeid, "", 0);
    scratch_close(&s);
}

static void test_map_unsupported(void)
{
    g_autoptr(PtXattrMap) map = NULL;
    Scratch s = open_kinds(":unsupported:all:user.no:user.no:"
                           ":prefix:all:long:user.0123456789.:"
                           ":ok:all:::",
                           &map);
    g_autofree char *path = host_path(&s, "file", false);
    uint64_t nodeid = lookup(&s, PT_ROOT_ID, "file").nodeid;
    char buffer[100];

    g_assert_cmpint(lsetxattr(path, "user.no", "x", 1, 0), ==, 0);
    g_assert_cmpint(set_text(&s, nodeid, "user.no", "x"), ==, -EOPNOTSUPP);
    g_assert_cmpint(pt_getxattr(s.fs, nodeid, "user.no", buffer, 9), ==, -EOPNOTSUPP);
    g_assert_cmpint(pt_removexattr(s.fs, nodeid, "user.no"), ==, -EOPNOTSUPP);
    assert_list(&s, nodeid, "", 0);
    char name[XATTR_NAME_MAX + 1];
    memset(name, 'n', sizeof(name));
    memcpy(name, "long", 4);
    name[XATTR_NAME_MAX] = '\0';
    g_assert_cmpint(set_text(&s, nodeid, name, "x"), ==, -ERANGE);
    name[XATTR_NAME_MAX - 16] = '\0';
    g_assert_cmpint(set_text(&s, nodeid, name, "x"), ==, 0);
    assert_list(&s, nodeid, name, strlen(name) + 1);
    scratch_close(&s);
}

/* Links and special files, which have trusted attributes but no user ones. */
static void test_map_kinds(void)
{
    g_autoptr(PtXattrMap) map = NULL;
    Scratch s = open_kinds(":map::trusted.virtiofs.:", &map);
    char buffer[100];

    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        uint64_t nodeid = lookup(&s, PT_ROOT_ID, kinds[i]).nodeid;
        g_assert_cmpint(set_text(&s, nodeid, "security.selinux", "label"), ==, 0);
        g_assert_cmpint(pt_getxattr(s.fs, nodeid, "security.selinux", buffer, 9), ==, 5);
        assert_list(&s, nodeid, "security.selinux", 17);
        assert_host_has(&s, kinds[i], "trusted.virtiofs.security.selinux", true);
    }
    scratch_close(&s);
}

/* ---- access control lists ---------------------------------------------------------- */

static void agree_acl(const Scratch *s, bool on)
{
    pt_fs_agree(s->fs, &(PtAgreed){.posix_acl = on});
}

static int set_acl(const Scratch *s, uint64_t nodeid, const char *name, bool kill_sgid)
{
    return set_as(
        s, nodeid,
        &(PtSetxattr){
            .name = name, .value = acl, .size = sizeof(acl), .acl_kill_sgid = kill_sgid});
}

/* Not agreed: not there, neither in lists nor by name, under either name. */
static void test_acl_hidden(void)
{
    g_autoptr(PtXattrMap) map = NULL;
    Scratch s = open_kinds(":prefix:client:posix:system.:"
                           ":prefix:server::system.:"
                           ":ok:all:::",
                           &map);
    g_autofree char *path = host_path(&s, "dir", false);
    uint64_t nodeid = lookup(&s, PT_ROOT_ID, "dir").nodeid;
    char buffer[100];
    static const char *const all[] = {ACL_ACCESS, ACL_DEFAULT, "posix_acl_access"};

    g_assert_cmpint(lsetxattr(path, ACL_ACCESS, acl, sizeof(acl), 0), ==, 0);
    g_assert_cmpint(lsetxattr(path, ACL_DEFAULT, acl, sizeof(acl), 0), ==, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(all); i++) {
        g_assert_cmpint(set_acl(&s, nodeid, all[i], false), ==, -EOPNOTSUPP);
        g_assert_cmpint(pt_getxattr(s.fs, nodeid, all[i], buffer, 99), ==, -EOPNOTSUPP);
        g_assert_cmpint(pt_removexattr(s.fs, nodeid, all[i]), ==, -EOPNOTSUPP);
    }
    assert_list(&s, nodeid, "", 0);
    /* Only these very names: a beginning of them is another name. */
    g_assert_cmpint(pt_getxattr(s.fs, nodeid, "user.", buffer, 99), ==, -EINVAL);
    g_assert_cmpint(pt_getxattr(s.fs, nodeid, "user.system", buffer, 99), ==, -ENODATA);
    agree_acl(&s, true);
    g_assert_cmpint(pt_getxattr(s.fs, nodeid, "posix_acl_access", buffer, 99), ==,
                    sizeof(acl));
    scratch_close(&s);
}

static void test_acl(void)
{
    Scratch s = open_kinds(NULL, NULL);
    uint64_t nodeid = lookup(&s, PT_ROOT_ID, "dir").nodeid;
    uint64_t link = lookup(&s, PT_ROOT_ID, "link").nodeid;
    char buffer[PT_XATTR_MAX];

    agree_acl(&s, true);
    g_assert_cmpint(set_acl(&s, nodeid, ACL_ACCESS, false), ==, 0);
    g_assert_cmpint(set_acl(&s, nodeid, ACL_DEFAULT, false), ==, 0);
    g_assert_cmpint(set_acl(&s, link, ACL_ACCESS, false), ==, -EOPNOTSUPP);
    g_assert_cmpint(host_stat(&s, "dir").st_mode & 07777, ==, 0770);
    g_assert_cmpint(pt_getxattr(s.fs, nodeid, ACL_ACCESS, buffer, 99), ==, sizeof(acl));
    g_assert_cmpint(pt_listxattr(s.fs, nodeid, buffer, 0), ==,
                    sizeof(ACL_ACCESS) + sizeof(ACL_DEFAULT));
    g_assert_cmpint(pt_removexattr(s.fs, nodeid, ACL_DEFAULT), ==, 0);
    g_assert_cmpint(pt_getxattr(s.fs, nodeid, ACL_DEFAULT, buffer, 99), ==, -ENODATA);
    scratch_close(&s);
}

/* The guest says that its caller may not keep set-group-ID; whatever we may. */
static void test_acl_kill_sgid(void)
{
    static const gid_t groups[] = {0, 4711};
    Scratch s = open_kinds(NULL, NULL);
    g_autofree char *path = host_path(&s, "file", false);
    uint64_t nodeid = lookup(&s, PT_ROOT_ID, "file").nodeid;

    agree_acl(&s, true);
    for (size_t i = 0; i < G_N_ELEMENTS(groups); i++) {
        for (int kill = 0; kill < 2; kill++) {
            g_assert_cmpint(chown(path, 1000, groups[i]), ==, 0);
            g_assert_cmpint(chmod(path, 06755), ==, 0);
            g_assert_cmpint(set_acl(&s, nodeid, ACL_ACCESS, kill), ==, 0);
            mode_t expected = kill ? 04770 : 06770;
            g_assert_cmpint(host_stat(&s, "file").st_mode & 07777, ==, expected);
        }
    }
    /* It says so of access lists alone. */
    g_autofree char *dir = host_path(&s, "dir", false);
    g_assert_cmpint(chmod(dir, 02755), ==, 0);
    nodeid = lookup(&s, PT_ROOT_ID, "dir").nodeid;
    g_assert_cmpint(set_acl(&s, nodeid, ACL_DEFAULT, true), ==, 0);
    const PtSetxattr other = {.name = "user.x", .value = "", .acl_kill_sgid = true};
    g_assert_cmpint(pt_setxattr(s.fs, nodeid, &other), ==, 0);
    g_assert_cmpint(host_stat(&s, "dir").st_mode & 07777, ==, 02755);
    g_assert_cmpint(set_acl(&s, nodeid, ACL_ACCESS, true), ==, 0);
    g_assert_cmpint(host_stat(&s, "dir").st_mode & 07777, ==, 0770);
    scratch_close(&s);
}

/* ---- file capabilities ------------------------------------------------------------- */

typedef struct Change {
    const char *name;
    int (*run)(const Scratch *s, uint64_t nodeid);
} Change;

static int do_write(const Scratch *s, uint64_t nodeid)
{
    PtOpened opened = open_node(s, nodeid, O_RDWR);
    ssize_t result = write_text(s, nodeid, opened.handle, 1, "x");
    g_assert_cmpint(pt_release(s->fs, nodeid, opened.handle), ==, 0);
    return result < 0 ? (int)result : 0;
}

static int do_fallocate(const Scratch *s, uint64_t nodeid)
{
    PtOpened opened = open_node(s, nodeid, O_WRONLY);
    int result = allocate(s->fs, nodeid, opened.handle, 0, 0, 4096);
    g_assert_cmpint(pt_release(s->fs, nodeid, opened.handle), ==, 0);
    return result;
}

static int do_open_trunc(const Scratch *s, uint64_t nodeid)
{
    PtOpened opened = open_node(s, nodeid, O_WRONLY | O_TRUNC);
    return pt_release(s->fs, nodeid, opened.handle);
}

static int do_create_trunc(const Scratch *s, uint64_t nodeid)
{
    PtMake make = make_of(&root_caller, PT_ROOT_ID, "file", 0644);
    PtEntry entry;
    PtOpened opened;

    make.open_flags = O_WRONLY | O_TRUNC;
    g_assert_cmpint(pt_create(s->fs, &make, &entry, &opened), ==, 0);
    g_assert_cmpuint(entry.nodeid, ==, nodeid);
    return pt_release(s->fs, nodeid, opened.handle);
}

static int set_attr(const Scratch *s, uint64_t nodeid, PtSetattr set)
{
    PtAttr attr;

    return pt_setattr(s->fs, nodeid, &set, &attr);
}

static int do_truncate(const Scratch *s, uint64_t nodeid)
{
    return set_attr(s, nodeid,
                    (PtSetattr){.valid = PT_SET_SIZE, .handle = PT_NO_HANDLE, .size = 2});
}

static int do_ftruncate(const Scratch *s, uint64_t nodeid)
{
    PtOpened opened = open_node(s, nodeid, O_WRONLY);
    int result = set_attr(
        s, nodeid, (PtSetattr){.valid = PT_SET_SIZE, .handle = opened.handle, .size = 2});
    g_assert_cmpint(pt_release(s->fs, nodeid, opened.handle), ==, 0);
    return result;
}

static int do_chown(const Scratch *s, uint64_t nodeid)
{
    return set_attr(s, nodeid,
                    (PtSetattr){.valid = PT_SET_UID, .handle = PT_NO_HANDLE, .uid = 5});
}

static int do_chgrp(const Scratch *s, uint64_t nodeid)
{
    return set_attr(s, nodeid,
                    (PtSetattr){.valid = PT_SET_GID, .handle = PT_NO_HANDLE, .gid = 5});
}

static const Change changes[] = {
    {"write", do_write},           {"fallocate", do_fallocate},
    {"open-trunc", do_open_trunc}, {"create-trunc", do_create_trunc},
    {"truncate", do_truncate},     {"ftruncate", do_ftruncate},
    {"chown", do_chown},           {"chgrp", do_chgrp},
};

static int do_chmod(const Scratch *s, uint64_t nodeid)
{
    return set_attr(
        s, nodeid,
        (PtSetattr){.valid = PT_SET_MODE, .handle = PT_NO_HANDLE, .mode = 0700});
}

static int do_read(const Scratch *s, uint64_t nodeid)
{
    PtOpened opened = open_node(s, nodeid, O_RDONLY);
    char byte;
    struct iovec iov = {&byte, 1};
    PtIo io = {.nodeid = nodeid, .handle = opened.handle, .iov = &iov, .n_iov = 1};
    g_assert_cmpint(pt_read(s->fs, &io), ==, 1);
    /* Refused, so nothing has changed. */
    g_assert_cmpint(pt_write(s->fs, &io), ==, -EBADF);
    return pt_release(s->fs, nodeid, opened.handle);
}

static const Change harmless[] = {{"chmod", do_chmod}, {"read", do_read}};

static void check_change(const char *rules, const Change *change, bool keeps)
{
    g_autoptr(PtXattrMap) map = NULL;
    Scratch s = open_kinds(rules, &map);
    uint64_t nodeid = lookup(&s, PT_ROOT_ID, "file").nodeid;
    char buffer[100];
    const PtSetxattr set = {
        .name = CAPABILITY, .value = capability, .size = sizeof(capability)};

    /* Twice, and set again in between: nobody has remembered that there was none. */
    for (int i = 0; i < 2; i++) {
        g_assert_cmpint(set_text(&s, nodeid, "user.other", "x"), ==, 0);
        g_assert_cmpint(pt_setxattr(s.fs, nodeid, &set), ==, 0);
        g_assert_cmpint(change->run(&s, nodeid), ==, 0);
        int result = (int)pt_getxattr(s.fs, nodeid, CAPABILITY, buffer, sizeof(buffer));
        if (result != (keeps ? (int)sizeof(capability) : -ENODATA)) {
            g_test_message("%s %s: %d", rules != NULL ? rules : "no map", change->name,
                           result);
            g_test_fail();
        }
        g_assert_cmpint(pt_getxattr(s.fs, nodeid, "user.other", buffer, 9), ==, 1);
    }
    scratch_close(&s);
}

/* CVE-2021-20263: as with the kernel's own name, so with every other. */
static void test_capability(void)
{
    static const char *const maps[] = {
        NULL, ":map::user.virtiofs.:", ":map:security.:trusted.v.:"};

    for (size_t i = 0; i < G_N_ELEMENTS(maps); i++) {
        for (size_t j = 0; j < G_N_ELEMENTS(changes); j++) {
            check_change(maps[i], &changes[j], false);
        }
        for (size_t j = 0; j < G_N_ELEMENTS(harmless); j++) {
            check_change(maps[i], &harmless[j], true);
        }
    }
}

/* Only regular files have any: others are left alone. */
static void test_capability_kinds(void)
{
    g_autoptr(PtXattrMap) map = NULL;
    Scratch s = open_kinds(":map::trusted.v.:", &map);

    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        uint64_t nodeid = lookup(&s, PT_ROOT_ID, kinds[i]).nodeid;
        g_assert_cmpint(set_text(&s, nodeid, CAPABILITY, "x"), ==, 0);
        g_assert_cmpint(do_chown(&s, nodeid), ==, 0);
        assert_host_has(&s, kinds[i], "trusted.v." CAPABILITY, i != 0);
    }
    scratch_close(&s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/xattr/as-host", test_as_host);
    g_test_add_func("/xattr/long", test_long);
    g_test_add_func("/xattr/ids", test_ids);
    g_test_add_func("/xattr/map", test_map);
    g_test_add_func("/xattr/map-unsupported", test_map_unsupported);
    g_test_add_func("/xattr/map-kinds", test_map_kinds);
    g_test_add_func("/xattr/acl-hidden", test_acl_hidden);
    g_test_add_func("/xattr/acl", test_acl);
    g_test_add_func("/xattr/acl-kill-sgid", test_acl_kill_sgid);
    g_test_add_func("/xattr/capability", test_capability);
    g_test_add_func("/xattr/capability-kinds", test_capability_kinds);
    return g_test_run();
}
