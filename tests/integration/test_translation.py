# SPDX-License-Identifier: Apache-2.0
"""Ids that are not the same in the guest and on the host. What the guest sees is compared
with a twin whose ids are the guest's; what is on the host, with the rules.
"""

import errno
import itertools
import os
import stat
import sys

import pytest

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(TESTS, 'bridge'), os.path.join(TESTS, 'support')]

import bridge as bridges  # noqa: E402
import fuse_client as fuse  # noqa: E402
import launch  # noqa: E402
from callers import make_as, natively  # noqa: E402
from frontend import Frontend  # noqa: E402

SHIFT = 100000
MAPPED = [f'--translate-{kind}=map:0:{SHIFT}:65536' for kind in ('uid', 'gid')]


def shifted(number):
    return number + SHIFT if number < 65536 else number


@pytest.fixture
def serve(start, share, scratch, extra_args):
    """serve('--option', ...): a daemon that is ready."""

    def make(*args):
        os.chmod(scratch, 0o755)
        daemon = start(launch.plain, share, scratch, [*args, *extra_args])
        daemon.wait_ready()
        return daemon

    return make


@pytest.fixture
def ask(serve):
    """ask('--option', ...): a FUSE client of such a daemon."""
    frontends = []

    def make(*args, flags=fuse.LINUX_INIT_FLAGS | 1 << 34):
        frontends.append(Frontend(serve(*args).socket_path))
        frontends[-1].start()
        client = frontends[-1].client(timeout_ms=10000)
        client.init(flags=flags)
        return client

    yield make
    for frontend in frontends:
        frontend.close()


def owner_of(path):
    found = os.lstat(path)
    return found.st_uid, found.st_gid


# ---- all that Linux does ---------------------------------------------------------------

USERS = ((0, 0, ()), (1000, 1000, ()), (1001, 1000, (77, 1002)), (70000, 70000, ()))


def work(folder):
    """Calls by several users, and what each came to."""
    seen = []

    def as_user(user, function):
        uid, gid, groups = user
        seen.append(natively(function, uid, gid, groups))

    for name, mode, uid, gid in (('open', 0o1777, 0, 0), ('group', 0o2770, 1000, 77),
                                 ('own', 0o755, 1000, 1000)):
        path = os.path.join(folder, name)
        os.mkdir(path)
        os.chown(path, uid, gid)
        os.chmod(path, mode)
        for number, user in enumerate(USERS):
            base = os.path.join(path, f'{number}')
            as_user(user, lambda: os.close(os.open(f'{base}.f', os.O_CREAT, 0o640)))
            as_user(user, lambda: os.mkdir(f'{base}.d', 0o2755))
            as_user(user, lambda: os.symlink('to', f'{base}.l'))
            as_user(user, lambda: os.mkfifo(f'{base}.p', 0o600))
        for user, number in itertools.product(USERS, range(len(USERS))):
            base = os.path.join(path, f'{number}')
            as_user(user, lambda: os.close(os.open(f'{base}.f', os.O_WRONLY)))
            as_user(user, lambda: os.chown(f'{base}.f', -1, user[1]))
            as_user(user, lambda: os.chown(f'{base}.l', 1000, 77, follow_symlinks=False))
            as_user(user, lambda: os.chmod(f'{base}.d', 0o2775))
        os.chown(f'{path}/0.p', 1003, 78)
    return seen


def tree(folder):
    return {os.path.relpath(os.path.join(path, name), folder):
            os.lstat(os.path.join(path, name))
            for path, folders, files in os.walk(folder) for name in folders + files}


def test_as_on_the_host(serve, share, scratch, build, monkeypatch):
    """Linux's own client, on a share whose ids are others."""
    monkeypatch.setenv('VIRTIOFSD_BUILD', build)
    mounted, twin = os.path.join(scratch, 'mount'), os.path.join(scratch, 'twin')
    for folder in (mounted, twin):
        os.mkdir(folder)
    os.chown(share, SHIFT, SHIFT)
    for folder in (share, twin):
        os.chmod(folder, 0o755)
    with bridges.Bridge(serve(*MAPPED).socket_path, mounted) as bridge:
        bridge.wait_mounted()
        assert work(mounted) == work(twin)
        theirs, ours, kept = tree(twin), tree(mounted), tree(share)
        assert list(theirs) == list(ours) == list(kept) and len(theirs) > 30
        for name, right in theirs.items():
            expected = right.st_mode, right.st_uid, right.st_gid
            assert (ours[name].st_mode, *owner_of(os.path.join(mounted, name))) == \
                expected, name
            assert (kept[name].st_mode, kept[name].st_uid, kept[name].st_gid) == \
                (expected[0], shifted(expected[1]), shifted(expected[2])), name
        assert bridge.unmount() == bridges.UNMOUNTED, bridge.log()


# ---- rules that Linux's idmapped mounts do not have ------------------------------------

def test_squashed(ask, share):
    """All of the guest's users are one on the host, all of the host's one in the guest,
    but for that one.
    """
    client = ask('--translate-uid=squash-guest:0:1001:4294967295',
                 '--translate-gid=squash-guest:0:1002:4294967295',
                 '--translate-uid=host:1001:0:1',
                 '--translate-uid=squash-host:0:65534:1001',
                 '--translate-uid=squash-host:1002:65534:4294966293')
    os.chmod(share, 0o777)
    os.chown(share, 1001, 1002)
    for uid in (0, 5, 1001, 4294967294):
        with client.identity(uid, uid):
            made = client.mkdir(fuse.ROOT, b'%d' % uid)
        assert owner_of(os.path.join(share, f'{uid}')) == (1001, 1002)
        assert (made.attr.uid, made.attr.gid) == (0, 1002)
        client.setattr(made.nodeid, 6, uid=uid, gid=uid)
        assert owner_of(os.path.join(share, f'{uid}')) == (1001, 1002)
    for uid in (0, 1000, 1002, 4294967294):
        os.mkdir(os.path.join(share, f'host-{uid}'))
        os.chown(os.path.join(share, f'host-{uid}'), uid, uid)
        assert client.lookup(fuse.ROOT, b'host-%d' % uid).attr.uid == 65534
    for entry in client.listdir(fuse.ROOT, plus=True):
        if entry.entry is not None and entry.entry.nodeid:
            theirs = entry.name.startswith(b'host-')
            assert entry.entry.attr.uid == (65534 if theirs else 0), entry.name


def test_forbidden(ask, share):
    """Nothing is made by, or given to, an id that the guest may not use: EPERM, and not
    the EIO that the same rule gives elsewhere. What is there can be seen.
    """
    client = ask('--translate-uid=forbid-guest:0:1000',
                 '--translate-gid=forbid-guest:0:1000')
    os.chmod(share, 0o777)

    def make(*caller):
        return make_as(client, caller, fuse.MKDIR, fuse.ROOT, bytes(8) + b'name\0').errno

    for uid, gid in ((0, 1000), (1000, 0), (999, 999)):
        assert make(uid, gid, ()) == errno.EPERM
        assert not os.listdir(share)
    assert make(1000, 1000, (5,)) == errno.EPERM
    assert make(1000, 1000, (1005,)) == 0
    node = client.lookup(fuse.ROOT, b'name').nodeid
    for valid, uid, gid in ((2, 999, 0), (4, 0, 999), (6, 0, 1000), (6, 1000, 0)):
        assert fuse.errno_of(client.setattr, node, valid, uid=uid,
                             gid=gid) == errno.EPERM
    assert owner_of(os.path.join(share, 'name')) == (1000, 1000)
    os.chown(os.path.join(share, 'name'), 7, 8)
    attr = client.getattr(node)
    assert (attr.uid, attr.gid) == (7, 8)


def test_statx(ask, share):
    """STATX has its own place for owners."""
    client = ask('--translate-uid=host:3:33:1', '--translate-gid=squash-host:0:44:9')
    path = os.path.join(share, 'file')
    with open(path, 'wb'):
        os.chown(path, 3, 4)
    node = client.lookup(fuse.ROOT, b'file').nodeid
    body = bytes(16) + (0).to_bytes(4, 'little') + (0xfff).to_bytes(4, 'little')
    statx = client.call(52, node, body)[32:]
    assert int.from_bytes(statx[20:24], sys.byteorder) == 33
    assert int.from_bytes(statx[24:28], sys.byteorder) == 44


def test_guests_root(ask, share):
    """It makes what it likes where it likes, with an owner that is nobody on the host."""
    client = ask(*MAPPED)
    os.mkdir(os.path.join(share, 'home'))
    os.chown(os.path.join(share, 'home'), SHIFT + 1000, SHIFT + 1000)
    os.chmod(os.path.join(share, 'home'), 0o700)
    home = client.lookup(fuse.ROOT, b'home').nodeid
    made = client.mkdir(home, b'roots')
    assert (made.attr.uid, made.attr.gid) == (0, 0)
    assert owner_of(os.path.join(share, 'home', 'roots')) == (SHIFT, SHIFT)
    node = client.mknod(fuse.ROOT, b'null', stat.S_IFCHR | 0o600, 0x103)
    assert (node.attr.uid, node.attr.rdev) == (0, 0x103)


# ---- command line ----------------------------------------------------------------------

@pytest.mark.hostile('peer-start-words')
@pytest.mark.parametrize('args, said', [
    (['--translate-uid=map:0:1'], "--translate-uid=map:0:1: character 8: the count is"),
    (['--translate-gid=squash:0:1:2'], 'character 1: the kind of rule must be one of'),
    (['--translate-uid=forbid-guest:5:4294967295'], 'character 14: the highest id is'),
    (['--translate-uid=map:0:1:5', '--translate-uid=guest:4:9:1'],
     '--translate-uid=guest:4:9:1: character 7: an earlier rule translates 0 to 4'),
    (['--translate-gid=map:0:1:5', '--posix-acl'], '--posix-acl and --translate-uid or'),
    (['--translate-uid=map:0:1:5', '--posix-acl=auto'], 'exclude each other'),
])
def test_refused(start, share, scratch, args, said):
    daemon = start(launch.plain, share, scratch, args)
    assert daemon.wait() == 2
    assert said in daemon.said()
