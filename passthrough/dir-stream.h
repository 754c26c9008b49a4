/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PASSTHROUGH_DIR_STREAM_H
#define PASSTHROUGH_DIR_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "passthrough/handle.h"
#include "passthrough/passthrough.h"

/*
 * A position in a directory, and the entries that the host gave there.
 */

/** pt_dir_stream_new() - a stream at the start.
 * @fd: directory descriptor, at offset 0; with @owned the stream closes it, and it stands
 *      in the budget. Return: it, or NULL when memory is short. */
PtDirStream *pt_dir_stream_new(int fd, bool owned);
/** pt_dir_stream_free() - NULL is fine. */
void pt_dir_stream_free(PtFs *fs, PtDirStream *stream);

/** pt_dir_stream_seek() - go to a cookie. Return: 0 or a negative errno. */
int pt_dir_stream_seek(PtDirStream *stream, uint64_t cookie);
/** pt_dir_stream_rewind() - go to the start, and see all that is in the directory now: on
 * btrfs a descriptor does not without that. Return: 0 or a negative errno. */
int pt_dir_stream_rewind(PtDirStream *stream);
/** pt_dir_stream_next() - Return: 1 with the entry, 0 at the end of this walk, which is
 * that of the directory if it was given nothing, or a negative errno. */
int pt_dir_stream_next(PtDirStream *stream, PtDirent *ret_dirent);
/** pt_dir_stream_unread() - one step back, to before the entry just read. */
void pt_dir_stream_unread(PtDirStream *stream);
/** pt_dir_stream_rest() - the walk pauses; gives up the buffer where too many are kept.
 */
void pt_dir_stream_rest(PtFs *fs, PtDirStream *stream);

#endif
