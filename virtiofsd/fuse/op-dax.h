/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_FUSE_OP_DAX_H
#define VIRTIOFSD_FUSE_OP_DAX_H

#include "virtiofsd/fuse/op.h"

/* Operations as in op.h: what the guest maps in its DAX window. */

int op_setupmapping(Request *request);
int op_removemapping(Request *request);

#endif
