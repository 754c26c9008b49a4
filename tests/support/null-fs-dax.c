/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of the file system that does nothing, to be mapped: see null-fs.h.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/support/null-fs-private.h"

bool pt_dax_suits(PtFs *fs, uint64_t nodeid, const struct statx *stx)
{
    return S_ISREG(stx->stx_mode) && stx->stx_size > 0 &&
           stx->stx_size % PT_DAX_SIZE == 0;
}

int pt_dax_open(PtFs *fs, uint64_t nodeid, uint64_t handle, bool writes)
{
    int result = null_fs_begin(fs, nodeid);

    null_fs_note(
        fs,
        &(NullFsCall){
            .function = __func__, .nodeid = nodeid, .handle = handle, .flag = writes},
        NULL, NULL);
    if (result == 0 && nodeid == PT_ROOT_ID) {
        result = -EISDIR;
    }
    if (result == 0) {
        result = memfd_create("null-fs", MFD_CLOEXEC);
    }
    return null_fs_end(fs, result);
}

void pt_dax_close(PtFs *fs, int fd)
{
    (void)close(fd); /* nobody wrote to it */
}
