/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest in the arena: it looks a directory up while the host swaps it, and does
 * something below it, hostile enough to use links as if they were directories. What it
 * is told must not be of the canary; what it changed there, others look for.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/support/escape.h"
#include "tests/support/fuse-ops.h"

#define GUEST_THREADS 2
#define PAGE_SIZE 4096u
#define SECRET_SIZE 64u
/* One in so many directories comes from a listing of the arena. */
#define LISTED_IN 16

typedef struct Hand {
    Escape *escape;
    Client *client;
    uint64_t random;
    uint64_t n;
    uint64_t arena;
    char own[16]; /* a name of this thread's alone */
    EscapeKind kind;
    uint8_t page[PAGE_SIZE];
} Hand;

static void escaped(Hand *hand)
{
    atomic_fetch_add(&hand->escape->tally.escaped[hand->kind], 1);
}

static bool done(Hand *hand, int result)
{
    if (result < 0) {
        return false;
    }
    atomic_fetch_add(&hand->escape->tally.done[hand->kind], 1);
    return true;
}

static void check_inode(Hand *hand, uint64_t inode)
{
    if (escape_is_canary(hand->escape, inode)) {
        escaped(hand);
    }
}

static void check_bytes(Hand *hand, const void *bytes, int size)
{
    if (size > 0 && escape_has_mark(bytes, (size_t)size)) {
        escaped(hand);
    }
}

static void forget(Hand *hand, uint64_t node)
{
    if (node != 0) {
        (void)client_forget(hand->client, node, 1);
    }
}

/* The node of a name, which forget() gives back; 0 if there is none. */
static uint64_t look_up(Hand *hand, uint64_t parent, const char *name)
{
    struct fuse_entry_out entry;

    if (client_lookup(hand->client, parent, name, &entry) < 0 || entry.nodeid == 0) {
        return 0;
    }
    check_inode(hand, entry.attr.ino);
    return entry.nodeid;
}

/* ---- listings ---------------------------------------------------------------------- */

/* Look at the entries in hand->page, of which all but one are forgotten: the one that is
 * called @keep is returned. */
static uint64_t sift(Hand *hand, int size, const char *keep)
{
    uint64_t kept = 0;

    for (size_t at = 0; at + sizeof(struct fuse_direntplus) <= (size_t)size;) {
        struct fuse_direntplus entry;
        memcpy(&entry, hand->page + at, sizeof(entry));
        const uint8_t *name = hand->page + at + sizeof(entry);
        uint64_t node = entry.entry_out.nodeid;
        size_t length = entry.dirent.namelen;
        check_inode(hand, entry.dirent.ino);
        if (node != 0 && kept == 0 && strlen(keep) == length &&
            memcmp(name, keep, length) == 0) {
            kept = node;
        } else {
            forget(hand, node);
        }
        at += FUSE_DIRENT_ALIGN(sizeof(entry) + length);
    }
    return kept;
}

/* A page of a listing. Return: the node of the entry called @keep, or 0. */
static uint64_t list(Hand *hand, uint64_t dir, const char *keep)
{
    uint64_t kept = 0;
    ClientIo io = {.nodeid = dir, .size = PAGE_SIZE};

    if (client_opendir(hand->client, dir, &io.fh) < 0) {
        return 0;
    }
    int got = client_readdirplus(hand->client, &io, hand->page);
    if (done(hand, got)) {
        check_bytes(hand, hand->page, got);
        kept = sift(hand, got, keep);
    }
    (void)client_release_dir(hand->client, dir, io.fh);
    return kept;
}

static uint64_t take_directory(Hand *hand)
{
    uint64_t random = escape_random(&hand->random);
    const char *name = (random & 1) != 0 ? "swap" : "bait";

    if ((random >> 8) % LISTED_IN == 0) {
        return list(hand, hand->arena, name);
    }
    return look_up(hand, hand->arena, name);
}

/* ---- files ------------------------------------------------------------------------- */

static void look_into(Hand *hand, ClientIo *io)
{
    uint8_t bytes[SECRET_SIZE];

    io->size = sizeof(bytes);
    int got = client_read(hand->client, io, bytes);
    if (done(hand, got)) {
        check_bytes(hand, bytes, got);
    }
}

static void use_file(Hand *hand, uint64_t node, uint32_t flags)
{
    ClientIo io = {.nodeid = node, .size = 5};

    if (node == 0 || client_open(hand->client, node, flags, &io.fh) < 0) {
        return;
    }
    if ((flags & O_ACCMODE) == O_RDONLY) {
        look_into(hand, &io);
    } else {
        (void)done(hand, client_write(hand->client, &io, "guest"));
    }
    (void)client_release_file(hand->client, node, io.fh, flags);
}

static void use_name(Hand *hand, uint64_t parent, const char *name, uint32_t flags)
{
    uint64_t node = look_up(hand, parent, name);

    use_file(hand, node, flags);
    forget(hand, node);
}

static void create(Hand *hand, uint64_t parent, const char *name)
{
    ClientCreated made;

    if (!done(hand,
              client_create(hand->client, parent, name, O_CREAT | O_RDWR, 0600, &made))) {
        return;
    }
    check_inode(hand, made.entry.attr.ino);
    ClientIo io = {.nodeid = made.entry.nodeid, .fh = made.open.fh, .size = 5};
    (void)client_write(hand->client, &io, "guest");
    look_into(hand, &io);
    (void)client_release_file(hand->client, io.nodeid, io.fh, O_RDWR);
    forget(hand, io.nodeid);
}

/* ---- kinds ------------------------------------------------------------------------- */

static void do_create(Hand *hand, uint64_t dir)
{
    create(hand, dir, "made");
    (void)client_unlink(hand->client, dir, "made");
}

static void do_mkdir(Hand *hand, uint64_t dir)
{
    struct fuse_entry_out entry;

    if (done(hand, client_mkdir(hand->client, dir, "madedir", 0700, &entry))) {
        check_inode(hand, entry.attr.ino);
        forget(hand, entry.nodeid);
    }
    (void)client_rmdir(hand->client, dir, "madedir");
}

static void do_node(Hand *hand, uint64_t dir)
{
    struct fuse_entry_out entry;
    const ClientMknod fifo = {.name = "madenode", .mode = S_IFIFO | 0600};

    if (done(hand, client_symlink(hand->client, dir, "madelink", "nowhere", &entry))) {
        forget(hand, entry.nodeid);
    }
    if (done(hand, client_mknod(hand->client, dir, &fifo, &entry))) {
        forget(hand, entry.nodeid);
    }
    (void)client_unlink(hand->client, dir, "madelink");
    (void)client_unlink(hand->client, dir, "madenode");
}

/* Out of the directory and in again. */
static void do_rename(Hand *hand, uint64_t dir)
{
    ClientRename out = {dir, "victim", hand->arena, hand->own, 0};
    ClientRename in = {hand->arena, hand->own, dir, "victim", 0};

    create(hand, dir, "victim");
    if (done(hand, client_rename(hand->client, &out))) {
        use_name(hand, hand->arena, hand->own, O_RDONLY);
    } else {
        create(hand, hand->arena, hand->own);
    }
    if (!done(hand, client_rename(hand->client, &in))) {
        (void)client_unlink(hand->client, hand->arena, hand->own);
    }
}

/* A name in the arena for what is in the directory, and the other way round. */
static void do_link(Hand *hand, uint64_t dir)
{
    struct fuse_entry_out entry;
    uint64_t node = look_up(hand, dir, "secret");

    if (node != 0 &&
        done(hand, client_link(hand->client, node, hand->arena, hand->own, &entry))) {
        check_inode(hand, entry.attr.ino);
        use_name(hand, hand->arena, hand->own, O_RDONLY);
        forget(hand, entry.nodeid);
        (void)client_unlink(hand->client, hand->arena, hand->own);
    }
    forget(hand, node);
    node = look_up(hand, hand->arena, "file");
    if (node != 0 && done(hand, client_link(hand->client, node, dir, "made", &entry))) {
        forget(hand, entry.nodeid);
        (void)client_unlink(hand->client, dir, "made");
    }
    forget(hand, node);
}

static void do_unlink(Hand *hand, uint64_t dir)
{
    struct fuse_entry_out entry;

    (void)done(hand, client_unlink(hand->client, dir, "victim"));
    (void)done(hand, client_rmdir(hand->client, dir, "empty"));
    if (client_mkdir(hand->client, dir, "empty", 0700, &entry) == 0) {
        forget(hand, entry.nodeid);
    }
}

static uint64_t take_target(Hand *hand, uint64_t dir)
{
    switch (escape_random(&hand->random) % 3) {
    case 0:
        return look_up(hand, hand->arena, "file");
    case 1:
        return look_up(hand, hand->arena, "filebait");
    default:
        return look_up(hand, dir, "secret");
    }
}

static void do_xattr(Hand *hand, uint64_t dir)
{
    char bytes[256];
    const ClientXattr set = {.name = "user.guest", .value = "guest", .size = 5};
    uint64_t node = take_target(hand, dir);

    if (node == 0) {
        return;
    }
    int got = client_getxattr(hand->client, node, "user.canary", bytes, sizeof(bytes));
    check_bytes(hand, bytes, got);
    got = client_listxattr(hand->client, node, bytes, sizeof(bytes));
    check_bytes(hand, bytes, got);
    (void)done(hand, client_setxattr(hand->client, node, &set));
    (void)client_removexattr(hand->client, node, "user.guest");
    (void)client_removexattr(hand->client, node, "user.canary");
    forget(hand, node);
}

static void do_setattr(Hand *hand, uint64_t dir)
{
    struct fuse_attr_out attr;
    uint64_t node = take_target(hand, dir);
    uint64_t random = escape_random(&hand->random);
    struct fuse_setattr_in in = {
        .size = 20, .mode = 0640, .uid = 12, .gid = 13, .atime = 1, .mtime = 2};
    static const uint32_t valid[] = {FATTR_MODE, FATTR_SIZE, FATTR_ATIME | FATTR_MTIME,
                                     FATTR_UID | FATTR_GID};

    if (node == 0) {
        return;
    }
    in.valid = valid[random % 4];
    if (done(hand, client_setattr(hand->client, node, &in, &attr))) {
        check_inode(hand, attr.attr.ino);
    }
    if (client_getattr(hand->client, node, NULL, &attr) == 0) {
        check_inode(hand, attr.attr.ino);
    }
    forget(hand, node);
}

static void do_readlink(Hand *hand, uint64_t dir)
{
    char target[256];
    uint64_t node = look_up(hand, dir, "pointer");

    if (node != 0) {
        int got = client_readlink(hand->client, node, target, sizeof(target));
        if (done(hand, got)) {
            check_bytes(hand, target, got);
        }
    }
    forget(hand, node);
}

static void do_deep(Hand *hand, uint64_t dir)
{
    uint64_t sub = look_up(hand, dir, "sub");

    if (sub != 0) {
        use_name(hand, sub, "leaf", O_RDONLY);
    }
    forget(hand, sub);
}

static void do_exchange(Hand *hand)
{
    ClientRename rename = {hand->arena, "swap", hand->arena, "bait", RENAME_EXCHANGE};

    (void)done(hand, client_rename2(hand->client, &rename));
}

static void act(Hand *hand, uint64_t dir)
{
    uint32_t truncates = (escape_random(&hand->random) & 1) != 0 ? O_TRUNC : 0;

    switch (hand->kind) {
    case ESCAPE_READ:
        return use_name(hand, dir, "secret", O_RDONLY);
    case ESCAPE_WRITE:
        return use_name(hand, dir, "secret", O_WRONLY | truncates);
    case ESCAPE_CREATE:
        return do_create(hand, dir);
    case ESCAPE_DANGLE:
        return create(hand, hand->arena, truncates != 0 ? "dangle" : "solid");
    case ESCAPE_MKDIR:
        return do_mkdir(hand, dir);
    case ESCAPE_NODE:
        return do_node(hand, dir);
    case ESCAPE_RENAME:
        return do_rename(hand, dir);
    case ESCAPE_LINK:
        return do_link(hand, dir);
    case ESCAPE_UNLINK:
        return do_unlink(hand, dir);
    case ESCAPE_XATTR:
        return do_xattr(hand, dir);
    case ESCAPE_SETATTR:
        return do_setattr(hand, dir);
    case ESCAPE_READLINK:
        return do_readlink(hand, dir);
    case ESCAPE_LIST:
        return forget(hand, list(hand, dir, "sub"));
    case ESCAPE_FILE:
        return use_name(hand, hand->arena, "file", O_RDWR | truncates);
    case ESCAPE_DEEP:
        return do_deep(hand, dir);
    case ESCAPE_EXCHANGE:
        return do_exchange(hand);
    case ESCAPE_KINDS:
    default:
        return;
    }
}

static void *work(void *data)
{
    Hand *hand = data;

    for (uint64_t i = 0; i < hand->n; i++) {
        hand->kind = (EscapeKind)(escape_random(&hand->random) % ESCAPE_KINDS);
        atomic_fetch_add(&hand->escape->tally.tried[hand->kind], 1);
        uint64_t dir = take_directory(hand);
        if (dir != 0) {
            act(hand, dir);
        }
        forget(hand, dir);
    }
    return NULL;
}

int escape_guest(Escape *escape, Client *client, uint64_t n)
{
    static Hand hands[GUEST_THREADS];
    pthread_t threads[GUEST_THREADS];
    struct fuse_entry_out arena;

    int result = client_lookup(client, FUSE_ROOT_ID, "arena", &arena);
    for (unsigned int i = 0; i < GUEST_THREADS && result == 0; i++) {
        Hand *hand = &hands[i];
        *hand = (Hand){.escape = escape,
                       .client = client,
                       .random = 0x9e3779b97f4a7c15u * (i + 1),
                       .n = n / GUEST_THREADS,
                       .arena = arena.nodeid};
        (void)snprintf(hand->own, sizeof(hand->own), "own%u", i);
        result = -pthread_create(&threads[i], NULL, work, hand);
    }
    if (result < 0) {
        return result; /* the program ends: so do its threads */
    }
    for (unsigned int i = 0; i < GUEST_THREADS; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    return client_forget(client, arena.nodeid, 1);
}
