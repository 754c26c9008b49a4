/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the command line: arguments separated by newlines. Whatever they are, parsing
 * ends in options or in one line that tells what is wrong.
 */
#include <string.h>

#include "virtiofsd/options.h"

#define MOST_BYTES 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[sizeof("virtiofsd\n") + MOST_BYTES] = "virtiofsd\n";
    size_t start = strlen(text);

    if (size > MOST_BYTES) {
        return 0;
    }
    memcpy(text + start, data, size);
    text[start + size] = '\0';
    g_auto(GStrv) argv = g_strsplit(text, "\n", -1);
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) options = options_parse((int)g_strv_length(argv), argv, &error);
    (void)options_find_fd((int)g_strv_length(argv), argv);
    g_assert_true((options == NULL) == (error != NULL));
    if (error != NULL) {
        g_assert_cmpuint(strlen(error->message), >, 0);
        g_assert_null(strchr(error->message, '\n'));
    }
    return 0;
}
