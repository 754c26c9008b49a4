/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The harness on the file system that does nothing.
 */
#include "tests/support/fuse-harness.h"

Harness *harness_new(const SessionConfig *config)
{
    return harness_new_on(config, null_fs_new());
}
