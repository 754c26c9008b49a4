/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VIRTIOFSD_VHOST_STATUS_H
#define VIRTIOFSD_VHOST_STATUS_H

/** enum VuStatus - what became of one message. */
typedef enum VuStatus {
    VU_OK,
    VU_CLOSED,      /* the VMM closed the connection between two messages */
    VU_BAD_PEER,    /* it broke the protocol; logged */
    VU_INTERRUPTED, /* interrupt_fd became readable, or the VMM left, during a wait */
} VuStatus;

#endif
