# SPDX-License-Identifier: Apache-2.0
"""Who asks: what a request makes is its caller's, who may do what Linux lets him do, and
nothing stays behind on the thread that served it. The measure is what the same calls
do on the host's own file system.
"""

import errno
import itertools
import os
import stat
import struct
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), 'support'))

import fuse_client as fuse  # noqa: E402
import launch  # noqa: E402
from callers import make_as, natively  # noqa: E402
from strace import Strace  # noqa: E402


def looks(path):
    """What of a file must be as on the host."""
    found = os.lstat(path)
    return found.st_mode, found.st_uid, found.st_gid, found.st_size


def tell_folder(path, mode, uid, gid):
    os.mkdir(path)
    os.chown(path, uid, gid)
    os.chmod(path, mode)


# ---- what is made ---------------------------------------------------------------------

CALLERS = (
    (0, 0, ()), (0, 1000, ()), (1000, 0, ()), (1000, 1000, ()), (1000, 1000, (77,)),
    (0, 0, (77,)), (1001, 1000, (1000, 77, 5)), (4294967294, 4294967294, ()),
)
FOLDERS = {
    'open': (0o777, 0, 0), 'root': (0o2777, 0, 0), 'own': (0o2777, 1000, 1000),
    'group': (0o2777, 0, 77), 'closed': (0o750, 0, 77), 'members': (0o2770, 0, 77),
    'sticky': (0o1777, 0, 0),
}
MODES = (0o644, 0o755, 0o2755, 0o2745, 0o6777, 0o4711)


def request_of(kind, name, mode):
    """(opcode, body) that make something."""
    name += b'\0'
    if kind == 'file':
        return fuse.CREATE, struct.pack('=IIII', os.O_RDWR | os.O_CREAT, mode, 0,
                                        0) + name
    if kind == 'folder':
        return fuse.MKDIR, struct.pack('=II', mode, 0) + name
    if kind == 'fifo':
        return fuse.MKNOD, struct.pack('=IIII', stat.S_IFIFO | mode, 0, 0, 0) + name
    return fuse.SYMLINK, name + b'to\0'


def native_call(kind, path, mode):
    return {
        'file': lambda: os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode),
        'folder': lambda: os.mkdir(path, mode),
        'fifo': lambda: os.mkfifo(path, mode),
        'link': lambda: os.symlink('to', path),
    }[kind]


def test_what_is_made(serve, share, scratch):
    """Owner, group, set-id bits (CVE-2018-13405, CVE-2022-0358), and who is refused."""
    guest = serve()
    twin = os.path.join(scratch, 'twin')
    os.mkdir(twin)
    os.chmod(scratch, 0o755)
    nodes = {}
    for name, (mode, uid, gid) in FOLDERS.items():
        tell_folder(os.path.join(share, name), mode, uid, gid)
        tell_folder(os.path.join(twin, name), mode, uid, gid)
        nodes[name] = guest.client.lookup(fuse.ROOT, name.encode()).nodeid
    number, made = 0, 0
    for caller, folder, mode, kind in itertools.product(
            CALLERS, FOLDERS, MODES, ('file', 'folder', 'fifo', 'link')):
        number += 1
        name = f'{number}'
        uid, gid, groups = caller
        theirs = os.path.join(twin, folder, name)
        expected = natively(native_call(kind, theirs, mode), uid, gid, groups)
        opcode, body = request_of(kind, name.encode(), mode)
        reply = make_as(guest.client, caller, opcode, nodes[folder], body)
        what = (caller, folder, oct(mode), kind)
        assert reply.errno == expected, what
        if expected == 0:
            made += 1
            assert looks(os.path.join(share, folder, name)) == looks(theirs), what
            entry = fuse.Entry(reply.payload[:128]).attr
            assert (entry.mode, entry.uid, entry.gid) == looks(theirs)[:3], what
    assert made > number / 2


@pytest.mark.hostile('peer-groups')
def test_groups_are_given_back(serve, share):
    """Groups of a request by root let nobody in who comes after it on that thread."""
    guest = serve('--thread-pool-size=0')
    tell_folder(os.path.join(share, 'closed'), 0o770, 0, 1000)
    closed = guest.client.lookup(fuse.ROOT, b'closed').nodeid

    def make(caller, name):
        return make_as(guest.client, caller, fuse.MKDIR, closed,
                       struct.pack('=II', 0o755, 0) + name + b'\0').errno

    stranger = (1001, 1001, ())
    assert make(stranger, b'one') == errno.EACCES
    assert make((0, 0, (1000,)), b'two') == 0
    assert make(stranger, b'three') == errno.EACCES
    assert make((1001, 1001, (1000,)), b'four') == 0
    assert make(stranger, b'five') == errno.EACCES
    for thread in guest.daemon.threads():
        text = guest.daemon.proc(f'task/{thread}/status')
        fields = dict(line.split(':', 1) for line in text.splitlines())
        assert fields['Groups'].split() == []
        assert fields['Uid'].split() == fields['Gid'].split() == ['0'] * 4


def test_groups_not_told(serve, share):
    """Where the guest's kernel tells no groups, it has checked; what is made is the
    caller's all the same.
    """
    guest = serve(flags=fuse.LINUX_INIT_FLAGS & ~(1 << 34))
    tell_folder(os.path.join(share, 'closed'), 0o2770, 0, 1000)
    closed = guest.client.lookup(fuse.ROOT, b'closed').nodeid
    with guest.client.identity(1001, 1002):
        entry, _ = guest.client.create(closed, b'file', 0o2755)
    assert (entry.attr.uid, entry.attr.gid) == (1001, 1000)
    assert entry.attr.mode == stat.S_IFREG | 0o755


def test_existing_is_opened_as_the_caller(serve, share, scratch):
    """CREATE of what is there: the guest's kernel has not checked the file."""
    guest = serve()
    os.chmod(scratch, 0o755)
    path = os.path.join(share, 'file')
    for mode, owner, caller, flags in itertools.product(
            (0o600, 0o644, 0o640, 0o606), ((0, 0), (1000, 1000), (0, 1000)),
            ((0, 0, ()), (1000, 1000, ()), (1001, 1001, (1000,)), (1001, 1001, ())),
            (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_TRUNC)):
        with open(path, 'wb') as file:
            file.write(b'content')
        os.chown(path, *owner)
        os.chmod(path, mode)
        uid, gid, groups = caller
        expected = natively(lambda: os.close(os.open(path, flags)), uid, gid, groups)
        body = struct.pack('=IIII', flags | os.O_CREAT, 0o666, 0, 0) + b'file\0'
        reply = make_as(guest.client, caller, fuse.CREATE, fuse.ROOT, body)
        assert reply.errno == expected, (oct(mode), owner, caller, flags)
        if expected == 0:
            handle = struct.unpack_from('=Q', reply.payload, 128)[0]
            guest.client.release(fuse.Entry(reply.payload[:128]).nodeid, handle)


def test_nobody(serve, share):
    """-1 is nobody's id: nothing is made for it, nothing is given to it, and what is not
    about it is served (ALLOW_IDMAP).
    """
    guest = serve(flags=fuse.LINUX_INIT_FLAGS | 1 << 34 | 1 << 40)
    assert guest.agreed & 1 << 40
    client, nobody = guest.client, 0xFFFFFFFF
    entry, handle = client.create(fuse.ROOT, b'file', 0o644)
    node = entry.nodeid
    with client.identity(nobody):
        for kind in ('file', 'folder', 'fifo', 'link'):
            opcode, body = request_of(kind, b'new', 0o644)
            assert client.send(opcode, fuse.ROOT, body).errno == errno.EINVAL
        for valid in (2, 4, 6):
            assert fuse.errno_of(client.setattr, node, valid, uid=nobody,
                                 gid=nobody) == errno.EINVAL
        assert client.write(node, handle, b'content', write_flags=4) == 7
        assert client.read(node, handle, 10) == b'content'
        client.setattr(node, 1, mode=0o600)
        client.setattr(node, 8, size=3)
        client.fallocate(node, handle, 0, 0, 10)
        client.rename(fuse.ROOT, b'file', fuse.ROOT, b'moved')
        client.link(node, fuse.ROOT, b'other')
        client.unlink(fuse.ROOT, b'other')
        client.lookup(fuse.ROOT, b'moved')
        assert len(client.listdir(fuse.ROOT, plus=True)) == 3
        client.fsync(node, handle)
        client.release(node, handle)
    assert looks(os.path.join(share, 'moved')) == (stat.S_IFREG | 0o600, 0, 0, 10)


# ---- system calls ---------------------------------------------------------------------

IDENTITY_CALLS = {'setresuid', 'setresgid', 'setgroups', 'capset', 'capget', 'umask',
                  'setfsuid', 'setfsgid', 'setreuid', 'setregid', 'prctl', 'getgroups'}


@pytest.mark.sandboxed
@pytest.mark.parametrize('caller, told, expected', [
    ((0, 0, ()), True, []),
    ((0, 0, (5, 6)), True, []),
    ((0, 0, ()), False, []),
    ((0, 9, ()), True, ['setresgid'] * 2),
    ((9, 0, ()), True, ['setresuid'] * 2),
    ((9, 9, ()), True, ['setresgid', 'setresuid', 'setresuid', 'setresgid']),
    ((9, 9, (5,)), True, ['setgroups', 'setresgid', 'setresuid', 'setresuid', 'setresgid',
                          'setgroups']),
    ((9, 9, ()), False, ['setresgid', 'setresuid', 'capset', 'setresuid', 'setresgid']),
])
def test_system_calls(serve, scratch, share, caller, told, expected):
    """Root's requests change nothing, all others as little as there is to change."""
    guest = serve(flags=fuse.LINUX_INIT_FLAGS & ~(1 << 34) | told << 34)
    os.chmod(share, 0o777)
    strace = Strace(guest.daemon, scratch)
    reply = make_as(guest.client, caller, fuse.MKDIR, fuse.ROOT,
                    struct.pack('=II', 0o755, 0o22) + b'name\0')
    calls = strace.calls()
    assert reply.errno == 0
    assert [call for call in calls if call in IDENTITY_CALLS] == expected
    assert calls.count('mkdirat') == 1


# ---- threads that cannot get back -----------------------------------------------------

def lose(guest, name):
    """A request after which its thread is somebody else for good."""
    with guest.client.identity(1000):
        return fuse.errno_of(guest.client.mkdir, fuse.ROOT, name)


@pytest.mark.unwatched('it loses its threads on purpose')
@pytest.mark.sandboxed
@pytest.mark.unwatched('a worker of it leaves')
def test_worker_that_cannot_get_back(serve, scratch, share):
    """It serves nobody any more; the others do, and with the last one the daemon ends."""
    os.chmod(share, 0o777)
    guest = serve('--thread-pool-size=1', '--seccomp=none')  # strace uses call -1
    daemon, client = guest.daemon, guest.client
    threads = daemon.threads()
    strace = Strace(daemon, scratch, '-e',
                    'inject=setresuid:error=EPERM:when=2+', '-e', 'trace=setresuid')
    assert lose(guest, b'one') == errno.EIO
    launch.eventually(lambda: len(daemon.threads()) == len(threads) - 1)
    for number in range(50):
        entry = client.mkdir(fuse.ROOT, b'%d' % number)
        assert (entry.attr.uid, entry.attr.gid) == (0, 0)
        client.getattr(entry.nodeid)
    assert daemon.is_alive()
    assert lose(guest, b'two') == errno.EIO
    assert daemon.wait() == 1
    strace.stop()
    said = daemon.said()
    assert said.count('could not take back its user id (EPERM)') == 2
    assert said.count('no worker is left') == 1


@pytest.mark.unwatched('it loses a thread on purpose')
@pytest.mark.sandboxed
@pytest.mark.unwatched('a worker of it leaves')
def test_worker_that_leaves_work(serve, scratch, share):
    """What waits in the ring behind the request that ended its thread is served."""
    os.chmod(share, 0o777)
    guest = serve('--thread-pool-size=1', '--seccomp=none')  # strace uses call -1
    client = guest.client
    strace = Strace(guest.daemon, scratch, '-e',
                    'inject=setresuid:error=EPERM:when=2', '-e', 'trace=setresuid')
    body = struct.pack('=II', 0o755, 0)
    client.submit(client.pack(fuse.MKDIR, fuse.ROOT, body + b'lost\0', uid=1000,
                              gid=1000), 4096)
    for number in range(10):
        client.submit(client.pack(fuse.MKDIR, fuse.ROOT, body + b'%d\0' % number), 4096)
    replies = [client.reap() for _ in range(11)]
    strace.stop()
    assert sorted(reply.errno for reply in replies) == [0] * 10 + [errno.EIO]
    for number in range(10):
        assert looks(os.path.join(share, f'{number}'))[1:3] == (0, 0)
    assert guest.daemon.is_alive()
