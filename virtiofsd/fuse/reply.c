/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encoders from the file system's terms to FUSE's. Every struct starts as zero, so that
 * padding carries nothing of ours to the guest. What READDIRPLUS makes for each name has
 * no padding, and every member is written once, where it belongs.
 */
#include "virtiofsd/fuse/reply.h"

#include <errno.h>
#include <string.h>

#define NS_PER_S UINT64_C(1000000000)

static uint64_t seconds(uint64_t ns)
{
    return ns / NS_PER_S;
}

static uint32_t nanoseconds(uint64_t ns)
{
    return (uint32_t)(ns % NS_PER_S);
}

int reply_bytes(Request *request, const void *bytes, size_t size)
{
    return iov_write(&request->writer, bytes, size) ? 0 : -EINVAL;
}

/* The kernel's new_encode_dev(): 12 bits of major, 20 of minor. */
static uint32_t encode_rdev(const struct statx *stx)
{
    uint32_t major = stx->stx_rdev_major;
    uint32_t minor = stx->stx_rdev_minor;

    return (minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xfff00) << 12;
}

static uint32_t encode_flags(const Request *request, uint64_t nodeid, const PtAttr *attr)
{
    const SessionAgreed *agreed = &request->session->agreed;
    bool submount = agreed->submounts && (attr->flags & PT_ATTR_SUBMOUNT) != 0;
    bool dax = agreed->dax && pt_dax_suits(request->fs, nodeid, &attr->stx);

    return (submount ? FUSE_ATTR_SUBMOUNT : 0) | (dax ? FUSE_ATTR_DAX : 0);
}

static void encode_attr(const Request *request, uint64_t nodeid, const PtAttr *attr,
                        struct fuse_attr *out)
{
    const struct statx *stx = &attr->stx;
    uint32_t uid;
    uint32_t gid;

    pt_attr_owner(request->fs, attr, &uid, &gid);
    *out = (struct fuse_attr){
        .ino = stx->stx_ino,
        .size = stx->stx_size,
        .blocks = stx->stx_blocks,
        .atime = (uint64_t)stx->stx_atime.tv_sec,
        .mtime = (uint64_t)stx->stx_mtime.tv_sec,
        .ctime = (uint64_t)stx->stx_ctime.tv_sec,
        .atimensec = stx->stx_atime.tv_nsec,
        .mtimensec = stx->stx_mtime.tv_nsec,
        .ctimensec = stx->stx_ctime.tv_nsec,
        .mode = stx->stx_mode,
        .nlink = stx->stx_nlink,
        .uid = uid,
        .gid = gid,
        .rdev = encode_rdev(stx),
        .blksize = stx->stx_blksize,
        .flags = encode_flags(request, nodeid, attr),
    };
}

static void encode_entry(const Request *request, const PtEntry *entry,
                         struct fuse_entry_out *out)
{
    const SessionConfig *config = &request->session->config;

    out->nodeid = entry->nodeid; /* never reused: the generation is part of it */
    out->generation = 0;
    out->entry_valid = seconds(config->entry_timeout_ns);
    out->entry_valid_nsec = nanoseconds(config->entry_timeout_ns);
    out->attr_valid = seconds(config->attr_timeout_ns);
    out->attr_valid_nsec = nanoseconds(config->attr_timeout_ns);
    encode_attr(request, entry->nodeid, &entry->attr, &out->attr);
}

int reply_entry(Request *request, const PtEntry *entry)
{
    struct fuse_entry_out out;

    encode_entry(request, entry, &out);
    return reply_bytes(request, &out, sizeof(out));
}

int reply_negative(Request *request)
{
    uint64_t timeout_ns = request->session->config.negative_timeout_ns;
    struct fuse_entry_out out = {
        .entry_valid = seconds(timeout_ns),
        .entry_valid_nsec = nanoseconds(timeout_ns),
    };

    return reply_bytes(request, &out, sizeof(out));
}

int reply_attr(Request *request, const PtAttr *attr)
{
    uint64_t timeout_ns = request->session->config.attr_timeout_ns;
    struct fuse_attr_out out = {
        .attr_valid = seconds(timeout_ns),
        .attr_valid_nsec = nanoseconds(timeout_ns),
    };

    encode_attr(request, request->header.nodeid, attr, &out.attr);
    return reply_bytes(request, &out, sizeof(out));
}

static struct abi_sx_time encode_time(const struct statx_timestamp *time)
{
    return (struct abi_sx_time){.tv_sec = time->tv_sec, .tv_nsec = time->tv_nsec};
}

/* What is true of the file wherever it is seen; the rest (where mounts begin, DAX) is the
 * guest's kernel's to know. So is the device number. */
#define STATX_ATTRIBUTES                                                                 \
    (STATX_ATTR_COMPRESSED | STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND |                  \
     STATX_ATTR_NODUMP | STATX_ATTR_ENCRYPTED | STATX_ATTR_VERITY)

static struct abi_statx encode_statx(const Request *request, const PtAttr *attr)
{
    const struct statx *stx = &attr->stx;
    uint32_t uid;
    uint32_t gid;

    pt_attr_owner(request->fs, attr, &uid, &gid);
    return (struct abi_statx){
        .mask = stx->stx_mask & (STATX_BASIC_STATS | STATX_BTIME),
        .blksize = stx->stx_blksize,
        .attributes = stx->stx_attributes & STATX_ATTRIBUTES,
        .attributes_mask = stx->stx_attributes_mask & STATX_ATTRIBUTES,
        .nlink = stx->stx_nlink,
        .uid = uid,
        .gid = gid,
        .mode = stx->stx_mode,
        .ino = stx->stx_ino,
        .size = stx->stx_size,
        .blocks = stx->stx_blocks,
        .atime = encode_time(&stx->stx_atime),
        .btime = encode_time(&stx->stx_btime),
        .ctime = encode_time(&stx->stx_ctime),
        .mtime = encode_time(&stx->stx_mtime),
        .rdev_major = stx->stx_rdev_major,
        .rdev_minor = stx->stx_rdev_minor,
    };
}

int reply_statx(Request *request, const PtAttr *attr)
{
    uint64_t timeout_ns = request->session->config.attr_timeout_ns;
    struct abi_statx_out out = {
        .attr_valid = seconds(timeout_ns),
        .attr_valid_nsec = nanoseconds(timeout_ns),
        .stat = encode_statx(request, attr),
    };

    return reply_bytes(request, &out, sizeof(out));
}

static const struct {
    uint32_t ours;
    uint32_t theirs;
} open_flags[] = {
    {PT_OPEN_DIRECT_IO, FOPEN_DIRECT_IO},
    {PT_OPEN_KEEP_CACHE, FOPEN_KEEP_CACHE},
    {PT_OPEN_CACHE_DIR, FOPEN_CACHE_DIR},
    {PT_OPEN_NOFLUSH, FOPEN_NOFLUSH},
    {PT_OPEN_PARALLEL_DIRECT_WRITES, FOPEN_PARALLEL_DIRECT_WRITES},
};

int reply_open(Request *request, const PtOpened *opened)
{
    struct fuse_open_out out = {.fh = opened->handle};

    for (size_t i = 0; i < G_N_ELEMENTS(open_flags); i++) {
        if ((opened->flags & open_flags[i].ours) != 0) {
            out.open_flags |= open_flags[i].theirs;
        }
    }
    return reply_bytes(request, &out, sizeof(out));
}

int reply_statfs(Request *request, const struct statvfs *statvfs)
{
    struct fuse_statfs_out out = {
        .st =
            {
                .blocks = statvfs->f_blocks,
                .bfree = statvfs->f_bfree,
                .bavail = statvfs->f_bavail,
                .files = statvfs->f_files,
                .ffree = statvfs->f_ffree,
                .bsize = (uint32_t)statvfs->f_bsize,
                .namelen = (uint32_t)statvfs->f_namemax,
                .frsize = (uint32_t)statvfs->f_frsize,
            },
    };

    return reply_bytes(request, &out, sizeof(out));
}

size_t reply_dirent_size(uint32_t length, bool plus)
{
    size_t fixed = plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;

    return FUSE_REC_ALIGN(fixed + length);
}

static struct fuse_dirent encode_dirent(const PtDirent *dirent)
{
    return (struct fuse_dirent){
        .ino = dirent->ino,
        .off = dirent->offset,
        .namelen = dirent->name_length,
        .type = dirent->type,
    };
}

size_t reply_dirent_room(const Request *request)
{
    return iov_writer_room(&request->writer) - request->n_records;
}

static void send_records(Request *request)
{
    size_t size = request->n_records;

    request->n_records = 0;
    if (size > 0) {
        /* There is room for all of it. */
        (void)iov_write(&request->writer, request->scratch->answer, size);
    }
}

/* The fixed part of a record, the name, and zeros up to the next record. */
static inline int reply_record(Request *request, const void *fixed, size_t size,
                               const PtDirent *dirent)
{
    size_t padded = FUSE_REC_ALIGN(size + dirent->name_length);

    if (padded > reply_dirent_room(request) ||
        padded > sizeof(request->scratch->answer)) {
        return -EINVAL;
    }
    if (padded > sizeof(request->scratch->answer) - request->n_records) {
        send_records(request);
    }
    char *to = request->scratch->answer + request->n_records;
    memset(to + padded - sizeof(uint64_t), 0, sizeof(uint64_t));
    memcpy(to, fixed, size);
    memcpy(to + size, dirent->name, dirent->name_length);
    request->n_records += padded;
    return 0;
}

bool reply_dirents_end(Request *request)
{
    send_records(request);
    return request->writer.written > sizeof(struct fuse_out_header);
}

int reply_dirent(Request *request, const PtDirent *dirent)
{
    struct fuse_dirent out = encode_dirent(dirent);

    return reply_record(request, &out, FUSE_NAME_OFFSET, dirent);
}

int reply_direntplus(Request *request, const PtDirent *dirent, const PtEntry *entry)
{
    struct fuse_direntplus out;

    out.dirent = encode_dirent(dirent);
    if (entry->nodeid != 0) {
        encode_entry(request, entry, &out.entry_out);
    } else {
        out.entry_out = (struct fuse_entry_out){0};
    }
    return reply_record(request, &out, FUSE_NAME_OFFSET_DIRENTPLUS, dirent);
}
