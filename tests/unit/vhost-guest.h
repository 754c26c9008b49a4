/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_VHOST_GUEST_H
#define TESTS_UNIT_VHOST_GUEST_H

#include <dirent.h>
#include <glib.h>
#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * A guest in the test's own process: memory in a memfd and one split ring in it, driven
 * as a guest drives it. All ring accesses are atomic, as those under test are.
 */

#define GUEST_SIZE (1u << 20)
#define GUEST_GPA 0x40000000ull
#define GUEST_UVA 0x7f1200000000ull
#define GUEST_DESC 0x0000u
#define GUEST_AVAIL 0x4000u
#define GUEST_USED 0x8000u
#define GUEST_DATA 0x10000u /* the test's, from here on */
#define GUEST_QUEUE 64u

typedef struct Guest {
    int fd;
    uint8_t *memory;
    uint32_t queue_size;
    uint16_t offered; /* avail index */
    uint16_t reaped;  /* used index seen */
    bool packed;      /* both are places in the ring, with the wrap counter in bit 15 */
} Guest;

static inline void guest_init(Guest *guest, uint32_t queue_size)
{
    guest->fd = memfd_create("guest", MFD_CLOEXEC);
    g_assert_cmpint(ftruncate(guest->fd, GUEST_SIZE), ==, 0);
    guest->memory =
        mmap(NULL, GUEST_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, guest->fd, 0);
    g_assert_true(guest->memory != MAP_FAILED);
    guest->queue_size = queue_size;
    guest->offered = 0;
    guest->reaped = 0;
    guest->packed = false;
}

static inline void guest_clear(Guest *guest)
{
    munmap(guest->memory, GUEST_SIZE);
    close(guest->fd);
}

static inline void guest_store16(Guest *guest, uint32_t at, uint16_t value)
{
    __atomic_store_n((uint16_t *)(void *)(guest->memory + at), value, __ATOMIC_SEQ_CST);
}

static inline uint16_t guest_load16(Guest *guest, uint32_t at)
{
    return __atomic_load_n((uint16_t *)(void *)(guest->memory + at), __ATOMIC_SEQ_CST);
}

static inline uint32_t guest_load32(Guest *guest, uint32_t at)
{
    return __atomic_load_n((uint32_t *)(void *)(guest->memory + at), __ATOMIC_SEQ_CST);
}

typedef struct GuestDesc {
    uint64_t gpa;
    uint32_t length;
    uint16_t flags;
    uint16_t next;
} GuestDesc;

/* Write descriptor @i of the table at @table (an offset in memory). */
static inline void guest_desc(Guest *guest, uint32_t table, uint32_t i, GuestDesc desc)
{
    uint64_t *words = (uint64_t *)(void *)(guest->memory + table + i * 16);
    uint64_t second =
        desc.length | (uint64_t)desc.flags << 32 | (uint64_t)desc.next << 48;

    __atomic_store_n(&words[0], desc.gpa, __ATOMIC_RELAXED);
    __atomic_store_n(&words[1], second, __ATOMIC_RELAXED);
}

/* Offer a chain and say so. */
static inline void guest_offer(Guest *guest, uint16_t head)
{
    guest_store16(guest, GUEST_AVAIL + 4 + 2 * (guest->offered % guest->queue_size),
                  head);
    guest->offered++;
    guest_store16(guest, GUEST_AVAIL + 2, guest->offered);
}

static inline uint16_t guest_used_index(Guest *guest)
{
    return guest_load16(guest, GUEST_USED + 2);
}

/* The next used entry. Return: whether there is one. */
static inline gboolean guest_reap(Guest *guest, uint32_t *ret_id, uint32_t *ret_length)
{
    uint32_t at = GUEST_USED + 4 + 8 * (guest->reaped % guest->queue_size);

    if (guest->reaped == guest_used_index(guest)) {
        return FALSE;
    }
    *ret_id = guest_load32(guest, at);
    *ret_length = guest_load32(guest, at + 4);
    guest->reaped++;
    return TRUE;
}

static inline void guest_set_used_event(Guest *guest, uint16_t index)
{
    guest_store16(guest, GUEST_AVAIL + 4 + 2 * guest->queue_size, index);
}

static inline uint16_t guest_avail_event(Guest *guest)
{
    return guest_load16(guest, GUEST_USED + 4 + 8 * guest->queue_size);
}

/* How many descriptors this process has open. */
static inline unsigned int count_fds(void)
{
    unsigned int n = 0;
    DIR *dir = opendir("/proc/self/fd");

    while (readdir(dir) != NULL) {
        n++;
    }
    closedir(dir);
    return n;
}

/* How often files of this name are mapped in this process. */
static inline unsigned int count_maps(const char *name)
{
    unsigned int n = 0;
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "re");

    while (fgets(line, sizeof(line), maps) != NULL) {
        n += strstr(line, name) != NULL ? 1 : 0;
    }
    fclose(maps);
    return n;
}

static inline gboolean is_open(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0;
}

#endif
