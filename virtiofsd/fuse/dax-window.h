/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_FUSE_DAX_WINDOW_H
#define VIRTIOFSD_FUSE_DAX_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

/*
 * What fuse/ needs of the DAX window, which is the VMM's: given by server.c.
 */

/** struct DaxMap - a mapping of PT_DAX_SIZE bytes. */
typedef struct DaxMap {
    uint64_t offset;      /* in the window */
    uint64_t file_offset; /* in the file */
    int fd;               /* of the file, for reading and writing; borrowed */
} DaxMap;

/**
 * struct DaxWindow - who maps files for the guest.
 *
 * Context: any worker; each call may wait for the VMM, for a limited time. Offsets and
 * lengths are judged by who is called.
 */
typedef struct DaxWindow {
    void *opaque;
    /* Return: whether this VMM has the window. */
    bool (*is_ready)(void *opaque);
    /* Return: 0 once the guest can use the mapping, or a negative errno. */
    int (*map)(void *opaque, const DaxMap *map);
    /* Unmap whatever is mapped there. Return: 0 or a negative errno. */
    int (*unmap)(void *opaque, uint64_t offset, uint64_t length);
    /* Unmap all. Context: no other request runs. */
    void (*unmap_all)(void *opaque);
} DaxWindow;

#endif
