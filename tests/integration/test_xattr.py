# SPDX-License-Identifier: Apache-2.0
"""Extended attributes: what a program sees of them is what it sees on the host's own file
system, under any rules that rename them.
"""

import ctypes
import errno
import itertools
import mmap
import os
import random
import stat
import struct

import pytest

import fuse_client as fuse
import launch
import twin

PRIVILEGED = '--modcaps=+sys_admin'
KINDS = ('file', 'folder', 'link', 'dangling', 'fifo', 'socket', 'chr', 'blk')
ROOT, OWNER, STRANGER = (0, 0, ()), (1000, 1000, ()), (1001, 1001, ())
CAPABILITY = 'security.capability'
# CAP_NET_RAW, effective: version 2.
NET_RAW = struct.pack('=IIIII', 0x02000001, 1 << 13, 0, 0, 0)
CREATE, REPLACE = 1, 2

libc = ctypes.CDLL(None, use_errno=True)
libc.lgetxattr.restype = libc.llistxattr.restype = ctypes.c_ssize_t


# ---- calls, the first argument is the folder ------------------------------------------

def make_kinds(folder):
    """One file of each kind, of the owner's."""
    paths = [os.path.join(folder, kind) for kind in KINDS]
    with open(paths[0], 'wb') as file:
        file.write(b'content')
    os.chmod(paths[0], 0o644)
    os.mkdir(paths[1])
    os.chmod(paths[1], 0o755)
    os.symlink('file', paths[2])
    os.symlink('nowhere', paths[3])
    os.mkfifo(paths[4], 0o644)
    os.mknod(paths[5], stat.S_IFSOCK | 0o644)
    os.mknod(paths[6], stat.S_IFCHR | 0o644, os.makedev(1, 3))
    os.mknod(paths[7], stat.S_IFBLK | 0o644, os.makedev(7, 1))
    for path in paths:
        os.chown(path, 1000, 1000, follow_symlinks=False)


def set_attribute(folder, name, attribute, value, flags=0):
    os.setxattr(os.path.join(folder, name), attribute, value, flags,
                follow_symlinks=False)


def get_attribute(folder, name, attribute):
    return os.getxattr(os.path.join(folder, name), attribute, follow_symlinks=False)


def remove_attribute(folder, name, attribute):
    os.removexattr(os.path.join(folder, name), attribute, follow_symlinks=False)


def chown(folder, name):
    os.chown(os.path.join(folder, name), 1000, 1000, follow_symlinks=False)


def list_attributes(folder, name):
    return sorted(os.listxattr(os.path.join(folder, name), follow_symlinks=False))


def sized(folder, name, attribute, size):
    """lgetxattr, or llistxattr without an attribute: (result, bytes)."""
    path = os.fsencode(os.path.join(folder, name))
    room = ctypes.create_string_buffer(max(size, 1))
    if attribute is None:
        result = libc.llistxattr(path, room, ctypes.c_size_t(size))
    else:
        result = libc.lgetxattr(path, attribute.encode(), room, ctypes.c_size_t(size))
    if result < 0:
        raise OSError(ctypes.get_errno(), 'sized')
    content = room.raw[:result] if size else b''
    return result, content if attribute else sorted(content.split(b'\0'))


@pytest.fixture
def twins(bridged, share, scratch):
    """twins(option...): the share, mounted, and a folder beside it that is not."""

    def make(*options):
        os.chmod(scratch, 0o755)
        theirs = os.path.join(scratch, 'twin')
        os.mkdir(theirs)
        return twin.Twins(bridged(*options), theirs)

    return make


# ---- as on the host -------------------------------------------------------------------

LONG = 'user.' + 'n' * 250
NAMES = ('user.a', LONG, LONG + 'n', 'user.', 'user', 'a', '', '.', 'user.\u00e9 \n',
         'trusted.a', 'trusted.overlay.opaque', 'security.selinux', 'security.ima2',
         'security.', 'system.a', 'system.posix_acl', 'nothing.a', 'USER.a', 'os2.a',
         'btrfs.compression', 'user.virtiofs.a')


STEPS = (
    (get_attribute,), (set_attribute, b'value', REPLACE),
    (set_attribute, b'value', CREATE), (set_attribute, b'value', CREATE),
    (set_attribute, b'other', REPLACE), (set_attribute, b''), (get_attribute,),
    (set_attribute, b'more', CREATE | REPLACE), (set_attribute, b'more', 4),
    (remove_attribute,), (remove_attribute,),
)


def try_all(folder, kind):
    """[what came of it, ...] of each step with each name, and of the list after it."""
    found = []
    for name, (function, *args) in itertools.product(NAMES, STEPS):
        found.append((name, function.__name__, args,
                      twin.outcome(function, folder, kind, name, *args)))
        if os.geteuid() == 0:
            found.append(twin.outcome(list_attributes, folder, kind))
    return found


@pytest.mark.parametrize('caller', [ROOT, OWNER, STRANGER],
                         ids=['root', 'owner', 'other'])
def test_every_kind_and_name(twins, caller):
    pair = twins('--xattr', PRIVILEGED)
    pair.make(make_kinds)
    codes = set()
    for kind in KINDS:
        for found in pair.check(try_all, kind, caller=caller, what=kind)[1]:
            if found[1] == 'set_attribute':
                codes.add(found[3][1])
    assert {errno.EOPNOTSUPP, errno.ERANGE, errno.EPERM} <= codes
    assert (None in codes) == (caller != STRANGER)


def test_sizes(twins):
    """Lengths asked for with size 0, room that is just enough, and a byte too little."""
    pair = twins('--xattr', PRIVILEGED)
    pair.make(make_kinds)
    for kind in KINDS:
        pair.check(sized, kind, None, 0)
        for number, length in enumerate((0, 1, 17, 255, 900)):
            name = f'trusted.{"n" * number}'
            pair.check(set_attribute, kind, name, b'v' * length)
            for size in (0, 1, length - 1, length, length + 1, 65536):
                if size >= 0:
                    pair.check(sized, kind, name, size)
            total = pair.check(sized, kind, None, 0)[1][0]
            for size in (1, total - 1, total, total + 1, 65536):
                pair.check(sized, kind, None, size)


def test_large_values(twins, share):
    """Up to what the host's file system takes, and beyond what Linux takes."""
    pair = twins('--xattr')
    pair.make(make_kinds)
    for length in (3000, 4000, 4096, 20000, 65535, 65536, 65537, 100000):
        pair.check(set_attribute, 'file', 'user.large', b'v' * length)
        pair.check(get_attribute, 'file', 'user.large')
        pair.check(remove_attribute, 'file', 'user.large')


def test_many_names(twins):
    pair = twins('--xattr')
    pair.make(make_kinds)
    for number in range(200):
        pair.check(set_attribute, 'file', f'user.{number}', b'')
    pair.check(list_attributes, 'file')
    for number in random.Random(1).sample(range(200), 150):
        pair.check(remove_attribute, 'file', f'user.{number}')
    pair.check(list_attributes, 'file')


# ---- file capabilities ----------------------------------------------------------------

def append(folder):
    with open(os.path.join(folder, 'file'), 'ab') as file:
        file.write(b'more')


def write_at(folder):
    fd = os.open(os.path.join(folder, 'file'), os.O_WRONLY)
    os.pwrite(fd, b'more', 2)
    os.close(fd)


def allocate(folder):
    fd = os.open(os.path.join(folder, 'file'), os.O_WRONLY)
    os.posix_fallocate(fd, 0, 100)
    os.close(fd)


def copy_range(folder):
    source = os.open(os.path.join(folder, 'source'), os.O_RDWR | os.O_CREAT)
    os.write(source, b'source')
    target = os.open(os.path.join(folder, 'file'), os.O_WRONLY)
    try:
        return os.copy_file_range(source, target, 5, 0, 0)
    finally:
        os.close(source)
        os.close(target)


CHANGES = {
    'append': append, 'write': write_at, 'allocate': allocate,
    'copy': copy_range,
    'truncate': lambda folder: os.truncate(os.path.join(folder, 'file'), 3),
    'open': lambda folder: os.close(
        os.open(os.path.join(folder, 'file'), os.O_WRONLY | os.O_TRUNC)),
    'create': lambda folder: os.close(
        os.open(os.path.join(folder, 'file'), os.O_WRONLY | os.O_TRUNC | os.O_CREAT)),
    'chown': lambda folder: os.chown(os.path.join(folder, 'file'), 5, -1),
    'chgrp': lambda folder: os.chown(os.path.join(folder, 'file'), -1, 5),
    'chmod': lambda folder: os.chmod(os.path.join(folder, 'file'), 0o711),
    'utime': lambda folder: os.utime(os.path.join(folder, 'file'), (1, 1)),
    'rename': lambda folder: os.rename(os.path.join(folder, 'file'),
                                       os.path.join(folder, 'file')),
    'read': lambda folder: twin.content(os.path.join(folder, 'file')),
}


def new_file(folder):
    path = os.path.join(folder, 'file')
    if os.path.exists(path):
        os.unlink(path)
    with open(path, 'wb') as file:
        file.write(b'content')
    os.setxattr(path, 'user.other', b'stays')


@pytest.mark.hostile('setid-capabilities')
@pytest.mark.parametrize('rules', ['', ':map::user.virtiofs.:',
                                   ':map:security.:trusted.v.:'],
                         ids=['plain', 'user', 'trusted'])
@pytest.mark.parametrize('killpriv', ['--killpriv-v2', '--no-killpriv-v2'])
def test_capabilities_go(twins, share, rules, killpriv):
    """A program that is changed has no more capabilities, whatever they are called on
    the host (CVE-2021-20263).
    """
    options = [f'--xattrmap={rules}'] if rules else ['--xattr']
    pair = twins(*options, PRIVILEGED, killpriv)
    for what, change in CHANGES.items():
        pair.make(new_file)
        for _ in range(2):
            pair.make(set_attribute, 'file', CAPABILITY, NET_RAW)
            pair.check(change, what=what)
            found = pair.check(get_attribute, 'file', CAPABILITY, what=what)
            assert (found == ('failed', errno.ENODATA)) == (
                what not in ('chmod', 'utime', 'rename', 'read')), what
        pair.check(get_attribute, 'file', 'user.other', what=what)
        on_host = list_attributes(share, 'file')
        assert not any(CAPABILITY in name for name in on_host) or what in (
            'chmod', 'utime', 'rename', 'read')


def store_through_memory(folder):
    with open(os.path.join(folder, 'file'), 'r+b') as file:
        with mmap.mmap(file.fileno(), 0) as memory:
            memory[0] = 65
            memory.flush()


def test_what_fuse_cannot(twins, share):
    """The exceptions that HACKING lists; should one of them go, so does its line."""
    pair = twins('--xattr', PRIVILEGED)
    pair.make(new_file)
    pair.make(set_attribute, 'file', 'trusted.a', b'')
    pair.make(chown, 'file')
    ours, theirs = (twin.outcome_as(OWNER, list_attributes, folder, 'file')
                    for folder in (pair.ours, pair.theirs))
    assert ours == ('returned', ['trusted.a', 'user.other'])
    assert theirs == ('returned', ['user.other'])
    pair.make(set_attribute, 'file', CAPABILITY, NET_RAW)
    pair.check(store_through_memory)
    assert twin.outcome(get_attribute, pair.theirs, 'file', CAPABILITY)[0] == 'returned'
    assert twin.outcome(get_attribute, pair.ours, 'file', CAPABILITY) == (
        'failed', errno.ENODATA)


# ---- rules ----------------------------------------------------------------------------

def store(client, node, names):
    for name in names:
        client.setxattr(node, name, b'of ' + name)


def check_list(client, node, names):
    """The list, and its length asked for beforehand: they agree to the byte."""
    length = sum(len(name) + 1 for name in names)
    assert client.listxattr(node, 0) == length
    payload = client.call(fuse.LISTXATTR, node, struct.pack('=II', 65536, 0))
    assert sorted(payload.split(b'\0')[:-1]) == sorted(names)
    assert len(payload) == length
    if length > 0:
        assert client.listxattr(node, length)
        assert fuse.errno_of(client.listxattr, node, length - 1) == errno.ERANGE
    else:
        assert payload == b''  # and not a NUL


RULES = (
    # rules, what is set, what the host has, what of the host's is shown
    (':map::user.v.:', [b'user.a', b'security.b', b'trusted.c', b'anything'],
     ['user.v.user.a', 'user.v.security.b', 'user.v.trusted.c', 'user.v.anything'], []),
    (':map:trusted.:user.v.:', [b'trusted.c', b'user.a'],
     ['user.v.trusted.c', 'user.a'], [b'user.host']),
    (':prefix:all:trusted.:user.v.::bad:all:user.v.:trusted.::ok:all:::',
     [b'trusted.c', b'user.a'], ['user.v.trusted.c', 'user.a'], [b'user.host']),
    ('/prefix/client/security./trusted./ #prefix#server##trusted.#\n\t'
     '|ok|all|||', [b'security.b'], ['trusted.security.b'], [b'user.host']),
    (':ok:all:user.:user.::bad:all:::', [b'user.a'], ['user.a'], [b'user.host']),
    (':unsupported:server:x:user.::ok:all:::', [b'user.a'], ['user.a'], []),
)


@pytest.mark.parametrize('rules, names, on_host, shown', RULES)
def test_rules(serve, share, rules, names, on_host, shown):
    with open(os.path.join(share, 'file'), 'wb'):
        pass
    os.setxattr(os.path.join(share, 'file'), 'user.host', b'')
    client = serve(f'--xattrmap={rules}', PRIVILEGED).client
    node = client.lookup(fuse.ROOT, b'file').nodeid
    check_list(client, node, shown)
    store(client, node, names)
    assert list_attributes(share, 'file') == sorted([*on_host, 'user.host'])
    hidden = [] if shown or 'unsupported' not in rules else names
    check_list(client, node, [name for name in names if name not in hidden] + shown)
    for name in names:
        assert client.getxattr(node, name) == b'of ' + name
        assert client.getxattr(node, name, 0) == len(b'of ' + name)
        client.removexattr(node, name)
        assert fuse.errno_of(client.getxattr, node, name) == errno.ENODATA
    check_list(client, node, shown)


def test_refusing_rules(serve, share):
    with open(os.path.join(share, 'file'), 'wb'):
        pass
    client = serve('--xattrmap=:map:trusted.:user.v.:').client
    node = client.lookup(fuse.ROOT, b'file').nodeid
    store(client, node, [b'trusted.a'])
    for name in (b'user.v.', b'user.v.trusted.a', b'user.v.else'):
        assert fuse.errno_of(client.setxattr, node, name, b'x') == errno.EPERM
        assert fuse.errno_of(client.removexattr, node, name) == errno.EPERM
        assert fuse.errno_of(client.getxattr, node, name) == errno.ENODATA
        assert fuse.errno_of(client.getxattr, node, name, 0) == errno.ENODATA
    assert list_attributes(share, 'file') == ['user.v.trusted.a']
    for length in (244, 255):
        name = b'trusted.' + b'n' * (length - 8)
        fits = length + len('user.v.') <= 255
        assert fuse.errno_of(client.setxattr, node, name, b'x') == (0 if fits else
                                                              errno.ERANGE)


def test_unsupporting_rules(serve, share):
    os.setxattr(share, 'user.no', b'')
    client = serve('--xattrmap=:unsupported:all:user.no:user.no::ok:all:::').client
    assert fuse.errno_of(client.setxattr, fuse.ROOT, b'user.no', b'x') == errno.EOPNOTSUPP
    assert fuse.errno_of(client.getxattr, fuse.ROOT, b'user.no') == errno.EOPNOTSUPP
    assert fuse.errno_of(client.removexattr, fuse.ROOT, b'user.no') == errno.EOPNOTSUPP
    check_list(client, fuse.ROOT, [])


# Rules that do not end, or say nothing about some names, must not be found out when the
# guest asks; (rules, rule, character).
UNFINISHED = (
    (' ', 0, 2), (':', 1, 2), ('x', 1, 2), (':ok', 1, 2), (':ok:', 1, 5),
    (':ok:all', 1, 5), (':ok:all::', 1, 10), (':ok:all:k:p', 1, 11),
    (':OK:all:::', 1, 2), (':ok:al:::', 1, 5), (':ok:all:::x', 2, 12),
    (':ok:all:::\n :map::p', 2, 19), (':map::p::ok:all:::', 1, 9),
    (':ok:client::: :prefix:server:x:user.:', 2, 38),
    (':ok:server::: :bad:client:user.::', 2, 34), (':prefix:all:user.:user.v.:', 1, 27),
    (':ok:all:::' * 257, 257, 2561), (f':map:{"k" * 256}:p:', 1, 6),
)


@pytest.mark.hostile('peer-start-words')
@pytest.mark.parametrize('spelling', ['--xattrmap=', '-oxattrmap='])
@pytest.mark.parametrize('rules, rule, character', UNFINISHED)
def test_unfinished_rules(start, share, scratch, spelling, rules, rule, character):
    daemon = start(launch.plain, share, scratch, [spelling + rules])
    assert daemon.wait() == 2
    said = daemon.said()
    assert said.count('\n') == 1
    assert f': rule {rule}, character {character}: ' in said, said


def test_names_from_a_hostile_guest(serve, share):
    """Whatever it asks for, it is answered, and the daemon is there afterwards."""
    guest = serve('--xattrmap=:prefix:all:trusted.:user.v.::bad:all:user.v.:::ok:all:::')
    client, generator = guest.client, random.Random(7)
    pieces = (b'trusted.', b'user.v.', b'user.', b'security.', b'\xff', b'a', b'/', b'%s',
              b'n' * 100, b'system.posix_acl_access', b'.', b'\n')
    for _ in range(3000):
        name = b''.join(generator.choices(pieces, k=generator.randrange(5)))
        for reply in (
                client.send(fuse.GETXATTR, fuse.ROOT,
                            struct.pack('=II', generator.choice((0, 1, 65536)), 0)
                            + name + b'\0'),
                client.send(fuse.SETXATTR, fuse.ROOT,
                            struct.pack('=II', 1, generator.randrange(8))
                            + name + b'\0x'),
                client.send(fuse.REMOVEXATTR, fuse.ROOT, name + b'\0'),
                client.send(fuse.LISTXATTR, fuse.ROOT, struct.pack('=II', 65536, 0))):
            assert reply.is_well_formed
    assert guest.daemon.is_alive()


# ---- without them ---------------------------------------------------------------------

ALL_FOUR = (
    (fuse.SETXATTR, struct.pack('=II', 1, 0) + b'user.a\0x'),
    (fuse.GETXATTR, struct.pack('=II', 100, 0) + b'user.a\0'),
    (fuse.LISTXATTR, struct.pack('=II', 100, 0)), (fuse.REMOVEXATTR, b'user.a\0'),
)


@pytest.mark.parametrize('options', [[], ['--xattr', '-o', 'no_xattr'],
                                     ['--posix-acl=never', '--security-label=never']])
def test_off(serve, share, options):
    """Linux asks once, and no more."""
    os.setxattr(share, 'user.a', b'')
    client = serve(*options).client
    for opcode, body in ALL_FOUR:
        assert client.send(opcode, fuse.ROOT, body).errno == errno.ENOSYS
    assert os.listxattr(share) == ['user.a']


@pytest.mark.parametrize('options', [
    ['--xattr'], ['-o', 'xattr'], ['-o', 'cache=auto,xattr'],
    ['--security-label=auto'], ['-o', 'xattrmap=:ok:all:::'],
    ['--xattrmap', ':ok:all:::']])
def test_on(serve, options):
    client = serve(*options).client
    client.setxattr(fuse.ROOT, b'user.a', b'value')
    assert client.getxattr(fuse.ROOT, b'user.a') == b'value'


@pytest.mark.parametrize('how', [launch.kata_go, launch.kata_rs])
def test_kata(start, share, scratch, extra_args, connect, how):
    """Both runtimes put --xattr behind all else, for a guest with SELinux."""
    daemon = start(how, share, scratch, [*extra_args, '--xattr'])
    if daemon.reader:
        daemon.wait_ready()  # the other's socket listens before there is a daemon
    client = connect(daemon).client
    client.setxattr(fuse.ROOT, b'user.a', b'value')
    assert os.getxattr(share, 'user.a') == b'value'


@pytest.fixture
def without(share, scratch):
    """Two folders on ramfs, which has no attributes: the share, and one beside it."""
    theirs = os.path.join(scratch, 'twin')
    os.mkdir(theirs)
    for folder in (share, theirs):
        assert libc.mount(b'none', os.fsencode(folder), b'ramfs', 0, None) == 0
    yield theirs
    for folder in (share, theirs):
        libc.umount2(os.fsencode(folder), 2)


def test_file_system_without(without, bridged):
    """So says the host, and so says the share."""
    pair = twin.Twins(bridged('--xattr', PRIVILEGED), without)
    pair.make(make_kinds)
    for kind, name in itertools.product(KINDS, ('user.a', 'trusted.a', 'security.a')):
        pair.check(set_attribute, kind, name, b'value')
        pair.check(get_attribute, kind, name)
        pair.check(remove_attribute, kind, name)
        pair.check(sized, kind, None, 0)
        pair.check(sized, kind, None, 100)
    for what in ('write', 'truncate', 'chown'):
        pair.check(CHANGES[what])


def test_read_only(serve, share):
    with open(os.path.join(share, 'file'), 'wb'):
        pass
    os.setxattr(os.path.join(share, 'file'), 'user.a', b'value')
    client = serve('--xattr', '--readonly').client
    node = client.lookup(fuse.ROOT, b'file').nodeid
    assert client.getxattr(node, b'user.a') == b'value'
    check_list(client, node, [b'user.a'])
    assert fuse.errno_of(client.setxattr, node, b'user.b', b'') == errno.EROFS
    assert fuse.errno_of(client.removexattr, node, b'user.a') == errno.EROFS
    assert fuse.errno_of(client.removexattr, node, b'user.none') == errno.EROFS


def test_ordinary_user(start, scratch, extra_args, connect):
    """Who is not root on the host has the attributes that its kernel lets him have."""
    os.chmod(scratch, 0o755)
    home = os.path.join(scratch, 'home')
    os.makedirs(os.path.join(home, 'share'))
    for path in (home, os.path.join(home, 'share')):
        os.chown(path, launch.USER, launch.USER)
    daemon = start(launch.plain_as_user, os.path.join(home, 'share'), home,
                   ['--xattr', *extra_args])
    daemon.wait_ready()
    client = connect(daemon).client
    entry, handle = client.create(fuse.ROOT, b'file')
    client.release(entry.nodeid, handle)
    client.setxattr(entry.nodeid, b'user.a', b'value')
    assert client.getxattr(entry.nodeid, b'user.a') == b'value'
    assert fuse.errno_of(client.setxattr, entry.nodeid, b'trusted.a', b'') == errno.EPERM
    assert fuse.errno_of(client.getxattr, entry.nodeid, b'trusted.a') == errno.ENODATA
    check_list(client, entry.nodeid, [b'user.a'])
