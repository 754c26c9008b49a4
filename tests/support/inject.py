# SPDX-License-Identifier: Apache-2.0
"""System calls of our choice, made by a running process itself: what code of an
attacker's could ask of the kernel from there. By ptrace(2); the process goes on
afterwards as if nothing had happened, if it has survived.
"""

import contextlib
import ctypes
import os
import pickle
import platform
import signal

CONT, DETACH, SYSCALL = 7, 17, 24
GETREGSET, SETREGSET, SEIZE, INTERRUPT = 0x4204, 0x4205, 0x4206, 0x4207
SET_OPTIONS, TRACESYSGOOD = 0x4200, 1
NT_PRSTATUS = 1
WALL = 0x40000000
SYSCALL_STOP = signal.SIGTRAP | 0x80
# What the kernel keeps to itself of a call that it is going to repeat.
RESTARTS = range(-516, -511)

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class MACHINE:
    """Where the kernel of this machine looks for a call and its arguments: in which of
    the registers.
    """

    size, instruction = 27, b'\x0f\x05'
    number, result, pc, sp, original = 10, 10, 16, 19, 15
    arguments = (14, 13, 12, 7, 9, 8)


IS_POSSIBLE = platform.machine() == 'x86_64'


class _Iovec(ctypes.Structure):
    _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]


class Died(Exception):
    """The process did not survive a call; .signal ended it, or 0: it left by itself."""

    def __init__(self, number):
        super().__init__(signal.Signals(number).name if number else 'exited')
        self.signal = number

    def __reduce__(self):
        return Died, (self.signal,)


def number_of(name):
    """Of a system call on this machine; None if it has none of this name."""
    number = ctypes.CDLL('libseccomp.so.2').seccomp_syscall_resolve_name(name.encode())
    return number if number >= 0 else None


def _ptrace(request, pid, address=0, data=0):
    if libc.ptrace(request, pid, address, data) < 0:
        raise OSError(ctypes.get_errno(), f'ptrace {request:#x}')


class Caller:
    """A thread that is stopped and makes calls for us."""

    def __init__(self, pid):
        self.pid = pid
        _ptrace(SEIZE, pid, 0, TRACESYSGOOD)
        _ptrace(INTERRUPT, pid)
        self._wait()
        self.saved = self._registers()
        self.memory = os.open(f'/proc/{pid}/mem', os.O_RDWR | os.O_CLOEXEC)
        pc = self.saved[MACHINE.pc] - len(MACHINE.instruction)
        assert os.pread(self.memory, len(MACHINE.instruction), pc) == MACHINE.instruction
        self.pc = pc

    def _wait(self):
        _, status = os.waitpid(self.pid, WALL)
        if not os.WIFSTOPPED(status):
            raise Died(os.WTERMSIG(status))
        return os.WSTOPSIG(status)

    def _registers(self, values=None):
        array = (ctypes.c_uint64 * MACHINE.size)(*(values or ()))
        vector = _Iovec(ctypes.addressof(array), ctypes.sizeof(array))
        _ptrace(SETREGSET if values else GETREGSET, self.pid, NT_PRSTATUS,
                ctypes.addressof(vector))
        return list(array)

    def _place(self, argument):
        """Bytes go to the stack, far below what is in use; the address stands for them.
        """
        if isinstance(argument, int):
            return argument & (1 << 64) - 1
        self.room = (self.room - len(argument)) & ~15
        os.pwrite(self.memory, argument, self.room)
        return self.room

    def _until_call(self):
        while True:
            _ptrace(SYSCALL, self.pid)
            if self._wait() == SYSCALL_STOP:
                return

    def call(self, name, *arguments):
        """Its result, a negative errno if it failed. Arguments are numbers, or bytes
        that are pointed to.
        """
        registers = list(self.saved)
        self.room = registers[MACHINE.sp] - 16384
        for index, value in zip(MACHINE.arguments, arguments):
            registers[index] = self._place(value)
        registers[MACHINE.pc] = self.pc
        registers[MACHINE.number] = number_of(name) if isinstance(name, str) else name
        registers[MACHINE.original] = (1 << 64) - 1  # it is in no call now
        self._registers(registers)
        self._until_call()
        self._until_call()
        return ctypes.c_int64(self._registers()[MACHINE.result]).value

    def leave(self):
        """Back to where it was; a call that was interrupted is made again."""
        registers = self.saved
        if ctypes.c_int64(registers[MACHINE.result]).value in RESTARTS:
            registers[MACHINE.pc] = self.pc
            registers[MACHINE.number] = registers[MACHINE.original]
        self._registers(registers)
        _ptrace(DETACH, self.pid)
        os.close(self.memory)


def _attempt(pid, function):
    caller = Caller(pid)
    try:
        return function(caller.call)
    finally:
        with contextlib.suppress(OSError):  # it may have died
            caller.leave()


def run(pid, function):
    """What function(call) returns, where call(name, argument...) is made by `pid`. In a
    child of ours, which is its tracer; so whoever started it still hears of its end.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = (True, _attempt(pid, function))
        except BaseException as error:  # pylint: disable=broad-except
            answer = (False, error)
        with open(writer, 'wb') as file:
            pickle.dump(answer, file)
        os._exit(0)
    os.close(writer)
    with open(reader, 'rb') as file:
        is_good, answer = pickle.load(file)
    os.waitpid(child, 0)
    if not is_good:
        raise answer
    return answer
