# SPDX-License-Identifier: Apache-2.0
"""The dirty log of a VMM that migrates its guest: each page that the daemon changes is
marked, and no page that is not its to change.

The guest writes nothing from the first look at its memory to the second: it publishes all
requests while its queue is disabled, and the VMM stops the queue when they are answered.
"""

import ctypes
import itertools
import mmap
import os
import struct
import time

import pytest

import frontend as vmm
import fuse_client as fuse
import launch
import native
from frontend import Frontend

PAGE = 4096
QUEUE = 1
CONTENT = os.urandom(300000)
SMALL = 1 << 16


class Log:
    """What the VMM shares with the daemon."""

    def __init__(self, regions):
        pages = max(region.gpa + region.size for region in regions) // PAGE
        self.size = (pages + 7) // 8
        self.fd = os.memfd_create('log', os.MFD_CLOEXEC)
        os.ftruncate(self.fd, self.size)
        self.map = mmap.mmap(self.fd, self.size)

    def take(self):
        """The pages that are marked, and are so no longer."""
        found = {8 * i + bit for i, byte in enumerate(self.map[:]) if byte
                 for bit in range(8) if byte >> bit & 1}
        self.map[:] = bytes(self.size)
        return found

    def close(self):
        self.map.close()
        os.close(self.fd)


class Source:
    """A guest that is about to be migrated, and its VMM."""

    def __init__(self, daemon):
        self.frontend = Frontend(daemon.socket_path, n_regions=2, memory_size=16 << 20)
        self.frontend.start()
        self.queue = self.frontend.queues[QUEUE]
        self.client = self.frontend.client(data_size=SMALL)
        self.client.init()
        self.file = self.client.lookup(fuse.ROOT, b'file').nodeid
        self.handle, _ = self.client.open(self.file)
        self.folder = self.client.opendir(fuse.ROOT)
        self.plugged = self.frontend.add_region(1 << 20)
        self.log = Log(self.frontend.regions())
        self.requests = []  # (segment, [(room, offset, size), ...])
        self.prepare()

    def set_log(self, is_logged, log=None):
        """In QEMU's order; each step is answered."""
        frontend, features = self.frontend, self.frontend.agreed[0]
        if is_logged:
            log = log or self.log
            frontend.send(vmm.SET_LOG_BASE, struct.pack('=QQ', log.size, 0), [log.fd])
            assert frontend.receive().request == vmm.SET_LOG_BASE
            features |= vmm.F_LOG_ALL
        assert frontend.ask(vmm.SET_FEATURES, struct.pack('=Q', features)).u64 == 0
        for index, queue in enumerate(frontend.queues):
            layout = queue.layout
            where = [frontend.uva(part) for part in (layout.desc, layout.used,
                                                     layout.avail)]
            assert frontend.ask(vmm.SET_VRING_ADDR, struct.pack(
                '=IIQQQQ', index, is_logged, *where, self.used(queue)[0][0])).u64 == 0

    def used(self, queue):
        """What the daemon writes to of a ring, as [(gpa, size), ...]: the used ring, or
        of a packed one the device's event area, and the descriptors.
        """
        layout, library = queue.layout, native.library()
        memory = library.frontend_memory(self.frontend.handle)
        used = library.guest_memory_gpa(memory, layout.used)
        if not queue.is_packed:
            return [(used, 6 + 8 * layout.size)]
        return [(used, 4), (library.guest_memory_gpa(memory, layout.desc),
                            16 * layout.size)]

    def add(self, request, out):
        """A request whose answer goes to pieces of memory that nothing else is in."""
        buffer = self.frontend.alloc(len(request))
        buffer.write(request)
        rooms = [(self.frontend.alloc(PAGE * ((offset + size) // PAGE + 1), PAGE, region),
                  offset, size) for size, offset, region in out]
        self.requests.append(((buffer.gpa, len(request)), rooms))

    def publish(self):
        """All of them; what is answered is not what was there before."""
        for segment, rooms in self.requests:
            for room, *_ in rooms:
                room.write(b'\xAA' * room.size)
            self.queue.submit([segment], [(room.gpa + offset, size)
                                          for room, offset, size in rooms], kick=False)

    def prepare(self):
        """Answers of all sizes, in pieces of all sizes."""
        pack, node = self.client.pack, self.file
        for size, offset in ((0, 0), (1, 4000), (4080, 0), (4081, 0), (9000, 4095),
                             (SMALL, 16), (200000, 100)):
            body = struct.pack('=QQIIQII', self.handle, 77, size, 0, 0, 0, 0)
            self.add(pack(fuse.READ, node, body), [(16 + size, offset, 1)])
            self.add(pack(fuse.READ, node, body), [
                (16, PAGE - 16, 1), (size // 3 + 1, offset, self.plugged),
                (size + PAGE, 1, 1)])
        listing = struct.pack('=QQIIQII', self.folder, 0, 8192, 0, 0, 0, 0)
        self.add(pack(fuse.READDIR, fuse.ROOT, listing), [(16 + 8192, 4090, 1)])
        self.add(pack(fuse.GETATTR, node, struct.pack('=IIQ', 0, 0, 0)),
                     [(16, 4088, 1), (104, 4040, 1)])
        self.add(pack(fuse.LOOKUP, fuse.ROOT, b'missing\0'), [(16 + 128, 4088, 1)])
        self.add(pack(fuse.STATFS, fuse.ROOT), [(16 + 80, 4000, 1)])
        self.add(pack(fuse.FORGET, 1 << 40, struct.pack('=Q', 1)), [])
        self.add(pack(fuse.READ, node, b'short'), [(16 + 4096, 4088, 1)])
        self.add(b'no request', [(16, 0, 1)])

    def hold(self):
        """The queue is set up and runs, but is not enabled: nothing is taken from it."""
        self.frontend.enable_ring(QUEUE, False)
        self.frontend.get_base(QUEUE)
        self.frontend.set_ring(QUEUE)

    def serving(self):
        """Enable the queue, and stop it when all is answered; something else can be done
        meanwhile.
        """
        self.frontend.enable_ring(QUEUE)
        deadline = time.monotonic() + 10
        while self.queue.waiting != self.queue.in_flight:
            assert time.monotonic() < deadline
            yield
        self.frontend.get_base(QUEUE)

    def serve(self):
        for _ in self.serving():
            time.sleep(0.001)

    def changed(self, before):
        """The pages that are not as they were; then the guest takes the answers."""
        after = self.snapshot()
        while self.queue.in_flight:
            self.queue.wait()
        return {page for page in before if before[page] != after[page]}

    def snapshot(self):
        """All of the guest's memory: {page: bytes}."""
        found = {}
        for region in self.frontend.regions():
            data = ctypes.string_at(region.host, region.size)
            for at in range(0, region.size, PAGE):
                found[(region.gpa + at) // PAGE] = data[at:at + PAGE]
        return found

    def may_change(self):
        """The pages that answers may go to, and those of the rings."""
        places = [(room.gpa + offset, size) for _, rooms in self.requests
                  for room, offset, size in rooms]
        for queue in self.frontend.queues:
            places += self.used(queue)
        return set(itertools.chain.from_iterable(
            range(gpa // PAGE, (gpa + size - 1) // PAGE + 1) for gpa, size in places))

    def close(self):
        self.frontend.close()
        self.log.close()


@pytest.fixture
def source(start, share, scratch, extra_args):
    """A daemon with several workers, and its guest."""
    with open(os.path.join(share, 'file'), 'wb') as file:
        file.write(CONTENT)
    for i in range(50):
        with open(os.path.join(share, f'name{i}'), 'wb'):
            pass
    daemon = start(launch.plain, share, scratch, ['--thread-pool-size=3', *extra_args])
    daemon.wait_ready()
    guest = Source(daemon)
    yield guest
    guest.close()


def test_every_change_is_marked(ring_layout, source):
    """While there is a log, and nothing before and after."""
    for is_logged in (False, True, True, True, False):
        source.hold()
        source.set_log(is_logged)
        source.publish()
        before = source.snapshot()
        source.serve()
        changed = source.changed(before)
        assert len(changed) > 100 and changed <= source.may_change()
        marked = source.log.take()
        if is_logged:
            assert changed <= marked <= source.may_change()
        else:
            assert not marked
    source.frontend.set_ring(QUEUE)


def test_requests_in_flight(ring_layout, source):
    """What runs when logging begins is logged, and a log that was replaced is not touched
    once that is answered.
    """
    logs = [source.log, Log(source.frontend.regions())]
    for _ in range(5):
        source.hold()
        source.set_log(True, logs[0])
        source.publish()
        before, marked = source.snapshot(), set()
        for _ in source.serving():
            logs.reverse()
            source.set_log(True, logs[0])
            marked |= logs[1].take()
        assert not logs[1].take()
        marked |= logs[0].take()
        assert source.changed(before) <= marked <= source.may_change()
    source.frontend.set_ring(QUEUE)
    next(log for log in logs if log is not source.log).close()
