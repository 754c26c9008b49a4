# SPDX-License-Identifier: Apache-2.0
"""An ordinary user who starts the daemon: his home, his ids, and mounts for a test."""

import contextlib
import ctypes
import os

import pytest

import launch

USER = launch.USER
# Ids that nobody on this machine has.
SUB, N_SUB = 700000, 65536
OWN = ('--uid-map=:0:1000:1:', '--gid-map=:0:1000:1:')
RANGES = (*OWN, f'--uid-map=:1:{SUB}:{N_SUB}:', f'--gid-map=:1:{SUB}:{N_SUB}:')
OTHERS = (f'--uid-map=:0:{SUB}:{N_SUB}:', f'--gid-map=:0:{SUB}:{N_SUB}:')
MS_BIND = 4096

needs_helpers = pytest.mark.skipif(
    not (os.path.exists('/usr/bin/newuidmap') and os.path.exists('/etc/subuid')),
    reason='needs newuidmap and newgidmap')


def bind(source, target):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(os.fsencode(source), os.fsencode(target), None, MS_BIND, None) != 0:
        raise OSError(ctypes.get_errno(), 'cannot mount', target)


def unmount(target):
    """At once, whoever uses it."""
    ctypes.CDLL(None).umount2(os.fsencode(target), 2)


@contextlib.contextmanager
def system_files(scratch):
    """The user and his ids, in files that only this process and its children see."""
    texts = {'/etc/passwd': f'root:x:0:0::/:/bin/sh\ntester:x:{USER}:{USER}::/:/bin/sh\n',
             '/etc/subuid': f'tester:{SUB}:{N_SUB}\n',
             '/etc/subgid': f'tester:{SUB}:{N_SUB}\n'}
    folder = os.path.join(scratch, 'etc')
    os.mkdir(folder)
    with contextlib.ExitStack() as undo:
        for target, text in texts.items():
            source = os.path.join(folder, os.path.basename(target))
            with open(source, 'w', encoding='ascii') as file:
                file.write(text)
            os.chmod(source, 0o644)
            bind(source, target)
            undo.callback(unmount, target)
        yield


def own_folder(parent, name, mode=0o755):
    """A folder of the user's."""
    folder = os.path.join(parent, name)
    os.mkdir(folder, mode)
    os.chown(folder, USER, USER)
    return folder


def make_home(scratch):
    """A folder of the user's that nobody else may enter."""
    os.chmod(scratch, 0o755)
    return own_folder(scratch, 'home', 0o700)
