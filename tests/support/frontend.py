# SPDX-License-Identifier: Apache-2.0
"""The vhost-user frontend and FUSE client (tests/support/*.c) for Python.

The shared library is looked for in $VIRTIOFSD_FRONTEND (a path to libfrontend.so), else
in the meson build directory $VIRTIOFSD_BUILD. A library built with a sanitizer needs its
run-time preloaded; give the path of an ordinary build in $VIRTIOFSD_FRONTEND instead.

    with Frontend("/run/vfs.sock") as frontend:
        frontend.start()
        client = frontend.client()
        client.init()
        entry = client.lookup(ROOT, b"file")
"""

import contextlib
import ctypes as C
import errno
import os
import struct

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

# Request numbers of vhost-user.
GET_FEATURES, SET_FEATURES, SET_OWNER, RESET_OWNER, SET_MEM_TABLE = 1, 2, 3, 4, 5
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE = 8, 9, 10, 11
SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR = 12, 13, 14
GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, GET_QUEUE_NUM = 15, 16, 17
SET_VRING_ENABLE, SET_BACKEND_REQ_FD, GET_CONFIG = 18, 21, 24
RESET_DEVICE, GET_MAX_MEM_SLOTS, ADD_MEM_REG, REM_MEM_REG = 34, 36, 37, 38

FLAG_VERSION, FLAG_REPLY, FLAG_NEED_REPLY = 0x1, 0x4, 0x8

F_INDIRECT_DESC, F_EVENT_IDX, F_PROTOCOL_FEATURES, F_VERSION_1 = (
    1 << 28,
    1 << 29,
    1 << 30,
    1 << 32,
)

DESC_NEXT, DESC_WRITE, DESC_INDIRECT = 1, 2, 4

SPLIT_LINUX, SPLIT_WHOLE, SPLIT_BYTES = 0, 1, 2

IN_HEADER = struct.Struct("=IIQQIIIHH")
OUT_HEADER = struct.Struct("=IiQ")

# What Linux 6.1 sends in INIT over virtio-fs without a DAX window.
LINUX_INIT_FLAGS = 0x7BFFFFFB & ~(1 << 26) | 0x9 << 32


class FuseError(OSError):
    """The server answered a request with an error."""


class Malformed(Exception):
    """An answer that a Linux guest would not accept, or none at all."""


class _Config(C.Structure):
    _fields_ = [
        ("n_request_queues", C.c_uint),
        ("queue_size", C.c_uint),
        ("table_size", C.c_uint),
        ("features", C.c_uint64),
        ("protocol_features", C.c_uint64),
        ("n_regions", C.c_uint),
        ("memory_size", C.c_size_t),
        ("separate_files", C.c_bool),
        ("timeout_ms", C.c_int),
    ]


class _ClientConfig(C.Structure):
    _fields_ = [
        ("n_slots", C.c_uint),
        ("data_size", C.c_size_t),
        ("split", C.c_int),
        ("split_size", C.c_size_t),
        ("uid", C.c_uint32),
        ("gid", C.c_uint32),
        ("pid", C.c_uint32),
        ("timeout_ms", C.c_int),
        ("poison", C.c_bool),
    ]


class _Header(C.Structure):
    _fields_ = [("request", C.c_uint32), ("flags", C.c_uint32), ("size", C.c_uint32)]


class _Message(C.Structure):
    _fields_ = [
        ("header", _Header),
        ("payload", C.c_char_p),
        ("payload_size", C.c_size_t),
        ("fds", C.POINTER(C.c_int)),
        ("n_fds", C.c_uint),
    ]


class _VhostReply(C.Structure):
    _fields_ = [
        ("header", _Header),
        ("payload", C.c_uint8 * 4096),
        ("fds", C.c_int * 8),
        ("n_fds", C.c_uint),
    ]


class _OutHeader(C.Structure):
    _fields_ = [("len", C.c_uint32), ("error", C.c_int32), ("unique", C.c_uint64)]


class _Raw(C.Structure):
    _fields_ = [
        ("bytes", C.c_char_p),
        ("size", C.c_size_t),
        ("room", C.c_size_t),
        ("queue", C.c_uint),
    ]


class _Reply(C.Structure):
    _fields_ = [
        ("used", C.c_uint32),
        ("header", _OutHeader),
        ("payload", C.c_void_p),
        ("size", C.c_size_t),
        ("room", C.c_void_p),
        ("room_size", C.c_size_t),
        ("tag", C.c_void_p),
        ("slot", C.c_void_p),
    ]


class _Region(C.Structure):
    _fields_ = [
        ("gpa", C.c_uint64),
        ("size", C.c_uint64),
        ("uva", C.c_uint64),
        ("offset", C.c_uint64),
        ("fd", C.c_int),
        ("host", C.c_void_p),
    ]


class _Segment(C.Structure):
    _fields_ = [("gpa", C.c_uint64), ("size", C.c_uint32)]


class _Request(C.Structure):
    _fields_ = [
        ("into", C.POINTER(_Segment)),
        ("n_in", C.c_uint),
        ("out", C.POINTER(_Segment)),
        ("n_out", C.c_uint),
        ("tag", C.c_void_p),
        ("no_kick", C.c_bool),
    ]


class _Completion(C.Structure):
    _fields_ = [("tag", C.c_void_p), ("length", C.c_uint32), ("head", C.c_uint32)]


class Counters(C.Structure):
    """Kicks, interrupts and requests of one queue."""

    _fields_ = [
        ("submitted", C.c_uint64),
        ("completed", C.c_uint64),
        ("kicks", C.c_uint64),
        ("kicks_suppressed", C.c_uint64),
        ("interrupts", C.c_uint64),
    ]


class _Layout(C.Structure):
    _fields_ = [
        ("size", C.c_uint),
        ("desc", C.c_void_p),
        ("avail", C.c_void_p),
        ("used", C.c_void_p),
        ("tables", C.c_void_p),
        ("table_size", C.c_uint),
    ]


_P = C.c_void_p
# name: (result, arguments)
_FUNCTIONS = {
    "frontend_config_init": (None, [C.POINTER(_Config)]),
    "frontend_new": (_P, [C.POINTER(_Config)]),
    "frontend_free": (None, [_P]),
    "frontend_error": (C.c_char_p, [_P]),
    "frontend_connect": (C.c_int, [_P, C.c_char_p]),
    "frontend_attach_take": (None, [_P, C.c_int]),
    "frontend_disconnect": (None, [_P]),
    "frontend_negotiate": (C.c_int, [_P]),
    "frontend_start": (C.c_int, [_P]),
    "frontend_stop": (C.c_int, [_P]),
    "frontend_reset": (C.c_int, [_P]),
    "frontend_add_region": (C.c_int, [_P, C.c_size_t]),
    "frontend_remove_region": (C.c_int, [_P, C.c_uint]),
    "frontend_set_memory": (C.c_int, [_P]),
    "frontend_set_ring": (C.c_int, [_P, C.c_uint]),
    "frontend_enable_ring": (C.c_int, [_P, C.c_uint, C.c_bool]),
    "frontend_get_base": (C.c_int, [_P, C.c_uint]),
    "frontend_swap_call": (C.c_int, [_P, C.c_uint]),
    "frontend_get_config": (C.c_int, [_P, C.c_uint32, C.c_uint32, _P]),
    "frontend_send_raw": (C.c_int, [_P, C.POINTER(_Message)]),
    "frontend_receive": (C.c_int, [_P, C.POINTER(_VhostReply), C.c_int]),
    "frontend_is_closed": (C.c_bool, [_P, C.c_int]),
    "frontend_n_queues": (C.c_uint, [_P]),
    "frontend_queue": (_P, [_P, C.c_uint]),
    "frontend_memory": (_P, [_P]),
    "frontend_socket": (C.c_int, [_P]),
    "frontend_backend_socket": (C.c_int, [_P]),
    "frontend_offered": (C.c_uint64, [_P, C.c_bool]),
    "frontend_agreed": (C.c_uint64, [_P, C.c_bool]),
    "frontend_peer_queues": (C.c_uint, [_P]),
    "vhost_message_send_bytes": (C.c_int, [C.c_int, C.c_char_p, C.c_size_t]),
    "guest_memory_n_regions": (C.c_uint, [_P]),
    "guest_memory_region": (C.POINTER(_Region), [_P, C.c_uint]),
    "guest_memory_alloc": (_P, [_P, C.c_size_t, C.c_size_t]),
    "guest_memory_alloc_in": (_P, [_P, C.c_uint, C.c_size_t, C.c_size_t]),
    "guest_memory_gpa": (C.c_uint64, [_P, _P]),
    "guest_memory_uva": (C.c_uint64, [_P, _P]),
    "guest_memory_host": (_P, [_P, C.c_uint64, C.c_size_t]),
    "virtqueue_submit": (C.c_int, [_P, C.POINTER(_Request)]),
    "virtqueue_kick": (None, [_P]),
    "virtqueue_kick_always": (None, [_P]),
    "virtqueue_wait": (C.c_int, [_P, C.POINTER(_Completion), C.c_int]),
    "virtqueue_reserve": (C.c_int, [_P, C.c_uint, C.POINTER(C.c_uint16)]),
    "virtqueue_release": (None, [_P, C.c_uint, C.POINTER(C.c_uint16)]),
    "virtqueue_post": (None, [_P, C.c_uint16, _P]),
    "virtqueue_reset": (None, [_P]),
    "virtqueue_layout": (_Layout, [_P]),
    "virtqueue_counters": (Counters, [_P]),
    "virtqueue_in_flight": (C.c_uint, [_P]),
    "virtqueue_avail_index": (C.c_uint16, [_P]),
    "virtqueue_call_fd": (C.c_int, [_P]),
    "virtqueue_kick_fd": (C.c_int, [_P]),
    "client_config_init": (None, [C.POINTER(_ClientConfig)]),
    "client_memory_size": (C.c_size_t, [C.POINTER(_ClientConfig)]),
    "client_new": (_P, [_P, C.POINTER(_ClientConfig)]),
    "client_free": (None, [_P]),
    "client_set_split": (None, [_P, C.c_int, C.c_size_t]),
    "client_reset": (None, [_P]),
    "client_exchange_raw": (C.c_int, [_P, C.POINTER(_Raw), C.POINTER(_Reply), C.c_int]),
    "client_submit_raw": (C.c_int, [_P, C.POINTER(_Raw), _P]),
    "client_reap": (C.c_int, [_P, C.c_uint, C.POINTER(_Reply), C.c_int]),
    "client_release": (None, [_P, C.POINTER(_Reply)]),
    "reply_room": (C.c_size_t, [C.c_char_p, C.c_size_t]),
    "reply_is_expected": (C.c_bool, [C.c_uint32]),
}


def _load():
    path = os.environ.get("VIRTIOFSD_FRONTEND")
    if not path:
        build = os.environ.get("VIRTIOFSD_BUILD")
        if not build:
            raise RuntimeError("set VIRTIOFSD_BUILD to the meson build directory")
        path = os.path.join(build, "tests", "support", "libfrontend.so")
    library = C.CDLL(path)
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library


_library = None


def library():
    """The shared library, loaded at the first use."""
    global _library
    if _library is None:
        _library = _load()
    return _library


class VhostReply:
    """A message from the back-end; its descriptors are the caller's to close."""

    def __init__(self, raw):
        self.request = raw.header.request
        self.flags = raw.header.flags
        self.payload = bytes(raw.payload[: raw.header.size])
        self.fds = list(raw.fds[: raw.n_fds])

    @property
    def u64(self):
        """The payload as one number."""
        return struct.unpack("=Q", self.payload)[0]


class Region:
    """One region of guest memory."""

    def __init__(self, index, raw):
        self.index = index
        self.gpa, self.size, self.uva = raw.gpa, raw.size, raw.uva
        self.offset, self.fd, self.host = raw.offset, raw.fd, raw.host

    def describe(self):
        """As SET_MEM_TABLE and ADD_MEM_REG send it."""
        return struct.pack("=QQQQ", self.gpa, self.size, self.uva, self.offset)


class Buffer:
    """Bytes of guest memory."""

    def __init__(self, memory, host, size):
        self.host, self.size = host, size
        self.gpa = library().guest_memory_gpa(memory, host)
        self.uva = library().guest_memory_uva(memory, host)

    def write(self, data, at=0):
        """Put bytes there."""
        if at + len(data) > self.size:
            raise ValueError("beyond the buffer")
        C.memmove(self.host + at, bytes(data), len(data))

    def read(self, size=None, at=0):
        """Take bytes from there."""
        return C.string_at(self.host + at, self.size - at if size is None else size)


class Queue:
    """One virtqueue, driver side. See virtqueue.h."""

    def __init__(self, frontend, index):
        self.frontend, self.index = frontend, index
        self._queue = library().frontend_queue(frontend.handle, index)

    @property
    def handle(self):
        """The Virtqueue pointer."""
        return self._queue

    @property
    def layout(self):
        """Sizes and addresses of the ring in this process."""
        return library().virtqueue_layout(self._queue)

    @property
    def counters(self):
        """Requests, kicks and interrupts so far."""
        return library().virtqueue_counters(self._queue)

    @property
    def in_flight(self):
        """Requests published and not taken back."""
        return library().virtqueue_in_flight(self._queue)

    @property
    def avail_index(self):
        """The index behind the last published request."""
        return library().virtqueue_avail_index(self._queue)

    def submit(self, into, out, tag=None, kick=True):
        """Publish segments [(gpa, size), ...]; the addresses are not checked."""
        n_in, n_out = len(into), len(out)
        request = _Request(
            into=(_Segment * max(n_in, 1))(*into),
            n_in=n_in,
            out=(_Segment * max(n_out, 1))(*out),
            n_out=n_out,
            tag=tag,
            no_kick=not kick,
        )
        return _check(library().virtqueue_submit(self._queue, C.byref(request)), "submit")

    def wait(self, timeout=10.0):
        """The next completion as (head, length); None after the time-out."""
        completion = _Completion()
        rc = library().virtqueue_wait(
            self._queue, C.byref(completion), int(timeout * 1000)
        )
        if rc == -errno.ETIMEDOUT:
            return None
        _check(rc, "the device broke the ring's rules")
        return completion.head, completion.length

    def kick(self):
        """Kick whether the device wants it or not."""
        library().virtqueue_kick_always(self._queue)

    def reserve(self, n):
        """Take n descriptors out of use, to be written by hand."""
        heads = (C.c_uint16 * n)()
        _check(library().virtqueue_reserve(self._queue, n, heads), "reserve")
        return list(heads)

    def release(self, heads):
        """Give reserved descriptors back."""
        array = (C.c_uint16 * len(heads))(*heads)
        library().virtqueue_release(self._queue, len(heads), array)

    def post(self, head):
        """Make a head, any number, available and kick."""
        library().virtqueue_post(self._queue, head, None)

    def write_desc(self, index, gpa, size, flags=0, follow=0):
        """Write one descriptor of the ring's table."""
        C.memmove(
            self.layout.desc + 16 * index, pack_desc(gpa, size, flags, follow), 16
        )

    def write_avail_index(self, value):
        """Write avail->idx, whatever it was."""
        C.c_uint16.from_address(self.layout.avail + 2).value = value & 0xFFFF

    def read_used_index(self):
        """Read used->idx."""
        return C.c_uint16.from_address(self.layout.used + 2).value

    def reset(self):
        """Forget all requests and clear the ring."""
        library().virtqueue_reset(self._queue)


def pack_desc(gpa, size, flags=0, follow=0):
    """One struct vring_desc."""
    mask = 0xFFFFFFFFFFFFFFFF
    return struct.pack("=QIHH", gpa & mask, size & 0xFFFFFFFF, flags, follow)


def _check(rc, what):
    if rc < 0:
        raise OSError(-rc, f"{what}: {os.strerror(-rc)}")
    return rc


class Frontend:
    """A VMM without a machine. Keyword arguments are the fields of FrontendConfig."""

    def __init__(self, socket_path=None, *, fd=None, **config):
        raw = _Config()
        library().frontend_config_init(C.byref(raw))
        for name, value in config.items():
            if name not in dict(_Config._fields_):
                raise TypeError(f"no setting {name}")
            setattr(raw, name, value)
        self.handle = library().frontend_new(C.byref(raw))
        if not self.handle:
            raise MemoryError("cannot make guest memory")
        self._clients = []
        self.queues = [
            Queue(self, i) for i in range(library().frontend_n_queues(self.handle))
        ]
        try:
            if socket_path is not None:
                self.connect(socket_path)
            elif fd is not None:
                library().frontend_attach_take(self.handle, fd)
        except OSError:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    def close(self):
        """Disconnect and free everything; clients of this frontend are gone too."""
        if self.handle:
            for client in self._clients:
                client.close()
            library().frontend_free(self.handle)
            self.handle = None

    def _do(self, function, *arguments):
        rc = getattr(library(), function)(self.handle, *arguments)
        if rc < 0:
            words = library().frontend_error(self.handle).decode()
            raise OSError(-rc, f"{function}: {words}")
        return rc

    def connect(self, socket_path):
        """Connect, or connect again."""
        self._do("frontend_connect", os.fsencode(socket_path))

    def disconnect(self):
        """Close the connection; memory and queues stay."""
        library().frontend_disconnect(self.handle)

    def negotiate(self):
        """From GET_FEATURES to the first RESET_DEVICE."""
        self._do("frontend_negotiate")

    def start_rings(self):
        """Features, memory, rings; also after stop()."""
        self._do("frontend_start")

    def start(self):
        """Negotiate and start the rings."""
        self.negotiate()
        self.start_rings()
        return self

    def stop(self):
        """Disable the rings and fetch their bases."""
        self._do("frontend_stop")

    def reset(self):
        """RESET_DEVICE and empty rings, as a guest's reboot; only after stop()."""
        self._do("frontend_reset")
        for client in self._clients:
            client.reset()

    def add_region(self, size):
        """Plug in memory; returns the region's index."""
        return self._do("frontend_add_region", size)

    def remove_region(self, index):
        """Unplug a region that nothing uses."""
        self._do("frontend_remove_region", index)

    def set_memory(self):
        """Send the regions that the peer does not know."""
        self._do("frontend_set_memory")

    def set_ring(self, queue):
        """NUM, BASE, ADDR, KICK and CALL of one queue."""
        self._do("frontend_set_ring", queue)

    def enable_ring(self, queue, enable=True):
        """SET_VRING_ENABLE."""
        self._do("frontend_enable_ring", queue, enable)

    def get_base(self, queue):
        """GET_VRING_BASE, which stops the ring."""
        return self._do("frontend_get_base", queue)

    def swap_call(self, queue):
        """Give the peer a new call descriptor."""
        self._do("frontend_swap_call", queue)

    def get_config(self, offset, size):
        """GET_CONFIG."""
        data = C.create_string_buffer(size)
        self._do("frontend_get_config", offset, size, C.cast(data, _P))
        return data.raw

    def regions(self):
        """The regions of guest memory that are plugged in."""
        memory = library().frontend_memory(self.handle)
        found = []
        for i in range(library().guest_memory_n_regions(memory)):
            raw = library().guest_memory_region(memory, i).contents
            if raw.size:
                found.append(Region(i, raw))
        return found

    def alloc(self, size, align=16, region=None):
        """Guest memory, never given back."""
        memory = library().frontend_memory(self.handle)
        if region is None:
            host = library().guest_memory_alloc(memory, size, align)
        else:
            host = library().guest_memory_alloc_in(memory, region, size, align)
        if not host:
            raise MemoryError("no guest memory left")
        return Buffer(memory, host, size)

    @property
    def socket(self):
        """The connection's descriptor, borrowed."""
        return library().frontend_socket(self.handle)

    @property
    def backend_socket(self):
        """Where the peer's own requests arrive, borrowed."""
        return library().frontend_backend_socket(self.handle)

    @property
    def offered(self):
        """(features, protocol features) that the peer offered."""
        offered = library().frontend_offered
        return offered(self.handle, False), offered(self.handle, True)

    @property
    def agreed(self):
        """(features, protocol features) that both know."""
        agreed = library().frontend_agreed
        return agreed(self.handle, False), agreed(self.handle, True)

    @property
    def peer_queues(self):
        """The answer to GET_QUEUE_NUM."""
        return library().frontend_peer_queues(self.handle)

    def send(self, request, payload=b"", fds=(), flags=FLAG_VERSION, size=None):
        """Send any message; size defaults to the payload's."""
        array = (C.c_int * max(len(fds), 1))(*fds)
        message = _Message(
            header=_Header(request, flags, len(payload) if size is None else size),
            payload=bytes(payload),
            payload_size=len(payload),
            fds=array,
            n_fds=len(fds),
        )
        _check(library().frontend_send_raw(self.handle, C.byref(message)), "send")

    def send_bytes(self, data):
        """Send bytes that need not be a message."""
        _check(
            library().vhost_message_send_bytes(self.socket, bytes(data), len(data)), "send"
        )

    def receive(self, timeout=10.0):
        """The next message; raises OSError: ETIMEDOUT, ECONNRESET, EPROTO."""
        reply = _VhostReply()
        rc = library().frontend_receive(self.handle, C.byref(reply), int(timeout * 1000))
        _check(rc, "receive")
        return VhostReply(reply)

    def ask(self, request, payload=b"", fds=(), timeout=10.0):
        """Send a request with NEED_REPLY and return the answer."""
        self.send(request, payload, fds, FLAG_VERSION | FLAG_NEED_REPLY)
        return self.receive(timeout)

    def is_closed(self, timeout=1.0):
        """Whether the peer hung up within the time."""
        return library().frontend_is_closed(self.handle, int(timeout * 1000))

    def client(self, **config):
        """A FUSE client. Keyword arguments are the fields of ClientConfig."""
        client = Client(self, **config)
        self._clients.append(client)
        return client


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
        raw = _ClientConfig()
        library().client_config_init(C.byref(raw))
        for name, value in config.items():
            if name not in dict(_ClientConfig._fields_):
                raise TypeError(f"no setting {name}")
            setattr(raw, name, value)
        self.uid, self.gid, self.pid = raw.uid, raw.gid, raw.pid
        self.timeout = raw.timeout_ms / 1000
        self.handle = library().client_new(frontend.handle, C.byref(raw))
        if not self.handle:
            raise MemoryError("not enough guest memory for the client's slots")
        self._unique = 2

    def close(self):
        """Free the slots."""
        if self.handle:
            library().client_free(self.handle)
            self.handle = None

    def reset(self):
        """Forget all requests in flight."""
        library().client_reset(self.handle)

    def set_split(self, split, size=0):
        """How later requests are cut into descriptors."""
        library().client_set_split(self.handle, split, size)

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
        """A whole request; header fields (len, unique, uid, gid, pid, extlen) as given."""
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
            expected = library().reply_is_expected(
                struct.unpack_from("=I", request, 4)[0] if len(request) >= 8 else 0
            )
            room = OUT_HEADER.size + library().reply_room(request, len(request))
            room = room if expected else 0
        raw = _Raw(request, len(request), room, 0 if queue is None else queue + 1)
        reply = _Reply()
        timeout = self.timeout if timeout is None else timeout
        rc = library().client_exchange_raw(
            self.handle, C.byref(raw), C.byref(reply), int(timeout * 1000)
        )
        if rc == -errno.ETIMEDOUT:
            raise TimeoutError("the request was not completed")
        if rc == -errno.ECONNRESET:
            raise ConnectionResetError("the server closed the connection")
        if not reply.slot:
            _check(rc, "exchange")
        try:
            return Reply(rc, reply)
        finally:
            library().client_release(self.handle, C.byref(reply))

    def submit(self, request, room, queue=None):
        """Send any bytes and wait for nothing; reap() gets the answers."""
        request = bytes(request)
        raw = _Raw(request, len(request), room, 0 if queue is None else queue + 1)
        _check(library().client_submit_raw(self.handle, C.byref(raw), None), "submit")

    def reap(self, queue=1, timeout=10.0):
        """The next Reply to a submitted request on a queue."""
        reply = _Reply()
        rc = library().client_reap(self.handle, queue, C.byref(reply), int(timeout * 1000))
        if rc == -errno.ETIMEDOUT:
            raise TimeoutError("no request was completed")
        if not reply.slot:
            _check(rc, "reap")
        try:
            return Reply(rc, reply)
        finally:
            library().client_release(self.handle, C.byref(reply))

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
        return InitOut(self.call(INIT, 0, body))

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

    def getattr(self, nodeid, fh=None):
        """GETATTR."""
        flags = 0 if fh is None else 1
        payload = self.call(GETATTR, nodeid, struct.pack("=IIQ", flags, 0, fh or 0))
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

    def copy_file_range(self, nodeid, fh, offset, to, length, flags=0):
        """COPY_FILE_RANGE; to is (nodeid, handle, offset). Returns the count."""
        body = struct.pack("=QQQQQQQ", fh, offset, *to, length, flags)
        return struct.unpack("=I4x", self.call(COPY_FILE_RANGE, nodeid, body))[0]

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
        self.ino, self.offset, length, self.type = struct.unpack_from("=QQII", payload, at)
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
