# SPDX-License-Identifier: Apache-2.0
"""How cost grows: with the inodes that the guest knows, with directories, with requests
in flight, with queues and with threads. Each section is a curve for each row and daemon.
"""

import contextlib

import report
import rows
import share
from contest import OURS, Setting

DEPTH = 16
DEPTHS = (1, 2, 4, 8, 16, 32, 64)
QUEUES = (1, 2, 4, 8)
POOLS = (1, 16)
FSYNCS = 16  # at a time, of files on a slow device
KNOWN_LEAST, DIRECTORY_LEAST = 1000, 100

POINT_ROWS = rows.select({'lookup', 'getattr', 'read-4k'})
LIST_ROWS = rows.select({'readdir', 'readdirplus', 'readdirplus-new'})

KNOWN, DIRECTORY = 'known inodes', 'entries of the directory'
IN_FLIGHT, REQUEST_QUEUES = 'requests in flight', 'request queues'
POOL, MEMORY = 'threads of the pool', 'memory'
FSYNC_ROW = rows.Row('fsync-slow', 'FSYNC on a slow device')


def powers(least, largest):
    """Powers of ten, and the largest itself."""
    n = least
    while n < largest:
        yield n
        n *= 10
    yield largest


def directories(largest):
    return list(powers(DIRECTORY_LEAST, largest))


def all_ms(figures):
    """How long FSYNCS of them took together."""
    return figures['elapsed_ns'] / figures['operations'] * FSYNCS / 1e6


class Growth:
    """Curves: points[section, row, name] is {x: figures of all rounds}."""

    def __init__(self, event, rounds, seconds, largest):
        self.event = event
        self.rounds = rounds
        self.seconds = seconds
        self.largest = largest
        self.points = {}
        self.bytes = {}  # (name, known inodes): of memory for each
        self.names = list(event.commands)

    def _setting(self, depth=DEPTH, queues=1):
        return Setting(depth, queues, self.seconds)

    def _measure(self, sessions, section, x, chosen, setting, parts=1):
        """Rounds of these rows at one point; each of them is worth so many parts."""
        for number in range(self.rounds):
            for row in chosen:
                for name, figures in self.event.turn(sessions, row, setting, number,
                                                     f'{x:,} {section}'):
                    figures['operations'] *= parts
                    curve = self.points.setdefault((section, row.name, name), {})
                    curve.setdefault(x, []).append(figures)

    def _sessions(self, stack, queues, entries, more=()):
        sessions = self.event.sessions(stack, queues, more)
        self.event.all_do(sessions, 'directory', lambda session: session.directory(
            share.directory(entries), entries))
        return sessions

    def known(self):
        with contextlib.ExitStack() as stack:
            sessions = self._sessions(stack, 1, self.largest)
            before = {name: s.anonymous() for name, s in sessions.items()}
            for n in powers(KNOWN_LEAST, self.largest):
                self.event.all_do(sessions, f'{n:,} known inodes',
                                  lambda session, n=n: session.know(n))
                for name, session in sessions.items():
                    self.bytes[name, n] = (session.anonymous() - before[name]) / n
                self._measure(sessions, KNOWN, n, POINT_ROWS, self._setting())

    def directory(self):
        with contextlib.ExitStack() as stack:
            sessions = self._sessions(stack, 1, self.largest)
            for n in directories(self.largest):
                what = f'{n:,} entries'
                self.event.all_do(sessions, what, lambda session, n=n: session.directory(
                    share.directory(n), n))
                self.event.all_do(sessions, what, lambda session: session.know(1))
                self._measure(sessions, DIRECTORY, n, LIST_ROWS, self._setting(1), n)

    def _points(self, section, queues, settings):
        """A point for each of the settings."""
        known = min(KNOWN_LEAST, self.largest)
        with contextlib.ExitStack() as stack:
            sessions = self._sessions(stack, queues, self.largest)
            self.event.all_do(sessions, section, lambda session: session.know(known))
            for x, setting in settings.items():
                self._measure(sessions, section, x, POINT_ROWS, setting)

    def in_flight(self):
        self._points(IN_FLIGHT, 1, {depth: self._setting(depth) for depth in DEPTHS})

    def queues(self):
        for queues in QUEUES:
            self._points(REQUEST_QUEUES, queues,
                         {queues: self._setting(DEPTHS[-1], queues)})

    def pool(self):
        for size in POOLS:
            with contextlib.ExitStack() as stack:
                stack.enter_context(share.slow(self.event.share))
                sessions = self._sessions(stack, 1, self.largest,
                                          (f'--thread-pool-size={size}',))
                for action in (lambda session: session.know(1),
                               lambda session: session.open_slow()):
                    self.event.all_do(sessions, f'{size} threads', action)
                self._measure(sessions, POOL, size, [FSYNC_ROW], self._setting(FSYNCS))

    def run(self):
        """All sections, each with its tables as soon as it is done."""
        for section, measure in ((KNOWN, self.known), (DIRECTORY, self.directory),
                                 (IN_FLIGHT, self.in_flight),
                                 (REQUEST_QUEUES, self.queues), (POOL, self.pool)):
            measure()
            share.tidy(self.event.share)
            print(f'\n{self.tables(section)}', flush=True)

    def tables(self, section):
        """What was found in one section."""
        if section == POOL:
            return (f'{FSYNCS} FSYNCs that take {share.SLOW_S * 1e3:.0f} ms each, until '
                    f'all are answered, by {section}:\n{self.fsyncs()}')
        what = ', CPU for each entry' if section == DIRECTORY else ''
        found = [f'{row.title}, by {section}{what}:\n{self.table(section, row)}'
                 for row in (LIST_ROWS if section == DIRECTORY else POINT_ROWS)]
        if section == KNOWN:
            found.append(f'memory, by {section}:\n{self.memory()}')
        return '\n\n'.join(found)

    def fsyncs(self):
        curves = {who: self.points.get((POOL, FSYNC_ROW.name, who), {})
                  for who in self.names}
        lines = report.Table(['', *(f'ms {name}' for name in self.names)])
        for x in POOLS:
            lines.add([str(x), *(report.span([*map(all_ms, curve[x])])
                                 if x in curve else '-' for curve in curves.values())])
        return str(lines)

    def table(self, section, row):
        """One row's curve, a line for each point."""
        curves = {who: self.points.get((section, row.name, who), {})
                  for who in self.names}
        lines = report.Table(report.head(self.names))
        for x in sorted({x for curve in curves.values() for x in curve}):
            found = {who: curve.get(x) for who, curve in curves.items()}
            lines.add([f'{x:,}', *report.cells(found, row.goal)])
        return str(lines)

    def memory(self):
        lines = report.Table(['', *(f'bytes each, {name}' for name in self.names)])
        for n in sorted({n for _, n in self.bytes}):
            lines.add([f'{n:,}', *(report.number(self.bytes[name, n])
                                   if (name, n) in self.bytes else '-'
                                   for name in self.names)])
        return str(lines)

    def record(self):
        """For plots: {section, row, daemon, points: [{x, rounds}]}."""
        return [{'section': section, 'row': row, 'daemon': name,
                 'points': [{'x': x, 'rounds': found} for x, found in curve.items()]}
                for (section, row, name), curve in self.points.items()] + [
            {'section': MEMORY, 'daemon': name, 'points': [
                {'x': n, 'bytes': size} for (who, n), size in self.bytes.items()
                if who == name]} for name in self.names]

    def faults(self):
        """A peer may be unable to go so far; ours may not."""
        return [what for name, what in self.event.faults if name == OURS]
