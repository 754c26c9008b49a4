# SPDX-License-Identifier: Apache-2.0
"""A FUSE file system mounted inside the share: its numbers are not to be relied on, and
the calls that this takes must pass the filter.
"""

import os
import sys

import pytest

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(TESTS, 'bridge'), os.path.join(TESTS, 'support')]

import bridge as bridges  # noqa: E402
import fuse_client as fuse  # noqa: E402
import launch  # noqa: E402
from frontend import Frontend  # noqa: E402

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
