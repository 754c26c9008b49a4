# SPDX-License-Identifier: Apache-2.0
"""What VMMs send to a virtio-fs device, in which order and with which agreements: one
table each, and a session that plays it on the memory and the queues of a Frontend.

A word of a table is a message, or in small letters another step. After a message stand
what it is told ("=1"), and "?" if NEED_REPLY asks for an answer. A line that begins with
"queue:" or "region:" is sent for each queue that the guest uses, or for each region that
the daemon has not been told of.
"""

import re
import socket
import struct
from collections import namedtuple

import frontend as vmm
import native
from frontend import FLAG_NEED_REPLY, FLAG_VERSION, Frontend

INDIRECT, EVENT, PROTOCOL, VERSION_1 = 1 << 28, 1 << 29, 1 << 30, 1 << 32
PACKED, IN_ORDER, ORDER_PLATFORM, NOTIFICATION_DATA = 1 << 34, 1 << 35, 1 << 36, 1 << 38
(MQ, LOG_SHMFD, REPLY_ACK, BACKEND_REQ, CONFIG, SEND_FD, INFLIGHT, RESET, SLOTS,
 DEVICE_STATE, SHMEM) = (1 << bit for bit in (0, 1, 3, 5, 9, 10, 12, 13, 15, 19, 22))
WORD = re.compile(r'(\w+?)(?:=(\w+))?(\??)')


def _steps(text):
    """{name: [lines]} of a table."""
    steps = {}
    for line in text.strip().splitlines():
        if line.startswith('['):
            lines = steps[line.strip('[]')] = []
        else:
            lines.append(line.strip())
    return steps


# features: what the VMM and a Linux guest know, of which what is offered is agreed on.
Vmm = namedtuple('Vmm', 'features protocol queue_size steps')

QEMU = Vmm(
    INDIRECT | EVENT | PROTOCOL | VERSION_1,
    MQ | LOG_SHMFD | REPLY_ACK | BACKEND_REQ | SEND_FD | RESET | SLOTS | DEVICE_STATE
    | SHMEM,
    128, _steps("""
[connect]
    GET_FEATURES GET_PROTOCOL_FEATURES SET_PROTOCOL_FEATURES
    GET_QUEUE_NUM GET_MAX_MEM_SLOTS SET_BACKEND_REQ_FD?
    SET_OWNER GET_FEATURES
    queue: SET_VRING_CALL? SET_VRING_ERR?
    RESET_DEVICE
[activate]
    queue: SET_VRING_CALL?
    SET_FEATURES
    region: ADD_MEM_REG?
    queue: SET_VRING_NUM SET_VRING_BASE SET_VRING_ADDR SET_VRING_KICK? SET_VRING_CALL?
    queue: SET_VRING_ENABLE=1?
    queue: SET_VRING_CALL?
[pause]
    queue: SET_VRING_ENABLE=0?
    queue: GET_VRING_BASE
    queue: SET_VRING_CALL?
[resume]
    activate
[plug]
    region: ADD_MEM_REG?
[reset]
    pause
    RESET_DEVICE
"""))

# Once REPLY_ACK is agreed on, it asks for an answer to everything. Memory comes whole at
# each activation, also where slots are agreed on; what is plugged in later, by itself. To
# a daemon that took a dead one's place, or that a restored machine finds, it connects
# without asking again what was agreed.
CLOUD_HYPERVISOR = Vmm(
    INDIRECT | EVENT | PROTOCOL | VERSION_1 | IN_ORDER | ORDER_PLATFORM
    | NOTIFICATION_DATA,
    MQ | SLOTS | REPLY_ACK | INFLIGHT | LOG_SHMFD | DEVICE_STATE,
    1024, _steps("""
[connect]
    SET_OWNER GET_FEATURES GET_PROTOCOL_FEATURES SET_PROTOCOL_FEATURES GET_QUEUE_NUM?
[activate]
    SET_FEATURES?
    SET_MEM_TABLE?
    queue: SET_VRING_NUM?
    queue: SET_VRING_ADDR? SET_VRING_BASE=avail? SET_VRING_CALL? SET_VRING_KICK?
    queue: SET_VRING_ENABLE=1?
[pause]
    queue: SET_VRING_ENABLE=0?
[resume]
    queue: SET_VRING_ENABLE=1?
[plug]
    region: ADD_MEM_REG?
[reset]
    queue: SET_VRING_ENABLE=0? GET_VRING_BASE?
[reconnect]
    SET_OWNER GET_FEATURES SET_PROTOCOL_FEATURES
"""))

# Its device for everything else (generic-vhost-user) has no configuration of its own.
CLOUD_HYPERVISOR_GENERIC = CLOUD_HYPERVISOR._replace(
    protocol=CLOUD_HYPERVISOR.protocol | CONFIG | BACKEND_REQ,
    steps=dict(CLOUD_HYPERVISOR.steps,
               connect=[*CLOUD_HYPERVISOR.steps['connect'], 'GET_CONFIG?'],
               activate=[*CLOUD_HYPERVISOR.steps['activate'], 'SET_BACKEND_REQ_FD?']))

# Never asks for an answer. The guest writes the features that it takes in two halves, and
# each is sent. It has as many queues as the daemon, each as long as can be.
CROSVM = Vmm(
    EVENT | PROTOCOL | VERSION_1,
    CONFIG | MQ | BACKEND_REQ | DEVICE_STATE | SHMEM | REPLY_ACK,
    32768, _steps("""
[connect]
    SET_OWNER GET_FEATURES GET_PROTOCOL_FEATURES SET_PROTOCOL_FEATURES
    SET_BACKEND_REQ_FD GET_QUEUE_NUM
[activate]
    GET_CONFIG
    SET_FEATURES=low SET_FEATURES
    resume
[pause]
    queue: SET_VRING_ENABLE=0 GET_VRING_BASE
[resume]
    SET_MEM_TABLE
    queue: SET_VRING_NUM SET_VRING_ADDR SET_VRING_BASE SET_VRING_CALL SET_VRING_KICK \
           SET_VRING_ENABLE=1
[reset]
    pause
"""))

ALL = {'QEMU': QEMU, 'Cloud Hypervisor': CLOUD_HYPERVISOR,
       'Cloud Hypervisor, generic': CLOUD_HYPERVISOR_GENERIC, 'crosvm': CROSVM}


class Session:
    """One of these VMMs, connected to a daemon."""

    def __init__(self, how, socket_path, n_queues=3, **more):
        self.how, self.n_queues = how, n_queues
        tables = {'table_size': 16} if how.queue_size > 1024 else {}
        self.frontend = Frontend(socket_path, n_request_queues=n_queues - 1,
                                 queue_size=how.queue_size, features=how.features,
                                 memory_size=64 << 20, **tables, **more)
        self.features = self.protocol = 0
        self.told = {}  # name of a message: what it was answered, a number or bytes
        self.known = set()  # indices of regions
        self.base = [0] * n_queues
        self.channel = ()

    # ---- what a Window needs

    @property
    def backend_socket(self):
        """Our end of the back-end's channel."""
        return self.channel[0].fileno()

    def send(self, *args, **more):
        """As a frontend's."""
        self.frontend.send(*args, **more)

    def receive(self):
        """As a frontend's."""
        return self.frontend.receive()

    # ---- steps

    def run(self, step):
        """Send a step of the table; an answer that is none or says no is an error."""
        for line in self.how.steps[step]:
            each, _, words = line.rpartition(':')
            for one in self._each(each):
                for word in words.split():
                    if word.islower():
                        self.run(word)
                    else:
                        self._say(one, *WORD.fullmatch(word).groups())

    def _each(self, what):
        if what == 'queue':
            return range(self.n_queues)
        if what == 'region':
            return [r for r in self.frontend.regions() if r.index not in self.known]
        return [None]

    def _say(self, one, name, told, need_reply):
        payload, fds = getattr(self, '_' + name.lower())(one, told)
        number = getattr(vmm, name)
        self.frontend.send(number, payload, fds,
                           FLAG_VERSION | (FLAG_NEED_REPLY if need_reply else 0))
        if not name.startswith('GET_') and not need_reply:
            return
        reply = self.frontend.receive()
        assert (reply.request, reply.flags, reply.fds) == (number, 5, []), name
        self.told[name] = reply.u64 if len(reply.payload) == 8 else reply.payload
        if name == 'GET_VRING_BASE':
            index, self.base[one] = struct.unpack('=II', reply.payload)
            assert index == one
        elif not name.startswith('GET_'):
            assert self.told[name] == 0, name

    # ---- messages: payload and descriptors

    @staticmethod
    def _nothing(*_):
        return b'', ()

    _set_owner = _get_features = _get_protocol_features = _get_queue_num = _nothing
    _get_max_mem_slots = _reset_device = _nothing

    def _set_features(self, _, told):
        self.features = self.how.features & self.told['GET_FEATURES']
        return struct.pack('=Q', self.features & (0xFFFFFFFF if told else ~0)), ()

    def _set_protocol_features(self, *_):
        """What was agreed before, if it is not asked again."""
        self.protocol = self.how.protocol & self.told['GET_PROTOCOL_FEATURES']
        return struct.pack('=Q', self.protocol), ()

    def _get_config(self, *_):
        """The tag and the number of queues, as the guest reads them."""
        return struct.pack('=III40x', 0, 40, 1), ()

    def _set_backend_req_fd(self, *_):
        self.close_channel()
        self.channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return b'', [self.channel[1].fileno()]

    def _set_mem_table(self, *_):
        regions = self.frontend.regions()
        self.known.update(region.index for region in regions)
        table = struct.pack('=II', len(regions), 0)
        return (table + b''.join(region.describe() for region in regions),
                [region.fd for region in regions])

    def _add_mem_reg(self, region, _):
        self.known.add(region.index)
        return bytes(8) + region.describe(), [region.fd]

    def _set_vring_num(self, queue, _):
        return struct.pack('=II', queue, self.how.queue_size), ()

    def _set_vring_base(self, queue, told):
        base = self.base[queue]
        if told == 'avail':
            base = self.frontend.queues[queue].avail_index
        return struct.pack('=II', queue, base), ()

    def _get_vring_base(self, queue, _):
        return struct.pack('=II', queue, 0), ()

    def _set_vring_addr(self, queue, _):
        ring = self.frontend.queues[queue].layout
        addresses = [self.frontend.uva(at) for at in (ring.desc, ring.used, ring.avail)]
        return struct.pack('=IIQQQQ', queue, 0, *addresses, 0), ()

    def _set_vring_kick(self, queue, _):
        handle = self.frontend.queues[queue].handle
        return struct.pack('=Q', queue), [native.library().virtqueue_kick_fd(handle)]

    def _set_vring_call(self, queue, _):
        handle = self.frontend.queues[queue].handle
        return struct.pack('=Q', queue), [native.library().virtqueue_call_fd(handle)]

    _set_vring_err = _set_vring_call

    def _set_vring_enable(self, queue, told):
        return struct.pack('=II', queue, int(told)), ()

    # ---- the guest's side

    def start(self, **client):
        """From the beginning to a guest that has mounted the share; its client."""
        self.run('connect')
        self.run('activate')
        self.settle()
        client = self.frontend.client(**client)
        client.init()
        return client

    def settle(self):
        """Wait until the daemon has obeyed, whoever never asks for answers."""
        self.frontend.send(vmm.GET_FEATURES)
        self.frontend.receive()

    def plug(self, size):
        """Plug in memory; the region's index."""
        index = self.frontend.make_region(size)
        self.run('plug')
        return index

    def forget_rings(self):
        """A guest's driver that begins anew has empty rings."""
        for queue in self.frontend.queues:
            queue.reset()
        self.base = [0] * self.n_queues

    def reconnect(self):
        """To another daemon that listens where the first did."""
        path = self.frontend.socket_path
        self.frontend.disconnect()
        self.frontend.connect(path)
        self.run('reconnect')
        self.run('activate')

    def close(self):
        """Leave, with all given back."""
        try:
            self.frontend.close()
        finally:
            self.close_channel()

    def close_channel(self):
        """Our copies of the back-end's channel."""
        for end in self.channel:
            end.close()
