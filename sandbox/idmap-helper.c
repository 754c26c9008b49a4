/* SPDX-License-Identifier: Apache-2.0 */
/*
 * newuidmap and newgidmap: the programs by which the system lets an ordinary user map ids
 * that /etc/subuid and /etc/subgid give to him.
 *
 * They must run outside of the namespace that they write to: a child is forked while we
 * are still there, waits until the namespace exists, and becomes the program. It is the
 * only child that this process ever has; it is gone before anything else happens, and
 * ends by itself if we do.
 *
 * Nobody's PATH decides what is run, and nothing of the environment reaches it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sandbox/idmap.h"
#include "sandbox/internal.h"
#include "virtiofsd/log.h"

#define STATUS_NOT_RUN 127

/* Where systems have their set-user-id programs; in all of them only root writes. */
static const char *const folders[] = {"/usr/bin", "/bin", "/run/wrappers/bin",
                                      "/run/privileged/bin"};

static char **arguments_of(const char *program, const SandboxIdMap *map)
{
    GPtrArray *words = g_ptr_array_new();

    g_ptr_array_add(words, g_strdup(program));
    g_ptr_array_add(words, g_strdup_printf("%d", (int)getpid()));
    for (unsigned int i = 0; i < map->n; i++) {
        g_ptr_array_add(words, g_strdup_printf("%u", map->ranges[i].inside));
        g_ptr_array_add(words, g_strdup_printf("%u", map->ranges[i].outside));
        g_ptr_array_add(words, g_strdup_printf("%u", map->ranges[i].count));
    }
    g_ptr_array_add(words, NULL);
    return (char **)g_ptr_array_free(words, FALSE);
}

/* ---- the child --------------------------------------------------------------------- */

static void run(char **arguments)
{
    static char *const no_environment[] = {NULL};
    int code = ENOENT;

    for (size_t i = 0; i < G_N_ELEMENTS(folders); i++) {
        g_autofree char *path = g_build_filename(folders[i], arguments[0], NULL);
        (void)execve(path, arguments, no_environment); /* comes back only if it fails */
        code = errno == ENOENT ? code : errno;
    }
    (void)dprintf(STDERR_FILENO, "%s: %s\n", arguments[0], strerrordesc_np(code));
}

static void child_main(int go, int said, char **arguments)
{
    sigset_t none;
    char byte;

    /* Neither fails: both are valid. */
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    ssize_t n;
    do {
        n = read(go, &byte, 1);
    } while (n < 0 && errno == EINTR);
    if (n == 1 && dup2(said, STDOUT_FILENO) >= 0 && dup2(said, STDERR_FILENO) >= 0) {
        run(arguments);
    }
    _exit(STATUS_NOT_RUN);
}

/* ---- the parent -------------------------------------------------------------------- */

static bool make_pipe(AutoFd *ret_out, AutoFd *ret_in, GError **error)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0) {
        return sandbox_fail(error, errno, "cannot make a pipe", NULL);
    }
    *ret_out = ends[0];
    *ret_in = ends[1];
    return true;
}

bool sandbox_id_helper_start(const char *program, const SandboxIdMap *map,
                             SandboxIdHelper *ret_helper, GError **error)
{
    const struct sigaction standard = {.sa_handler = SIG_DFL};
    g_auto(AutoFd) go = -1;
    g_auto(AutoFd) send = -1;
    g_auto(AutoFd) hear = -1;
    g_auto(AutoFd) said = -1;

    if (!make_pipe(&go, &send, error) || !make_pipe(&hear, &said, error)) {
        return false;
    }
    g_auto(GStrv) arguments = arguments_of(program, map);
    /* Whoever started us may have it ignored, and then no child can be waited for. */
    (void)sigaction(SIGCHLD, &standard, NULL);
    pid_t pid = fork();
    if (pid < 0) {
        return sandbox_fail(error, errno, "cannot start a process", NULL);
    }
    if (pid == 0) {
        autofd_clear(&send); /* or it would wait for itself */
        child_main(go, said, arguments);
    }
    *ret_helper =
        (SandboxIdHelper){program, pid, autofd_steal(&send), autofd_steal(&hear)};
    return true;
}

/* All that the child prints, of which the beginning is kept. */
static void hear(int fd, char *text, size_t size)
{
    char rest[256];
    size_t used = 0;

    for (;;) {
        bool full = used == size - 1;
        ssize_t n =
            read(fd, full ? rest : text + used, full ? sizeof(rest) : size - 1 - used);
        if (n == 0 || (n < 0 && errno != EINTR)) {
            break;
        }
        used += n > 0 && !full ? (size_t)n : 0;
    }
    text[used] = '\0';
}

/* Return: the wait(2) status. */
static int reap(SandboxIdHelper *helper)
{
    int status = -1;

    while (waitpid(helper->pid, &status, 0) < 0 && errno == EINTR) {
    }
    helper->program = NULL;
    return status;
}

static bool fail_helper(const char *program, const char *said, GError **error)
{
    char shown[512];
    bool is_user = strcmp(program, "newuidmap") == 0;
    size_t line = strcspn(said, "\n");

    (void)log_escape(shown, sizeof(shown), said, line);
    g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_FAILED,
                "cannot map the ids of --%s-map: %s; it takes %s, and %s must give these"
                " ids to this user",
                is_user ? "uid" : "gid", line > 0 ? shown : "no word of why", program,
                is_user ? "/etc/subuid" : "/etc/subgid");
    return false;
}

bool sandbox_id_helper_send(SandboxIdHelper *helper, GError **error)
{
    const char *program = helper->program;
    char said[256];

    /* If it has died its status tells. */
    if (write(helper->go, "", 1) < 0) {
        autofd_clear(&helper->go);
    }
    hear(helper->said, said, sizeof(said));
    int status = reap(helper);
    autofd_clear(&helper->go);
    autofd_clear(&helper->said);
    return status == 0 || fail_helper(program, said, error);
}

void sandbox_id_helper_clear(SandboxIdHelper *helper)
{
    if (helper->program != NULL) {
        autofd_clear(&helper->go);
        (void)reap(helper); /* it was not asked for anything */
        autofd_clear(&helper->said);
    }
}
