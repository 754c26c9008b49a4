# SPDX-License-Identifier: Apache-2.0
"""A FUSE client over a frontend's queues; see fuse-client.h.

    client = frontend.client()
    client.init()
    entry = client.lookup(ROOT, b"file")
"""

import contextlib
import ctypes as C
import errno
import os
import struct

import holdings
import native

ROOT = 1

(LOOKUP, FORGET, GETATTR, SETATTR, READLINK, SYMLINK) = (1, 2, 3, 4, 5, 6)
(MKNOD, MKDIR, UNLINK, RMDIR, RENAME, LINK, OPEN, READ) = (8, 9, 10, 11, 12, 13, 14, 15)
(WRITE, STATFS, RELEASE, FSYNC, SETXATTR, GETXATTR) = (16, 17, 18, 20, 21, 22)
(LISTXATTR, REMOVEXATTR, FLUSH, INIT, OPENDIR, READDIR) = (23, 24, 25, 26, 27, 28)
(RELEASEDIR, FSYNCDIR, GETLK, SETLK, SETLKW, ACCESS) = (29, 30, 31, 32, 33, 34)
(CREATE, INTERRUPT, BMAP, DESTROY, IOCTL, POLL) = (35, 36, 37, 38, 39, 40)
(NOTIFY_REPLY, BATCH_FORGET, FALLOCATE, READDIRPLUS) = (41, 42, 43, 44)
(RENAME2, LSEEK, COPY_FILE_RANGE, SETUPMAPPING) = (45, 46, 47, 48)
(REMOVEMAPPING, SYNCFS, TMPFILE, STATX, COPY_FILE_RANGE_64) = (49, 50, 51, 52, 53)

OPCODES = {
    name: value
    for name, value in list(globals().items())
    if name.isupper() and isinstance(value, int) and name != "ROOT"
}

SPLIT_LINUX, SPLIT_WHOLE, SPLIT_BYTES = 0, 1, 2

IN_HEADER = struct.Struct("=IIQQIIIHH")
OUT_HEADER = struct.Struct("=IiQ")

# What Linux 6.1 sends in INIT over virtio-fs without a DAX window.
LINUX_INIT_FLAGS = 0x7BFFFFFB & ~(1 << 26) | 0x9 << 32


class FuseError(OSError):
    """The server answered a request with an error."""


def errno_of(function, *args, **more):
    """The errno that a request is answered with, 0 for success."""
    try:
        function(*args, **more)
    except FuseError as error:
        return error.errno
    return 0


class Malformed(Exception):
    """An answer that a Linux guest would not accept, or none at all."""


class Reply:
    """One answer: what the server wrote, and whether a guest would take it."""

    def __init__(self, rc, raw):
        self.used = raw.used
        self.len, self.error, self.unique = (
            raw.header.len,
            raw.header.error,
            raw.header.unique,
        )
        self.payload = C.string_at(raw.payload, raw.size) if raw.size else b""
        # Everything that the server could write to, not only what it says it wrote.
        self.room = C.string_at(raw.room, raw.room_size) if raw.room_size else b""
        self.is_empty = rc == -errno.ENODATA
        self.is_well_formed = rc == 0

    @property
    def errno(self):
        """The error as a positive number, 0 for success."""
        return -self.error

    def __repr__(self):
        return (
            f"Reply(used={self.used}, len={self.len}, error={self.error}, "
            f"payload={len(self.payload)} bytes, well_formed={self.is_well_formed})"
        )


class Client:
    """FUSE requests over a frontend's queues. See fuse-client.h."""

    def __init__(self, frontend, **config):
        self.frontend = frontend
        self.holdings = holdings.Holdings()
        raw = native.ClientConfig()
        native.library().client_config_init(C.byref(raw))
        for name, value in config.items():
            if name not in dict(native.ClientConfig._fields_):
                raise TypeError(f"no setting {name}")
            setattr(raw, name, value)
        self.uid, self.gid, self.pid = raw.uid, raw.gid, raw.pid
        self.timeout = raw.timeout_ms / 1000
        self.handle = native.library().client_new(frontend.handle, C.byref(raw))
        if not self.handle:
            raise MemoryError("not enough guest memory for the client's slots")
        self._unique = 2

    def close(self):
        """Free the slots."""
        if self.handle:
            native.library().client_free(self.handle)
            self.handle = None

    def reset(self):
        """Forget all requests in flight."""
        self.holdings.clear()
        native.library().client_reset(self.handle)

    def set_split(self, split, size=0):
        """How later requests are cut into descriptors."""
        native.library().client_set_split(self.handle, split, size)

    @contextlib.contextmanager
    def identity(self, uid, gid=None, pid=None):
        """Requests inside come from somebody else."""
        saved = self.uid, self.gid, self.pid
        self.uid, self.gid = uid, uid if gid is None else gid
        self.pid = self.pid if pid is None else pid
        try:
            yield self
        finally:
            self.uid, self.gid, self.pid = saved

    # ---- bytes

    def pack(self, opcode, nodeid=0, body=b"", **header):
        """A whole request; header fields (len, unique, uid, gid, pid, extlen) as given.
        """
        unique = header.get("unique")
        if unique is None:
            unique, self._unique = self._unique, self._unique + 2
        return (
            IN_HEADER.pack(
                header.get("len", IN_HEADER.size + len(body)) & 0xFFFFFFFF,
                opcode,
                unique,
                nodeid & 0xFFFFFFFFFFFFFFFF,
                header.get("uid", self.uid),
                header.get("gid", self.gid),
                header.get("pid", self.pid),
                header.get("extlen", 0),
                header.get("padding", 0),
            )
            + body
        )

    def raw(self, request, room=None, queue=None, timeout=None):
        """Exchange any bytes for a Reply; room counts the out header too.

        A request that is not completed in time raises TimeoutError, a peer that left
        ConnectionResetError.
        """
        request = bytes(request)
        if room is None:
            expected = native.library().reply_is_expected(
                struct.unpack_from("=I", request, 4)[0] if len(request) >= 8 else 0
            )
            room = OUT_HEADER.size + native.library().reply_room(request, len(request))
            room = room if expected else 0
        raw = native.Raw(request, len(request), room, 0 if queue is None else queue + 1)
        reply = native.Reply()
        timeout = self.timeout if timeout is None else timeout
        rc = native.library().client_exchange_raw(
            self.handle, C.byref(raw), C.byref(reply), int(timeout * 1000)
        )
        if rc == -errno.ETIMEDOUT:
            raise TimeoutError("the request was not completed")
        if rc == -errno.ECONNRESET:
            raise ConnectionResetError("the server closed the connection")
        if not reply.slot:
            native.check(rc, "exchange")
        try:
            answer = Reply(rc, reply)
            self.holdings.note(request, answer)
            return answer
        finally:
            native.library().client_release(self.handle, C.byref(reply))

    def submit(self, request, room, queue=None):
        """Send any bytes and wait for nothing; reap() gets the answers."""
        request = bytes(request)
        self.holdings.is_exact = False
        raw = native.Raw(request, len(request), room, 0 if queue is None else queue + 1)
        rc = native.library().client_submit_raw(self.handle, C.byref(raw), None)
        native.check(rc, "submit")

    def reap(self, queue=1, timeout=10.0):
        """The next Reply to a submitted request on a queue."""
        reply = native.Reply()
        rc = native.library().client_reap(
            self.handle, queue, C.byref(reply), int(timeout * 1000)
        )
        if rc == -errno.ETIMEDOUT:
            raise TimeoutError("no request was completed")
        if not reply.slot:
            native.check(rc, "reap")
        try:
            return Reply(rc, reply)
        finally:
            native.library().client_release(self.handle, C.byref(reply))

    def send(self, opcode, nodeid=0, body=b"", room=None, queue=None, **header):
        """A well-formed request; returns the Reply whatever it says."""
        return self.raw(self.pack(opcode, nodeid, body, **header), room, queue)

    def call(self, opcode, nodeid=0, body=b"", room=None, queue=None, **header):
        """As send(), but returns the payload, and raises FuseError or Malformed."""
        reply = self.send(opcode, nodeid, body, room, queue, **header)
        if not reply.is_well_formed:
            raise Malformed(repr(reply))
        if reply.error:
            raise FuseError(reply.errno, os.strerror(reply.errno))
        return reply.payload

    # ---- operations

    def init(self, flags=LINUX_INIT_FLAGS, major=7, minor=38):
        """INIT; returns the answer's fields."""
        body = struct.pack(
            "=IIIII44x", major, minor, 131072, flags & 0xFFFFFFFF, flags >> 32
        )
        answer = InitOut(self.call(INIT, 0, body))
        self.frontend.session_begins()
        return answer

    def destroy(self):
        """DESTROY."""
        self.call(DESTROY)

    def lookup(self, parent, name):
        """LOOKUP."""
        return Entry(self.call(LOOKUP, parent, name + b"\0"))

    def walk(self, path):
        """LOOKUP of each part of a path from the root; the last Entry."""
        entry, node = None, ROOT
        for part in path.strip(b"/").split(b"/"):
            entry = self.lookup(node, part)
            node = entry.nodeid
        return entry

    def forget(self, nodeid, nlookup=1):
        """FORGET; waits for its completion."""
        return self.send(FORGET, nodeid, struct.pack("=Q", nlookup))

    def batch_forget(self, nodes):
        """BATCH_FORGET of [(nodeid, nlookup), ...]."""
        body = struct.pack("=II", len(nodes), 0)
        return self.send(
            BATCH_FORGET, 0, body + b"".join(struct.pack("=QQ", *node) for node in nodes)
        )

    def getattr(self, nodeid, fh=None, queue=None):
        """GETATTR."""
        flags = 0 if fh is None else 1
        body = struct.pack("=IIQ", flags, 0, fh or 0)
        payload = self.call(GETATTR, nodeid, body, queue=queue)
        return Attr(payload[16:])

    def setattr(self, nodeid, valid, **fields):
        """SETATTR; valid is the FATTR_* mask, fields those of fuse_setattr_in."""
        names = "fh size lock_owner atime mtime ctime atimensec mtimensec ctimensec"
        names += " mode unused4 uid gid unused5"
        values = [fields.pop(name, 0) for name in names.split()]
        if fields:
            raise TypeError(f"no field {fields}")
        body = struct.pack("=II6Q8I", valid, 0, *values)
        return Attr(self.call(SETATTR, nodeid, body)[16:])

    def readlink(self, nodeid):
        """READLINK."""
        return self.call(READLINK, nodeid)

    def symlink(self, parent, name, target):
        """SYMLINK."""
        return Entry(self.call(SYMLINK, parent, name + b"\0" + target + b"\0"))

    def mknod(self, parent, name, mode, rdev=0, umask=0):
        """MKNOD."""
        body = struct.pack("=IIII", mode, rdev, umask, 0)
        return Entry(self.call(MKNOD, parent, body + name + b"\0"))

    def mkdir(self, parent, name, mode=0o755, umask=0):
        """MKDIR."""
        body = struct.pack("=II", mode, umask)
        return Entry(self.call(MKDIR, parent, body + name + b"\0"))

    def unlink(self, parent, name):
        """UNLINK."""
        self.call(UNLINK, parent, name + b"\0")

    def rmdir(self, parent, name):
        """RMDIR."""
        self.call(RMDIR, parent, name + b"\0")

    def rename(self, parent, name, new_parent, new_name, flags=None):
        """RENAME, or RENAME2 with flags."""
        names = name + b"\0" + new_name + b"\0"
        if flags is None:
            self.call(RENAME, parent, struct.pack("=Q", new_parent) + names)
        else:
            body = struct.pack("=QII", new_parent, flags, 0)
            self.call(RENAME2, parent, body + names)

    def link(self, nodeid, parent, name):
        """LINK."""
        return Entry(self.call(LINK, parent, struct.pack("=Q", nodeid) + name + b"\0"))

    def open(self, nodeid, flags=os.O_RDONLY, open_flags=0):
        """OPEN; returns (handle, flags of the answer)."""
        payload = self.call(OPEN, nodeid, struct.pack("=II", flags, open_flags))
        return struct.unpack("=QI4x", payload)

    def opendir(self, nodeid):
        """OPENDIR; returns the handle."""
        payload = self.call(OPENDIR, nodeid, struct.pack("=II", os.O_DIRECTORY, 0))
        return struct.unpack("=QI4x", payload)[0]

    def create(self, parent, name, mode=0o644, flags=os.O_RDWR | os.O_CREAT, umask=0):
        """CREATE; returns (Entry, handle)."""
        body = struct.pack("=IIII", flags, mode, umask, 0)
        payload = self.call(CREATE, parent, body + name + b"\0")
        return Entry(payload[:128]), struct.unpack_from("=Q", payload, 128)[0]

    def read(self, nodeid, fh, size, offset=0, opcode=READ, flags=0):
        """READ, READDIR or READDIRPLUS; returns the bytes."""
        body = struct.pack("=QQIIQII", fh, offset, size, 0, 0, flags, 0)
        return self.call(opcode, nodeid, body)

    def write(self, nodeid, fh, data, offset=0, write_flags=0, flags=0):
        """WRITE; returns the count."""
        body = struct.pack("=QQIIQII", fh, offset, len(data), write_flags, 0, flags, 0)
        return struct.unpack("=I4x", self.call(WRITE, nodeid, body + data))[0]

    def flush(self, nodeid, fh):
        """FLUSH."""
        self.call(FLUSH, nodeid, struct.pack("=QIIQ", fh, 0, 0, 0))

    def fsync(self, nodeid, fh, data_only=False, opcode=FSYNC):
        """FSYNC or FSYNCDIR."""
        self.call(opcode, nodeid, struct.pack("=QII", fh, data_only, 0))

    def release(self, nodeid, fh, opcode=RELEASE, flags=0):
        """RELEASE or RELEASEDIR."""
        self.call(opcode, nodeid, struct.pack("=QIIQ", fh, flags, 0, 0))

    def releasedir(self, nodeid, fh):
        """RELEASEDIR."""
        self.release(nodeid, fh, RELEASEDIR)

    def statfs(self, nodeid=ROOT):
        """STATFS; (blocks, bfree, bavail, files, ffree, bsize, namelen, frsize)."""
        return struct.unpack_from("=QQQQQIII", self.call(STATFS, nodeid))

    def fallocate(self, nodeid, fh, mode, offset, length):
        """FALLOCATE."""
        self.call(FALLOCATE, nodeid, struct.pack("=QQQII", fh, offset, length, mode, 0))

    def lseek(self, nodeid, fh, offset, whence):
        """LSEEK; returns the offset."""
        payload = self.call(LSEEK, nodeid, struct.pack("=QQII", fh, offset, whence, 0))
        return struct.unpack("=Q", payload)[0]

    def copy_file_range(self, nodeid, fh, offset, to, length, flags=0, wide=False):
        """COPY_FILE_RANGE or _64; to is (nodeid, handle, offset). Returns the count."""
        body = struct.pack("=QQQQQQQ", fh, offset, *to, length, flags)
        if wide:
            payload = self.call(COPY_FILE_RANGE_64, nodeid, body)
            return struct.unpack("=Q", payload)[0]
        return struct.unpack("=I4x", self.call(COPY_FILE_RANGE, nodeid, body))[0]

    def tmpfile(self, parent, mode=0o644, flags=os.O_RDWR, umask=0):
        """TMPFILE; returns (Entry, handle)."""
        body = struct.pack("=IIII", flags, mode, umask, 0) + b"/\0"
        payload = self.call(TMPFILE, parent, body)
        return Entry(payload[:128]), struct.unpack_from("=Q", payload, 128)[0]

    def ioctl(self, nodeid, fh, number, argument=b"", out_size=0, flags=0):
        """IOCTL; returns the bytes that come back."""
        body = struct.pack("=QIIQII", fh, flags, number, 0, len(argument), out_size)
        payload = self.call(IOCTL, nodeid, body + argument)
        return payload[16:]

    def setup_mapping(self, nodeid, offset, to, writes=False, fh=None, **more):
        """SETUPMAPPING of 2 MiB at an offset of a file, to one of the window."""
        fh = 0xFFFFFFFFFFFFFFFF if fh is None else fh
        body = struct.pack("=QQQQQ", fh, offset, 2 << 20, 3 if writes else 2, to)
        self.call(SETUPMAPPING, nodeid, body, **more)

    def remove_mappings(self, nodeid, *offsets, **more):
        """REMOVEMAPPING of 2 MiB at each offset of the window."""
        body = struct.pack("=I", len(offsets))
        body += b"".join(struct.pack("=QQ", offset, 2 << 20) for offset in offsets)
        self.call(REMOVEMAPPING, nodeid, body, **more)

    def syncfs(self, nodeid=ROOT):
        """SYNCFS."""
        self.call(SYNCFS, nodeid, struct.pack("=Q", 0))

    def getxattr(self, nodeid, name, size=4096):
        """GETXATTR; with size 0 the length needed."""
        payload = self.call(GETXATTR, nodeid, struct.pack("=II", size, 0) + name + b"\0")
        return payload if size else struct.unpack("=I4x", payload)[0]

    def listxattr(self, nodeid, size=4096):
        """LISTXATTR; a list of names, or with size 0 the length needed."""
        payload = self.call(LISTXATTR, nodeid, struct.pack("=II", size, 0))
        if not size:
            return struct.unpack("=I4x", payload)[0]
        return payload.split(b"\0")[:-1]

    def setxattr(self, nodeid, name, value, flags=0):
        """SETXATTR, the short form (without SETXATTR_EXT)."""
        body = struct.pack("=II", len(value), flags)
        self.call(SETXATTR, nodeid, body + name + b"\0" + value)

    def removexattr(self, nodeid, name):
        """REMOVEXATTR."""
        self.call(REMOVEXATTR, nodeid, name + b"\0")

    def listdir(self, nodeid, size=32768, plus=False):
        """A whole directory: [Dirent, ...]."""
        opcode = READDIRPLUS if plus else READDIR
        fh = self.opendir(nodeid)
        found, offset = [], 0
        try:
            while True:
                payload = self.read(nodeid, fh, size, offset, opcode)
                if not payload:
                    return found
                found += parse_dirents(payload, plus)
                offset = found[-1].offset
        finally:
            self.releasedir(nodeid, fh)


class Attr:
    """struct fuse_attr."""

    _struct = struct.Struct("=6Q10I")
    SIZE = 88

    def __init__(self, payload):
        (
            self.ino,
            self.size,
            self.blocks,
            self.atime,
            self.mtime,
            self.ctime,
            self.atimensec,
            self.mtimensec,
            self.ctimensec,
            self.mode,
            self.nlink,
            self.uid,
            self.gid,
            self.rdev,
            self.blksize,
            self.flags,
        ) = self._struct.unpack_from(payload)


class Entry:
    """struct fuse_entry_out; nodeid 0 is a negative entry."""

    SIZE = 128

    def __init__(self, payload):
        if len(payload) < self.SIZE:
            raise Malformed(f"an entry of {len(payload)} bytes")
        (self.nodeid, self.generation, entry_s, attr_s, entry_ns, attr_ns) = (
            struct.unpack_from("=QQQQII", payload)
        )
        self.entry_valid = entry_s + entry_ns / 1e9
        self.attr_valid = attr_s + attr_ns / 1e9
        self.attr = Attr(payload[40:])


class InitOut:
    """struct fuse_init_out."""

    def __init__(self, payload):
        (
            self.major,
            self.minor,
            self.max_readahead,
            flags,
            self.max_background,
            self.congestion_threshold,
            self.max_write,
            self.time_gran,
            self.max_pages,
            self.map_alignment,
            flags2,
        ) = struct.unpack_from("=4I2H2I2HI", payload)
        self.flags = flags | flags2 << 32


class Dirent:
    """struct fuse_dirent; entry is set for READDIRPLUS."""

    def __init__(self, payload, at, entry):
        fields = struct.unpack_from("=QQII", payload, at)
        self.ino, self.offset, length, self.type = fields
        self.name = payload[at + 24 : at + 24 + length]
        self.entry = entry
        self.end = at + (24 + length + 7) // 8 * 8
        if len(self.name) != length or self.end > len(payload):
            raise Malformed("a directory entry is cut off")


def parse_dirents(payload, plus=False):
    """The entries in an answer to READDIR or READDIRPLUS."""
    found, at = [], 0
    while at < len(payload):
        entry = Entry(payload[at:]) if plus else None
        dirent = Dirent(payload, at + (Entry.SIZE if plus else 0), entry)
        found.append(dirent)
        at = dirent.end
    return found
