/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into a daemon: memory that runs out when a test says so. The file that
 * $FAILING_MALLOC names is mapped when the process starts, and is how the test says it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* glibc's own names for what is replaced here. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

/* The file: the test writes the first two, and reads the others. */
typedef struct Control {
    _Atomic uint32_t fail_at; /* the how-many-eth allocation from now fails; 0: none */
    _Atomic uint32_t fail_on; /* and so do all that follow */
    _Atomic uint32_t count;   /* allocations since the test cleared this */
    _Atomic uint32_t failed;
} Control;

static Control idle;
static Control *control = &idle;

__attribute__((constructor)) static void map_control(void)
{
    const char *path = getenv("FAILING_MALLOC");
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;

    if (fd >= 0) {
        void *mapped =
            mmap(NULL, sizeof(Control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        (void)close(fd); /* the mapping stays */
        control = mapped != MAP_FAILED ? mapped : control;
    }
}

static int is_to_fail(void)
{
    uint32_t number = atomic_fetch_add(&control->count, 1) + 1;
    uint32_t fail_at = atomic_load(&control->fail_at);

    if (fail_at == 0 || number < fail_at ||
        (number > fail_at && atomic_load(&control->fail_on) == 0)) {
        return 0;
    }
    atomic_fetch_add(&control->failed, 1);
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size)
{
    return is_to_fail() ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    return is_to_fail() ? NULL : __libc_calloc(n, size);
}

void *realloc(void *old, size_t size)
{
    return is_to_fail() ? NULL : __libc_realloc(old, size);
}

void *memalign(size_t alignment, size_t size);
void *memalign(size_t alignment, size_t size)
{
    return is_to_fail() ? NULL : __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

int posix_memalign(void **ret, size_t alignment, size_t size)
{
    *ret = memalign(alignment, size);
    return *ret == NULL ? ENOMEM : 0;
}
