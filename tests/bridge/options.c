/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bridge's options and their limits.
 */
#include "tests/bridge/options.h"

#define SUMMARY                                                                          \
    "Mounts the share of a running virtio-fs daemon on this host through /dev/fuse "     \
    "and\n"                                                                              \
    "forwards every request to the daemon's virtqueues, as a guest's kernel would.\n"    \
    "Prints 'mounted DIR' when the daemon has answered INIT; serves until the mount "    \
    "is\n"                                                                               \
    "gone. SIGTERM and SIGINT unmount; a second one gives up on requests in flight."

#define DESCRIPTION                                                                      \
    "Exit status: 0 unmounted, 1 not started, 2 usage, 3 the daemon went away, 4 the\n"  \
    "daemon's answers were malformed, 5 requests were given up when unmounting.\n"       \
    "After 3, and after 4 for a broken queue, the dead mount stays, so that nothing "    \
    "is\n"                                                                               \
    "written beneath it by mistake: umount it."

static bool is_power_of_two(int value)
{
    return value > 0 && (value & (value - 1)) == 0;
}

static bool check(Options *options, GError **error)
{
    const char *words = NULL;
    if (options->directory == NULL) {
        words = "--mount DIR is needed";
    } else if ((options->socket == NULL) == (options->fd < 0)) {
        words = "one of --socket PATH and --fd N is needed";
    } else if (options->n_queues < 1 || options->n_queues > 64) {
        words = "--queues: 1 to 64";
    } else if (!is_power_of_two(options->queue_size) || options->queue_size < 16 ||
               options->queue_size > 32768) {
        words = "--queue-size: a power of two from 16 to 32768";
    } else if (options->n_threads < 1 || options->n_threads > 64) {
        words = "--threads: 1 to 64";
    } else if (options->n_slots < 1 || options->n_slots > 1024) {
        words = "--slots: 1 to 1024";
    } else if (options->n_regions < 1 || options->n_regions > 8) {
        words = "--regions: 1 to 8";
    }
    if (words == NULL && options->n_queues > options->queue_size / 4) {
        words = "--queues: at most a quarter of --queue-size";
    }
    if (words != NULL) {
        g_set_error_literal(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, words);
        return false;
    }
    return true;
}

bool options_parse(Options *options, int *argc, char ***argv, GError **error)
{
    *options = (Options){.fd = -1,
                         .n_queues = 1,
                         .queue_size = 512,
                         .n_threads = 4,
                         .n_slots = 128,
                         .n_regions = 2};
    const GOptionEntry entries[] = {
        {"socket", 0, 0, G_OPTION_ARG_FILENAME, &options->socket,
         "connect to the daemon's socket", "PATH"},
        {"fd", 0, 0, G_OPTION_ARG_INT, &options->fd, "use a connected socket", "N"},
        {"mount", 0, 0, G_OPTION_ARG_FILENAME, &options->directory,
         "mount there; a file is mounted on a file", "DIR"},
        {"source", 0, 0, G_OPTION_ARG_STRING, &options->source,
         "first column of /proc/mounts (virtiofsd)", "NAME"},
        {"mount-options", 'o', 0, G_OPTION_ARG_STRING, &options->mount_options,
         "more options for mount(2), such as max_read=4096", "LIST"},
        {"read-only", 0, 0, G_OPTION_ARG_NONE, &options->read_only, "mount read-only",
         NULL},
        {"queues", 0, 0, G_OPTION_ARG_INT, &options->n_queues, "request queues (1)", "N"},
        {"queue-size", 0, 0, G_OPTION_ARG_INT, &options->queue_size,
         "entries of each queue (512)", "N"},
        {"threads", 0, 0, G_OPTION_ARG_INT, &options->n_threads,
         "threads that read requests (4)", "N"},
        {"slots", 0, 0, G_OPTION_ARG_INT, &options->n_slots, "requests in flight (128)",
         "N"},
        {"regions", 0, 0, G_OPTION_ARG_INT, &options->n_regions,
         "regions of guest memory (2)", "N"},
        {"record", 0, 0, G_OPTION_ARG_FILENAME, &options->record,
         "append every request to a corpus (see corpus.py)", "FILE"},
        {"interrupts", 0, 0, G_OPTION_ARG_NONE, &options->interrupts,
         "forward INTERRUPT, which no Linux guest sends", NULL},
        {"whole", 0, 0, G_OPTION_ARG_NONE, &options->whole,
         "one descriptor for each direction, not one for each page", NULL},
        {"no-indirect", 0, 0, G_OPTION_ARG_NONE, &options->no_indirect,
         "no indirect descriptors", NULL},
        {"no-event-idx", 0, 0, G_OPTION_ARG_NONE, &options->no_event_idx,
         "no event index", NULL},
        {"mem-table", 0, 0, G_OPTION_ARG_NONE, &options->mem_table,
         "send memory by SET_MEM_TABLE", NULL},
        {NULL, 0, 0, G_OPTION_ARG_NONE, NULL, NULL, NULL},
    };
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);
    g_option_context_set_summary(context, SUMMARY);
    g_option_context_set_description(context, DESCRIPTION);
    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, argc, argv, error)) {
        return false;
    }
    if (*argc > 1) {
        g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
                    "unexpected argument %s", (*argv)[1]);
        return false;
    }
    return check(options, error);
}

void options_clear(Options *options)
{
    g_clear_pointer(&options->socket, g_free);
    g_clear_pointer(&options->directory, g_free);
    g_clear_pointer(&options->source, g_free);
    g_clear_pointer(&options->mount_options, g_free);
    g_clear_pointer(&options->record, g_free);
}
