/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest's shell cannot do by itself: one word says what, the rest are its
 * arguments. Status 0 and silence mean that it worked.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAP_BYTES ((size_t)1 << 20)

static int failed(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    return 1;
}

static uint64_t pattern(uint64_t seed, uint64_t at)
{
    uint64_t x = (seed + at) * UINT64_C(0x9e3779b97f4a7c15);
    return x ^ (x >> 29);
}

/* mmap FILE: store through a shared mapping, see it by read(), and the other way round.
 */
static int use_mmap(char **args)
{
    int fd = open(args[0], O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || ftruncate(fd, (off_t)MAP_BYTES) < 0) {
        return failed(args[0]);
    }
    uint64_t *map = mmap(NULL, MAP_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        return failed("mmap");
    }
    size_t n = MAP_BYTES / sizeof(*map);
    for (size_t i = 0; i < n; i++) {
        map[i] = pattern(1, i);
    }
    if (msync(map, MAP_BYTES, MS_SYNC) < 0 || fsync(fd) < 0) {
        return failed("msync");
    }
    for (size_t i = 0; i < n; i += 4096) {
        uint64_t seen = 0;
        off_t at = (off_t)(i * sizeof(seen));
        if (pread(fd, &seen, sizeof(seen), at) != sizeof(seen) || seen != pattern(1, i)) {
            return failed("stored, but read() sees something else");
        }
        seen = pattern(2, i);
        if (pwrite(fd, &seen, sizeof(seen), at) != sizeof(seen) || map[i] != seen) {
            return failed("written, but the mapping shows something else");
        }
    }
    return munmap(map, MAP_BYTES) < 0 || close(fd) < 0 ? failed("munmap") : 0;
}

/* numbers FILE COUNT: append COUNT 64-bit numbers, each flushed, as a witness of order.
 */
static int append_numbers(char **args)
{
    int fd = open(args[0], O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (fd < 0) {
        return failed(args[0]);
    }
    for (uint64_t i = 0; i < strtoull(args[1], NULL, 0); i++) {
        if (write(fd, &i, sizeof(i)) != sizeof(i)) {
            return failed("write");
        }
        if (i % 64 == 0 && fsync(fd) < 0) {
            return failed("fsync");
        }
    }
    return close(fd) < 0 ? failed("close") : 0;
}

/* direct FILE: O_DIRECT write and read back, from memory that the page cache has not. */
static int use_direct(char **args)
{
    void *memory = NULL;
    int fd = open(args[0], O_RDWR | O_CREAT | O_TRUNC | O_DIRECT, 0644);
    if (fd < 0 || posix_memalign(&memory, 4096, MAP_BYTES) != 0) {
        return failed(args[0]);
    }
    uint64_t *words = memory;
    for (size_t i = 0; i < MAP_BYTES / sizeof(*words); i++) {
        words[i] = pattern(3, i);
    }
    if (pwrite(fd, words, MAP_BYTES, 0) != (ssize_t)MAP_BYTES) {
        return failed("direct write");
    }
    memset(words, 0, MAP_BYTES);
    if (pread(fd, words, MAP_BYTES, 0) != (ssize_t)MAP_BYTES) {
        return failed("direct read");
    }
    for (size_t i = 0; i < MAP_BYTES / sizeof(*words); i++) {
        if (words[i] != pattern(3, i)) {
            return failed("direct read sees something else");
        }
    }
    return close(fd) < 0 ? failed("close") : 0;
}

/* sync FILE: fsync() a file or a folder. */
static int sync_one(char **args)
{
    int fd = open(args[0], O_RDONLY);
    if (fd < 0 || fsync(fd) < 0) {
        return failed(args[0]);
    }
    return close(fd) < 0 ? failed("close") : 0;
}

static const struct {
    const char *word;
    int n_args;
    int (*function)(char **args);
} tools[] = {
    {"mmap", 1, use_mmap},
    {"numbers", 2, append_numbers},
    {"direct", 1, use_direct},
    {"sync", 1, sync_one},
};

int main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof(tools) / sizeof(tools[0]); i++) {
        if (argc == tools[i].n_args + 2 && strcmp(argv[1], tools[i].word) == 0) {
            return tools[i].function(argv + 2);
        }
    }
    fprintf(stderr, "guest-tool: unknown word or wrong number of arguments\n");
    return 2;
}
