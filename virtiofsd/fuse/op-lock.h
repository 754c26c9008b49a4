/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_FUSE_OP_LOCK_H
#define VIRTIOFSD_FUSE_OP_LOCK_H

#include "virtiofsd/fuse/op.h"

/*
 * Locks: the operations, and what others and the waiter have to do with them.
 */

int op_getlk(Request *request);
int op_setlk(Request *request);
int op_setlkw(Request *request);
int op_interrupt(Request *request);

/** op_lock_flushed() - the process of a FLUSH has closed the file: its locks end. */
void op_lock_flushed(Request *request);

/** op_lock_released() - the handle of a RELEASE is closed. */
void op_lock_released(Request *request);

/**
 * op_lock_retry() - try once more what waits.
 *
 * Context: the waiter, inside the gate. Return: 0, -EAGAIN if it goes on waiting, or
 * another errno: -EDEADLK if its owners wait for each other.
 */
int op_lock_retry(Session *session, const WaitRequest *wanted);

#endif
