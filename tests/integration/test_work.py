# SPDX-License-Identifier: Apache-2.0
"""Real programs on a share that is mounted through the bridge: git, compilers, checked
data under load, the file-system stressors. Afterwards the daemon holds what it
held before.
"""

import os
import shutil
import subprocess

import pytest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Needs features that FUSE or the test machine lacks, or works on something else.
NOT_FOR_US = 'binderfs,fiemap,verity,xattr'
# What every request of the daemon has part in; short enough for sanitizers.
FEW_STRESSORS = ('dentry', 'dir', 'fallocate', 'fstat', 'link', 'open', 'rename', 'seek',
                 'symlink', 'utime')


def run(*command, cwd=None, timeout=150):
    done = subprocess.run(command, cwd=cwd, timeout=timeout, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                          encoding='utf-8', errors='replace')
    assert done.returncode == 0, f'{command}: {done.returncode}\n{done.stdout[-4000:]}'
    return done.stdout


@pytest.fixture
def mount(bridged, share):
    """A folder on the mounted share, removed afterwards."""
    work = os.path.join(bridged(), 'work')
    os.mkdir(work)
    yield work
    shutil.rmtree(work)
    assert os.listdir(share) == []


@pytest.mark.sandboxed
@pytest.mark.parametrize('programs, more', [
    pytest.param(('iov', 'reply'), (), id='quick'),
    pytest.param(('iov', 'reply', 'options'), ('virtiofsd/virtiofsd',), id='soak',
                 marks=pytest.mark.soak)])
def test_clone_build_and_test(mount, programs, more):
    """This very project, cloned, compiled, in part or as a whole, and unit tests of it
    run on the share.
    """
    checkout = os.path.join(mount, 'checkout')
    folder = os.path.join(mount, 'build')
    run('git', '-c', 'safe.directory=*', 'clone', '-q', '--no-hardlinks', TOP, checkout)
    run('git', 'fsck', '--strict', cwd=checkout)
    assert run('git', 'status', '--porcelain', cwd=checkout) == ''
    run('meson', 'setup', '-Doptimization=0', '-Dman=disabled', folder, checkout)
    run('ninja', '-C', folder, *more, *(f'tests/unit/test-{name}' for name in programs))
    assert 'Fail:               0' in run('meson', 'test', '-C', folder, '--no-rebuild',
                                          *programs)
    run('git', 'gc', '-q', cwd=checkout)
    run('git', 'fsck', '--strict', cwd=checkout)


@pytest.mark.parametrize('direct', [0, 1], ids=['cached', 'direct'])
def test_fio_verify(mount, direct):
    """16 jobs, mixed sizes, every block read back and checked."""
    run('fio', '--name=verify', f'--directory={mount}', '--rw=randrw', '--bs=4k-64k',
        '--size=4m', '--numjobs=16', '--verify=crc32c', '--do_verify=1',
        '--verify_fatal=1', '--verify_state_save=0', f'--direct={direct}',
        '--group_reporting', cwd=mount)


@pytest.mark.sanitizer
def test_few_stressors(mount):
    for name in FEW_STRESSORS:
        out = run('stress-ng', '--temp-path', mount, f'--{name}', '4', '--verify',
                  '--timeout', '1s', cwd=mount)
        assert 'fail:' not in out and 'error:' not in out


def all_stressors(mount, how, workers, seconds):
    out = run('stress-ng', '--temp-path', mount, '--class', 'filesystem', '--exclude',
              NOT_FOR_US, f'--{how}', str(workers), '--timeout', f'{seconds}s',
              '--verify', cwd=mount, timeout=600 + 60 * seconds)
    assert 'fail:' not in out and 'error:' not in out
    assert 'successful run completed' in out


@pytest.mark.sandboxed
@pytest.mark.timeout(400)
def test_all_stressors(mount):
    """All at once for some seconds; one after the other they would take a minute."""
    all_stressors(mount, 'all', 1, 8)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_all_stressors_for_long(mount):
    all_stressors(mount, 'sequential', 4, 30)
