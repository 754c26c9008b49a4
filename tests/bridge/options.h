/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_BRIDGE_OPTIONS_H
#define TESTS_BRIDGE_OPTIONS_H

#include <glib.h>
#include <stdbool.h>

/* The bridge's command line. */

typedef struct Options {
    char *socket;    /* path, or NULL */
    int fd;          /* connected socket, or -1 */
    char *directory; /* where to mount */
    char *source;
    char *mount_options;
    char *record;
    int n_queues;
    int queue_size;
    int n_threads;
    int n_slots;
    int n_regions;
    gboolean read_only;
    gboolean interrupts;
    gboolean whole;
    gboolean no_indirect;
    gboolean no_event_idx;
    gboolean mem_table;
} Options;

/** options_parse() - Return: false with @error set if the command line is wrong. */
bool options_parse(Options *options, int *argc, char ***argv, GError **error);
void options_clear(Options *options);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Options, options_clear)

#endif
