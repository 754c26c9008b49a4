/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_INODE_PIN_H
#define PASSTHROUGH_INODE_PIN_H

#include <stdbool.h>

#include "passthrough/inode.h"
#include "passthrough/passthrough.h"

/*
 * From a reference to a descriptor.
 */

/** enum PtPin - what becomes of a descriptor that had to be opened. */
typedef enum PtPin {
    PT_PIN_KEEP,    /* the inode keeps it, if there is room for it, or it can be made */
    PT_PIN_SPARE,   /* the inode keeps it, if there is room; nothing is evicted */
    PT_PIN_BRIEFLY, /* it is closed with the node; nothing is evicted */
} PtPin;

/**
 * pt_node_pin() - get a descriptor of the inode that @node refers to.
 *
 * Return: 0, or a negative errno; -ESTALE where the file has been replaced or removed.
 */
int pt_node_pin(PtNode *node, PtPin pin);
/** pt_node_pin_open() - the same where the inode has one. Return: whether. */
bool pt_node_pin_open(PtNode *node);

/**
 * pt_node_at() - hold on to what is at a place that the guest is about to change, so that
 * it can still be used when it is there no more.
 * @any: also what has a descriptor already; else only what nothing but this place holds
 *       matters.
 * @ret_node: the inode, if one is known, with a descriptor, if one can be had.
 *
 * Context: the change has been begun.
 */
void pt_node_at(PtFs *fs, const PtPlace *place, bool any, PtNode *ret_node);

#endif
