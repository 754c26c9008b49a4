/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The root directory for a share that is a single file. A file cannot be a root, so an
 * empty file system in memory is: nothing is made on the host for it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/mount.h>
#include <unistd.h>

#include "sandbox/internal.h"

/* Under which name the file lies in the root. Nobody looks for it: it is a place to mount
 * on, and what /proc/PID/mountinfo shows. */
#define PLACE "share"
#define ATTRIBUTES (MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)

/* A new tmpfs, mounted nowhere. Return: whether there is one; errno tells why not. */
static bool make_tmpfs(unsigned int attributes, AutoFd *ret_mount)
{
    g_auto(AutoFd) context = fsopen("tmpfs", FSOPEN_CLOEXEC);

    if (context < 0 || fsconfig(context, FSCONFIG_SET_STRING, "mode", "0555", 0) < 0 ||
        /* Itself and the place, and no data: also before it is read-only. */
        fsconfig(context, FSCONFIG_SET_STRING, "nr_inodes", "2", 0) < 0 ||
        fsconfig(context, FSCONFIG_SET_STRING, "nr_blocks", "1", 0) < 0 ||
        fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0) {
        return false;
    }
    *ret_mount = fsmount(context, FSMOUNT_CLOEXEC, ATTRIBUTES | attributes);
    return *ret_mount >= 0;
}

/* For a moment it lies over the host's root directory, which whoever is there already
 * does not notice. */
static bool bind_file(int room_fd, int file_fd)
{
    const unsigned long read_only =
        MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV | MS_NOSUID | MS_NOEXEC;

    if (move_mount(room_fd, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0) {
        return false;
    }
    g_auto(AutoFd) place =
        openat(room_fd, PLACE, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0);
    return place >= 0 &&
           move_mount(file_fd, "", room_fd, PLACE, MOVE_MOUNT_F_EMPTY_PATH) == 0 &&
           fchdir(room_fd) == 0 && mount(NULL, ".", NULL, read_only, NULL) == 0;
}

bool sandbox_room_for_file(int file_fd, AutoFd *ret_room, GError **error)
{
    g_auto(AutoFd) room = -1;

    if (!make_tmpfs(0, &room) || !bind_file(room, file_fd)) {
        return sandbox_fail(error, errno, "cannot make a root directory for the file",
                            "share the directory that it is in");
    }
    *ret_room = autofd_steal(&room);
    return true;
}

bool sandbox_room_empty(AutoFd *ret_room, GError **error)
{
    if (!make_tmpfs(MOUNT_ATTR_RDONLY, ret_room)) {
        return sandbox_fail(error, errno, "cannot make an empty root directory",
                            "a single file with --sandbox=chroot takes CAP_SYS_ADMIN;"
                            " or share the directory that it is in");
    }
    return true;
}
