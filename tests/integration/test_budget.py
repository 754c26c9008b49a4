# SPDX-License-Identifier: Apache-2.0
"""A guest that knows far more files than the daemon may open: it is told the truth about
each of them, and never that there are too many.
"""

import errno
import os
import subprocess
import time

import pytest

import crowd
import launch
from strace import Strace

ENTRY_BYTES_MAX = 200  # of memory for an inode that was only listed
# What a young file is not held by: see pt_birth_settled() in passthrough/.
SETTLE = 0.05

pytestmark = pytest.mark.sandboxed


class Crowd:
    """A guest's view of n files in a daemon with few descriptors."""

    def __init__(self, daemon, guest, n, limit):
        self.daemon, self.guest, self.client = daemon, guest, guest.client
        self.n, self.limit = n, limit
        self.nodes = []  # by number

    def descriptors(self):
        n = len(self.daemon.descriptors())
        assert n <= self.limit
        return n

    def list(self):
        """All are listed, with attributes, and none is opened for it."""
        before = self.descriptors()
        entries = sorted(self.guest.list(), key=lambda entry: entry.name)
        assert len(entries) == self.n
        for number, found in enumerate(entries):
            assert found.name == crowd.name_of(number)
            assert found.entry.attr.size == crowd.size_of(number)
            assert found.entry.nodeid != 0
        self.nodes = [found.entry.nodeid for found in entries]
        assert self.descriptors() <= before + 2

    def look_up(self, number, name=None):
        """It is the one that was listed. Its lookup is given back by forget_twice()."""
        entry = self.client.lookup(crowd.fuse.ROOT, name or crowd.name_of(number))
        assert entry.nodeid == self.nodes[number]
        assert entry.attr.size == crowd.size_of(number)

    def look_up_all(self):
        for number in range(self.n):
            self.look_up(number)
            if number % 5000 == 0:
                self.descriptors()

    def open(self, number):
        """Its handle, after a look at what was opened."""
        handle = self.client.open(self.nodes[number], os.O_RDWR)[0]
        attr = self.client.getattr(self.nodes[number], handle)
        assert attr.size == crowd.size_of(number)
        return handle

    def write(self, number, handle):
        data = crowd.name_of(number)
        assert self.client.write(self.nodes[number], handle, data) == len(data)

    def read(self, number, handle):
        data = crowd.name_of(number)[:crowd.size_of(number)]
        assert self.client.read(self.nodes[number], handle, len(data)) == data

    def rename(self, number):
        """To a name of another directory or of the same."""
        name = b'm' + crowd.name_of(number)
        self.client.rename(crowd.fuse.ROOT, crowd.name_of(number), crowd.fuse.ROOT, name)
        self.look_up(number, name)
        self.look_for_nothing(crowd.name_of(number))
        assert self.client.getattr(self.nodes[number]).size == crowd.size_of(number)

    def unlink(self, number):
        """What Linux does: the name goes, then the last it knows of the file."""
        self.client.unlink(crowd.fuse.ROOT, crowd.name_of(number))
        self.look_for_nothing(crowd.name_of(number))
        self.client.forget(self.nodes[number], 2)
        self.nodes[number] = None

    def look_for_nothing(self, name):
        with pytest.raises(OSError) as caught:
            self.client.lookup(crowd.fuse.ROOT, name)
        assert caught.value.errno == errno.ENOENT

    def forget(self):
        """Everything that was looked up, however often."""
        self.guest.forget_all((node for node in self.nodes if node), 4)


@pytest.fixture
def populate(start, share, scratch, extra_args):
    """populate(n, limit): n files, and a guest of a daemon that may open `limit`."""
    guests = []

    def make(n, limit, *options):
        subprocess.run(['mount', '-t', 'tmpfs', '-o', 'nr_inodes=0', 'crowd', share],
                       check=True)
        crowd.make_files(share, n)
        daemon = start(launch.plain, share, scratch,
                       [f'--rlimit-nofile={limit}', *options, *extra_args])
        daemon.wait_ready()
        guests.append(crowd.Guest(daemon))
        time.sleep(SETTLE)
        return Crowd(daemon, guests[0], n, limit)

    yield make
    for guest in guests:
        guest.close()
    subprocess.run(['umount', '-l', share], check=True)


def rss_bytes(daemon):
    return int(daemon.proc_field('VmRSS').split()[0]) * 1024


def work_on(crowd_of, n_open):
    """Keep some open, and rename and unlink among all."""
    n = crowd_of.n
    handles = {number: crowd_of.open(number) for number in range(7, n, n // n_open)}
    assert len(handles) >= n_open
    for number, handle in handles.items():
        crowd_of.write(number, handle)
    for number in range(0, n, 10):
        crowd_of.rename(number)
    for number in range(5, n, 10):
        if number not in handles:
            crowd_of.unlink(number)
    crowd_of.descriptors()
    for number in range(1, n, 10):
        if number not in handles:
            crowd_of.client.release(crowd_of.nodes[number], crowd_of.open(number))
    for number, handle in handles.items():
        crowd_of.read(number, handle)
        crowd_of.client.release(crowd_of.nodes[number], handle)


@pytest.mark.hostile('peer-descriptor-limit', 'bounded-memory')
@pytest.mark.unwatched('its tables keep the size that a crowd needs')
def test_more_files_than_descriptors(populate):
    files = populate(20_000, 300)
    before = rss_bytes(files.daemon)
    files.list()
    # Its chunks are large for so few.
    assert rss_bytes(files.daemon) - before < 20_000 * 2 * ENTRY_BYTES_MAX
    files.look_up_all()
    work_on(files, 60)
    files.forget()
    assert files.descriptors() < 40


@pytest.mark.hostile('many-listed', 'many-looked-up', 'many-entries', 'bounded-memory')
@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.unwatched('its tables keep the size that a crowd needs')
def test_a_million_files(populate):
    files = populate(1_000_000, 1000)
    before = rss_bytes(files.daemon)
    files.list()
    each = (rss_bytes(files.daemon) - before) / files.n
    print(f'{each:.1f} bytes of memory for each inode that was listed')
    assert each <= ENTRY_BYTES_MAX
    files.look_up_all()
    work_on(files, 300)
    each = (rss_bytes(files.daemon) - before) / files.n
    print(f'{each:.1f} bytes for each, after all were used')
    assert each <= ENTRY_BYTES_MAX
    files.forget()
    assert files.descriptors() < 100


def test_calls_for_what_is_known(populate, scratch):
    """One system call looks up a known name, one tells the attributes of what is open,
    and one those of a name that is only listed.
    """
    files = populate(200, 1000, '--seccomp=none')
    client = files.client
    files.list()
    known = files.nodes[3]
    for _ in range(2):
        client.getattr(known)  # from the second time on it is open
    strace = Strace(files.daemon, scratch, '-e',
                    'trace=statx,openat2,name_to_handle_at,close,fstat')
    for number in range(100):
        files.look_up(number)
        client.getattr(known)
    calls = strace.calls()
    assert calls == ['statx'] * 200
    strace = Strace(files.daemon, scratch, '-e', 'trace=statx,openat2,close,fstat')
    client.lookup(crowd.fuse.ROOT, b'0000003')
    files.guest.list()
    calls = strace.calls()
    assert calls.count('openat2') == 1  # of the directory
    assert calls.count('statx') <= 1 + files.n + 1
    files.forget()
