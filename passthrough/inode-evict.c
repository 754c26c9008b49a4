/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/inode-evict.h"

#include <errno.h>

#include "passthrough/fd.h"
#include "passthrough/inode-hold.h"
#include "passthrough/inode-pin.h"
#include "passthrough/inode-place.h"
#include "passthrough/internal.h"

/*
 * A clock goes round over the descriptors. One that was used since the hand came by last
 * is passed over once; the next idle one is asked for on the host: is it, this moment,
 * still at the place where it was seen? Only then it is closed, and only if the guest
 * moved or removed no name of that directory, and nobody used the descriptor, from before
 * the question until after the closing was decided.
 *
 * An inode whose place turns out to be wrong, or that has no name any more, loses the
 * place and is not asked for again until it is seen somewhere else.
 */

/* Steps of the hand when not all descriptors are to be looked at. */
enum { STEPS_FEW = 512 };

/** enum Verdict - what the host said. */
typedef enum Verdict {
    VERDICT_CLOSE,
    VERDICT_KEEP,
    VERDICT_LATER,     /* too young to be told from the next file with its number, or
                          the guest is changing the directory */
    VERDICT_MISPLACED, /* not at its place: keep, and forget the place */
} Verdict;

typedef struct Candidate {
    PtFs *fs;
    PtInode *inode; /* referenced */
    int fd;
    uint64_t word; /* of pt_hold_close_begin() */
    PtHome home;
} Candidate;

static Verdict compare(const Candidate *c, const struct statx *there,
                       const struct statx *here, uint64_t now)
{
    PtIdentity id = pt_identity(here);
    PtIdentity at_place = pt_identity(there);
    PtIdentity known = pt_index_identity(c->fs, c->inode);
    if (here->stx_nlink == 0 || !pt_identity_equal(&id, &at_place)) {
        return VERDICT_MISPLACED;
    }
    if (id.ino != known.ino || id.dev != known.dev || id.mount_id != known.mount_id ||
        id.btime == 0) {
        return VERDICT_MISPLACED;
    }
    if (!pt_birth_settled(now, id.btime)) {
        return VERDICT_LATER;
    }
    if (c->inode->mount_class == PT_MOUNT_OVERLAY) {
        if (pt_mount_shares_number(PT_MOUNT_OVERLAY, here)) {
            return VERDICT_KEEP;
        }
        pt_index_set_btime(c->fs, c->inode, id.btime); /* it may have been copied up */
    } else if (id.btime != known.btime) {
        return VERDICT_MISPLACED;
    }
    return VERDICT_CLOSE;
}

static Verdict look(const Candidate *c)
{
    PtFs *fs = c->fs;
    struct statx there, here;
    pt_inode_ref(c->home.parent);
    g_auto(PtNode) parent = {.fs = fs, .inode = c->home.parent, .fd = -1};
    int r = pt_node_pin(&parent, PT_PIN_BRIEFLY);
    if (r < 0) {
        return r == -ESTALE ? VERDICT_MISPLACED : VERDICT_KEEP;
    }
    uint64_t now = pt_birth_now();
    PtStamp stamp = pt_stamp(fs, c->home.parent);
    if (pt_stat(fs, parent.fd, c->home.name, &there) < 0 ||
        pt_stat(fs, c->fd, "", &here) < 0) {
        return pt_stamp_holds(fs, &stamp) ? VERDICT_MISPLACED : VERDICT_LATER;
    }
    Verdict verdict = compare(c, &there, &here, now);
    return pt_stamp_holds(fs, &stamp) ? verdict : VERDICT_LATER;
}

/* The place is named from before the host is asked: see pt_change_begin().
 * Return: whether the descriptor is closed. */
static bool try_close(Candidate *c, PtEviction *eviction)
{
    PtFs *fs = c->fs;
    const PtPlace place = {c->home.parent, -1, c->home.name};
    pt_place_name(fs, &place);
    Verdict verdict = look(c);
    if (verdict == VERDICT_CLOSE && pt_home_close(fs, c->inode, &c->home, c->word)) {
        pt_hold_leave(fs, c->fd);
        pt_fd_close(fs, c->fd);
        return true;
    }
    pt_place_unname(fs, &place);
    eviction->later = eviction->later || verdict == VERDICT_LATER;
    /* If somebody else has used or even closed the descriptor, nothing was learnt. */
    bool undisturbed = pt_hold_close_cancel(c->inode, c->word);
    if (verdict == VERDICT_MISPLACED && undisturbed) {
        pt_home_forget(fs, c->inode, &c->home);
    }
    return false;
}

static uint16_t next_tag(PtFs *fs)
{
    uint32_t n = atomic_fetch_add_explicit(&fs->n_evictions, 1, memory_order_relaxed);
    return (uint16_t)(n % UINT16_MAX + 1);
}

static bool consider(Candidate *c, PtEviction *eviction)
{
    if (pt_hold_fd(c->inode) != c->fd || !pt_home_get(c->fs, c->inode, &c->home)) {
        return false;
    }
    c->word = pt_hold_close_begin(c->inode, next_tag(c->fs));
    if (c->word == 0) {
        return false;
    }
    eviction->attempts--;
    return try_close(c, eviction);
}

static void candidate_clear(Candidate *c)
{
    pt_home_clear(&c->home);
    pt_inode_put(c->fs, c->inode);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Candidate, candidate_clear)

static bool is_done(const PtEviction *eviction)
{
    return eviction->closed >= eviction->wanted || eviction->attempts == 0;
}

void pt_evict(PtFs *fs, PtEviction *eviction)
{
    uint32_t end = atomic_load_explicit(&fs->owners.end, memory_order_relaxed);
    /* The first round may only take marks away. */
    uint64_t steps = eviction->all ? (uint64_t)end * 2 + 1 : STEPS_FEW;
    for (; end != 0 && steps > 0 && !is_done(eviction); steps--) {
        uint32_t at = atomic_fetch_add_explicit(&fs->hand, 1, memory_order_relaxed) % end;
        uint32_t index = pt_owners_at(&fs->owners, at);
        PtInode *inode = index == 0 ? NULL : pt_inode_at(fs, index);
        if (inode == NULL || !pt_slot_ref_live(&inode->slot)) {
            continue;
        }
        g_auto(Candidate) candidate = {.fs = fs, .inode = inode, .fd = (int)at};
        eviction->closed += consider(&candidate, eviction) ? 1 : 0;
    }
}
