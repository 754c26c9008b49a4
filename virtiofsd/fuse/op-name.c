/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on names: they look up, make, move and remove directory entries.
 */
#include <errno.h>

#include "virtiofsd/fuse/extension.h"
#include "virtiofsd/fuse/op.h"
#include "virtiofsd/fuse/reply.h"

/* Who asks for something to be made, and what labels it is to have. @umask is as sent:
 * the guest's kernel has applied it unless DONT_MASK is agreed. Only these requests name
 * their caller whatever is agreed: with ALLOW_IDMAP all others carry (uid_t)-1. */
static int caller_of(Request *request, uint32_t umask, PtCaller *ret_caller,
                     PtLabels *ret_labels)
{
    const struct fuse_in_header *header = &request->header;
    const SessionAgreed *agreed = &request->session->agreed;

    /* (uid_t)-1 means "leave as it is" to the calls that change identity. */
    if (header->uid == UINT32_MAX || header->gid == UINT32_MAX) {
        return -EINVAL;
    }
    ret_caller->uid = header->uid;
    ret_caller->gid = header->gid;
    ret_caller->is_checked = false;
    ret_caller->umask = agreed->dont_mask ? umask : 0;
    const ExtensionAgreed extensions = {.groups = agreed->supp_groups,
                                        .labels = agreed->security_ctx};
    if (extension_parse(request->scratch->extension, request->extension_size, extensions,
                        ret_caller, ret_labels) < 0) {
        return op_malformed(request, "bad extension");
    }
    return 0;
}

/* A lookup that the guest never hears of is given back. */
static int answer_entry(Request *request, const PtEntry *entry)
{
    int result = reply_entry(request, entry);

    if (result < 0) {
        pt_forget(request->fs, entry->nodeid, 1);
    }
    return result;
}

int op_lookup(Request *request)
{
    PtEntry entry;
    int result =
        pt_lookup(request->fs, request->header.nodeid, request->names[0], &entry);

    if (result == -ENOENT && request->session->config.negative_timeout_ns > 0) {
        return reply_negative(request);
    }
    return result < 0 ? result : answer_entry(request, &entry);
}

int op_forget(Request *request)
{
    pt_forget(request->fs, request->header.nodeid, request->in.forget.nlookup);
    return 0;
}

int op_batch_forget(Request *request)
{
    uint32_t count = request->in.batch_forget.count;
    struct fuse_forget_one one;

    if (count > request->tail / sizeof(one)) {
        return op_malformed(request, "count beyond the request");
    }
    for (uint32_t i = 0; i < count && iov_read(&request->reader, &one, sizeof(one));
         i++) {
        pt_forget(request->fs, one.nodeid, one.nlookup);
    }
    return 0;
}

int op_readlink(Request *request)
{
    char *link = request->scratch->answer;
    ssize_t length = pt_readlink(request->fs, request->header.nodeid, link, PATH_MAX);

    return length < 0 ? (int)length : reply_bytes(request, link, (size_t)length);
}

/* What @call makes at the request's place, by the request's caller. */
static int make_node(Request *request, uint32_t umask, PtMake *make,
                     int (*call)(PtFs *fs, const PtMake *make, PtEntry *ret_entry))
{
    PtCaller caller;
    PtLabels labels;
    PtEntry entry;
    int result = caller_of(request, umask, &caller, &labels);

    if (result < 0) {
        return result;
    }
    make->caller = &caller;
    make->labels = &labels;
    make->parent = request->header.nodeid;
    make->name = request->names[0];
    result = call(request->fs, make, &entry);
    return result < 0 ? result : answer_entry(request, &entry);
}

int op_symlink(Request *request)
{
    PtMake make = {.target = request->names[1]};

    return make_node(request, 0, &make, pt_symlink); /* a link has no permissions */
}

int op_mknod(Request *request)
{
    PtMake make = {.mode = request->in.mknod.mode, .rdev = request->in.mknod.rdev};

    return make_node(request, request->in.mknod.umask, &make, pt_mknod);
}

int op_mkdir(Request *request)
{
    PtMake make = {.mode = request->in.mkdir.mode};

    return make_node(request, request->in.mkdir.umask, &make, pt_mkdir);
}

/* CREATE and TMPFILE, which @call does. */
static int create(Request *request, const char *name,
                  int (*call)(PtFs *fs, const PtMake *make, PtEntry *ret_entry,
                              PtOpened *ret_opened))
{
    const struct fuse_create_in *in = &request->in.create;
    PtCaller caller;
    PtLabels labels;
    PtEntry entry;
    PtOpened opened;
    int result = caller_of(request, in->umask, &caller, &labels);

    if (result < 0) {
        return result;
    }
    const PtMake make = {
        .caller = &caller,
        .labels = &labels,
        .parent = request->header.nodeid,
        .name = name,
        .mode = in->mode,
        .open_flags = in->flags,
        .kill_suidgid = (in->open_flags & FUSE_OPEN_KILL_SUIDGID) != 0,
    };
    result = call(request->fs, &make, &entry, &opened);
    if (result < 0) {
        return result;
    }
    result = reply_entry(request, &entry);
    if (result == 0) {
        result = reply_open(request, &opened);
    }
    if (result < 0) {
        /* The guest never hears of them. */
        (void)pt_release(request->fs, entry.nodeid, opened.handle);
        pt_forget(request->fs, entry.nodeid, 1);
    }
    return result;
}

int op_create(Request *request)
{
    return create(request, request->names[0], pt_create);
}

/* Linux sends "/" for the name that there is not. */
int op_tmpfile(Request *request)
{
    return create(request, NULL, pt_tmpfile);
}

int op_unlink(Request *request)
{
    return pt_unlink(request->fs, request->header.nodeid, request->names[0]);
}

int op_rmdir(Request *request)
{
    return pt_rmdir(request->fs, request->header.nodeid, request->names[0]);
}

static int rename_names(Request *request, uint64_t new_parent, uint32_t flags)
{
    /* Known where it is needed, for a whiteout, which is made as all else is; but no
     * groups are told. */
    const PtCaller caller = {
        .uid = request->header.uid, .gid = request->header.gid, .is_checked = true};
    const PtRename rename = {
        .parent = request->header.nodeid,
        .name = request->names[0],
        .new_parent = new_parent,
        .new_name = request->names[1],
        .flags = flags,
        .caller = &caller,
    };

    return pt_rename(request->fs, &rename);
}

int op_rename(Request *request)
{
    return rename_names(request, request->in.rename.newdir, 0);
}

int op_rename2(Request *request)
{
    return rename_names(request, request->in.rename2.newdir, request->in.rename2.flags);
}

int op_link(Request *request)
{
    PtEntry entry;
    int result = pt_link(request->fs, request->in.link.oldnodeid, request->header.nodeid,
                         request->names[0], &entry);

    return result < 0 ? result : answer_entry(request, &entry);
}
