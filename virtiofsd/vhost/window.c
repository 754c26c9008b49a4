/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The DAX window, as a table: for each of its pages, which part of which file the VMM has
 * there. The worker that has the back-end's channel changes it, so that it never differs
 * from what the VMM was told; the table can have no more than size / 2 MiB mappings, and
 * so neither can the VMM.
 *
 * QEMU (11.1) is asked for nothing that makes it fail, or harms a file: see check() and
 * covers(). It says that a file is mapped before it is, and puts the mapping in place
 * right after, which it shows by adding it to our memory (ADD_MEM_REG). Until then the
 * guest reads zeros there, so the guest is answered only then. A VMM that never adds what
 * it maps is waited for once.
 *
 * Mappings outlive a stop of the rings, for a guest goes on with them when its VMM does.
 * If the guest was reset meanwhile, the VMM has dropped them; then an INIT comes first,
 * and whatever the table still has is unmapped, in vain.
 */
#include "virtiofsd/vhost/window.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

/* What is at a page of the window. */
typedef enum PageState {
    PAGE_FREE,
    PAGE_UNSURE, /* what the page says, or nothing: the VMM has not answered (yet) */
    PAGE_MAPPED,
} PageState;

typedef struct Page {
    PageState state;
    bool echoed; /* the VMM has added it to our memory */
    uint64_t dev;
    uint64_t ino;
    uint64_t file_offset;
} Page;

/* Does the VMM add what it maps to our memory? */
typedef enum Echo {
    ECHO_UNKNOWN,
    ECHO_NEVER,
    ECHO_ALWAYS,
} Echo;

struct VuWindow {
    VuBackend *backend; /* its lock is the window's, too */
    VuWindowProtocol protocol;
    uint64_t size;
    Echo echo;    /* under the lock */
    Page pages[]; /* written under the lock, by who has the channel, or when nobody can */
};

/* What is known of a VMM that has mapped nothing yet. */
static Echo first_echo(const VuWindow *window)
{
    return vu_window_rules(window)->adds_memory ? ECHO_UNKNOWN : ECHO_NEVER;
}

VuWindow *vu_window_new(uint64_t size, VuWindowProtocol protocol, VuBackend *backend)
{
    size_t n = (size_t)(size / VU_WINDOW_PAGE);
    VuWindow *window = calloc(1, sizeof(*window) + n * sizeof(Page));

    if (window != NULL) {
        window->backend = backend;
        window->protocol = protocol;
        window->size = size;
        window->echo = first_echo(window);
    }
    return window;
}

void vu_window_free(VuWindow *window)
{
    free(window);
}

uint64_t vu_window_size(const VuWindow *window)
{
    return window->size;
}

const VuWindowRules *vu_window_rules(const VuWindow *window)
{
    return vu_window_protocol_rules(window->protocol);
}

static size_t n_pages(const VuWindow *window)
{
    return (size_t)(window->size / VU_WINDOW_PAGE);
}

static void lock(VuWindow *window)
{
    pthread_mutex_lock(&window->backend->lock);
}

static void unlock(VuWindow *window)
{
    pthread_mutex_unlock(&window->backend->lock);
}

bool vu_window_is_ready(VuWindow *window)
{
    lock(window);
    bool is_ready = window->backend->socket >= 0 && window->backend->is_agreed;
    unlock(window);
    return is_ready;
}

/* ---- the table ----------------------------------------------------------------------
 */

static void set_page(VuWindow *window, size_t i, Page page)
{
    lock(window);
    window->pages[i] = page;
    unlock(window);
}

static void set_state(VuWindow *window, size_t i, PageState state)
{
    lock(window);
    window->pages[i].state = state;
    unlock(window);
}

static bool is_same(const Page *a, const Page *b)
{
    return a->dev == b->dev && a->ino == b->ino && a->file_offset == b->file_offset;
}

static uint64_t device_of(const struct statx *stx)
{
    return (uint64_t)stx->stx_dev_major << 32 | stx->stx_dev_minor;
}

/* Has the file all that is to be mapped? QEMU makes an empty one larger, fails where one
 * is too small, and is killed when what it has mapped goes away. */
static int covers(const VuWindowMap *map, Page *ret_page)
{
    struct statx stx;

    if (statx(map->fd, "", AT_EMPTY_PATH, STATX_TYPE | STATX_SIZE | STATX_INO, &stx) <
        0) {
        return -errno;
    }
    if (!S_ISREG(stx.stx_mode) || stx.stx_size < VU_WINDOW_PAGE ||
        map->file_offset > stx.stx_size - VU_WINDOW_PAGE) {
        return -ENXIO;
    }
    *ret_page = (Page){
        .dev = device_of(&stx), .ino = stx.stx_ino, .file_offset = map->file_offset};
    return 0;
}

static bool is_in(const VuWindow *window, uint64_t offset, uint64_t length)
{
    return offset % VU_WINDOW_PAGE == 0 && length % VU_WINDOW_PAGE == 0 && length > 0 &&
           length <= window->size && offset <= window->size - length;
}

static int check(const VuWindow *window, const VuWindowMap *map)
{
    bool is_aligned = map->file_offset % VU_WINDOW_PAGE == 0 &&
                      map->file_offset <= (uint64_t)INT64_MAX - VU_WINDOW_PAGE;

    return is_aligned && is_in(window, map->offset, VU_WINDOW_PAGE) ? 0 : -EINVAL;
}

/* ---- one page: who calls has the channel ------------------------------------------- */

/* @fd: to map; -1 to unmap. */
static int ask(VuWindow *window, size_t i, int fd, bool *ret_unsure)
{
    const VuWindowPiece piece = {
        .maps = fd >= 0,
        .offset = i * VU_WINDOW_PAGE,
        .file_offset = window->pages[i].file_offset,
        .length = VU_WINDOW_PAGE,
        .fd = fd,
    };
    VuBackendRequest request;

    vu_window_protocol_encode(window->protocol, &piece, &request);
    return vu_backend_ask(window->backend, &request, ret_unsure);
}

/* Return: 0 when nothing is mapped there any more: a VMM that refuses has nothing there,
 * or will refuse to map. */
static int unmap_page(VuWindow *window, size_t i)
{
    bool unsure = false;

    if (window->pages[i].state == PAGE_FREE) {
        return 0;
    }
    int result = ask(window, i, -1, &unsure);
    if (result == -EINTR || unsure || window->backend->socket < 0) {
        set_state(window, i, PAGE_UNSURE);
        return result;
    }
    set_state(window, i, PAGE_FREE);
    return 0;
}

static void await_echo(VuWindow *window, size_t i)
{
    VuBackend *backend = window->backend;
    struct timespec until;
    int late = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += VU_WINDOW_ECHO_MS / 1000;
    lock(window);
    while (window->echo != ECHO_NEVER && !window->pages[i].echoed && !backend->gives_up &&
           late == 0) {
        late = pthread_cond_timedwait(&backend->changed, &backend->lock, &until);
    }
    if (window->pages[i].echoed) {
        window->echo = ECHO_ALWAYS;
    } else if (late != 0 && window->echo == ECHO_UNKNOWN) {
        window->echo = ECHO_NEVER;
    }
    unlock(window);
}

static int map_page(VuWindow *window, size_t i, const VuWindowMap *map, Page page)
{
    Page now;
    bool unsure = false;

    page.state = PAGE_UNSURE; /* and known, should the VMM add it to our memory */
    set_page(window, i, page);
    int result = ask(window, i, map->fd, &unsure);
    if (result < 0) {
        if (!unsure) {
            set_state(window, i, PAGE_FREE);
        }
        return result;
    }
    result = covers(map, &now);
    if (result < 0) {
        (void)unmap_page(window, i); /* if not now, then before the next mapping */
        return result;
    }
    set_state(window, i, PAGE_MAPPED);
    await_echo(window, i);
    return 0;
}

static int replace(VuWindow *window, const VuWindowMap *map, const Page *wanted)
{
    size_t i = (size_t)(map->offset / VU_WINDOW_PAGE);
    const Page *present = &window->pages[i];

    if (present->state == PAGE_MAPPED && is_same(present, wanted)) {
        return 0;
    }
    int result = unmap_page(window, i);
    return result < 0 ? result : map_page(window, i, map, *wanted);
}

/* ---- what workers do ----------------------------------------------------------------
 */

int vu_window_map(VuWindow *window, const VuWindowMap *map)
{
    Page wanted;
    int result = check(window, map);

    if (result == 0) {
        result = covers(map, &wanted);
    }
    if (result == 0) {
        result = vu_backend_enter(window->backend);
    }
    if (result < 0) {
        return result;
    }
    result = replace(window, map, &wanted);
    vu_backend_leave(window->backend);
    return result;
}

int vu_window_unmap(VuWindow *window, uint64_t offset, uint64_t length)
{
    if (!is_in(window, offset, length)) {
        return -EINVAL;
    }
    int result = vu_backend_enter(window->backend);
    if (result < 0) {
        return result;
    }
    size_t end = (size_t)((offset + length) / VU_WINDOW_PAGE);
    for (size_t i = (size_t)(offset / VU_WINDOW_PAGE); i < end && result == 0; i++) {
        result = unmap_page(window, i);
    }
    vu_backend_leave(window->backend);
    return result;
}

/* Return: whether there are any. */
static bool doubt_all(VuWindow *window)
{
    bool found = false;

    lock(window);
    for (size_t i = 0; i < n_pages(window); i++) {
        if (window->pages[i].state != PAGE_FREE) {
            window->pages[i].state = PAGE_UNSURE;
            found = true;
        }
    }
    unlock(window);
    return found;
}

void vu_window_unmap_all(VuWindow *window)
{
    /* In doubt before they are waited for: that may fail. */
    if (!doubt_all(window) || vu_backend_enter(window->backend) < 0) {
        return;
    }
    int result = 0;
    for (size_t i = 0; i < n_pages(window) && result == 0; i++) {
        result = unmap_page(window, i);
    }
    vu_backend_leave(window->backend);
}

/* ---- what the control thread does ---------------------------------------------------
 */

void vu_window_forget(VuWindow *window, bool anew)
{
    if (!anew && vu_window_rules(window)->outlives_reset) {
        (void)doubt_all(window);
        return;
    }
    lock(window);
    for (size_t i = 0; i < n_pages(window); i++) {
        window->pages[i] = (Page){.state = PAGE_FREE};
    }
    if (anew) {
        window->echo = first_echo(window);
    }
    unlock(window);
}

bool vu_window_has(VuWindow *window, int fd, uint64_t file_offset, uint64_t size)
{
    struct statx stx;
    bool found = false;

    if (statx(fd, "", AT_EMPTY_PATH, STATX_INO, &stx) < 0) {
        return false; /* whoever maps it says so */
    }
    lock(window);
    for (size_t i = 0; i < n_pages(window); i++) {
        Page *page = &window->pages[i];
        if (page->state == PAGE_FREE || page->dev != device_of(&stx) ||
            page->ino != stx.stx_ino) {
            continue;
        }
        found = true;
        if (page->file_offset == file_offset && size == VU_WINDOW_PAGE) {
            page->echoed = true;
        }
    }
    pthread_cond_broadcast(&window->backend->changed);
    unlock(window);
    return found;
}
