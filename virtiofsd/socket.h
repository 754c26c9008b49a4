/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_SOCKET_H
#define VIRTIOFSD_SOCKET_H

#include <glib.h>
#include <stdbool.h>

/*
 * The listening socket: made here, or adopted with --fd.
 */

/** struct SocketConfig - strings are borrowed. */
typedef struct SocketConfig {
    const char *path;  /* NULL with --fd; may be relative, without folder */
    const char *group; /* NULL, or the group that may connect */
    int fd;            /* -1, or an inherited listening socket */
} SocketConfig;

typedef struct Socket Socket;

/**
 * socket_open() - bind, listen and lock the pid file (path), or check and adopt (fd).
 *
 * With a path: takes PATH.pid (0600, locked, holds our id) first, replaces a stale
 * socket, creates it 0700 (0770 with a group), and keeps its folder as a cloned mount so
 * that it can be removed after the sandbox is entered. Context: before the sandbox.
 * Return: the socket, or NULL with @error set.
 */
Socket *socket_open(const SocketConfig *config, GError **error);

/**
 * socket_keep_folder() - what socket_open() could not, for an ordinary user: keep the
 * folder so that socket_close() finds it. Context: paths still lead to the host's files.
 *
 * Return: a descriptor of the folder, which is the caller's, to leave us the right to
 * remove files in it; -1 with --fd, when there is nothing to remove.
 */
int socket_keep_folder(Socket *socket);

/** socket_fd() - Return: the listening descriptor, non-blocking and close-on-exec. */
int socket_fd(const Socket *socket);

/** socket_accept() - Return: the connection, close-on-exec, or a negative errno. */
int socket_accept(const Socket *socket);

/** socket_close() - close; remove our own socket and pid file (path only), nothing else.
 */
void socket_close(Socket *socket);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Socket, socket_close)

#endif
