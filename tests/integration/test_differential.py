# SPDX-License-Identifier: Apache-2.0
"""Random operations on the mounted share and on a native folder are answered alike: the
tool tests/differential/differential. Here it is the tool itself that is tested, and what
it found once is run again.
"""

import glob
import os
import shutil
import subprocess
import tempfile

import pytest

pytestmark = pytest.mark.sandboxed

CASES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
                     'differential', 'cases')
WORDS = ('xattr', 'acl', 'tmpfile', 'ioctl', 'statx', 'direct', 'noatime', 'mmap')
SERVE = ('--xattr', '--posix-acl=always', '--allow-direct-io', '--preserve-noatime',
         '--modcaps=+sys_admin')
CACHES = {
    'never': (('--cache=never', '--allow-mmap'), ()),
    'auto': (('--cache=auto',), ('cached', 'cached-names')),
    'always': (('--cache=always',), ('cached', 'cached-names')),
    'metadata': (('--cache=metadata', '--allow-mmap'), ('cached-names',)),
    'writeback': (('--cache=auto', '--writeback'),
                  ('cached', 'cached-names', 'writeback')),
}


@pytest.fixture
def compare(build):
    """compare(mount, native, mode word..., option...): the tool's status and words."""
    def run(mount, native, words, *options):
        modes = [f'--mode={word}' for word in (*WORDS, *words)]
        done = subprocess.run(
            [os.path.join(build, 'tests/differential/differential'), '--mount', mount,
             '--native', native, *modes, *options],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=150,
            check=False)
        return done.returncode, done.stdout
    return run


@pytest.fixture
def twins():
    """Two folders in memory, where nothing waits for a disk."""
    top = tempfile.mkdtemp(prefix='vfs-', dir='/dev/shm')
    folders = [os.path.join(top, name) for name in ('one', 'other')]
    for folder in folders:
        os.mkdir(folder)
    yield folders
    shutil.rmtree(top)


def test_a_native_folder_equals_another(compare, twins):
    status, words = compare(*twins, ('control',), '--ops=100000', '--shrink=0')
    assert status == 0, words


def test_a_wrong_unlink_is_found_and_shrunk(compare, twins, scratch):
    status, words = compare(*twins, ('control', 'broken'), '--ops=4000', '--shrink=20',
                            f'--save={scratch}')
    assert status == 1, words
    saved, = glob.glob(f'{scratch}/seed-*')
    with open(saved, encoding='utf-8') as file:
        operations = [line for line in file if not line.startswith('#')]
    assert any(line.startswith('unlink') for line in operations)
    assert len(operations) <= 20, words
    status, words = compare(*twins, ('control', 'broken'), f'--replay={saved}')
    assert status == 1, words
    status, words = compare(*twins, ('control',), f'--replay={saved}')
    assert status == 0, words


@pytest.mark.parametrize('cache', CACHES)
def test_what_was_different_once(compare, bridged, scratch, cache):
    options, words = CACHES[cache]
    mount = bridged(*SERVE, *options)
    native = os.path.join(scratch, 'native')
    os.mkdir(native)
    cases = sorted(glob.glob(f'{CASES}/*'))
    assert cases
    for case in cases:
        status, said = compare(mount, native, words, f'--replay={case}')
        assert status == 0, f'{case}:\n{said}'


@pytest.mark.parametrize('cache, n', [
    ('never', 30000), ('auto', 60000), ('always', 60000), ('metadata', 60000),
    ('writeback', 60000)])
def test_a_share_in_memory_equals_a_native_folder(compare, twins, bridged, cache, n):
    shared, native = twins
    options, words = CACHES[cache]
    mount = bridged(*SERVE, *options, of=shared)
    status, said = compare(mount, native, (*words, 'memory'), f'--ops={n}', '--shrink=20')
    assert status == 0, said
