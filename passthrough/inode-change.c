/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/inode-change.h"

#include "passthrough/inode-index.h"
#include "passthrough/inode-place.h"
#include "passthrough/internal.h"

/*
 * Changes of names, counted by directory; places at which an inode is held by name,
 * counted by a hash of directory and name; and where the host was met replacing files.
 * Different directories and places may share a count: then more is done than needed.
 */

#define CHANGE_BEGUN (UINT64_C(1) << 16)
#define CHANGING_MASK (CHANGE_BEGUN - 1)

/* Longer than any guest needs to look a name up again. */
#define UNSURE_NS UINT64_C(1000000000)

/* ---- changes ----------------------------------------------------------------------- */

static _Atomic uint64_t *changes_of(PtFs *fs, const PtInode *parent)
{
    return &fs->places.changes[parent->slot.index % PT_PLACE_STRIPES];
}

/* Sequentially consistent, as is PtPlaces.named. Who changes counts that first, then
 * looks whether the place is named, then for the inode, and pins it. Who is about to hold
 * an inode by name takes the directory's stamp, looks at the host, names the place, makes
 * the inode findable there, and then asks whether the stamp holds. So either the one sees
 * the inode, or the other sees that he must not. */
PtChange pt_change_begin(PtFs *fs, const PtInode *parent)
{
    atomic_fetch_add(changes_of(fs, parent), CHANGE_BEGUN + 1);
    return (PtChange){fs, parent};
}

void pt_change_end(PtChange *change)
{
    if (change->parent != NULL) {
        atomic_fetch_sub(changes_of(change->fs, change->parent), 1);
    }
    *change = (PtChange){0};
}

PtStamp pt_stamp(PtFs *fs, const PtInode *parent)
{
    uint64_t value = atomic_load(changes_of(fs, parent));
    return (PtStamp){parent, value, (value & CHANGING_MASK) == 0};
}

bool pt_stamp_holds(PtFs *fs, const PtStamp *stamp)
{
    return stamp->quiet && atomic_load(changes_of(fs, stamp->parent)) == stamp->value;
}

/* ---- named places ------------------------------------------------------------------ */

static _Atomic uint32_t *named_at(PtFs *fs, const PtPlace *place)
{
    return &fs->places.named[pt_place_tag(fs, place) % PT_PLACE_NAMES];
}

void pt_place_name(PtFs *fs, const PtPlace *place)
{
    atomic_fetch_add(named_at(fs, place), 1);
}

void pt_place_unname(PtFs *fs, const PtPlace *place)
{
    atomic_fetch_sub(named_at(fs, place), 1);
}

bool pt_place_is_named(PtFs *fs, const PtPlace *place)
{
    return atomic_load(named_at(fs, place)) != 0;
}

/* ---- changes by the host ----------------------------------------------------------- */

static _Atomic uint64_t *replaced_of(PtFs *fs, const PtInode *parent)
{
    return &fs->places.replaced[parent->slot.index % PT_PLACE_STRIPES];
}

void pt_place_replaced(PtFs *fs, const PtInode *parent)
{
    atomic_store_explicit(replaced_of(fs, parent), pt_birth_now(), memory_order_relaxed);
}

bool pt_place_is_unsure(PtFs *fs, const PtInode *parent)
{
    uint64_t when = atomic_load_explicit(replaced_of(fs, parent), memory_order_relaxed);
    return when != 0 && pt_birth_now() - when < UNSURE_NS;
}
