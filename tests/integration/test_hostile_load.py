# SPDX-License-Identifier: Apache-2.0
"""A hostile guest for longer: any number of malformed requests, bytes that change while
they are read, errors worth a line without end. Memory, descriptors and log stay as small
as they were, and the daemon is idle afterwards.
"""

import os
import random
import struct
import subprocess
import time

import pytest

import frontend as vmm
import fuse_client as fuse
import hostile_requests as requests
import hostile_rings as rings
import launch
import native
from hostile import assert_idle, assert_sound, forgotten
from hostile_rings import Ring
from process import Snapshot, eventually

OPTIONS = ('--xattr', '--log-level=warn')
MANY = [pytest.param(50_000, id='quick'),
        pytest.param(1_000_000, id='soak', marks=[pytest.mark.soak,
                                                  pytest.mark.timeout(3600)])]
WARM_UP = 5000
SLACK_KIB = 1024
LINES_A_SECOND, BYTES_A_MINUTE = 10, 1 << 20


class Log:
    """What a daemon has said so far."""

    def __init__(self, daemon):
        self.daemon, self.begin = daemon, time.monotonic()
        self.before = self.size()

    def size(self):
        return len(self.daemon.reader.lines), sum(
            len(line) for line in self.daemon.reader.lines)

    def check(self):
        """Not much; in words."""
        seconds = time.monotonic() - self.begin
        lines, size = (now - old for now, old in zip(self.size(), self.before))
        assert lines <= LINES_A_SECOND * (seconds + 1)
        assert size <= BYTES_A_MINUTE * (seconds / 60 + 1)
        return f'{lines} lines, {size} bytes of log'


def held(daemon):
    """(KiB of memory, descriptors, threads), in words."""
    return (f'{daemon.proc_field("VmRSS")}, {len(daemon.descriptors())} descriptors, '
            f'{len(daemon.threads())} threads')


def settle(guest):
    """The session anew, so that what is left is what must not be there."""
    forgotten(guest)
    return Snapshot(guest.daemon)


@pytest.mark.hostile('number-million', 'number-log', 'bounded-log', 'bounded-memory',
                     'idle')
@pytest.mark.parametrize('n', MANY)
def test_malformed_requests_without_end(besiege, cases, n):
    """Random kinds of malformed requests."""
    guest = besiege(*OPTIONS)
    kinds = random.Random(n)

    def send(count):
        for request, room in requests.spoiled(guest, kinds, count):
            assert_sound(guest.client.raw(request, room=room, queue=1), request)

    send(WARM_UP)
    before, words = settle(guest), held(guest.daemon)
    log = Log(guest.daemon)
    begin = time.monotonic()
    for _ in range(0, n, 50_000):
        guest.open_again()
        send(50_000)
    seconds = time.monotonic() - begin
    said = log.check()
    after = settle(guest)
    print(f'{n} requests in {seconds:.1f} s; before: {words}; after: '
          f'{held(guest.daemon)}; {said}')
    slack = 1 << 30 if os.environ.get('VIRTIOFSD_SANITIZER') else SLACK_KIB
    assert before.difference(after, slack) == ''
    assert_idle(guest.daemon)
    guest.open_again()
    cases(n + WARM_UP)


@pytest.mark.hostile('number-log', 'bounded-log')
@pytest.mark.parametrize('n', MANY)
def test_errors_worth_a_line(besiege, cases, n):
    """Each of the requests would be worth one; few are written, and the rest counted."""
    guest = besiege(*OPTIONS)
    client = guest.client
    bad = [client.pack(opcode, node, body)[:size] for opcode, node, body in
           requests.sound(guest) for size in (20, 39, 40 + len(body) // 2) if body]
    log = Log(guest.daemon)
    for i in range(0, n, 10):
        for k in range(10):
            client.submit(bad[(i + k) % len(bad)], 16, queue=1)
        for _ in range(10):
            client.reap(queue=1)
    print(f'{n} errors: {log.check()}')
    guest.open_again()
    cases(n)


def plain_with_a_deaf_reader(binary, share, folder, extra=()):
    """Nobody reads its stderr, a pipe, which is full soon."""
    path = os.path.join(folder, 'socket')
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [binary, f'--socket-path={path}', f'--shared-dir={share}', *extra],
        stdin=subprocess.DEVNULL, stderr=writer)
    process.returncode = 0  # waited for by Process
    os.close(writer)
    daemon = launch.Daemon(process.pid, share, path)
    daemon.deaf = reader
    daemon.wait_ready = lambda: eventually(
        lambda: launch.READY.encode() in os.read(reader, 4096), interval=0)
    return daemon


@pytest.mark.hostile('bounded-log')
def test_nobody_reads_the_log(besiege, cases):
    """A log that is full keeps nobody waiting."""
    guest = besiege('--log-level=debug', how=plain_with_a_deaf_reader)
    worker = guest.work_on(2)
    bad = guest.client.pack(fuse.READ, guest.file, b'short')
    for _ in range(3000):
        guest.client.raw(bad, room=16, queue=1)
    worker.finish()
    assert_idle(guest.daemon)
    os.close(guest.daemon.deaf)  # whoever reads it leaves: that harms nobody either
    guest.assert_honest(queue=1)
    cases(3000)


# ---- bytes that change


class Scribbler:
    """A thread that changes guest memory; see scribbler.h."""

    def __init__(self, host, one, other, random_from=None):
        assert len(one) == len(other)
        config = native.ScribblerConfig(
            at=host, size=len(one), one=bytes(one), other=bytes(other), seed=4711,
            random_from=len(one) if random_from is None else random_from)
        self.handle = native.library().scribbler_start(native.C.byref(config))
        assert self.handle

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.changes = native.library().scribbler_stop(self.handle)


# Whose references others use: a request that hits these by chance is no fault.
GIVES_BACK = (fuse.FORGET, fuse.BATCH_FORGET, fuse.RELEASE, fuse.RELEASEDIR)
SECONDS = [pytest.param(3, id='quick'),
           pytest.param(60, id='soak', marks=[pytest.mark.soak,
                                              pytest.mark.timeout(900)])]
AT_ONCE = 8


def changing_requests(guest):
    """(one, other) of equal length: harmless, and what must never be believed."""
    for opcode, node, body in requests.sound(guest):
        if opcode in GIVES_BACK:
            continue
        one = guest.client.pack(opcode, node, body)
        other = bytearray(one)
        for at in range(40, len(one) - 8, 8):
            other[at:at + 4] = b'\xff' * 4
        struct.pack_into('=I', other, 0, len(one) * 3)
        yield one, bytes(other)
    escape = b'../canary\0', b'canary/..\0', b'/canaries\0', b'\0\0\0\0\0\0\0\0\0\0'
    for name in escape:
        for opcode, node, body in requests.with_name(guest, b'innocent0\0'):
            one = guest.client.pack(opcode, node, body)
            yield one, guest.client.pack(opcode, node, body.replace(b'innocent0\0', name))


@pytest.mark.hostile('number-fetch', 'ring-changed', 'number-names')
@pytest.mark.parametrize('seconds', SECONDS)
def test_requests_change(besiege, scratch, seconds, cases):
    """Bytes of requests change while they are decoded: each decision is about what was
    copied once, and no name that was judged becomes another.
    """
    guest = besiege(*OPTIONS)
    worker = guest.work_on(2, modest=True)
    ring = Ring(guest, 1)
    outside = sorted(os.listdir(scratch))
    n = changes = 0
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        for one, other in changing_requests(guest):
            ring.bytes = one
            chain = [rings.Descriptor(ring.request.gpa, len(one), vmm.DESC_NEXT, 1),
                     rings.Descriptor(ring.reply.gpa, 4096, vmm.DESC_WRITE)]
            head = ring.write(rings.Case('none', chain))
            with Scribbler(ring.request.host, one, other, random_from=8) as scribbler:
                for _ in range(8):
                    for _ in range(AT_ONCE):
                        ring.queue.post(head)
                    for _ in range(AT_ONCE):
                        assert ring.queue.wait() is not None
            n += 8 * AT_ONCE
            changes += scribbler.changes
        assert sorted(os.listdir(scratch)) == outside
        guest.open_again()
    ring.queue.release(ring.heads)
    print(f'{n} requests under {changes} changes; {worker.finish()}')
    cases(n)


@pytest.mark.hostile('number-fetch', 'ring-changed')
@pytest.mark.parametrize('seconds', SECONDS)
@pytest.mark.parametrize('what', ['chain', 'table', 'avail'])
@pytest.mark.split
def test_rings_change(besiege, what, seconds, cases):
    """Descriptors, indirect tables and heads change while they are walked."""
    guest = besiege(*OPTIONS)
    worker = guest.work_on(2, modest=True)
    layout = guest.frontend.queues[1].layout
    ring = Ring(guest, 1)
    case = rings.Case('none', ring.honest(), is_table=what == 'table')
    head = ring.write(case)
    at = {'chain': layout.desc + 16 * min(ring.heads), 'table': ring.table.host,
          'avail': layout.avail + 4}[what]
    size = {'chain': 16 * 4, 'table': 16 * 4, 'avail': 2 * layout.size}[what]
    one = native.C.string_at(at, size)
    if what == 'avail':
        one = struct.pack('=H', head) * layout.size
        other = struct.pack('=H', ring.heads[1]) * layout.size
    else:  # elsewhere, longer, with other flags, linked to itself
        other = b''.join(vmm.pack_desc(gpa, length, flags, follow) for
                         gpa, length, flags, follow in (
            ((1 << 64) - 16, 64, 1, 0), (ring.reply.gpa, 1 << 31, 3, ring.heads[0]),
            (0, 0, 7, 0xFFFF), (ring.request.gpa, 4096, 6, 2)))
    n, begin = 0, time.monotonic()
    with Scribbler(at, one, other) as scribbler:
        while time.monotonic() - begin < seconds / 3:
            for _ in range(200):
                ring.queue.post(head)
                done = finish_any(ring.queue)
                n += 1
                if not done:
                    assert all(rings.restart(guest, 1))
                    break
    print(f'{what}: {n} chains under {scribbler.changes} changes; {worker.finish()}')
    assert all(rings.restart(guest, 1))
    guest.client.reset()
    cases(n)


def finish_any(queue):
    """Wait for a chain to be retired, under whatever name; False if the ring stopped."""
    before = queue.used_mark()
    deadline = time.monotonic() + 0.2
    while True:
        try:
            if queue.wait(0.02) is not None or queue.used_mark() != before:
                return True
        except OSError:  # another head than was posted
            return False
        if time.monotonic() > deadline:
            return False
