# SPDX-License-Identifier: Apache-2.0
"""The benchmark of real work runs, and says so when a part of it did not. No time is
judged.
"""

import functools
import os
import sys

import pytest

import bridge
from conftest import TESTS

sys.path.append(os.path.join(TESTS, 'bench'))

import mounted  # noqa: E402
import workload  # noqa: E402

pytestmark = pytest.mark.unwatched('its daemons are its own')

TINY = ('--rounds', '1', '--files', '40', '--big', '60', '--mib', '1', '--no-wait')
ALIKE = {'random-read', 'random-write-cached', 'read', 'read-cached', 'write'}
UNCOUNTED = {'FORGET', 'BATCH_FORGET'}


@pytest.fixture
def work(benchmark):
    """work(option..., peer=command): the run, and what it recorded."""
    return functools.partial(benchmark, 'work', *TINY)


def test_rows(work):
    """All but those that fio does in the same ways as others."""
    chosen = [row for row in workload.ROWS if row.name not in ALIKE]
    done, record = work('--rows', ','.join(row.name for row in chosen))
    assert done.returncode == 0, done.stderr
    assert record['not_run'] == []
    found = {}
    for entry in record['figures']:
        found.setdefault(entry['daemon'], set()).add((entry['row'], entry['phase']))
        [figures] = entry['rounds']
        assert figures['seconds'] >= 0, entry
        if entry['daemon'] == 'bare':
            assert figures['cpu_ns'] == 0 and figures['requests'] == {}, entry
        elif entry['phase'] == 'cold':
            assert figures['cpu_ns'] > 0 and figures['requests'], entry
    assert set(found) == {'ours', 'qemu', 'bare'}
    expected = {(row.name, phase) for row in chosen for phase in row.phases()}
    assert all(rows == expected for rows in found.values())


def test_requests(work):
    """With Kata's flags: what a file costs that is read again and again."""
    done, record = work('--kata', '--rows', 'read-often,read-new')
    assert done.returncode == 0, done.stderr
    sent = {(entry['row'], entry['daemon']): entry['rounds'][0]['requests']
            for entry in record['figures']}
    n = record['sizes']['flat']
    for daemon in ('ours', 'qemu'):
        kinds = sent['read-new', daemon]
        assert kinds['OPEN'] == kinds['READ'] == n
        assert n <= kinds['LOOKUP']
        assert sent['read-often', daemon]['OPEN'] == 64 * 50
    assert set(sent['read-new', 'ours']) <= {'LOOKUP', 'GETATTR', 'OPEN', 'READ',
                                             'RELEASE', *UNCOUNTED}
    assert 'read-often' in done.stdout.partition('for each file or transfer')[2]


@pytest.mark.parametrize(('status', 'opcodes', 'well'), [
    (bridge.UNMOUNTED, (), True), (bridge.MALFORMED, (38,), True),
    (bridge.MALFORMED, (3, 38), False), (bridge.MALFORMED, (3,), False),
    (bridge.GAVE_UP, (38,), False)])
def test_an_unanswered_destroy(status, opcodes, well):
    """That alone is let pass."""
    log = ''.join(f'bridge: malformed answer to opcode {opcode}: used 0, len 0\n'
                  for opcode in opcodes)
    log += f'bridge: 40 requests, {len(opcodes)} malformed answers\n'
    assert mounted.says_goodbye(status, log) == well


def test_what_did_not_run(work):
    """The others' figures are shown all the same."""
    done, record = work('--rows', 'stat', peer='/bin/false {socket} {share}')
    assert done.returncode == 1
    assert {name for name, _ in record['not_run']} == {'peer'}
    assert 'did not run: peer' in done.stderr
    assert {entry['daemon'] for entry in record['figures']} == {'ours', 'qemu', 'bare'}
