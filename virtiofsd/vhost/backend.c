/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The channel for requests from us to the VMM. It is kept open from the moment that the
 * VMM gives it to the end of the connection.
 */
#include "virtiofsd/vhost/backend.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

void vu_backend_init(VuBackend *backend)
{
    backend->socket = -1;
}

int vu_backend_connect_take(VuBackend *backend, int socket_take)
{
    g_auto(AutoFd) socket = socket_take;
    struct statx st;

    if (statx(socket, "", AT_EMPTY_PATH, STATX_TYPE, &st) < 0) {
        return -errno;
    }
    if (!S_ISSOCK(st.stx_mode)) {
        return -ENOTSOCK;
    }
    vu_backend_clear(backend);
    backend->socket = autofd_steal(&socket);
    return 0;
}

void vu_backend_clear(VuBackend *backend)
{
    autofd_clear(&backend->socket);
}
