/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The channel to the VMM: answers of every kind, none, late and wrong ones, and a control
 * thread that ends the wait.
 */
#include "virtiofsd/vhost/backend.h"

#include <errno.h>

#include "tests/unit/vhost-guest.h"
#include "tests/unit/vhost-window.h"
#include "virtiofsd/log.h"

typedef struct Fixture {
    VuBackend backend;
    Mapper mapper;
    int file;
    unsigned int fds_before;
} Fixture;

static void setup(Fixture *f, gconstpointer data)
{
    f->fds_before = count_fds();
    g_assert_cmpint(vu_backend_init(&f->backend, true), ==, 0);
    mapper_init(&f->mapper);
    g_assert_cmpint(vu_backend_connect_take(&f->backend, f->mapper.peer), ==, 0);
    vu_backend_set_open(&f->backend, true, true);
    f->file = mapper_file(PAGE);
}

static void teardown(Fixture *f, gconstpointer data)
{
    vu_backend_clear(&f->backend);
    mapper_clear(&f->mapper);
    vu_backend_free(&f->backend);
    close(f->file);
    g_assert_cmpuint(count_fds(), ==, f->fds_before);
}

/* Map or unmap page @i. */
static int ask(Fixture *f, bool maps, unsigned int i, bool *ret_unsure)
{
    const VuBackendRequest request = {
        .number = maps ? VU_BACKEND_SHMEM_MAP : VU_BACKEND_SHMEM_UNMAP,
        .size = sizeof(struct vu_shmem_map),
        .payload.shmem = {.offset = i * PAGE, .length = PAGE, .flags = maps ? 1 : 0},
        .fd = maps ? f->file : -1,
    };

    *ret_unsure = false;
    int result = vu_backend_enter(&f->backend);
    if (result == 0) {
        result = vu_backend_ask(&f->backend, &request, ret_unsure);
        vu_backend_leave(&f->backend);
    }
    return result;
}

static void expect(Fixture *f, bool maps, unsigned int i, int result, bool unsure)
{
    bool is_unsure;

    g_assert_cmpint(ask(f, maps, i, &is_unsure), ==, result);
    g_assert_cmpint(is_unsure, ==, unsure);
}

static void test_honest(Fixture *f, gconstpointer data)
{
    for (unsigned int i = 0; i < 200; i++) {
        expect(f, true, i, 0, false);
    }
    expect(f, true, 7, -EIO, false);
    for (unsigned int i = 0; i < 200; i++) {
        expect(f, false, i, 0, false);
    }
    expect(f, false, 7, -EIO, false);
    mapper_expect(&f->mapper, 201, 201);
}

/* Answers that may come so. */
static void test_odd(Fixture *f, gconstpointer data)
{
    f->mapper.mood = MOOD_SLOW;
    expect(f, true, 1, 0, false);
    f->mapper.mood = MOOD_BYTES;
    expect(f, true, 2, 0, false);
    f->mapper.mood = MOOD_REFUSES;
    expect(f, true, 3, -EIO, false);
    f->mapper.mood = MOOD_HONEST;
    expect(f, true, 3, 0, false);
}

/* What cannot be an answer ends the channel; a new one works. */
static void test_wrong(Fixture *f, gconstpointer data)
{
    const Mood moods[] = {MOOD_FLAGS,      MOOD_SIZE, MOOD_NUMBER,
                          MOOD_DESCRIPTOR, MOOD_HALF, MOOD_LEAVES};

    for (size_t i = 0; i < G_N_ELEMENTS(moods); i++) {
        f->mapper.mood = moods[i];
        expect(f, true, 0, -EIO, true);
        f->mapper.mood = MOOD_HONEST;
        g_assert_cmpint(f->backend.socket, ==, -1);
        expect(f, true, 1, -EIO, false);
        mapper_clear(&f->mapper);
        mapper_init(&f->mapper);
        g_assert_cmpint(vu_backend_connect_take(&f->backend, f->mapper.peer), ==, 0);
        expect(f, true, 1, 0, false);
    }
}

/* An answer to nothing is found before the next question. */
static void test_twice(Fixture *f, gconstpointer data)
{
    struct pollfd more = {.fd = f->backend.socket, .events = POLLIN};

    f->mapper.mood = MOOD_TWICE;
    expect(f, true, 0, 0, false);
    g_assert_cmpint(poll(&more, 1, 10000), ==, 1);
    expect(f, true, 1, -EIO, false);
    g_assert_cmpint(f->backend.socket, ==, -1);
    mapper_expect(&f->mapper, 1, 0);
}

/* Silence ends after a time; what was owed is thrown away when it comes. */
static void test_silence(Fixture *f, gconstpointer data)
{
    gint64 begin = g_get_monotonic_time();

    f->mapper.mood = MOOD_SILENT;
    expect(f, true, 0, -EIO, true);
    g_assert_cmpint(g_get_monotonic_time() - begin, >=, VU_BACKEND_TIMEOUT_MS * 1000);
    g_assert_cmpuint(f->backend.n_owed, ==, 1);
    f->mapper.mood = MOOD_HONEST;
    mapper_answer(&f->mapper, VU_BACKEND_SHMEM_MAP, true);
    expect(f, true, 0, -EIO, false); /* it overlaps: the answer is that of the second */
    expect(f, false, 0, 0, false);
    g_assert_cmpuint(f->backend.n_owed, ==, 0);
}

typedef struct Asker {
    Fixture *f;
    unsigned int page;
    int result;
    bool unsure;
} Asker;

static void *asker_main(void *opaque)
{
    Asker *self = opaque;

    self->result = ask(self->f, true, self->page, &self->unsure);
    return NULL;
}

static void wait_for_maps(Fixture *f, unsigned int n)
{
    while (atomic_load(&f->mapper.n_maps) < n) {
        g_usleep(1000);
    }
}

/* Rings stop while somebody waits: he gives up at once, and the late answer is nobody's.
 */
static void test_give_up(Fixture *f, gconstpointer data)
{
    for (unsigned int i = 0; i < VU_BACKEND_OWED_MAX; i++) {
        Asker asker = {.f = f, .page = i};
        pthread_t thread;
        f->mapper.mood = MOOD_SILENT;
        pthread_create(&thread, NULL, asker_main, &asker);
        wait_for_maps(f, i + 1);
        gint64 begin = g_get_monotonic_time();
        vu_backend_give_up(&f->backend, true);
        pthread_join(thread, NULL);
        g_assert_cmpint(g_get_monotonic_time() - begin, <, 2000000);
        g_assert_cmpint(asker.result, ==, -EINTR);
        g_assert_true(asker.unsure);
        expect(f, true, 99, -EINTR, false); /* nobody may begin */
        vu_backend_give_up(&f->backend, false);
    }
    g_assert_cmpuint(f->backend.n_owed, ==, VU_BACKEND_OWED_MAX);
    expect(f, true, 99, -EIO, false); /* it owes too much */
    f->mapper.mood = MOOD_HONEST;
    for (unsigned int i = 0; i < VU_BACKEND_OWED_MAX; i++) {
        mapper_answer(&f->mapper, VU_BACKEND_SHMEM_MAP, i % 2 == 0);
    }
    expect(f, true, 99, 0, false);
    g_assert_cmpuint(f->backend.n_owed, ==, 0);
}

/* Who comes while the rings do not run waits for them, and is never heard. */
static void test_closed(Fixture *f, gconstpointer data)
{
    Asker asker = {.f = f, .page = 1};
    pthread_t thread;

    f->mapper.may_be_asked = false;
    vu_backend_set_open(&f->backend, true, false);
    pthread_create(&thread, NULL, asker_main, &asker);
    g_usleep(50000);
    f->mapper.may_be_asked = true;
    vu_backend_set_open(&f->backend, true, true);
    pthread_join(thread, NULL);
    g_assert_cmpint(asker.result, ==, 0);

    vu_backend_set_open(&f->backend, true, false);
    asker.page = 2;
    pthread_create(&thread, NULL, asker_main, &asker);
    g_usleep(20000);
    vu_backend_give_up(&f->backend, true);
    pthread_join(thread, NULL);
    vu_backend_give_up(&f->backend, false);
    g_assert_cmpint(asker.result, ==, -EINTR);
    vu_backend_set_open(&f->backend, false, true); /* not agreed upon */
    expect(f, true, 2, -EIO, false);
    mapper_expect(&f->mapper, 1, 0);
}

/* The VMM gives another channel while somebody waits. */
static void test_replaced(Fixture *f, gconstpointer data)
{
    for (unsigned int i = 0; i < 20; i++) {
        Asker asker = {.f = f};
        pthread_t thread;
        f->mapper.mood = MOOD_SILENT;
        pthread_create(&thread, NULL, asker_main, &asker);
        wait_for_maps(f, i == 0 ? 1 : 2);
        g_assert_cmpint(vu_backend_connect_take(&f->backend, dup(f->backend.socket)), ==,
                        0);
        pthread_join(thread, NULL);
        g_assert_cmpint(asker.result, ==, -EINTR);
        mapper_clear(&f->mapper);
        mapper_init(&f->mapper);
        g_assert_cmpint(vu_backend_connect_take(&f->backend, f->mapper.peer), ==, 0);
        expect(f, true, 1, 0, false);
    }
}

/* A VMM that does not read: nobody waits for room. */
static void test_full(Fixture *f, gconstpointer data)
{
    int pair[2];
    char bytes[4096] = {0};
    gint64 begin = g_get_monotonic_time();

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    while (send(pair[1], bytes, sizeof(bytes), MSG_DONTWAIT) > 0) {
    }
    while (send(pair[1], bytes, 1, MSG_DONTWAIT) > 0) {
    }
    g_assert_cmpint(vu_backend_connect_take(&f->backend, pair[1]), ==, 0);
    expect(f, true, 0, -EIO, false);
    g_assert_cmpint(g_get_monotonic_time() - begin, <, 4000000);
    close(pair[0]);
    expect(f, true, 0, -EIO, false);
    g_assert_cmpint(f->backend.socket, ==, -1);
}

/* Four at once: each has its own answer. */
static void test_together(Fixture *f, gconstpointer data)
{
    Asker askers[4 * 25];
    pthread_t threads[4];

    for (unsigned int round = 0; round < 25; round++) {
        for (unsigned int i = 0; i < 4; i++) {
            askers[round * 4 + i] = (Asker){.f = f, .page = round * 4 + i};
            pthread_create(&threads[i], NULL, asker_main, &askers[round * 4 + i]);
        }
        for (unsigned int i = 0; i < 4; i++) {
            pthread_join(threads[i], NULL);
            g_assert_cmpint(askers[round * 4 + i].result, ==, 0);
        }
    }
    mapper_expect(&f->mapper, 100, 0);
}

#define TEST(name, function)                                                             \
    g_test_add("/backend/" name, Fixture, NULL, setup, function, teardown)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_threshold = LOG_LEVEL_OFF;
    TEST("honest", test_honest);
    TEST("odd", test_odd);
    TEST("wrong", test_wrong);
    TEST("twice", test_twice);
    TEST("silence", test_silence);
    TEST("give-up", test_give_up);
    TEST("closed", test_closed);
    TEST("replaced", test_replaced);
    TEST("full", test_full);
    TEST("together", test_together);
    return g_test_run();
}
