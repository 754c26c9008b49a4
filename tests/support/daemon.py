# SPDX-License-Identifier: Apache-2.0
"""Start any virtio-fs daemon by its command line, watch it, stop it."""

import os
import signal
import socket
import subprocess
import tempfile
import time

from process import Observed, Process, Snapshot

READY = b"Waiting for vhost-user socket connection"
# QEMU's C daemon says it in lower case behind a function's name.
_READY_LOWER = READY.lower()

QEMU_DAEMON = "/usr/lib/qemu/virtiofsd"


def our_daemon():
    """The daemon in the build directory $VIRTIOFSD_BUILD."""
    return os.path.join(os.environ["VIRTIOFSD_BUILD"], "virtiofsd", "virtiofsd")


class Daemon(Process):
    """A running daemon.

    arguments may contain {socket}; without it, and with listen=True, the socket is bound
    here and inherited as descriptor 3, as Kata's Go runtime does. stderr is collected in
    a file, so that a chatty daemon never blocks; see log().
    """

    def __init__(self, arguments, socket_path=None, listen=False, env=None, cwd=None):
        self.directory = tempfile.TemporaryDirectory(prefix="virtiofsd-test-")
        self.socket_path = socket_path or os.path.join(self.directory.name, "vfs.sock")
        self.arguments = [
            part.replace("{socket}", self.socket_path) for part in arguments
        ]
        self._log_path = os.path.join(self.directory.name, "stderr")
        self._listener = self._listen() if listen else None
        with open(self._log_path, "wb") as log:
            process = subprocess.Popen(
                self.arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                pass_fds=() if self._listener is None else (3,),
                preexec_fn=self._inherit if listen else None,
            )
        # Waited for by Process; Popen must not do so a second time.
        process.returncode = 0
        super().__init__(process.pid)
        if self._listener is not None:
            self._listener.close()

    def _listen(self):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self.socket_path)
        listener.listen(1)
        return listener

    def _inherit(self):
        if self._listener.fileno() == 3:
            os.set_inheritable(3, True)
        else:
            os.dup2(self._listener.fileno(), 3)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.stop()

    def log(self):
        """All it wrote to stdout and stderr so far."""
        with open(self._log_path, "rb") as log:
            return log.read()

    def wait_ready(self, timeout=20.0):
        """Until the readiness line is there."""
        deadline = time.monotonic() + timeout
        while _READY_LOWER not in self.log().lower():
            if not self.is_alive():
                raise RuntimeError(f"exited with {self.status}: {self.log().decode()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"not ready: {self.log().decode()}")
            time.sleep(0.005)
        return self

    def stop(self, timeout=10.0):
        """SIGTERM, then SIGKILL; returns the exit status."""
        self.signal(signal.SIGTERM)
        try:
            self.wait(timeout)
        except TimeoutError:
            self.kill()
        self.directory.cleanup()
        return self.status

    def serving(self):
        """The process that serves: itself, or the child of a daemon that forks."""
        children = self.children()
        return Observed(int(children[0])) if children else self

    def snapshot(self):
        """Descriptors, threads and memory of the process that serves."""
        return Snapshot(self.serving())

    def settled_snapshot(self, quiet=0.2, timeout=5.0):
        """A snapshot once descriptors and threads stopped changing."""
        deadline = time.monotonic() + timeout
        last = self.snapshot()
        while time.monotonic() < deadline:
            time.sleep(quiet)
            now = self.snapshot()
            if now.descriptors == last.descriptors and now.threads == last.threads:
                return now
            last = now
        return last


def qemu_daemon(source, **options):
    """QEMU's C daemon on a directory, the peer of our tests."""
    arguments = [
        QEMU_DAEMON,
        "--socket-path={socket}",
        "-o",
        f"source={source},sandbox=chroot,xattr",
        "--thread-pool-size=0",
    ]
    return Daemon(arguments, **options)
