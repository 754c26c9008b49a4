# SPDX-License-Identifier: Apache-2.0
"""Requests that would keep a worker for long, with what Kata asks for: one request queue,
two workers. Others are answered meanwhile, and FORGET always.
"""

import os
import stat
import struct
import threading
import time

import pytest

import fuse_client as fuse
import launch
from hostile import CONTENT, Guest

pytestmark = pytest.mark.sandboxed
SECONDS, SLOWEST = 0.4, 1.0


class Hog(threading.Thread):
    """Sends one request after another, all alike, on the only request queue."""

    def __init__(self, client, request, room):
        super().__init__(daemon=True)
        self.client, self.request, self.room = client, request, room
        self.is_over = threading.Event()
        self.errors, self.error = [], None
        self.start()

    def run(self):
        try:
            while not self.is_over.is_set():
                reply = self.client.raw(self.request, room=self.room, queue=1)
                self.errors.append(reply.errno)
        except OSError as error:
            self.error = error

    def finish(self):
        self.is_over.set()
        self.join(20)
        assert not self.is_alive() and not self.error and self.errors
        return set(self.errors)


@pytest.fixture(params=[launch.kata_go, launch.kata_rs], ids=['go', 'rs'])
def guest(request, start, memory_share, scratch):
    daemon = start(request.param, memory_share, scratch)
    if request.param is launch.kata_rs:
        daemon.wait_ready()
    guest = Guest(daemon, n_request_queues=1)
    yield guest
    guest.close()
    assert daemon.wait() == 0


def others_go_on(guest, hog):
    """Files of the share, and FORGET, while the hog is at it."""
    client, slowest, n = guest.client, 0, 0
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline or n < 5:
        for step in (lambda: guest.assert_honest(queue=1),
                     lambda: client.forget(1 << 40), lambda: client.statfs()):
            begin = time.monotonic()
            step()
            slowest = max(slowest, time.monotonic() - begin)
        n += 1
    assert slowest < SLOWEST
    return f'{n} rounds beside {len(hog.errors)}, slowest {slowest * 1e3:.1f} ms'


@pytest.mark.hostile('hang-fifo', 'special-open')
def test_fifo(guest, memory_share, cases):
    """Nobody waits for the other end: it is not opened at all."""
    os.mkfifo(os.path.join(memory_share, 'folder', 'by-host'))
    by_host = guest.client.lookup(guest.folder, b'by-host').nodeid
    by_guest = guest.client.mknod(guest.folder, b'by-guest', stat.S_IFIFO | 0o666).nodeid
    for node in (by_host, by_guest):
        for flags in (os.O_RDONLY, os.O_WRONLY):
            hog = Hog(guest.client, guest.client.pack(
                fuse.OPEN, node, struct.pack('=II', flags, 0)), 32)
            print(others_go_on(guest, hog))
            assert 0 not in hog.finish()
            cases(len(hog.errors))


@pytest.mark.hostile('hang-copy')
@pytest.mark.parametrize('opcode', [fuse.COPY_FILE_RANGE, fuse.COPY_FILE_RANGE_64])
def test_huge_copy(guest, memory_share, opcode, cases):
    """A copy as long as the guest likes is done in pieces, each of its own request."""
    client = guest.client
    with open(os.path.join(memory_share, 'huge'), 'wb') as file:
        file.truncate(1 << 40)
    node = client.lookup(fuse.ROOT, b'huge').nodeid
    handle, _ = client.open(node, os.O_RDONLY)
    body = struct.pack('=7Q', handle, 0, guest.file, guest.handle, 0, 1 << 40, 0)
    hog = Hog(client, client.pack(opcode, node, body), 24)
    print(others_go_on(guest, hog))
    assert hog.finish() == {0}
    assert os.stat(os.path.join(memory_share, 'file')).st_size > len(CONTENT)
    cases(len(hog.errors))
    os.truncate(os.path.join(memory_share, 'file'), 0)
