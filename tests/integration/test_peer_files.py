# SPDX-License-Identifier: Apache-2.0
"""Open files and their attributes, where the peer gets them wrong: test_peer_defects.py
says what it does. The measure is the host's own file system.
"""

import contextlib
import ctypes
import errno
import os
import signal
import stat
import struct
import time

import pytest

import fuse_client as fuse
import twin
from strace import Strace

SET_MODE, SET_UID, SET_GID, SET_SIZE, SET_ATIME, SET_MTIME = 1, 2, 4, 8, 16, 32
SET_FH, SET_CTIME = 64, 1024
WRITEBACK_CACHE = 1 << 16
WRITE_CACHE = 1
O_PATH = 0o10000000
libc = ctypes.CDLL(None, use_errno=True)


def open_flags(daemon, path):
    """The flags of the daemon's open files of this path, as the kernel has them."""
    wanted, found = os.stat(path), []
    for number in daemon.descriptors():
        with contextlib.suppress(FileNotFoundError):
            seen = os.stat(f'/proc/{daemon.pid}/fd/{number}')
            text = daemon.proc(f'fdinfo/{number}')
            flags = int(text.split('flags:')[1].split()[0], 8)
            if (seen.st_dev, seen.st_ino) == (wanted.st_dev, wanted.st_ino) and (
                    not flags & O_PATH):
                found.append(flags)
    return found


def tmpfile(client, flags):
    """TMPFILE; (Entry, handle)."""
    body = struct.pack('=IIII', flags | os.O_TMPFILE, 0o600, 0, 0) + b'\0'
    payload = client.call(fuse.TMPFILE, fuse.ROOT, body)
    return fuse.Entry(payload[:128]), struct.unpack_from('=Q', payload, 128)[0]


# ---- flags of open(2)

DIRECT, NOATIME = os.O_DIRECT, os.O_NOATIME


def open_anew(client, share, flags):
    entry, handle = client.create(fuse.ROOT, b'new', flags=flags | os.O_CREAT)
    return entry.nodeid, handle, 'new'


def open_by_create(client, share, flags):
    open(os.path.join(share, 'there'), 'xb').close()
    entry, handle = client.create(fuse.ROOT, b'there', flags=flags | os.O_CREAT)
    return entry.nodeid, handle, 'there'


def open_only(client, share, flags):
    open(os.path.join(share, 'there'), 'xb').close()
    node = client.lookup(fuse.ROOT, b'there').nodeid
    return node, client.open(node, flags)[0], 'there'


WAYS = (open_anew, open_by_create, open_only)


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('options, kept', [
    ((), 0),
    (('--allow-direct-io',), DIRECT),
    (('--preserve-noatime',), NOATIME),
    (('--allow-direct-io', '--preserve-noatime'), DIRECT | NOATIME),
], ids=['none', 'direct', 'noatime', 'both'])
def test_flags_that_pass_by_leave_only(serve, share, way, options, kept):
    """However a file comes to be open; O_APPEND stays with the guest."""
    guest = serve(*options)
    flags = os.O_RDWR | DIRECT | NOATIME | os.O_APPEND
    node, handle, name = way(guest.client, share, flags)
    found, = open_flags(guest.daemon, os.path.join(share, name))
    assert found & (DIRECT | NOATIME | os.O_APPEND) == kept
    assert found & os.O_ACCMODE == os.O_RDWR
    guest.client.release(node, handle)


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('writeback', [True, False])
def test_what_is_written_only_is_read_for_the_cache(serve, share, way, writeback):
    """A guest that collects writes reads the page that it writes a part of."""
    options = ('--writeback',) if writeback else ()
    guest = serve(*options)
    assert bool(guest.agreed & WRITEBACK_CACHE) == writeback
    client = guest.client
    node, handle, _ = way(client, share, os.O_WRONLY)
    assert client.write(node, handle, b'text', write_flags=WRITE_CACHE) == 4
    if writeback:
        assert client.read(node, handle, 4096) == b'text'
    else:
        assert fuse.errno_of(client.read, node, handle, 4096) == errno.EBADF
    client.release(node, handle)


def test_nameless_file_is_read_for_the_cache(serve):
    client = serve('--writeback').client
    entry, handle = tmpfile(client, os.O_WRONLY)
    assert client.write(entry.nodeid, handle, b'text', write_flags=WRITE_CACHE) == 4
    assert client.read(entry.nodeid, handle, 4096) == b'text'
    client.release(entry.nodeid, handle)


def test_appended_to_the_end_that_the_host_knows(serve, share):
    """Each write that is not the cache's goes to the end, wherever that is by now."""
    client, path = serve().client, os.path.join(share, 'file')
    entry, handle = client.create(fuse.ROOT, b'file', flags=os.O_WRONLY | os.O_APPEND)
    node = entry.nodeid
    for number in range(3):
        client.write(node, handle, b'guest', 0, flags=os.O_WRONLY | os.O_APPEND)
        with open(path, 'ab') as file:
            file.write(b'host')
    # Without it in the request the guest's kernel has taken it back: fcntl(2).
    client.write(node, handle, b'GUEST', 0, flags=os.O_WRONLY)
    client.write(node, handle, b'HOST', 5, write_flags=WRITE_CACHE,
                 flags=os.O_WRONLY | os.O_APPEND)
    client.release(node, handle)
    with open(path, 'rb') as file:
        assert file.read() == b'GUESTHOST' + b'guesthost' * 2


def replace_forever(share):
    """A child process that takes the name away and gives it to another file."""
    pid = os.fork()
    if pid == 0:
        try:
            while True:
                for name in ('one', 'two'):
                    open(os.path.join(share, name), 'ab').close()
                    os.rename(os.path.join(share, name), os.path.join(share, 'name'))
                os.unlink(os.path.join(share, 'name'))
        finally:
            os._exit(0)
    return pid


def test_created_is_what_is_opened(serve, share):
    """The node and the handle of one answer are of one file, while others on the host
    give its name to another.
    """
    client = serve().client
    replacer = replace_forever(share)
    try:
        for _ in range(2000):
            entry, handle = client.create(fuse.ROOT, b'name')
            by_handle = client.getattr(entry.nodeid, handle)
            assert entry.attr.ino == by_handle.ino == client.getattr(entry.nodeid).ino
            client.release(entry.nodeid, handle)
            client.forget(entry.nodeid)
    finally:
        os.kill(replacer, signal.SIGKILL)
        os.waitpid(replacer, 0)


def descriptors(daemon, least):
    """How many it holds, once they are as few as before."""
    deadline = time.monotonic() + 5
    while len(daemon.descriptors()) > least and time.monotonic() < deadline:
        time.sleep(0.02)
    return len(daemon.descriptors())


@pytest.mark.parametrize('options', [(), ('--readonly',)], ids=['writable', 'readonly'])
def test_create_that_fails_keeps_nothing(serve, share, options):
    """Where what is there cannot be opened, no node is left that nobody can forget."""
    os.mkfifo(os.path.join(share, 'pipe'))
    os.mkdir(os.path.join(share, 'folder'))
    os.symlink('to', os.path.join(share, 'link'))
    with open(os.path.join(share, 'closed'), 'xb') as file:
        os.chmod(file.fileno(), 0)
    guest = serve(*options)
    client = guest.client
    before = len(guest.daemon.descriptors())
    for _ in range(50):
        with client.identity(1000):
            for name, expected in ((b'pipe', errno.ENXIO), (b'folder', errno.EISDIR),
                                   (b'link', errno.ELOOP), (b'closed', errno.EACCES)):
                assert fuse.errno_of(client.create, fuse.ROOT, name,
                                flags=os.O_RDONLY) == expected
        assert fuse.errno_of(client.create, fuse.ROOT, b'closed',
                        flags=os.O_RDWR | os.O_EXCL) in (errno.EEXIST, errno.EROFS)
    assert descriptors(guest.daemon, before) == before


# ---- reading and writing


@pytest.mark.sandboxed
def test_one_system_call_moves_the_data(serve, share, scratch):
    """Full, short or at the end of the file; and FLUSH is none."""
    with open(os.path.join(share, 'file'), 'xb') as file:
        file.write(b'x' * 5000)
    guest = serve()
    client = guest.client
    node = client.lookup(fuse.ROOT, b'file').nodeid
    handle, _ = client.open(node, os.O_RDWR)
    strace = Strace(guest.daemon, scratch)
    assert len(client.read(node, handle, 4096)) == 4096
    assert len(client.read(node, handle, 4096, 4096)) == 904
    assert client.read(node, handle, 4096, 5000) == b''
    assert client.read(node, handle, 4096, 1 << 40) == b''
    assert client.write(node, handle, b'y' * 100, 4950) == 100
    client.flush(node, handle)
    calls = strace.calls()
    assert calls.count('preadv2') == 4 and calls.count('pwritev2') == 1
    assert not {'dup', 'fcntl', 'close', 'pread64', 'readv', 'lseek'} & set(calls)
    client.release(node, handle)


SLOW = 2.0  # seconds that the disk takes


@pytest.mark.sandboxed
def test_slow_read_keeps_nobody_waiting(serve, share, scratch):
    """Not on the same handle either, whatever the other does with the file."""
    with open(os.path.join(share, 'file'), 'xb') as file:
        file.write(b'x' * 5000)
    guest = serve('--thread-pool-size=2')
    client = guest.client
    node = client.lookup(fuse.ROOT, b'file').nodeid
    handle, _ = client.open(node, os.O_RDWR)
    strace = Strace(guest.daemon, scratch, '-e', 'trace=preadv2', '-e',
                    f'inject=preadv2:delay_enter={int(SLOW * 1e6)}:when=1')
    body = struct.pack('=QQIIQII', handle, 0, 4096, 0, 0, 0, 0)
    begin = time.monotonic()
    client.submit(client.pack(fuse.READ, node, body), 16 + 4096)
    time.sleep(0.3)  # it is in the system call
    client.fsync(node, handle)
    client.flush(node, handle)
    client.fallocate(node, handle, 0, 0, 6000)
    client.setattr(node, SET_SIZE | SET_FH, fh=handle, size=5500)
    client.setattr(node, SET_MODE, mode=0o600)
    assert client.lseek(node, handle, 0, os.SEEK_HOLE) == 5500
    assert client.write(node, handle, b'y', 4500) == 1
    assert time.monotonic() - begin < SLOW
    assert client.reap().errno == 0
    assert time.monotonic() - begin >= SLOW
    strace.stop()
    assert client.read(node, handle, 10, 4495) == b'xxxxxyxxxx'
    client.release(node, handle)


def native_fallocate(fd, mode, offset, length):
    done = libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length))
    return ctypes.get_errno() if done != 0 else 0


def test_every_mode_of_fallocate(serve, share, scratch):
    """Known or not, alone or with others: the host's answer and the host's file."""
    client = serve().client
    content = bytes(range(256)) * 64
    twin = os.path.join(scratch, 'twin')
    entry, handle = client.create(fuse.ROOT, b'file')
    node = entry.nodeid
    places = ((0, 4096), (4096, 4096), (100, 3000), (1 << 14, 4096), (0, 1 << 14))
    for mode in [*range(128), 128, 256, 1 << 16, 1 << 30]:
        for offset, length in places:
            for path in (twin, os.path.join(share, 'file')):
                with open(path, 'wb') as file:
                    file.write(content)
            with open(twin, 'r+b') as file:
                expected = native_fallocate(file.fileno(), mode, offset, length)
            what = (mode, offset, length)
            assert fuse.errno_of(client.fallocate, node, handle, *what) == expected, what
            assert (os.stat(twin).st_size, open(twin, 'rb').read()) == (
                os.stat(os.path.join(share, 'file')).st_size,
                open(os.path.join(share, 'file'), 'rb').read()), what
    client.release(node, handle)


@pytest.mark.parametrize('length', [1 << 32, (1 << 32) + 4, (1 << 33) - 1, (1 << 63) - 1])
def test_lengths_beyond_32_bits(serve, share, length):
    """A copy that is asked for more than its answer can say copies what there is."""
    with open(os.path.join(share, 'from'), 'xb') as file:
        file.write(b'few bytes')
    client = serve().client
    node = client.lookup(fuse.ROOT, b'from').nodeid
    handle, _ = client.open(node)
    entry, to = client.create(fuse.ROOT, b'to')
    copied = client.copy_file_range(node, handle, 0, (entry.nodeid, to, 0), length)
    assert copied == len(b'few bytes')
    with open(os.path.join(share, 'to'), 'rb') as file:
        assert file.read() == b'few bytes'
    client.release(node, handle)
    client.release(entry.nodeid, to)


# ---- attributes


def times_of(path):
    seen = os.stat(path)
    return seen.st_atime_ns, seen.st_mtime_ns, seen.st_ctime_ns


def test_change_time(serve, share):
    """Nobody can set it, and no request that brings one fails or moves other times; the
    answer is what the host has.
    """
    client, path = serve('--writeback').client, os.path.join(share, 'file')
    entry, handle = client.create(fuse.ROOT, b'file')
    node = entry.nodeid
    atime, mtime, ctime = times_of(path)
    attr = client.setattr(node, SET_CTIME, ctime=5, ctimensec=6)
    assert times_of(path)[:2] == (atime, mtime) and times_of(path)[2] >= ctime
    assert attr.ctime * 10**9 + attr.ctimensec == times_of(path)[2]
    # As Linux gives back the times that it has kept.
    attr = client.setattr(node, SET_MTIME | SET_CTIME | SET_FH, fh=handle, mtime=7,
                          mtimensec=8, ctime=5)
    assert times_of(path)[:2] == (atime, 7 * 10**9 + 8)
    assert times_of(path)[2] > ctime
    assert attr.ctime * 10**9 + attr.ctimensec == times_of(path)[2]
    client.release(node, handle)


def test_all_of_a_setattr_takes_effect(serve, share):
    """The new owner does not take the new mode's set-id bits away, nor the new size the
    new times.
    """
    client, path = serve().client, os.path.join(share, 'file')
    for by_handle in (False, True):
        with open(path, 'wb') as file:
            file.write(b'x' * 100)
        os.chown(path, 0, 0)
        node = client.lookup(fuse.ROOT, b'file').nodeid
        handle, _ = client.open(node, os.O_RDWR)
        everything = SET_MODE | SET_UID | SET_GID | SET_SIZE | SET_ATIME | SET_MTIME
        attr = client.setattr(node, everything | (SET_FH if by_handle else 0), fh=handle,
                              mode=stat.S_IFREG | 0o6755, uid=5, gid=6, size=50, atime=7,
                              mtime=8)
        seen = os.stat(path)
        expected = (stat.S_IFREG | 0o6755, 5, 6, 50, 7, 8)
        assert (seen.st_mode, seen.st_uid, seen.st_gid, seen.st_size, seen.st_atime,
                seen.st_mtime) == expected
        assert (attr.mode, attr.uid, attr.gid, attr.size, attr.atime,
                attr.mtime) == expected
        client.release(node, handle)


def test_mode_of_a_symbolic_link(serve, share, scratch):
    """Neither the link's nor what it points to: as the host refuses it."""
    target, link = os.path.join(share, 'file'), os.path.join(share, 'link')
    with open(target, 'xb') as file:
        os.chmod(file.fileno(), 0o600)
    os.symlink('file', link)
    before = os.lstat(link).st_mode
    client = serve().client
    node = client.lookup(fuse.ROOT, b'link').nodeid
    assert fuse.errno_of(client.setattr, node, SET_MODE, mode=0o777) == errno.EOPNOTSUPP
    assert os.lstat(link).st_mode == before
    assert stat.S_IMODE(os.stat(target).st_mode) == 0o600


# ---- permission


MODES = (0o640, 0o606, 0o060, 0o770, 0o750, 0o4711)


def answers(folder):
    """What access(2) says of each file, whatever is asked."""
    return [os.access(os.path.join(folder, f'{number}'), asked)
            for number in range(len(MODES)) for asked in range(8)]


def test_access_is_judged_with_all_groups(bridged, share, scratch):
    """By the guest's kernel, which knows them; so nobody is asked."""
    os.chmod(scratch, 0o755)
    os.chmod(share, 0o755)
    mounted = bridged()
    os.chmod(os.path.dirname(mounted), 0o755)
    for number, mode in enumerate(MODES):
        with open(os.path.join(share, f'{number}'), 'xb') as file:
            os.chown(file.fileno(), 1000, 77)
            os.chmod(file.fileno(), mode)
    for uid in (0, 1000, 1001):
        for groups in ([], [77], [5, 77]):
            caller = (uid, uid, groups)
            expected = twin.outcome_as(caller, answers, share)
            assert expected[0] == 'returned' and len(set(expected[1])) == 2
            assert twin.outcome_as(caller, answers, mounted) == expected, caller


def test_access_is_not_answered(serve, share):
    """Without the caller's groups an answer could only be a guess."""
    client = serve().client
    assert client.send(fuse.ACCESS, fuse.ROOT,
                       struct.pack('=II', os.W_OK, 0)).errno == errno.ENOSYS
