/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Resource limits. A looked-up file may cost a descriptor, so their number decides how
 * much of a tree a guest can use at once.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>

#include "sandbox/internal.h"
#include "virtiofsd/log.h"

/* What the default rule asks for. */
#define FILES_DEFAULT UINT64_C(1000000)
/* fs.nr_open of a kernel that does not tell: the value it boots with. */
#define NR_OPEN_FALLBACK UINT64_C(1048576)

void sandbox_limit_core(void)
{
    static const struct rlimit none = {.rlim_cur = 0, .rlim_max = 0};

    /* Lowering a limit needs no privilege and cannot fail. */
    (void)setrlimit(RLIMIT_CORE, &none);
}

void sandbox_limit_processes(void)
{
    static const struct rlimit none = {.rlim_cur = 0, .rlim_max = 0};

    /* Likewise. */
    (void)setrlimit(RLIMIT_NPROC, &none);
}

/* The kernel's ceiling for RLIMIT_NOFILE, for root too. */
static uint64_t read_nr_open(void)
{
    uint64_t value = NR_OPEN_FALLBACK;
    FILE *file = fopen("/proc/sys/fs/nr_open", "re");

    if (file != NULL) {
        if (fscanf(file, "%" SCNu64, &value) != 1 || value == 0) {
            value = NR_OPEN_FALLBACK;
        }
        (void)fclose(file); /* only read from */
    }
    return value;
}

static bool set_both(uint64_t value)
{
    const struct rlimit limit = {.rlim_cur = value, .rlim_max = value};

    return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

static bool set_explicit(uint64_t wanted, GError **error)
{
    uint64_t nr_open = read_nr_open();

    if (wanted > nr_open) {
        g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_INVAL,
                    "cannot set the limit of open files to %" PRIu64
                    ": the kernel allows %" PRIu64
                    "; raise the sysctl fs.nr_open or lower --rlimit-nofile",
                    wanted, nr_open);
        return false;
    }
    if (!set_both(wanted)) {
        int code = errno;
        g_autofree char *what =
            g_strdup_printf("cannot set the limit of open files to %" PRIu64, wanted);
        return sandbox_fail(error, code, what,
                            "raise the hard limit or lower --rlimit-nofile");
    }
    return true;
}

static bool set_default(const struct rlimit *now, GError **error)
{
    uint64_t wanted = MIN(FILES_DEFAULT, read_nr_open());

    if (now->rlim_cur >= wanted || set_both(wanted)) {
        return true;
    }
    if (errno != EPERM) {
        return sandbox_fail(error, errno, "cannot raise the limit of open files",
                            "give --rlimit-nofile a value, or 0 to leave the limit");
    }
    log_warn("the limit of open files stays at the hard limit of %" PRIu64 " (%" PRIu64
             " wanted): a guest that opens more files at once gets errors",
             (uint64_t)now->rlim_max, wanted);
    const struct rlimit all = {.rlim_cur = now->rlim_max, .rlim_max = now->rlim_max};
    if (setrlimit(RLIMIT_NOFILE, &all) < 0) {
        return sandbox_fail(error, errno, "cannot raise the limit of open files", NULL);
    }
    return true;
}

bool sandbox_limit_files(uint64_t wanted, uint64_t *ret_limit, GError **error)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) {
        return sandbox_fail(error, errno, "cannot read the limit of open files", NULL);
    }
    bool done = true;
    if (wanted == UINT64_MAX) {
        done = set_default(&limit, error);
    } else if (wanted != 0) {
        done = set_explicit(wanted, error);
    }
    if (!done) {
        return false;
    }
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) {
        return sandbox_fail(error, errno, "cannot read the limit of open files", NULL);
    }
    *ret_limit = limit.rlim_cur;
    return true;
}
