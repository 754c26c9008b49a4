/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_VHOST_WINDOW_H
#define VIRTIOFSD_VHOST_WINDOW_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "virtiofsd/vhost/backend.h"
#include "virtiofsd/vhost/window-protocol.h"

/*
 * The DAX window: what the VMM has mapped where in the shared memory region that the
 * guest reads and writes files through.
 */

/** The only length of a mapping, and what all offsets are multiples of. */
#define VU_WINDOW_PAGE (UINT64_C(2) << 20)
/** How long the VMM may take to put in place what it has said that it maps. */
#define VU_WINDOW_ECHO_MS 1000

typedef struct VuWindow VuWindow;

/** vu_window_new() - @size: a multiple of VU_WINDOW_PAGE. @backend: borrowed.
 * Return: it, or NULL when memory is short. */
VuWindow *vu_window_new(uint64_t size, VuWindowProtocol protocol, VuBackend *backend);
void vu_window_free(VuWindow *window);

/** vu_window_size() - Return: bytes. */
uint64_t vu_window_size(const VuWindow *window);

/** vu_window_rules() - Return: those of its protocol. */
const VuWindowRules *vu_window_rules(const VuWindow *window);

/* ---- workers ------------------------------------------------------------------------
 */

/** vu_window_is_ready() - Return: whether the VMM knows of the window, and can be asked.
 */
bool vu_window_is_ready(VuWindow *window);

/** struct VuWindowMap - a mapping that the guest wants, of VU_WINDOW_PAGE bytes. */
typedef struct VuWindowMap {
    uint64_t offset;      /* in the window */
    uint64_t file_offset; /* in the file */
    int fd;               /* of a regular file, for reading and writing; borrowed */
} VuWindowMap;

/**
 * vu_window_map() - have a part of a file mapped; what is there now is unmapped before.
 *
 * The same mapping once more asks the VMM for nothing. When this returns 0, the guest can
 * use it.
 * Return: 0; -EINVAL for offsets that are no multiples or not in the window; -ENXIO if
 * the file is no regular one, or does not cover the mapping, before or after; else as
 * vu_backend_ask(), and then nothing is mapped there that could be relied on.
 */
int vu_window_map(VuWindow *window, const VuWindowMap *map);

/** vu_window_unmap() - the same for what is mapped there, if anything. @length: a
 * multiple of VU_WINDOW_PAGE, and not 0. Return: as vu_window_map(). */
int vu_window_unmap(VuWindow *window, uint64_t offset, uint64_t length);

/** vu_window_unmap_all() - unmap what a session has left; what the VMM does not confirm
 * is unmapped once more before it is used. */
void vu_window_unmap_all(VuWindow *window);

/* ---- control thread ----------------------------------------------------------------
 */

/** vu_window_forget() - the device was reset, whereby the VMM drops all mappings, or at
 * least makes them nobody's: then the next session unmaps them.
 * @anew: it is another VMM, that has none. */
void vu_window_forget(VuWindow *window, bool anew);

/**
 * vu_window_has() - Return: whether memory that the VMM adds is a file that is mapped in
 * the window, or is about to be. If it is that very mapping, it is in place now.
 */
bool vu_window_has(VuWindow *window, int fd, uint64_t file_offset, uint64_t size);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VuWindow, vu_window_free)

#endif
