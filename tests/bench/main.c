/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-driver SOCKET QUEUES LABEL PID...
 *
 * A guest with so many request queues that measures what a daemon, the processes PID,
 * does for it. Commands come by lines, and each is answered by a line of JSON:
 *
 *     directory NAME ENTRIES        take a directory
 *     know N                        look up its first files
 *     run ROW DEPTH MILLISECONDS    measure one row
 *     slow                          open the files of the rows that are slow
 *     beside ROW N                  from now on, so many of its operations are in flight
 *     alone                         no longer
 *
 * The first line is for the session itself. {"error": ...} says why something did not
 * run.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/bench/load.h"
#include "tests/support/fuse-ops.h"

#define QUEUE_SIZE 1024u /* Kata's */
#define SAMPLES_MAX (1u << 20)
#define CLIENT_DATA (64u << 10)
#define PIDS_MAX 8
#define SETTLE_NS 1000000 /* until a daemon with nothing to do sleeps */
#define NAME_MAX_SIZE 64
#define NAME_FORMAT "%63s"

typedef struct Driver {
    Frontend *frontend;
    Client *client;
    Load *load;
    Tree tree;
    int64_t *samples;
    clockid_t clocks[PIDS_MAX]; /* of the daemon's processes */
    int n_clocks;
} Driver;

/** struct Figures - sums over the passes of one row. */
typedef struct Figures {
    uint64_t operations;
    uint64_t requests;
    int64_t elapsed_ns;
    int64_t cpu_ns;
    VirtqueueCounters counters;
} Figures;

static void say_error(const char *what, int rc)
{
    printf("{\"error\": \"%s: %s\"}\n", what, strerrorname_np(-rc));
    (void)fflush(stdout); /* nobody to tell */
}

/* ---- what is measured ------------------------------------------------------- */

/* Of all threads, those that have ended included; it goes by nanoseconds. */
static int64_t cpu_ns(const Driver *driver)
{
    struct timespec used;
    int64_t sum = 0;

    for (int i = 0; i < driver->n_clocks; i++) {
        if (clock_gettime(driver->clocks[i], &used) == 0) {
            sum += (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
        }
    }
    return sum;
}

static VirtqueueCounters all_counters(const Driver *driver)
{
    VirtqueueCounters sum = {.kicks = 0};

    for (unsigned int i = 0; i < frontend_n_queues(driver->frontend); i++) {
        Virtqueue *queue = frontend_queue(driver->frontend, i);
        virtqueue_acknowledge(queue);
        VirtqueueCounters counters = virtqueue_counters(queue);
        sum.kicks += counters.kicks;
        sum.interrupts += counters.interrupts;
    }
    return sum;
}

static void settle(void)
{
    (void)nanosleep(&(struct timespec){.tv_nsec = SETTLE_NS}, NULL);
}

/* A pass behind its preparation, and what it cost. */
static int run_pass(Driver *driver, LoadPass *pass, Figures *figures)
{
    int rc = pass->row->between == NULL ? 0 : pass->row->between(&driver->tree);

    if (rc < 0) {
        return rc;
    }
    settle();
    VirtqueueCounters before = all_counters(driver);
    int64_t cpu = cpu_ns(driver);
    rc = load_run(driver->load, pass);
    settle();
    figures->cpu_ns += cpu_ns(driver) - cpu;
    VirtqueueCounters after = all_counters(driver);
    figures->counters.kicks += after.kicks - before.kicks;
    figures->counters.interrupts += after.interrupts - before.interrupts;
    figures->operations += pass->ret_operations;
    figures->requests += pass->ret_requests;
    figures->elapsed_ns += pass->ret_elapsed_ns;
    return rc;
}

/* Passes until @duration_ns of them were measured, or the samples fill their room. */
static int run_passes(Driver *driver, LoadPass *pass, int64_t duration_ns,
                      Figures *figures)
{
    Figures ignored = {.operations = 0};

    pass->samples = driver->samples;
    pass->n_samples = SAMPLES_MAX;
    pass->operations = pass->row->pass;
    pass->duration_ns = duration_ns / 8;
    int rc = run_pass(driver, pass, &ignored);
    while (rc == 0 && (figures->operations == 0 || figures->elapsed_ns < duration_ns) &&
           figures->operations < SAMPLES_MAX) {
        pass->samples = driver->samples + figures->operations;
        pass->n_samples = SAMPLES_MAX - figures->operations;
        pass->duration_ns = duration_ns - figures->elapsed_ns;
        rc = run_pass(driver, pass, figures);
    }
    int forgot = tree_forget(&driver->tree);
    return rc < 0 ? rc : forgot;
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static void print_figures(const Driver *driver, const Figures *figures)
{
    size_t n = figures->operations;

    qsort(driver->samples, n, sizeof(*driver->samples), compare);
    printf("{\"operations\": %" PRIu64 ", \"requests\": %" PRIu64
           ", \"elapsed_ns\": %" PRId64 ", \"cpu_ns\": %" PRId64 ", \"p50_ns\": %" PRId64
           ", \"p99_ns\": %" PRId64 ", \"worst_ns\": %" PRId64 ", \"kicks\": %" PRIu64
           ", \"interrupts\": %" PRIu64 "}\n",
           figures->operations, figures->requests, figures->elapsed_ns, figures->cpu_ns,
           driver->samples[n / 2], driver->samples[n - 1 - n / 100],
           driver->samples[n - 1], figures->counters.kicks, figures->counters.interrupts);
    (void)fflush(stdout); /* nobody to tell */
}

/* ---- commands --------------------------------------------------------------- */

static int finish(const char *what, int rc)
{
    if (rc < 0) {
        say_error(what, rc);
    } else {
        printf("{}\n");
        (void)fflush(stdout); /* nobody to tell */
    }
    return rc;
}

/* Some files must be known, and for a row with preparations some must not. */
static bool can_run(const Tree *tree, const Row *row)
{
    return row != NULL && tree->n_known > 0 && (tree->has_slow || !row->is_slow) &&
           (row->pass == 0 || tree->n_known < tree->n_entries);
}

static int begin_beside(Driver *driver, const char *name, unsigned int n)
{
    const Row *row = row_find(name);

    return n > 0 && n < TREE_JOBS && can_run(&driver->tree, row)
               ? load_begin_beside(driver->load, row, n)
               : -EINVAL;
}

static int run_row(Driver *driver, const char *name, unsigned int depth,
                   int64_t milliseconds)
{
    const Row *row = row_find(name);
    LoadPass pass = {.row = row, .depth = depth};
    Figures figures = {.operations = 0};
    int rc = -EINVAL;

    if (depth > 0 && depth <= TREE_JOBS && can_run(&driver->tree, row)) {
        rc = run_passes(driver, &pass, milliseconds * 1000000, &figures);
    }
    if (rc < 0) {
        say_error(name, rc);
    } else {
        print_figures(driver, &figures);
    }
    return rc;
}

static int obey(Driver *driver, const char *line)
{
    char name[NAME_MAX_SIZE];
    unsigned long long a, b;

    if (sscanf(line, "directory " NAME_FORMAT " %llu", name, &a) == 2) {
        return finish(name, tree_use(&driver->tree, name, a));
    }
    if (sscanf(line, "know %llu", &a) == 1) {
        return finish("know", tree_know(&driver->tree, a));
    }
    if (sscanf(line, "run " NAME_FORMAT " %llu %llu", name, &a, &b) == 3) {
        return run_row(driver, name, (unsigned int)a, (int64_t)b);
    }
    if (sscanf(line, "beside " NAME_FORMAT " %llu", name, &a) == 2) {
        return finish(name, begin_beside(driver, name, (unsigned int)a));
    }
    if (strcmp(line, "slow\n") == 0) {
        return finish("slow", tree_open_slow(&driver->tree));
    }
    if (strcmp(line, "alone\n") == 0) {
        return finish("alone", load_end_beside(driver->load));
    }
    return finish("command", -EINVAL);
}

/* ---- the session ------------------------------------------------------------ */

static int connect_to(Driver *driver, const char *path, unsigned int n_queues)
{
    FrontendConfig config;
    ClientConfig client;

    client_config_init(&client);
    client.n_slots = 2;
    client.data_size = CLIENT_DATA;
    frontend_config_init(&config);
    config.n_request_queues = n_queues;
    config.queue_size = QUEUE_SIZE;
    config.memory_size = load_memory_size() + client_memory_size(&client);
    driver->frontend = frontend_new(&config);
    if (driver->frontend == NULL) {
        return -ENOMEM;
    }
    int rc = frontend_connect(driver->frontend, path);
    if (rc == 0) {
        rc = frontend_negotiate(driver->frontend);
    }
    /* Even if it hung up: one queue too many is why. */
    unsigned int most = frontend_peer_queues(driver->frontend);
    if (most > 0 && most <= n_queues) {
        return -ENOTSUP;
    }
    if (rc == 0) {
        rc = frontend_start(driver->frontend);
    }
    driver->client = rc == 0 ? client_new(driver->frontend, &client) : NULL;
    return rc == 0 && driver->client == NULL ? -ENOMEM : rc;
}

static int find_clocks(Driver *driver, char **pids)
{
    for (; *pids != NULL && driver->n_clocks < PIDS_MAX; pids++) {
        int rc = clock_getcpuclockid((pid_t)strtol(*pids, NULL, 10),
                                     &driver->clocks[driver->n_clocks++]);
        if (rc != 0) {
            return -rc;
        }
    }
    return 0;
}

static int begin_session(Driver *driver, char **argv)
{
    int rc = connect_to(driver, argv[1], (unsigned int)strtoul(argv[2], NULL, 10));

    if (rc == 0) {
        rc = client_init_default(driver->client);
    }
    if (rc == 0) {
        rc = tree_open(&driver->tree, driver->client, argv[3]);
    }
    if (rc == 0) {
        rc = find_clocks(driver, &argv[4]);
    }
    driver->samples = calloc(SAMPLES_MAX, sizeof(*driver->samples));
    driver->load = rc == 0 ? load_new(driver->frontend, &driver->tree) : NULL;
    return rc == 0 && (driver->load == NULL || driver->samples == NULL) ? -ENOMEM : rc;
}

int main(int argc, char **argv)
{
    Driver driver = {.frontend = NULL};
    char line[256];

    if (argc < 5) {
        (void)fprintf(stderr, "usage: bench-driver SOCKET QUEUES LABEL PID...\n");
        return 2;
    }
    int rc = finish("session", begin_session(&driver, argv));
    int status = rc < 0 ? 1 : 0;
    /* Without an answer requests may still be in flight. */
    while (status == 0 && rc != -ETIMEDOUT && rc != -ECONNRESET &&
           fgets(line, sizeof(line), stdin) != NULL) {
        rc = obey(&driver, line);
    }
    load_free(driver.load);
    tree_clear(&driver.tree);
    client_free(driver.client);
    frontend_free(driver.frontend);
    free(driver.samples);
    return status;
}
