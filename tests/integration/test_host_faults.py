# SPDX-License-Identifier: Apache-2.0
"""File systems of the host that are full, over their quota, or broken: the guest is told
so, errno by errno, nothing that was acknowledged changes, and work goes on afterwards.
"""

import contextlib
import errno
import fcntl
import os
import struct
import subprocess
import time

import pytest

import filesystems
import fuse_client as fuse
from fuse_client import errno_of

MIB = 1 << 20
EXT4_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32); xfs has the same number
SHUTDOWN_NOLOG = 2
PROMPT = 0.5  # an idle machine needs a few milliseconds


def assert_content(client, node, handle, data):
    for at in range(0, len(data), MIB):
        assert client.read(node, handle, MIB, at) == data[at:at + MIB]


@pytest.fixture(params=['ext4', 'tmpfs'])
def small(request, share, scratch):
    """The share, on a file system with room for little."""
    kind = request.param
    if kind == 'tmpfs':
        words = ('-t', 'tmpfs', '-o', 'size=32M,nr_inodes=200', 'small')
    else:
        image = os.path.join(scratch, 'image')
        filesystems.make_image(image, kind, size=64 * MIB)
        words = ('-o', 'loop', image)
    with filesystems.mounted(share, *words):
        yield share


def fill(client, node, handle, errnos):
    """Write until there is no room; the errno. All that was said to be written is."""
    at, size = 0, MIB
    while True:
        try:
            done = client.write(node, handle, bytes([at // MIB % 251]) * size, at)
            assert 0 < done <= size
            at += done
        except fuse.FuseError as error:
            if size == 1:
                assert error.errno in errnos
                return at
            size = max(size // 16, 1)


def test_full(small, serve):
    """ENOSPC for what needs room; what was there is as it was; room that is made is used.
    """
    with open(os.path.join(small, 'kept'), 'wb') as file:
        kept = os.urandom(4 * MIB)
        file.write(kept)
    guest = serve('--xattr')
    client = guest.client
    node = client.lookup(fuse.ROOT, b'kept').nodeid
    handle = client.open(node, os.O_RDWR)[0]
    entry, filler = client.create(fuse.ROOT, b'filler')
    size = fill(client, entry.nodeid, filler, {errno.ENOSPC})
    print(f'{size / MIB:.1f} MiB written')
    found = set()
    name = 'n%060d'
    for number in range(20000):  # inodes and directory blocks, too
        wrong = errno_of(client.mkdir, fuse.ROOT, (name % number).encode())
        if wrong:
            found.add(wrong)
            break
    found.add(errno_of(client.symlink, fuse.ROOT, b'link', b'x' * 900))
    found.add(errno_of(client.write, node, handle, b'x' * MIB, 1 << 30))
    found.add(errno_of(client.fallocate, node, handle, 0, 1 << 30, 64 * MIB))
    value = b'x' * 3000
    found |= {errno_of(client.setxattr, node, b'user.a%d' % n, value) for n in range(50)}
    assert found - {0} == {errno.ENOSPC}
    assert errno_of(client.rename, fuse.ROOT, b'kept', fuse.ROOT, b'moved') in (
        0, errno.ENOSPC)
    assert client.statfs()[2] * client.statfs()[5] < 2 * MIB
    assert_content(client, node, handle, kept)
    # Room is made.
    client.setattr(entry.nodeid, 8, size=0)
    client.fsync(entry.nodeid, filler)
    client.syncfs()
    assert client.write(node, handle, b'y' * MIB, len(kept)) == MIB
    client.fsync(node, handle)
    assert_content(client, node, handle, kept + b'y' * MIB)


def test_quota(share, scratch, serve):
    """EDQUOT, on btrfs: the one file system of the test machine that has quotas."""
    image = os.path.join(scratch, 'image')
    filesystems.make_image(image, 'btrfs', size=256 * MIB)
    with filesystems.mounted(share, '-o', 'loop', image):
        for words in (('quota', 'enable', share), ('qgroup', 'limit', '16M', share)):
            subprocess.run(['btrfs', *words], check=True, stdout=subprocess.DEVNULL)
        guest = serve()
        client = guest.client
        entry, handle = client.create(fuse.ROOT, b'filler')
        size = fill(client, entry.nodeid, handle, {errno.EDQUOT})
        assert size < 20 * MIB
        with contextlib.suppress(fuse.FuseError):
            client.fsync(entry.nodeid, handle)
        print(f'{size / MIB:.1f} MiB written; {client.statfs()[2] >> 8} MiB said free')
        assert errno_of(client.mkdir, fuse.ROOT, b'dir') in (0, errno.EDQUOT)
        data = client.read(entry.nodeid, handle, MIB, 0)
        assert data == bytes(MIB)
        guest.frontend.close()
        assert guest.daemon.wait() == 0


# ---- broken ---------------------------------------------------------------------------

def shut_down(path):
    """The file system fails from now on, as if its disk were gone."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, EXT4_SHUTDOWN, struct.pack('=I', SHUTDOWN_NOLOG))
    finally:
        os.close(fd)


def operations(client, folder, node, handle):
    """One of each kind: {name: function}."""
    numbers = iter(range(1000))

    def name():
        return b'n%d' % next(numbers)

    return {
        'create': lambda: client.create(folder, name()),
        'mkdir': lambda: client.mkdir(folder, name()),
        'mknod': lambda: client.mknod(folder, name(), 0o100600),
        'symlink': lambda: client.symlink(folder, name(), b'target'),
        'link': lambda: client.link(node, folder, name()),
        'unlink': lambda: client.unlink(folder, b'file'),
        'rename': lambda: client.rename(folder, b'file', folder, name()),
        'write': lambda: client.write(node, handle, b'data'),
        'truncate': lambda: client.setattr(node, 8, size=1),
        'chmod': lambda: client.setattr(node, 1, mode=0o600),
        'setxattr': lambda: client.setxattr(node, b'user.a', b'value'),
        'removexattr': lambda: client.removexattr(node, b'user.b'),
        'fsync': lambda: client.fsync(node, handle),
        'fallocate': lambda: client.fallocate(node, handle, 0, 0, 1 << 20),
        'read': lambda: client.read(node, handle, MIB, 8 * MIB),
        'lookup': lambda: client.lookup(folder, name()),
        'readdir': lambda: client.listdir(folder),
        'open': lambda: client.release(node, client.open(node)[0]),
    }


# They change something, or look for what is not in memory.
MUST_FAIL = {'create', 'mkdir', 'mknod', 'symlink', 'link', 'unlink', 'rename', 'write',
             'truncate', 'chmod', 'setxattr', 'removexattr', 'fsync', 'fallocate'}


@pytest.mark.parametrize('kind', ['ext4', 'xfs'])
def test_broken_disk(share, scratch, serve, kind):
    """EIO for each request that needs the disk, at once; other mounts go on."""
    target, volume = os.path.join(share, 'mounted'), os.path.join(share, 'volume')
    image = os.path.join(scratch, 'image')
    filesystems.make_image(image, kind, size=320 * MIB)
    with filesystems.mounted(target, '-o', 'loop', image), \
            filesystems.mounted(volume, '-t', 'tmpfs', 'volume'):
        with open(os.path.join(target, 'file'), 'wb') as file:
            file.write(b'x' * 16 * MIB)
        os.setxattr(os.path.join(target, 'file'), 'user.b', b'value')
        guest = serve('--xattr')
        client = guest.client
        folder = client.lookup(fuse.ROOT, b'mounted').nodeid
        node = client.lookup(folder, b'file').nodeid
        handle = client.open(node, os.O_RDWR)[0]
        shut_down(target)
        slowest, failed = 0, {}
        for name, act in operations(client, folder, node, handle).items():
            begin = time.monotonic()
            failed[name] = errno_of(act)
            slowest = max(slowest, time.monotonic() - begin)
        print(f'{kind}: {failed}; {slowest * 1e3:.1f} ms at most')
        for name in MUST_FAIL:
            assert failed[name] == errno.EIO, name
        # What is in memory is told all the same: also that there is no such name.
        assert failed.pop('lookup') in (errno.ENOENT, errno.EIO)
        assert set(failed.values()) <= {0, errno.EIO}
        assert slowest < PROMPT
        volume = client.lookup(fuse.ROOT, b'volume').nodeid
        entry, other = client.create(volume, b'new')
        assert client.write(entry.nodeid, other, b'data') == 4
        assert client.read(entry.nodeid, other, 10) == b'data'
        guest.frontend.close()
        assert guest.daemon.wait() == 0
