# SPDX-License-Identifier: Apache-2.0
"""A guest that maps files, through a VMM that has a window, for the tests of that."""

import os
import random
import threading

import pytest

import frontend as vmm
import fuse_client as fuse
import launch
from dialect import PAGE, PROTOCOLS
from fuse_client import errno_of
from window import Window

ATTR_DAX = 2
WINDOW = 8 * PAGE
OPTIONS = ('--thread-pool-size=3', '--num-request-queues=2')
NAMES = tuple(PROTOCOLS)

# For tests that hold however the VMM is asked, and for those of before the standard.
every_protocol = pytest.mark.parametrize('protocol', NAMES, indirect=True)
legacy_protocols = pytest.mark.parametrize('protocol', NAMES[1:], indirect=True)


class Guest:
    """A VMM with a window, and its guest."""

    def __init__(self, daemon, init=True, dialect=PROTOCOLS['standard'], size=WINDOW):
        self.daemon = daemon
        self.frontend = vmm.Frontend(
            daemon.socket_path, protocol_features=dialect.PROTOCOL, n_request_queues=2,
            memory_size=192 << 20)
        self.frontend.start()
        self.window = Window(self.frontend, dialect, size)
        self.client = self.frontend.client(timeout_ms=20000)
        self.agreed = self.client.init(flags=Window.INIT_FLAGS) if init else None

    def node(self, name):
        return self.client.lookup(fuse.ROOT, name.encode()).nodeid

    def map(self, node, page, to, **more):
        """Map a page of a file to one of the window; the errno."""
        return errno_of(self.client.setup_mapping, node, page * PAGE, to * PAGE, **more)

    def unmap(self, node, *pages):
        return errno_of(self.client.remove_mappings, node, *(p * PAGE for p in pages))

    def close(self):
        """Its VMM leaves; what it held is given back before."""
        try:
            if vmm.holdings.is_connected(self.frontend) and self.client.handle:
                self.client.init(flags=Window.INIT_FLAGS)
                self.window.settle()
            self.frontend.close()
        finally:
            self.window.close()
        assert not self.window.faults, self.window.faults


@pytest.fixture
def protocol(request):
    """How the VMM is asked: see every_protocol."""
    return PROTOCOLS[getattr(request, 'param', 'standard')]


@pytest.fixture
def begin(start, share, scratch, extra_args, protocol):
    """begin('--option', ...): a daemon with a window, and its guest. The VMM of before
    the standard has a window of `size`, whatever the daemon thinks.
    """
    guests = []

    def make(*options, init=True, window=WINDOW, size=WINDOW):
        daemon = start(launch.plain, share, scratch, [
            f'--dax-window={window}', *OPTIONS, *protocol.OPTIONS, *options, *extra_args])
        daemon.wait_ready()
        guests.append(Guest(daemon, init, protocol, size))
        return guests[-1]

    yield make
    for guest in guests:
        guest.close()


@pytest.fixture
def guest(begin):
    return begin()


def make_file(share, name, pages, seed=1):
    """A file of so many pages, and what is in it."""
    data = random.Random(seed).randbytes(int(pages * PAGE))
    with open(os.path.join(share, name), 'wb') as file:
        file.write(data)
    return data


def read_file(share, name):
    with open(os.path.join(share, name), 'rb') as file:
        return file.read()


class Asking(threading.Thread):
    """A SETUPMAPPING that the VMM does not answer (yet)."""

    def __init__(self, guest, node):
        super().__init__()
        self.client, self.node, self.errno = guest.frontend.client(), node, None
        self.seen = threading.Event()
        guest.window.answer = self.answer
        self.start()
        assert self.seen.wait(10)

    def answer(self, asked):
        self.seen.set()

    def run(self):
        try:
            self.errno = errno_of(self.client.setup_mapping, self.node, 0, 0, queue=1)
        except (OSError, fuse.Malformed):
            self.errno = -1

    def end(self):
        self.join(20)
        assert not self.is_alive()
        return self.errno
