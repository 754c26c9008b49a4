# SPDX-License-Identifier: Apache-2.0
"""How a daemon ends and begins again: VMMs that leave, reset and reboot, signals, parents
that die.
"""

import errno
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time

import pytest

import fuse_client as fuse
import launch
from frontend import GET_FEATURES, SET_VRING_KICK, SET_VRING_NUM, Frontend
from process import Observed, is_readable
from strace import Strace

N_FILES = 200
IS_SANITIZED = bool(os.environ.get('VIRTIOFSD_SANITIZER'))
# Seconds in which a daemon follows its VMM, or a signal. A sanitizer looks for leaks.
LEFT = 10 if IS_SANITIZED else 0.2
END = 10 if IS_SANITIZED else 1.0


def make_files(share, n=N_FILES):
    for number in range(n):
        with open(os.path.join(share, f'file{number}'), 'wb') as file:
            file.write(b'x' * 4096)


def open_all(client, n=N_FILES):
    """Each of the files, as (node, handle)."""
    opened = []
    for number in range(n):
        node = client.lookup(fuse.ROOT, b'file%d' % number).nodeid
        opened.append((node, client.open(node, os.O_RDWR)[0]))
    return opened


def read_request(client, node, handle, size=4096, offset=0):
    body = struct.pack('=QQIIQII', handle, offset, size, 0, 0, 0, 0)
    return client.pack(fuse.READ, node, body)


def gone_after(daemon, begin):
    assert daemon.wait(10) == 0
    return time.monotonic() - begin


# ---- the VMM leaves -------------------------------------------------------------------

@pytest.mark.unwatched('the VMM leaves with all it has')
@pytest.mark.parametrize('how', ['close', 'reset', 'in a message', 'with descriptors'])
def test_vmm_leaves(serve, share, scratch, how):
    """With open files and requests in flight."""
    make_files(share)
    guest = serve()
    opened = open_all(guest.client)
    for node, handle in opened[:12]:
        guest.client.submit(read_request(guest.client, node, handle), 16 + 4096)
    daemon, frontend = guest.daemon, guest.frontend
    if how == 'in a message':
        frontend.send_bytes(struct.pack('=III', SET_VRING_NUM, 1, 8) + b'\1\0')
    elif how == 'with descriptors':
        with open(os.devnull, 'rb') as null:
            frontend.send(SET_VRING_KICK, bytes(8), fds=[null.fileno()], size=100)
    elif how == 'reset':
        # Unread answers make the kernel say ECONNRESET to the daemon.
        for _ in range(3):
            frontend.send(GET_FEATURES)
    begin = time.monotonic()
    frontend.disconnect()
    seconds = gone_after(daemon, begin)
    print(f'{how}: gone after {seconds * 1e3:.0f} ms')
    assert seconds < LEFT
    assert sorted(os.listdir(scratch)) == ['share']


# ---- resets and reboots ---------------------------------------------------------------

@pytest.mark.parametrize('n', [200, pytest.param(1000, marks=pytest.mark.soak)])
def test_resets(serve, share, n):
    """Reboots of a guest that holds files."""
    make_files(share, 20)
    guest = serve()
    daemon, frontend, client = guest.daemon, guest.frontend, guest.client
    held = []

    def reboot(number):
        open_all(client, 20)
        client.opendir(fuse.ROOT)
        frontend.stop()
        frontend.reset()
        frontend.start_rings()
        client.init()
        if number in (20, n - 1):
            kib = int(daemon.proc_field('RssAnon').split()[0])
            held.append((len(daemon.descriptors()), len(daemon.threads()), kib))

    for number in range(n):
        reboot(number)
    (fds, threads, kib), (later_fds, later_threads, later_kib) = held
    print(f'{n} resets: {fds} descriptors became {later_fds}, {kib} KiB {later_kib}')
    assert (later_fds, later_threads) == (fds, threads)
    assert later_kib - kib < 1024 or IS_SANITIZED


# ---- signals --------------------------------------------------------------------------

@pytest.mark.unwatched('it ends with requests in flight')
@pytest.mark.sandboxed
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_end_with_64_in_flight(start, share, scratch, number):
    """Each takes 50 ms, as on a slow disk; two at a time are run."""
    make_files(share, 1)
    daemon = start(launch.kata_rs, share, scratch)
    daemon.wait_ready()
    frontend = Frontend(daemon.socket_path)
    client = frontend.start().client(n_slots=66, data_size=65536)
    client.init()
    node, handle = open_all(client, 1)[0]
    strace = Strace(daemon, scratch, '-e', 'trace=preadv2',
                    '-e', 'inject=preadv2:delay_enter=50000')
    for _ in range(64):
        client.submit(read_request(client, node, handle), 16 + 4096)
    client.reap()
    begin = time.monotonic()
    daemon.signal(number)
    seconds = gone_after(daemon, begin)
    strace.stop()
    frontend.disconnect()
    print(f'{number.name}: gone after {seconds * 1e3:.0f} ms')
    assert seconds < END
    assert sorted(os.listdir(scratch)) == ['share', 'trace']


def test_signals_that_are_ignored(serve, share):
    """SIGPIPE changes nothing, and a file that grows too long is EFBIG."""
    make_files(share, 1)
    guest = serve()
    node, handle = open_all(guest.client, 1)[0]
    guest.daemon.signal(signal.SIGPIPE)
    resource.prlimit(guest.daemon.pid, resource.RLIMIT_FSIZE, (8192, 8192))
    assert guest.client.write(node, handle, b'x' * 4096, 4096) == 4096
    for act in (lambda: guest.client.write(node, handle, b'x', 8192),
                lambda: guest.client.fallocate(node, handle, 0, 0, 10000),
                lambda: guest.client.setattr(node, 8, size=10000)):
        with pytest.raises(fuse.FuseError) as caught:
            act()
        assert caught.value.errno == errno.EFBIG
    guest.daemon.signal(signal.SIGPIPE)
    guest.daemon.signal(signal.SIGXFSZ)
    assert guest.client.getattr(node).size == 8192


# ---- parents --------------------------------------------------------------------------

# Starts a daemon as Kata's shim does, tells its id, and waits to be killed.
SHIM = '''
import socket, subprocess, sys, time
binary, share, path, *options = sys.argv[1:]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
listener.set_inheritable(True)
daemon = subprocess.Popen([binary, f'--fd={listener.fileno()}', f'--shared-dir={share}',
                           *options], pass_fds=[listener.fileno()],
                          stderr=subprocess.DEVNULL)
print(daemon.pid, flush=True)
time.sleep(600)
'''


@pytest.mark.unwatched('not started by this process')
def test_parent_dies(binary, share, scratch, extra_args):
    """Its end is nothing to the daemon; that of the VMM is the end."""
    path = os.path.join(scratch, 'socket')
    with subprocess.Popen([sys.executable, '-c', SHIM, binary, share, path, *extra_args],
                          stdout=subprocess.PIPE, encoding='ascii') as shim:
        daemon = Observed(int(shim.stdout.readline()))
        pidfd = os.pidfd_open(daemon.pid)
        frontend = Frontend(path)
        client = frontend.start().client()
        client.init()
        shim.kill()
        shim.wait()
    assert client.statfs()
    begin = time.monotonic()
    frontend.disconnect()
    assert is_readable(pidfd, 10), 'an orphan'
    seconds = time.monotonic() - begin
    os.close(pidfd)
    print(f'gone {seconds * 1e3:.0f} ms after its VMM')
    assert seconds < END


@pytest.mark.unwatched('killed')
def test_nothing_stale_in_the_way(start, share, scratch, extra_args):
    """Ten daemons on one socket, each killed."""
    for _ in range(10):
        daemon = start(launch.plain, share, scratch, extra_args)
        daemon.wait_ready()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(daemon.socket_path)
        daemon.kill()
