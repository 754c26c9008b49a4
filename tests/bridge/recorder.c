/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The recorder: one write(2) for each record, at the end of the file, so that nothing is
 * lost however the process ends, and nothing but write(2) is needed in a sandbox. What is
 * lost when the disk is full is told at the end; requests are never held up for it.
 */
#include "tests/bridge/recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "virtiofsd/autofd.h"

struct Recorder {
    AutoFd fd;
    _Atomic int error; /* first one, negative */
};

typedef struct Record {
    uint32_t kind, size, kept, room;
    unsigned char bytes[RECORDER_KEPT_MAX];
} Record;

Recorder *recorder_new(const char *path)
{
    g_auto(AutoFd) fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) {
        return NULL;
    }
    Recorder *recorder = g_new0(Recorder, 1);
    recorder->fd = autofd_steal(&fd);
    return recorder;
}

void recorder_add(Recorder *recorder, RecorderKind kind, const struct iovec *segments,
                  size_t n, size_t size, size_t room)
{
    Record record;
    size_t kept = 0;
    size_t wanted = MIN(size, sizeof(record.bytes));

    for (size_t i = 0; i < n && kept < wanted; i++) {
        size_t piece = MIN(segments[i].iov_len, wanted - kept);
        if (piece > 0) {
            memcpy(record.bytes + kept, segments[i].iov_base, piece);
        }
        kept += piece;
    }
    record.kind = GUINT32_TO_LE((uint32_t)kind);
    record.size = GUINT32_TO_LE((uint32_t)size);
    record.kept = GUINT32_TO_LE((uint32_t)kept);
    record.room = GUINT32_TO_LE((uint32_t)room);
    size_t whole = offsetof(Record, bytes) + kept;
    ssize_t written = write(recorder->fd, &record, whole);
    if (written != (ssize_t)whole) {
        int none = 0;
        (void)atomic_compare_exchange_strong(&recorder->error, &none,
                                             written < 0 ? -errno : -EIO);
    }
}

int recorder_free(Recorder *recorder)
{
    if (recorder == NULL) {
        return 0;
    }
    int rc = recorder->error;
    autofd_clear(&recorder->fd);
    g_free(recorder);
    return rc;
}
