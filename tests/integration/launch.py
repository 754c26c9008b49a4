# SPDX-License-Identifier: Apache-2.0
"""Starting the daemon as its users do, Kata's two launches to the letter, and watching
what becomes of the process.
"""

import os
import socket
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), 'support'))

from process import Process, eventually  # noqa: E402,F401 (for tests)

READY = 'Waiting for vhost-user socket connection'


class StrictReader(threading.Thread):
    """Reads a pipe as Kata's runtime-rs does: line by line, as UTF-8; a byte that is not
    ends it. All lines are kept. One that `leaves` closes the pipe once the
    daemon is ready.
    """

    def __init__(self, pipe, leaves=False):
        super().__init__(daemon=True)
        self.pipe = pipe
        self.leaves = leaves
        self.lines = []
        self.error = None
        self.is_ready = threading.Event()
        self.start()

    def run(self):
        try:
            for line in self.pipe:
                self.lines.append(line.decode('utf-8', 'strict'))
                if READY not in self.lines[-1]:
                    continue
                self.is_ready.set()
                if self.leaves:
                    break
            self.pipe.close()
        except (UnicodeDecodeError, ValueError) as error:
            self.error = error
        self.is_ready.set()

    def ready_lines(self):
        return [line for line in self.lines if READY in line]


class Daemon(Process):
    """A daemon with its share and socket; stderr is read strictly where it is a pipe."""

    def __init__(self, pid, share, socket_path, reader=None):
        super().__init__(pid)
        self.share = share
        self.socket_path = socket_path
        self.reader = reader

    def wait_ready(self, timeout=10):
        assert self.reader.is_ready.wait(timeout), 'no readiness line'
        assert self.reader.ready_lines(), f'not ready: {self.reader.lines}'

    def connect(self):
        """A connection to its socket, as a VMM would make it."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(10)
        sock.connect(self.socket_path)
        return sock

    def said(self):
        """All of stderr, once the process has ended."""
        self.wait()
        self.reader.join(10)
        assert not self.reader.is_alive(), 'somebody still holds its stderr'
        return ''.join(self.reader.lines)


def _popen_daemon(command, share, socket_path, cwd=None, reader_leaves=False,
                  pass_fds=()):
    process = subprocess.Popen(command, stderr=subprocess.PIPE, cwd=cwd,
                               stdin=subprocess.DEVNULL, pass_fds=pass_fds)
    # Waited for by Process; Popen must not do so a second time when it is collected.
    process.returncode = 0
    return Daemon(process.pid, share, socket_path,
                  StrictReader(process.stderr, reader_leaves))


def kata_rs(binary, share, folder, extra=(), relative=False, reader_leaves=False):
    """runtime-rs: `--socket-path SOCK --shared-dir DIR --cache auto` and its extra
    arguments; rootless it passes a bare file name and a working directory.
    """
    path = os.path.join(folder, 'virtiofsd.sock')
    command = [binary, '--socket-path', 'virtiofsd.sock' if relative else path,
               '--shared-dir', share, '--cache', 'auto',
               '--thread-pool-size=1', '-o', 'announce_submounts', *extra]
    return _popen_daemon(command, share, path, folder if relative else None,
                         reader_leaves)


def kata_go(binary, share, folder, extra=()):
    """The Go runtime: it binds and listens, hands a duplicate over as descriptor 3 and
    gives /dev/null for the other three.
    """
    path = os.path.join(folder, 'vhost-fs.sock')
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(4096)
        owner = os.stat(folder)
        os.chown(path, owner.st_uid, owner.st_gid)
        given = os.dup(listener.fileno())
    command = [binary, '--syslog', '--cache=auto', f'--shared-dir={share}', '--fd=3',
               '--thread-pool-size=1', '--announce-submounts', *extra]
    actions = [(os.POSIX_SPAWN_OPEN, 0, '/dev/null', os.O_RDONLY, 0),
               (os.POSIX_SPAWN_OPEN, 1, '/dev/null', os.O_WRONLY, 0),
               (os.POSIX_SPAWN_OPEN, 2, '/dev/null', os.O_WRONLY, 0),
               (os.POSIX_SPAWN_DUP2, given, 3)]
    try:
        pid = os.posix_spawn(binary, command, os.environ, file_actions=actions)
    finally:
        os.close(given)
    return Daemon(pid, share, path)


def plain(binary, share, folder, extra=()):
    """The plain way, `--socket-path` and `--shared-dir`, and what the caller adds."""
    path = os.path.join(folder, 'socket')
    command = [binary, f'--socket-path={path}', f'--shared-dir={share}', *extra]
    return _popen_daemon(command, share, path)


USER = 1000
# Becomes the daemon; no child of ours in between.
_AS_USER = ('setpriv', f'--reuid={USER}', f'--regid={USER}', '--clear-groups', '--')


def plain_as_user(binary, share, folder, extra=()):
    """The plain way, as an ordinary user."""
    path = os.path.join(folder, 'socket')
    command = [*_AS_USER, binary, f'--socket-path={path}', f'--shared-dir={share}',
               *extra]
    return _popen_daemon(command, share, path)


def fd_as_user(binary, share, folder, extra=()):
    """As libvirt starts it in a user's session: the parent listens."""
    path = os.path.join(folder, 'socket')
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.set_inheritable(True)
        command = [*_AS_USER, binary, f'--fd={listener.fileno()}',
                   f'--shared-dir={share}', *extra]
        return _popen_daemon(command, share, path, pass_fds=[listener.fileno()])


def processes_of(binary):
    """The ids of all processes that run this binary."""
    found = []
    for name in os.listdir('/proc'):
        if name.isdigit():
            try:
                program = os.readlink(f'/proc/{name}/exe')
            except OSError:
                continue
            if program.removesuffix(' (deleted)') == binary:
                found.append(int(name))
    return found
