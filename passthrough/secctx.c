/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/secctx.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "passthrough/inode.h"
#include "passthrough/xattr.h"

/*
 * Labels of new files. Linux sets them before anybody can see the file; here they are set
 * right after it was made, as ourselves, on its descriptor. What cannot be labelled as
 * the guest wants must not be there: it is removed again, unless something else has taken
 * its name meanwhile.
 */

static int set_all(const PtFs *fs, const PtLabels *labels, int fd)
{
    for (uint32_t i = 0; i < labels->n; i++) {
        const PtLabel *label = &labels->label[i];
        const PtSetxattr set = {
            .name = label->name, .value = label->value, .size = label->size};
        int r = pt_setxattr_fd(fs, fd, &set);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static void remove_new(const PtFs *fs, const PtPlace *place, int fd)
{
    struct statx made, found;
    if (place->name[0] == '\0' || pt_stat(fs, fd, "", &made) < 0 ||
        pt_stat(fs, place->dir_fd, place->name, &found) < 0) {
        return;
    }
    PtIdentity a = pt_identity(&made);
    PtIdentity b = pt_identity(&found);
    if (pt_identity_equal(&a, &b)) {
        /* The request fails anyway; a directory that somebody uses by now stays. */
        (void)unlinkat(place->dir_fd, place->name,
                       S_ISDIR(made.stx_mode) ? AT_REMOVEDIR : 0);
    }
}

int pt_labels_set(const PtFs *fs, const PtPlace *place, const PtLabels *labels, int fd)
{
    if (labels == NULL || labels->n == 0) {
        return 0;
    }
    int r = set_all(fs, labels, fd);
    if (r < 0) {
        remove_new(fs, place, fd);
    }
    return r;
}

int pt_labels_set_entry(PtFs *fs, const PtPlace *place, const PtLabels *labels,
                        PtEntry *entry)
{
    g_auto(PtNode) node = {0};
    if (labels == NULL || labels->n == 0) {
        return 0;
    }
    int r = pt_node_get(fs, entry->nodeid, &node);
    if (r == 0) {
        r = pt_labels_set(fs, place, labels, node.fd);
    }
    /* Labels have moved its ctime. */
    if (r == 0) {
        r = pt_stat(fs, node.fd, "", &entry->attr.stx);
    }
    if (r < 0) {
        pt_forget(fs, entry->nodeid, 1);
    }
    return r;
}
