# SPDX-License-Identifier: Apache-2.0
"""How soon a daemon is ready, and how much memory it has: idle, and for each inode that
the guest knows.
"""

import contextlib
import os
import signal
import statistics
import struct
import subprocess
import tempfile
import time

import contest
import report
import share
from daemon import READY, Daemon
from frontend import ROOT, Frontend
from process import Observed

_STAMP = struct.Struct('=q')


def _until_ready(process):
    """Read what it says until it is ready; when that was."""
    said = b''
    while READY.lower() not in said.lower():
        more = os.read(process.stdout.fileno(), 4096)
        if not more:
            raise contest.NotRun(f'has ended: {said.decode(errors="replace")}')
        said += more
    return time.monotonic_ns()


def _end(process):
    """QEMU's daemon does not end on SIGTERM while it waits; virtiofsd in Rust leaves its
    child behind.
    """
    for pid in (*map(int, Observed(process.pid).children()), process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def ready_ms(command, folder):
    """From exec(2) to the line that tells that the socket is there."""
    with tempfile.TemporaryDirectory(prefix='virtiofsd-start-') as place:
        words = [word.replace('{share}', folder).replace(
            '{socket}', os.path.join(place, 'vfs.sock')) for word in command]
        came, stamp = os.pipe()
        with os.fdopen(came, 'rb') as came, subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, preexec_fn=lambda: os.write(
                    stamp, _STAMP.pack(time.monotonic_ns()))) as process:
            os.close(stamp)
            try:
                return (_until_ready(process)
                        - _STAMP.unpack(came.read(_STAMP.size))[0]) / 1e6
            finally:
                _end(process)


def _memory(pids, *kinds):
    """Bytes that are resident."""
    return sum(int(Observed(pid).proc_field(kind).split()[0]) << 10
               for pid in pids for kind in kinds)


def memory(command, folder, entries):
    """What it has after INIT, and what it takes for each of the inodes."""
    with contextlib.ExitStack() as stack:
        try:
            daemon = stack.enter_context(Daemon(
                [word.replace('{share}', folder) for word in command]))
            daemon.wait_ready()
            pids = [daemon.pid, *map(int, daemon.children())]
            frontend = stack.enter_context(Frontend(daemon.socket_path))
            frontend.start()
            client = frontend.client()
            client.init()
            resident = _memory(pids, 'RssAnon', 'RssFile')  # the guest's is neither
            anonymous = _memory(pids, 'RssAnon')
            directory = client.lookup(ROOT, share.directory(entries).encode()).nodeid
            for i in range(entries):
                client.lookup(directory, b'f%07d' % i)
            growth = _memory(pids, 'RssAnon') - anonymous
        except (OSError, RuntimeError) as why:
            raise contest.NotRun(str(why)) from why
    return {'resident': resident, 'anonymous': anonymous, 'processes': len(pids),
            'known': entries, 'each': growth / entries}


class Start:
    """figures[name]: what came of it."""

    def __init__(self, event, starts, entries):
        self.event = event
        self.starts = starts
        self.entries = entries
        self.figures = {name: {'ready_ms': []} for name in event.commands}

    def run(self):
        commands, folder = dict(self.event.commands), self.event.share
        for number in range(self.starts):
            for name, took in self.event.each(
                    commands, number, 'start', lambda command: ready_ms(command, folder)):
                self.figures[name]['ready_ms'].append(took)
        for name, found in self.event.each(
                commands, 0, 'memory',
                lambda command: memory(command, folder, self.entries)):
            self.figures[name].update(found)

    def table(self):
        """A column for each daemon."""
        able = {name: found for name, found in self.figures.items()
                if found['ready_ms'] and 'each' in found}
        lines = report.Table(['', *able])
        lines.add(['ready, ms', *(report.span(found['ready_ms'])
                                  for found in able.values())])
        for title, figure, unit in (('resident after INIT, MiB', 'resident', 1 << 20),
                                    ('anonymous, MiB', 'anonymous', 1 << 20),
                                    ('processes', 'processes', 1),
                                    ('for each known inode, bytes', 'each', 1)):
            lines.add([title, *(report.number(found[figure] / unit)
                                for found in able.values())])
        return str(lines)

    def ratios(self):
        """Ours to each of the others, of the medians."""
        ours, *others = self.figures
        median = {name: statistics.median(found['ready_ms'])
                  for name, found in self.figures.items() if found['ready_ms']}
        return ', '.join(f'ready to {name} {median[ours] / median[name]:.2f}'
                         for name in others if name in median and ours in median)
