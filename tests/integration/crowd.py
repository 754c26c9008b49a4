# SPDX-License-Identifier: Apache-2.0
"""Very many files, each of which can be told from all others by its size, and a guest
that asks for them.
"""

import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), 'support'))

import filesystems  # noqa: E402
import fuse_client as fuse  # noqa: E402
from frontend import Frontend  # noqa: E402

PAGE = 1 << 20  # bytes of one READDIRPLUS


def name_of(number):
    return b'%07d' % number


def size_of(number, generation=0):
    """Sparse: a file takes no space."""
    return generation * 10_000_000 + number + 1


def make_file(folder, name, size, mode=0o644):
    """A new file of that size in an open folder, under that name."""
    fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode, dir_fd=folder)
    os.ftruncate(fd, size)
    os.close(fd)


def mount_ext4(target, n_files):
    """An ext4 in memory, for which a file more or less is nothing. It gives the number of
    a file that is gone to the next.
    """
    with tempfile.TemporaryDirectory(dir='/dev/shm') as folder:
        image = os.path.join(folder, 'image')
        filesystems.make_image(image, 'ext4', '-O', '^has_journal', '-N',
                               str(n_files * 2), size=n_files * 4096 + (64 << 20))
        subprocess.run(['mount', '-o', 'loop,noatime', image, target], check=True)
    os.rmdir(os.path.join(target, 'lost+found'))


def make_files(path, n):
    folder = os.open(path, os.O_RDONLY)
    for number in range(n):
        make_file(folder, name_of(number), size_of(number))
    os.close(folder)


class Guest:
    """A VMM with a FUSE client that keeps no lookup longer than it says."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.frontend = Frontend(daemon.socket_path)
        self.frontend.start()
        self.client = self.frontend.client(timeout_ms=60000)
        self.client.init()

    def close(self):
        self.frontend.close()

    def list(self, folder=fuse.ROOT):
        """Its entries, as READDIRPLUS gives them: [Dirent, ...] without . and .. ."""
        return [entry for entry in self.client.listdir(folder, PAGE, plus=True)
                if entry.name not in (b'.', b'..')]

    def forget_all(self, nodes, nlookup=1):
        """Give back lookups, as many at once as Linux does."""
        nodes = list(nodes)
        for at in range(0, len(nodes), 500):
            self.client.batch_forget([(node, nlookup) for node in nodes[at:at + 500]])
