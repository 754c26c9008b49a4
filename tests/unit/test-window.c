/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The DAX window's table: what the VMM is asked for, and never is. Every request that
 * QEMU fails on, or dies of, fails the test in vhost-window.h.
 */
#include "virtiofsd/vhost/window.h"

#include <errno.h>

#include "tests/unit/vhost-guest.h"
#include "tests/unit/vhost-window.h"
#include "virtiofsd/log.h"

#define N_PAGES 8u
#define SIZE (N_PAGES * PAGE)

typedef struct Fixture {
    VuBackend backend;
    VuWindow *window;
    Mapper mapper;
    int file; /* of 16 pages */
    unsigned int fds_before;
} Fixture;

static void setup(Fixture *f, gconstpointer data)
{
    f->fds_before = count_fds();
    g_assert_cmpint(vu_backend_init(&f->backend, true), ==, 0);
    f->window =
        vu_window_new(data != NULL ? 256 * PAGE : SIZE, VU_WINDOW_STANDARD, &f->backend);
    g_assert_nonnull(f->window);
    mapper_init(&f->mapper);
    g_assert_cmpint(vu_backend_connect_take(&f->backend, f->mapper.peer), ==, 0);
    g_assert_false(vu_window_is_ready(f->window));
    vu_backend_set_open(&f->backend, true, true);
    g_assert_true(vu_window_is_ready(f->window));
    f->file = mapper_file(16 * PAGE);
}

static void teardown(Fixture *f, gconstpointer data)
{
    vu_backend_clear(&f->backend);
    g_assert_false(vu_window_is_ready(f->window));
    mapper_clear(&f->mapper);
    vu_window_free(f->window);
    vu_backend_free(&f->backend);
    close(f->file);
    g_assert_cmpuint(count_fds(), ==, f->fds_before);
}

static int map(Fixture *f, uint64_t page, int fd, uint64_t file_page)
{
    const VuWindowMap wanted = {
        .offset = page * PAGE, .file_offset = file_page * PAGE, .fd = fd};

    return vu_window_map(f->window, &wanted);
}

static int unmap(Fixture *f, uint64_t page, uint64_t n)
{
    return vu_window_unmap(f->window, page * PAGE, n * PAGE);
}

/* The first mapping finds out whether the VMM adds what it maps. */
static void learn(Fixture *f)
{
    gint64 begin = g_get_monotonic_time();

    g_assert_cmpint(map(f, 0, f->file, 0), ==, 0);
    gint64 passed = g_get_monotonic_time() - begin;
    g_assert_cmpint(passed, >=, VU_WINDOW_ECHO_MS * 1000);
    g_assert_cmpint(unmap(f, 0, 1), ==, 0);
    mapper_expect(&f->mapper, 1, 1);
}

static void test_map(Fixture *f, gconstpointer data)
{
    g_assert_cmpuint(vu_window_size(f->window), ==, SIZE);
    learn(f);
    for (unsigned int i = 0; i < N_PAGES; i++) {
        g_assert_cmpint(map(f, i, f->file, 15 - i), ==, 0);
    }
    mapper_expect(&f->mapper, N_PAGES, 0);
    for (unsigned int i = 0; i < N_PAGES; i++) {
        g_assert_cmpuint(f->mapper.pages[i].file_offset, ==, (15 - i) * PAGE);
    }
    /* once more, as for writing: the VMM is not asked */
    g_assert_cmpint(map(f, 3, f->file, 12), ==, 0);
    mapper_expect(&f->mapper, 0, 0);
    /* another part, and another file: first away with what is there */
    g_assert_cmpint(map(f, 3, f->file, 1), ==, 0);
    mapper_expect(&f->mapper, 1, 1);
    int other = mapper_file(2 * PAGE);
    g_assert_cmpint(map(f, 3, other, 1), ==, 0);
    mapper_expect(&f->mapper, 1, 1);
    close(other);
    g_assert_cmpint(unmap(f, 2, 3), ==, 0);
    mapper_expect(&f->mapper, 0, 3);
    g_assert_cmpint(unmap(f, 0, N_PAGES), ==, 0);
    mapper_expect(&f->mapper, 0, N_PAGES - 3);
    g_assert_cmpint(unmap(f, 0, N_PAGES), ==, 0);
    mapper_expect(&f->mapper, 0, 0);
}

static void test_refused(Fixture *f, gconstpointer data)
{
    static const struct {
        uint64_t offset, file_offset;
    } bad[] = {
        {1, 0},
        {4096, 0},
        {SIZE, 0},
        {SIZE - 1, 0},
        {UINT64_C(0) - PAGE, 0},
        {UINT64_MAX, 0},
        {UINT64_C(1) << 63, 0},
        {0, 1},
        {0, 4096},
        {0, PAGE - 1},
        {0, UINT64_MAX},
        {0, UINT64_C(1) << 63},
        {0, UINT64_C(0) - PAGE},
        {0, INT64_MAX - PAGE + 1},
    };
    static const uint64_t ranges[][2] = {
        {0, 0},
        {0, 1},
        {1, PAGE},
        {0, SIZE + PAGE},
        {SIZE, PAGE},
        {0, ~0ul},
        {UINT64_MAX, PAGE},
        {PAGE, SIZE},
        {0, ~0ul / 2},
        {4096, PAGE},
        {UINT64_C(0) - PAGE, PAGE},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        const VuWindowMap wanted = {bad[i].offset, bad[i].file_offset, f->file};
        g_assert_cmpint(vu_window_map(f->window, &wanted), ==, -EINVAL);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(ranges); i++) {
        g_assert_cmpint(vu_window_unmap(f->window, ranges[i][0], ranges[i][1]), ==,
                        -EINVAL);
    }
    mapper_expect(&f->mapper, 0, 0);
}

/* What is no file, or not all of what is to be mapped; an empty one above all. */
static void test_files(Fixture *f, gconstpointer data)
{
    const uint64_t sizes[] = {0, 1, 4096, PAGE - 1};
    int pipes[2];

    g_assert_cmpint(pipe2(pipes, O_CLOEXEC), ==, 0);
    const int bad[] = {pipes[0], pipes[1], f->mapper.socket,
                       open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC),
                       open("/dev/null", O_RDWR | O_CLOEXEC)};
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_assert_cmpint(map(f, 0, bad[i], 0), ==, -ENXIO);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        int fd = mapper_file(sizes[i]);
        g_assert_cmpint(map(f, 0, fd, 0), ==, -ENXIO);
        g_assert_cmpint(ftruncate(fd, (off_t)(sizes[i] + PAGE)), ==, 0);
        g_assert_cmpint(map(f, 0, fd, 1), ==, -ENXIO);
        close(fd);
    }
    g_assert_cmpint(map(f, 0, f->file, 16), ==, -ENXIO);
    g_assert_cmpint(map(f, 0, -1, 0), ==, -EBADF);
    mapper_expect(&f->mapper, 0, 0);
    for (size_t i = 0; i < 2; i++) {
        close(pipes[i]);
        close(bad[3 + i]);
    }
}

typedef struct Mapping {
    Fixture *f;
    uint64_t page;
    int result;
} Mapping;

static void *mapping_main(void *opaque)
{
    Mapping *self = opaque;

    self->result = map(self->f, self->page, self->f->file, 15);
    return NULL;
}

/* The file shrinks while the VMM maps it: it is unmapped, and the guest told. */
static void test_shrinks(Fixture *f, gconstpointer data)
{
    Mapping mapping = {.f = f, .page = 1};
    pthread_t thread;

    learn(f);
    f->mapper.mood = MOOD_SLOW;
    pthread_create(&thread, NULL, mapping_main, &mapping);
    while (atomic_load(&f->mapper.n_maps) == 0) {
        g_usleep(100);
    }
    g_assert_cmpint(ftruncate(f->file, 15 * PAGE), ==, 0);
    pthread_join(thread, NULL);
    g_assert_cmpint(mapping.result, ==, -ENXIO);
    mapper_expect(&f->mapper, 1, 1);
    g_assert_cmpuint(f->mapper.n_live, ==, 0);
}

/* The VMM refuses: an error, and nothing else is changed. */
static void test_refuses(Fixture *f, gconstpointer data)
{
    learn(f);
    g_assert_cmpint(map(f, 1, f->file, 1), ==, 0);
    f->mapper.mood = MOOD_REFUSES;
    g_assert_cmpint(map(f, 2, f->file, 2), ==, -EIO);
    f->mapper.mood = MOOD_HONEST;
    g_assert_cmpint(map(f, 1, f->file, 1), ==, 0);
    mapper_expect(&f->mapper, 1, 0);
    g_assert_cmpint(map(f, 2, f->file, 2), ==, 0);
    mapper_expect(&f->mapper, 1, 0);
}

/* It says nothing, and may have obeyed: the page is made empty before it is used again.
 */
static void test_unsure(Fixture *f, gconstpointer data)
{
    Mapping mapping = {.f = f, .page = 1};
    pthread_t thread;

    learn(f);
    f->mapper.mood = MOOD_SILENT;
    pthread_create(&thread, NULL, mapping_main, &mapping);
    while (atomic_load(&f->mapper.n_maps) == 0) {
        g_usleep(100);
    }
    vu_backend_give_up(&f->backend, true);
    pthread_join(thread, NULL);
    vu_backend_give_up(&f->backend, false);
    g_assert_cmpint(mapping.result, ==, -EINTR);
    f->mapper.mood = MOOD_HONEST;
    mapper_answer(&f->mapper, VU_BACKEND_SHMEM_MAP, true);
    mapper_expect(&f->mapper, 1, 0);
    g_assert_cmpint(map(f, 1, f->file, 15), ==, 0);
    mapper_expect(&f->mapper, 1, 1);
}

/* A new session begins with an empty window. If it cannot be emptied then, each page is
 * before it is used. */
static void test_unmap_all(Fixture *f, gconstpointer data)
{
    vu_window_unmap_all(f->window);
    learn(f);
    for (unsigned int i = 0; i < 3; i++) {
        g_assert_cmpint(map(f, 2 * i, f->file, i), ==, 0);
    }
    vu_window_unmap_all(f->window);
    mapper_expect(&f->mapper, 3, 3);
    vu_window_unmap_all(f->window);
    mapper_expect(&f->mapper, 0, 0);

    g_assert_cmpint(map(f, 5, f->file, 5), ==, 0);
    vu_backend_give_up(&f->backend, true);
    vu_window_unmap_all(f->window);
    vu_backend_give_up(&f->backend, false);
    mapper_expect(&f->mapper, 1, 0);
    g_assert_cmpint(map(f, 5, f->file, 5), ==, 0);
    mapper_expect(&f->mapper, 1, 1);
    /* the VMM was reset, and has dropped it: nobody minds */
    memset(f->mapper.pages, 0, sizeof(f->mapper.pages));
    vu_window_unmap_all(f->window);
    mapper_expect(&f->mapper, 0, 1);
    g_assert_cmpint(map(f, 5, f->file, 5), ==, 0);
    mapper_expect(&f->mapper, 1, 0);
}

static void test_forget(Fixture *f, gconstpointer data)
{
    learn(f);
    g_assert_cmpint(map(f, 1, f->file, 1), ==, 0);
    vu_window_forget(f->window, false);
    memset(f->mapper.pages, 0, sizeof(f->mapper.pages));
    mapper_expect(&f->mapper, 1, 0);
    g_assert_cmpint(map(f, 1, f->file, 1), ==, 0);
    mapper_expect(&f->mapper, 1, 0);
}

/* With the largest window there are never more than 256 mappings: QEMU dies of 512. */
static void test_full(Fixture *f, gconstpointer data)
{
    int large = mapper_file(300 * PAGE);

    learn(f);
    for (unsigned int i = 0; i < 600; i++) {
        g_assert_cmpint(map(f, i % 256, large, i % 300), ==, 0);
    }
    g_assert_cmpint(map(f, 256, large, 0), ==, -EINVAL);
    g_assert_cmpuint(f->mapper.n_most, ==, 256);
    g_assert_cmpuint(f->mapper.n_live, ==, 256);
    close(large);
}

/* ---- memory that the VMM adds -------------------------------------------------------
 */

/* What is mapped is known by its file, whatever part of it is told. */
static void test_has(Fixture *f, gconstpointer data)
{
    int other = mapper_file(PAGE);

    g_assert_false(vu_window_has(f->window, f->file, PAGE, PAGE));
    learn(f);
    g_assert_false(vu_window_has(f->window, f->file, PAGE, PAGE));
    g_assert_cmpint(map(f, 1, f->file, 1), ==, 0);
    g_assert_true(vu_window_has(f->window, f->file, PAGE, PAGE));
    g_assert_true(vu_window_has(f->window, f->file, 0, 4096));
    g_assert_false(vu_window_has(f->window, other, PAGE, PAGE));
    g_assert_false(vu_window_has(f->window, -1, PAGE, PAGE));
    close(other);
}

/* The guest is answered when the mapping is in place, not when it is promised. */
static void test_echo(Fixture *f, gconstpointer data)
{
    for (unsigned int i = 0; i < 3; i++) {
        Mapping mapping = {.f = f, .page = i, .result = 1};
        pthread_t thread;
        pthread_create(&thread, NULL, mapping_main, &mapping);
        while (atomic_load(&f->mapper.n_maps) <= i) {
            g_usleep(100);
        }
        g_usleep(100000);
        g_assert_true(vu_window_has(f->window, f->file, 0, PAGE)); /* not that part */
        g_usleep(100000);
        gint64 begin = g_get_monotonic_time();
        g_assert_true(vu_window_has(f->window, f->file, 15 * PAGE, PAGE));
        pthread_join(thread, NULL);
        g_assert_cmpint(mapping.result, ==, 0);
        g_assert_cmpint(g_get_monotonic_time() - begin, <, 700000);
    }
    /* it always does, but not this time */
    gint64 begin = g_get_monotonic_time();
    g_assert_cmpint(map(f, 4, f->file, 4), ==, 0);
    g_assert_cmpint(g_get_monotonic_time() - begin, >=, VU_WINDOW_ECHO_MS * 1000);
}

/* One that never does is waited for once, and once again when it is another. */
static void test_no_echo(Fixture *f, gconstpointer data)
{
    learn(f);
    gint64 begin = g_get_monotonic_time();
    for (unsigned int i = 0; i < N_PAGES; i++) {
        g_assert_cmpint(map(f, i, f->file, i), ==, 0);
    }
    g_assert_cmpint(g_get_monotonic_time() - begin, <, 700000);
    g_assert_cmpint(unmap(f, 0, N_PAGES), ==, 0);
    mapper_expect(&f->mapper, N_PAGES, N_PAGES);
    vu_window_forget(f->window, true);
    learn(f);
}

#define TEST(name, data, function)                                                       \
    g_test_add("/window/" name, Fixture, data, setup, function, teardown)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_threshold = LOG_LEVEL_OFF;
    TEST("map", NULL, test_map);
    TEST("refused", NULL, test_refused);
    TEST("files", NULL, test_files);
    TEST("shrinks", NULL, test_shrinks);
    TEST("refuses", NULL, test_refuses);
    TEST("unsure", NULL, test_unsure);
    TEST("unmap-all", NULL, test_unmap_all);
    TEST("forget", NULL, test_forget);
    TEST("full", "large", test_full);
    TEST("has", NULL, test_has);
    TEST("echo", NULL, test_echo);
    TEST("no-echo", NULL, test_no_echo);
    return g_test_run();
}
