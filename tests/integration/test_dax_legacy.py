# SPDX-License-Identifier: Apache-2.0
"""Files mapped by a VMM from before there was a standard (--dax-protocol): what is
different there. What is not, test_dax.py tries with each protocol.
"""

import errno
import struct
import time

import pytest

import frontend as vmm
import fuse_client as fuse
import launch
from dialect import PAGE, PROTOCOLS
from fuse_client import errno_of
from mapping import ATTR_DAX, OPTIONS, WINDOW, legacy_protocols, make_file
from window import GET_SHMEM_CONFIG, NOTHING, Window

CONFIG, MEM_SLOTS, SHMEM = 1 << 9, 1 << 15, 1 << 22
NEEDED = {'REPLY_ACK': 1 << 3, 'BACKEND_REQ': 1 << 5, 'BACKEND_SEND_FD': 1 << 10}

pytestmark = legacy_protocols


@pytest.mark.unwatched('the connection ends')
def test_offers(guest, share):
    """The VMM knows the window's size, and the tag: it is told of neither."""
    make_file(share, 'file', 1)
    _, offered = guest.frontend.offered
    _, agreed = guest.frontend.agreed
    assert offered & (CONFIG | SHMEM) == 0
    assert agreed & MEM_SLOTS == 0
    assert all(agreed & bit for bit in NEEDED.values())
    assert guest.agreed.flags & (1 << 26 | 1 << 33) == 1 << 26 | 1 << 33
    assert guest.agreed.map_alignment == 21
    assert guest.client.lookup(fuse.ROOT, b'file').attr.flags & ATTR_DAX
    guest.frontend.send(GET_SHMEM_CONFIG)
    assert guest.frontend.is_closed(5)


def on_the_wire(protocol, request, file_offset, offset, flags):
    """The message's bytes, put together here once more."""
    entry = [file_offset, offset, PAGE, flags]
    if protocol is PROTOCOLS['legacy']:
        body = b''.join(struct.pack('=Q56x', field) for field in entry)
    else:
        body = struct.pack('=IHH4Q', 0, 1, 0, *entry)
    return struct.pack('=III', request, 9, len(body)) + body


def test_bytes(guest, share, protocol):
    """For reading or writing, what is mapped can be written."""
    make_file(share, 'file', 4)
    node, seen = guest.node('file'), []

    class Seen(protocol):
        def __init__(self, raw, fds):
            seen.append(raw)
            super().__init__(raw, fds)

    guest.window.dialect = Seen
    assert guest.map(node, 3, 5) == 0
    assert guest.map(node, 1, 0, writes=True) == 0
    assert guest.unmap(node, 5) == 0
    assert seen == [on_the_wire(protocol, 6, 3 * PAGE, 5 * PAGE, 3),
                    on_the_wire(protocol, 6, PAGE, 0, 3),
                    on_the_wire(protocol, 7, 3 * PAGE, 5 * PAGE, 0)]


def test_nothing_is_waited_for(guest, share):
    """What is mapped is in place with the answer, and no memory is added for it."""
    data = make_file(share, 'file', 1)
    begin = time.monotonic()
    assert guest.map(guest.node('file'), 0, 0) == 0
    assert time.monotonic() - begin < 0.9
    assert guest.window.read(0, PAGE) == data


def test_a_smaller_window(begin, share):
    """Beyond the VMM's window it refuses; what it has is mapped as ever."""
    data = make_file(share, 'file', 2)
    guest = begin(size=WINDOW // 2)
    node, last = guest.node('file'), WINDOW // PAGE // 2 - 1
    assert guest.map(node, 1, last + 1) == errno.EIO
    assert guest.map(node, 1, last) == 0
    assert guest.window.read(last * PAGE, PAGE) == data[PAGE:]
    assert guest.window.counts() == (2, 0)


def test_a_larger_window(begin, share):
    """Beyond ours it is asked for nothing."""
    make_file(share, 'file', 1)
    guest = begin(size=2 * WINDOW)
    assert guest.map(guest.node('file'), 0, WINDOW // PAGE) == errno.EINVAL
    assert guest.window.counts() == (0, 0)


def test_a_new_session(guest, share):
    """INIT and DESTROY empty the window."""
    make_file(share, 'file', 3)
    node = guest.node('file')
    for i in range(3):
        assert guest.map(node, i, 2 * i) == 0
    guest.client.init(flags=Window.INIT_FLAGS)
    assert guest.window.counts() == (3, 3)
    assert not guest.window.mapped
    assert guest.map(guest.node('file'), 0, 0) == 0
    guest.client.destroy()
    assert guest.window.counts() == (1, 1)
    assert guest.window.read(0, 1) == bytes([NOTHING])
    guest.client.init(flags=Window.INIT_FLAGS)


def test_reset(guest, share):
    """These VMMs drop nothing when the device is reset: the next session does."""
    make_file(share, 'file', 2)
    node = guest.node('file')
    assert guest.map(node, 0, 0) == 0
    assert guest.map(node, 1, 7) == 0
    guest.window.stop()
    guest.frontend.reset()
    assert guest.window.counts() == (2, 0)
    guest.window.cont()
    guest.client.init(flags=Window.INIT_FLAGS)
    assert guest.window.counts() == (0, 2)
    assert not guest.window.mapped
    assert guest.map(guest.node('file'), 0, 0) == 0
    assert guest.window.counts() == (1, 0)


def test_readonly(begin, share):
    """Though these VMMs can map for reading only: one rule for all."""
    make_file(share, 'file', 1)
    guest = begin('--readonly')
    entry = guest.client.lookup(fuse.ROOT, b'file')
    assert entry.attr.flags & ATTR_DAX == 0
    assert guest.map(entry.nodeid, 0, 0) == errno.ENOSYS
    assert guest.window.counts() == (0, 0)


def test_configuration(begin):
    """Who gives a tag all the same can have it read."""
    guest = begin('--tag=share')
    _, offered = guest.frontend.offered
    assert offered & (CONFIG | SHMEM) == CONFIG


@pytest.mark.parametrize('name', NEEDED)
def test_missing_agreements(start, share, scratch, extra_args, protocol, name):
    """Who cannot be asked, or would not answer, is not asked."""
    make_file(share, 'file', 1)
    daemon = start(launch.plain, share, scratch, [
        f'--dax-window={WINDOW}', *OPTIONS, *protocol.OPTIONS, *extra_args])
    daemon.wait_ready()
    with vmm.Frontend(daemon.socket_path,
                      protocol_features=protocol.PROTOCOL & ~NEEDED[name]) as frontend:
        frontend.start()
        client = frontend.client()
        assert client.init(flags=Window.INIT_FLAGS).map_alignment == 0
        node = client.lookup(fuse.ROOT, b'file').nodeid
        assert errno_of(client.setup_mapping, node, 0, 0) == errno.ENOSYS
