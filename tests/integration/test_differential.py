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

import filesystems

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
WORDS_OF = {'ext4': (), 'xfs': ('xfs',), 'btrfs': ('btrfs',), 'tmpfs': ('memory',),
            'overlay': ('overlay',)}
LONG = 4 * 3600
FEW = 20000  # operations; the long tier tries ten and a hundred times as many


@pytest.fixture
def compare(build):
    """compare(mount, native, mode word..., option...): the tool's status and words."""
    def run(mount, native, words, *options, timeout=170):
        modes = [f'--mode={word}' for word in (*WORDS, *words)]
        done = subprocess.run(
            [os.path.join(build, 'tests/differential/differential'), '--mount', mount,
             '--native', native, *modes, *options],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout,
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


@pytest.fixture
def agree(compare, bridged):
    """agree(share, native, cache, n, word...): n operations find no difference."""
    def run(share, native, cache, n, *more, **keywords):
        options, words = CACHES[cache]
        mount = bridged(*SERVE, *options, of=share)
        status, said = compare(mount, native, (*words, *more), f'--ops={n}',
                               '--shrink=20', **keywords)
        assert status == 0, said
    return run


@pytest.mark.parametrize('cache', CACHES)
def test_a_share_in_memory_equals_a_native_folder(twins, agree, cache):
    agree(*twins, cache, FEW, 'memory')


def kind_of(folder):
    done = subprocess.run(['findmnt', '-n', '-o', 'FSTYPE', '-T', folder],
                          stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.timeout(400)
@pytest.mark.parametrize('cache', CACHES)
def test_a_share_on_disk_equals_a_native_folder(agree, share, scratch, cache):
    kind = kind_of(scratch)
    if kind not in filesystems.MAKE:
        pytest.skip(f'{scratch} is on {kind}, which is no disk file system known here')
    native = os.path.join(scratch, 'native')
    os.mkdir(native)
    agree(share, native, cache, FEW, *WORDS_OF[kind], timeout=380)


def fill_layer(lower, n):
    """What the trees of n trials begin with: files with several names, and without."""
    for tree in (f'{lower}/{side}/case-{i}' for side in ('one', 'other')
                 for i in range(n)):
        for folder in (tree, f'{tree}/sub', f'{tree}/dir'):
            os.makedirs(folder)
            os.chmod(folder, 0o777)
        for names in (('a', 'b'), ('c',), ('sub/a', 'dir/a', 'd')):
            with open(f'{tree}/{names[0]}', 'xb') as file:
                file.write(b'lower' * 1000)
            for name in names[1:]:
                os.link(f'{tree}/{names[0]}', f'{tree}/{name}')


@pytest.mark.soak
@pytest.mark.timeout(LONG)
@pytest.mark.parametrize('cache', CACHES)
@pytest.mark.parametrize('kind', filesystems.KINDS)
def test_a_share_on_any_file_system_equals_a_native_folder(agree, scratch, kind, cache):
    n = 2000000 if cache == 'auto' else 200000
    lower = os.path.join(scratch, 'lower')
    fill_layer(lower, n // 2000 if kind == 'overlay' else 0)
    with filesystems.made(kind, os.path.join(scratch, 'top'),
                          lower if kind == 'overlay' else None) as top:
        folders = [os.path.join(top, name) for name in ('one', 'other')]
        for folder in folders:
            os.makedirs(folder, exist_ok=True)
        agree(*folders, cache, n, *WORDS_OF[kind], timeout=LONG)
