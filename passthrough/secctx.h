/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_SECCTX_H
#define PASSTHROUGH_SECCTX_H

#include "passthrough/inode.h"
#include "passthrough/passthrough.h"

/*
 * Labels of new files.
 */

/**
 * pt_labels_set() - label what was just made; if that fails, remove it again.
 * @place: where it was made; its name is "" for a file that has none.
 * @labels: NULL for none.
 * @fd: any descriptor of it.
 *
 * Context: as ourselves, not as the caller.
 * Return: 0, or a negative errno with the file gone.
 */
int pt_labels_set(const PtFs *fs, const PtPlace *place, const PtLabels *labels, int fd);

/** pt_labels_set_entry() - pt_labels_set() for an entry that is about to be given; on
 * failure it is forgotten. */
int pt_labels_set_entry(PtFs *fs, const PtPlace *place, const PtLabels *labels,
                        PtEntry *entry);

#endif
