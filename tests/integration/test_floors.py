# SPDX-License-Identifier: Apache-2.0
"""How many system calls a request costs, beside the wait for it and the answer's
interrupt: exactly.
"""

import collections
import os

import pytest

import fuse_client as fuse
import launch
from files import write
from strace import Strace

pytestmark = [pytest.mark.sandboxed, pytest.mark.unwatched('strace is in its way')]

N = 8
# Waiting for requests, telling the guest, and memory for more inodes.
OF_NO_REQUEST = {'epoll_wait', 'epoll_pwait', 'write', 'futex', 'restart_syscall', 'mmap',
                 'munmap', 'mprotect', 'brk', 'timerfd_settime'}
N_ENTRIES = 40
N_UNKNOWN = 5 * (N + 1)


KATA = ('--thread-pool-size=1', '--announce-submounts')


def populate(share):
    os.mkdir(os.path.join(share, 'dir'))
    for i in range(N_ENTRIES):
        write(os.path.join(share, 'dir', f'entry{i}'), b'')
    for i in range(N_UNKNOWN):
        write(os.path.join(share, f'new{i}'), b'')
    write(os.path.join(share, 'file'), b'x' * 8192)
    write(os.path.join(share, 'one'), b'')


class Scene:
    """A guest, and the node ids of what is in its share."""

    def __init__(self, client):
        self.client = client
        self.file = client.lookup(fuse.ROOT, b'file').nodeid
        self.dir = client.lookup(fuse.ROOT, b'dir').nodeid
        self.handle, _ = client.open(self.file, os.O_RDWR)
        self.n_known = 0
        self.names = (b'one', b'other')

    def next_name(self):
        """Of a file that the guest does not know yet."""
        self.n_known += 1
        return b'new%d' % (self.n_known - 1)


def failing(function, *args):
    with pytest.raises(fuse.FuseError):
        function(*args)


def create(s):
    entry, handle = s.client.create(fuse.ROOT, b'made')
    s.client.write(entry.nodeid, handle, b'x' * 4096)
    s.client.release(entry.nodeid, handle)
    s.client.unlink(fuse.ROOT, b'made')


def renamed(s):
    s.client.rename(fuse.ROOT, s.names[0], fuse.ROOT, s.names[1])
    s.names = s.names[::-1]


def listing(s, opcode):
    handle = s.client.opendir(s.dir)
    s.client.read(s.dir, handle, 1 << 16, opcode=opcode)
    s.client.release(s.dir, handle, opcode=fuse.RELEASEDIR)


def opened(s, node=None):
    node = node or s.file
    s.client.release(node, s.client.open(node)[0])


def looked_up(s):
    return s.client.lookup(fuse.ROOT, s.next_name()).nodeid


def asked_twice(s):
    node = looked_up(s)
    s.client.getattr(node)
    s.client.getattr(node)


def unlinked(s):
    name = s.next_name()
    node = s.client.lookup(fuse.ROOT, name).nodeid
    s.client.unlink(fuse.ROOT, name)
    s.client.forget(node, 1)


# What is called for one operation of each kind; the first is not counted.
ROWS = {
    'unknown opcode': (lambda s: failing(s.client.call, 9999), ''),
    'LOOKUP, known name': (lambda s: s.client.lookup(fuse.ROOT, b'file'), 'statx'),
    'LOOKUP, new inode': (looked_up, 'statx'),
    'LOOKUP, no such name': (lambda s: failing(s.client.lookup, fuse.ROOT, b'none'),
                             'statx'),
    'LOOKUP, GETATTR': (lambda s: s.client.getattr(looked_up(s)),
                        'statx statx'),
    'LOOKUP, GETATTR, GETATTR': (asked_twice, 'statx statx openat2 statx'),
    'LOOKUP, UNLINK, FORGET': (unlinked, 'statx statx openat2 statx unlinkat close'),
    'GETATTR': (lambda s: s.client.getattr(s.file), 'statx'),
    'SETATTR (chmod)': (lambda s: s.client.setattr(s.file, 1, mode=0o640),
                        'fchmodat statx'),
    'OPEN + RELEASE': (opened, 'openat2 statx close'),
    'LOOKUP, OPEN + RELEASE': (lambda s: opened(s, looked_up(s)),
                               'statx openat2 statx openat2 close'),
    'CREATE + WRITE + RELEASE + UNLINK': (
        create, 'openat2 openat2 statx pwritev2 close unlinkat'),
    'RENAME': (renamed, 'statx renameat2'),
    'READ': (lambda s: s.client.read(s.file, s.handle, 4096), 'preadv2'),
    'WRITE': (lambda s: s.client.write(s.file, s.handle, b'x' * 4096), 'pwritev2'),
    'FLUSH': (lambda s: s.client.flush(s.file, s.handle), ''),
    'OPENDIR + READDIR + RELEASEDIR': (lambda s: listing(s, fuse.READDIR),
                                       'openat2 getdents64 close'),
    'OPENDIR + READDIRPLUS + RELEASEDIR': (
        lambda s: listing(s, fuse.READDIRPLUS),
        'openat2 getdents64 close' + ' statx' * N_ENTRIES),
    'GETXATTR, absent': (lambda s: failing(s.client.getxattr, s.file, b'user.none'),
                         'getxattr'),
    'STATFS': (lambda s: s.client.statfs(), 'fstatfs'),
}
# With --cache=never nobody keeps pages, and an OPEN does not ask.
UNCACHED = {**ROWS, 'OPEN + RELEASE': (opened, 'openat2 close')}


@pytest.mark.parametrize('cache, rows', (('auto', ROWS), ('never', UNCACHED)))
def test_calls_of_each_request(on, start, scratch, connect, cache, rows):
    share = on('ext4')
    populate(share)
    daemon = start(launch.plain, share, scratch,
                   ['--xattr', f'--cache={cache}', *KATA])
    daemon.wait_ready()
    scene = Scene(connect(daemon).client)
    wrong = []
    for name, (run, expected) in rows.items():
        run(scene)
        trace = Strace(daemon, scratch)
        for _ in range(N):
            run(scene)
        seen = collections.Counter(trace.calls())
        for call in OF_NO_REQUEST:
            del seen[call]
        if seen != collections.Counter(expected.split() * N):
            wrong.append(f'{name}: {dict(seen)} for {N}, not each {expected!r}')
    assert not wrong, '\n'.join(wrong)
