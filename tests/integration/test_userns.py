# SPDX-License-Identifier: Apache-2.0
"""The daemon of an ordinary user: what the guest can do, who owns what on the host, and
that nothing is left there.
"""

import contextlib
import ctypes
import errno
import os
import shutil
import signal
import stat
import subprocess

import pytest

import fuse_client as fuse
import launch
import users
from frontend import Frontend
from users import (N_SUB, OTHERS, OWN, RANGES, SUB, USER, bind, needs_helpers,
                   unmount)

SET_MODE, SET_UID, SET_GID = 1, 2, 4

pytestmark = pytest.mark.sandboxed


@pytest.fixture
def system_files(scratch):
    with users.system_files(scratch):
        yield


@pytest.fixture
def home(scratch):
    return users.make_home(scratch)


@pytest.fixture
def share(home):
    return users.own_folder(home, 'share')


@pytest.fixture
def serve(start, share, home):
    """serve(option...): a client of the user's daemon, and the daemon."""
    with contextlib.ExitStack() as undo:
        def begin(*options, how=launch.plain_as_user):
            daemon = start(how, share, home, options)
            daemon.wait_ready()
            undo.callback(lambda: daemon.wait())
            frontend = undo.enter_context(Frontend(daemon.socket_path))
            frontend.start()
            client = frontend.client()
            client.init()
            return client, daemon

        yield begin


def error_of(call, *args, **more):
    with pytest.raises(fuse.FuseError) as caught:
        call(*args, **more)
    return caught.value.errno


def owner(*path):
    seen = os.lstat(os.path.join(*path))
    return seen.st_uid, seen.st_gid


def work(client, share):
    """What a guest does with files; all of it is undone."""
    root = fuse.ROOT
    entry, handle = client.create(root, b'file', 0o640)
    assert client.write(entry.nodeid, handle, b'content') == 7
    client.flush(entry.nodeid, handle)
    client.fsync(entry.nodeid, handle)
    client.release(entry.nodeid, handle)
    handle, _ = client.open(entry.nodeid, os.O_RDWR)
    assert client.read(entry.nodeid, handle, 100) == b'content'
    client.release(entry.nodeid, handle)
    folder = client.mkdir(root, b'folder')
    client.rename(root, b'file', folder.nodeid, b'renamed')
    client.symlink(root, b'link', b'folder/renamed')
    client.mknod(root, b'pipe', stat.S_IFIFO | 0o600)
    client.link(entry.nodeid, root, b'second')
    attr = client.setattr(entry.nodeid, SET_MODE, mode=0o4755)
    assert stat.S_IMODE(attr.mode) == 0o4755
    names = sorted(d.name for d in client.listdir(root, plus=True))
    assert names == [b'.', b'..', b'folder', b'link', b'pipe', b'second']
    with open(os.path.join(share, 'folder', 'renamed'), 'rb') as file:
        assert file.read() == b'content'
    assert client.statfs()[0] > 0
    for name in (b'link', b'pipe', b'second'):
        client.unlink(root, name)
    client.unlink(folder.nodeid, b'renamed')
    client.rmdir(root, b'folder')
    assert os.listdir(share) == []


# ---- the user's own id alone


@pytest.mark.parametrize('options, inside', [((), USER), (OWN, 0)],
                         ids=['same', 'as root'])
def test_files_of_the_user(serve, share, options, inside):
    client, _ = serve(*options)
    work(client, share)
    entry, handle = client.create(fuse.ROOT, b'file', 0o600)
    client.release(entry.nodeid, handle)
    assert owner(share, 'file') == (USER, USER)
    assert (entry.attr.uid, entry.attr.gid) == (inside, inside)
    assert client.mknod(fuse.ROOT, b'node', stat.S_IFREG).attr.uid == inside
    client.setattr(entry.nodeid, SET_UID | SET_GID, uid=inside, gid=inside)
    with client.identity(inside):
        client.mkdir(fuse.ROOT, b'folder')
    assert owner(share, 'folder') == (USER, USER)


@pytest.mark.parametrize('options', [(), OWN], ids=['same', 'as root'])
def test_users_that_are_not_mapped(serve, share, options):
    """They can make nothing, and nothing can be given to them; what others own on the
    host is seen as nobody's, and is as closed as it is to the user.
    """
    for name, mode in (('closed', 0o600), ('open', 0o644)):
        with open(os.path.join(share, name), 'wb') as file:
            file.write(b'of root')
        os.chmod(os.path.join(share, name), mode)
    client, _ = serve(*options)
    with client.identity(1234):
        assert error_of(client.create, fuse.ROOT, b'file') == errno.EOVERFLOW
        assert error_of(client.mkdir, fuse.ROOT, b'folder') == errno.EOVERFLOW
        assert error_of(client.symlink, fuse.ROOT, b'link', b'to') == errno.EOVERFLOW
    entry, handle = client.create(fuse.ROOT, b'file')
    client.release(entry.nodeid, handle)
    assert error_of(client.setattr, entry.nodeid, SET_UID, uid=1234) == errno.EINVAL
    entry = client.lookup(fuse.ROOT, b'closed')
    assert (entry.attr.uid, entry.attr.gid) == (65534, 65534)
    assert error_of(client.open, entry.nodeid) == errno.EACCES
    assert error_of(client.setattr, entry.nodeid, SET_MODE, mode=0o666) == errno.EPERM
    entry = client.lookup(fuse.ROOT, b'open')
    handle, _ = client.open(entry.nodeid)
    assert client.read(entry.nodeid, handle, 100) == b'of root'
    client.release(entry.nodeid, handle)
    assert error_of(client.mknod, fuse.ROOT, b'null', stat.S_IFCHR, 0x103) == errno.EPERM
    assert sorted(os.listdir(share)) == ['closed', 'file', 'open']


# ---- ids of /etc/subuid


@needs_helpers
def test_users_of_the_guest(serve, share, system_files):
    client, daemon = serve(*RANGES)
    work(client, share)
    assert daemon.proc('uid_map').split() == ['0', str(USER), '1',
                                              '1', str(SUB), str(N_SUB)]
    assert daemon.children() == []
    root, handle = client.create(fuse.ROOT, b'of root', 0o600)
    client.release(root.nodeid, handle)
    assert owner(share, 'of root') == (USER, USER)
    assert root.attr.uid == 0
    client.setattr(fuse.ROOT, SET_MODE, mode=0o1777)
    with client.identity(1000, 100):
        entry, handle = client.create(fuse.ROOT, b'of user', 0o600)
        client.release(entry.nodeid, handle)
        client.symlink(fuse.ROOT, b'link', b'to')
    assert owner(share, 'of user') == (SUB + 999, SUB + 99)
    assert owner(share, 'link') == (SUB + 999, SUB + 99)
    assert (entry.attr.uid, entry.attr.gid) == (1000, 100)
    # The guest's root rules over them all, those that are not mapped excepted.
    client.setattr(entry.nodeid, SET_UID | SET_GID, uid=5, gid=0)
    assert owner(share, 'of user') == (SUB + 4, USER)
    assert error_of(client.setattr, entry.nodeid, SET_UID, uid=N_SUB + 1) == errno.EINVAL
    client.setattr(entry.nodeid, SET_MODE, mode=0)
    handle, _ = client.open(entry.nodeid, os.O_RDWR)
    client.release(entry.nodeid, handle)
    client.unlink(fuse.ROOT, b'of user')
    with client.identity(N_SUB + 1):
        assert error_of(client.create, fuse.ROOT, b'file') == errno.EOVERFLOW


@needs_helpers
def test_a_share_of_others(serve, share, system_files):
    """No id of the guest's is the user's, who alone may walk to the share."""
    os.chown(share, SUB, SUB)
    client, daemon = serve(*OTHERS)
    work(client, share)
    entry, handle = client.create(fuse.ROOT, b'file')
    client.release(entry.nodeid, handle)
    assert (entry.attr.uid, entry.attr.gid) == (0, 0)
    assert owner(share, 'file') == (SUB, SUB)
    assert daemon.proc_field('Uid').split() == 4 * [str(SUB)]


# ---- one map of the two


def test_only_users_are_mapped(serve, share):
    """The guest's root has a group, whatever its number is."""
    client, _ = serve('--uid-map=:0:1000:1:')
    entry, handle = client.create(fuse.ROOT, b'file')
    client.release(entry.nodeid, handle)
    assert owner(share, 'file') == (USER, USER)
    assert (entry.attr.uid, entry.attr.gid) == (0, USER)


# ---- the process


@pytest.mark.parametrize('how', [launch.plain_as_user, launch.fd_as_user],
                         ids=['path', 'fd'])
@pytest.mark.parametrize('end', ['signal', 'disconnect', 'kill'])
def test_end(start, share, home, how, end):
    """The process that was started serves, alone; it leaves nothing, unless killed, and
    then the next one takes over.
    """
    by_path = how is launch.plain_as_user
    for _ in range(2):
        with contextlib.suppress(FileNotFoundError):
            if not by_path:
                os.unlink(os.path.join(home, 'socket'))
        daemon = start(how, share, home)
        daemon.wait_ready()
        assert daemon.children() == []
        assert daemon.proc_field('Name') == 'virtiofsd'
        if by_path:
            with open(daemon.socket_path + '.pid', encoding='ascii') as file:
                assert file.read() == f'{daemon.pid}\n'
        if end == 'kill':
            assert daemon.kill() == -signal.SIGKILL
            left = ['share', 'socket', 'socket.pid'] if by_path else ['share', 'socket']
            assert sorted(os.listdir(home)) == left
            continue
        if end == 'signal':
            daemon.signal(signal.SIGTERM)
        else:
            daemon.connect().close()
        assert daemon.wait() == 0
        assert sorted(os.listdir(home)) == (['share'] if by_path else ['share', 'socket'])


def test_volumes_that_come_and_go(serve, share, home):
    """What the host mounts and unmounts is seen, also what was there at the start."""
    volume = os.path.join(home, 'volume')
    for folder in (volume, os.path.join(share, 'early'), os.path.join(share, 'late')):
        os.mkdir(folder)
        os.chown(folder, USER, USER)
    open(os.path.join(volume, 'file'), 'xb').close()
    bind(share, share)
    libc = ctypes.CDLL(None)
    libc.mount(None, os.fsencode(share), None, 1 << 20, None)  # shared
    bind(volume, os.path.join(share, 'early'))
    try:
        client, _ = serve()
        client.walk(b'early/file')
        assert error_of(client.walk, b'late/file') == errno.ENOENT
        bind(volume, os.path.join(share, 'late'))
        client.walk(b'late/file')
        client.create(client.lookup(fuse.ROOT, b'late').nodeid, b'made')
        assert owner(volume, 'made') == (USER, USER)
        unmount(os.path.join(share, 'late'))
        assert error_of(client.walk, b'late/file') == errno.ENOENT
        unmount(os.path.join(share, 'early'))
        assert error_of(client.walk, b'early/file') == errno.ENOENT
    finally:
        for folder in ('late', 'early', ''):
            unmount(os.path.join(share, folder))


# ---- what is refused


def as_user(binary, home, share, *options):
    done = subprocess.run(
        ['setpriv', f'--reuid={USER}', f'--regid={USER}', '--clear-groups', '--', binary,
         f'--socket-path={home}/socket', f'--shared-dir={share}', *options],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    lines = [line for line in done.stderr.splitlines() if 'warning' not in line]
    assert len(lines) == 1, done.stderr
    assert done.stdout == ''
    assert os.listdir(home) == ['share']
    return done.returncode, lines[0]


REFUSED = (
    (['--sandbox=chroot'], 1, 'needs root'),
    (['--sandbox=none', '--uid-map=:0:1000:1:'], 2, '--sandbox=namespace'),
    (['--sandbox=chroot', '--gid-map=:0:1000:1:'], 2, '--sandbox=namespace'),
    (['--uid-map=:0:1000:'], 2, '--uid-map'),
    (['--uid-map=:0:1000:0:'], 2, '--uid-map'),
    (['--gid-map=:0:1:9:', '--gid-map=:8:100:1:'], 2, 'overlaps'),
    (['--rlimit-nofile=1000000000'], 1, '--rlimit-nofile'),
    (['--modcaps=+sys_nothing'], 2, '--modcaps'),
)


@pytest.mark.parametrize('options, status, words', REFUSED,
                         ids=[' '.join(row[0]) for row in REFUSED])
def test_refused(binary, home, share, options, status, words):
    found = as_user(binary, home, share, *options)
    assert found[0] == status
    assert words in found[1]


@needs_helpers
def test_ids_that_are_not_given(binary, home, share, system_files):
    status, line = as_user(binary, home, share, '--uid-map=:0:5:1:')
    assert status == 1
    assert 'newuidmap' in line and '/etc/subuid' in line and 'not allowed' in line
    status, line = as_user(binary, home, share, f'--gid-map=:0:{SUB + N_SUB}:1:')
    assert status == 1
    assert 'newgidmap' in line and '/etc/subgid' in line and 'not allowed' in line


def test_root_needs_no_map(binary, home, share):
    done = subprocess.run(
        [binary, f'--socket-path={home}/socket', f'--shared-dir={share}', *OWN],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert 'for ordinary users' in done.stderr and done.stderr.count('\n') == 1


def test_no_rights_from_its_group(start, share, home):
    """A folder of the user's group, in which he is by chance, is his as it was before."""
    shutil.rmtree(share)
    os.mkdir(share)
    os.chown(share, 0, USER)
    os.chmod(share, 0o2770)
    daemon = start(launch.plain_as_user, share, home)
    daemon.wait_ready()
    with Frontend(daemon.socket_path) as frontend:
        frontend.start()
        client = frontend.client()
        client.init()
        entry, handle = client.create(fuse.ROOT, b'file')
        client.release(entry.nodeid, handle)
        assert error_of(client.setattr, fuse.ROOT, SET_MODE, mode=0o777) == errno.EPERM
    assert owner(share, 'file') == (USER, USER)
    assert daemon.wait() == 0
