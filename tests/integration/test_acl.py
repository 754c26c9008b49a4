# SPDX-License-Identifier: Apache-2.0
"""Access control lists: kept and handed down by the host, heeded by the guest's kernel,
as if there were no machine in between.
"""

import contextlib
import errno
import itertools
import os
import stat
import struct

import pytest

import fuse_client as fuse
import launch
import twin

ACCESS, DEFAULT = 'system.posix_acl_access', 'system.posix_acl_default'
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
NOBODY = 0xFFFFFFFF
# What must be had whole.
FLAGS = {'POSIX_ACL': 1 << 20, 'DONT_MASK': 1 << 6, 'SETXATTR_EXT': 1 << 29}
KILL_SGID = 1


def acl(*entries):
    """An attribute's value; an entry is (tag, permissions) or (tag, permissions, id)."""
    value = struct.pack('=I', 2)
    for tag, permissions, *who in entries:
        value += struct.pack('=HHI', tag, permissions, who[0] if who else NOBODY)
    return value


def shared_with(uid, permissions=7, mask=7, other=0):
    return acl((USER_OBJ, 7), (USER, permissions, uid), (GROUP_OBJ, 5), (MASK, mask),
               (OTHER, other))


LISTS = {
    'user': shared_with(1001), 'masked': shared_with(1001, 7, 4),
    'group': acl((USER_OBJ, 6), (GROUP_OBJ, 0), (GROUP, 6, 77), (MASK, 6), (OTHER, 4)),
    'plain': acl((USER_OBJ, 7), (GROUP_OBJ, 5), (OTHER, 1)),
    'closed': acl((USER_OBJ, 0), (USER, 0, 1001), (GROUP_OBJ, 7), (GROUP, 7, 77),
                  (MASK, 7), (OTHER, 7)),
}
CALLERS = ((0, 0, ()), (1000, 1000, ()), (1001, 1001, ()), (1002, 1002, (77,)),
           (1003, 1003, ()))


# ---- calls, the first argument is the folder ------------------------------------------

def set_list(folder, name, which, value):
    os.setxattr(os.path.join(folder, name), which, value, follow_symlinks=False)


def get_list(folder, name, which):
    return os.getxattr(os.path.join(folder, name), which, follow_symlinks=False)


def all_lists(folder, name):
    path = os.path.join(folder, name)
    return {which: os.getxattr(path, which, follow_symlinks=False)
            for which in os.listxattr(path, follow_symlinks=False)}


def mode_of(folder, name):
    found = os.lstat(os.path.join(folder, name))
    return found.st_mode, found.st_uid, found.st_gid


def make(folder, name, kind, mode, umask):
    """A new file, and what became of it."""
    path = os.path.join(folder, name)
    before = os.umask(umask)
    try:
        make_one(folder, path, kind, mode)
    finally:
        os.umask(before)


def make_one(folder, path, kind, mode):
    if kind == 'file':
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode))
    elif kind == 'folder':
        os.mkdir(path, mode)
    elif kind == 'fifo':
        os.mkfifo(path, mode)
    elif kind == 'socket':
        os.mknod(path, stat.S_IFSOCK | mode)
    elif kind == 'nameless':
        fd = os.open(folder, os.O_TMPFILE | os.O_RDWR, mode)
        os.link(f'/proc/self/fd/{fd}', path, src_dir_fd=fd, follow_symlinks=True)
        os.close(fd)
    else:
        os.symlink('to', path)


def use(folder, name):
    """[what of it the caller may do, ...]"""
    path = os.path.join(folder, name)
    found = []
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_TRUNC):
        with contextlib.suppress(OSError):
            os.close(os.open(path, flags))
            found.append(flags)
    return found, [os.access(path, mode) for mode in range(8)]


def walk(folder, name):
    """The same for a folder."""
    path = os.path.join(folder, name)

    def step():
        os.close(os.open(os.path.join(path, 'new'), os.O_CREAT | os.O_WRONLY))
        os.unlink(os.path.join(path, 'new'))
        return True

    return (twin.outcome(os.listdir, path), twin.outcome(step),
            twin.outcome(os.path.exists, os.path.join(path, 'inside')))


def new_file(folder, name, mode, uid=1000, gid=1000):
    path = os.path.join(folder, name)
    with open(path, 'wb'):
        pass
    os.chown(path, uid, gid)
    os.chmod(path, mode)


def new_folder(folder, name, mode, gid=1000):
    path = os.path.join(folder, name)
    os.mkdir(path)
    with open(os.path.join(path, 'inside'), 'wb'):
        pass
    os.chown(path, 1000, gid)
    os.chmod(path, mode)


@pytest.fixture
def twins(bridged, share, scratch):
    os.chmod(scratch, 0o755)
    theirs = os.path.join(scratch, 'twin')
    os.mkdir(theirs)
    for folder in (share, theirs):
        os.chmod(folder, 0o777)
    return twin.Twins(bridged('--posix-acl'), theirs)


# ---- as on the host -------------------------------------------------------------------

def test_who_may_what(twins):
    for what, value in LISTS.items():
        twins.make(new_file, what, 0o640)
        twins.make(new_folder, f'd{what}', 0o750)
        assert twins.check(set_list, what, ACCESS, value)[0] == 'returned'
        twins.check(set_list, f'd{what}', ACCESS, value)
        for name in (what, f'd{what}'):
            twins.check(mode_of, name)
            twins.check(all_lists, name)
        for caller in CALLERS:
            twins.check(use, what, caller=caller)
            twins.check(use, f'd{what}', caller=caller)
            twins.check(walk, f'd{what}', caller=caller)


def chmod(folder, name, mode):
    os.chmod(os.path.join(folder, name), mode)


def test_chmod_and_lists(twins):
    """The mode's group bits are the mask's, either way."""
    twins.make(new_file, 'file', 0o640)
    for value, mode in itertools.product(LISTS.values(), (0o600, 0o777, 0o640, 0o2755)):
        twins.check(set_list, 'file', ACCESS, value)
        twins.check(mode_of, 'file')
        twins.check(chmod, 'file', mode)
        twins.check(mode_of, 'file')
        twins.check(all_lists, 'file')
        twins.check(use, 'file', caller=CALLERS[2])


@pytest.mark.parametrize('kind', ['file', 'folder', 'fifo', 'socket', 'link', 'nameless'])
def test_handed_down(twins, kind):
    """What is made gets the folder's default list instead of the caller's umask."""
    number = 0
    for what, value in (*LISTS.items(), ('none', None)):
        folder = f'folder-{what}'
        twins.make(new_folder, folder, 0o2777, 77)
        if value:
            assert twins.check(set_list, folder, DEFAULT, value)[0] == 'returned'
            twins.check(all_lists, folder)
        for mode, umask, caller in itertools.product(
                (0o666, 0o2755, 0o640), (0, 0o027), CALLERS[:2]):
            number += 1
            name = f'{folder}/{number}'
            if kind == 'nameless':
                name = f'{number}'
                found = twins.check(make_nameless, folder, name, mode, umask,
                                    caller=caller, what=(what, oct(mode), oct(umask)))
                name = f'{folder}/{number}'
            else:
                found = twins.check(make, name, kind, mode, umask, caller=caller,
                                    what=(what, oct(mode), oct(umask)))
            assert found == ('returned', None)
            twins.check(mode_of, name, what=(what, oct(mode), oct(umask), caller))
            twins.check(all_lists, name, what=(what, oct(mode), oct(umask), caller))


def make_nameless(top, folder, name, mode, umask):
    make(os.path.join(top, folder), name, 'nameless', mode, umask)


def test_set_group_id_goes(twins):
    """Who is not in the file's group cannot keep the bit by setting a list."""
    callers = ((0, 0, ()), (1000, 1000, ()), (1000, 1000, (77,)), (1000, 77, ()))
    for number, (caller, what, which) in enumerate(itertools.product(
            callers, LISTS, (ACCESS, DEFAULT))):
        for mode in (0o2755, 0o6745):
            name = f'{number}-{mode}'
            twins.make(new_file, name, mode, 1000, 77)
            twins.make(new_folder, f'd{name}', mode, 77)
            for one in (name, f'd{name}'):
                twins.check(set_list, one, which, LISTS[what], caller=caller,
                            what=(what, oct(mode)))
                twins.check(mode_of, one, what=(what, caller, oct(mode)))


WRONG = {
    'empty': b'', 'head': struct.pack('=I', 2), 'version': struct.pack('=I', 1),
    'cut': LISTS['user'][:-1], 'no mask': acl((USER_OBJ, 7), (USER, 7, 5), (GROUP_OBJ, 7),
                                              (OTHER, 0)),
    'no other': acl((USER_OBJ, 7), (GROUP_OBJ, 7)), 'tag': acl((3, 7)),
    'order': acl((OTHER, 7), (GROUP_OBJ, 7), (USER_OBJ, 7)),
    'permissions': acl((USER_OBJ, 255), (GROUP_OBJ, 7), (OTHER, 7)),
    'nobody': shared_with(NOBODY),
    'long': acl((USER_OBJ, 7), *[(USER, 7, 1000 + i) for i in range(500)],
                (GROUP_OBJ, 7), (MASK, 7), (OTHER, 0)),
}


def remove_list(folder, name, which):
    os.removexattr(os.path.join(folder, name), which, follow_symlinks=False)


def test_what_is_refused(twins):
    twins.make(new_file, 'file', 0o644)
    twins.make(new_folder, 'folder', 0o755)
    for name in ('link', 'fifo', 'socket'):
        twins.make(make, name, name, 0o644, 0)
    for name in ('file', 'folder', 'link', 'fifo', 'socket'):
        for which in (ACCESS, DEFAULT):
            twins.check(get_list, name, which)
            for value in (*WRONG.values(), LISTS['user']):
                twins.check(set_list, name, which, value, what=(name, which))
                twins.check(set_list, name, which, value, caller=CALLERS[3])
                twins.check(mode_of, name)
            twins.check(get_list, name, which)
            twins.check(remove_list, name, which, caller=CALLERS[3])
            twins.check(remove_list, name, which)
            twins.check(remove_list, name, which)
            twins.check(mode_of, name)


def test_what_fuse_cannot(twins):
    """FUSE clients send no list of more than a page, whatever the host would say."""
    twins.make(new_file, 'file', 0o644)
    value = acl((USER_OBJ, 7), *[(USER, 7, 1000 + i) for i in range(7000)],
                (GROUP_OBJ, 7), (MASK, 7), (OTHER, 0))
    ours, theirs = (twin.outcome(set_list, folder, 'file', ACCESS, value)
                    for folder in (twins.ours, twins.theirs))
    assert ours == ('failed', errno.E2BIG)
    assert theirs != ours


# ---- what was agreed ------------------------------------------------------------------

def set_long(client, node, name, value, flags=0):
    """SETXATTR as it is sent where lists are agreed."""
    body = struct.pack('=IIII', len(value), 0, flags, 0) + name.encode() + b'\0' + value
    return client.send(fuse.SETXATTR, node, body).errno


def test_kill_sgid_is_obeyed(serve, share):
    """The guest says that its caller may not keep the bit; the daemon itself may."""
    new_file(share, 'file', 0o755, 1000, 77)
    client = serve('--posix-acl').client
    node = client.lookup(fuse.ROOT, b'file').nodeid
    for flags, expected in ((0, 0o2770), (KILL_SGID, 0o770)):
        os.chmod(os.path.join(share, 'file'), 0o2755)
        assert set_long(client, node, ACCESS, LISTS['user'], flags) == 0
        assert stat.S_IMODE(os.stat(os.path.join(share, 'file')).st_mode) == expected
    os.chmod(os.path.join(share, 'file'), 0o2755)
    assert set_long(client, node, 'user.a', b'', KILL_SGID) == 0
    assert os.stat(os.path.join(share, 'file')).st_mode & stat.S_ISGID


@pytest.mark.parametrize('missing', ['nothing', *FLAGS])
@pytest.mark.parametrize('mode', ['never', 'auto', 'always'])
def test_all_or_nothing(serve, share, mode, missing):
    """Lists take three capabilities; with one of them missing there are none, or the
    guest does not get its mount.
    """
    set_list(share, '.', ACCESS, LISTS['user'])
    flags = fuse.LINUX_INIT_FLAGS & ~FLAGS.get(missing, 0)
    if mode == 'always' and missing != 'nothing':
        with pytest.raises(fuse.FuseError) as refusal:
            serve('--posix-acl=always', flags=flags)
        assert refusal.value.errno == errno.EPROTO
        return
    guest = serve('--xattr', f'--posix-acl={mode}', flags=flags)
    client, everything = guest.client, sum(FLAGS.values())
    on = mode != 'never' and missing == 'nothing'
    assert guest.agreed & everything == (everything if on else 0)
    body = struct.pack('=II', 4096, 0)
    assert client.call(fuse.LISTXATTR, fuse.ROOT, body) == (
        f'{ACCESS}\0'.encode() if on else b'')
    assert client.listxattr(fuse.ROOT, 0) == (len(ACCESS) + 1 if on else 0)
    reply = client.send(fuse.GETXATTR, fuse.ROOT, body + ACCESS.encode() + b'\0')
    assert (reply.errno, reply.payload) == (
        (0, LISTS['user']) if on else (errno.EOPNOTSUPP, b''))
    removed = client.send(fuse.REMOVEXATTR, fuse.ROOT, ACCESS.encode() + b'\0')
    assert removed.errno == (0 if on else errno.EOPNOTSUPP)
    if not on:
        # Only these names, not all that begin, or that they begin with.
        for name in ('s', 'system.posix_acl_acces', 'user.a'):
            client.send(fuse.GETXATTR, fuse.ROOT, body + name.encode() + b'\0')
        client.setxattr(fuse.ROOT, b'user.system.posix_acl_access', b'x')
        assert client.listxattr(fuse.ROOT) == [b'user.system.posix_acl_access']


@pytest.mark.parametrize('flags, agreed', [(0, False), (fuse.LINUX_INIT_FLAGS, True)])
def test_umask(serve, share, flags, agreed):
    """It is the daemon's to apply only if that is agreed: else the guest's kernel has."""
    client = serve('--posix-acl=auto', flags=flags).client
    mode = client.mkdir(fuse.ROOT, b'folder', 0o777, umask=0o077).attr.mode
    assert stat.S_IMODE(mode) == (0o700 if agreed else 0o777)
    os.setxattr(share, DEFAULT, LISTS['user'])
    mode = client.mkdir(fuse.ROOT, b'other', 0o777, umask=0o077).attr.mode
    assert stat.S_IMODE(mode) == 0o770


@pytest.mark.parametrize('rules', [':map::user.v.:', ':bad:all:system.::/ok/all///'])
def test_rules_that_take_the_names(start, share, scratch, rules):
    """The host would not heed a list under another name."""
    daemon = start(launch.plain, share, scratch, [f'--xattrmap={rules}', '--posix-acl'])
    assert daemon.wait() == 2
    assert daemon.said().startswith('virtiofsd: --posix-acl=always and --xattrmap: ')


def test_rules_that_leave_the_names(serve, share):
    guest = serve('--xattrmap=:map:security.:user.v.:', '--posix-acl')
    assert set_long(guest.client, fuse.ROOT, ACCESS, LISTS['user']) == 0
    assert os.getxattr(share, ACCESS) == LISTS['user']
