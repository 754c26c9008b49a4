# SPDX-License-Identifier: Apache-2.0
"""Security labels: whatever the guest makes has its label when the guest hears of it, or
is not there.
"""

import errno
import itertools
import os
import stat
import struct

import pytest

import fuse_client as fuse

PRIVILEGED = '--modcaps=+sys_admin'
SELINUX, LABEL = 'security.selinux', b'system_u:object_r:container_file_t:s0:c1,c2\0'
EXT_GROUPS = 32
KINDS = ('file', 'nameless', 'folder', 'link', 'fifo', 'socket', 'device', 'node')
SECURITY_CTX = 1 << 32


def request_of(kind, name):
    """(opcode, body without labels)"""
    if kind in ('file', 'nameless'):
        opcode = fuse.CREATE if kind == 'file' else fuse.TMPFILE
        name = name if kind == 'file' else b'/'
        return opcode, struct.pack('=IIII', os.O_RDWR | os.O_CREAT, 0o644, 0, 0) + (
            name + b'\0')
    if kind == 'folder':
        return fuse.MKDIR, struct.pack('=II', 0o755, 0) + name + b'\0'
    if kind == 'link':
        return fuse.SYMLINK, name + b'\0to\0'
    mode = {'fifo': stat.S_IFIFO, 'socket': stat.S_IFSOCK, 'device': stat.S_IFCHR,
            'node': stat.S_IFREG}[kind] | 0o644
    return fuse.MKNOD, struct.pack('=IIII', mode, 0x103, 0, 0) + name + b'\0'


def labels(*pairs):
    """The record that Linux sends: [(name, value), ...]."""
    body = b''
    for name, value in pairs:
        label = struct.pack('=II', len(value), 0) + name.encode() + b'\0' + value
        body += label + bytes(-len(label) % 8)
    return struct.pack('=II', 8 + len(body), len(pairs)) + body


GROUP = struct.pack('=IIII', 16, EXT_GROUPS, 1, 77)
ONE = labels((SELINUX, LABEL))


def make(client, kind, name, extension=ONE, is_told=True):
    """The Reply to a request for something new; a file is closed again."""
    opcode, body = request_of(kind, name)
    extlen = len(extension) // 8 if is_told else 0
    reply = client.send(opcode, fuse.ROOT, body + extension, extlen=extlen)
    if reply.errno == 0 and kind in ('file', 'nameless'):
        handle = struct.unpack_from('=Q', reply.payload, 128)[0]
        client.release(fuse.Entry(reply.payload[:128]).nodeid, handle)
    return reply


def on_host(share, name):
    path = os.path.join(share, name)
    return {one: os.getxattr(path, one, follow_symlinks=False)
            for one in os.listxattr(path, follow_symlinks=False)}


def descriptors(daemon):
    return len(os.listdir(f'/proc/{daemon.pid}/fd'))


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind(serve, share, kind):
    """Sent by kernels that count the record among the extensions, and by older ones that
    do not; with groups behind it, and without any label in it.
    """
    client = serve('--security-label', PRIVILEGED).client
    for number, (extension, is_told) in enumerate((
            (ONE, True), (ONE, False), (ONE + GROUP, True), (labels(), True),
            (labels(), False), (b'', True), (GROUP, True))):
        reply = make(client, kind, b'%d' % number, extension, is_told)
        assert reply.errno == 0, number
        entry = fuse.Entry(reply.payload[:128])
        expected = {SELINUX: LABEL} if ONE in extension and extension else {}
        if kind == 'nameless':
            client.forget(entry.nodeid)
            continue
        assert on_host(share, f'{number}') == expected
        assert client.listxattr(entry.nodeid, 0) == (
            len(SELINUX) + 1 if expected else 0)
        # The answer is of the file as it is now.
        now = client.getattr(entry.nodeid)
        assert (entry.attr.ctime, entry.attr.ctimensec) == (now.ctime, now.ctimensec)


def test_nameless(serve, share):
    client = serve('--security-label', PRIVILEGED).client
    opcode, body = request_of('nameless', b'')
    payload = client.call(opcode, fuse.ROOT, body + ONE, extlen=len(ONE) // 8)
    node = fuse.Entry(payload[:128]).nodeid
    assert client.getxattr(node, SELINUX.encode()) == LABEL
    client.link(node, fuse.ROOT, b'named')
    assert on_host(share, 'named') == {SELINUX: LABEL}
    client.release(node, struct.unpack_from('=Q', payload, 128)[0])


def test_several(serve, share):
    pairs = [(f'security.{number}', b'%d' % number * (number + 1)) for number in range(4)]
    client = serve('--security-label', PRIVILEGED).client
    for kind in KINDS:
        assert make(client, kind, kind.encode(), labels(*pairs)).errno == 0
        if kind != 'nameless':
            assert on_host(share, kind) == dict(pairs)


@pytest.mark.parametrize('options, extension, expected', [
    # Not privileged enough: no security module knows this name.
    (['--security-label'], labels(('security.other', b'y')), errno.EPERM),
    ([PRIVILEGED, '--security-label'], labels((SELINUX, LABEL), ('nothing.x', b'y')),
     errno.EOPNOTSUPP),
    ([PRIVILEGED, '--security-label'], labels((SELINUX, LABEL), ('user', b'y')),
     errno.EOPNOTSUPP),
    (['--security-label', '--xattrmap=:bad:all:security.:security.::ok:all:::'], ONE,
     errno.EPERM),
    (['--security-label', '--xattrmap=:unsupported:all:security.:security.::ok:all:::'],
     ONE, errno.EOPNOTSUPP),
], ids=['privilege', 'second', 'name', 'bad', 'unsupported'])
def test_removed_again(serve, share, options, extension, expected):
    """No label, no file; and nothing of it stays open or known."""
    guest = serve(*options)
    before = descriptors(guest.daemon)
    for kind, number in itertools.product(KINDS, range(3)):
        reply = make(guest.client, kind, b'%d' % number, extension)
        assert reply.errno == expected, kind
        assert os.listdir(share) == []
    assert descriptors(guest.daemon) == before


def test_user_labels(serve, share):
    """Rules may store labels as user.*, which links and special files do not have."""
    client = serve('--security-label', '--xattrmap=:map::user.v.:').client
    for kind in KINDS:
        reply = make(client, kind, kind.encode())
        has = kind in ('file', 'nameless', 'folder', 'node')
        assert reply.errno == (0 if has else errno.EPERM)
    assert sorted(os.listdir(share)) == ['file', 'folder', 'node']
    assert on_host(share, 'folder') == {f'user.v.{SELINUX}': LABEL}


def test_trusted_labels(serve, share):
    client = serve('--security-label', PRIVILEGED, '--xattrmap=:map::trusted.v.:').client
    for kind in KINDS:
        assert make(client, kind, kind.encode()).errno == 0
        if kind != 'nameless':
            assert on_host(share, kind) == {f'trusted.v.{SELINUX}': LABEL}


@pytest.mark.hostile('peer-labels')
def test_no_descriptor_is_left(serve):
    """Fifty of each: once forgotten, they are not open any more."""
    guest = serve('--security-label', PRIVILEGED, '--inode-file-handles=never')
    before = descriptors(guest.daemon)
    for kind, number in itertools.product(KINDS, range(50)):
        reply = make(guest.client, kind, f'{kind}{number}'.encode())
        assert reply.errno == 0
        guest.client.forget(fuse.Entry(reply.payload[:128]).nodeid)
    assert descriptors(guest.daemon) == before


def test_what_exists(serve, share):
    """CREATE of what is there labels nothing, and removes nothing."""
    with open(os.path.join(share, 'file'), 'wb') as file:
        file.write(b'content')
    client = serve('--security-label').client
    assert make(client, 'file', b'file').errno == 0
    assert on_host(share, 'file') == {}
    assert make(client, 'folder', b'file').errno == errno.EEXIST
    assert os.path.getsize(os.path.join(share, 'file')) == 7


@pytest.mark.parametrize('option, flags, is_agreed', [
    ('--security-label', fuse.LINUX_INIT_FLAGS, True),
    ('--security-label=always', fuse.LINUX_INIT_FLAGS, True),
    ('--security-label=auto', fuse.LINUX_INIT_FLAGS, True),
    ('--security-label=auto', fuse.LINUX_INIT_FLAGS & ~SECURITY_CTX, False),
    ('--security-label=never', fuse.LINUX_INIT_FLAGS, False),
    ('-osecurity_label', fuse.LINUX_INIT_FLAGS, True),
])
def test_agreed(serve, share, option, flags, is_agreed):
    guest = serve(option, PRIVILEGED, flags=flags)
    assert bool(guest.agreed & SECURITY_CTX) == is_agreed
    reply = make(guest.client, 'folder', b'folder')
    assert reply.errno == (0 if is_agreed else errno.EINVAL)
    assert make(guest.client, 'folder', b'other', b'').errno == 0


def test_mounted(bridged, share):
    """Linux itself sends whatever its security modules say."""
    mount = bridged('--security-label', PRIVILEGED)
    path = os.path.join(mount, 'name')
    for make_one in (lambda: os.close(os.open(path, os.O_CREAT | os.O_RDWR)),
                     lambda: os.symlink('to', path), lambda: os.mkfifo(path)):
        make_one()
        theirs = os.lstat(os.path.join(share, 'name'))
        assert stat.S_IFMT(os.lstat(path).st_mode) == stat.S_IFMT(theirs.st_mode)
        os.unlink(path)
    os.mkdir(path)
    fd = os.open(path, os.O_TMPFILE | os.O_RDWR)
    os.close(fd)


def test_guest_that_cannot(serve):
    with pytest.raises(fuse.FuseError) as refusal:
        serve('--security-label', flags=fuse.LINUX_INIT_FLAGS & ~SECURITY_CTX)
    assert refusal.value.errno == errno.EPROTO


def hostile_records():
    """Bytes that are no labels."""
    for cut in range(8, len(ONE), 8):
        yield ONE[:cut]
    for at, value in itertools.product(range(0, 16, 4),
                                       (0, 3, 31, 2 ** 31, 2 ** 32 - 1)):
        record = bytearray(ONE)
        struct.pack_into('=I', record, at, value)
        if at != 12:  # padding, which may hold anything
            yield bytes(record)
    yield ONE + ONE
    yield ONE[:16] + b'\0' + ONE[17:]
    yield ONE[:16] + b'x' * (len(ONE) - 16)
    yield labels(*[('security.x', b'y')] * 5)
    yield labels(('n' * 256, b'y'))
    yield labels((SELINUX, b''))
    yield labels((SELINUX, b'y' * 5000))


@pytest.mark.parametrize('is_told', [True, False])
def test_hostile_records(serve, share, is_told):
    guest = serve('--security-label', PRIVILEGED)
    for kind, record in itertools.product(KINDS, hostile_records()):
        reply = make(guest.client, kind, b'name', record, is_told)
        assert reply.errno == errno.EINVAL, record
        assert os.listdir(share) == []
    assert make(guest.client, 'file', b'name').errno == 0
    assert guest.daemon.is_alive()
