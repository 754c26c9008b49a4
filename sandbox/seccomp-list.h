/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SANDBOX_SECCOMP_LIST_H
#define SANDBOX_SECCOMP_LIST_H

#include <fcntl.h>
#include <seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>

/*
 * What the sealed process may ask of the kernel; everything else meets the action of
 * --seccomp. A row says who needs it: a row that nobody needs goes.
 *
 * Calls of every request carry no argument rule: the kernel then answers from a bitmap
 * and does not run the filter. The rest is let through only as it is used. A call that an
 * architecture does not have is skipped there.
 */

/** enum SeccompAnswer - what becomes of a call. */
typedef enum SeccompAnswer {
    SECCOMP_ALLOW,      /* whatever the arguments */
    SECCOMP_ALLOW_IF,   /* if (argument[index] & mask) == value */
    SECCOMP_ALLOW_SELF, /* the same, and argument[0] is our process id */
    SECCOMP_ABSENT,     /* fails with ENOENT */
} SeccompAnswer;

/** struct SeccompRow - one system call, or one way to use it. */
typedef struct SeccompRow {
    const char *name;
    int call; /* negative: not on this architecture */
    SeccompAnswer answer;
    unsigned int index;
    uint64_t mask;
    uint64_t value;
    const char *needed_by;
} SeccompRow;

/* clang-format off */
#define ROW(call, ...) {#call, SCMP_SYS(call), __VA_ARGS__}
/* clang-format on */
#define ALLOW(call, who) ROW(call, SECCOMP_ALLOW, 0, 0, 0, who)
#define ALLOW_IS(call, i, value, who)                                                    \
    ROW(call, SECCOMP_ALLOW_IF, i, UINT64_MAX, value, who)
#define ALLOW_LACKS(call, i, bits, who) ROW(call, SECCOMP_ALLOW_IF, i, bits, 0, who)
#define ALLOW_SELF(call, i, value, who)                                                  \
    ROW(call, SECCOMP_ALLOW_SELF, i, UINT64_MAX, value, who)
#define ABSENT(call, who) ROW(call, SECCOMP_ABSENT, 0, 0, 0, who)

static const SeccompRow seccomp_list[] = {
    /* Every request */
    ALLOW(futex, "threads"),
    ALLOW(read, "server: signals; vhost: messages"),
    ALLOW(write, "workers: wake-ups; vhost: calls to the guest; log: stderr"),
    ALLOW(close, "everybody"),
    ALLOW(statx, "passthrough: LOOKUP, GETATTR, READDIRPLUS"),
    ALLOW(openat2, "passthrough: LOOKUP, OPEN, CREATE"),
    ALLOW(preadv2, "passthrough: READ"),
    ALLOW(pwritev2, "passthrough: WRITE"),
    ALLOW(getdents64, "passthrough: READDIR"),
#ifdef __NR_epoll_wait
    ALLOW(epoll_wait, "workers: kicks"),
#else
    ALLOW(epoll_pwait, "workers: kicks"),
#endif

    /* Some requests */
    ALLOW(readlinkat, "passthrough: READLINK"),
    ALLOW(symlinkat, "passthrough: SYMLINK"),
    ALLOW(mknodat, "passthrough: MKNOD"),
    ALLOW(mkdirat, "passthrough: MKDIR"),
    ALLOW(unlinkat, "passthrough: UNLINK, RMDIR; socket: its own files at the end"),
    ALLOW(renameat2, "passthrough: RENAME"),
    ALLOW(linkat, "passthrough: LINK"),
    ALLOW(fchmodat, "passthrough: SETATTR"),
    ALLOW(fchmod, "passthrough: SETATTR"),
    ALLOW(fchownat, "passthrough: SETATTR"),
    ALLOW(fchown, "passthrough: SETATTR"),
    ALLOW(utimensat, "passthrough: SETATTR"),
    ALLOW(ftruncate, "passthrough: SETATTR"),
    ALLOW(truncate, "passthrough: SETATTR"),
    ALLOW(fsync, "passthrough: FSYNC, FSYNCDIR"),
    ALLOW(fdatasync, "passthrough: FSYNC"),
    ALLOW(syncfs, "passthrough: SYNCFS"),
    ALLOW(fallocate, "passthrough: FALLOCATE"),
    ALLOW(lseek, "passthrough: LSEEK, READDIR"),
    ALLOW(_llseek, "the same, where the C library has no lseek"),
    ALLOW(fstatfs, "passthrough: STATFS"),
    ALLOW(fstatfs64, "the same, where the C library has no fstatfs"),
    ALLOW(dup, "passthrough: FLUSH"),
    ALLOW(setresuid, "passthrough: the caller's identity"),
    ALLOW(setresgid, "passthrough: the caller's identity"),
    ALLOW(setgroups, "passthrough: the caller's identity"),
    ALLOW(capset, "passthrough: dropping set-id bits"),
    ALLOW(umask, "passthrough: the caller's umask"),
    ALLOW_IS(fcntl, 1, F_GETFL, "passthrough: READ, WRITE; vhost: descriptors received"),
    ALLOW_IS(fcntl, 1, F_SETFL, "passthrough: READ, WRITE; vhost: descriptors received"),
    ALLOW_IS(fcntl, 1, F_DUPFD_CLOEXEC, "passthrough: descriptors"),

    /* The VMM's messages */
    ALLOW(recvmsg, "vhost: messages"),
    ALLOW(sendmsg, "vhost: replies"),
    ALLOW(accept4, "socket: the VMM, and refusing a second one"),
    ALLOW(shutdown, "vhost: ending a connection"),
    ALLOW(epoll_ctl, "workers: queues that start and stop"),
#ifdef __NR_poll
    ALLOW(poll, "server: the loop"),
#else
    ALLOW(ppoll, "server: the loop"),
#endif
    ALLOW(fstat, "vhost: size of memory; the C library's fstat, by its version"),
    ALLOW(newfstatat, "vhost: size of memory; the C library's fstat, by its version"),
    /* A connected socket only: a receiver cannot be chosen. */
    ALLOW_IS(sendto, 4, 0, "log: the system log"),

    /* The C library */
    ALLOW_LACKS(mmap, 2, PROT_EXEC, "vhost: guest memory; malloc"),
    ALLOW_LACKS(mprotect, 2, PROT_EXEC, "malloc"),
    ALLOW(munmap, "vhost: guest memory; malloc; threads that end"),
    ALLOW(mremap, "malloc"),
    ALLOW(brk, "malloc"),
    ALLOW(madvise, "vhost: guest memory stays out of dumps; malloc; threads that end"),
    ALLOW_IS(sched_getaffinity, 0, 0, "malloc: how many arenas"),
    ALLOW(getrandom, "malloc"),
    ALLOW(clock_gettime, "time, where there is no vDSO"),
    ALLOW(restart_syscall, "the kernel: waits that were stopped and continued"),
    ALLOW(rt_sigprocmask, "threads that end; abort"),
    ALLOW(rt_sigreturn, "signal handlers"),
    ALLOW(sigreturn, "signal handlers, where it is so called"),
    ALLOW(exit, "threads that end"),
    ALLOW(exit_group, "the end"),
    ALLOW_IS(rt_sigaction, 0, SIGABRT, "abort"),
    ALLOW_IS(rt_sigaction, 0, SIGBUS, "vhost: guest memory that went away, at the end"),
    ALLOW(getpid, "abort; log: our id"),
    ALLOW(gettid, "abort; raise"),
    ALLOW_SELF(tgkill, 2, SIGABRT, "abort"),
    ALLOW_SELF(tgkill, 2, SIGBUS, "vhost: a SIGBUS that somebody sent"),
    ALLOW_IS(writev, 0, 2, "the C library's last words on stderr"),

    /* No file exists for a library that looks for one: ours are opened with openat2. */
    ABSENT(open, "libraries"),
    ABSENT(openat, "libraries"),
    ABSENT(creat, "libraries"),
};

#endif
