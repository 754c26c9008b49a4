# SPDX-License-Identifier: Apache-2.0
"""Volumes that the host makes read-only after mounting them, as Kata's runtime-rs does:
the remount stays in the host's mount namespace, and is obeyed all the same.
"""

import ctypes
import errno
import os
import subprocess
import threading

import pytest

import fuse_client as fuse
import launch
from changes import modifying, populate
from files import read, write
from layouts import GoLayout, RsLayout, bind, mount
from process import eventually

pytestmark = pytest.mark.sandboxed

KATA = ('--cache=auto', '--thread-pool-size=1', '--announce-submounts', '--xattr')


@pytest.fixture(params=[GoLayout, RsLayout], ids=['go', 'rs'])
def layout(request, scratch):
    layout = request.param(scratch)
    yield layout
    layout.close()


@pytest.fixture
def scene(layout, start, connect, scratch, extra_args):
    """(layout, client, the directory that volumes appear in)."""
    daemon = start(launch.plain, layout.share, scratch, [*KATA, *extra_args])
    daemon.wait_ready()
    client = connect(daemon).client
    below = os.path.join(*layout.below[1:], '')
    return layout, client, client.walk(os.fsencode(below)).nodeid if below else fuse.ROOT


@pytest.fixture
def folder(scratch):
    """A share with mounts that come and go, on a file system of its own."""
    share = os.path.join(scratch, 'share')
    os.mkdir(share)
    mount('-t', 'tmpfs', 'share', share)
    mount('--make-shared', share)
    yield share
    subprocess.run(['umount', '-R', '-l', share], check=True)


@pytest.fixture
def client(folder, start, connect, scratch, extra_args):
    daemon = start(launch.plain, folder, scratch, [*KATA, *extra_args])
    daemon.wait_ready()
    return connect(daemon).client


MS_RDONLY, MS_REMOUNT, MS_BIND = 1, 32, 4096


def remount(fd, readonly):
    """By descriptor: mount(8) would resolve a path that moves."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = MS_REMOUNT | MS_BIND | (MS_RDONLY if readonly else 0)
    if libc.mount(None, f'/proc/self/fd/{fd}'.encode(), None, flags, None) != 0:
        raise OSError(ctypes.get_errno(), 'cannot remount')


def content_of(folder):
    return {name: (os.lstat(os.path.join(folder, name)).st_mtime_ns,
                   os.lstat(os.path.join(folder, name)).st_ctime_ns)
            for name in sorted(os.listdir(folder))}


def is_refused(function):
    return fuse.errno_of(function) == errno.EROFS


def test_a_read_only_volume(scene):
    """Nothing in it is changed, and what is beside it can be."""
    layout, client, top = scene
    source, root = layout.source('secret'), layout.source('rootfs')
    os.unlink(os.path.join(source, 'file'))
    populate(source)
    layout.add_rootfs(root, 'c1')
    layout.add_readonly(source, 'volume')
    volume = client.lookup(top, b'volume').nodeid
    node = client.lookup(volume, b'file').nodeid
    eventually(lambda: is_refused(lambda: client.mkdir(volume, b'new')), timeout=10)
    before = content_of(source)
    handle = client.open(node)[0]
    for what, function in modifying(client, node, handle, volume).items():
        assert is_refused(function), what
    assert content_of(source) == before
    assert client.read(node, handle, 100) == b'content'
    beside = client.lookup(client.lookup(top, b'c1').nodeid, b'rootfs').nodeid
    entry, theirs = client.create(beside, b'new')
    assert client.copy_file_range(node, handle, 0, (entry.nodeid, theirs, 0), 7) == 7
    assert read(os.path.join(root, 'new')) == b'content'
    client.release(entry.nodeid, theirs)
    client.release(node, handle)


def test_a_read_only_file(scene):
    """As a container's resolv.conf: it is a mount by itself, in a folder that is none."""
    layout, client, top = scene
    source = layout.source('etc')
    layout.add_readonly(os.path.join(source, 'file'), 'resolv.conf')
    node = client.lookup(top, b'resolv.conf').nodeid
    eventually(lambda: is_refused(lambda: client.open(node, os.O_RDWR)), timeout=10)
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
        assert is_refused(lambda: client.open(node, flags))
        assert is_refused(lambda: client.create(top, b'resolv.conf',
                                                flags=flags | os.O_CREAT))
    assert is_refused(lambda: client.setattr(node, 8, size=0))
    assert read(os.path.join(source, 'file')) == b'etc\n'


def test_a_file_in_a_writable_folder(client, folder, scratch):
    """CREATE of a name that is a mount: the folder can be written, the file cannot."""
    source = os.path.join(scratch, 'source')
    write(source, b'source')
    for name in ('hosts', 'unseen'):
        path = os.path.join(folder, name)
        write(path, b'')
        bind(source, path)
        mount('-o', 'remount,bind,ro', path)
    node = client.lookup(fuse.ROOT, b'hosts').nodeid
    eventually(lambda: is_refused(lambda: client.open(node, os.O_RDWR)), timeout=10)
    for name in (b'unseen', b'hosts'):
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_TRUNC):
            assert is_refused(lambda: client.create(fuse.ROOT, name,
                                                    flags=flags | os.O_CREAT))
        entry, handle = client.create(fuse.ROOT, name, flags=os.O_CREAT)
        assert client.read(entry.nodeid, handle, 10) == b'source'
        client.release(entry.nodeid, handle)
    entry, handle = client.create(fuse.ROOT, b'new')
    client.release(entry.nodeid, handle)
    assert read(source) == b'source'


@pytest.mark.parametrize('layout', [RsLayout], indirect=True, ids=['rs'])
def test_there_and_back(scene):
    """Also for a file that is open; the host may change its mind."""
    layout, client, top = scene
    layout.add(layout.source('volume'), 'volume')
    volume = client.lookup(top, b'volume').nodeid
    node = client.lookup(volume, b'file').nodeid
    handle = client.open(node, os.O_RDWR)[0]

    def write():
        assert client.write(node, handle, b'Volume') == 6

    for _ in range(3):
        write()
        layout.remount('volume', 'ro')
        eventually(lambda: is_refused(write), timeout=10)
        assert is_refused(lambda: client.create(volume, b'new'))
        layout.remount('volume', 'rw')
        eventually(lambda: fuse.errno_of(write) == 0, timeout=10)
    client.release(node, handle)


def test_mount_points_that_move(client, folder, scratch):
    """A guest may rename what lies on the way to one, all the time."""
    done = threading.Event()

    def rename():
        name, other = (os.path.join(folder, name) for name in 'ab')
        while not done.is_set():
            os.rename(name, other)
            name, other = other, name

    source = os.path.join(scratch, 'source')
    os.mkdir(source)
    path = os.path.join(folder, 'a', 'volume')
    os.makedirs(path)
    bind(source, path)
    volume = client.walk(b'a/volume').nodeid
    client.mkdir(volume, b'before')
    fd = os.open(path, os.O_PATH)
    mover = threading.Thread(target=rename)
    mover.start()
    try:
        for readonly in (True, False, True):
            remount(fd, readonly)
            eventually(lambda: is_refused(lambda: client.mkdir(volume, b'before'))
                       == readonly, timeout=10)
    finally:
        done.set()
        mover.join()
        os.close(fd)
