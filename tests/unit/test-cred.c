/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/scratch.h"

#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "passthrough/cred.h"

/*
 * Borrowed identity: what is made is the caller's, what the caller may not do is refused,
 * set-group-ID directories behave as on the host itself, and the thread is always itself
 * again.
 */

typedef struct Self {
    char lines[512]; /* of /proc/thread-self/status */
    mode_t umask;
} Self;

static Self look_at_self(void)
{
    static const char *const names[] = {"Uid:", "Gid:", "Groups:", "CapEff:", "CapPrm:"};
    Self self = {0};
    char *text = NULL;
    g_assert_true(g_file_get_contents("/proc/thread-self/status", &text, NULL, NULL));
    char **lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line != NULL; line++) {
        for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
            if (g_str_has_prefix(*line, names[i])) {
                g_strlcat(self.lines, *line, sizeof(self.lines));
            }
        }
    }
    self.umask = umask(0);
    umask(self.umask);
    g_strfreev(lines);
    g_free(text);
    return self;
}

static void assert_same_self(const Self *before)
{
    Self now = look_at_self();
    g_assert_cmpstr(now.lines, ==, before->lines);
    g_assert_cmpuint(now.umask, ==, before->umask);
}

static void host_dir(const Scratch *s, const char *name, mode_t mode, uid_t uid,
                     gid_t gid)
{
    g_assert_cmpint(mkdirat(s->dir, name, 0700), ==, 0);
    g_assert_cmpint(fchownat(s->dir, name, uid, gid, 0), ==, 0);
    g_assert_cmpint(fchmodat(s->dir, name, mode, 0), ==, 0);
}

static void test_owner(void)
{
    const PtCaller callers[] = {{.uid = 1000, .gid = 1000},
                                {.uid = 0, .gid = 1000},
                                {.uid = 1000, .gid = 0},
                                {.uid = 0, .gid = 0},
                                {.uid = 4294967294, .gid = 4294967294}};
    Scratch s = scratch_open();
    host_dir(&s, "dir", 0777, 0, 0);
    uint64_t dir = lookup(&s, PT_ROOT_ID, "dir").nodeid;
    Self before = look_at_self();
    for (size_t i = 0; i < G_N_ELEMENTS(callers); i++) {
        PtEntry entries[4];
        PtOpened opened;
        PtMake make = make_of(&callers[i], dir, "file", 0644);
        g_assert_cmpint(pt_create(s.fs, &make, &entries[0], &opened), ==, 0);
        make = make_of(&callers[i], dir, "sub", 0755);
        g_assert_cmpint(pt_mkdir(s.fs, &make, &entries[1]), ==, 0);
        make = make_of(&callers[i], dir, "fifo", S_IFIFO | 0644);
        g_assert_cmpint(pt_mknod(s.fs, &make, &entries[2]), ==, 0);
        g_assert_cmpint(symlink_as(s.fs, &callers[i], dir, "link", "to", &entries[3]), ==,
                        0);
        for (int e = 0; e < 4; e++) {
            g_assert_cmpuint(entries[e].attr.stx.stx_uid, ==, callers[i].uid);
            g_assert_cmpuint(entries[e].attr.stx.stx_gid, ==, callers[i].gid);
            pt_forget(s.fs, entries[e].nodeid, 1);
        }
        assert_same_self(&before);
        g_assert_cmpint(pt_unlink(s.fs, dir, "file"), ==, 0);
        g_assert_cmpint(pt_unlink(s.fs, dir, "fifo"), ==, 0);
        g_assert_cmpint(pt_unlink(s.fs, dir, "link"), ==, 0);
        g_assert_cmpint(pt_rmdir(s.fs, dir, "sub"), ==, 0);
    }
    scratch_close(&s);
}

static void test_no_id(void)
{
    const PtCaller callers[] = {{.uid = UINT32_MAX},
                                {.gid = UINT32_MAX},
                                {.uid = UINT32_MAX, .gid = UINT32_MAX},
                                {.n_groups = 1, .groups = {UINT32_MAX}},
                                {.n_groups = PT_GROUPS_MAX + 1},
                                {.n_groups = UINT32_MAX}};
    Scratch s = scratch_open();
    Self before = look_at_self();
    PtEntry entry;
    PtOpened opened;
    for (size_t i = 0; i < G_N_ELEMENTS(callers); i++) {
        PtMake make = make_of(&callers[i], PT_ROOT_ID, "x", S_IFREG | 0644);
        g_assert_cmpint(pt_mkdir(s.fs, &make, &entry), ==, -EINVAL);
        g_assert_cmpint(pt_mknod(s.fs, &make, &entry), ==, -EINVAL);
        g_assert_cmpint(pt_create(s.fs, &make, &entry, &opened), ==, -EINVAL);
        g_assert_cmpint(symlink_as(s.fs, &callers[i], PT_ROOT_ID, "x", "to", &entry), ==,
                        -EINVAL);
    }
    assert_same_self(&before);
    g_assert_cmpint(lookup_error(&s, PT_ROOT_ID, "x"), ==, -ENOENT);
    scratch_close(&s);
}

/* A directory that only a group may write to. */
static void test_groups(void)
{
    const PtCaller member = {
        .uid = 1001, .gid = 1001, .n_groups = 2, .groups = {5, 1000}};
    const PtCaller stranger = {.uid = 1001, .gid = 1001};
    const PtCaller root_member = {.n_groups = 1, .groups = {1000}};
    PtAgreed agreed = {.supp_groups = true};
    PtEntry entry;
    Scratch s = scratch_open();
    host_dir(&s, "dir", 0770, 0, 1000);
    uint64_t dir = lookup(&s, PT_ROOT_ID, "dir").nodeid;
    Self before = look_at_self();
    pt_fs_agree(s.fs, &agreed);
    PtMake make = make_of(&stranger, dir, "x", 0755);
    g_assert_cmpint(pt_mkdir(s.fs, &make, &entry), ==, -EACCES);
    make.caller = &member;
    g_assert_cmpint(pt_mkdir(s.fs, &make, &entry), ==, 0);
    assert_same_self(&before);
    /* The groups of one request are not the next one's, nor are root's. */
    make = make_of(&root_member, dir, "y", 0755);
    g_assert_cmpint(pt_mkdir(s.fs, &make, &entry), ==, 0);
    assert_same_self(&before);
    make = make_of(&stranger, dir, "z", 0755);
    g_assert_cmpint(pt_mkdir(s.fs, &make, &entry), ==, -EACCES);
    assert_same_self(&before);
    /* Where the guest tells no groups, its kernel has checked. */
    agreed.supp_groups = false;
    pt_fs_agree(s.fs, &agreed);
    g_assert_cmpint(pt_mkdir(s.fs, &make, &entry), ==, 0);
    g_assert_cmpuint(entry.attr.stx.stx_uid, ==, 1001);
    assert_same_self(&before);
    scratch_close(&s);
}

/* Who may be named in a list cannot be known here; what is made is the caller's still,
 * and no bit stays that a stranger may not set. */
static void test_groups_of_lists(void)
{
    const PtCaller stranger = {.uid = 1001, .gid = 1001};
    const PtAgreed agreed = {.supp_groups = true, .posix_acl = true};
    PtEntry entry;
    PtOpened opened;
    Scratch s = scratch_open();
    host_dir(&s, "dir", 02770, 0, 1000);
    uint64_t dir = lookup(&s, PT_ROOT_ID, "dir").nodeid;
    Self before = look_at_self();
    pt_fs_agree(s.fs, &agreed);
    PtMake make = make_of(&stranger, dir, "x", 02755);
    g_assert_cmpint(pt_create(s.fs, &make, &entry, &opened), ==, 0);
    assert_same_self(&before);
    g_assert_cmpuint(entry.attr.stx.stx_uid, ==, 1001);
    g_assert_cmpuint(entry.attr.stx.stx_gid, ==, 1000);
    g_assert_cmpuint(entry.attr.stx.stx_mode & 07777, ==, 0755);
    /* What exists is opened as the caller may. */
    g_assert_cmpint(fchmodat(s.dir, "dir/x", 0600, 0), ==, 0);
    g_assert_cmpint(fchownat(s.dir, "dir/x", 0, 0, 0), ==, 0);
    g_assert_cmpint(pt_create(s.fs, &make, &entry, &opened), ==, -EACCES);
    assert_same_self(&before);
    scratch_close(&s);
}

static void test_umask(void)
{
    const PtCaller caller = {.uid = 1000, .gid = 1000, .umask = 027};
    PtEntry entry;
    Scratch s = scratch_open();
    host_dir(&s, "dir", 0777, 0, 0);
    uint64_t dir = lookup(&s, PT_ROOT_ID, "dir").nodeid;
    Self before = look_at_self();
    g_assert_cmpuint(before.umask, ==, 0);
    PtMake make = make_of(&caller, dir, "masked", 0777);
    g_assert_cmpint(pt_mkdir(s.fs, &make, &entry), ==, 0);
    g_assert_cmpuint(entry.attr.stx.stx_mode & 07777, ==, 0750);
    assert_same_self(&before);
    make = make_of(&root_caller, dir, "plain", 0777);
    g_assert_cmpint(pt_mkdir(s.fs, &make, &entry), ==, 0);
    g_assert_cmpuint(entry.attr.stx.stx_mode & 07777, ==, 0777);
    scratch_close(&s);
}

/* ---- set-group-ID directories: the host's own calls are the measure --------------- */

typedef struct SgidCase {
    PtCaller caller;
    mode_t mode;
    const char *dir;
} SgidCase;

static int make_natively(const Scratch *s, void *data)
{
    const SgidCase *c = data;
    char name[32];
    g_snprintf(name, sizeof(name), "%s/native", c->dir);
    int fd = openat(s->dir, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, c->mode);
    g_snprintf(name, sizeof(name), "%s/native-dir", c->dir);
    return fd < 0 || mkdirat(s->dir, name, c->mode) < 0;
}

static void compare(const Scratch *s, const char *dir, const char *native,
                    const struct statx *ours)
{
    char name[32];
    g_snprintf(name, sizeof(name), "%s/%s", dir, native);
    struct stat want = host_stat(s, name);
    g_assert_cmpuint(ours->stx_mode, ==, want.st_mode);
    g_assert_cmpuint(ours->stx_uid, ==, want.st_uid);
    g_assert_cmpuint(ours->stx_gid, ==, want.st_gid);
}

static void check_sgid_case(SgidCase *c)
{
    Scratch s = scratch_open();
    PtAgreed agreed = {.supp_groups = true};
    PtEntry entry;
    PtOpened opened;
    pt_fs_agree(s.fs, &agreed);
    host_dir(&s, "root", 02777, 0, 0);
    host_dir(&s, "own", 02777, 1000, 1000);
    host_dir(&s, "supp", 02777, 0, 77);
    g_assert_cmpint(run_as(&s, &c->caller, make_natively, c), ==, 0);
    uint64_t dir = lookup(&s, PT_ROOT_ID, c->dir).nodeid;
    PtMake make = make_of(&c->caller, dir, "ours", c->mode);
    g_assert_cmpint(pt_create(s.fs, &make, &entry, &opened), ==, 0);
    compare(&s, c->dir, "native", &entry.attr.stx);
    make = make_of(&c->caller, dir, "ours-dir", c->mode);
    g_assert_cmpint(pt_mkdir(s.fs, &make, &entry), ==, 0);
    compare(&s, c->dir, "native-dir", &entry.attr.stx);
    make = make_of(&c->caller, dir, "ours-node", S_IFREG | c->mode);
    g_assert_cmpint(pt_mknod(s.fs, &make, &entry), ==, 0);
    compare(&s, c->dir, "native", &entry.attr.stx);
    scratch_close(&s);
}

static void test_sgid_directories(void)
{
    static const char *const dirs[] = {"root", "own", "supp"};
    static const mode_t modes[] = {02755, 02745, 0644, 06777, 04755, 02700};
    const PtCaller callers[] = {{.uid = 1000, .gid = 1000},
                                {.uid = 1000, .gid = 1000, .n_groups = 1, .groups = {77}},
                                {.uid = 1000, .gid = 1000, .umask = 022},
                                {.uid = 0, .gid = 0}};
    for (size_t d = 0; d < G_N_ELEMENTS(dirs); d++) {
        for (size_t m = 0; m < G_N_ELEMENTS(modes); m++) {
            for (size_t i = 0; i < G_N_ELEMENTS(callers); i++) {
                SgidCase c = {callers[i], modes[m], dirs[d]};
                check_sgid_case(&c);
            }
        }
    }
}

/* The one that was a vulnerability: root's group on a worker thread kept the bit. */
static void test_sgid_is_lost(void)
{
    const PtCaller caller = {.uid = 1000, .gid = 1000};
    PtEntry entry;
    PtOpened opened;
    Scratch s = scratch_open();
    host_dir(&s, "dir", 02777, 0, 0);
    uint64_t dir = lookup(&s, PT_ROOT_ID, "dir").nodeid;
    PtMake make = make_of(&caller, dir, "x", 02755);
    g_assert_cmpint(pt_create(s.fs, &make, &entry, &opened), ==, 0);
    g_assert_cmpuint(entry.attr.stx.stx_mode & 07777, ==, 0755);
    g_assert_cmpuint(entry.attr.stx.stx_gid, ==, 0);
    scratch_close(&s);
}

/* ---- threads that cannot get back ------------------------------------------------- */

/* From now on, on this thread, setresuid(-1, @uid, -1) fails. */
static void forbid_uid(uint32_t uid)
{
    const uint32_t euid = offsetof(struct seccomp_data, args[1]);
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_setresuid, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, euid),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, uid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {G_N_ELEMENTS(code), code};
    g_assert_cmpint(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), ==, 0);
}

static void *run_poisoned(void *data)
{
    Scratch *s = data;
    const PtCaller caller = {.uid = 1000, .gid = 1000};
    PtEntry entry;
    PtAttr attr;
    PtOpened opened;
    g_assert_cmpint(pt_thread_enter(s->fs), ==, 0);
    uint64_t dir = lookup(s, PT_ROOT_ID, "dir").nodeid;
    forbid_uid(0);
    g_assert_true(pt_thread_usable());
    PtMake make = make_of(&caller, dir, "made", 0755);
    g_assert_cmpint(pt_mkdir(s->fs, &make, &entry), ==, -EIO);
    g_assert_false(pt_thread_usable());
    g_assert_cmpint(lookup_error(s, PT_ROOT_ID, "dir"), ==, -EIO);
    g_assert_cmpint(pt_getattr(s->fs, dir, PT_NO_HANDLE, &attr), ==, -EIO);
    g_assert_cmpint(pt_mkdir(s->fs, &make, &entry), ==, -EIO);
    g_assert_cmpint(pt_opendir(s->fs, dir, 0, &opened), ==, -EIO);
    /* What only gives back still works. */
    pt_forget(s->fs, dir, UINT64_MAX);
    return NULL;
}

static void test_poisoned(void)
{
    Scratch s = scratch_open();
    pthread_t thread;
    host_dir(&s, "dir", 0777, 0, 0);
    g_assert_cmpint(pthread_create(&thread, NULL, run_poisoned, &s), ==, 0);
    pthread_join(thread, NULL);
    /* Other threads serve. */
    lookup(&s, PT_ROOT_ID, "dir");
    lookup(&s, lookup(&s, PT_ROOT_ID, "dir").nodeid, "made");
    scratch_close(&s);
}

/* Half of an identity taken is given back. */
static void *run_refused(void *data)
{
    Scratch *s = data;
    const PtCaller caller = {.uid = 1000, .gid = 1001, .umask = 077};
    const PtCaller next = {.uid = 0, .gid = 0};
    PtEntry entry;
    g_assert_cmpint(pt_thread_enter(s->fs), ==, 0);
    forbid_uid(1000);
    Self before = look_at_self();
    PtMake make = make_of(&caller, PT_ROOT_ID, "refused", 0755);
    g_assert_cmpint(pt_mkdir(s->fs, &make, &entry), ==, -EPERM);
    assert_same_self(&before);
    g_assert_true(pt_thread_usable());
    make = make_of(&next, PT_ROOT_ID, "made", 0755);
    g_assert_cmpint(pt_mkdir(s->fs, &make, &entry), ==, 0);
    g_assert_cmpuint(entry.attr.stx.stx_gid, ==, 0);
    return NULL;
}

static void test_refused(void)
{
    Scratch s = scratch_open();
    pthread_t thread;
    g_assert_cmpint(pthread_create(&thread, NULL, run_refused, &s), ==, 0);
    pthread_join(thread, NULL);
    g_assert_cmpint(lookup_error(&s, PT_ROOT_ID, "refused"), ==, -ENOENT);
    scratch_close(&s);
}

static void *run_stranger(void *data)
{
    const Scratch *s = data;
    g_assert_cmpint(lookup_error(s, PT_ROOT_ID, "dir"), ==, -EIO);
    return NULL;
}

static void test_not_entered(void)
{
    Scratch s = scratch_open();
    pthread_t thread;
    g_assert_cmpint(pthread_create(&thread, NULL, run_stranger, &s), ==, 0);
    pthread_join(thread, NULL);
    scratch_close(&s);
}

/* ---- without every capability ------------------------------------------------------ */

static void *run_limited(void *data)
{
    Scratch *s = data;
    const PtCaller caller = {.uid = 1000, .gid = 1000};
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct word[2];
    PtEntry entry;
    PtAgreed agreed = {.supp_groups = true};
    pt_fs_agree(s->fs, &agreed);
    /* Permitted, but not effective: coming back must not make it so. */
    g_assert_cmpint(syscall(SYS_capget, &head, word), ==, 0);
    word[0].effective &= ~(1u << CAP_NET_ADMIN);
    g_assert_cmpint(syscall(SYS_capset, &head, word), ==, 0);
    g_assert_cmpint(pt_thread_enter(s->fs), ==, 0);
    uint64_t dir = lookup(s, PT_ROOT_ID, "dir").nodeid;
    Self before = look_at_self();
    PtMake make = make_of(&caller, dir, "made", 0755);
    g_assert_cmpint(pt_mkdir(s->fs, &make, &entry), ==, 0);
    assert_same_self(&before);
    return NULL;
}

static void test_limited_capabilities(void)
{
    Scratch s = scratch_open();
    pthread_t thread;
    host_dir(&s, "dir", 0777, 0, 0);
    g_assert_cmpint(pthread_create(&thread, NULL, run_limited, &s), ==, 0);
    pthread_join(thread, NULL);
    scratch_close(&s);
}

/* A worker is born with the groups of whoever started the daemon. */
static void *run_with_groups(void *data)
{
    Scratch *s = data;
    const gid_t groups[] = {1, 2, 3};
    g_assert_cmpint(syscall(SYS_setgroups, 3, groups), ==, 0);
    g_assert_cmpint(pt_thread_enter(s->fs), ==, 0);
    g_assert_cmpint((int)syscall(SYS_getgroups, 0, NULL), ==, 0);
    return NULL;
}

static void *run_with_group(void *data)
{
    Scratch *s = data;
    PtEntry entry;
    g_assert_cmpint((int)syscall(SYS_setresgid, -1, 1000, -1), ==, 0);
    g_assert_cmpint(pt_thread_enter(s->fs), ==, 0);
    PtMake make = make_of(&root_caller, PT_ROOT_ID, "made", 0755);
    g_assert_cmpint(pt_mkdir(s->fs, &make, &entry), ==, 0);
    g_assert_cmpuint(entry.attr.stx.stx_gid, ==, 0);
    return NULL;
}

static void test_inherited_group(void)
{
    Scratch s = scratch_open();
    pthread_t thread;
    g_assert_cmpint(pthread_create(&thread, NULL, run_with_group, &s), ==, 0);
    pthread_join(thread, NULL);
    scratch_close(&s);
}

static void test_inherited_groups(void)
{
    Scratch s = scratch_open();
    pthread_t thread;
    g_assert_cmpint(pthread_create(&thread, NULL, run_with_groups, &s), ==, 0);
    pthread_join(thread, NULL);
    scratch_close(&s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (!need_root()) {
        return 0;
    }
    g_test_add_func("/cred/owner", test_owner);
    g_test_add_func("/cred/no-id", test_no_id);
    g_test_add_func("/cred/groups", test_groups);
    g_test_add_func("/cred/groups-of-lists", test_groups_of_lists);
    g_test_add_func("/cred/umask", test_umask);
    g_test_add_func("/cred/sgid-directories", test_sgid_directories);
    g_test_add_func("/cred/sgid-is-lost", test_sgid_is_lost);
    g_test_add_func("/cred/poisoned", test_poisoned);
    g_test_add_func("/cred/refused", test_refused);
    g_test_add_func("/cred/not-entered", test_not_entered);
    g_test_add_func("/cred/limited-capabilities", test_limited_capabilities);
    g_test_add_func("/cred/inherited-group", test_inherited_group);
    g_test_add_func("/cred/inherited-groups", test_inherited_groups);
    return g_test_run();
}
