# SPDX-License-Identifier: Apache-2.0
"""Locks that guest and host share, and requests that wait for them: nobody is held up
meanwhile, and every wait ends.
"""

import contextlib
import errno
import fcntl
import os
import signal
import struct
import subprocess
import sys
import time

import launch
import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), 'support'))

import fuse_client as fuse  # noqa: E402
from frontend import Frontend  # noqa: E402

BOTH = ('--posix-lock', '--flock')
MAX = (1 << 63) - 1
RD, WR, UN = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
HEADER = 16
FLOCK = 1  # FUSE_LK_FLOCK
POSIX_LOCKS, FLOCK_LOCKS = 1 << 1, 1 << 10
WAITS_MAX = 1024
SOON = 5  # seconds, on a busy machine; who is forgotten waits for ever

# Locks a file as it is told on stdin, one line each, and says what came of it.
HOST = r'''
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR)
for line in sys.stdin:
    how, kind, start, length = line.split()
    kind, start, length = int(kind), int(start), int(length)
    try:
        if how == 'flock':
            fcntl.flock(fd, kind)
            answer = 'done'
        elif how == 'get':
            asked = struct.pack('hhqqi', kind, 0, start, length, 0)
            answer = ' '.join(map(str, struct.unpack(
                'hhqqi', fcntl.fcntl(fd, fcntl.F_GETLK, asked))))
        else:
            wait = fcntl.F_SETLKW if how == 'wait' else fcntl.F_SETLK
            fcntl.fcntl(fd, wait, struct.pack('hhqqi', kind, 0, start, length, 0))
            answer = 'done'
    except OSError as error:
        answer = 'errno %d' % error.errno
    print(answer, flush=True)
'''


class Host:
    """A process of the host with the file open."""

    def __init__(self, path):
        self.process = subprocess.Popen(
            [sys.executable, '-S', '-c', HOST, path], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True)

    def begin(self, how, kind, start=0, length=0):
        self.process.stdin.write(f'{how} {int(kind)} {start} {length}\n')
        self.process.stdin.flush()

    def end(self):
        answer = self.process.stdout.readline().strip()
        if answer.startswith('errno'):
            return int(answer.split()[1])
        return 0 if answer == 'done' else tuple(map(int, answer.split()))

    def do(self, how, kind, start=0, length=0):
        self.begin(how, kind, start, length)
        return self.end()

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


class Guest:
    """A guest with one file open; its processes are owners 1, 2, ..."""

    def __init__(self, daemon, n_slots=64, **config):
        self.daemon = daemon
        self.frontend = Frontend(daemon.socket_path, **config).start()
        self.client = self.frontend.client(timeout_ms=10000, n_slots=n_slots,
                                           data_size=4096)
        self.init = self.client.init()
        self.node = self.client.lookup(fuse.ROOT, b'file').nodeid
        self.handle = self.open()
        self.unique = 1 << 40

    def open(self, flags=os.O_RDWR):
        return self.client.open(self.node, flags)[0]

    def body(self, owner, kind, start=0, end=MAX, flags=0, handle=None):
        return struct.pack('=QQQQIIII', self.handle if handle is None else handle, owner,
                           start, end, kind, 1000 + owner, flags, 0)

    def set(self, owner, kind, start=0, end=MAX, opcode=fuse.SETLK, **more):
        """The errno."""
        body = self.body(owner, kind, start, end, **more)
        return self.client.send(opcode, self.node, body).errno

    def get(self, owner, kind, start=0, end=MAX):
        """What is in the way: (start, end, type, pid)."""
        return struct.unpack('=QQII', self.client.call(
            fuse.GETLK, self.node, self.body(owner, kind, start, end)))

    def wait(self, owner, kind, *span, queue=1, **more):
        """Begin SETLKW; its unique number."""
        self.unique += 2
        self.client.submit(
            self.client.pack(fuse.SETLKW, self.node,
                             self.body(owner, kind, *span, **more),
                             unique=self.unique), HEADER, queue)
        return self.unique

    def reap(self, queue=1, timeout=10):
        """The next answer to a wait: (unique, errno)."""
        reply = self.client.reap(queue, timeout)
        assert reply.is_well_formed
        return reply.unique, reply.errno

    def is_waiting(self, queue=1, seconds=0.3):
        try:
            self.client.reap(queue, seconds)
        except TimeoutError:
            return True
        return False

    def interrupt(self, unique):
        self.client.send(fuse.INTERRUPT, 0, struct.pack('=Q', unique), queue=0)

    def flush(self, owner, handle=None):
        handle = self.handle if handle is None else handle
        body = struct.pack('=QIIQ', handle, 0, 0, owner)
        self.client.call(fuse.FLUSH, self.node, body)

    def assert_serves(self, queue=None):
        assert self.client.getattr(self.node, queue=queue).size == 0


@pytest.fixture
def path(share):
    name = os.path.join(share, 'file')
    with open(name, 'wb'):
        return name


@pytest.fixture
def boot(start, share, scratch, extra_args, path):
    """boot(option..., **frontend): a guest of a daemon of its own."""
    guests = []

    def make(*options, **config):
        folder = os.path.join(scratch, f'guest{len(guests)}')
        os.mkdir(folder)
        daemon = start(launch.plain, share, folder, [*options, *extra_args])
        daemon.wait_ready()
        guests.append(Guest(daemon, **config))
        return guests[-1]

    yield make
    for guest in guests:
        if guest.frontend.handle:
            guest.frontend.close()


@pytest.fixture
def guest(boot):
    """A guest whose daemon serves locks with one worker."""
    return boot(*BOTH, '--thread-pool-size=0')


@pytest.fixture
def host(path):
    """host(): a process of the host."""
    with contextlib.ExitStack() as stack:
        def make():
            process = Host(path)
            stack.callback(process.close)
            return process
        yield make


# ---- what is agreed ------------------------------------------------------------------

@pytest.mark.parametrize('options, flags', [
    ((), 0), (('--posix-lock',), POSIX_LOCKS), (('--flock',), FLOCK_LOCKS),
    (BOTH, POSIX_LOCKS | FLOCK_LOCKS),
    (('-o', 'posix_lock,flock'), POSIX_LOCKS | FLOCK_LOCKS),
    (('-o', 'posix_lock,flock', '-o', 'no_posix_lock,no_flock'), 0),
])
def test_agreed(boot, options, flags):
    guest = boot(*options)
    assert guest.init.flags & (POSIX_LOCKS | FLOCK_LOCKS) == flags
    wanted = 0 if flags & POSIX_LOCKS else errno.ENOSYS
    assert guest.set(1, WR) == wanted
    assert guest.client.send(fuse.GETLK, guest.node, guest.body(1, WR)).errno == wanted
    wanted = 0 if flags & FLOCK_LOCKS else errno.ENOSYS
    assert guest.set(1, WR, flags=FLOCK) == wanted


# ---- guest and host ------------------------------------------------------------------

def test_record_locks_meet(guest, host):
    one = host()
    assert guest.set(1, WR, 10, 19) == 0
    assert one.do('set', WR, 15, 1) == errno.EAGAIN
    assert one.do('set', WR, 20, 5) == 0
    assert one.do('get', WR, 0, 0) == (WR, 0, 10, 10, -1)
    assert guest.set(1, RD, 22, 30) == errno.EAGAIN
    assert guest.get(1, RD, 0, MAX) == (20, 24, WR, 0)
    assert guest.get(2, WR, 0, 15) == (10, 19, WR, 1001)
    assert guest.set(1, UN, 10, 14) == 0
    assert one.do('set', RD, 10, 5) == 0
    assert guest.get(1, WR, 10, 14)[2:] == (RD, 0)
    assert guest.get(2, RD, 10, 14)[2] == UN


def test_whole_files_meet(guest, host):
    one = host()
    other = guest.open()
    assert guest.set(1, RD, flags=FLOCK) == 0
    assert one.do('flock', fcntl.LOCK_SH | fcntl.LOCK_NB) == 0
    assert one.do('flock', fcntl.LOCK_EX | fcntl.LOCK_NB) == errno.EAGAIN
    assert guest.set(2, RD, flags=FLOCK, handle=other) == 0
    assert one.do('flock', fcntl.LOCK_UN) == 0
    assert guest.set(1, UN, flags=FLOCK) == 0
    assert guest.set(2, WR, flags=FLOCK, handle=other) == 0
    assert one.do('flock', fcntl.LOCK_SH | fcntl.LOCK_NB) == errno.EAGAIN
    # the two kinds do not know each other
    assert guest.set(1, WR) == 0
    guest.client.release(guest.node, other)
    assert one.do('flock', fcntl.LOCK_EX | fcntl.LOCK_NB) == 0


def test_closing_ends_locks(guest, host):
    one = host()
    assert guest.set(1, WR, 0, 9) == 0
    assert guest.set(2, WR, 10, 19) == 0
    guest.flush(1)
    assert one.do('set', WR, 0, 10) == 0
    assert one.do('set', WR, 10, 10) == errno.EAGAIN
    guest.client.release(guest.node, guest.handle)
    assert one.do('set', WR, 10, 10) == 0


@pytest.mark.parametrize('end', ['destroy', 'init', 'reset', 'disconnect', 'SIGTERM'])
def test_session_ends_locks(guest, host, end):
    one = host()
    assert guest.set(1, WR) == 0
    assert guest.set(1, WR, flags=FLOCK) == 0
    end_session(guest, end)
    launch.eventually(lambda: one.do('set', WR) == 0)
    launch.eventually(lambda: one.do('flock', fcntl.LOCK_EX | fcntl.LOCK_NB) == 0)


def end_session(guest, how):
    if how == 'destroy':
        guest.client.destroy()
        guest.client.init()
    elif how == 'init':
        guest.client.init()
    elif how == 'reset':
        guest.frontend.stop()
        guest.frontend.reset()
        guest.frontend.start_rings()
        guest.client.init()
    elif how == 'disconnect':
        guest.frontend.close()
        assert guest.daemon.wait() == 0
    else:
        guest.frontend.check_leaks()
        os.kill(guest.daemon.pid, signal.SIGTERM)
        assert guest.daemon.wait() == 0


def test_two_guests(boot, host):
    """Record locks of two daemons meet on the host; who waits gets it in the end."""
    first, second = boot(*BOTH), boot(*BOTH)
    assert first.set(1, WR) == 0
    assert second.set(1, WR) == errno.EAGAIN
    assert second.get(1, WR)[2:] == (WR, 0)
    unique = second.wait(1, WR)
    assert second.is_waiting()
    assert first.set(1, UN) == 0
    assert second.reap() == (unique, 0)


# ---- waiting -------------------------------------------------------------------------

def test_waiting_holds_no_worker(guest, host):
    one = host()
    assert one.do('set', WR) == 0
    first, second = guest.wait(1, WR, 0, 0), guest.wait(2, RD, 5, 5)
    for _ in range(20):
        guest.assert_serves()
    assert guest.is_waiting()
    assert one.do('set', UN) == 0
    assert {guest.reap(), guest.reap()} == {(first, 0), (second, 0)}
    assert one.do('set', RD, 5, 1) == 0
    assert one.do('set', RD, 0, 1) == errno.EAGAIN


def test_whole_file_waits(guest, host):
    one = host()
    assert one.do('flock', fcntl.LOCK_EX) == 0
    unique = guest.wait(1, WR, flags=FLOCK)
    assert guest.is_waiting()
    assert one.do('flock', fcntl.LOCK_UN) == 0
    assert guest.reap() == (unique, 0)
    assert one.do('flock', fcntl.LOCK_SH | fcntl.LOCK_NB) == errno.EAGAIN


def test_host_waits_for_guest(guest, host):
    one = host()
    assert guest.set(1, WR) == 0
    one.begin('wait', WR)
    time.sleep(0.1)
    assert guest.set(1, UN) == 0
    assert one.end() == 0
    assert guest.set(1, WR) == errno.EAGAIN


def test_own_unlock_wakes_at_once(guest):
    """Not by the interval, which has grown to 100 ms by now."""
    assert guest.set(1, WR) == 0
    took = []
    for owner in range(2, 12):
        guest.wait(owner, WR)
        assert guest.is_waiting(seconds=0.4)
        began = time.monotonic()
        guest.set(owner - 1, UN)
        assert guest.reap()[1] == 0
        took.append(time.monotonic() - began)
    assert sorted(took)[5] < 0.03, took


def test_first_come(guest):
    """Who came first gets it, but for whom it became free while they were being tried."""
    assert guest.set(1, WR) == 0
    owners = {guest.wait(owner, WR): owner for owner in range(2, 30)}
    holder, order = 1, []
    while owners:
        time.sleep(0.02)
        guest.set(holder, UN)
        unique, error = guest.reap()
        assert error == 0
        holder = owners.pop(unique)
        order.append(holder)
    assert sum(one > other for one, other in zip(order, order[1:])) <= 5, order


@pytest.mark.parametrize('how, error, flags', [
    ('interrupt', errno.EINTR, 0), ('interrupt', errno.EINTR, FLOCK),
    ('flush', errno.EBADF, 0),
    ('release', errno.EBADF, 0), ('release', errno.EBADF, FLOCK)])
def test_a_wait_ends(guest, host, how, error, flags):
    one = host()
    assert one.do('set', WR) == 0
    assert one.do('flock', fcntl.LOCK_EX) == 0
    unique = guest.wait(1, WR, flags=flags)
    assert guest.is_waiting()
    began = time.monotonic()
    if how == 'interrupt':
        guest.interrupt(unique)
    elif how == 'flush':
        guest.flush(1)
    else:
        guest.client.release(guest.node, guest.handle)
    assert guest.reap() == (unique, error)
    assert time.monotonic() - began < SOON
    assert one.do('set', UN) == 0
    time.sleep(0.2)
    assert one.do('set', WR) == 0, 'the guest has got a lock that nobody waits for'


def test_interrupt_comes_first(guest, host):
    one = host()
    assert one.do('set', WR) == 0
    guest.interrupt(guest.unique + 2)
    unique = guest.wait(1, WR)
    assert guest.reap() == (unique, errno.EINTR)
    unique = guest.wait(1, WR)
    assert guest.is_waiting()
    guest.interrupt(unique)
    assert guest.reap() == (unique, errno.EINTR)


@pytest.mark.parametrize('end', ['destroy', 'init', 'disconnect', 'SIGTERM'])
@pytest.mark.unwatched('its client never reads the answers')
def test_session_ends_waits(guest, host, end):
    one = host()
    assert one.do('set', WR) == 0
    waits = {guest.wait(owner, WR) for owner in range(1, 11)}
    assert guest.is_waiting()
    began = time.monotonic()
    if end == 'disconnect':
        guest.frontend.disconnect()
        assert guest.daemon.wait() == 0
    elif end == 'SIGTERM':
        os.kill(guest.daemon.pid, signal.SIGTERM)
        assert guest.daemon.wait() == 0
    else:
        body = struct.pack('=IIIII44x', 7, 38, 0, 1 << 30 | POSIX_LOCKS, 0)
        guest.client.submit(
            guest.client.pack(fuse.INIT, 0, body, unique=2) if end == 'init'
            else guest.client.pack(fuse.DESTROY, unique=2), 4096, 1)
        answers = {guest.reap() for _ in range(11)}
        assert answers == {(unique, errno.ENOLCK) for unique in waits} | {(2, 0)}
    assert time.monotonic() - began < SOON
    assert one.do('set', UN) == 0


@pytest.mark.parametrize('reset', [False, True])
def test_stopping_the_queues_ends_waits(guest, host, reset):
    """GET_VRING_BASE is not answered before they are, and is answered soon."""
    one = host()
    assert one.do('set', WR) == 0
    waits = {guest.wait(owner, WR) for owner in range(1, 11)}
    assert guest.is_waiting()
    began = time.monotonic()
    guest.frontend.stop()
    assert time.monotonic() - began < SOON
    answers = {guest.reap(timeout=0.1) for _ in waits}
    assert answers == {(unique, errno.ENOLCK) for unique in waits}
    if reset:
        guest.frontend.reset()
    guest.frontend.start_rings()
    if reset:
        guest.client.init()
        guest.node = guest.client.lookup(fuse.ROOT, b'file').nodeid
        guest.handle = guest.open()
    unique = guest.wait(1, WR)
    assert guest.is_waiting()
    assert one.do('set', UN) == 0
    assert guest.reap() == (unique, 0)


def test_memory_comes_and_goes(guest, host):
    one = host()
    assert one.do('set', WR) == 0
    unique = guest.wait(1, WR)
    assert guest.is_waiting()
    guest.frontend.remove_region(guest.frontend.add_region(1 << 21))
    assert guest.is_waiting()
    assert one.do('set', UN) == 0
    assert guest.reap() == (unique, 0)


# ---- who waits for each other --------------------------------------------------------

def test_deadlock(guest):
    """In a row of owners, each of whom has what the one before it wants."""
    n = 5
    for owner in range(n):
        assert guest.set(owner, WR, owner, owner) == 0
    waits = [guest.wait(owner, WR, owner + 1, owner + 1) for owner in range(n - 1)]
    assert guest.is_waiting()
    last = guest.wait(n - 1, WR, 0, 0)
    unique, error = guest.reap()
    assert (unique, error) == (last, errno.EDEADLK)
    assert guest.is_waiting()
    for owner in reversed(range(n - 1)):
        assert guest.set(owner + 1, UN) == 0
        assert guest.reap() == (waits[owner], 0)


def test_deadlock_over_the_host(boot):
    """Two guests that wait for each other: nobody sees it, and nothing else suffers."""
    guests = [boot(*BOTH, '--thread-pool-size=0') for _ in range(2)]
    for i, guest in enumerate(guests):
        assert guest.set(1, WR, i, i) == 0
    waits = [guest.wait(1, WR, 1 - i, 1 - i) for i, guest in enumerate(guests)]
    for guest in guests:
        assert guest.is_waiting()
        guest.assert_serves()
    guests[0].interrupt(waits[0])
    assert guests[0].reap() == (waits[0], errno.EINTR)
    assert guests[0].set(1, UN) == 0
    assert guests[1].reap() == (waits[1], 0)


# ---- limits --------------------------------------------------------------------------

@pytest.mark.sandboxed  # where a sanitizer does not multiply the time
def test_many_waiters(boot, host):
    """A thousand wait, on two queues; they cost no thread and, idle, little time."""
    guest = boot(*BOTH, '--num-request-queues=2', n_request_queues=2, queue_size=1024,
                 n_slots=1100)
    one = host()
    assert one.do('set', WR) == 0
    threads = len(os.listdir(f'/proc/{guest.daemon.pid}/task'))
    waits = {1: set(), 2: set()}
    for i in range(1000):
        queue = 1 + i % 2
        waits[queue].add(guest.wait(10 + i, RD, i, i, queue=queue))
    assert guest.is_waiting(1) and guest.is_waiting(2)
    guest.assert_serves()
    assert len(os.listdir(f'/proc/{guest.daemon.pid}/task')) == threads
    before = cpu_seconds(guest.daemon.pid)
    time.sleep(2)
    assert cpu_seconds(guest.daemon.pid) - before < 1
    assert one.do('set', UN) == 0
    for queue, uniques in waits.items():
        assert {guest.reap(queue) for _ in uniques} == {(u, 0) for u in uniques}


def cpu_seconds(pid):
    with open(f'/proc/{pid}/stat', encoding='ascii') as stat:
        fields = stat.read().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def test_beyond_the_queue(boot, host):
    """Half of a queue may wait, so that an unlock always gets through."""
    guest = boot(*BOTH, '--thread-pool-size=0', queue_size=64, n_slots=64)
    one = host()
    assert one.do('set', WR) == 0
    waits = {guest.wait(i, RD, i, i) for i in range(32)}
    assert guest.is_waiting()
    unique = guest.wait(100, RD)
    assert guest.reap() == (unique, errno.ENOLCK)
    guest.assert_serves()
    assert one.do('set', UN) == 0
    assert {guest.reap() for _ in waits} == {(u, 0) for u in waits}


def test_beyond_the_table(boot, host):
    guest = boot(*BOTH, '--thread-pool-size=0', '--num-request-queues=3',
                 n_request_queues=3, queue_size=1024, n_slots=1100)
    one = host()
    assert one.do('set', WR) == 0
    waits = {1: set(), 2: set(), 3: set()}
    for i in range(WAITS_MAX):
        queue = 1 + i % 3
        waits[queue].add(guest.wait(i, RD, i, i, queue=queue))
    for queue in waits:  # queues take turns: all are served before the next one comes
        guest.assert_serves(queue)
    assert guest.is_waiting(1, 1)
    unique = guest.wait(5000, RD)
    assert guest.reap() == (unique, errno.ENOLCK)
    assert one.do('set', UN) == 0
    for queue, uniques in waits.items():
        assert {guest.reap(queue) for _ in uniques} == {(u, 0) for u in uniques}


def test_descriptors_are_bounded(boot, host):
    """An owner takes a descriptor; when there are no more, that is ENOLCK, and all else
    goes on.
    """
    guest = boot(*BOTH, '--rlimit-nofile=400')
    errors = [guest.set(owner, RD) for owner in range(400)]
    n = errors.count(0)
    assert n > 50
    assert errors == [0] * n + [errno.ENOLCK] * (400 - n)
    guest.assert_serves()
    for owner in range(n):
        guest.flush(owner)
    assert guest.set(1000, WR) == 0
    assert host().do('set', WR) == errno.EAGAIN


# ---- the hostile guest ---------------------------------------------------------------

@pytest.mark.parametrize('kind, first, last', [
    (7, 0, 1), (WR, 2, 1), (WR, 0, MAX + 1), (WR, 1 << 63, (1 << 64) - 1),
    (0xFFFFFFFF, 0, MAX)])
def test_nonsense(guest, kind, first, last):
    for opcode in (fuse.GETLK, fuse.SETLK, fuse.SETLKW):
        body = guest.body(1, kind, first, last)
        assert guest.client.send(opcode, guest.node, body).errno == errno.EINVAL
    if kind not in (RD, WR, UN):
        assert guest.set(1, kind, flags=FLOCK) == errno.EINVAL
    assert guest.set(1, WR, handle=12345) == errno.EBADF
    guest.assert_serves()


def test_waiting_on_hiprio(guest):
    """FORGET and INTERRUPT come there, so nothing waits."""
    assert guest.set(1, WR) == 0
    body = guest.body(2, WR)
    reply = guest.client.send(fuse.SETLKW, guest.node, body, queue=0)
    assert reply.errno == errno.ENOLCK


def test_same_number_twice(guest, host):
    """Two requests of one unique: both end."""
    one = host()
    assert one.do('set', WR) == 0
    unique = guest.wait(1, WR)
    guest.unique -= 2
    assert guest.wait(2, WR) == unique
    assert guest.is_waiting()
    guest.interrupt(unique)
    assert [guest.reap(), guest.reap()] == [(unique, errno.EINTR)] * 2


# ---- through a kernel ----------------------------------------------------------------

def test_linux_locks(bridged, path, host):
    """The kernel's own FUSE client: locks of programs on the mount and on the share."""
    mount = bridged(*BOTH)
    there = Host(os.path.join(mount, 'file'))
    here = host()
    try:
        assert there.do('set', WR, 0, 10) == 0
        assert here.do('set', WR, 5, 1) == errno.EAGAIN
        assert here.do('set', WR, 10, 1) == 0
        assert there.do('get', WR, 10, 1)[:4] == (WR, 0, 10, 1)
        here.begin('wait', WR, 0, 1)
        assert there.do('set', UN) == 0
        assert here.end() == 0
        there.begin('wait', WR, 0, 1)
        time.sleep(0.2)
        assert here.do('set', UN) == 0
        assert there.end() == 0
        assert there.do('flock', fcntl.LOCK_EX) == 0
        assert here.do('flock', fcntl.LOCK_EX | fcntl.LOCK_NB) == errno.EAGAIN
    finally:
        there.close()
    launch.eventually(lambda: here.do('set', WR) == 0)
    launch.eventually(lambda: here.do('flock', fcntl.LOCK_EX | fcntl.LOCK_NB) == 0)
