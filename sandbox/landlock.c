/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Landlock: what the process may still do to files and to other processes, asked by the
 * kernel at every opening and at every change of a directory. It holds also where the
 * root directory does not: for descriptors that lead elsewhere, for the folder of the
 * socket, and without namespaces; and it holds if the system-call filter is off.
 *
 * Rules belong to inodes, not to mounts: what the host mounts in the share later lies
 * beneath it. What lies beneath nothing any more, because the host has unmounted it or
 * moved it out of the share, is refused with EACCES.
 *
 * Neither chmod(2) and chown(2) nor looking at files is its business; nor is a descriptor
 * that is open.
 */
#include <errno.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox/internal.h"
#include "sandbox/sanitizer.h"
#include "virtiofsd/log.h"

/* <linux/landlock.h>, of which Debian 12 has but the second version. */
#define CREATE_RULESET_VERSION (1u << 0)
#define CREATE_RULESET_ERRATA (1u << 1)
#define RULE_PATH_BENEATH 1
#define RESTRICT_SELF_LOG_SAME_EXEC_OFF (1u << 0)

struct ruleset_attr {
    uint64_t handled_access_fs;
    uint64_t handled_access_net;
    uint64_t scoped;
};

struct path_beneath_attr {
    uint64_t allowed_access;
    int32_t parent_fd;
} __attribute__((packed));

#define FS_EXECUTE (UINT64_C(1) << 0)
#define FS_WRITE_FILE (UINT64_C(1) << 1)
#define FS_READ_FILE (UINT64_C(1) << 2)
#define FS_READ_DIR (UINT64_C(1) << 3)
#define FS_REMOVE_FILE (UINT64_C(1) << 5)
#define FS_TRUNCATE (UINT64_C(1) << 14)
#define FS_IOCTL_DEV (UINT64_C(1) << 15)

#define FS_OF_FILES (FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE)
#define FS_OF_READERS (FS_READ_FILE | FS_READ_DIR)

/* The first version makes a rename into another directory impossible. */
#define ABI_LEAST 2
#define ABI_LOGGING 7
/* That a file is found to be beneath a directory that nobody has walked through. */
#define ERRATUM_DISCONNECTED (1 << 2)

/* What each version knows, from the second on: that is asked for, and all else refused.
 */
static const struct Version {
    int abi;
    struct ruleset_attr attr;
} versions[] = {
    {2, {0x3fff, 0, 0}},
    {3, {0x7fff, 0, 0}},
    {4, {0x7fff, 0x3, 0}}, /* TCP: bind, connect */
    {5, {0xffff, 0x3, 0}},
    {6, {0xffff, 0x3, 0x3}}, /* abstract sockets and signals of others */
};

static long create_ruleset(const struct ruleset_attr *attr, size_t size, uint32_t flags)
{
    return syscall(SYS_landlock_create_ruleset, attr, size, flags);
}

/* Return: the version to use, 0 for none. */
static int choose_version(const SandboxConfig *config)
{
    if (config->no_landlock) {
        log_debug("Landlock is not used: --no-landlock");
        return 0;
    }
    if (config->mode == SANDBOX_NONE && (SANDBOX_ASAN || SANDBOX_TSAN)) {
        log_debug("Landlock is not used: a sanitizer looks into /proc");
        return 0;
    }
    long abi = create_ruleset(NULL, 0, CREATE_RULESET_VERSION);
    if (abi < ABI_LEAST) {
        log_debug("Landlock is not used: this kernel has none, or its first version");
        return 0;
    }
    if (config->file_handles) {
        long errata = create_ruleset(NULL, 0, CREATE_RULESET_ERRATA);
        if (errata < 0 || (errata & ERRATUM_DISCONNECTED) == 0) {
            log_debug("Landlock is not used: on this kernel it refuses files that are"
                      " opened by handle");
            return 0;
        }
    }
    return (int)abi;
}

static struct ruleset_attr attributes_of(int abi)
{
    struct ruleset_attr attr = versions[0].attr;

    for (size_t i = 0; i < G_N_ELEMENTS(versions) && versions[i].abi <= abi; i++) {
        attr = versions[i].attr;
    }
    return attr;
}

static bool allow(int ruleset, int fd, uint64_t access)
{
    const struct path_beneath_attr rule = {.allowed_access = access, .parent_fd = fd};

    return syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &rule, 0) == 0;
}

/* Whatever is done with files, but to run them and to control devices. */
static bool allow_share(int ruleset, int share, bool readonly, uint64_t handled)
{
    uint64_t access = handled & ~(FS_EXECUTE | FS_IOCTL_DEV);
    struct stat st;

    if (fstat(share, &st) < 0) {
        return false;
    }
    access &= readonly ? FS_OF_READERS : UINT64_MAX;
    access &= S_ISDIR(st.st_mode) ? UINT64_MAX : FS_OF_FILES;
    return allow(ruleset, share, access);
}

static bool restrict_self(int ruleset, int abi)
{
    /* A guest that asks again and again for what was unmounted is not to fill the host's
     * audit log. */
    const uint32_t flags = abi >= ABI_LOGGING ? RESTRICT_SELF_LOG_SAME_EXEC_OFF : 0;

    return syscall(SYS_landlock_restrict_self, ruleset, flags) == 0;
}

bool sandbox_landlock(const SandboxConfig *config, int share, int folder, bool *ret_is_on,
                      GError **error)
{
    const int abi = choose_version(config);

    *ret_is_on = false;
    if (abi == 0) {
        return true;
    }
    const struct ruleset_attr attr = attributes_of(abi);
    g_auto(AutoFd) ruleset = (int)create_ruleset(&attr, sizeof(attr), 0);
    if (ruleset < 0 ||
        !allow_share(ruleset, share, config->readonly, attr.handled_access_fs) ||
        (folder >= 0 && !allow(ruleset, folder, FS_REMOVE_FILE)) ||
        !restrict_self(ruleset, abi)) {
        return sandbox_fail(error, errno, "cannot use Landlock",
                            "or leave it out with --no-landlock");
    }
    *ret_is_on = true;
    return true;
}
