# SPDX-License-Identifier: Apache-2.0
"""A file system of FUSE, in a thread of the test, that can stop answering.

    with StallingFs(target) as stalling:
        stalling.hold(READ)         # takes such requests, and keeps them
        stalling.wait_held(1)
        stalling.let_go()
        stalling.be_deaf()          # takes none at all
        stalling.be_slow(0.02, FSYNC)   # answers them so many seconds later

Its root has the files `file`, `other`, and `00` to `15`; nothing of them is cached.
"""

import collections
import contextlib
import ctypes
import errno
import os
import select
import stat
import struct
import subprocess
import threading
import time

from fuse_client import (FLUSH, FORGET, FSYNC, FSYNCDIR, GETATTR, BATCH_FORGET, INIT,
                         INTERRUPT, LOOKUP, OPEN, OPENDIR, READ, READDIR, READDIRPLUS,
                         RELEASE, RELEASEDIR, SETATTR, STATFS, WRITE)

_IN, _OUT = struct.Struct('=IIQQIIIHH'), struct.Struct('=IiQ')
_NO_REPLY = (FORGET, BATCH_FORGET, INTERRUPT)
_DIRECT_IO = 1
FILES = {b'file': 2, b'other': 3, **{b'%02d' % i: 4 + i for i in range(16)}}
CONTENT = b'behind a file system that may stall'


class StallingFs:
    """One mount. What it holds, or does not hear, its callers wait for."""

    def __init__(self, target):
        self.target = target
        self._fd = os.open('/dev/fuse', os.O_RDWR | os.O_NONBLOCK)
        self._wake, self._waker = os.pipe()
        self._lock = threading.Condition()
        self._held, self._holding = [], frozenset()
        self._seconds, self._slow = 0, frozenset()
        self._later = collections.deque()  # (when to answer, request), by that time
        self._is_deaf = self._is_over = False
        self.interrupted = 0
        libc = ctypes.CDLL(None, use_errno=True)
        words = f'fd={self._fd},rootmode=40000,user_id=0,group_id=0,allow_other'
        if libc.mount(b'stalling', os.fsencode(target), b'fuse.stalling', 0,
                      words.encode()) != 0:
            raise OSError(ctypes.get_errno(), 'cannot mount')
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    def close(self):
        """Nobody waits any more: what is held fails, as does what comes later."""
        if self._fd < 0:
            return
        with self._lock:
            self._is_over = True
        self._look_up_again()
        self._thread.join()
        os.close(self._fd)  # ends the connection, whoever still has the mount
        self._fd = -1
        subprocess.run(['umount', '-l', self.target], check=True)
        os.close(self._wake)
        os.close(self._waker)

    def hold(self, *opcodes):
        """Take requests of these kinds from now on, and do not answer."""
        with self._lock:
            self._holding = frozenset(opcodes)

    def held(self):
        """The opcodes of what is held."""
        with self._lock:
            return [request[0] for request in self._held]

    def wait_held(self, n, timeout=5):
        """Until so many are held."""
        with self._lock:
            assert self._lock.wait_for(lambda: len(self._held) >= n, timeout)

    def let_go(self):
        """Answer what is held, and hold no more."""
        if self._fd < 0:
            return
        with self._lock:
            held, self._held, self._holding = self._held, [], frozenset()
            self._is_deaf = False
        for request in held:
            self._answer(*request)
        self._look_up_again()

    def be_deaf(self):
        """Take no request until let_go()."""
        with self._lock:
            self._is_deaf = True
        self._look_up_again()

    def be_slow(self, seconds, *opcodes):
        """Answer requests of these kinds, that come from now on, so much later. All wait
        the same time, each for itself.
        """
        with self._lock:
            self._seconds, self._slow = seconds, frozenset(opcodes)

    # ---- the thread

    def _look_up_again(self):
        os.write(self._waker, b'.')

    def _serve(self):
        while True:
            with self._lock:
                if self._is_over:
                    return
                fds = [self._wake] if self._is_deaf else [self._wake, self._fd]
            ready = self._ready(fds, self._answer_due())
            if self._wake in ready:
                os.read(self._wake, 100)
            elif self._fd in ready:
                with contextlib.suppress(BlockingIOError, InterruptedError):
                    self._take(os.read(self._fd, 1 << 21))

    @staticmethod
    def _ready(fds, seconds):
        poll = select.poll()
        for fd in fds:
            poll.register(fd, select.POLLIN)
        return [fd for fd, _ in poll.poll(None if seconds is None else seconds * 1000)]

    def _answer_due(self):
        """Answer what has waited long enough; seconds until there is more, or None."""
        while self._later and self._later[0][0] <= time.monotonic():
            self._answer(*self._later.popleft()[1])
        return max(0, self._later[0][0] - time.monotonic()) if self._later else None

    def _take(self, data):
        _, opcode, unique, node, *_ = _IN.unpack_from(data)
        request = opcode, unique, node, data[_IN.size:]
        if opcode == INTERRUPT:
            self.interrupted += 1
        if opcode in _NO_REPLY:
            return
        with self._lock:
            if opcode in self._holding:
                self._held.append(request)
                self._lock.notify_all()
                return
            if opcode in self._slow:
                self._later.append((time.monotonic() + self._seconds, request))
                return
        self._answer(*request)

    def _answer(self, opcode, unique, node, body):
        error, payload = self._reply(opcode, node, body)
        # Who asked may be gone.
        with contextlib.suppress(FileNotFoundError):
            os.write(self._fd, _OUT.pack(_OUT.size + len(payload), -error, unique)
                     + payload)

    def _reply(self, opcode, node, body):
        if opcode == INIT:
            return 0, struct.pack('=IIIIHHIIHHI28x', 7, 31, 65536, 0, 16, 12, 65536, 1,
                                  16, 0, 0)
        if opcode == LOOKUP:
            return self._entry(body)
        if opcode in (GETATTR, SETATTR):
            return 0, struct.pack('=QII', 0, 0, 0) + _attr(node)
        if opcode in (OPEN, OPENDIR):
            return 0, struct.pack('=QII', 1, _DIRECT_IO if opcode == OPEN else 0, 0)
        if opcode == READ:
            _, offset, size = struct.unpack_from('=QQI', body)
            return 0, CONTENT[offset:offset + size]
        if opcode == WRITE:
            return 0, struct.pack('=II', struct.unpack_from('=QQI', body)[2], 0)
        if opcode in (READDIR, READDIRPLUS):
            return 0, b''
        if opcode == STATFS:
            return 0, struct.pack('=QQQQQIII28x', 1000, 500, 500, 10, 5, 4096, 255, 4096)
        if opcode in (FSYNC, FSYNCDIR, FLUSH, RELEASE, RELEASEDIR):
            return 0, b''
        return errno.ENOSYS, b''

    @staticmethod
    def _entry(body):
        number = FILES.get(body.rstrip(b'\0'))
        if number is None:
            return errno.ENOENT, b''
        return 0, struct.pack('=QQQQII', number, 0, 0, 0, 0, 0) + _attr(number)


def _attr(number):
    is_root = number == 1
    mode = stat.S_IFDIR | 0o755 if is_root else stat.S_IFREG | 0o644
    size = 0 if is_root else len(CONTENT)
    return struct.pack('=6Q10I', number, size, 1, 1, 1, 1, 0, 0, 0, mode, 1, 0, 0, 0,
                       4096, 0)
