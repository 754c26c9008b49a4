# SPDX-License-Identifier: Apache-2.0
"""The table of what a hostile guest must not achieve is whole, and its command works."""

import os
import subprocess
import sys

import pytest

import hostile_rows

TABLE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
                     'hostile-table')


@pytest.mark.parametrize('title, rows', hostile_rows.SECTIONS,
                         ids=[title for title, _ in hostile_rows.SECTIONS])
def test_every_row_has_a_test(title, rows):
    missing = set(hostile_rows.without_test())
    assert not [row for row, _ in rows if row in missing], title


def test_each_row_once():
    names = [row for _, rows in hostile_rows.SECTIONS for row, _ in rows]
    assert len(names) == len(set(names))


def test_what_is_not_shown_is_found(tmp_path):
    """A mark is found wherever it stands, and nothing else is one."""
    path = tmp_path / 'test_none.py'
    path.write_text('import pytest\n'
                    'pytestmark = [pytest.mark.hostile("idle")]\n'
                    '@pytest.mark.hostile("ring-loop", "ring-nested")\n'
                    'def test_one(): pass\n'
                    'def test_other(hostile): hostile("ring-index")\n')
    assert hostile_rows.marked_in(path) == {'idle', 'ring-loop', 'ring-nested'}


def test_the_table(build):
    """It runs what is asked for, adds up cases, and fails for rows that are not shown."""
    done = subprocess.run(
        [sys.executable, '-B', TABLE, '-k', 'test_every_opcode_before_init'],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        env=dict(os.environ, VIRTIOFSD_BUILD=build), timeout=120)
    assert done.returncode == 1
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ['passed', 'field-before-init:', 'every', 'opcode', 'before', 'INIT'] in lines
    assert ['1', 'passed,'] == done.stdout.splitlines()[-1].split('tests:')[1].split()[:2]
