# SPDX-License-Identifier: Apache-2.0
"""Everything that Linux's own file systems can do, in real guests of two ages: one script
runs in the guest, and the host sees what it should have left.
"""

import contextlib
import os

import pytest

import launch
from guest import vm
from test_work import run

pytestmark = [pytest.mark.guest, pytest.mark.sandboxed]

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(vm.__file__)), 'files.sh')
OPTIONS = ('--xattr', '--posix-acl', '--announce-submounts', '--modcaps=+sys_admin')


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


def test_files(guest, share, mounted):
    guest.check(script(), 120)
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


def test_the_script_can_fail(start, share, scratch, mounted):
    """It notices what is not there: a daemon without its options."""
    with booted(start, share, scratch, '6.1', ()) as guest:
        result = guest.run('set -e\n' + script(), 120)
    assert result.status != 0
    assert 'user.one: Operation not supported' in result.output
