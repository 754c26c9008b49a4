# SPDX-License-Identifier: Apache-2.0
"""A VMM without a machine for Python: tests/support/*.c by ctypes (see native.py).

    with Frontend("/run/vfs.sock") as frontend:
        frontend.start()
        client = frontend.client()
        client.init()
        entry = client.lookup(ROOT, b"file")

Names of fuse_client.py are exported here too.
"""

import ctypes as C
import errno
import os
import struct

import holdings
import leaks
import native
from fuse_client import *  # noqa: F401,F403 (one import is enough for a test)
from fuse_client import Client
from native import Counters  # noqa: F401

# Request numbers of vhost-user.
GET_FEATURES, SET_FEATURES, SET_OWNER, RESET_OWNER, SET_MEM_TABLE = 1, 2, 3, 4, 5
SET_LOG_BASE, SET_LOG_FD = 6, 7
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE = 8, 9, 10, 11
SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR = 12, 13, 14
GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, GET_QUEUE_NUM = 15, 16, 17
SET_VRING_ENABLE, SET_BACKEND_REQ_FD, GET_CONFIG = 18, 21, 24
RESET_DEVICE, GET_MAX_MEM_SLOTS, ADD_MEM_REG, REM_MEM_REG = 34, 36, 37, 38

FLAG_VERSION, FLAG_REPLY, FLAG_NEED_REPLY = 0x1, 0x4, 0x8

F_LOG_ALL, F_INDIRECT_DESC, F_EVENT_IDX, F_PROTOCOL_FEATURES = (
    1 << 26,
    1 << 28,
    1 << 29,
    1 << 30,
)
F_VERSION_1, F_RING_PACKED = 1 << 32, 1 << 34

DESC_NEXT, DESC_WRITE, DESC_INDIRECT = 1, 2, 4


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
        self.gpa = native.library().guest_memory_gpa(memory, host)
        self.uva = native.library().guest_memory_uva(memory, host)

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
        self._queue = native.library().frontend_queue(frontend.handle, index)

    @property
    def handle(self):
        """The Virtqueue pointer."""
        return self._queue

    @property
    def layout(self):
        """Sizes and addresses of the ring in this process."""
        return native.library().virtqueue_layout(self._queue)

    @property
    def counters(self):
        """Requests, kicks and interrupts so far."""
        return native.library().virtqueue_counters(self._queue)

    @property
    def in_flight(self):
        """Requests published and not taken back."""
        return native.library().virtqueue_in_flight(self._queue)

    @property
    def waiting(self):
        """Completions that wait to be taken."""
        return native.library().virtqueue_waiting(self._queue)

    @property
    def is_packed(self):
        """Whether its layout is the packed one."""
        return bool(self.frontend.agreed[0] & F_RING_PACKED)

    @property
    def base(self):
        """What GET_VRING_BASE is to answer once all requests are back."""
        return native.library().virtqueue_base(self._queue)

    @property
    def avail_index(self):
        """The index behind the last published request."""
        return native.library().virtqueue_avail_index(self._queue)

    def submit(self, into, out, tag=None, kick=True):
        """Publish segments [(gpa, size), ...]; the addresses are not checked."""
        n_in, n_out = len(into), len(out)
        request = native.Request(
            into=(native.Segment * max(n_in, 1))(*into),
            n_in=n_in,
            out=(native.Segment * max(n_out, 1))(*out),
            n_out=n_out,
            tag=tag,
            no_kick=not kick,
        )
        rc = native.library().virtqueue_submit(self._queue, C.byref(request))
        return native.check(rc, "submit")

    def wait(self, timeout=10.0):
        """The next completion as (head, length); None after the time-out."""
        completion = native.Completion()
        rc = native.library().virtqueue_wait(
            self._queue, C.byref(completion), int(timeout * 1000)
        )
        if rc == -errno.ETIMEDOUT:
            return None
        native.check(rc, "the device broke the ring's rules")
        return completion.head, completion.length

    def kick(self):
        """Kick whether the device wants it or not."""
        native.library().virtqueue_kick_always(self._queue)

    def reserve(self, n):
        """Take n descriptors out of use, to be written by hand."""
        heads = (C.c_uint16 * n)()
        native.check(native.library().virtqueue_reserve(self._queue, n, heads), "reserve")
        return list(heads)

    def release(self, heads):
        """Give reserved descriptors back."""
        array = (C.c_uint16 * len(heads))(*heads)
        native.library().virtqueue_release(self._queue, len(heads), array)

    def post(self, head):
        """Make a head, any number, available and kick."""
        native.library().virtqueue_post(self._queue, head, None)

    def write_desc(self, index, gpa, size, flags=0, follow=0):
        """Write one descriptor of the ring's table, or plan it for a packed ring."""
        C.memmove(
            self.layout.plan + 16 * index, pack_desc(gpa, size, flags, follow), 16
        )

    def write_avail_index(self, value):
        """Write avail->idx, whatever it was."""
        C.c_uint16.from_address(self.layout.avail + 2).value = value & 0xFFFF

    def used_mark(self):
        """Something that changes whenever the device gives anything back."""
        if self.is_packed:
            return C.string_at(self.layout.desc, 16 * self.layout.size)
        return C.c_uint16.from_address(self.layout.used + 2).value

    def reset(self):
        """Forget all requests and clear the ring."""
        native.library().virtqueue_reset(self._queue)


def pack_desc(gpa, size, flags=0, follow=0):
    """One struct vring_desc."""
    mask = 0xFFFFFFFFFFFFFFFF
    return struct.pack("=QIHH", gpa & mask, size & 0xFFFFFFFF, flags, follow)


class Frontend:
    """A VMM without a machine. Keyword arguments are the fields of FrontendConfig."""

    def __init__(self, socket_path=None, *, fd=None, **config):
        raw = native.Config()
        native.library().frontend_config_init(C.byref(raw))
        for name, value in config.items():
            if name not in dict(native.Config._fields_):
                raise TypeError(f"no setting {name}")
            setattr(raw, name, value)
        self.handle = native.library().frontend_new(C.byref(raw))
        if not self.handle:
            raise MemoryError("cannot make guest memory")
        self._clients = []
        self.socket_path = None
        self.queues = [
            Queue(self, i) for i in range(native.library().frontend_n_queues(self.handle))
        ]
        try:
            if socket_path is not None:
                self.connect(socket_path)
            elif fd is not None:
                native.library().frontend_attach_take(self.handle, fd)
        except OSError:
            self._free()
            raise

    def __del__(self):
        # A test that leaves it to the collector.
        if getattr(self, "handle", None):
            self._free()

    def __enter__(self):
        return self

    def __exit__(self, what_failed, *unused):
        if what_failed is None:
            self.close()
        else:
            self._free()

    def session_begins(self):
        """A client's INIT was answered: from here on the daemon may be watched."""
        leaks.begin(self.socket_path)

    def check_leaks(self):
        """Give back what the clients hold; a watched daemon must then hold nothing."""
        watch = leaks.of(self.socket_path)
        if watch and watch.before and holdings.is_connected(self):
            holdings.give_back(self._clients)
            watch.check()

    def close(self):
        """Disconnect and free everything; clients of this frontend are gone too. A
        watched daemon must hold then what it held in the beginning.
        """
        try:
            self.check_leaks()
        finally:
            self._free()

    def _free(self):
        if self.handle:
            for client in self._clients:
                client.close()
            native.library().frontend_free(self.handle)
            self.handle = None

    def _do(self, function, *arguments):
        rc = getattr(native.library(), function)(self.handle, *arguments)
        if rc < 0:
            words = native.library().frontend_error(self.handle).decode()
            raise OSError(-rc, f"{function}: {words}")
        return rc

    def connect(self, socket_path):
        """Connect, or connect again."""
        self._do("frontend_connect", os.fsencode(socket_path))
        self.socket_path = socket_path

    def disconnect(self):
        """Close the connection; memory and queues stay."""
        native.library().frontend_disconnect(self.handle)

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

    def make_region(self, size):
        """Memory that the peer is not told of; returns the region's index."""
        memory = native.library().frontend_memory(self.handle)
        return native.check(native.library().guest_memory_add(memory, size), "region")

    def drop_region(self, index):
        """Unmap a region that nothing uses, without telling the peer."""
        memory = native.library().frontend_memory(self.handle)
        native.library().guest_memory_remove(memory, index)

    def uva(self, host):
        """The VMM's address of one of ours."""
        memory = native.library().frontend_memory(self.handle)
        return native.library().guest_memory_uva(memory, host)

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
        base = C.c_uint32()
        self._do("frontend_get_base", queue, C.byref(base))
        return base.value

    def swap_call(self, queue):
        """Give the peer a new call descriptor."""
        self._do("frontend_swap_call", queue)

    def get_config(self, offset, size):
        """GET_CONFIG."""
        data = C.create_string_buffer(size)
        self._do("frontend_get_config", offset, size, C.cast(data, native.POINTER))
        return data.raw

    def regions(self):
        """The regions of guest memory that are plugged in."""
        memory = native.library().frontend_memory(self.handle)
        found = []
        for i in range(native.library().guest_memory_n_regions(memory)):
            raw = native.library().guest_memory_region(memory, i).contents
            if raw.size:
                found.append(Region(i, raw))
        return found

    def alloc(self, size, align=16, region=None):
        """Guest memory, never given back."""
        memory = native.library().frontend_memory(self.handle)
        if region is None:
            host = native.library().guest_memory_alloc(memory, size, align)
        else:
            host = native.library().guest_memory_alloc_in(memory, region, size, align)
        if not host:
            raise MemoryError("no guest memory left")
        return Buffer(memory, host, size)

    @property
    def socket(self):
        """The connection's descriptor, borrowed."""
        return native.library().frontend_socket(self.handle)

    @property
    def backend_socket(self):
        """Where the peer's own requests arrive, borrowed."""
        return native.library().frontend_backend_socket(self.handle)

    @property
    def offered(self):
        """(features, protocol features) that the peer offered."""
        offered = native.library().frontend_offered
        return offered(self.handle, False), offered(self.handle, True)

    @property
    def agreed(self):
        """(features, protocol features) that both know."""
        agreed = native.library().frontend_agreed
        return agreed(self.handle, False), agreed(self.handle, True)

    @property
    def peer_queues(self):
        """The answer to GET_QUEUE_NUM."""
        return native.library().frontend_peer_queues(self.handle)

    def send(self, request, payload=b"", fds=(), flags=FLAG_VERSION, size=None):
        """Send any message; size defaults to the payload's."""
        array = (C.c_int * max(len(fds), 1))(*fds)
        message = native.Message(
            header=native.Header(request, flags, len(payload) if size is None else size),
            payload=bytes(payload),
            payload_size=len(payload),
            fds=array,
            n_fds=len(fds),
        )
        rc = native.library().frontend_send_raw(self.handle, C.byref(message))
        native.check(rc, "send")

    def send_bytes(self, data):
        """Send bytes that need not be a message."""
        data = bytes(data)
        rc = native.library().vhost_message_send_bytes(self.socket, data, len(data))
        native.check(rc, "send")

    def receive(self, timeout=10.0):
        """The next message; raises OSError: ETIMEDOUT, ECONNRESET, EPROTO."""
        reply = native.VhostReply()
        rc = native.library().frontend_receive(
            self.handle, C.byref(reply), int(timeout * 1000)
        )
        native.check(rc, "receive")
        return VhostReply(reply)

    def ask(self, request, payload=b"", fds=(), timeout=10.0):
        """Send a request with NEED_REPLY and return the answer."""
        self.send(request, payload, fds, FLAG_VERSION | FLAG_NEED_REPLY)
        return self.receive(timeout)

    def is_closed(self, timeout=1.0):
        """Whether the peer hung up within the time."""
        return native.library().frontend_is_closed(self.handle, int(timeout * 1000))

    def client(self, **config):
        """A FUSE client. Keyword arguments are the fields of ClientConfig."""
        client = Client(self, **config)
        self._clients.append(client)
        return client
