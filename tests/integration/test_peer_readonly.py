# SPDX-License-Identifier: Apache-2.0
"""--readonly, where the peer gets it wrong (test_peer_defects.py): the measure is the
same folder, mounted read-only on the host.
"""

import ctypes
import errno
import fcntl
import os
import stat
import struct
import subprocess

import pytest

import fuse_client as fuse
import launch
import users

MS_RDONLY, MS_REMOUNT, MS_STRICTATIME = 1, 32, 1 << 24
FS_IOC_SETFLAGS, FS_NOATIME_FL = 0x40086602, 0x80
O_NONBLOCK = os.O_NONBLOCK
libc = ctypes.CDLL(None, use_errno=True)


def mount(source, target, kind, flags):
    if libc.mount(source, os.fsencode(target), kind, flags, None) != 0:
        raise OSError(ctypes.get_errno(), 'cannot mount', target)


@pytest.fixture
def share(scratch):
    """A file system of its own, that notes each access."""
    folder = os.path.join(scratch, 'share')
    os.mkdir(folder)
    mount(b'test', folder, b'tmpfs', MS_STRICTATIME)
    os.chmod(folder, 0o777)
    os.mkdir(os.path.join(folder, 'folder'), 0o777)
    for name in ('file', 'other', 'folder/inner'):
        with open(os.path.join(folder, name), 'wb') as file:
            file.write(b'content of it')
            os.chmod(file.fileno(), 0o666)
        os.setxattr(os.path.join(folder, name), 'trusted.a', b'value')
    os.symlink('file', os.path.join(folder, 'link'))
    os.symlink('nothing', os.path.join(folder, 'broken'))
    os.mkfifo(os.path.join(folder, 'pipe'))
    yield folder
    users.unmount(folder)


NAMES = ('.', 'broken', 'file', 'folder', 'folder/inner', 'link', 'other', 'pipe')


def portrait(folder, links_too=True):
    """All about what is in it, the times that an access moves included; this moves none.
    """
    found = {}
    for name in NAMES:
        seen = os.lstat(os.path.join(folder, name))
        if stat.S_ISLNK(seen.st_mode) and not links_too:
            continue
        found[name] = (seen.st_mode, seen.st_uid, seen.st_gid, seen.st_size,
                       seen.st_nlink, seen.st_atime_ns, seen.st_mtime_ns,
                       seen.st_ctime_ns)
    return found


def assert_same(folder, before, links_too=True):
    assert portrait(folder, links_too) == before
    assert sorted([*os.listdir(folder), '.', 'folder/inner']) == list(NAMES)


# ---- what is refused, and how


def at(name, flags, mode=0o600):
    return lambda top: os.close(os.open(os.path.join(top, name), flags | O_NONBLOCK,
                                        mode))


def rename(old, new):
    return lambda top: os.rename(os.path.join(top, old), os.path.join(top, new))


def set_flags(top):
    fd = os.open(os.path.join(top, 'file'), os.O_RDONLY)
    try:
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack('=Q', FS_NOATIME_FL))
    finally:
        os.close(fd)


def on(function, name, *args, **more):
    return lambda top: function(os.path.join(top, name), *args, **more)


CREAT, EXCL, TRUNC = os.O_CREAT, os.O_EXCL, os.O_TRUNC
CALLS = {
    'open r': at('file', os.O_RDONLY),
    'open w': at('file', os.O_WRONLY),
    'open rw': at('file', os.O_RDWR),
    'open r trunc': at('file', os.O_RDONLY | TRUNC),
    'open w trunc': at('file', os.O_WRONLY | TRUNC),
    'open r append': at('file', os.O_RDONLY | os.O_APPEND),
    'open r excl': at('file', os.O_RDONLY | EXCL),
    'open none': at('none', os.O_RDONLY),
    'open link w': at('link', os.O_WRONLY),
    'create r there': at('file', os.O_RDONLY | CREAT),
    'create w there': at('file', os.O_WRONLY | CREAT),
    'create r trunc there': at('file', os.O_RDONLY | CREAT | TRUNC),
    'create excl there': at('file', os.O_RDONLY | CREAT | EXCL),
    'create w excl there': at('file', os.O_WRONLY | CREAT | EXCL),
    'create r': at('new', os.O_RDONLY | CREAT),
    'create w excl': at('new', os.O_WRONLY | CREAT | EXCL),
    'create folder': at('folder', os.O_RDONLY | CREAT),
    'create broken link': at('broken', os.O_RDONLY | CREAT),
    'create below none': at('none/new', os.O_RDONLY | CREAT),
    'tmpfile': at('.', os.O_RDWR | os.O_TMPFILE),
    'mkdir': on(os.mkdir, 'new'),
    'mkdir there': on(os.mkdir, 'folder'),
    'mknod': on(os.mknod, 'new'),
    'mkfifo': on(os.mkfifo, 'new'),
    'symlink': lambda top: os.symlink('to', os.path.join(top, 'new')),
    'symlink there': lambda top: os.symlink('to', os.path.join(top, 'file')),
    'link': lambda top: os.link(os.path.join(top, 'file'), os.path.join(top, 'new')),
    'unlink': on(os.unlink, 'file'),
    'unlink none': on(os.unlink, 'none'),
    'rmdir': on(os.rmdir, 'folder'),
    'rmdir none': on(os.rmdir, 'none'),
    'rename': rename('file', 'new'),
    'rename over': rename('file', 'other'),
    'rename none': rename('none', 'new'),
    'chmod': on(os.chmod, 'file', 0o600),
    'chown': on(os.chown, 'file', 5, 5),
    'truncate': on(os.truncate, 'file', 3),
    'utime': on(os.utime, 'file', (5, 5)),
    'utime now': on(os.utime, 'file'),
    'setxattr': on(os.setxattr, 'file', 'trusted.b', b'value'),
    'removexattr': on(os.removexattr, 'file', 'trusted.a'),
    'ioctl': set_flags,
    'read': on(lambda path: open(path, 'rb').read(), 'file'),
    'list': on(os.listdir, 'folder'),
    'readlink': on(os.readlink, 'link'),
    'statvfs': on(os.statvfs, '.'),
}

# Of a read-only mount Linux says so before it looks for a name; where the server alone
# knows, it has looked.
LOOKED_FOR = ('unlink none', 'rmdir none', 'rename none')


def errno_of(call, top):
    try:
        call(top)
    except OSError as error:
        return error.errno
    return 0


@pytest.mark.parametrize('more', [(), ('--xattr',)], ids=['plain', 'xattr'])
def test_as_on_a_read_only_mount(bridged, share, scratch, extra_args, more):
    """Every call fails or succeeds as there, and nothing has changed."""
    twin = os.path.join(scratch, 'twin')
    os.mkdir(twin)
    users.bind(share, twin)
    try:
        mount(None, twin, None, MS_REMOUNT | users.MS_BIND | MS_RDONLY)
        mounted = bridged('--readonly', *more)
        links_too = '--sandbox=none' not in extra_args  # readlink(2) has no flag for it
        before = portrait(share, links_too)
        wrong = []
        for name, call in CALLS.items():
            if 'xattr' in name and not more:  # the guest's kernel learns it from ENOSYS
                continue
            expected = errno_of(call, twin)
            seen = errno_of(call, mounted)
            if name in LOOKED_FOR:
                expected = errno.ENOENT
            if seen != expected:
                wrong.append((name, os.strerror(expected), os.strerror(seen)))
        assert not wrong
        assert_same(share, before, links_too)
    finally:
        users.unmount(twin)


# ---- whatever the guest sends


def test_every_change_is_refused(serve, share):
    """Before it is looked at, also where the guest's kernel would not have sent it."""
    client = serve('--readonly').client
    node = client.lookup(fuse.ROOT, b'file').nodeid
    handle, _ = client.open(node)
    before = portrait(share)
    name = b'name\0'
    setattr_in = struct.pack('=II6Q8I', 1, 0, *[0] * 9, 0o600, 0, 0, 0, 0)
    mknod = struct.pack('=IIII', 0o100600, 0, 0, 0) + name
    copy = struct.pack('=QQQQQQQ', handle, 0, node, handle, 0, 5, 0)
    for opcode, where, body in (
            (fuse.SETATTR, node, setattr_in), (fuse.MKNOD, fuse.ROOT, mknod),
            (fuse.MKDIR, fuse.ROOT, struct.pack('=II', 0o700, 0) + name),
            (fuse.SYMLINK, fuse.ROOT, name + b'to\0'),
            (fuse.LINK, fuse.ROOT, struct.pack('=Q', node) + name),
            (fuse.UNLINK, fuse.ROOT, b'file\0'), (fuse.RMDIR, fuse.ROOT, b'folder\0'),
            (fuse.RENAME, fuse.ROOT, struct.pack('=Q', 1) + b'file\0' + name),
            (fuse.RENAME2, fuse.ROOT, struct.pack('=QII', 1, 1, 0) + b'file\0' + name),
            (fuse.WRITE, node, struct.pack('=QQIIQII', handle, 0, 4, 0, 0, 0, 0)
             + b'text'),
            (fuse.FALLOCATE, node, struct.pack('=QQQII', handle, 0, 100, 0, 0)),
            (fuse.COPY_FILE_RANGE, node, copy),
            (fuse.SETXATTR, node, struct.pack('=II', 1, 0) + b'user.a\0x'),
            (fuse.REMOVEXATTR, node, b'user.a\0'), (fuse.TMPFILE, fuse.ROOT, mknod)):
        assert client.send(opcode, where, body).errno == errno.EROFS, opcode
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
        for opcode, where, body in (
                (fuse.OPEN, node, struct.pack('=II', flags, 0)),
                (fuse.CREATE, fuse.ROOT, struct.pack('=IIII', flags, 0o600, 0, 0)
                 + b'file\0')):
            assert client.send(opcode, where, body).errno == errno.EROFS, flags
    client.release(node, handle)
    assert_same(share, before)


MODES = [pytest.param(mode, marks=pytest.mark.sandboxed)
         for mode in ('namespace', 'chroot', 'none')]


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('noatime', [(), ('--preserve-noatime',)], ids=['', 'noatime'])
def test_reading_leaves_no_trace(serve, share, mode, noatime):
    """No access time moves, not even where the host notes each access."""
    before = portrait(share)
    client = serve('--readonly', f'--sandbox={mode}', *noatime).client
    entry, handle = client.create(fuse.ROOT, b'file', flags=os.O_RDONLY | os.O_CREAT)
    assert client.read(entry.nodeid, handle, 100) == b'content of it'
    client.release(entry.nodeid, handle)
    entry = client.walk(b'folder/inner')
    handle, _ = client.open(entry.nodeid)
    assert client.read(entry.nodeid, handle, 100) == b'content of it'
    client.release(entry.nodeid, handle)
    assert len(client.listdir(fuse.ROOT)) == 8
    assert len(client.listdir(client.lookup(fuse.ROOT, b'folder').nodeid, plus=True)) == 3
    if mode == 'namespace':  # the one call that has no flag for it
        client.readlink(client.lookup(fuse.ROOT, b'link').nodeid)
    client.syncfs()
    assert_same(share, before)


@pytest.mark.sandboxed
def test_the_mount_is_read_only_too(start, share, scratch):
    """What is not refused by its opcode is refused by the kernel."""
    daemon = start(launch.plain, share, scratch, ['--readonly'])
    daemon.wait_ready()
    root, = [line.split() for line in daemon.proc('mountinfo').splitlines()]
    assert root[4] == '/' and 'ro' in root[5].split(',')
    with pytest.raises(OSError) as caught:
        open(f'/proc/{daemon.pid}/root/new', 'xb')
    assert caught.value.errno == errno.EROFS
    with open(os.path.join(share, 'new'), 'xb'):
        pass  # for others it is what it was
    subprocess.run(['stat', os.path.join(share, 'new')], check=True,
                   stdout=subprocess.DEVNULL)
