# SPDX-License-Identifier: Apache-2.0
"""Start any virtio-fs daemon by its command line, watch it, stop it."""

import os
import select
import signal
import socket
import subprocess
import tempfile
import time

READY = b"Waiting for vhost-user socket connection"
# QEMU's C daemon says it in lower case behind a function's name.
_READY_LOWER = READY.lower()

QEMU_DAEMON = "/usr/lib/qemu/virtiofsd"


def our_daemon():
    """The daemon in the build directory $VIRTIOFSD_BUILD."""
    return os.path.join(os.environ["VIRTIOFSD_BUILD"], "virtiofsd", "virtiofsd")


class Snapshot:
    """What a process holds: compare two of them with assert_unchanged()."""

    def __init__(self, pid):
        self.fds = read_fds(pid)
        self.threads = len(os.listdir(f"/proc/{pid}/task"))
        self.rss_kib = read_status(pid).get("VmRSS", 0)

    def assert_unchanged(self, later, rss_slack_kib=1024):
        """No descriptor more or less, no thread more, no growth beyond the slack."""
        if sorted(self.fds.values()) != sorted(later.fds.values()):
            raise AssertionError(f"descriptors: {self.fds} became {later.fds}")
        if self.threads != later.threads:
            raise AssertionError(f"{self.threads} threads became {later.threads}")
        if later.rss_kib > self.rss_kib + rss_slack_kib:
            raise AssertionError(f"RSS {self.rss_kib} KiB became {later.rss_kib} KiB")


def read_fds(pid):
    """{number: target} of a process's descriptors."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            pass  # closed meanwhile
    return found


def read_status(pid):
    """/proc/PID/status; numbers where the value begins with one."""
    values = {}
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        for line in status:
            key, _, value = line.partition(":")
            first = value.split()[:1]
            values[key] = int(first[0]) if first and first[0].isdigit() else value.strip()
    return values


def read_cpu_seconds(pid):
    """User and system time of all threads."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Daemon:
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
            self.process = subprocess.Popen(
                self.arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                pass_fds=() if self._listener is None else (3,),
                preexec_fn=self._inherit if listen else None,
            )
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

    @property
    def pid(self):
        """The process that was spawned."""
        return self.process.pid

    def log(self):
        """All it wrote to stdout and stderr so far."""
        with open(self._log_path, "rb") as log:
            return log.read()

    def wait_ready(self, timeout=20.0):
        """Until the readiness line is there."""
        deadline = time.monotonic() + timeout
        while _READY_LOWER not in self.log().lower():
            if self.process.poll() is not None:
                raise RuntimeError(
                    f"exited with {self.process.returncode}: {self.log().decode()}"
                )
            if time.monotonic() > deadline:
                raise TimeoutError(f"not ready: {self.log().decode()}")
            time.sleep(0.005)
        return self

    def is_running(self):
        """Whether it has not exited."""
        return self.process.poll() is None

    def wait(self, timeout=10.0):
        """Its exit status; raises subprocess.TimeoutExpired."""
        return self.process.wait(timeout)

    def kill(self, number=signal.SIGKILL):
        """Send it a signal."""
        self.process.send_signal(number)

    def stop(self, timeout=10.0):
        """SIGTERM, then SIGKILL; returns the exit status."""
        if self.is_running():
            self.process.terminate()
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
        status = self.process.wait()
        self.directory.cleanup()
        return status

    def children(self):
        """Ids of its child processes, for daemons that fork."""
        path = f"/proc/{self.pid}/task/{self.pid}/children"
        with open(path, encoding="utf-8") as children:
            return [int(pid) for pid in children.read().split()]

    def serving_pid(self):
        """The process that serves: itself, or the child of a daemon that forks."""
        children = self.children()
        return children[0] if children else self.pid

    def snapshot(self):
        """Descriptors, threads and memory of the process that serves."""
        return Snapshot(self.serving_pid())

    def settled_snapshot(self, quiet=0.2, timeout=5.0):
        """A snapshot once descriptors and threads stopped changing."""
        deadline = time.monotonic() + timeout
        last = self.snapshot()
        while time.monotonic() < deadline:
            time.sleep(quiet)
            now = self.snapshot()
            if now.fds == last.fds and now.threads == last.threads:
                return now
            last = now
        return last


def wait_readable(fd, timeout):
    """Whether a descriptor becomes readable in time."""
    return bool(select.select([fd], [], [], timeout)[0])


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
