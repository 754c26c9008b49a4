/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest's shell cannot do by itself: one word says what, the rest are its
 * arguments. Status 0 and silence mean that it worked.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
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

/* fill FILE SEED: store the pattern all over a file that is there, by a shared mapping.
 */
static int fill_mapped(char **args)
{
    struct stat st;
    uint64_t seed = strtoull(args[1], NULL, 0);
    int fd = open(args[0], O_RDWR);
    if (fd < 0 || fstat(fd, &st) < 0) {
        return failed(args[0]);
    }
    size_t size = (size_t)st.st_size;
    uint64_t *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        return failed("mmap");
    }
    for (size_t i = 0; i < size / sizeof(*map); i++) {
        map[i] = pattern(seed, i);
    }
    if (msync(map, size, MS_SYNC) < 0) {
        return failed("msync");
    }
    return munmap(map, size) < 0 || close(fd) < 0 ? failed("munmap") : 0;
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

static int64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* read FILE: from one end to the other, 1 MiB at a time. Says how many bytes, and in how
 * many microseconds. */
static int read_through(char **args)
{
    static char buffer[1 << 20];
    int64_t begin = now_us();
    long long total = 0;
    ssize_t n = 0;
    int fd = open(args[0], O_RDONLY);
    while (fd >= 0 && (n = read(fd, buffer, sizeof(buffer))) > 0) {
        total += n;
    }
    if (fd < 0 || n < 0) {
        return failed(args[0]);
    }
    printf("%lld bytes in %lld us\n", total, (long long)(now_us() - begin));
    return close(fd) < 0 ? failed("close") : 0;
}

/* ---- extended attributes, their values in hexadecimal ----------------------------- */

static char room[XATTR_SIZE_MAX];

/* setxattr FILE NAME HEX: of a symbolic link itself, like all of these. */
static int set_attribute(char **args)
{
    size_t size = strlen(args[2]) / 2;
    for (size_t i = 0; i < size; i++) {
        unsigned byte = 0;
        if (sscanf(args[2] + 2 * i, "%2x", &byte) != 1) {
            return failed("not hexadecimal");
        }
        room[i] = (char)byte;
    }
    return lsetxattr(args[0], args[1], room, size, 0) < 0 ? failed(args[1]) : 0;
}

/* getxattr FILE NAME */
static int get_attribute(char **args)
{
    ssize_t size = lgetxattr(args[0], args[1], room, sizeof(room));
    for (ssize_t i = 0; i < size; i++) {
        printf("%02x", (unsigned char)room[i]);
    }
    return size < 0 ? failed(args[1]) : 0;
}

/* listxattr FILE: names, one a line; the length is asked for first. */
static int list_attributes(char **args)
{
    ssize_t length = llistxattr(args[0], NULL, 0);
    ssize_t size = llistxattr(args[0], room, sizeof(room));
    if (length < 0 || size != length) {
        return failed("llistxattr");
    }
    for (const char *at = room; at < room + size; at += strlen(at) + 1) {
        puts(at);
    }
    return 0;
}

/* removexattr FILE NAME */
static int remove_attribute(char **args)
{
    return lremovexattr(args[0], args[1]) < 0 ? failed(args[1]) : 0;
}

/* ---- files without a name, files with holes --------------------------------------- */

/* tmpfile FOLDER NAME: a file that nobody sees until it is linked into the folder. */
static int use_tmpfile(char **args)
{
    char path[PATH_MAX];
    char link[64];
    struct stat seen;
    int fd = open(args[0], O_RDWR | O_TMPFILE, 0640);
    if (fd < 0 || write(fd, "nameless\n", 9) != 9 || fstat(fd, &seen) < 0) {
        return failed(args[0]);
    }
    if (seen.st_nlink != 0 || seen.st_size != 9 || (seen.st_mode & 07777) != 0640) {
        return failed("a file without a name looks otherwise");
    }
    snprintf(path, sizeof(path), "%s/%s", args[0], args[1]);
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    if (linkat(AT_FDCWD, link, AT_FDCWD, path, AT_SYMLINK_FOLLOW) < 0 ||
        fstat(fd, &seen) < 0 || seen.st_nlink != 1) {
        return failed("linkat");
    }
    int never = open(args[0], O_RDWR | O_TMPFILE | O_EXCL, 0600);
    snprintf(link, sizeof(link), "/proc/self/fd/%d", never);
    snprintf(path, sizeof(path), "%s/never", args[0]);
    if (never < 0 || linkat(AT_FDCWD, link, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0 ||
        errno != ENOENT) {
        return failed("O_EXCL did not keep a file from being linked");
    }
    return close(fd) < 0 || close(never) < 0 ? failed("close") : 0;
}

#define SPARSE_BYTES ((off_t)8 << 20)
#define PIECE ((off_t)64 << 10)
#define FIRST ((off_t)1 << 20)
#define SECOND ((off_t)4 << 20)

/* Where the file's data and holes begin is as the caller says; -1 for none. */
static int check_holes(int fd, off_t second)
{
    const off_t data = lseek(fd, 0, SEEK_DATA);
    const off_t hole = lseek(fd, FIRST, SEEK_HOLE);
    const off_t next = lseek(fd, FIRST + PIECE, SEEK_DATA);
    if (data != FIRST || hole != FIRST + PIECE || next != second) {
        printf("data at %jd, a hole at %jd, data at %jd\n", (intmax_t)data,
               (intmax_t)hole, (intmax_t)next);
        return 1;
    }
    if (lseek(fd, SPARSE_BYTES - 1, SEEK_DATA) != -1 || errno != ENXIO ||
        lseek(fd, SPARSE_BYTES, SEEK_HOLE) != -1 || errno != ENXIO) {
        return failed("seeking at the end");
    }
    return 0;
}

/* sparse FILE: two pieces of data in a large hole, the second one punched out again. */
static int use_sparse(char **args)
{
    const int keep = FALLOC_FL_KEEP_SIZE;
    struct stat before;
    struct stat after;
    int fd = open(args[0], O_RDWR | O_CREAT | O_TRUNC, 0644);
    memset(room, 'd', (size_t)PIECE);
    if (fd < 0 || ftruncate(fd, SPARSE_BYTES) < 0 ||
        pwrite(fd, room, (size_t)PIECE, FIRST) != PIECE ||
        pwrite(fd, room, (size_t)PIECE, SECOND) != PIECE || fsync(fd) < 0) {
        return failed(args[0]);
    }
    if (check_holes(fd, SECOND) != 0 || fstat(fd, &before) < 0) {
        return failed("holes");
    }
    if (fallocate(fd, keep | FALLOC_FL_PUNCH_HOLE, SECOND, PIECE) < 0 ||
        pread(fd, room, (size_t)PIECE, SECOND) != PIECE || fstat(fd, &after) < 0) {
        return failed("punching a hole");
    }
    for (off_t i = 0; i < PIECE; i++) {
        if (room[i] != 0) {
            return failed("there is something in the hole");
        }
    }
    if (after.st_size != SPARSE_BYTES || after.st_blocks >= before.st_blocks ||
        check_holes(fd, -1) != 0) {
        return failed("the hole is none");
    }
    if (fallocate(fd, keep, SPARSE_BYTES, PIECE) < 0 || fstat(fd, &before) < 0 ||
        before.st_size != SPARSE_BYTES || before.st_blocks <= after.st_blocks) {
        return failed("allocating beyond the end");
    }
    return close(fd) < 0 ? failed("close") : 0;
}

/* ---- locks ------------------------------------------------------------------------ */

static int take_lock(int fd, const char *kind, bool write, bool wait)
{
    struct flock lock = {.l_type = write ? F_WRLCK : F_RDLCK,
                         .l_whence = SEEK_SET,
                         .l_start = 10,
                         .l_len = 10};
    if (strcmp(kind, "flock") == 0) {
        return flock(fd, (write ? LOCK_EX : LOCK_SH) | (wait ? 0 : LOCK_NB));
    }
    if (strcmp(kind, "ofd") == 0) {
        return fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &lock);
    }
    return fcntl(fd, wait ? F_SETLKW : F_SETLK, &lock);
}

/* lock KIND HOW FILE SECONDS: flock, ofd or posix (of bytes 10 to 19); read or write,
 * with -wait if need be. Says "locked" and keeps it for a while. */
static int use_lock(char **args)
{
    int fd = open(args[2], O_RDWR);
    bool write = strncmp(args[1], "write", 5) == 0;
    bool wait = strstr(args[1], "-wait") != NULL;
    if (fd < 0 || take_lock(fd, args[0], write, wait) < 0) {
        return failed(args[0]);
    }
    puts("locked");
    fflush(stdout);
    usleep((useconds_t)(strtod(args[3], NULL) * 1e6));
    return 0;
}

static const struct {
    const char *word;
    int n_args;
    int (*function)(char **args);
} tools[] = {
    {"mmap", 1, use_mmap},
    {"fill", 2, fill_mapped},
    {"numbers", 2, append_numbers},
    {"direct", 1, use_direct},
    {"sync", 1, sync_one},
    {"read", 1, read_through},
    {"setxattr", 3, set_attribute},
    {"getxattr", 2, get_attribute},
    {"listxattr", 1, list_attributes},
    {"removexattr", 2, remove_attribute},
    {"tmpfile", 2, use_tmpfile},
    {"sparse", 1, use_sparse},
    {"lock", 4, use_lock},
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
