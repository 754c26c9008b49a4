# SPDX-License-Identifier: Apache-2.0
"""What QEMU 11.1 fails on, harms a file with, hangs on or dies of when a back-end asks it
for a mapping, and the tests that show that the daemon never asks for that, whatever the
guest wants. In all of them the VMM (support/window.py) judges every message, and one that
it should not have been sent fails the test: for each such fault there is a test below
that a VMM which is sent it would tell.
"""

import errno
import os
import shutil
import struct
import subprocess
import threading

import pytest

import catalogue
import fuse_client as fuse
import users
from dialect import PAGE, Asked
from fuse_client import errno_of
from mapping import ATTR_DAX, WINDOW, make_file, read_file

DAX, HERE = 'test_dax.py', 'test_dax_pitfalls.py'
RANDOM = 'test_dax_random.py'

PITFALLS = (
    ('a mapping that is not for writing: the guest writes all the same',
     f'{DAX}::test_upgrade_and_remap', f'{HERE}::test_only_for_reading'),
    ('a descriptor that cannot be written: EACCES',
     f'{DAX}::test_nothing_is_mapped', f'{HERE}::test_only_for_reading',
     f'{HERE}::test_what_cannot_be_written', f'{HERE}::test_what_is_executed'),
    ('a descriptor that is a place only (O_PATH): the channel ends',
     f'{HERE}::test_only_for_reading', f'{HERE}::test_the_vmm_would_tell'),
    ('more than the file has: its tail, a small file',
     f'{DAX}::test_special_files', f'{DAX}::test_which_files',
     f'{HERE}::test_the_tail'),
    ('an empty file: QEMU makes it larger',
     f'{DAX}::test_special_files', f'{HERE}::test_emptied'),
    ('an offset in the file that is no multiple of a page',
     f'{DAX}::test_fields'),
    ('an offset in the window, or a length, that is no multiple: nobody checks',
     f'{DAX}::test_fields', f'{HERE}::test_lengths'),
    ('a mapping where there is one',
     f'{RANDOM}::test_random', f'{DAX}::test_upgrade_and_remap', f'{DAX}::test_together'),
    ('an unmapping of what is not mapped, of a part, of more',
     f'{HERE}::test_unmap_what_is_there', f'{RANDOM}::test_random'),
    ('beyond the window, or around the end of all numbers',
     f'{DAX}::test_fields', f'{DAX}::test_exhausted'),
    ('what is no regular file: a pipe, a folder',
     f'{DAX}::test_special_files'),
    ('more than 512 pieces of memory: QEMU aborts',
     f'{DAX}::test_the_largest_window', '/options-dax/dax', '/options/numbers'),
    ('a window that is no power of two: QEMU aborts', '/options/numbers'),
    ('no memory slots: eight regions are told of, and then the last eight for ever',
     f'{HERE}::test_memory_slots_are_offered'),
    ('no answer is agreed on, or no channel', f'{DAX}::test_missing_agreements'),
    ('before the rings run, or after they were stopped: QEMU is killed',
     f'{DAX}::test_stop_and_cont', f'{HERE}::test_one_ring_is_disabled',
     f'{HERE}::test_unmapping_waits', f'{HERE}::test_one_ring_is_stopped'),
    ('while QEMU waits in GET_VRING_BASE: it hangs',
     f'{DAX}::test_stop_while_the_vmm_is_asked', f'{HERE}::test_one_ring_is_stopped'),
    ('after a reset, by which QEMU has dropped all',
     f'{DAX}::test_a_new_session', f'{DAX}::test_reset_device',
     f'{RANDOM}::test_disturbed',
     f'{DAX}::test_end_while_the_vmm_is_asked'),
    ('a file that is truncated between the look at it and the mapping',
     f'{DAX}::test_a_file_that_shrinks', f'{HERE}::test_truncated_all_the_time'),
    ('a mapping that comes back as memory of the guest, and is truncated',
     f'{DAX}::test_pages_are_no_buffers'),
    ('an answer before the mapping is in place', f'{DAX}::test_in_place_when_answered'),
    ('an alignment that Linux refuses', f'{DAX}::test_offers'),
    ('messages of before the standard, that mean something else today',
     f'{HERE}::test_the_vmm_would_tell', '/window-protocol/standard',
     '/options-dax/protocol'),
)


@pytest.fixture(scope='module')
def known():
    return catalogue.all_tests()


@pytest.mark.parametrize('row', PITFALLS, ids=[row[0] for row in PITFALLS])
def test_every_pitfall_has_a_test(known, row):
    catalogue.check_row(known, row)


def test_each_pitfall_once():
    assert len({row[0] for row in PITFALLS}) == len(PITFALLS)


def test_memory_slots_are_offered(guest):
    """QEMU agrees on them whenever they are offered."""
    _, offered = guest.frontend.offered
    assert offered & 1 << 15 and offered & 1 << 22


# ---- which files ----------------------------------------------------------------------

def test_only_for_reading(guest, share):
    """However the guest opens it, and whatever it wants: what the VMM gets can be
    written, and is to be.
    """
    data = make_file(share, 'file', 4)
    os.chmod(os.path.join(share, 'file'), 0o400)
    node = guest.node('file')
    handles = [guest.client.open(node, flags)[0] for flags in (os.O_RDONLY, os.O_RDWR)]
    assert guest.map(node, 0, 0) == 0
    assert guest.map(node, 1, 1, writes=True) == 0
    for i, handle in enumerate(handles):
        assert guest.map(node, 2 + i, 2 + i, fh=handle) == 0
    assert guest.window.counts() == (4, 0)
    guest.window.write(2 * PAGE, b'written')
    assert read_file(share, 'file')[2 * PAGE:][:7] == b'written'
    assert guest.window.read(0, 2 * PAGE) == data[:2 * PAGE]


@pytest.mark.skipif(os.geteuid() != 0, reason='mounts need root')
def test_what_cannot_be_written(begin, share, scratch):
    """A file of a read-only mount in the share is read by requests."""
    outside = os.path.join(scratch, 'outside')
    for folder in (outside, os.path.join(share, 'mounted')):
        os.mkdir(folder)
    data = make_file(outside, 'file', 1)
    target = os.path.join(share, 'mounted')
    subprocess.run(['mount', '--bind', outside, target], check=True)
    try:
        subprocess.run(['mount', '-o', 'remount,bind,ro', target], check=True)
        guest = begin()
        folder = guest.node('mounted')
        entry = guest.client.lookup(folder, b'file')
        assert entry.attr.flags & ATTR_DAX == 0
        for writes in (False, True):
            assert guest.map(entry.nodeid, 0, 0, writes=writes) == errno.EROFS
        assert guest.window.counts() == (0, 0)
        handle = guest.client.open(entry.nodeid, os.O_RDONLY)[0]
        assert guest.client.read(entry.nodeid, handle, 4096) == data[:4096]
    finally:
        users.unmount(target)


def test_what_is_executed(guest, share):
    """A program that runs cannot be opened for writing."""
    path = os.path.join(share, 'program')
    shutil.copy('/bin/sleep', path)
    os.truncate(path, PAGE)
    try:
        program = subprocess.Popen([path, '60'])
    except PermissionError:
        pytest.skip('nothing may be executed in the scratch folder')
    try:
        node = guest.node('program')
        for writes in (False, True):
            assert guest.map(node, 0, 0, writes=writes) == errno.ETXTBSY
        assert guest.window.counts() == (0, 0)
    finally:
        program.kill()
        program.wait()
    assert guest.map(node, 0, 0) == 0


def test_the_tail(guest, share):
    """Of a file that has become longer or shorter since it was marked only what is whole
    is mapped.
    """
    data = make_file(share, 'file', 2)
    path, node = os.path.join(share, 'file'), guest.node('file')
    assert guest.client.getattr(node).flags & ATTR_DAX
    for size in (2 * PAGE - 1, PAGE + 4096, PAGE):
        os.truncate(path, size)
        assert guest.map(node, 1, 0) == errno.ENXIO
    os.truncate(path, 2 * PAGE + 4096)
    assert guest.map(node, 2, 0) == errno.ENXIO
    assert guest.window.counts() == (0, 0)
    assert guest.map(node, 0, 0) == 0
    assert guest.window.read(0, PAGE) == data[:PAGE]


def test_emptied(guest, share):
    """Nobody makes a file larger that was emptied since it was marked."""
    make_file(share, 'file', 1)
    path, node = os.path.join(share, 'file'), guest.node('file')
    os.truncate(path, 0)
    for writes in (False, True):
        assert guest.map(node, 0, 0, writes=writes) == errno.ENXIO
    assert guest.window.counts() == (0, 0)
    assert os.stat(path).st_size == 0


def test_truncated_all_the_time(guest, share):
    """While the host makes a file shorter and longer, what is mapped is whole when the
    VMM looks, or is unmapped, and the guest is told.
    """
    make_file(share, 'file', 2)
    path, node = os.path.join(share, 'file'), guest.node('file')
    guest.window.judges_size = False  # it may look late
    is_over = threading.Event()

    def change():
        while not is_over.is_set():
            os.truncate(path, PAGE)
            os.truncate(path, 2 * PAGE)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(300):
            found = guest.map(node, 1, 0)
            guest.window.settle()
            assert found in (0, errno.ENXIO, errno.EIO)
            assert (found == 0) == (0 in guest.window.mapped)
            assert guest.unmap(node, 0) == 0
    finally:
        is_over.set()
        thread.join()
    assert os.stat(path).st_size == 2 * PAGE
    assert guest.map(node, 1, 0) == 0


# ---- which messages -------------------------------------------------------------------

def test_lengths(guest, share):
    """The guest's length is 2 MiB, or nothing is mapped."""
    make_file(share, 'file', 4)
    node = guest.node('file')
    for length in (0, 100, 4096, PAGE - 1, PAGE + 1, 2 * PAGE, 4 * PAGE, WINDOW):
        body = struct.pack('=5Q', (1 << 64) - 1, 0, length, 3, 0)
        assert guest.client.send(fuse.SETUPMAPPING, node, body).errno == errno.EINVAL
    assert guest.window.counts() == (0, 0)


def test_unmap_what_is_there(guest, share):
    """Whatever range the guest names, the VMM is asked for what is mapped, whole."""
    make_file(share, 'file', 4)
    node = guest.node('file')
    for i in range(4):
        assert guest.map(node, i, 2 * i) == 0

    def remove(*pieces):
        body = struct.pack('=I', len(pieces)) + b''.join(
            struct.pack('=QQ', *piece) for piece in pieces)
        return guest.client.send(fuse.REMOVEMAPPING, node, body).errno

    for offset, length in ((0, PAGE // 2), (PAGE // 2, PAGE), (0, 4096), (4096, PAGE),
                           (0, PAGE + 4096), (WINDOW - PAGE, 2 * PAGE)):
        assert remove((offset, length)) == errno.EINVAL
    assert remove((PAGE, PAGE), (3 * PAGE, PAGE)) == 0  # nothing is there
    guest.window.settle()
    assert guest.window.counts() == (4, 0)
    assert remove((0, PAGE), (0, PAGE), (0, 2 * PAGE)) == 0
    guest.window.settle()
    assert guest.window.counts() == (0, 1)
    assert remove((0, WINDOW)) == 0
    guest.window.settle()
    assert guest.window.counts() == (0, 3)
    assert not guest.window.mapped


# ---- when -----------------------------------------------------------------------------

class Later(threading.Thread):
    """A request on the first of two request queues, that has to wait."""

    def __init__(self, guest, function, *args):
        super().__init__()
        self.guest, self.errno = guest, None
        self.function, self.args = function, args
        self.start()

    def run(self):
        client = self.guest.frontend.client(timeout_ms=20000)
        self.errno = errno_of(getattr(client, self.function), *self.args, queue=1)

    def waits(self):
        """Give it some time to do what it should not."""
        self.join(0.3)
        return self.is_alive()

    def end(self):
        self.join(20)
        assert not self.is_alive()
        return self.errno


def enable(guest, on):
    """The second of the request queues."""
    with guest.window.lock:
        guest.window.runs = on
        guest.frontend.enable_ring(2, on)


def test_one_ring_is_disabled(guest, share):
    """Nothing is sent until all rings that were started are enabled."""
    data = make_file(share, 'file', 1)
    node = guest.node('file')
    enable(guest, False)
    later = Later(guest, 'setup_mapping', node, 0, 0)
    assert later.waits()
    assert guest.window.counts() == (0, 0)
    enable(guest, True)
    assert later.end() == 0
    assert guest.window.read(0, PAGE) == data


def test_unmapping_waits(guest, share):
    """The same for what is to be unmapped."""
    make_file(share, 'file', 1)
    node = guest.node('file')
    assert guest.map(node, 0, 0) == 0
    enable(guest, False)
    later = Later(guest, 'remove_mappings', node, 0)
    assert later.waits()
    assert guest.window.counts() == (1, 0)
    enable(guest, True)
    assert later.end() == 0
    guest.window.settle()
    assert guest.window.counts() == (0, 1)


def test_one_ring_is_stopped(guest, share):
    """QEMU stops ring after ring, and a guest asks on the last of them: from the first
    GET_VRING_BASE on nothing is sent, and the request fails when its own ring is stopped.
    """
    data = make_file(share, 'file', 1)
    node = guest.node('file')
    with guest.window.lock:
        guest.window.runs = False
        for ring in (0, 2):
            guest.frontend.get_base(ring)
    later = Later(guest, 'setup_mapping', node, 0, 0)
    assert later.waits()
    with guest.window.lock:
        guest.frontend.get_base(1)
    guest.window.cont()
    assert later.end() == errno.EINTR
    assert guest.window.counts() == (0, 0)
    assert guest.map(node, 0, 0) == 0
    assert guest.window.read(0, PAGE) == data


# ---- the judge ------------------------------------------------------------------------

GOOD = {'region': 0, 'file_offset': 0, 'offset': PAGE, 'length': PAGE, 'flags': 1}

BAD = {
    'no such message': {'request': 6}, 'a message of old': {'request': 7},
    'another region': {'region': 1}, 'unaligned there': {'offset': 4096},
    'unaligned in the file': {'file_offset': 4096}, 'its own length': {'length': 100},
    'for reading': {'flags': 0}, 'beyond the file': {'file_offset': 2 * PAGE},
    'opened for reading': {'open': os.O_RDONLY}, 'a place only': {'open': os.O_PATH},
    'a folder': {'open': os.O_RDONLY, 'file': '.'}, 'a pipe': {'file': 'pipe'},
    'empty': {'file': 'empty'}, 'no answer wanted': {'wants': 1},
    'no descriptor': {'open': None}, 'one to unmap': {'request': 10},
}


def message(folder, request=9, open=os.O_RDWR, file='file', wants=9, **more):
    """A request to map, and a descriptor, each wrong in one thing."""
    fields = {**GOOD, **more}
    body = struct.pack('=B7xQQQQ', *fields.values())
    fds = [] if open is None else [os.open(os.path.join(folder, file), open)]
    return struct.pack('=III', request, wants, len(body)) + body, fds


@pytest.mark.parametrize('what', [None, *BAD])
def test_the_vmm_would_tell(share, what):
    """The judge of all these tests finds the one thing that is wrong, and nothing where
    nothing is.
    """
    make_file(share, 'file', 2)
    os.mkfifo(os.path.join(share, 'pipe'))
    make_file(share, 'empty', 0)
    raw, fds = message(share, **BAD.get(what, {}))
    try:
        asked = Asked(raw, fds)
        assert bool(asked.wrong() or asked.wrong_size()) == (what is not None)
        assert Asked(raw[:-1], fds).wrong() and Asked(raw + b'\0', fds).wrong()
    finally:
        for fd in fds:
            os.close(fd)
