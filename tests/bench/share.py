# SPDX-License-Identifier: Apache-2.0
"""The share that all daemons serve: everything in it is in the host's page cache."""

import contextlib
import glob
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), 'support'))

import fuse_client  # noqa: E402
from stalling_fs import StallingFs  # noqa: E402

FILES = 64
BIG_SIZE = 1 << 20
DATA_SIZE = 64 << 10
HUGE_SIZE = 128 << 20
SLOW_S = 0.02


def fill(path, entries):
    """Empty files by numbers, as the driver expects them."""
    os.mkdir(path)
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    for i in range(entries):
        os.close(os.open(f'f{i:07d}', os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=folder))
    os.close(folder)


def spread(folder):
    """Each directory made in it gets a part of the disk of its own, where the file system
    knows that. Before ext4 makes a file, it looks at all that were deleted in that part a
    moment ago: what one guest deletes would be paid for by the next.
    """
    subprocess.run(['chattr', '+T', folder], check=False, stderr=subprocess.DEVNULL)


def _write(path, size):
    with open(path, 'wb') as file:
        file.write(os.urandom(size))


def directory(entries):
    """The name of the directory that has so many."""
    return f'entries-{entries}'


@contextlib.contextmanager
def made(sizes):
    """A share with directories of these sizes, below $TMPDIR, else /var/tmp, which is on
    a disk more often than /tmp.
    """
    parent = os.environ.get('TMPDIR', '/var/tmp')
    with tempfile.TemporaryDirectory(prefix='virtiofsd-bench-', dir=parent) as folder:
        spread(folder)
        _write(os.path.join(folder, 'big'), BIG_SIZE)
        os.mkdir(os.path.join(folder, 'data'))
        for i in range(FILES):
            _write(os.path.join(folder, 'data', f'{i:02d}'), DATA_SIZE)
        for entries in sizes:
            fill(os.path.join(folder, directory(entries)), entries)
        os.sync()
        yield folder


@contextlib.contextmanager
def slow(folder):
    """While it is left in, there is what the rows that are slow work on: something to
    copy, and a file system that takes its time to read and to write back.
    """
    with open(os.path.join(folder, 'huge'), 'wb') as file:
        file.truncate(HUGE_SIZE)
    target = os.path.join(folder, 'slow')
    os.mkdir(target)
    with StallingFs(target) as stalling:
        stalling.be_slow(SLOW_S, fuse_client.READ, fuse_client.FSYNC)
        yield
    os.rmdir(target)


def tidy(folder):
    """Away with what the guests of a round left."""
    for path in glob.glob(os.path.join(folder, 'work-*')):
        shutil.rmtree(path)


def file_system(folder):
    return subprocess.run(
        ['findmnt', '--noheadings', '--output', 'FSTYPE', '--target', folder], check=True,
        stdout=subprocess.PIPE, encoding='ascii').stdout.strip()
