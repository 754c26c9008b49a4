/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/xattr.h"

#include <errno.h>
#include <linux/limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "passthrough/cred.h"
#include "passthrough/fd.h"
#include "passthrough/inode.h"
#include "passthrough/internal.h"

/*
 * Extended attributes. A file is named by its descriptor's number in the procfd, which is
 * each thread's working directory: one system call, of a file that nobody has to open.
 * That name is a magic link and leads to the very inode, which is not followed any
 * further: symbolic links and special files have their own attributes.
 *
 * Everything is done as ourselves: who may do it the guest's kernel has decided.
 */

#define ACL_ACCESS "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"
#define CAPABILITY "security.capability"

_Static_assert(PT_XATTR_MAX == XATTR_SIZE_MAX && PT_XATTR_MAX == XATTR_LIST_MAX, "xattr");

static bool is_acl(const char *name)
{
    return strcmp(name, ACL_ACCESS) == 0 || strcmp(name, ACL_DEFAULT) == 0;
}

/* Access control lists exist only if the guest's kernel has agreed to heed them. */
static bool is_out_of_reach(const PtFs *fs, const char *name)
{
    return !fs->agreed.posix_acl && is_acl(name);
}

/* The name on the host of what the guest calls @name. @room: for a mapped one. */
static int host_name(const PtFs *fs, const char *name, PtXattrName *room,
                     const char **ret_name)
{
    *ret_name = name;
    if (is_out_of_reach(fs, name)) {
        return -EOPNOTSUPP;
    }
    if (fs->config.xattr_map == NULL) {
        return 0;
    }
    int r = pt_xattr_map_client(fs->config.xattr_map, name, room);
    if (r < 0) {
        return r;
    }
    *ret_name = room->text;
    return is_out_of_reach(fs, room->text) ? -EOPNOTSUPP : 0;
}

/* What the guest is to call an attribute of the host's, or NULL. */
static const char *guest_name(const PtFs *fs, const char *name)
{
    if (is_out_of_reach(fs, name)) {
        return NULL;
    }
    if (fs->config.xattr_map == NULL) {
        return name;
    }
    const char *shown = pt_xattr_map_server(fs->config.xattr_map, name);
    return shown != NULL && !is_out_of_reach(fs, shown) ? shown : NULL;
}

/* ---- the four operations ---------------------------------------------------------- */

ssize_t pt_getxattr(PtFs *fs, uint64_t nodeid, const char *name, void *buffer,
                    size_t size)
{
    g_auto(PtNode) node = {0};
    PtXattrName room;
    const char *host;
    int r = pt_node_get(fs, nodeid, &node);
    if (r < 0) {
        return r;
    }
    r = host_name(fs, name, &room, &host);
    if (r < 0) {
        /* What cannot be set is not there. */
        return r == -EPERM ? -ENODATA : r;
    }
    ssize_t length = getxattr(pt_fd_name(node.fd).text, host, buffer, size);
    return length < 0 ? pt_error() : length;
}

/* Rewrite a list in place: no name is longer in the guest than on the host. Names stay in
 * order, each is moved after it has been read, and forward only. */
static size_t map_list(const PtFs *fs, char *list, size_t size)
{
    size_t length = 0;
    for (char *at = list; at < list + size;) {
        size_t here = strnlen(at, (size_t)(list + size - at)) + 1;
        const char *shown = guest_name(fs, at);
        if (shown != NULL) {
            size_t shown_size = (size_t)(at + here - shown);
            memmove(list + length, shown, shown_size);
            length += shown_size;
        }
        at += here;
    }
    return length;
}

ssize_t pt_listxattr(PtFs *fs, uint64_t nodeid, char list[PT_XATTR_MAX], size_t size)
{
    g_auto(PtNode) node = {0};
    int r = pt_node_get(fs, nodeid, &node);
    if (r < 0) {
        return r;
    }
    /* If names may be left out or renamed, only the whole list tells its length. */
    bool differs = fs->config.xattr_map != NULL || !fs->agreed.posix_acl;
    size_t room = differs || size > XATTR_LIST_MAX ? XATTR_LIST_MAX : size;
    ssize_t length = listxattr(pt_fd_name(node.fd).text, list, room);
    if (length < 0) {
        return pt_error();
    }
    if (differs) {
        length = (ssize_t)map_list(fs, list, (size_t)length);
    }
    return size != 0 && (size_t)length > size ? -ERANGE : length;
}

int pt_removexattr(PtFs *fs, uint64_t nodeid, const char *name)
{
    g_auto(PtNode) node = {0};
    PtXattrName room;
    const char *host;
    int r = pt_node_get(fs, nodeid, &node);
    if (r < 0) {
        return r;
    }
    r = host_name(fs, name, &room, &host);
    if (r < 0) {
        return r;
    }
    return removexattr(pt_fd_name(node.fd).text, host) < 0 ? pt_error() : 0;
}

/* The host clears set-group-ID along with the list, for a caller without CAP_FSETID who
 * is not in the file's group. We may be in it where the guest's caller is not. */
static int clear_sgid(const PtFs *fs, int fd)
{
    struct statx seen;
    int r = pt_stat(fs, fd, "", &seen);
    if (r < 0 || !(seen.stx_mode & S_ISGID)) {
        return r;
    }
    mode_t mode = seen.stx_mode & 07777 & ~(mode_t)S_ISGID;
    return fchmodat(fs->procfd, pt_fd_name(fd).text, mode, 0) < 0 ? pt_error() : 0;
}

int pt_setxattr_fd(const PtFs *fs, int fd, const PtSetxattr *set)
{
    g_auto(PtPrivileges) privileges = {0};
    PtXattrName room;
    const char *host;
    if (set->flags & ~(uint32_t)(XATTR_CREATE | XATTR_REPLACE)) {
        return -EINVAL;
    }
    int r = host_name(fs, set->name, &room, &host);
    if (r < 0) {
        return r;
    }
    /* A default list has no part in the directory's own mode. */
    bool kill_sgid = set->acl_kill_sgid && strcmp(host, ACL_ACCESS) == 0;
    r = pt_privileges_drop(kill_sgid, &privileges);
    if (r < 0) {
        return r;
    }
    r = setxattr(pt_fd_name(fd).text, host, set->value, set->size, (int)set->flags);
    if (r < 0) {
        return pt_error();
    }
    return kill_sgid ? clear_sgid(fs, fd) : 0;
}

int pt_setxattr(PtFs *fs, uint64_t nodeid, const PtSetxattr *set)
{
    g_auto(PtNode) node = {0};
    int r = pt_node_get(fs, nodeid, &node);
    return r < 0 ? r : pt_setxattr_fd(fs, node.fd, set);
}

/* ---- file capabilities ------------------------------------------------------------ */

void pt_capability_init(PtFs *fs)
{
    const PtXattrMap *map = fs->config.xattr_map;
    PtXattrName mapped;
    bool renamed = map != NULL && pt_xattr_map_client(map, CAPABILITY, &mapped) == 0 &&
                   strcmp(mapped.text, CAPABILITY) != 0;
    if (renamed) {
        fs->capability = mapped;
    }
}

int pt_capability_drop(const PtFs *fs, int fd, mode_t type)
{
    if (fs->capability.text[0] == '\0' || !S_ISREG(type)) {
        return 0;
    }
    int r = removexattr(pt_fd_name(fd).text, fs->capability.text);
    return r < 0 && errno != ENODATA && errno != EOPNOTSUPP ? pt_error() : 0;
}

void pt_capability_save(const PtFs *fs, int fd, PtCapability *ret_capability)
{
    PtXattrName room;
    const char *host;
    ret_capability->size = 0;
    if (host_name(fs, CAPABILITY, &room, &host) == 0) {
        ret_capability->size = getxattr(pt_fd_name(fd).text, host, ret_capability->value,
                                        sizeof(ret_capability->value));
    }
}

int pt_capability_restore(const PtFs *fs, int fd, const PtCapability *capability)
{
    const PtSetxattr set = {
        .name = CAPABILITY, .value = capability->value, .size = (size_t)capability->size};
    return capability->size <= 0 ? 0 : pt_setxattr_fd(fs, fd, &set);
}
