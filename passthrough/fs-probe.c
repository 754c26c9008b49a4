/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "passthrough/fd.h"
#include "passthrough/inode.h"
#include "passthrough/internal.h"
#include "virtiofsd/autofd.h"

/*
 * What this kernel can do, found out once: a call that is missing stops the start, and no
 * request ever learns of it.
 */

/* Since Linux 6.8; such an id is never used again while the machine is up. */
#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x00004000U
#endif

#define KERNEL_NEEDED "Linux 5.10 or newer is needed"

/* Calls with arguments that a kernel which has them refuses without doing anything. */
static const struct Needed {
    const char *name;
    long number;
    long arguments[5];
} needed[] = {
    {"openat2", SYS_openat2, {-1, 0, 0, 0}},
    {"renameat2", SYS_renameat2, {-1, 0, -1, 0, -1}},
    {"preadv2", SYS_preadv2, {-1, 0, 0, 0, 0}},
    {"pwritev2", SYS_pwritev2, {-1, 0, 0, 0, 0}},
    {"name_to_handle_at", SYS_name_to_handle_at, {-1, 0, 0, 0, -1}},
    {"syncfs", SYS_syncfs, {-1}},
    {"capget", SYS_capget, {0, 0}},
};

/* errno by name: strerror(3) may load a translation, and the root is the share already.
 */
static void set_error(GError **error, int code, const char *what)
{
    g_set_error(error, G_FILE_ERROR, (gint)g_file_error_from_errno(code), "%s: %s", what,
                strerrorname_np(code));
}

static bool check_calls(GError **error)
{
    for (size_t i = 0; i < G_N_ELEMENTS(needed); i++) {
        const struct Needed *call = &needed[i];
        const long *a = call->arguments;
        if (syscall(call->number, a[0], a[1], a[2], a[3], a[4]) < 0 && errno == ENOSYS) {
            g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_NOSYS,
                        "the kernel has no %s(2); " KERNEL_NEEDED, call->name);
            return false;
        }
    }
    return true;
}

/* Return: the statx mask to use, or 0. */
static uint32_t check_statx(int root_fd, struct statx *ret_root, GError **error)
{
    const uint32_t basic = STATX_BASIC_STATS | STATX_BTIME;
    const uint32_t ids[] = {STATX_MNT_ID_UNIQUE, STATX_MNT_ID};
    for (size_t i = 0; i < G_N_ELEMENTS(ids); i++) {
        if (statx(root_fd, "", AT_EMPTY_PATH, basic | ids[i], ret_root) < 0) {
            set_error(error, errno, "cannot look at the share");
            return 0;
        }
        if (ret_root->stx_mask & ids[i]) {
            return basic | ids[i];
        }
    }
    g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_NOSYS,
                "the kernel's statx(2) tells no mount ids; " KERNEL_NEEDED);
    return 0;
}

/* The root has to be reachable by its number in the procfd. */
static bool check_procfd(const struct statx *root, int root_fd, int procfd,
                         GError **error)
{
    struct statx again;
    PtFdName name = pt_fd_name(root_fd);
    struct open_how how = {.flags = O_PATH | O_CLOEXEC};
    g_auto(AutoFd) fd = (int)syscall(SYS_openat2, procfd, name.text, &how, sizeof(how));
    if (fd < 0 || statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &again) < 0) {
        set_error(error, errno, "cannot reopen the share through /proc/self/fd");
        return false;
    }
    if (again.stx_ino != root->stx_ino || again.stx_dev_major != root->stx_dev_major ||
        again.stx_dev_minor != root->stx_dev_minor) {
        set_error(error, EBADF, "/proc/self/fd does not lead to this process' files");
        return false;
    }
    return true;
}

uint32_t pt_probe(int root_fd, int procfd, GError **error)
{
    struct statx root;
    if (!check_calls(error)) {
        return 0;
    }
    uint32_t mask = check_statx(root_fd, &root, error);
    if (mask == 0) {
        return 0;
    }
    /* The share may be a single file. Its node is then no directory, which the kernel
     * says to whoever treats it as one. */
    if (!S_ISDIR(root.stx_mode) && !S_ISREG(root.stx_mode)) {
        set_error(error, ENOTDIR, "the share");
        return 0;
    }
    return check_procfd(&root, root_fd, procfd, error) ? mask : 0;
}
