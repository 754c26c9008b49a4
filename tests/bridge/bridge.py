# SPDX-License-Identifier: Apache-2.0
"""Run the bridge: a daemon's share mounted on this host, for tests in Python.

    with Bridge(daemon.socket_path, "/mnt/share") as bridge:
        bridge.wait_mounted()
        ...                       # use the files in /mnt/share
        assert bridge.unmount() == UNMOUNTED
"""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), "support"))

import leaks  # noqa: E402

UNMOUNTED, NOT_STARTED, USAGE, DAEMON_GONE, MALFORMED, GAVE_UP = range(6)

_MNT_DETACH = 2


def program():
    """The bridge in $VIRTIOFSD_BRIDGE, else in the build directory $VIRTIOFSD_BUILD."""
    path = os.environ.get("VIRTIOFSD_BRIDGE")
    return path or os.path.join(os.environ["VIRTIOFSD_BUILD"], "tests/bridge/bridge")


def is_mounted(directory):
    """Whether a bridge's mount is there, dead or alive."""
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        fields = [line.split() for line in mounts]
    return any(f[1] == directory and f[2] == "fuse.bridge" for f in fields)


def detach(directory):
    """Unmount a dead mount."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.umount2(os.fsencode(directory), _MNT_DETACH)


class Bridge:
    """A running bridge; more arguments are those of its command line."""

    def __init__(self, socket_path, directory, *arguments):
        self.directory = os.path.realpath(directory)
        self.socket_path = socket_path
        self._log = tempfile.TemporaryFile()
        self._announced = b""
        command = [program(), "--socket", socket_path, "--mount", directory]
        self.process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if is_mounted(self.directory):
            detach(self.directory)
        self.process.stdout.close()
        self._log.close()

    def wait_mounted(self, timeout=20.0):
        """Until the daemon has answered INIT."""
        deadline = time.monotonic() + timeout
        os.set_blocking(self.process.stdout.fileno(), False)
        while b"mounted" not in self._announced:
            self._announced += self.process.stdout.read() or b""
            if self.process.poll() is not None:
                raise RuntimeError(f"status {self.process.returncode}: {self.log()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"not mounted: {self.log()}")
            time.sleep(0.005)
        leaks.begin(self.socket_path)
        return self

    def log(self):
        """All it wrote to stderr so far."""
        return os.pread(self._log.fileno(), 1 << 20, 0).decode(errors="replace")

    def wait(self, timeout=30.0):
        """Its exit status; raises subprocess.TimeoutExpired."""
        return self.process.wait(timeout)

    def check_leaks(self):
        """Let the kernel forget what nobody uses: a watched daemon must then hold what it
        held after mounting. Nothing may be open in the mount any more.
        """
        leaks.check(self.socket_path, leaks.drop_caches)

    def unmount(self, timeout=60.0):
        """Ask it to unmount; the exit status. No leaks are accepted."""
        self.check_leaks()
        self.process.send_signal(signal.SIGTERM)
        return self.wait(timeout)
