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
_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000


def program():
    """The bridge in $VIRTIOFSD_BRIDGE, else in the build directory $VIRTIOFSD_BUILD."""
    path = os.environ.get("VIRTIOFSD_BRIDGE")
    return path or os.path.join(os.environ["VIRTIOFSD_BUILD"], "tests/bridge/bridge")


def is_mounted(directory):
    """Whether a bridge's mount is there, dead or alive."""
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        fields = [line.split() for line in mounts]
    return any(f[1] == directory and f[2] == "fuse.bridge" for f in fields)


def private_mounts():
    """All mounts from here on are ours alone and vanish with this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    if (
        libc.unshare(_CLONE_NEWNS) != 0
        or libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None) != 0
    ):
        raise OSError(ctypes.get_errno(), "cannot make a mount namespace")


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
        while not self._line(timeout).startswith(b"mounted"):
            pass
        leaks.begin(self.socket_path)
        return self

    def _line(self, timeout):
        """The next line that it prints."""
        deadline = time.monotonic() + timeout
        os.set_blocking(self.process.stdout.fileno(), False)
        while b"\n" not in self._announced:
            self._announced += self.process.stdout.read() or b""
            if self.process.poll() is not None:
                raise RuntimeError(f"status {self.process.returncode}: {self.log()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"no answer: {self.log()}")
            time.sleep(0.005)
        line, _, self._announced = self._announced.partition(b"\n")
        return line

    def requests(self, timeout=20.0):
        """{opcode: how many requests it has forwarded so far}."""
        self.process.send_signal(signal.SIGUSR2)
        words = self._line(timeout).split()[1:]
        return {int(opcode): int(n) for opcode, n in (w.split(b":") for w in words)}

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
