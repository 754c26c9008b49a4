# SPDX-License-Identifier: Apache-2.0
"""Every system call that the filter allows is made, by a daemon at work, or its row says
which C library, kernel or machine needs it. A row that nobody needs goes.
"""

import contextlib
import errno
import fcntl
import os
import re
import signal
import socket
import stat
import struct
import subprocess
import tempfile
import time

import pytest

from callers import make_as
import conftest
import filesystems
import fuse_client as fuse
import launch
import seccomp_rows
from files import write
from frontend import Frontend
from strace import Traced

pytestmark = [pytest.mark.sandboxed, pytest.mark.unwatched('strace is in its way')]

SET_MODE, SET_UID, SET_SIZE, SET_ATIME, SET_FH = 1, 2, 8, 16, 64
KILL_SUIDGID = 1 << 11
FLOCK = 1
GETFLAGS, SETFLAGS = 0x80086601, 0x40086602
FSGETXATTR, FSSETXATTR = 0x801c581f, 0x401c5820
POSIX_ACL, SUPP_GROUP = 1 << 20, 1 << 34


# ---- what a guest asks for


def names(client):
    root = fuse.ROOT
    with client.identity(1000, 100):
        entry, handle = client.create(root, b'file')
        client.release(entry.nodeid, handle)
        client.mkdir(root, b'folder')
        client.mknod(root, b'pipe', stat.S_IFIFO | 0o600)
        client.symlink(root, b'link', b'to')
    client.mkdir(root, b'masked', umask=0o22)
    client.rmdir(root, b'masked')
    make_as(client, (1000, 100, (7,)), fuse.MKDIR, root,
            struct.pack('=II', 0o755, 0) + b'grouped\0')
    client.rmdir(root, b'grouped')
    client.readlink(client.lookup(root, b'link').nodeid)
    client.link(entry.nodeid, root, b'hard')
    client.rename(root, b'hard', root, b'harder')
    client.unlink(root, b'harder')
    client.rmdir(root, b'folder')
    client.listdir(root, plus=True)
    client.statfs()
    client.syncfs()
    return entry.nodeid


def data(client, node):
    handle, _ = client.open(node, os.O_RDWR)
    client.write(node, handle, b'x' * 10000)
    client.read(node, handle, 10000)
    client.fsync(node, handle)
    client.fsync(node, handle, data_only=True)
    client.fallocate(node, handle, 0, 0, 8192)
    client.lseek(node, handle, 0, os.SEEK_DATA)
    client.copy_file_range(node, handle, 0, (node, handle, 20000), 100)
    client.flush(node, handle)
    client.setattr(node, SET_MODE | SET_FH, mode=0o640, fh=handle)
    client.setattr(node, SET_SIZE | SET_FH, size=5000, fh=handle)
    client.ioctl(node, handle, GETFLAGS, out_size=8)
    client.ioctl(node, handle, SETFLAGS, struct.pack('=Q', 0x80))
    found = client.ioctl(node, handle, FSGETXATTR, out_size=28)
    with contextlib.suppress(fuse.FuseError, TypeError):
        client.ioctl(node, handle, FSSETXATTR, bytes(found)[-28:])
    client.release(node, handle)
    client.setattr(node, SET_MODE, mode=0o600)
    client.setattr(node, SET_UID, uid=1001)
    client.setattr(node, SET_SIZE, size=100)
    client.setattr(node, SET_SIZE | KILL_SUIDGID, size=50)
    client.setattr(node, SET_ATIME, atime=1)


def attributes(client, node):
    client.setxattr(node, b'user.name', b'value')
    client.getxattr(node, b'user.name')
    client.listxattr(node)
    client.removexattr(node, b'user.name')


def locks(client, node):
    handle, _ = client.open(node, os.O_RDWR)
    body = struct.pack('=QQQQIIII', handle, 1, 0, 10, fcntl.F_WRLCK, 1, 0, 0)
    client.call(fuse.GETLK, node, body)
    client.call(fuse.SETLK, node, body)
    for kind in (fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK):
        client.call(fuse.SETLK, node, struct.pack(
            '=QQQQIIII', handle, 1, 0, (1 << 63) - 1, kind, 1, FLOCK, 0))
    client.flush(node, handle)
    client.release(node, handle)


def what_is_gone(client, share):
    """A volume of which the guest knows a file, moved out of the share."""
    os.mkdir(os.path.join(share, 'volume'))
    with open(os.path.join(share, 'volume', 'file'), 'wb'):
        node = client.walk(b'volume/file').nodeid
    with tempfile.TemporaryDirectory() as elsewhere:
        os.rename(os.path.join(share, 'volume'), os.path.join(elsewhere, 'volume'))
        with pytest.raises(fuse.FuseError) as caught:
            client.open(node)
        os.rename(os.path.join(elsewhere, 'volume'), os.path.join(share, 'volume'))
    return caught.value.errno


NEW_TO_STRACE = ('syscall_0x1c3(', 'cachestat(')


# ---- daemons


class Runs:
    """The calls of several daemons after they were sealed."""

    def __init__(self, request, binary, scratch):
        self.request, self.binary, self.scratch = request, binary, scratch
        self.seen = []
        self.n_runs = 0

    @contextlib.contextmanager
    def run(self, *options, how=launch.plain, share=None):
        self.n_runs += 1
        folder = os.path.join(self.scratch, f'run{self.n_runs}')
        os.mkdir(folder)
        if share is None:
            share = os.path.join(folder, 'share')
            os.mkdir(share)
            os.chmod(share, 0o777)
        traced = Traced(self.binary, folder)
        starter = conftest.Starter(self.request, traced.path)
        try:
            daemon = starter(how, share, folder, options)
            with contextlib.suppress(AttributeError):  # one that says nothing
                daemon.wait_ready()
            yield daemon
            daemon.wait()
            self.add(traced.lines(daemon.pid))
        finally:
            starter.finish()

    def add(self, lines):
        texts = [text for _, text in lines]
        sealed = next(i for i, text in enumerate(texts) if 'SECCOMP_SET_MODE_FILTER' in
                      text and text.startswith('seccomp('))
        self.seen += [text.replace(*NEW_TO_STRACE) for text in texts[sealed + 1:]
                      if re.match(r'\w+\(', text)]

    def is_seen(self, row):
        return any(text.startswith(row.call + '(') and
                   all(re.search(rf'\b{word}\b', text) for word in row.words)
                   for text in self.seen)


@contextlib.contextmanager
def guest(daemon, **config):
    with Frontend(daemon.socket_path, **config) as frontend:
        frontend.start()
        client = frontend.client(timeout_ms=20000)
        client.init(flags=fuse.LINUX_INIT_FLAGS | POSIX_ACL | SUPP_GROUP)
        yield client


@pytest.fixture
def runs(request, binary, scratch):
    return Runs(request, binary, scratch)


def stderr_socket(binary, share, folder, extra=()):
    """Its stderr is a socket, as under some supervisors."""
    path = os.path.join(folder, 'socket')
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [binary, f'--socket-path={path}', f'--shared-dir={share}', *extra],
            stdin=subprocess.DEVNULL, stderr=theirs)
        process.returncode = 0  # waited for by Daemon
        theirs.close()
        text = b''
        while launch.READY.encode() not in text:
            more = ours.recv(4096)
            assert more, text
            text += more
        return launch.Daemon(process.pid, share, path)


def remote(client):
    """On a file system that others may have a say in."""
    entry, handle = client.create(fuse.ROOT, b'on a server')
    client.write(entry.nodeid, handle, b'x')
    client.flush(entry.nodeid, handle)
    client.release(entry.nodeid, handle)


def kept_pages(runs, scratch):
    """A file that has been written back: as the disk's kernel tells, and as overlayfs."""
    with filesystems.made('ext4', os.path.join(scratch, 'disk')) as share:
        write(os.path.join(share, 'file'), b'text')
        os.sync()
        time.sleep(2.1)
        visit(runs, share, b'file')
    lower = '/usr/share/common-licenses'  # of long ago
    with filesystems.overlay(lower, os.path.join(scratch, 'layers'),
                             os.path.join(scratch, 'merged')) as share:
        visit(runs, share, b'GPL-3')


def visit(runs, share, name):
    with runs.run(share=share) as daemon:
        with guest(daemon) as client:
            node = client.lookup(fuse.ROOT, name).nodeid
            client.release(node, client.open(node)[0])


@pytest.mark.hostile('cage-calls-needed')
def test_rows(runs, bridged, scratch):
    kept_pages(runs, scratch)
    with runs.run('--xattr', '--posix-lock', '--flock', '--killpriv-v2',
                  '--sandbox=chroot') as daemon:
        with guest(daemon) as client:
            node = names(client)
            data(client, node)
            attributes(client, node)
            locks(client, node)
            assert what_is_gone(client, daemon.share) == errno.ESTALE
            with socket.socket(socket.AF_UNIX) as second:
                second.connect(daemon.socket_path)
                second.recv(1)
            daemon.signal(signal.SIGUSR1)
            time.sleep(0.1)
    with runs.run('--inode-file-handles=prefer', '--posix-acl=auto',
                  '--syslog') as daemon:
        with guest(daemon) as client:
            data(client, names(client))
            daemon.signal(signal.SIGUSR1)
            time.sleep(0.1)
        daemon.signal(signal.SIGTERM)
    with runs.run(how=launch.kata_go) as daemon:
        with guest(daemon) as client:
            names(client)
    with runs.run(how=stderr_socket) as daemon:
        daemon.signal(signal.SIGTERM)
    with runs.run(share=bridged()) as daemon:
        with guest(daemon) as client:
            remote(client)
    for number in (signal.SIGBUS, signal.SIGTERM):
        with runs.run() as daemon:
            daemon.signal(number)
    stale = [f'{row}: {row.who}' for row in seccomp_rows.allowed()
             if not row.is_elsewhere and not runs.is_seen(row)]
    assert not stale, "\n".join(stale)


def test_few():
    """What every daemon may call, beyond it one more with file handles."""
    calls = {row.call for row in seccomp_rows.allowed()}
    assert 50 < len(calls - {'open_by_handle_at'}) <= 70
