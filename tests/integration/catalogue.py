# SPDX-License-Identifier: Apache-2.0
"""The names of all tests, for tables whose rows name those that show something:
FILE.py::NAME in this folder, or the path of a unit test.
"""

import ast
import glob
import os
import re

HERE = os.path.dirname(os.path.abspath(__file__))
UNIT = os.path.join(os.path.dirname(HERE), 'unit')


def _named_in(path):
    """The names of the tests in a file, those in classes included."""
    with open(path, encoding='utf-8') as file:
        tree = ast.parse(file.read())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
            and node.name.startswith('test_')}


def _unit_tests():
    """The paths under which unit tests are registered."""
    found = set()
    for path in glob.glob(os.path.join(UNIT, 'test-*.c')):
        with open(path, encoding='utf-8') as file:
            found |= set(re.findall(r'g_test_add\w*\(\s*"(/[^"]+)"', file.read()))
    return found


def all_tests():
    """Every test that a row may name."""
    found = _unit_tests()
    for path in glob.glob(os.path.join(HERE, 'test_*.py')):
        found |= {f'{os.path.basename(path)}::{name}' for name in _named_in(path)}
    return found


def check_row(known, row):
    """A row says something, and names tests, all of which there are."""
    what, *tests = row
    assert what and tests
    missing = [test for test in tests if test not in known]
    assert not missing, f'no such test: {missing}'
