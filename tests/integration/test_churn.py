# SPDX-License-Identifier: Apache-2.0
"""The host replaces and truncates files while a guest reads them: a name that is there
is found, and holds what belongs to it.
"""

import contextlib
import errno
import itertools
import os
import random
import signal
import threading
import time

import pytest

import fuse_client as fuse

N_NAMES, N_WRITERS = 16, 4
SHORT, LONG = 2, 600

pytestmark = pytest.mark.sandboxed


def content_of(name, n):
    return (name + b'|') * n


def is_content_of(name, data):
    """Some beginning of what was ever written under the name."""
    return data == content_of(name, len(data) // (len(name) + 1) + 1)[:len(data)]


class Writer(threading.Thread):
    """A process of the host, that has some of the names to itself."""

    def __init__(self, share, number):
        super().__init__(daemon=True)
        self.share, self.number, self.random = share, number, random.Random(number)
        self.is_over, self.changes = False, 0
        self.start()

    def path(self, name):
        return os.path.join(os.fsencode(self.share), name)

    def replace(self, name):
        new = self.path(b'.new%d' % self.number)
        with open(new, 'wb') as file:
            file.write(content_of(name, self.random.randrange(1, 300)))
        os.rename(new, self.path(name))

    def truncate(self, name):
        os.truncate(self.path(name), 0)

    def rewrite(self, name):
        with open(self.path(name), 'r+b') as file:
            file.write(content_of(name, self.random.randrange(1, 300)))

    def run(self):
        names = [b'name%d' % n for n in range(self.number, N_NAMES, N_WRITERS)]
        while not self.is_over:
            act = self.random.choice((self.replace, self.replace, self.truncate,
                                      self.rewrite))
            act(self.random.choice(names))
            self.changes += 1
            time.sleep(0)


def read_once(client, name):
    """The content of a file, as any program would get at it."""
    node = client.lookup(fuse.ROOT, name).nodeid
    try:
        handle = client.open(node)[0]
        try:
            return client.read(node, handle, 8192)
        finally:
            client.release(node, handle)
    finally:
        client.forget(node)


def read(client, name, most):
    """(data, tries)"""
    for tries in range(1, most + 1):
        try:
            return read_once(client, name), tries
        except fuse.FuseError as error:
            assert error.errno == errno.ESTALE and tries < most, name


@pytest.mark.timeout(1200)
@pytest.mark.parametrize('seconds', [
    SHORT, pytest.param(LONG, marks=pytest.mark.soak)])
@pytest.mark.parametrize('options,most', [
    # What was looked up may be replaced before it is opened; but not a second time.
    ((), 2),
    # A handle ends with its file: the guest looks up again, and may be too late again.
    (('--inode-file-handles=mandatory',), 8)])
def test_files_that_the_host_replaces(share, serve, seconds, options, most):
    for number in range(N_NAMES):
        name = b'name%d' % number
        with open(os.path.join(os.fsencode(share), name), 'wb') as file:
            file.write(content_of(name, 10))
    guest = serve(*options)
    writers = [Writer(share, number) for number in range(N_WRITERS)]
    reads = again = 0
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            name = b'name%d' % (reads % N_NAMES)
            data, tries = read(guest.client, name, most)
            assert is_content_of(name, data), name
            reads, again = reads + 1, again + tries - 1
    finally:
        for writer in writers:
            writer.is_over = True
            writer.join()
    print(f'{reads} reads, {again} at the second try, '
          f'{sum(writer.changes for writer in writers)} changes')
    assert reads > 100


N_OPENS, SETTLE = 5_000, 0.05


@contextlib.contextmanager
def renamed_over(path, sources):
    """A process of the host that puts one of the sources after the other at a path."""
    pid = os.fork()
    if pid == 0:
        try:
            for source in itertools.cycle(sources):
                os.link(source, path + '.new')
                os.rename(path + '.new', path)
        finally:
            os._exit(1)
    yield
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_no_program_notices(on, bridged):
    """The guest's kernel looks up again once, and then it finds what stays open, although
    all of these files are old enough to be known by name.
    """
    share = on('ext4')
    sources = [os.path.join(share, name) for name in ('one', 'other')]
    contents = {os.path.basename(source).encode() for source in sources}
    for source in sources:
        with open(source, 'xb') as file:
            file.write(os.path.basename(source).encode())
    os.link(sources[-1], os.path.join(share, 'file'))
    time.sleep(SETTLE)
    seen = bridged('--cache=never', of=share)
    with renamed_over(os.path.join(share, 'file'), sources):
        for _ in range(N_OPENS):
            with open(os.path.join(seen, 'file'), 'rb') as file:
                assert file.read() in contents
