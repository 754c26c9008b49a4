#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Write first seeds for the targets that are not fed from recordings.

usage: seeds.py DIRECTORY    makes DIRECTORY/virtqueue/..., DIRECTORY/vhost-user/...

What an honest guest and an honest VMM do: the fuzzer finds the dishonest ones by itself.
"""

import os
import struct
import sys

# As in fuzz-virtqueue.c and tests/unit/vhost-guest.h.
GPA, UVA = 0x40000000, 0x7F1200000000
DESC, AVAIL, USED, DATA = 0x0000, 0x0400, 0x0500, 0x0800
MEMORY = 0x8000
NEXT, WRITE, INDIRECT = 1, 2, 4


def descriptor(at, length, flags=0, following=0):
    """One entry of a descriptor table; @at is an offset in the guest's memory."""
    return struct.pack("<QIHH", GPA + at, length, flags, following)


def place(memory, at, data):
    """Put bytes into the guest's memory."""
    memory[at:at + len(data)] = data


def queue(table, heads, size=16, event=0, indirect=(), head=b"\3\4\0\0"):
    """An input of fuzz-virtqueue: head bytes, then memory."""
    memory = bytearray(MEMORY)
    place(memory, DESC, b"".join(table))
    place(memory, AVAIL, struct.pack("<HH", 0, len(heads)))
    place(memory, AVAIL + 4, struct.pack(f"<{len(heads)}H", *heads))
    place(memory, AVAIL + 4 + 2 * size, struct.pack("<H", event))
    place(memory, DATA, b"".join(indirect))
    return head + bytes(memory[:DATA + 0x80])


def packed(chains, wrap=1, indirect=(), head=b"\x43\x0f\0\0"):
    """The same for a packed ring: each chain's last descriptor has its id."""
    memory = bytearray(MEMORY)
    table = []
    for number, chain in enumerate(chains):
        for addr, length, flags in chain:
            table.append(struct.pack("<QIHH", addr, length, number,
                                     flags | (1 << 7 if wrap else 1 << 15)))
    place(memory, DESC, b"".join(table))
    place(memory, AVAIL, struct.pack("<HH", 3 | 1 << 15, 2))
    place(memory, DATA, b"".join(struct.pack("<QIHH", *entry[:2], 0, entry[2])
                                 for entry in indirect))
    return head + bytes(memory[:DATA + 0x80])


def packed_seeds():
    """Chains as Linux makes them, one without an end, a table; both laps."""
    direct = [(0x3000 + GPA, 40, NEXT), (0x3040 + GPA, 16, NEXT),
              (0x4000 + GPA, 0x2000, WRITE)]
    table = [(0x3000 + GPA, 40, 0), (0x4FF0 + GPA, 64, 0), (0x6FF0 + GPA, 64, WRITE)]
    one = [(DATA + GPA, 16 * len(table), INDIRECT)]
    forget = [(0x3000 + GPA, 48, 0)]
    endless = [(0x3000 + GPA, 48, NEXT)] * 16
    for wrap in (0, 1):
        for how in (0, 1, 2, 4, 6, 8, 2 | 16, 4 | 32):
            for features in (0, 1, 2, 3):
                head = bytes([0x40 | features | (0 if wrap else 32), 15, how & 3, how])
                yield packed([direct, one, forget, direct], wrap, table, head)
                yield packed([one, one, forget, endless], wrap, table, head)


def virtqueue_seeds():
    """Chains as Linux makes them, and the ways in which memory may be cut."""
    direct = [descriptor(0x3000, 40, NEXT, 1), descriptor(0x3040, 16, NEXT, 2),
              descriptor(0x4000, 0x2000, WRITE)]
    table = [descriptor(0x3000, 40, NEXT, 1), descriptor(0x4FF0, 64, NEXT, 2),
             descriptor(0x6FF0, 64, WRITE)]
    one = [descriptor(DATA, 16 * len(table), INDIRECT)]
    forget = [descriptor(0x3000 + 0x40 * i, 48) for i in range(8)]
    for ways in range(3):
        for features in range(4):
            head = bytes([features, 4, ways, features & 1])
            yield queue(direct, [0], head=head)
            yield queue(one, [0], indirect=table, head=head)
            yield queue(forget, list(range(8)), head=head)
    yield queue(direct, [0, 0, 0])
    # Parked, interrupted, memory taken away, paused, calls replaced: see HOW_* there.
    for how in (2, 4, 6, 8, 2 | 16, 4 | 32, 1 | 2 | 4 | 16, 2 | 8):
        for size in (4, 4 | 2 << 4, 4 | 6 << 4):
            head = bytes([3, size, 3, how])
            yield queue(one, [0], indirect=table, head=head)
            yield queue(forget, list(range(8)), head=head)
    yield from packed_seeds()


def message(request, payload=b"", fds=0, kind=0, flags=9, how=0):
    """A record of fuzz-vhost-user: an honest size, and descriptors that come along."""
    return struct.pack("<BBBBH", request, flags, fds << 4 | kind, how,
                       len(payload)) + payload


EVENT, FILE_KIND = 0, 1
WRITE_MEMORY = 0xFE  # no message: see fuzz-vhost-user.c


def handshake():
    """Up to the first memory region."""
    features = 1 << 28 | 1 << 29 | 1 << 30 | 1 << 32
    protocol = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 5 | 1 << 9 | 1 << 10 | 1 << 13 | 1 << 15
    return [message(1, flags=1), message(15, flags=1),
            message(16, struct.pack("<Q", protocol), flags=1), message(17, flags=1),
            message(36, flags=1), message(3, flags=1),
            message(2, struct.pack("<Q", features), flags=1)]


def ring(index):
    """Everything that starts a ring in the region below."""
    base = UVA + 0x8000 * index
    return [message(8, struct.pack("<II", index, 16), flags=1),
            message(10, struct.pack("<II", index, 0), flags=1),
            message(9, struct.pack("<IIQQQQ", index, 0, base, base + 0x2000,
                                   base + 0x1000, 0), flags=1),
            message(12, struct.pack("<Q", index), 1, EVENT),
            message(13, struct.pack("<Q", index), 1, EVENT),
            message(14, struct.pack("<Q", index | 0x100)),
            message(18, struct.pack("<II", index, 1))]


def offer(how=0):
    """The guest offers requests on each ring."""
    return message(WRITE_MEMORY, how=how)


def logged(index, size, flags=1):
    """A dirty log in the guest's own memory, for a ring that runs; the answers of what it
    offers are marked there.
    """
    features = 1 << 26 | 1 << 28 | 1 << 29 | 1 << 30 | 1 << 32
    base = UVA + 0x8000 * index
    return [message(6, struct.pack("<QQ", size, 0), 1, FILE_KIND, flags=1),
            message(7, b"", 1, EVENT, flags=1),
            message(2, struct.pack("<Q", features)),
            message(9, struct.pack("<IIQQQQ", index, flags, base, base + 0x2000,
                                   base + 0x1000, GPA + 0x8000 * index + 0x2000)),
            offer(), message(2, struct.pack("<Q", features & ~(1 << 26)))]


def vhost_user_seeds():
    """A start, a stop, a reset, memory that comes and goes."""
    region = struct.pack("<QQQQ", GPA, 1 << 20, UVA, 0)
    add = message(37, bytes(8) + region, 1, FILE_KIND)
    remove = message(38, bytes(8) + region)
    stop = [message(18, struct.pack("<II", 0, 0)),
            message(11, struct.pack("<II", 0, 0), flags=1)]
    config = struct.pack("<III", 0, 40, 0) + bytes(40)
    start = handshake() + [add] + ring(0) + ring(1)
    yield b"".join(start)
    yield b"".join(start + stop + [message(34, flags=1)] + ring(0))
    for size in (1, 0x9000, 1 << 20):
        yield b"".join(start + logged(0, size) + logged(1, size))
        yield b"".join(start + [offer(1)] + logged(0, size) + [message(34, flags=1)])
        yield b"".join(start + logged(0, size)[:-1]
                       + [message(3, how=8), offer(), message(3, how=4)])
    yield b"".join(start + [remove, add])
    yield b"".join(handshake() + [message(24, config, flags=1), message(25, config)])
    table = struct.pack("<II", 1, 0) + region
    yield b"".join(handshake()[:3] + [message(5, table, 1, FILE_KIND)] + ring(0) + stop)
    yield b"".join(handshake() + [message(21, b"", 1, 4)])
    yield b"".join(handshake() + [message(21, b"", 1, EVENT)])
    again = message(18, struct.pack("<II", 0, 1))
    # Requests that are held or parked, memory that is taken away, a message that is cut,
    # descriptors that come late, answers that nobody reads: see HOW_* there.
    for how in (1, 2, 3, 1 | 4, 2 | 4, 8, 16, 32, 64, 8 | 1):
        changed = message(18, struct.pack("<II", 0, 1), how=how)
        for end in (stop, [remove, add], [message(34, flags=1)], [add, remove],
                    [message(5, table, 1, FILE_KIND)], [again]):
            yield b"".join(start + [offer(how), changed] + end)
        yield b"".join(start + [message(37, bytes(8) + region, 1, FILE_KIND, how=how)])
        yield b"".join(start + [message(36, flags=1, how=how)])
        yield b"".join(start + [offer(how & 3), offer(how)])



def request(opcode, node=1, body=b"", room=256, extlen=0, unique=1):
    """A record of fuzz-request and fuzz-passthrough."""
    header = struct.pack("=IIQQIIIHH", 0, opcode, unique, node, 0, 0, 1, extlen, 0)
    return struct.pack("<HH", room, len(header + body)) + header + body


# As the file system numbers what is looked up and opened first.
FILE, TEMPORARY, FIRST, SECOND = 2, 3, 1, 2
CREATE_IN = struct.pack("=IIII", 2, 0o100644, 0, 0)
LABEL = struct.pack("=IIII", 40, 1, 4, 0) + b"security.test\0abcd" + bytes(6)


def rare_requests(is_labelled):
    """Those that a recorded guest seldom sends."""
    copy = struct.pack("=QQQQQQQ", FIRST, 0, TEMPORARY, SECOND, 0, 4096, 0)
    flags = struct.pack("=QIIQII", FIRST, 0, 0x40086602, 0, 4, 0) + bytes(4)
    attributes = struct.pack("=QIIQII", FIRST, 0, 0x801C581F, 0, 0, 28)
    extensions = (LABEL if is_labelled else b"") + struct.pack("=IIII", 16, 32, 1, 1000)
    return [
        request(51, body=CREATE_IN + b"/\0"),
        request(52, FILE, struct.pack("=IIQII", 1, 0, FIRST, 0, 0xFFF), 512),
        request(46, FILE, struct.pack("=QQII", FIRST, 0, 4, 0)),
        request(47, FILE, copy), request(53, FILE, copy),
        request(39, FILE, flags), request(39, FILE, attributes),
        request(43, TEMPORARY, struct.pack("=QQQII", SECOND, 0, 4096, 3, 0)),
        request(8, body=struct.pack("=IIII", 0o020000, 0, 0, 0) + b"whiteout\0"),
        request(9, body=struct.pack("=II", 0o755, 0) + b"made\0" + extensions,
                extlen=len(extensions) // 8),
        request(45, body=struct.pack("=QII", 1, 4, 0) + b"file\0left\0"),
        request(45, body=struct.pack("=QII", 1, 2, 0) + b"left\0dir\0"),
        request(4, FILE, struct.pack("=II6Q8I", 1 << 10 | 1 << 5, 0, *[0] * 14)),
        request(21, FILE, struct.pack("=II", 1, 0) + b"user.name\0v"),
        request(22, FILE, struct.pack("=II", 64, 0) + b"user.name\0"),
        request(23, FILE, struct.pack("=II", 64, 0)),
        request(24, FILE, b"user.name\0"),
        request(40, FILE, struct.pack("=QQII", FIRST, 0, 0, 1)),
        request(34, FILE, bytes(8)), request(37, FILE, bytes(16)),
    ]


def event(number):
    """What is done to a session from the other side: see run_event() in stream.c."""
    return struct.pack("<HH", number, 0)


SHARED, EXCLUSIVE, UNLOCK = 0, 1, 2
POSIX_LOCK, FLOCK = 0x100, 0x200


def lock(opcode, owner, kind, handle=FIRST, unique=1, whole=0, node=FILE, end=9):
    """GETLK, SETLK and SETLKW."""
    body = struct.pack("=QQQQIIII", handle, owner, 0, end, kind, owner, whole, 0)
    return request(opcode, node, body, unique=unique)


def lock_rows():
    """Who waits, and how that ends."""
    flush = request(25, FILE, struct.pack("=QIIQ", SECOND, 0, 0, 2))
    release = request(18, FILE, struct.pack("=QIIQ", SECOND, 0, 0, 2))
    mine, other = lock(32, 1, EXCLUSIVE), lock(33, 2, EXCLUSIVE, SECOND, 7)
    free = lock(32, 1, UNLOCK)
    yield [mine, other, free, lock(31, 3, SHARED)]
    yield [mine, lock(32, 2, SHARED, SECOND), lock(31, 2, SHARED, SECOND)]
    yield [mine, other, request(36, body=struct.pack("=Q", 7)), free]
    yield [request(36, body=struct.pack("=Q", 7)), mine, other, free]
    yield [mine, other, flush, free]
    yield [mine, other, release, free]
    yield [mine, other, lock(33, 3, EXCLUSIVE, unique=8), free, lock(32, 2, UNLOCK)]
    # Two that wait for each other.
    yield [mine, lock(32, 2, EXCLUSIVE, SECOND + 1, node=TEMPORARY), other,
           lock(33, 1, EXCLUSIVE, SECOND + 1, 9, node=TEMPORARY)]
    for end in (request(38), request(26, body=struct.pack("=IIII", 7, 38, 0, 2**32 - 1))):
        yield [mine, other, end]
    for number in range(6):
        yield [mine, other, event(number), lock(33, 4, SHARED, unique=10), free]
    mine = lock(32, 1, EXCLUSIVE, whole=1)
    other = lock(33, 2, EXCLUSIVE, SECOND, 7, whole=1)
    yield [mine, other, lock(32, 1, UNLOCK, whole=1),
           lock(33, 2, SHARED, SECOND, whole=1)]
    yield [mine, other, event(2), release]
    yield [lock(32, 1, SHARED, whole=1), lock(32, 2, SHARED, SECOND, whole=1),
           lock(33, 1, EXCLUSIVE, whole=1, unique=5), release]
    yield [lock(32, 1, SHARED, end=2**63 - 1), lock(32, 1, 3), lock(32, 1, UNLOCK, end=4),
           lock(31, 2, EXCLUSIVE, SECOND)]


def lock_seeds():
    """Two that have the same file open, a third another one."""
    start = [request(1, body=b"file\0"), request(14, FILE, struct.pack("=II", 2, 0)),
             request(14, FILE, struct.pack("=II", 2, 0)),
             request(51, body=CREATE_IN + b"/\0")]
    for row in lock_rows():
        for modes in (POSIX_LOCK | FLOCK, POSIX_LOCK, FLOCK):
            yield struct.pack("<H", modes) + b"".join(start + row)


def name_seeds():
    """Names in every request that has them, and directories that are read."""
    made = [request(9, body=struct.pack("=II", 0o755, 0) + b"made\0"),
            request(6, body=b"symlink\0target\0"), request(5, 3, room=4096),
            request(8, body=struct.pack("=IIII", 0o100644, 0, 0, 0) + b"node\0"),
            request(1, body=b"dir\0"), request(1, 5, b"inner\0"),
            request(13, body=struct.pack("=Q", 4) + b"linked\0"),
            request(12, body=struct.pack("=Q", 5) + b"linked\0moved\0"),
            request(45, 5, struct.pack("=QII", 1, 1, 0) + b"moved\0back\0"),
            request(10, body=b"back\0"), request(11, body=b"made\0"),
            request(1, body=b"absent\0"), request(1, body=b"..\0"),
            request(17, room=200), request(50, body=bytes(8))]
    listed = [request(27, body=bytes(8)), *(
        request(opcode, body=struct.pack("=QQIIQII", FIRST, at, size, 0, 0, 0, 0),
                room=size + 16)
        for opcode in (28, 44) for at in (0, 3, 60) for size in (4080, 512, 100, 30)),
        request(3, 0x80, bytes(16)), request(3, 0x81, bytes(16)), request(42, body=(
            struct.pack("=II", 2, 0) + struct.pack("=QQQQ", 0x80, 1, 0x81, 9))),
        request(30, body=struct.pack("=QII", FIRST, 0, 0)), request(2, 2, bytes(8)),
        request(29, body=struct.pack("=QIIQ", FIRST, 0, 0, 0))]
    data = [request(1, body=b"file\0"), request(14, FILE, struct.pack("=II", 2, 0)),
            request(16, FILE, struct.pack("=QQIIQII", FIRST, 0, 4, 0, 0, 2, 0) + b"abcd"),
            request(15, FILE, struct.pack("=QQIIQII", FIRST, 0, 4080, 0, 0, 2, 0), 4096),
            request(20, FILE, struct.pack("=QII", FIRST, 1, 0)),
            request(25, FILE, struct.pack("=QIIQ", FIRST, 0, 0, 2)),
            request(3, FILE, struct.pack("=IIQ", 1, 0, FIRST)),
            request(18, FILE, struct.pack("=QIIQ", FIRST, 2, 0, 2))]
    for nibble in range(16):
        for row in (made, listed, data):
            yield struct.pack("<H", nibble << 12 | 4) + b"".join(row)


def odd_seeds():
    """What is cut, too long or in many pieces."""
    init = struct.pack("=IIII", 7, 38, 0, 2**32 - 1)
    makes = struct.pack("=II", 0o755, 0) + b"made\0"
    groups, too_long = struct.pack("=II", 8, 32), bytes(4104)
    cut = [struct.pack("<HH", 64, 20) + bytes(20), request(26, body=init + bytes(8)),
           request(26, body=init), request(26, body=struct.pack("=IIII", 6, 0, 0, 0)),
           request(26, body=struct.pack("=IIII", 8, 0, 0, 0)), request(38),
           request(3, body=bytes(16)), request(26, body=init + bytes(48)),
           request(1, body=b"n" * 256 + b"\0"), request(1, body=b"n" * 5000 + b"\0"),
           request(1, body=b"open"), request(22, body=bytes(8) + b"n" * 256 + b"\0"),
           request(12, body=struct.pack("=Q", 1) + b"a\0" + b"n" * 256 + b"\0"),
           request(6, body=b"a\0" + b"t" * 4096 + b"\0"),
           request(9, body=makes + groups, extlen=1),
           request(9, body=makes + struct.pack("=II", 16, 1) + bytes(8), extlen=2),
           request(9, body=makes + struct.pack("=II", 8, 1), extlen=1),
           request(9, body=makes + too_long, extlen=513),
           request(9, body=makes + bytes(8)), request(0), request(99),
           request(42, body=struct.pack("=II", 9, 0) + bytes(16))]
    data = [request(1, body=b"file\0"), request(14, FILE, struct.pack("=II", 2, 0)),
            request(16, FILE, struct.pack("=QQIIQII", FIRST, 0, 4096, 0, 0, 2, 0)
                    + bytes(4096), room=63),
            request(15, FILE, struct.pack("=QQIIQII", FIRST, 0, 4080, 0, 0, 2, 0),
                    room=4159), lock(31, 1, SHARED, handle=99), lock(31, 1, 9)]
    for modes in (0, 4, 8 | 4, 16 | 4, 0x800 | 8 | 4, 0x800 | 16 | 4, POSIX_LOCK):
        for row in (cut, data):
            yield struct.pack("<H", modes) + b"".join(row)


WINDOW, MIB_2 = 0x8000, 2 << 20
VMM_SAYS = {"yes": 6, "no": 6 | 8, "stops": 6 | 16, "shrinks": 6 | 24}


def map_file(node=FILE, handle=2**64 - 1, at=0, flags=3, to=0, length=MIB_2):
    """SETUPMAPPING."""
    return request(48, node, struct.pack("=QQQQQ", handle, at, length, flags, to))


def unmap(*pieces, count=None):
    """REMOVEMAPPING of (offset, length)."""
    count = len(pieces) if count is None else count
    return request(49, FILE, struct.pack("=I", count) + b"".join(
        struct.pack("=QQ", *piece) for piece in pieces))


def window_seeds():
    """Files that are mapped, by a VMM that does so or not."""
    init = request(26, body=struct.pack("=IIIIII", 7, 45, 0, 2**32 - 1, 2**32 - 1, 0)
                   + bytes(40))
    start = [request(1, body=b"file\0"), request(14, FILE, struct.pack("=II", 2, 0)),
             request(14, FILE, struct.pack("=II", 0, 0)), request(3, FILE, bytes(16))]
    rows = [map_file(), map_file(flags=2, to=MIB_2), map_file(handle=FIRST, at=MIB_2),
            map_file(handle=SECOND), map_file(handle=99), map_file(node=1),
            map_file(at=1), map_file(to=4096), map_file(flags=0), map_file(flags=4),
            map_file(length=4096), unmap((0, MIB_2)), unmap((0, MIB_2), (MIB_2, MIB_2)),
            unmap((1, MIB_2)), unmap((0, 0)), unmap((0, MIB_2), count=2), unmap(count=0)]
    for says in VMM_SAYS.values():
        for modes in (WINDOW, WINDOW | 1, WINDOW | 0x7000):
            yield struct.pack("<H", modes) + b"".join(
                start + [event(says)] + rows + [init] + rows[:1] + [request(38)] + rows)
    yield struct.pack("<H", 0) + b"".join(start + rows)


def request_seeds():
    """All rows, and one of the rare requests in several modes."""
    yield from window_seeds()
    yield from lock_seeds()
    yield from name_seeds()
    yield from odd_seeds()
    start = [request(1, body=b"file\0"), request(14, FILE, struct.pack("=II", 2, 0))]
    read_only = [request(1, body=b"file\0"), request(14, FILE, bytes(8)),
                 request(35, body=struct.pack("=IIII", 0o100, 0o644, 0, 0) + b"file\0")]
    for modes in (0, 2, 4, 4 | 8, 4 | 8 | 16, 32, 64, 128, 192):
        yield struct.pack("<H", modes) + b"".join(start + rare_requests(modes & 16))
    for modes in (1, 1 | 4, 1 | 64):
        yield struct.pack("<H", modes) + b"".join(read_only + rare_requests(False))


XATTR_MAPS = [
    b":map::user.virtiofs.:", b"/map/trusted./user.virtiofs./",
    b":prefix:client:trusted.:user.virtiofs.: :prefix:server::user.virtiofs.:"
    b" :bad:all:security.:security.: :unsupported:client:user.no:: :ok:all:::",
    b"\n:prefix:all::user.:\n:bad:all:::", b":ok:client:::\t:ok:server:::",
    b":prefix:all:user.:" + b"p" * 250 + b": :ok:all:::",
    b":ok:all:user.a::" * 255 + b":bad:all:::",
    b"", b":map:a", b":what:all:::", b":ok:some:::", b":ok:client:::", b":ok:server:::",
    b":ok:all:user.a::" * 257, b":map:::x", b":ok:all:user.::",
    b":ok:all:" + b"k" * 256 + b"::",
]
NAMES = b"user.a\0trusted.overlay\0user.virtiofs.trusted.x\0security.capability\0user.no"

ID_MAPS = [
    ["m:5:100000:10:"],
    ["m:0:100000:65536:", "m:65536:0:1:", "m/4294967294/4294967293/1/"],
    ["m:1:1:10:", "m:5:100:1:", "m:100:5:1:", "m:0:0:0:", "m:1:2:3", "mx", "m::::",
     "m:4294967295:0:1:", "m\u00e4:0:1:1:"],
    [f"m:{i}:{i + 1000}:1:" for i in range(341)],
    ["tmap:1000:0:1", "tsquash-guest:2000:1:100", "tforbid-guest:3000:10", "thost:5:7:3",
     "tguest:50:70:5", "tsquash-host:100:4294967294:10"],
    ["tMAP:0:4294967290:5", "tmap/5/0/5"],
    ["tmap:0:0:10", "tguest:9:100:1"], ["thost:0:0:10", "tsquash-host:5:1:1"],
    ["tmap:0:0:0"], ["tmap:0:0:4294967295", "tmap:4294967295:0:1"], ["twhat:0:0:1"],
    ["tmap:0:4294967294:2"], ["tmap:1:2"], ["tmap:1:2:3:4"], ["tforbid-guest:1:-1"],
]

BASIC = ["--shared-dir=/srv", "--socket-path=/run/s"]
OPTIONS = [
    BASIC, ["-V"], ["--help"], ["-h"], ["--print-capabilities"], ["--list-options"],
    [*BASIC, "-d", "-f"], [*BASIC, "-df"], ["--fd=3", *BASIC[:1]], ["--fd", "3", "x"],
    [*BASIC, "-o", "source=/srv,cache=auto,timeout=1.5,sandbox=none,debug,xattr"],
    [*BASIC, "-o", "no_xattr,writeback,no_writeback,flock,posix_lock,posix_acl"],
    [*BASIC, "-o", "xattrmap=:map::user.v.:,allow_root,max_idle_threads=3"],
    [*BASIC, "-o", "security_label,no_posix_acl,announce_submounts,readdirplus"],
    [*BASIC, "-omodcaps=+chown:-mknod", "-o", "log_level=info,loglevel=error"],
    [*BASIC, "-o", "what"], [*BASIC, "-o", ""], [*BASIC, "-o", "cache="],
    [*BASIC, "-o", "a\\,b"], [*BASIC, "-o", "allow_root"],
    [*BASIC, "--migration-mode=x"], [*BASIC, "--migration-mode=find-paths"],
    [*BASIC, "--migration-confirm-paths"], [*BASIC, "-o", "no_xattr"],
    [*BASIC, "-o", "timeout=1,,debug"],
    [*BASIC, "--cache=always", "--attr-timeout=0.000000001", "--entry-timeout=86400"],
    [*BASIC, "--cache=never", "--negative-timeout=5", "--no-readdirplus"],
    [*BASIC, "--cache=metadata", "--writeback", "--allow-direct-io", "--allow-mmap"],
    [*BASIC, "--uid-map=:0:100000:65536:", "--gid-map=/0/100000/65536/"],
    [*BASIC, "--translate-uid=map:0:1:2", "--translate-gid=squash-guest:0:1:9"],
    [*BASIC, "--translate-uid=map:0:1:2", "--posix-acl"],
    [*BASIC, "--posix-acl=always", "--xattrmap=:map::user.v.:"],
    [*BASIC, "--posix-acl=auto", "--xattrmap=:map::user.v.:"],
    [*BASIC, "--xattr", "--xattrmap=:ok:all:::", "--security-label=never"],
    [*BASIC, "--tag=volume", "--readonly", "--socket-group=kvm", "--syslog"],
    [*BASIC, "--tag=" + "t" * 37], [*BASIC, "--tag="],
    [*BASIC, "--sandbox=chroot", "--seccomp=log", "--no-landlock"],
    [*BASIC, "--sandbox=namespace", "--sandbox=none"], [*BASIC, "--sandbox=what"],
    [*BASIC, "--modcaps=+sys_admin:-chown"], [*BASIC, "--modcaps=what"],
    [*BASIC, "--thread-pool-size=4", "--num-request-queues=2", "--poll-us=50"],
    [*BASIC, "--rlimit-nofile=1000", "--inode-file-handles=fallback"],
    [*BASIC, "--rlimit-nofile=x"], [*BASIC, "--thread-pool-size=99999999999"],
    [*BASIC, "--inode-file-handles=mandatory", "--killpriv-v2", "--log-level=debug"],
    [*BASIC, "--no-killpriv-v2", "--preserve-noatime", "--announce-submounts"],
    [*BASIC, "--no-announce-submounts", "--migration-mode=paths"],
    [*BASIC, "--dax=always"], [*BASIC, "--dax-window=0"], [*BASIC, "--dax-window=512M"],
    [*BASIC, "--dax-window=3M"], [*BASIC, "--dax-window=1k"],
    [*BASIC, "--dax-window=64M", "--dax-protocol=legacy"],
    [*BASIC, "--dax-protocol=legacy-v3", "--dax-window=2M", "--dax=never"],
    [*BASIC, "--attr-timeout=x"],
    [*BASIC, "--attr-timeout=1.0000000001"], [*BASIC, "--attr-timeout=1.x"],
    ["--shared-dir", "/srv", "--socket", "/run/s"], [*BASIC, "--socket=/other"],
    ["--shared-dir=/a", "--shared-dir=/b"], ["--shared-dir"], ["--shared-dir", "-x"],
    [*BASIC, "--fd=3"], ["--fd=3", "--socket=/run/s"], ["--shared-dir=/srv"], [],
    [*BASIC, "--readonly=yes"], [*BASIC, "--shared_dir"], [*BASIC, "--what"],
    [*BASIC, "-x"], [*BASIC, "--"], [*BASIC, "word"], [*BASIC, "-"],
    ["--print-capabilities", "--socket-group=x"], [*BASIC, "--fd=99999999999"],
    [*BASIC, "-o", "debug", "-d"], ["--socket-group=x", "--fd=3", *BASIC[:1]],
]


def text_seeds():
    """Options, one a line."""
    for words in OPTIONS:
        yield "\n".join(words).encode()


def id_map_seeds():
    """Rules, one a line."""
    for lines in ID_MAPS:
        yield "\n".join(lines).encode()


def xattr_map_seeds():
    """Rules, then names."""
    for rules in XATTR_MAPS:
        yield rules + b"\0" + NAMES
        yield rules + b"\0" + b"user." + b"n" * 250


SEEDS = {"request": request_seeds, "passthrough": request_seeds,
         "virtqueue": virtqueue_seeds, "vhost-user": vhost_user_seeds,
         "options": text_seeds, "id-maps": id_map_seeds, "xattr-map": xattr_map_seeds}


def main():
    """Command line."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for target, seeds in SEEDS.items():
        directory = os.path.join(sys.argv[1], target)
        os.makedirs(directory, exist_ok=True)
        for i, seed in enumerate(seeds()):
            with open(os.path.join(directory, f"seed-{i:03}"), "wb") as file:
                file.write(seed)


if __name__ == "__main__":
    main()
