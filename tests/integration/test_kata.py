# SPDX-License-Identifier: Apache-2.0
"""Kata's two launches, character by character, and what its runtimes rely on: readiness,
one process that is the daemon, nothing left when it is killed.
"""

import os
import socket
import stat
import struct

import pytest

import launch
from launch import eventually

pytestmark = pytest.mark.sandboxed

LEVELS = ('off', 'error', 'warn', 'info', 'debug', 'trace')

# A vhost-user header: request, flags (version 1), payload size.
GET_FEATURES = struct.pack('=III', 1, 1, 0)


def features(sock):
    """Ask as a VMM does first of all; the daemon's feature bits."""
    sock.sendall(GET_FEATURES)
    answer = sock.recv(20, socket.MSG_WAITALL)
    request, flags, size, bits = struct.unpack('=IIIQ', answer)
    assert (request, flags, size) == (1, 5, 8)
    return bits


def listing(folder):
    """What stands in a folder, with what chmod, chown and unlink would change."""
    return {name: os.lstat(os.path.join(folder, name))[:6] for name in os.listdir(folder)}


@pytest.fixture(params=['go', 'rs'])
def daemon(request, start, share, scratch):
    """Both launches, answering."""
    if request.param == 'rs':
        daemon = start(launch.kata_rs, share, scratch)
        daemon.wait_ready()
        return daemon
    daemon = start(launch.kata_go, share, scratch)
    with_sandbox(daemon)
    return daemon


def with_sandbox(daemon):
    """The Go launch has no readiness line; the filter is the last step of a start."""
    eventually(lambda: daemon.proc_field('Seccomp') == '2')
    return daemon


def test_go_answers_from_the_backlog(start, share, scratch):
    """The VMM may connect before the daemon is there: the socket listens already."""
    daemon = start(launch.kata_go, share, scratch)
    with daemon.connect() as sock:
        assert features(sock) & (1 << 32 | 1 << 30) == (1 << 32 | 1 << 30)
    assert daemon.wait() == 0


def test_go_touches_nothing_beside_the_socket(start, share, scratch):
    """With --fd: no bind, unlink or chmod, no pid file, neither now nor at the end."""
    daemon = start(launch.kata_go, share, scratch)
    before = listing(scratch)
    assert set(before) == {'share', 'vhost-fs.sock'}
    with daemon.connect() as sock:
        features(sock)
        assert listing(scratch) == before
    assert daemon.wait() == 0
    assert listing(scratch) == before


def test_inherited_descriptors_are_closed(start, share, scratch):
    """runtime-rs's shim leaks its own listening socket into its children."""
    leaked = socket.socket(socket.AF_UNIX)
    leaked.bind(os.path.join(scratch, 'shim.sock'))
    leaked.listen()
    os.set_inheritable(leaked.fileno(), True)
    with leaked:
        inode = f'socket:[{os.fstat(leaked.fileno()).st_ino}]'
        daemon = with_sandbox(start(launch.kata_go, share, scratch))
    assert inode not in daemon.descriptors().values()


def test_rs_ready_means_listening_and_sandboxed(start, share, scratch):
    daemon = start(launch.kata_rs, share, scratch)
    daemon.wait_ready()
    assert daemon.proc_field('Seccomp') == '2'
    assert daemon.proc_field('NoNewPrivs') == '1'
    with daemon.connect() as sock:
        features(sock)
    assert daemon.wait() == 0
    daemon.said()
    assert daemon.reader.error is None


def test_rs_rootless_relative_socket(start, share, scratch):
    """A bare file name, bound in the working directory before the line comes."""
    daemon = start(launch.kata_rs, share, scratch, relative=True)
    daemon.wait_ready()
    assert stat.S_ISSOCK(os.stat(os.path.join(scratch, 'virtiofsd.sock')).st_mode)
    with daemon.connect() as sock:
        features(sock)
    assert daemon.wait() == 0
    assert set(os.listdir(scratch)) == {'share'}


@pytest.mark.parametrize('level', LEVELS)
def test_rs_ready_exactly_once(start, share, scratch, level):
    """A second one aborts Kata's shim, none makes it wait for ever: whatever the level,
    and over a whole life with a refused second VMM and a message that is no message.
    """
    daemon = start(launch.kata_rs, share, scratch, ['--log-level', level])
    daemon.wait_ready()
    with daemon.connect() as sock:
        features(sock)
        with daemon.connect() as second:
            assert second.recv(1) == b''
        sock.sendall(launch.READY.encode() * 40)
        eventually(lambda: not daemon.is_alive())
    daemon.said()
    assert daemon.reader.error is None
    assert len(daemon.reader.ready_lines()) == 1, daemon.reader.lines
    if level == 'off':
        assert len(daemon.reader.lines) == 1


def test_rs_no_ready_line_without_a_share(start, scratch):
    daemon = start(launch.kata_rs, os.path.join(scratch, 'none'), scratch)
    assert daemon.wait() == 1
    assert launch.READY not in daemon.said()


def test_rs_survives_a_reader_that_left(start, share, scratch):
    """The shim stops reading after an error: stderr is then a pipe without a reader."""
    daemon = start(launch.kata_rs, share, scratch, ['--log-level', 'trace'],
                   reader_leaves=True)
    daemon.wait_ready()
    daemon.reader.join(10)
    assert daemon.reader.pipe.closed
    with daemon.connect() as sock:
        features(sock)
    assert daemon.wait() == 0


def test_the_spawned_process_serves(daemon, binary):
    """Metrics are read from its /proc, and it is looked for by its name: it has threads
    and no children, and no other process runs the program.
    """
    assert daemon.proc('comm') == 'virtiofsd\n'
    assert int(daemon.proc_field('PPid')) == os.getpid()
    assert len(daemon.threads()) >= 3
    assert daemon.children() == []
    assert launch.processes_of(binary) == [daemon.pid]
    assert len(daemon.descriptors()) >= 3
    assert daemon.proc('stat').split()[1] == '(virtiofsd)'
    assert int(daemon.proc_field('VmRSS').split()[0]) > 0
    assert 'rchar' in daemon.proc('io')


@pytest.mark.parametrize('connected', [False, True])
def test_kill_leaves_nothing(daemon, binary, share, scratch, connected):
    def mounts():
        with open('/proc/self/mounts', encoding='utf-8') as file:
            return file.read()

    before = mounts()
    sock = daemon.connect() if connected else None
    if sock:
        features(sock)
    assert daemon.kill() == -9
    assert launch.processes_of(binary) == []
    assert mounts() == before
    assert os.listdir(share) == []
    if sock:
        with sock:
            assert sock.recv(1) == b''
    os.rmdir(share)
    assert not os.path.exists(share)
    assert 'share' not in os.listdir(scratch)


def test_restart_after_kill(start, share, scratch):
    """A killed daemon's socket and pid file do not stop the next one."""
    for _ in range(2):
        daemon = start(launch.kata_rs, share, scratch)
        daemon.wait_ready()
        daemon.kill()
