# SPDX-License-Identifier: Apache-2.0
"""The DAX window of a VMM without a machine: a thread that maps what the daemon sends, as
QEMU 11 does, and is as strict as QEMU is frail.

    with Window(frontend) as window:
        client.init(flags=window.INIT_FLAGS)
        ...SETUPMAPPING...
        window.read(offset, size)

QEMU answers first, then puts the mapping in place, then tells the daemon of it as memory,
and waits for the daemon's answer to that. A VMM from before the standard (dialect.py)
maps before it answers, over whatever is there, and tells nothing. Whatever QEMU would
fail on, abort or die of is kept in `faults`, and so is a message while rings are stopped.
"""

import array
import ctypes as C
import errno
import mmap
import os
import socket
import struct
import threading
import time

import frontend as vmm
from dialect import PAGE, Asked
from process import is_readable

GET_SHMEM_CONFIG = 44
ANSWER = struct.Struct('=IIIQ')
FLAGS_REPLY = vmm.FLAG_VERSION | vmm.FLAG_REPLY
GPA, UVA = 1 << 40, 1 << 41  # of the window
NOTHING = 0xFF  # what the guest reads where nothing is mapped

_libc = C.CDLL(None, use_errno=True)
_libc.mmap.restype = C.c_void_p
_libc.mmap.argtypes = [C.c_void_p, C.c_size_t, C.c_int, C.c_int, C.c_int, C.c_long]
_libc.munmap.argtypes = [C.c_void_p, C.c_size_t]
_MAP_FIXED = 0x10


def _map(address, size, flags, fd=-1, offset=0):
    found = _libc.mmap(address, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, offset)
    if found == C.c_void_p(-1).value:
        raise OSError(C.get_errno(), 'mmap')
    return found


class Window:
    """What a test may change: `slow` seconds before the answer, `late` ones between that
    and the mapping, `adds` whether it is told as memory. `answer` is called with each
    message if set, and says what is answered: a number, None for nothing, or bytes.
    `judges_size` is False where the file is truncated at the same time.

    `dialect` is how it is asked, and then `size` is known to nobody else.
    """

    INIT_FLAGS = vmm.LINUX_INIT_FLAGS | 1 << 26 | 1 << 33

    def __init__(self, frontend, dialect=Asked, size=None):
        self.frontend, self.lock = frontend, threading.RLock()
        self.dialect = dialect
        self.size = self._ask_size() if dialect.IS_STANDARD else size
        self.base = _map(None, self.size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.mapped = {}  # offset in the window: (device, inode, offset in the file)
        self.faults, self.log = [], []
        self.runs, self.most = True, 0
        self.slow = self.late = 0
        self.adds, self.answer = dialect.IS_STANDARD, None
        self.judges_size = True
        self.in_doubt = set()  # offsets where the daemon cannot know what is mapped
        self.held = {}  # what is told as memory: offset: a copy of the descriptor
        self.socket = socket.socket(fileno=os.dup(frontend.backend_socket))
        self.is_over = False
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _ask_size(self):
        self.frontend.send(GET_SHMEM_CONFIG)
        count, *sizes = struct.unpack('=I4x256Q', self.frontend.receive().payload)
        assert (count, sizes[1:]) == (1, [0] * 255)
        return sizes[0]

    def __enter__(self):
        return self

    def __exit__(self, failed, *unused):
        self.close()
        if failed is None:
            assert not self.faults, self.faults

    def close(self):
        """End the thread and give everything back."""
        if self.is_over:
            return
        self.is_over = True
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join(30)
        assert not self.thread.is_alive()
        self.socket.close()
        for fd in self.held.values():
            os.close(fd)
        self.held.clear()
        _libc.munmap(self.base, self.size)

    # ---- the guest's side

    def read(self, offset, size):
        """What the guest finds there."""
        first = offset // PAGE * PAGE
        if any(page not in self.mapped for page in range(first, offset + size, PAGE)):
            return bytes([NOTHING]) * size
        return C.string_at(self.base + offset, size)

    def write(self, offset, data):
        """The guest's store."""
        C.memmove(self.base + offset, data, len(data))

    # ---- the VMM's side

    def settle(self):
        """Wait until what was answered is done."""
        with self.lock:
            pass

    def counts(self):
        """(maps, unmaps) since the last time."""
        found, self.log = self.log, []
        return found.count(self.dialect.MAP), found.count(self.dialect.UNMAP)

    def stop(self):
        """As QMP's stop: rings stop, mappings stay."""
        with self.lock:
            self.runs = False
            self.frontend.stop()

    def cont(self):
        """The rings run again."""
        with self.lock:
            self.runs = True
            self.frontend.start_rings()

    def drop(self):
        """The guest was reset: QEMU drops all mappings, and says so later."""
        with self.lock:
            gone, self.mapped = self.mapped, {}
            self.in_doubt |= set(gone)
            self._commit(gone, tell=False)
            return gone

    def forget_memory(self, gone):
        """Tell what drop() has dropped."""
        for offset, (*_, file_offset) in gone.items():
            self._tell(vmm.REM_MEM_REG, offset, file_offset, [])

    def _serve(self):
        while not self.is_over:
            is_readable(self.socket)
            fds = array.array('i')
            try:
                raw, extra, *_ = self.socket.recvmsg(4096, socket.CMSG_SPACE(32))
            except ConnectionResetError:
                return
            for _, _, data in extra:
                fds.frombytes(data)
            if not raw:
                return
            try:
                self._handle(self.dialect(raw, list(fds)))
            except OSError as error:
                if not self.is_over:
                    self.faults.append(repr(error))
            finally:
                for fd in fds:
                    os.close(fd)

    def _handle(self, asked):
        with self.lock:
            self.log.append(asked.request)
            wrong = self._judge(asked)
            if wrong:
                self.faults.append(wrong)
            if self.answer is not None:
                self.in_doubt.add(asked.offset)
                self._send(asked, self.answer(asked))
                return
            time.sleep(self.slow)
            refused = wrong or not self._obey(asked)
            self.in_doubt.discard(asked.offset)
            if not self.dialect.IS_STANDARD:
                if not refused:
                    self._settle(asked)
                self._send(asked, (1 << 64) - errno.EINVAL if refused else 0)
                return
            self._send(asked, 1 if refused else 0)
            if not refused:
                time.sleep(self.late)
                self._settle(asked)

    def _send(self, asked, answer):
        if answer is None:
            return
        if not isinstance(answer, bytes):
            answer = ANSWER.pack(asked.request, FLAGS_REPLY, 8, answer)
        self.socket.send(answer)

    def _judge(self, asked):
        """What is wrong with it, or None. Where it cannot know, the daemon unmaps what
        may not be there.
        """
        wrong = asked.wrong() or (None if self.runs else 'while rings are stopped')
        if wrong is None and asked.maps == (asked.offset in self.mapped) and (
                asked.offset not in self.in_doubt):
            wrong = 'over a mapping' if asked.maps else 'nothing is mapped there'
        if wrong is None and self.judges_size:
            wrong = asked.wrong_size()
        return wrong

    def _obey(self, asked):
        """Only what is not there comes, and only what is there goes."""
        if asked.offset + asked.length > self.size or asked.wrong_size():
            return False
        return not self.dialect.IS_STANDARD or asked.maps != (asked.offset in self.mapped)

    def _settle(self, asked):
        if not asked.maps:
            self._commit({asked.offset: self.mapped.pop(asked.offset, (None,))})
            return
        about = os.fstat(asked.fds[0])
        _map(self.base + asked.offset, PAGE, mmap.MAP_SHARED | _MAP_FIXED, asked.fds[0],
             asked.file_offset)
        self.mapped[asked.offset] = about.st_dev, about.st_ino, asked.file_offset
        self.most = max(self.most, len(self.mapped))
        if self.adds:
            self.held[asked.offset] = os.dup(asked.fds[0])
            self._tell(vmm.ADD_MEM_REG, asked.offset, asked.file_offset,
                       [self.held[asked.offset]])

    def _commit(self, gone, tell=True):
        for offset, (*_, file_offset) in gone.items():
            _map(self.base + offset, PAGE,
                 mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED)
            if offset in self.held:
                os.close(self.held.pop(offset))
                if tell:
                    self._tell(vmm.REM_MEM_REG, offset, file_offset, [])

    def _tell(self, request, offset, file_offset, fds):
        payload = struct.pack('=QQQQQ', 0, GPA + offset, PAGE, UVA + offset, file_offset)
        if self.frontend.ask(request, payload, fds).u64 != 0:
            self.faults.append(f'request {request} was refused')
