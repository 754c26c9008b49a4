/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>

#include "virtiofsd/workers-internal.h"

/*
 * The threads are POSIX threads rather than GLib's: GThread ends a thread through code
 * that may load a library, and ThreadSanitizer sees pthread calls only.
 */

#define WORKER_STACK_SIZE ((size_t)256 * 1024)

/* How many workers may always be busy: one processor is left to the guest, which else
 * would wait for one of them to hear that its requests are done. */
static unsigned int busy_max(void)
{
    cpu_set_t cpus;

    /* Fails where there are more processors than fit in. */
    int n =
        sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : CPU_SETSIZE;
    return n > 2 ? (unsigned int)n - 1 : 1;
}

static void set_error(GError **error)
{
    g_set_error(error, G_FILE_ERROR, (gint)g_file_error_from_errno(errno),
                "cannot set up waiting for requests: %s", strerrordesc_np(errno));
}

static bool group_init(const Workers *workers, Group *group, GError **error)
{
    struct epoll_event wake = {.events = EPOLLIN | EPOLLET, .data.u32 = EVENT_WAKE};
    struct epoll_event stop = {.events = EPOLLIN, .data.u32 = EVENT_STOP};

    group->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    group->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (group->epoll_fd < 0 || group->wake_fd < 0 || workers->lost_fd < 0 ||
        epoll_ctl(group->epoll_fd, EPOLL_CTL_ADD, group->wake_fd, &wake) < 0 ||
        epoll_ctl(group->epoll_fd, EPOLL_CTL_ADD, workers->stop_fd, &stop) < 0) {
        set_error(error);
        return false;
    }
    return relief_init(&group->relief, group->n_serving, busy_max(), error);
}

/* hiprio's worker looks after the timer of the others. */
static bool watch_relief(Workers *workers, GError **error)
{
    struct epoll_event relief = {.events = EPOLLIN | EPOLLET, .data.u32 = EVENT_RELIEF};
    int timer_fd = workers->requests.relief.timer_fd;

    if (timer_fd >= 0 &&
        epoll_ctl(workers->hiprio.epoll_fd, EPOLL_CTL_ADD, timer_fd, &relief) < 0) {
        set_error(error);
        return false;
    }
    return true;
}

static bool worker_make(Workers *workers, unsigned int index, Session *session,
                        GError **error)
{
    Worker *self = &workers->threads[index];
    pthread_attr_t attributes;

    self->workers = workers;
    self->group = index == 0 ? &workers->hiprio : &workers->requests;
    self->index = index == 0 ? 0 : index - 1;
    polling_init(&self->polling, index == 0 ? 0 : workers->poll_us,
                 &self->group->is_polled);
    self->request = request_worker_new(session);
    self->chain = vu_chain_new();
    if (self->request == NULL || self->chain == NULL) {
        g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_NOMEM,
                    "not enough memory for %u workers: lower --thread-pool-size",
                    workers->n_threads);
        return false;
    }
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, WORKER_STACK_SIZE);
    int result = pthread_create(&self->thread, &attributes, workers_main, self);
    pthread_attr_destroy(&attributes);
    if (result != 0) {
        g_set_error(error, G_FILE_ERROR, (gint)g_file_error_from_errno(result),
                    "cannot start %u worker threads: %s; lower --thread-pool-size",
                    workers->n_threads, strerrordesc_np(result));
        return false;
    }
    workers->n_made++;
    return true;
}

/* Wait until all threads have been through pt_thread_enter(). */
static bool wait_ready(Workers *workers, GError **error)
{
    pthread_mutex_lock(&workers->lock);
    while (workers->n_ready < workers->n_made) {
        pthread_cond_wait(&workers->changed, &workers->lock);
    }
    int result = workers->enter_error;
    pthread_mutex_unlock(&workers->lock);
    if (result < 0) {
        g_set_error(error, G_FILE_ERROR, (gint)g_file_error_from_errno(-result),
                    "cannot prepare a worker thread: %s", strerrordesc_np(-result));
        return false;
    }
    return true;
}

static Workers *workers_alloc(const WorkersConfig *config)
{
    Workers *workers = g_new0(Workers, 1);
    pthread_condattr_t monotonic;

    workers->fs = config->fs;
    workers->waits = session_waits(config->session);
    workers->n_queues = config->n_queues;
    workers->poll_us = config->poll_us;
    workers->queues = g_new0(Queue, config->n_queues);
    for (unsigned int i = 0; i < config->n_queues; i++) {
        workers->queues[i].kick_fd = -1;
    }
    workers->hiprio.epoll_fd = workers->hiprio.wake_fd = -1;
    workers->hiprio.relief.timer_fd = workers->requests.relief.timer_fd = -1;
    workers->hiprio.first_queue = HIPRIO_QUEUE;
    workers->hiprio.n_queues = 1;
    workers->requests.epoll_fd = workers->requests.wake_fd = -1;
    workers->requests.first_queue = HIPRIO_QUEUE + 1;
    workers->requests.n_queues = config->n_queues - 1;
    workers->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    workers->lost_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    workers->n_threads = config->n_request_workers + 1;
    workers->hiprio.n_serving = 1;
    workers->requests.n_serving = config->n_request_workers;
    workers->threads = g_new0(Worker, workers->n_threads);

    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&workers->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&workers->lock, NULL);
    return workers;
}

Workers *workers_new(const WorkersConfig *config, GError **error)
{
    Workers *workers = workers_alloc(config);
    bool made = group_init(workers, &workers->hiprio, error) &&
                group_init(workers, &workers->requests, error) &&
                watch_relief(workers, error);

    for (unsigned int i = 0; made && i < workers->n_threads; i++) {
        made = worker_make(workers, i, config->session, error);
    }
    /* The threads that were made are waited for in any case: they use what is freed
     * below. */
    GError **ready_error = made ? error : NULL;
    if (!wait_ready(workers, ready_error) || !made) {
        (void)workers_stop(workers, -1);
        return NULL;
    }
    return workers;
}

/* Wait for all made threads to leave workers_main(); a negative timeout waits for ever.
 */
static bool wait_ended(Workers *workers, int timeout_ms)
{
    struct timespec until;
    int result = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&workers->lock);
    while (workers->n_ended < workers->n_made && result == 0) {
        result = timeout_ms < 0
                     ? pthread_cond_wait(&workers->changed, &workers->lock)
                     : pthread_cond_timedwait(&workers->changed, &workers->lock, &until);
    }
    bool ended = workers->n_ended == workers->n_made;
    pthread_mutex_unlock(&workers->lock);
    return ended;
}

bool workers_stop(Workers *workers, int timeout_ms)
{
    if (workers == NULL) {
        return true;
    }
    workers_signal(workers->stop_fd);
    if (!wait_ended(workers, timeout_ms)) {
        return false;
    }
    for (unsigned int i = 0; i < workers->n_made; i++) {
        pthread_join(workers->threads[i].thread, NULL);
    }
    for (unsigned int i = 0; i < workers->n_threads; i++) {
        request_worker_free(workers->threads[i].request);
        vu_chain_free(workers->threads[i].chain);
    }
    autofd_clear(&workers->hiprio.epoll_fd);
    autofd_clear(&workers->hiprio.wake_fd);
    autofd_clear(&workers->requests.epoll_fd);
    autofd_clear(&workers->requests.wake_fd);
    relief_clear(&workers->requests.relief);
    relief_clear(&workers->hiprio.relief);
    autofd_clear(&workers->stop_fd);
    autofd_clear(&workers->lost_fd);
    pthread_cond_destroy(&workers->changed);
    pthread_mutex_destroy(&workers->lock);
    g_free(workers->threads);
    g_free(workers->queues);
    g_free(workers);
    return true;
}
