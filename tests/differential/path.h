/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_DIFFERENTIAL_PATH_H
#define TESTS_DIFFERENTIAL_PATH_H

#include "tests/differential/kind.h"

/*
 * Paths as numbers: up to four names of a small alphabet, so that operations meet the
 * same files, and a decoration such as a slash at the end.
 */

/** Room for any path, with its NUL. */
#define PATH_ROOM 2048
/** How many names there are. */
#define PATH_NAMES 24

/** path_draw() - @directory: rather one of the names that are used for directories. */
int64_t path_draw(Rng *rng, gboolean directory);
/** path_draw_target() - what a symbolic link says; sometimes nothing sensible. */
int64_t path_draw_target(Rng *rng);
void path_decode(int64_t path, char text[PATH_ROOM]);
void path_tell(int64_t path, GString *text);
gboolean path_simpler(int64_t path, unsigned i, int64_t *ret_path);
/** path_name() - which name of the alphabet this is, or -1. */
int path_name(const char *name);
/** path_uses_name() - whether name number @name occurs in @path. */
gboolean path_uses_name(int64_t path, int name);

#endif
