/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "passthrough/cred.h"
#include "passthrough/entry.h"
#include "passthrough/fd.h"
#include "passthrough/inode-known.h"
#include "passthrough/inode.h"
#include "passthrough/internal.h"
#include "passthrough/passthrough.h"
#include "passthrough/secctx.h"

/*
 * MKNOD, MKDIR, SYMLINK: made as the caller, then opened and answered as ourselves.
 */

/* A device number in the encoding of the FUSE protocol, which is the kernel's
 * (new_decode_dev() in include/linux/kdev_t.h). */
static dev_t decode_rdev(uint32_t rdev)
{
    return makedev((rdev & 0xfff00) >> 8, (rdev & 0xff) | ((rdev >> 12) & 0xfff00));
}

typedef int (*MakeCall)(int dir_fd, const PtMake *make);

static int call_mknod(int dir_fd, const PtMake *make)
{
    bool device = S_ISCHR(make->mode) || S_ISBLK(make->mode);
    return mknodat(dir_fd, make->name, make->mode & (S_IFMT | 07777),
                   device ? decode_rdev(make->rdev) : 0);
}

static int call_mkdir(int dir_fd, const PtMake *make)
{
    return mkdirat(dir_fd, make->name, make->mode & 07777);
}

static int call_symlink(int dir_fd, const PtMake *make)
{
    return symlinkat(make->target, dir_fd, make->name);
}

static int call_as_caller(PtFs *fs, int dir_fd, const PtMake *make, MakeCall call)
{
    g_auto(PtCred) cred = {0};
    int r = pt_cred_enter(fs, make->caller, &cred);
    if (r < 0) {
        return r;
    }
    r = call(dir_fd, make) < 0 ? pt_error() : 0;
    return pt_denied(fs, r, dir_fd, W_OK | X_OK);
}

static int make_entry(PtFs *fs, const PtMake *make, MakeCall call, PtEntry *ret_entry)
{
    g_auto(PtNode) node = {0};
    g_auto(PtFd) fd = {.fd = -1};
    PtPlace place;
    int r = pt_place_get(fs, make->parent, make->name, &node, &place);
    if (r < 0) {
        return r;
    }
    /* Nothing is made that could not be answered: by a descriptor, or else by its name.
     */
    r = pt_fd_reserve(fs, &fd);
    if (r < 0 && !pt_inode_spares_fd(fs, place.parent)) {
        return r;
    }
    r = call_as_caller(fs, node.fd, make, call);
    if (r < 0) {
        return r;
    }
    if (!pt_thread_usable()) {
        return -EIO;
    }
    r = pt_entry_made(fs, &place, &fd, ret_entry);
    return r < 0 ? r : pt_labels_set_entry(fs, &place, make->labels, ret_entry);
}

int pt_mknod(PtFs *fs, const PtMake *make, PtEntry *ret_entry)
{
    return make_entry(fs, make, call_mknod, ret_entry);
}

int pt_mkdir(PtFs *fs, const PtMake *make, PtEntry *ret_entry)
{
    return make_entry(fs, make, call_mkdir, ret_entry);
}

int pt_symlink(PtFs *fs, const PtMake *make, PtEntry *ret_entry)
{
    return make_entry(fs, make, call_symlink, ret_entry);
}
