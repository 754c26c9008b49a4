# SPDX-License-Identifier: Apache-2.0
"""Set-id bits are lost as Linux loses them, whoever changes the file and by which call,
with --killpriv-v2 and without. The share is mounted through the bridge, so that Linux's
own client decides what it sends; the measure is a twin on the host's file system.
"""

import ctypes
import itertools
import os
import stat
import sys

import pytest

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(TESTS, 'bridge'), os.path.join(TESTS, 'support')]

import bridge as bridges  # noqa: E402
import launch  # noqa: E402
from callers import natively  # noqa: E402

CONTENT = b'x' * 8192
# What a file is before: set-id bits with and without the right to execute.
MODES = (0o6777, 0o4766, 0o2776, 0o2766, 0o6666, 0o0777)
OWNERS = ((0, 0), (1000, 1000), (1001, 1002))
CALLERS = {'root': (0, 0, ()), 'owner': (1000, 1000, ()), 'other': (1003, 1003, ())}

FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2
libc = ctypes.CDLL(None, use_errno=True)


def opened(path, flags, function):
    fd = os.open(path, flags)
    try:
        function(fd)
    finally:
        os.close(fd)


def punch(fd):
    mode = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
    if libc.fallocate(fd, mode, ctypes.c_long(0), ctypes.c_long(4096)) != 0:
        raise OSError(ctypes.get_errno(), 'fallocate')


def copy(path, fd):
    opened(os.path.join(os.path.dirname(path), 'source'), os.O_RDONLY,
           lambda source: os.copy_file_range(source, fd, 4096))


CALLS = {
    'nothing': lambda path: opened(path, os.O_RDWR, lambda fd: None),
    'read': lambda path: opened(path, os.O_RDONLY, lambda fd: os.read(fd, 10)),
    'write': lambda path: opened(path, os.O_WRONLY, lambda fd: os.write(fd, b'y' * 100)),
    'write nothing': lambda path: opened(path, os.O_WRONLY, lambda fd: os.write(fd, b'')),
    'append': lambda path: opened(path, os.O_WRONLY | os.O_APPEND,
                                  lambda fd: os.write(fd, b'y' * 100)),
    'truncate': lambda path: os.truncate(path, 100),
    'truncate to the same': lambda path: os.truncate(path, len(CONTENT)),
    'ftruncate': lambda path: opened(path, os.O_RDWR, lambda fd: os.ftruncate(fd, 9999)),
    'open to truncate': lambda path: opened(path, os.O_WRONLY | os.O_TRUNC,
                                            lambda fd: None),
    'create to truncate': lambda path: opened(
        path, os.O_WRONLY | os.O_TRUNC | os.O_CREAT, lambda fd: None),
    'allocate': lambda path: opened(path, os.O_RDWR,
                                    lambda fd: os.posix_fallocate(fd, 0, 20000)),
    'punch': lambda path: opened(path, os.O_RDWR, punch),
    'copy': lambda path: opened(path, os.O_RDWR, lambda fd: copy(path, fd)),
    'chown': lambda path: os.chown(path, os.stat(path).st_uid, os.stat(path).st_gid),
    'chown to nobody': lambda path: os.chown(path, -1, -1),
    'utime': lambda path: os.utime(path),
    'chmod': lambda path: os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) & ~0o111),
}


def prepare(folder, owner, mode):
    path = os.path.join(folder, 'file')
    if os.path.exists(path):
        os.unlink(path)
    with open(path, 'wb') as file:
        file.write(CONTENT)
    os.chown(path, *owner)
    os.chmod(path, mode)
    return path


def outcome(folder, name, owner, mode, caller):
    path = prepare(folder, owner, mode)
    result = natively(lambda: CALLS[name](path), *caller)
    found = os.stat(path)
    return (os.strerror(result), oct(found.st_mode), found.st_uid, found.st_gid,
            found.st_size)


# What FUSE makes impossible; HACKING.md says why.
UNTOLD = ('allocate', 'punch', 'copy')


def is_lock_mark(mode):
    """Set-group-ID that lets nobody be of a group."""
    return mode & (stat.S_ISGID | stat.S_IXGRP) == stat.S_ISGID


def without(text, bits):
    return oct(int(text, 8) & ~bits)


def same(name, who, mode, killpriv, expected, seen):
    """Is what was seen what was to be seen, or one of the documented differences?"""
    if name == 'chown to nobody' and (killpriv or (
            is_lock_mark(mode) and not mode & stat.S_ISUID)):
        # Any user can have it sent, if it is, and it names nobody: it does nothing.
        return seen == ('Success', oct(stat.S_IFREG | mode), *expected[2:])
    if killpriv and name in UNTOLD and who == 'root':
        # It names nobody either, and might be from anybody.
        expected = (expected[0], without(expected[1], stat.S_ISUID | (
            0 if is_lock_mark(mode) else stat.S_ISGID)), *expected[2:])
    if is_lock_mark(mode):
        expected, seen = ((one[0], without(one[1], stat.S_ISGID), *one[2:])
                          for one in (expected, seen))
    return seen == expected


@pytest.fixture(params=['--killpriv-v2', '--no-killpriv-v2'])
def folders(request, start, share, scratch, build, extra_args, monkeypatch):
    """The mounted share, the share itself, a twin, and whether set-id bits are ours."""
    monkeypatch.setenv('VIRTIOFSD_BUILD', build)
    os.chmod(scratch, 0o755)
    mounted, twin = os.path.join(scratch, 'mount'), os.path.join(scratch, 'twin')
    for folder in (mounted, twin):
        os.mkdir(folder)
    for folder in (share, twin):
        os.chmod(folder, 0o777)
        with open(os.path.join(folder, 'source'), 'wb') as file:
            file.write(b'z' * 8192)
    daemon = start(launch.plain, share, scratch, [request.param, *extra_args])
    daemon.wait_ready()
    with bridges.Bridge(daemon.socket_path, mounted) as bridge:
        bridge.wait_mounted()
        yield mounted, share, twin, request.param == '--killpriv-v2'
        assert bridge.unmount() == bridges.UNMOUNTED, bridge.log()


@pytest.mark.hostile('setid-bits', 'setid-capabilities')
def test_as_on_the_host(folders):
    """Every call, by root, owner and others, on every kind of file."""
    mounted, share, twin, killpriv = folders
    wrong = []
    for name, owner, mode, who in itertools.product(CALLS, OWNERS, MODES, CALLERS):
        caller = CALLERS[who]
        expected = outcome(twin, name, owner, mode, caller)
        seen = outcome(mounted, name, owner, mode, caller)
        found = os.stat(os.path.join(share, 'file'))
        if (not same(name, who, mode, killpriv, expected, seen)
                or oct(found.st_mode) != seen[1]):
            wrong.append(f'{name} by {who}, file of {owner} {oct(mode)}: {expected}'
                         f' became {seen}, {oct(found.st_mode)}')
    assert not wrong, '\n'.join([f'{len(wrong)}', *wrong])
