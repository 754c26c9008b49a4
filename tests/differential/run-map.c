/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/differential/run.h"

/*
 * Mappings. Beyond the end of the file they end in SIGBUS, which is an answer like
 * another.
 */

#define PAGE 4096

static sigjmp_buf escape;

static void on_bus_error(int number)
{
    (void)number;
    siglongjmp(escape, 1);
}

/* The accesses themselves. */
static void touch(Side *side, const Op *op, uint8_t *map, size_t length)
{
    if (sigsetjmp(escape, 1) != 0) {
        out_number(&side->out, FIELD_NUMBER, SIGBUS);
        return;
    }
    if (op->arg[1] == 0) {
        out_data(&side->out, map, length);
        return;
    }
    run_fill(side, op->arg[4], length);
    size_t from = length / 3;
    memcpy(map + from, side->buffer, length - from);
    if (op->arg[5] != 0) {
        out_return(&side->out, msync(map, length, op_int(op, 5)));
    }
}

/* What is stored behind the end of the file, in its last page, is nobody's business: file
 * systems differ in whether they clear it before the file grows. */
static size_t length_of(int fd, off_t offset, size_t length)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || st.st_size <= offset) {
        return length;
    }
    return MIN(length, (size_t)(st.st_size - offset));
}

/* slot, how, page, length, seed, msync */
void run_map(Side *side, const Op *op)
{
    static const int prots[] = {PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE,
                                PROT_READ | PROT_WRITE};
    static const int kinds[] = {MAP_SHARED, MAP_SHARED, MAP_PRIVATE, MAP_SHARED_VALIDATE};
    size_t how = (size_t)op->arg[1] & 3, length = (size_t)op->arg[3] % (16 * PAGE);
    side->mapped = true;
    struct sigaction action = {.sa_handler = on_bus_error};
    if (!side->mode->mmap && kinds[how] != MAP_PRIVATE) {
        return; /* the guest's kernel refuses these without a page cache */
    }
    int fd = run_fd(side, op, 0);
    bool stores = how == 1 || how == 3;
    if (stores && fgetxattr(fd, "security.capability", NULL, 0) > 0) {
        return; /* to the host it is a write when the page is written back */
    }
    off_t offset = (op->arg[2] & 15) * PAGE;
    /* On overlayfs, who opened a file before it was copied up maps what it was then. */
    if (side->mode->overlay && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY) {
        return;
    }
    uint8_t *map = mmap(NULL, length, prots[how], kinds[how], fd, offset);
    if (map == MAP_FAILED) {
        out_return(&side->out, -1);
        return;
    }
    (void)sigaction(SIGBUS, &action, NULL);
    touch(side, op, map, length_of(fd, offset, length));
    (void)munmap(map, length);
    if (stores) {
        run_forget_holes(side, fd);
        run_written_back(side, fd);
    }
    run_forget_access(side, fd);
}
