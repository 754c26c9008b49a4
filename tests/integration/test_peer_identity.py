# SPDX-License-Identifier: Apache-2.0
"""Identity, privileges, labels and attributes' names, where the peer gets them wrong:
test_peer_defects.py says what it does.
"""

import contextlib
import errno
import os
import stat
import struct

import pytest

import fuse_client as fuse
import launch
import users
from strace import Strace

KEPT_CAPS = '00000000880000db'
SET_SIZE, SET_KILL_SUIDGID = 8, 1 << 11
WRITE_KILL_SUIDGID = 4
OPEN_KILL_SUIDGID = 1
ATTR_SUBMOUNT = 1
SECURITY_CTX = 1 << 32
LABEL = b'security.selinux'
CAPABILITY = 'security.capability'
# CAP_NET_RAW, effective: version 2.
NET_RAW = struct.pack('=IIIII', 0x02000001, 1 << 13, 0, 0, 0)


def owner(*path):
    seen = os.lstat(os.path.join(*path))
    return seen.st_uid, seen.st_gid


def effective(daemon):
    """The effective capabilities of its threads."""
    found = set()
    for thread in daemon.threads():
        text = daemon.proc(f'task/{thread}/status')
        found.add(text.split('CapEff:')[1].split()[0])
    return found


# ---- who asks


@pytest.mark.sandboxed
def test_gid_is_given_back_when_the_uid_is_refused(start, share, scratch, connect):
    """A request that could not become its caller leaves its thread as it was."""
    os.chmod(share, 0o777)
    daemon = start(launch.plain, share, scratch,
                   ['--thread-pool-size=0', '--seccomp=none'])  # strace uses call -1
    daemon.wait_ready()
    client = connect(daemon).client
    strace = Strace(daemon, scratch, '-e', 'trace=setresuid', '-e',
                    'inject=setresuid:error=EAGAIN:when=1')
    with client.identity(1000, 77):
        assert fuse.errno_of(client.mkdir, fuse.ROOT, b'refused') == errno.EAGAIN
    client.mkdir(fuse.ROOT, b'of root')
    with client.identity(1001, 0):
        client.mkdir(fuse.ROOT, b'of user')
    strace.stop()
    assert not os.path.exists(os.path.join(share, 'refused'))
    assert owner(share, 'of root') == (0, 0)
    assert owner(share, 'of user') == (1001, 0)


@pytest.mark.sandboxed
def test_privileges_are_given_back(start, share, scratch, connect):
    """What drops a privilege so that set-id bits go has it again afterwards, and where
    nobody asked for it the bits stay.
    """
    daemon = start(launch.plain, share, scratch, ['--killpriv-v2'])
    daemon.wait_ready()
    client = connect(daemon).client
    path = os.path.join(share, 'file')

    def write(node, kill):
        handle, _ = client.open(node, os.O_RDWR)
        client.write(node, handle, b'y', write_flags=WRITE_KILL_SUIDGID if kill else 0)
        client.release(node, handle)

    def truncate(node, kill):
        client.setattr(node, SET_SIZE | (SET_KILL_SUIDGID if kill else 0), size=2)

    def open_empty(node, kill):
        handle, _ = client.open(node, os.O_RDWR | os.O_TRUNC,
                                OPEN_KILL_SUIDGID if kill else 0)
        client.release(node, handle)

    for change in (write, truncate, open_empty):
        for kill in (True, False):
            with open(path, 'wb') as file:
                file.write(b'content')
            os.chmod(path, 0o6755)
            change(client.lookup(fuse.ROOT, b'file').nodeid, kill)
            left = stat.S_IMODE(os.stat(path).st_mode)
            assert left == (0o755 if kill else 0o6755), (change, kill)
            assert effective(daemon) == {KEPT_CAPS}


# ---- where other file systems begin


@pytest.mark.parametrize('announce', [True, False])
def test_submounts_are_told_by_mount_and_device(serve, share, scratch, announce):
    """A folder that is mounted from the same file system is one too; a file is none."""
    source = os.path.join(scratch, 'source')
    for folder in (source, os.path.join(share, 'bound'), os.path.join(share, 'plain')):
        os.mkdir(folder)
    for name in (os.path.join(source, 'file'), os.path.join(share, 'bound file')):
        open(name, 'xb').close()
    with contextlib.ExitStack() as undo:
        for one, other in ((source, 'bound'), (os.path.join(source, 'file'),
                                               'bound file')):
            users.bind(one, os.path.join(share, other))
            undo.callback(users.unmount, os.path.join(share, other))
        client = serve('--announce-submounts' if announce
                       else '--no-announce-submounts').client
        expected = {b'bound': announce, b'plain': False, b'bound file': False}
        for name, flag in expected.items():
            assert client.lookup(fuse.ROOT, name).attr.flags == flag, name
        listed = {entry.name: entry.entry.attr.flags
                  for entry in client.listdir(fuse.ROOT, plus=True)}
        assert {name: bool(listed[name] & ATTR_SUBMOUNT) for name in expected} == expected


# ---- labels


def label_record(name=LABEL, value=b'u:o:t\0'):
    """A record of one label."""
    body = struct.pack('=II', len(value), 0) + name + b'\0' + value
    body += bytes(-len(body) % 8)
    return struct.pack('=II', 8 + len(body), 1) + body


def make(client, opcode, body, record):
    extlen = {'extlen': len(record) // 8}
    return client.send(opcode, fuse.ROOT, body + record, **extlen)


def makers(number):
    """(opcode, body) of each call that makes something, by a name of its own."""
    name = b'%d' % number
    return ((fuse.MKDIR, struct.pack('=II', 0o755, 0) + name + b'd\0'),
            (fuse.MKNOD, struct.pack('=IIII', stat.S_IFIFO | 0o644, 0, 0, 0)
             + name + b'p\0'),
            (fuse.SYMLINK, name + b'l\0to\0'))


@pytest.mark.hostile('peer-labels')
@pytest.mark.parametrize('how', ['labelled', 'refused', 'missing'])
def test_labels_keep_no_descriptor(serve, how):
    """Whether the host takes the label or refuses it, or the guest forgot to send it: no
    descriptor is left, the daemon goes on, and what cannot be labelled is not there.
    """
    guest = serve('--security-label=always',
                  flags=fuse.LINUX_INIT_FLAGS | 1 << 34 | SECURITY_CTX)
    assert guest.agreed & SECURITY_CTX
    client, record = guest.client, label_record()
    if how == 'refused':
        record = label_record(b'nonsense.label')  # of no kind that a host knows
    if how == 'missing':
        record = b''
    before = len(guest.daemon.descriptors())
    made = []
    for number in range(50):
        for opcode, body in makers(number):
            reply = make(client, opcode, body, record)
            if reply.errno == 0:
                made.append(fuse.Entry(reply.payload).nodeid)
            else:
                assert how == 'refused' and reply.errno == errno.EOPNOTSUPP or (
                    how == 'missing'), os.strerror(reply.errno)
    if how == 'refused':
        assert not made
        assert {entry.name for entry in client.listdir(fuse.ROOT)} == {b'.', b'..'}
    for node in made:
        client.forget(node)
    launch.eventually(lambda: len(guest.daemon.descriptors()) <= before)
    client.mkdir(fuse.ROOT, b'goes on') if how == 'missing' else client.statfs()


# ---- names of attributes

# Not on these names themselves, whole, is there anything to hide; the peer compares the
# wrong way round.
PARTS = (b's', b'system', b'system.', b'system.posix', b'system.posix_acl',
         b'system.posix_acl_acces', b'system.posix_acl_access2',
         b'system.posix_acl_defaul')


# user::rw-, user:1000:r--, group::r--, mask::r--, other::---
LIST = struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *entry) for entry in (
    (1, 6, 0xFFFFFFFF), (2, 4, 1000), (4, 4, 0xFFFFFFFF), (16, 4, 0xFFFFFFFF),
    (32, 0, 0xFFFFFFFF)))


def native_get(path, name):
    try:
        os.getxattr(path, name)
    except OSError as error:
        return error.errno
    return 0


def test_lists_hide_nothing_else(serve, share):
    """Without --posix-acl access control lists are not there, whatever begins as their
    names do is the host's to judge.
    """
    path = os.path.join(share, 'file')
    open(path, 'xb').close()
    os.setxattr(path, 'system.posix_acl_access', LIST)
    os.setxattr(path, 'trusted.a', b'value')
    client = serve('--xattr').client
    node = client.lookup(fuse.ROOT, b'file').nodeid
    for name in (b'system.posix_acl_access', b'system.posix_acl_default'):
        for call in (client.getxattr, client.removexattr):
            assert fuse.errno_of(call, node, name) == errno.EOPNOTSUPP
        assert fuse.errno_of(client.setxattr, node, name, b'x') == errno.EOPNOTSUPP
    assert b'system.posix_acl_access' not in client.listxattr(node)
    assert client.listxattr(node, 0) == sum(
        len(name) + 1 for name in client.listxattr(node))
    for name in PARTS:
        assert fuse.errno_of(client.getxattr, node, name) == native_get(path, name), name


RULES = (':prefix:all:security.capability:trusted.guest.:'
         ':ok:all:::')


@pytest.mark.parametrize('killpriv', [False, True])
def test_renamed_capabilities_go_with_the_content(serve, share, killpriv):
    """Where the host does not know them, whatever changes the file takes them away. With
    SETATTR the guest's kernel sees to it, unless that was agreed to be the daemon's task.
    """
    options = ['--killpriv-v2'] if killpriv else []
    client = serve(f'--xattrmap={RULES}', '--modcaps=+sys_admin', *options).client
    path, kept = os.path.join(share, 'file'), f'trusted.guest.{CAPABILITY}'

    def changes(node):
        handle, _ = client.open(node, os.O_RDWR)
        yield 'nothing', True
        client.read(node, handle, 10)
        yield 'read', True
        client.write(node, handle, b'y')
        yield 'write', False
        client.fallocate(node, handle, 0, 0, 100)
        yield 'fallocate', False
        client.setattr(node, SET_SIZE, size=3)
        yield 'truncate', not killpriv
        client.setattr(node, 2, uid=5)
        yield 'chown', not killpriv
        client.release(node, handle)
        handle, _ = client.open(node, os.O_WRONLY | os.O_TRUNC)
        yield 'open to truncate', False
        client.release(node, handle)

    with open(path, 'wb') as file:
        file.write(b'content')
    node = client.lookup(fuse.ROOT, b'file').nodeid
    client.setxattr(node, CAPABILITY.encode(), NET_RAW)
    for name, stays in changes(node):
        assert (kept in os.listxattr(path)) == stays, name
        if not stays:
            client.setxattr(node, CAPABILITY.encode(), NET_RAW)
