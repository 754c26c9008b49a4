/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dirty log: which bits stand for which bytes, and what cannot be a log.
 */
#include "virtiofsd/vhost/dirty-log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>

#include "tests/unit/vhost-log.h"
#include "virtiofsd/vhost/guard.h"

#define SMALL 4u /* bytes of a log of 32 pages */

static int make_file(off_t size)
{
    int fd = memfd_create("log", MFD_CLOEXEC);

    g_assert_cmpint(ftruncate(fd, size), ==, 0);
    return fd;
}

/* The first SMALL bytes behind @offset. */
static uint32_t read_bits(int fd, off_t offset)
{
    uint32_t bits = 0;

    g_assert_cmpint(pread(fd, &bits, sizeof(bits), offset), ==, sizeof(bits));
    return GUINT32_FROM_LE(bits);
}

static void test_bits(void)
{
    const uint64_t page = LOG_PAGE;
    const struct {
        uint64_t gpa, length;
        uint32_t bits;
    } cases[] = {
        {0, 0, 0},
        {0, 1, 1},
        {0, page, 1},
        {0, page + 1, 3},
        {page - 1, 1, 1},
        {page - 1, 2, 3},
        {page, 1, 2},
        {7 * page, page, 0x80},
        {7 * page, page + 1, 0x180},
        {8 * page, page, 0x100},
        {3 * page, 20 * page, 0x7ffff8},
        {31 * page, page, 0x80000000},
        {0, 32 * page, 0xffffffff},
        /* beyond the end, and around it */
        {31 * page, 2 * page, 0x80000000},
        {31 * page, 1ull << 40, 0x80000000},
        {32 * page, page, 0},
        {0, UINT64_MAX, 0xffffffff},
        {UINT64_MAX, 1, 0},
        {UINT64_MAX, UINT64_MAX, 0},
        {UINT64_MAX - page, 2 * page, 0},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(VuDirtyLog) log = NULL;
        int fd = make_file(64);
        g_test_message("case %zu", i);
        g_assert_cmpint(vu_dirty_log_new(fd, 0, SMALL, &log), ==, 0);
        vu_dirty_log_mark(log, cases[i].gpa, cases[i].length);
        g_assert_cmphex(read_bits(fd, 0), ==, cases[i].bits);
        for (off_t at = SMALL; at < 64; at += SMALL) {
            g_assert_cmphex(read_bits(fd, at), ==, 0);
        }
        /* what is marked stays so */
        vu_dirty_log_mark(log, 5 * page, 1);
        g_assert_cmphex(read_bits(fd, 0), ==, cases[i].bits | 0x20);
        close(fd);
    }
    g_assert_cmpuint(count_logs(), ==, 0);
}

/* A log may begin anywhere in its file, and end there. */
static void test_offset(void)
{
    const off_t offsets[] = {1, 100, 4095, 4096, 8192 - 4};

    for (size_t i = 0; i < G_N_ELEMENTS(offsets); i++) {
        g_autoptr(VuDirtyLog) log = NULL;
        int fd = make_file(8192);
        g_assert_cmpint(vu_dirty_log_new(fd, (uint64_t)offsets[i], SMALL, &log), ==, 0);
        vu_dirty_log_mark(log, 0, UINT64_MAX);
        g_assert_cmphex(read_bits(fd, offsets[i]), ==, 0xffffffff);
        for (off_t at = 0; at < 8192; at++) {
            uint8_t byte = 0;
            bool is_inside = at >= offsets[i] && at < offsets[i] + (off_t)SMALL;
            g_assert_cmpint(pread(fd, &byte, 1, at), ==, 1);
            g_assert_cmphex(byte, ==, is_inside ? 0xff : 0);
        }
        close(fd);
    }
}

static void test_refused(void)
{
    const struct {
        uint64_t offset, size;
    } cases[] = {
        {0, 0},          {4096, 0},       {0, 4097},          {1, 4096},
        {4096, 1},       {UINT64_MAX, 1}, {UINT64_MAX, 4096}, {1, UINT64_MAX},
        {0, UINT64_MAX}, {1ull << 63, 1}, {0, 1ull << 63},    {4095, 2},
    };
    VuDirtyLog *log = NULL;
    int fd = make_file(4096);

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_assert_cmpint(vu_dirty_log_new(fd, cases[i].offset, cases[i].size, &log), ==,
                        -EINVAL);
    }
    close(fd);
    g_assert_cmpint(vu_dirty_log_new(fd, 0, 1, &log), ==, -EBADF);
    fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    g_assert_cmpint(vu_dirty_log_new(fd, 0, 1, &log), ==, -EINVAL);
    close(fd);
    fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    g_assert_cmpint(vu_dirty_log_new(fd, 0, 1, &log), ==, -EACCES);
    close(fd);
    g_assert_null(log);
    vu_dirty_log_free(NULL);
    g_assert_cmpuint(count_logs(), ==, 0);
}

/* ---- segments ---------------------------------------------------------------------- */

static void map_region(VuMemory **memory, uint64_t gpa, uint64_t size)
{
    const VuMemoryRange range = {.gpa = gpa, .size = size, .uva = gpa};
    VuMemory *larger = NULL;

    g_assert_cmpint(vu_memory_add(*memory, &range, make_file((off_t)size), &larger), ==,
                    0);
    vu_memory_unref(*memory);
    *memory = larger;
}

static uint8_t *host_of(const VuMemory *memory, uint64_t gpa)
{
    uint64_t one = 1;

    return vu_memory_at_gpa(memory, gpa, &one);
}

static void test_segments(void)
{
    const uint64_t page = LOG_PAGE;
    g_autoptr(VuMemory) memory = vu_memory_new();
    g_autoptr(VuDirtyLog) log = NULL;
    int fd = make_file(SMALL);

    map_region(&memory, 0, 8 * page);
    map_region(&memory, 16 * page, 8 * page);
    const struct iovec segments[] = {
        {host_of(memory, 17 * page), 100},
        {host_of(memory, 2 * page + 4000), 97},
        {host_of(memory, 23 * page + 4095), 1},
    };
    const uint32_t bits[] = {1u << 17, 1u << 2, 1u << 3, 1u << 23};
    const struct {
        uint64_t length;
        size_t n;
        uint32_t bits;
    } cases[] = {
        {0, 3, 0},
        {1, 3, bits[0]},
        {100, 3, bits[0]},
        {101, 3, bits[0] | bits[1]},
        {196, 3, bits[0] | bits[1]},
        {197, 3, bits[0] | bits[1] | bits[2]},
        {198, 3, bits[0] | bits[1] | bits[2] | bits[3]},
        {UINT32_MAX, 3, bits[0] | bits[1] | bits[2] | bits[3]},
        {UINT32_MAX, 1, bits[0]},
        {UINT32_MAX, 0, 0},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_assert_cmpint(vu_dirty_log_new(fd, 0, SMALL, &log), ==, 0);
        vu_dirty_log_mark_segments(log, memory, segments, cases[i].n, cases[i].length);
        g_assert_cmphex(read_bits(fd, 0), ==, cases[i].bits);
        g_clear_pointer(&log, vu_dirty_log_free);
        g_assert_cmpint(ftruncate(fd, 0), ==, 0);
        g_assert_cmpint(ftruncate(fd, SMALL), ==, 0);
    }
    close(fd);
}

/* Regions that the kernel has put side by side are one segment, and far apart in the
 * guest. */
static void test_neighbours(void)
{
    const uint64_t page = LOG_PAGE, apart = 1 << 20;
    g_autoptr(VuMemory) memory = vu_memory_new();
    g_autoptr(VuDirtyLog) log = NULL;
    int fd = make_file(4096);
    uint64_t low = 0; /* the region whose end is where the other begins */
    uint64_t high = 0;

    map_region(&memory, 0, 8 * page);
    for (uint64_t i = 1; low == high; i++) {
        g_assert_cmpuint(i, <, 100);
        map_region(&memory, i * apart, 8 * page);
        for (uint64_t k = 0; k < i; k++) {
            if (host_of(memory, k * apart) == host_of(memory, i * apart) + 8 * page) {
                low = i * apart;
                high = k * apart;
            }
        }
    }
    g_assert_cmpint(vu_dirty_log_new(fd, 0, 4096, &log), ==, 0);
    const struct iovec segment = {host_of(memory, low + 7 * page), 2 * page};
    vu_dirty_log_mark_segments(log, memory, &segment, 1, UINT32_MAX);
    for (uint64_t at = 0; at < 4096; at++) {
        uint8_t byte = 0;
        g_assert_cmpint(pread(fd, &byte, 1, (off_t)at), ==, 1);
        g_assert_cmphex(byte, ==,
                        (at == low / page / 8 ? 0x80 : 0) |
                            (at == high / page / 8 ? 0x01 : 0));
    }
    close(fd);
}

/* ---- the VMM ----------------------------------------------------------------------- */

/* It takes the file away: marks go nowhere, and whoever looks after rings knows. */
static void test_truncated(void)
{
    g_autoptr(VuDirtyLog) log = NULL;
    int fd = make_file(4 * LOG_PAGE);

    g_assert_cmpint(vu_guard_install(), ==, 0);
    g_assert_cmpint(vu_dirty_log_new(fd, 0, 4 * LOG_PAGE, &log), ==, 0);
    vu_dirty_log_mark(log, 0, 1);
    g_assert_cmphex(read_bits(fd, 0), ==, 1);
    g_assert_false(vu_guard_is_hit());
    g_assert_cmpint(ftruncate(fd, LOG_PAGE), ==, 0);
    vu_dirty_log_mark(log, 0, 2 * LOG_PAGE);
    g_assert_cmphex(read_bits(fd, 0), ==, 3);
    g_assert_false(vu_guard_is_hit());
    vu_dirty_log_mark(log, 0, UINT64_MAX);
    g_assert_true(vu_guard_is_hit());
    vu_guard_clear();
    close(fd);
}

enum { MARKERS = 4, ROUNDS = 1000000 };

typedef struct Marker {
    pthread_barrier_t *start;
    VuDirtyLog *log;
    uint8_t *byte; /* as the VMM sees it: all marks are in it */
    unsigned int index;
} Marker;

/* Mark a page, and take the mark out as the VMM does: it is there, once. */
static void *mark_main(void *data)
{
    const Marker *marker = data;
    const uint8_t bit = (uint8_t)(1u << marker->index);

    (void)pthread_barrier_wait(marker->start);
    for (unsigned int i = 0; i < ROUNDS; i++) {
        vu_dirty_log_mark(marker->log, marker->index * LOG_PAGE, 1);
        uint8_t before =
            __atomic_fetch_and(marker->byte, (uint8_t)~bit, __ATOMIC_SEQ_CST);
        g_assert_cmphex(before & bit, ==, bit);
        g_assert_cmphex(__atomic_load_n(marker->byte, __ATOMIC_SEQ_CST) & bit, ==, 0);
    }
    return NULL;
}

/* Marks in one byte, made at once while others are taken out. */
static void test_threads(void)
{
    g_autoptr(VuDirtyLog) log = NULL;
    pthread_barrier_t start;
    pthread_t threads[MARKERS];
    Marker markers[MARKERS];
    int fd = make_file(LOG_PAGE);
    uint8_t *bytes = mmap(NULL, LOG_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    g_assert_true(bytes != MAP_FAILED);
    g_assert_cmpint(vu_dirty_log_new(fd, 0, LOG_PAGE, &log), ==, 0);
    g_assert_cmpint(pthread_barrier_init(&start, NULL, MARKERS), ==, 0);
    for (unsigned int i = 0; i < MARKERS; i++) {
        markers[i] = (Marker){&start, log, bytes, i};
        g_assert_cmpint(pthread_create(&threads[i], NULL, mark_main, &markers[i]), ==, 0);
    }
    for (unsigned int i = 0; i < MARKERS; i++) {
        pthread_join(threads[i], NULL);
    }
    g_assert_cmphex(bytes[0], ==, 0);
    pthread_barrier_destroy(&start);
    munmap(bytes, LOG_PAGE);
    close(fd);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/dirty-log/bits", test_bits);
    g_test_add_func("/dirty-log/offset", test_offset);
    g_test_add_func("/dirty-log/refused", test_refused);
    g_test_add_func("/dirty-log/segments", test_segments);
    g_test_add_func("/dirty-log/neighbours", test_neighbours);
    g_test_add_func("/dirty-log/truncated", test_truncated);
    g_test_add_func("/dirty-log/threads", test_threads);
    return g_test_run();
}
