/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_INODE_PLACE_H
#define PASSTHROUGH_INODE_PLACE_H

#include <glib.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "passthrough/inode-change.h"
#include "passthrough/inode.h"
#include "passthrough/passthrough.h"

/*
 * The place of an inode: the directory and the name at which it was last seen. It holds a
 * reference to the directory's slot.
 */

enum { PT_PLACE_STRIPES = 64, PT_PLACE_NAMES = 1 << 15 };

/** typedef PtPlaces - what guards the places of all inodes. */
typedef struct PtPlaces {
    pthread_mutex_t tree; /* taken to change the place of a directory */
    pthread_mutex_t locks[PT_PLACE_STRIPES]; /* by inode: PtInode.name and .parent */
    /* By directory: changes ever begun << 16 | changes under way. */
    _Atomic uint64_t changes[PT_PLACE_STRIPES];
    /* By directory: pt_birth_now() when the host was last found to have replaced a file.
     */
    _Atomic uint64_t replaced[PT_PLACE_STRIPES];
    /* By directory and name: inodes that nothing but this place holds, or soon may. */
    _Atomic uint32_t named[PT_PLACE_NAMES];
} PtPlaces;

/** pt_places_init() - Return: 0 or a negative errno. */
int pt_places_init(PtPlaces *places);

/* ---- times of birth -----------------------------------------------------------------
 */

/** pt_birth_now() - the clock that files are born by. Sampled before the statx(2) that
 * tells a birth. */
uint64_t pt_birth_now(void);
/**
 * pt_birth_settled() - no file that is made after @now can have this time of birth.
 *
 * The kernel's clock for it stands still for up to 10 ms. Where this holds, number and
 * birth together tell a file from any that is given its number later.
 */
bool pt_birth_settled(uint64_t now, uint64_t btime);
/** pt_place_wait() - sleep while new files grow older and changes end. Six times is long
 * enough for any birth to be settled. */
void pt_place_wait(void);

/* ---- places -------------------------------------------------------------------------
 */

/** typedef PtHome - a copy of a place, owned by a scope. */
typedef struct PtHome {
    PtFs *fs;
    PtInode *parent; /* referenced */
    char name[PT_NAME_MAX + 1];
} PtHome;

/** pt_home_start() - the place of a new inode, which nobody knows. NULL, or no name or an
 * empty one: it has none; nor has it where memory is short. Its descriptor is set. */
void pt_home_start(PtFs *fs, PtInode *inode, const PtPlace *place);
/** pt_home_end() - take its place from an inode without references.
 * Return: the parent, whose reference is the caller's, or NULL. */
PtInode *pt_home_end(PtFs *fs, PtInode *inode);

/** pt_home_get() - Return: whether the inode has a place, copied to @ret_home. */
bool pt_home_get(PtFs *fs, PtInode *inode, PtHome *ret_home);
void pt_home_clear(PtHome *home);
/** pt_home_parent() - Return: the directory of its place, referenced, or NULL. */
PtInode *pt_home_parent(PtFs *fs, PtInode *inode);
/** pt_home_name() - copy the name to @name, of PT_NAME_MAX + 1 bytes.
 * Return: whether its place is in @parent. */
bool pt_home_name(PtFs *fs, PtInode *inode, const PtInode *parent, char *name);
/** pt_home_is() - Return: whether this is its place. */
bool pt_home_is(PtFs *fs, PtInode *inode, const PtPlace *place);

/**
 * pt_home_set() - give an inode another place, unless the guest changes the directory.
 * @name_take: a copy of place->name, made by malloc(3), or NULL: nothing is done.
 * @stamp: taken before the inode was seen there; NULL: the caller is the one who changes.
 *
 * A directory is not put beneath itself, which a tree that others move about may seem to
 * ask for: it has no place then. Context: a reference to @inode is held.
 */
void pt_home_set(PtFs *fs, PtInode *inode, const PtPlace *place, char *name_take,
                 const PtStamp *stamp);
/** pt_home_forget() - its place is known to be wrong, if it still is this one. */
void pt_home_forget(PtFs *fs, PtInode *inode, const PtHome *home);
/** pt_home_install() - pt_hold_install() for an inode that has a place. */
bool pt_home_install(PtFs *fs, PtInode *inode, int fd);
/** pt_home_close() - pt_hold_close_commit(), if its place still is this one; the caller
 * has named it. */
bool pt_home_close(PtFs *fs, PtInode *inode, const PtHome *home, uint64_t word);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(PtHome, pt_home_clear)

#endif
