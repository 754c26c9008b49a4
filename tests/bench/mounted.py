# SPDX-License-Identifier: Apache-2.0
"""Turns of real work: each on a newly mounted share of a newly started daemon, or on the
bare directory.
"""

import contextlib
import errno
import os
import shutil
import sys
import time

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(TESTS, folder) for folder in ('support', 'bridge')]

import fuse_client  # noqa: E402
import workload  # noqa: E402
from bridge import MALFORMED, UNMOUNTED, Bridge  # noqa: E402
from contest import OURS, NotRun  # noqa: E402
from daemon import Daemon  # noqa: E402

BARE = 'bare'
# What a peer says whose guest knows more files than it can have open.
UNABLE = os.strerror(errno.EMFILE)
# virtiofsd in Rust returns DESTROY without an answer. Linux does not look at it.
_UNANSWERED = f'malformed answer to opcode {fuse_client.DESTROY}: used 0,'
# Daemons tell their guests to believe attributes and names for a second.
EXPIRED_S = 1.1

_OPCODE_NAMES = {value: name for name, value in fuse_client.OPCODES.items()}


def cpu_ns(pid):
    """What all threads of a process have used, those that have ended as well."""
    return time.clock_gettime_ns(~pid << 3 | 2)  # as clock_getcpuclockid(3) makes it


def says_goodbye(status, log):
    """Whether a bridge has ended well, but for what a peer leaves unanswered."""
    complaints = log.count('malformed answer to')
    return status == UNMOUNTED or (status == MALFORMED and complaints == 1
                                   and _UNANSWERED in log)


class Bare:
    """The directory itself."""

    def __init__(self, folder):
        self.root = os.path.join(folder, 'share')

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        pass

    def cpu_ns(self):
        return 0

    def requests(self):
        return {}


class Mounted:
    """The share, mounted through a daemon of its own."""

    def __init__(self, command, folder):
        self.root = os.path.join(folder, 'mount')
        with contextlib.ExitStack() as stack:
            try:
                daemon = stack.enter_context(Daemon(
                    [part.replace('{share}', os.path.join(folder, 'share'))
                     for part in command]))
                daemon.wait_ready()
                self._pids = [daemon.pid, *map(int, daemon.children())]
                self._bridge = stack.enter_context(Bridge(daemon.socket_path, self.root))
                self._bridge.wait_mounted()
            except (OSError, RuntimeError) as why:
                raise NotRun(str(why)) from why
            self._stack = stack.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        with self._stack:
            status = self._bridge.unmount()
            if not says_goodbye(status, self._bridge.log()):
                raise NotRun(f'the bridge ended with {status}: {self._bridge.log()}')

    def cpu_ns(self):
        return sum(map(cpu_ns, self._pids))

    def requests(self):
        """{name of the opcode: number}."""
        return {_OPCODE_NAMES.get(opcode, str(opcode)): n
                for opcode, n in self._bridge.requests().items()}


def measured(row, side, place):
    """What doing it once costs."""
    requests, cpu = side.requests(), side.cpu_ns()
    seconds = row.act(place)
    return {'seconds': seconds, 'cpu_ns': side.cpu_ns() - cpu, 'requests': {
        name: n - requests.get(name, 0) for name, n in side.requests().items()
        if n > requests.get(name, 0)}}


class Contest:
    """Daemons and the bare directory take turns."""

    def __init__(self, commands, folder, sizes, wait):
        self.commands = {**commands, BARE: None}
        self.faults = []  # (name, what did not run)
        self.unable = []  # likewise, of peers that have come to their end
        self._folder = folder
        self._sizes = sizes
        self._wait = wait
        os.mkdir(os.path.join(folder, 'mount'))

    def _side(self, name):
        if name == BARE:
            return Bare(self._folder)
        return Mounted(self.commands[name], self._folder)

    def _turn(self, row, name):
        """(phase, figures) of each phase."""
        fresh = os.path.join(self._folder, 'share', workload.FRESH)
        os.mkdir(fresh)
        try:
            bare = Bare(self._folder)
            place = workload.Place(self._folder, bare.root, self._sizes, name == BARE)
            if row.prepare is not None:
                row.prepare(place)
            with self._side(name) as side:
                place.root = side.root
                for phase in row.phases():
                    if phase == 'warm' and self._wait and name != BARE:
                        time.sleep(EXPIRED_S)
                    yield phase, measured(row, side, place)
        finally:
            shutil.rmtree(fresh)

    def round(self, chosen, number):
        """Every row once, by all: (row, phase, name, figures)."""
        names = list(self.commands)
        for row in chosen:
            # Who comes first has a neighbour with warm caches, or has not.
            for name in names if number % 2 == 0 else reversed(names):
                if (name, row.name) in self.unable:
                    continue
                try:
                    for phase, figures in self._turn(row, name):
                        yield row, phase, name, figures
                except NotRun as why:
                    self._note(name, row, str(why))

    def _note(self, name, row, why):
        if UNABLE in why and name not in (OURS, BARE):
            self.unable.append((name, row.name))
        else:
            self.faults.append((name, f'{row.name}: {why}'))
