/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Eventfds that are replaced under their users.
 *
 * When QEMU masks or unmasks a vector it replaces the descriptor, takes our answer as the
 * promise that the old one is silent, and looks at the old one a last time. A worker that
 * took the old one just before would then write to it unseen, and the guest would wait
 * for ever. So whoever has written looks whether it was replaced meanwhile and, if so,
 * writes to the successor too: one interrupt too many is harmless, one too few is not.
 */
#include "virtiofsd/vhost/call.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

struct VuCall {
    _Atomic unsigned int refs;
    _Atomic bool retired;
    int fd;
};

VuCall *vu_call_new_take(int fd_take)
{
    VuCall *call = calloc(1, sizeof(*call));

    if (call == NULL) {
        (void)close(fd_take); /* nothing was written to it */
        return NULL;
    }
    call->refs = 1;
    call->fd = fd_take;
    return call;
}

VuCall *vu_call_ref(VuCall *call)
{
    if (call != NULL) {
        atomic_fetch_add_explicit(&call->refs, 1, memory_order_relaxed);
    }
    return call;
}

void vu_call_unref(VuCall *call)
{
    if (call != NULL && atomic_fetch_sub(&call->refs, 1) == 1) {
        (void)close(call->fd); /* an eventfd has nothing left to fail */
        free(call);
    }
}

void vu_call_retire(VuCall *call)
{
    if (call != NULL) {
        atomic_store(&call->retired, true);
        vu_call_unref(call);
    }
}

bool vu_call_signal_unref(VuCall *call)
{
    uint64_t one = 1;

    /* Non-blocking: if the counter is full, a signal is certainly pending. */
    ssize_t written = write(call->fd, &one, sizeof(one));
    (void)written;
    bool current = !atomic_load(&call->retired);
    vu_call_unref(call);
    return current;
}
