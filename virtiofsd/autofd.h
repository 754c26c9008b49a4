/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_AUTOFD_H
#define VIRTIOFSD_AUTOFD_H

#include <errno.h>
#include <glib.h>
#include <unistd.h>

/*
 * A file descriptor owned by a scope. One of the two leaf headers that every room may
 * include; it includes none of ours.
 */

/**
 * typedef AutoFd - an owned descriptor, or -1 for none.
 *
 * Declare with g_auto(AutoFd) and an initial value; hand over with autofd_steal().
 */
typedef int AutoFd;

/**
 * autofd_clear() - close what is owned and own nothing.
 * @fd: the owner; -1 inside is nothing to close.
 *
 * errno is kept, so a scope may end between a failed call and the reading of errno.
 */
static inline void autofd_clear(AutoFd *fd)
{
    if (*fd >= 0) {
        int saved = errno;
        /* Nothing sensible follows a failed close: the descriptor is gone either way. */
        (void)close(*fd);
        errno = saved;
    }
    *fd = -1;
}

/**
 * autofd_steal() - give the descriptor away.
 * @fd: the owner, which owns nothing afterwards.
 *
 * Return: the descriptor, now the caller's.
 */
static inline int autofd_steal(AutoFd *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(AutoFd, autofd_clear)

#endif
