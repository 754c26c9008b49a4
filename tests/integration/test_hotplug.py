# SPDX-License-Identifier: Apache-2.0
"""Memory that is plugged in and taken away, again and again, with requests in flight on
all queues: what is read and written is right, and nothing stays behind.
"""

import os
import random
import struct
import sys
import threading

import pytest

import fuse_client as fuse
import launch
from frontend import Frontend

KIB, MIB = 1 << 10, 1 << 20
BLOCK, BIG, REGION = 4 * KIB, 256 * KIB, 512 * KIB
N_QUEUES, N_IN_FLIGHT, MOST_PLUGGED = 3, 4, 4
N_BESIDE = 4  # writes and reads on each of the other queues, a round
SLOTS = 1 << 15
PROTOCOL = 0x8A42B  # what QEMU takes
DATA = random.Random('data').randbytes(2 * MIB)


class Worker(threading.Thread):
    """A program in the guest that writes and reads one file of its own, on one queue."""

    def __init__(self, client, queue, size):
        super().__init__(daemon=True)
        self.client, self.queue, self.size = client, queue, size
        entry, self.handle = client.create(fuse.ROOT, b'worker%d' % queue)
        self.node = entry.nodeid
        self.wanted = threading.Semaphore(0)
        self.is_over, self.rounds, self.error = False, 0, None

    def head(self, offset):
        return struct.pack('=QQIIQII', self.handle, offset, self.size, 0, 0, 0, 0)

    def work(self):
        data = os.urandom(16) * (self.size // 16)
        offset = self.rounds % 8 * self.size
        told = self.client.call(fuse.WRITE, self.node, self.head(offset) + data,
                                queue=self.queue)
        assert struct.unpack('=I4x', told)[0] == self.size
        assert self.client.call(fuse.READ, self.node, self.head(offset),
                                queue=self.queue) == data

    def run(self):
        try:
            while self.wanted.acquire() and not self.is_over:
                self.work()
                self.rounds += 1
        except BaseException as error:  # pylint: disable=broad-except
            self.error = error

    def finish(self):
        self.is_over = True
        self.wanted.release()
        self.join(30)
        assert not self.is_alive()
        if self.error:
            raise self.error
        return self.rounds


class Machine:
    """A guest with a file that its VMM's memory comes and goes under."""

    def __init__(self, daemon, protocol):
        self.daemon, self.random = daemon, random.Random(7)
        self.frontend = Frontend(daemon.socket_path, n_request_queues=N_QUEUES,
                                 protocol_features=protocol, memory_size=16 * MIB)
        self.frontend.start()
        self.client = self.frontend.client(n_slots=N_IN_FLIGHT + 2, data_size=BIG)
        self.client.init()
        self.node = self.client.lookup(fuse.ROOT, b'data').nodeid
        self.handle = self.client.open(self.node)[0]
        self.request = self.frontend.alloc(80)
        self.plugged = []
        self.workers = []
        for queue, size in ((2, BLOCK), (3, BIG)):
            client = self.frontend.client(n_slots=2, data_size=BIG)
            self.workers.append(Worker(client, queue, size))
            self.workers[-1].start()

    def read_request(self, offset, size):
        body = struct.pack('=QQIIQII', self.handle, offset, size, 0, 0, 0, 0)
        return self.client.pack(fuse.READ, self.node, body)

    def offset(self, size):
        return self.random.randrange(len(DATA) - size)

    def plug(self):
        """Memory comes, and is read into from one end to the other."""
        index = self.frontend.add_region(REGION)
        self.plugged.append(index)
        room = self.frontend.alloc(REGION, region=index)
        at = self.offset(REGION)
        self.request.write(self.read_request(at, REGION - 16))
        queue = self.frontend.queues[1]
        queue.submit([(self.request.gpa, 80)], [(room.gpa, REGION)])
        assert queue.wait() is not None
        assert room.read(at=16) == DATA[at:at + REGION - 16]

    def unplug(self):
        """Memory goes."""
        index = self.plugged.pop(self.random.randrange(len(self.plugged)))
        self.frontend.remove_region(index)

    def change(self, act):
        """While requests are in flight, which are answered as if nothing had been."""
        wanted = [self.offset(BIG) for _ in range(N_IN_FLIGHT)]
        for at in wanted:
            self.client.submit(self.read_request(at, BIG), 16 + BIG, queue=1)
        act()
        answers = [self.client.reap(queue=1) for _ in wanted]
        assert sorted(a.payload for a in answers) == sorted(
            DATA[at:at + BIG] for at in wanted)

    def round(self):
        for worker in self.workers:
            worker.wanted.release(N_BESIDE)
        self.plug()
        if len(self.plugged) == MOST_PLUGGED:
            for _ in range(self.random.randrange(1, MOST_PLUGGED + 1)):
                self.change(self.unplug)
        self.change(lambda: self.plugged.append(self.frontend.add_region(REGION)))
        self.change(self.unplug)

    def held(self):
        """What the daemon has: descriptors, threads, pieces of guest memory, KiB."""
        daemon = self.daemon
        return (sorted(daemon.descriptors().values()), len(daemon.threads()),
                daemon.proc('maps').count('memfd:'),
                int(daemon.proc_field('VmRSS').split()[0]))


@pytest.fixture
def swift():
    """Three threads of Python that mostly wait for the daemon: each is let in at once."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures('swift')
@pytest.mark.parametrize('form, protocol', [('ADD_MEM_REG, REM_MEM_REG', PROTOCOL),
                                            ('SET_MEM_TABLE', PROTOCOL & ~SLOTS)])
@pytest.mark.parametrize('n', [100, pytest.param(300, marks=pytest.mark.soak)])
def test_hotplug(start, share, scratch, extra_args, form, protocol, n):
    """100 times, with small requests on one queue and large ones on another."""
    with open(os.path.join(share, 'data'), 'wb') as file:
        file.write(DATA)
    daemon = start(launch.plain, share, scratch, [
        f'--num-request-queues={N_QUEUES}', '--thread-pool-size=2', *extra_args])
    daemon.wait_ready()
    machine = Machine(daemon, protocol)
    machine.round()
    while machine.plugged:
        machine.change(machine.unplug)
    before = machine.held()
    for _ in range(n):
        machine.round()
    while machine.plugged:
        machine.change(machine.unplug)
    after = machine.held()
    rounds = [worker.finish() for worker in machine.workers]
    print(f'{form}: {rounds} writes and reads beside, {before[3]} KiB and {after[3]} KiB')
    assert min(rounds) > 0
    assert after[:3] == before[:3]
    assert after[3] - before[3] < 8 * KIB or os.environ.get('VIRTIOFSD_SANITIZER')
    machine.frontend.close()
