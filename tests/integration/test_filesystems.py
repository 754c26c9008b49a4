# SPDX-License-Identifier: Apache-2.0
"""What depends on the file system that the share is on."""

import os

import pytest

import filesystems

pytestmark = pytest.mark.sandboxed


@pytest.fixture
def on(scratch):
    """on(kind): a new file system of that kind."""
    used = []

    def make(kind):
        used.append(filesystems.made(kind, os.path.join(scratch, kind)))
        return used[-1].__enter__()

    yield make
    for made in used:
        made.__exit__(None, None, None)


@pytest.mark.parametrize('cache', ('auto', 'always', 'metadata'))
@pytest.mark.parametrize('kind', ('btrfs', 'xfs'))
def test_a_listing_by_an_old_descriptor_hides_nothing(on, bridged, kind, cache):
    """btrfs shows by a descriptor what was there when it was opened; the guest caches
    that, and shows it to those who open the directory later.
    """
    mount = bridged(f'--cache={cache}', of=on(kind))
    folder = os.open(mount, os.O_RDONLY)
    open(os.path.join(mount, 'new'), 'xb').close()
    os.listdir(folder)
    os.close(folder)
    assert os.listdir(mount) == ['new']
