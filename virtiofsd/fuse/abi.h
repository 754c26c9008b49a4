/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_FUSE_ABI_H
#define VIRTIOFSD_FUSE_ABI_H

#include <linux/fuse.h>
#include <stdint.h>

#include "virtiofsd/fuse/abi-statx.h"

/*
 * The FUSE wire format: the host's <linux/fuse.h>, and what a header as old as 7.38 lacks
 * of 7.45. Later enumerators have names of our own (ABI_*), because an enumerator cannot
 * be tested for with #ifndef.
 */

/** The protocol that we speak, whatever the header's age. */
#define ABI_MAJOR 7u
#define ABI_MINOR 45u
/** The oldest minor version served: the first with virtio-fs. */
#define ABI_MINOR_MIN 31u

/* INIT flags of 7.39 and later. */
#ifndef FUSE_CREATE_SUPP_GROUP
#define FUSE_CREATE_SUPP_GROUP (1ULL << 34)
#endif
#ifndef FUSE_DIRECT_IO_ALLOW_MMAP
#define FUSE_DIRECT_IO_ALLOW_MMAP (1ULL << 36)
#endif
#ifndef FUSE_NO_EXPORT_SUPPORT
#define FUSE_NO_EXPORT_SUPPORT (1ULL << 38)
#endif
#ifndef FUSE_ALLOW_IDMAP
#define FUSE_ALLOW_IDMAP (1ULL << 40)
#endif

/* Opcodes of 7.39 and later. */
#define ABI_STATX 52u
#define ABI_COPY_FILE_RANGE_64 53u
/** One more than the largest opcode known. */
#define ABI_OPCODES 54u

/** Extension type: supplementary groups of the caller. */
#define ABI_EXT_GROUPS 32u

/** struct abi_supp_groups - what follows the header of an ABI_EXT_GROUPS extension. */
struct abi_supp_groups {
    uint32_t nr_groups;
    uint32_t groups[];
};

/** INIT's answer: mappings are multiples of this power of two, FUSE_DAX_SZ. */
#define ABI_MAP_ALIGNMENT 21u

/** INIT before 7.36 ends before flags2. */
#define ABI_COMPAT_INIT_IN_SIZE 16u

_Static_assert(sizeof(struct fuse_in_header) == 40, "FUSE ABI");
_Static_assert(sizeof(struct fuse_out_header) == 16, "FUSE ABI");
_Static_assert(sizeof(struct fuse_attr) == 88, "FUSE ABI");
_Static_assert(sizeof(struct fuse_entry_out) == 128, "FUSE ABI");
_Static_assert(sizeof(struct fuse_attr_out) == 104, "FUSE ABI");
_Static_assert(sizeof(struct fuse_open_out) == 16, "FUSE ABI");
_Static_assert(sizeof(struct fuse_write_out) == 8, "FUSE ABI");
_Static_assert(sizeof(struct fuse_statfs_out) == 80, "FUSE ABI");
_Static_assert(sizeof(struct fuse_lseek_out) == 8, "FUSE ABI");
_Static_assert(sizeof(struct fuse_lk_out) == 24, "FUSE ABI");
_Static_assert(sizeof(struct fuse_bmap_out) == 8, "FUSE ABI");
_Static_assert(sizeof(struct fuse_ioctl_out) == 16, "FUSE ABI");
_Static_assert(sizeof(struct fuse_poll_out) == 8, "FUSE ABI");
_Static_assert(sizeof(struct fuse_dirent) == 24, "FUSE ABI");
_Static_assert(sizeof(struct fuse_direntplus) == 152, "FUSE ABI");
_Static_assert(sizeof(struct fuse_init_in) == 64, "FUSE ABI");
_Static_assert(sizeof(struct fuse_init_out) == 64, "FUSE ABI");
_Static_assert(sizeof(struct fuse_forget_in) == 8, "FUSE ABI");
_Static_assert(sizeof(struct fuse_forget_one) == 16, "FUSE ABI");
_Static_assert(sizeof(struct fuse_batch_forget_in) == 8, "FUSE ABI");
_Static_assert(sizeof(struct fuse_getattr_in) == 16, "FUSE ABI");
_Static_assert(sizeof(struct fuse_setattr_in) == 88, "FUSE ABI");
_Static_assert(sizeof(struct fuse_mknod_in) == 16, "FUSE ABI");
_Static_assert(sizeof(struct fuse_mkdir_in) == 8, "FUSE ABI");
_Static_assert(sizeof(struct fuse_rename_in) == 8, "FUSE ABI");
_Static_assert(sizeof(struct fuse_rename2_in) == 16, "FUSE ABI");
_Static_assert(sizeof(struct fuse_link_in) == 8, "FUSE ABI");
_Static_assert(sizeof(struct fuse_open_in) == 8, "FUSE ABI");
_Static_assert(sizeof(struct fuse_create_in) == 16, "FUSE ABI");
_Static_assert(sizeof(struct fuse_read_in) == 40, "FUSE ABI");
_Static_assert(sizeof(struct fuse_write_in) == 40, "FUSE ABI");
_Static_assert(sizeof(struct fuse_release_in) == 24, "FUSE ABI");
_Static_assert(sizeof(struct fuse_flush_in) == 24, "FUSE ABI");
_Static_assert(sizeof(struct fuse_fsync_in) == 16, "FUSE ABI");
_Static_assert(sizeof(struct fuse_setxattr_in) == 16, "FUSE ABI");
_Static_assert(sizeof(struct fuse_getxattr_in) == 8, "FUSE ABI");
_Static_assert(sizeof(struct fuse_lk_in) == 48, "FUSE ABI");
_Static_assert(sizeof(struct fuse_access_in) == 8, "FUSE ABI");
_Static_assert(sizeof(struct fuse_interrupt_in) == 8, "FUSE ABI");
_Static_assert(sizeof(struct fuse_bmap_in) == 16, "FUSE ABI");
_Static_assert(sizeof(struct fuse_ioctl_in) == 32, "FUSE ABI");
_Static_assert(sizeof(struct fuse_poll_in) == 24, "FUSE ABI");
_Static_assert(sizeof(struct fuse_notify_retrieve_in) == 40, "FUSE ABI");
_Static_assert(sizeof(struct fuse_fallocate_in) == 32, "FUSE ABI");
_Static_assert(sizeof(struct fuse_lseek_in) == 24, "FUSE ABI");
_Static_assert(sizeof(struct fuse_copy_file_range_in) == 56, "FUSE ABI");
_Static_assert(sizeof(struct fuse_setupmapping_in) == 40, "FUSE ABI");
_Static_assert(sizeof(struct fuse_removemapping_in) == 4, "FUSE ABI");
_Static_assert(sizeof(struct fuse_removemapping_one) == 16, "FUSE ABI");
_Static_assert(sizeof(struct fuse_syncfs_in) == 8, "FUSE ABI");
_Static_assert(sizeof(struct fuse_ext_header) == 8, "FUSE ABI");
_Static_assert(sizeof(struct fuse_secctx_header) == 8, "FUSE ABI");
_Static_assert(sizeof(struct fuse_secctx) == 8, "FUSE ABI");

#endif
