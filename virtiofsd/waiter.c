/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The waiter takes from the table of waits what is due, tries it, and answers what has
 * come to an end: on the queue that it came from, whose chain was parked meanwhile. It
 * runs requests as a worker does, with buffers of its own, but never one that the guest
 * has just sent.
 */
#include "virtiofsd/waiter.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "virtiofsd/fuse/request.h"
#include "virtiofsd/fuse/waits.h"

#define WAITER_STACK_SIZE ((size_t)256 * 1024)

struct Waiter {
    WaiterConfig config;
    Waits *waits;
    RequestWorker *request;
    VuChain *chain;
    pthread_t thread;
    bool is_made;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool is_ready;   /* under lock */
    int enter_error; /* under lock: of pt_thread_enter() */
};

/* Answer what has ended, unless its queue is paused. */
static void answer(Waiter *self, Wait *wait)
{
    const WaitAnswer about = waits_answer(wait);
    VuRing *ring = vu_device_ring(self->config.device, about.queue);

    if (!vu_ring_unpark(ring, about.head, self->chain)) {
        waits_put_back(self->waits, wait);
        return;
    }
    const RequestBuffers buffers = {
        .in = self->chain->in,
        .n_in = self->chain->n_in,
        .out = self->chain->out,
        .n_out = self->chain->n_out,
    };
    size_t length = request_answer(self->request, wait, &buffers);
    vu_ring_push(ring, self->chain, (uint32_t)length);
}

static void serve(Waiter *self)
{
    for (;;) {
        Wait *wait = waits_next(self->waits);
        if (wait == NULL) {
            return;
        }
        if (request_retry(self->request, wait)) {
            answer(self, wait);
        }
    }
}

static void *waiter_main(void *data)
{
    Waiter *self = data;
    int entered = pt_thread_enter(self->config.fs);

    pthread_mutex_lock(&self->lock);
    self->is_ready = true;
    self->enter_error = entered;
    pthread_cond_signal(&self->changed);
    pthread_mutex_unlock(&self->lock);
    if (entered == 0) {
        serve(self);
    }
    return NULL;
}

/* Return: 0 or a negative errno. */
static int make_thread(Waiter *waiter)
{
    pthread_attr_t attributes;

    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, WAITER_STACK_SIZE);
    int result = pthread_create(&waiter->thread, &attributes, waiter_main, waiter);
    pthread_attr_destroy(&attributes);
    if (result != 0) {
        return -result;
    }
    waiter->is_made = true;
    pthread_mutex_lock(&waiter->lock);
    while (!waiter->is_ready) {
        pthread_cond_wait(&waiter->changed, &waiter->lock);
    }
    result = waiter->enter_error;
    pthread_mutex_unlock(&waiter->lock);
    return result;
}

Waiter *waiter_new(const WaiterConfig *config, GError **error)
{
    Waiter *waiter = g_new0(Waiter, 1);

    waiter->config = *config;
    waiter->waits = session_waits(config->session);
    pthread_mutex_init(&waiter->lock, NULL);
    pthread_cond_init(&waiter->changed, NULL);
    waiter->request = request_worker_new(config->session);
    waiter->chain = vu_chain_new();
    int result =
        waiter->request != NULL && waiter->chain != NULL ? make_thread(waiter) : -ENOMEM;
    if (result < 0) {
        g_set_error(error, G_FILE_ERROR, (gint)g_file_error_from_errno(-result),
                    "cannot start the thread for waiting locks: %s",
                    strerrordesc_np(-result));
        waiter_free(waiter);
        return NULL;
    }
    return waiter;
}

void waiter_free(Waiter *waiter)
{
    if (waiter == NULL) {
        return;
    }
    if (waiter->is_made) {
        waits_stop(waiter->waits);
        pthread_join(waiter->thread, NULL);
    }
    request_worker_free(waiter->request);
    vu_chain_free(waiter->chain);
    pthread_cond_destroy(&waiter->changed);
    pthread_mutex_destroy(&waiter->lock);
    g_free(waiter);
}
