# SPDX-License-Identifier: Apache-2.0
"""The life of a device as each VMM plays it (vmms.py has what they send), with requests
before, between and after, whose data must be right.
"""

import errno
import os
import random
import struct

import pytest

import fuse_client as fuse
import launch
import vmms
from window import PAGE, Window

KIB, MIB = 1 << 10, 1 << 20
SIZE = 300 * KIB
OPTIONS = ('--tag=share', '--num-request-queues=3')


@pytest.fixture
def daemon(start, share, scratch, extra_args):
    """A daemon with three request queues."""
    daemon = start(launch.plain, share, scratch, [*OPTIONS, *extra_args])
    daemon.wait_ready()
    return daemon


@pytest.fixture
def session(daemon):
    """session(how): a VMM that is connected to it, and leaves in the end."""
    sessions = []

    def make(how):
        # crosvm sets up all queues that there are, others what they are told to.
        n_queues = 4 if how is vmms.CROSVM else 3
        sessions.append(vmms.Session(how, daemon.socket_path, n_queues))
        return sessions[-1]

    yield make
    for one in sessions:
        one.close()


class File:
    """A file that a guest writes and reads through each of its request queues."""

    def __init__(self, session, client, share, name=b'file'):
        self.session, self.client = session, client
        self.name, self.path = name, os.path.join(share, name.decode())
        self.data = random.Random(name).randbytes(SIZE)
        self.open()

    def open(self):
        """Anew in each session of the guest."""
        if os.path.exists(self.path):
            self.node = self.client.lookup(fuse.ROOT, self.name).nodeid
            self.handle = self.client.open(self.node, os.O_RDWR)[0]
        else:
            entry, self.handle = self.client.create(fuse.ROOT, self.name)
            self.node = entry.nodeid

    def read_request(self, size=SIZE):
        body = struct.pack('=QQIIQII', self.handle, 0, size, 0, 0, 0, 0)
        return self.client.pack(fuse.READ, self.node, body)

    def check(self):
        """Write and read, through each queue; the host has it, too."""
        for queue in range(1, self.session.n_queues):
            self.data = self.data[1:] + self.data[:1]
            body = struct.pack('=QQIIQII', self.handle, 0, SIZE, 0, 0, 0, 0)
            self.client.call(fuse.WRITE, self.node, body + self.data, queue=queue)
            body = struct.pack('=QQIIQII', self.handle, 0, SIZE, 0, 0, 0, 0)
            assert self.client.call(fuse.READ, self.node, body, queue=queue) == self.data
        with open(self.path, 'rb') as file:
            assert file.read() == self.data

    def check_in(self, region):
        """Read into memory that was plugged in."""
        frontend, request = self.session.frontend, self.read_request()
        room = frontend.alloc(16 + SIZE, region=region)
        good = frontend.alloc(len(request))
        good.write(request)
        queue = frontend.queues[1]
        queue.submit([(good.gpa, good.size)], [(room.gpa, room.size)])
        assert queue.wait()[1] == 16 + SIZE
        assert room.read(at=16) == self.data


def boot_again(one, client, file, plugged):
    """The guest boots again: no DESTROY, and all memory is told once more or kept."""
    one.run('reset')
    one.forget_rings()
    client.reset()
    one.run('activate')
    client.init()
    file.open()
    file.check()
    for region in plugged:
        file.check_in(region)


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=pytest.mark.unwatched('its channel is another one then'))
    if how is vmms.CLOUD_HYPERVISOR_GENERIC else name for name, how in vmms.ALL.items()])
def test_life(session, daemon, share, name):
    how = vmms.ALL[name]
    one = session(how)
    client = one.start()
    assert one.told['GET_QUEUE_NUM'] == 4
    if 'GET_CONFIG' in one.told:
        assert one.told['GET_CONFIG'][12:] == b'share'.ljust(36, b'\0') + b'\3\0\0\0'
    file = File(one, client, share)
    file.check()

    # A stop and its end: what was asked meanwhile is answered then, and not before.
    one.run('pause')
    client.submit(file.read_request(), 16 + SIZE, queue=1)
    before = one.frontend.queues[1].used_mark()
    one.settle()
    assert one.frontend.queues[1].used_mark() == before
    one.run('resume')
    assert client.reap().payload == file.data
    file.check()

    plugged = None
    if 'plug' in how.steps:
        plugged = one.plug(2 * MIB)
        file.check_in(plugged)

    for _ in range(2):
        boot_again(one, client, file, [] if plugged is None else [plugged])
    one.close()
    assert daemon.wait() == 0


def test_too_few_queues(session, daemon):
    """Cloud Hypervisor asks how many there are, and gives up if it was told to have more.
    """
    one = session(vmms.CLOUD_HYPERVISOR)
    one.run('connect')
    assert one.told['GET_QUEUE_NUM'] == 4
    one.close()
    assert daemon.wait() == 0


@pytest.mark.parametrize('n_plugged', [8, 30])
def test_all_memory_in_one_table(session, share, n_plugged):
    """Cloud Hypervisor's machine boots again after memory was plugged in often: more
    regions come with SET_MEM_TABLE than QEMU would send.
    """
    one = session(vmms.CLOUD_HYPERVISOR)
    client = one.start()
    file = File(one, client, share)
    plugged = [one.plug(MIB) for _ in range(n_plugged)]
    boot_again(one, client, file, plugged)


@pytest.mark.unwatched('killed')
def test_reconnect(daemon, start, share, scratch, extra_args):
    """Cloud Hypervisor, whose daemon was killed, finds another one. That knows nothing of
    the guest's session, and says so: the guest mounts again.
    """
    one = vmms.Session(vmms.CLOUD_HYPERVISOR, daemon.socket_path)
    client = one.start()
    file = File(one, client, share)
    file.check()
    daemon.kill()
    again = start(launch.plain, share, scratch, [*OPTIONS, *extra_args])
    again.wait_ready()
    one.reconnect()
    assert fuse.errno_of(client.read, file.node, file.handle, SIZE) == errno.EIO
    client.init()
    file.open()
    file.check()
    one.close()
    assert again.wait() == 0


def test_crosvm_window(start, share, scratch, extra_args):
    """crosvm maps what it is asked to, though it agrees neither on descriptors on the
    back-end's channel nor on memory slots; it never tells of the window as memory.
    """
    data = random.Random(1).randbytes(2 * PAGE)
    with open(os.path.join(share, 'file'), 'wb') as file:
        file.write(data)
    daemon = start(launch.plain, share, scratch,
                   [*OPTIONS, f'--dax-window={4 * PAGE}', *extra_args])
    daemon.wait_ready()
    one = vmms.Session(vmms.CROSVM, daemon.socket_path, n_queues=4)
    one.run('connect')
    assert one.protocol & (vmms.SHMEM | vmms.SEND_FD | vmms.SLOTS) == vmms.SHMEM
    with Window(one) as window:
        window.adds = False
        one.run('activate')
        one.settle()
        client = one.frontend.client()
        assert client.init(flags=Window.INIT_FLAGS).map_alignment == 21
        node = client.lookup(fuse.ROOT, b'file').nodeid
        for page in range(2):
            client.setup_mapping(node, page * PAGE, page * PAGE)
        window.settle()
        assert window.read(0, 2 * PAGE) == data
        window.write(PAGE, b'written')
        # It sleeps and wakes: mappings outlive it.
        window.runs = False
        one.run('pause')
        one.run('resume')
        window.runs = True
        client.remove_mappings(node, 0)
        window.settle()
        assert window.counts() == (2, 1)
        assert window.read(PAGE, 7) == b'written'
        client.init(flags=Window.INIT_FLAGS)
        window.settle()
        assert window.mapped == {}
        one.close()
    with open(os.path.join(share, 'file'), 'rb') as file:
        assert file.read(PAGE + 7) == data[:PAGE] + b'written'
