# SPDX-License-Identifier: Apache-2.0
"""Malformed FUSE requests, made from the well-formed ones of hostile.py. A generator
yields whole requests, as bytes, that differ from an honest one in one thing; spoiled()
makes any number of them, in which everything may be wrong.
"""

import os
import stat
import struct

import fuse_client as fuse
from hostile import EXTREMES, SESSION_OPCODES, samples

HEADER = 40
NAME_MAX, XATTR_MAX, READ_MAX = 255, 65536, 256 * 65536
LAST_OPCODE = 8191

# The bytes of each fixed struct behind the header; operations without are not here.
FIXED = {
    fuse.FORGET: 8, fuse.GETATTR: 16, fuse.SETATTR: 88, fuse.MKNOD: 16, fuse.MKDIR: 8,
    fuse.RENAME: 8, fuse.LINK: 8, fuse.OPEN: 8, fuse.READ: 40, fuse.WRITE: 40,
    fuse.RELEASE: 24, fuse.FSYNC: 16, fuse.SETXATTR: 8, fuse.GETXATTR: 8,
    fuse.LISTXATTR: 8, fuse.FLUSH: 24, fuse.OPENDIR: 8, fuse.READDIR: 40,
    fuse.RELEASEDIR: 24, fuse.FSYNCDIR: 16, fuse.GETLK: 48, fuse.SETLK: 48,
    fuse.SETLKW: 48, fuse.ACCESS: 8, fuse.CREATE: 16, fuse.INTERRUPT: 8, fuse.BMAP: 16,
    fuse.IOCTL: 32, fuse.POLL: 24, fuse.NOTIFY_REPLY: 40, fuse.BATCH_FORGET: 8,
    fuse.FALLOCATE: 32, fuse.READDIRPLUS: 40, fuse.RENAME2: 16, fuse.LSEEK: 24,
    fuse.COPY_FILE_RANGE: 56, fuse.SETUPMAPPING: 40, fuse.REMOVEMAPPING: 4,
    fuse.SYNCFS: 8, fuse.TMPFILE: 16, fuse.STATX: 24, fuse.COPY_FILE_RANGE_64: 56,
}

# Where a struct says how long something is: (offset, width, its largest sound value).
LENGTHS = {
    fuse.READ: ((16, 4, READ_MAX),), fuse.WRITE: ((16, 4, 1 << 20),),
    fuse.READDIR: ((16, 4, 1 << 20),), fuse.READDIRPLUS: ((16, 4, 1 << 20),),
    fuse.SETXATTR: ((0, 4, XATTR_MAX),), fuse.GETXATTR: ((0, 4, XATTR_MAX),),
    fuse.LISTXATTR: ((0, 4, XATTR_MAX),), fuse.BATCH_FORGET: ((0, 4, 1),),
    fuse.FALLOCATE: ((16, 8, (1 << 63) - 1),), fuse.IOCTL: ((24, 4, 28), (28, 4, 28)),
    fuse.COPY_FILE_RANGE: ((40, 8, (1 << 63) - 1),),
    fuse.COPY_FILE_RANGE_64: ((40, 8, (1 << 63) - 1),),
    fuse.SETUPMAPPING: ((16, 8, 1 << 21),), fuse.REMOVEMAPPING: ((0, 4, 256), (12, 8, 1)),
    fuse.SETATTR: ((16, 8, (1 << 63) - 1),), fuse.LSEEK: ((8, 8, (1 << 63) - 1),),
}

# Where a struct has a handle.
HANDLES = {opcode: (0,) for opcode in (
    fuse.READ, fuse.WRITE, fuse.RELEASE, fuse.FSYNC, fuse.FLUSH, fuse.READDIR,
    fuse.RELEASEDIR, fuse.FSYNCDIR, fuse.GETLK, fuse.SETLK, fuse.SETLKW, fuse.IOCTL,
    fuse.POLL, fuse.FALLOCATE, fuse.READDIRPLUS, fuse.LSEEK, fuse.SETUPMAPPING)}
HANDLES.update({fuse.GETATTR: (8,), fuse.SETATTR: (8,), fuse.STATX: (8,),
                fuse.COPY_FILE_RANGE: (0, 24), fuse.COPY_FILE_RANGE_64: (0, 24)})

# Where a struct has a node besides the header's.
NODES = {fuse.LINK: 0, fuse.RENAME: 0, fuse.RENAME2: 0, fuse.COPY_FILE_RANGE: 16,
         fuse.COPY_FILE_RANGE_64: 16, fuse.BATCH_FORGET: 8}

# No operation takes these for a file's name.
NO_NAMES = (b'', b'.', b'..', b'/', b'a/b', b'/etc/x', b'../outside', b'..\0', b'a\0b',
            b'x' * (NAME_MAX + 1), b'x' * 4096, b'a/' * 2000, b'../' * 1000)


def sound(guest):
    """(opcode, node, body) of each opcode that leaves the session alone."""
    return [(opcode, node, body) for opcode, (node, body) in samples(guest).items()
            if opcode not in SESSION_OPCODES]


def wrong_lengths(guest):
    """Every opcode x {0, 39, 40, smallest - 1, + 1, 2^32 - 1, unlike the chain}."""
    for opcode, node, body in sound(guest):
        whole = guest.client.pack(opcode, node, body)
        least = HEADER + FIXED.get(opcode, 0)
        for length in (0, HEADER - 1, HEADER, least - 1, least, least + 1, 0xFFFFFFFF):
            chain = (whole + bytes(64))[:min(length, len(whole) + 64)]
            yield guest.client.pack(opcode, node, body, len=length)  # unlike the chain
            yield chain  # unlike what the header says
            if len(chain) >= 4:
                yield struct.pack('=I', length) + chain[4:]


def truncated(guest):
    """Every fixed struct, and what follows it, cut at every byte."""
    for opcode, node, body in sound(guest):
        whole = guest.client.pack(opcode, node, body)
        for size in range(len(whole)):
            yield whole[:size]
            if size >= 4:
                yield struct.pack('=I', size) + whole[4:size]


def length_fields(guest):
    """Every field that is a length, at what is likely to be forgotten."""
    for opcode, node, body in sound(guest):
        for at, width, most in LENGTHS.get(opcode, ()):
            for value in {0, 1, most, most + 1, 1 << 31, (1 << 32) - 1, 1 << 63,
                          (1 << 64) - 1}:
                if not value >> 8 * width:
                    changed = bytearray(body)
                    changed[at:at + width] = value.to_bytes(width, 'little')
                    yield guest.client.pack(opcode, node, bytes(changed))
        for value in EXTREMES:
            yield guest.client.pack(opcode, node, body, len=value)
        for value in (1, 2, 3, 0x7FFF, 0x8000, 0xFFFF):
            yield guest.client.pack(opcode, node, body + bytes(24), extlen=value)


def with_name(guest, end, folder=None):
    """Every operation that takes a name, with these bytes in each place of one:
    (opcode, node, body).
    """
    folder = folder or guest.folder
    flags = struct.pack('=IIII', os.O_RDWR, 0o600, 0, 0)
    mknod = struct.pack('=IIII', stat.S_IFREG | 0o600, 0, 0, 0)
    to_folder = struct.pack('=Q', folder)
    yield from (
        (fuse.LOOKUP, folder, end), (fuse.UNLINK, folder, end),
        (fuse.RMDIR, folder, end),
        (fuse.MKDIR, folder, struct.pack('=II', 0o700, 0) + end),
        (fuse.MKNOD, folder, mknod + end), (fuse.CREATE, folder, flags + end),
        (fuse.SYMLINK, folder, end + b'target\0'),
        (fuse.LINK, folder, struct.pack('=Q', guest.file) + end),
        (fuse.RENAME, folder, to_folder + b'a\0' + end),
        (fuse.RENAME, folder, to_folder + end + b'a\0'),
        (fuse.RENAME2, folder, to_folder + bytes(8) + b'a\0' + end),
        (fuse.RENAME2, folder, to_folder + struct.pack('=II', 2, 0) + end + b'a\0'))


def with_other_name(guest, end):
    """The same, where the name is no file's: links' targets, attributes, TMPFILE."""
    flags = struct.pack('=IIII', os.O_RDWR, 0o600, 0, 0)
    yield from (
        (fuse.SYMLINK, guest.folder, b'link\0' + end),
        (fuse.SETXATTR, guest.file, struct.pack('=II', 5, 0) + end + b'value'),
        (fuse.GETXATTR, guest.file, struct.pack('=II', 64, 0) + end),
        (fuse.REMOVEXATTR, guest.file, end),
        (fuse.TMPFILE, guest.folder, flags + end))


def wrong_names(guest):
    """No NUL, NULs inside, names that are no component."""
    for name in (*NO_NAMES, b'name', b'\xff\xfe', b'\n\x1b[31m', b'x' * NAME_MAX):
        for end in (name + b'\0', name, b'\0' + name + b'\0', name + b'\0' + name):
            for opcode, node, body in (*with_name(guest, end),
                                       *with_other_name(guest, end)):
                yield guest.client.pack(opcode, node, body)


def unknown_opcodes(guest):
    """All numbers up to 8191, and some beyond."""
    for opcode in (*range(LAST_OPCODE + 1), 1 << 15, 1 << 16, 1 << 31, 0xFFFFFFFF):
        if opcode not in SESSION_OPCODES:
            yield guest.client.pack(opcode, fuse.ROOT, bytes(8 * (opcode % 9)))


def nodes_of_every_kind(guest, random):
    """Root, live ones of each kind, freed, of generations to come, invented."""
    freed = guest.client.mkdir(guest.folder, b'freed').nodeid
    guest.client.rmdir(guest.folder, b'freed')
    guest.client.forget(freed)
    live = (guest.file, guest.folder, guest.link)
    return (0, 1, 2, 99, freed, freed + (1 << 32), *live,
            *(node + (1 << 32) for node in live), *(node ^ (1 << 31) for node in live),
            1 << 32, (1 << 32) + 1, 1 << 63, (1 << 64) - 1,
            *(random.getrandbits(64) for _ in range(4)))


def wrong_nodes(guest, random):
    """Every opcode on every kind of node, in the header and in its struct."""
    for opcode, _, body in sound(guest):
        for node in nodes_of_every_kind(guest, random):
            yield guest.client.pack(opcode, node, body)
            if opcode in NODES:
                changed = bytearray(body)
                struct.pack_into('=Q', changed, NODES[opcode], node)
                yield guest.client.pack(opcode, guest.folder, bytes(changed))


def handles_of_every_kind(guest, random):
    """Of a file, of a directory, freed, of generations to come, invented."""
    freed, _ = guest.client.open(guest.file, os.O_RDWR)
    guest.client.release(guest.file, freed)
    live = (guest.handle, guest.dir_handle)
    return (0, 1, 2, freed, *live, *(handle + (1 << 32) for handle in (freed, *live)),
            1 << 32, 1 << 63, (1 << 64) - 1, *(random.getrandbits(64) for _ in range(4)))


def wrong_handles(guest, random):
    """Every operation on handles of every kind, on nodes of every kind."""
    for opcode, node, body in sound(guest):
        for at in HANDLES.get(opcode, ()):
            for handle in handles_of_every_kind(guest, random):
                changed = bytearray(body)
                struct.pack_into('=Q', changed, at, handle)
                for on in (node, fuse.ROOT, guest.folder, guest.link):
                    if opcode in (fuse.RELEASE, fuse.RELEASEDIR) and handle in (
                            guest.handle, guest.dir_handle):
                        continue  # used by the others
                    yield guest.client.pack(opcode, on, bytes(changed))


def extreme_fields(guest):
    """Every aligned 32- and 64-bit piece of every body."""
    for opcode, node, body in sound(guest):
        for width in (4, 8):
            for at in range(0, len(body) - width + 1, 4):
                for value in EXTREMES:
                    if not value >> 8 * width:
                        changed = bytearray(body)
                        changed[at:at + width] = value.to_bytes(width, 'little')
                        yield guest.client.pack(opcode, node, bytes(changed))


def wrong_counts(guest):
    """BATCH_FORGET and its like: counts that overflow, that lie, of nothing."""
    ones = struct.pack('=QQ', 1 << 40, 1) * 8
    for count in (0, 1, 7, 8, 9, 1 << 16, 1 << 28, (1 << 28) + 8, 1 << 31, (1 << 32) - 1):
        for extra in (0, 1, 8, 15, 16, 120, 128):
            body = struct.pack('=II', count, 0) + ones[:extra]
            yield guest.client.pack(fuse.BATCH_FORGET, 0, body)
            yield guest.client.pack(fuse.REMOVEMAPPING, guest.file, body)


def uniques(guest):
    """0, and one after another the same."""
    for opcode, node, body in sound(guest):
        for unique in (0, 7, 7, 1 << 63, (1 << 64) - 1):
            yield guest.client.pack(opcode, node, body, unique=unique)


def corpus(guest, random):
    """(name, generator) of all of the above."""
    return (
        ('lengths', wrong_lengths(guest)), ('truncated', truncated(guest)),
        ('length fields', length_fields(guest)), ('names', wrong_names(guest)),
        ('opcodes', unknown_opcodes(guest)), ('nodes', wrong_nodes(guest, random)),
        ('handles', wrong_handles(guest, random)), ('fields', extreme_fields(guest)),
        ('counts', wrong_counts(guest)), ('uniques', uniques(guest)))


# ---- any number of them


def _bits(random, request, fields):
    for _ in range(random.randrange(1, 6)):
        at = random.randrange(len(request))
        request[at] ^= 1 << random.randrange(8)


def _field(random, request, fields):
    width = random.choice((4, 8))
    at = 4 * random.randrange((len(request) - width) // 4 + 1)
    value = random.choice((*EXTREMES, *fields)) & ((1 << 8 * width) - 1)
    request[at:at + width] = value.to_bytes(width, 'little')


def _cut(random, request, fields):
    del request[random.randrange(1, len(request)):]
    if random.random() < 0.7 and len(request) >= 4:
        struct.pack_into('=I', request, 0, len(request))


def _stretch(random, request, fields):
    request += random.randbytes(random.randrange(1, 300))
    struct.pack_into('=I', request, 0, len(request))


def _node(random, request, fields):
    struct.pack_into('=Q', request, 16, random.choice(fields))


def _noise(random, request, fields):
    request[HEADER:] = random.randbytes(random.randrange(200))
    struct.pack_into('=I', request, 0, len(request))


_SPOIL = (_bits, _field, _cut, _stretch, _node, _noise)
_ROOMS = (0, 1, 15, 16, 17, 24, 32, 120, 144, 160, 512, 4096, 8192)


def spoiled(guest, random, n):
    """(request, room) n times. Opcodes that end the session do not come."""
    honest = [guest.client.pack(*sample) for sample in sound(guest)]
    fields = (*nodes_of_every_kind(guest, random), *handles_of_every_kind(guest, random))
    for _ in range(n):
        request = bytearray(random.choice(honest))
        for spoil in random.sample(_SPOIL, random.choice((1, 1, 2, 3))):
            if len(request) >= HEADER:
                spoil(random, request, fields)
        opcode = int.from_bytes(request[4:8], 'little')
        if opcode in SESSION_OPCODES:
            request[4:8] = b'\x63\0\0\0'
        yield bytes(request), random.choice(_ROOMS)
