# SPDX-License-Identifier: Apache-2.0
"""A process that a test started, by its id: what it holds, and what becomes of it."""

import contextlib
import os
import select
import signal
import time


def is_readable(fd, timeout=None):
    """Wait until it is, or so many seconds have passed. select() knows no descriptor from
    1024 on.
    """
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if timeout is None else timeout * 1000))


class Snapshot:
    """What a process holds: descriptors by what they refer to, threads, memory.

    Memory is what only the process has; pages of guest memory and of files come and go
    with what others do.
    """

    def __init__(self, process):
        self.descriptors = process.descriptors()
        self.threads = len(process.threads())
        self.anonymous_kib = int(process.proc_field('RssAnon').split()[0])

    def held(self):
        """What the descriptors refer to, whatever their numbers."""
        return sorted(self.descriptors.values())

    def difference(self, later, slack_kib):
        """Words for what the later one has more or less; empty if nothing."""
        words = []
        gone, come = self.held(), later.held()
        for what in list(gone):
            if what in come:
                gone.remove(what)
                come.remove(what)
        if gone or come:
            words.append(f'descriptors gone {gone}, come {come}')
        if self.threads != later.threads:
            words.append(f'{self.threads} threads became {later.threads}')
        if later.anonymous_kib > self.anonymous_kib + slack_kib:
            words.append(f'{self.anonymous_kib} KiB became {later.anonymous_kib} KiB')
        return '; '.join(words)


class Observed:
    """Any process, as /proc shows it."""

    def __init__(self, pid):
        self.pid = pid

    def proc(self, name):
        """The text of /proc/<pid>/<name>."""
        with open(f'/proc/{self.pid}/{name}', encoding='utf-8') as file:
            return file.read()

    def proc_field(self, name):
        """One field of /proc/<pid>/status."""
        for line in self.proc('status').splitlines():
            if line.startswith(f'{name}:'):
                return line.split(':', 1)[1].strip()
        raise KeyError(name)

    def descriptors(self):
        """{number: what it refers to}."""
        folder, found = f'/proc/{self.pid}/fd', {}
        for number in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found[int(number)] = os.readlink(f'{folder}/{number}')
        return found

    def threads(self):
        return [int(name) for name in os.listdir(f'/proc/{self.pid}/task')]

    def children(self):
        found = []
        for thread in self.threads():
            found += self.proc(f'task/{thread}/children').split()
        return found

    def cpu_seconds(self):
        """User and system time of all threads."""
        fields = self.proc('stat').rpartition(')')[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


class Process(Observed):
    """A process that we started."""

    def __init__(self, pid):
        super().__init__(pid)
        self.pidfd = os.pidfd_open(pid)
        self.status = None  # exit status, or minus the signal

    def wait(self, timeout=10):
        """The exit status; raises TimeoutError."""
        if self.status is None:
            if not is_readable(self.pidfd, timeout):
                raise TimeoutError(f'process {self.pid} still runs after {timeout} s')
            _, status = os.waitpid(self.pid, 0)
            self.status = os.waitstatus_to_exitcode(status)
            os.close(self.pidfd)
        return self.status

    def is_alive(self):
        if self.status is not None:
            return False
        try:
            self.wait(0)
        except TimeoutError:
            return True
        return False

    def signal(self, number):
        if self.status is None:
            signal.pidfd_send_signal(self.pidfd, number)

    def kill(self):
        """What Kata does to its daemon."""
        self.signal(signal.SIGKILL)
        return self.wait()


def eventually(condition, timeout=5, interval=0.02):
    """Poll until the condition holds; its value."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, 'did not happen in time'
        time.sleep(interval)
