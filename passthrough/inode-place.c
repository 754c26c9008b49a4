/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/inode-place.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "passthrough/inode-hold.h"
#include "passthrough/internal.h"

/*
 * Places. A place is read and written under a lock that the inode shares with few others;
 * what a former place leaves behind, a name and a reference, goes after unlocking.
 *
 * Directories change places one at a time, so that whoever does it can walk up from the
 * new parent: references that went round in a circle would never be given back.
 */

/* A walk up ends here. Deeper directories are not put anywhere, and stay open. */
enum { DEPTH_MAX = 65536 };

#define NS_PER_S UINT64_C(1000000000)
/* Twice the longest tick of any kernel. */
#define SETTLE_NS UINT64_C(20000000)
enum { WAIT_MS = 5 };

int pt_places_init(PtPlaces *places)
{
    int error = pthread_mutex_init(&places->tree, NULL);
    for (size_t i = 0; i < PT_PLACE_STRIPES && error == 0; i++) {
        error = pthread_mutex_init(&places->locks[i], NULL);
    }
    return -error;
}

/* Neither can fail: the locks are plain ones, and not held by this thread. */
static void lock(pthread_mutex_t *mutex)
{
    (void)pthread_mutex_lock(mutex);
}

static void unlock(pthread_mutex_t *mutex)
{
    (void)pthread_mutex_unlock(mutex);
}

static pthread_mutex_t *lock_of(PtFs *fs, const PtInode *inode)
{
    return &fs->places.locks[inode->slot.index % PT_PLACE_STRIPES];
}

/* ---- times of birth ---------------------------------------------------------------- */

uint64_t pt_birth_now(void)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_REALTIME_COARSE, &now); /* this clock is always there */
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

bool pt_birth_settled(uint64_t now, uint64_t btime)
{
    /* A birth in the future comes from a clock that was set back: no tick will be this
     * very nanosecond again. */
    return btime > now ? btime - now > SETTLE_NS : now - btime > SETTLE_NS;
}

void pt_place_wait(void)
{
    (void)poll(NULL, 0, WAIT_MS); /* interrupted: the caller looks again */
}

/* ---- places ------------------------------------------------------------------------ */

static PtInode *parent_of(const PtFs *fs, const PtInode *inode)
{
    return inode->parent == 0 ? NULL : pt_inode_at(fs, inode->parent);
}

/* Whether nothing but its place holds an inode. Context: the lock of the inode's place is
 * held, or nobody else knows the inode. */
static bool is_named(PtInode *inode)
{
    return inode->held == PT_HELD_NAME && inode->name != NULL && pt_hold_fd(inode) < 0;
}

static void name_it(PtFs *fs, PtInode *inode)
{
    const PtPlace place = {parent_of(fs, inode), -1, inode->name};
    if (is_named(inode)) {
        pt_place_name(fs, &place);
    }
}

static void unname_it(PtFs *fs, PtInode *inode)
{
    const PtPlace place = {parent_of(fs, inode), -1, inode->name};
    if (is_named(inode)) {
        pt_place_unname(fs, &place);
    }
}

void pt_home_start(PtFs *fs, PtInode *inode, const PtPlace *place)
{
    inode->parent = 0;
    inode->name = NULL;
    if (place == NULL || place->name == NULL || place->name[0] == '\0') {
        return;
    }
    inode->name = strdup(place->name);
    if (inode->name != NULL) {
        pt_inode_ref(place->parent);
        inode->parent = place->parent->slot.index;
        name_it(fs, inode);
    }
}

PtInode *pt_home_end(PtFs *fs, PtInode *inode)
{
    PtInode *parent = parent_of(fs, inode);
    unname_it(fs, inode);
    free(inode->name);
    inode->name = NULL;
    inode->parent = 0;
    return parent;
}

PtInode *pt_home_parent(PtFs *fs, PtInode *inode)
{
    pthread_mutex_t *mutex = lock_of(fs, inode);
    lock(mutex);
    PtInode *parent = parent_of(fs, inode);
    if (parent != NULL) {
        pt_inode_ref(parent);
    }
    unlock(mutex);
    return parent;
}

bool pt_home_name(PtFs *fs, PtInode *inode, const PtInode *parent, char *name)
{
    pthread_mutex_t *mutex = lock_of(fs, inode);
    lock(mutex);
    bool there = inode->name != NULL && inode->parent == parent->slot.index;
    if (there) {
        memcpy(name, inode->name, strlen(inode->name) + 1);
    }
    unlock(mutex);
    return there;
}

bool pt_home_get(PtFs *fs, PtInode *inode, PtHome *ret_home)
{
    ret_home->fs = fs;
    ret_home->parent = pt_home_parent(fs, inode);
    return ret_home->parent != NULL &&
           pt_home_name(fs, inode, ret_home->parent, ret_home->name);
}

void pt_home_clear(PtHome *home)
{
    if (home->parent != NULL) {
        pt_inode_put(home->fs, home->parent);
        home->parent = NULL;
    }
}

/* Context: the lock of the inode's place is held. */
static bool is_at(const PtInode *inode, const PtInode *parent, const char *name)
{
    return inode->name != NULL && inode->parent == parent->slot.index &&
           strcmp(inode->name, name) == 0;
}

bool pt_home_is(PtFs *fs, PtInode *inode, const PtPlace *place)
{
    pthread_mutex_t *mutex = lock_of(fs, inode);
    lock(mutex);
    bool is = is_at(inode, place->parent, place->name);
    unlock(mutex);
    return is;
}

/* Whether @inode is @directory or above it, or may be. Context: PtPlaces.tree is held,
 * which keeps all of the way as it is, and so referenced. */
static bool is_above(const PtFs *fs, const PtInode *inode, const PtInode *directory)
{
    for (int depth = 0; depth < DEPTH_MAX; depth++) {
        if (directory == inode) {
            return true;
        }
        directory = parent_of(fs, directory);
        if (directory == NULL) {
            return false;
        }
    }
    return true;
}

/* Exchange the place for another. Context: the lock of the inode's place is held; what
 * comes back is the caller's to give up when it no longer is. */
static void swap(PtFs *fs, PtInode *inode, PtInode **parent, char **name)
{
    PtInode *former = parent_of(fs, inode);
    char *former_name = inode->name;
    unname_it(fs, inode);
    inode->parent = *parent == NULL ? 0 : (*parent)->slot.index;
    inode->name = *name;
    name_it(fs, inode);
    *parent = former;
    *name = former_name;
}

static void give_up(PtFs *fs, PtInode *parent, char *name)
{
    free(name);
    if (parent != NULL) {
        pt_inode_put(fs, parent);
    }
}

void pt_home_set(PtFs *fs, PtInode *inode, const PtPlace *place, char *name_take,
                 const PtStamp *stamp)
{
    bool directory = S_ISDIR(pt_inode_type(inode));
    PtInode *parent = place->parent;
    char *name = name_take;
    if (inode->held != PT_HELD_NAME || name == NULL) {
        free(name);
        return;
    }
    pt_inode_ref(parent);
    pt_place_name(fs, place); /* before the stamp is asked */
    if (directory) {
        lock(&fs->places.tree);
    }
    bool round = directory && is_above(fs, inode, parent);
    PtInode *none = NULL;
    char *no_name = NULL;
    pthread_mutex_t *mutex = lock_of(fs, inode);
    lock(mutex);
    if (stamp == NULL || pt_stamp_holds(fs, stamp)) {
        swap(fs, inode, round ? &none : &parent, round ? &no_name : &name);
    }
    unlock(mutex);
    if (directory) {
        unlock(&fs->places.tree);
    }
    pt_place_unname(fs, place); /* the inode counts itself */
    give_up(fs, parent, name);
    give_up(fs, none, no_name);
}

void pt_home_forget(PtFs *fs, PtInode *inode, const PtHome *home)
{
    bool directory = S_ISDIR(pt_inode_type(inode));
    PtInode *parent = NULL;
    char *name = NULL;
    if (directory) {
        lock(&fs->places.tree);
    }
    pthread_mutex_t *mutex = lock_of(fs, inode);
    lock(mutex);
    if (is_at(inode, home->parent, home->name)) {
        swap(fs, inode, &parent, &name);
    }
    unlock(mutex);
    if (directory) {
        unlock(&fs->places.tree);
    }
    give_up(fs, parent, name);
}

bool pt_home_install(PtFs *fs, PtInode *inode, int fd)
{
    pthread_mutex_t *mutex = lock_of(fs, inode);
    lock(mutex);
    bool named = is_named(inode);
    const PtPlace place = {parent_of(fs, inode), -1, inode->name};
    bool installed = pt_hold_install(fs, inode, fd);
    if (installed && named) {
        pt_place_unname(fs, &place);
    }
    unlock(mutex);
    return installed;
}

bool pt_home_close(PtFs *fs, PtInode *inode, const PtHome *home, uint64_t word)
{
    pthread_mutex_t *mutex = lock_of(fs, inode);
    lock(mutex);
    bool closed =
        is_at(inode, home->parent, home->name) && pt_hold_close_commit(inode, word);
    unlock(mutex);
    return closed;
}
