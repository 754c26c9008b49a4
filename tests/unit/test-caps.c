/* SPDX-License-Identifier: Apache-2.0 */
/* The --modcaps list, and what a process has left after giving up the rest. */
#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "sandbox/internal.h"
#include "tests/unit/child.h"
#include "virtiofsd/log.h"

static void test_good_lists(void)
{
    static const char *const lists[] = {
        "+sys_admin", "-mknod", "+SYS_ADMIN", "+Sys_Admin:-MKNOD", "+chown:+chown:-chown",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(lists); i++) {
        g_autoptr(GError) error = NULL;
        g_assert_true(sandbox_check_modcaps(lists[i], &error));
        g_assert_no_error(error);
    }
    g_assert_true(sandbox_check_modcaps(NULL, NULL));
}

static void test_bad_lists(void)
{
    static const struct {
        const char *list;
        const char *named; /* in the error */
    } lists[] = {
        {"", "empty"},
        {"mknod", "\"mknod\" is neither"},
        {"+mknod:chown", "\"chown\" is neither"},
        {"+mknod:", "\"\" is neither"},
        {":+mknod", "\"\" is neither"},
        {"+mknod,-chown", "\"+mknod,-chown\" names no"},
        {"+", "\"+\" names no"},
        {"-nonsense", "\"-nonsense\" names no"},
        {"+cap_mknod", "\"+cap_mknod\" names no"},
        {"+ mknod", "\"+ mknod\" names no"},
        {"+mknod ", "\"+mknod \" names no"},
        {"++mknod", "\"++mknod\" names no"},
        {"+64", "\"+64\" names no"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(lists); i++) {
        g_autoptr(GError) error = NULL;
        g_assert_false(sandbox_check_modcaps(lists[i].list, &error));
        g_assert_nonnull(error);
        g_assert_nonnull(strstr(error->message, lists[i].named));
    }
}

/* ---- what is left
 * ---------------------------------------------------------------------- */

static bool is_root(void)
{
    if (geteuid() != 0) {
        g_test_skip("needs root");
        return false;
    }
    return true;
}

static bool drop_caps(const char *modcaps, GError **error)
{
    const SandboxConfig config = {.modcaps = modcaps};

    return sandbox_drop_caps(&config, error);
}

typedef struct Case {
    const char *modcaps;
    const char *left; /* as /proc/PID/status has it */
    bool file_handles;
} Case;

static void drop(const void *data)
{
    const Case *c = data;
    const SandboxConfig config = {.modcaps = c->modcaps, .file_handles = c->file_handles};
    g_autoptr(GError) error = NULL;

    /* Something in every set, so that it can be seen to go. */
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];
    g_assert_cmpint(syscall(SYS_capget, &header, sets), ==, 0);
    sets[0].inheritable |= 1u << CAP_CHOWN;
    g_assert_cmpint(syscall(SYS_capset, &header, sets), ==, 0);
    g_assert_cmpint(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0), ==, 0);
    g_autofree char *bounding = child_status_field(getpid(), "CapBnd");
    g_assert_cmpstr(bounding, !=, "0000000000000000");

    g_assert_true(sandbox_drop_caps(&config, &error));
    g_assert_no_error(error);

    child_assert_status(getpid(), "CapPrm", c->left);
    child_assert_status(getpid(), "CapEff", c->left);
    child_assert_status(getpid(), "CapInh", "0000000000000000");
    child_assert_status(getpid(), "CapBnd", "0000000000000000");
    child_assert_status(getpid(), "CapAmb", "0000000000000000");
    g_assert_cmpint(prctl(PR_GET_SECUREBITS), ==, 0);
}

static void test_drop(void)
{
    static const Case cases[] = {
        {NULL, "00000000880000db", false},
        {"+sys_admin", "00000000882000db", false},
        {"-mknod:-setfcap", "00000000000000db", false},
        {"+Dac_Read_Search:-CHOWN", "00000000880000de", false},
        {"+sys_admin:-sys_admin", "00000000880000db", false},
        {"-mknod:+mknod", "00000000880000db", false},
        {"+syslog", "00000004880000db", false},
        {NULL, "00000000880000df", true},
        {"-dac_read_search", "00000000880000db", true},
    };

    if (!is_root()) {
        return;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        child_passes(drop, &cases[i]);
    }
}

/* The ids of another user and back: the thread must have its capabilities again. */
static void borrow_identity(const void *data)
{
    g_assert_true(drop_caps(NULL, NULL));
    g_assert_cmpint(syscall(SYS_setresuid, -1, 1000, -1), ==, 0);
    child_assert_status(getpid(), "CapEff", "0000000000000000");
    g_assert_cmpint(syscall(SYS_setresuid, -1, 0, -1), ==, 0);
    child_assert_status(getpid(), "CapEff", "00000000880000db");
}

static void test_borrow_identity(void)
{
    if (is_root()) {
        child_passes(borrow_identity, NULL);
    }
}

static void lose(unsigned int cap)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];

    g_assert_cmpint(syscall(SYS_capget, &header, sets), ==, 0);
    sets[cap / 32].effective &= ~(1u << (cap % 32));
    sets[cap / 32].permitted &= ~(1u << (cap % 32));
    g_assert_cmpint(syscall(SYS_capset, &header, sets), ==, 0);
}

static void start_with_less(const void *data)
{
    g_autoptr(GError) error = NULL;

    const SandboxConfig by_handle = {.file_handles = true};

    lose(CAP_MKNOD);
    lose(CAP_SYS_ADMIN);
    lose(CAP_DAC_READ_SEARCH);
    g_assert_false(drop_caps("+sys_admin", &error));
    g_assert_nonnull(strstr(error->message, "sys_admin"));
    g_assert_nonnull(strstr(error->message, "--modcaps"));
    g_assert_true(sandbox_drop_caps(&by_handle, NULL));
    child_assert_status(getpid(), "CapEff", "00000000800000db");
    /* Everything that can be dropped is: again is no error, although CAP_SETPCAP went. */
    g_assert_true(drop_caps(NULL, NULL));
}

static void test_start_with_less(void)
{
    if (is_root()) {
        child_passes(start_with_less, NULL);
    }
}

static void without_setpcap(const void *data)
{
    g_autoptr(GError) error = NULL;

    lose(CAP_SETPCAP);
    g_assert_false(drop_caps(NULL, &error));
    g_assert_nonnull(strstr(error->message, "CAP_SETPCAP"));
}

static void test_without_setpcap(void)
{
    if (is_root()) {
        child_passes(without_setpcap, NULL);
    }
}

static void drop_groups(const void *data)
{
    static const gid_t groups[] = {7, 1000, 70000};

    g_assert_cmpint(setgroups(G_N_ELEMENTS(groups), groups), ==, 0);
    g_assert_cmpint(getgroups(0, NULL), ==, 3);
    g_assert_true(sandbox_drop_groups(NULL));
    g_assert_cmpint(getgroups(0, NULL), ==, 0);
}

G_GNUC_UNUSED static void cannot_drop_groups(const void *data)
{
    static const gid_t groups[] = {7};
    g_autoptr(GError) error = NULL;

    g_assert_cmpint(setgroups(G_N_ELEMENTS(groups), groups), ==, 0);
    lose(CAP_SETGID);
    g_assert_false(sandbox_drop_groups(&error));
    g_assert_nonnull(strstr(error->message, "supplementary groups"));
}

static void test_drop_groups(void)
{
    if (is_root()) {
        child_passes(drop_groups, NULL);
#if !SANDBOX_TOOL_THREADS
        /* The C library aborts if only some threads may change their groups. */
        child_passes(cannot_drop_groups, NULL);
#endif
    }
}

static void no_new_privs(const void *data)
{
    g_assert_true(sandbox_no_new_privs(NULL));
    child_assert_status(getpid(), "NoNewPrivs", "1");
}

static void test_no_new_privs(void)
{
    child_passes(no_new_privs, NULL);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_open(LOG_LEVEL_OFF, false);
    g_test_add_func("/caps/modcaps/good", test_good_lists);
    g_test_add_func("/caps/modcaps/bad", test_bad_lists);
    g_test_add_func("/caps/drop", test_drop);
    g_test_add_func("/caps/borrow-identity", test_borrow_identity);
    g_test_add_func("/caps/start-with-less", test_start_with_less);
    g_test_add_func("/caps/without-setpcap", test_without_setpcap);
    g_test_add_func("/caps/groups", test_drop_groups);
    g_test_add_func("/caps/no-new-privs", test_no_new_privs);
    return g_test_run();
}
