/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

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
    r = set ? ioctl(file.handle->fd, FS_IOC_SETFLAGS, &value)
            : ioctl(file.handle->fd, FS_IOC_GETFLAGS, &value);
    if (r < 0) {
        return pt_error();
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
    r = set ? ioctl(file.handle->fd, FS_IOC_FSSETXATTR, attr)
            : ioctl(file.handle->fd, FS_IOC_FSGETXATTR, attr);
    return r < 0 ? pt_error() : 0;
}
