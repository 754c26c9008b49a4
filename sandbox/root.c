/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the process sees as the file system: the share, and nothing else. Nothing is made
 * on the host for it, neither a directory nor a mount.
 *
 * A plain directory descriptor opened on the old root would lead back to the host's files
 * through "..", whatever the root is now. So what is kept is cloned first: a clone that
 * is attached nowhere ends at its own root.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox/internal.h"
#include "virtiofsd/autofd.h"
#include "virtiofsd/log.h"

#define OWN_DESCRIPTORS "/proc/self/fd"
#define PATH_DIR_FLAGS (O_PATH | O_DIRECTORY | O_CLOEXEC)
#define CLONE_FLAGS (OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)

static bool fail_share(GError **error, const char *shared_dir)
{
    int code = errno;
    g_autofree char *what = g_strdup_printf("cannot open the share %s", shared_dir);

    return sandbox_fail(error, code, what, NULL);
}

static bool open_plain(const char *path, AutoFd *ret_fd)
{
    *ret_fd = open(path, PATH_DIR_FLAGS);
    return *ret_fd >= 0;
}

/* A directory, or the one file to be served. */
static bool open_share(const char *path, AutoFd *ret_fd, bool *ret_is_file,
                       GError **error)
{
    struct stat st;

    *ret_is_file = false;
    /* To ask for a directory is what has it mounted where that happens by itself. */
    if (open_plain(path, ret_fd)) {
        return true;
    }
    if (errno != ENOTDIR) {
        return fail_share(error, path);
    }
    *ret_fd = open(path, O_PATH | O_CLOEXEC);
    if (*ret_fd < 0 || fstat(*ret_fd, &st) < 0) {
        return fail_share(error, path);
    }
    *ret_is_file = S_ISREG(st.st_mode);
    errno = ENOTDIR;
    return *ret_is_file || fail_share(error, path);
}

/* The share with all that is mounted in it, as slaves of the same mounts as the original.
 */
static bool clone_share(int share_fd, AutoFd *ret_tree, GError **error)
{
    *ret_tree = open_tree(share_fd, "", CLONE_FLAGS | AT_EMPTY_PATH | AT_RECURSIVE);
    if (*ret_tree < 0) {
        return sandbox_fail(error, errno, "cannot clone the share's mounts",
                            "run as root with CAP_SYS_ADMIN, or use --sandbox=none");
    }
    return true;
}

/* The guest decides what lies in the share: nothing there is a device, runs, or gives
 * privileges, here. If the guest may not change it, nobody here may: not even a time of
 * access. What the host mounts later brings its own flags. */
static bool harden_share(int tree_fd, bool readonly, GError **error)
{
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID |
                                                MOUNT_ATTR_NOEXEC |
                                                (readonly ? MOUNT_ATTR_RDONLY : 0)};

    if (mount_setattr(tree_fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes,
                      sizeof(attributes)) == 0) {
        return true;
    }
    if (errno != ENOSYS) {
        return sandbox_fail(error, errno, "cannot set the flags of the share's mounts",
                            NULL);
    }
    log_debug("the share's mounts keep their flags: others take Linux 5.12");
    return true;
}

/* Make @tree_fd the root and let go of the old one, with everything below it. */
static bool pivot(int tree_fd, GError **error)
{
    g_auto(AutoFd) old_root = -1;

    if (!open_plain("/", &old_root)) {
        return sandbox_fail(error, errno, "cannot open the root directory", NULL);
    }
    if (fchdir(tree_fd) < 0 || syscall(SYS_pivot_root, ".", ".") < 0) {
        return sandbox_fail(error, errno, "cannot make the share the root directory",
                            "on a host that runs from its initramfs,"
                            " use --sandbox=chroot");
    }
    /* From here on every path leads into the share. The old root is mounted over the new
     * one; slaves all, so that unmounting reaches nobody else. */
    if (fchdir(old_root) < 0 || mount(NULL, ".", NULL, MS_SLAVE | MS_REC, NULL) < 0 ||
        umount2(".", MNT_DETACH) < 0 || fchdir(tree_fd) < 0) {
        return sandbox_fail(error, errno, "cannot let go of the host's root directory",
                            NULL);
    }
    return true;
}

/* Where the tree was cloned from. */
static bool mount_over(int share_fd, int tree_fd, GError **error)
{
    if (move_mount(tree_fd, "", share_fd, "",
                   MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0) {
        return sandbox_fail(error, errno, "cannot mount the share's clone", NULL);
    }
    return true;
}

void sandbox_tree_clear(SandboxTree *tree)
{
    autofd_clear(&tree->procfd);
    autofd_clear(&tree->share);
    autofd_clear(&tree->tree);
}

bool sandbox_root_clone(const SandboxConfig *config, SandboxTree *ret_tree,
                        GError **error)
{
    ret_tree->procfd = open_tree(AT_FDCWD, OWN_DESCRIPTORS, CLONE_FLAGS);
    if (ret_tree->procfd < 0) {
        return sandbox_fail(error, errno, "cannot clone " OWN_DESCRIPTORS,
                            "/proc must be mounted");
    }
    return open_share(config->shared_dir, &ret_tree->share, &ret_tree->is_file, error) &&
           clone_share(ret_tree->share, &ret_tree->tree, error) &&
           harden_share(ret_tree->tree, config->readonly, error);
}

bool sandbox_root_pivot(SandboxTree *tree, SandboxView *ret_view, GError **error)
{
    g_auto(AutoFd) room = -1; /* the root, if the share is but a file */

    if (tree->is_file ? !sandbox_room_for_file(tree->tree, &room, error)
                      : !mount_over(tree->share, tree->tree, error)) {
        return false;
    }
    autofd_clear(&tree->share);
    if (!pivot(tree->is_file ? room : tree->tree, error)) {
        return false;
    }
    ret_view->root_fd = autofd_steal(&tree->tree);
    ret_view->procfd = autofd_steal(&tree->procfd);
    return true;
}

/* Where mounts may not be made, the plain directory must do. */
static bool open_procfd_chroot(AutoFd *ret_fd, GError **error)
{
    *ret_fd = open_tree(AT_FDCWD, OWN_DESCRIPTORS, CLONE_FLAGS);
    if (*ret_fd < 0 && (errno == EPERM || errno == ENOSYS)) {
        log_warn(
            "without CAP_SYS_ADMIN --sandbox=chroot keeps a way to the host's /proc");
        (void)open_plain(OWN_DESCRIPTORS, ret_fd); /* the result is looked at below */
    }
    if (*ret_fd < 0) {
        return sandbox_fail(error, errno, "cannot open " OWN_DESCRIPTORS,
                            "/proc must be mounted");
    }
    return true;
}

bool sandbox_root_chroot(const char *shared_dir, SandboxView *ret_view, GError **error)
{
    g_auto(AutoFd) procfd = -1;
    g_auto(AutoFd) share = -1;
    g_auto(AutoFd) room = -1;
    bool is_file = false;

    if (!open_procfd_chroot(&procfd, error) ||
        !open_share(shared_dir, &share, &is_file, error) ||
        (is_file && !sandbox_room_empty(&room, error))) {
        return false;
    }
    if (fchdir(is_file ? room : share) < 0 || chroot(".") < 0) {
        return sandbox_fail(error, errno, "cannot make the share the root directory",
                            "run as root with CAP_SYS_CHROOT, or use --sandbox=none");
    }
    ret_view->root_fd = autofd_steal(&share);
    ret_view->procfd = autofd_steal(&procfd);
    return true;
}

bool sandbox_root_none(const char *shared_dir, SandboxView *ret_view, GError **error)
{
    g_auto(AutoFd) procfd = -1;
    g_auto(AutoFd) share = -1;
    bool is_file = false;

    if (!open_plain(OWN_DESCRIPTORS, &procfd)) {
        return sandbox_fail(error, errno, "cannot open " OWN_DESCRIPTORS,
                            "/proc must be mounted");
    }
    if (!open_share(shared_dir, &share, &is_file, error)) {
        return false;
    }
    ret_view->root_fd = autofd_steal(&share);
    ret_view->procfd = autofd_steal(&procfd);
    return true;
}
