/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SANDBOX_IDMAP_H
#define SANDBOX_IDMAP_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "sandbox/sandbox.h"
#include "virtiofsd/autofd.h"

/*
 * What a map of ids says, and the programs that write one for an ordinary user.
 */

/* ---- idmap.c ----------------------------------------------------------------------- */

/** sandbox_id_map_is_own() - Return: whether the map has one id, which is @own outside.
 */
bool sandbox_id_map_is_own(const SandboxIdMap *map, uint32_t own);

/** sandbox_id_map_choose() - Return: the id to be inside: 0 if that is mapped, else the
 * one that @own became, else the first. @map is not empty. */
uint32_t sandbox_id_map_choose(const SandboxIdMap *map, uint32_t own);

/* ---- idmap-helper.c ---------------------------------------------------------------- */

/** struct SandboxIdHelper - newuidmap or newgidmap, waiting to be sent. */
typedef struct SandboxIdHelper {
    const char *program; /* its name; NULL: there is none */
    pid_t pid;
    AutoFd go;   /* one byte sends it; closed without, it ends */
    AutoFd said; /* what it prints */
} SandboxIdHelper;

/**
 * sandbox_id_helper_start() - a child, to stay outside of the user namespace that this
 * process is about to enter and to write its map then.
 * @program: "newuidmap" or "newgidmap", of the system's own.
 */
bool sandbox_id_helper_start(const char *program, const SandboxIdMap *map,
                             SandboxIdHelper *ret_helper, GError **error);

/** sandbox_id_helper_send() - let it write the map, and see it end. */
bool sandbox_id_helper_send(SandboxIdHelper *helper, GError **error);

/** sandbox_id_helper_clear() - end one that was not sent, and see it end. */
void sandbox_id_helper_clear(SandboxIdHelper *helper);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(SandboxIdHelper, sandbox_id_helper_clear)

#endif
