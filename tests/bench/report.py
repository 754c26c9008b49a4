# SPDX-License-Identifier: Apache-2.0
"""Figures as tables: medians over the rounds with the least and the most."""

import statistics

import rows
FIGURES = {
    'cpu_us': lambda f: f['cpu_ns'] / f['operations'] / 1e3,
    'rate': lambda f: f['operations'] / f['elapsed_ns'] * 1e9,
    'p50_us': lambda f: f['p50_ns'] / 1e3,
    'p99_us': lambda f: f['p99_ns'] / 1e3,
    'worst_us': lambda f: f['worst_ns'] / 1e3,
    'kicks': lambda f: f['kicks'] / f['requests'],
    'interrupts': lambda f: f['interrupts'] / f['requests'],
}


def series(found, figure):
    """One figure in each round."""
    return [FIGURES[figure](figures) for figures in found]


def median(found, figure):
    return statistics.median(series(found, figure))


def number(value):
    """Three digits that say something."""
    return f'{value:,.0f}' if value >= 100 else f'{value:.1f}' if value >= 10 else \
        f'{value:.2f}'


def span(values):
    return (f'{number(statistics.median(values))} '
            f'({number(min(values))}-{number(max(values))})')


def ratios(ours, theirs, figure):
    """Ours to theirs, round by round: what drifts, drifts for both."""
    return [a / b for a, b in zip(series(ours, figure), series(theirs, figure)) if b]


class Table:
    """Lines of cells; the first column is left-aligned."""

    def __init__(self, head):
        self.lines = [head]

    def add(self, cells):
        self.lines.append(cells)

    def __str__(self):
        widths = [max(map(len, column)) for column in zip(*self.lines)]
        return '\n'.join('  '.join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths))).rstrip()
            for line in self.lines)


def _ratio_cell(values, goal):
    if not values:
        return '-'
    mark = '!' if statistics.median(values) > goal else ' '
    return f'{span(values)}{mark}'


def head(names):
    """What stands above cells(), for daemons of these names."""
    peers = names[1:]
    return ['', *(f'CPU us {name}' for name in names), *(f'to {name}' for name in peers),
            'goal', 'p50 us', *(f'to {name}' for name in peers), 'p99 us', 'in a second',
            'kicks', 'interrupts']


def cells(found, goal, latency_goal=float('inf')):
    """The figures of one row: {name: of all rounds, or None}, ours first."""
    ours, *peers = found.values()

    def each(figure):
        return [span(series(rounds, figure)) if rounds else '-'
                for rounds in found.values()]

    def against(figure, limit):
        return [_ratio_cell(ratios(ours, rounds, figure) if ours and rounds else [],
                            limit) for rounds in peers]

    def side_by_side(figure):
        return '/'.join(number(median(rounds, figure)) if rounds else '-'
                        for rounds in found.values())

    return [*each('cpu_us'), *against('cpu_us', goal), f'{goal:.2f}',
            side_by_side('p50_us'), *against('p50_us', latency_goal),
            *map(side_by_side, ('p99_us', 'rate', 'kicks', 'interrupts'))]


def table(results, chosen, names, setting, entries):
    """The table of one setting; ! marks what misses its goal."""
    lines = Table(head(names))
    for row in chosen:
        found = {name: results.get((row.name, name)) for name in names}
        lines.add([row.title.format(entries=f'{entries:,}'), *cells(
            found, row.goal, rows.LATENCY if setting.pinned else float('inf'))])
    return str(lines)
