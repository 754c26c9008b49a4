/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "passthrough/cred.h"
#include "passthrough/fd.h"
#include "passthrough/handle.h"
#include "passthrough/passthrough.h"

/*
 * The flags of chattr(1) and the attributes of xfs_io(8): on an open file or directory,
 * by four requests that are fixed here, so that no other number ever reaches a file
 * system's ioctl. Who may change them, the guest's kernel checks by owner, as it does for
 * all attributes; what takes a privilege that the daemon has not, as immutability, the
 * host's refuses.
 */

static PtHandleKind kind_of(bool is_directory)
{
    return is_directory ? PT_HANDLE_DIR : PT_HANDLE_FILE;
}

static int control(int fd, bool kill_suidgid, unsigned long request, void *argument)
{
    g_auto(PtPrivileges) privileges = {0};
    int r = pt_privileges_drop(kill_suidgid, &privileges);
    if (r < 0) {
        return r;
    }
    return ioctl(fd, request, argument) < 0 ? pt_error() : 0;
}

int pt_flags(PtFs *fs, const PtFlagsOf *of, bool set, uint32_t *flags)
{
    g_auto(PtOpenFile) file = {0};
    /* The kernel's argument is an int, whatever the request's number says. */
    int value = (int)*flags;
    int r =
        pt_open_file_get(fs, of->nodeid, of->handle, kind_of(of->is_directory), &file);
    if (r < 0) {
        return r;
    }
    r = control(file.handle->fd, set && of->kill_suidgid,
                set ? FS_IOC_SETFLAGS : FS_IOC_GETFLAGS, &value);
    if (r < 0) {
        return r;
    }
    *flags = (uint32_t)value;
    return 0;
}

int pt_xflags(PtFs *fs, const PtFlagsOf *of, bool set, struct fsxattr *attr)
{
    g_auto(PtOpenFile) file = {0};
    int r =
        pt_open_file_get(fs, of->nodeid, of->handle, kind_of(of->is_directory), &file);
    if (r < 0) {
        return r;
    }
    return control(file.handle->fd, set && of->kill_suidgid,
                   set ? FS_IOC_FSSETXATTR : FS_IOC_FSGETXATTR, attr);
}
