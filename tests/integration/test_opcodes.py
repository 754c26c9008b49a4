# SPDX-License-Identifier: Apache-2.0
"""The rarer operations, against a native twin where Linux's own client sends them, and as
bytes where it would not.
"""

import ctypes
import errno
import fcntl
import itertools
import os
import select
import stat
import struct
import subprocess
import threading
import time

import pytest

from files import write
import fuse_client as fuse
import twin
from strace import Strace

AT_FDCWD, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH = -100, 0x400, 0x1000
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
ROOT, USER, MEMBER = (0, 0, ()), (1000, 1000, ()), (1001, 1001, (1000,))
CALLERS = {'root': ROOT, 'user': USER, 'member': MEMBER}
libc = ctypes.CDLL(None, use_errno=True)


def call(function, *args):
    """A function of the C library that Python lacks."""
    result = function(*args)
    if result < 0:
        raise OSError(ctypes.get_errno(), function.__name__)
    return result


@pytest.fixture
def twins(bridged, scratch):
    """The mounted share, where names are always asked for, and a twin beside it."""
    os.chmod(scratch, 0o755)
    theirs = os.path.join(scratch, 'twin')
    os.mkdir(theirs)
    ours = bridged('--cache=never')
    os.chmod(os.path.dirname(ours), 0o755)
    return twin.Twins(ours, theirs)


# ---- what is not served ---------------------------------------------------------------

NOT_SERVED = {
    'ACCESS': struct.pack('=II', os.W_OK, 0),
    'BMAP': struct.pack('=QII', 0, 4096, 0),
    'POLL': struct.pack('=QQII', 0, 1, 1, select.POLLIN),
    'NOTIFY_REPLY': bytes(40),
    'SETUPMAPPING': struct.pack('=QQQQQ', 2**64 - 1, 0, 2 << 20, 1, 0),
    'REMOVEMAPPING': struct.pack('=IQQ', 1, 0, 2 << 20),
}


def test_not_served(serve, share):
    """ENOSYS, by which Linux learns not to ask again, and nothing else happens."""
    guest = serve()
    write(os.path.join(share, 'file'), b'content')
    node = guest.client.lookup(fuse.ROOT, b'file').nodeid
    for name, body in NOT_SERVED.items():
        reply = guest.client.send(fuse.OPCODES[name], node, body)
        assert (reply.errno, reply.is_well_formed) == (errno.ENOSYS, True), name
    for opcode in (0, 7, 19, 54, 4096, 0xFFFFFFFF):
        reply = guest.client.send(opcode, node, bytes(64))
        assert (reply.errno, reply.is_well_formed) == (errno.ENOSYS, True), opcode
    assert guest.client.getattr(node).size == 7


def test_not_exported(serve, share):
    """Node ids do not outlive the guest's memory of them, so no file handle that has one
    may: the guest is told so where it can be.
    """
    os.mkdir(os.path.join(share, 'folder'))
    guest = serve(flags=fuse.LINUX_INIT_FLAGS | 1 << 38)
    assert guest.agreed & 1 << 38 and not guest.agreed & 1 << 4
    node = guest.client.lookup(fuse.ROOT, b'folder').nodeid
    for parent in (fuse.ROOT, node):
        for name in (b'.', b'..'):
            assert fuse.errno_of(guest.client.lookup, parent, name) == errno.EINVAL


def poll_and_wait(folder):
    path = os.path.join(folder, 'file')
    with open(path, 'r+b') as file:
        poll = select.poll()
        poll.register(file, select.POLLIN | select.POLLOUT | select.POLLPRI)
        ready = select.select([file], [file], [file], 1)
        return poll.poll(1000)[0][1], [len(which) for which in ready]


def test_poll(twins):
    twins.make(lambda folder: write(os.path.join(folder, 'file'), b'content'))
    assert twins.check(poll_and_wait)[1][0] == select.POLLIN | select.POLLOUT


def access_all(folder, name):
    path = os.path.join(folder, name)
    return [os.access(path, mode) for mode in range(8)]


def test_access(twins):
    """Who may do what: by all groups, which the peer's own answer left out."""
    modes = (0o000, 0o400, 0o640, 0o070, 0o777, 0o607)

    def make(folder):
        for mode, (owner, group) in itertools.product(modes, ((0, 0), (1000, 1000))):
            path = os.path.join(folder, f'{mode:o}-{owner}')
            write(path, b'')
            os.chown(path, owner, group)
            os.chmod(path, mode)

    twins.make(make)
    for name in os.listdir(twins.theirs):
        for caller in CALLERS.values():
            twins.check(access_all, name, caller=caller)


# ---- files without names --------------------------------------------------------------


def make_nameless(folder, flags, mode):
    """What it looks like, and whether it can be given a name."""
    fd = os.open(folder, os.O_TMPFILE | flags, mode)
    try:
        os.write(fd, b'content')
        found = os.fstat(fd)
        name = os.path.join(folder, f'named-{os.getuid()}-{flags:x}-{mode:o}')
        linked = twin.outcome(call, libc.linkat, AT_FDCWD,
                              f'/proc/self/fd/{fd}'.encode(), AT_FDCWD, name.encode(),
                              AT_SYMLINK_FOLLOW)
        return (found.st_mode, found.st_uid, found.st_gid, found.st_nlink, found.st_size,
                linked, os.fstat(fd).st_nlink, os.listdir(folder).sort())
    finally:
        os.close(fd)


def test_tmpfile(twins):
    def make(folder):
        for name, mode, gid in (('open', 0o777, 0), ('group', 0o2777, 1000),
                                ('closed', 0o755, 0), ('members', 0o2770, 1000)):
            path = os.path.join(folder, name)
            os.mkdir(path)
            os.chown(path, 0, gid)
            os.chmod(path, mode)

    twins.make(make)
    made = 0
    for name, caller, flags, mode in itertools.product(
            ('open', 'group', 'closed', 'members', 'none'), CALLERS.values(),
            (os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_EXCL, os.O_RDONLY),
            (0o644, 0o2755, 0o400)):

        def run(folder, where=name):
            return make_nameless(os.path.join(folder, where), flags, mode)

        made += twins.check(run, caller=caller,
                            what=(name, flags, mode))[0] == 'returned'
    assert made > 60
    twins.check_trees()


def test_tmpfile_as_bytes(serve, share):
    """The name that comes along is no name; flags that mean something else do not."""
    client = serve().client
    for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_PATH):
        entry, handle = client.tmpfile(fuse.ROOT, 0o6640, flags)
        assert entry.attr.mode == stat.S_IFREG | 0o6640 and entry.attr.nlink == 0
        assert client.write(entry.nodeid, handle, b'content') == 7
        assert client.read(entry.nodeid, handle, 100) == b'content'
        assert client.getattr(entry.nodeid).size == 7
        client.release(entry.nodeid, handle)
        client.forget(entry.nodeid)
        assert fuse.errno_of(client.getattr, entry.nodeid) == errno.ESTALE
    assert os.listdir(share) == []


# ---- attributes -----------------------------------------------------------------------

STATX_BTIME, STATX_BASIC = 0x800, 0x7FF


def statx(path, mask=0xFFF, flags=0x100):
    buffer = ctypes.create_string_buffer(256)
    call(libc.statx, AT_FDCWD, path.encode(), flags, mask, buffer)
    return buffer.raw


def birth_of(path):
    raw = statx(path)
    return struct.unpack_from('=I', raw)[0] & STATX_BTIME, raw[80:92]


def test_birth(twins, share):
    """The time of birth is the host's, of every kind of file."""
    write(os.path.join(twins.ours, 'file'), b'')
    os.mkdir(os.path.join(twins.ours, 'folder'))
    os.symlink('nowhere', os.path.join(twins.ours, 'link'))
    os.mkfifo(os.path.join(twins.ours, 'fifo'))
    os.mknod(os.path.join(twins.ours, 'device'), stat.S_IFCHR, os.makedev(1, 3))
    for name in os.listdir(share):
        known, born = birth_of(os.path.join(twins.ours, name))
        assert known and born == birth_of(os.path.join(share, name))[1], name


def statx_body(handle=None, flags=0, mask=0xFFF):
    return struct.pack('=IIQII', handle is not None, 0, handle or 0, flags, mask)


def test_statx_as_bytes(serve, share):
    client = serve().client
    path = os.path.join(share, 'file')
    write(path, b'content' * 1000, 0o640)
    os.chown(path, 5, 6)
    node = client.lookup(fuse.ROOT, b'file').nodeid
    handle = client.open(node)[0]
    native = statx(path)
    for body in (statx_body(), statx_body(handle), statx_body(flags=0x2000)):
        payload = client.call(fuse.STATX, node, body)
        assert len(payload) == 288
        seen = payload[32:]
        mask = struct.unpack_from('=I', seen)[0]
        assert mask == STATX_BASIC | STATX_BTIME
        # nlink, uid, gid, mode; ino, size, blocks; the four times
        assert seen[16:30] == native[16:30] and seen[32:56] == native[32:56]
        assert seen[64:128] == native[64:128]
    for body in (statx_body(flags=0x6000), statx_body(flags=0x1000),
                 statx_body(mask=1 << 31), statx_body(flags=1 << 31)):
        assert client.send(fuse.STATX, node, body).errno == errno.EINVAL
    assert client.send(fuse.STATX, node, statx_body(handle + 1)).errno == errno.EBADF
    client.release(node, handle)


def change_times(path):
    """ctime in nanoseconds."""
    return os.lstat(path).st_ctime_ns


FATTR_MODE, FATTR_ATIME, FATTR_MTIME, FATTR_CTIME = 1, 1 << 4, 1 << 5, 1 << 10


@pytest.mark.parametrize('kind', ['file', 'folder', 'link', 'fifo'])
def test_ctime(serve, share, kind):
    """Nobody can set it. That a file has changed can be said: then it has, now."""
    client = serve().client
    path = os.path.join(share, kind)
    {'file': lambda: write(path, b'content', 0o6755), 'folder': lambda: os.mkdir(path),
     'link': lambda: os.symlink('nowhere', path), 'fifo': lambda: os.mkfifo(path)}[kind]()
    os.utime(path, ns=(10**18 + 1, 10**18 + 2), follow_symlinks=False)
    before, look = change_times(path), os.lstat(path)
    node = client.lookup(fuse.ROOT, kind.encode()).nodeid
    for valid in (FATTR_CTIME, FATTR_CTIME | FATTR_MTIME):
        time.sleep(0.01)
        attr = client.setattr(node, valid, ctime=5, ctimensec=6, mtime=10**9,
                              mtimensec=2)
        after = change_times(path)
        assert after > before
        assert attr.ctime * 10**9 + attr.ctimensec == after
        before = after
    found = os.lstat(path)
    assert (found.st_atime_ns, found.st_mtime_ns) == (10**18 + 1, 10**18 + 2)
    assert (found.st_mode, found.st_uid) == (look.st_mode, look.st_uid)


# ---- data -----------------------------------------------------------------------------

KIB = 1024


def make_sparse(folder, layout):
    """A file with data where the layout says, in blocks of 64 KiB."""
    with open(os.path.join(folder, 'file'), 'wb') as file:
        for number, is_data in enumerate(layout):
            if is_data == '#':
                os.pwrite(file.fileno(), b'x' * 64 * KIB, number * 64 * KIB)
        file.truncate(len(layout) * 64 * KIB + 5)


def seek(folder, offset, whence):
    fd = os.open(os.path.join(folder, 'file'), os.O_RDONLY)
    try:
        found = os.lseek(fd, offset, whence)
        # The file goes on from there.
        return found, os.read(fd, 3), os.lseek(fd, 0, os.SEEK_CUR)
    finally:
        os.close(fd)


@pytest.mark.parametrize('layout', ['', '#', '.', '#..#', '..#.', '#.#.#.', '....####..'])
def test_seek(twins, layout):
    twins.make(make_sparse, layout)
    size = len(layout) * 64 * KIB + 5
    for whence in (os.SEEK_DATA, os.SEEK_HOLE, os.SEEK_SET, os.SEEK_END, os.SEEK_CUR):
        for offset in (0, 1, 64 * KIB - 1, 64 * KIB, 130 * KIB, size - 1, size, size + 1,
                       -1, -size, 2**40):
            twins.check(seek, offset, whence)


def test_seek_as_bytes(serve, share):
    """Where the daemon's descriptor stands is of no consequence to anybody."""
    client = serve().client
    write(os.path.join(share, 'file'), b'0123456789')
    os.mkdir(os.path.join(share, 'folder'))
    node = client.lookup(fuse.ROOT, b'file').nodeid
    handle = client.open(node, os.O_RDWR)[0]
    for whence, offset in ((os.SEEK_SET, 7), (os.SEEK_CUR, 2), (os.SEEK_END, 0)):
        client.lseek(node, handle, offset, whence)
        assert client.read(node, handle, 100) == b'0123456789'
        assert client.write(node, handle, b'0') == 1
    for offset, whence, expected in (
            (10, os.SEEK_DATA, errno.ENXIO), (2**63, os.SEEK_DATA, errno.ENXIO),
            (2**64 - 1, os.SEEK_SET, errno.EINVAL), (0, 99, errno.EINVAL)):
        assert fuse.errno_of(client.lseek, node, handle, offset, whence) == expected
    assert fuse.errno_of(client.lseek, node, handle + 1, 0, os.SEEK_SET) == errno.EBADF
    client.release(node, handle)


def copy(folder, offset, to, length, same=False):
    source = os.path.join(folder, 'source')
    target = source if same else os.path.join(folder, 'target')
    a = os.open(source, os.O_RDWR)
    b = os.open(target, os.O_RDWR)
    try:
        return os.copy_file_range(a, b, length, offset, to), twin.content(target)
    finally:
        os.close(a)
        os.close(b)


def test_copy(twins):
    def make(folder):
        write(os.path.join(folder, 'source'), bytes(range(256)) * 400)
        write(os.path.join(folder, 'target'), b'y' * 50000)

    twins.make(make)
    for offset, to, length in itertools.product(
            (0, 1, 4096, 102399, 102400, 200000), (0, 4095, 60000), (0, 1, 10000, 10**9)):
        twins.check(copy, offset, to, length)
    for offset, to, length in ((0, 50000, 1000), (0, 500, 1000), (5000, 0, 4000),
                               (0, 102400, 102400)):
        twins.check(copy, offset, to, length, True)
    twins.check_trees()


@pytest.mark.parametrize('wide', [False, True])
def test_copy_counts(serve, share, wide):
    """What is copied is what is said, however much was asked for: the peer's count was
    cut to 32 bits.
    """
    client = serve().client
    for name in ('source', 'target'):
        write(os.path.join(share, name), b'')
    os.truncate(os.path.join(share, 'source'), 5 << 30)
    source, target = (client.lookup(fuse.ROOT, name).nodeid
                      for name in (b'source', b'target'))
    a, b = client.open(source)[0], client.open(target, os.O_RDWR)[0]
    done = 0
    for length in (1 << 32, (1 << 32) + 1, 2**63 - 1, 2**64 - 1):
        n = client.copy_file_range(source, a, done, (target, b, done), length, wide=wide)
        assert n > 0
        done += n
        assert os.path.getsize(os.path.join(share, 'target')) == done
    for more in ({'flags': 1}, {'flags': 1 << 32}):
        assert fuse.errno_of(client.copy_file_range, source, a, 0, (target, b, 0), 1,
                             wide=wide, **more) == errno.EINVAL
    assert fuse.errno_of(client.copy_file_range, source, a, 0, (target, a, 0), 1,
                   wide=wide) == errno.EBADF
    client.release(source, a)
    client.release(target, b)


# ---- flags ----------------------------------------------------------------------------

GETFLAGS, SETFLAGS = 0x80086601, 0x40086602
FSGETXATTR, FSSETXATTR = 0x801C581F, 0x401C5820
NODUMP, NOATIME, SYNC, IMMUTABLE, APPEND, EXTENTS = 0x40, 0x80, 0x8, 0x10, 0x20, 0x80000


def flags_of(folder, name):
    fd = os.open(os.path.join(folder, name), os.O_RDONLY)
    try:
        flags = struct.unpack('=I4x', fcntl.ioctl(fd, GETFLAGS, bytes(8)))[0]
        return flags, fcntl.ioctl(fd, FSGETXATTR, bytes(28))
    finally:
        os.close(fd)


def set_flags(folder, name, flags):
    fd = os.open(os.path.join(folder, name), os.O_RDONLY)
    try:
        old = struct.unpack('=I4x', fcntl.ioctl(fd, GETFLAGS, bytes(8)))[0]
        fcntl.ioctl(fd, SETFLAGS, struct.pack('=I4x', old & EXTENTS | flags))
    finally:
        os.close(fd)
    return flags_of(folder, name)


def set_attributes(folder, name, flags):
    fd = os.open(os.path.join(folder, name), os.O_RDONLY)
    try:
        old = fcntl.ioctl(fd, FSGETXATTR, bytes(28))
        fcntl.ioctl(fd, FSSETXATTR, struct.pack('=I', flags) + old[4:])
    finally:
        os.close(fd)
    return flags_of(folder, name)


def test_flags(twins):
    """chattr(1) and lsattr(1), on files and folders, by those who may and may not."""
    def make(folder):
        for name in ('file', 'theirs'):
            write(os.path.join(folder, name), b'content')
        os.mkdir(os.path.join(folder, 'folder'))
        os.chown(os.path.join(folder, 'theirs'), 1000, 1000)

    twins.make(make)
    if twins.check(flags_of, 'file')[0] != 'returned':
        pytest.skip('the file system here has no such flags')
    for name, caller in itertools.product(('file', 'theirs', 'folder'), CALLERS.values()):
        for flags in (NODUMP, NOATIME, SYNC | NODUMP, 0, 1 << 31):
            twins.check(set_flags, name, flags, caller=caller)
        for flags in (0x80, 0x40, 0x20 | 0x80, 0):
            twins.check(set_attributes, name, flags, caller=caller)
        twins.check(flags_of, name, caller=caller)
    for name, folder in itertools.product(('file', 'theirs'), (twins.ours, twins.theirs)):
        subprocess.run(['chattr', '+dA', os.path.join(folder, name)], check=True)
        shown = subprocess.run(['lsattr', name], cwd=folder, check=True,
                               stdout=subprocess.PIPE).stdout
        assert b'd' in shown.split()[0] and b'A' in shown.split()[0]


def test_ioctl_as_bytes(serve, share):
    """No other number reaches the host, and no privilege is the guest's."""
    client = serve().client
    write(os.path.join(share, 'file'), b'content')
    node = client.lookup(fuse.ROOT, b'file').nodeid
    handle, folder = client.open(node)[0], client.opendir(fuse.ROOT)
    assert len(client.ioctl(node, handle, GETFLAGS, out_size=8)) == 4
    assert len(client.ioctl(fuse.ROOT, folder, FSGETXATTR, out_size=28, flags=16)) == 28
    for flags in (IMMUTABLE, APPEND):
        assert fuse.errno_of(client.ioctl, node, handle, SETFLAGS,
                       struct.pack('=I4x', flags)) == errno.EPERM
    # FIGETBSZ, FS_IOC_GETVERSION, FIFREEZE, FITRIM, FS_IOC_ENABLE_VERITY, BLKROSET
    for number in (2, 0x80087601, 0xC0045877, 0xC0185879, 0x40806685, 0x125D):
        assert fuse.errno_of(client.ioctl, node, handle, number, bytes(8),
                             8) == errno.ENOTTY
    for flags in (2, 4, 64, 1 << 31):
        assert fuse.errno_of(client.ioctl, node, handle, GETFLAGS, out_size=8,
                       flags=flags) == errno.EINVAL
    assert fuse.errno_of(client.ioctl, node, folder, GETFLAGS, out_size=8) == errno.EBADF
    assert fuse.errno_of(client.ioctl, fuse.ROOT, folder, GETFLAGS,
                         out_size=8) == errno.EBADF
    client.release(node, handle)
    client.releasedir(fuse.ROOT, folder)


# ---- names ----------------------------------------------------------------------------

KINDS = ('file', 'other', 'folder', 'full', 'link', 'hard', 'absent', 'fifo')


def make_kinds(folder, mode, owner):
    if os.path.exists(os.path.join(folder, 'w')):
        subprocess.run(['rm', '-rf', os.path.join(folder, 'w')], check=True)
    folder = os.path.join(folder, 'w')
    os.mkdir(folder)
    write(os.path.join(folder, 'file'), b'file')
    write(os.path.join(folder, 'other'), b'other')
    os.mkdir(os.path.join(folder, 'folder'))
    os.mkdir(os.path.join(folder, 'full'))
    write(os.path.join(folder, 'full', 'inner'), b'inner')
    os.symlink('file', os.path.join(folder, 'link'))
    os.link(os.path.join(folder, 'file'), os.path.join(folder, 'hard'))
    os.mkfifo(os.path.join(folder, 'fifo'))
    for name in os.listdir(folder):
        os.lchown(os.path.join(folder, name), *owner)
    os.chown(folder, *owner)
    os.chmod(folder, mode)


def rename(folder, name, new_name, flags):
    call(libc.renameat2, AT_FDCWD, os.path.join(folder, 'w', name).encode(), AT_FDCWD,
         os.path.join(folder, 'w', new_name).encode(), flags)


RENAMES = (0, NOREPLACE, EXCHANGE, WHITEOUT, WHITEOUT | NOREPLACE, EXCHANGE | NOREPLACE,
           EXCHANGE | WHITEOUT, 8)


@pytest.mark.parametrize('flags', RENAMES)
def test_rename(twins, flags):
    """Every kind of file onto every other."""
    done = 0
    for name, new_name in itertools.product(KINDS, (*KINDS, 'full/new')):
        twins.make(make_kinds, 0o755, (0, 0))
        done += twins.check(rename, name, new_name, flags)[0] == 'returned'
        twins.check_trees((name, new_name))
    assert done > 10 or flags in (EXCHANGE | NOREPLACE, EXCHANGE | WHITEOUT, 8)


@pytest.mark.parametrize('flags', (0, EXCHANGE, WHITEOUT))
@pytest.mark.parametrize('who', CALLERS)
def test_rename_by(twins, flags, who):
    """By those who may and may not; a whiteout is the caller's who leaves it."""
    done = 0
    for mode, owner, new_name in itertools.product(
            (0o755, 0o2770, 0o1777), ((0, 0), (0, 1000), (1000, 1000)),
            ('other', 'absent')):
        twins.make(make_kinds, mode, owner)
        done += twins.check(rename, 'file', new_name, flags,
                            caller=CALLERS[who])[0] == 'returned'
        twins.check_trees((oct(mode), owner, new_name))
    assert done > 1


DEVICES = ((stat.S_IFCHR, 0, 0), (stat.S_IFCHR, 1, 3), (stat.S_IFCHR, 0xFFF, 0xFFFFF),
           (stat.S_IFBLK, 0, 0), (stat.S_IFBLK, 259, 70000), (stat.S_IFIFO, 0, 0),
           (stat.S_IFSOCK, 0, 0), (stat.S_IFREG, 0, 0), (stat.S_IFDIR, 0, 0))


def make_node(folder, name, kind, major, minor):
    path = os.path.join(folder, 'w', name)
    os.mknod(path, kind | 0o640, os.makedev(major, minor))
    return twin.looks(path)


@pytest.mark.parametrize('who', CALLERS)
def test_nodes(twins, who):
    """A whiteout, which everybody may make, and devices, which few may."""
    twins.make(make_kinds, 0o2777, (0, 77))
    made = [twins.check(make_node, f'{number}', *device, caller=CALLERS[who])
            for number, device in enumerate(DEVICES)]
    assert made[0][0] == 'returned' and stat.S_ISCHR(made[0][1][0])
    assert (made[1][0] == 'returned') == (who == 'root')
    twins.check_trees()


@pytest.mark.sandboxed
def test_nodes_without_privilege(serve, share):
    """A daemon without CAP_MKNOD, too, makes whiteouts."""
    client = serve('--modcaps=-mknod').client
    client.mknod(fuse.ROOT, b'whiteout', stat.S_IFCHR)
    found = os.lstat(os.path.join(share, 'whiteout'))
    assert stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
    assert fuse.errno_of(client.mknod, fuse.ROOT, b'null', stat.S_IFCHR,
                         0x103) == errno.EPERM


def test_create_under_a_race(serve, share):
    """The entry is of the file that was opened, whoever has the name by now."""
    client = serve().client
    path = os.path.join(share, 'name')
    write(path, b'')
    stop = threading.Event()

    def replace():
        number = 0
        while not stop.is_set():
            number += 1
            write(f'{path}.{number % 2}', b'')
            os.rename(f'{path}.{number % 2}', path)

    racer = threading.Thread(target=replace)
    racer.start()
    try:
        for _ in range(3000):
            entry, handle = client.create(fuse.ROOT, b'name')
            assert client.getattr(entry.nodeid, handle).ino == entry.attr.ino
            client.release(entry.nodeid, handle)
            client.forget(entry.nodeid)
    finally:
        stop.set()
        racer.join()


@pytest.mark.sandboxed
def test_few_system_calls(serve, share, scratch):
    """The end of a file is not looked for twice, and a close is no system call."""
    guest = serve()
    client = guest.client
    write(os.path.join(share, 'file'), b'content')
    node = client.lookup(fuse.ROOT, b'file').nodeid
    handle, flags = client.open(node)
    assert flags & 1 << 5  # FOPEN_NOFLUSH
    strace = Strace(guest.daemon, scratch, '-e', 'trace=preadv2,dup,fcntl,close')
    assert client.read(node, handle, 4096) == b'content'
    client.flush(node, handle)
    assert strace.calls() == ['preadv2']
    client.release(node, handle)
