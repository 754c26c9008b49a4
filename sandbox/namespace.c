/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Namespaces of our own. One process: a PID namespace would need a second one, and
 * whoever started us watches and kills the process that it started.
 *
 * Root needs no user namespace. An ordinary user enters one first, and has the rights
 * that the others take there. If it maps nothing but the user's own id, the process may
 * write the maps itself; for more ids two programs of the system do it (idmap-helper.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "sandbox/idmap.h"
#include "sandbox/internal.h"

bool sandbox_unshare(GError **error)
{
    if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
                CLONE_NEWCGROUP) < 0) {
        return sandbox_fail(error, errno,
                            "cannot enter new mount, network, IPC, UTS and cgroup"
                            " namespaces",
                            "run as root with CAP_SYS_ADMIN, or use --sandbox=none");
    }
    /* Slaves, not private: what the host mounts in the share from now on must appear here
     * and what it unmounts must go, and nothing that we mount may appear there. */
    if (mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) < 0) {
        return sandbox_fail(error, errno, "cannot detach our mounts from the host's",
                            "the root directory must be a mount point");
    }
    return true;
}

/* ---- the user namespace ------------------------------------------------------------ */

/* What one kind of ids, users' or groups', is mapped to, and by whom. */
typedef struct Ids {
    const char *file;
    const char *program;
    const SandboxIdMap *map;
    SandboxIdMap single; /* what @map is by default */
    uint32_t own;        /* ours, outside */
    SandboxIdHelper helper;
} Ids;

static void ids_clear(Ids *ids)
{
    sandbox_id_helper_clear(&ids->helper);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Ids, ids_clear)

/* Before the namespace exists. */
static bool prepare(Ids *ids, const SandboxIdMap *map, GError **error)
{
    ids->single = (SandboxIdMap){.n = 1, .ranges = {{ids->own, ids->own, 1}}};
    ids->map = map != NULL ? map : &ids->single;
    return sandbox_id_map_is_own(ids->map, ids->own) ||
           sandbox_id_helper_start(ids->program, ids->map, &ids->helper, error);
}

static bool write_file(const char *path, const char *text, GError **error)
{
    g_auto(AutoFd) fd = open(path, O_WRONLY | O_CLOEXEC);
    const size_t length = strlen(text);

    if (fd < 0 || write(fd, text, length) != (ssize_t)length) {
        int code = errno;
        g_autofree char *what = g_strdup_printf("cannot write %s", path);
        return sandbox_fail(error, code, what,
                            "the host must allow user namespaces to its users,"
                            " or use --sandbox=none");
    }
    return true;
}

static bool write_map(Ids *ids, GError **error)
{
    char text[64];

    if (ids->helper.program != NULL) {
        return sandbox_id_helper_send(&ids->helper, error);
    }
    const SandboxIdRange *range = &ids->map->ranges[0];
    (void)snprintf(text, sizeof(text), "%u %u %u\n", range->inside, range->outside,
                   range->count);
    return write_file(ids->file, text, error);
}

static bool write_maps(Ids *users, Ids *groups, GError **error)
{
    /* Who maps the own group without anybody's leave must not get rid of groups that
     * files are closed to. */
    if (groups->helper.program == NULL &&
        !write_file("/proc/self/setgroups", "deny", error)) {
        return false;
    }
    return write_map(users, error) && write_map(groups, error);
}

bool sandbox_unshare_user(const SandboxConfig *config, SandboxIds *ret_ids,
                          GError **error)
{
    g_auto(Ids)
        users = {.file = "/proc/self/uid_map", .program = "newuidmap", .own = geteuid()};
    g_auto(Ids)
        groups = {.file = "/proc/self/gid_map", .program = "newgidmap", .own = getegid()};

    if (!prepare(&users, config->uid_map, error) ||
        !prepare(&groups, config->gid_map, error)) {
        return false;
    }
    if (unshare(CLONE_NEWUSER) < 0) {
        return sandbox_fail(error, errno, "cannot enter a user namespace",
                            "the host must allow them to its users; or run as root,"
                            " or use --sandbox=none");
    }
    *ret_ids = (SandboxIds){
        .uid = sandbox_id_map_choose(users.map, users.own),
        .gid = sandbox_id_map_choose(groups.map, groups.own),
    };
    return write_maps(&users, &groups, error) && sandbox_drop_groups(error);
}

bool sandbox_take_ids(const SandboxIds *ids, GError **error)
{
    if (setresgid(ids->gid, ids->gid, ids->gid) < 0 ||
        setresuid(ids->uid, ids->uid, ids->uid) < 0) {
        return sandbox_fail(error, errno, "cannot take an id of the user namespace",
                            NULL);
    }
    return true;
}
