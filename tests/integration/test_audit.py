# SPDX-License-Identifier: Apache-2.0
"""What is left of the host in a daemon that serves: its privileges, namespaces, mounts,
directories, descriptors, limits and memory, in every sandbox and whoever starts it. This
looks at the process from outside; tests/unit/test-sandbox.c tries the same from inside.
"""

import contextlib
import ctypes
import dataclasses
import errno
import os
import re
import resource
import stat
import subprocess
import sys

import pytest

import audit
import fuse_client as fuse
import inject
import launch
import users
from frontend import Frontend

pytestmark = pytest.mark.sandboxed

KEPT_CAPS = '00000000880000db'  # those that virtiofsd(1) names
NO_CAPS = '0000000000000000'
STANDARD = (0, 1, 2)
NAMESPACES = {'mnt', 'net', 'ipc', 'uts', 'cgroup'}


@dataclasses.dataclass
class Case:
    mode: str
    is_file: bool = False
    how: object = launch.plain
    options: tuple = ()

    @property
    def is_user(self):
        return self.how is not launch.plain

    @property
    def is_apart(self):
        return self.mode == 'namespace'

    def __str__(self):
        who = 'root'
        if self.is_user:
            who = {'plain_as_user': 'user', 'fd_as_user': 'user-fd'}[self.how.__name__]
        words = [self.mode, who, 'ids' if self.options else '',
                 'file' if self.is_file else '']
        return '-'.join(word for word in words if word)


CASES = (
    Case('namespace'), Case('namespace', is_file=True), Case('chroot'),
    Case('chroot', is_file=True), Case('none'),
    Case('namespace', how=launch.plain_as_user),
    Case('namespace', how=launch.fd_as_user),
    Case('namespace', is_file=True, how=launch.plain_as_user),
    Case('namespace', how=launch.plain_as_user, options=users.RANGES),
    Case('none', how=launch.plain_as_user),
)


class Scene:
    """A daemon at work: a guest has files and directories open, also in a volume."""

    def __init__(self, case, daemon, client, home):
        self.case, self.daemon, self.client, self.home = case, daemon, client, home
        self.share = os.path.join(home, 'share')
        self.shared = os.path.join(self.share, 'file') if case.is_file else self.share
        self.proc = f'/proc/{daemon.pid}'
        self.files, self.folder = [], None

    def work(self):
        client = self.client
        node = fuse.ROOT if self.case.is_file else client.walk(b'file').nodeid
        self.files = [(node, client.open(node, os.O_RDWR)[0])]
        if self.case.is_file:
            return
        node = client.walk(b'sub/deep/inner').nodeid
        self.files.append((node, client.open(node)[0]))
        node = client.walk(b'sub/deep').nodeid
        client.listdir(node, plus=True)
        self.folder = (node, client.opendir(node))

    def rest(self):
        for node, handle in self.files:
            self.client.release(node, handle)
        if self.folder:
            self.client.releasedir(*self.folder)

    def tasks(self):
        return [f'{self.proc}/task/{thread}' for thread in self.daemon.threads()]


def make_share(home):
    """home/share/{file,link,sub}, a volume on sub, and what is not shared."""
    share = users.own_folder(home, 'share')
    volume = users.own_folder(home, 'volume')
    users.own_folder(share, 'sub')
    for path in (os.path.join(share, 'file'), os.path.join(home, 'secret'),
                 os.path.join(users.own_folder(volume, 'deep'), 'inner')):
        with open(path, 'wb') as file:
            file.write(b'text')
        os.chown(path, users.USER, users.USER)
    os.symlink('/secret', os.path.join(share, 'link'))
    users.bind(volume, os.path.join(share, 'sub'))
    return os.path.join(share, 'sub')


@pytest.fixture(params=CASES, ids=str)
def scene(request, start, scratch):
    case = request.param
    home = users.make_home(scratch)
    with contextlib.ExitStack() as undo:
        undo.callback(users.unmount, make_share(home))
        if case.options:
            if users.needs_helpers.args[0]:
                pytest.skip(users.needs_helpers.kwargs['reason'])
            undo.enter_context(users.system_files(scratch))
        shared = os.path.join(home, 'share', 'file' if case.is_file else '')
        sockets = users.own_folder(home, 'run')
        daemon = start(case.how, shared.rstrip('/'), sockets,
                       [f'--sandbox={case.mode}', *case.options])
        daemon.wait_ready()
        frontend = undo.enter_context(Frontend(daemon.socket_path))
        frontend.start()
        client = frontend.client()
        client.init()
        scene = Scene(case, daemon, client, home)
        scene.work()
        yield scene
        scene.rest()
    assert daemon.wait() == 0


def status_of(folder):
    with open(f'{folder}/status', encoding='utf-8') as file:
        return dict(line.rstrip('\n').split(':\t', 1) for line in file if ':\t' in line)


def same(one, other):
    a, b = os.stat(one), os.stat(other)
    return (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)


# ---- privileges


@pytest.mark.hostile('cage-capabilities', 'cage-status', 'peer-user-namespace')
def test_privileges(scene):
    """Of each thread: those that serving takes, none that could be gained again."""
    case = scene.case
    kept = NO_CAPS if case.is_user and not case.is_apart else KEPT_CAPS
    inside = users.USER if case.is_user else 0
    for task in scene.tasks():
        status = status_of(task)
        caps = {name: status[name] for name in status if name.startswith('Cap')}
        assert caps['CapPrm'] == caps['CapEff'] == kept
        assert caps['CapInh'] == caps['CapAmb'] == NO_CAPS
        if not case.is_user or case.is_apart:
            assert caps['CapBnd'] == NO_CAPS
        assert (status['NoNewPrivs'], status['Seccomp']) == ('1', '2')
        assert status['Seccomp_filters'] == '1'
        assert status['Groups'].split() == []
        assert status['Uid'].split() == status['Gid'].split() == 4 * [str(inside)]
    assert scene.daemon.children() == []
    assert scene.daemon.proc('environ').strip('\0') == ''


@pytest.mark.hostile('cage-dumpable', 'cage-core')
def test_who_may_look_at_it(scene):
    """Nobody of the user's, who starts programs of the guest's files, may attach: /proc
    shows by its owner whether the process is closed. Nor may somebody with the ids and
    the capabilities of the daemon, without a sandbox that is for tests.
    """
    is_closed = scene.case.mode != 'none'
    if scene.case.is_user:
        assert os.stat(f'{scene.proc}/maps').st_uid == (0 if is_closed else users.USER)
    assert audit.may_attach(scene.daemon) == (not is_closed)


def test_limits(scene):
    """No core file, no new process or thread, and as many files as virtiofsd(1) says."""
    limits = audit.limits(scene.daemon)
    assert limits['Max core file size'] == limits['Max processes'] == ['0', '0']
    with open('/proc/sys/fs/nr_open', encoding='ascii') as file:
        most = min(1000000, int(file.read()))
    files = [int(word) for word in limits['Max open files']]
    may_raise = int(status_of('/proc/self')['CapEff'], 16) >> 24 & 1
    if scene.case.is_user or not may_raise:  # CAP_SYS_RESOURCE
        most = min(most, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    assert files[0] >= most


# ---- what it is in


@pytest.mark.hostile('cage-network')
def test_namespaces(scene):
    """Its own, and one for users if it is an ordinary user's."""
    expected = set()
    if scene.case.is_apart:
        expected = NAMESPACES | ({'user'} if scene.case.is_user else set())
    for task in scene.tasks():
        other = {name for name in os.listdir(f'{task}/ns')
                 if not same(f'{task}/ns/{name}', f'/proc/self/ns/{name}')}
        assert other == expected
    if 'net' in expected:
        devices = [line.split(':')[0].strip() for line in
                   scene.daemon.proc('net/dev').splitlines()[2:]]
        assert devices == ['lo']
        assert scene.daemon.proc('net/route').count('\n') <= 1  # the heading


@pytest.mark.hostile('cage-mounts')
def test_mounts(scene):
    """The share and what is mounted in it; nothing there runs or is a device."""
    lines = [line.split() for line in scene.daemon.proc('mountinfo').splitlines()]
    if scene.case.mode == 'none':
        return  # those of the host: virtiofsd(1) says so
    places = {line[4]: line for line in lines}
    if scene.case.mode == 'chroot':  # no mount is the root
        assert set(places) == (set() if scene.case.is_file else {'/sub'})
        return
    expected = {'/', '/share'} if scene.case.is_file else {'/', '/sub'}
    assert set(places) == expected and len(lines) == len(expected)
    for line in lines:
        assert {'nosuid', 'nodev', 'noexec'} <= set(line[5].split(','))
        assert 'shared:' not in ' '.join(line)
    if scene.case.is_file:
        assert 'ro' in places['/'][5].split(',')
        assert os.listdir(f'{scene.proc}/root') == ['share']
        assert same(f'{scene.proc}/root/share', scene.shared)


@pytest.mark.hostile('cage-root')
def test_root_and_working_directory(scene):
    """Paths lead into the share; the workers stand in the folder of descriptors."""
    if scene.case.mode == 'none':
        assert same(f'{scene.proc}/root', '/')
        return
    for task in scene.tasks():
        if scene.case.is_file:
            expected = ['share'] if scene.case.is_apart else []
            assert os.listdir(f'{task}/root') == expected
            with pytest.raises(OSError) as caught:
                open(f'{task}/root/new', 'xb')
            assert caught.value.errno == errno.EROFS
        else:
            assert same(f'{task}/root', scene.share)
        if not same(f'{task}/cwd', f'{task}/root'):
            assert_descriptor_folder(f'{task}/cwd')


def assert_descriptor_folder(path):
    """All that it holds are numbers, and it is above itself."""
    assert all(name.isdigit() for name in os.listdir(path))
    assert same(path, f'{path}/..')


@pytest.mark.skipif(not inject.IS_POSSIBLE, reason='not for this machine yet')
def test_landlock(scene):
    """/proc does not show it; but it refuses to list the folder of descriptors, which
    nothing else does, and in the socket's folder everything but removing files.
    """
    ours = audit.procfd(scene.daemon)
    found = audit.can_list(scene.daemon, audit.folders(scene.daemon))
    for number, result in found.items():
        link = f'{scene.proc}/fd/{number}'
        is_closed = number == ours or same(link, os.path.dirname(
            scene.daemon.socket_path))
        assert result == (-errno.EACCES if is_closed else 0), os.readlink(link)


def test_printed(scene):
    """All of it in words, by a program that can be pointed at any daemon."""
    done = subprocess.run([sys.executable, '-B', audit.__file__, str(scene.daemon.pid)],
                          stdout=subprocess.PIPE, text=True, check=True)
    lines = done.stdout.splitlines()
    is_apart, mode = scene.case.is_apart, scene.case.mode
    kept = NO_CAPS if scene.case.is_user and not is_apart else KEPT_CAPS
    wanted = {f'CapPrm: {kept}', f'CapEff: {kept}', f'CapInh: {NO_CAPS}',
              f'CapAmb: {NO_CAPS}', 'NoNewPrivs: 1', 'Seccomp: 2', 'Groups: ',
              'Max core file size: 0 0', 'Max processes: 0 0',
              f'dumpable: {"yes" if mode == "none" else "no"}'}
    if inject.IS_POSSIBLE:
        wanted.add('Landlock: yes')
    if not is_apart:
        wanted.add('own namespaces: ')
    assert wanted - set(lines) == set()
    assert sum(line.startswith('descriptor ') for line in lines) > 8
    mounts = [line for line in lines if line.startswith('mount: ')]
    assert mode == 'none' or len(mounts) <= 2


# ---- what it holds


def mount_of(path):
    fd = os.open(path, os.O_PATH)
    try:
        with open(f'/proc/self/fdinfo/{fd}', encoding='ascii') as info:
            return next(line.split()[1] for line in info if line.startswith('mnt_id'))
    finally:
        os.close(fd)


def top_of(path):
    """Where '..' ends, for who is in no sandbox."""
    while not same(path, f'{path}/..'):
        path += '/..'
    return path


def identities_below(folder):
    found = {(os.lstat(folder).st_dev, os.lstat(folder).st_ino)}
    for parent, folders, files in os.walk(folder):
        for name in folders + files:
            seen = os.lstat(os.path.join(parent, name))
            found.add((seen.st_dev, seen.st_ino))
    return found


def assert_folder(scene, link):
    """No directory is held that leads out of the share."""
    sockets = os.path.dirname(scene.daemon.socket_path)
    if scene.case.mode == 'none':
        assert os.readlink(link) == f'{scene.proc}/fd' or same(link, sockets) or (
            os.path.realpath(link).startswith(scene.share))
        return
    top = top_of(link)
    if same(link, top) and all(name.isdigit() for name in os.listdir(link)):
        return assert_descriptor_folder(link)
    if same(link, sockets):  # alone, as a mount of its own
        assert same(link, top)
        assert scene.case.how is not launch.fd_as_user
    elif scene.case.mode == 'chroot':
        assert not scene.case.is_file
        assert (os.readlink(link) + '/').startswith(scene.share + '/')
    else:
        assert same(top, scene.shared)


PIDFD_GETFD = 438


def borrowed(pid, number):
    """What a process has open, itself; opening its link would open it anew."""
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    fd = libc.syscall(PIDFD_GETFD, pidfd, int(number), 0)
    os.close(pidfd)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    return open(fd, 'rb', buffering=0)


def assert_mount_table(scene, number):
    """It tells of nothing but the share."""
    assert scene.case.is_apart
    with borrowed(scene.daemon.pid, number) as file:
        table = os.pread(file.fileno(), 1 << 20, 0).decode()
    places = [line.split()[4] for line in table.splitlines()]
    assert len(places) < 4
    for place in places:
        assert place == '/' or os.path.lexists(scene.share + place), table


@pytest.mark.hostile('cage-descriptors')
def test_descriptors(scene):
    """Files and folders of the share, sockets, events, and which mounts are in the share;
    nothing else of the host's.
    """
    ours = {line.split()[0] for line in open('/proc/self/mountinfo', encoding='utf-8')}
    known = identities_below(scene.share)
    unix = {line.split()[6] for line in open('/proc/net/unix', encoding='utf-8')}
    kinds = set()
    for number, what in scene.daemon.descriptors().items():
        link = f'{scene.proc}/fd/{number}'
        seen = os.stat(link)
        is_ours = what.endswith('socket.pid')
        if number in STANDARD:
            assert not stat.S_ISDIR(seen.st_mode)
            continue
        if what.startswith('anon_inode:'):
            kinds.add(what)
        elif stat.S_ISSOCK(seen.st_mode):
            assert str(seen.st_ino) in unix or not what.startswith('socket:')
        elif stat.S_ISDIR(seen.st_mode):
            assert_folder(scene, link)
        elif what.endswith(f'/{scene.daemon.pid}/mountinfo'):
            assert_mount_table(scene, number)
            continue
        else:
            assert is_ours or (seen.st_dev, seen.st_ino) in known, what
        if scene.case.is_apart and what.startswith('/') and not is_ours:
            assert mount_of(link) not in ours, what
    assert kinds <= {'anon_inode:[eventfd]', 'anon_inode:[eventpoll]',
                     'anon_inode:[signalfd]', 'anon_inode:[timerfd]'}


def test_memory(scene):
    """Nothing that can be written can run, nor does any file of the share; and what is
    the guest's stays out of every dump.
    """
    text = scene.daemon.proc('smaps')
    guests = re.findall(r'^\S+ rw-s .*?^VmFlags: (.*?)$', text, re.MULTILINE | re.DOTALL)
    assert guests and all('dd' in flags.split() for flags in guests)
    known = identities_below(scene.share)
    for line in scene.daemon.proc('maps').splitlines():
        fields = line.split(None, 5)
        assert not {'w', 'x'} <= set(fields[1]), line
        major, minor = (int(part, 16) for part in fields[3].split(':'))
        assert (os.makedev(major, minor), int(fields[4])) not in known, line


# ---- what the guest reaches by names


NAMES = (b'..', b'../secret', b'../../../../etc/passwd', b'/etc/passwd', b'/', b'sub/..',
         b'sub/../../secret', b'./file')


@pytest.mark.hostile('escape-dotdot', 'escape-symlinks')
def test_names(scene):
    """No name leads out, and nothing is made outside, without a sandbox either."""
    client = scene.client
    before = sorted(os.listdir(scene.home))
    for name in NAMES:
        calls = [lambda: client.mkdir(fuse.ROOT, name + b'-new'),
                 lambda: client.create(fuse.ROOT, name + b'-new'),
                 lambda: client.symlink(fuse.ROOT, name + b'-new', b'/'),
                 lambda: client.unlink(fuse.ROOT, name),
                 lambda: client.rename(fuse.ROOT, name, fuse.ROOT, b'taken'),
                 lambda: client.lookup(fuse.ROOT, name)]
        for call in calls if b'/' in name else calls[3:]:
            with pytest.raises(fuse.FuseError) as caught:
                call()
            assert caught.value.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR,
                                          errno.EISDIR, errno.EBUSY)
    assert sorted(os.listdir(scene.home)) == before
    if scene.case.is_file:
        return
    link = client.lookup(fuse.ROOT, b'link')
    assert stat.S_ISLNK(link.attr.mode) and client.readlink(link.nodeid) == b'/secret'
    for call in (client.open, client.opendir):
        with pytest.raises(fuse.FuseError):
            call(link.nodeid)
    with pytest.raises(fuse.FuseError):
        client.lookup(link.nodeid, b'name')
