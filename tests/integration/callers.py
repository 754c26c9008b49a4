# SPDX-License-Identifier: Apache-2.0
"""Requests and calls by somebody: (uid, gid, groups)."""

import ctypes
import os
import platform
import struct
import threading

EXT_GROUPS = 32
CLONE_FS = 0x200
# As the kernel counts them: the library's functions change all threads.
SETGROUPS, SETRESGID, SETRESUID = {
    'x86_64': (116, 119, 117), 'aarch64': (159, 149, 147)}[platform.machine()]
LIBRARY = ctypes.CDLL(None, use_errno=True)


def _must(result):
    if result != 0:
        raise RuntimeError(os.strerror(ctypes.get_errno()))


def _become(uid, gid, groups, umask):
    """For this thread alone and for good."""
    _must(LIBRARY.unshare(CLONE_FS))
    os.umask(umask)
    array = (ctypes.c_uint32 * len(groups))(*groups)
    _must(LIBRARY.syscall(SETGROUPS, len(groups), array))
    _must(LIBRARY.syscall(SETRESGID, gid, gid, gid))
    _must(LIBRARY.syscall(SETRESUID, uid, uid, uid))
    is_done = (os.getresuid(), os.getresgid(), sorted(os.getgroups())) == (
        (uid,) * 3, (gid,) * 3, sorted(groups))
    if not is_done:
        raise RuntimeError('not who it was to be')


def run_as(caller, function, *args, umask=0):
    """What it returns when (uid, gid, groups) calls it, or raises: in a thread of its
    own, which costs much less than a copy of this process.
    """
    done = {}

    def run():
        try:
            uid, gid, groups = caller
            _become(uid, gid, groups, umask)
            done['value'] = function(*args)
        except BaseException as error:  # any failure is the caller's to see
            done['error'] = error

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if 'error' in done:
        raise done['error']
    return done['value']


def natively(function, uid=0, gid=0, groups=(), umask=0):
    """Run it as somebody; its errno, or 0."""
    try:
        run_as((uid, gid, groups), function, umask=umask)
    except OSError as error:
        return error.errno
    return 0


def group_extension(groups):
    body = struct.pack(f'=I{len(groups)}I', len(groups), *groups)
    body += bytes(-len(body) % 8)
    return struct.pack('=II', 8 + len(body), EXT_GROUPS) + body


def make_as(client, caller, opcode, parent, body):
    """A creating request by (uid, gid, groups)."""
    uid, gid, groups = caller
    extension = group_extension(groups) if groups else b''
    return client.send(opcode, parent, body + extension, uid=uid, gid=gid,
                       extlen=len(extension) // 8)
