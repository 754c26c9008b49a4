/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a fuzz target on files, without a fuzzer: on each one named, and on each one in
 * the directories named. A target that finds something aborts.
 */
#include <glib.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned int run_file(const char *path)
{
    g_autofree char *bytes = NULL;
    gsize size = 0;
    g_autoptr(GError) error = NULL;

    if (!g_file_get_contents(path, &bytes, &size, &error)) {
        (void)fprintf(stderr, "%s\n", error->message);
        exit(EXIT_FAILURE);
    }
    /* An exact copy, so that a sanitizer sees a step over its end. */
    g_autofree uint8_t *exact = g_malloc(MAX(size, 1));
    memcpy(exact, bytes, size);
    (void)LLVMFuzzerTestOneInput(exact, size);
    return 1;
}

static unsigned int run_path(const char *path)
{
    g_autoptr(GDir) directory = g_dir_open(path, 0, NULL);
    const char *name;
    unsigned int n = 0;

    if (directory == NULL) {
        return run_file(path);
    }
    while ((name = g_dir_read_name(directory)) != NULL) {
        g_autofree char *inner = g_build_filename(path, name, NULL);
        n += run_file(inner);
    }
    return n;
}

int main(int argc, char **argv)
{
    unsigned int n = 0;

    for (int i = 1; i < argc; i++) {
        n += run_path(argv[i]);
    }
    (void)printf("%u inputs\n", n);
    return n > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
