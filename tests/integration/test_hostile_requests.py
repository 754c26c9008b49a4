# SPDX-License-Identifier: Apache-2.0
"""Malformed FUSE requests by the thousand, with an honest guest at work beside them."""

import os
import random
import struct
import time

import pytest

import fuse_client as fuse
import hostile_requests as requests
from hostile import CONTENT, ROOM, assert_sound, samples

OPTIONS = ('--xattr', '--log-level=warn')
SANDBOXES = ['none', *(pytest.param(mode, marks=pytest.mark.sandboxed)
                       for mode in ('chroot', 'namespace'))]
SECOND = 1.0  # that a request may take


class Slowest:
    """The longest that any request took, and those that took too long."""

    def __init__(self):
        self.seconds, self.late = 0, []

    def exchange(self, client, request):
        begin = time.monotonic()
        reply = client.raw(request, room=ROOM, queue=1)
        seconds = time.monotonic() - begin
        self.seconds = max(self.seconds, seconds)
        if seconds > SECOND:
            self.late.append(request)
        assert_sound(reply, request)
        return seconds

    def check(self, client):
        """None takes too long; on a busy machine it may have another try."""
        if not os.environ.get('VIRTIOFSD_SANITIZER'):
            for request in self.late:
                assert min(self.exchange(client, request) for _ in range(3)) < SECOND, (
                    request[:64].hex())


@pytest.mark.hostile('number-requests', 'peer-malformed', 'field-truncated',
                     'field-lengths', 'field-opcodes', 'field-node-ids', 'field-handles',
                     'field-unique', 'field-batch-forget')
def test_corpus(besiege, cases):
    """Each is answered, or retired, within a second; the other queue never waits."""
    guest = besiege(*OPTIONS)
    slowest, count = Slowest(), {}
    worker = guest.work_on(2)
    begin = time.monotonic()
    for name, generator in requests.corpus(guest, random.Random(4711)):
        for number, request in enumerate(generator):
            slowest.exchange(guest.client, request)
            count[name] = number + 1
        guest.assert_honest(queue=1)
    seconds = time.monotonic() - begin
    words = worker.finish()
    total = sum(count.values())
    print(f'{total} requests {count} in {seconds:.1f} s, slowest '
          f'{slowest.seconds * 1e3:.1f} ms; {words}')
    slowest.check(guest.client)
    assert total >= 10000
    cases(total)


@pytest.mark.hostile('peer-malformed', 'peer-read-room')
def test_rooms(besiege, cases):
    """Every room for the reply, from none to more than enough."""
    guest = besiege(*OPTIONS)
    for opcode, node, body in requests.sound(guest):
        request = guest.client.pack(opcode, node, body)
        for room in (*range(0, 34), *range(34, 320, 11)):
            reply = guest.client.raw(request, room=room, queue=1)
            assert_sound(reply, request)
            assert reply.used <= room
            cases(1)
    read = struct.pack('=QQIIQII', guest.handle, 1 << 63, 16, 0, 0, 0, 0)
    assert guest.client.send(fuse.READ, guest.file, read, queue=1).errno == 22


@pytest.mark.hostile('number-names', 'peer-names', 'escape-dotdot')
@pytest.mark.parametrize('sandbox', SANDBOXES)
def test_names_reach_nothing_outside(besiege, scratch, sandbox, cases):
    """Nothing is made, changed or found outside, by any name, on any operation."""
    guest = besiege(*OPTIONS, f'--sandbox={sandbox}')
    outside = os.path.join(scratch, 'outside')
    os.mkdir(outside)
    with open(os.path.join(outside, 'canary'), 'wb') as file:
        file.write(CONTENT)
    folders = [scratch, outside, '/', '/etc', '/tmp']

    def look():
        return [sorted(os.listdir(folder)) for folder in folders[:2]]

    before = look()
    n = 0
    for name in (*requests.NO_NAMES, outside.encode(), b'../outside/canary',
                 b'/etc/vfs-canary', b'../../../../tmp/vfs-canary'):
        for folder in (guest.folder, fuse.ROOT):
            for opcode, node, body in requests.with_name(guest, name + b'\0', folder):
                reply = guest.client.send(opcode, node, body, queue=1)
                n += 1
                assert reply.is_well_formed
                assert reply.errno in (22, 36), f'{opcode} {name[:40]}: {reply}'
    assert look() == before
    assert not os.path.exists('/etc/vfs-canary')
    assert not os.path.exists('/tmp/vfs-canary')
    with open(os.path.join(outside, 'canary'), 'rb') as file:
        assert file.read() == CONTENT
    cases(n)


# ---- the session


@pytest.mark.hostile('field-before-init')
def test_every_opcode_before_init(besiege, cases):
    guest = besiege(*OPTIONS)
    client = guest.client
    todo = [client.pack(*sample) for sample in requests.sound(guest)]
    client.destroy()
    for request in todo:
        reply = client.raw(request, room=ROOM)
        opcode = int.from_bytes(request[4:8], 'little')
        if opcode in (fuse.FORGET, fuse.BATCH_FORGET, fuse.INTERRUPT):
            assert reply.is_empty
        else:
            assert reply.is_well_formed and reply.errno in (5, 38), f'{opcode}: {reply}'
        cases(1)
    client.init()


INITS = (
    (b'', 22), (bytes(15), 22), (struct.pack('=IIII', 7, 38, 0, 0), 0),
    (struct.pack('=IIII', 0, 0, 0, 0), 71), (struct.pack('=IIII', 7, 0, 0, 0), 71),
    (struct.pack('=IIII', 6, 38, 0, 0), 71),
    (struct.pack('=IIIII44x', 7, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF), 0),
    (struct.pack('=IIIII44x', 7, 38, 0, 0x40000000, 0), 0),
    (struct.pack('=IIIII44x', 7, 38, 0, 0x40000000, 0) + bytes(1000), None),
    (struct.pack('=IIII', 7, 38, 0, 0x40000000), None),
)


@pytest.mark.hostile('field-init-twice')
def test_init_of_every_kind(besiege, cases):
    """A bad one leaves the session; a good one begins anew, and nothing old is left."""
    guest = besiege(*OPTIONS)
    client = guest.client
    for body, error in INITS:
        client.init()
        old = client.lookup(fuse.ROOT, b'honest').nodeid
        handle, _ = client.open(old, os.O_RDONLY)
        reply = client.send(fuse.INIT, 0, body, room=ROOM)
        assert reply.is_well_formed
        assert error is None and reply.errno in (0, 22, 71) or reply.errno == error or (
            error and reply.errno), f'{body[:20].hex()}: {reply}'
        still = client.send(fuse.GETATTR, old, struct.pack('=IIQ', 0, 0, 0))
        read = client.send(fuse.READ, old, struct.pack(
            '=QQIIQII', handle, 0, 99, 0, 0, 0, 0))
        if reply.errno == 0:
            assert still.errno != 0 and read.errno != 0
        else:
            assert still.errno == 0 and read.payload == CONTENT
        cases(1)
    client.init()


@pytest.mark.hostile('field-init-during', 'field-init-twice')
def test_init_during_others(besiege, cases):
    """Each is answered, before or after, and never with another session's file."""
    guest = besiege(*OPTIONS)
    client = guest.client
    for number in range(60):
        client.init()
        node = client.lookup(fuse.ROOT, b'honest').nodeid
        handle, _ = client.open(node, os.O_RDONLY)
        read = client.pack(fuse.READ, node,
                           struct.pack('=QQIIQII', handle, 0, 4096, 0, 0, 0, 0))
        _, body = samples(guest)[fuse.INIT]
        for i in range(7):
            client.submit(read, ROOM, queue=2)
            if i == number % 7:
                opcode = (fuse.INIT, fuse.DESTROY)[number & 1]
                client.submit(client.pack(opcode, 0, body * (opcode == fuse.INIT)),
                              ROOM, queue=1)
        assert client.reap(queue=1).error == 0
        for _ in range(7):
            reply = client.reap(queue=2)
            assert reply.is_well_formed
            assert reply.errno in (5, 9, 116) or reply.payload == CONTENT
        cases(8)
    client.init()


@pytest.mark.hostile('field-unique')
def test_duplicates_in_flight(besiege, cases):
    """Two requests of one number are two requests; an INTERRUPT of it harms neither."""
    guest = besiege(*OPTIONS)
    client = guest.client
    read = struct.pack('=QQIIQII', guest.handle, 0, 4096, 0, 0, 0, 0)
    for unique in (0, 2, 4, 1 << 63, (1 << 64) - 1) * 20:
        for _ in range(6):
            client.submit(client.pack(fuse.READ, guest.file, read, unique=unique), ROOM,
                          queue=1)
        for number in (unique, unique ^ 1):
            assert client.raw(client.pack(fuse.INTERRUPT, 0, struct.pack('=Q', number)),
                              room=0, queue=0).used == 0
        for _ in range(6):
            reply = client.reap(queue=1)
            assert (reply.is_well_formed and reply.unique == unique
                    and reply.payload == CONTENT)
        cases(6)


# ---- what requests refer to


@pytest.mark.hostile('field-forget-beyond', 'field-forget-root', 'number-forget',
                     'field-batch-forget')
def test_forget_games(besiege, share, cases):
    """Counts saturate, the root stays, a freed node is never another file."""
    guest = besiege(*OPTIONS)
    client = guest.client
    many = (1, 2, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
    look = struct.pack('=IIQ', 0, 0, 0)
    for count in many:
        for node in (fuse.ROOT, 0, 1 << 32, (1 << 64) - 1):
            client.forget(node, count)
            client.batch_forget([(node, count)] * 8)
        assert client.send(fuse.GETATTR, fuse.ROOT, look).errno == 0
        with open(os.path.join(share, 'victim'), 'wb') as file:
            file.write(b'victim')
        node = client.lookup(fuse.ROOT, b'victim').nodeid
        handle, _ = client.open(node, os.O_RDONLY)
        client.forget(node, count)
        client.batch_forget([(node, count)] * 4)
        assert client.send(fuse.GETATTR, node, look).errno in (9, 116)
        # Others may take its place in the table, but not its number.
        for number in range(20):
            other = client.mkdir(guest.folder, b'other%d' % number).nodeid
            assert other != node
            assert client.send(fuse.GETATTR, node, look).errno in (9, 116)
            client.rmdir(guest.folder, b'other%d' % number)
            client.batch_forget([(other, count), (other, 1), (other, count)])
        client.send(fuse.READ, node, struct.pack('=QQIIQII', handle, 0, 9, 0, 0, 0, 0))
        client.send(fuse.RELEASE, node, struct.pack('=QIIQ', handle, 0, 0, 0))
        cases(40)
    for _ in range(300):  # the same name again and again, and links of it
        node = client.mknod(guest.folder, b'storm', 0o100600).nodeid
        client.link(node, guest.folder, b'storm2')
        client.unlink(guest.folder, b'storm')
        client.unlink(guest.folder, b'storm2')
        assert client.getattr(node).nlink == 0
        client.forget(node, 3)
        assert client.send(fuse.GETATTR, node, look).errno in (9, 116)
        cases(1)


@pytest.mark.hostile('field-cookies')
@pytest.mark.parametrize('options', [(), ('--inode-file-handles=prefer',)])
def test_cookies_of_other_directories(besiege, share, options, cases):
    """A place of one directory leads to nothing but entries of the other."""
    guest = besiege(*OPTIONS, *options)
    client = guest.client
    for folder, n in (('one', 300), ('two', 7)):
        os.mkdir(os.path.join(share, folder))
        for number in range(n):
            open(os.path.join(share, folder, f'{folder}-{number}'), 'xb').close()
    nodes = [client.lookup(fuse.ROOT, name).nodeid for name in (b'one', b'two')]
    places = [{entry.offset for entry in client.listdir(node)} for node in nodes]
    strange = {0, 1, 2, 1 << 31, (1 << 31) - 1, (1 << 32) - 1, (1 << 62) - 1,
               (1 << 63) - 1, 1 << 63, (1 << 64) - 1}
    for node, name, offsets in ((nodes[0], b'one-', places[1] | strange),
                                (nodes[1], b'two-', places[0] | strange)):
        handle = client.opendir(node)
        for offset in sorted(offsets):
            for opcode, size in ((fuse.READDIR, 4096), (fuse.READDIRPLUS, 4096),
                                 (fuse.READDIR, 24), (fuse.READDIRPLUS, 1 << 31)):
                reply = client.send(opcode, node, struct.pack(
                    '=QQIIQII', handle, offset, size, 0, 0, 0, 0), room=ROOM)
                cases(1)
                assert reply.is_well_formed
                for entry in fuse.parse_dirents(reply.payload,
                                                opcode == fuse.READDIRPLUS):
                    assert entry.name.startswith(name) or entry.name in (b'.', b'..')
        client.releasedir(node, handle)
