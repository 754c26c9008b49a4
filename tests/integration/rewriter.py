# SPDX-License-Identifier: Apache-2.0
"""A process of the host that rewrites files in place, at random moments, without changing
their size, and a guest that must never see, after an open, what was there before it.
"""

import ctypes
import mmap
import os
import random
import struct
import time

N_FILES = 200
PAUSE = 0.0005  # seconds between rewrites
SYNC_EVERY = 0.3
AGE = 2.1  # after which a file is believed not to have changed


def words(version, size):
    return struct.pack('<Q', version) * (size // 8)


class Host:
    """What the process does: version after version of each file."""

    def __init__(self, folder, done, seed=1):
        self.folder = folder
        self.done = done
        self.random = random.Random(seed)
        self.files = [open(os.path.join(folder, str(i)), 'r+b', buffering=0)
                      for i in range(N_FILES)]
        self.sizes = [os.fstat(file.fileno()).st_size for file in self.files]
        self.maps = [mmap.mmap(file.fileno(), size)
                     for file, size in zip(self.files, self.sizes)]
        self.synced = time.monotonic()

    def run(self, n):
        for _ in range(n):
            # Some files are written all the time, others now and then.
            i = int(N_FILES * self.random.random() ** 4)
            self.rewrite(i, self.done[i] + 1)
            self.done[i] += 1
            time.sleep(PAUSE * self.random.random() * 2)
            if time.monotonic() > self.synced + SYNC_EVERY:
                os.fsync(self.files[i].fileno())
                os.sync()
                self.synced = time.monotonic()

    def rewrite(self, i, version):
        fd, data = self.files[i].fileno(), words(version, self.sizes[i])
        before = os.fstat(fd)
        how = self.random.choice(('write', 'pieces', 'store'))
        if how == 'store':
            self.maps[i][:] = data
        else:
            step = len(data) if how == 'write' else 8 * self.random.randint(1, 200)
            for at in range(0, len(data), step):
                os.pwrite(fd, data[at:at + step], at)
        if self.random.random() < 0.5:
            os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))


class Rewriter:
    """The process, which rewrites n times and ends; and who watches it."""

    def __init__(self, folder, n):
        self.folder = folder
        self.n = n
        self.done = (ctypes.c_uint64 * N_FILES).from_buffer(mmap.mmap(-1, 8 * N_FILES))
        self.random = random.Random(2)
        self.pid = None

    def __enter__(self):
        for i in range(N_FILES):
            with open(os.path.join(self.folder, str(i)), 'xb') as file:
                file.write(words(0, 8 * self.random.randint(1, 3000)))
        os.sync()
        time.sleep(AGE)
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                Host(self.folder, self.done).run(self.n)
                status = 0
            finally:
                os._exit(status)
        return self

    def __exit__(self, *unused):
        if self.pid:
            os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)

    def has_ended(self):
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self.pid = None
            assert status == 0
        return bool(pid)

    def look(self, target, i):
        """Open, read and close a file: no word is older than the open."""
        done = self.done[i]
        with open(os.path.join(target, str(i)), 'rb', buffering=0) as file:
            data = file.readall()
        oldest = min(struct.unpack(f'<{len(data) // 8}Q', data))
        assert oldest >= done, f'{i}: {oldest} where {done} had been written'

    def watch(self, target, n_reads):
        """Look at all files while the process writes, and once afterwards; how often, and
        how often that sent no read.
        """
        n, silent = 0, 0
        while not self.has_ended():
            for _ in range(100):
                before = n_reads()
                self.look(target, self.random.randrange(N_FILES))
                silent += n_reads() == before
            n += 100
        for i in range(N_FILES):
            self.look(target, i)
        return n + N_FILES, silent
