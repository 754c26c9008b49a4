/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SANDBOX_SECCOMP_LIST_H
#define SANDBOX_SECCOMP_LIST_H

#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "sandbox/sanitizer.h"
#include "sandbox/seccomp-row.h"
#ifndef __NR_cachestat /* the same number everywhere; headers before 6.5 lack it */
#define __NR_cachestat 451
#endif

/*
 * What the sealed process may ask of the kernel; everything else meets the action of
 * --seccomp. A row says who needs it: a row that nobody needs goes. test_calls.py sees
 * them all used, but for those that name glibc, musl, the kernel or the machine first.
 *
 * Calls of every request carry no argument rule: the kernel answers those from a bitmap.
 * The rest is let through only as it is used. What an architecture lacks is skipped.
 */

static const SeccompRow seccomp_list[] = {
    /* Every request */
    ALLOW(futex, "threads"),
    ALLOW(read, "server: signals; vhost: messages"),
    ALLOW(write, "workers: wake-ups; vhost: calls to the guest; log: stderr"),
    ALLOW(close, "everybody"),
    ALLOW(statx, "passthrough: LOOKUP, GETATTR; vhost: what a descriptor is"),
    ALLOW(openat2, "passthrough: LOOKUP, OPEN, CREATE"),
    ALLOW(preadv2, "passthrough: READ"),
    ALLOW(pwritev2, "passthrough: WRITE"),
    ALLOW(getdents64, "passthrough: READDIR"),
#ifdef __NR_epoll_wait
    ALLOW(epoll_wait, "workers: kicks"),
#else
    ALLOW(epoll_pwait, "workers: kicks"),
#endif
    ALLOW(timerfd_settime, "workers: relief of one that is kept"),
    ALLOW(timerfd_settime64, "machine: the same, of 32 bits"),

    /* Some requests */
    ALLOW(readlinkat, "passthrough: READLINK"),
    ALLOW(symlinkat, "passthrough: SYMLINK"),
    ALLOW(mknodat, "passthrough: MKNOD"),
    ALLOW(mkdirat, "passthrough: MKDIR"),
    ALLOW(unlinkat, "passthrough: UNLINK, RMDIR; socket: its own files at the end"),
    ALLOW(renameat2, "passthrough: RENAME"),
    ALLOW(linkat, "passthrough: LINK"),
    ALLOW(name_to_handle_at, "passthrough: LOOKUP on network and FUSE file systems"),
    ALLOW(faccessat2, "passthrough: why something was refused"),
    ALLOW(fchmodat, "passthrough: SETATTR, by descriptor number"),
    ALLOW(fchmod, "passthrough: SETATTR of an open file"),
    ALLOW(fchownat, "passthrough: SETATTR"),
    ALLOW(utimensat, "passthrough: SETATTR"),
    ALLOW(ftruncate, "passthrough: SETATTR of an open file"),
    ALLOW(truncate, "passthrough: SETATTR, by descriptor number"),
    ALLOW(fsync, "passthrough: FSYNC, FSYNCDIR"),
    ALLOW(fdatasync, "passthrough: FSYNC"),
    ALLOW_IS(copy_file_range, 5, 0, "passthrough: COPY_FILE_RANGE"),
    ALLOW_IS(ioctl, 1, FS_IOC_GETFLAGS, "passthrough: IOCTL"),
    ALLOW_IS(ioctl, 1, FS_IOC_SETFLAGS, "passthrough: IOCTL"),
    ALLOW_IS(ioctl, 1, FS_IOC_FSGETXATTR, "passthrough: IOCTL"),
    ALLOW_IS(ioctl, 1, FS_IOC_FSSETXATTR, "passthrough: IOCTL"),
    ALLOW_IS(ioctl, 1, FS_IOC_FIEMAP, "passthrough: OPEN, has it been written back"),
    ALLOW(cachestat, "passthrough: OPEN, has it been written back"),
    ALLOW(syncfs, "passthrough: SYNCFS"),
    ALLOW(fallocate, "passthrough: FALLOCATE"),
    ALLOW(lseek, "passthrough: LSEEK, READDIR"),
    ALLOW(_llseek, "machine: the same, of 32 bits"),
    ALLOW(fstatfs, "passthrough: STATFS, new mounts; vhost: page size of memory"),
    ALLOW(fstatfs64, "machine: the same, of 32 bits"),
    ALLOW(setresuid, "passthrough: the caller's identity"),
    ALLOW(setresgid, "passthrough: the caller's identity"),
    ALLOW(setgroups, "passthrough: the caller's identity"),
    ALLOW(capset, "passthrough: dropping set-id bits"),
    ALLOW(umask, "passthrough: the caller's umask"),
    ALLOW(getxattr, "passthrough: GETXATTR, by descriptor number"),
    ALLOW(setxattr, "passthrough: SETXATTR and labels, by descriptor number"),
    ALLOW(listxattr, "passthrough: LISTXATTR, by descriptor number"),
    ALLOW(removexattr, "passthrough: REMOVEXATTR and file capabilities, by number"),
    ALLOW_IS(fcntl, 1, F_DUPFD_CLOEXEC, "passthrough: FLUSH"),
    ALLOW_IS(fcntl, 1, F_OFD_SETLK, "passthrough: SETLK, SETLKW"),
    ALLOW_IS(fcntl, 1, F_OFD_GETLK, "passthrough: GETLK"),
    ALLOW_IS(flock, 1, LOCK_SH | LOCK_NB, "passthrough: SETLK of a whole file"),
    ALLOW_IS(flock, 1, LOCK_EX | LOCK_NB, "passthrough: SETLK of a whole file"),
    ALLOW_IS(flock, 1, LOCK_UN | LOCK_NB, "passthrough: SETLK of a whole file"),

    /* The VMM's messages */
    ALLOW(recvmsg, "vhost: messages"),
    ALLOW(sendmsg, "vhost: replies"),
    ALLOW(accept4, "socket: the VMM, and refusing a second one"),
    ALLOW(epoll_ctl, "workers: queues that start and stop"),
#ifdef __NR_poll
    ALLOW(poll, "server: the loop"),
#else
    ALLOW(ppoll, "server: the loop"),
#endif
    ALLOW_IS(fcntl, 1, F_GETFL, "vhost: call descriptors; passthrough: SETLK"),
    ALLOW_IS(fcntl, 1, F_SETFL, "vhost: call descriptors are made non-blocking"),
    /* A connected socket only: a receiver cannot be chosen. */
    ALLOW_IS(sendto, 4, 0, "log: the system log, or stderr that is a socket"),

    /* The C library */
    ALLOW_LACKS(mmap, 2, PROT_EXEC, "vhost: guest memory; malloc"),
    ALLOW_LACKS(mprotect, 2, PROT_EXEC, "malloc"),
    ALLOW(munmap, "vhost: guest memory; malloc; threads that end"),
    ALLOW(mremap, "glibc: realloc of large blocks"),
    ALLOW(brk, "malloc"),
    ALLOW(madvise, "vhost: guest memory stays out of dumps; malloc; threads that end"),
    ALLOW(clock_gettime, "machine: time, where there is no vDSO for it"),
    ALLOW(restart_syscall, "kernel: waits that were stopped and continued"),
    ALLOW(rt_sigprocmask, "threads that end; abort"),
    ALLOW(rt_sigreturn, "signal handlers"),
    ALLOW(sigreturn, "machine: signal handlers, of 32 bits"),
    ALLOW(exit, "threads that end"),
    ALLOW(exit_group, "the end"),
    ALLOW_IS(rt_sigaction, 0, SIGABRT, "glibc: abort"),
    ALLOW_IS(rt_sigaction, 0, SIGBUS, "vhost: guest memory that went away, at the end"),
    ALLOW(getpid, "abort; log: our id"),
    ALLOW(gettid, "abort; raise"),
    ALLOW_SELF(tgkill, 2, SIGABRT, "glibc: abort"),
    ALLOW_SELF(tgkill, 2, SIGBUS, "vhost: a SIGBUS that somebody sent"),
    ALLOW_IS(writev, 0, 2, "glibc: last words on stderr"),

#if SANDBOX_ASAN || SANDBOX_TSAN
    ALLOW(sigaltstack, "the sanitizer: threads that end"),
    ALLOW(getrandom, "the sanitizer: malloc"),
    ALLOW(nanosleep, "the sanitizer: its own thread"),
    ALLOW(sched_yield, "the sanitizer: its locks"),
    ALLOW(gettimeofday, "the sanitizer: its own thread"),
#endif

    /* No file exists for a library that looks for one: ours are opened with openat2. */
    ABSENT(open, "libraries"),
    ABSENT(openat, "libraries"),
    ABSENT(creat, "libraries"),
};

/* With SandboxConfig.file_handles. */
static const SeccompRow seccomp_list_file_handles[] = {
    ALLOW_IS(open_by_handle_at, 2, O_PATH | O_CLOEXEC, "passthrough: inodes by handle"),
};

#endif
