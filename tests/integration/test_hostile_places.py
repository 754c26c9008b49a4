# SPDX-License-Identifier: Apache-2.0
"""What a guest finds, or makes, in the share that is no file or folder of it: special
files, magic links, mount points; and more open files than there is room for.
"""

import errno
import os
import socket
import stat
import struct
import subprocess
import time

import pytest

import fuse_client as fuse
import hostile_requests as requests
from hostile import CONTENT, assert_idle, forgotten, resources
from process import eventually

SANDBOXES = ['none', *(pytest.param(mode, marks=pytest.mark.sandboxed)
                       for mode in ('chroot', 'namespace'))]
GETFLAGS = 0x80086601
AT_ONCE = 0.5  # seconds: whatever would wait for a reader waits longer

KINDS = {'fifo': stat.S_IFIFO, 'socket': stat.S_IFSOCK, 'char': stat.S_IFCHR,
         'block': stat.S_IFBLK}
DEVICES = {'char': os.makedev(1, 5), 'block': os.makedev(7, 0)}


@pytest.fixture
def special(besiege, memory_share):
    """(guest, {name: node}) of special files that the host has made, and the guest."""
    guest = besiege('--xattr')
    nodes = {}
    for kind, mode in KINDS.items():
        path = os.path.join(memory_share, f'host-{kind}')
        if kind == 'socket':
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(path)
        else:
            os.mknod(path, mode | 0o666, DEVICES.get(kind, 0))
        nodes[f'host-{kind}'] = guest.client.lookup(
            fuse.ROOT, f'host-{kind}'.encode()).nodeid
        nodes[f'guest-{kind}'] = guest.client.mknod(
            guest.folder, kind.encode(), mode | 0o666, DEVICES.get(kind, 0)).nodeid
    yield guest, nodes
    for kind in KINDS:
        os.unlink(os.path.join(memory_share, f'host-{kind}'))


def at_once(guest, opcode, node, body):
    """The errno, which must not take long; nothing was opened for it."""
    begin = time.monotonic()
    reply = guest.client.send(opcode, node, body, queue=1)
    if time.monotonic() - begin > AT_ONCE:  # a busy machine, or a file that waits
        begin = time.monotonic()
        reply = guest.client.send(opcode, node, body, queue=1)
        assert time.monotonic() - begin < AT_ONCE
    assert reply.is_well_formed
    for what in guest.daemon.descriptors().values():
        assert not what.startswith(('/dev/loop', '/dev/zero'))
    return reply.errno


@pytest.mark.hostile('special-open')
def test_special_files_are_not_opened(special, cases):
    guest, nodes = special
    for node in nodes.values():
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_NONBLOCK,
                      os.O_PATH, os.O_RDWR | os.O_TRUNC, os.O_RDONLY | os.O_DIRECT):
            for opcode in (fuse.OPEN, fuse.OPENDIR):
                assert at_once(guest, opcode, node, struct.pack('=II', flags, 0)) != 0
                cases(1)
    for kind in KINDS:
        name = kind.encode() + b'\0'
        for flags in (os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_EXCL):
            body = struct.pack('=IIII', flags, 0o600, 0, 0) + name
            assert at_once(guest, fuse.CREATE, guest.folder, body) != 0
            cases(1)


@pytest.mark.hostile('special-truncate')
def test_special_files_are_not_cut(special, cases):
    guest, nodes = special
    for node in nodes.values():
        assert at_once(guest, fuse.OPEN, node, struct.pack('=II', os.O_TRUNC, 0)) != 0
        assert at_once(guest, fuse.OPEN, node,
                       struct.pack('=II', os.O_WRONLY | os.O_TRUNC, 0)) != 0
        for size in (0, 1, 1 << 40):
            body = struct.pack('=II6Q8I', 8, 0, 0, size, *[0] * 12)
            assert at_once(guest, fuse.SETATTR, node, body) != 0
        with_handle = struct.pack('=II6Q8I', 8 | 64, 0, guest.handle, 0, *[0] * 12)
        assert at_once(guest, fuse.SETATTR, node, with_handle) != 0
        cases(6)
    assert guest.client.getattr(guest.file).size == len(CONTENT)


@pytest.mark.hostile('special-copy')
def test_special_files_are_not_copied(special, cases):
    """Neither by their node with a file's handle, nor by any handle."""
    guest, nodes = special
    for node in nodes.values():
        for opcode in (fuse.COPY_FILE_RANGE, fuse.COPY_FILE_RANGE_64):
            for one, other in ((node, guest.file), (guest.file, node), (node, node)):
                for handle in (guest.handle, guest.dir_handle, 0, 1 << 40):
                    body = struct.pack('=7Q', handle, 0, other, handle, 0, 10, 0)
                    assert at_once(guest, opcode, one, body) != 0
                    cases(1)
        for opcode in (fuse.READ, fuse.WRITE):
            body = struct.pack('=QQIIQII', guest.handle, 0, 4, 0, 0, 0, 0) + b'data'
            body = body if opcode == fuse.WRITE else body[:40]
            assert at_once(guest, opcode, node, body) != 0
            cases(1)
        for opcode, body in (
                (fuse.FALLOCATE, struct.pack('=QQQII', guest.handle, 0, 9, 0, 0)),
                (fuse.LSEEK, struct.pack('=QQII', guest.handle, 0, 3, 0)),
                (fuse.IOCTL, struct.pack('=QIIQII', guest.handle, 0, GETFLAGS, 0, 0, 4)),
                (fuse.FSYNC, struct.pack('=QII', guest.handle, 0, 0))):
            assert at_once(guest, opcode, node, body) != 0
            cases(1)


@pytest.mark.hostile('special-mapping')
def test_special_files_are_not_mapped(special, cases):
    guest, nodes = special
    for node in (*nodes.values(), guest.file):
        for offset, length, flags, to in ((0, 1 << 21, 3, 0), (0, 0, 0, 0),
                                          (0, 8192, 3, (1 << 64) - 4096), (1, 1, 1, 1)):
            body = struct.pack('=5Q', (1 << 64) - 1, offset, length, flags, to)
            assert at_once(guest, fuse.SETUPMAPPING, node, body) == errno.ENOSYS
            body = struct.pack('=IQQ', 1, to, length)
            assert at_once(guest, fuse.REMOVEMAPPING, node, body) == errno.ENOSYS
            cases(2)


@pytest.mark.hostile('special-xattr')
def test_attributes_of_special_files(special, memory_share, cases):
    """As on the host, where user.* is for files and folders, and nothing is opened."""
    guest, nodes = special
    for name, node in nodes.items():
        of = (os.path.join(memory_share, name) if name.startswith('host') else
              os.path.join(memory_share, 'folder', name[len('guest-'):]))
        for attribute in (b'user.a', b'trusted.a'):
            body = struct.pack('=II', 1, 0) + attribute + b'\0v'
            error = at_once(guest, fuse.SETXATTR, node, body)
            assert error if attribute == b'user.a' else error in (0, 1, 95)
            body = struct.pack('=II', 64, 0) + attribute + b'\0'
            assert at_once(guest, fuse.GETXATTR, node, body) in (0, 1, 61, 95)
            assert at_once(guest, fuse.REMOVEXATTR, node, attribute + b'\0') in (
                0, 1, 61, 95)
            cases(3)
        assert at_once(guest, fuse.LISTXATTR, node, struct.pack('=II', 64, 0)) == 0
        assert 'user.a' not in os.listxattr(of)


# ---- links and mounts


@pytest.mark.hostile('escape-magic-links', 'escape-symlinks')
@pytest.mark.parametrize('sandbox', SANDBOXES)
def test_magic_links(besiege, memory_share, sandbox, cases):
    """A procfs in the share has links to everywhere: they are read, and not followed."""
    proc = os.path.join(memory_share, 'proc')
    os.mkdir(proc)
    subprocess.run(['mount', '-t', 'proc', 'proc', proc], check=True)
    try:
        guest = besiege(f'--sandbox={sandbox}')
        client = guest.client
        found = 0
        for process in (b'1', str(os.getpid()).encode(), str(guest.daemon.pid).encode()):
            node = client.walk(b'proc/' + process).nodeid
            for name in (b'root', b'cwd', b'exe', b'fd/0', b'fd/1', b'fd/2', b'fd/3',
                         b'fd/4', b'fd/5', b'ns/mnt', b'map_files'):
                try:
                    link = node
                    for part in name.split(b'/'):
                        entry = client.lookup(link, part)
                        link = entry.nodeid
                except fuse.FuseError:
                    continue
                found += assert_not_followed(guest, link, entry.attr.mode)
                cases(1)
        assert found > 0
    finally:
        subprocess.run(['umount', '-l', proc], check=True)
    forgotten(guest)
    os.rmdir(proc)
    guest.open_again()


def assert_not_followed(guest, link, mode):
    """A link is nothing that could be opened or walked through."""
    if not stat.S_ISLNK(mode):
        return 0
    client = guest.client
    for opcode in (fuse.OPEN, fuse.OPENDIR):
        for flags in (os.O_RDONLY, os.O_RDWR, os.O_PATH, os.O_DIRECTORY):
            reply = client.send(opcode, link, struct.pack('=II', flags, 0), queue=1)
            assert reply.errno != 0
    for name in (b'etc', b'passwd', b'..', b'.'):
        assert client.send(fuse.LOOKUP, link, name + b'\0').errno in (20, 22, 40)
    body = struct.pack('=II', 0o700, 0) + b'made\0'
    assert client.send(fuse.MKDIR, link, body).errno != 0
    size = struct.pack('=II6Q8I', 8, 0, 0, 0, *[0] * 12)
    assert client.send(fuse.SETATTR, link, size).errno != 0
    return 1


def make_outside(scratch):
    """What nobody may reach: home/outside, with a canary."""
    outside = os.path.join(scratch, 'outside')
    os.makedirs(os.path.join(outside, 'shared'))
    for name in ('canary', 'shared/inner'):
        with open(os.path.join(outside, name), 'wb') as file:
            file.write(b'canary')
    os.symlink('../canary', os.path.join(outside, 'shared', 'link'))
    return outside


@pytest.mark.hostile('escape-mount-points', 'escape-bind-later', 'escape-dotdot',
                     'escape-symlinks')
@pytest.mark.parametrize('sandbox', SANDBOXES)
@pytest.mark.parametrize('when', ['before', 'later'])
def test_mount_points(besiege, memory_share, scratch, sandbox, when, cases):
    """A folder that is mounted in the share, before or while a guest knows the place:
    what is above it stays out of reach, also when the mount goes away.
    """
    outside = make_outside(scratch)
    place = os.path.join(memory_share, 'place')
    os.mkdir(place)
    mount = ['mount', '--bind', os.path.join(outside, 'shared'), place]
    if when == 'before':
        subprocess.run(mount, check=True)
    guest = besiege(f'--sandbox={sandbox}')
    client = guest.client
    if when == 'later':
        client.lookup(fuse.ROOT, b'place')
        subprocess.run(mount, check=True)
    node = client.lookup(fuse.ROOT, b'place').nodeid
    is_there = b'inner' in {entry.name for entry in client.listdir(node)}
    assert is_there or when == 'later'
    look = sorted(os.listdir(outside))
    for name in requests.NO_NAMES:
        for opcode, on, body in requests.with_name(guest, name + b'\0', node):
            assert client.send(opcode, on, body, queue=1).errno != 0
            cases(1)
    if is_there:
        link = client.lookup(node, b'link')
        assert_not_followed(guest, link.nodeid, link.attr.mode)
        for opcode, body in (  # two file systems are two
                (fuse.LINK, struct.pack('=Q', guest.file) + b'new\0'),
                (fuse.RENAME, struct.pack('=Q', guest.folder) + b'inner\0new\0')):
            assert client.send(opcode, node, body).errno == errno.EXDEV
    subprocess.run(['umount', '-l', place], check=True)
    for name in (b'canary', b'..', b'shared'):
        for opcode, on, body in requests.with_name(guest, name + b'\0', node):
            if opcode in (fuse.LOOKUP, fuse.UNLINK, fuse.RMDIR):
                assert client.send(opcode, on, body, queue=1).errno != 0
                cases(1)
    assert sorted(os.listdir(outside)) == look
    with open(os.path.join(outside, 'canary'), 'rb') as file:
        assert file.read() == b'canary'
    forgotten(guest)
    os.rmdir(place)
    guest.open_again()


# ---- more files than there is room for

LIMIT = 1000


@pytest.mark.hostile('many-open', 'peer-descriptor-limit')
def test_opens_beyond_the_budget(besiege, memory_share, cases):
    """They are ENFILE; what is open stays, names and attributes are told, and when some
    are closed others open.
    """
    guest = besiege(f'--rlimit-nofile={LIMIT}', '--log-level=warn')
    client = guest.client
    for number in range(50):
        open(os.path.join(memory_share, 'folder', f'f{number}'), 'xb').close()
    for _ in range(3):
        handles, error = [], 0
        while not error:
            reply = client.send(fuse.OPEN, guest.file, struct.pack('=II', os.O_RDWR, 0))
            error = reply.errno
            if not error:
                handles.append(struct.unpack_from('=Q', reply.payload)[0])
        assert error == errno.ENFILE and LIMIT / 2 < len(handles) < LIMIT
        for number in range(50):
            name = b'f%d' % number
            node = client.lookup(guest.folder, name).nodeid
            client.getattr(node)
            client.setattr(node, 1, mode=0o600)
            client.rename(guest.folder, name, guest.folder, b'n' + name)
            client.rename(guest.folder, b'n' + name, guest.folder, name)
            client.forget(node)
        client.rmdir(fuse.ROOT, b'made') if client.mkdir(fuse.ROOT, b'made') else None
        assert client.read(guest.file, handles[-1], 4096) == CONTENT
        client.statfs()
        for opcode in (fuse.OPEN, fuse.CREATE):
            body = struct.pack('=II', os.O_RDWR, 0)
            if opcode == fuse.CREATE:
                body = struct.pack('=IIII', os.O_RDWR, 0o600, 0, 0) + b'f1\0'
            on = guest.file if opcode == fuse.OPEN else guest.folder
            assert client.send(opcode, on, body).errno == errno.ENFILE
        for handle in handles:
            client.release(guest.file, handle)
        handle, _ = client.open(guest.file, os.O_RDWR)
        client.release(guest.file, handle)
        cases(len(handles))
    assert len(guest.daemon.reader.lines) < 20


@pytest.mark.hostile('many-opened')
@pytest.mark.parametrize('n', [pytest.param(3000, id='quick'), pytest.param(
    100_000, id='soak', marks=pytest.mark.soak)])
def test_opened_one_after_another(besiege, n, cases):
    """Each file is opened, written, closed and forgotten; nothing of it is kept."""
    guest = besiege(f'--rlimit-nofile={LIMIT}')
    client = guest.client
    before = resources(guest.daemon)
    for number in range(n):
        entry, handle = client.create(guest.folder, b'file%d' % (number % 5000))
        if number % 100 == 0:
            client.write(entry.nodeid, handle, b'data')
        client.release(entry.nodeid, handle)
        client.forget(entry.nodeid)
    assert len(guest.daemon.descriptors()) < LIMIT / 2
    eventually(lambda: len(guest.daemon.threads()) == before[1])
    assert_idle(guest.daemon)
    cases(n)
