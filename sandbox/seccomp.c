/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The system-call filter: seccomp-list.h made into a program that the kernel runs before
 * each call of any thread. Calls of another architecture's numbering kill the process
 * whatever --seccomp says.
 */
#include <errno.h>
#include <unistd.h>

#include "sandbox/internal.h"
#include "sandbox/sanitizer.h"
#include "sandbox/seccomp-list.h"

/* Numbers of calls are searched, not compared one after the other. */
#define OPTIMIZE_TREE 2

static uint32_t default_action(SandboxSeccomp mode)
{
    switch (mode) {
    case SANDBOX_SECCOMP_LOG:
        return SCMP_ACT_LOG;
    case SANDBOX_SECCOMP_TRAP:
        return SCMP_ACT_TRAP;
    case SANDBOX_SECCOMP_KILL:
    case SANDBOX_SECCOMP_NONE:
        break;
    }
    return SCMP_ACT_KILL_PROCESS;
}

/* Return: 0 or a negative errno. */
static int set_attributes(scmp_filter_ctx filter)
{
    static const struct {
        enum scmp_filter_attr attribute;
        uint32_t value;
    } attributes[] = {
        {SCMP_FLTATR_API_SYSRAWRC, 1},
        {SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS},
        {SCMP_FLTATR_CTL_NNP, 1},
        {SCMP_FLTATR_CTL_TSYNC, 1},
        {SCMP_FLTATR_CTL_OPTIMIZE, OPTIMIZE_TREE},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(attributes); i++) {
        int result =
            seccomp_attr_set(filter, attributes[i].attribute, attributes[i].value);
        if (result < 0) {
            return result;
        }
    }
    return 0;
}

/* Return: 0 or a negative errno. */
static int add_row(scmp_filter_ctx filter, const SeccompRow *row)
{
    const struct scmp_arg_cmp arguments[] = {
        SCMP_CMP(row->index, SCMP_CMP_MASKED_EQ, row->mask, row->value),
        SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0),
    };

    switch (row->answer) {
    case SECCOMP_ALLOW:
        return seccomp_rule_add_exact_array(filter, SCMP_ACT_ALLOW, row->call, 0, NULL);
    case SECCOMP_ALLOW_IF:
        return seccomp_rule_add_exact_array(filter, SCMP_ACT_ALLOW, row->call, 1,
                                            arguments);
    case SECCOMP_ALLOW_SELF:
        return seccomp_rule_add_exact_array(filter, SCMP_ACT_ALLOW, row->call, 2,
                                            arguments);
    case SECCOMP_ABSENT:
        return seccomp_rule_add_exact_array(filter, SCMP_ACT_ERRNO(ENOENT), row->call, 0,
                                            NULL);
    }
    g_assert_not_reached();
}

static bool add_rows(scmp_filter_ctx filter, const SeccompRow *rows, size_t n_rows,
                     GError **error)
{
    for (size_t i = 0; i < n_rows; i++) {
        int result = rows[i].call < 0 ? 0 : add_row(filter, &rows[i]);
        if (result < 0) {
            g_autofree char *what =
                g_strdup_printf("cannot allow the system call %s", rows[i].name);
            return sandbox_fail(error, -result, what, NULL);
        }
    }
    return true;
}

static bool build(const SandboxConfig *config, scmp_filter_ctx filter, GError **error)
{
    int result = set_attributes(filter);

    if (result < 0) {
        return sandbox_fail(error, -result, "cannot set up the system-call filter",
                            "libseccomp 2.5 or newer is needed");
    }
    return add_rows(filter, seccomp_list, G_N_ELEMENTS(seccomp_list), error) &&
           (!config->file_handles ||
            add_rows(filter, seccomp_list_file_handles,
                     G_N_ELEMENTS(seccomp_list_file_handles), error));
}

bool sandbox_seal(const SandboxConfig *config, GError **error)
{
    /* A sanitizer looks for leaks in a thread that it makes at the end. */
    if (!SANDBOX_ASAN && !SANDBOX_TSAN) {
        sandbox_limit_processes();
    }
    if (config->seccomp == SANDBOX_SECCOMP_NONE) {
        return true;
    }
    scmp_filter_ctx filter = seccomp_init(default_action(config->seccomp));
    if (filter == NULL) {
        g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_NOSYS,
                    "cannot make a system-call filter: the kernel needs"
                    " CONFIG_SECCOMP_FILTER; or use --seccomp=none");
        return false;
    }
    bool sealed = build(config, filter, error);
    if (sealed) {
        int result = seccomp_load(filter);
        if (result < 0) {
            sealed = sandbox_fail(error, -result, "cannot load the system-call filter",
                                  "the kernel needs CONFIG_SECCOMP_FILTER;"
                                  " or use --seccomp=none");
        }
    }
    seccomp_release(filter);
    return sealed;
}
