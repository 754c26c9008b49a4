/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tests/differential/compare.h"
#include "tests/differential/run.h"

/*
 * The exceptions: differences that FUSE makes inevitable, one by one. HACKING.md, "Where
 * a guest can tell the share from its own file system", tells them to people. What is
 * never tried natively, because FUSE's client refuses it by itself, is in run-*.c.
 */

typedef struct Exception {
    const char *name;
    const char *reason;
    bool (*covers)(const Seen *seen);
    unsigned met;
} Exception;

bool except_recent(const Comparer *comparer, OutTime time_)
{
    return time_.s >= comparer->start - 2 && time_.s <= time(NULL) + 2;
}

static bool is_part(const Seen *seen, const char *field, const char *part)
{
    return strcmp(seen->field, field) == 0 && strcmp(seen->part, part) == 0;
}

static bool cached_access_time(const Seen *seen)
{
    if (!is_part(seen, "stat", "atime")) {
        return false;
    }
    const OutStat *native = seen->native;
    const Mode *mode = seen->comparer->mode;
    bool cached = S_ISREG(native->mode) ? mode->cached : mode->cached_names;
    return cached && except_recent(seen->comparer, native->atime);
}

static Exception exceptions[] = {
    {"cached access time",
     "a read that the guest's page cache answers never reaches the host, so the host's "
     "file system does not see the access",
     cached_access_time, 0},
};

bool except_covers(const Seen *seen)
{
    for (size_t i = 0; i < G_N_ELEMENTS(exceptions); i++) {
        if (exceptions[i].covers(seen)) {
            exceptions[i].met++;
            return true;
        }
    }
    return false;
}

void except_report(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(exceptions); i++) {
        (void)printf("exception met %u times: %s\n", exceptions[i].met,
                     exceptions[i].name);
    }
}
