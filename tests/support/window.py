# SPDX-License-Identifier: Apache-2.0
"""The DAX window of a VMM without a machine: a thread that maps what the daemon sends, as
QEMU 11 does, and is as strict as QEMU is frail.

    with Window(frontend) as window:
        client.init(flags=window.INIT_FLAGS)
        ...SETUPMAPPING...
        window.read(offset, size)

QEMU answers first, then puts the mapping in place, then tells the daemon of it as memory,
and waits for the daemon's answer to that. Whatever QEMU would fail on, abort or die of is
kept in `faults`, and so is a message while rings are stopped.
"""

import array
import ctypes as C
import fcntl
import mmap
import os
import select
import socket
import stat
import struct
import threading
import time

import frontend as vmm

PAGE = 2 << 20
GET_SHMEM_CONFIG = 44
MAP, UNMAP = 9, 10
HEADER, BODY, ANSWER = struct.Struct('=III'), struct.Struct('=B7xQQQQ'), struct.Struct(
    '=IIIQ')
FLAGS_REPLY = vmm.FLAG_VERSION | vmm.FLAG_REPLY
# What the VMM must agree on, beside what the frontend takes anyway: CONFIG and SHMEM.
PROTOCOL = 0x8A42B | 1 << 9 | 1 << 22
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


class Asked:
    """One message of the daemon."""

    def __init__(self, raw, fds):
        self.request, self.flags, self.size = HEADER.unpack_from(raw)
        self.fds, self.raw_size = fds, len(raw)
        (self.region, self.file_offset, self.offset, self.length, self.map_flags) = (
            BODY.unpack_from(raw.ljust(HEADER.size + BODY.size, b'\0'), HEADER.size))

    def wrong(self):
        """What QEMU would stumble over, whatever is mapped; or None."""
        if self.request not in (MAP, UNMAP) or self.raw_size != 52 or self.size != 40:
            return 'no such message'
        if self.flags != vmm.FLAG_VERSION | vmm.FLAG_NEED_REPLY:
            return 'no answer is asked for'
        if self.region != 0 or len(self.fds) != (self.request == MAP):
            return 'a region or a descriptor too many'
        if self.offset % PAGE or self.length != PAGE or self.file_offset % PAGE:
            return 'not aligned'
        return self._wrong_file() if self.request == MAP else None

    def _wrong_file(self):
        access = fcntl.fcntl(self.fds[0], fcntl.F_GETFL)
        about = os.fstat(self.fds[0])
        if access & os.O_PATH or access & os.O_ACCMODE != os.O_RDWR:
            return 'not opened for reading and writing'
        if self.map_flags != 1:
            return 'not to be written'
        if not stat.S_ISREG(about.st_mode):
            return 'no regular file'
        if about.st_size == 0:
            return 'an empty file, which QEMU would make larger'
        if about.st_size < self.file_offset + self.length:
            return 'a file that does not cover it'
        return None


class Window:
    """What a test may change: `slow` seconds before the answer, `late` ones between that
    and the mapping, `adds` whether it is told as memory. `answer` is called with each
    message if set, and says what is answered: a number, None for nothing, or bytes.
    """

    INIT_FLAGS = vmm.LINUX_INIT_FLAGS | 1 << 26 | 1 << 33

    def __init__(self, frontend):
        self.frontend, self.lock = frontend, threading.RLock()
        frontend.send(GET_SHMEM_CONFIG)
        count, *sizes = struct.unpack('=I4x256Q', frontend.receive().payload)
        assert (count, sizes[1:]) == (1, [0] * 255)
        self.size = sizes[0]
        self.base = _map(None, self.size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.mapped = {}  # offset in the window: (device, inode, offset in the file)
        self.faults, self.log = [], []
        self.runs, self.most = True, 0
        self.slow = self.late = 0
        self.adds, self.answer = True, None
        self.held = {}  # what is told as memory: offset: a copy of the descriptor
        self.socket = socket.socket(fileno=os.dup(frontend.backend_socket))
        self.is_over = False
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

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
        return found.count(MAP), found.count(UNMAP)

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
            self._commit(gone, tell=False)
            return gone

    def forget_memory(self, gone):
        """Tell what drop() has dropped."""
        for offset, (*_, file_offset) in gone.items():
            self._tell(vmm.REM_MEM_REG, offset, file_offset, [])

    def _serve(self):
        while not self.is_over:
            select.select([self.socket], [], [])
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
                self._handle(Asked(raw, list(fds)))
            except OSError as error:
                if not self.is_over:
                    self.faults.append(repr(error))
            finally:
                for fd in fds:
                    os.close(fd)

    def _handle(self, asked):
        with self.lock:
            self.log.append(asked.request)
            wrong = asked.wrong() or (None if self.runs else 'while rings are stopped')
            if wrong:
                self.faults.append(wrong)
            if self.answer is not None:
                self._send(asked, self.answer(asked))
                return
            time.sleep(self.slow)
            refused = wrong or not self._obey(asked)
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

    def _obey(self, asked):
        """Only what is not there comes, and only what is there goes."""
        if asked.offset + asked.length > self.size:
            return False
        if (asked.request == MAP) == (asked.offset in self.mapped):
            return False
        return True

    def _settle(self, asked):
        if asked.request == UNMAP:
            gone = {asked.offset: self.mapped.pop(asked.offset)}
            self._commit(gone)
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
