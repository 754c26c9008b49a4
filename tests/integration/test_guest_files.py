# SPDX-License-Identifier: Apache-2.0
"""Everything that Linux's own file systems can do, in real guests of two ages: one script
runs in the guest, and the host sees what it should have left.
"""

import contextlib
import fcntl
import os
import time

import pytest

import launch
from guest import vm
from launch import eventually
from test_work import run

pytestmark = [pytest.mark.guest, pytest.mark.sandboxed]

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(vm.__file__)), 'files.sh')
OPTIONS = ('--xattr', '--posix-acl', '--announce-submounts', '--modcaps=+sys_admin',
           '--posix-lock', '--flock')


@pytest.fixture
def mounted(share):
    """A file system of its own within the share."""
    target = os.path.join(share, 'mounted')
    os.mkdir(target)
    run('mount', '-t', 'tmpfs', '-o', 'size=9M', 'tmpfs', target)
    with open(f'{target}/inside', 'w', encoding='ascii') as file:
        file.write('in the mount\n')
    yield target
    run('umount', target)


@contextlib.contextmanager
def booted(start, share, scratch, version, options):
    why = vm.unavailable(version)
    if why:
        pytest.skip(why)
    daemon = start(launch.plain, share, scratch, options)
    daemon.wait_ready()
    with vm.Guest(daemon.socket_path, version, server=daemon) as guest:
        assert guest.mount_status == 0
        assert guest.check('uname -r').startswith(version + '.')
        yield guest
    assert daemon.wait() == 0


def script():
    with open(SCRIPT, encoding='utf-8') as file:
        return file.read()


@pytest.fixture(params=['6.1', '6.12'])
def guest(request, start, share, scratch, mounted):
    """A booted guest of each version, one processor each: newer ones need that."""
    with booted(start, share, scratch, request.param, OPTIONS) as guest:
        yield guest


def facl(path):
    """What getfacl(1) shows, without comments."""
    return run('getfacl', '-cEnp', path).split()


def check_files(guest, share, mounted):
    """What the script left behind."""
    guest.check('sync')
    attributes = f'{share}/attributes/file'
    assert sorted(os.listxattr(attributes)) == ['trusted.two', 'user.of-u', 'user.one']
    assert os.getxattr(f'{share}/attributes/link', 'trusted.link',
                       follow_symlinks=False) == b'l'
    assert facl(f'{share}/lists/folder/child/file') == [
        'user::rw-', 'user:1234:rwx', 'group::---', 'mask::rw-', 'other::---']
    with open(f'{mounted}/linked-there', 'rb') as file:
        assert file.read() == b'nameless\n'
    sparse = os.stat(f'{share}/sparse')
    assert (sparse.st_size, sparse.st_blocks * 512) == (8 << 20, 2 * (64 << 10))
    assert not os.path.lexists(f'{share}/never')
    upper = os.lstat(f'{share}/overlay/upper/removed')
    assert (upper.st_mode & 0o170000, upper.st_rdev) == (0o020000, 0)


# How the host takes what `guest-tool lock` calls by these names: bytes 10 to 19, or all.
HOST_LOCKS = {
    'posix': lambda fd, how: fcntl.lockf(fd, how, 0 if how == fcntl.LOCK_UN else 10, 10),
    'ofd': lambda fd, how: fcntl.lockf(fd, how, 0 if how == fcntl.LOCK_UN else 10, 10),
    'flock': fcntl.flock,
}


def is_free(take, fd):
    try:
        take(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    take(fd, fcntl.LOCK_UN)
    return True


def check_lock(guest, kind, fd):
    """Guest and host keep each other out, and a waiting guest gets what becomes free."""
    take = HOST_LOCKS[kind]
    lock = f'guest-tool lock {kind}'
    take(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    result = guest.run(f'{lock} write /share/locked 0')
    assert result.status == 1 and 'temporarily unavailable' in result.output
    assert guest.run(f'{lock} read /share/locked 0').status == 1
    guest.spawn(kind, f'{lock} write-wait /share/locked 2')
    time.sleep(1)
    assert guest.check(f'cat /tmp/{kind}.out') == ''
    assert guest.run(f'[ -e /tmp/{kind}.status ]').status == 1
    take(fd, fcntl.LOCK_UN)
    eventually(lambda: guest.check(f'cat /tmp/{kind}.out') == 'locked\n', 10)
    assert not is_free(take, fd)
    guest.join(kind)
    assert is_free(take, fd)
    take(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert guest.check(f'{lock} read /share/locked 0') == 'locked\n'
    assert guest.run(f'{lock} write /share/locked 0').status == 1
    take(fd, fcntl.LOCK_UN)


def test_files_and_locks(guest, share, mounted):
    guest.check(script(), 120)
    check_files(guest, share, mounted)
    with open(f'{share}/locked', 'w+b') as file:
        for kind in HOST_LOCKS:
            check_lock(guest, kind, file.fileno())


def test_the_script_can_fail(start, share, scratch, mounted):
    """It notices what is not there: a daemon without its options."""
    with booted(start, share, scratch, '6.1', ()) as guest:
        result = guest.run('set -e\n' + script(), 120)
    assert result.status != 0
    assert 'user.one: Operation not supported' in result.output
