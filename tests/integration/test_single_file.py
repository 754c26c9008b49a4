# SPDX-License-Identifier: Apache-2.0
"""A share that is a single file: node 1 is that file, in every sandbox, and nothing is
left of it on the host.
"""

import errno
import os
import stat
import struct

import pytest

import fuse_client as fuse
import launch
from frontend import Frontend

CONTENT = b'a file, and all that is shared'
SET_MODE, SET_UID, SET_SIZE, SET_MTIME = 1, 2, 8, 32
MODES = ('namespace', 'chroot', 'none')


@pytest.fixture
def file(share):
    path = os.path.join(share, 'file')
    with open(path, 'wb') as made:
        made.write(CONTENT)
    with open(os.path.join(share, 'neighbour'), 'wb') as made:
        made.write(b'not shared')
    return path


def content_of(path):
    with open(path, 'rb') as file:
        return file.read()


@pytest.fixture
def serve(start, file, scratch, extra_args):
    """serve(option...): a client of a daemon that shares the file."""
    frontends = []

    def begin(*options):
        daemon = start(launch.plain, file, scratch, [*options, *extra_args])
        daemon.wait_ready()
        frontends.append((daemon, Frontend(daemon.socket_path)))
        client = frontends[-1][1].__enter__()
        client.start()
        client = client.client()
        client.init()
        return client

    yield begin
    for daemon, frontend in frontends:
        frontend.__exit__(None, None, None)
        assert daemon.wait() == 0


def error_of(call, *args, **more):
    """The errno with which a request fails."""
    with pytest.raises(fuse.FuseError) as caught:
        call(*args, **more)
    return caught.value.errno


@pytest.mark.parametrize('mode', [pytest.param(mode, marks=[pytest.mark.sandboxed])
                                  for mode in MODES])
def test_what_files_can_do(serve, file, mode):
    client = serve(f'--sandbox={mode}')
    attr = client.getattr(fuse.ROOT)
    assert stat.S_ISREG(attr.mode) and attr.size == len(CONTENT)
    handle, _ = client.open(fuse.ROOT, os.O_RDWR)
    assert client.read(fuse.ROOT, handle, 4096) == CONTENT
    assert client.write(fuse.ROOT, handle, b'A FILE') == 6
    client.fsync(fuse.ROOT, handle)
    client.fallocate(fuse.ROOT, handle, 0, 0, 100)
    assert client.getattr(fuse.ROOT, handle).size == 100
    assert client.lseek(fuse.ROOT, handle, 0, os.SEEK_HOLE) == 100
    client.flush(fuse.ROOT, handle)
    client.release(fuse.ROOT, handle)
    assert content_of(file)[:30] == b'A FILE' + CONTENT[6:]
    attr = client.setattr(fuse.ROOT, SET_MODE | SET_UID | SET_SIZE | SET_MTIME,
                          mode=0o604, uid=1000, size=6, mtime=5)
    assert (stat.S_IMODE(attr.mode), attr.uid, attr.size, attr.mtime) == (
        0o604, 1000, 6, 5)
    seen = os.stat(file)
    assert (stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_size) == (0o604, 1000, 6)
    assert client.statfs()[0] > 0
    client.syncfs()
    handle, _ = client.open(fuse.ROOT, os.O_WRONLY | os.O_TRUNC)
    client.release(fuse.ROOT, handle)
    assert content_of(file) == b''


@pytest.mark.parametrize('mode', [pytest.param(mode, marks=[pytest.mark.sandboxed])
                                  for mode in MODES])
def test_what_directories_can_do(serve, file, share, mode):
    client = serve(f'--sandbox={mode}')
    root = fuse.ROOT
    for name in (b'file', b'neighbour', b'share', b'none'):
        assert error_of(client.lookup, root, name) == errno.ENOTDIR
        assert error_of(client.unlink, root, name) == errno.ENOTDIR
        assert error_of(client.rmdir, root, name) == errno.ENOTDIR
        assert error_of(client.create, root, name) == errno.ENOTDIR
        assert error_of(client.mkdir, root, name) == errno.ENOTDIR
        assert error_of(client.mknod, root, name, stat.S_IFREG) == errno.ENOTDIR
        assert error_of(client.symlink, root, name, b'to') == errno.ENOTDIR
        assert error_of(client.link, root, root, name) == errno.ENOTDIR
        assert error_of(client.rename, root, name, root, b'new') == errno.ENOTDIR
    for name in (b'..', b'.'):
        assert error_of(client.lookup, root, name) in (errno.ENOTDIR, errno.EINVAL)
    assert error_of(client.opendir, root) == errno.ENOTDIR
    body = struct.pack('=QQIIQII', 0, 0, 4096, 0, 0, 0, 0)
    reply = client.send(fuse.READDIR, root, body)
    assert reply.errno == errno.EBADF
    assert sorted(os.listdir(share)) == ['file', 'neighbour']
    assert content_of(file) == CONTENT


@pytest.mark.parametrize('mode', [pytest.param(mode, marks=[pytest.mark.sandboxed])
                                  for mode in MODES])
def test_another_has_its_name(serve, file, share, mode):
    """The share stays the file that it was, as a bind mount would."""
    client = serve(f'--sandbox={mode}')
    os.rename(file, os.path.join(share, 'old'))
    with open(file, 'wb') as new:
        new.write(b'something else')
    handle, _ = client.open(fuse.ROOT)
    assert client.read(fuse.ROOT, handle, 4096) == CONTENT
    client.release(fuse.ROOT, handle)
    client.destroy()
    client.init()
    handle, _ = client.open(fuse.ROOT)
    assert client.read(fuse.ROOT, handle, 4096) == CONTENT
    client.release(fuse.ROOT, handle)
    os.rename(os.path.join(share, 'old'), file)  # its name is looked at in the end


@pytest.mark.sandboxed
def test_nothing_on_the_host(start, file, share, scratch, extra_args):
    """No mount, no file, while it runs and afterwards."""
    with open('/proc/self/mountinfo', encoding='utf-8') as mounts:
        before = mounts.read()
    daemon = start(launch.plain, file, scratch, extra_args)
    daemon.wait_ready()
    with open('/proc/self/mountinfo', encoding='utf-8') as mounts:
        assert mounts.read() == before
    assert sorted(os.listdir(scratch)) == ['share', 'socket', 'socket.pid']
    lines = [line.split() for line in daemon.proc('mountinfo').splitlines()]
    places = {line[4]: line for line in lines}
    assert sorted(places) == ['/', '/share']
    assert places['/'][5].startswith('ro,') and ' tmpfs ' in ' '.join(places['/'])
    assert places['/share'][3].endswith('/file')
    assert all('nosuid,nodev,noexec' in line[5] for line in lines)
    assert os.listdir(f'/proc/{daemon.pid}/root') == ['share']
    daemon.signal(15)
    assert daemon.wait() == 0
    assert sorted(os.listdir(scratch)) == ['share']
    assert sorted(os.listdir(share)) == ['file', 'neighbour']


def test_readonly(serve, file):
    client = serve('--readonly')
    handle, _ = client.open(fuse.ROOT)
    assert client.read(fuse.ROOT, handle, 4096) == CONTENT
    client.release(fuse.ROOT, handle)
    assert error_of(client.open, fuse.ROOT, os.O_RDWR) == errno.EROFS
    assert error_of(client.setattr, fuse.ROOT, SET_SIZE, size=0) == errno.EROFS
    assert content_of(file) == CONTENT


def test_mounted_on_a_file(bridged, file):
    """Linux mounts a file on a file, if it is told."""
    mounted = bridged(of=file)
    assert content_of(mounted) == CONTENT
    with open(mounted, 'r+b') as shared:
        shared.write(b'A FILE')
        os.fsync(shared.fileno())
    assert content_of(file) == b'A FILE' + CONTENT[6:]
    with open(mounted, 'ab') as shared:
        shared.write(b'!')
    assert content_of(file).endswith(b'shared!')
    os.truncate(mounted, 3)
    os.chmod(mounted, 0o640)
    seen = os.stat(file)
    assert (seen.st_size, stat.S_IMODE(seen.st_mode)) == (3, 0o640)
    with pytest.raises(NotADirectoryError):
        os.listdir(mounted)
    with pytest.raises(NotADirectoryError):
        open(os.path.join(mounted, 'name'), 'xb')
    assert os.statvfs(mounted).f_blocks == os.statvfs(file).f_blocks
