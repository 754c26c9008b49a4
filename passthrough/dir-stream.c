/* SPDX-License-Identifier: Apache-2.0 */
#include "passthrough/dir-stream.h"

#include <dirent.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "passthrough/internal.h"

/*
 * Reading a directory. The host is asked for 64 KiB of entries at a time; they stay with
 * the open directory, so a guest that reads in small pieces costs no system call for most
 * of them. A walk that goes on where the last one ended goes on in the buffer; one that
 * goes back into it searches it; only others seek. A walk from the start always asks the
 * host again. A walk that was given something ends with a buffer that the host did not
 * fill: that there is no more is an answer to the next one, for then it is read.
 *
 * FUSE's client asks for a page at least, and asks again for what its program had no room
 * for, also behind the host's end. That must not make the host seek: btrfs then shows
 * what was made since the directory was opened. So the buffer stays until the guest has
 * heard of the end, and the end is sought behind what is in it.
 *
 * How many buffers rest with idle directories is limited; beyond that they are given up
 * after each walk.
 */

enum {
    BUFFER_SIZE = 64 << 10,
    BUFFERS_KEPT = 256, /* 16 MiB */
    ENTRY_MOST = 1024,  /* more than any entry takes */
};

struct PtDirStream {
    char *buffer; /* BUFFER_SIZE, or NULL */
    size_t end;   /* bytes in it */
    size_t position;
    uint64_t start;       /* cookie of the first entry in the buffer */
    uint64_t cookie;      /* of the entry at @position */
    size_t last_position; /* the same two, one entry ago */
    uint64_t last_cookie;
    int fd;
    bool owned;    /* fd is this stream's */
    bool kept;     /* the buffer counts among those that rest */
    bool in_place; /* fd is at the end of the buffer, and the buffer at @cookie */
    bool gave;     /* an entry, since the last seek */
    bool heard;    /* the last walk gave nothing, because it was at the end */
};

PtDirStream *pt_dir_stream_new(int fd, bool owned)
{
    PtDirStream *stream = calloc(1, sizeof(*stream));
    if (stream != NULL) {
        stream->fd = fd;
        stream->owned = owned;
        stream->in_place = true;
    }
    return stream;
}

static void drop_buffer(PtFs *fs, PtDirStream *stream)
{
    if (stream->kept) {
        atomic_fetch_sub_explicit(&fs->n_dir_buffers, 1, memory_order_relaxed);
    }
    /* What was in it and not read yet has to be read from the host again. */
    stream->in_place = stream->in_place && stream->position == stream->end;
    stream->kept = false;
    free(stream->buffer);
    stream->buffer = NULL;
    stream->end = 0;
    stream->position = 0;
}

void pt_dir_stream_free(PtFs *fs, PtDirStream *stream)
{
    if (stream == NULL) {
        return;
    }
    drop_buffer(fs, stream);
    if (stream->owned) {
        pt_fd_close(fs, stream->fd);
    }
    free(stream);
}

void pt_dir_stream_rest(PtFs *fs, PtDirStream *stream)
{
    if (stream->buffer == NULL) {
        return;
    }
    if (!stream->kept) {
        uint32_t before =
            atomic_fetch_add_explicit(&fs->n_dir_buffers, 1, memory_order_relaxed);
        stream->kept = true;
        if (before >= BUFFERS_KEPT) {
            drop_buffer(fs, stream);
            return;
        }
    }
    if (stream->heard) {
        drop_buffer(fs, stream);
    }
}

static const struct dirent64 *entry_at(const PtDirStream *stream, size_t position)
{
    return (const struct dirent64 *)(const void *)(stream->buffer + position);
}

static bool is_full(const PtDirStream *stream)
{
    return BUFFER_SIZE - stream->end < ENTRY_MOST;
}

static int ask_host(PtDirStream *stream)
{
    long n = syscall(SYS_getdents64, stream->fd, stream->buffer + stream->end,
                     BUFFER_SIZE - stream->end);
    return n < 0 ? -errno : (int)n;
}

/* Ask the host for what follows the buffer, all of which was read. Return: bytes, 0 at
 * the end, or a negative errno.
 *
 * The start of a directory is no end, unless it was removed: but ext4 says so, once,
 * where a descriptor was read at the end first (Linux 6.18). */
static int fill(PtDirStream *stream)
{
    if (stream->buffer == NULL) {
        stream->buffer = malloc(BUFFER_SIZE);
        if (stream->buffer == NULL) {
            return -ENOMEM;
        }
    }
    if (stream->end == 0 || is_full(stream)) {
        stream->start = stream->cookie;
        stream->position = 0;
        stream->end = 0;
    }
    int n = ask_host(stream);
    if (n == 0 && stream->cookie == 0 && lseek(stream->fd, 0, SEEK_SET) == 0) {
        n = ask_host(stream);
    }
    stream->end += (size_t)MAX(n, 0);
    return n;
}

static int rewind_to(PtDirStream *stream, off_t offset)
{
    stream->in_place = false;
    if (lseek(stream->fd, offset, SEEK_SET) < 0) {
        return -errno;
    }
    stream->in_place = true;
    stream->end = 0;
    stream->position = 0;
    stream->cookie = (uint64_t)offset;
    stream->start = stream->cookie;
    return 0;
}

/* Go through the buffer up to a cookie. Return: whether it is there; if not, the end. */
static bool skip_to(PtDirStream *stream, uint64_t cookie)
{
    stream->position = 0;
    stream->cookie = stream->start;
    while (stream->cookie != cookie && stream->position < stream->end) {
        const struct dirent64 *entry = entry_at(stream, stream->position);
        stream->cookie = (uint64_t)entry->d_off;
        stream->position += entry->d_reclen;
    }
    return stream->cookie == cookie;
}

/* A cookie beyond what lseek(2) takes is found by reading up to it. The size of the
 * host's directory bounds this. */
static int read_up_to(PtDirStream *stream, uint64_t cookie)
{
    int r = rewind_to(stream, 0);
    while (r == 0) {
        int n = fill(stream);
        if (n <= 0) {
            return n < 0 ? n : -EINVAL;
        }
        if (skip_to(stream, cookie)) {
            return 0;
        }
    }
    return r;
}

int pt_dir_stream_seek(PtDirStream *stream, uint64_t cookie)
{
    stream->gave = false;
    stream->heard = false;
    bool unread = stream->end == 0 && stream->cookie == 0;
    if (stream->in_place && stream->cookie == cookie && (cookie != 0 || unread)) {
        return 0;
    }
    if (cookie != 0 && stream->in_place && stream->end > 0 && skip_to(stream, cookie)) {
        return 0;
    }
    return cookie <= INT64_MAX ? rewind_to(stream, (off_t)cookie)
                               : read_up_to(stream, cookie);
}

int pt_dir_stream_rewind(PtDirStream *stream)
{
    stream->gave = false;
    stream->heard = false;
    return rewind_to(stream, 0);
}

int pt_dir_stream_next(PtDirStream *stream, PtDirent *ret_dirent)
{
    if (stream->position == stream->end) {
        int n = stream->gave && !is_full(stream) ? 0 : fill(stream);
        if (n <= 0) {
            stream->heard = n == 0 && !stream->gave;
            return n;
        }
    }
    const struct dirent64 *entry = entry_at(stream, stream->position);
    size_t room = entry->d_reclen - offsetof(struct dirent64, d_name);
    *ret_dirent = (PtDirent){
        .ino = entry->d_ino,
        .offset = (uint64_t)entry->d_off,
        .type = entry->d_type,
        .name_length = (uint32_t)strnlen(entry->d_name, room),
        .name = entry->d_name,
    };
    stream->gave = true;
    stream->last_position = stream->position;
    stream->last_cookie = stream->cookie;
    stream->position += entry->d_reclen;
    stream->cookie = (uint64_t)entry->d_off;
    return 1;
}

void pt_dir_stream_unread(PtDirStream *stream)
{
    stream->position = stream->last_position;
    stream->cookie = stream->last_cookie;
}
