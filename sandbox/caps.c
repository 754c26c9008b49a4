/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups, capabilities and no_new_privs.
 *
 * libcap-ng knows the names; the sets are changed by our own system calls, because
 * capng_apply() reads /proc/PID/status by its path, and by then that path leads into the
 * share.
 */
#include <cap-ng.h>
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox/internal.h"
#include "virtiofsd/log.h"

#define CAP_BIT(cap) (UINT64_C(1) << (cap))

/* Files of any owner, made and changed on behalf of any user. */
#define CAPS_KEPT                                                                        \
    (CAP_BIT(CAP_CHOWN) | CAP_BIT(CAP_DAC_OVERRIDE) | CAP_BIT(CAP_FOWNER) |              \
     CAP_BIT(CAP_FSETID) | CAP_BIT(CAP_SETGID) | CAP_BIT(CAP_SETUID) |                   \
     CAP_BIT(CAP_MKNOD) | CAP_BIT(CAP_SETFCAP))

/* ---- --modcaps -----------------------------------------------------------------------
 */

typedef struct ModCaps {
    uint64_t added;
    uint64_t removed;
} ModCaps;

static bool parse_one(const char *word, ModCaps *caps, GError **error)
{
    if (word[0] != '+' && word[0] != '-') {
        g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_INVAL,
                    "\"%s\" is neither +CAPABILITY nor -CAPABILITY;"
                    " several are separated by ':'",
                    word);
        return false;
    }
    int cap = capng_name_to_capability(word + 1);
    if (cap < 0 || cap > CAP_LAST_CAP) {
        g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_INVAL,
                    "\"%s\" names no capability; write it without CAP_, such as"
                    " +sys_admin",
                    word);
        return false;
    }
    uint64_t *now = word[0] == '+' ? &caps->added : &caps->removed;
    uint64_t *other = word[0] == '+' ? &caps->removed : &caps->added;
    *now |= CAP_BIT(cap);
    *other &= ~CAP_BIT(cap); /* the last word wins */
    return true;
}

static bool parse_list(const char *list, ModCaps *ret_caps, GError **error)
{
    *ret_caps = (ModCaps){0};
    if (list == NULL) {
        return true;
    }
    g_auto(GStrv) words = g_strsplit(list, ":", -1);
    if (words[0] == NULL) {
        g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_INVAL,
                    "the list of capabilities is empty");
        return false;
    }
    for (char **word = words; *word != NULL; word++) {
        if (!parse_one(*word, ret_caps, error)) {
            return false;
        }
    }
    return true;
}

bool sandbox_check_modcaps(const char *list, GError **error)
{
    ModCaps caps;

    return parse_list(list, &caps, error);
}

/* ---- what this thread has
 * -------------------------------------------------------------- */

static bool read_permitted(uint64_t *ret_permitted, GError **error)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

    if (syscall(SYS_capget, &header, data) < 0) {
        return sandbox_fail(error, errno, "cannot read our capabilities", NULL);
    }
    *ret_permitted = (uint64_t)data[1].permitted << 32 | data[0].permitted;
    return true;
}

static bool write_sets(uint64_t kept, GError **error)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    const uint32_t low = (uint32_t)kept;
    const uint32_t high = (uint32_t)(kept >> 32);
    const struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {
        {.effective = low, .permitted = low}, {.effective = high, .permitted = high}};

    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0) {
        return sandbox_fail(error, errno, "cannot clear the ambient capabilities", NULL);
    }
    if (syscall(SYS_capset, &header, data) < 0) {
        return sandbox_fail(error, errno, "cannot drop capabilities", NULL);
    }
    return true;
}

/* The kernel may know more capabilities than our headers: it says where they end. */
static bool empty_bounding_set(GError **error)
{
    for (unsigned long cap = 0;; cap++) {
        int has = prctl(PR_CAPBSET_READ, cap, 0, 0, 0);
        if (has < 0) {
            return true;
        }
        if (has > 0 && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) {
            return sandbox_fail(error, errno, "cannot empty the capability bounding set",
                                "start with CAP_SETPCAP");
        }
    }
}

static void describe(uint64_t caps, char *out, size_t size)
{
    size_t used = 0;

    out[0] = '\0';
    for (unsigned int cap = 0; cap <= CAP_LAST_CAP && used < size; cap++) {
        const char *name =
            (caps & CAP_BIT(cap)) != 0 ? capng_capability_to_name(cap) : NULL;
        if (name != NULL) {
            int n = snprintf(out + used, size - used, "%s%s", used > 0 ? " " : "", name);
            used += n > 0 ? (size_t)n : 0;
        }
    }
}

/* What of @wanted can be kept: nobody gets what he has not got. */
static bool choose(const SandboxConfig *config, const ModCaps *mod, uint64_t *ret_kept,
                   GError **error)
{
    const uint64_t wanted = (CAPS_KEPT | mod->added) & ~mod->removed;
    /* Whoever needs it finds out whether it is there. */
    const uint64_t welcome =
        config->file_handles ? CAP_BIT(CAP_DAC_READ_SEARCH) & ~mod->removed : 0;
    uint64_t permitted = 0;
    char names[512];

    if (!read_permitted(&permitted, error)) {
        return false;
    }
    *ret_kept = (wanted | welcome) & permitted;
    const uint64_t missing = wanted & ~permitted;
    describe(missing, names, sizeof(names));
    if ((missing & mod->added) != 0) {
        g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_PERM,
                    "cannot keep a capability that we were not started with (%s);"
                    " change --modcaps",
                    names);
        return false;
    }
    if (missing != 0) {
        log_warn("started without the capabilities %s: some requests will fail", names);
    }
    return true;
}

bool sandbox_drop_caps(const SandboxConfig *config, GError **error)
{
    ModCaps mod;
    uint64_t kept = 0;

    return parse_list(config->modcaps, &mod, error) &&
           choose(config, &mod, &kept, error) && empty_bounding_set(error) &&
           write_sets(kept, error);
}

/* ---- the rest ------------------------------------------------------------------------
 */

/* In a user namespace whose owner could not drop groups, nobody can, by design. */
static bool groups_are_fixed(void)
{
    char text[8] = "";
    FILE *file = fopen("/proc/self/setgroups", "re");

    if (file == NULL) {
        return false;
    }
    bool is_read = fgets(text, sizeof(text), file) != NULL;
    (void)fclose(file); /* only read from */
    return is_read && g_str_has_prefix(text, "deny");
}

bool sandbox_drop_groups(GError **error)
{
    if (setgroups(0, NULL) == 0 || getgroups(0, NULL) == 0) {
        return true;
    }
    if (errno == EPERM && groups_are_fixed()) {
        log_warn("supplementary groups stay: this user namespace does not let them go");
        return true;
    }
    return sandbox_fail(error, errno, "cannot drop supplementary groups",
                        "start with CAP_SETGID");
}

bool sandbox_no_new_privs(GError **error)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
        return sandbox_fail(error, errno, "cannot set no_new_privs", NULL);
    }
    return true;
}
