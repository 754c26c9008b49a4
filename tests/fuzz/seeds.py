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


def message(request, payload=b"", fds=0, kind=0, flags=9):
    """A record of fuzz-vhost-user: an honest size, and descriptors that come along."""
    return struct.pack("<BBBBH", request, flags, fds << 4 | kind, 0,
                       len(payload)) + payload


EVENT, FILE = 0, 1


def handshake():
    """Up to the first memory region."""
    features = 1 << 28 | 1 << 29 | 1 << 30 | 1 << 32
    protocol = 1 << 0 | 1 << 3 | 1 << 5 | 1 << 9 | 1 << 10 | 1 << 13 | 1 << 15
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


def vhost_user_seeds():
    """A start, a stop, a reset, memory that comes and goes."""
    region = struct.pack("<QQQQ", GPA, 1 << 20, UVA, 0)
    add = message(37, bytes(8) + region, 1, FILE)
    remove = message(38, bytes(8) + region)
    stop = [message(18, struct.pack("<II", 0, 0)),
            message(11, struct.pack("<II", 0, 0), flags=1)]
    config = struct.pack("<III", 0, 40, 0) + bytes(40)
    start = handshake() + [add] + ring(0) + ring(1)
    yield b"".join(start)
    yield b"".join(start + stop + [message(34, flags=1)] + ring(0))
    yield b"".join(start + [remove, add])
    yield b"".join(handshake() + [message(24, config, flags=1), message(25, config)])
    table = struct.pack("<II", 1, 0) + region
    yield b"".join(handshake()[:3] + [message(5, table, 1, FILE)] + ring(0) + stop)
    yield b"".join(handshake() + [message(21, b"", 1, 4)])


def request(opcode, node=1, body=b"", room=256, extlen=0):
    """A record of fuzz-request and fuzz-passthrough."""
    header = struct.pack("=IIQQIIIHH", 40 + len(body), opcode, 1, node, 0, 0, 1, extlen,
                         0)
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


def request_seeds():
    """One row of them all, in several modes."""
    start = [request(1, body=b"file\0"), request(14, FILE, struct.pack("=II", 2, 0))]
    read_only = [request(1, body=b"file\0"), request(14, FILE, bytes(8)),
                 request(35, body=struct.pack("=IIII", 0o100, 0o644, 0, 0) + b"file\0")]
    for modes in (0, 2, 4, 4 | 8, 4 | 8 | 16, 32, 64, 128, 192):
        yield bytes([modes]) + b"".join(start + rare_requests(modes & 16))
    for modes in (1, 1 | 4, 1 | 64):
        yield bytes([modes]) + b"".join(read_only + rare_requests(False))


SEEDS = {"request": request_seeds, "passthrough": request_seeds,
         "virtqueue": virtqueue_seeds, "vhost-user": vhost_user_seeds}


def main():
    """Command line."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for target, seeds in SEEDS.items():
        directory = os.path.join(sys.argv[1], target)
        os.makedirs(directory, exist_ok=True)
        for i, seed in enumerate(seeds()):
            with open(os.path.join(directory, f"seed-{i:02}"), "wb") as file:
                file.write(seed)


if __name__ == "__main__":
    main()
