/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The listening socket: bound here with a lock beside it, or adopted from the parent.
 *
 * With a path, PATH.pid is locked before anything else at PATH is touched, and stays
 * locked for the life of the process: two daemons never fight for one path, and only the
 * holder of the lock replaces a socket that nobody listens on.
 *
 * Both files are to be removed at exit, when the folder cannot be reached by name any
 * more. A plain descriptor of the folder would be a way out of the sandbox; the
 * descriptor kept is a clone of the mount (open_tree(2)), whose ".." ends at the folder
 * itself. An ordinary user may clone mounts only once he has namespaces of his own
 * (socket_keep_folder()), and not those that have others mounted in them. Without the
 * descriptor the process goes by the absolute path. Either way a file is removed only if
 * it is, by device and inode number, the one made here: after a chroot the path may lead
 * to a file of the share.
 */
#include "virtiofsd/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/mount.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include "virtiofsd/autofd.h"

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef OPEN_TREE_CLOEXEC
#define OPEN_TREE_CLOEXEC O_CLOEXEC
#endif

/* How often a pid file may vanish between open and lock: each time, somebody left. */
#define PID_FILE_TRIES 100

/* A file made here, to be removed at exit; @name is NULL for none. */
typedef struct OwnFile {
    char *name; /* within the folder, or an absolute path without one */
    dev_t device;
    ino_t inode;
} OwnFile;

struct Socket {
    AutoFd fd;
    AutoFd folder; /* cloned mount, or -1: names are absolute paths */
    AutoFd pid_fd; /* holds the lock */
    OwnFile socket_file;
    OwnFile pid_file;
};

static void G_GNUC_PRINTF(2, 3) fail(GError **error, const char *format, ...)
{
    int saved = errno;
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *what = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_set_error(error, G_FILE_ERROR, (gint)g_file_error_from_errno(saved), "%s: %s", what,
                g_strerror(saved));
}

static void G_GNUC_PRINTF(2, 3) refuse(GError **error, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *what = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_set_error_literal(error, G_FILE_ERROR, G_FILE_ERROR_INVAL, what);
}

/* ---- files of our own ------------------------------------------------------------- */

static int folder_of(const Socket *self)
{
    return self->folder >= 0 ? self->folder : AT_FDCWD;
}

static bool is_same(const OwnFile *file, const struct statx *status)
{
    return file->device == makedev(status->stx_dev_major, status->stx_dev_minor) &&
           file->inode == status->stx_ino;
}

static void own(OwnFile *file, char *name_take, const struct stat *status)
{
    file->name = name_take;
    file->device = status->st_dev;
    file->inode = status->st_ino;
}

/* Removes what was made here, and nothing that has taken its name since. */
static void disown(const Socket *self, OwnFile *file)
{
    struct statx status;

    if (file->name != NULL &&
        statx(folder_of(self), file->name, AT_SYMLINK_NOFOLLOW, STATX_INO, &status) ==
            0 &&
        is_same(file, &status)) {
        /* There is nobody left to tell. */
        (void)unlinkat(folder_of(self), file->name, 0);
    }
    g_free(file->name);
    file->name = NULL;
}

/*
 * The folder as a mount of its own that leads nowhere else, or -1 for a process that may
 * not make one. Private: what the host mounts below the folder is none of ours.
 */
static int clone_folder(const char *path)
{
    int fd =
        (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

#ifdef SYS_mount_setattr
    struct mount_attr attributes = {.propagation = MS_PRIVATE};
    /* Before Linux 5.12 it stays in its peer group, which costs a mount, not safety. */
    (void)syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &attributes,
                  sizeof(attributes));
#endif
    return fd;
}

/* Opens the folder of @path and says under which name a file beside it is reached. */
static bool open_folder(Socket *self, const char *path, char **ret_name, GError **error)
{
    g_autofree char *folder = g_path_get_dirname(path);
    struct stat status;

    bool found = stat(folder, &status) == 0;
    if (found && !S_ISDIR(status.st_mode)) {
        errno = ENOTDIR;
        found = false;
    }
    if (!found) {
        fail(error,
             "--socket-path=%s: no folder %s to make the socket in, create it first",
             path, folder);
        return false;
    }
    self->folder = clone_folder(folder);
    *ret_name = self->folder >= 0 ? g_path_get_basename(path)
                                  : g_canonicalize_filename(path, NULL);
    return true;
}

/* ---- the pid file ----------------------------------------------------------------- */

typedef enum Locked { LOCKED, LOCK_AGAIN, LOCK_FAILED } Locked;

/* @shown is the file's path, for messages. */
static Locked lock_pid_file(Socket *self, const char *name, const char *shown,
                            GError **error)
{
    const int flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    g_auto(AutoFd) fd = openat(folder_of(self), name, flags, 0600);
    struct stat status, now;

    if (fd < 0 || fstat(fd, &status) < 0) {
        fail(error, "cannot open the pid file %s%s", shown,
             errno == ELOOP ? " (a symbolic link: remove it)" : "");
        return LOCK_FAILED;
    }
    if (!S_ISREG(status.st_mode) || status.st_nlink > 1 || status.st_uid != geteuid()) {
        refuse(error, "the pid file %s is not a plain file of our own: remove it", shown);
        return LOCK_FAILED;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        fail(error, "another daemon serves this socket and holds the pid file %s", shown);
        return LOCK_FAILED;
    }
    /* Whoever held the lock before may have removed the file that we opened. */
    if (fstatat(folder_of(self), name, &now, AT_SYMLINK_NOFOLLOW) < 0 ||
        now.st_ino != status.st_ino || now.st_dev != status.st_dev) {
        return LOCK_AGAIN;
    }
    self->pid_fd = autofd_steal(&fd);
    own(&self->pid_file, g_strdup(name), &status);
    return LOCKED;
}

static bool write_pid_file(Socket *self, const char *path, const char *socket_name,
                           GError **error)
{
    g_autofree char *name = g_strconcat(socket_name, ".pid", NULL);
    g_autofree char *shown = g_strconcat(path, ".pid", NULL);
    Locked locked = LOCK_AGAIN;
    char text[32];

    for (int i = 0; i < PID_FILE_TRIES && locked == LOCK_AGAIN; i++) {
        locked = lock_pid_file(self, name, shown, error);
    }
    if (locked != LOCKED) {
        if (locked == LOCK_AGAIN) {
            refuse(error, "the pid file %s changes all the time: try again", shown);
        }
        return false;
    }
    int length = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    if (fchmod(self->pid_fd, 0600) < 0 || ftruncate(self->pid_fd, 0) < 0 ||
        write(self->pid_fd, text, (size_t)length) != length) {
        fail(error, "cannot write the pid file %s", shown);
        return false;
    }
    return true;
}

/* ---- the socket ------------------------------------------------------------------- */

static struct sockaddr_un address_of(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    (void)g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    return address;
}

/*
 * Removes a socket that a killed process left. Context: the pid file is locked.
 *
 * A connection of another type is refused in different ways, depending on whether anybody
 * has the socket open, and is never seen by a listener that we must not disturb.
 */
static bool remove_stale(Socket *self, const char *path, const char *name, GError **error)
{
    const struct sockaddr_un address = address_of(path);
    struct stat status;

    if (fstatat(folder_of(self), name, &status, AT_SYMLINK_NOFOLLOW) < 0) {
        return true; /* bind() will complain if it was not for ENOENT */
    }
    if (!S_ISSOCK(status.st_mode)) {
        refuse(error,
               "--socket-path=%s: something that is not a socket is there: remove it",
               path);
        return false;
    }
    g_auto(AutoFd) fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 ||
        errno != ECONNREFUSED) {
        refuse(error, "--socket-path=%s: another process uses this socket", path);
        return false;
    }
    if (unlinkat(folder_of(self), name, 0) < 0 && errno != ENOENT) {
        fail(error, "--socket-path=%s: cannot remove the stale socket", path);
        return false;
    }
    return true;
}

/* Gives the socket file its mode and group, through a descriptor of the file itself. */
static bool set_access(int file, mode_t mode, const gid_t *group)
{
    char name[64];

    if (group != NULL && fchownat(file, "", (uid_t)-1, *group, AT_EMPTY_PATH) < 0) {
        return false;
    }
    (void)snprintf(name, sizeof(name), "/proc/self/fd/%d", file);
    return chmod(name, mode) == 0;
}

static bool bind_socket(Socket *self, const char *path, char *name, const gid_t *group,
                        GError **error)
{
    const struct sockaddr_un address = address_of(path);
    mode_t mode = group != NULL ? 0770 : 0700;
    struct stat status;

    self->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t old = umask((mode_t)~mode & 0777);
    int bound = self->fd < 0
                    ? -1
                    : bind(self->fd, (const struct sockaddr *)&address, sizeof(address));
    (void)umask(old);
    if (bound < 0) {
        fail(error, "--socket-path=%s: cannot make the socket", path);
        return false;
    }
    g_auto(AutoFd) file = openat(folder_of(self), name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (file < 0 || fstat(file, &status) < 0 || !S_ISSOCK(status.st_mode)) {
        refuse(error, "--socket-path=%s: somebody else changes this folder", path);
        return false;
    }
    own(&self->socket_file, g_strdup(name), &status);
    if (!set_access(file, mode, group)) {
        fail(error, "--socket-path=%s: cannot give the socket its mode and group", path);
        return false;
    }
    if (listen(self->fd, SOMAXCONN) < 0) {
        fail(error, "--socket-path=%s: cannot listen", path);
        return false;
    }
    return true;
}

static bool check_path(const char *path, GError **error)
{
    const size_t longest = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;
    size_t length = strlen(path);

    if (length > longest) {
        refuse(
            error,
            "--socket-path: %zu bytes are too long, %zu fit: use a shorter path, or one"
            " relative to the working directory",
            length, longest);
        return false;
    }
    if (length == 0 || path[length - 1] == '/') {
        refuse(error, "--socket-path=%s: name the socket, not its folder", path);
        return false;
    }
    return true;
}

static bool find_group(const char *name, gid_t *ret_group, GError **error)
{
    /* The process has one thread. */
    const struct group *entry = getgrnam(name);

    if (entry == NULL) {
        refuse(error, "--socket-group=%s: no group has this name", name);
        return false;
    }
    *ret_group = entry->gr_gid;
    return true;
}

static bool make_socket(Socket *self, const SocketConfig *config, GError **error)
{
    g_autofree char *name = NULL;
    gid_t group = 0;

    if (config->group != NULL && !find_group(config->group, &group, error)) {
        return false;
    }
    return check_path(config->path, error) &&
           open_folder(self, config->path, &name, error) &&
           write_pid_file(self, config->path, name, error) &&
           remove_stale(self, config->path, name, error) &&
           bind_socket(self, config->path, name, config->group != NULL ? &group : NULL,
                       error);
}

/* ---- a socket of the parent's ----------------------------------------------------- */

static bool socket_option_is(int fd, int option, int wanted)
{
    int value = 0;
    socklen_t size = sizeof(value);

    return getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 && value == wanted;
}

static bool adopt_socket(Socket *self, int fd, GError **error)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0) {
        fail(error, "--fd=%d: the parent must pass a listening socket there", fd);
        return false;
    }
    if (!socket_option_is(fd, SO_DOMAIN, AF_UNIX) ||
        !socket_option_is(fd, SO_TYPE, SOCK_STREAM) ||
        !socket_option_is(fd, SO_ACCEPTCONN, 1)) {
        refuse(error, "--fd=%d: not a listening AF_UNIX stream socket", fd);
        return false;
    }
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ||
        fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        fail(error, "--fd=%d: cannot set the descriptor's flags", fd);
        return false;
    }
    self->fd = fd;
    return true;
}

Socket *socket_open(const SocketConfig *config, GError **error)
{
    g_autoptr(Socket) self = g_new0(Socket, 1);

    self->fd = self->folder = self->pid_fd = -1;
    bool made = config->path != NULL ? make_socket(self, config, error)
                                     : adopt_socket(self, config->fd, error);
    return made ? g_steal_pointer(&self) : NULL;
}

/* From an absolute path to the name in the folder. */
static void shorten(OwnFile *file)
{
    char *path = file->name;

    file->name = path != NULL ? g_path_get_basename(path) : NULL;
    g_free(path);
}

int socket_keep_folder(Socket *socket)
{
    if (socket->socket_file.name == NULL) {
        return -1;
    }
    if (socket->folder >= 0) {
        return fcntl(socket->folder, F_DUPFD_CLOEXEC, 0);
    }
    g_autofree char *folder = g_path_get_dirname(socket->socket_file.name);
    socket->folder = clone_folder(folder);
    if (socket->folder >= 0) {
        shorten(&socket->socket_file);
        shorten(&socket->pid_file);
    }
    return open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

int socket_fd(const Socket *socket)
{
    return socket->fd;
}

int socket_accept(const Socket *socket)
{
    int fd = accept4(socket->fd, NULL, NULL, SOCK_CLOEXEC);

    return fd >= 0 ? fd : -errno;
}

void socket_close(Socket *socket)
{
    if (socket == NULL) {
        return;
    }
    disown(socket, &socket->socket_file);
    /* While the lock is held: the next holder finds no file, or one of its own. */
    disown(socket, &socket->pid_file);
    autofd_clear(&socket->pid_fd);
    autofd_clear(&socket->folder);
    autofd_clear(&socket->fd);
    g_free(socket);
}
