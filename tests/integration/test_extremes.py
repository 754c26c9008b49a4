# SPDX-License-Identifier: Apache-2.0
"""As many, as deep, as long and as old as the host allows; volumes that come and go; one
queue that floods.
"""

import errno
import os
import re
import stat
import struct
import subprocess
import threading
import time

import pytest

import filesystems
import fuse_client as fuse
import launch
from fuse_client import errno_of
from process import eventually
from strace import Strace

DEEP, DEEP_FEW = 2000, 500
SETATTR_TIMES = 16 | 32


# ---- as many --------------------------------------------------------------------------

def open_until_refused(client, nodes):
    """Handles, one more than fits; what the guest is told is ENFILE or EMFILE."""
    handles = []
    while True:
        node = nodes[len(handles) % len(nodes)]
        try:
            handles.append((node, client.open(node, os.O_RDWR)[0]))
        except fuse.FuseError as error:
            assert error.errno in (errno.ENFILE, errno.EMFILE)
            return handles


def use_without_room(client, nodes, handles):
    """All but opens goes on."""
    node, handle = handles[0]
    for number, known in enumerate(nodes):
        assert client.lookup(fuse.ROOT, b'f%d' % number).nodeid == known
        assert client.getattr(known).size == 4
        client.forget(known)
    assert client.read(node, handle, 4) == b'data'
    assert client.write(node, handle, b'data') == 4
    folder = client.mkdir(fuse.ROOT, b'folder').nodeid
    client.symlink(folder, b'link', b'target')
    client.rename(fuse.ROOT, b'f0', folder, b'f0')
    client.setattr(nodes[0], 1, mode=0o600)
    client.rename(folder, b'f0', fuse.ROOT, b'f0')
    client.unlink(folder, b'link')
    client.rmdir(fuse.ROOT, b'folder')
    assert client.statfs()


@pytest.mark.hostile('many-open')
@pytest.mark.parametrize('limit', [
    256, pytest.param(20_000, marks=pytest.mark.soak)])
def test_open_until_no_more(start, share, scratch, extra_args, connect, limit):
    for number in range(20):
        with open(os.path.join(share, f'f{number}'), 'wb') as file:
            file.write(b'data')
    daemon = start(launch.plain, share, scratch,
                   [f'--rlimit-nofile={limit}', *extra_args])
    daemon.wait_ready()
    client = connect(daemon).client
    nodes = [client.lookup(fuse.ROOT, b'f%d' % number).nodeid for number in range(20)]
    for _ in range(3):
        handles = open_until_refused(client, nodes)
        n = len(daemon.descriptors())
        assert limit // 4 < len(handles) and n <= limit - 32, 'nothing is kept in reserve'
        use_without_room(client, nodes, handles)
        for node, handle in handles:
            client.release(node, handle)
        assert errno_of(client.open, nodes[1]) == 0
    print(f'{len(handles)} of {limit} open; {limit - n} in reserve')
    assert len(daemon.reader.lines) <= 3, daemon.reader.lines


# ---- as deep and as long --------------------------------------------------------------

@pytest.fixture
def volatile(share):
    """The share in memory, with room for names and attributes, and gone afterwards
    however deep it is.
    """
    with filesystems.mounted(share, '-t', 'tmpfs', 'volatile'):
        yield share


@pytest.mark.parametrize('depth,options', [
    (DEEP, ()), (DEEP_FEW, ('--rlimit-nofile=160',))])
def test_deep(volatile, serve, depth, options):
    """Made, listed, used, renamed at its top, and removed from below: with few
    descriptors each directory is found again a name at a time.
    """
    guest = serve(*options)
    client, nodes = guest.client, [fuse.ROOT]
    for _ in range(depth):
        nodes.append(client.mkdir(nodes[-1], b'd').nodeid)
    entry, handle = client.create(nodes[-1], b'file')
    assert client.write(entry.nodeid, handle, b'deep') == 4
    client.release(entry.nodeid, handle)
    time.sleep(0.05)
    client.rename(fuse.ROOT, b'd', fuse.ROOT, b'top')
    for node in (nodes[-1], nodes[depth // 2], nodes[1]):
        assert stat.S_ISDIR(client.getattr(node).mode)
    found = client.listdir(nodes[-1], plus=True)
    assert [name.name for name in found if name.name not in (b'.', b'..')] == [b'file']
    client.unlink(nodes[-1], b'file')
    for parent in reversed(nodes[1:-1]):
        client.rmdir(parent, b'd')
    client.rmdir(fuse.ROOT, b'top')
    assert os.listdir(volatile) == []


def test_long(share, scratch, serve):
    """Names, link targets and attribute values as long as the host's are."""
    image = os.path.join(scratch, 'image')
    filesystems.make_image(image, 'xfs')
    with filesystems.mounted(share, '-o', 'loop', image):
        guest = serve('--xattr')
        client = guest.client
        name = b'n' * 255
        node = client.mkdir(fuse.ROOT, name).nodeid
        assert client.lookup(fuse.ROOT, name).nodeid == node
        for act in (client.mkdir, client.lookup, client.unlink):
            assert errno_of(act, fuse.ROOT, name + b'n') == errno.ENAMETOOLONG
        target = b't' * 1023  # what XFS takes
        link = client.symlink(fuse.ROOT, b'link', target).nodeid
        assert client.readlink(link) == target
        assert errno_of(client.symlink, fuse.ROOT, b'l', b't' * 4096) in (
            errno.ENAMETOOLONG, errno.EINVAL)
        value = os.urandom(65536)
        client.setxattr(node, b'user.big', value)
        assert client.getxattr(node, b'user.big', 65536) == value
        assert os.getxattr(os.path.join(os.fsencode(share), name), 'user.big') == value
        assert errno_of(client.setxattr, node, b'user.big', value + b'x') == errno.E2BIG
        guest.frontend.close()
        assert guest.daemon.wait() == 0


def test_long_links(volatile, serve):
    client = serve().client
    link = client.symlink(fuse.ROOT, b'link', b't' * 4095).nodeid
    assert client.readlink(link) == b't' * 4095
    assert os.readlink(os.path.join(volatile, 'link')) == 't' * 4095
    wrong = errno_of(client.symlink, fuse.ROOT, b'l', b't' * 4096)
    assert wrong in (errno.ENAMETOOLONG, errno.EINVAL)


# ---- as old ---------------------------------------------------------------------------

SECONDS = (-(1 << 33), -(1 << 31), -3, -1, 0, 1, (1 << 31) - 1, 1 << 31, (1 << 32) + 1,
           1 << 34, 1 << 40)


@pytest.fixture(params=['tmpfs', 'ext4', 'xfs'])
def on_kind(request, share, scratch):
    """The share, on a file system of that kind."""
    words = ('-t', 'tmpfs', 'times')
    if request.param != 'tmpfs':
        image = os.path.join(scratch, 'image')
        filesystems.make_image(image, request.param)
        words = ('-o', 'loop', image)
    with filesystems.mounted(share, *words):
        yield share


def test_times(on_kind, serve):
    """Before 1970 and after 2038, to the nanosecond, or what the host makes of it."""
    for name in ('ours', 'native'):
        os.mknod(os.path.join(on_kind, name))
    guest = serve()
    client = guest.client
    node = client.lookup(fuse.ROOT, b'ours').nodeid
    ours, native = (os.path.join(on_kind, name) for name in ('ours', 'native'))
    exact = 0
    for seconds in SECONDS:
        for nanos in (0, 1, 999_999_999):
            attr = client.setattr(node, SETATTR_TIMES, atime=seconds & (1 << 64) - 1,
                                  mtime=seconds & (1 << 64) - 1, atimensec=nanos,
                                  mtimensec=nanos)
            os.utime(native, ns=(seconds * 10**9 + nanos,) * 2)
            want = os.stat(native).st_mtime_ns
            for told in (attr, client.getattr(node)):
                signed = struct.unpack('=q', struct.pack('=Q', told.mtime))[0]
                assert signed * 10**9 + told.mtimensec == want
            assert os.stat(ours).st_mtime_ns == want == os.stat(ours).st_atime_ns
            exact += want == seconds * 10**9 + nanos
    print(f'{exact} of {3 * len(SECONDS)} kept to the nanosecond, others as natively')
    assert exact >= 3 * 6
    guest.frontend.close()
    assert guest.daemon.wait() == 0


# ---- special files --------------------------------------------------------------------

SPECIAL = ((b'fifo', stat.S_IFIFO, 0), (b'socket', stat.S_IFSOCK, 0),
           (b'null', stat.S_IFCHR, 0x103), (b'tty', stat.S_IFCHR, 0x500),
           (b'block', stat.S_IFBLK, 0x700))


def use_special(client, name, node):
    """Everything that could open it; how long the longest took."""
    read = struct.pack('=QQIIQII', 1, 0, 64, 0, 0, 0, 0)
    size = struct.pack('=II6Q8I', 8, 0, *[0] * 14)
    bodies = [(fuse.OPEN, struct.pack('=II', flags, 0)) for flags in (
        os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_NONBLOCK,
        os.O_RDONLY | os.O_DIRECTORY, os.O_PATH, os.O_RDWR | os.O_CREAT)]
    bodies += [(fuse.OPENDIR, struct.pack('=II', 0, 0)), (fuse.SETATTR, size),
               (fuse.READ, read), (fuse.READLINK, b''),
               (fuse.COPY_FILE_RANGE, struct.pack('=7Q', 1, 0, node, 1, 0, 16, 0)),
               (fuse.SETUPMAPPING, struct.pack('=5Q', 1, 0, 4096, 0, 0)),
               (fuse.IOCTL, struct.pack('=QIIQII', 1, 0, 0x80086601, 0, 0, 8)),
               (fuse.FALLOCATE, struct.pack('=QQQII', 1, 0, 10, 0, 0)),
               (fuse.SETXATTR, struct.pack('=II', 5, 0) + b'user.a\0value'),
               (fuse.GETXATTR, struct.pack('=II', 64, 0) + b'user.a\0')]
    slowest = 0
    for opcode, body in bodies:
        begin = time.monotonic()
        reply = client.send(opcode, node, body)
        slowest = max(slowest, time.monotonic() - begin)
        assert reply.is_well_formed and reply.errno != 0, (name, opcode)
    for flags in (os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_EXCL):
        create = struct.pack('=IIII', flags | os.O_CREAT, 0o600, 0, 0) + name + b'\0'
        begin = time.monotonic()
        assert client.send(fuse.CREATE, fuse.ROOT, create).errno != 0, (name, flags)
        slowest = max(slowest, time.monotonic() - begin)
    client.getattr(node)
    client.setattr(node, 1, mode=0o600)
    return slowest


@pytest.mark.hostile('special-open', 'special-truncate', 'special-copy',
                     'special-mapping', 'special-xattr', 'hang-fifo')
@pytest.mark.sandboxed
@pytest.mark.parametrize('how', ['descriptor', 'name', 'handle'])
def test_special_files_as_strace_sees_it(serve, share, scratch, how):
    """No system call opens one, but with O_PATH; none blocks."""
    options = ['--inode-file-handles=mandatory'] if how == 'handle' else []
    guest = serve('--xattr', *options)
    client = guest.client
    for name, mode, rdev in SPECIAL:
        client.mknod(fuse.ROOT, name, mode | 0o666, rdev)
    client.destroy()
    client.init()
    time.sleep(0.05)
    nodes = {entry.name: entry.entry.nodeid
             for entry in client.listdir(fuse.ROOT, plus=True)}
    strace = Strace(guest.daemon, scratch, '-e',
                    'trace=openat2,openat,open,open_by_handle_at,truncate')
    slowest = 0
    for name, _, _ in SPECIAL:
        node = nodes[name] if how == 'name' else client.lookup(fuse.ROOT, name).nodeid
        slowest = max(slowest, use_special(client, name, node))
    strace.stop()
    with open(strace.path, encoding='utf-8', errors='replace') as file:
        calls = [line for line in file if re.search(r'open|truncate', line)]
    opened = [line for line in calls if 'O_PATH' not in line and ' = -1 ' not in line]
    print(f'{how}: {len(calls)} calls, {len(opened)} opened something; '
          f'{slowest * 1e3:.1f} ms at most')
    assert opened == []
    assert slowest < 0.5


# ---- volumes that come and go ---------------------------------------------------------

class Walker(threading.Thread):
    """A guest that goes through the share, again and again, and forgets what it saw."""

    def __init__(self, client):
        super().__init__(daemon=True)
        self.client, self.is_over, self.rounds = client, False, 0
        self.seen, self.errnos, self.error = 0, set(), None
        self.start()

    def attempt(self, function, *args):
        try:
            return function(*args)
        except fuse.FuseError as error:
            self.errnos.add(errno.errorcode[error.errno])
            return None

    def walk(self):
        client = self.client
        volume = self.attempt(client.lookup, fuse.ROOT, b'volume')
        if not volume:
            return
        file = self.attempt(client.lookup, volume.nodeid, b'file')
        if file:
            opened = self.attempt(client.open, file.nodeid)
            if opened:
                data = self.attempt(client.read, file.nodeid, opened[0], 100)
                assert data in (None, b'of the volume')
                self.seen += data is not None
                client.release(file.nodeid, opened[0])
            client.forget(file.nodeid)
        client.forget(volume.nodeid)

    def run(self):
        try:
            while not self.is_over:
                self.walk()
                self.rounds += 1
                time.sleep(0.002)  # a guest that asks without a pause keeps all open
        except Exception as error:  # told to the test
            self.error = error

    def finish(self):
        self.is_over = True
        self.join()
        assert self.error is None, self.error


def mount_often(walker, source, target, n):
    """(the longest that an unmount had to wait, how often it was busy at first)."""
    slowest = busy = 0
    for _ in range(n):
        seen = walker.seen
        subprocess.run(['mount', '--bind', source, target], check=True)
        eventually(lambda seen=seen: walker.seen > seen or walker.error)
        begin = time.monotonic()
        while subprocess.run(['umount', target], check=False,
                             stderr=subprocess.DEVNULL).returncode != 0:
            busy += 1
            assert time.monotonic() - begin < 10, 'busy'
        slowest = max(slowest, time.monotonic() - begin)
        rounds = walker.rounds
        eventually(lambda rounds=rounds: walker.rounds > rounds or walker.error)
    return slowest, busy


@pytest.mark.hostile('escape-bind-later', 'escape-mount-points')
@pytest.mark.sandboxed
@pytest.mark.parametrize('n', [20, pytest.param(200, marks=pytest.mark.soak)])
@pytest.mark.parametrize('how', ['never', 'mandatory'])
def test_volume_comes_and_goes(share, scratch, serve, how, n):
    """Again and again, under a guest that walks: it never keeps the host from unmounting
    for a second, and what it meets is the volume, or nothing.
    """
    source = os.path.join(scratch, 'source')
    os.mkdir(source)
    with filesystems.mounted(share, '-t', 'tmpfs', 'run'):
        subprocess.run(['mount', '--make-shared', share], check=True)
        with filesystems.mounted(source, '-t', 'tmpfs', 'volume'):
            with open(os.path.join(source, 'file'), 'wb') as file:
                file.write(b'of the volume')
            target = os.path.join(share, 'volume')
            os.mkdir(target)
            guest = serve(f'--inode-file-handles={how}')
            walker = Walker(guest.client)
            try:
                slowest, busy = mount_often(walker, source, target, n)
            finally:
                walker.finish()
            print(f'{how}: {walker.rounds} walks, {walker.errnos}; unmounted after '
                  f'{slowest * 1e3:.0f} ms at most, {busy} times busy at first')
            assert walker.errnos <= {'ENOENT', 'ESTALE'}
        guest.frontend.close()
        assert guest.daemon.wait() == 0


# ---- one queue that floods ------------------------------------------------------------

def flood(build, daemon, kind, n):
    done = subprocess.run([os.path.join(build, 'tests', 'support', 'flood'),
                           daemon.socket_path, kind, str(n)], check=True, timeout=150,
                          stdout=subprocess.PIPE, encoding='ascii')
    print(f'{kind}: {done.stdout}'.replace('\n', '; '))
    return {line.split()[0]: {name: int(us) for name, us in re.findall(
        r'(p50|p99|max)=(\d+)', line)} for line in done.stdout.splitlines()}


@pytest.mark.sandboxed
@pytest.mark.unwatched('its guest is a program that keeps no account')
@pytest.mark.parametrize('pool', [0, 1])
@pytest.mark.parametrize('kind', ['readdirplus', 'getxattr', 'forget'])
def test_flooded_queue(build, start, share, scratch, kind, pool):
    """480 requests in flight, always: reads on another queue are served all the same."""
    with open(os.path.join(share, 'file'), 'wb') as file:
        file.write(os.urandom(65536))
    for number in range(100):
        os.mknod(os.path.join(share, f'f{number}'))
    daemon = start(launch.plain, share, scratch,
                   ['--num-request-queues=2', f'--thread-pool-size={pool}', '--xattr'])
    daemon.wait_ready()
    found = flood(build, daemon, kind, 500)
    assert found['flooded']['p50'] < 20_000  # without turns it is for ever
    assert found['flooded']['p99'] < 500_000
    assert daemon.wait() == 0
