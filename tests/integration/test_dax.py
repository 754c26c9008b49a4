# SPDX-License-Identifier: Apache-2.0
"""Files mapped into the guest, through a VMM that has a window and does with it what QEMU
does: whatever QEMU would fail on, abort or die of fails the test (support/window.py).
"""

import errno
import os
import random
import struct
import threading
import time

import pytest

import frontend as vmm
import fuse_client as fuse
import launch
from fuse_client import errno_of
from dialect import PAGE, PROTOCOLS
from mapping import (ATTR_DAX, NAMES, OPTIONS, WINDOW, Asking, every_protocol,
                     make_file, read_file)
from window import GPA, NOTHING, Window

PROTOCOL = PROTOCOLS['standard'].PROTOCOL
SILENCE = 4.5  # seconds; it takes 5 until a VMM is not waited for any more

# ---- what is offered ------------------------------------------------------------------

def test_offers(guest):
    assert guest.frontend.get_config(0, 40) == b'share'.ljust(36, b'\0') + b'\2\0\0\0'
    assert guest.window.size == WINDOW
    assert guest.agreed.flags & (1 << 26 | 1 << 33) == 1 << 26 | 1 << 33
    assert guest.agreed.map_alignment == 21


@pytest.mark.parametrize('option', ['--readonly', '--dax=never'])
def test_nothing_is_mapped(begin, share, option):
    """In a read-only share, or where no file is to be."""
    make_file(share, 'file', 1)
    guest = begin(option)
    entry = guest.client.lookup(fuse.ROOT, b'file')
    assert guest.agreed.flags & (1 << 26 | 1 << 33) == 0
    assert entry.attr.flags & ATTR_DAX == 0
    assert guest.map(entry.nodeid, 0, 0) == errno.ENOSYS
    assert guest.window.counts() == (0, 0)


def test_a_vmm_without_a_window(start, share, scratch, extra_args):
    """All goes on as without the option."""
    make_file(share, 'file', 1)
    daemon = start(launch.plain, share, scratch,
                   [f'--dax-window={WINDOW}', '--tag=share', *OPTIONS, *extra_args])
    daemon.wait_ready()
    with vmm.Frontend(daemon.socket_path) as frontend:
        frontend.start()
        client = frontend.client()
        assert client.init(flags=Window.INIT_FLAGS).map_alignment == 0
        entry = client.lookup(fuse.ROOT, b'file')
        assert entry.attr.flags & ATTR_DAX == 0
        assert errno_of(client.setup_mapping, entry.nodeid, 0, 0) == errno.ENOSYS
        assert errno_of(client.remove_mappings, entry.nodeid, 0) == errno.ENOSYS


def test_which_files(guest, share):
    """Regular ones, of whole pages, wherever attributes are told."""
    sizes = {'none': 0, 'byte': 1, 'less': PAGE - 1, 'one': PAGE, 'more': PAGE + 4096,
             'many': 50 * PAGE}
    for name, size in sizes.items():
        with open(os.path.join(share, name), 'wb') as file:
            file.truncate(size)
    os.mkdir(os.path.join(share, 'folder'))
    os.mkfifo(os.path.join(share, 'fifo'))
    os.symlink('one', os.path.join(share, 'link'))
    suit = {b'one', b'many'}
    for dirent in guest.client.listdir(fuse.ROOT, plus=True):
        if dirent.entry.nodeid:
            assert (dirent.entry.attr.flags & ATTR_DAX != 0) == (dirent.name in suit)
            told = guest.client.getattr(dirent.entry.nodeid).flags
            assert told == dirent.entry.attr.flags
            looked_up = guest.client.lookup(fuse.ROOT, dirent.name).attr.flags
            assert looked_up == told
    node = guest.node('one')
    assert guest.client.setattr(node, 8, size=PAGE + 1).flags & ATTR_DAX == 0
    assert guest.client.setattr(node, 8, size=2 * PAGE).flags & ATTR_DAX


# ---- mapping --------------------------------------------------------------------------

@every_protocol
def test_upgrade_and_remap(guest, share):
    """What is mapped for reading can be written; another file comes in its place."""
    one, two = make_file(share, 'one', 2), make_file(share, 'two', 2, 2)
    first, second = guest.node('one'), guest.node('two')
    assert guest.map(first, 1, 3) == 0
    assert guest.window.counts() == (1, 0)
    assert guest.map(first, 1, 3, writes=True) == 0
    assert guest.map(first, 1, 3) == 0
    assert guest.window.counts() == (0, 0)
    assert guest.window.read(3 * PAGE, PAGE) == one[PAGE:]
    guest.window.write(3 * PAGE, b'changed')
    assert read_file(share, 'one')[PAGE:PAGE + 7] == b'changed'
    assert guest.map(second, 0, 3) == 0
    assert guest.window.counts() == (1, 1)
    assert guest.window.read(3 * PAGE, PAGE) == two[:PAGE]
    assert guest.map(second, 1, 3) == 0
    assert guest.window.counts() == (1, 1)
    assert guest.window.read(3 * PAGE, PAGE) == two[PAGE:]
    # the same page twice
    assert guest.map(second, 1, 4) == 0
    guest.window.write(4 * PAGE, b'both')
    assert guest.window.read(3 * PAGE, 4) == b'both'
    assert guest.unmap(second, 3, 4, 5) == 0
    guest.window.settle()
    assert guest.window.counts() == (1, 2)
    assert guest.window.read(3 * PAGE, 1) == bytes([NOTHING])
    assert read_file(share, 'two')[PAGE:PAGE + 4] == b'both'


@every_protocol
def test_exhausted(guest, share):
    """A window that is full, and offsets beyond it: errors, and nothing is lost."""
    n = WINDOW // PAGE
    data = make_file(share, 'file', n)
    node = guest.node('file')
    for i in range(n):
        assert guest.map(node, i, i) == 0
    for to in (n, n + 1, 1 << 20, (1 << 43) - 1):
        assert guest.map(node, 0, to) == errno.EINVAL
    assert guest.window.counts() == (n, 0)
    assert guest.window.most == n
    for i in range(n):
        assert guest.window.read(i * PAGE, PAGE) == data[i * PAGE:(i + 1) * PAGE]


def test_the_largest_window(begin, share):
    """Never more than 256 mappings: QEMU aborts at 512 pieces of memory."""
    with open(os.path.join(share, 'file'), 'wb') as file:
        file.truncate(300 * PAGE)
    guest = begin(window='512M')
    node = guest.node('file')
    for i in range(600):
        assert guest.map(node, i % 300, i % 256) == 0
    assert guest.map(node, 0, 256) == errno.EINVAL
    assert guest.window.most == 256


def test_in_place_when_answered(guest, share):
    """QEMU promises first and maps then: the guest is not told before."""
    data = make_file(share, 'file', 3)
    node = guest.node('file')
    guest.window.late = 0.2
    for i in range(3):
        assert guest.map(node, i, i) == 0
        assert guest.window.read(i * PAGE, 100) == data[i * PAGE:][:100]


def test_a_vmm_that_adds_no_memory(guest, share):
    """It is waited for once."""
    make_file(share, 'file', 6)
    node = guest.node('file')
    guest.window.adds = False
    assert guest.map(node, 0, 0) == 0
    begin = time.monotonic()
    for i in range(1, 6):
        assert guest.map(node, i, i) == 0
    assert time.monotonic() - begin < 1


def test_together(guest, share):
    """Two queues at once, while memory comes and goes and the VMM takes its time."""
    data = make_file(share, 'file', 4)
    node = guest.node('file')
    guest.window.slow = guest.window.late = 0.002
    failed = []

    def work(client, queue):
        chance = random.Random(queue)
        for _ in range(150):
            page, to = chance.randrange(4), queue * 2 + chance.randrange(2)
            try:
                client.setup_mapping(node, page * PAGE, to * PAGE, queue=queue)
                if guest.window.read(to * PAGE, 64) != data[page * PAGE:][:64]:
                    failed.append((queue, page, to))
                if chance.random() < 0.4:
                    client.remove_mappings(node, to * PAGE, queue=queue)
            except OSError as error:
                failed.append(repr(error))

    threads = [threading.Thread(target=work, args=(guest.frontend.client(), queue))
               for queue in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


# ---- what a guest must not get --------------------------------------------------------

EXTREMES = (1, 4095, 4096, PAGE - 1, PAGE + 1, 1 << 31, (1 << 32) - 1, (1 << 63) - 1,
            1 << 63, (1 << 63) + PAGE, (1 << 64) - PAGE, (1 << 64) - 1)


@pytest.mark.hostile('field-lengths', 'special-mapping')
def test_fields(guest, share, cases):
    """Every field at its ends: an error, and the VMM hears of nothing."""
    make_file(share, 'file', 2)
    node, handle = guest.node('file'), (1 << 64) - 1
    for value in EXTREMES:
        for fields in ((handle, value, PAGE, 3, 0), (handle, 0, value, 3, 0),
                       (handle, 0, PAGE, value & ~3 or 4, 0), (handle, 0, PAGE, 3, value),
                       (value ^ 5, 0, PAGE, 3, 0), (value, value, value, value, value)):
            body = struct.pack('=5Q', *fields)
            reply = guest.client.send(fuse.SETUPMAPPING, node, body)
            assert reply.is_well_formed and reply.errno in (
                errno.EINVAL, errno.EBADF, errno.ENXIO), fields
            cases(1)
        for count, offset, length in ((1, value, PAGE), (1, 0, value), (1, value, value)):
            reply = guest.client.send(fuse.REMOVEMAPPING, node,
                                      struct.pack('=IQQ', count, offset, length))
            assert reply.errno == errno.EINVAL
            cases(1)
    for count in (0, 2, 256, 1 << 28, 1 << 31, (1 << 32) - 1):
        reply = guest.client.send(fuse.REMOVEMAPPING, node,
                                  struct.pack('=IQQ', count, 0, PAGE))
        assert reply.errno == errno.EINVAL
        cases(1)
    assert guest.window.counts() == (0, 0)


@pytest.mark.hostile('special-mapping')
def test_special_files(guest, share, cases):
    """Nothing is opened that is no regular file; a page is not beyond the end."""
    make_file(share, 'file', 1)
    os.mkfifo(os.path.join(share, 'fifo'))
    os.mknod(os.path.join(share, 'null'), 0o20666, os.makedev(1, 3))
    os.mkdir(os.path.join(share, 'folder'))
    os.symlink('file', os.path.join(share, 'link'))
    for name, size in (('empty', 0), ('small', 4096), ('odd', PAGE + 4096)):
        with open(os.path.join(share, name), 'wb') as file:
            file.truncate(size)
    answers = {'fifo': errno.ENXIO, 'null': errno.ENXIO, 'folder': errno.EISDIR,
               'link': errno.ELOOP, 'empty': errno.ENXIO, 'small': errno.ENXIO}
    for name, answer in answers.items():
        for writes in (False, True):
            assert guest.map(guest.node(name), 0, 0, writes=writes) == answer
            cases(1)
    assert guest.map(guest.node('odd'), 1, 0) == errno.ENXIO
    assert guest.map(guest.node('file'), 1, 0) == errno.ENXIO
    assert guest.window.counts() == (0, 0)
    assert os.stat(os.path.join(share, 'empty')).st_size == 0


@pytest.mark.hostile('field-node-ids', 'field-handles')
def test_ids(guest, share, cases):
    """Nodes that are not the guest's, and handles that are not the file's."""
    make_file(share, 'one', 1)
    make_file(share, 'two', 1)
    client, node, other = guest.client, guest.node('one'), guest.node('two')
    reads, writes = (client.open(node, flags)[0] for flags in (os.O_RDONLY, os.O_RDWR))
    foreign, folder = client.open(other, os.O_RDWR)[0], client.opendir(fuse.ROOT)
    gone = client.open(node, os.O_RDWR)[0]
    client.release(node, gone)
    for handle, to_write, answer in (
            (reads, True, errno.EACCES), (foreign, True, errno.EBADF),
            (foreign, False, errno.EBADF), (folder, False, errno.EBADF),
            (gone, True, errno.EBADF), (0, False, errno.EBADF),
            ((1 << 64) - 2, False, errno.EBADF)):
        assert guest.map(node, 0, 0, fh=handle, writes=to_write) == answer
        cases(1)
    client.forget(other)
    for bad in (0, other, node + 1, 1 << 40, (1 << 64) - 1):
        assert guest.map(bad, 0, 0) == errno.ESTALE
        cases(1)
    assert guest.window.counts() == (0, 0)
    assert guest.map(node, 0, 0, fh=reads) == 0
    assert guest.map(node, 0, 1, fh=writes, writes=True) == 0
    assert guest.window.counts() == (2, 0)


@pytest.mark.hostile('field-truncated')
def test_any_bytes(guest, share, cases):
    """Thousands of requests, most of them nearly right: the VMM is never asked for what
    it could not do, and honest work goes on.
    """
    data = make_file(share, 'file', 3)
    node, chance = guest.node('file'), random.Random(3)
    for _ in range(3000):
        fields = [(1 << 64) - 1, chance.randrange(5) * PAGE, PAGE, chance.randrange(1, 4),
                  chance.randrange(10) * PAGE]
        for _ in range(chance.choice((0, 0, 1, 2))):
            fields[chance.randrange(5)] = chance.choice((chance.getrandbits(64),
                                                         *EXTREMES))
        if chance.random() < 0.5:
            body = struct.pack('=5Q', *fields)
            opcode = fuse.SETUPMAPPING
        else:
            body = struct.pack('=IQQ', 1, fields[4], fields[2])
            opcode = fuse.REMOVEMAPPING
        if chance.random() < 0.1:
            body = body[:chance.randrange(len(body) + 1)] + chance.randbytes(
                chance.randrange(9))
        assert guest.client.send(opcode, node, body).is_well_formed
        cases(1)
    assert guest.map(node, 2, 5) == 0
    assert guest.window.read(5 * PAGE, PAGE) == data[2 * PAGE:]


@pytest.mark.hostile('vmm-truncated')
def test_pages_are_no_buffers(guest, share):
    """A request whose buffer is mapped memory fails alone: the file behind it may be made
    shorter at any time.
    """
    make_file(share, 'file', 2)
    node = guest.node('file')
    handle = guest.client.open(node, os.O_RDWR)[0]
    assert guest.map(node, 1, 0) == 0
    os.truncate(os.path.join(share, 'file'), PAGE)
    queue, buffer = guest.frontend.queues[2], guest.frontend.alloc(4096)
    request = guest.client.pack(fuse.READ, node, struct.pack(
        '=QQIIQII', handle, 0, 64, 0, 0, 0, 0))
    buffer.write(request)
    queue.submit([(buffer.gpa, len(request))], [(GPA, 80)])
    assert queue.wait()[1] == 0
    queue.submit([(GPA, len(request))], [(buffer.gpa, 80)])
    assert queue.wait()[1] == 0
    assert len(guest.client.read(node, handle, 64)) == 64


@every_protocol
def test_a_file_that_shrinks(guest, share):
    """While it is being mapped: it is unmapped at once, and the guest is told."""
    make_file(share, 'file', 3)
    path, node = os.path.join(share, 'file'), guest.node('file')
    assert guest.map(node, 0, 0) == 0

    def answer(asked):
        os.truncate(path, 2 * PAGE)
        return 0

    guest.window.answer = answer
    assert guest.map(node, 2, 1) == errno.ENXIO
    guest.window.answer = None
    assert guest.window.counts() == (2, 1)
    assert guest.map(node, 1, 1) == 0


# ---- rings that stop ------------------------------------------------------------------

@every_protocol
def test_stop_and_cont(guest, share):
    """Mappings outlive it, and nothing is sent meanwhile."""
    data = make_file(share, 'file', 3)
    node = guest.node('file')
    assert guest.map(node, 1, 1) == 0
    guest.window.stop()
    assert guest.window.counts() == (1, 0)
    guest.window.cont()
    assert guest.window.read(PAGE, PAGE) == data[PAGE:2 * PAGE]
    assert guest.map(node, 1, 1, writes=True) == 0
    assert guest.window.counts() == (0, 0)
    assert guest.unmap(node, 1) == 0
    assert guest.map(node, 2, 1) == 0
    assert guest.window.counts() == (1, 1)


def test_a_new_session(guest, share):
    """INIT and DESTROY empty the window; so does an INIT after a reset, in vain."""
    make_file(share, 'file', 3)
    node = guest.node('file')
    for i in range(3):
        assert guest.map(node, i, 2 * i) == 0
    guest.client.init(flags=Window.INIT_FLAGS)
    assert guest.window.counts() == (3, 3)
    node = guest.node('file')
    assert guest.map(node, 0, 0) == 0
    guest.client.destroy()
    assert guest.window.counts() == (1, 1)
    guest.client.init(flags=Window.INIT_FLAGS)
    node = guest.node('file')
    assert guest.map(node, 0, 4) == 0
    # QEMU's test device tells of no reset: the rings stop and start, with new memory
    guest.window.stop()
    gone = guest.window.drop()
    guest.window.forget_memory(gone)
    guest.window.cont()
    guest.client.init(flags=Window.INIT_FLAGS)
    assert guest.window.counts() == (1, 1)
    assert guest.map(guest.node('file'), 0, 4) == 0
    assert guest.window.counts() == (1, 0)


def test_reset_device(guest, share):
    """Who does tell of it is asked for nothing."""
    make_file(share, 'file', 1)
    assert guest.map(guest.node('file'), 0, 0) == 0
    guest.window.stop()
    gone = guest.window.drop()
    guest.frontend.reset()
    guest.window.forget_memory(gone)
    guest.window.cont()
    guest.client.init(flags=Window.INIT_FLAGS)
    assert guest.window.counts() == (1, 0)
    assert guest.map(guest.node('file'), 0, 0) == 0


@every_protocol
def test_stop_while_the_vmm_is_asked(guest, share):
    """It would never answer, for it waits for us: the request gives up at once. The
    answer that comes late is thrown away.
    """
    data = make_file(share, 'file', 1)
    node = guest.node('file')
    asking = Asking(guest, node)
    begin = time.monotonic()
    guest.window.stop()
    assert time.monotonic() - begin < SILENCE
    guest.window.cont()
    assert asking.end() == errno.EINTR
    guest.window.answer = None
    guest.window.socket.send(answer(guest.window.dialect.MAP))
    assert guest.window.counts() == (1, 0)
    # it may have been mapped: first it is made sure that it is not
    assert guest.map(node, 0, 0) == 0
    assert guest.window.counts() == (1, 1)
    assert guest.window.read(0, PAGE) == data


@pytest.mark.unwatched('it ends at once')
@pytest.mark.parametrize('how', ['leaves', 'resets'])
@every_protocol
def test_end_while_the_vmm_is_asked(begin, share, how):
    make_file(share, 'file', 1)
    guest = begin()
    asking = Asking(guest, guest.node('file'))
    start = time.monotonic()
    if how == 'leaves':
        guest.frontend.disconnect()
        assert guest.daemon.wait() == 0
    else:
        guest.frontend.send(vmm.RESET_DEVICE)
        guest.frontend.send(vmm.GET_FEATURES)
        assert guest.frontend.receive().request == vmm.GET_FEATURES
    assert time.monotonic() - start < SILENCE
    guest.window.runs = False
    if how == 'resets':
        assert asking.end() == errno.EINTR
        guest.frontend.disconnect()
        assert guest.daemon.wait() == 0
    else:
        asking.end()


# ---- a VMM that does not keep to it ---------------------------------------------------

def answer(request=9, flags=5, size=8, value=0):
    return struct.pack('=IIIQ', request, flags, size, value)


WRONG = {
    'request': lambda asks: answer(asks + 1), 'unknown': lambda asks: answer(1 << 31),
    'no reply': lambda asks: answer(asks, flags=1),
    'version': lambda asks: answer(asks, flags=6),
    'more': lambda asks: answer(asks, flags=13),
    'short': lambda asks: answer(asks, size=7),
    'long': lambda asks: answer(asks, size=0xFFFFFFFF),
    'none': lambda asks: answer(asks, size=0), 'two': lambda asks: 2 * answer(asks),
}


@pytest.mark.unwatched('the channel is closed at the end')
@pytest.mark.parametrize('protocol, what', [
    *[('standard', what) for what in WRONG],
    *[(name, what) for name in NAMES[1:] for what in ('request', 'none')],
], indirect=['protocol'])
def test_wrong_answers(begin, share, what):
    """The channel ends, and nothing else: files are served as ever."""
    make_file(share, 'file', 1)
    guest = begin()
    node = guest.node('file')
    guest.window.answer = lambda asked: WRONG[what](asked.request)
    assert guest.map(node, 0, 0) == (0 if what == 'two' else errno.EIO)
    guest.window.answer = None
    assert guest.map(node, 0, 1) == errno.EIO
    handle = guest.client.open(node)[0]
    assert len(guest.client.read(node, handle, 4096)) == 4096
    assert guest.window.counts() == (1, 0)


@pytest.mark.unwatched('the channel is closed at the end')
@every_protocol
def test_a_vmm_that_closes_the_channel(begin, share):
    make_file(share, 'file', 1)
    guest = begin()
    node = guest.node('file')
    guest.window.close()
    assert guest.map(node, 0, 0) == errno.EIO
    assert len(guest.client.read(node, guest.client.open(node)[0], 4096)) == 4096


@every_protocol
def test_refused(guest, share):
    """What the VMM refuses is an error, and harms no other mapping."""
    data = make_file(share, 'file', 2)
    node = guest.node('file')
    assert guest.map(node, 0, 0) == 0
    for value in (1, 2, (1 << 64) - 1):
        guest.window.answer = lambda asked, value=value: value
        assert guest.map(node, 1, 1) == errno.EIO
    guest.window.answer = None
    assert guest.map(node, 1, 1) == 0
    assert guest.window.read(0, 2 * PAGE) == data


def test_silence(guest, share):
    """It costs a request some seconds, and an error; other requests go on."""
    data = make_file(share, 'file', 1)
    node = guest.node('file')
    handle = guest.client.open(node)[0]
    begin = time.monotonic()
    asking = Asking(guest, node)
    while asking.is_alive():
        assert guest.client.read(node, handle, 4096) == data[:4096]
        time.sleep(0.05)
    assert asking.end() == errno.EIO
    assert time.monotonic() - begin > SILENCE
    guest.window.answer = None
    guest.window.socket.send(answer())  # late
    assert guest.map(node, 0, 0) == 0
    assert guest.window.read(0, PAGE) == data


def test_delayed(guest, share):
    """Answers that take their time are waited for."""
    data = make_file(share, 'file', 2)
    node = guest.node('file')
    guest.window.slow = 1
    assert guest.map(node, 1, 0) == 0
    assert guest.map(node, 0, 0) == 0
    assert guest.window.read(0, PAGE) == data[:PAGE]


MISSING = {'BACKEND_REQ': 1 << 5, 'REPLY_ACK': 1 << 3, 'SHMEM': 1 << 22}


@pytest.mark.parametrize('name', MISSING)
def test_missing_agreements(start, share, scratch, extra_args, name):
    """Without any of these the VMM cannot be asked."""
    make_file(share, 'file', 1)
    daemon = start(launch.plain, share, scratch,
                   [f'--dax-window={WINDOW}', '--tag=share', *OPTIONS, *extra_args])
    daemon.wait_ready()
    with vmm.Frontend(daemon.socket_path,
                      protocol_features=PROTOCOL & ~MISSING[name]) as frontend:
        frontend.start()
        client = frontend.client()
        assert client.init(flags=Window.INIT_FLAGS).map_alignment == 0
        node = client.lookup(fuse.ROOT, b'file').nodeid
        assert errno_of(client.setup_mapping, node, 0, 0) == errno.ENOSYS
