/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_TRANSLATE_H
#define PASSTHROUGH_TRANSLATE_H

#include "passthrough/passthrough.h"

/*
 * Between the user or group ids that the guest uses and those on the host. A translation
 * of NULL changes none.
 */

/** pt_translate_to_host() - Return: 0, or -EPERM: the guest may not use this id. */
int pt_translate_to_host(const PtTranslation *translation, uint32_t guest,
                         uint32_t *ret_host);

/** pt_translate_to_guest() - Return: what the guest is to see. */
uint32_t pt_translate_to_guest(const PtTranslation *translation, uint32_t host);

/** pt_translate_caller() - Return: 0, or -EPERM: one of the ids may not be used. */
int pt_translate_caller(const PtFs *fs, const PtCaller *guest, PtCaller *ret_host);

#endif
