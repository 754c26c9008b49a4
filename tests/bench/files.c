/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-files stat|read PASSES DIRECTORY < NAMES
 *
 * What programs do most with many files, without the cost of a program: lstat(2), or
 * open, read and close, of each named file in each pass. Prints the nanoseconds of all
 * passes.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define READ_SIZE (64u << 10)

typedef bool (*Work)(const char *name);

static bool work_stat(const char *name)
{
    struct stat st;
    return lstat(name, &st) == 0;
}

static bool work_read(const char *name)
{
    static char buffer[READ_SIZE];
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    ssize_t size = read(fd, buffer, sizeof(buffer));
    return close(fd) == 0 && size >= 0;
}

static Work work_called(const char *name)
{
    return strcmp(name, "stat") == 0   ? work_stat
           : strcmp(name, "read") == 0 ? work_read
                                       : NULL;
}

/* Return: the names on standard input, one a line. */
static char **read_names(void)
{
    GPtrArray *names = g_ptr_array_new();
    char *line = NULL;
    size_t room = 0;
    ssize_t size;
    while ((size = getline(&line, &room, stdin)) > 0) {
        g_ptr_array_add(names, g_strndup(line, strcspn(line, "\n")));
    }
    free(line);
    g_ptr_array_add(names, NULL);
    return (char **)g_ptr_array_free(names, FALSE);
}

static gint64 now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail */
    return now.tv_sec * G_GINT64_CONSTANT(1000000000) + now.tv_nsec;
}

int main(int argc, char **argv)
{
    Work work = argc == 4 ? work_called(argv[1]) : NULL;
    if (work == NULL) {
        (void)fprintf(stderr, "usage: bench-files stat|read PASSES DIRECTORY < NAMES\n");
        return 2;
    }
    g_auto(GStrv) names = read_names();
    if (chdir(argv[3]) < 0) {
        (void)fprintf(stderr, "%s: %s\n", argv[3], strerrordesc_np(errno));
        return 1;
    }
    gint64 start = now_ns();
    for (long pass = strtol(argv[2], NULL, 10); pass > 0; pass--) {
        for (char **name = names; *name != NULL; name++) {
            if (!work(*name)) {
                (void)fprintf(stderr, "%s: %s\n", *name, strerrordesc_np(errno));
                return 1;
            }
        }
    }
    (void)printf("%" G_GINT64_FORMAT "\n", now_ns() - start);
    return 0;
}
