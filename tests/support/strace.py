# SPDX-License-Identifier: Apache-2.0
"""The system calls of a daemon, as strace(1) sees them."""

import os
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
            lines = [line.split(None, 1)[1] for line in file if '(' in line]
        return [line.split('(', 1)[0] for line in lines]

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.process.stderr.close()
