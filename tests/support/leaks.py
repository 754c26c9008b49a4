# SPDX-License-Identifier: Apache-2.0
"""Nothing stays behind: what a daemon holds once a session has begun, it holds again when
the client has given everything back.

Whoever starts a daemon puts it under watch(). The frontend, the bridge and the guest
look up by the socket's path whether the daemon that they talk to is watched. They
begin() after INIT, and before they disconnect, which ends the daemon, they give back
what they hold and check(). Who started the daemon calls finish(), which finds sessions
never checked.
"""

import os
import time

from process import Snapshot

# The first requests touch each worker's buffers; tables never shrink (a million inodes
# would be another matter, and a test of its own).
SLACK_KIB = 6144
# A sanitizer's own memory hides what the daemon needs.
SANITIZED_SLACK_KIB = 1 << 30

_watched = {}  # socket path: Watch


class Watch:
    """One daemon's session."""

    def __init__(self, process):
        self.process = process
        self.before = None
        self.is_checked = False
        self.slack_kib = SLACK_KIB
        if os.environ.get('VIRTIOFSD_SANITIZER'):
            self.slack_kib = SANITIZED_SLACK_KIB

    def begin(self):
        """A session has begun; only the first counts."""
        if self.before is None:
            self.before = Snapshot(self.process)

    def difference(self):
        """What is not as it was; empty if all is, or if there is nobody to look at."""
        if self.before is None or not self.process.is_alive():
            return ''
        try:
            return self.before.difference(Snapshot(self.process), self.slack_kib)
        except (FileNotFoundError, ProcessLookupError):
            return ''  # ended while we looked

    def check(self, give_back=None, timeout=10):
        """All must be as it was, soon. `give_back`, if there is one, is called for as
        long as it is not: caches are emptied in several passes.
        """
        deadline = time.monotonic() + timeout
        while True:
            words = self.difference()
            if not words:
                break
            if time.monotonic() > deadline:
                raise AssertionError(f'process {self.process.pid} still holds: {words}')
            if give_back is not None:
                give_back()
            time.sleep(0.02)
        self.is_checked = True

    def finish(self):
        """The daemon is about to be ended: it is as it was, or it was before it left."""
        if self.before is None or self.is_checked:
            return
        assert self.process.is_alive(), 'a session ended before its leaks were looked for'
        self.check()


def watch(socket_path, process):
    """Watch the process that listens there."""
    found = _watched[os.path.realpath(socket_path)] = Watch(process)
    return found


def of(socket_path):
    """The Watch of who listens there, or None."""
    return _watched.get(os.path.realpath(socket_path)) if socket_path else None


def begin(socket_path):
    """A session with who listens there has begun."""
    found = of(socket_path)
    if found is not None:
        found.begin()


def check(socket_path, give_back=None):
    """The session's client has given everything back."""
    found = of(socket_path)
    if found is not None:
        found.check(give_back)


def drop_caches(what=2):
    """Make this machine's kernel forget names and inodes (2), pages too (3)."""
    with open('/proc/sys/vm/drop_caches', 'w', encoding='ascii') as drop:
        drop.write(str(what))
