# SPDX-License-Identifier: Apache-2.0
"""What a FUSE client owes its server: lookups to forget and handles to release, read off
the replies, so that a test can give them back and see that nothing else is held.
"""

import struct

import native

(LOOKUP, FORGET, SYMLINK, MKNOD, MKDIR, LINK, OPEN) = (1, 2, 6, 8, 9, 13, 14)
(RELEASE, INIT, OPENDIR, RELEASEDIR, CREATE, DESTROY) = (18, 26, 27, 29, 35, 38)
(BATCH_FORGET, READDIRPLUS, TMPFILE) = (42, 44, 51)

_GIVE_ENTRY = {LOOKUP, SYMLINK, MKNOD, MKDIR, LINK, CREATE, TMPFILE}
_HANDLE_AT = {OPEN: 0, OPENDIR: 0, CREATE: 128, TMPFILE: 128}
_HEADER_SIZE, _ENTRY_SIZE = 40, 128
_HOLDS_NOTHING = (INIT, DESTROY)


class Holdings:
    """Lookup counts and handles of one client."""

    def __init__(self):
        self.lookups = {}  # node: count
        self.handles = {}  # handle: (node, opcode that releases it)
        self.is_exact = True
        self.has_session = False

    def clear(self):
        """The session is over, and with it what it handed out."""
        self.lookups.clear()
        self.handles.clear()
        self.is_exact = True

    def note(self, request, reply):
        """An exchange has taken place."""
        if len(request) < _HEADER_SIZE:
            return
        opcode, _, node = struct.unpack_from('=IQQ', request, 4)
        body = request[_HEADER_SIZE:]
        if opcode in _HOLDS_NOTHING and reply.error == 0:
            self.clear()
            self.has_session = opcode == INIT
        elif opcode in (FORGET, BATCH_FORGET):
            self._note_forget(opcode, node, body)
        elif reply.used == 0 or reply.error != 0:
            pass  # who is not told of a gift has not got it
        elif not reply.is_well_formed:
            self.is_exact = False
        elif opcode in (RELEASE, RELEASEDIR):
            self.handles.pop(struct.unpack_from('=Q', body)[0], None)
        elif opcode == READDIRPLUS:
            self._note_entries(reply.payload)
        else:
            self._note_gift(opcode, node, reply.payload)

    def _note_forget(self, opcode, node, body):
        """What cannot be parsed, or was not owed, is not for us to judge."""
        try:
            if opcode == FORGET:
                self._forget(node, struct.unpack_from('=Q', body)[0])
                return
            for i in range(struct.unpack_from('=I', body)[0]):
                self._forget(*struct.unpack_from('=QQ', body, 8 + 16 * i))
        except struct.error:
            self.is_exact = False

    def _note_gift(self, opcode, node, payload):
        if opcode in _GIVE_ENTRY:
            node = struct.unpack_from('=Q', payload)[0]
            self._add(node)
        if opcode in _HANDLE_AT:
            handle = struct.unpack_from('=Q', payload, _HANDLE_AT[opcode])[0]
            release = RELEASEDIR if opcode == OPENDIR else RELEASE
            self.handles[handle] = node, release

    def _note_entries(self, payload):
        at = 0
        while at < len(payload):
            self._add(struct.unpack_from('=Q', payload, at)[0])
            length = struct.unpack_from('=I', payload, at + _ENTRY_SIZE + 16)[0]
            at += _ENTRY_SIZE + (24 + length + 7) // 8 * 8

    def _add(self, node):
        if node:
            self.lookups[node] = self.lookups.get(node, 0) + 1

    def _forget(self, node, count):
        left = self.lookups.get(node, 0) - count
        if left > 0:
            self.lookups[node] = left
        else:
            self.lookups.pop(node, None)
            self.is_exact = self.is_exact and left == 0


def give_back(clients):
    """Release and forget all that these clients of one session hold. What cannot be told
    ends with the session, and a new one begins.
    """
    if not any(client.holdings.has_session for client in clients):
        clients[0].init()
    if not all(client.holdings.is_exact for client in clients):
        clients[0].destroy()
        clients[0].init()
        for client in clients:
            client.holdings.clear()
        return
    for client in clients:
        for handle, (node, opcode) in list(client.holdings.handles.items()):
            client.release(node, handle, opcode)
        owed = list(client.holdings.lookups.items())
        for i in range(0, len(owed), 100):
            client.batch_forget(owed[i:i + 100])


def is_connected(frontend):
    """Whether the server is still there to be asked."""
    return bool(frontend.handle) and frontend.socket >= 0 and not (
        native.library().frontend_is_closed(frontend.handle, 0))
