# SPDX-License-Identifier: Apache-2.0
"""A hostile guest against the real binary: whatever it sends, the daemon answers the next
honest request, and holds neither more descriptors nor more threads than before.
"""

import os
import stat
import struct

import pytest

import fuse_client as fuse
from hostile import (CONTENT, EXTREMES, ROOM, SESSION_OPCODES, Guest, assert_sound,
                     clean_share, exchange, samples)


def test_every_opcode_has_a_sample(unharmed):
    assert set(samples(unharmed)) == set(fuse.OPCODES.values())


@pytest.mark.hostile('field-truncated', 'peer-malformed')
@pytest.mark.parametrize('honest_length', [True, False], ids=['len-cut', 'len-whole'])
def test_truncated_at_every_byte(unharmed, honest_length):
    """The header's len tells the cut length, or still the whole one."""
    client = unharmed.client
    for opcode, (nodeid, body) in samples(unharmed).items():
        whole = client.pack(opcode, nodeid, body)
        for size in range(len(whole)):
            cut = bytearray(whole[:size])
            if honest_length and size >= 4:
                struct.pack_into('=I', cut, 0, size)
            assert_sound(client.raw(bytes(cut), room=ROOM), cut)
            if opcode in SESSION_OPCODES and size >= 40:
                client.init()
        if opcode in SESSION_OPCODES:
            clean_share(unharmed.daemon.share)
            unharmed.open_all()
        unharmed.assert_honest()


@pytest.mark.hostile('field-lengths', 'peer-malformed')
def test_header_len_extremes(unharmed):
    for opcode, (nodeid, body) in samples(unharmed).items():
        if opcode not in SESSION_OPCODES:
            for value in EXTREMES:
                exchange(unharmed, opcode, nodeid, body, len=value)
    unharmed.assert_honest()


@pytest.mark.hostile('field-lengths')
def test_extension_length_extremes(unharmed):
    for opcode, (nodeid, body) in samples(unharmed).items():
        if opcode not in SESSION_OPCODES:
            for value in (1, 2, 0x7FFF, 0xFFFF):
                exchange(unharmed, opcode, nodeid, body, extlen=value)
    unharmed.assert_honest()


@pytest.mark.hostile('field-lengths', 'field-handles')
def test_every_field_at_its_extremes(unharmed):
    """Every aligned 32- and 64-bit piece of every body."""
    for opcode, (nodeid, body) in samples(unharmed).items():
        if opcode in SESSION_OPCODES:
            continue
        for width, code in ((4, '=I'), (8, '=Q')):
            for at in range(0, len(body) - width + 1, 4):
                for value in EXTREMES:
                    if value >> (8 * width):
                        continue
                    changed = bytearray(body)
                    struct.pack_into(code, changed, at, value)
                    exchange(unharmed, opcode, nodeid, bytes(changed))
        unharmed.assert_honest()


@pytest.mark.hostile('field-node-ids')
def test_node_ids_of_every_kind(unharmed):
    """Freed, invented and wrong kinds of nodes are errors, never another file."""
    foreign = (0, 2, 99, 1 << 32, (1 << 32) + 1, 1 << 63, (1 << 64) - 1,
               unharmed.link, unharmed.folder, unharmed.file)
    for opcode, (_, body) in samples(unharmed).items():
        if opcode not in SESSION_OPCODES:
            for nodeid in foreign:
                exchange(unharmed, opcode, nodeid, body)
    unharmed.assert_honest()


@pytest.mark.hostile('peer-malformed', 'peer-read-room')
def test_reply_room_of_every_size(unharmed):
    client = unharmed.client
    for opcode, (nodeid, body) in samples(unharmed).items():
        if opcode in SESSION_OPCODES:
            continue
        request = client.pack(opcode, nodeid, body)
        for room in (*range(0, 40), *range(40, 320, 7)):
            reply = client.raw(request, room=room)
            assert_sound(reply, request)
            assert reply.used <= room
    unharmed.assert_honest()


@pytest.mark.hostile('field-opcodes')
def test_unknown_opcodes(unharmed):
    for opcode in (0, 7, 19, *range(54, 256), 4096, 1 << 31, 0xFFFFFFFF):
        reply = unharmed.client.send(opcode, fuse.ROOT, b'', room=ROOM)
        assert reply.errno == 38, f'opcode {opcode}: {reply}'


@pytest.mark.parametrize('split', [fuse.SPLIT_BYTES, fuse.SPLIT_WHOLE])
def test_any_split_is_the_same_request(unharmed, split):
    client = unharmed.client
    client.set_split(split, 7)
    try:
        request = client.pack(fuse.LOOKUP, fuse.ROOT, b'honest\0')
        assert client.raw(request, room=16 + 128).error == 0
        body = struct.pack('=QQIIQII', unharmed.handle, 0, 26, 0, 0, 0, 0)
        reply = client.raw(client.pack(fuse.READ, unharmed.file, body), room=16 + 26)
        assert reply.payload == CONTENT
    finally:
        client.set_split(fuse.SPLIT_LINUX)


@pytest.mark.hostile('peer-write-more')
def test_write_of_less_than_supplied(unharmed, share):
    client = unharmed.client
    body = struct.pack('=QQIIQII', unharmed.handle, 0, 10, 0, 0, 0, 0) + b'x' * 50
    client.call(fuse.SETATTR, unharmed.file, struct.pack(
        '=II6Q8I', 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    reply = client.send(fuse.WRITE, unharmed.file, body)
    size = os.stat(os.path.join(share, 'file')).st_size
    assert (reply.errno, size) in ((0, 10), (22, 0))


@pytest.mark.hostile('peer-read-less')
def test_read_of_less_than_room(unharmed):
    client = unharmed.client
    body = struct.pack('=QQIIQII', unharmed.handle, 0, 10, 0, 0, 0, 0)
    reply = client.raw(client.pack(fuse.READ, unharmed.file, body), room=16 + 4096)
    assert reply.payload == CONTENT[:10]
    assert CONTENT[10:] not in reply.room, 'bytes beyond what was asked for'


@pytest.mark.hostile('peer-names')
@pytest.mark.parametrize('name', [b'', b'.', b'..', b'a/b', b'/etc', b'../outside',
                                  b'x' * 256, b'/'], ids=repr)
def test_names_that_are_no_component(unharmed, share, name):
    """No operation takes them, whatever the sandbox."""
    folder, client = unharmed.folder, unharmed.client
    outside = set(os.listdir(os.path.dirname(share)))
    end = name + b'\0'
    for opcode, body in (
            (fuse.LOOKUP, end), (fuse.UNLINK, end), (fuse.RMDIR, end),
            (fuse.MKDIR, struct.pack('=II', 0o700, 0) + end),
            (fuse.MKNOD, struct.pack('=IIII', stat.S_IFREG | 0o600, 0, 0, 0) + end),
            (fuse.CREATE, struct.pack('=IIII', os.O_RDWR, 0o600, 0, 0) + end),
            (fuse.SYMLINK, end + b'target\0'),
            (fuse.LINK, struct.pack('=Q', unharmed.file) + end),
            (fuse.RENAME, struct.pack('=Q', folder) + b'a\0' + end),
            (fuse.RENAME, struct.pack('=Q', folder) + end + b'a\0')):
        reply = client.send(opcode, folder, body)
        assert reply.is_well_formed and reply.errno in (22, 36), f'{opcode}: {reply}'
    assert set(os.listdir(os.path.dirname(share))) == outside


@pytest.mark.hostile('special-open', 'special-truncate')
def test_special_files_are_never_opened(unharmed, share):
    client = unharmed.client
    for name, mode, rdev in ((b'fifo', stat.S_IFIFO, 0), (b'socket', stat.S_IFSOCK, 0),
                             (b'char', stat.S_IFCHR, 0x501),
                             (b'block', stat.S_IFBLK, 0x700)):
        node = client.mknod(unharmed.folder, name, mode | 0o666, rdev).nodeid
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_TRUNC):
            reply = client.send(fuse.OPEN, node, struct.pack('=II', flags, 0))
            assert reply.errno != 0
        reply = client.send(fuse.SETATTR, node, struct.pack('=II6Q8I', 8, 0, *[0] * 14))
        assert reply.errno != 0
        create = struct.pack('=IIII', os.O_RDWR, 0o600, 0, 0) + name + b'\0'
        assert client.send(fuse.CREATE, unharmed.folder, create).errno != 0


@pytest.mark.hostile('field-init-twice')
def test_requests_before_init_and_twice(unharmed):
    client = unharmed.client
    client.destroy()
    reply = client.send(fuse.LOOKUP, fuse.ROOT, b'honest\0')
    assert reply.is_well_formed and reply.errno != 0
    client.init()
    old = client.lookup(fuse.ROOT, b'honest').nodeid
    client.init()  # a guest that was rebooted
    assert client.send(fuse.GETATTR, old, struct.pack('=IIQ', 0, 0, 0)).errno != 0


@pytest.mark.hostile('peer-avail-jump')
@pytest.mark.unwatched('a broken queue gives nothing back')
@pytest.mark.split
def test_broken_ring_stops_alone(start, share, scratch, extra_args):
    """A jump of the avail index stops that queue, with one line; the others go on."""
    import launch
    daemon = start(launch.plain, share, scratch,
                   ['--num-request-queues=2', *extra_args])
    daemon.wait_ready()
    with open(os.path.join(share, 'honest'), 'wb') as file:
        file.write(CONTENT)
    guest = Guest(daemon, n_request_queues=2)
    queue = guest.frontend.queues[2]
    queue.write_avail_index(queue.avail_index + 30000)
    queue.kick()
    for _ in range(50):
        guest.client.raw(guest.client.pack(fuse.STATFS, fuse.ROOT), queue=1)
    queue.kick()
    assert guest.client.raw(guest.client.pack(fuse.STATFS, fuse.ROOT), queue=1).error == 0
    guest.close()
    assert daemon.wait() == 0
    assert daemon.said().count('queue 2') == 1
