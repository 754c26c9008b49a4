# SPDX-License-Identifier: Apache-2.0
"""The daemons that are compared, each with a driver of its own as its guest."""

import contextlib
import json
import os
import shlex
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), 'support'))

from daemon import QEMU_DAEMON, Daemon, our_daemon  # noqa: E402
from process import Observed  # noqa: E402

OURS, QEMU, PEER = 'ours', 'qemu', 'peer'

# What Kata gives a daemon that has long options.
KATA = ('--cache=auto', '--thread-pool-size=1', '--announce-submounts')
KATA_QEMU = ('-o', 'cache=auto', '--thread-pool-size=1')


class NotRun(Exception):
    """Why something was not measured."""


def contenders(kata):
    """{name: command line with {socket} and {share}}; ours comes first."""
    more = KATA if kata else ()
    found = {
        OURS: [our_daemon(), '--socket-path={socket}', '--shared-dir={share}', '--xattr',
               *more, *shlex.split(os.environ.get('VIRTIOFSD_TEST_ARGS', ''))],
        QEMU: [QEMU_DAEMON, '--socket-path={socket}', '-o',
               'source={share},sandbox=chroot,xattr', *(KATA_QEMU if kata else ())],
    }
    if os.environ.get('VIRTIOFSD_PEER'):
        found[PEER] = [*shlex.split(os.environ['VIRTIOFSD_PEER']), '--xattr', *more]
    return found


class Setting:
    """How requests come."""

    def __init__(self, depth, queues, seconds, pinned=False):
        self.depth = depth
        self.queues = queues
        self.seconds = seconds
        self.pinned = pinned

    def cpus(self):
        here = os.sched_getaffinity(0)
        return {min(here)} if self.pinned else here

    def __str__(self):
        return (f'{self.depth} in flight, '
                f'{self.queues} request queue{"s" if self.queues > 1 else ""}'
                + (', guest and daemon on one core' if self.pinned else ''))


class Session:
    """A daemon and the driver that is its guest."""

    def __init__(self, command, share, queues, label):
        self._stack = contextlib.ExitStack()
        with self._stack:
            try:
                self.daemon = self._stack.enter_context(Daemon(
                    [part.replace('{share}', share) for part in command]))
                self.daemon.wait_ready()
            except (OSError, RuntimeError) as why:
                raise NotRun(str(why)) from why
            self.pids = [self.daemon.pid, *map(int, self.daemon.children())]
            self.driver = self._stack.enter_context(subprocess.Popen(
                [os.path.join(os.environ['VIRTIOFSD_BUILD'], 'tests', 'bench',
                              'bench-driver'), self.daemon.socket_path, str(queues),
                 label, *map(str, self.pids)], encoding='ascii',
                stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            self._stack.callback(self.driver.stdin.close)
            self._answer()
            self._stack = self._stack.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self._stack.close()

    def _answer(self):
        line = self.driver.stdout.readline()
        answer = json.loads(line) if line else {'error': 'the driver has ended'}
        if 'error' in answer:
            raise NotRun(answer['error'])
        return answer

    def _ask(self, *words):
        with contextlib.suppress(BrokenPipeError):
            self.driver.stdin.write(' '.join(map(str, words)) + '\n')
            self.driver.stdin.flush()
        return self._answer()

    def directory(self, name, entries):
        """Work in a directory from now on, of which no file is known."""
        self._ask('directory', name, entries)

    def know(self, n):
        """Look up the directory's first files."""
        self._ask('know', n)

    def open_slow(self):
        """Open the files of the rows that are slow."""
        self._ask('slow')

    def begin_beside(self, name, n):
        """From now on so many operations of a row are in flight, which nobody counts."""
        self._ask('beside', name, n)

    def end_beside(self):
        """Wait for the last of them."""
        self._ask('alone')

    def run(self, row, setting):
        """What one row cost, by the names that the driver gives."""
        return self._ask('run', row.name, 1 if row.alone else setting.depth,
                         round(setting.seconds * 1000))

    def pin(self, cpus):
        """Daemon and driver share these CPUs."""
        for pid in (*self.pids, self.driver.pid):
            for task in os.listdir(f'/proc/{pid}/task'):
                with contextlib.suppress(ProcessLookupError):  # it has ended
                    os.sched_setaffinity(int(task), cpus)

    def anonymous(self):
        """Bytes of memory that nobody but the daemon has."""
        return sum(int(Observed(pid).proc_field('RssAnon').split()[0]) << 10
                   for pid in self.pids)


class Contest:
    """Daemons that take turns on one share."""

    def __init__(self, commands, share):
        self.commands = commands
        self.share = share
        self.faults = []  # (name, what did not run)
        self._labels = 0

    def note(self, name, what, why):
        fault = (name, f'{what}: {why}')
        if fault not in self.faults:
            self.faults.append(fault)

    def sessions(self, stack, queues, more=()):
        """{name: session} of those that can have so many queues; with more options."""
        found = {}
        for name, command in self.commands.items():
            command = [*command, *more]
            if name == OURS and queues > 1:
                command.append(f'--num-request-queues={queues}')
            self._labels += 1
            try:
                found[name] = stack.enter_context(Session(
                    command, self.share, queues, f'{name}-{self._labels}'))
            except NotRun as why:
                # QEMU's daemon has one request queue and no more.
                if name == OURS or not str(why).endswith('EOPNOTSUPP'):
                    self.note(name, f'{queues} queues', why)
        return found

    def all_do(self, sessions, what, action):
        """An action on each session; who cannot do it takes no part any more."""
        for name in list(sessions):
            try:
                action(sessions[name])
            except NotRun as why:
                self.note(name, what, why)
                del sessions[name]

    def each(self, sides, number, what, measure):
        """In this round, by all: (name, measure(side))."""
        names = list(sides)
        # Who comes first has a neighbour with warm caches, or has not.
        first = number // 2 % len(names) if names else 0
        names = names[first:] + names[:first]
        for name in names if number % 2 == 0 else reversed(names):
            try:
                yield name, measure(sides[name])
            except NotRun as why:
                self.note(name, what, why)

    def turn(self, sessions, row, setting, number, where=None):
        """One row in this round, by all: (name, figures)."""
        return self.each(sessions, number, f'{row.name}, {where or setting}',
                         lambda session: session.run(row, setting))
