/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SIGBUS on guest memory. The handler may run in any thread, at any access to guest
 * memory, with any of our locks held: it looks through an array of atomics, replaces one
 * page by zeros with one mmap(), and returns to the access that failed. Nothing is
 * allocated, locked or logged.
 *
 * Only the page that was touched is replaced, so that file data is never read from zeros
 * instead: system calls that meet the hole get EFAULT from the kernel and do not come
 * here. As rings stop at the first hit, few pages are ever replaced.
 *
 * A slot is emptied before its mapping is unmapped, and the control thread unmaps only
 * what no request uses, so the handler never maps over somebody else's addresses.
 */
#include "virtiofsd/vhost/guard.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>

/*
 * ThreadSanitizer holds a lock of its own while it makes an atomic store for its program.
 * Where that is the access that failed, an atomic of the handler's, were it watched too,
 * would wait for that lock for ever.
 */
#if defined(__has_attribute)
#if __has_attribute(disable_sanitizer_instrumentation)
#define IN_HANDLER __attribute__((disable_sanitizer_instrumentation))
#endif
#endif
#ifndef IN_HANDLER
#define IN_HANDLER
#endif

typedef struct Slot {
    _Atomic uintptr_t base; /* 0: free */
    _Atomic size_t length;
    _Atomic size_t granule;
} Slot;

static Slot slots[VU_GUARD_SLOTS];
_Atomic bool vu_guard_hit;

/* Return: whether the access can be repeated. */
IN_HANDLER static bool replace_page(uintptr_t address)
{
    for (size_t i = 0; i < VU_GUARD_SLOTS; i++) {
        uintptr_t base = atomic_load(&slots[i].base);
        size_t length = atomic_load(&slots[i].length);
        size_t granule = atomic_load(&slots[i].granule);
        if (base == 0 || address < base || address - base >= length) {
            continue;
        }
        uintptr_t page = address - (address - base) % granule;
        void *zeros =
            mmap((void *)page, granule, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
        atomic_store(&vu_guard_hit, true);
        return zeros != MAP_FAILED;
    }
    return false;
}

IN_HANDLER static void on_sigbus(int number, siginfo_t *info, void *context)
{
    int saved = errno;
    bool sent = info->si_code <= 0; /* by kill(2), not by an access */

    if (sent || !replace_page((uintptr_t)info->si_addr)) {
        (void)signal(number, SIG_DFL);
        if (sent) {
            (void)raise(number);
        } /* else the access is repeated, and fatal this time */
    }
    errno = saved;
}

int vu_guard_install(void)
{
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};

    sigemptyset(&action.sa_mask);
    return sigaction(SIGBUS, &action, NULL) < 0 ? -errno : 0;
}

int vu_guard_add(void *base, size_t length, size_t granule)
{
    for (int i = 0; i < VU_GUARD_SLOTS; i++) {
        if (atomic_load(&slots[i].base) == 0) {
            atomic_store(&slots[i].length, length);
            atomic_store(&slots[i].granule, granule);
            atomic_store(&slots[i].base, (uintptr_t)base);
            return i;
        }
    }
    return -ENOSPC;
}

void vu_guard_remove(int slot)
{
    atomic_store(&slots[slot].base, 0);
}

void vu_guard_clear(void)
{
    atomic_store(&vu_guard_hit, false);
}
