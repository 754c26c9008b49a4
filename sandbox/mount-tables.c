/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two tables of mounts, proc_pid_mountinfo(5), for whoever wants to know which mounts the
 * host has made read-only: a remount does not propagate into a namespace of ours.
 *
 * Such a file shows what its opener's root directory reaches, of its opener's namespace,
 * for as long as it is open. So the host's is opened with the share as the root, for the
 * moment, and shows nothing but mounts in the share. It is no directory: nothing else can
 * be reached from it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sandbox/internal.h"
#include "sandbox/mount-tables.h"
#include "virtiofsd/autofd.h"
#include "virtiofsd/log.h"

#define TABLE "mountinfo"

static int open_path(const char *path, int flags)
{
    return open(path, O_PATH | O_CLOEXEC | flags);
}

static bool go_back(int root_fd, int cwd_fd, GError **error)
{
    if (fchdir(root_fd) < 0 || chroot(".") < 0) {
        return sandbox_fail(error, errno, "cannot return to the root directory", NULL);
    }
    if (cwd_fd >= 0 && fchdir(cwd_fd) < 0) {
        return sandbox_fail(error, errno, "cannot return to the working directory", NULL);
    }
    return true;
}

bool sandbox_mounts_of_host(const char *shared_dir, AutoFd *ret_table, GError **error)
{
    g_auto(AutoFd) root = open_path("/", O_DIRECTORY);
    g_auto(AutoFd) cwd = open_path(".", O_DIRECTORY); /* it may have gone */
    g_auto(AutoFd) share = open_path(shared_dir, O_DIRECTORY);
    g_auto(AutoFd) self = open_path("/proc/self", O_DIRECTORY);

    if (share < 0 && errno == ENOTDIR) {
        return true; /* nothing is mounted in a file */
    }
    if (root >= 0 && share >= 0 && self >= 0 && fchdir(share) == 0) {
        if (chroot(".") == 0) {
            *ret_table = openat(self, TABLE, O_RDONLY | O_CLOEXEC);
        }
        int code = errno;
        if (!go_back(root, cwd, error)) {
            return false;
        }
        errno = code;
    }
    if (*ret_table < 0) {
        log_warn("what the host remounts read-only stays writable for the guest: "
                 "cannot look at the host's mounts: %s",
                 strerrordesc_np(errno));
    }
    return true;
}

int sandbox_mounts_keep(void)
{
    return open_path("/proc/self/" TABLE, 0);
}

int sandbox_mounts_of_ours(int procfd, int kept)
{
    char name[16];

    (void)snprintf(name, sizeof(name), "%d", kept);
    return kept < 0 ? -1 : openat(procfd, name, O_RDONLY | O_CLOEXEC);
}
