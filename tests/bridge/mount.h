/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_BRIDGE_MOUNT_H
#define TESTS_BRIDGE_MOUNT_H

#include <stdbool.h>
#include <sys/types.h>

/* /dev/fuse, the mount made of it, and how to get rid of both. */

/** struct MountConfig - what is mounted where. */
typedef struct MountConfig {
    const char *source;    /* first column of /proc/mounts */
    const char *directory; /* absolute, no symbolic links; a file if one is shared */
    const char *options;   /* more of mount(2)'s data, or NULL */
    bool read_only;
} MountConfig;

/** mount_open_device() - Return: a descriptor, or negative errno. */
int mount_open_device(void);

/** mount_attach() - mount the device. Return: 0 or negative errno. */
int mount_attach(int fd, const MountConfig *config);

/** mount_clone_device() - another descriptor of a mounted device. Return: or -errno. */
int mount_clone_device(int fd);

/**
 * mount_start_unmount() - unmount in a child process.
 * @lazy: detach at once instead of failing with EBUSY.
 *
 * umount2(2) waits for requests, uninterruptibly. A thread of this process would keep
 * /dev/fuse open meanwhile, even when the process is killed, so that it could wait for
 * ever; the child holds no descriptor of it.
 * Return: the child's id, or negative errno. It exits with 0 or the errno.
 */
pid_t mount_start_unmount(const char *directory, bool lazy);

#endif
