/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory: what may be mapped, how tables share it, and where addresses lead.
 */
#include "virtiofsd/vhost/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/vhost-guest.h"
#include "virtiofsd/log.h"
#include "virtiofsd/vhost/guard.h"

#define KIB 1024ull
#define PAGE 4096ull

static int make_file(uint64_t size)
{
    int fd = memfd_create("region", MFD_CLOEXEC);

    g_assert_cmpint(ftruncate(fd, (off_t)size), ==, 0);
    return fd;
}

/* Add a region backed by a file of @file_size to *@memory, if it can be. */
static int add_sized(VuMemory **memory, const VuMemoryRange *range, uint64_t file_size)
{
    VuMemory *larger = NULL;
    int fd = make_file(file_size);
    int result = vu_memory_add(*memory, range, fd, &larger);

    g_assert_false(is_open(fd)); /* whatever became of it */
    if (result == 0) {
        vu_memory_unref(*memory);
        *memory = larger;
    } else {
        g_assert_null(larger);
    }
    return result;
}

static int add(VuMemory **memory, uint64_t gpa, uint64_t size, uint64_t uva)
{
    VuMemoryRange range = {.gpa = gpa, .size = size, .uva = uva};

    return add_sized(memory, &range, size);
}

static unsigned int count_mappings(void)
{
    return count_maps("memfd:region");
}

static void test_ranges(void)
{
    const uint64_t top = UINT64_MAX;
    const struct {
        VuMemoryRange range;
        uint64_t file;
        int result;
    } cases[] = {
        {{0x1000, PAGE, 0x1000, 0}, PAGE, 0},
        {{0x1000, PAGE, 0x1000, 0}, 4 * PAGE, 0},
        {{0x1000, 0, 0x1000, 0}, PAGE, -EINVAL},
        /* the file is too short by one, or the offset runs over its end */
        {{0x1000, PAGE, 0x1000, 0}, PAGE - 1, -EINVAL},
        {{0x1000, PAGE, 0x1000, 1}, PAGE, -EINVAL},
        {{0x1000, PAGE, 0x1000, PAGE}, PAGE, -EINVAL},
        {{0x1000, PAGE, 0x1000, 0}, 0, -EINVAL},
        /* wrap-around of each address, and of offset + size */
        {{top - 100, PAGE, 0x1000, 0}, PAGE, -EINVAL},
        {{top - PAGE + 1, PAGE, 0x1000, 0}, PAGE, -EINVAL},
        {{0x1000, PAGE, top - 100, 0}, PAGE, -EINVAL},
        {{0x1000, PAGE, 0x1000, top - 100}, PAGE, -EINVAL},
        {{0x1000, PAGE, 0x1000, top - PAGE + 1}, PAGE, -EINVAL},
        {{0x1000, PAGE, 0x1000, 1ull << 63}, PAGE, -EINVAL},
        {{0x1000, top, 0x1000, 0}, PAGE, -EINVAL},
        {{0x1000, 1ull << 63, 0x1000, 0}, PAGE, -EINVAL},
        /* odd sizes and offsets are mapped from the page below */
        {{0x1000, 1, 0x1000, 0}, 1, 0},
        {{0x1000, 100, 0x1000, 5000}, 5100, 0},
        {{top - 2 * PAGE, PAGE, top - 2 * PAGE, 0}, PAGE, 0},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(VuMemory) memory = vu_memory_new();
        g_test_message("case %zu", i);
        g_assert_cmpint(add_sized(&memory, &cases[i].range, cases[i].file), ==,
                        cases[i].result);
        g_assert_cmpuint(vu_memory_count(memory), ==, cases[i].result == 0 ? 1 : 0);
    }
    g_assert_cmpuint(count_mappings(), ==, 0);
}

static void test_overlap(void)
{
    const uint64_t size = 16 * PAGE;
    const uint64_t gpa = 0x100000, uva = 0x7f0000000000;
    g_autoptr(VuMemory) memory = vu_memory_new();

    g_assert_cmpint(add(&memory, gpa, size, uva), ==, 0);
    g_assert_cmpint(add(&memory, gpa, size, uva), ==, -EEXIST);
    g_assert_cmpint(add(&memory, gpa, size, 0), ==, -EEXIST);
    g_assert_cmpint(add(&memory, 0, size, uva), ==, -EEXIST);
    g_assert_cmpint(add(&memory, gpa + size - 1, PAGE, 0), ==, -EEXIST);
    g_assert_cmpint(add(&memory, gpa - PAGE + 1, PAGE, 0), ==, -EEXIST);
    g_assert_cmpint(add(&memory, gpa - PAGE, 32 * PAGE, 0), ==, -EEXIST);
    g_assert_cmpint(add(&memory, 0, PAGE, uva + PAGE), ==, -EEXIST);
    g_assert_cmpint(add(&memory, 0, PAGE, uva + size - 1), ==, -EEXIST);
    g_assert_cmpint(add(&memory, 0, PAGE, uva - PAGE + 1), ==, -EEXIST);
    /* touching is not overlapping */
    g_assert_cmpint(add(&memory, gpa + size, PAGE, uva + size), ==, 0);
    g_assert_cmpint(add(&memory, gpa - PAGE, PAGE, uva - PAGE), ==, 0);
    g_assert_cmpuint(vu_memory_count(memory), ==, 3);
}

/* Descriptors that are no memory of a guest. */
static void test_kinds(void)
{
    const VuMemoryRange range = {.gpa = 0, .size = PAGE, .uva = PAGE};
    g_autoptr(VuMemory) memory = vu_memory_new();
    VuMemory *larger = NULL;
    unsigned int before = count_fds();
    int pipes[2];

    g_assert_cmpint(pipe2(pipes, O_CLOEXEC), ==, 0);
    const int bad[] = {eventfd(0, EFD_CLOEXEC),
                       pipes[0],
                       pipes[1],
                       open("/dev/zero", O_RDWR | O_CLOEXEC),
                       open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC),
                       open("/proc/self/exe", O_PATH | O_CLOEXEC)};
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_assert_cmpint(bad[i], >=, 0);
        g_assert_cmpint(vu_memory_add(memory, &range, bad[i], &larger), <, 0);
    }
    /* readable only: the guest expects its memory to be written to */
    int read_only = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    g_assert_cmpint(vu_memory_add(memory, &range, read_only, &larger), ==, -EACCES);
    int sealed = memfd_create("region", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    g_assert_cmpint(ftruncate(sealed, PAGE), ==, 0);
    g_assert_cmpint(fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE), ==, 0);
    g_assert_cmpint(vu_memory_add(memory, &range, sealed, &larger), ==, -EPERM);
    g_assert_cmpint(vu_memory_add(memory, &range, -1, &larger), ==, -EBADF);
    g_assert_cmpuint(count_fds(), ==, before);

    /* A file on a disk is memory of a guest too (a persistent one). */
    char name[] = "/var/tmp/test-memory-XXXXXX";
    int file = mkostemp(name, O_CLOEXEC);
    g_assert_cmpint(ftruncate(file, PAGE), ==, 0);
    unlink(name);
    g_assert_cmpint(vu_memory_add(memory, &range, file, &larger), ==, 0);
    vu_memory_unref(larger);
}

static void test_limit(void)
{
    g_autoptr(VuMemory) memory = vu_memory_new();
    uint64_t i;

    for (i = 0; i < VU_MEMORY_MAX_REGIONS; i++) {
        /* not in the order of their addresses */
        uint64_t at = (i * 257 % VU_MEMORY_MAX_REGIONS + 1) * 2 * PAGE;
        g_assert_cmpint(add(&memory, at, PAGE, at + (1ull << 40)), ==, 0);
    }
    g_assert_cmpint(add(&memory, 1ull << 30, PAGE, 1), ==, -ENOSPC);
    g_assert_cmpuint(vu_memory_count(memory), ==, VU_MEMORY_MAX_REGIONS);
    for (i = 1; i <= VU_MEMORY_MAX_REGIONS; i++) {
        uint64_t length = 2 * PAGE;
        char *host = vu_memory_at_gpa(memory, i * 2 * PAGE, &length);
        g_assert_nonnull(host);
        g_assert_cmpuint(length, ==, PAGE);
        g_assert_true(host ==
                      vu_memory_at_uva(memory, i * 2 * PAGE + (1ull << 40), PAGE));
        length = 1;
        g_assert_null(vu_memory_at_gpa(memory, i * 2 * PAGE + PAGE, &length));
        g_assert_null(vu_memory_at_gpa(memory, i * 2 * PAGE - 1, &length));
    }
}

static void test_translate(void)
{
    const uint64_t uva = 0x7f0000000000;
    g_autoptr(VuMemory) memory = vu_memory_new();
    uint64_t length;
    VuMemoryWindow window;

    length = 1;
    g_assert_null(vu_memory_at_gpa(memory, 0, &length));
    g_assert_null(vu_memory_at_uva(memory, 0, 0));
    g_assert_cmpint(add(&memory, 0x100000, 4 * PAGE, uva), ==, 0);
    g_assert_cmpint(add(&memory, 0x100000 + 4 * PAGE, 4 * PAGE, uva + 8 * PAGE), ==, 0);

    length = 100;
    char *first = vu_memory_at_gpa(memory, 0x100000, &length);
    g_assert_cmpuint(length, ==, 100);
    length = UINT64_MAX;
    char *last = vu_memory_at_gpa(memory, 0x100000 + 4 * PAGE - 1, &length);
    g_assert_cmpuint(length, ==, 1);
    g_assert_true(last == first + 4 * PAGE - 1);
    length = UINT64_MAX;
    char *second = vu_memory_at_gpa(memory, 0x100000 + 5 * PAGE, &length);
    g_assert_nonnull(second);
    g_assert_cmpuint(length, ==, 3 * PAGE);
    g_assert_true(vu_memory_window(memory, 0x100000 + 8 * PAGE - 1, &window));
    g_assert_cmpuint(window.gpa, ==, 0x100000 + 4 * PAGE);
    g_assert_cmpuint(window.size, ==, 4 * PAGE);
    g_assert_true((char *)window.host == second - PAGE);
    g_assert_false(vu_memory_window(memory, 0x100000 + 8 * PAGE, &window));
    length = 0;
    g_assert_null(vu_memory_at_gpa(memory, 0x100000, &length));
    length = 1;
    g_assert_null(vu_memory_at_gpa(memory, 0x100000 - 1, &length));
    g_assert_null(vu_memory_at_gpa(memory, 0x100000 + 8 * PAGE, &length));
    g_assert_null(vu_memory_at_gpa(memory, UINT64_MAX, &length));

    /* Ring addresses must lie in one region whole. */
    g_assert_nonnull(vu_memory_at_uva(memory, uva, 4 * PAGE));
    g_assert_null(vu_memory_at_uva(memory, uva, 4 * PAGE + 1));
    g_assert_null(vu_memory_at_uva(memory, uva + 1, 4 * PAGE));
    g_assert_nonnull(vu_memory_at_uva(memory, uva + 12 * PAGE - 1, 1));
    g_assert_null(vu_memory_at_uva(memory, uva + 12 * PAGE - 1, 2));
    g_assert_null(vu_memory_at_uva(memory, uva - 1, 1));
    g_assert_null(vu_memory_at_uva(memory, uva, UINT64_MAX));
    g_assert_null(vu_memory_at_uva(memory, UINT64_MAX, 1));
}

/* The mapping shows the file's bytes from the offset on, whatever the offset. */
static void test_offset(void)
{
    const uint64_t offsets[] = {0, 1, 16, PAGE - 1, PAGE, PAGE + 5, 0xc0000};

    for (size_t i = 0; i < G_N_ELEMENTS(offsets); i++) {
        g_autoptr(VuMemory) memory = vu_memory_new();
        VuMemoryRange range = {
            .gpa = 0, .size = 2 * PAGE, .uva = PAGE, .mmap_offset = offsets[i]};
        VuMemory *larger = NULL;
        int fd = make_file(offsets[i] + 2 * PAGE);
        g_assert_cmpint(pwrite(fd, "begin", 5, (off_t)offsets[i]), ==, 5);
        g_assert_cmpint(pwrite(fd, "end", 3, (off_t)(offsets[i] + 2 * PAGE - 3)), ==, 3);
        g_assert_cmpint(vu_memory_add(memory, &range, dup(fd), &larger), ==, 0);
        uint64_t length = 2 * PAGE;
        const char *host = vu_memory_at_gpa(larger, 0, &length);
        g_assert_cmpint(memcmp(host, "begin", 5), ==, 0);
        g_assert_cmpint(memcmp(host + 2 * PAGE - 3, "end", 3), ==, 0);
        vu_memory_unref(larger);
        close(fd);
    }
    g_assert_cmpuint(count_mappings(), ==, 0);
}

/* A region stays mapped exactly as long as some table has it. */
static void test_sharing(void)
{
    VuMemoryRange range = {.gpa = 0, .size = PAGE, .uva = PAGE};
    VuMemory *memory = vu_memory_new();
    VuMemory *without = NULL;

    g_assert_cmpint(add(&memory, 0, PAGE, PAGE), ==, 0);
    g_assert_cmpint(add(&memory, 2 * PAGE, PAGE, 4 * PAGE), ==, 0);
    g_assert_cmpuint(count_mappings(), ==, 2);

    VuMemoryRange other = range;
    other.size = PAGE - 1;
    g_assert_cmpint(vu_memory_remove(memory, &other, &without), ==, -ENOENT);
    other = range;
    other.uva++;
    g_assert_cmpint(vu_memory_remove(memory, &other, &without), ==, -ENOENT);
    other = range;
    other.gpa++;
    g_assert_cmpint(vu_memory_remove(memory, &other, &without), ==, -ENOENT);

    range.mmap_offset = 12345; /* not compared */
    g_assert_cmpint(vu_memory_remove(memory, &range, &without), ==, 0);
    g_assert_cmpuint(vu_memory_count(without), ==, 1);
    g_assert_cmpuint(count_mappings(), ==, 2);
    g_assert_true(vu_memory_ref(memory) == memory);
    vu_memory_unref(memory);
    g_assert_cmpuint(count_mappings(), ==, 2);
    uint64_t length = 1;
    *(volatile char *)vu_memory_at_gpa(memory, 0, &length) = 1;
    vu_memory_unref(memory);
    g_assert_cmpuint(count_mappings(), ==, 1);
    vu_memory_unref(without);
    g_assert_cmpuint(count_mappings(), ==, 0);
}

static void test_not_populated(void)
{
    const uint64_t size = 1ull << 36; /* 64 GiB, sparse */
    g_autoptr(VuMemory) memory = vu_memory_new();
    char line[512];
    bool found = false, no_dump = false;

    g_assert_cmpint(add(&memory, 0, size, PAGE), ==, 0);
    FILE *smaps = fopen("/proc/self/smaps", "re");
    while (fgets(line, sizeof(line), smaps) != NULL) {
        unsigned long kib;
        found = found || strstr(line, "memfd:region") != NULL;
        if (found && sscanf(line, "Rss: %lu kB", &kib) == 1) {
            g_assert_cmpuint(kib, ==, 0);
        }
        if (found && g_str_has_prefix(line, "VmFlags:")) {
            no_dump = strstr(line, " dd") != NULL;
            break;
        }
    }
    fclose(smaps);
    g_assert_true(found);
    g_assert_true(no_dump);
}

/* The VMM shrinks the memory: what is touched then reads as zeros, and the rings learn.
 */
static void test_truncated(void)
{
    VuMemory *memory = vu_memory_new();
    VuMemory *larger = NULL;
    VuMemoryRange range = {.gpa = 0, .size = 4 * PAGE, .uva = PAGE};
    int fd = make_file(4 * PAGE);
    uint64_t length = 4 * PAGE;

    g_assert_cmpint(vu_guard_install(), ==, 0);
    g_assert_cmpint(vu_memory_add(memory, &range, dup(fd), &larger), ==, 0);
    volatile char *host = vu_memory_at_gpa(larger, 0, &length);
    host[0] = 'a';
    host[2 * PAGE] = 'b';
    g_assert_cmpint(ftruncate(fd, PAGE), ==, 0);
    g_assert_false(vu_guard_is_hit());
    g_assert_cmpint(host[0], ==, 'a');
    g_assert_false(vu_guard_is_hit());
    g_assert_cmpint(host[2 * PAGE], ==, 0);
    g_assert_true(vu_guard_is_hit());
    host[2 * PAGE] = 'c';
    g_assert_cmpint(host[2 * PAGE], ==, 'c');
    g_assert_cmpint(host[0], ==, 'a');
    /* only that page was replaced: the next one is still a hole for system calls */
    int null = open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    g_assert_cmpint(write(null, (const char *)(uintptr_t)host + PAGE, 1), ==, -1);
    g_assert_cmpint(errno, ==, EFAULT);
    close(null);
    vu_guard_clear();
    g_assert_false(vu_guard_is_hit());
    vu_memory_unref(larger);
    vu_memory_unref(memory);
    close(fd);
}

/* A fault that is not the guest's memory ends the process as ever. */
static void test_other_sigbus(void)
{
    if (g_test_subprocess()) {
        int fd = make_file(PAGE);
        char *page = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
        g_assert_cmpint(vu_guard_install(), ==, 0);
        g_assert_cmpint(vu_guard_add(page - PAGE, PAGE, PAGE), ==, 0); /* the one below */
        g_assert_cmpint(ftruncate(fd, 0), ==, 0);
        _exit(*(volatile char *)page);
    }
    g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_INHERIT_STDERR);
    g_test_trap_assert_failed();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_threshold = LOG_LEVEL_OFF;
    g_test_add_func("/memory/ranges", test_ranges);
    g_test_add_func("/memory/overlap", test_overlap);
    g_test_add_func("/memory/kinds", test_kinds);
    g_test_add_func("/memory/limit", test_limit);
    g_test_add_func("/memory/translate", test_translate);
    g_test_add_func("/memory/offset", test_offset);
    g_test_add_func("/memory/sharing", test_sharing);
    g_test_add_func("/memory/not-populated", test_not_populated);
    g_test_add_func("/memory/truncated", test_truncated);
    g_test_add_func("/memory/other-sigbus", test_other_sigbus);
    return g_test_run();
}
