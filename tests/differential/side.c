/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/differential/side.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * The process of a side: takes numbers of operations from a pipe, runs them, answers.
 * It is single-threaded, so it changes its identity by ordinary calls; the saved user id
 * stays 0 for the way back, which gives no privilege while the others are not.
 */

typedef struct Persona {
    uid_t uid;
    gid_t gid;
    size_t n_groups;
    gid_t groups[3];
} Persona;

static const Persona personas[OP_PERSONAS] = {
    {0, 0, 0, {0}},
    {1000, 1000, 1, {2000}},
    {1001, 1001, 2, {1000, 2000}},
    {65534, 65534, 0, {0}},
    {1000, 2000, 3, {1000, 1001, 65534}},
    {0, 1000, 1, {1001}},
};

static void become(Side *side, int who)
{
    const Persona *persona = &personas[who];
    if (side->who == who) {
        return;
    }
    if (setresuid(0, 0, 0) < 0 || setgroups(persona->n_groups, persona->groups) < 0 ||
        setresgid(persona->gid, persona->gid, persona->gid) < 0 ||
        setresuid(persona->uid, persona->uid, 0) < 0) {
        _exit(101);
    }
    side->who = who;
}

static int enter(Side *side, const char *directory)
{
    struct stat st;
    side->proc_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
    side->root_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    side->buffer = aligned_alloc(4096, SIDE_BUFFER);
    if (side->proc_fd < 0 || side->root_fd < 0 || side->buffer == NULL ||
        fstat(side->root_fd, &st) < 0 || fchdir(side->root_fd) < 0 || chroot(".") < 0) {
        return -errno;
    }
    side->device = st.st_dev;
    for (int i = 0; i < SIDE_SLOTS; i++) {
        side->slots[i].fd = -1;
    }
    (void)umask(022);
    (void)signal(SIGPIPE, SIG_IGN);
    return 0;
}

static void run(Side *side, SideResults *results, const Op *ops, const uint32_t order[2])
{
    side->out = (Out){results->bytes, 0, sizeof(results->bytes)};
    for (uint32_t i = 0; i < order[1]; i++) {
        side->index = order[0] + i;
        become(side, ops[i].who);
        ops_rows[ops[i].code].run(side, &ops[i]);
        results->end[i] = side->out.size;
    }
}

static void serve(Side *side, SideResults *results, const Op *ops, const int pipes[2])
{
    uint32_t order[2];
    while (read(pipes[0], order, sizeof(order)) == (ssize_t)sizeof(order)) {
        run(side, results, ops, order);
        if (write(pipes[1], order, 1) != 1) {
            break;
        }
    }
}

static void be_side(const char *directory, Side *side, SideResults *results,
                    const Op *ops, const int pipes[2])
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* The other side's pipes must not stay open here. */
    if (dup2(pipes[0], 0) < 0 || dup2(pipes[1], 1) < 0 || close_range(3, ~0u, 0) < 0 ||
        enter(side, directory) < 0) {
        _exit(102);
    }
    serve(side, results, ops, (const int[2]){0, 1});
    _exit(0);
}

int64_t side_far(const char *directory)
{
    g_autofree char *path = g_strdup_printf("%s/far-XXXXXX", directory);
    int fd = g_mkstemp(path);
    int64_t far = 0;
    for (int bit = 62; bit >= 0; bit--) {
        int64_t further = far | INT64_C(1) << bit;
        far = lseek(fd, further, SEEK_SET) >= 0 ? further : far;
    }
    (void)close(fd);
    (void)unlink(path);
    return far;
}

int side_start(SideProcess *process, const char *directory, const Mode *mode, bool mount,
               const Op *ops)
{
    int down[2], up[2];
    process->results = mmap(NULL, sizeof(SideResults), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (process->results == MAP_FAILED || pipe2(down, O_CLOEXEC) < 0 ||
        pipe2(up, O_CLOEXEC) < 0) {
        return -errno;
    }
    process->pid = fork();
    if (process->pid == 0) {
        Side side = {.mode = mode, .mount = mount};
        be_side(directory, &side, process->results, ops, (const int[2]){down[0], up[1]});
    }
    (void)close(down[0]);
    (void)close(up[1]);
    process->to = down[1];
    process->from = up[0];
    return process->pid < 0 ? -errno : 0;
}

void side_begin(SideProcess *process, uint32_t first, uint32_t n)
{
    const uint32_t order[2] = {first, n};
    (void)!write(process->to, order, sizeof(order)); /* side_finish() sees it */
}

int side_finish(SideProcess *process)
{
    char done;
    return read(process->from, &done, 1) == 1 ? 0 : -EPIPE;
}

void side_stop(SideProcess *process)
{
    (void)close(process->to);
    (void)close(process->from);
    while (waitpid(process->pid, NULL, 0) < 0 && errno == EINTR) {
    }
    (void)munmap(process->results, sizeof(SideResults));
}
