# SPDX-License-Identifier: Apache-2.0
"""The system calls of a daemon, as strace(1) sees them."""

import os
import re
import shutil
import subprocess

from process import eventually


class Strace:
    """strace on all threads of a daemon."""

    def __init__(self, daemon, folder, *args):
        self.path = os.path.join(folder, 'trace')
        self.process = subprocess.Popen(
            ['strace', '-f', '-qq', '-o', self.path, *args, '-p', str(daemon.pid)],
            stderr=subprocess.PIPE)
        eventually(lambda: all(
            'TracerPid:\t0' not in daemon.proc(f'task/{thread}/status')
            for thread in daemon.threads()))

    def calls(self):
        """The names of the calls so far; strace is gone afterwards."""
        self.stop()
        with open(self.path, encoding='utf-8', errors='replace') as file:
            texts = [line.split(None, 1)[1] for line in file]
        # What is resumed was counted when it began.
        return [text.split('(', 1)[0] for text in texts if re.match(r'\w+\(', text)]

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.process.stderr.close()


class Traced:
    """A program that becomes `binary` under the eyes of strace(1), from its first call to
    its last. The process keeps its id and its parent.
    """

    def __init__(self, binary, folder):
        self.path = os.path.join(folder, 'traced')
        self.output = os.path.join(folder, 'trace-of-all')
        # Whoever starts it may not enter the folder that it was built in.
        copy = shutil.copy(binary, os.path.join(folder, 'traced-program'))
        with open(self.output, 'w', encoding='ascii'):
            os.chmod(self.output, 0o666)  # whoever starts it
        with open(self.path, 'w', encoding='ascii') as file:
            file.write('#!/bin/sh\n'
                       f'exec strace -D -f -q -s 300 -o {self.output} {copy} "$@"\n')
        os.chmod(self.path, 0o755)

    def lines(self, pid):
        """All of a process that has ended: (thread, what it did)."""
        def read():
            with open(self.output, encoding='utf-8', errors='replace') as file:
                pairs = [line.split(None, 1) for line in file.read().splitlines()]
            # The last one may not be complete.
            return [(int(pair[0]), pair[1]) for pair in pairs if len(pair) == 2]
        eventually(lambda: any(line[0] == pid and line[1].startswith('+++')
                               for line in read()))
        return read()
