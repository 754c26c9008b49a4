#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The bridge with a real daemon: ours, or with --peer QEMU's C daemon.

Prints TAP. Needs root and /dev/fuse; everything is mounted in a namespace of its own.
"""

import errno
import filecmp
import hashlib
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, *(os.path.join(os.path.dirname(HERE), folder)
                        for folder in ("support", "fuzz"))]

import corpus  # noqa: E402
from bridge import (  # noqa: E402
    DAEMON_GONE,
    GAVE_UP,
    NOT_STARTED,
    UNMOUNTED,
    USAGE,
    Bridge,
    is_mounted,
    private_mounts,
    program,
)
from daemon import Daemon, our_daemon, qemu_daemon  # noqa: E402

PEER = "--peer" in sys.argv
LOOKUP, INIT, OPENDIR, DESTROY = 1, 26, 27, 38


def start_daemon(share):
    """The daemon under test, ready for a connection."""
    if PEER:
        return qemu_daemon(share).wait_ready()
    more = os.environ.get("VIRTIOFSD_TEST_ARGS", "").split()
    return Daemon(
        [our_daemon(), "--socket-path={socket}", f"--shared-dir={share}", *more]
    ).wait_ready()


class BridgeTest(unittest.TestCase):
    """Each test has a share, a daemon for it and a place to mount."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="vfs-bridge-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.share = os.path.join(self.folder, "share")
        self.mount = os.path.join(self.folder, "mount")
        os.mkdir(self.share)
        os.mkdir(self.mount)
        self.daemon = start_daemon(self.share)
        self.addCleanup(self.daemon.stop)

    def bridge(self, *arguments):
        """A mounted bridge that does not outlive the test."""
        bridge = Bridge(self.daemon.socket_path, self.mount, *arguments)
        self.addCleanup(bridge.__exit__)
        return bridge.wait_mounted()

    def path(self, *parts):
        """A path below the mount."""
        return os.path.join(self.mount, *parts)

    def finish(self, bridge):
        """Unmount; everybody must be content."""
        self.assertEqual(bridge.unmount(), UNMOUNTED, bridge.log())
        self.assertIn(" 0 malformed", bridge.log())
        self.assertFalse(is_mounted(self.mount))
        self.assertEqual(self.daemon.wait(), 0, self.daemon.log())

    def make_tree(self, top, n_directories=20, n_files=20):
        """Files of many sizes, links, modes."""
        for i in range(n_directories):
            folder = os.path.join(top, f"d{i}")
            os.makedirs(folder)
            for j in range(n_files):
                path = os.path.join(folder, f"f{j}")
                with open(path, "wb") as file:
                    file.write(os.urandom((i * n_files + j) * 37))
                os.chmod(path, 0o600 + j)
            os.symlink("f1", os.path.join(folder, "link"))
            os.link(os.path.join(folder, "f2"), os.path.join(folder, "hard"))

    def assert_same_tree(self, one, other):
        """Names, contents, modes."""
        compared = filecmp.dircmp(one, other, ignore=[])
        self.assertEqual((compared.left_only, compared.right_only), ([], []))
        _, different, odd = filecmp.cmpfiles(
            one, other, compared.common_files, shallow=False
        )
        self.assertEqual((different, odd), ([], []))
        for name in compared.common:
            ours = os.lstat(os.path.join(one, name))
            theirs = os.lstat(os.path.join(other, name))
            self.assertEqual(ours.st_mode, theirs.st_mode)
            self.assertEqual(ours.st_nlink, theirs.st_nlink)
        for name in compared.common_dirs:
            self.assert_same_tree(os.path.join(one, name), os.path.join(other, name))

    def test_tree(self):
        """cp -a in, compare both ways, rename, rm -rf."""
        bridge = self.bridge()
        original = os.path.join(self.folder, "original")
        self.make_tree(original)
        subprocess.run(["cp", "-a", original, self.path("a")], check=True)
        os.rename(self.path("a"), self.path("b"))
        self.assert_same_tree(original, self.path("b"))
        self.assert_same_tree(original, os.path.join(self.share, "b"))
        shutil.rmtree(self.path("b"))
        self.assertEqual(os.listdir(self.share), [])
        self.finish(bridge)

    def test_requests_are_counted(self):
        """By opcode, as many as were sent."""
        bridge = self.bridge()
        before = bridge.requests()
        self.assertEqual(before[INIT], 1)
        for _ in range(3):
            self.assertFalse(os.path.lexists(self.path("missing")))
        between = bridge.requests()
        self.assertEqual(os.listdir(self.mount), [])
        after = bridge.requests()
        self.assertEqual(between[LOOKUP] - before.get(LOOKUP, 0), 3)
        self.assertEqual(after[LOOKUP], between[LOOKUP])
        self.assertEqual(after[OPENDIR] - before.get(OPENDIR, 0), 1)
        self.finish(bridge)

    def test_ways_of_the_queue(self):
        """The same work, however requests travel."""
        for arguments in (
            ["--no-indirect"],
            ["--no-event-idx", "--regions=1"],
            ["--mem-table", "--whole"],
            ["--slots=1", "--threads=1", "--queue-size=16"],
            ["--regions=8", "--threads=8", "--queue-size=1024"],
        ):
            with self.subTest(arguments=arguments):
                if not self.daemon.is_alive():
                    self.daemon = start_daemon(self.share)
                    self.addCleanup(self.daemon.stop)
                bridge = self.bridge(*arguments)
                self.make_tree(self.path("t"), 3, 5)
                self.write_and_verify(self.path("big"), 3 << 20)
                shutil.rmtree(self.path("t"))
                self.finish(bridge)

    @unittest.skipIf(PEER, "the peer has one request queue")
    def test_two_queues(self):
        """Requests of many threads spread over two request queues."""
        bridge = self.bridge("--queues=2")
        self.run_writers()
        self.finish(bridge)

    def write_and_verify(self, path, size, seed=0):
        """Random-looking bytes through the page cache and past it."""
        block = hashlib.sha512(struct.pack("=Q", seed)).digest() * 2048
        with open(path, "wb") as file:
            for _ in range(size // len(block)):
                file.write(block)
            os.fsync(file.fileno())
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            for _ in range(size // len(block)):
                self.assertEqual(file.read(len(block)), block)
            self.assertEqual(file.read(1), b"")

    def run_writers(self):
        """Eight threads, each with files of its own."""
        failures = []

        def work(number):
            try:
                for i in range(4):
                    path = self.path(f"w{number}")
                    self.write_and_verify(path, 4 << 20, number * 100 + i)
                    os.unlink(path)
            except Exception as error:  # any failure of a thread fails the test
                failures.append(error)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])

    def test_concurrent(self):
        """Many requests in flight, and nothing left behind in the daemon."""
        bridge = self.bridge()
        os.listdir(self.mount)
        before = self.daemon.settled_snapshot()
        self.run_writers()
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as drop:
            drop.write("2")
        after = self.daemon.settled_snapshot()
        if not PEER:
            self.assertEqual(before.difference(after, 16384), "")
        self.finish(bridge)

    def test_umount(self):
        """Somebody else unmounts."""
        bridge = self.bridge()
        os.mkdir(self.path("d"))
        subprocess.run(["umount", self.mount], check=True)
        self.assertEqual(bridge.wait(), UNMOUNTED, bridge.log())
        self.assertEqual(self.daemon.wait(), 0)

    def test_busy(self):
        """Whoever has a file open is served until it is closed."""
        bridge = self.bridge()
        with open(self.path("f"), "wb", buffering=0) as file:
            bridge.process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 10
            while is_mounted(self.mount) and time.monotonic() < deadline:
                time.sleep(0.01)
            self.assertFalse(is_mounted(self.mount))
            self.assertIsNone(bridge.process.poll())
            file.write(b"late")
        self.assertEqual(bridge.wait(), UNMOUNTED, bridge.log())
        with open(os.path.join(self.share, "f"), "rb") as file:
            self.assertEqual(file.read(), b"late")

    def test_daemon_killed(self):
        """kill -9 of the daemon: errors at once, no hang, a status that says so."""
        bridge = self.bridge()
        stop, errors = threading.Event(), []

        def work(number):
            i = 0
            while not stop.is_set():
                i += 1
                try:
                    with open(self.path(f"{number}-{i % 50}"), "wb", buffering=0) as file:
                        file.write(b"x" * 65536)
                except OSError as error:
                    errors.append(error.errno)
                    return

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        self.daemon.kill()
        for thread in threads:
            thread.join(10)
            self.assertFalse(thread.is_alive())
        stop.set()
        self.assertEqual(bridge.wait(10), DAEMON_GONE, bridge.log())
        self.assertEqual(len(errors), 4)
        self.assertLessEqual(set(errors), {errno.ENOTCONN, errno.ECONNABORTED})
        with self.assertRaises(OSError) as caught:
            os.listdir(self.mount)
        self.assertEqual(caught.exception.errno, errno.ENOTCONN)

    def test_daemon_stuck(self):
        """A daemon that does not answer: the second SIGTERM fails all requests."""
        bridge = self.bridge()
        os.kill(self.daemon.serving().pid, signal.SIGSTOP)
        self.addCleanup(os.kill, self.daemon.serving().pid, signal.SIGCONT)
        with subprocess.Popen(["stat", self.path("x")], stderr=subprocess.PIPE) as waiter:
            time.sleep(0.2)
            bridge.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            self.assertIsNone(bridge.process.poll())
            bridge.process.send_signal(signal.SIGTERM)
            self.assertEqual(bridge.wait(5), GAVE_UP, bridge.log())
            waiter.communicate(timeout=5)
            self.assertEqual(waiter.returncode, 1)
        self.assertFalse(is_mounted(self.mount))

    def test_bridge_killed(self):
        """kill -9 of the bridge while unmounting from a stuck daemon: nobody hangs."""
        bridge = self.bridge()
        pid = self.daemon.serving().pid
        os.kill(pid, signal.SIGSTOP)
        with subprocess.Popen(["stat", self.path("x")], stderr=subprocess.PIPE) as waiter:
            time.sleep(0.2)
            bridge.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            bridge.process.kill()
            self.assertEqual(bridge.wait(5), -signal.SIGKILL)
            waiter.communicate(timeout=5)
            self.assertEqual(waiter.returncode, 1)
        os.kill(pid, signal.SIGCONT)
        self.assertEqual(self.daemon.wait(), 0)

    def test_record(self):
        """Every request and its reply is recorded; a recording becomes streams."""
        recording = os.path.join(self.folder, "recording")
        bridge = self.bridge(f"--record={recording}")
        self.make_tree(self.path("t"), 2, 3)
        self.finish(bridge)
        found = corpus.calls(recording)
        self.assertEqual(found[0].opcode, INIT)
        for call in found:
            self.assertEqual(struct.unpack_from("=I", call.data)[0], call.size)
            self.assertEqual(call.error is None, call.room == 0)
        opcodes = {call.opcode for call in found}
        self.assertLessEqual({1, 3, 4, 6, 9, 13, 16, 35}, opcodes)
        target = os.path.join(self.folder, "corpus")
        n, count = corpus.convert([recording], target)
        self.assertEqual(len(os.listdir(target)), n)
        self.assertGreaterEqual(n, len(found) // corpus.STREAM // 2)
        self.assertEqual(set(count), opcodes)
        self.assertEqual(sum(count.values()), len(found))

    def test_usage(self):
        """Wrong command lines: status 2, one line. No daemon: status 1, one line."""
        socket = ["--socket", os.path.join(self.folder, "none")]
        for arguments, status in (
            ([], USAGE),
            (["--mount", self.mount], USAGE),
            ([*socket, "--mount", self.mount, "--fd=3"], USAGE),
            ([*socket, "--mount", self.mount, "--queue-size=100"], USAGE),
            ([*socket, "--mount", self.mount, "--nonsense"], USAGE),
            ([*socket, "--mount", self.mount, "extra"], USAGE),
            ([*socket, "--mount", self.mount], NOT_STARTED),
            ([*socket, "--mount", self.path("none")], NOT_STARTED),
        ):
            done = subprocess.run(
                [program(), *arguments], stderr=subprocess.PIPE, check=False
            )
            self.assertEqual(done.returncode, status, arguments)
            self.assertEqual(done.stderr.count(b"\n"), 1, done.stderr)
        self.assertFalse(is_mounted(self.mount))


class TapResult(unittest.TestResult):
    """One line for each test, as meson reads it."""

    def __init__(self):
        super().__init__()
        self.n = 0

    def _line(self, good, test, more=""):
        self.n += 1
        name = test.id().rpartition(".")[2]
        print(f"{'ok' if good else 'not ok'} {self.n} {name}{more}", flush=True)

    def _bad(self, test, err):
        self._line(False, test)
        for line in self._exc_info_to_string(err, test).splitlines():
            print(f"# {line}", flush=True)

    def addSuccess(self, test):
        self._line(True, test)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._bad(test, err)

    def addError(self, test, err):
        super().addError(test, err)
        self._bad(test, err)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._bad(test, err)

    def addSkip(self, test, reason):
        self._line(True, test, f" # SKIP {reason}")


def main():
    """Run all tests, or those named on the command line."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        print("1..0 # SKIP needs root and /dev/fuse")
        return 0
    private_mounts()
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(BridgeTest)
    names = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    if names:
        suite = unittest.TestSuite(BridgeTest(name) for name in names)
    result = TapResult()
    suite.run(result)
    print(f"1..{result.n}")
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
