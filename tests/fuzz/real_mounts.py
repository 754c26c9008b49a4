# SPDX-License-Identifier: Apache-2.0
"""A plug-in of pytest for tests/fuzz/record: only the tests in which a real Linux client
sends the requests, through the bridge or in a guest.
"""

FIXTURES = {'bridged', 'mounted'}


def is_real(item):
    """Whether a test mounts its share."""
    return bool(item.get_closest_marker('guest')
                or FIXTURES & set(getattr(item, 'fixturenames', ())))


def pytest_collection_modifyitems(config, items):
    """Leave the others out."""
    others = [item for item in items if not is_real(item)]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if is_real(item)]
