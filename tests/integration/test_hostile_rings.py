# SPDX-License-Identifier: Apache-2.0
"""Malformed rings against the real binary: a chain that is malformed is retired, a ring
that is malformed stops, and the other queue never notices.
"""

import contextlib
import errno
import itertools
import os
import struct
import time

import pytest

import frontend as vmm
import fuse_client as fuse
import hostile_rings as rings
import native
from hostile import assert_idle
from hostile_rings import ANSWERED, ANY, RETIRED, Ring
from process import eventually

FEATURES = {
    'usual': vmm.F_INDIRECT_DESC | vmm.F_EVENT_IDX,
    'no-tables': vmm.F_EVENT_IDX,
    'no-events': vmm.F_INDIRECT_DESC,
    'packed': vmm.F_RING_PACKED | vmm.F_INDIRECT_DESC | vmm.F_EVENT_IDX,
}


@pytest.mark.hostile('number-rings', 'ring-index', 'ring-loop', 'ring-nested',
                     'ring-odd-table', 'ring-zero-length', 'ring-order',
                     'ring-region-end', 'peer-malformed')
@pytest.mark.parametrize('features', FEATURES)
def test_malformed_chains(besiege, features, cases):
    """Each is retired with length 0, and the ring goes on; a sound one is answered."""
    guest = besiege(features=FEATURES[features] | vmm.F_PROTOCOL_FEATURES
                    | vmm.F_VERSION_1)
    worker = guest.work_on(2)
    ring = Ring(guest, 1)
    sound = rings.Case('none', ring.honest(), ANSWERED)
    count = {}
    for case in rings.all_chains(ring, features != 'no-tables'):
        fate = ring.run(case)
        assert case.fate in (ANY, fate), f'{fate}: {case}'
        assert ring.run(sound) == ANSWERED and ring.is_entry()
        count[case.row] = count.get(case.row, 0) + 1
    words = worker.finish()
    ring.queue.release(ring.heads)
    print(f'{features}: {sum(count.values())} chains {count}; {words}')
    cases(sum(count.values()))


JUMPS = (129, 130, 192, 255, 256, 257, 1000, 30000, 32766, 32767, 32768, 32769, 40000,
         60000, 65000, 65407, 65408, 65409, 65534, 65535)
HEADS = (128, 129, 255, 256, 1000, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF)


def assert_stopped(guest, queue):
    """It moves no more, whatever is put there, and costs nothing."""
    used = queue.used_mark()
    for _ in range(5):
        queue.kick()
    assert_idle(guest.daemon)
    assert queue.used_mark() == used


@pytest.mark.hostile('number-rings', 'ring-index', 'peer-avail-jump', 'idle')
@pytest.mark.split
def test_broken_rings(besiege, cases):
    """An index or head that cannot be stops the queue, with one line, until it is set up
    again; the other queue goes on.
    """
    guest = besiege('--log-level=warn')
    worker = guest.work_on(2)
    queue = guest.frontend.queues[1]
    for number, jump in enumerate(JUMPS):
        queue.write_avail_index(queue.avail_index + jump)
        queue.kick()
        if number % 5 == 0:
            worker.client.call(fuse.STATFS, fuse.ROOT, queue=2)
        assert all(rings.restart(guest, 1))
        guest.assert_honest(queue=1)
        cases(1)
    for head in HEADS:
        queue.post(head)
        assert all(rings.restart(guest, 1))
        guest.assert_honest(queue=1)
        cases(1)
    worker.finish()
    for index in (30000, 65535):
        queue.write_avail_index(queue.avail_index + index)
        queue.kick()
        assert_stopped(guest, queue)
        assert all(rings.restart(guest, 1))
        cases(1)
    guest.assert_honest(queue=1)


def packed_rings(queue):
    """What a packed ring's memory may say that cannot be: {what: bytes}. It was set up
    anew: what has AVAIL and not USED is offered."""
    size, avail, used = queue.layout.size, 1 << 7, 1 << 15
    return {
        'no end': vmm.pack_desc(0, 0, 0, avail | vmm.DESC_NEXT) * size,
        'no end, and ids': vmm.pack_desc(0, 16, 0xFFFF, avail | 0x7F7F) * size,
        'one place too many': (
            vmm.pack_desc(0, 0, 0, avail) + vmm.pack_desc(0, 0, 0, avail | 1) * (size - 1)
        ),
        'all offered': vmm.pack_desc(0, 0, 0, avail) * size,
        'all used': vmm.pack_desc(0, 0, 0, avail | used) * size,
        'all ones': b'\xff' * 16 * size,
    }


@pytest.mark.hostile('number-rings', 'ring-index', 'ring-loop')
@pytest.mark.parametrize('events', ['events', 'no-events'])
def test_broken_packed_rings(besiege, events, cases):
    """A chain without an end, more than there is room for, and plain nonsense: the queue
    stops or goes on, works when it is set up again, and the other one never notices.
    """
    guest = besiege(features=vmm.F_RING_PACKED | vmm.F_INDIRECT_DESC | vmm.F_VERSION_1
                    | vmm.F_PROTOCOL_FEATURES | (vmm.F_EVENT_IDX * (events == 'events')))
    worker = guest.work_on(2)
    queue = guest.frontend.queues[1]
    assert queue.is_packed
    for content in packed_rings(queue).values():
        for event in (0, 1 << 16, 2 << 16, 0xFFFFFFFF, 2 << 16 | 0x7FFF):
            guest.frontend.get_base(1)
            queue.reset()
            native.C.memmove(queue.layout.desc, content, len(content))
            native.C.memmove(queue.layout.avail, struct.pack('=I', event), 4)
            assert all(rings.set_up(guest, 1))
            queue.kick()
            worker.client.call(fuse.STATFS, fuse.ROOT, queue=2)
            cases(1)
    assert all(rings.restart(guest, 1))
    guest.assert_honest(queue=1)
    for base in (0x8000FFFF, 0xFFFF8000, queue.layout.size, 0xFFFFFFFF):
        guest.frontend.get_base(1)
        queue.reset()
        assert rings.set_up(guest, 1, base=base)[3] is False  # it does not start
        cases(1)
    assert all(rings.restart(guest, 1))
    guest.assert_honest(queue=1)
    print(worker.finish())


@pytest.mark.hostile('number-rings', 'ring-index')
@pytest.mark.split
def test_one_head_many_times(besiege, cases):
    """Each is served, as the same chain."""
    guest = besiege()
    ring = Ring(guest, 1)
    for times in (2, 3, 64, 128):
        head = ring.write(rings.Case('none', ring.honest()))
        for _ in range(times):
            ring.queue.post(head)
        for _ in range(times):
            assert ring.queue.wait()[1] == 144
        cases(1)
    ring.queue.release(ring.heads)


SIZES = (0, 3, 5, 6, 7, 100, 127, 129, 32769, 65535, 65536, 1 << 31, 0xFFFFFFFF)


@pytest.mark.hostile('number-rings', 'ring-sizes')
@pytest.mark.split
def test_sizes(besiege, cases):
    """What is no size is refused, and the queue stays unusable until it has one."""
    guest = besiege()
    worker = guest.work_on(2)
    for size in SIZES:
        obeyed = rings.restart(guest, 1, size=size)
        assert not obeyed[0] and not obeyed[3], f'{size}: {obeyed}'
        guest.frontend.queues[1].kick()
        cases(1)
    assert all(rings.restart(guest, 1))
    guest.assert_honest(queue=1)
    worker.finish()


@pytest.mark.hostile('number-rings', 'ring-sizes', 'ring-region-end')
@pytest.mark.split
def test_places(besiege, cases):
    """Rings that are unaligned, outside of memory, or across its end."""
    guest = besiege()
    worker = guest.work_on(2)
    honest = rings.addresses_of(guest, 1)
    wrong = [(name, honest[name] + shift) for name, least in
             (('desc', 16), ('avail', 2), ('used', 4)) for shift in range(1, least)]
    for name in honest:
        wrong += [(name, value) for value in (0, 1 << 63, -16, -4096)]
        for region in guest.frontend.regions():
            end = region.uva + region.size
            wrong += [(name, end - before) for before in (0, 16, 256)]
    for name, address in wrong:
        obeyed = rings.restart(guest, 1, **{name: address})
        assert not obeyed[2] or not obeyed[3], f'{name} {address:x}: {obeyed}'
        guest.frontend.queues[1].kick()
        cases(1)
    assert all(rings.restart(guest, 1))
    guest.assert_honest(queue=1)
    worker.finish()


@pytest.mark.hostile('ring-shared')
@pytest.mark.split
def test_shared_with_data(besiege, cases):
    """Parts in one place are refused; requests whose data is the ring itself go on."""
    guest = besiege()
    worker = guest.work_on(2)
    queue = guest.frontend.queues[1]
    honest = rings.addresses_of(guest, 1)
    for one in honest.values():
        if one % 16 == 0:
            assert not all(rings.restart(guest, 1, desc=one, avail=one, used=one))
            for head in range(8):
                queue.post(head)
            cases(1)
    for first, second in (('desc', 'avail'), ('desc', 'used'), ('avail', 'used')):
        assert not all(rings.restart(guest, 1, **{second: honest[first]}))
        for head in range(8):
            queue.post(head)
        cases(1)
    # A ring whose replies are written over its own descriptors, indices and entries.
    for name in honest:
        assert all(rings.restart(guest, 1))
        ring = Ring(guest, 1)
        memory = native.library().frontend_memory(guest.frontend.handle)
        target = native.library().guest_memory_gpa(memory, getattr(queue.layout, name))
        for size in (16, 144, 216):
            chain = ring.honest()[:2] + [rings.Descriptor(target, size, vmm.DESC_WRITE)]
            queue.post(ring.write(rings.Case('none', chain)))
            cases(1)
        # And whose requests are what it is made of.
        chain = [rings.Descriptor(target, 64, vmm.DESC_NEXT, 1), *ring.honest()[2:]]
        queue.post(ring.write(rings.Case('none', linked(chain))))
        cases(1)
        guest.assert_honest(queue=2)
    worker.finish()
    assert all(rings.restart(guest, 1))
    guest.assert_honest(queue=1)


def linked(chain):
    """Each descriptor leads to the one behind it."""
    return [d.changed(follow=place + 1, flags=d.flags & ~vmm.DESC_NEXT | (
        vmm.DESC_NEXT if place + 1 < len(chain) else 0)) for place, d in enumerate(chain)]


def plug(guest, size):
    """New memory with a file of its own."""
    index = guest.frontend.add_region(size)
    return next(r for r in guest.frontend.regions() if r.index == index)


def start_in(guest, region):
    """Let the first request queue lie in this region."""
    assert all(rings.restart(guest, 1, desc=region.uva, avail=region.uva + 8192,
                             used=region.uva + 16384))


@pytest.mark.hostile('ring-unmapped')
@pytest.mark.parametrize('how', ['removed', 'punched'])
def test_memory_goes(besiege, ring_layout, how, cases):
    """The ring's memory is taken away, or emptied, while it runs: nothing more comes from
    there, and the queue in other memory goes on.
    """
    guest = besiege(separate_files=True)
    worker = guest.work_on(2)
    queue = guest.frontend.queues[1]
    for _ in range(5):
        region = plug(guest, 1 << 20)
        start_in(guest, region)
        queue.kick()
        if how == 'punched':  # reads as zeros
            punch_hole(region.fd, region.size)
        else:
            guest.frontend.remove_region(region.index)
        for _ in range(20):
            queue.kick()
        guest.assert_honest(queue=2)
        assert all(rings.restart(guest, 1))
        guest.assert_honest(queue=1)
        if how == 'punched':
            guest.frontend.remove_region(region.index)
        cases(1)
    print(worker.finish())


def punch_hole(fd, size):
    libc = native.C.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [native.C.c_int, native.C.c_int, native.C.c_int64,
                               native.C.c_int64]
    assert libc.fallocate(fd, 3, 0, size) == 0


@pytest.mark.hostile('vmm-truncated', 'ring-unmapped')
@pytest.mark.unwatched('where guest memory is missing, all rings stop')
@pytest.mark.parametrize('what', ['ring', 'header', 'arguments', 'reply'])
def test_memory_is_truncated(besiege, what, cases):
    """Memory that is missing when it is touched stops the rings; the process lives, does
    nothing, says so, and ends as if the VMM had gone.
    """
    guest = besiege('--log-level=warn', calm=False, separate_files=True)
    region = plug(guest, 1 << 20)
    if what == 'ring':
        start_in(guest, region)
        os.ftruncate(region.fd, 0)
        guest.frontend.queues[1].kick()
    else:
        ring = Ring(guest, 1)
        place = ('header', 'arguments', 'reply').index(what)
        chain = rings.changed(ring.honest(), place, gpa=region.gpa + 8192)
        os.ftruncate(region.fd, 4096)
        assert ring.run(rings.Case('none', chain)) in (RETIRED, ANSWERED)
        guest.frontend.queues[1].post(ring.heads[0])
    assert_idle(guest.daemon)
    assert guest.daemon.is_alive()
    guest.close()
    assert guest.daemon.wait() == 0
    assert 'guest memory is gone' in guest.daemon.said()
    cases(1)


@pytest.mark.hostile('vmm-truncated')
def test_data_is_truncated(besiege, cases):
    """Data that is missing is EFAULT: the kernel says so, and all goes on."""
    guest = besiege(separate_files=True)
    region = plug(guest, 4 << 20)
    os.ftruncate(region.fd, 4096)
    ring = Ring(guest, 1)
    for opcode, at in itertools.product((fuse.READ, fuse.WRITE),
                                        (4096, 8192, 1 << 20, (4 << 20) - 4096)):
        is_write = opcode == fuse.WRITE
        body = struct.pack('=QQIIQII', guest.handle, 0, 4096, 0, 0, 0, 0)
        ring.bytes = guest.client.pack(opcode, guest.file, body, len=80 + 4096 * is_write)
        data = rings.Descriptor(region.gpa + at, 4096, 0 if is_write else vmm.DESC_WRITE)
        reply = rings.Descriptor(ring.reply.gpa, 24 if is_write else 16, vmm.DESC_WRITE)
        chain = [rings.Descriptor(ring.request.gpa, 80),
                 *((data, reply) if is_write else (reply, data))]
        assert ring.run(rings.Case('none', linked(chain))) == ANSWERED
        error = struct.unpack_from('=Ii', ring.reply.read(16))[1]
        assert error == -errno.EFAULT
        guest.assert_honest(queue=1)
        cases(1)
    ring.queue.release(ring.heads)
    guest.frontend.remove_region(region.index)


@pytest.mark.hostile('ring-storm', 'idle')
def test_notify_storm(besiege, cases):
    """A million kicks for nothing; the other queue is served, then there is peace."""
    guest = besiege()
    fd = native.library().virtqueue_kick_fd(guest.frontend.queues[1].handle)
    hiprio = native.library().virtqueue_kick_fd(guest.frontend.queues[0].handle)
    worker = guest.work_on(2)
    one, n = struct.pack('=Q', 1), 0
    begin = time.monotonic()
    while time.monotonic() - begin < 1 or worker.rounds < 10:
        for _ in range(1000):
            os.write(fd, one)
            os.write(hiprio, one)
        n += 2000
    print(f'{n} kicks; {worker.finish()}')
    assert_idle(guest.daemon)
    with contextlib.suppress(BlockingIOError):  # a counter that is full
        os.set_blocking(fd, False)
        os.write(fd, struct.pack('=Q', (1 << 64) - 2))
    guest.assert_honest(queue=1)
    assert_idle(guest.daemon)
    cases(n)


@pytest.mark.hostile('peer-base-in-flight')
def test_base_of_a_queue_that_is_copying(besiege, ring_layout, memory_share, cases):
    """GET_VRING_BASE is answered when the copy is done; nothing is written later."""
    guest = besiege()
    client, queue = guest.client, guest.frontend.queues[1]
    size, n_in_flight = 16 << 20, 0
    copy = os.path.join(memory_share, 'copy')
    with open(os.path.join(memory_share, 'big'), 'wb') as file:
        file.write(os.urandom(1 << 20) * (size >> 20))
    node = client.lookup(fuse.ROOT, b'big').nodeid
    handle, _ = client.open(node, os.O_RDONLY)
    entry, to = client.create(fuse.ROOT, b'copy')
    body = struct.pack('=7Q', handle, 0, entry.nodeid, to, 0, size, 0)
    for _ in range(10):
        os.truncate(copy, 0)
        client.submit(client.pack(fuse.COPY_FILE_RANGE, node, body), 24, queue=1)
        eventually(lambda: os.stat(copy).st_size > 0, interval=0)
        used = queue.used_mark()
        guest.frontend.get_base(1)
        n_in_flight += queue.used_mark() != used
        reply = client.reap(queue=1, timeout=0.001)  # it is there
        done = struct.unpack_from('=I', reply.payload)[0]
        assert 0 < done == os.stat(copy).st_size  # a piece of it, all of it
        used = queue.used_mark()
        guest.assert_honest(queue=2)
        assert queue.used_mark() == used
        guest.frontend.set_ring(1)
        guest.frontend.enable_ring(1, True)
        cases(1)
    assert n_in_flight > 0
    for name in ('big', 'copy'):
        os.unlink(os.path.join(memory_share, name))
