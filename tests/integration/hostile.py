# SPDX-License-Identifier: Apache-2.0
"""A hostile guest's tools: a VMM with a FUSE client and a request of every kind to spoil,
an honest guest at work on another queue, and what must be as before when all is over.
"""

import contextlib
import errno
import os
import shutil
import stat
import struct
import subprocess
import threading
import time

import pytest

import conftest
import fuse_client as fuse
import launch
from frontend import Frontend
from process import eventually

CONTENT = b'what an honest guest wrote'
EXTREMES = (0, 1, 0x7FFFFFFF, 1 << 31, 0xFFFFFFFF, 1 << 32, (1 << 63) - 1, 1 << 63,
            (1 << 64) - 1)
ROOM = 8192
# These change what the session is; they have tests of their own.
SESSION_OPCODES = (fuse.INIT, fuse.DESTROY)
CLIENT = {'data_size': 1 << 17, 'timeout_ms': 10000}
WINDOW = 0.1  # in seconds: how long an idle daemon is looked at


def samples(guest):
    """One well-formed request of every opcode: {opcode: (node, body)}."""
    name, two = b'name\0', b'name\0other\0'
    read = struct.pack('=QQIIQII', guest.handle, 0, 4096, 0, 0, 0, 0)
    listing = struct.pack('=QQIIQII', guest.dir_handle, 0, 4096, 0, 0, 0, 0)
    lock = struct.pack('=QQQQIIII', guest.handle, 1, 0, 10, 0, 0, 0, 0)
    setattr_body = struct.pack('=II6Q8I', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0o644, 0, 0, 0,
                               0)
    return {
        fuse.LOOKUP: (fuse.ROOT, name),
        fuse.FORGET: (1 << 40, struct.pack('=Q', 1)),
        fuse.GETATTR: (guest.file, struct.pack('=IIQ', 0, 0, 0)),
        fuse.SETATTR: (guest.file, setattr_body),
        fuse.READLINK: (guest.link, b''),
        fuse.SYMLINK: (guest.folder, two),
        fuse.MKNOD: (guest.folder, struct.pack('=IIII', stat.S_IFREG | 0o600, 0, 0, 0)
                     + name),
        fuse.MKDIR: (guest.folder, struct.pack('=II', 0o700, 0) + name),
        fuse.UNLINK: (guest.folder, name),
        fuse.RMDIR: (guest.folder, name),
        fuse.RENAME: (guest.folder, struct.pack('=Q', guest.folder) + two),
        fuse.LINK: (guest.folder, struct.pack('=Q', guest.file) + name),
        fuse.OPEN: (guest.file, struct.pack('=II', os.O_RDONLY, 0)),
        fuse.READ: (guest.file, read),
        fuse.WRITE: (guest.file, struct.pack('=QQIIQII', guest.handle, 0, 9, 0, 0, 0, 0)
                     + b'some data'),
        fuse.STATFS: (fuse.ROOT, b''),
        fuse.RELEASE: (guest.file, struct.pack('=QIIQ', 1 << 40, 0, 0, 0)),
        fuse.FSYNC: (guest.file, struct.pack('=QII', guest.handle, 1, 0)),
        fuse.SETXATTR: (guest.file, struct.pack('=II', 5, 0) + b'user.a\0value'),
        fuse.GETXATTR: (guest.file, struct.pack('=II', 64, 0) + b'user.a\0'),
        fuse.LISTXATTR: (guest.file, struct.pack('=II', 64, 0)),
        fuse.REMOVEXATTR: (guest.file, b'user.a\0'),
        fuse.FLUSH: (guest.file, struct.pack('=QIIQ', guest.handle, 0, 0, 0)),
        fuse.INIT: (0, struct.pack('=IIIII44x', 7, 38, 131072, 0x7BFFFFFB, 0)),
        fuse.OPENDIR: (guest.folder, struct.pack('=II', 0, 0)),
        fuse.READDIR: (fuse.ROOT, listing),
        fuse.RELEASEDIR: (fuse.ROOT, struct.pack('=QIIQ', 1 << 40, 0, 0, 0)),
        fuse.FSYNCDIR: (fuse.ROOT, struct.pack('=QII', guest.dir_handle, 0, 0)),
        fuse.GETLK: (guest.file, lock),
        fuse.SETLK: (guest.file, lock),
        fuse.SETLKW: (guest.file, lock),
        fuse.ACCESS: (guest.file, struct.pack('=II', 4, 0)),
        fuse.CREATE: (guest.folder, struct.pack('=IIII', os.O_RDWR, 0o600, 0, 0) + name),
        fuse.INTERRUPT: (0, struct.pack('=Q', 4)),
        fuse.BMAP: (guest.file, struct.pack('=QII', 0, 4096, 0)),
        fuse.DESTROY: (0, b''),
        fuse.IOCTL: (guest.file, struct.pack('=QIIQII', guest.handle, 0, 0, 0, 0, 0)),
        fuse.POLL: (guest.file, struct.pack('=QQII', guest.handle, 0, 0, 0)),
        fuse.NOTIFY_REPLY: (guest.file, struct.pack('=QQIIQQ', 0, 0, 0, 0, 0, 0)),
        fuse.BATCH_FORGET: (0, struct.pack('=IIQQ', 1, 0, 1 << 40, 1)),
        fuse.FALLOCATE: (guest.file, struct.pack('=QQQII', guest.handle, 0, 4096, 0, 0)),
        fuse.READDIRPLUS: (fuse.ROOT, listing),
        fuse.RENAME2: (guest.folder, struct.pack('=QII', guest.folder, 0, 0) + two),
        fuse.LSEEK: (guest.file, struct.pack('=QQII', guest.handle, 0, os.SEEK_DATA, 0)),
        fuse.COPY_FILE_RANGE: (guest.file, struct.pack('=7Q', guest.handle, 0, guest.file,
                                                       guest.handle, 0, 16, 0)),
        fuse.SETUPMAPPING: (guest.file, struct.pack('=5Q', guest.handle, 0, 4096, 0, 0)),
        fuse.REMOVEMAPPING: (guest.file, struct.pack('=IQQ', 1, 0, 4096)),
        fuse.SYNCFS: (fuse.ROOT, struct.pack('=Q', 0)),
        fuse.TMPFILE: (guest.folder, struct.pack('=IIII', os.O_RDWR, 0o600, 0, 0)
                       + b'/\0'),
        fuse.STATX: (guest.file, struct.pack('=IIQII', 0, 0, 0, 0, 0x7FF)),
        fuse.COPY_FILE_RANGE_64: (guest.file, struct.pack(
            '=7Q', guest.handle, 0, guest.file, guest.handle, 0, 16, 0)),
    }


def assert_sound(reply, request):
    """What a Linux guest would take: nothing at all, or a reply that belongs to it."""
    assert reply.is_empty or reply.is_well_formed, f'{reply} to {request[:64].hex()}'


def exchange(guest, opcode, nodeid, body, **header):
    """One request with room for any reply, whatever it asks for."""
    request = guest.client.pack(opcode, nodeid, body, **header)
    assert_sound(guest.client.raw(request, room=ROOM), request)


def forgotten(guest):
    """Give up what replies to mutated requests handed out, as a rebooted guest does."""
    guest.client.destroy()
    guest.client.init()


def clean_share(share):
    """Away with what a Guest makes, and with what became of it."""
    for name in ('folder', 'file', 'link'):
        path = os.path.join(share, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)


class Guest:
    """A VMM with a FUSE client, a file, a directory, and handles of both."""

    def __init__(self, daemon, **config):
        self.daemon = daemon
        self.frontend = Frontend(daemon.socket_path, **config)
        self.frontend.start()
        self.client = self.frontend.client(**CLIENT)
        self.client.init()
        self.workers = []
        self.open_all()

    def work_on(self, queue, modest=False):
        """Honest work on a queue, from now until it is finish()ed. The modest uses
        nothing that another's request may hit by chance.
        """
        worker = HonestWorker(self, queue, modest)
        self.workers.append(worker)
        worker.start()
        return worker

    def open_all(self):
        client = self.client
        self.folder = client.mkdir(fuse.ROOT, b'folder').nodeid
        entry, self.handle = client.create(fuse.ROOT, b'file')
        self.file = entry.nodeid
        client.write(self.file, self.handle, CONTENT)
        self.link = client.symlink(fuse.ROOT, b'link', b'file').nodeid
        self.dir_handle = client.opendir(fuse.ROOT)

    def open_again(self):
        """Everything anew, in a session of its own."""
        forgotten(self)
        clean_share(self.daemon.share)
        self.open_all()

    def assert_honest(self, queue=None):
        """An honest guest's work goes on, on this queue."""
        def call(opcode, node, body):
            return self.client.call(opcode, node, body, queue=queue)
        node = fuse.Entry(call(fuse.LOOKUP, fuse.ROOT, b'honest\0')).nodeid
        handle = struct.unpack_from('=Q', call(
            fuse.OPEN, node, struct.pack('=II', os.O_RDWR, 0)))[0]
        assert call(fuse.READ, node, struct.pack(
            '=QQIIQII', handle, 0, 4096, 0, 0, 0, 0)) == CONTENT
        call(fuse.RELEASE, node, struct.pack('=QIIQ', handle, 0, 0, 0))
        self.client.forget(node)

    def close(self):
        for worker in self.workers:
            worker.is_over.set()
            worker.join()
        self.frontend.close()


class HonestWorker(threading.Thread):
    """A guest's work on a queue of its own, for as long as others besiege the daemon. The
    modest looks at what is there before each session, too: EIO.
    """

    def __init__(self, guest, queue, modest):
        super().__init__(daemon=True)
        self.one_round = self.look if modest else self.write
        self.client = guest.frontend.client(**CLIENT)
        self.queue = queue
        self.rounds, self.slowest, self.error = 0, 0, None
        self.is_over = threading.Event()

    def call(self, opcode, node, body):
        begin = time.monotonic()
        payload = self.client.call(opcode, node, body, queue=self.queue)
        self.slowest = max(self.slowest, time.monotonic() - begin)
        return payload

    def look(self, _):
        """Look at the root, the file system, and for a file."""
        try:
            self.call(fuse.GETATTR, fuse.ROOT, bytes(16))
            self.call(fuse.STATFS, fuse.ROOT, b'')
            assert fuse.Entry(self.call(fuse.LOOKUP, fuse.ROOT, b'honest\0')).nodeid
        except fuse.FuseError as error:
            if error.errno != errno.EIO:
                raise

    def write(self, number):
        """Look up, open, write, read back, close, forget."""
        node = fuse.Entry(self.call(fuse.LOOKUP, fuse.ROOT, b'worker\0')).nodeid
        handle = struct.unpack_from('=Q', self.call(
            fuse.OPEN, node, struct.pack('=II', os.O_RDWR, 0)))[0]
        data = struct.pack('=Q', number) * 512
        where = struct.pack('=QQIIQII', handle, 0, len(data), 0, 0, 0, 0)
        self.call(fuse.WRITE, node, where + data)
        assert self.call(fuse.READ, node, where) == data, 'other bytes than were written'
        self.call(fuse.RELEASE, node, struct.pack('=QIIQ', handle, 0, 0, 0))
        self.client.forget(node)

    def run(self):
        try:
            while not self.is_over.is_set():
                self.one_round(self.rounds)
                self.rounds += 1
        except Exception as error:  # told by finish()
            self.error = error

    def finish(self, slowest=3.0):
        """It has worked all the time, and waited for nothing longer than `slowest`."""
        self.is_over.set()
        self.join(20)
        assert not self.is_alive(), 'an honest request is not answered'
        if self.error:
            raise self.error
        assert self.rounds > 0
        if not os.environ.get('VIRTIOFSD_SANITIZER'):
            assert self.slowest < slowest
        return f'{self.rounds} honest rounds, slowest request {self.slowest * 1e3:.1f} ms'


# ---- what must be as before


def resources(daemon):
    """Descriptors (by what they refer to) and threads."""
    return sorted(daemon.descriptors().values()), len(daemon.threads())


def cpu_ns(daemon):
    """What all threads have used of the processors so far."""
    found = 0
    for thread in daemon.threads():
        found += int(daemon.proc(f'task/{thread}/schedstat').split()[0])
    return found


def assert_idle(daemon):
    """It does nothing at all; a sanitizer's own thread does a little."""
    most = 0.1 * WINDOW * 1e9 if os.environ.get('VIRTIOFSD_SANITIZER') else 0

    def is_idle():
        before = cpu_ns(daemon)
        time.sleep(WINDOW)
        return cpu_ns(daemon) - before <= most
    eventually(is_idle, timeout=10)


class Calm:
    """The daemon before; afterwards it must serve, hold nothing more and be idle."""

    def __init__(self, guest):
        self.guest = guest
        forgotten(guest)
        self.before = resources(guest.daemon)
        clean_share(guest.daemon.share)
        guest.open_all()

    def check(self):
        assert self.guest.daemon.is_alive()
        self.guest.assert_honest()
        forgotten(self.guest)
        eventually(lambda: resources(self.guest.daemon) == self.before)
        assert_idle(self.guest.daemon)


@pytest.fixture
def memory_share(share):
    """The share is a small file system in memory: nothing waits, or fills a disk."""
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64m', 'siege', share],
                   check=True)
    for name in ('honest', 'worker'):
        with open(os.path.join(share, name), 'wb') as file:
            file.write(CONTENT)
    yield share
    subprocess.run(['umount', '-l', share], check=True)


@pytest.fixture
def besiege(request, start, memory_share, scratch, extra_args):
    """besiege(option..., configuration=...): a Guest of two request queues. Afterwards
    the daemon must be as it was, and end well.
    """
    besieged = []

    def make(*options, how=launch.plain, calm=True, **config):
        daemon = start(how, memory_share, scratch,
                       ['--num-request-queues=2', '--thread-pool-size=1', *options,
                        *extra_args])
        daemon.wait_ready()
        guest = Guest(daemon, **{'n_request_queues': 2, **config})
        besieged.append((guest, Calm(guest) if calm else None))
        return guest

    try:
        yield make
        for _, calm in besieged:
            if calm and not conftest.has_failed(request.node):
                calm.check()
    finally:
        for guest, _ in besieged:
            with contextlib.suppress(AssertionError, OSError):  # said by the starter
                guest.close()
    for guest, _ in besieged:
        assert guest.daemon.wait() == 0


@pytest.fixture
def unharmed(besiege):
    """A guest; afterwards the daemon must be as it was and serve."""
    return besiege()
