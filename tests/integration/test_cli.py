# SPDX-License-Identifier: Apache-2.0
"""The command line's contract: what is printed, which status, which files."""

import fcntl
import json
import os
import re
import signal
import socket
import stat
import subprocess

import pytest

import launch
from launch import eventually


@pytest.fixture
def run(binary):
    """run(argument...): the finished process, with its output as text."""
    def call(*args, **more):
        return subprocess.run([binary, *args], stdin=subprocess.DEVNULL, check=False,
                              capture_output=True, text=True, timeout=20, **more)
    return call


def one_line(text):
    assert text.endswith('\n') and text.count('\n') == 1, text
    return text


def test_version(run):
    done = run('--version')
    assert (done.returncode, done.stderr) == (0, '')
    assert re.fullmatch(r'virtiofsd \d+\.\d+\.\d+\n', done.stdout)
    assert run('-V').stdout == done.stdout


def test_help(run):
    """Complete, grouped, and no wider than a terminal."""
    done = run('--help')
    assert (done.returncode, done.stderr) == (0, '')
    for option in ('--shared-dir', '--socket-path', '--fd', '--cache', '--sandbox',
                   '--thread-pool-size', '--announce-submounts', '--print-capabilities'):
        assert option in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert run('-h').stdout == done.stdout


def test_print_capabilities(run):
    """What libvirt parses."""
    done = run('--print-capabilities')
    assert (done.returncode, done.stderr) == (0, '')
    said = json.loads(done.stdout)
    assert said['type'] == 'fs'
    assert isinstance(said['features'], list)


# Each with what the one line must name.
WRONG = (
    (['--no-such-option'], '--no-such-option'),
    (['--shared-dir'], '--shared-dir'),
    (['--cache=sometimes'], '--cache'),
    (['--cache=none'], '--cache'),
    (['--thread-pool-size=many'], '--thread-pool-size'),
    (['--thread-pool-size=-1'], '--thread-pool-size'),
    (['--fd=three'], '--fd'),
    (['--fd=-1'], '--fd'),
    (['--sandbox=vm'], '--sandbox'),
    (['--seccomp=perhaps'], '--seccomp'),
    (['--log-level=loud'], '--log-level'),
    (['--announce-submounts=yes'], '--announce-submounts'),
    (['--num-request-queues=0'], '--num-request-queues'),
    (['--attr-timeout=-1'], '--attr-timeout'),
    (['--tag='], '--tag'),
    (['--tag=' + 37 * 'x'], '--tag'),
    (['-o', 'no_such_key'], 'no_such_key'),
    (['-o', 'cache=sometimes'], 'cache'),
    (['--shared-dir=/tmp', '-o', 'source=/'], 'source'),
    (['--shared-dir=/tmp', '--shared-dir=/'], '--shared-dir'),
    (['--sandbox=namespace', '--sandbox=none'], '--sandbox'),
    (['--socket-path=/tmp/s', '--fd=3'], '--fd'),
    (['word'], 'word'),
    (['-Z'], '-Z'),
)


@pytest.mark.parametrize('args, named', WRONG, ids=[' '.join(a)[:40] for a, _ in WRONG])
def test_wrong_command_line(run, share, scratch, args, named):
    """Status 2 and one line that names what is wrong, with the rest being right."""
    rest = []
    if not any('shared-dir' in a for a in args):
        rest.append(f'--shared-dir={share}')
    if not any(a.startswith(('--fd', '--socket-path')) for a in args):
        rest.append(f'--socket-path={scratch}/socket')
    done = run(*rest, *args)
    assert (done.returncode, done.stdout) == (2, ''), done.stderr
    assert named in one_line(done.stderr)
    assert os.listdir(scratch) == ['share']


@pytest.mark.parametrize('left', ['--shared-dir', '--socket-path'])
def test_what_is_required(run, share, scratch, left):
    given = {'--shared-dir': share, '--socket-path': f'{scratch}/socket'}
    done = run(*[f'{k}={v}' for k, v in given.items() if k != left])
    assert done.returncode == 2
    assert left in one_line(done.stderr)


def test_socket_in_a_missing_folder(run, share, scratch, extra_args):
    path = os.path.join(scratch, 'none', 'socket')
    done = run(f'--shared-dir={share}', f'--socket-path={path}', *extra_args)
    assert done.returncode == 1
    assert path in one_line(done.stderr)


@pytest.mark.parametrize('kind', ['missing', 'not a directory path'])
def test_share_that_is_not_there(run, scratch, extra_args, kind):
    path = os.path.join(scratch, 'none')
    if kind != 'missing':
        with open(path, 'w', encoding='ascii'):
            path = os.path.join(path, 'below')
    done = run(f'--shared-dir={path}', f'--socket-path={scratch}/socket', *extra_args)
    assert done.returncode == 1
    assert path in one_line(done.stderr)
    assert not os.path.exists(f'{scratch}/socket')


def test_fd_that_does_not_listen(run, share, scratch, extra_args):
    """A number that is not open, a file, a datagram socket, a socket that is connected,
    one that is bound only.
    """
    ours, theirs = socket.socketpair()
    datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(f'{scratch}/bound')
    inet = socket.create_server(('127.0.0.1', 0))
    with (open(f'{scratch}/file', 'w', encoding='ascii') as file, ours, theirs, datagram,
          bound, inet):
        for number in (777, *(f.fileno() for f in (file, ours, datagram, bound, inet))):
            passed = [number] if number != 777 else []
            done = run(f'--shared-dir={share}', f'--fd={number}', *extra_args,
                       pass_fds=passed)
            assert done.returncode == 1, number
            assert '--fd' in one_line(done.stderr)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize('connected', [False, True])
def test_signals_end_it_cleanly(plain, scratch, number, connected):
    sock = plain.connect() if connected else None
    plain.signal(number)
    assert plain.wait() == 0
    assert os.listdir(scratch) == ['share']
    if sock:
        sock.close()


def test_disconnect_ends_it(plain, scratch):
    plain.connect().close()
    assert plain.wait(1) == 0
    assert os.listdir(scratch) == ['share']


def test_statistics_on_a_signal(plain):
    """SIGUSR1 is one line in the log and no end."""
    before = len(plain.reader.lines)
    plain.signal(signal.SIGUSR1)
    eventually(lambda: len(plain.reader.lines) == before + 1)
    assert plain.is_alive()


@pytest.mark.hostile('peer-second-client')
def test_second_vmm_is_refused(plain):
    """At once, and the first does not notice."""
    with plain.connect() as first:
        first.sendall(b'\1\0\0\0\1\0\0\0\0\0\0\0')
        assert len(first.recv(20)) == 20
        with plain.connect() as second:
            assert second.recv(1) == b''
        first.sendall(b'\1\0\0\0\1\0\0\0\0\0\0\0')
        assert len(first.recv(20)) == 20
    assert plain.wait() == 0


def test_pid_file(plain):
    """0600, locked, and holding the id of the process that serves."""
    path = f'{plain.socket_path}.pid'
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with open(path, encoding='ascii') as file:
        assert int(file.read()) == plain.pid
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_second_daemon_on_the_same_socket(plain, run, extra_args):
    """It says so and leaves the first alone."""
    done = run(f'--shared-dir={plain.share}', f'--socket-path={plain.socket_path}',
               *extra_args)
    assert done.returncode == 1
    assert 'pid' in one_line(done.stderr)
    assert os.path.exists(plain.socket_path)
    plain.connect().close()
    assert plain.wait() == 0


def test_socket_mode(start, share, scratch, extra_args):
    daemon = start(launch.plain, share, scratch, extra_args)
    daemon.wait_ready()
    assert stat.S_IMODE(os.stat(daemon.socket_path).st_mode) == 0o700


def test_socket_group(start, share, scratch, extra_args):
    daemon = start(launch.plain, share, scratch, ['--socket-group=daemon', *extra_args])
    daemon.wait_ready()
    info = os.stat(daemon.socket_path)
    assert (stat.S_IMODE(info.st_mode), info.st_gid) == (0o770, 1)


def test_unknown_socket_group(run, share, scratch, extra_args):
    done = run(f'--shared-dir={share}', f'--socket-path={scratch}/socket',
               '--socket-group=nobody-has-this', *extra_args)
    assert done.returncode in (1, 2)
    assert 'nobody-has-this' in one_line(done.stderr)
    assert os.listdir(scratch) == ['share']


@pytest.mark.hostile('peer-exit')
@pytest.mark.sandboxed
def test_exit_touches_nothing_in_the_share(start, share, scratch):
    """The share holds a file where the socket's path would lead from its root."""
    inside = share + scratch
    os.makedirs(inside)
    names = ('socket', 'socket.pid')
    for name in names:
        with open(os.path.join(inside, name), 'w', encoding='ascii') as file:
            file.write('guest data')
    daemon = start(launch.plain, share, scratch)
    daemon.wait_ready()
    daemon.connect().close()
    assert daemon.wait() == 0
    assert sorted(os.listdir(inside)) == sorted(names)
    assert os.listdir(scratch) == ['share']


def test_socket_inside_the_share(start, share, extra_args):
    """Kata's agent-ctl keeps the socket within the share."""
    daemon = start(launch.plain, share, share, extra_args)
    daemon.wait_ready()
    daemon.connect().close()
    assert daemon.wait() == 0
    assert os.listdir(share) == []


def test_stale_socket_is_replaced(start, share, scratch, extra_args):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(f'{scratch}/socket')
    daemon = start(launch.plain, share, scratch, extra_args)
    daemon.wait_ready()
    daemon.connect().close()
    assert daemon.wait() == 0


def test_a_file_is_not_replaced_by_the_socket(run, share, scratch, extra_args):
    path = f'{scratch}/socket'
    with open(path, 'w', encoding='ascii') as file:
        file.write('precious')
    done = run(f'--shared-dir={share}', f'--socket-path={path}', *extra_args)
    assert done.returncode == 1
    assert path in one_line(done.stderr)
    with open(path, encoding='ascii') as file:
        assert file.read() == 'precious'


def test_old_spellings(start, share, scratch, binary, extra_args):
    """QEMU's daemon was told everything with -o."""
    words = ['-o', f'source={share}', '-o', 'cache=none,no_posix_lock', '-o', 'no_flock',
             '-d', '-f', *extra_args]
    process = subprocess.Popen([binary, f'--socket-path={scratch}/socket', *words],
                               stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        for line in process.stderr:
            if launch.READY.encode() in line:
                break
        else:
            pytest.fail('not ready')
    finally:
        process.terminate()
        process.stderr.read()
        process.stderr.close()
    assert process.wait(10) == 0
