# SPDX-License-Identifier: Apache-2.0
"""The benchmark runs, and says so when a part of it did not. No time is judged."""

import functools
import os
import sys

import pytest

from conftest import TESTS

sys.path.append(os.path.join(TESTS, 'bench'))

import growth  # noqa: E402
import isolation  # noqa: E402
import plot  # noqa: E402
import rows  # noqa: E402
import slow  # noqa: E402
from guest import dax  # noqa: E402

pytestmark = pytest.mark.unwatched('its guests are programs that keep no account')

TINY = ('--rounds', '1', '--seconds', '0.001', '--entries', '50', '--largest', '200')


@pytest.fixture
def bench(benchmark):
    """bench(option..., peer=command): the run, and what it recorded."""
    return functools.partial(benchmark, 'bench', *TINY)


@pytest.mark.parametrize(('depths', 'flags'), [((1, 4), ()), ((4,), ('--kata',))],
                         ids=['default', 'kata'])
def test_every_row(bench, depths, flags):
    done, record = bench('--quick', '--depth', ','.join(map(str, depths)), *flags)
    assert done.returncode == 0, done.stderr
    assert record['not_run'] == []
    found, told = {}, {'ours': 0, 'qemu': 0}
    for entry in record['figures']:
        setting = (entry['daemon'], entry['depth'], entry['pinned'])
        found.setdefault(setting, set()).add(entry['row'])
        [figures] = entry['rounds']
        assert figures['requests'] >= figures['operations'] >= 1, entry
        assert figures['cpu_ns'] > 0 and figures['elapsed_ns'] > 0, entry
        assert 0 < figures['p50_ns'] <= figures['p99_ns'], entry
        assert 0 <= figures['kicks'] <= figures['requests'], entry
        told[entry['daemon']] += figures['kicks'] * figures['interrupts']
    names = {row.name for row in rows.ROWS}
    assert found == {(daemon, depth, depth == 1): names
                     for daemon in told for depth in depths}
    assert all(told.values())
    for row in rows.ROWS:
        assert done.stdout.count('\n' + row.title.format(entries=50) + ' ') == len(
            depths)


@pytest.mark.sandboxed
def test_a_peer(bench, binary):
    """It takes part, with the flags that all have."""
    done, record = bench('--quick', '--depth', '4', '--rows', 'getattr', '--kata',
                         peer=f'{binary} --socket-path={{socket}} --shared-dir={{share}}')
    assert done.returncode == 0, done.stderr
    assert {entry['daemon'] for entry in record['figures']} == {'ours', 'qemu', 'peer'}
    assert record['commands']['peer'][-3:] == record['commands']['ours'][-3:]
    assert 'to peer' in done.stdout


def test_what_did_not_run(bench):
    """The others' figures are shown all the same."""
    done, record = bench('--quick', '--depth', '4', '--rows', 'getattr,statfs',
                         peer='/bin/false {socket} {share}')
    assert done.returncode == 1
    assert {name for name, _ in record['not_run']} == {'peer'}
    assert 'did not run: peer' in done.stderr
    assert {(entry['row'], entry['daemon']) for entry in record['figures']} == {
        (row, daemon) for row in ('getattr', 'statfs') for daemon in ('ours', 'qemu')}


def test_growth(bench, scratch):
    picture = os.path.join(scratch, 'growth.svg')
    done, record = bench('--growth', '--plot', picture)
    assert done.returncode == 0, done.stderr
    with open(picture, encoding='utf-8') as file:
        drawn = file.read()
    assert all(f'>{panel.x}<' in drawn for panel in plot.PANELS)
    points = {(curve['section'], curve.get('row')): [point['x'] for point in
                                                     curve['points']]
              for curve in record['curves'] if curve['daemon'] == 'ours'}
    sections = {growth.KNOWN: [200], growth.DIRECTORY: [100, 200],
                growth.IN_FLIGHT: list(growth.DEPTHS),
                growth.REQUEST_QUEUES: list(growth.QUEUES)}
    expected = {(section, row.name): xs for section, xs in sections.items() for row in (
        growth.LIST_ROWS if section == growth.DIRECTORY else growth.POINT_ROWS)}
    assert points == {**expected, (growth.MEMORY, None): [200],
                      (growth.POOL, 'fsync-slow'): list(growth.POOLS)}


@pytest.mark.sandboxed
def test_isolation(bench):
    """Daemons that differ in nothing but what they go without."""
    done, record = bench('--isolation', '--depth', '4', '--rows', 'getattr,open')
    assert done.returncode == 0, done.stderr
    assert {(entry['row'], entry['daemon']) for entry in record['figures']} == {
        (row, name) for row in ('getattr', 'open') for name in isolation.WITHOUT}
    for name, less in isolation.WITHOUT.items():
        assert record['commands'][name] == [*record['commands']['ours'], *less]
    assert all(f'to no {name}' in done.stdout for name in isolation.WITHOUT
               if name != 'ours')


def test_slow(bench):
    """Whoever serves a queue by a single thread comes to an end, too."""
    done, record = bench('--slow')
    assert done.returncode == 0, done.stderr
    found = {(entry['situation'], entry['daemon']): entry['rounds'][0]
             for entry in record['figures']}
    assert set(found) == {(situation.key(), daemon) for situation in slow.SITUATIONS
                          for daemon in ('ours', 'qemu')}
    for figures in found.values():
        assert 0 < figures['p50_ns'] <= figures['p99_ns'] <= figures['worst_ns']
    assert all(done.stdout.count(situation.title) for situation in slow.SITUATIONS)


@pytest.mark.guest
@pytest.mark.soak
def test_dax(benchmark):
    """With a window no data is asked for, and a second guest takes next to no memory."""
    why = dax.unavailable()
    if why:
        pytest.skip(f'no guest that maps files: {why}')
    done, record = benchmark('dax', '--rounds', '1', timeout=600)
    assert done.returncode == 0, done.stderr
    assert record['requests']['DAX'] == [0, 32]
    reads, mappings = record['requests']['none']
    assert reads >= 64 and mappings == 0
    assert set(record['rates']) == {'first', 'dropped', 'again'}
    assert record['added_mib']['DAX'] < 8 < 32 < record['added_mib']['none']
    assert 'MiB for a second guest' in done.stdout


def test_start(bench):
    done, record = bench('--start', '--starts', '2')
    assert done.returncode == 0, done.stderr
    assert set(record['figures']) == {'ours', 'qemu'}
    for figures in record['figures'].values():
        assert len(figures['ready_ms']) == 2 and min(figures['ready_ms']) > 0
        assert 0 < figures['anonymous'] < figures['resident']
        assert figures['processes'] >= 1 and figures['known'] == 50
    assert 'for each known inode' in done.stdout


@pytest.mark.sandboxed  # valgrind and sanitizers exclude each other
def test_instructions(benchmark):
    """Each request takes some, and no more than it is known to."""
    done, counted = benchmark('instructions', '--rows', 'empty,lookup')
    assert done.returncode == 0, done.stderr
    assert 500 < counted['empty'] < counted['lookup'] < 5000
    assert done.stdout.count('\n') == len(counted)
