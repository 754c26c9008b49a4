/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The recorder: a buffered file under a lock. What is lost when the disk is full is told
 * at the end; requests are never held up for it.
 */
#include "tests/bridge/recorder.h"

#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>

struct Recorder {
    FILE *file;
    int error; /* first one, negative */
    pthread_mutex_t lock;
};

Recorder *recorder_new(const char *path)
{
    FILE *file = fopen(path, "abe");
    if (file == NULL) {
        return NULL;
    }
    Recorder *recorder = g_new0(Recorder, 1);
    recorder->file = file;
    (void)pthread_mutex_init(&recorder->lock, NULL); /* cannot fail with defaults */
    return recorder;
}

void recorder_add(Recorder *recorder, const void *bytes, size_t size)
{
    uint32_t length = GUINT32_TO_LE((uint32_t)size);
    (void)pthread_mutex_lock(&recorder->lock);
    if (fwrite(&length, sizeof(length), 1, recorder->file) != 1 ||
        fwrite(bytes, 1, size, recorder->file) != size) {
        recorder->error = recorder->error != 0 ? recorder->error : -errno;
    }
    (void)pthread_mutex_unlock(&recorder->lock);
}

int recorder_free(Recorder *recorder)
{
    if (recorder == NULL) {
        return 0;
    }
    int rc = recorder->error;
    if (fclose(recorder->file) != 0 && rc == 0) {
        rc = -errno;
    }
    (void)pthread_mutex_destroy(&recorder->lock); /* nobody holds it */
    g_free(recorder);
    return rc;
}
