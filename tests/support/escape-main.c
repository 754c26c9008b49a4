/* SPDX-License-Identifier: Apache-2.0 */
/*
 * escape guest SOCKET ARENA CANARY N
 * escape naive - ARENA CANARY N
 *
 * Swaps and works in the arena (escape.h). Says "begun", and waits for a line; works;
 * prints the tally and "done"; waits for a line, and leaves.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/escape.h"
#include "tests/support/fuse-ops.h"

static void say_and_wait(const char *words)
{
    char line[16];

    (void)printf("%s\n", words);
    (void)fflush(stdout);
    if (fgets(line, sizeof(line), stdin) == NULL) {
        exit(1); /* whoever started us is gone */
    }
}

static Client *connect_to(const char *socket_path, Frontend **ret_frontend)
{
    FrontendConfig frontend_config;
    ClientConfig client_config;

    frontend_config_init(&frontend_config);
    client_config_init(&client_config);
    client_config.data_size = 65536;
    client_config.timeout_ms = 60000;
    Frontend *frontend = frontend_new(&frontend_config);
    if (frontend == NULL || frontend_connect(frontend, socket_path) < 0 ||
        frontend_negotiate(frontend) < 0 || frontend_start(frontend) < 0) {
        (void)fprintf(stderr, "no daemon at %s\n", socket_path);
        exit(1);
    }
    Client *client = client_new(frontend, &client_config);
    if (client == NULL || client_init_default(client) < 0) {
        (void)fprintf(stderr, "no session\n");
        exit(1);
    }
    *ret_frontend = frontend;
    return client;
}

static int run(Escape *escape, Client *client, uint64_t n)
{
    pthread_t swappers[ESCAPE_SWAPPERS];
    int result = 0;

    for (int i = 0; i < ESCAPE_SWAPPERS; i++) {
        if (pthread_create(&swappers[i], NULL, escape_swap, escape) != 0) {
            return -EAGAIN;
        }
    }
    if (client != NULL) {
        result = escape_guest(escape, client, n);
    } else {
        escape_naive(escape, n);
    }
    atomic_store(&escape->stop, true);
    for (int i = 0; i < ESCAPE_SWAPPERS; i++) {
        (void)pthread_join(swappers[i], NULL);
    }
    return result;
}

static uint64_t requests(const Frontend *frontend)
{
    uint64_t n = 0;

    for (unsigned int i = 0; i < frontend_n_queues(frontend); i++) {
        n += virtqueue_counters(frontend_queue(frontend, i)).submitted;
    }
    return n;
}

int main(int argc, char **argv)
{
    static Escape escape;
    Frontend *frontend = NULL;
    Client *client = NULL;

    if (argc != 6 || escape_init(&escape, argv[3], argv[4]) < 0) {
        (void)fprintf(stderr, "usage: escape guest|naive SOCKET ARENA CANARY N\n");
        return 2;
    }
    if (strcmp(argv[1], "guest") == 0) {
        client = connect_to(argv[2], &frontend);
    }
    say_and_wait("begun");
    int result = run(&escape, client, strtoull(argv[5], NULL, 10));
    escape_print(&escape);
    if (frontend != NULL) {
        printf("requests=%" PRIu64 "\n", requests(frontend));
    }
    say_and_wait("done");
    client_free(client);
    frontend_free(frontend);
    return result < 0;
}
