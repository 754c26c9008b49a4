/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_VHOST_WINDOW_H
#define TESTS_UNIT_VHOST_WINDOW_H

#include <fcntl.h>
#include <glib.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "virtiofsd/vhost/backend.h"
#include "virtiofsd/vhost/window.h"

/*
 * The VMM's end of the back-end's channel, in a thread: it maps nothing, but knows what
 * would be mapped, and is as strict as QEMU 11 is frail: what QEMU answers with an error,
 * or dies of, fails the test, unless it is told to refuse.
 */

#define PAGE VU_WINDOW_PAGE
#define MAPPER_PAGES 256u

/** enum Mood - how it answers. */
typedef enum Mood {
    MOOD_HONEST,
    MOOD_REFUSES,
    MOOD_SILENT,
    MOOD_SLOW,       /* 100 ms */
    MOOD_BYTES,      /* a byte at a time */
    MOOD_TWICE,      /* one answer too many */
    MOOD_FLAGS,      /* which no answer has */
    MOOD_SIZE,       /* the same */
    MOOD_NUMBER,     /* of another request */
    MOOD_DESCRIPTOR, /* beside the answer */
    MOOD_HALF,       /* an answer, then it leaves */
    MOOD_LEAVES,
} Mood;

typedef struct Mapped {
    bool is_mapped;
    ino_t ino;
    uint64_t file_offset;
} Mapped;

typedef struct Mapper {
    pthread_t thread;
    int socket; /* the VMM's end */
    int peer;   /* the daemon's end, until it is taken */
    _Atomic Mood mood;
    _Atomic unsigned int n_maps;
    _Atomic unsigned int n_unmaps;
    _Atomic unsigned int n_live;
    _Atomic unsigned int n_most;
    _Atomic bool may_be_asked; /* rings run */
    pthread_mutex_t lock;
    Mapped pages[MAPPER_PAGES];
} Mapper;

typedef struct MapperMessage {
    struct vu_msg_header header;
    struct vu_shmem_map map;
} MapperMessage;

static inline bool mapper_receive(const Mapper *mapper, MapperMessage *message, int *fd)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(4 * sizeof(int))];
    } control = {0};
    struct iovec iov[] = {{&message->header, sizeof(message->header)},
                          {&message->map, sizeof(message->map)}};
    struct msghdr msg = {.msg_iov = iov,
                         .msg_iovlen = 2,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof(control.bytes)};
    ssize_t n = recvmsg(mapper->socket, &msg, MSG_CMSG_CLOEXEC);

    if (n <= 0) {
        return false;
    }
    g_assert_cmpint(n, ==, sizeof(message->header) + sizeof(message->map));
    *fd = -1;
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    if (c != NULL) {
        g_assert_cmpuint(c->cmsg_len, ==, CMSG_LEN(sizeof(int)));
        memcpy(fd, CMSG_DATA(c), sizeof(int));
    }
    return true;
}

/* What QEMU fails on, or what makes it fail later. */
static inline void mapper_judge(const MapperMessage *message, int fd)
{
    const struct vu_shmem_map *map = &message->map;
    static const uint8_t zeros[7];
    struct stat st;

    g_assert_cmpuint(message->header.flags, ==, VU_FLAG_VERSION | VU_FLAG_NEED_REPLY);
    g_assert_cmpuint(message->header.size, ==, sizeof(*map));
    g_assert_cmpuint(map->id, ==, 0);
    g_assert_cmpint(memcmp(map->padding, zeros, sizeof(zeros)), ==, 0);
    g_assert_cmpuint(map->length, ==, PAGE);
    g_assert_cmpuint(map->offset % PAGE, ==, 0);
    g_assert_cmpuint(map->file_offset % PAGE, ==, 0);
    g_assert_cmpuint(map->offset / PAGE, <, MAPPER_PAGES);
    if (message->header.request == VU_BACKEND_SHMEM_UNMAP) {
        g_assert_cmpint(fd, ==, -1);
        return;
    }
    g_assert_cmpuint(message->header.request, ==, VU_BACKEND_SHMEM_MAP);
    g_assert_cmpuint(map->flags, ==, VU_SHMEM_WRITABLE);
    g_assert_cmpint(fcntl(fd, F_GETFL) & (O_ACCMODE | O_PATH), ==, O_RDWR);
    g_assert_cmpint(fstat(fd, &st), ==, 0);
    g_assert_true(S_ISREG(st.st_mode));
    g_assert_cmpint(st.st_size, >=, (off_t)(map->file_offset + PAGE));
}

/* Return: whether it is done: nothing overlaps, and only what is there goes away. */
static inline bool mapper_obey(Mapper *mapper, const MapperMessage *message, int fd)
{
    Mapped *page = &mapper->pages[message->map.offset / PAGE];
    bool maps = message->header.request == VU_BACKEND_SHMEM_MAP;
    struct stat st = {0};

    pthread_mutex_lock(&mapper->lock);
    bool fits = page->is_mapped != maps;
    if (fits && maps) {
        (void)fstat(fd, &st);
        mapper->n_live++;
        mapper->n_most = MAX(mapper->n_most, mapper->n_live);
    } else if (fits) {
        mapper->n_live--;
    }
    if (fits) {
        *page = (Mapped){maps, st.st_ino, message->map.file_offset};
    }
    pthread_mutex_unlock(&mapper->lock);
    atomic_fetch_add(maps ? &mapper->n_maps : &mapper->n_unmaps, 1);
    return fits;
}

static inline void mapper_send(const Mapper *mapper, const struct vu_backend_reply *reply,
                               int fd)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_level = SOL_SOCKET,
                            .cmsg_type = SCM_RIGHTS,
                            .cmsg_len = CMSG_LEN(sizeof(int))}};
    struct iovec iov = {(void *)(uintptr_t)reply, sizeof(*reply)};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        memcpy(CMSG_DATA(&control.header), &fd, sizeof(int));
        msg.msg_control = control.bytes;
        msg.msg_controllen = sizeof(control.bytes);
    }
    (void)sendmsg(mapper->socket, &msg, MSG_NOSIGNAL);
}

static inline void mapper_answer(Mapper *mapper, uint32_t request, bool done)
{
    Mood mood = mapper->mood;
    struct vu_backend_reply reply = {
        .header = {request + (mood == MOOD_NUMBER ? 1 : 0),
                   VU_FLAG_VERSION | VU_FLAG_REPLY |
                       (mood == MOOD_FLAGS ? VU_FLAG_NEED_REPLY : 0),
                   mood == MOOD_SIZE ? 7 : 8},
        .value = {done && mood != MOOD_REFUSES ? 0 : 1}};

    if (mood == MOOD_SLOW) {
        g_usleep(100000);
    }
    if (mood == MOOD_BYTES || mood == MOOD_HALF) {
        size_t n = sizeof(reply) - (mood == MOOD_HALF ? 3 : 0);
        for (size_t i = 0; i < n; i++) {
            (void)send(mapper->socket, (char *)&reply + i, 1, MSG_NOSIGNAL);
            g_usleep(500);
        }
    } else if (mood != MOOD_SILENT && mood != MOOD_LEAVES) {
        mapper_send(mapper, &reply, mood == MOOD_DESCRIPTOR ? mapper->socket : -1);
    }
    if (mood == MOOD_TWICE) {
        mapper_send(mapper, &reply, -1);
    }
    if (mood == MOOD_HALF || mood == MOOD_LEAVES) {
        (void)shutdown(mapper->socket, SHUT_RDWR);
    }
}

static inline void *mapper_main(void *opaque)
{
    Mapper *mapper = opaque;
    MapperMessage message;
    int fd;

    while (mapper_receive(mapper, &message, &fd)) {
        g_assert_true(mapper->may_be_asked);
        mapper_judge(&message, fd);
        bool done = mapper->mood != MOOD_REFUSES && mapper_obey(mapper, &message, fd);
        mapper_answer(mapper, message.header.request, done);
        if (fd >= 0) {
            close(fd);
        }
    }
    return NULL;
}

static inline void mapper_init(Mapper *mapper)
{
    int pair[2];

    memset(mapper, 0, sizeof(*mapper));
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    mapper->socket = pair[0];
    mapper->peer = pair[1];
    mapper->may_be_asked = true;
    pthread_mutex_init(&mapper->lock, NULL);
    g_assert_cmpint(pthread_create(&mapper->thread, NULL, mapper_main, mapper), ==, 0);
}

static inline void mapper_clear(Mapper *mapper)
{
    (void)shutdown(mapper->socket, SHUT_RDWR);
    pthread_join(mapper->thread, NULL);
    close(mapper->socket);
    pthread_mutex_destroy(&mapper->lock);
}

/* How often the VMM was asked since the last look: maps, and unmaps. */
static inline void mapper_expect(Mapper *mapper, unsigned int n_maps,
                                 unsigned int n_unmaps)
{
    g_assert_cmpuint(atomic_exchange(&mapper->n_maps, 0), ==, n_maps);
    g_assert_cmpuint(atomic_exchange(&mapper->n_unmaps, 0), ==, n_unmaps);
}

/* A file of this size. */
static inline int mapper_file(uint64_t size)
{
    int fd = memfd_create("mapped", MFD_CLOEXEC);

    g_assert_cmpint(ftruncate(fd, (off_t)size), ==, 0);
    return fd;
}

#endif
