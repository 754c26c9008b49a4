/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounting and unmounting without libfuse's helpers: mount(2) with an open /dev/fuse, as
 * the kernel's Documentation/filesystems/fuse describes.
 */
#include "tests/bridge/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <linux/fuse.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int mount_open_device(void)
{
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* The kernel mounts a file only on a file, and wants to know beforehand. */
static int root_mode(const char *directory)
{
    struct stat st;
    return stat(directory, &st) == 0 && S_ISREG(st.st_mode) ? S_IFREG : S_IFDIR;
}

int mount_attach(int fd, const MountConfig *config)
{
    /* As virtio_fs.c sets up its superblock: checks by mode bits, for everybody. */
    g_autofree char *data = g_strdup_printf(
        "fd=%d,rootmode=%o,user_id=0,group_id=0,default_permissions,allow_other%s%s", fd,
        root_mode(config->directory), config->options != NULL ? "," : "",
        config->options != NULL ? config->options : "");
    unsigned long flags = config->read_only ? MS_RDONLY : 0;
    int rc = mount(config->source, config->directory, "fuse.bridge", flags, data);
    return rc < 0 ? -errno : 0;
}

int mount_clone_device(int fd)
{
    int clone = mount_open_device();
    uint32_t source = (uint32_t)fd;
    if (clone >= 0 && ioctl(clone, FUSE_DEV_IOC_CLONE, &source) < 0) {
        int rc = -errno;
        (void)close(clone); /* never used */
        return rc;
    }
    return clone;
}

pid_t mount_start_unmount(const char *directory, bool lazy)
{
    pid_t child = fork();
    if (child < 0) {
        return -errno;
    }
    if (child > 0) {
        return child;
    }
    /* Other threads are gone and may hold any lock: system calls only. */
    if (syscall(SYS_close_range, 0u, ~0u, 0u) < 0) {
        _exit(errno);
    }
    int rc = umount2(directory, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0));
    _exit(rc < 0 ? errno : 0);
}
