/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Namespaces of our own. One process, no fork: a PID namespace would need a second one,
 * and whoever started us watches and kills the process that it started.
 */
#include <errno.h>
#include <sched.h>
#include <sys/mount.h>

#include "sandbox/internal.h"

bool sandbox_unshare(GError **error)
{
    if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) < 0) {
        return sandbox_fail(error, errno,
                            "cannot enter new mount, network, IPC and UTS namespaces",
                            "run as root with CAP_SYS_ADMIN, or use --sandbox=none");
    }
    /* Slaves, not private: what the host mounts in the share from now on must appear here
     * and what it unmounts must go, and nothing that we mount may appear there. */
    if (mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) < 0) {
        return sandbox_fail(error, errno, "cannot detach our mounts from the host's",
                            "the root directory must be a mount point");
    }
    return true;
}
