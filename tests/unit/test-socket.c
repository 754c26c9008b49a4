/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The listening socket: made, locked, replaced, adopted, and removed without a trace,
 * each in a folder of its own, which is empty again in the end.
 */
#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <grp.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/unit/child.h"
#include "virtiofsd/socket.h"

/* A folder, the paths that matter in it, and the descriptors open before the test. */
typedef struct Place {
    char *folder;
    char *path;
    char *pid_path;
    guint descriptors;
} Place;

static guint count_entries(const char *folder)
{
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    guint count = 0;

    g_assert_nonnull(dir);
    while (g_dir_read_name(dir) != NULL) {
        count++;
    }
    return count;
}

static void set_up(Place *place, gconstpointer data)
{
    (void)data;
    place->folder = g_dir_make_tmp("socket-XXXXXX", NULL);
    g_assert_nonnull(place->folder);
    place->path = g_build_filename(place->folder, "s", NULL);
    place->pid_path = g_build_filename(place->folder, "s.pid", NULL);
    place->descriptors = count_entries("/proc/self/fd");
}

static void tear_down(Place *place, gconstpointer data)
{
    (void)data;
    g_assert_cmpuint(count_entries("/proc/self/fd"), ==, place->descriptors);
    g_assert_cmpint(rmdir(place->folder), ==, 0);
    g_free(place->folder);
    g_free(place->path);
    g_free(place->pid_path);
}

static Socket *open_path(const char *path, const char *group)
{
    const SocketConfig config = {.path = path, .group = group, .fd = -1};
    g_autoptr(GError) error = NULL;
    Socket *socket = socket_open(&config, &error);

    g_assert_no_error(error);
    g_assert_nonnull(socket);
    return socket;
}

static void assert_fails(const SocketConfig *config, const char *words)
{
    g_autoptr(GError) error = NULL;
    Socket *socket = socket_open(config, &error);

    g_assert_null(socket);
    g_assert_nonnull(error);
    if (strstr(error->message, words) == NULL) {
        g_error("\"%s\" does not say \"%s\"", error->message, words);
    }
    g_assert_null(strchr(error->message, '\n'));
}

static void assert_path_fails(const char *path, const char *words)
{
    const SocketConfig config = {.path = path, .fd = -1};

    assert_fails(&config, words);
}

static struct sockaddr_un address_of(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    g_assert_cmpuint(g_strlcpy(address.sun_path, path, sizeof(address.sun_path)), <,
                     sizeof(address.sun_path));
    return address;
}

/* A socket bound by somebody else. */
static int bind_at(const char *path, int type)
{
    const struct sockaddr_un address = address_of(path);
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    g_assert_cmpint(bind(fd, (const struct sockaddr *)&address, sizeof(address)), ==, 0);
    return fd;
}

static int connect_to(const char *path)
{
    const struct sockaddr_un address = address_of(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_assert_cmpint(connect(fd, (const struct sockaddr *)&address, sizeof(address)), ==,
                    0);
    return fd;
}

static void write_file(const char *path, const char *text)
{
    g_assert_true(g_file_set_contents(path, text, -1, NULL));
}

static void assert_file(const char *path, const char *text)
{
    g_autofree char *found = NULL;

    g_assert_true(g_file_get_contents(path, &found, NULL, NULL));
    g_assert_cmpstr(found, ==, text);
}

static void assert_pid_file(const char *path)
{
    g_autofree char *text = g_strdup_printf("%d\n", (int)getpid());
    struct stat status;

    assert_file(path, text);
    g_assert_cmpint(lstat(path, &status), ==, 0);
    g_assert_cmpuint(status.st_mode, ==, S_IFREG | 0600);
}

static void assert_socket(const char *path, mode_t mode)
{
    struct stat status;

    g_assert_cmpint(lstat(path, &status), ==, 0);
    g_assert_cmpuint(status.st_mode, ==, S_IFSOCK | mode);
}

static void assert_gone(const char *path)
{
    struct stat status;

    g_assert_cmpint(lstat(path, &status), ==, -1);
    g_assert_cmpint(errno, ==, ENOENT);
}

/* ---- one life --------------------------------------------------------------------- */

static void test_life(Place *place, gconstpointer data)
{
    (void)data;
    mode_t old = umask(0);
    g_autoptr(Socket) self = open_path(place->path, NULL);
    g_assert_cmpuint(umask(old), ==, 0);

    assert_socket(place->path, 0700);
    assert_pid_file(place->pid_path);
    g_assert_cmpint(fcntl(socket_fd(self), F_GETFD), ==, FD_CLOEXEC);
    g_assert_cmpint(fcntl(socket_fd(self), F_GETFL) & O_NONBLOCK, ==, O_NONBLOCK);
    g_assert_cmpint(socket_accept(self), ==, -EAGAIN);

    int client = connect_to(place->path);
    int server = socket_accept(self);
    g_assert_cmpint(server, >=, 0);
    g_assert_cmpint(fcntl(server, F_GETFD), ==, FD_CLOEXEC);
    g_assert_cmpint(write(client, "x", 1), ==, 1);
    char byte = 0;
    g_assert_cmpint(read(server, &byte, 1), ==, 1);
    g_assert_cmpint(byte, ==, 'x');
    close(client);
    close(server);

    socket_close(g_steal_pointer(&self));
    assert_gone(place->path);
    assert_gone(place->pid_path);
    socket_close(NULL);
}

/* As Kata starts it without privileges: no folder in the path. */
static void test_relative(Place *place, gconstpointer data)
{
    g_autofree char *before = g_get_current_dir();

    (void)data;
    g_assert_cmpint(chdir(place->folder), ==, 0);
    g_autoptr(Socket) self = open_path("s", NULL);
    assert_socket("s", 0700);
    assert_pid_file("s.pid");
    /* The working directory may change before the end. */
    g_assert_cmpint(chdir(before), ==, 0);
    socket_close(g_steal_pointer(&self));
    assert_gone(place->path);
}

static void test_umask(Place *place, gconstpointer data)
{
    (void)data;
    mode_t old = umask(0777);
    Socket *self = open_path(place->path, NULL);
    g_assert_cmpuint(umask(old), ==, 0777);
    assert_socket(place->path, 0700);
    assert_pid_file(place->pid_path);
    socket_close(self);
}

static void test_group(Place *place, gconstpointer data)
{
    const struct group *entry = getgrgid(geteuid() == 0 ? 1 : getegid());
    const SocketConfig unknown = {
        .path = place->path, .group = "no-such-group", .fd = -1};
    struct stat status;

    (void)data;
    assert_fails(&unknown, "--socket-group=no-such-group: no group has this name");
    if (entry == NULL) {
        g_test_skip("no group to try");
        return;
    }
    gid_t wanted = entry->gr_gid;
    Socket *self = open_path(place->path, entry->gr_name);
    assert_socket(place->path, 0770);
    g_assert_cmpint(stat(place->path, &status), ==, 0);
    g_assert_cmpuint(status.st_gid, ==, wanted);
    g_assert_cmpuint(status.st_uid, ==, geteuid());
    assert_pid_file(place->pid_path);
    socket_close(self);
}

/* ---- what is there already -------------------------------------------------------- */

static void test_second(Place *place, gconstpointer data)
{
    (void)data;
    g_autoptr(Socket) first = open_path(place->path, NULL);

    assert_path_fails(place->path, "another daemon serves this socket");
    assert_socket(place->path, 0700);
    assert_pid_file(place->pid_path);
    close(connect_to(place->path));
    socket_close(g_steal_pointer(&first));
    first = open_path(place->path, NULL);
}

/* What a killed process leaves: a longer pid, a socket, no lock. */
static void test_stale(Place *place, gconstpointer data)
{
    (void)data;
    close(bind_at(place->path, SOCK_STREAM));
    write_file(place->pid_path, "12345678901234567890\nand more\n");
    g_assert_cmpint(chmod(place->pid_path, 0666), ==, 0);
    Socket *self = open_path(place->path, NULL);
    assert_pid_file(place->pid_path);
    close(connect_to(place->path));
    socket_close(self);
}

/* A socket in use is not taken from its owner, and the owner hears nothing. */
static void test_live(Place *place, gconstpointer data)
{
    (void)data;
    for (int type = SOCK_STREAM; type <= SOCK_DGRAM; type++) {
        int owner = bind_at(place->path, type);

        assert_path_fails(place->path, "another process uses this socket");
        g_assert_cmpint(type == SOCK_STREAM ? listen(owner, 5) : 0, ==, 0);
        assert_path_fails(place->path, "another process uses this socket");
        if (type == SOCK_STREAM) {
            g_assert_cmpint(accept(owner, NULL, NULL), ==, -1);
            g_assert_cmpint(errno, ==, EAGAIN);
        }
        assert_gone(place->pid_path);
        close(owner);
        g_assert_cmpint(unlink(place->path), ==, 0);
    }
}

static void test_no_socket(Place *place, gconstpointer data)
{
    (void)data;
    write_file(place->path, "mine");
    assert_path_fails(place->path, "something that is not a socket is there: remove it");
    assert_file(place->path, "mine");
    assert_gone(place->pid_path);
    g_assert_cmpint(unlink(place->path), ==, 0);

    g_assert_cmpint(symlink("/nowhere", place->path), ==, 0);
    assert_path_fails(place->path, "something that is not a socket");
    g_assert_cmpint(unlink(place->path), ==, 0);

    g_assert_cmpint(mkdir(place->path, 0700), ==, 0);
    assert_path_fails(place->path, "something that is not a socket");
    g_assert_cmpint(rmdir(place->path), ==, 0);
    assert_gone(place->pid_path);
}

/* The pid file is never written through a name that leads elsewhere. */
static void test_pid_file_traps(Place *place, gconstpointer data)
{
    g_autofree char *victim = g_build_filename(place->folder, "victim", NULL);

    (void)data;
    write_file(victim, "precious");
    g_assert_cmpint(symlink(victim, place->pid_path), ==, 0);
    assert_path_fails(place->path, "a symbolic link: remove it");
    g_assert_cmpint(unlink(place->pid_path), ==, 0);

    g_assert_cmpint(symlink("/nowhere/at/all", place->pid_path), ==, 0);
    assert_path_fails(place->path, "a symbolic link: remove it");
    g_assert_cmpint(unlink(place->pid_path), ==, 0);

    g_assert_cmpint(link(victim, place->pid_path), ==, 0);
    assert_path_fails(place->path, "is not a plain file of our own: remove it");
    g_assert_cmpint(unlink(place->pid_path), ==, 0);
    assert_file(victim, "precious");
    g_assert_cmpint(unlink(victim), ==, 0);

    g_assert_cmpint(mkfifo(place->pid_path, 0600), ==, 0);
    assert_path_fails(place->path, "is not a plain file of our own: remove it");
    g_assert_cmpint(unlink(place->pid_path), ==, 0);

    g_assert_cmpint(mkdir(place->pid_path, 0700), ==, 0);
    assert_path_fails(place->path, "cannot open the pid file");
    g_assert_cmpint(rmdir(place->pid_path), ==, 0);
    assert_gone(place->path);

    if (geteuid() == 0) {
        write_file(place->pid_path, "1\n");
        g_assert_cmpint(chown(place->pid_path, 65534, 65534), ==, 0);
        assert_path_fails(place->path, "is not a plain file of our own: remove it");
        assert_file(place->pid_path, "1\n");
        g_assert_cmpint(unlink(place->pid_path), ==, 0);
    }
}

static void test_paths(Place *place, gconstpointer data)
{
    g_autofree char *before = g_get_current_dir();
    g_autofree char *missing = g_build_filename(place->folder, "no", "s", NULL);
    g_autofree char *file = g_build_filename(place->folder, "file", NULL);
    g_autofree char *below = g_build_filename(file, "s", NULL);
    g_autofree char *slash = g_strconcat(place->path, "/", NULL);
    g_autofree char *longest = g_strnfill(107, 'l');
    g_autofree char *too_long = g_strnfill(108, 'l');

    (void)data;
    assert_path_fails(missing, "create it first: No such file or directory");
    write_file(file, "");
    assert_path_fails(below, "create it first: Not a directory");
    g_assert_cmpint(unlink(file), ==, 0);
    assert_path_fails(slash, "name the socket, not its folder");
    assert_path_fails("", "name the socket, not its folder");
    assert_path_fails(place->folder, "something that is not a socket");
    g_assert_cmpint(chdir(place->folder), ==, 0);
    assert_path_fails(too_long, "108 bytes are too long, 107 fit");
    Socket *self = open_path(longest, NULL);
    close(connect_to(longest));
    g_assert_cmpint(chdir(before), ==, 0);
    socket_close(self);
}

/* ---- the end ---------------------------------------------------------------------- */

/* Whoever took our names since keeps what is his. */
static void test_taken_over(Place *place, gconstpointer data)
{
    (void)data;
    g_autoptr(Socket) self = open_path(place->path, NULL);

    g_assert_cmpint(unlink(place->path), ==, 0);
    write_file(place->path, "another's");
    g_assert_cmpint(unlink(place->pid_path), ==, 0);
    write_file(place->pid_path, "another's");
    socket_close(g_steal_pointer(&self));
    assert_file(place->path, "another's");
    assert_file(place->pid_path, "another's");
    g_assert_cmpint(unlink(place->path), ==, 0);
    g_assert_cmpint(unlink(place->pid_path), ==, 0);
}

/* A file of the share may have the socket's path. */
typedef struct Jail {
    const Place *place;
    char *root;
    char *victim;
    bool may_mount;
} Jail;

/* ".." of a folder kept is the folder itself. Returns how many are kept. */
static guint assert_no_way_out(void)
{
    g_autoptr(GDir) dir = g_dir_open("/proc/self/fd", 0, NULL);
    guint folders = 0;
    const char *name;

    while ((name = g_dir_read_name(dir)) != NULL) {
        int fd = (int)g_ascii_strtoll(name, NULL, 10);
        struct stat here, above;

        /* The listing of /proc/self/fd itself is a folder, too. */
        if (fstat(fd, &here) < 0 || !S_ISDIR(here.st_mode) ||
            (fcntl(fd, F_GETFL) & O_PATH) == 0) {
            continue;
        }
        folders++;
        g_assert_cmpint(fstatat(fd, "..", &above, 0), ==, 0);
        g_assert_cmpuint(above.st_ino, ==, here.st_ino);
        g_assert_cmpuint(above.st_dev, ==, here.st_dev);
    }
    return folders;
}

static void close_in_jail(const void *data)
{
    const Jail *jail = data;

    if (!jail->may_mount) {
        g_assert_cmpint(capng_get_caps_process(), ==, 0);
        g_assert_cmpint(
            capng_update(CAPNG_DROP, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_SYS_ADMIN),
            ==, 0);
        g_assert_cmpint(capng_apply(CAPNG_SELECT_CAPS), ==, 0);
    }
    guint before = count_entries("/proc/self/fd");
    Socket *self = open_path(jail->place->path, NULL);
    /* The listener, the lock, and the folder only as a mount of its own. */
    g_assert_cmpuint(count_entries("/proc/self/fd"), ==,
                     before + (jail->may_mount ? 3 : 2));
    g_assert_cmpuint(assert_no_way_out(), ==, jail->may_mount ? 1 : 0);
    g_assert_cmpint(chroot(jail->root), ==, 0);
    g_assert_cmpint(chdir("/"), ==, 0);
    assert_file(jail->place->path, "the guest's");
    socket_close(self);
    assert_file(jail->place->path, "the guest's");
}

static void test_jail(Place *place, gconstpointer data)
{
    Jail jail = {.place = place, .may_mount = GPOINTER_TO_INT(data) != 0};

    if (geteuid() != 0) {
        g_test_skip("needs root, to change the root");
        return;
    }
    jail.root = g_dir_make_tmp("jail-XXXXXX", NULL);
    jail.victim = g_build_filename(jail.root, place->path, NULL);
    g_autofree char *victim_folder = g_path_get_dirname(jail.victim);
    g_assert_cmpint(g_mkdir_with_parents(victim_folder, 0700), ==, 0);
    write_file(jail.victim, "the guest's");

    child_passes(close_in_jail, &jail);
    assert_file(jail.victim, "the guest's");
    if (jail.may_mount) {
        assert_gone(place->path);
        assert_gone(place->pid_path);
    } else {
        /* Out of reach: left where they are, as after a SIGKILL. */
        g_assert_cmpint(unlink(place->path), ==, 0);
        g_assert_cmpint(unlink(place->pid_path), ==, 0);
    }
    g_assert_cmpint(unlink(jail.victim), ==, 0);
    for (char *at = victim_folder; strlen(at) >= strlen(jail.root);) {
        g_assert_cmpint(rmdir(at), ==, 0);
        *strrchr(at, '/') = '\0';
    }
    g_free(jail.root);
    g_free(jail.victim);
}

/* Without the right to clone mounts everything works but through a changed root. */
static void live_unprivileged(const void *data)
{
    const Place *place = data;

    g_assert_cmpint(setresuid(65534, 65534, 65534), ==, 0);
    Socket *self = open_path(place->path, NULL);
    assert_socket(place->path, 0700);
    assert_pid_file(place->pid_path);
    g_assert_cmpint(chdir("/"), ==, 0);
    socket_close(self);
    assert_gone(place->path);
    assert_gone(place->pid_path);
}

static void test_unprivileged(Place *place, gconstpointer data)
{
    (void)data;
    if (geteuid() != 0) {
        g_test_skip("needs root, to become somebody else");
        return;
    }
    g_assert_cmpint(chown(place->folder, 65534, 65534), ==, 0);
    child_passes(live_unprivileged, place);
}

/* ---- descriptors of the parent's -------------------------------------------------- */

static void test_adopt(Place *place, gconstpointer data)
{
    int fd = bind_at(place->path, SOCK_STREAM);
    const SocketConfig config = {.fd = fd};
    g_autoptr(GError) error = NULL;

    (void)data;
    g_assert_cmpint(listen(fd, 5), ==, 0);
    g_assert_cmpint(fcntl(fd, F_SETFD, 0), ==, 0);
    g_assert_cmpint(fcntl(fd, F_SETFL, 0), ==, 0);
    g_assert_cmpint(chmod(place->path, 0741), ==, 0);
    Socket *self = socket_open(&config, &error);
    g_assert_no_error(error);
    g_assert_cmpint(socket_fd(self), ==, fd);
    g_assert_cmpint(fcntl(fd, F_GETFD), ==, FD_CLOEXEC);
    g_assert_cmpint(fcntl(fd, F_GETFL) & O_NONBLOCK, ==, O_NONBLOCK);
    assert_gone(place->pid_path);
    int client = connect_to(place->path);
    int server = socket_accept(self);
    g_assert_cmpint(server, >=, 0);
    close(server);
    close(client);
    socket_close(self);
    /* The file is the parent's. */
    assert_socket(place->path, 0741);
    g_assert_cmpint(unlink(place->path), ==, 0);
}

static void assert_not_adopted(int fd, const char *words)
{
    const SocketConfig config = {.fd = fd};

    assert_fails(&config, words);
    if (fd >= 0 && fd < 1000) {
        g_assert_cmpint(fcntl(fd, F_GETFD), >=, 0);
        close(fd);
    }
}

static void test_adopt_wrong(Place *place, gconstpointer data)
{
    static const char none[] = "not a listening AF_UNIX stream socket";
    int pair[2];

    (void)data;
    assert_not_adopted(100000,
                       "--fd=100000: the parent must pass a listening socket there");
    assert_not_adopted(open("/dev/null", O_RDONLY | O_CLOEXEC), none);
    assert_not_adopted(open(place->folder, O_PATH | O_CLOEXEC), none);
    assert_not_adopted(bind_at(place->path, SOCK_STREAM), none);
    g_assert_cmpint(unlink(place->path), ==, 0);
    assert_not_adopted(bind_at(place->path, SOCK_DGRAM), none);
    g_assert_cmpint(unlink(place->path), ==, 0);

    int packets = bind_at(place->path, SOCK_SEQPACKET);
    g_assert_cmpint(listen(packets, 5), ==, 0);
    assert_not_adopted(packets, none);
    g_assert_cmpint(unlink(place->path), ==, 0);

    int internet = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (internet >= 0) {
        g_assert_cmpint(listen(internet, 5), ==, 0);
        assert_not_adopted(internet, none);
    }
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    assert_not_adopted(pair[0], none);
    close(pair[1]);
}

static void add(const char *name, gconstpointer data,
                void (*test)(Place *place, gconstpointer data))
{
    g_test_add(name, Place, data, set_up, test, tear_down);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add("/socket/life", NULL, test_life);
    add("/socket/relative", NULL, test_relative);
    add("/socket/umask", NULL, test_umask);
    add("/socket/group", NULL, test_group);
    add("/socket/second", NULL, test_second);
    add("/socket/stale", NULL, test_stale);
    add("/socket/live", NULL, test_live);
    add("/socket/no-socket", NULL, test_no_socket);
    add("/socket/pid-file-traps", NULL, test_pid_file_traps);
    add("/socket/paths", NULL, test_paths);
    add("/socket/taken-over", NULL, test_taken_over);
    add("/socket/jail", GINT_TO_POINTER(1), test_jail);
    add("/socket/jail-without-clone", GINT_TO_POINTER(0), test_jail);
    add("/socket/unprivileged", NULL, test_unprivileged);
    add("/socket/adopt", NULL, test_adopt);
    add("/socket/adopt-wrong", NULL, test_adopt_wrong);
    return g_test_run();
}
