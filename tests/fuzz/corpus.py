#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Make inputs of fuzz-request and fuzz-passthrough from recordings.

usage: corpus.py RECORDING... DIRECTORY

A recording is what `bridge --record` or virtiofsd-recording wrote (see
tests/bridge/recorder.h), or a directory of such files. Each is cut into short streams.
What a stream uses but does not make is made at its beginning, and node ids, handles and
interrupts are renamed to who gave them: see tests/fuzz/stream.h.

Prints how often each opcode was recorded.
"""

import argparse
import collections
import hashlib
import os
import struct

HEAD = struct.Struct("<IIII")
IN_HEADER = struct.Struct("=IIQQIIIHH")
REQUEST, REPLY = 1, 2
ROOT = 1

OPCODES = {
    1: "LOOKUP", 2: "FORGET", 3: "GETATTR", 4: "SETATTR", 5: "READLINK", 6: "SYMLINK",
    8: "MKNOD", 9: "MKDIR", 10: "UNLINK", 11: "RMDIR", 12: "RENAME", 13: "LINK",
    14: "OPEN", 15: "READ", 16: "WRITE", 17: "STATFS", 18: "RELEASE", 20: "FSYNC",
    21: "SETXATTR", 22: "GETXATTR", 23: "LISTXATTR", 24: "REMOVEXATTR", 25: "FLUSH",
    26: "INIT", 27: "OPENDIR", 28: "READDIR", 29: "RELEASEDIR", 30: "FSYNCDIR",
    31: "GETLK", 32: "SETLK", 33: "SETLKW", 34: "ACCESS", 35: "CREATE", 36: "INTERRUPT",
    37: "BMAP", 38: "DESTROY", 39: "IOCTL", 40: "POLL", 41: "NOTIFY_REPLY",
    42: "BATCH_FORGET", 43: "FALLOCATE", 44: "READDIRPLUS", 45: "RENAME2", 46: "LSEEK",
    47: "COPY_FILE_RANGE", 48: "SETUPMAPPING", 49: "REMOVEMAPPING", 50: "SYNCFS",
    51: "TMPFILE", 52: "STATX", 53: "COPY_FILE_RANGE_64",
}
NUMBERS = {name: number for number, name in OPCODES.items()}


def numbers(*names):
    """Opcodes by name."""
    return {NUMBERS[name] for name in names}


GIVE_NODE = numbers("LOOKUP", "SYMLINK", "MKNOD", "MKDIR", "LINK", "CREATE", "TMPFILE")
GIVE_HANDLE = numbers("OPEN", "OPENDIR", "CREATE", "TMPFILE")
COPIES = numbers("COPY_FILE_RANGE", "COPY_FILE_RANGE_64")
# Where requests have a second node, and handles, as in stream.c.
NODES = {**dict.fromkeys(numbers("LINK", "RENAME", "RENAME2"), 40),
         **dict.fromkeys(COPIES, 56)}
HANDLES = {
    **dict.fromkeys(numbers("GETATTR", "SETATTR", "STATX"), [48]),
    **dict.fromkeys(numbers("READ", "WRITE", "RELEASE", "FSYNC", "FLUSH", "READDIR",
                            "READDIRPLUS", "RELEASEDIR", "FSYNCDIR", "GETLK", "SETLK",
                            "SETLKW", "IOCTL", "POLL", "FALLOCATE", "LSEEK"), [40]),
    **dict.fromkeys(COPIES, [40, 64]),
}
READS = numbers("READ", "READDIR", "READDIRPLUS")
ENTRY_SIZE = 128
MODE_AT = 100  # in fuse_entry_out
NAME_AT = 24   # in fuse_dirent

CALLS_MAX = 20000  # of a recording; the others are as these
STREAM = 24        # requests
DATA_MAX = 64      # bytes of a WRITE that are kept
READ_MAX = 4080
GIVEN_MAX = 120
S_IFMT, S_IFDIR, S_IFREG, S_IFLNK = 0o170000, 0o040000, 0o100000, 0o120000


class Call:
    """A request and what became of it."""

    def __init__(self, data, size, room):
        self.data = data
        self.size = size
        self.room = room
        self.reply = None
        (_, self.opcode, self.unique, self.node, *_) = IN_HEADER.unpack_from(data)

    @property
    def error(self):
        """A negative errno, 0, or None without a reply."""
        return struct.unpack_from("=i", self.reply, 4)[0] if self.reply else None

    def field(self, at):
        """A number of 64 bits in the request."""
        return struct.unpack_from("=Q", self.data, at)[0] if len(self.data) >= at + 8 \
            else None

    def nodes(self):
        """Offsets of all node ids."""
        yield 16
        if self.opcode in NODES:
            yield NODES[self.opcode]
        if self.opcode == NUMBERS["BATCH_FORGET"]:
            yield from range(48, len(self.data) - 15, 16)

    def handles(self):
        """Offsets of all handles."""
        return HANDLES.get(self.opcode, [])

    def given_nodes(self):
        """(id, mode) of each node that the reply gave."""
        body = self.reply[16:] if self.error == 0 else b""
        if self.opcode in GIVE_NODE and len(body) >= ENTRY_SIZE:
            yield entry_of(body, 0)
        at = 0
        while self.opcode == NUMBERS["READDIRPLUS"] \
                and at + ENTRY_SIZE + NAME_AT <= len(body):
            yield entry_of(body, at)
            (length,) = struct.unpack_from("=I", body, at + ENTRY_SIZE + 16)
            at += (ENTRY_SIZE + NAME_AT + length + 7) & ~7

    def given_handle(self):
        """What the reply gave, or None."""
        at = 16 + (ENTRY_SIZE if self.opcode in GIVE_NODE else 0)
        if self.opcode not in GIVE_HANDLE or self.error != 0 or len(self.reply) < at + 8:
            return None
        return struct.unpack_from("=Q", self.reply, at)[0]


def entry_of(body, at):
    """Node id and mode of a fuse_entry_out."""
    return struct.unpack_from("=Q", body, at)[0], \
        struct.unpack_from("=I", body, at + MODE_AT)[0]


def records(path):
    """(kind, size, room, bytes) of each record; one that is cut off is left out."""
    with open(path, "rb") as file:
        while True:
            head = file.read(HEAD.size)
            if len(head) < HEAD.size:
                return
            kind, size, kept, room = HEAD.unpack(head)
            data = file.read(kept)
            if len(data) < kept:
                return
            yield kind, size, room, data


def calls(path, count=None):
    """The first requests of a recording, in order, with replies; all are counted."""
    found, open_calls = [], {}
    for kind, size, room, data in records(path):
        if kind == REQUEST and count is not None:
            count[struct.unpack_from("=I", data, 4)[0] if len(data) >= 8 else 0] += 1
        if len(found) >= CALLS_MAX:
            continue
        if kind == REQUEST and len(data) >= IN_HEADER.size:
            call = Call(data, size, room)
            open_calls[call.unique] = call
            found.append(call)
        elif kind == REPLY and len(data) >= 16:
            (unique,) = struct.unpack_from("=Q", data, 8)
            if unique in open_calls:
                open_calls.pop(unique).reply = data
    return found


# ---- streams -------------------------------------------------------------------------


class Knowledge:
    """What all replies so far have told."""

    def __init__(self):
        self.modes = {}  # of nodes
        self.opened = {}  # handles: (node, flags)

    def learn(self, call):
        """From a call that is done."""
        self.modes.update(call.given_nodes())
        handle = call.given_handle()
        if handle is not None:
            node = next(call.given_nodes())[0] if call.opcode in GIVE_NODE else call.node
            flags = struct.unpack_from("=I", call.data, 40)[0]
            self.opened[handle] = node, flags


def head_of(opcode, unique, node, size):
    """A request's header, from root; its length is made right by who runs it."""
    return IN_HEADER.pack(0, opcode, unique, node, 0, 0, 1, 0, 0) + bytes(size)


class Stream:
    """An input being written."""

    def __init__(self, modes):
        self.records = [struct.pack("<H", modes)]
        self.nodes = {ROOT: ROOT}
        self.handles = {}
        self.uniques = {}
        self.n_nodes = self.n_handles = 0

    def add(self, opcode, data, room):
        """A record; what it gives is counted as stream.c counts it."""
        self.records.append(struct.pack("<HH", min(room, 0xFFFF), len(data)) + data)
        self.n_nodes += opcode in GIVE_NODE
        self.n_handles += opcode in GIVE_HANDLE

    def note_node(self, node):
        """The last record has given this node."""
        if 0 < self.n_nodes <= GIVEN_MAX:
            self.nodes[node] = 1 + self.n_nodes

    def note_handle(self, handle):
        """The last record has given this handle."""
        if 0 < self.n_handles <= GIVEN_MAX:
            self.handles[handle] = self.n_handles

    def make_node(self, node, mode):
        """Something of the same type, for a stream that begins later."""
        name = b"n%d\0" % self.n_nodes
        kind = mode & S_IFMT
        if kind == S_IFLNK:
            opcode, body = NUMBERS["SYMLINK"], name + b"target\0"
        elif kind == S_IFDIR:
            opcode, body = NUMBERS["MKDIR"], struct.pack("=II", 0o755, 0) + name
        else:
            opcode = NUMBERS["MKNOD"]
            body = struct.pack("=IIII", mode & ~0o7000 or S_IFREG | 0o644, 0, 0, 0) + name
        self.add(opcode, head_of(opcode, 0, ROOT, 0) + body, 160)
        self.note_node(node)

    def make_handle(self, handle, node, flags, is_directory):
        """Open it before."""
        opcode = NUMBERS["OPENDIR" if is_directory else "OPEN"]
        body = struct.pack("=II", flags & ~0o1000, 0)
        self.add(opcode, head_of(opcode, 0, self.nodes[node], 0) + body, 32)
        self.note_handle(handle)

    def need(self, call, known):
        """Make what a call needs."""
        for at in call.handles():
            handle = call.field(at)
            if handle not in self.handles and handle in known.opened:
                node, flags = known.opened[handle]
                mode = known.modes.get(node, S_IFDIR if node == ROOT else S_IFREG)
                if node not in self.nodes:
                    self.make_node(node, mode)
                if node in self.nodes:
                    self.make_handle(handle, node, flags, mode & S_IFMT == S_IFDIR)
        for at in call.nodes():
            node = call.field(at)
            if node not in self.nodes and node in known.modes:
                self.make_node(node, known.modes[node])

    def put(self, call):
        """The call itself, renamed and shortened."""
        data = bytearray(call.data)
        room = call.room
        for at in call.nodes():
            struct.pack_into("=Q", data, at, self.nodes.get(call.field(at), 2**63))
        for at in call.handles():
            handle = call.field(at)
            if handle is not None:
                struct.pack_into("=Q", data, at, self.handles.get(handle, handle))
        unique = len(self.records)
        self.uniques[call.unique] = unique
        struct.pack_into("=I", data, 0, 0)
        struct.pack_into("=Q", data, 8, unique)
        struct.pack_into("=I", data, 32, 1)
        if call.opcode == NUMBERS["INTERRUPT"] and len(data) >= 48:
            struct.pack_into("=Q", data, 40, self.uniques.get(call.field(40), 0))
        if call.opcode == NUMBERS["WRITE"] and len(data) > 80 + DATA_MAX:
            del data[80 + DATA_MAX:]
            struct.pack_into("=I", data, 56, DATA_MAX)
        if call.opcode in READS and len(data) >= 60:
            (size,) = struct.unpack_from("=I", data, 56)
            struct.pack_into("=I", data, 56, min(size, READ_MAX))
            room = min(room, READ_MAX + 16)
        self.add(call.opcode, bytes(data), room)
        for node, _ in call.given_nodes():
            if call.opcode in GIVE_NODE:
                self.note_node(node)
        handle = call.given_handle()
        if handle is not None:
            self.note_handle(handle)

    def bytes(self):
        """The input."""
        return b"".join(self.records)


# Bits of FUSE_INIT's answer, and of the modes in harness_config_of().
AGREED = ((1 << 16, 2), (1 << 20, 8 | 4), (1 << 32, 16 | 4), (1 << 1, 0x100),
          (1 << 10, 0x200), (1 << 36, 0x400), (1 << 33, 0x8000))
HANDLE_KILLPRIV_V2 = 1 << 28


def modes_of(found):
    """The modes in which a session ran, as far as its requests tell."""
    modes = 0
    for call in found:
        if call.opcode == NUMBERS["INIT"] and call.error == 0 and len(call.reply) >= 56:
            flags = struct.unpack_from("=I", call.reply, 16 + 12)[0] \
                | struct.unpack_from("=I", call.reply, 16 + 32)[0] << 32
            for flag, bits in AGREED:
                modes |= bits if flags & flag else 0
            modes |= 0 if flags & HANDLE_KILLPRIV_V2 else 32
        elif call.opcode == NUMBERS["GETXATTR"] and call.error not in (None, -38):
            modes |= 4
    return modes


def is_usable(call):
    """Whether all of it was kept, or what is missing is but data."""
    return len(call.data) == call.size or call.opcode == NUMBERS["WRITE"]


# Where requests say what is to be done: flags, modes, commands.
WHAT = {**dict.fromkeys(numbers("SETATTR", "OPEN", "OPENDIR", "CREATE", "TMPFILE"), 40),
        **dict.fromkeys(numbers("RENAME2", "SETXATTR"), 48), NUMBERS["IOCTL"]: 52,
        **dict.fromkeys(numbers("LSEEK"), 56), NUMBERS["FALLOCATE"]: 64,
        **dict.fromkeys(numbers("GETLK", "SETLK", "SETLKW"), 72)}


def is_novel(window, seen):
    """Whether it has requests of a kind that few others have."""
    novel = False
    for call in window:
        at = WHAT.get(call.opcode, len(call.data))
        kind = call.opcode, call.error, len(call.data).bit_length(), call.data[at:at + 4]
        seen[kind] += 1
        novel = novel or seen[kind] <= 3
    return novel


def streams(found, seen):
    """All streams of one recording that are worth trying."""
    known = Knowledge()
    modes = modes_of(found)
    for start in range(0, len(found), STREAM):
        window = [call for call in found[start:start + STREAM] if is_usable(call)]
        if is_novel(window, seen):
            # What is not known from requests, such as --inode-file-handles, varies.
            stream = Stream(modes | (start // STREAM & 15) << 12)
            needed = Knowledge()
            needed.modes.update(known.modes)
            needed.opened.update(known.opened)
            for call in window:
                needed.learn(call)
            for call in window:
                stream.need(call, known)
            for call in window:
                stream.need(call, needed)
                stream.put(call)
            yield stream.bytes()
        for call in window:
            known.learn(call)


# ---- command line --------------------------------------------------------------------


def files_of(paths):
    """All recordings."""
    for path in paths:
        if os.path.isdir(path):
            yield from (os.path.join(path, name) for name in sorted(os.listdir(path)))
        else:
            yield path


def convert(paths, directory):
    """Write the inputs. Returns how many, and a count of each opcode."""
    os.makedirs(directory, exist_ok=True)
    count, seen, n = collections.Counter(), collections.Counter(), 0
    for path in files_of(paths):
        found = calls(path, count)
        for data in streams(found, seen):
            name = hashlib.sha256(data).hexdigest()[:24]
            with open(os.path.join(directory, name), "wb") as file:
                file.write(data)
            n += 1
    return n, count


def report(paths, directory):
    """Write the inputs and print what was recorded. Returns the count."""
    n, count = convert(paths, directory)
    for opcode, times in sorted(count.items()):
        print(f"{opcode:3} {OPCODES.get(opcode, '?'):20} {times:9}")
    print(f"{sum(count.values())} requests of {len(count)} opcodes, {n} streams")
    return count


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("recordings", nargs="+", metavar="RECORDING")
    parser.add_argument("directory")
    options = parser.parse_args()
    report(options.recordings, options.directory)


if __name__ == "__main__":
    main()
