/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flood SOCKET KIND N
 *
 * A guest that floods its first request queue, or hiprio, without ever letting it run
 * empty, while it reads 4 KiB at a time of the file "file" on its second: the latency of
 * N of those reads without the flood and with it.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/support/fuse-ops.h"

#define FLOOD_QUEUE 1u
#define READ_QUEUE 2u
#define QUEUE_SIZE 1024u
#define IN_FLIGHT 480u /* of the flood: each may take two descriptors */
#define PAGE_SIZE 4096u

/** struct Kind - what the flood is made of. */
typedef struct Kind {
    const char *name;
    uint32_t opcode;
    unsigned int queue;
    uint32_t room;
} Kind;

static const Kind kinds[] = {
    {"readdirplus", FUSE_READDIRPLUS, FLOOD_QUEUE, PAGE_SIZE},
    {"getxattr", FUSE_GETXATTR, FLOOD_QUEUE, 256},
    {"forget", FUSE_FORGET, 0, 0},
};

typedef struct Flood {
    Client *client;
    const Kind *kind;
    uint64_t node;
    uint64_t dir_handle;
    _Atomic bool stop;
    _Atomic uint64_t done;
} Flood;

static int64_t now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int submit(const Flood *flood)
{
    const struct fuse_read_in listing = {.fh = flood->dir_handle, .size = PAGE_SIZE};
    const struct fuse_getxattr_in attribute = {.size = 256};
    const struct fuse_forget_in forget = {.nlookup = 1};
    ClientRequest request = {.opcode = flood->kind->opcode,
                             .nodeid = flood->node,
                             .out_size = flood->kind->room,
                             .no_reply = flood->kind->room == 0,
                             .queue = CLIENT_QUEUE(flood->kind->queue)};

    if (request.opcode == FUSE_READDIRPLUS) {
        request.nodeid = FUSE_ROOT_ID;
        request.args = &listing;
        request.args_size = sizeof(listing);
    } else if (request.opcode == FUSE_GETXATTR) {
        request.args = &attribute;
        request.args_size = sizeof(attribute);
        request.name = "user.none";
    } else {
        request.nodeid = UINT64_C(1) << 40;
        request.args = &forget;
        request.args_size = sizeof(forget);
    }
    return client_submit(flood->client, &request, NULL);
}

/* As many in flight as fit, always. */
static void *flood_main(void *data)
{
    Flood *flood = data;
    unsigned int in_flight = 0;

    while (!atomic_load(&flood->stop) || in_flight > 0) {
        while (!atomic_load(&flood->stop) && in_flight < IN_FLIGHT &&
               submit(flood) == 0) {
            in_flight++;
        }
        ClientReply reply = {0};
        int result = client_reap(flood->client, flood->kind->queue, &reply, 30000);
        if (result == -ETIMEDOUT || result == -ECONNRESET) {
            (void)fprintf(stderr, "the flood is not answered: %d\n", result);
            exit(1);
        }
        client_release(flood->client, &reply);
        atomic_fetch_add(&flood->done, 1);
        in_flight--;
    }
    return NULL;
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* N reads one after another, and what they took. */
static void measure(Client *client, const ClientIo *io, const char *when, size_t n)
{
    int64_t *took = calloc(n, sizeof(*took));
    const struct fuse_read_in in = {.fh = io->fh, .size = PAGE_SIZE};
    const ClientRequest request = {.opcode = FUSE_READ,
                                   .nodeid = io->nodeid,
                                   .args = &in,
                                   .args_size = sizeof(in),
                                   .out_size = PAGE_SIZE,
                                   .queue = CLIENT_QUEUE(READ_QUEUE)};
    char page[PAGE_SIZE];

    for (size_t i = 0; took != NULL && i < n; i++) {
        int64_t begin = now_ns();
        int result = client_call(client, &request, page, sizeof(page));
        if (result != (int)sizeof(page)) {
            (void)fprintf(stderr, "a read failed: %d\n", result);
            exit(1);
        }
        took[i] = now_ns() - begin;
    }
    if (took != NULL) {
        qsort(took, n, sizeof(*took), compare);
        printf("%s p50=%" PRId64 " p99=%" PRId64 " max=%" PRId64 "\n", when,
               took[n / 2] / 1000, took[n - 1 - n / 100] / 1000, took[n - 1] / 1000);
    }
    free(took);
}

static Frontend *connect_to(const char *path)
{
    FrontendConfig config;

    frontend_config_init(&config);
    config.n_request_queues = 2;
    config.queue_size = QUEUE_SIZE;
    config.memory_size = (size_t)256 << 20;
    Frontend *frontend = frontend_new(&config);
    if (frontend == NULL || frontend_connect(frontend, path) < 0 ||
        frontend_negotiate(frontend) < 0 || frontend_start(frontend) < 0) {
        (void)fprintf(stderr, "no daemon at %s\n", path);
        exit(1);
    }
    return frontend;
}

static Client *make_client(Frontend *frontend, unsigned int n_slots)
{
    ClientConfig config;

    client_config_init(&config);
    config.data_size = 8192;
    config.n_slots = n_slots;
    config.timeout_ms = 60000;
    Client *client = client_new(frontend, &config);
    if (client == NULL) {
        (void)fprintf(stderr, "no memory for a client\n");
        exit(1);
    }
    return client;
}

static void run(Frontend *frontend, const Kind *kind, size_t n)
{
    Flood flood = {.client = make_client(frontend, IN_FLIGHT), .kind = kind};
    Client *reader = make_client(frontend, 4);
    struct fuse_entry_out entry;
    ClientIo io = {0};
    pthread_t thread;

    if (client_init_default(reader) < 0 ||
        client_lookup(reader, FUSE_ROOT_ID, "file", &entry) < 0 ||
        client_open(reader, entry.nodeid, O_RDONLY, &io.fh) < 0 ||
        client_opendir(reader, FUSE_ROOT_ID, &flood.dir_handle) < 0) {
        (void)fprintf(stderr, "no session\n");
        exit(1);
    }
    io.nodeid = flood.node = entry.nodeid;
    measure(reader, &io, "idle", n);
    if (pthread_create(&thread, NULL, flood_main, &flood) != 0) {
        exit(1);
    }
    while (atomic_load(&flood.done) < IN_FLIGHT) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    int64_t begin = now_ns();
    measure(reader, &io, "flooded", n);
    printf("flood=%" PRIu64 " per_second=%.0f\n", atomic_load(&flood.done),
           (double)atomic_load(&flood.done) * 1e9 / (double)(now_ns() - begin));
    atomic_store(&flood.stop, true);
    (void)pthread_join(thread, NULL);
    client_free(flood.client);
    client_free(reader);
}

int main(int argc, char **argv)
{
    const Kind *kind = NULL;

    for (size_t i = 0; argc == 4 && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        kind = strcmp(kinds[i].name, argv[2]) == 0 ? &kinds[i] : kind;
    }
    if (kind == NULL) {
        (void)fprintf(stderr, "usage: flood SOCKET readdirplus|getxattr|forget N\n");
        return 2;
    }
    Frontend *frontend = connect_to(argv[1]);
    run(frontend, kind, strtoul(argv[3], NULL, 10));
    frontend_free(frontend);
    return 0;
}
