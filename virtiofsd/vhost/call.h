/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_VHOST_CALL_H
#define VIRTIOFSD_VHOST_CALL_H

#include <stdbool.h>

/*
 * An eventfd of the VMM's to write to (interrupt or error), which the VMM may replace
 * while workers are about to write. Counted, so that no write goes to a closed or reused
 * descriptor, and no lock is held across the write.
 */

typedef struct VuCall VuCall;

/** vu_call_new_take() - Return: count 1; NULL if memory is short (@fd_take is closed). */
VuCall *vu_call_new_take(int fd_take);

/** vu_call_ref() - Context: with the lock under which it can be replaced. NULL is NULL.
 */
VuCall *vu_call_ref(VuCall *call);
void vu_call_unref(VuCall *call);

/** vu_call_retire() - it was replaced: say so to those who hold it, and unref it. */
void vu_call_retire(VuCall *call);

/**
 * vu_call_signal_unref() - write to it and give the reference back.
 *
 * Return: true if it had not been replaced when the write was done. If it had, the VMM
 * may have stopped listening before: its successor must be signalled as well.
 */
bool vu_call_signal_unref(VuCall *call);

#endif
