/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of waiting requests.
 *
 * All who wait are in one list in the order in which they came, and are tried in that
 * order, so that of those who want the same lock the first one gets it, unless it becomes
 * free while they are being tried. A request is tried when it is parked (the lock may
 * have become free since the worker tried), when the guest gives up a lock on its node,
 * and else at intervals, for who holds a lock on the host tells nobody. The interval
 * doubles from 1 to 100 ms and is the same for all; while nobody waits there is none.
 *
 * One mutex guards everything; no system call is made under it. A request that is being
 * tried is still in the list: whoever ends it says so, and the waiter heeds it.
 */
#include "virtiofsd/fuse/waits.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

/* Uniques of interrupts that found nothing. */
#define N_EARLY 16u
#define QUEUES_MAX 256u

/* What keeps a guest's request waiting ends with its queue: there is no errno for that.
 * ENOLCK is one that programs know. EINTR would be wrong, although it sounds right: Linux
 * restarts the call then, but only if a signal is there, and gives the program the
 * internal code 512 otherwise. */
#define SETTLED (-ENOLCK)

typedef enum WaitState {
    WAIT_FREE,
    WAIT_TAKEN,   /* a worker has it, and will park it or give it back */
    WAIT_PARKED,  /* waits */
    WAIT_CLAIMED, /* the waiter has it */
} WaitState;

struct Wait {
    WaitRequest request;

    /* Written when it is parked. */
    uint32_t queue;
    uint16_t head;

    /* Under Waits.lock. */
    TAILQ_ENTRY(Wait) link; /* of the list or of the free ones */
    WaitState state;
    bool is_due;     /* to be tried, or answered, at once */
    bool was_kicked; /* while it was claimed */
    bool is_over;
    int result; /* if it is over */
};

typedef TAILQ_HEAD(WaitList, Wait) WaitList;

struct Waits {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* for the waiter */

    /* Under the lock. */
    WaitList list; /* in order of arrival */
    WaitList free;
    int64_t tick_ms; /* when all are due; 0: not set */
    int pause_ms;    /* from the last tick to the next */
    bool is_stopped;
    bool is_settled[QUEUES_MAX];
    uint64_t early[N_EARLY];
    unsigned int next_early;

    _Atomic unsigned int n; /* in the list; written under the lock */
    Wait all[WAITS_MAX];
};

static int64_t now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

Waits *waits_new(void)
{
    Waits *waits = calloc(1, sizeof(*waits));
    pthread_condattr_t monotonic;

    if (waits == NULL) {
        return NULL;
    }
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&waits->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&waits->lock, NULL);
    TAILQ_INIT(&waits->list);
    TAILQ_INIT(&waits->free);
    waits->pause_ms = WAITS_PAUSE_MIN_MS;
    for (size_t i = 0; i < WAITS_MAX; i++) {
        TAILQ_INSERT_TAIL(&waits->free, &waits->all[i], link);
    }
    return waits;
}

void waits_free(Waits *waits)
{
    if (waits != NULL) {
        pthread_cond_destroy(&waits->changed);
        pthread_mutex_destroy(&waits->lock);
        free(waits);
    }
}

/* ---- with the lock held --------------------------------------------------------------
 */

/* The first one to say so decides. */
static void end_wait(Wait *wait, int result)
{
    if (!wait->is_over) {
        wait->is_over = true;
        wait->result = result;
    }
    wait->is_due = true;
}

static bool take_early(Waits *waits, uint64_t unique)
{
    for (size_t i = 0; i < N_EARLY; i++) {
        if (unique != 0 && waits->early[i] == unique) {
            waits->early[i] = 0;
            return true;
        }
    }
    return false;
}

static void make_node_due(Waits *waits, uint64_t nodeid)
{
    Wait *wait;

    TAILQ_FOREACH(wait, &waits->list, link)
    {
        if (wait->request.lock.nodeid == nodeid) {
            wait->is_due = true;
            wait->was_kicked = true;
        }
    }
}

static void wake_waiter(Waits *waits)
{
    pthread_cond_signal(&waits->changed);
}

/* ---- whoever serves requests ---------------------------------------------------------
 */

Wait *waits_take(Waits *waits, const WaitRequest *request)
{
    pthread_mutex_lock(&waits->lock);
    Wait *wait = TAILQ_FIRST(&waits->free);
    if (wait != NULL) {
        TAILQ_REMOVE(&waits->free, wait, link);
        *wait = (Wait){.request = *request, .state = WAIT_TAKEN};
        TAILQ_INSERT_TAIL(&waits->list, wait, link);
        atomic_fetch_add(&waits->n, 1);
        if (take_early(waits, request->unique)) {
            end_wait(wait, -EINTR);
        }
    }
    pthread_mutex_unlock(&waits->lock);
    return wait;
}

void waits_give(Waits *waits, Wait *wait)
{
    pthread_mutex_lock(&waits->lock);
    TAILQ_REMOVE(&waits->list, wait, link);
    wait->state = WAIT_FREE;
    TAILQ_INSERT_HEAD(&waits->free, wait, link);
    atomic_fetch_sub(&waits->n, 1);
    pthread_mutex_unlock(&waits->lock);
}

void waits_park(Waits *waits, Wait *wait, uint32_t queue, uint16_t head)
{
    pthread_mutex_lock(&waits->lock);
    wait->queue = queue;
    wait->head = head;
    wait->state = WAIT_PARKED;
    if (waits->is_settled[queue % QUEUES_MAX]) {
        end_wait(wait, SETTLED);
    }
    /* Those before it are to be tried before it. */
    make_node_due(waits, wait->request.lock.nodeid);
    waits->pause_ms = WAITS_PAUSE_MIN_MS;
    waits->tick_ms = 0;
    wake_waiter(waits);
    pthread_mutex_unlock(&waits->lock);
}

void waits_kick(Waits *waits, uint64_t nodeid)
{
    if (atomic_load(&waits->n) == 0) {
        return;
    }
    pthread_mutex_lock(&waits->lock);
    make_node_due(waits, nodeid);
    waits->pause_ms = WAITS_PAUSE_MIN_MS;
    wake_waiter(waits);
    pthread_mutex_unlock(&waits->lock);
}

void waits_interrupt(Waits *waits, uint64_t unique)
{
    Wait *wait;
    bool is_found = false;

    pthread_mutex_lock(&waits->lock);
    TAILQ_FOREACH(wait, &waits->list, link)
    {
        if (wait->request.unique == unique) {
            end_wait(wait, -EINTR);
            is_found = true;
        }
    }
    if (!is_found) {
        waits->early[waits->next_early++ % N_EARLY] = unique;
    }
    wake_waiter(waits);
    pthread_mutex_unlock(&waits->lock);
}

void waits_end_handle(Waits *waits, uint64_t handle, const uint64_t *owner)
{
    Wait *wait;

    if (atomic_load(&waits->n) == 0) {
        return;
    }
    pthread_mutex_lock(&waits->lock);
    TAILQ_FOREACH(wait, &waits->list, link)
    {
        const PtLock *lock = &wait->request.lock;
        if (lock->handle == handle && (owner == NULL || lock->owner == *owner)) {
            end_wait(wait, -EBADF);
        }
    }
    wake_waiter(waits);
    pthread_mutex_unlock(&waits->lock);
}

bool waits_of_owner(Waits *waits, uint64_t owner, PtLock *ret_lock)
{
    Wait *wait;
    bool is_found = false;

    pthread_mutex_lock(&waits->lock);
    TAILQ_FOREACH(wait, &waits->list, link)
    {
        if (wait->state != WAIT_TAKEN && !wait->is_over && !wait->request.whole &&
            wait->request.lock.owner == owner) {
            *ret_lock = wait->request.lock;
            is_found = true;
            break;
        }
    }
    pthread_mutex_unlock(&waits->lock);
    return is_found;
}

/* ---- whoever ends them ---------------------------------------------------------------
 */

void waits_end_all(Waits *waits, int result)
{
    Wait *wait;

    pthread_mutex_lock(&waits->lock);
    TAILQ_FOREACH(wait, &waits->list, link)
    {
        end_wait(wait, result);
    }
    memset(waits->early, 0, sizeof(waits->early));
    wake_waiter(waits);
    pthread_mutex_unlock(&waits->lock);
}

void waits_settle(Waits *waits, uint32_t queue)
{
    Wait *wait;

    pthread_mutex_lock(&waits->lock);
    waits->is_settled[queue % QUEUES_MAX] = true;
    TAILQ_FOREACH(wait, &waits->list, link)
    {
        if (wait->state != WAIT_TAKEN && wait->queue == queue) {
            end_wait(wait, SETTLED);
        }
    }
    wake_waiter(waits);
    pthread_mutex_unlock(&waits->lock);
}

void waits_open(Waits *waits, uint32_t queue)
{
    pthread_mutex_lock(&waits->lock);
    waits->is_settled[queue % QUEUES_MAX] = false;
    pthread_mutex_unlock(&waits->lock);
}

void waits_stop(Waits *waits)
{
    pthread_mutex_lock(&waits->lock);
    waits->is_stopped = true;
    wake_waiter(waits);
    pthread_mutex_unlock(&waits->lock);
}

/* ---- the waiter ----------------------------------------------------------------------
 */

static Wait *find_due(Waits *waits)
{
    Wait *wait;

    TAILQ_FOREACH(wait, &waits->list, link)
    {
        if (wait->state == WAIT_PARKED && wait->is_due) {
            return wait;
        }
    }
    return NULL;
}

static bool is_any_parked(Waits *waits)
{
    Wait *wait;

    TAILQ_FOREACH(wait, &waits->list, link)
    {
        if (wait->state == WAIT_PARKED) {
            return true;
        }
    }
    return false;
}

static void tick(Waits *waits)
{
    Wait *wait;

    TAILQ_FOREACH(wait, &waits->list, link)
    {
        wait->is_due = true;
    }
    waits->tick_ms = 0;
    waits->pause_ms *= 2;
    if (waits->pause_ms > WAITS_PAUSE_MAX_MS) {
        waits->pause_ms = WAITS_PAUSE_MAX_MS;
    }
}

/* Nobody is due: until somebody is made so, or the next tick if there is anybody. */
static void sleep_on(Waits *waits)
{
    if (!is_any_parked(waits)) {
        waits->tick_ms = 0;
        pthread_cond_wait(&waits->changed, &waits->lock);
        return;
    }
    if (waits->tick_ms == 0) {
        waits->tick_ms = now_ms() + waits->pause_ms;
    }
    const struct timespec until = {
        .tv_sec = waits->tick_ms / 1000,
        .tv_nsec = (waits->tick_ms % 1000) * 1000000,
    };
    (void)pthread_cond_timedwait(&waits->changed, &waits->lock, &until);
}

Wait *waits_next(Waits *waits)
{
    Wait *wait = NULL;

    pthread_mutex_lock(&waits->lock);
    while (!waits->is_stopped) {
        if (waits->tick_ms != 0 && now_ms() >= waits->tick_ms) {
            tick(waits);
        }
        wait = find_due(waits);
        if (wait != NULL) {
            wait->state = WAIT_CLAIMED;
            wait->was_kicked = false;
            break;
        }
        sleep_on(waits);
    }
    pthread_mutex_unlock(&waits->lock);
    return wait;
}

bool waits_is_over(Waits *waits, const Wait *wait)
{
    pthread_mutex_lock(&waits->lock);
    bool is_over = wait->is_over;
    pthread_mutex_unlock(&waits->lock);
    return is_over;
}

bool waits_tried(Waits *waits, Wait *wait, int result)
{
    pthread_mutex_lock(&waits->lock);
    if (result != -EAGAIN) {
        /* What the attempt came to is the truth, whoever would have ended it. */
        wait->is_over = true;
        wait->result = result;
    }
    bool is_over = wait->is_over;
    if (!is_over) {
        wait->state = WAIT_PARKED;
        wait->is_due = wait->was_kicked;
    }
    pthread_mutex_unlock(&waits->lock);
    return is_over;
}

void waits_put_back(Waits *waits, Wait *wait)
{
    pthread_mutex_lock(&waits->lock);
    wait->state = WAIT_PARKED;
    wait->is_due = false;
    pthread_mutex_unlock(&waits->lock);
}

WaitAnswer waits_answer(const Wait *wait)
{
    return (WaitAnswer){&wait->request, wait->queue, wait->head, wait->result};
}

const WaitRequest *waits_request(const Wait *wait)
{
    return &wait->request;
}
