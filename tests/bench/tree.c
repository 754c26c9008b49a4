/* SPDX-License-Identifier: Apache-2.0 */
/* What is done once, before a row is measured: one request after another. */
#include "tests/bench/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/fuse-ops.h"

#define DIGITS 7u
#define WRITE_SIZE (64u << 10)
#define FORGETS_MAX 1024u /* in one request */

void tree_name(char name[TREE_NAME_MAX], size_t index)
{
    name[0] = 'f';
    for (size_t i = DIGITS; i > 0; i--) {
        name[i] = (char)('0' + index % 10);
        index /= 10;
    }
    name[DIGITS + 1] = '\0';
}

static int open_file(Client *client, uint64_t parent, const char *name,
                     TreeFile *ret_file)
{
    struct fuse_entry_out entry;
    int rc = client_lookup(client, parent, name, &entry);

    ret_file->nodeid = rc == 0 ? entry.nodeid : 0;
    return rc == 0 ? client_open(client, entry.nodeid, O_RDWR, &ret_file->fh) : rc;
}

static int create_file(Client *client, uint64_t parent, const char *name,
                       TreeFile *ret_file)
{
    ClientCreated created;
    int rc =
        client_create(client, parent, name, O_RDWR | O_CREAT, S_IFREG | 0644, &created);

    if (rc == 0) {
        *ret_file = (TreeFile){.nodeid = created.entry.nodeid, .fh = created.open.fh};
    }
    return rc;
}

/* A job's directory, with a file to be written and one to be renamed. */
static int make_own(Client *client, uint64_t parent, const char *name, TreeOwn *own)
{
    static const char piece[WRITE_SIZE];
    struct fuse_entry_out entry;
    TreeFile renamed = {.nodeid = 0};
    int rc = client_mkdir(client, parent, name, 0755, &entry);

    if (rc < 0) {
        return rc;
    }
    own->directory = entry.nodeid;
    rc = create_file(client, own->directory, "file", &own->file);
    for (uint64_t offset = 0; rc == 0 && offset < TREE_OWN_SIZE;
         offset += sizeof(piece)) {
        const ClientIo io = {.nodeid = own->file.nodeid,
                             .fh = own->file.fh,
                             .offset = offset,
                             .size = sizeof(piece)};
        int written = client_write(client, &io, piece);
        rc = written < 0 ? written : 0;
    }
    if (rc == 0) {
        rc = create_file(client, own->directory, "from", &renamed);
    }
    return rc < 0 ? rc : client_release_file(client, renamed.nodeid, renamed.fh, O_RDWR);
}

int tree_open(Tree *tree, Client *client, const char *label)
{
    struct fuse_entry_out entry;
    char name[64];

    *tree = (Tree){.client = client};
    int rc = open_file(client, FUSE_ROOT_ID, "big", &tree->big);
    if (rc == 0) {
        rc = client_lookup(client, FUSE_ROOT_ID, "data", &entry);
    }
    for (unsigned int i = 0; rc == 0 && i < TREE_FILES; i++) {
        (void)snprintf(name, sizeof(name), "%02u", i); /* fits */
        rc = open_file(client, entry.nodeid, name, &tree->data[i]);
    }
    (void)snprintf(name, sizeof(name), "work-%s", label); /* shortened if need be */
    if (rc == 0) {
        rc = client_mkdir(client, FUSE_ROOT_ID, name, 0755, &entry);
    }
    for (unsigned int i = 0; rc == 0 && i < TREE_JOBS; i++) {
        (void)snprintf(name, sizeof(name), "%02u", i);
        rc = make_own(client, entry.nodeid, name, &tree->own[i]);
    }
    return rc;
}

int tree_open_slow(Tree *tree)
{
    struct fuse_entry_out entry;
    char name[TREE_NAME_MAX];

    int rc = open_file(tree->client, FUSE_ROOT_ID, "huge", &tree->huge);
    if (rc == 0) {
        rc = client_lookup(tree->client, FUSE_ROOT_ID, "slow", &entry);
    }
    for (unsigned int i = 0; rc == 0 && i < TREE_SLOW; i++) {
        (void)snprintf(name, sizeof(name), "%02u", i); /* fits */
        rc = open_file(tree->client, entry.nodeid, name, &tree->slow[i]);
    }
    tree->has_slow = rc == 0;
    return rc;
}

void tree_clear(Tree *tree)
{
    free(tree->entries);
    tree->entries = NULL;
}

int tree_use(Tree *tree, const char *name, size_t n_entries)
{
    struct fuse_entry_out entry;

    tree->n_known = 0;
    int rc = tree_forget(tree);
    if (rc == 0) {
        rc = client_lookup(tree->client, FUSE_ROOT_ID, name, &entry);
    }
    if (rc < 0) {
        return rc;
    }
    free(tree->entries);
    tree->n_entries = 0;
    tree->entries = calloc(n_entries, sizeof(*tree->entries));
    if (tree->entries == NULL) {
        return -ENOMEM;
    }
    tree->directory = entry.nodeid;
    tree->n_entries = n_entries;
    return 0;
}

int tree_know(Tree *tree, size_t n_known)
{
    if (n_known < tree->n_known || n_known > tree->n_entries) {
        return -EINVAL;
    }
    int rc = tree_lookup(tree, tree->n_known, n_known);
    if (rc == 0) {
        tree->n_known = n_known;
    }
    return rc;
}

void tree_seen(Tree *tree, size_t index, uint64_t nodeid)
{
    tree->entries[index].nodeid = nodeid;
    tree->entries[index].lookups++;
}

void tree_seen_name(Tree *tree, const char *name, size_t length, uint64_t nodeid)
{
    size_t index = 0;

    if (length != DIGITS + 1 || name[0] != 'f' || nodeid == 0) {
        return;
    }
    for (size_t i = 1; i < length; i++) {
        index = index * 10 + (size_t)(name[i] - '0');
    }
    if (index < tree->n_entries) {
        tree_seen(tree, index, nodeid);
    }
}

int tree_lookup(Tree *tree, size_t from, size_t to)
{
    struct fuse_entry_out entry;
    char name[TREE_NAME_MAX];
    int rc = 0;

    for (size_t i = from; rc == 0 && i < to; i++) {
        tree_name(name, i);
        rc = client_lookup(tree->client, tree->directory, name, &entry);
        if (rc == 0) {
            tree_seen(tree, i, entry.nodeid);
        }
    }
    return rc;
}

int tree_forget(Tree *tree)
{
    struct fuse_forget_one nodes[FORGETS_MAX];
    uint32_t n = 0;
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < tree->n_entries; i++) {
        TreeEntry *entry = &tree->entries[i];
        uint64_t keep = i < tree->n_known ? 1 : 0;
        if (entry->lookups > keep) {
            nodes[n++] = (struct fuse_forget_one){.nodeid = entry->nodeid,
                                                  .nlookup = entry->lookups - keep};
            entry->lookups = keep;
        }
        if (n == FORGETS_MAX) {
            rc = client_batch_forget(tree->client, nodes, n);
            n = 0;
        }
    }
    return rc == 0 && n > 0 ? client_batch_forget(tree->client, nodes, n) : rc;
}
