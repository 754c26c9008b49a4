# SPDX-License-Identifier: Apache-2.0
"""What one request that takes long does to the others of its queue: a guest asks one
thing after another, first with nothing beside it and then with something.
"""

import contextlib

import contest
import report
import rows
import share

LOOKING = rows.Row('mixed', 'LOOKUP, GETATTR, READ 4K by turns')
READING = rows.Row('read-4k', 'READ 4K')


class Situation:
    """What is measured, and the row that is in flight beside it, so many times."""

    def __init__(self, row, title, beside=None, n=0):
        self.row = row
        self.title = title
        self.beside = beside
        self.n = n

    def key(self):
        return f'{self.row.name} beside {self.beside or "nothing"}'


SITUATIONS = (
    Situation(LOOKING, 'alone'),
    Situation(LOOKING, f'a READ that takes {share.SLOW_S * 1e3:.0f} ms', 'read-slow', 1),
    Situation(LOOKING, 'WRITEs of 4 MiB and their FSYNC', 'write-fsync', 1),
    Situation(LOOKING, f'COPY_FILE_RANGE of {share.HUGE_SIZE >> 20} MiB', 'copy', 1),
    Situation(READING, 'alone'),
    Situation(READING, '64 WRITEs of 128K', 'write-128k', 64),
)


def _measure(session, situation, setting):
    if situation.beside is None:
        return session.run(situation.row, setting)
    session.begin_beside(situation.beside, situation.n)
    figures = session.run(situation.row, setting)
    session.end_beside()
    return figures


class Slow:
    """results[situation, name]: figures of all rounds."""

    def __init__(self, event, options):
        self.event = event
        self.rounds = options.rounds
        self.setting = contest.Setting(1, 1, options.seconds)
        self.entries = options.entries
        self.results = {}

    def run(self):
        for number in range(self.rounds):
            with contextlib.ExitStack() as stack:
                stack.enter_context(share.slow(self.event.share))
                sessions = self.event.sessions(stack, 1)
                for action in (
                        lambda session: session.directory(
                            share.directory(self.entries), self.entries),
                        lambda session: session.know(max(1, self.entries // 2)),
                        lambda session: session.open_slow()):
                    self.event.all_do(sessions, 'preparation', action)
                for situation in SITUATIONS:
                    self._turn(sessions, situation, number)
            share.tidy(self.event.share)

    def _turn(self, sessions, situation, number):
        def measure(session):
            return _measure(session, situation, self.setting)

        for name, figures in self.event.each(sessions, number, situation.key(), measure):
            self.results.setdefault((situation.key(), name), []).append(figures)

    def tables(self):
        """A table for each of the two rows that are measured."""
        names = [name for name in self.event.commands
                 if all((at.key(), name) in self.results for at in SITUATIONS)]
        if contest.OURS not in names:
            return ''
        return '\n\n'.join(f'{row.title}, beside:\n{self._table(row, names)}'
                           for row in (LOOKING, READING))

    def _table(self, row, names):
        ours, *peers = names
        who = '/'.join(names)
        lines = report.Table([
            '', f'p50 us {who}', *(f'p99 us {name}' for name in names),
            *(f'p99 to {name}' for name in peers), f'p99 to alone {who}',
            f'worst us {who}'])
        mine = [situation for situation in SITUATIONS if situation.row is row]
        for situation in mine:
            found, alone = ({name: self.results[at.key(), name] for name in names}
                            for at in (situation, mine[0]))
            lines.add([
                situation.title,
                _side_by_side(report.median(found[name], 'p50_us') for name in names),
                *(report.span(report.series(found[name], 'p99_us')) for name in names),
                *(report.span(report.ratios(found[ours], found[name], 'p99_us'))
                  for name in peers),
                _side_by_side(report.median(found[name], 'p99_us')
                              / report.median(alone[name], 'p99_us') for name in names),
                _side_by_side(max(report.series(found[name], 'worst_us'))
                              for name in names)])
        return str(lines)

    def record(self):
        return [{'situation': key, 'daemon': name, 'rounds': found}
                for (key, name), found in self.results.items()]


def _side_by_side(values):
    return '/'.join(map(report.number, values))
