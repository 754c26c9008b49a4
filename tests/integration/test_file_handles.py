# SPDX-License-Identifier: Apache-2.0
"""--inode-file-handles: what it takes, what it says where it cannot be had, and that what
the guest merely knows is not open.
"""

import os
import stat

import pytest

import crowd
import launch

ROOT = crowd.fuse.ROOT
DAC_READ_SEARCH = 1 << 2

pytestmark = pytest.mark.sandboxed


def effective(daemon):
    return int(daemon.proc_field('CapEff'), 16)


def look_up_and_use(client, name):
    node = client.lookup(ROOT, name).nodeid
    client.release(node, client.open(node)[0])
    return node


@pytest.mark.parametrize('mode', ['never', 'prefer', 'fallback', 'mandatory'])
def test_what_is_kept(serve_crowd, share, mode):
    """The capability is there in the modes that need it; a file that was used
    is not open.
    """
    with open(os.path.join(share, 'file'), 'wb') as file:
        file.truncate(5)
    guest = serve_crowd(f'--inode-file-handles={mode}')
    by_handle = mode != 'never'
    assert bool(effective(guest.daemon) & DAC_READ_SEARCH) == by_handle
    before = len(guest.daemon.descriptors())
    node = look_up_and_use(guest.client, b'file')
    assert len(guest.daemon.descriptors()) == before + (not by_handle)
    assert guest.client.getattr(node).size == 5
    guest.client.forget(node)
    guest.frontend.check_leaks()
    guest.frontend.disconnect()
    assert guest.daemon.wait() == 0
    deprecated = [line for line in guest.daemon.reader.lines if 'deprecated' in line]
    assert len(deprecated) == (mode == 'fallback')


def test_every_request_by_handle(serve_crowd, share):
    """In the sandbox, with the filter on."""
    guest = serve_crowd('--inode-file-handles=mandatory', '--xattr')
    client = guest.client
    folder = client.mkdir(ROOT, b'folder').nodeid
    entry, handle = client.create(folder, b'file')
    node = entry.nodeid
    assert client.write(node, handle, b'text') == 4
    client.release(node, handle)
    client.setattr(node, 1, mode=0o600)
    assert stat.S_IMODE(client.getattr(node).mode) == 0o600
    client.setxattr(node, b'user.a', b'value')
    assert client.getxattr(node, b'user.a') == b'value'
    client.link(node, ROOT, b'linked')
    link = client.symlink(folder, b'link', b'target').nodeid
    assert client.readlink(link) == b'target'
    client.rename(folder, b'file', ROOT, b'moved')
    handle, _ = client.open(node, os.O_RDONLY)
    assert client.read(node, handle, 100) == b'text'
    client.release(node, handle)
    assert {entry.name for entry in guest.list()} == {b'folder', b'linked', b'moved'}
    client.unlink(folder, b'link')
    client.rmdir(ROOT, b'folder')


def test_mandatory_without_the_capability(start, share, scratch, extra_args):
    daemon = start(launch.plain, share, scratch,
                   ['--inode-file-handles=mandatory', '--modcaps=-dac_read_search',
                    '--rlimit-nofile=0',  # no word about that
                    *extra_args])
    assert daemon.wait() == 1
    lines = daemon.said().splitlines()
    assert len(lines) == 1
    assert 'CAP_DAC_READ_SEARCH' in lines[0]


def test_prefer_without_the_capability(serve_crowd, share):
    """One warning, and inodes by descriptor."""
    with open(os.path.join(share, 'file'), 'wb') as file:
        file.truncate(5)
    guest = serve_crowd('--inode-file-handles=prefer', '--modcaps=-dac_read_search')
    before = len(guest.daemon.descriptors())
    look_up_and_use(guest.client, b'file')
    assert len(guest.daemon.descriptors()) == before + 1
    warned = [line for line in guest.daemon.reader.lines if 'file handle' in line]
    assert len(warned) == 1
