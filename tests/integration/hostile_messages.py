# SPDX-License-Identifier: Apache-2.0
"""A hostile VMM: every vhost-user message as an honest one would send it, and what can be
wrong with it. Each wrong message either ends the connection, and with it the daemon, as
if the VMM had gone, or is answered, and then everything goes on.
"""

import contextlib
import ctypes
import dataclasses
import errno
import os
import select
import socket
import struct
import tempfile
import time

import frontend as vmm
import fuse_client as fuse
import hostile_rings as rings
import launch
from hostile import CLIENT, CONTENT, resources
from process import eventually

ENDS, STAYS, ANY = 'ends', 'stays', 'any'
VICTIM, OTHER = 1, 2  # queues: one to spoil, one for honest work
N_QUEUES = 3
MAX_PAYLOAD = 1032
LOG_SIZE = 1 << 20  # of a dirty log: 32 GiB of guest memory
OPTIONS = ('--num-request-queues=2', '--thread-pool-size=1', '--tag=hostile',
           '--log-level=warn')
LINES = 6  # that may be written in a second, besides those of the beginning
MASK = (1 << 64) - 1


@dataclasses.dataclass
class Case:
    row: str  # of hostile_rows.py
    name: str
    send: object  # called with the Peer
    fate: str = ENDS


class Peer:
    """A daemon, and the VMM that it serves."""

    def __init__(self, daemon):
        self.daemon, self.begin = daemon, time.monotonic()
        self.frontend = vmm.Frontend(daemon.socket_path, n_request_queues=N_QUEUES - 1,
                                     protocol_features=0x8000 | 0x2000 | 0x400 | 0x29
                                     | 0x200 | 2)
        self.undo = contextlib.ExitStack()
        self.frontend.start()
        self.client = self.frontend.client(**CLIENT)
        self.client.init()
        self.before = resources(daemon)

    def call(self, opcode, node, body):
        return self.client.call(opcode, node, body, queue=OTHER)

    def assert_honest(self):
        node = fuse.Entry(self.call(fuse.LOOKUP, fuse.ROOT, b'honest\0')).nodeid
        handle = self.call(fuse.OPEN, node, struct.pack('=II', os.O_RDONLY, 0))[:8]
        assert self.call(fuse.READ, node, handle + struct.pack(
            '=QIIQII', 0, 4096, 0, 0, 0, 0)) == CONTENT
        self.call(fuse.RELEASE, node, handle + bytes(16))
        self.client.forget(node)

    def fd(self, fd):
        """A descriptor that is closed when the peer is gone."""
        self.undo.callback(os.close, fd)
        return fd

    def send(self, request, payload=b'', fds=(), **more):
        with contextlib.suppress(OSError):  # it has hung up already
            self.frontend.send(request, payload, fds, **more)

    def fate(self):
        """What became of the connection."""
        try:
            self.frontend.send(vmm.GET_FEATURES)
            while self.frontend.receive(10).request != vmm.GET_FEATURES:
                pass
            return STAYS
        except OSError as error:
            assert error.errno in (errno.ECONNRESET, errno.EPIPE), error
            return ENDS

    def go_on(self):
        """The victim is set up again, all else is as it was."""
        self.frontend.send(vmm.GET_VRING_BASE, struct.pack('=II', VICTIM, 0))
        while self.frontend.receive(10).request != vmm.GET_VRING_BASE:
            pass
        self.frontend.queues[VICTIM].reset()
        assert all(rings.set_up(self, VICTIM))
        self.assert_honest()
        eventually(lambda: resources(self.daemon) == self.before)

    def close(self):
        self.undo.close()
        self.frontend.disconnect()
        self.frontend.close()


class Peers:
    """One daemon after another: whoever is left alive is used again."""

    def __init__(self, start, share, scratch, more):
        self.start, self.share, self.scratch = start, share, scratch
        self.options = [*OPTIONS, *more]
        self.peer, self.n_daemons = None, 0
        self.ready = []  # daemons that start meanwhile

    def spawn(self):
        folder = tempfile.mkdtemp(prefix='p', dir=self.scratch)
        return self.start(launch.plain, self.share, folder, self.options)

    def get(self):
        if self.peer is None:
            while len(self.ready) < 3:
                self.ready.append(self.spawn())
            daemon = self.ready.pop(0)
            daemon.wait_ready()
            self.peer = Peer(daemon)
            self.n_daemons += 1
        return self.peer

    def run(self, case):
        """Send it; what became of the connection."""
        peer = self.get()
        case.send(peer)
        fate = peer.fate()
        assert case.fate in (ANY, fate), f'{case.row}, {case.name}: {fate}'
        if fate == STAYS:
            peer.go_on()
        else:
            self.end()
        return fate

    def end(self):
        """It ends by itself, well, and has not much to say."""
        peer, self.peer = self.peer, None
        peer.close()
        assert peer.daemon.wait() == 0
        lines = peer.daemon.said().splitlines()
        assert len(lines) <= LINES * (2 + time.monotonic() - peer.begin), lines

    def close(self):
        if self.peer:
            self.peer.assert_honest()
            self.end()
        for daemon in self.ready:
            daemon.wait_ready()
            daemon.connect().close()
            assert daemon.wait() == 0


# ---- honest messages


def eventfd(peer):
    return peer.fd(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))


def memfd(peer, size=1 << 20):
    fd = peer.fd(os.memfd_create('memory', os.MFD_CLOEXEC))
    os.ftruncate(fd, size)
    return fd


def region_of(gpa=1 << 40, size=1 << 20, uva=1 << 44, offset=0):
    return struct.pack('=QQQQ', *(value & MASK for value in (gpa, size, uva, offset)))


def honest(peer):
    """{request: (payload, descriptors)}: each is well-formed, and most can be obeyed."""
    where = rings.addresses_of(peer, VICTIM)
    regions = peer.frontend.regions()
    state, index = struct.pack('=II', VICTIM, 1), struct.pack('=Q', VICTIM)
    one = socket.socketpair()
    peer.undo.callback(one[1].close)
    return {
        vmm.GET_FEATURES: (b'', ()), vmm.SET_OWNER: (b'', ()),
        vmm.SET_FEATURES: (struct.pack('=Q', peer.frontend.agreed[0]), ()),
        vmm.RESET_OWNER: (b'', ()),
        vmm.SET_MEM_TABLE: (struct.pack('=II', len(regions), 0) + b''.join(
            region.describe() for region in regions), [r.fd for r in regions]),
        vmm.SET_LOG_BASE: (struct.pack('=QQ', LOG_SIZE, 0), [memfd(peer)]),
        vmm.SET_LOG_FD: (b'', [eventfd(peer)]),
        vmm.SET_VRING_NUM: (struct.pack('=II', VICTIM, 128), ()),
        vmm.SET_VRING_ADDR: (struct.pack('=IIQQQQ', VICTIM, 0, where['desc'],
                                         where['used'], where['avail'], 0), ()),
        vmm.SET_VRING_BASE: (struct.pack('=II', VICTIM, 0), ()),
        vmm.GET_VRING_BASE: (struct.pack('=II', VICTIM, 0), ()),
        vmm.SET_VRING_KICK: (index, [eventfd(peer)]),
        vmm.SET_VRING_CALL: (index, [eventfd(peer)]),
        vmm.SET_VRING_ERR: (index, [eventfd(peer)]),
        vmm.GET_PROTOCOL_FEATURES: (b'', ()),
        vmm.SET_PROTOCOL_FEATURES: (struct.pack('=Q', peer.frontend.agreed[1]), ()),
        vmm.GET_QUEUE_NUM: (b'', ()), vmm.SET_VRING_ENABLE: (state, ()),
        vmm.SET_BACKEND_REQ_FD: (b'', [peer.fd(one[0].detach())]),
        vmm.GET_CONFIG: (struct.pack('=III', 0, 40, 0) + bytes(40), ()),
        vmm.RESET_DEVICE: (b'', ()), vmm.GET_MAX_MEM_SLOTS: (b'', ()),
        vmm.ADD_MEM_REG: (bytes(8) + region_of(), [memfd(peer)]),
        vmm.REM_MEM_REG: (bytes(8) + region_of(), ()),
    }


REQUESTS = {name: value for name, value in vars(vmm).items() if value in (
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 21, 24, 34, 36, 37, 38)
    and name.isupper() and name.split('_')[0] in ('GET', 'SET', 'RESET', 'ADD', 'REM')}


def sent(request, **more):
    """Sends the honest message, with something else in it."""
    def send(peer):
        payload, fds = honest(peer)[request]
        fields = {'payload': payload, 'fds': fds}
        for name, value in more.items():
            fields[name] = value(fields[name], peer) if callable(value) else value
        peer.send(request, **fields)
    return send


# ---- what can be wrong with them


def sizes():
    for name, request in REQUESTS.items():
        for change in (-1, 1, 8):
            def payload(honest_one, _, change=change):
                return (honest_one[:change] if change < 0 and honest_one else
                        honest_one + bytes(abs(change)))
            yield Case('vmm-sizes', f'{name} {change:+}', sent(request, payload=payload))
        for size in (MAX_PAYLOAD, MAX_PAYLOAD + 1, 0xFFFFFFFF):
            yield Case('vmm-sizes', f'{name} says {size}',
                       sent(request, payload=bytes(min(size, 4096)), size=size))


def is_sound(request, n, n_honest):
    return n == n_honest or (request == vmm.REM_MEM_REG and n <= 1)


def descriptors():
    """Every count, of descriptors that could be right."""
    for name, request in REQUESTS.items():
        for n in (*range(9), 9, 63):
            def fds(honest_ones, peer, n=n):
                return (*honest_ones, *[memfd(peer, 4096) for _ in range(n)])[:n]

            def send(peer, request=request, n=n, fds=fds):
                if not is_sound(request, n, len(honest(peer)[request][1])):
                    sent(request, fds=fds)(peer)
                else:
                    peer.send(0)  # as wrong as the others
            yield Case('vmm-fds', f'{name} with {n}', send)


def kinds(peer):
    """Descriptors that are no eventfd, no memory and no socket: {name: descriptor}."""
    pipe, pair = os.pipe(), socket.socketpair()
    for one in (*pipe, *(end.detach() for end in pair)):
        peer.fd(one)
    end = os.dup(pair[0].fileno()) if pair[0].fileno() >= 0 else pipe[0]
    found = {'pipe for reading': pipe[0], 'pipe for writing': pipe[1]}
    if end != pipe[0]:
        found['socket'] = peer.fd(end)
    for path, flags in (('/', os.O_RDONLY), ('/etc/passwd', os.O_RDONLY),
                        ('/etc/passwd', os.O_PATH), ('/dev/null', os.O_RDWR),
                        ('/dev/zero', os.O_RDWR), ('/proc/self/mem', os.O_RDWR),
                        ('/proc/self/ns/net', os.O_RDONLY)):
        found[f'{path} {flags:x}'] = peer.fd(os.open(path, flags | os.O_CLOEXEC))
    found['empty memfd'] = memfd(peer, 0)
    found['short memfd'] = memfd(peer, 4096)
    return found


def anonymous(peer):
    """Descriptors that are as nameless as an eventfd, and something else."""
    libc = ctypes.CDLL(None, use_errno=True)
    epoll = select.epoll()
    inner = select.epoll()
    epoll.register(inner.fileno(), select.EPOLLIN)
    timer = libc.timerfd_create(1, os.O_NONBLOCK)
    each_nanosecond = struct.pack('=qqqq', 0, 1, 0, 1)
    assert libc.timerfd_settime(timer, 0, each_nanosecond, None) == 0
    inotify = libc.inotify_init1(os.O_NONBLOCK)
    libc.inotify_add_watch(inotify, b'/', 0xFFF)
    signals = libc.signalfd(-1, bytes(128), os.O_NONBLOCK)
    for one in (epoll, inner):
        peer.undo.callback(one.close)
    return {'epoll': epoll.fileno(), 'timer': peer.fd(timer),
            'inotify': peer.fd(inotify), 'signals': peer.fd(signals),
            'process': peer.fd(os.pidfd_open(os.getpid()))}


KINDS = ('pipe for reading', 'pipe for writing', '/ 0', '/etc/passwd 0',
         '/etc/passwd 200000', '/dev/null 2', '/dev/zero 2', '/proc/self/mem 2',
         '/proc/self/ns/net 0', 'empty memfd', 'short memfd')


def kinds_of_descriptors():
    for kind in KINDS:
        for request in ('SET_VRING_KICK', 'SET_VRING_CALL', 'SET_VRING_ERR',
                        'SET_BACKEND_REQ_FD', 'ADD_MEM_REG', 'SET_LOG_BASE',
                        'SET_LOG_FD'):
            def fds(_, peer, kind=kind):
                return [kinds(peer)[kind]]
            row = ('vmm-no-eventfd' if 'VRING' in request or request == 'SET_LOG_FD' else
                   'vmm-log' if request == 'SET_LOG_BASE' else 'vmm-fds')
            yield Case(row, f'{request}: {kind}', sent(REQUESTS[request], fds=fds))


def indices():
    for name in ('SET_VRING_NUM', 'SET_VRING_ADDR', 'SET_VRING_BASE', 'GET_VRING_BASE',
                 'SET_VRING_ENABLE', 'SET_VRING_KICK', 'SET_VRING_CALL', 'SET_VRING_ERR'):
        is_fd = name in ('SET_VRING_KICK', 'SET_VRING_CALL', 'SET_VRING_ERR')
        for index in (N_QUEUES, N_QUEUES + 1, 255, 1 << 16, 1 << 31, 0xFFFFFFFF):
            def payload(honest_one, _, index=index, is_fd=is_fd):
                if is_fd:
                    return struct.pack('=Q', index)
                return struct.pack('=I', index) + honest_one[4:]
            yield Case('vmm-index', f'{name} {index}', sent(REQUESTS[name],
                                                            payload=payload))
        if is_fd:
            for value in (0x200 | VICTIM, 1 << 63 | VICTIM, 0x100 | VICTIM, MASK):
                yield Case('vmm-index', f'{name} {value:x}', sent(
                    REQUESTS[name], payload=struct.pack('=Q', value)))


def unknown():
    for request in (0, 19, 20, 22, 23, *range(26, 34), 35, *range(39, 46), 100,
                    1 << 31, 0xFFFFFFFF):
        yield Case('vmm-order', f'request {request}',
                   lambda peer, request=request: peer.send(request, bytes(8)))
    for request in (31, 32):  # GET_INFLIGHT_FD and SET_INFLIGHT_FD, which are not offered
        yield Case('vmm-order', f'request {request} as it should be',
                   lambda peer, request=request: peer.send(
                       request, struct.pack('=QQHH4x', 0, 0, N_QUEUES, 128),
                       [memfd(peer)] * (request - 31)))
    for flags in (0, 2, 3, 5, 4, 0xD, 0xFFFFFFFF):
        yield Case('vmm-order', f'flags {flags:x}',
                   lambda peer, flags=flags: peer.send(vmm.SET_OWNER, flags=flags))
    for name in ('SET_FEATURES', 'SET_PROTOCOL_FEATURES'):
        for bit in (2, 9, 12, 20, 27, 33, 35, 40, 63):
            if name == 'SET_PROTOCOL_FEATURES' and bit == 9:
                continue  # offered, with a tag
            yield Case('vmm-order', f'{name} bit {bit}', sent(
                REQUESTS[name], payload=struct.pack('=Q', 1 << bit)))


def logs():
    """Dirty logs that cannot be: the VMM would go on without marks, so it is told."""
    for size, offset in ((0, 0), (LOG_SIZE + 1, 0), (LOG_SIZE, 1), (1, LOG_SIZE),
                         (1 << 40, 0), (1 << 63, 0), (1 << 63, 1 << 63), (-1, 0), (-1, 1),
                         (LOG_SIZE, -1), (LOG_SIZE, -LOG_SIZE), (0, LOG_SIZE)):
        yield Case('vmm-log', f'{size} bytes at {offset}', sent(
            vmm.SET_LOG_BASE, payload=struct.pack('=QQ', size & MASK, offset & MASK)))


# ---- regions


def add(peer, size_of_file=1 << 20, fd=None, **region):
    """ADD_MEM_REG; whether it was obeyed."""
    fd = memfd(peer, size_of_file) if fd is None else fd
    payload = bytes(8) + region_of(**region)
    answer = peer.frontend.ask(vmm.ADD_MEM_REG, payload, [fd]).u64
    if answer == 0:
        assert peer.frontend.ask(vmm.REM_MEM_REG, payload).u64 == 0
    return answer == 0


def regions_of(peer):
    """(row, what differs from a sound region) of regions that must be refused."""
    known = peer.frontend.regions()
    for region in known:
        for shift in (0, region.size - 1, -0xFFFFF, 4096):
            yield 'vmm-overlapping', {'gpa': region.gpa + shift}
            yield 'vmm-overlapping', {'uva': region.uva + shift}
        yield 'vmm-overlapping', {'gpa': region.gpa, 'uva': region.uva,
                                  'size': region.size}
    for field in ('gpa', 'uva', 'offset'):
        for value in (-1, -4096, -(1 << 20) + 1, -(1 << 20), 1 << 63):
            if field == 'offset' or value != 1 << 63:
                yield 'vmm-wrapping', {field: value}
    for size in (0, 1 << 63, (1 << 63) - 4096, -1, -4096, 1 << 47, 1 << 46):
        yield 'vmm-wrapping', {'size': size}
    for size_of_file in (0, 1, 4095, 4096, (1 << 20) - 1):
        yield 'vmm-shorter', {'size_of_file': size_of_file}
    for offset in (1, 4096, 1 << 20, 1 << 40, (1 << 62)):
        yield 'vmm-shorter', {'offset': offset}


def unaligned():
    """What differs: no page begins there, which is no fault."""
    for field in ('gpa', 'uva', 'offset', 'size'):
        for value in (1, 3, 2047, 4095, 4097):
            region = {'size': 4096, field: value + (1 << 41 if field in 'gpa uva' else 0)}
            yield region
