# SPDX-License-Identifier: Apache-2.0
"""What depends on the file system that the share is on."""

import os
import stat
import struct

import pytest

import filesystems
import fuse_client as fuse
import launch

pytestmark = pytest.mark.sandboxed


@pytest.mark.parametrize('cache', ('auto', 'always', 'metadata'))
@pytest.mark.parametrize('kind', ('btrfs', 'xfs'))
def test_a_listing_by_an_old_descriptor_hides_nothing(on, bridged, kind, cache):
    """btrfs shows by a descriptor what was there when it was opened; the guest caches
    that, and shows it to those who open the directory later.
    """
    mount = bridged(f'--cache={cache}', of=on(kind))
    folder = os.open(mount, os.O_RDONLY)
    open(os.path.join(mount, 'new'), 'xb').close()
    os.listdir(folder)
    os.close(folder)
    assert os.listdir(mount) == ['new']


FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR, FS_XFLAG_NODUMP = 0x801c581f, 0x401c5820, 0x80
ATTRIBUTES = struct.Struct('=7I')
UNNAMED = 0xffffffff  # the caller of a guest that has agreed to ALLOW_IDMAP


@pytest.mark.parametrize('uid', (0, 1000, UNNAMED))
@pytest.mark.parametrize('kind', filesystems.MAKE)
def test_attributes_cost_who_has_no_privilege_the_set_id_bit(on, start, connect, scratch,
                                                              kind, uid):
    """On xfs, as natively; elsewhere they cost nothing."""
    share = on(kind)
    path = os.path.join(share, 'file')
    open(path, 'xb').close()
    os.chmod(path, 0o4755)
    daemon = start(launch.plain, share, scratch)
    daemon.wait_ready()
    client = connect(daemon).client
    node = client.lookup(fuse.ROOT, b'file').nodeid
    handle, _ = client.open(node, os.O_RDONLY)
    attributes = client.ioctl(node, handle, FS_IOC_FSGETXATTR, out_size=ATTRIBUTES.size)
    xflags, *others = ATTRIBUTES.unpack(attributes)
    with client.identity(uid):
        client.ioctl(node, handle, FS_IOC_FSSETXATTR,
                     ATTRIBUTES.pack(xflags | FS_XFLAG_NODUMP, *others))
    taken = kind == 'xfs' and uid == 1000
    assert stat.S_IMODE(os.stat(path).st_mode) == (0o755 if taken else 0o4755)
