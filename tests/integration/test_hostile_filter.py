# SPDX-License-Identifier: Apache-2.0
"""The filter of system calls as the kernel has it in a daemon that serves: read back from
each of its threads, and asked about every call there is.
"""

import ctypes
import os
import struct

import pytest

import inject
import launch
import seccomp_rows
import users

pytestmark = [
    pytest.mark.sandboxed,
    pytest.mark.skipif(not inject.IS_POSSIBLE, reason='not for this machine yet')]

GET_FILTER = 0x420C
AUDIT_ARCH_X86_64, AUDIT_ARCH_I386, X32 = 0xC000003E, 0x40000003, 1 << 30
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
LAST_CALL = 1024
# Of a program that asks about one call after the other, ALLOW would be this far away.
LINEAR = 60
NEVER = ('unshare', 'clone', 'clone3', 'fork', 'vfork', 'prctl', 'execve', 'execveat',
         'mount', 'pivot_root', 'chroot', 'setns', 'ptrace', 'bpf', 'io_uring_setup',
         'userfaultfd', 'keyctl', 'socket', 'connect', 'bind', 'process_vm_readv',
         'open_tree', 'move_mount', 'fsopen', 'init_module', 'kexec_load', 'swapon',
         'perf_event_open', 'memfd_create', 'pidfd_getfd', 'personality', 'syslog')
ARGUMENTS = ((0,) * 6, (1, 2, 3, 4, 5, 6), (0xFFFFFFFFFFFFFFFF,) * 6,
             (0xFFFFFFFF,) * 6, (1 << 63,) * 6, (0x7F0000000000,) * 6)


def read_filter(thread):
    """[(code, true, false, k)] of the only filter of a thread."""
    trace = inject.libc.ptrace
    assert trace(inject.SEIZE, thread, 0, 0) == 0
    try:
        assert trace(inject.INTERRUPT, thread, 0, 0) == 0
        os.waitpid(thread, inject.WALL)
        n = trace(GET_FILTER, thread, 0, 0)
        assert n > 0, 'this kernel tells no filter'
        buffer = ctypes.create_string_buffer(8 * n)
        assert trace(GET_FILTER, thread, 0, buffer) == n
        assert trace(GET_FILTER, thread, 1, 0) < 0, 'there is another one'
        return list(struct.iter_unpack('=HBBI', buffer.raw))
    finally:
        trace(inject.DETACH, thread, 0, 0)


JUMPS = {0x15: int.__eq__, 0x25: int.__gt__, 0x35: int.__ge__,
         0x45: lambda a, k: (a & k) != 0}


def ask(program, number, arguments=ARGUMENTS[0], arch=AUDIT_ARCH_X86_64):
    """(answer, steps) of the kernel to a call."""
    data = struct.pack('=IIQ6Q', number, arch, 0, *arguments)
    value = at = steps = 0
    while True:
        code, true, false, k = program[at]
        at, steps = at + 1, steps + 1
        if code == 0x20:
            value = struct.unpack_from('=I', data, k)[0]
        elif code == 0x54:
            value &= k
        elif code == 0x05:
            at += k
        elif code == 0x06:
            return k, steps
        else:
            at += true if JUMPS[code](value, k) else false


@pytest.fixture(params=[launch.plain, launch.plain_as_user], ids=['root', 'user'])
def programs(request, start, scratch):
    """The filters of all threads of a daemon that serves."""
    home = users.make_home(scratch)
    share = users.own_folder(home, 'share')
    daemon = start(request.param, share, users.own_folder(home, 'run'))
    daemon.wait_ready()
    with daemon.connect():
        yield [read_filter(thread) for thread in daemon.threads()]
    assert daemon.wait() == 0


@pytest.mark.hostile('peer-seccomp', 'cage-calls-refused')
def test_every_call_there_is(programs, cases):
    """What is not in the list is refused, whatever its arguments; nor is anything asked
    for as another architecture.
    """
    assert len({tuple(program) for program in programs}) == 1
    program = programs[0]
    listed = {inject.number_of(row.call) for row in seccomp_rows.allowed()}
    for number in range(LAST_CALL):
        answers = {ask(program, number, arguments)[0] for arguments in ARGUMENTS}
        if number not in listed:
            assert ALLOW not in answers, f'call {number}'
        cases(len(ARGUMENTS))
        for arch, other in ((AUDIT_ARCH_I386, number), (AUDIT_ARCH_X86_64, number | X32),
                            (0, number)):
            assert ask(program, other, arch=arch)[0] != ALLOW, f'{arch:x} {other}'
    for call in NEVER:
        number = inject.number_of(call)
        if number is not None:
            assert number not in listed
            assert ask(program, number)[0] & 0xFFFF0000 != ALLOW, call


@pytest.mark.hostile('peer-seccomp')
def test_arguments_are_looked_at(programs, cases):
    """A call with a rule for its arguments is refused with others, and each call is
    found by halves.
    """
    program = programs[0]
    rules = [row for row in seccomp_rows.allowed() if row.kind != 'ALLOW']
    plain = {row.call for row in seccomp_rows.allowed() if row.kind == 'ALLOW'}
    assert len(rules) > 10
    for call in {row.call for row in rules} - plain:
        answers = {ask(program, inject.number_of(call), arguments)[0]
                   for arguments in ARGUMENTS}
        assert answers != {ALLOW}, f'{call} passes with anything'
        cases(len(ARGUMENTS))
    longest = max(ask(program, inject.number_of(call))[1] for call in plain)
    print(f'{len(program)} instructions, at most {longest} for a call of every request')
    assert longest < LINEAR / 2
