# SPDX-License-Identifier: Apache-2.0
"""What the guest still knows and the share has not any more: a volume that the host has
unmounted, and a folder that it has moved elsewhere. Landlock refuses both; the guest is
told that what it knows is stale, and looks again.
"""

import ctypes
import errno
import os
import stat
import tempfile

import pytest

import fuse_client as fuse
from users import bind, unmount

pytestmark = pytest.mark.sandboxed

SET_SIZE = 8
MS_SHARED = 1 << 20
MODES = ('namespace', 'chroot', 'none')


def error_of(call, *args, **more):
    with pytest.raises(fuse.FuseError) as caught:
        call(*args, **more)
    return caught.value.errno


def make_volume(folder):
    os.makedirs(os.path.join(folder, 'deep'))
    for name in ('file', 'other', 'deep/file'):
        with open(os.path.join(folder, name), 'wb') as file:
            file.write(b'text')


class Known:
    """A file and a folder on the volume that the guest has looked up."""

    def __init__(self, client, name):
        self.client = client
        self.top = client.walk(name).nodeid
        self.file = client.walk(name + b'/file').nodeid
        self.folder = client.walk(name + b'/deep').nodeid

    def attempts(self):
        client, folder = self.client, self.folder
        return {
            'open': (client.open, self.file),
            'open to write': (client.open, self.file, os.O_RDWR),
            'opendir': (client.opendir, folder),
            'truncate': (client.setattr, self.file, SET_SIZE, {'size': 1}),
            'create': (client.create, folder, b'new'),
            'mkdir': (client.mkdir, folder, b'new'),
            'mknod': (client.mknod, folder, b'new', stat.S_IFREG | 0o600),
            'symlink': (client.symlink, folder, b'new', b'to'),
            'tmpfile': (client.tmpfile, folder),
            'link': (client.link, self.file, folder, b'new'),
            'unlink': (client.unlink, folder, b'file'),
            'rename': (client.rename, folder, b'file', folder, b'new'),
            'rmdir': (client.rmdir, self.top, b'deep'),
        }

    def errors(self):
        found = {}
        for name, (call, *args) in self.attempts().items():
            more = args.pop() if isinstance(args[-1], dict) else {}
            found[name] = errno.errorcode[error_of(call, *args, **more)]
        return found


@pytest.fixture
def shared(share):
    """The share is a mount whose changes reach the daemon's own."""
    bind(share, share)
    ctypes.CDLL(None).mount(None, os.fsencode(share), None, MS_SHARED, None)
    yield share
    unmount(share)


@pytest.mark.parametrize('mode', MODES)
def test_unmounted(shared, serve, share, scratch, mode):
    volume = os.path.join(scratch, 'volume')
    make_volume(volume)
    os.mkdir(os.path.join(share, 'sub'))
    bind(volume, os.path.join(share, 'sub'))
    try:
        client = serve(f'--sandbox={mode}').client
        known = Known(client, b'sub')
        # What is open stays so.
        handle, _ = client.open(known.file, os.O_RDWR)
    finally:
        unmount(os.path.join(share, 'sub'))
    assert known.errors() == dict.fromkeys(known.attempts(), 'ESTALE')
    assert client.read(known.file, handle, 10) == b'text'
    client.release(known.file, handle)
    assert error_of(client.walk, b'sub/file') == errno.ENOENT
    assert sorted(os.listdir(volume)) == ['deep', 'file', 'other']
    assert os.listdir(os.path.join(volume, 'deep')) == ['file']


@pytest.mark.parametrize('mode', ['chroot', 'none'])
def test_moved_out(serve, share, mode):
    """Not beneath the folder of the socket: there the daemon may remove files."""
    make_volume(os.path.join(share, 'sub'))
    client = serve(f'--sandbox={mode}').client
    known = Known(client, b'sub')
    with tempfile.TemporaryDirectory() as elsewhere:
        os.rename(os.path.join(share, 'sub'), os.path.join(elsewhere, 'sub'))
        assert known.errors() == dict.fromkeys(known.attempts(), 'ESTALE')
        os.rename(os.path.join(elsewhere, 'sub'), os.path.join(share, 'sub'))
    handle, _ = client.open(known.file)
    client.release(known.file, handle)


def test_forbidden_is_not_stale(serve, share):
    """What only its mode forbids is answered so, to whom CREATE asks for by name."""
    with open(os.path.join(share, 'file'), 'wb'):
        os.chmod(os.path.join(share, 'file'), 0o600)
    os.chmod(share, 0o755)
    client = serve().client
    with client.identity(1234):
        assert error_of(client.create, fuse.ROOT, b'new') == errno.EACCES
        assert error_of(client.mkdir, fuse.ROOT, b'new') == errno.EACCES
        assert error_of(client.create, fuse.ROOT, b'file') == errno.EACCES
        assert error_of(client.tmpfile, fuse.ROOT) == errno.EACCES


def test_off(serve, share, scratch):
    """With --no-landlock a descriptor is good for what it always was."""
    make_volume(os.path.join(share, 'sub'))
    client = serve('--sandbox=chroot', '--no-landlock').client
    known = Known(client, b'sub')
    os.rename(os.path.join(share, 'sub'), os.path.join(scratch, 'sub'))
    handle, _ = client.open(known.file)
    client.release(known.file, handle)
