/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_CHILD_H
#define TESTS_UNIT_CHILD_H

#include <glib.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sandbox/sanitizer.h"

/*
 * What a process does to itself cannot be undone, so it is tested in a child. An
 * assertion that fails there ends the child by SIGABRT.
 */

typedef void (*ChildBody)(const void *data);

/** child_run() - run @body in a child. Return: its wait(2) status, 0 if it returned. */
static inline int child_run(ChildBody body, const void *data)
{
    int status = -1;
    pid_t pid = fork();

    g_assert_cmpint(pid, >=, 0);
    if (pid == 0) {
        body(data);
        _exit(0);
    }
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    return status;
}

/** child_passes() - assert that @body returns. */
static inline void child_passes(ChildBody body, const void *data)
{
    g_assert_cmpint(child_run(body, data), ==, 0);
}

/** child_settle() - let a sanitizer's thread, which fork(2) makes anew, begin to run. */
static inline void child_settle(void)
{
    if (SANDBOX_TOOL_THREADS) {
        g_usleep(50000);
    }
}

/** child_status_field() - a line of /proc/PID/status. Return: its value, to be freed. */
static inline char *child_status_field(pid_t pid, const char *field)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/status", (int)pid);
    g_autofree char *text = NULL;
    g_autoptr(GError) error = NULL;

    g_file_get_contents(path, &text, NULL, &error);
    g_assert_no_error(error);
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line != NULL; line++) {
        size_t length = strlen(field);
        if (strncmp(*line, field, length) == 0 && (*line)[length] == ':') {
            return g_strstrip(g_strdup(*line + length + 1));
        }
    }
    return NULL;
}

/** child_assert_status() - assert that a line of /proc/PID/status has this value. */
static inline void child_assert_status(pid_t pid, const char *field, const char *value)
{
    g_autofree char *found = child_status_field(pid, field);

    g_assert_cmpstr(found, ==, value);
}

#endif
