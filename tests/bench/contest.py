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

OURS, QEMU, PEER = 'ours', 'qemu', 'peer'

# A daemon that answers to the long options that Kata gives.
KATA = ('--cache=auto', '--thread-pool-size=1', '--announce-submounts')
KATA_QEMU = ('-o', 'cache=auto', '--thread-pool-size=1')


class NotRun(Exception):
    """Why something was not measured."""


def contenders(kata):
    """{name: command line with {socket} and {share}}; ours comes first."""
    more = KATA if kata else ()
    found = {
        OURS: [our_daemon(), '--socket-path={socket}', '--shared-dir={share}', '--xattr',
               *more],
        QEMU: [QEMU_DAEMON, '--socket-path={socket}', '-o',
               'source={share},sandbox=chroot,xattr', *(KATA_QEMU if kata else ())],
    }
    if os.environ.get('VIRTIOFSD_PEER'):
        found[PEER] = [*shlex.split(os.environ['VIRTIOFSD_PEER']), '--xattr', *more]
    return found


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

    def directory(self, name, entries, known):
        """Work in a directory from now on, of which so many files are known."""
        self._ask('directory', name, entries, known)

    def run(self, row, depth, seconds):
        """What one row cost, by the names that the driver gives."""
        return self._ask('run', row.name, 1 if row.alone else depth,
                         round(seconds * 1000))

    def pin(self, cpus):
        """Daemon and driver share these CPUs."""
        for pid in (*self.pids, self.driver.pid):
            for task in os.listdir(f'/proc/{pid}/task'):
                with contextlib.suppress(ProcessLookupError):  # it has ended
                    os.sched_setaffinity(int(task), cpus)


class Contest:
    """Rounds of one setting, in which all contenders take turns row by row."""

    def __init__(self, commands, share, entries, known):
        self.commands = commands
        self.share = share
        self.entries = entries
        self.known = known
        self.faults = []  # what did not run
        self._labels = 0

    def _enter(self, stack, name, queues):
        self._labels += 1
        session = stack.enter_context(Session(
            self.commands[name], self.share, queues, f'{name}-{self._labels}'))
        session.directory('entries', self.entries, self.known)
        return session

    def sessions(self, stack, queues):
        """{name: session} of those that can have so many queues."""
        found = {}
        for name in self.commands:
            try:
                found[name] = self._enter(stack, name, queues)
            except NotRun as why:
                # QEMU's daemon has one request queue and no more.
                if name == OURS or not str(why).endswith('ENOTSUP'):
                    self.faults.append(f'{name}: {why}')
        return found

    def round(self, rows, setting, results, number):
        """Every row once, by all; results[row, name] grows by one."""
        with contextlib.ExitStack() as stack:
            sessions = self.sessions(stack, setting.queues)
            for session in sessions.values():
                session.pin(setting.cpus())
            names = list(sessions)
            for row in rows:
                # Who comes first has a neighbour with warm caches, or has not.
                for name in names if number % 2 == 0 else reversed(names):
                    try:
                        figures = sessions[name].run(row, setting.depth, setting.seconds)
                    except NotRun as why:
                        self.faults.append(f'{name}: {row.name}: {why}')
                        continue
                    results.setdefault((row.name, name), []).append(figures)


class Setting:
    """How requests come."""

    def __init__(self, depth, queues, pinned, seconds):
        self.depth = depth
        self.queues = queues
        self.pinned = pinned
        self.seconds = seconds

    def cpus(self):
        here = os.sched_getaffinity(0)
        return {min(here)} if self.pinned else here

    def __str__(self):
        return (f'{self.depth} in flight, '
                f'{self.queues} request queue{"s" if self.queues > 1 else ""}'
                + (', guest and daemon on one core' if self.pinned else ''))
