# SPDX-License-Identifier: Apache-2.0
"""Curves of growth as a picture, by gnuplot."""

import os
import re
import statistics
import subprocess

import contest
import growth

WIDTH, HEIGHT = 900, 820
COLUMNS, LINES = 2, 3
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7')  # told apart by everybody
DASHES = {contest.OURS: 1, contest.QEMU: 2, contest.PEER: 3}
TERMINALS = {'.svg': f'svg size {WIDTH},{HEIGHT} font "sans-serif,12" background "white"',
             '.png': f'pngcairo size {WIDTH},{HEIGHT} font "sans-serif,10"'}


class Panel:
    """One diagram: a section's curves."""

    def __init__(self, section, label, value, *settings):
        self.section = section
        self.x = growth.KNOWN if section == growth.MEMORY else section
        self.label = label
        self.value = value  # of a point
        self.settings = settings


def _cpu_us(point):
    return statistics.median(
        f['cpu_ns'] / f['operations'] / 1e3 for f in point['rounds'])


def _all_ms(point):
    return statistics.median(map(growth.all_ms, point['rounds']))


_LOG, _LOG_2 = 'set logscale x 10', 'set logscale x 2'
_NO_KEY = 'unset key'  # the colours are those of the first panel
PANELS = (
    Panel(growth.KNOWN, 'CPU for a request, µs', _cpu_us, _LOG),
    Panel(growth.DIRECTORY, 'CPU for an entry, µs', _cpu_us, _LOG),
    Panel(growth.IN_FLIGHT, 'CPU for a request, µs', _cpu_us, _LOG_2, _NO_KEY),
    Panel(growth.REQUEST_QUEUES, 'CPU for a request, µs', _cpu_us, _LOG_2, _NO_KEY),
    Panel(growth.POOL, f'{growth.FSYNCS} FSYNCs, ms', _all_ms, _LOG_2),
    Panel(growth.MEMORY, 'memory of each, bytes', lambda point: point['bytes'], _LOG),
)


def _panel(panel, curves):
    """Commands that draw it."""
    mine = [curve for curve in curves if curve['section'] == panel.section
            and curve['points']]
    kinds = list(dict.fromkeys(curve.get('row') for curve in mine))
    lines = ['reset', 'set grid lc "#dddddd"', 'set yrange [0:*]', 'set border 3',
             'set tics nomirror', 'set autoscale xfix', 'set format x "%.0f"',
             'set key tmargin left reverse Left samplen 2 maxrows 2',
             f'set xlabel "{panel.x}"',
             f'set ylabel "{panel.label}"', *panel.settings]
    drawn = []
    for i, curve in enumerate(mine):
        lines += [f'$curve{i} << END',
                  *(f'{point["x"]} {panel.value(point):.4g}'
                    for point in sorted(curve['points'], key=lambda point: point['x'])),
                  'END']
        title = (curve.get('row') or '') if curve['daemon'] == contest.OURS else ''
        drawn.append(f'$curve{i} with linespoints lw 2 pt 7 ps 0.4 '
                     f'lc "{COLOURS[kinds.index(curve.get("row"))]}" '
                     f'dt {DASHES[curve["daemon"]]} title "{title}"')
    daemons = {curve['daemon'] for curve in mine}
    drawn += [f'NaN lw 2 lc "black" dt {dash} title "{name}"'
              for name, dash in DASHES.items() if name in daemons]
    return [*lines, 'plot ' + ', '.join(drawn)] if drawn else []


def draw(curves, path):
    """Write what Growth.record() has to an SVG or a PNG."""
    commands = [f'set terminal {TERMINALS[os.path.splitext(path)[1]]}',
                f'set output "{path}"', f'set multiplot layout {LINES},{COLUMNS}']
    for panel in PANELS:
        commands += _panel(panel, curves)
    subprocess.run(['gnuplot'], input='\n'.join([*commands, 'unset multiplot', '']),
                   encoding='utf-8', check=True)
    if path.endswith('.svg'):
        _squeeze(path)


def _squeeze(path):
    """Away with the groups that have nothing in them, which is a quarter of all."""
    with open(path, encoding='utf-8') as file:
        text, n = file.read(), 1
    while n:
        text, n = re.subn(r'<g\s[^>]*>\s*</g>\s*', '', text)
    with open(path, 'w', encoding='utf-8') as file:
        file.write(re.sub(r'\s*\n', '\n', text))
