/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
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

/* slot, how, page, length, seed, msync */
void run_map(Side *side, const Op *op)
{
    static const int prots[] = {PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE,
                                PROT_READ | PROT_WRITE};
    static const int kinds[] = {MAP_SHARED, MAP_SHARED, MAP_PRIVATE, MAP_SHARED_VALIDATE};
    size_t how = (size_t)op->arg[1] & 3, length = (size_t)op->arg[3] % (16 * PAGE);
    struct sigaction action = {.sa_handler = on_bus_error};
    if (!side->mode->mmap && kinds[how] != MAP_PRIVATE) {
        return; /* the guest's kernel refuses these without a page cache */
    }
    uint8_t *map = mmap(NULL, length, prots[how], kinds[how], run_fd(side, op, 0),
                        (op->arg[2] & 15) * PAGE);
    if (map == MAP_FAILED) {
        out_return(&side->out, -1);
        return;
    }
    (void)sigaction(SIGBUS, &action, NULL);
    touch(side, op, map, length);
    (void)munmap(map, length);
}
