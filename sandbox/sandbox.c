/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 * ===================
 *
 * The guest is the attacker. If it takes over the process, it must find a process that
 * sees the share and nothing else, has no network, can start nothing, and has only the
 * privileges that serving files takes. The stages, in order; each relies on the ones
 * before:
 *
 *  scrub (sandbox_scrub, first of all in main)
 *      Must: close what was inherited, clear the environment, no core files.
 *      Not yet: anything that can fail; no option has been parsed.
 *
 *  [ main parses options, opens the log and the socket: the last paths of the host ]
 *
 *  1. checks     One thread, and a share that is a directory or a file: mistakes are told
 *                before anything has changed.
 *  2. limits     Descriptors. Raising the hard limit takes a capability: before 6. Reads
 *                /proc: before 4.
 *  3. ids        Root: supplementary groups go, and all ids become 0. Not yet
 * capabilities: this takes CAP_SETGID. An ordinary user with --sandbox=namespace: a user
 * namespace, in which he has all capabilities, over what it maps and nothing else. Its
 * maps may take a child outside of it, forked before and gone after. Not yet
 * no_new_privs: the child's program may map ids because it is set-user-id. Not yet other
 *                ids: they might not be allowed to walk to the share.
 *  4. namespaces A view of the host's mounts in the share, to be kept. Then mount,
 *                network, IPC, UTS and cgroup. Mounts are slaves of the host's, all of
 *                them, before the first one is moved.
 *  5. root       Clone what is kept (the directory of our own descriptors, the share with
 *                its mounts), then pivot. A single file is no root: it lies alone in a
 *                file system of its own. Must leave no descriptor that is not a clone.
 *                Between the two an ordinary user takes the ids that his namespace has.
 *                Not yet capabilities: mounting takes CAP_SYS_ADMIN.
 *                FROM HERE ON NO LIBRARY MAY OPEN A PATH: the guest can put a file there,
 *                as configuration or as code. So no locale, no NSS, no charset
 *                conversion, no thread cancellation; error texts are the kernel's
 *                names by strerrordesc_np().
 *  6. privileges Capabilities, no_new_privs, not dumpable. /proc is out of reach by path;
 *                the cloned directory of descriptors still works, because a process may
 *                always look at itself.
 *  7. Landlock   Nothing is opened or changed that is not beneath the share, and nothing
 *                runs. Must come after no_new_privs, and after the last mount.
 *                All of stages 3 to 7 hold for the calling thread only, and are inherited
 *                by the threads it makes: hence one thread.
 *
 *  [ main opens the file system and makes all threads ]
 *
 *  8. seal       (sandbox_seal) No more processes, by limit, and the system-call filter,
 * put on all threads at once. It refuses clone, execve, new namespaces and executable
 * memory, and answers open and openat as if no file existed: our own opens are openat2.
 * Must come last: threads need calls that it refuses, to be made and as the first thing
 * that they do, so all must have begun.
 *
 *  [ readiness, the first byte from the VMM ]
 *
 * --sandbox=chroot leaves out 4 and, instead of pivoting, changes the root. With
 * --sandbox=none there is neither 4 nor a new root, and the process stays dumpable so
 * that a debugger or a sanitizer can look at it: there 7 is what keeps it from the host's
 * files. In neither has an ordinary user anything to do in 3, or capabilities to drop in
 * 6.
 */
#include "sandbox/sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sandbox/internal.h"
#include "sandbox/mount-tables.h"
#include "sandbox/sanitizer.h"
#include "virtiofsd/autofd.h"

bool sandbox_fail(GError **error, int code, const char *what, const char *mend)
{
    g_set_error(error, G_FILE_ERROR, (gint)g_file_error_from_errno(code), "%s: %s%s%s",
                what, strerrordesc_np(code), mend != NULL ? "; " : "",
                mend != NULL ? mend : "");
    return false;
}

/* ---- 1. checks --------------------------------------------------------------------- */

static bool check_one_thread(GError **error)
{
    unsigned int n_threads = 0;
    DIR *dir = opendir("/proc/self/task");

    if (dir == NULL) {
        return sandbox_fail(error, errno, "cannot count our threads in /proc/self/task",
                            "/proc must be mounted");
    }
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        n_threads += entry->d_name[0] != '.' ? 1 : 0;
    }
    (void)closedir(dir); /* only read from */
    if (n_threads > 1 + SANDBOX_TOOL_THREADS) {
        g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_FAILED,
                    "the sandbox is entered with %u threads: all but one would stay out",
                    n_threads);
        return false;
    }
    return true;
}

static bool check_share(const char *shared_dir, GError **error)
{
    struct stat st;

    if (stat(shared_dir, &st) < 0) {
        int code = errno;
        g_autofree char *what = g_strdup_printf("cannot find the share %s", shared_dir);
        return sandbox_fail(error, code, what,
                            "--shared-dir names a directory or a file");
    }
    if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode)) {
        g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_NOTDIR,
                    "the share %s is neither a directory nor a regular file", shared_dir);
        return false;
    }
    return true;
}

static bool is_root(void)
{
    return geteuid() == 0;
}

bool sandbox_check_maps(const SandboxConfig *config, GError **error)
{
    const char *wrong = NULL;

    if (config->uid_map == NULL && config->gid_map == NULL) {
        return true;
    }
    if (is_root()) {
        wrong = "--uid-map and --gid-map are for ordinary users: root needs no user"
                " namespace; leave them out, or see --translate-uid";
    } else if (config->mode != SANDBOX_NAMESPACE) {
        wrong = "--uid-map and --gid-map need --sandbox=namespace";
    } else {
        return true;
    }
    g_set_error_literal(error, G_FILE_ERROR, G_FILE_ERROR_INVAL, wrong);
    return false;
}

static bool check_user(const SandboxConfig *config, GError **error)
{
    if (config->mode == SANDBOX_CHROOT && !is_root()) {
        g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_PERM,
                    "--sandbox=chroot needs root; use --sandbox=namespace");
        return false;
    }
    return sandbox_check_maps(config, error);
}

/* ---- 3. to 5. ---------------------------------------------------------------------- */

static bool become_plain_root(GError **error)
{
    if (!sandbox_drop_groups(error)) {
        return false;
    }
    if (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0) {
        return sandbox_fail(error, errno, "cannot become user and group 0",
                            "start with CAP_SETUID and CAP_SETGID");
    }
    return true;
}

static void look_back(const SandboxConfig *config, AutoFd *ret_folder)
{
    if (config->last_paths != NULL) {
        *ret_folder = config->last_paths(config->last_paths_data);
    }
}

static bool in_namespaces(const SandboxConfig *config, SandboxView *ret_view,
                          AutoFd *ret_folder, GError **error)
{
    const bool is_user = !is_root();
    g_auto(SandboxTree) tree = SANDBOX_NO_TREE;
    g_auto(AutoFd) host_mounts = -1;
    SandboxIds ids;

    if (!(is_user ? sandbox_unshare_user(config, &ids, error)
                  : become_plain_root(error)) ||
        !sandbox_mounts_of_host(config->shared_dir, &host_mounts, error) ||
        !sandbox_unshare(error)) {
        return false;
    }
    look_back(config, ret_folder);
    g_auto(AutoFd) kept = host_mounts >= 0 ? sandbox_mounts_keep() : -1;
    if (!sandbox_root_clone(config, &tree, error) ||
        (is_user && !sandbox_take_ids(&ids, error)) ||
        !sandbox_root_pivot(&tree, ret_view, error)) {
        return false;
    }
    ret_view->own_mounts = sandbox_mounts_of_ours(ret_view->procfd, kept);
    ret_view->host_mounts = autofd_steal(&host_mounts);
    return true;
}

static bool change_root(const SandboxConfig *config, SandboxView *ret_view,
                        AutoFd *ret_folder, GError **error)
{
    if (config->mode == SANDBOX_NAMESPACE) {
        return in_namespaces(config, ret_view, ret_folder, error);
    }
    look_back(config, ret_folder);
    if (is_root() && !become_plain_root(error)) {
        return false;
    }
    return config->mode == SANDBOX_CHROOT
               ? sandbox_root_chroot(config->shared_dir, ret_view, error)
               : sandbox_root_none(config->shared_dir, ret_view, error);
}

/* ---- 6. privileges ----------------------------------------------------------------- */

static bool drop_privileges(const SandboxConfig *config, GError **error)
{
    /* In the end an ordinary user may be root as well: of a user namespace. There the id
     * may be another and the capabilities are all the same. */
    if ((is_root() || config->mode == SANDBOX_NAMESPACE) &&
        !sandbox_drop_caps(config, error)) {
        return false;
    }
    if (!sandbox_no_new_privs(error)) {
        return false;
    }
    /* Nobody attaches to us, not even a process with the user id that a thread borrows,
     * and nothing dumps the guest's memory, not even a core_pattern pipe, which the core
     * limit does not stop. */
    if (config->mode != SANDBOX_NONE && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) {
        return sandbox_fail(error, errno, "cannot become undumpable", NULL);
    }
    return true;
}

bool sandbox_enter(const SandboxConfig *config, SandboxView *ret_view, GError **error)
{
    SandboxView view = {.root_fd = -1, .procfd = -1, .host_mounts = -1, .own_mounts = -1};

    if (!check_user(config, error) || !check_one_thread(error) ||
        !sandbox_check_modcaps(config->modcaps, error) ||
        !check_share(config->shared_dir, error) ||
        !sandbox_limit_files(config->rlimit_nofile, &view.descriptors, error)) {
        return false;
    }
    g_auto(AutoFd) root_fd = -1;
    g_auto(AutoFd) procfd = -1;
    g_auto(AutoFd) folder = -1;
    if (!change_root(config, &view, &folder, error)) {
        return false;
    }
    root_fd = view.root_fd;
    procfd = view.procfd;
    if (!drop_privileges(config, error) ||
        !sandbox_landlock(config, root_fd, folder, &view.landlock, error)) {
        return false;
    }
    *ret_view = view;
    (void)autofd_steal(&root_fd); /* now in the view */
    (void)autofd_steal(&procfd);
    return true;
}
