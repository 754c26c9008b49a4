# SPDX-License-Identifier: Apache-2.0
"""Files that are mapped, read, written and unmapped at random, and compared byte for
byte; also while the VMM stops, resets the device, refuses, takes its time, or leaves.
"""

import errno
import os
import random

import pytest

from dialect import PAGE
from mapping import WINDOW, every_protocol, make_file, read_file
from window import Window

NAMES, N_PAGES = ('first', 'second'), 6


class Walk:
    """Steps on two files, in a window that is smaller than they are."""

    def __init__(self, guest, share, seed=7):
        self.guest, self.share, self.chance = guest, share, random.Random(seed)
        self.expected = {name: bytearray(make_file(share, name, N_PAGES, f'{name}{seed}'))
                         for name in NAMES}
        self.begin()

    def begin(self):
        """The guest's session is new."""
        self.at = {}  # page of the window: (name, page of the file)
        self.nodes = {name: self.guest.node(name) for name in NAMES}
        self.handles = {name: self.guest.client.open(self.nodes[name], os.O_RDWR)[0]
                        for name in NAMES}

    def step(self):
        """Anything that a guest does."""
        steps = (self.map, self.unmap, self.look, self.store, self.write, self.read)
        self.chance.choices(steps, (1, 1, 3, 3, 1, 1))[0]()

    def check(self):
        """What is mapped, and what is in the files."""
        self.guest.window.settle()
        assert set(self.guest.window.mapped) == {to * PAGE for to in self.at}
        for name in NAMES:
            assert read_file(self.share, name) == self.expected[name]

    # ---- steps

    def _place(self):
        """Somewhere in what is mapped: name, offset, where it is mapped, size."""
        if not self.at:
            self.map()
        to, (name, page) = self.chance.choice(list(self.at.items()))
        offset = self.chance.randrange(PAGE)
        return name, page * PAGE + offset, to * PAGE + offset, min(
            self.chance.choice((1, 100, 5000)), PAGE - offset)

    def _change(self, name, offset, data):
        self.expected[name][offset:offset + len(data)] = data

    def map(self):
        to, name, page = (self.chance.randrange(WINDOW // PAGE),
                          self.chance.choice(NAMES), self.chance.randrange(N_PAGES))
        assert self.guest.map(self.nodes[name], page, to,
                              writes=self.chance.random() < 0.5) == 0
        self.at[to] = name, page

    def unmap(self):
        to = self.chance.choice([*self.at, self.chance.randrange(WINDOW // PAGE)])
        assert self.guest.unmap(self.nodes['first'], to) == 0
        self.at.pop(to, None)

    def look(self):
        name, offset, to, size = self._place()
        assert self.guest.window.read(to, size) == (
            self.expected[name][offset:offset + size])

    def store(self):
        name, offset, to, size = self._place()
        data = self.chance.randbytes(size)
        self.guest.window.write(to, data)
        self._change(name, offset, data)

    def write(self):
        name, offset, _, size = self._place()
        data = self.chance.randbytes(size)
        assert self.guest.client.write(
            self.nodes[name], self.handles[name], data, offset) == size
        self._change(name, offset, data)

    def read(self):
        name, offset, _, size = self._place()
        assert self.guest.client.read(
            self.nodes[name], self.handles[name], size, offset) == (
                self.expected[name][offset:offset + size])

    # ---- what the VMM does

    def stop(self):
        """It stops and goes on: what is mapped stays."""
        self.guest.window.stop()
        self.guest.window.cont()

    def renew(self):
        """The guest mounts anew."""
        self.guest.client.init(flags=Window.INIT_FLAGS)
        self.guest.window.settle()
        assert not self.guest.window.mapped
        self.begin()

    def reset(self):
        """The guest boots anew."""
        self.guest.window.stop()
        gone = self.guest.window.drop()
        self.guest.frontend.reset()
        self.guest.window.forget_memory(gone)
        self.guest.window.cont()
        self.renew()

    def refuse(self):
        """It does not map, once."""
        free = [to for to in range(WINDOW // PAGE) if to not in self.at]
        if free:
            self.guest.window.answer = lambda asked: 1
            assert self.guest.map(self.nodes['first'], 0, free[0]) == errno.EIO
            self.guest.window.answer = None

    def delay(self):
        """It takes its time before it answers, and before it maps."""
        self.guest.window.slow = self.guest.window.late = 0.02
        self.map()
        self.guest.window.slow = self.guest.window.late = 0


@every_protocol
def test_random(guest, share, protocol):
    """10,000 steps; fewer where only the messages differ."""
    walk, steps = Walk(guest, share), 10000 if protocol.IS_STANDARD else 2000
    for _ in range(steps):
        walk.step()
    walk.check()
    maps, unmaps = guest.window.counts()
    assert maps > steps / 20 and maps - unmaps == len(walk.at)


def disturb(guest, share, steps, seed):
    """In the midst of its steps the VMM does one thing or another, and leaves."""
    walk = Walk(guest, share, seed)
    events = (walk.stop, walk.renew, walk.reset, walk.refuse, walk.delay)
    for i in range(steps):
        walk.step()
        if i % 30 == 29:
            walk.chance.choice(events)()
            walk.look()
        if i % 300 == 299:
            walk.check()
    walk.check()
    walk.map()
    with guest.window.lock:
        guest.frontend.disconnect()
    assert guest.daemon.wait() == 0
    for name in NAMES:
        assert read_file(share, name) == walk.expected[name]


@pytest.mark.unwatched('it ends with files mapped')
def test_disturbed(guest, share):
    disturb(guest, share, 900, 1)


@pytest.mark.soak
@pytest.mark.unwatched('it ends with files mapped')
@pytest.mark.parametrize('seed', range(10))
def test_disturbed_for_long(guest, share, seed):
    disturb(guest, share, 10000, seed)
