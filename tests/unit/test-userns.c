/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sandbox of an ordinary user: the namespaces, what it may do there, and who is
 * mapped to whom. The user is 1000; what the system's files say about him is mounted over
 * them, in the host's mount namespace.
 */
#include <signal.h>
#include <sys/stat.h>

#include "sandbox/idmap.h"
#include "sandbox/sandbox.h"
#include "tests/unit/inside.h"
#include "virtiofsd/log.h"

/* Ids that nobody on this machine has. */
#define SUB 700000u
#define N_SUB 65536u

static const SandboxConfig plain = {.shared_dir = "share",
                                    .seccomp = SANDBOX_SECCOMP_NONE};

/* ---- the host ---------------------------------------------------------------------- */

static void host_write(const char *name, const char *text, const char *over)
{
    g_assert_true(g_file_set_contents(name, text, -1, NULL));
    g_assert_cmpint(chmod(name, 0644), ==, 0);
    host_bind(name, over);
}

/* A host as test-sandbox.c has it, with a user. */
static void user_host_start(const char *dir)
{
    host_start(dir);
    g_assert_cmpint(chown("share", 1000, 1000), ==, 0);
    g_assert_cmpint(chown("share/file", 1000, 1000), ==, 0);
    g_assert_cmpint(chown("volume", 1000, 1000), ==, 0);
    host_write("passwd", "root:x:0:0::/:/bin/sh\ntester:x:1000:1000::/:/bin/sh\n",
               "/etc/passwd");
}

/* Return: whether the system's programs for mapping ids are there. */
static bool has_helpers(void)
{
    return access("/usr/bin/newuidmap", X_OK) == 0 &&
           access("/usr/bin/newgidmap", X_OK) == 0;
}

static void give_sub_ids(void)
{
    g_autofree char *text = g_strdup_printf("tester:%u:%u\n", SUB, N_SUB);

    host_write("subuid", text, "/etc/subuid");
    host_write("subgid", text, "/etc/subgid");
}

static void run_with_helpers(ChildBody body)
{
    if (!has_helpers() || access("/etc/subuid", F_OK) < 0 ||
        access("/etc/subgid", F_OK) < 0) {
        g_test_skip("needs newuidmap, newgidmap, /etc/subuid and /etc/subgid");
    } else {
        host_run(body);
    }
}

static Inside start_as_user(const SandboxConfig *config)
{
    return inside_start_as(config, inside_become_user);
}

/* ---- what is to hold --------------------------------------------------------------- */

static void assert_ids(const Inside *inside, const char *file, const char *wanted)
{
    g_autofree char *path = inside_proc(inside, file);
    g_autofree char *text = read_file(path);
    g_auto(GStrv) words = g_strsplit_set(g_strstrip(text), " \n", -1);
    g_autoptr(GString) found = g_string_new(NULL);

    for (char **word = words; *word != NULL; word++) {
        if ((*word)[0] != '\0') {
            g_string_append_printf(found, "%s%s", found->len > 0 ? " " : "", *word);
        }
    }
    g_assert_cmpstr(found->str, ==, wanted);
}

static void assert_who(const Inside *inside, unsigned int id)
{
    g_autofree char *four = g_strdup_printf("%u\t%u\t%u\t%u", id, id, id, id);

    child_assert_status(inside->pid, "Uid", four);
    child_assert_status(inside->pid, "Gid", four);
    child_assert_status(inside->pid, "Groups", "");
}

/* As root's, and of a namespace that has nothing to say outside. */
static void assert_privileges(const Inside *inside)
{
    child_assert_status(inside->pid, "CapPrm", KEPT_CAPS);
    child_assert_status(inside->pid, "CapEff", KEPT_CAPS);
    child_assert_status(inside->pid, "CapInh", NO_CAPS);
    child_assert_status(inside->pid, "CapBnd", NO_CAPS);
    child_assert_status(inside->pid, "CapAmb", NO_CAPS);
    child_assert_status(inside->pid, "NoNewPrivs", "1");
    g_assert_cmpint(inside_try(inside, ASK_DUMPABLE, ""), ==, 0);
}

static void assert_namespaces(const Inside *inside)
{
    static const char *const own[] = {"mnt", "net", "ipc", "uts", "user"};

    for (size_t i = 0; i < G_N_ELEMENTS(own); i++) {
        g_autofree char *name = g_strconcat("ns/", own[i], NULL);
        g_autofree char *theirs = inside_proc(inside, name);
        g_autofree char *ours = g_strconcat("/proc/self/", name, NULL);
        g_assert_false(same_file(theirs, ours));
    }
}

static void assert_root(const Inside *inside)
{
    g_autofree char *root = inside_proc(inside, "root");
    g_autofree char *cwd = inside_proc(inside, "cwd");
    g_autofree char *path = inside_proc(inside, "mountinfo");
    g_autofree char *mounts = read_file(path);

    g_assert_true(same_file(root, "share"));
    g_assert_true(same_file(cwd, "share"));
    g_assert_cmpint(inside_try(inside, ASK_PRESENT, "../secret"), ==, -ENOENT);
    g_assert_cmpint(inside_try(inside, ASK_PROCFD, "../exe"), <, 0);
    g_auto(GStrv) lines = g_strsplit(g_strchomp(mounts), "\n", -1);
    g_assert_cmpuint(g_strv_length(lines), ==, 2);
    for (char **line = lines; *line != NULL; line++) {
        g_assert_nonnull(strstr(*line, "nosuid,nodev,noexec"));
        g_assert_nonnull(strstr(*line, " master:"));
        g_assert_null(strstr(*line, " shared:"));
    }
}

/* Nothing to the host but the share and the descriptors themselves. */
static void assert_descriptors(const Inside *inside)
{
    g_autofree char *path = inside_proc(inside, "fd");
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    unsigned int n_open = 0;

    g_assert_nonnull(dir);
    for (const char *name; (name = g_dir_read_name(dir)) != NULL; n_open++) {
        g_autofree char *link = g_build_filename(path, name, NULL);
        struct stat st;
        g_assert_cmpint(stat(link, &st), ==, 0);
        int fd = atoi(name);
        g_assert_cmpint(S_ISDIR(st.st_mode), ==,
                        fd == inside->view.root_fd || fd == inside->view.procfd);
    }
    g_assert_cmpuint(n_open, ==, 3 + 1 + 4); /* standard, socket, view */
}

static void assert_made_by(const Inside *inside, const char *name, uid_t uid)
{
    g_autofree char *path = g_build_filename("share", name, NULL);
    struct stat st;

    g_assert_cmpint(inside_try(inside, ASK_CREATE, name), ==, 0);
    g_assert_cmpint(lstat(path, &st), ==, 0);
    g_assert_cmpuint(st.st_uid, ==, uid);
    g_assert_cmpuint(st.st_gid, ==, uid);
}

/* ---- the own id alone -------------------------------------------------------------- */

static void audit(const void *data)
{
    SandboxConfig config = plain;

    config.seccomp = SANDBOX_SECCOMP_LOG;
    user_host_start(data);
    g_autofree char *before = read_file("/proc/self/mountinfo");
    Inside inside = start_as_user(&config);
    g_autofree char *after = read_file("/proc/self/mountinfo");
    g_assert_cmpstr(before, ==, after);
    assert_ids(&inside, "uid_map", "1000 1000 1");
    assert_ids(&inside, "gid_map", "1000 1000 1");
    assert_who(&inside, 1000);
    assert_privileges(&inside);
    assert_namespaces(&inside);
    assert_root(&inside);
    assert_descriptors(&inside);
    assert_made_by(&inside, "made", 1000);
    g_assert_cmpint(inside_try(&inside, ASK_REOPEN, "sub/inner"), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_MAKE_DEVICE, "null"), ==, -EPERM);
    child_assert_status(inside.pid, "Seccomp", "2");
    child_assert_status(inside.pid, "Threads", SANDBOX_TOOL_THREADS ? "2" : "1");
    inside_stop(&inside);
}

static void test_audit(void)
{
    host_run(audit);
}

/* The user's own rights, and no more: what root keeps from him stays closed. */
static void rights(const void *data)
{
    user_host_start(data);
    g_assert_true(g_file_set_contents("share/roots", "text", -1, NULL));
    g_assert_cmpint(chmod("share/roots", 0600), ==, 0);
    g_assert_cmpint(chmod("share/file", 0), ==, 0);
    Inside inside = start_as_user(&plain);
    g_assert_cmpint(inside_try(&inside, ASK_REOPEN, "roots"), ==, -EACCES);
    g_assert_cmpint(inside_try(&inside, ASK_SET_ID, "roots"), ==, -EPERM);
    g_assert_cmpint(inside_try(&inside, ASK_REOPEN, "file"), ==, 0); /* DAC_OVERRIDE */
    inside_stop(&inside);
}

static void test_rights(void)
{
    host_run(rights);
}

/* Mounts that were there, and that come later, go when the host unmounts them: none is
 * locked to what it lies on. */
static void propagate(const void *data)
{
    user_host_start(data);
    Inside inside = start_as_user(&plain);
    g_assert_cmpint(inside_try(&inside, ASK_PRESENT, "sub/inner"), ==, 0);
    host_bind("volume", "share/late");
    g_assert_cmpint(inside_try(&inside, ASK_CREATE, "late/made"), ==, 0);
    host_bind("other", "share/late/deep");
    g_assert_cmpint(inside_try(&inside, ASK_PRESENT, "late/deep/thing"), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_PRESENT, "sub/deep/thing"), ==, 0);
    g_assert_cmpint(umount2("share/late/deep", 0), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_PRESENT, "late/deep/thing"), ==, -ENOENT);
    g_assert_cmpint(umount2("share/late", 0), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_PRESENT, "late/inner"), ==, -ENOENT);
    g_assert_cmpint(umount2("share/sub", 0), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_PRESENT, "sub/inner"), ==, -ENOENT);
    g_assert_cmpint(rmdir("share/sub"), ==, 0);
    inside_stop(&inside);
}

static void test_propagate(void)
{
    host_run(propagate);
}

static void one_as_root(const void *data)
{
    static const SandboxIdMap map = {.n = 1, .ranges = {{0, 1000, 1}}};
    SandboxConfig config = plain;

    config.uid_map = config.gid_map = &map;
    user_host_start(data);
    Inside inside = start_as_user(&config);
    assert_ids(&inside, "uid_map", "0 1000 1");
    assert_ids(&inside, "gid_map", "0 1000 1");
    assert_who(&inside, 1000);
    assert_privileges(&inside);
    assert_made_by(&inside, "made", 1000);
    inside_stop(&inside);
}

static void test_one_as_root(void)
{
    host_run(one_as_root);
}

/* Groups cannot be left in a namespace that the user has made by himself. */
static void become_member(void)
{
    static const gid_t groups[] = {1001};

    g_assert_cmpint(setgroups(1, groups), ==, 0);
    g_assert_cmpint(setresgid(1000, 1000, 1000), ==, 0);
    g_assert_cmpint(setresuid(1000, 1000, 1000), ==, 0);
    g_assert_cmpint(prctl(PR_SET_DUMPABLE, 1), ==, 0);
}

static void groups(const void *data)
{
    user_host_start(data);
    Inside inside = inside_start_as(&plain, become_member);
    child_assert_status(inside.pid, "Groups", "1001");
    inside_stop(&inside);
}

static void test_groups(void)
{
    host_run(groups);
}

static void file_share(const void *data)
{
    SandboxConfig config = plain;

    config.shared_dir = "share/file";
    user_host_start(data);
    Inside inside = start_as_user(&config);
    g_assert_cmpint(inside_try(&inside, ASK_SIZE, ""), ==, 4);
    g_assert_cmpint(inside_try(&inside, ASK_REOPEN_TO_WRITE, ""), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_PRESENT, "/share"), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_PRESENT, "/secret"), ==, -ENOENT);
    g_assert_cmpint(inside_try(&inside, ASK_CREATE, "/made"), ==, -EROFS);
    assert_privileges(&inside);
    inside_stop(&inside);
}

static void test_file_share(void)
{
    host_run(file_share);
}

/* ---- ranges ------------------------------------------------------------------------ */

static const SandboxIdMap own_and_more = {.n = 2,
                                          .ranges = {{0, 1000, 1}, {1, SUB, N_SUB}}};
static const SandboxIdMap shifted = {.n = 1, .ranges = {{0, SUB, N_SUB}}};
static const SandboxIdMap without_root = {.n = 1, .ranges = {{5, SUB, 100}}};

/* Whoever starts us may ignore its children. */
static void become_careless_user(void)
{
    g_assert_true(signal(SIGCHLD, SIG_IGN) != SIG_ERR);
    inside_become_user();
}

static void ranges(const void *data)
{
    SandboxConfig config = plain;

    config.uid_map = config.gid_map = &own_and_more;
    config.seccomp = SANDBOX_SECCOMP_LOG;
    user_host_start(data);
    give_sub_ids();
    Inside inside = inside_start_as(&config, become_careless_user);
    assert_ids(&inside, "uid_map", "0 1000 1 1 700000 65536");
    assert_ids(&inside, "gid_map", "0 1000 1 1 700000 65536");
    assert_who(&inside, 1000);
    assert_privileges(&inside);
    assert_namespaces(&inside);
    assert_root(&inside);
    assert_descriptors(&inside);
    assert_made_by(&inside, "made", 1000);
    /* Another id: 1000 inside, with nothing of the user's. */
    g_assert_cmpint(inside_try(&inside, ASK_REOPEN_AS_USER, "file"), ==, 0);
    g_assert_cmpint(chmod("share/file", 0600), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_REOPEN_AS_USER, "file"), ==, -EACCES);
    g_assert_cmpint(chown("share/file", SUB + 999, SUB + 999), ==, 0);
    g_assert_cmpint(inside_try(&inside, ASK_REOPEN_AS_USER, "file"), ==, 0);
    g_autofree char *children = inside_proc(&inside, "task");
    g_autofree char *name = g_strdup_printf("%s/%d/children", children, (int)inside.pid);
    g_autofree char *list = read_file(name);
    g_assert_cmpstr(list, ==, "");
    inside_stop(&inside);
}

static void test_ranges(void)
{
    run_with_helpers(ranges);
}

/* None of them is the user, who alone may walk to the share. */
static void others(const void *data)
{
    SandboxConfig config = plain;

    config.shared_dir = "private/share";
    user_host_start(data);
    give_sub_ids();
    g_assert_cmpint(mkdir("private", 0700), ==, 0);
    g_assert_cmpint(chown("private", 1000, 1000), ==, 0);
    g_assert_cmpint(mkdir("private/share", 0755), ==, 0);
    g_assert_cmpint(chown("private/share", SUB, SUB), ==, 0);
    config.uid_map = config.gid_map = &shifted;
    Inside inside = start_as_user(&config);
    assert_who(&inside, SUB);
    assert_privileges(&inside);
    g_assert_cmpint(inside_try(&inside, ASK_CREATE, "made"), ==, 0);
    inside_stop(&inside);
    config.uid_map = config.gid_map = &without_root;
    inside = start_as_user(&config);
    assert_who(&inside, SUB);
    assert_privileges(&inside);
    g_assert_cmpint(inside_try(&inside, ASK_CREATE, "made too"), ==, 0);
    inside_stop(&inside);
    g_assert_true(g_file_set_contents("private/share/file", "text", -1, NULL));
    config.shared_dir = "private/share/file";
    inside = start_as_user(&config);
    g_assert_cmpint(inside_try(&inside, ASK_SIZE, ""), ==, 4);
    inside_stop(&inside);
}

static void test_others(void)
{
    run_with_helpers(others);
}

/* ---- what goes wrong --------------------------------------------------------------- */

static void assert_refused(const SandboxConfig *config, const char *const words[])
{
    g_autoptr(GError) error = NULL;
    SandboxView view;

    inside_become_user();
    g_assert_false(sandbox_enter(config, &view, &error));
    g_assert_nonnull(error);
    g_assert_null(strchr(error->message, '\n'));
    for (; *words != NULL; words++) {
        if (strstr(error->message, *words) == NULL) {
            g_error("\"%s\" does not say \"%s\"", error->message, *words);
        }
    }
    /* No child is left, not even a dead one. */
    g_assert_cmpint(waitpid(-1, NULL, WNOHANG), ==, -1);
    g_assert_cmpint(errno, ==, ECHILD);
}

static void not_given(const void *data)
{
    static const char *const words[] = {"--uid-map", "newuidmap", "/etc/subuid",
                                        "not allowed", NULL};
    SandboxConfig config = plain;

    config.uid_map = &shifted;
    user_host_start(data);
    assert_refused(&config, words);
}

static void groups_not_given(const void *data)
{
    static const char *const words[] = {"--gid-map", "newgidmap", "/etc/subgid",
                                        "not allowed", NULL};
    SandboxConfig config = plain;

    config.uid_map = config.gid_map = &shifted;
    user_host_start(data);
    host_write("subuid", "tester:700000:65536\n", "/etc/subuid");
    host_write("subgid", "tester:5:1\n", "/etc/subgid");
    assert_refused(&config, words);
}

static void test_not_given(void)
{
    run_with_helpers(not_given);
    run_with_helpers(groups_not_given);
}

static void no_program(const void *data)
{
    static const char *const words[] = {"--uid-map",
                                        "newuidmap: No such file or directory", NULL};
    static const char *const folders[] = {"/usr/bin", "/bin"};
    SandboxConfig config = plain;

    config.uid_map = &shifted;
    user_host_start(data);
    for (size_t i = 0; i < G_N_ELEMENTS(folders); i++) {
        g_assert_cmpint(mount("none", folders[i], "tmpfs", MS_RDONLY, NULL), ==, 0);
    }
    assert_refused(&config, words);
}

static void test_no_program(void)
{
    host_run(no_program);
}

/* ---- the child --------------------------------------------------------------------- */

/* It ends with whoever waits for it, and does nothing if it is not sent. */
static void helper_alone(const void *data)
{
    SandboxIdHelper helper = {.program = NULL};
    g_autoptr(GError) error = NULL;
    int status = -1;
    int ends[2];

    g_assert_cmpint(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), ==, 0);
    g_assert_cmpint(pipe(ends), ==, 0);
    pid_t pid = fork();
    g_assert_cmpint(pid, >=, 0);
    if (pid == 0) {
        child_settle();
        g_assert_true(sandbox_id_helper_start("newuidmap", &shifted, &helper, &error));
        g_assert_cmpint(write(ends[1], &helper.pid, sizeof(pid_t)), ==, sizeof(pid_t));
        raise(SIGKILL);
    }
    pid_t orphan = -1;
    g_assert_cmpint(read(ends[0], &orphan, sizeof(orphan)), ==, sizeof(orphan));
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    g_assert_cmpint(waitpid(orphan, &status, 0), ==, orphan);
    g_assert_true(WIFEXITED(status));
    g_assert_cmpint(WEXITSTATUS(status), ==, 127);
}

static void helper_unsent(const void *data)
{
    SandboxIdHelper helper = {.program = NULL};
    g_autoptr(GError) error = NULL;

    g_assert_true(sandbox_id_helper_start("newuidmap", &shifted, &helper, &error));
    sandbox_id_helper_clear(&helper);
    g_assert_null(helper.program);
    g_assert_cmpint(waitpid(-1, NULL, WNOHANG), ==, -1);
    sandbox_id_helper_clear(&helper);
}

static void helper_unknown(const void *data)
{
    SandboxIdHelper helper = {.program = NULL};
    g_autoptr(GError) error = NULL;

    g_assert_true(sandbox_id_helper_start("no-such-program", &shifted, &helper, &error));
    g_assert_false(sandbox_id_helper_send(&helper, &error));
    g_assert_nonnull(strstr(error->message, "no-such-program: No such file"));
    g_assert_cmpint(waitpid(-1, NULL, WNOHANG), ==, -1);
}

static void test_helper(void)
{
    child_passes(helper_alone, NULL);
    child_passes(helper_unsent, NULL);
    child_passes(helper_unknown, NULL);
}

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
static const bool is_alone = false; /* ThreadSanitizer has a thread of its own */
#else
static const bool is_alone = true;
#endif

static void test_no_threads(void)
{
    g_test_skip("a process with threads cannot enter a user namespace");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_open(LOG_LEVEL_OFF, false);
    if (!is_alone) {
        g_test_add_func("/userns/no-threads", test_no_threads);
        return g_test_run();
    }
    g_test_add_func("/userns/audit", test_audit);
    g_test_add_func("/userns/rights", test_rights);
    g_test_add_func("/userns/propagate", test_propagate);
    g_test_add_func("/userns/one-as-root", test_one_as_root);
    g_test_add_func("/userns/groups", test_groups);
    g_test_add_func("/userns/file-share", test_file_share);
    g_test_add_func("/userns/ranges", test_ranges);
    g_test_add_func("/userns/others", test_others);
    g_test_add_func("/userns/not-given", test_not_given);
    g_test_add_func("/userns/no-program", test_no_program);
    g_test_add_func("/userns/helper", test_helper);
    return g_test_run();
}
