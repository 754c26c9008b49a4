# SPDX-License-Identifier: Apache-2.0
"""Other file systems mounted inside the share. Of one of FUSE the numbers are not to be
relied on, and the calls that this takes must pass the filter.
"""

import os
import re
import subprocess
import sys

import pytest

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(TESTS, 'bridge'), os.path.join(TESTS, 'support')]

import bridge as bridges  # noqa: E402
import fuse_client as fuse  # noqa: E402
import launch  # noqa: E402
from frontend import Frontend  # noqa: E402
from strace import Strace  # noqa: E402

CONTENT = b'behind two daemons'
ATTR_SUBMOUNT = 1


@pytest.fixture
def inner(start, scratch, share, extra_args, build, monkeypatch):
    """What a second daemon serves, mounted in the share through a bridge."""
    monkeypatch.setenv('VIRTIOFSD_BUILD', build)
    folder, target = os.path.join(scratch, 'inner'), os.path.join(share, 'mounted')
    other = os.path.join(scratch, 'other')
    for made in (folder, target, other):
        os.mkdir(made)
    daemon = start(launch.plain, folder, other, extra_args)
    daemon.wait_ready()
    with bridges.Bridge(daemon.socket_path, target) as bridge:
        bridge.wait_mounted()
        yield folder
        assert bridge.unmount() == bridges.UNMOUNTED, bridge.log()
    assert daemon.wait() == 0


@pytest.mark.sandboxed
def test_fuse_mount_in_the_share(inner, start, share, scratch, extra_args):
    with open(os.path.join(inner, 'file'), 'wb') as file:
        file.write(CONTENT)
    daemon = start(launch.plain, share, scratch, extra_args)
    daemon.wait_ready()
    with Frontend(daemon.socket_path) as frontend:
        frontend.start()
        client = frontend.client()
        client.init()
        folder = client.lookup(fuse.ROOT, b'mounted')
        assert folder.attr.flags & ATTR_SUBMOUNT
        first = client.lookup(folder.nodeid, b'file')
        assert client.lookup(folder.nodeid, b'file').nodeid == first.nodeid
        handle, _ = client.open(first.nodeid, os.O_RDWR)
        assert client.read(first.nodeid, handle, 4096) == CONTENT
        assert client.write(first.nodeid, handle, b'BEHIND') == 6
        client.flush(first.nodeid, handle)
        client.release(first.nodeid, handle)
        _, made = client.create(folder.nodeid, b'new')
        client.unlink(folder.nodeid, b'new')
        client.destroy()
    assert daemon.wait() == 0
    with open(os.path.join(inner, 'file'), 'rb') as file:
        assert file.read() == b'BEHIND' + CONTENT[6:]


@pytest.fixture
def volumes(share, scratch):
    """Two volumes and a file of a third, mounted in the share."""
    places = [os.path.join(share, name) for name in ('first', 'second', 'file')]
    third = os.path.join(scratch, 'third')
    for folder in (*places[:2], third):
        os.mkdir(folder)
        subprocess.run(['mount', '-t', 'tmpfs', 'none', folder], check=True)
    for path in (places[2], os.path.join(third, 'file')):
        with open(path, 'xb'):
            pass
    source = os.path.join(third, 'file')
    subprocess.run(['mount', '--bind', source, places[2]], check=True)
    yield
    for path in (*places, third):
        subprocess.run(['umount', '-l', path], check=True)


def synced(daemon, scratch, act):
    """The paths that syncfs(2) was called with, and whether all was well."""
    strace = Strace(daemon, scratch, '-y', '-e', 'trace=syncfs')
    act()
    strace.stop()
    with open(strace.path, encoding='utf-8') as file:
        found = re.findall(r'syncfs\(\d+<(.*)>\) += (-?\d+)', file.read())
    assert all(result == '0' for _, result in found)
    return sorted(path for path, _ in found)


@pytest.mark.sandboxed
def test_sync_of_all_that_the_guest_was_not_told_apart(volumes, serve, scratch):
    """Without submounts the root stands for everything that the guest has seen."""
    guest = serve('--no-announce-submounts')
    client = guest.client
    client.lookup(fuse.ROOT, b'first')
    assert synced(guest.daemon, scratch, client.syncfs) == ['/', '/first']
    client.lookup(fuse.ROOT, b'second')
    client.create(client.lookup(fuse.ROOT, b'first').nodeid, b'new')
    file = client.lookup(fuse.ROOT, b'file').nodeid
    assert synced(guest.daemon, scratch, client.syncfs) == [
        '/', '/file', '/first', '/second']
    assert synced(guest.daemon, scratch, lambda: client.syncfs(file)) == ['/file']


@pytest.mark.sandboxed
def test_sync_of_one_submount(volumes, serve, scratch):
    guest = serve()
    client = guest.client
    first = client.lookup(fuse.ROOT, b'first').nodeid
    assert synced(guest.daemon, scratch, client.syncfs) == ['/']
    assert synced(guest.daemon, scratch, lambda: client.syncfs(first)) == ['/first']
