# SPDX-License-Identifier: Apache-2.0
"""A request that hangs in the host's file system, with what Kata asks for: other volumes,
FORGET and the VMM's messages go on, and the end is not kept waiting.
"""

import errno
import os
import signal
import struct
import subprocess
import threading
import time

import pytest

import filesystems
import fuse_client as fuse
import launch
from frontend import GET_FEATURES, Frontend
from stalling_fs import CONTENT, StallingFs

pytestmark = [pytest.mark.sandboxed, pytest.mark.hostile('hang-fuse')]

N_HONEST = 100
SOON = 0.1
END = 1.0
TWO_QUEUES = ('--num-request-queues=2',)


@pytest.fixture
def stalling(share):
    """A mount in the share that can stall, and beside it a volume that does not."""
    target, volume = (os.path.join(share, name) for name in ('mounted', 'volume'))
    os.mkdir(target)
    with filesystems.mounted(volume, '-t', 'tmpfs', 'volume'), StallingFs(target) as fs:
        yield fs


def slow(seconds):
    """How long the slower requests took, but for a few: a machine under load stops
    everybody now and then.
    """
    return sorted(seconds)[-1 - len(seconds) // 20]


class Guest:
    """A VMM, which knows a folder that stalls and one that does not."""

    def __init__(self, daemon, **config):
        self.daemon = daemon
        self.frontend = Frontend(daemon.socket_path, **config)
        self.frontend.start()
        self.client = self.frontend.client(timeout_ms=20000)
        self.client.init()
        client = self.client
        self.volume = client.lookup(fuse.ROOT, b'volume').nodeid
        self.mounted = client.lookup(fuse.ROOT, b'mounted').nodeid
        self.file = client.lookup(self.mounted, b'file').nodeid
        self.handle = client.open(self.file, os.O_RDWR)[0]
        self.dir_handle = client.opendir(self.mounted)
        self.root_handle = client.opendir(fuse.ROOT)

    def requests(self):
        """What a guest asks of the stalling mount: {name: (opcode held, request)}."""
        pack, io = self.client.pack, struct.Struct('=QQIIQII')
        read = io.pack(self.handle, 0, 4096, 0, 0, 0, 0)
        listing = io.pack(self.root_handle, 0, 4096, 0, 0, 0, 0)
        inner = io.pack(self.dir_handle, 0, 4096, 0, 0, 0, 0)
        data = io.pack(self.handle, 0, 4, 0, 0, 0, 0) + b'data'
        return {
            'lookup': (fuse.LOOKUP, pack(fuse.LOOKUP, self.mounted, b'other\0')),
            'getattr': (fuse.GETATTR, pack(fuse.GETATTR, self.file, bytes(16))),
            'open': (fuse.OPEN, pack(fuse.OPEN, self.file, bytes(8))),
            'read': (fuse.READ, pack(fuse.READ, self.file, read)),
            'write': (fuse.WRITE, pack(fuse.WRITE, self.file, data)),
            'fsync': (fuse.FSYNC, pack(fuse.FSYNC, self.file,
                                       struct.pack('=QII', self.handle, 0, 0))),
            'flush': (fuse.FLUSH, pack(fuse.FLUSH, self.file,
                                       struct.pack('=QIIQ', self.handle, 0, 0, 0))),
            'statfs': (fuse.STATFS, pack(fuse.STATFS, self.mounted)),
            'readdir': (fuse.READDIR, pack(fuse.READDIR, self.mounted, inner)),
            # The listing of the folder that it is mounted in looks at its root.
            'listing': (fuse.GETATTR, pack(fuse.READDIRPLUS, fuse.ROOT, listing)),
        }

    def hang(self, stalling, name='read', queue=1):
        """One request that is not answered."""
        opcode, request = self.requests()[name]
        stalling.hold(opcode)
        before = len(stalling.held())
        self.client.submit(request, 16 + 4096, queue=queue)
        stalling.wait_held(before + 1)

    def honest(self, queue=None):
        """Work on another volume; see slow()."""
        client, name = self.client, b'honest'
        pack = client.pack(fuse.STATFS, self.volume)
        seconds = []
        for number in range(N_HONEST):
            begin = time.monotonic()
            if queue is not None:
                assert client.raw(pack, queue=queue).error == 0
            elif number % 10 == 0:
                entry, handle = client.create(self.volume, name)
                client.write(entry.nodeid, handle, b'data')
                client.fsync(entry.nodeid, handle)
                client.release(entry.nodeid, handle)
                client.unlink(self.volume, name)
                client.forget(entry.nodeid)
            else:
                client.getattr(self.volume)
            seconds.append(time.monotonic() - begin)
        return slow(seconds)

    def urgent(self):
        """FORGET and INTERRUPT; see slow()."""
        seconds = []
        for _ in range(N_HONEST):
            begin = time.monotonic()
            self.client.forget(1 << 40)
            self.client.raw(self.client.pack(fuse.INTERRUPT, 0, struct.pack('=Q', 4)),
                            queue=0)
            seconds.append(time.monotonic() - begin)
        return slow(seconds)

    def message(self):
        """How long the VMM waits for an answer."""
        begin = time.monotonic()
        self.frontend.send(GET_FEATURES)
        self.frontend.receive()
        return time.monotonic() - begin


@pytest.fixture(params=[launch.kata_go, launch.kata_rs], ids=['go', 'rs'])
def kata(request, start, stalling, share, scratch):
    """kata(option...): a guest of a daemon that Kata started."""
    guests = []

    def make(*options, **config):
        daemon = start(request.param, share, scratch, options)
        if daemon.reader:
            daemon.wait_ready()
        guests.append(Guest(daemon, **config))
        return guests[-1]

    yield make
    stalling.let_go()
    for guest in guests:
        if guest.daemon.is_alive():
            guest.frontend.close()


def test_one_stuck_request(kata, stalling):
    """Whatever it is; it is answered as if nothing had been when the host goes on."""
    guest = kata()
    for name in guest.requests():
        guest.hang(stalling, name)
        slowest = guest.honest(), guest.urgent(), guest.message()
        print(f'{name} stuck: honest {slowest[0] * 1e3:.1f} ms, FORGET '
              f'{slowest[1] * 1e3:.1f} ms, message {slowest[2] * 1e3:.1f} ms')
        assert max(slowest) < SOON, name
        stalling.let_go()
        reply = guest.client.reap()
        assert reply.is_well_formed and reply.errno == 0, name
        if name == 'read':
            assert reply.payload == CONTENT


def test_no_worker_left(kata, stalling):
    """With all workers stuck, FORGET, INTERRUPT and the VMM are answered all the same."""
    guest = kata()
    guest.hang(stalling)
    guest.hang(stalling)
    honest = guest.client.pack(fuse.STATFS, guest.volume)
    guest.client.submit(honest, 16 + 80, queue=1)
    assert guest.urgent() < SOON
    assert guest.message() < SOON
    with pytest.raises(TimeoutError):
        guest.client.reap(timeout=0.1)
    stalling.let_go()
    for _ in range(3):
        assert guest.client.reap().errno == 0


def test_base_waits_and_nothing_else(kata, stalling):
    """GET_VRING_BASE is answered after the stuck request; meanwhile the other queues go
    on, a second client is turned away, and statistics are told.
    """
    guest = kata(*TWO_QUEUES, n_request_queues=2)
    guest.hang(stalling, queue=1)
    answered = threading.Event()

    def get_base():
        guest.base = guest.frontend.get_base(1)
        answered.set()

    thread = threading.Thread(target=get_base)
    thread.start()
    assert not answered.wait(0.2)
    assert guest.honest(queue=2) < SOON
    assert guest.urgent() < SOON
    begin = time.monotonic()
    with guest.daemon.connect() as second:
        assert second.recv(1) == b''
    assert time.monotonic() - begin < SOON
    if guest.daemon.reader:
        n = len(guest.daemon.reader.lines)
        guest.daemon.signal(signal.SIGUSR1)
        launch.eventually(lambda: 'statistics' in ''.join(guest.daemon.reader.lines[n:]))
    assert not answered.is_set()
    stalling.let_go()
    assert answered.wait(5)
    thread.join()
    assert guest.client.reap(queue=1).payload == CONTENT
    assert guest.base == guest.frontend.queues[1].base
    guest.frontend.set_ring(1)
    guest.frontend.enable_ring(1)
    assert guest.honest() < SOON


# ---- the end --------------------------------------------------------------------------

def ended(daemon):
    """How long it takes until the process is gone."""
    begin = time.monotonic()
    assert daemon.wait(10) == 0
    return time.monotonic() - begin


@pytest.mark.unwatched('it ends with requests in flight')
@pytest.mark.parametrize('how', ['disconnect', 'SIGTERM', 'SIGTERM while draining'])
def test_end(kata, stalling, how):
    """Two requests hang, and many wait for them. The host's file system hears nothing:
    that wait is one which the kernel lets a process give up, if no file is open there,
    which it would flush.
    """
    guest = kata()
    _, request = guest.requests()['lookup']
    guest.client.release(guest.file, guest.handle)
    stalling.be_deaf()
    for _ in range(16):
        guest.client.submit(request, 16 + 4096, queue=1)
    time.sleep(0.1)
    if how == 'SIGTERM while draining':
        guest.frontend.send(11, struct.pack('=II', 1, 0))  # GET_VRING_BASE
        time.sleep(0.1)
    if how == 'disconnect':
        guest.frontend.disconnect()
    else:
        guest.daemon.signal(signal.SIGTERM)
    seconds = ended(guest.daemon)
    print(f'{how}: gone after {seconds * 1e3:.0f} ms')
    assert seconds < END


@pytest.mark.unwatched('it ends with requests in flight')
def test_end_that_the_kernel_delays(kata, stalling):
    """The file system has taken the requests: then the kernel keeps the thread until they
    are answered, whoever kills it. The VMM does not wait for that.
    """
    guest = kata()
    guest.hang(stalling)
    begin = time.monotonic()
    guest.daemon.signal(signal.SIGTERM)
    assert guest.frontend.is_closed(5)
    assert time.monotonic() - begin < END
    stalling.let_go()
    assert ended(guest.daemon) < END
    guest.frontend.disconnect()


# ---- a frozen file system -------------------------------------------------------------

@pytest.fixture
def frozen(share, scratch):
    """freeze() and thaw() an ext4 in the share."""
    target = os.path.join(share, 'frozen')
    image = os.path.join(scratch, 'image')
    filesystems.make_image(image, 'ext4', size=64 << 20)
    is_frozen = []

    def freeze():
        subprocess.run(['fsfreeze', '-f', target], check=True)
        is_frozen.append(True)

    def thaw():
        if is_frozen:
            is_frozen.pop()
            subprocess.run(['fsfreeze', '-u', target], check=True)

    with filesystems.mounted(target, '-o', 'loop', image):
        yield freeze, thaw
        thaw()


@pytest.mark.unwatched('it ends with a request in flight')
def test_frozen(kata, frozen):
    """A write that waits for the thaw: no kernel lets anybody give that up. Others are
    served, the VMM is told at once that it is over, and the process goes with the thaw.
    """
    freeze, thaw = frozen
    guest = kata()
    client = guest.client
    folder = client.lookup(fuse.ROOT, b'frozen').nodeid
    entry, handle = client.create(folder, b'file')
    freeze()
    body = struct.pack('=QQIIQII', handle, 0, 4, 0, 0, 0, 0) + b'data'
    client.submit(client.pack(fuse.WRITE, entry.nodeid, body), 16 + 8, queue=1)
    time.sleep(0.1)
    assert max(guest.honest(), guest.urgent(), guest.message()) < SOON
    assert client.getattr(entry.nodeid, handle).size == 0  # reading goes on
    thaw()
    assert client.reap().errno == 0
    freeze()
    client.submit(client.pack(fuse.WRITE, entry.nodeid, body), 16 + 8, queue=1)
    time.sleep(0.1)
    begin = time.monotonic()
    guest.daemon.signal(signal.SIGTERM)
    assert guest.frontend.is_closed(5)
    assert time.monotonic() - begin < END
    thaw()
    assert ended(guest.daemon) < END
    guest.frontend.disconnect()


@pytest.mark.unwatched('a session ends while it stands')
def test_lookups_of_what_stands_still(kata, stalling):
    """A hung mount costs a worker at a time, and nothing of it is lost: EIO when the host
    gives the mount up.
    """
    guest = kata()
    guest.hang(stalling, 'lookup')
    stalling.close()
    assert guest.client.reap().errno in (errno.ENOTCONN, errno.ECONNABORTED)
    assert guest.honest() < SOON
    guest.frontend.disconnect()
    assert guest.daemon.wait() == 0
