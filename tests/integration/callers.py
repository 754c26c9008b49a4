# SPDX-License-Identifier: Apache-2.0
"""Requests and calls by somebody: (uid, gid, groups)."""

import os
import struct

EXT_GROUPS = 32


def natively(function, uid=0, gid=0, groups=(), umask=0):
    """Run it in a child process as somebody; its errno, or 0."""
    pid = os.fork()
    if pid == 0:
        status = 255
        try:
            os.umask(umask)
            os.setgroups(list(groups))
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            status = 0
            function()
        except OSError as error:
            status = error.errno
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


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
