# SPDX-License-Identifier: Apache-2.0
"""What is left of the host in a running daemon, in words: `audit.py PID`, as root.

It is stopped for a moment, and asked from inside what /proc does not show.
"""

import os
import struct
import subprocess
import sys

import inject
from process import Observed

SETS = ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb')
KEPT = ('chown', 'dac_override', 'fowner', 'fsetid', 'setgid', 'setuid', 'mknod',
        'setfcap')
FIELDS = ('Uid', 'Gid', 'Groups', *SETS, 'NoNewPrivs', 'Seccomp', 'Threads')
LIMITS = ('Max core file size', 'Max processes', 'Max open files')
LIST = os.O_RDONLY | os.O_DIRECTORY


def limits(daemon):
    """{name: [soft, hard]}."""
    return {line[:26].strip(): line[26:].split()[:2]
            for line in daemon.proc('limits').splitlines()}


def folders(daemon):
    """Numbers of its descriptors of directories."""
    return [number for number in daemon.descriptors()
            if os.path.isdir(f'/proc/{daemon.pid}/fd/{number}')]


def procfd(daemon):
    """The number of its descriptor of the folder of descriptors."""
    return next(number for number in folders(daemon) if all(
        name.isdigit() for name in os.listdir(f'/proc/{daemon.pid}/fd/{number}')))


def can_list(daemon, numbers):
    """Which of its directories it can read: {number: 0 or a negative errno}."""
    how = struct.pack('=QQQ', LIST, 0, 0)

    def attempt(call):
        found = {}
        for number in numbers:
            opened = call('openat2', number, b'.\0', how, len(how))
            found[number] = min(opened, 0)
            if opened >= 0:
                call('close', opened)
        return found
    return inject.run(daemon.pid, attempt)


def has_landlock(daemon):
    """Nothing but Landlock refuses a process the list of its own descriptors."""
    own = procfd(daemon)
    return can_list(daemon, [own])[own] != 0


def may_attach(daemon):
    """Somebody as powerful as the daemon, and no more? Links in /proc are for whoever may
    attach.
    """
    user = daemon.proc_field('Uid').split()[0]
    who = ['--bounding-set', '-all,' + ','.join(f'+{name}' for name in KEPT)]
    if user != '0':
        who = ['--reuid', user, '--regid', user, '--clear-groups']
    done = subprocess.run(['setpriv', *who, 'readlink', f'/proc/{daemon.pid}/exe'],
                          check=False, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL)
    return done.returncode == 0


def own_namespaces(daemon):
    """Names of those that it does not share with us."""
    def identity(pid, name):
        found = os.stat(f'/proc/{pid}/ns/{name}')
        return found.st_dev, found.st_ino
    return sorted(name for name in os.listdir('/proc/self/ns')
                  if identity('self', name) != identity(daemon.pid, name))


def report(daemon):
    """Lines, each with a name and a value."""
    lines = [f'{name}: {daemon.proc_field(name)}' for name in FIELDS]
    lines += [f'{name}: {" ".join(limits(daemon)[name])}' for name in LIMITS]
    lines.append(f'dumpable: {"yes" if may_attach(daemon) else "no"}')
    landlock = has_landlock(daemon) if inject.IS_POSSIBLE else None
    lines.append(f'Landlock: {({True: "yes", False: "no"}).get(landlock, "unknown")}')
    lines.append(f'own namespaces: {" ".join(own_namespaces(daemon))}')
    for name in ('root', 'cwd'):
        found = os.stat(f'/proc/{daemon.pid}/{name}')
        lines.append(f'{name}: inode {found.st_ino} of device {found.st_dev:#x}')
    for line in daemon.proc('mountinfo').splitlines():
        fields = line.split()
        lines.append(f'mount: {fields[4]} ({fields[5]})')
    for number, what in sorted(daemon.descriptors().items()):
        lines.append(f'descriptor {number}: {what}')
    return lines


if __name__ == '__main__':
    print('\n'.join(report(Observed(int(sys.argv[1])))))
