/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_VHOST_WINDOW_PROTOCOL_H
#define VIRTIOFSD_VHOST_WINDOW_PROTOCOL_H

#include <stdbool.h>
#include <stdint.h>

#include "virtiofsd/vhost/backend.h"

/*
 * How a VMM is asked for mappings: as the standard says, or in one of the two ways from
 * before there was one. Which of them it understands cannot be negotiated.
 */

/** enum VuWindowProtocol - the ways. */
typedef enum VuWindowProtocol {
    VU_WINDOW_STANDARD,  /* SHMEM_MAP, SHMEM_UNMAP; we say how large the window is */
    VU_WINDOW_LEGACY,    /* FS_MAP, FS_UNMAP with arrays; the VMM knows how large */
    VU_WINDOW_LEGACY_V3, /* the same with a count and entries */
} VuWindowProtocol;

/** struct VuWindowRules - what is different, beside the bytes. */
typedef struct VuWindowRules {
    uint64_t offers;     /* protocol feature that is offered for it, or 0 */
    uint64_t needs;      /* those without which the VMM is asked for nothing */
    bool adds_memory;    /* it may add what it maps to our memory, and then late */
    bool outlives_reset; /* RESET_DEVICE leaves mapped what is */
} VuWindowRules;

/** struct VuWindowPiece - what is to be mapped, or no more. */
typedef struct VuWindowPiece {
    bool maps;
    uint64_t offset; /* in the window */
    uint64_t file_offset;
    uint64_t length;
    int fd; /* borrowed by the request; -1 to unmap */
} VuWindowPiece;

/** vu_window_protocol_rules() - Return: constant. */
const VuWindowRules *vu_window_protocol_rules(VuWindowProtocol protocol);

/** vu_window_protocol_encode() - make the request for a piece. */
void vu_window_protocol_encode(VuWindowProtocol protocol, const VuWindowPiece *piece,
                               VuBackendRequest *ret_request);

#endif
