# SPDX-License-Identifier: Apache-2.0
"""Memory that runs out, that is bounded, and that goes away under the daemon."""

import errno
import mmap
import os
import resource
import struct
import subprocess

import pytest

import filesystems
import fuse_client as fuse
import launch
import native
from errand import Errand, clean
from frontend import Frontend

MIB = 1 << 20
LIMIT = 64 * MIB
N_QUEUES, N_WRITES = 4, 32
OPTIONS = ('--xattr', '--posix-lock', '--flock')


# ---- malloc ---------------------------------------------------------------------------

class Control:
    """The daemon's memory; see tests/support/failing-malloc.c."""

    def __init__(self, path):
        with open(path, 'w+b') as file:
            file.truncate(mmap.PAGESIZE)
            self.map = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    def fail(self, at, forever=False):
        """The at-th allocation from now fails; 0: none does."""
        struct.pack_into('=IIII', self.map, 0, 0, 0, 0, 0)
        struct.pack_into('=II', self.map, 0, at, forever)

    def counts(self):
        """(allocations, how many of them failed) since then."""
        return struct.unpack_from('=II', self.map, 8)


@pytest.fixture
def poor(build, start, share, scratch, connect, monkeypatch):
    """poor(option...): a guest of a daemon whose memory is under control."""
    path = os.path.join(scratch, 'control')
    control = Control(path)

    def make(*options):
        with monkeypatch.context() as patch:
            patch.setenv('FAILING_MALLOC', path)
            patch.setenv('LD_PRELOAD', os.path.join(
                build, 'tests', 'support', 'libfailing-malloc.so'))
            daemon = start(launch.plain, share, scratch, [*OPTIONS, *options])
        daemon.wait_ready()
        return connect(daemon), control

    return make


@pytest.mark.sandboxed
@pytest.mark.unwatched('looked at after each failure')
@pytest.mark.parametrize('options', [(), ('--inode-file-handles=mandatory',)])
@pytest.mark.parametrize('forever', [False, True])
def test_allocation_fails(poor, share, options, forever):
    """The n-th after readiness, or all from it on: ENOMEM for that request, or it does
    without; nothing else happens to the daemon, and nothing is left.
    """
    guest, control = poor(*options)
    client = guest.client
    failures = at = 0
    while True:
        at += 1
        clean(share)
        client.destroy()
        client.init()
        before = sorted(guest.daemon.descriptors().values())
        errand = Errand(client, share)
        control.fail(at, forever)
        errand.run()
        made, failed = control.counts()
        control.fail(0)
        client.destroy()
        client.init()
        assert sorted(guest.daemon.descriptors().values()) == before
        assert errand.words <= {'ENOMEM', 'ENOENT'}, errand.words
        failures += failed
        if failed == 0:
            break
    print(f'{at - 1} places, {failures} allocations failed; {made} in an errand')
    assert failures > 0
    assert errand.failed == 0


@pytest.mark.sandboxed
@pytest.mark.unwatched('its tables keep the size that a crowd needs')
def test_no_address_space(start, share, scratch, connect):
    """No page more than it has: who is known is served, others are refused until there is
    memory again.
    """
    subprocess.run(['mount', '-t', 'tmpfs', 'crowd', share], check=True)
    for number in range(6000):
        os.mknod(os.path.join(share, f'f{number}'))
    daemon = start(launch.plain, share, scratch, ['--cache=auto'])
    daemon.wait_ready()
    guest = connect(daemon)
    client = guest.client
    node = client.lookup(fuse.ROOT, b'f0').nodeid
    handle = client.open(node, os.O_RDWR)[0]
    size = int(daemon.proc_field('VmSize').split()[0]) * 1024
    resource.prlimit(daemon.pid, resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
    refused = 0
    for number in range(6000):
        try:
            client.lookup(fuse.ROOT, b'f%d' % number)
        except fuse.FuseError as error:
            assert error.errno == errno.ENOMEM
            refused += 1
            if refused == 100:
                break
    print(f'{number - refused} files looked up, then ENOMEM')
    assert refused == 100
    assert client.getattr(node).size == 0
    assert client.write(node, handle, b'data') == 4
    client.release(node, handle)
    resource.prlimit(daemon.pid, resource.RLIMIT_AS,
                     (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert client.lookup(fuse.ROOT, b'f5999').nodeid
    subprocess.run(['umount', '-l', share], check=True)


# ---- bounded --------------------------------------------------------------------------

class Cage:
    """A control group of memory, of either version, with one process in it."""

    V1, V2 = '/sys/fs/cgroup/memory', '/sys/fs/cgroup'

    def __init__(self, limit):
        self.is_v1 = os.path.exists(f'{self.V1}/memory.limit_in_bytes')
        self.path = f'{self.V1 if self.is_v1 else self.V2}/virtiofsd-{os.getpid()}'
        os.mkdir(self.path)
        self.put('memory.limit_in_bytes' if self.is_v1 else 'memory.max', limit)

    def put(self, name, value):
        with open(f'{self.path}/{name}', 'w', encoding='ascii') as file:
            file.write(str(value))

    def add(self, pid):
        self.put('cgroup.procs', pid)

    def kills(self):
        name = 'memory.oom_control' if self.is_v1 else 'memory.events'
        with open(f'{self.path}/{name}', encoding='ascii') as file:
            words = dict(line.split() for line in file)
        return int(words['oom_kill'])

    def close(self):
        os.rmdir(self.path)


@pytest.fixture
def cage():
    try:
        made = Cage(LIMIT)
    except OSError as error:
        pytest.skip(f'no control group for memory: {error}')
    yield made
    made.close()


@pytest.mark.unwatched('killed, for the control group to be empty')
def test_writes_in_a_small_group(start, share, scratch, extra_args, cage):
    """4 x 32 writes of 1 MiB, all queued at once, in 64 MiB that hold the file's pages,
    too: nobody is killed, and the daemon's own memory does not grow with them.
    """
    image = os.path.join(scratch, 'image')
    filesystems.make_image(image, 'ext4')
    with filesystems.mounted(share, '-o', 'loop', image):
        daemon = start(launch.plain, share, scratch,
                       [f'--num-request-queues={N_QUEUES}', *extra_args])
        daemon.wait_ready()
        frontend = Frontend(daemon.socket_path, n_request_queues=N_QUEUES,
                            memory_size=(N_QUEUES * N_WRITES + 16) * (2 * MIB + 65536))
        client = frontend.start().client(n_slots=N_QUEUES * N_WRITES + 2)
        client.init()
        entry, handle = client.create(fuse.ROOT, b'file')
        before = int(daemon.proc_field('RssAnon').split()[0])
        cage.add(daemon.pid)
        for number in range(N_QUEUES * N_WRITES):
            body = struct.pack('=QQIIQII', handle, number * MIB, MIB, 0, 0, 0, 0)
            data = bytes([number]) * MIB
            client.submit(client.pack(fuse.WRITE, entry.nodeid, body + data), 24,
                          1 + number % N_QUEUES)
        peak = 0
        for number in range(N_QUEUES * N_WRITES):
            assert client.reap(1 + number % N_QUEUES, timeout=60).errno == 0
            peak = max(peak, int(daemon.proc_field('RssAnon').split()[0]))
        assert cage.kills() == 0 and daemon.is_alive()
        print(f'{before} KiB of its own before, {peak} KiB at most')
        assert peak - before < 20 * 1024 or os.environ.get('VIRTIOFSD_SANITIZER')
        for number in (0, 77, N_QUEUES * N_WRITES - 1):
            assert client.read(entry.nodeid, handle, MIB, number * MIB) == (
                bytes([number]) * MIB)
        frontend.disconnect()
        daemon.wait()


# ---- what goes away -------------------------------------------------------------------

class Holed:
    """A guest with a region whose file the VMM has truncated, and one that is whole."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.frontend = Frontend(daemon.socket_path, separate_files=True)
        self.client = self.frontend.start().client(timeout_ms=2000)
        self.client.init()
        self.node, self.handle = open_new(self.client, b'file')
        for number in range(100):
            assert self.client.write(self.node, self.handle, b'%04d' % number,
                                     4 * number) == 4
        self.good = self.frontend.alloc(MIB)
        self.hole = self.frontend.alloc(MIB, region=self.frontend.add_region(4 * MIB))

    def truncate(self, regions):
        for region in self.frontend.regions():
            if region.index in regions:
                os.ftruncate(region.fd, 0)

    def ask(self, request, n_header, into):
        """Send a request whose header, or all but it, is in the hole."""
        self.good.write(request)
        lead = [(self.good.gpa, n_header)] if n_header else []
        rest = len(request) - n_header
        out = [(self.hole.gpa + 4096, rest)] if rest else []
        queue = self.frontend.queues[1]
        queue.submit(lead + out, into)
        return queue.wait(1.0)

    def error(self, done):
        """What the answer says, which is in the good memory."""
        assert done is not None and done[1] == 16
        return -struct.unpack('=i', self.good.read(4, at=8192 + 4))[0]

    def close(self):
        self.frontend.disconnect()
        assert self.daemon.wait(5) == 0


def open_new(client, name):
    entry, handle = client.create(fuse.ROOT, name)
    return entry.nodeid, handle


@pytest.fixture
def holed(plain, share):
    guest = Holed(plain)
    guest.truncate({guest.frontend.regions()[-1].index})
    yield guest
    assert guest.daemon.is_alive()
    guest.close()
    with open(os.path.join(share, 'file'), 'rb') as file:
        assert file.read() == b''.join(b'%04d' % number for number in range(100))


def io(guest, opcode, data, sent=None):
    body = struct.pack('=QQIIQII', guest.handle, 0, len(data), 0, 0, 0, 0)
    return guest.client.pack(opcode, guest.node, body + (data if sent is None else sent))


@pytest.mark.hostile('vmm-truncated')
@pytest.mark.unwatched('its guest memory is gone')
def test_data_in_a_hole(holed):
    """EFAULT for this request, and nothing else."""
    answer = (holed.good.gpa + 8192, 24)
    done = holed.ask(io(holed, fuse.WRITE, b'x' * 400), 80, [answer])
    assert holed.error(done) == errno.EFAULT
    request = io(holed, fuse.READ, bytes(400), b'')
    done = holed.ask(request, len(request), [(answer[0], 16), (holed.hole.gpa, 400)])
    assert holed.error(done) == errno.EFAULT
    assert holed.client.read(holed.node, holed.handle, 4) == b'0000'


@pytest.mark.hostile('vmm-truncated')
@pytest.mark.unwatched('its guest memory is gone')
@pytest.mark.parametrize('where', ['header', 'answer', 'rings'])
def test_request_in_a_hole(holed, where):
    """The rings stop: nobody can tell any more what the guest wants."""
    answer = (holed.good.gpa + 8192, 200)
    request = holed.client.pack(fuse.STATFS, fuse.ROOT)
    if where == 'header':
        holed.ask(request, 0, [answer])
    elif where == 'answer':
        holed.ask(request, len(request), [(holed.hole.gpa, 200)])
    else:
        kick = native.library().virtqueue_kick_fd(holed.frontend.queues[1].handle)
        holed.truncate({region.index for region in holed.frontend.regions()})
        os.eventfd_write(kick, 1)
    launch.eventually(lambda: 'is stopped: ' in ''.join(
        holed.daemon.reader.lines))
