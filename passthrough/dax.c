/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "passthrough/handle.h"
#include "passthrough/inode.h"
#include "passthrough/internal.h"
#include "passthrough/open-flags.h"
#include "passthrough/passthrough.h"

/*
 * Files that a VMM maps into the guest. It maps them for reading and writing or not at
 * all, so they are opened so, and the guest is told to map only what can be.
 *
 * What the guest's kernel is told to map it reads in no other way: there is no falling
 * back where a mapping fails, the program is told the error.
 */

/* A page fault in a file of a server's waits for that server; and in overlayfs a file
 * that is only read would be copied up when it is opened. */
static bool may_be_mapped(const PtInode *inode)
{
    return S_ISREG(pt_inode_type(inode)) && inode->mount_class != PT_MOUNT_REMOTE &&
           inode->mount_class != PT_MOUNT_OVERLAY;
}

bool pt_dax_suits(PtFs *fs, uint64_t nodeid, const struct statx *stx)
{
    g_auto(PtNode) node = {0};
    if (!S_ISREG(stx->stx_mode) || stx->stx_size == 0 ||
        stx->stx_size % PT_DAX_SIZE != 0 || fs->config.readonly ||
        pt_node_readonly(fs, nodeid)) {
        return false;
    }
    return pt_node_get(fs, nodeid, &node) == 0 && may_be_mapped(node.inode) &&
           syscall(SYS_faccessat2, node.fd, "", R_OK | W_OK,
                   AT_EMPTY_PATH | AT_EACCESS) == 0;
}

/* An open file that is named answers for what it was opened for. */
static int check_handle(PtFs *fs, uint64_t nodeid, uint64_t handle, bool writes)
{
    g_auto(PtOpenFile) file = {0};
    if (handle == PT_NO_HANDLE) {
        return 0;
    }
    int r = pt_open_file_get(fs, nodeid, handle, PT_HANDLE_FILE, &file);
    if (r < 0) {
        return r;
    }
    return writes && !file.handle->writable ? -EACCES : 0;
}

int pt_dax_open(PtFs *fs, uint64_t nodeid, uint64_t handle, bool writes)
{
    g_auto(PtNode) node = {0};
    g_auto(PtFd) fd = {.fd = -1};
    int r = fs->config.readonly ? -EROFS : check_handle(fs, nodeid, handle, writes);
    if (r == 0) {
        r = pt_node_get(fs, nodeid, &node);
    }
    if (r == 0) {
        r = pt_open_type_check(pt_inode_type(node.inode));
    }
    if (r < 0) {
        return r;
    }
    if (!may_be_mapped(node.inode)) {
        return -EOPNOTSUPP;
    }
    pt_fd_reserve_briefly(fs, &fd);
    fd.fd = pt_reopen(fs, node.fd, O_RDWR | O_NOCTTY);
    return fd.fd < 0 ? fd.fd : pt_fd_steal(&fd);
}

void pt_dax_close(PtFs *fs, int fd)
{
    pt_fd_close(fs, fd);
}
