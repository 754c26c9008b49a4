/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into a daemon that runs under valgrind, which does not know openat2(2): the
 * file is opened by openat(2), which refuses less.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ARGUMENTS = 6 };

typedef long (*SyscallFunction)(long number, ...);

static long open_plainly(int dir_fd, const char *path, const struct open_how *how)
{
    if (how == NULL) {
        errno = EINVAL; /* is there such a call? */
        return -1;
    }
    return openat(dir_fd, path, (int)how->flags, (mode_t)how->mode);
}

long syscall(long number, ...)
{
    static SyscallFunction next;
    long a[ARGUMENTS];
    va_list arguments;

    va_start(arguments, number);
    for (int i = 0; i < ARGUMENTS; i++) {
        a[i] = va_arg(arguments, long);
    }
    va_end(arguments);
    if (number == SYS_openat2) {
        return open_plainly((int)a[0], (const char *)a[1], (const void *)a[2]);
    }
    if (next == NULL) {
        next = (SyscallFunction)dlsym(RTLD_NEXT, "syscall");
    }
    return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
