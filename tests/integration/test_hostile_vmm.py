# SPDX-License-Identifier: Apache-2.0
"""Malformed vhost-user peers against the real binary: it answers, or ends as if the VMM
had gone; it never dies, hangs, or keeps what came with a message.
"""

import array
import contextlib
import itertools
import os
import signal
import socket
import struct
import time

import pytest

import frontend as vmm
import fuse_client as fuse
import hostile_messages as messages
import hostile_rings as rings
import launch
from hostile import assert_idle, cpu_ns, resources
from hostile_messages import ENDS, OTHER, STAYS, VICTIM, Case, Peer, Peers
from process import eventually

pytestmark = pytest.mark.unwatched('looked at by hand: most of them end at the message')
HEADER = struct.Struct('=III')
AT_ONCE = 4.5  # seconds, on a busy machine; a silent VMM is waited for for 5


@pytest.fixture
def peers(start, memory_share, scratch, extra_args):
    found = Peers(start, memory_share, scratch, extra_args)
    yield found
    found.close()


def run_all(peers, all_of_them, cases):
    """All cases; every third with a sanitizer, where each daemon takes its time."""
    fates = {ENDS: 0, STAYS: 0}
    step = 3 if os.environ.get('VIRTIOFSD_SANITIZER') else 1
    for case in itertools.islice(all_of_them, 0, None, step):
        fates[peers.run(case)] += 1
    cases(sum(fates.values()))
    print(f'{fates}, {peers.n_daemons} daemons')


@pytest.mark.hostile('number-messages', 'vmm-sizes')
def test_sizes(peers, cases):
    """Every payload a byte too short or long, and headers that say anything."""
    run_all(peers, messages.sizes(), cases)


@pytest.mark.hostile('number-messages', 'vmm-fds')
def test_descriptors(peers, cases):
    """Every count that is wrong ends the connection, and none of them is kept."""
    run_all(peers, messages.descriptors(), cases)


@pytest.mark.hostile('number-messages', 'vmm-fds', 'vmm-no-eventfd', 'vmm-log')
def test_kinds_of_descriptors(peers, cases):
    run_all(peers, messages.kinds_of_descriptors(), cases)


@pytest.mark.hostile('vmm-no-eventfd', 'idle')
def test_nameless_descriptors(peers, cases):
    """Who gives another nameless descriptor has no interrupts, or none of his kicks is
    heard: it costs nobody else anything.
    """
    peer = peers.get()
    for request in (vmm.SET_VRING_KICK, vmm.SET_VRING_CALL, vmm.SET_VRING_ERR):
        for fd in messages.anonymous(peer).values():
            peer.send(request, struct.pack('=Q', VICTIM), [fd])
            peer.frontend.queues[VICTIM].kick()
            peer.client.submit(peer.client.pack(fuse.STATFS, 1), 200, queue=VICTIM)
            assert peer.fate() == STAYS
            assert_idle(peer.daemon)
            peer.client.reset()
            peer.frontend.ask(vmm.SET_VRING_ERR, struct.pack('=Q', VICTIM),
                              [messages.eventfd(peer)])
            peer.go_on()
            cases(1)


@pytest.mark.hostile('number-messages', 'vmm-index')
def test_indices(peers, cases):
    run_all(peers, messages.indices(), cases)


@pytest.mark.hostile('number-messages', 'vmm-order')
def test_unknown(peers, cases):
    run_all(peers, messages.unknown(), cases)


@pytest.mark.hostile('number-messages', 'vmm-sizes')
def test_configuration_space(peers, cases):
    """What lies in it is told, what does not is an answer of no bytes."""
    peer = peers.get()
    for offset, size in itertools.product(
            (0, 1, 39, 40, 41, 255, 256, 1 << 31, 0xFFFFFF00, 0xFFFFFFFF),
            (0, 1, 4, 40, 41, 255, 256)):
        peer.frontend.send(vmm.GET_CONFIG, struct.pack('=III', offset, size, 0)
                           + bytes(size))
        told = peer.frontend.receive().payload
        is_inside = size > 0 and offset + size <= 40
        assert len(told) == (12 + size if is_inside else 0)
        cases(1)
    peer.go_on()


# ---- memory


@pytest.mark.hostile('number-messages', 'vmm-overlapping', 'vmm-wrapping', 'vmm-shorter',
                     'vmm-unaligned')
def test_regions(peers, cases):
    """Regions that cannot be are refused; a strange one is taken and given back whole."""
    peer = peers.get()
    for row, region in messages.regions_of(peer):
        assert not messages.add(peer, **region), f'{row}: {region}'
        cases(1)
    for region in messages.unaligned():
        messages.add(peer, size_of_file=1 << 20, **region)
        cases(1)
    peer.go_on()


@pytest.mark.hostile('vmm-overlapping', 'vmm-wrapping', 'vmm-shorter')
def test_whole_tables_of_regions(peers, cases):
    """One wrong region, and the old table stays."""
    peer = peers.get()
    sound = [messages.region_of(gpa=(i + 1) << 30, uva=(i + 1) << 32) for i in range(8)]
    for row, region in list(messages.regions_of(peer)):
        region = dict(region)
        fds = [messages.memfd(peer, region.pop('size_of_file', 1 << 20))] * 4
        table = [*sound[:3], messages.region_of(**region)]
        if row == 'vmm-overlapping':  # with what it replaces, which is no fault
            table[0] = messages.region_of(**region)
        answer = peer.frontend.ask(vmm.SET_MEM_TABLE,
                                   struct.pack('=II', 4, 0) + b''.join(table), fds)
        assert answer.u64 != 0, f'{row}: {region}'
        peer.assert_honest()
        cases(1)
    for count in (9, 33, 255, 1 << 31, 0xFFFFFFFF):
        peers.run(Case('vmm-sizes', f'{count} regions', messages.sent(
            vmm.SET_MEM_TABLE, payload=struct.pack('=II', count, 0) + b''.join(sound),
            fds=lambda _, peer: [messages.memfd(peer) for _ in range(8)])))
        cases(1)


@pytest.mark.hostile('number-messages', 'vmm-overlapping')
def test_more_regions_than_slots(peers, cases):
    """The table is full at its limit, and all are given back."""
    peer = peers.get()
    most = peer.frontend.ask(vmm.GET_MAX_MEM_SLOTS).u64
    fd, added = messages.memfd(peer, 4096), []
    for i in range(600):
        payload = bytes(8) + messages.region_of(gpa=(i + 1) << 40, uva=(i + 1) << 40,
                                                size=4096)
        if peer.frontend.ask(vmm.ADD_MEM_REG, payload, [fd]).u64 == 0:
            added.append(payload)
    assert len(added) == most - len(peer.frontend.regions())
    peer.assert_honest()
    for payload in added:
        assert peer.frontend.ask(vmm.REM_MEM_REG, payload).u64 == 0
        assert peer.frontend.ask(vmm.REM_MEM_REG, payload).u64 != 0
    cases(600)
    peer.go_on()


@pytest.mark.sandboxed
@pytest.mark.hostile('vmm-fuse-memory', 'vmm-log')
def test_memory_on_fuse(peers, bridged, memory_share, cases):
    """It could make each access wait for ever; so it is refused."""
    mount = bridged()
    path = os.path.join(mount, 'memory')
    with open(path, 'wb') as file:
        file.truncate(1 << 20)
    peers.run(Case('vmm-log', 'on FUSE', messages.sent(
        vmm.SET_LOG_BASE, fds=lambda _, peer: [peer.fd(os.open(path, os.O_RDWR))])))
    peer = peers.get()
    with open(path, 'r+b') as file:
        assert not messages.add(peer, fd=file.fileno())
        table = struct.pack('=II', 1, 0) + messages.region_of()
        assert peer.frontend.ask(vmm.SET_MEM_TABLE, table, [file.fileno()]).u64 != 0
    with open(os.path.join(memory_share, 'memory'), 'r+b') as file:
        assert messages.add(peer, fd=file.fileno())
    peer.go_on()
    cases(3)


@pytest.mark.hostile('number-messages', 'vmm-log')
def test_logs(peers, cases):
    """A dirty log that cannot be ends the connection."""
    run_all(peers, messages.logs(), cases)


@pytest.mark.hostile('vmm-log', 'vmm-truncated')
def test_truncated_log(peers, cases):
    """Marks would be lost: rather than that, its rings stop, and the daemon does not."""
    peer = peers.get()
    fd = messages.memfd(peer)
    payload = struct.pack('=QQ', messages.LOG_SIZE, 0)
    assert peer.frontend.ask(vmm.SET_LOG_BASE, payload, [fd]).u64 == 0
    features = struct.pack('=Q', peer.frontend.agreed[0] | vmm.F_LOG_ALL)
    assert peer.frontend.ask(vmm.SET_FEATURES, features).u64 == 0
    peer.assert_honest()
    os.ftruncate(fd, 0)
    peer.call(fuse.STATFS, fuse.ROOT, b'')  # whose marks are the first to be lost
    peer.client.submit(peer.client.pack(fuse.STATFS, fuse.ROOT), 200, queue=VICTIM)
    eventually(lambda: 'is stopped: guest memory is gone' in ''.join(
        peer.daemon.reader.lines))
    cases(1)
    peers.end()


# ---- order and time


@pytest.mark.hostile('number-messages', 'vmm-order')
def test_out_of_order(start, memory_share, scratch, extra_args, cases):
    """Each message as the very first, then an honest VMM's beginning: it is obeyed, or
    was refused.
    """
    peers = Peers(start, memory_share, scratch, extra_args)
    peer = peers.get()
    for name, request in messages.REQUESTS.items():
        for need_reply in (0, vmm.FLAG_NEED_REPLY):
            payload, fds = messages.honest(peer)[request]
            if request == vmm.SET_MEM_TABLE:  # of what the others do not add again
                payload = struct.pack('=II', 1, 0) + messages.region_of()
                fds = [messages.memfd(peer)]
            daemon = peers.spawn()
            daemon.wait_ready()
            with vmm.Frontend(daemon.socket_path, n_request_queues=2) as frontend:
                frontend.send(request, payload, fds, vmm.FLAG_VERSION | need_reply)
                if request == vmm.GET_FEATURES:
                    frontend.receive()
                fate = Peer.fate(_Bare(frontend))
                if fate == STAYS:
                    frontend.start()
                    client = frontend.client(data_size=1 << 16)
                    client.init()
                    assert client.lookup(1, b'honest').nodeid, name
                    client.destroy()
            assert daemon.wait() == 0, name
            cases(1)
    peers.close()


class _Bare:
    """What Peer.fate() needs."""

    def __init__(self, frontend):
        self.frontend = frontend


@pytest.mark.hostile('number-messages', 'vmm-running', 'vmm-order')
def test_while_rings_run(besiege, cases):
    """Every message to a running queue, while both work; the other never notices."""
    guest = besiege('--tag=hostile')
    worker = guest.work_on(OTHER)
    frontend = guest.frontend
    where = rings.addresses_of(guest, VICTIM)
    state, index = struct.Struct('=II'), struct.pack('=Q', VICTIM)
    address = struct.Struct('=IIQQQQ')
    fds = [os.eventfd(0, os.EFD_CLOEXEC) for _ in range(3)]
    steps = [
        (vmm.SET_VRING_NUM, state.pack(VICTIM, 64)),
        (vmm.SET_VRING_NUM, state.pack(VICTIM, 0)),
        (vmm.SET_VRING_BASE, state.pack(VICTIM, 5)),
        (vmm.SET_VRING_ADDR, address.pack(VICTIM, 1, *where.values(), 1 << 12)),
        (vmm.SET_VRING_ADDR, address.pack(VICTIM, 0, 0, 0, 0, 0)),
        (vmm.SET_VRING_KICK, index, fds[:1]), (vmm.SET_VRING_CALL, index, fds[1:2]),
        (vmm.SET_VRING_ERR, index, fds[2:]),
        (vmm.SET_VRING_CALL, struct.pack('=Q', VICTIM | 0x100)),
        (vmm.SET_VRING_KICK, struct.pack('=Q', VICTIM | 0x100)),
        (vmm.SET_VRING_ENABLE, state.pack(VICTIM, 0)),
        (vmm.SET_VRING_ENABLE, state.pack(VICTIM, 1)),
        (vmm.SET_OWNER, b''), (vmm.RESET_OWNER, b''),
        (vmm.SET_FEATURES, struct.pack('=Q', frontend.agreed[0])),
        (vmm.SET_PROTOCOL_FEATURES, struct.pack('=Q', frontend.agreed[1]))]
    read = guest.client.pack(fuse.READ, guest.file, struct.pack(
        '=QQIIQII', guest.handle, 0, 4096, 0, 0, 0, 0))
    for _ in range(20):
        for step in steps:
            guest.client.submit(read, 8192, queue=VICTIM)
            frontend.ask(*step)
            frontend.queues[VICTIM].kick()
            cases(1)
        assert all(rings.restart(guest, VICTIM))
        guest.client.reset()
        guest.assert_honest(queue=VICTIM)
    for fd in fds:
        os.close(fd)
    print(worker.finish())


@pytest.mark.hostile('number-messages', 'vmm-running')
def test_memory_while_rings_run(besiege, cases):
    """Regions come, go and are replaced under work in flight."""
    guest = besiege()
    worker = guest.work_on(OTHER)
    regions = guest.frontend.regions()
    table = struct.pack('=II', len(regions), 0) + b''.join(r.describe() for r in regions)
    for _ in range(100):
        index = guest.frontend.add_region(1 << 16)
        fds = [region.fd for region in regions]
        assert guest.frontend.ask(vmm.SET_MEM_TABLE, table, fds).u64 == 0
        with contextlib.suppress(OSError):  # the table did not have it
            guest.frontend.remove_region(index)
        cases(1)
    print(worker.finish())
    guest.assert_honest(queue=VICTIM)


def rights(fds):
    """Descriptors beside a message."""
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds))] if fds else []


@pytest.mark.hostile('number-messages', 'vmm-cut')
def test_cut(peers, cases):
    """The VMM leaves in the middle of a message, at every place that matters."""
    for name in ('SET_FEATURES', 'SET_VRING_KICK', 'ADD_MEM_REG', 'SET_MEM_TABLE'):
        for size in (1, 4, 11, 12, 13, -1):
            def send(peer, name=name, size=size):
                request = messages.REQUESTS[name]
                payload, fds = messages.honest(peer)[request]
                data = HEADER.pack(request, 1, len(payload)) + payload
                sock = socket.socket(fileno=os.dup(peer.frontend.socket))
                sock.sendmsg([data[:size]], rights(fds))
                sock.shutdown(socket.SHUT_RDWR)
                sock.close()
            peers.run(Case('vmm-cut', f'{name} after {size}', send))
            cases(1)


@pytest.mark.hostile('number-messages', 'vmm-bytes')
def test_one_byte_at_a_time(peers, cases):
    """What comes slowly is obeyed as what comes at once."""
    peer = peers.get()
    sock = socket.socket(fileno=os.dup(peer.frontend.socket))
    skip = ('SET_VRING_NUM', 'SET_VRING_BASE', 'RESET_DEVICE', 'REM_MEM_REG')
    for name, request in messages.REQUESTS.items():
        if name in skip:  # which could not be obeyed now
            continue
        payload, fds = messages.honest(peer)[request]
        data = HEADER.pack(request, vmm.FLAG_VERSION | vmm.FLAG_NEED_REPLY,
                           len(payload)) + payload
        sock.sendmsg([data[:1]], rights(fds))
        for at in range(1, len(data)):
            sock.send(data[at:at + 1])
        assert peer.frontend.receive().request == request
        cases(1)
    sock.close()
    peer.undo.close()
    peer.frontend.ask(vmm.REM_MEM_REG, bytes(8) + messages.region_of())
    peer.frontend.ask(vmm.SET_VRING_ERR, struct.pack('=Q', VICTIM | 0x100))
    peers.end()


@pytest.mark.hostile('vmm-bytes', 'vmm-fds')
def test_descriptors_in_the_middle(peers, cases):
    """They come with a message's first byte, or the connection ends."""
    for at in (1, 4, 11, 12, 15):
        def send(peer, at=at):
            data = HEADER.pack(vmm.SET_FEATURES, 1, 8) + bytes(8)
            sock = socket.socket(fileno=os.dup(peer.frontend.socket))
            sock.send(data[:at])
            with contextlib.suppress(BrokenPipeError):
                sock.sendmsg([data[at:]], rights([messages.memfd(peer)]))
            sock.close()
        peers.run(Case('vmm-fds', f'at {at}', send))
        cases(1)


@pytest.mark.hostile('vmm-no-eventfd')
@pytest.mark.parametrize('flags', [0, os.EFD_NONBLOCK])
def test_call_descriptor_that_blocks(besiege, flags, cases):
    """A counter that is full, made blocking again behind the daemon's back: whoever wrote
    there is the VMM's to free, and the end is not kept waiting.
    """
    guest = besiege('--thread-pool-size=3', calm=False)
    fd = os.eventfd(0, os.EFD_CLOEXEC | flags)
    guest.frontend.ask(vmm.SET_VRING_CALL, struct.pack('=Q', VICTIM), [fd])
    os.set_blocking(fd, flags == 0)
    os.write(fd, struct.pack('=Q', (1 << 64) - 2))
    os.set_blocking(fd, True)
    guest.client.submit(guest.client.pack(fuse.STATFS, 1), 200, queue=VICTIM)
    guest.frontend.queues[VICTIM].kick()
    guest.assert_honest(queue=OTHER)
    begin = time.monotonic()
    guest.daemon.signal(signal.SIGTERM)
    assert guest.daemon.wait() == 0
    assert time.monotonic() - begin < AT_ONCE
    os.close(fd)
    cases(1)


# ---- slow peers


def cpu_share(daemon, seconds):
    """How much of one processor it takes in that time."""
    before = cpu_ns(daemon)
    time.sleep(seconds)
    return (cpu_ns(daemon) - before) / 1e9 / seconds


def assert_ends_at_once(daemon):
    begin = time.monotonic()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert time.monotonic() - begin < AT_ONCE


@pytest.mark.hostile('number-loris')
def test_silent_peer(plain, cases):
    """It may say nothing as long as it likes: that costs nothing."""
    with plain.connect() as sock:
        assert cpu_share(plain, 0.5) <= 0.01
        plain.signal(signal.SIGUSR1)
        with plain.connect() as other:
            assert other.recv(1) == b''
        assert_idle(plain)
        assert_ends_at_once(plain)
        assert sock.recv(1) == b''
    cases(1)


@pytest.mark.hostile('number-loris')
def test_slow_peer(start, share, scratch, extra_args, cases):
    """Who sends a byte a second is given up after a while, in the header or behind it; a
    signal ends the daemon at any time.
    """
    daemons = []
    for number in range(3):
        folder = os.path.join(scratch, str(number))
        os.mkdir(folder)
        daemons.append(start(launch.plain, share, folder, extra_args))
    message = HEADER.pack(vmm.SET_FEATURES, 1, 8) + bytes(8)
    socks = []
    for daemon, first in zip(daemons, (1, 12, 1)):
        daemon.wait_ready()
        socks.append(daemon.connect())
        socks[-1].send(message[:first])
    begin = time.monotonic()
    before = [cpu_ns(daemon) for daemon in daemons]
    for second in range(4):
        time.sleep(1)
        for sock in socks:
            sock.send(message[second + 1:second + 2] if second < 3 else b'\0')
    for daemon, cpu in zip(daemons, before):
        assert cpu_ns(daemon) - cpu < 0.01 * 4e9
    assert_ends_at_once(daemons[2])
    for daemon in daemons[:2]:
        assert daemon.wait() == 0
        assert 'half sent' in daemon.said()
    assert time.monotonic() - begin > AT_ONCE
    for sock in socks:
        sock.close()
    cases(3)


@pytest.mark.hostile('number-loris', 'peer-second-client', 'bounded-log')
def test_a_thousand_connections(besiege, cases):
    """All but the first are turned away at once; it is served; the log stays short."""
    guest = besiege('--log-level=warn')
    before = resources(guest.daemon)
    worker = guest.work_on(OTHER)
    begin = time.monotonic()
    for _ in range(1000):
        with guest.daemon.connect() as sock:
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(1) == b''
    seconds = time.monotonic() - begin
    waiting = [guest.daemon.connect() for _ in range(100)]  # that leave without a word
    for sock in waiting:
        sock.close()
    words = worker.finish()
    eventually(lambda: resources(guest.daemon) == before)
    assert_idle(guest.daemon)
    lines = len(guest.daemon.reader.lines)
    print(f'1100 connections in {seconds:.1f} s, {lines} lines; {words}')
    assert lines <= 5 * (seconds + 3) + 3
    cases(1100)
