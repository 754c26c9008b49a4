# SPDX-License-Identifier: Apache-2.0
"""With --cache=auto the guest keeps the pages of a file that nobody has changed from one
open to the next, and never those of one that somebody has.
"""

import contextlib
import mmap
import os
import tempfile
import time

import pytest

import bridge as bridges
import filesystems
import fuse_client as fuse
import launch
import rewriter
from files import write

pytestmark = pytest.mark.sandboxed

KEEP = 2
COUNTED = ('ext4', 'xfs', 'btrfs')
N_FOLDERS = 32
WHILE = 2.1  # seconds, after which a time of change is believed
LONG_WHILE = 61


@pytest.fixture
def guest(scratch, start, connect, extra_args):
    """guest(share, option...): its FUSE client."""
    def begin(share, *options, **more):
        daemon = start(launch.plain, share, scratch, [*options, *extra_args])
        daemon.wait_ready()
        return connect(daemon, **more).client
    return begin


def settle(*paths):
    """What is in the files is on the disk, and has been for a while."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    time.sleep(WHILE)


class File:
    """One file as the guest opens and reads it."""

    def __init__(self, client, name=b'file'):
        self.client = client
        self.node = client.lookup(fuse.ROOT, name).nodeid

    def open(self, flags=os.O_RDONLY):
        """Its handle, and whether pages may be kept."""
        handle, answer = self.client.open(self.node, flags)
        return handle, bool(answer & KEEP)

    def visit(self, flags=os.O_RDONLY, reads=True):
        """Open, read, close; whether pages could be kept."""
        handle, keeps = self.open(flags)
        if reads:
            self.client.read(self.node, handle, 4096)
        self.client.release(self.node, handle)
        return keeps


@pytest.fixture
def kind():
    return 'ext4'


@pytest.fixture(scope='module')
def settled():
    """settled(kind): a folder with a file that nobody has changed for a while. There are
    many in one file system, so that it is waited for once; each is given away once.
    """
    folders = {}
    with contextlib.ExitStack() as undo:
        scratch = undo.enter_context(tempfile.TemporaryDirectory(prefix='vfs-'))

        def take(kind):
            if not folders.get(kind):
                top = undo.enter_context(filesystems.made(
                    kind, os.path.join(scratch, kind), None))
                folders[kind] = [os.path.join(top, f'{i}') for i in range(N_FOLDERS)]
                files = [os.path.join(folder, 'file') for folder in folders[kind]]
                for path in files:
                    os.mkdir(os.path.dirname(path))
                    write(path, b'old' * 1000)
                settle(*files)
            return folders[kind].pop()

        yield take


@pytest.fixture
def share(kind, settled):
    return settled(kind)


def change(path, by):
    if by == 'write':
        with open(path, 'r+b') as file:
            file.write(b'new')
    elif by == 'truncate':
        os.truncate(path, 2000)
    elif by == 'a longer file':
        os.truncate(path, 5000)
    elif by == 'chmod':
        os.chmod(path, 0o600)
    else:
        before = os.stat(path)
        with open(path, 'r+b') as file:
            file.write(b'new')
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize('kind', COUNTED)
def test_an_unchanged_file_keeps_its_pages(share, guest):
    file = File(guest(share))
    assert [file.visit() for _ in range(4)] == [False, True, True, True]
    assert [file.visit(os.O_RDWR) for _ in range(2)] == [True, True]


@pytest.mark.parametrize('by', ('write', 'truncate', 'a longer file', 'chmod',
                                'write, and the time put back'))
def test_a_changed_file_does_not(share, guest, by):
    file = File(guest(share))
    assert [file.visit() for _ in range(2)] == [False, True]
    change(os.path.join(share, 'file'), by)
    assert not file.visit()
    assert not file.visit()  # it was changed just now
    settle(os.path.join(share, 'file'))
    assert [file.visit() for _ in range(2)] == [False, True]


def test_nor_does_one_that_the_guest_wrote(share, guest):
    client = guest(share)
    file = File(client)
    assert [file.visit() for _ in range(2)] == [False, True]
    handle, keeps = file.open(os.O_RDWR)
    assert keeps
    client.write(file.node, handle, b'new')
    client.release(file.node, handle)
    assert [file.visit() for _ in range(2)] == [False, False]


@pytest.mark.parametrize('kind', COUNTED)
def test_a_stored_page_is_waited_for(share, guest):
    """Later stores to it move no time."""
    path = os.path.join(share, 'file')
    file = File(guest(share))
    with open(path, 'r+b') as host, mmap.mmap(host.fileno(), 3000) as pages:
        for _ in range(5):
            pages[0:3] = b'one'
            time.sleep(WHILE)
            kept = [file.visit() for _ in range(3)]
            pages[0:3] = b'two'
            assert not file.visit()
            if kept == [False, False, False]:
                break
        else:
            pytest.fail('kept every time')  # once, somebody may have called sync(2)
        pages.flush()
        time.sleep(WHILE)
        assert [file.visit() for _ in range(2)] == [False, True]
        pages[0:3] = b'two'
        assert not file.visit()


def test_who_has_not_used_its_handle_vouches_for_nothing(share, guest):
    """Its guest may not have got the answer yet, and still have old pages."""
    client = guest(share)
    file = File(client)
    first, keeps = file.open()
    assert not keeps
    assert not file.open()[1]
    client.read(file.node, first, 100)
    assert file.open()[1]
    os.utime(os.path.join(share, 'file'))
    settle(os.path.join(share, 'file'))
    handles = [file.open() for _ in range(3)]
    assert not any(keeps for _, keeps in handles)
    client.release(file.node, handles[1][0])
    assert file.open()[1]


def test_opens_that_read_nothing(share, guest):
    file = File(guest(share))
    assert [file.visit(os.O_WRONLY, reads=False) for _ in range(2)] == [False, False]
    assert [file.visit() for _ in range(2)] == [False, True]
    assert not file.visit(os.O_RDWR | os.O_TRUNC)


@pytest.mark.parametrize('kind', ('tmpfs', 'overlay'))
def test_where_nobody_counts_pages(on, guest, kind):
    """Soon at least."""
    top = on(kind)
    write(os.path.join(top, 'file'), b'old')
    settle(os.path.join(top, 'file'))
    file = File(guest(top))
    assert [file.visit() for _ in range(3)] == [False, False, False]


@pytest.fixture
def in_memory(on, scratch):
    """An overlay with nothing of it on a disk."""
    lower = os.path.join(scratch, 'none')
    os.mkdir(lower)
    with filesystems.overlay(lower, on('tmpfs'), os.path.join(scratch, 'merged')) as top:
        yield top


@pytest.mark.soak
@pytest.mark.timeout(400)
@pytest.mark.parametrize('place', ('tmpfs', 'overlay', 'in_memory'))
def test_what_nobody_counts_after_a_minute(request, on, guest, place):
    """On a disk it has been written back then; in memory it never is."""
    top = request.getfixturevalue(place) if place == 'in_memory' else on(place)
    path = os.path.join(top, 'file')
    write(path, b'old' * 1000)
    file = File(guest(top))
    with open(path, 'r+b') as host, mmap.mmap(host.fileno(), 3000) as pages:
        pages[0:3] = b'one'
        time.sleep(LONG_WHILE)
        kept = [file.visit() for _ in range(2)]
        assert kept == [False, place == 'overlay']
        pages[0:3] = b'two'
        assert not file.visit()


@pytest.mark.parametrize('options, more', (
    (('--writeback',), {}), (('--cache=never',), {}), (('--cache=metadata',), {})))
def test_other_caches(share, guest, options, more):
    file = File(guest(share, *options, **more))
    assert [file.visit() for _ in range(3)] == [False, False, False]


@pytest.fixture
def mounted(scratch, start, extra_args, build, monkeypatch):
    """mounted(share): a FUSE client's mount of it, and the number of reads so far."""
    monkeypatch.setenv('VIRTIOFSD_BUILD', build)
    undo = contextlib.ExitStack()

    def begin(share):
        target = os.path.join(scratch, 'mount')
        os.mkdir(target)
        daemon = start(launch.plain, share, scratch, extra_args)
        daemon.wait_ready()
        bridge = undo.enter_context(bridges.Bridge(daemon.socket_path, target))
        bridge.wait_mounted()
        undo.callback(bridge.unmount)

        def n_reads():
            lines = daemon.proc('io').splitlines()
            return dict(line.split(': ') for line in lines)['syscr']
        return target, lambda: int(n_reads())

    with undo:
        yield begin


def test_a_client_sends_no_read(share, mounted):
    """It opens the file, and reads it from its memory; once at least, since whoever else
    drops the caches of this machine makes it read again.
    """
    target, n_reads = mounted(share)
    counts = [n_reads()]
    for _ in range(10):
        with open(os.path.join(target, 'file'), 'rb') as file:
            assert len(file.read()) == 3000
        counts.append(n_reads())
    assert counts[1] > counts[0]
    assert any(one == other for one, other in zip(counts[1:], counts[2:]))


PLACES = (*COUNTED, 'ext4 with times in seconds', 'tmpfs', 'overlay')


@pytest.mark.timeout(600)
@pytest.mark.parametrize('kind', PLACES)
def test_no_old_bytes(on, mounted, kind):
    rewrite(on, mounted, kind, 4000, 1 / 20)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize('kind', PLACES)
def test_no_old_bytes_at_length(on, mounted, kind):
    rewrite(on, mounted, kind, 100000, 1 / 100)


def rewrite(on, mounted, kind, n, least):
    """A process of the host rewrites files in place while the guest opens and reads. That
    part of the opens, at least, sends no read; it is the smaller, the longer it takes,
    since in the beginning most files are old.
    """
    share = on('ext4', '-I', '128') if ' ' in kind else on(kind)
    target, n_reads = mounted(share)
    with rewriter.Rewriter(share, n) as host:
        n_looks, silent = host.watch(target, n_reads)
    print(f'{kind}: {n} rewrites, {n_looks} opens, of which {silent} sent no read')
    assert silent > n_looks * least or kind not in COUNTED
