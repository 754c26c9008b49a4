# SPDX-License-Identifier: Apache-2.0
"""What every integration test stands on: the binary under test, scratch folders, daemons
that are gone when the test is, and a mount namespace that nobody else sees.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
sys.path[:0] = [HERE, TESTS, os.path.join(TESTS, 'bridge'),
                os.path.join(TESTS, 'support')]

import bridge as bridges  # noqa: E402
import crowd  # noqa: E402
import filesystems  # noqa: E402
import fuse_client as fuse  # noqa: E402
import hostile_rows  # noqa: E402
import launch  # noqa: E402
import leaks  # noqa: E402
from frontend import Frontend  # noqa: E402
from guest import vm  # noqa: E402

pytest_plugins = ['hostile', 'mapping']

MARKERS = (
    'guest: needs a real guest under QEMU',
    'sandboxed: starts the daemon in its sandbox, where LeakSanitizer cannot run',
    'smoke: the sandboxed test that runs under sanitizers all the same',
    'sanitizer: only worth its time under sanitizers',
    'soak: takes long',
    'unwatched(why): what the daemon holds in the end cannot be compared',
    'split: writes a split ring by hand',
    'hostile(row, ...): shows these rows of tests/hostile_rows.py',
)

def pytest_configure(config):
    for marker in MARKERS:
        config.addinivalue_line('markers', marker)
    if not config.getvalue('timeout'):
        config.option.timeout = 180
    if os.geteuid() == 0 and not config.option.collectonly:
        bridges.private_mounts()


def pytest_collection_modifyitems(items):
    """Without root or a guest the tests that need them are skipped with the reason."""
    why_no_guest = vm.unavailable() if any(
        item.get_closest_marker('guest') for item in items) else None
    for item in items:
        for mark in item.iter_markers('hostile'):
            unknown = set(mark.args) - set(hostile_rows.ROWS)
            if unknown or not mark.args:
                raise pytest.UsageError(f'{item.nodeid}: no such row: {unknown}')
        if os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason='needs root'))
        elif why_no_guest and item.get_closest_marker('guest'):
            item.add_marker(pytest.mark.skip(reason=why_no_guest))


failed_nodes = set()  # tests, and the classes that they stand in


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    report = (yield).get_result()
    if report.failed:
        failed_nodes.update(node.nodeid for node in item.listchain()[1:])


def has_failed(node):
    """Whether the test, or one of its class, has failed."""
    return node.nodeid in failed_nodes


@pytest.fixture(scope='session')
def build():
    """The build directory under test."""
    folder = os.environ.get('VIRTIOFSD_BUILD')
    if not folder:
        pytest.fail('set VIRTIOFSD_BUILD to the build directory, or use tests/run')
    return os.path.realpath(folder)


@pytest.fixture(scope='session')
def binary(build):
    """The daemon under test."""
    return os.path.join(build, 'virtiofsd', 'virtiofsd')


@pytest.fixture(scope='session')
def extra_args():
    """Appended where the exact command line does not matter; under sanitizers these turn
    the sandbox off.
    """
    return os.environ.get('VIRTIOFSD_TEST_ARGS', '').split()


def _scratch_folder():
    # Short: the path of a socket has 107 bytes.
    return tempfile.mkdtemp(prefix='vfs-')


@pytest.fixture
def scratch():
    folder = _scratch_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope='class')
def class_scratch():
    """A scratch folder for the tests of one class, that share a guest."""
    folder = _scratch_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def share(scratch):
    folder = os.path.join(scratch, 'share')
    os.mkdir(folder)
    return folder


@pytest.fixture(autouse=True)
def _layout(request, monkeypatch):
    """What writes a split ring itself has one."""
    if request.node.get_closest_marker('split'):
        monkeypatch.delenv('VIRTIOFSD_TEST_RING', raising=False)


@pytest.fixture(params=['split', 'packed'])
def ring_layout(request, monkeypatch):
    """Each layout of the rings by turns, whatever the environment says."""
    monkeypatch.setenv('VIRTIOFSD_TEST_RING', request.param)
    return request.param


class Starter:
    """Starts daemons, ends those that a test leaves, and sees that none of them held more
    at the end of its session than at the beginning.
    """

    live = set()  # ids of all that any of us started

    def __init__(self, request, binary):
        self.binary = binary
        self.started = []
        self.watches = []
        self.node = request.node
        self.is_watching = request.node.get_closest_marker('unwatched') is None

    def __call__(self, how, share, folder, *args, **more):
        daemon = how(self.binary, share, folder, *args, **more)
        self.started.append(daemon)
        Starter.live.add(daemon.pid)
        if self.is_watching:
            self.watches.append(leaks.watch(daemon.socket_path, daemon))
        return daemon

    def leaks(self):
        """What the daemons hold too much, in words; a test that failed says nothing."""
        found = []
        for watch in self.watches:
            try:
                watch.finish()
            except AssertionError as words:
                found.append(str(words))
        return [] if has_failed(self.node) else found

    def left_behind(self):
        """Daemons that nobody started. LeakSanitizer looks at an ending one from a
        process of its own, which a moment later is gone, too.
        """
        deadline = time.monotonic() + 2
        while True:
            left = set(launch.processes_of(self.binary)) - Starter.live
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.01)

    def finish(self):
        leaking = self.leaks()
        for daemon in self.started:
            daemon.kill()
            Starter.live.discard(daemon.pid)
        left = self.left_behind()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert not left, f'daemons that nobody waits for: {left}'
        assert not leaking, '; '.join(leaking)


@pytest.fixture
def start(request, binary):
    """start(launch.kata_go, share, folder): a daemon that does not outlive the test."""
    starter = Starter(request, binary)
    yield starter
    starter.finish()


@pytest.fixture(scope='class')
def class_start(request, binary):
    starter = Starter(request, binary)
    yield starter
    starter.finish()


@pytest.fixture
def on(scratch):
    """on(kind, option of mkfs...): a new file system of that kind."""
    with contextlib.ExitStack() as undo:
        def make(kind, *options):
            return undo.enter_context(filesystems.made(
                kind, os.path.join(scratch, kind), None, *options))

        yield make


@pytest.fixture
def benchmark(build, scratch, extra_args):
    """benchmark(program, option..., peer=command): a run of tests/bench, and what it has
    recorded.
    """
    def run(program, *options, peer='', timeout=120):
        path = os.path.join(scratch, 'figures.json')
        done = subprocess.run(
            [os.path.join(TESTS, 'bench', program), '--json', path, *options],
            env=dict(os.environ, VIRTIOFSD_BUILD=build, VIRTIOFSD_PEER=peer,
                     VIRTIOFSD_TEST_ARGS=' '.join(extra_args), TMPDIR=scratch),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding='utf-8',
            timeout=timeout, check=False)
        with open(path, encoding='utf-8') as file:
            return done, json.load(file)

    return run


@pytest.fixture
def cases(record_property):
    """cases(n): that many more cases were tried; tests/hostile-table adds them up."""
    def count(n):
        record_property('cases', n)
    return count


@pytest.fixture
def plain(start, share, scratch, extra_args):
    """A daemon that serves and is ready."""
    daemon = start(launch.plain, share, scratch, extra_args)
    daemon.wait_ready()
    return daemon


class Guest:
    """A VMM with a FUSE client; its kernel tells supplementary groups."""

    def __init__(self, daemon, flags=fuse.LINUX_INIT_FLAGS | 1 << 34):
        self.daemon = daemon
        self.frontend = Frontend(daemon.socket_path)
        self.frontend.start()
        self.client = self.frontend.client(timeout_ms=10000)
        self.agreed = self.client.init(flags=flags).flags

    def close(self):
        self.frontend.close()


@pytest.fixture
def connect():
    """connect(daemon, flags): a guest that leaves when the test ends."""
    guests = []

    def make(daemon, *args, **more):
        guests.append(Guest(daemon, *args, **more))
        return guests[-1]

    yield make
    for guest in guests:
        guest.close()


@pytest.fixture
def serve(start, share, scratch, extra_args, connect):
    """serve('--option', ...): a daemon that is ready, and its guest."""

    def make(*args, **more):
        daemon = start(launch.plain, share, scratch, [*args, *extra_args])
        daemon.wait_ready()
        return connect(daemon, **more)

    return make


@pytest.fixture
def serve_crowd(start, share, scratch, extra_args):
    """serve_crowd('--option', ...): a guest that keeps no lookup longer than it says."""
    guests = []

    def make(*options):
        daemon = start(launch.plain, share, scratch, [*options, *extra_args])
        daemon.wait_ready()
        guests.append(crowd.Guest(daemon))
        return guests[-1]

    yield make
    for guest in guests:
        guest.close()


@pytest.fixture
def bridged(start, share, scratch, extra_args, build, monkeypatch):
    """bridged(option...): where the share is mounted on this host, served by a daemon of
    its own with these options. Unmounted afterwards, with nothing held and nothing
    malformed.
    """
    monkeypatch.setenv('VIRTIOFSD_BUILD', build)
    mounted = []

    def mount(*options, of=share):
        folder = os.path.join(scratch, f'bridged{len(mounted)}')
        target = os.path.join(folder, 'mount')
        os.mkdir(folder)
        if os.path.isfile(of):
            open(target, 'xb').close()
        else:
            os.mkdir(target)
        daemon = start(launch.plain, of, folder, [*options, *extra_args])
        daemon.wait_ready()
        bridge = bridges.Bridge(daemon.socket_path, target)
        mounted.append((daemon, bridge))
        bridge.wait_mounted()
        return target

    try:
        yield mount
        for daemon, bridge in reversed(mounted):
            assert bridge.unmount() == bridges.UNMOUNTED, bridge.log()
            assert daemon.wait() == 0
    finally:
        for _, bridge in mounted:
            bridge.__exit__()
